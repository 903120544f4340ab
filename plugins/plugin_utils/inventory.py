# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what the registry says to hosts, groups and variables. No I/O, no clock. Private to the collection.

A row that cannot be a host is left out with a warning: an error here would take the whole inventory away, and a run
without hosts ends with exit status 0.
"""

from __future__ import annotations

import ipaddress
import re
import typing as t
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from ansible_collections.elephaas.herd.plugins.module_utils.decide import names
from ansible_collections.elephaas.herd.plugins.module_utils.decide.filters import (
    EVERYTHING,
    Filters,
    has_dr_pair,
    unknown_names,
)
from ansible_collections.elephaas.herd.plugins.module_utils.decide.version import major_version
from ansible_collections.elephaas.herd.plugins.module_utils.decide.words import quoted
from ansible_collections.elephaas.herd.plugins.plugin_utils.trust import Marker

FORMAT = 1
"""The version of the inventory document that this code reads."""

ANCHOR_GROUPS = ("leads", "former_leads", "dr_pairs")
STANDARD_GROUPS = ("primaries", "replicas", "online", "offline", "instances", "servers", *ANCHOR_GROUPS)
"""Groups that are always there, even without a host, so that a playbook can name them in `groups`."""

CONNECTION_GROUPS = {
    "instances": {"ansible_host_key_checking": True, "ansible_ssh_pipelining": True},
    "servers": {"ansible_host_key_checking": True, "ansible_ssh_pipelining": True},
}
"""On groups, not on hosts, so that group_vars of the user may say otherwise. Variables win over AWX's environment."""

MEMBER_FIELDS = (
    "role", "port", "pgdata", "version", "vhost", "lag_bytes", "is_online", "last_seen", "system_identifier",
    "timeline", "lsn", "os_user", "control", "replication_user", "priority", "base_name", "hold_reason", "hold_by",
    "hold_since",
)  # fmt: skip

# What ends up as an argument of ssh must not look like an option, and must be one word (ssh(1), RFC 952, RFC 1123).
_HOST_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}\Z")
_USER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,127}\Z")

Row = t.Mapping[str, t.Any]
HerdKey = tuple[str, str]


class DocumentError(ValueError):
    """The document as a whole cannot be read; says why."""


@dataclass
class Model:
    """An inventory: host -> variables, group -> hosts, group -> variables; and what was left out, in words."""

    hosts: dict[str, dict[str, t.Any]] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)
    group_variables: dict[str, dict[str, t.Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def connection_problem(host: object, port: object, user: object) -> str | None:
    """Why ssh must not be given these; None when it may."""
    if not isinstance(host, str) or not (_HOST_NAME.match(host) or _is_address(host)):
        return f"{quoted(host)} is not a host name or an address"
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        return f"{quoted(port)} is not a port (1 to 65535)"
    if not isinstance(user, str) or not _USER_NAME.match(user):
        return f"{quoted(user)} is not a user name"
    return None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    # A zone may hold anything (RFC 4007): only an interface name is meant.
    return "%" not in text or _HOST_NAME.match(text.partition("%")[2]) is not None


def lead_of(members: t.Mapping[str, Row], operation: Row | None) -> str:
    """The server that stands for the herd: one and only one, whatever the records say.

    members: server name -> row, not empty. operation: the open or incomplete one, if any. While it is not closed, the
    herd stays addressable through the server it moves away from; else through its recorded primary. When none or
    several are recorded, always through the same member.
    """
    if operation and operation.get("from_server") in members:
        return t.cast(str, operation["from_server"])
    primaries = [server for server, row in members.items() if row.get("role") == "primary"]
    return min(primaries or members)


def former_lead_of(members: t.Mapping[str, Row], failover: Row | None, lead: str) -> str | None:
    """The server whose herd has just moved away from it, so that the same command under the same limit finds the herd.

    failover: the newest closed one. Only one that was finished and still describes the herd counts.
    """
    if not failover or failover.get("state") != "done" or failover.get("to_server") != lead:
        return None
    server = failover.get("from_server")
    return server if server in members and server != lead else None


def build(document: Row, filters: Filters = EVERYTHING) -> Model:
    """Return the inventory of this document. Raises DocumentError when it is not one, never for a single row.

    Every member's variables name all members of its herd, also those that a filter or a bad row keeps out of the hosts:
    nobody may take what a filter shows for the whole herd.
    """
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise DocumentError(f"this is not an inventory document of format {FORMAT}")
    return _Builder(document, filters).build()


class _Builder:
    """One pass over a document. Row order does not matter: everything is sorted by name."""

    def __init__(self, document: Row, filters: Filters) -> None:
        self.document = document
        self.filters = filters
        self.mark = Marker()
        self.model = Model(groups={group: [] for group in STANDARD_GROUPS})
        self.members: dict[HerdKey, dict[str, Row]] = defaultdict(dict)
        self.unusable: dict[HerdKey, list[str]] = defaultdict(list)
        self.unclosed: dict[HerdKey, Row] = {}
        self.failovers: dict[HerdKey, Row] = {}
        self.owners: dict[str, tuple[str, ...]] = {}
        self.refused_groups: set[tuple[str, t.Any]] = set()
        self.name_problems: dict[str, str | None] = {}

    def build(self) -> Model:
        servers = self._readable("servers", ("server", "environment"))
        instances = self._readable("instances", ("herd", "environment", "server"))
        self._claim(servers, instances)
        servers = [row for row in servers if self._owns(row["server"], ("server", row["server"]))]
        for row in instances:
            self.members[(row["herd"], row["environment"])][row["server"]] = row
        self._sort_operations()
        for key in sorted(self.members):
            self._add_herd(key)
        self._add_servers(servers, Counter(row["server"] for row in instances))
        for problem in unknown_names(self.filters, [*servers, *instances]):
            # Not an error: that would take the whole inventory away, and a run without hosts ends with status 0.
            self.model.warnings.append(f"Filter {problem}")
        self.model.groups = {group: sorted(hosts) for group, hosts in self.model.groups.items()}
        self.model.group_variables = {
            **CONNECTION_GROUPS,
            "all": {"elephaas_inventory_read_at": self.mark.data(self.document.get("read_at"))},
        }
        return self.model

    def _warn(self, what: str, problem: str) -> None:
        self.model.warnings.append(f"{what} is left out of the inventory: {problem}")

    def _readable(self, kind: str, keys: tuple[str, ...]) -> list[Row]:
        """The rows whose names are names, by name."""
        rows = self.document.get(kind)
        if not isinstance(rows, list):
            raise DocumentError(f"its {kind} are not a list")
        good = []
        for row in rows:
            if not isinstance(row, dict):
                self._warn(f"One of the {kind}", "the row cannot be read")
                continue
            problems = {key: problem for key in keys if (problem := self._name_problem(row.get(key)))}
            if problems:
                said = "; ".join(f"{key} {quoted(row.get(key))} {problem}" for key, problem in problems.items())
                self._warn(f"One of the {kind}", said)
                if list(problems) == ["server"] and "herd" in keys:
                    # Its herd must still be seen to have this member, or it would be operated on as if it had not.
                    herd = (row["herd"], row["environment"])
                    self.unusable[herd].append(names.instance_name(*herd, str(row["server"])))
            else:
                good.append(row)
        return sorted(good, key=lambda row: [row[key] for key in keys])

    def _name_problem(self, value: t.Any) -> str | None:
        if not isinstance(value, str):
            return names.name_problem(value)
        if value not in self.name_problems:
            self.name_problems[value] = names.name_problem(value)
        return self.name_problems[value]

    def _claim(self, servers: list[Row], instances: list[Row]) -> None:
        """Give every name of the inventory one owner, as the registry does: who comes first keeps it."""
        for group in names.FIXED_GROUPS:
            self.owners[group] = ("fixed",)
        for row in (*servers, *instances):
            self.owners.setdefault(names.environment_group(row["environment"]), ("environment", row["environment"]))
            if self._has_place(row):
                self.owners.setdefault(names.datacenter_group(row["datacenter"]), ("datacenter", row["datacenter"]))
            self.owners.setdefault(names.server_group(row["server"]), ("instances of", row["server"]))
        for row in instances:
            key = (row["herd"], row["environment"])
            self.owners.setdefault(names.herd_group(*key), ("herd", *key))
        for row in servers:
            self.owners.setdefault(row["server"], ("server", row["server"]))

    def _has_place(self, row: Row) -> bool:
        """Whether a group can be named after this row's data center."""
        datacenter = row.get("datacenter")
        if datacenter is None:
            return False
        problem = self._name_problem(datacenter)
        about = ("datacenter", quoted(datacenter))
        if problem and about not in self.refused_groups:
            self.refused_groups.add(about)
            self.model.warnings.append(f"No group is made for data center {about[1]}: it {problem}")
        return problem is None

    def _owns(self, name: str, owner: tuple[str, ...]) -> bool:
        if names.reserved_problem(name) is None and self.owners.get(name) == owner:
            return True
        self._warn(
            f"{owner[0].capitalize()} {'_'.join(owner[1:])}",
            f"its inventory name {name!r} is already taken or reserved",
        )
        return False

    def _sort_operations(self) -> None:
        for row in sorted(self._operation_rows(), key=lambda row: str(row.get("started") or "")):
            key = (row["herd"], row["environment"])
            if row.get("state") in ("open", "incomplete"):
                self.unclosed[key] = row
            else:
                # Only what was finished or undone after an incomplete operation closes it; an open one is never older.
                if row.get("state") in ("done", "aborted") and self.unclosed.get(key, row).get("state") == "incomplete":
                    del self.unclosed[key]
            if row.get("verb") == "failover" and row.get("state") != "open":
                self.failovers[key] = row

    def _operation_rows(self) -> t.Iterator[Row]:
        for row in self.document.get("operations") or ():
            if isinstance(row, dict) and all(isinstance(row.get(key), str) for key in ("herd", "environment")):
                ends = {key: row[key] for key in ("from_server", "to_server") if isinstance(row.get(key), str)}
                yield {**row, "from_server": None, "to_server": None, **ends}

    def _add_herd(self, key: HerdKey) -> None:
        members = self.members[key]
        group = names.herd_group(*key)
        if not self._owns(group, ("herd", *key)):
            return
        lead = lead_of(members, self.unclosed.get(key))
        former = None if key in self.unclosed else former_lead_of(members, self.failovers.get(key), lead)
        hosts = {server: names.instance_name(*key, server) for server in members}
        values = {server: self.mark.text(host) for server, host in hosts.items()}
        shared = {
            "elephaas_kind": self.mark.text("instance"),
            "elephaas_herd": self.mark.text(key[0]),
            "elephaas_environment": self.mark.text(key[1]),
            "elephaas_herd_group": self.mark.text(group),
            "elephaas_members": sorted([*values.values(), *map(self.mark.text, self.unusable[key])]),
            "elephaas_operation": self._operation(self.unclosed.get(key), values),
            "elephaas_last_failover": self._operation(self.failovers.get(key), values),
        }
        if self.filters.without_dr_pair:
            paired = has_dr_pair(row.get("datacenter") for row in members.values())
            members = {server: {**row, "dr_pair": paired} for server, row in members.items()}
        for server, row in members.items():
            name = hosts[server]
            if not self.filters.takes_instance(row) or not self._add_host(name, f"Instance {name}", row, shared):
                continue
            variables = self.model.hosts[name]
            upstream = row.get("upstream_server")
            variables["elephaas_upstream"] = values.get(upstream) if isinstance(upstream, str) else None
            for field_name in MEMBER_FIELDS:
                variables[f"elephaas_{field_name}"] = self.mark.data(row.get(field_name))
            self._group_instance(name, group, row)
            if server == lead:
                self._join(name, "leads")
                if len(members) > 1:
                    self._join(name, "dr_pairs")
            if server == former:
                self._join(name, "former_leads")

    def _operation(self, row: Row | None, values: dict[str, t.Any]) -> dict[str, t.Any] | None:
        if row is None:
            return None
        known = {
            key: self.mark.data(row.get(key))
            for key in (
                "verb",
                "state",
                "token",
                "plan_id",
                "operator",
                "lease_until",
                "started",
                "finished",
                "unplanned",
            )
        }
        known["from"] = values.get(row["from_server"])
        known["to"] = values.get(row["to_server"])
        return known

    def _add_host(self, name: str, what: str, row: Row, shared: dict[str, t.Any]) -> bool:
        """Add the host with what an instance and a server have in common; False when it cannot be reached safely."""
        address = row.get("address") or row["server"]
        problem = connection_problem(address, row.get("ssh_port"), row.get("ssh_user"))
        if problem:
            self._warn(what, problem)
            return False
        text = self.mark.data
        self.model.hosts[name] = {
            "ansible_host": text(address),
            "ansible_port": row["ssh_port"],
            "ansible_user": text(row["ssh_user"]),
            **shared,
            "elephaas_protected": bool(row.get("protected")),
            "elephaas_datacenter": text(row.get("datacenter")),
            "elephaas_server": text(row["server"]),
            "elephaas_address": text(address),
            "elephaas_dns_name": text(row.get("dns_name")),
        }
        return True

    def _join(self, name: str, group: str) -> None:
        self.model.groups.setdefault(group, []).append(name)

    def _join_owned(self, name: str, group: str, owner: tuple[str, ...]) -> None:
        """Join a group unless it belongs to something else: then its other members would be acted on as well."""
        if self.owners.get(group) == owner:
            self._join(name, group)
        elif (group, owner) not in self.refused_groups:
            self.refused_groups.add((group, owner))
            self.model.warnings.append(f"Group {group} is not made for {' '.join(owner)}: its name is already taken")

    def _group_place(self, name: str, row: Row) -> None:
        self._join_owned(name, names.environment_group(row["environment"]), ("environment", row["environment"]))
        if self._has_place(row):
            self._join_owned(name, names.datacenter_group(row["datacenter"]), ("datacenter", row["datacenter"]))
        self._join_owned(name, names.server_group(row["server"]), ("instances of", row["server"]))

    def _group_instance(self, name: str, group: str, row: Row) -> None:
        self._join(name, "instances")
        self._join(name, group)
        self._group_place(name, row)
        major = major_version(row.get("version"))
        if major:
            self._join(name, names.VERSION_PREFIX + major)
        if row.get("role") == "primary":
            self._join(name, "primaries")
        elif row.get("role") == "replica":
            self._join(name, "replicas")
        if isinstance(row.get("is_online"), bool):
            self._join(name, "online" if row["is_online"] else "offline")

    def _add_servers(self, servers: list[Row], hosted: t.Mapping[str, int]) -> None:
        wanted = Counter(variables["elephaas_server"] for variables in self.model.hosts.values())
        for row in servers:
            if not self.filters.takes_server(row, hosted.get(row["server"], 0), wanted[row["server"]]):
                continue
            shared = {
                "elephaas_kind": self.mark.text("server"),
                "elephaas_environment": self.mark.text(row["environment"]),
            }
            if self._add_host(row["server"], f"Server {row['server']}", row, shared):
                self._join(row["server"], "servers")
                self._group_place(row["server"], row)
