# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fleet files: the one form that describes a fleet to people, to the registry and to the lab.

Private to the collection. A I(document) is what a person writes, much of it optional; a I(fleet) is the same with
everything filled in, in this shape::

    {"environments": {name: {"protected": bool, "description": str|None}},
     "datacenters":  {name: {"networks": [CIDR, ...], "description": str|None}},
     "servers":      {name: {"environment", "address"|None, "datacenter"|None, "ssh_port", "ssh_user",
                             "dns_name"|None}},
     "herds":        [{"name", "environment", "port", "pgdata", "vhost"|None, "description"|None, "os_user", "control",
                       "replication_user"|None, "base_name",
                       "members": [{"server", "role", "upstream"|None, "port", "pgdata", "priority"}]}]}

A member's port and pgdata are the effective ones (its own, or the herd's).
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from typing import Any, Callable, Dict, Iterable, Tuple, Union

from ansible_collections.elephaas.herd.plugins.module_utils.decide import names
from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.words import (
    CONTROL_CHARACTERS,
    UNSTORABLE,
    quoted,
)

DEFAULT_PORT = 5432
DEFAULT_SSH_PORT = 22
DEFAULT_USER = "postgres"
CONTROLS = ("auto", "pg_ctl", "pg_ctlcluster")
ROLES = ("primary", "replica", "detached", "superseded")

_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\Z")
# RFC 1123, section 2.1, and the underscore that private zones use.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?\Z")
_DIGITS = re.compile(r"[0-9]{1,6}\Z")
# The name of an interface, behind the % of a link-local address (RFC 4007 allows anything there).
_ZONE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")

# PostgreSQL's programs cut off what is longer (MAXPGPATH, less the names of files in it).
_MAX_PATH_BYTES = 900

Fleet = Dict[str, Any]
_Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]


class _BadValue(Exception):
    """What is allowed, for a value that is not."""


class _Problems:
    """Collects everything wrong with a document, so that a person mends it in one go."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, path: str, problem: str) -> None:
        self.found.append(f"{path}: {problem}")

    def bad(self, path: str, value: object, allowed: str) -> None:
        self.add(path, f"{quoted(value)} is not valid; allowed: {allowed}")

    def raise_if_any(self) -> None:
        if self.found:
            count = "1 problem" if len(self.found) == 1 else f"{len(self.found)} problems"
            raise OperatorError(
                "FLEET_INVALID",
                f"The fleet has {count}: " + "; ".join(self.found) + ".",
                "Correct these places and run again; nothing was changed.",
                {"problems": list(self.found)},
            )


# -- one function per kind of value: returns it normalised, or raises _BadValue(what is allowed) ----------------------


def _text(value: object) -> str:
    if not isinstance(value, str) or UNSTORABLE.search(value):
        raise _BadValue("text that UTF-8 can hold, without NUL")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise _BadValue("true or false")
    return value


def _number(low: int, high: int) -> Callable[[object], int]:
    def number(value: object) -> int:
        if isinstance(value, str) and _DIGITS.match(value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _BadValue(f"a whole number from {low} to {high}")
        return value

    return number


def _directory(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/") or CONTROL_CHARACTERS.search(value):
        raise _BadValue("an absolute path, such as /var/lib/postgresql/15/main")
    path = posixpath.normpath(value)
    # POSIX leaves the meaning of exactly two leading slashes open; normpath keeps them.
    path = "/" + path.lstrip("/")
    if len(path.encode()) > _MAX_PATH_BYTES:
        raise _BadValue(f"an absolute path of at most {_MAX_PATH_BYTES} bytes")
    if path == "/" or ".." in value.split("/"):
        raise _BadValue("an absolute path without '..', not the root directory")
    return path


def _user(value: object) -> str:
    if not isinstance(value, str) or not _USER.match(value):
        raise _BadValue("an account name (letters, digits, '_', '.', '-', starting with a letter or '_')")
    return value


def _role_name(value: object) -> str:
    if not isinstance(value, str) or not value or CONTROL_CHARACTERS.search(value) or len(value.encode()) > 63:
        raise _BadValue("a PostgreSQL role name of at most 63 bytes")
    return value


def _host(value: object) -> str:
    if not isinstance(value, str) or not _HOST.match(value):
        raise _BadValue("a DNS name (letters, digits, '-', '_', '.')")
    return value


def _address(value: object) -> str:
    if isinstance(value, str):
        try:
            address = str(ipaddress.ip_address(value))
            if "%" not in address or _ZONE.match(address.partition("%")[2]):
                return address
        except ValueError:
            # Something of digits and dots only is a mistyped address, not a name.
            if _HOST.match(value) and re.search(r"[A-Za-z]", value):
                return value
    raise _BadValue("an IPv4 or IPv6 address, or a DNS name")


def _choice(allowed: Iterable[str]) -> Callable[[object], str]:
    options = tuple(allowed)

    def choice(value: object) -> str:
        if not isinstance(value, str) or value not in options:
            raise _BadValue(" or ".join(options))
        return value

    return choice


def _networks(value: object) -> list[str]:
    if not isinstance(value, list):
        raise _BadValue("a list of networks such as 10.10.0.0/16")
    result = []
    for item in value:
        try:
            result.append(str(ipaddress.ip_network(_text(item))))
        except (ValueError, _BadValue):
            raise _BadValue(
                f"a list of networks such as 10.10.0.0/16, without host bits ({quoted(item)} is none)"
            ) from None
    return result


def _name(value: object) -> str:
    if names.name_problem(value):
        raise _BadValue(names.NAME_RULE)
    return str(value)


_REQUIRED = object()
# Per kind: key -> (how to read a value, default when it is absent or null).
_Keys = Dict[str, Tuple[Callable[[object], Any], Any]]
_ENVIRONMENT: _Keys = {"protected": (_flag, False), "description": (_text, None)}
_DATACENTER: _Keys = {"networks": (_networks, ()), "description": (_text, None)}
_SERVER: _Keys = {
    "environment": (_name, _REQUIRED),
    "address": (_address, None),
    "datacenter": (_name, None),
    "ssh_port": (_number(1, 65535), DEFAULT_SSH_PORT),
    "ssh_user": (_user, DEFAULT_USER),
    "dns_name": (_host, None),
}
_HERD: _Keys = {
    "name": (_name, _REQUIRED),
    "environment": (_name, _REQUIRED),
    "port": (_number(1, 65535), DEFAULT_PORT),
    "pgdata": (_directory, _REQUIRED),
    "vhost": (_host, None),
    "description": (_text, None),
    "os_user": (_user, DEFAULT_USER),
    "control": (_choice(CONTROLS), "auto"),
    "replication_user": (_role_name, None),
    "base_name": (_name, None),
}
_MEMBER: _Keys = {
    "server": (_name, _REQUIRED),
    "role": (_choice(ROLES), None),
    "upstream": (_name, None),
    "pgdata": (_directory, None),
    "port": (_number(1, 65535), None),
    "priority": (_number(0, 1000), 0),
}


def _read_keys(
    item: object, keys: _Keys, path: str, problems: _Problems, others: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The values of one thing, defaults filled in; None where a value was wrong (already reported)."""
    result: dict[str, Any] = {}
    if item is None:
        item = {}
    if not isinstance(item, dict):
        problems.bad(path, item, "a mapping with the keys " + ", ".join(keys))
        item = {}
        keys = {key: (read, None if default is _REQUIRED else default) for key, (read, default) in keys.items()}
    for key in item:
        if key not in keys and key not in others:
            problems.add(f"{path}.{key}", "unknown key; allowed: " + ", ".join((*keys, *others)))
    for key, (read, default) in keys.items():
        value = item.get(key)
        if value is None and default is _REQUIRED:
            problems.add(f"{path}.{key}", "is missing")
            result[key] = None
            continue
        if value is None:
            result[key] = list(default) if isinstance(default, tuple) else default
            continue
        try:
            result[key] = read(value)
        except _BadValue as bad:
            problems.bad(f"{path}.{key}", value, str(bad))
            result[key] = None
    return result


def _read_named(document: dict[str, Any], section: str, keys: _Keys, problems: _Problems) -> dict[str, dict[str, Any]]:
    items = document.get(section)
    if items is None:
        return {}
    if not isinstance(items, dict):
        problems.bad(section, items, "a mapping of names")
        return {}
    result = {}
    for name, item in items.items():
        problem = names.name_problem(name)
        if problem:
            problems.add(f"{section}.{name}", f"{quoted(name)} {problem}")
            continue
        result[str(name)] = _read_keys(item, keys, f"{section}.{name}", problems)
    return result


def datacenter_of(address: str | None, datacenters: dict[str, dict[str, Any]]) -> str | None:
    """The data center whose most specific network holds this address; None when there is none."""
    try:
        host = ipaddress.ip_address(address or "")
    except ValueError:
        return None
    best: tuple[int, str] | None = None
    for name, datacenter in datacenters.items():
        for text in datacenter["networks"] or ():
            network = ipaddress.ip_network(text)
            if host in network and (best is None or network.prefixlen > best[0]):
                best = (network.prefixlen, name)
    return best[1] if best else None


def _read_members(herd: dict[str, Any], items: object, path: str, problems: _Problems) -> list[dict[str, Any]]:
    if not isinstance(items, list) or not items:
        problems.bad(f"{path}.members", items, "a list of at least one member")
        return []
    members = []
    for index, item in enumerate(items):
        member = _read_keys(item, _MEMBER, f"{path}.members[{index}]", problems)
        member["port"] = member["port"] or herd["port"]
        member["pgdata"] = member["pgdata"] or herd["pgdata"]
        members.append(member)
    _settle_roles(members, f"{path}.members", problems)
    return members


def _settle_roles(members: list[dict[str, Any]], path: str, problems: _Problems) -> None:
    """Fill in who is primary and who streams from whom, and refuse what can not be."""
    by_server: dict[str, dict[str, Any]] = {}
    for index, member in enumerate(members):
        if member["server"] in by_server:
            problems.add(f"{path}[{index}].server", f"server {member['server']} is listed twice in this herd")
        by_server.setdefault(member["server"], member)

    primaries = [member for member in members if member["role"] == "primary"]
    if not primaries and members[0]["role"] is None:
        members[0]["role"] = "primary"
        primaries = [members[0]]
    if len(primaries) != 1:
        found = ", ".join(str(member["server"]) for member in primaries) or "none"
        problems.add(path, f"a herd has exactly one primary, found: {found}")
    primary = primaries[0]["server"] if primaries else None

    for index, member in enumerate(members):
        member["role"] = member["role"] or "replica"
        upstream = member["upstream"]
        if member["role"] == "replica" and upstream is None:
            member["upstream"] = primary
        elif member["role"] != "replica" and upstream is not None:
            problems.add(f"{path}[{index}].upstream", f"{upstream!r} given, but a {member['role']} has no upstream")
        elif upstream is not None and upstream not in by_server:
            problems.bad(f"{path}[{index}].upstream", upstream, "another member: " + ", ".join(map(str, by_server)))
        if member["role"] == "replica" and _loops(member, by_server):
            problems.add(f"{path}[{index}].upstream", f"{member['server']} would stream from itself, in the end")


def _loops(member: dict[str, Any], by_server: dict[str, dict[str, Any]]) -> bool:
    seen = set()
    server = member["server"]
    while server in by_server and server not in seen:
        seen.add(server)
        server = by_server[server]["upstream"]
    return server == member["server"]


def parse_fleet(document: object) -> Fleet:
    """A document as a person writes it -> the fleet, everything filled in.

    Raises OperatorError FLEET_INVALID with every problem at once (also as evidence.problems), each naming
    path, value and what is allowed. The document itself is not changed.
    """
    problems = _Problems()
    sections = ("environments", "datacenters", "servers", "herds")
    if not isinstance(document, dict):
        problems.bad("fleet", document, "a mapping with the keys " + ", ".join(sections))
        problems.raise_if_any()
        return {}
    for key in document:
        if key not in sections:
            problems.add(str(key), "unknown key; allowed: " + ", ".join(sections))

    environments = _read_named(document, "environments", _ENVIRONMENT, problems)
    datacenters = _read_named(document, "datacenters", _DATACENTER, problems)
    servers = _read_named(document, "servers", _SERVER, problems)
    for name, server in servers.items():
        path = f"servers.{name}"
        _known(server["environment"], environments, f"{path}.environment", problems)
        _known(server["datacenter"], datacenters, f"{path}.datacenter", problems)
        if server["datacenter"] is None:
            server["datacenter"] = datacenter_of(server["address"], datacenters)

    herds = []
    items = document.get("herds")
    if items is not None and not isinstance(items, list):
        problems.bad("herds", items, "a list of herds")
        items = []
    for index, item in enumerate(items or []):
        path = f"herds[{index}]"
        herd = _read_keys(item, _HERD, path, problems, others=("members",))
        if herd["name"]:
            path = f"{path} ({herd['name']})"
        herd["base_name"] = herd["base_name"] or (herd["name"] or "").lower()
        _known(herd["environment"], environments, f"{path}.environment", problems)
        herd["members"] = _read_members(herd, item.get("members") if isinstance(item, dict) else None, path, problems)
        for position, member in enumerate(herd["members"]):
            _known(member["server"], servers, f"{path}.members[{position}].server", problems)
        herds.append(herd)

    fleet = {"environments": environments, "datacenters": datacenters, "servers": servers, "herds": herds}
    for problem in clashes(fleet):
        problems.found.append(problem)
    problems.raise_if_any()
    return fleet


def _known(name: str | None, section: dict[str, Any], path: str, problems: _Problems) -> None:
    if name is not None and name not in section:
        problems.bad(path, name, ("one of " + ", ".join(section)) if section else "nothing, none is declared")


def clashes(fleet: Fleet) -> list[str]:
    """What two things of a fleet can not both have: a name, a network, a port or a directory on one server."""
    problems: list[str] = []
    networks: dict[str, str] = {}
    for name, datacenter in fleet["datacenters"].items():
        for network in datacenter["networks"] or ():
            if network in networks:
                problems.append(f"datacenters.{name}.networks: {network} is already a network of {networks[network]}")
            networks.setdefault(network, name)

    herds = [herd for herd in fleet["herds"] if herd["name"] and herd["environment"]]
    seen = set()
    for herd in herds:
        if herd_key(herd) in seen:
            problems.append(f"herds: {herd['name']} is listed twice in environment {herd['environment']}")
        seen.add(herd_key(herd))
    _owners, collisions = names.inventory_names(
        fleet["environments"],
        fleet["datacenters"],
        fleet["servers"],
        sorted({(herd["name"], herd["environment"]) for herd in herds}),
    )
    problems.extend(collisions)

    for field in ("port", "pgdata"):
        taken: dict[tuple[str, Any], str] = {}
        for herd in herds:
            for member in herd["members"]:
                if member["server"] is None or member[field] is None:
                    continue
                place = (member["server"], member[field])
                owner = names.herd_name(herd["name"], herd["environment"])
                if place in taken and taken[place] != owner:
                    problems.append(
                        f"herd {owner}: {field} {member[field]} on server {member['server']}"
                        f" is already used by herd {taken[place]}"
                    )
                taken.setdefault(place, owner)
    return problems


def herd_key(herd: dict[str, Any]) -> tuple[str, str]:
    """What tells herds apart: environment and name."""
    return (herd["environment"], herd["name"])


def fleet_document(fleet: Fleet) -> dict[str, Any]:
    """A fleet as a person would write it: what is the default is left out. parse_fleet gives the same fleet again."""
    document: dict[str, Any] = {
        "environments": {name: _short(item, _ENVIRONMENT) for name, item in fleet["environments"].items()},
        "datacenters": {name: _short(item, _DATACENTER) for name, item in fleet["datacenters"].items()},
        "servers": {},
        "herds": [],
    }
    for name, server in fleet["servers"].items():
        item = _short(server, _SERVER)
        if server["datacenter"] == datacenter_of(server["address"], fleet["datacenters"]):
            item.pop("datacenter", None)
        document["servers"][name] = item
    for herd in fleet["herds"]:
        item = _short(herd, _HERD)
        if herd["base_name"] == herd["name"].lower():
            item.pop("base_name")
        primary = next((member["server"] for member in herd["members"] if member["role"] == "primary"), None)
        item["members"] = []
        for index, member in enumerate(herd["members"]):
            short = _short(member, _MEMBER)
            for field in ("port", "pgdata"):
                if member[field] == herd[field]:
                    del short[field]
            # The first member is the primary unless said otherwise, so a first member that is none must say so.
            if member["role"] == ("primary" if index == 0 else "replica"):
                del short["role"]
            if member["role"] == "replica" and member["upstream"] == primary:
                short.pop("upstream", None)
            item["members"].append(short)
        document["herds"].append(item)
    return document


def _short(item: dict[str, Any], keys: _Keys) -> dict[str, Any]:
    return {
        key: item[key]
        for key, (_read, default) in keys.items()
        if item[key] is not None and item[key] != (list(default) if isinstance(default, tuple) else default)
    }


# -- what a load would change ------------------------------------------------------------------------------------------

_ORDER = ("environment", "datacenter", "server", "herd", "instance")


def _records(fleet: Fleet) -> dict[tuple[str, ...], dict[str, Any]]:
    """Every thing of a fleet by its key: kind, then what names it."""
    records: dict[tuple[str, ...], dict[str, Any]] = {}
    for kind in ("environment", "datacenter", "server"):
        for name, item in fleet[kind + "s"].items():
            records[(kind, name)] = item
    for herd in fleet["herds"]:
        key = herd_key(herd)
        fields = {field: value for field, value in herd.items() if field not in ("name", "environment", "members")}
        records[("herd", *key)] = fields
        for member in herd["members"]:
            fields = {field: value for field, value in member.items() if field != "server"}
            records[("instance", *key, member["server"])] = fields
    return records


def record_name(key: tuple[str, ...]) -> str:
    """The name of a thing for people: prod, chi-db1, trading_prod, trading_prod@chi-db1."""
    if key[0] == "herd":
        return names.herd_name(key[2], key[1])
    if key[0] == "instance":
        return names.instance_name(key[2], key[1], key[3])
    return key[1]


def fleet_difference(
    current: Fleet, wanted: Fleet, mode: str, live: Iterable[tuple[str, str]] = ()
) -> list[dict[str, Any]]:
    """Every change that a load makes, in an order in which it can be made; empty when there is nothing to do.

    mode: "merged" (what is not in wanted stays) or "overridden" (it is removed).
    live: herds (environment, name) that have been seen or operated on. A file's order of members says who was to be
    primary on the day it was written, so "merged" keeps the recorded roles and upstreams of these.
    Returns [{"action": "add"|"change"|"remove", "kind", "key": [...], "name", "before": {...}|None,
    "after": {...}|None}], before and after holding only the fields that differ when the action is "change".
    Raises OperatorError FLEET_INVALID when the result could not be (such as a port taken by a herd not in the file).
    """
    target = wanted if mode == "overridden" else merge_fleets(current, wanted, live)
    problems = _Problems()
    problems.found.extend(clashes(target))
    problems.raise_if_any()

    before, after = _records(current), _records(target)
    removals = [
        _change("remove", key, before[key], None)
        for key in sorted(set(before) - set(after), key=lambda item: (-_ORDER.index(item[0]), item))
    ]
    # Instances and herds go first: they free ports and servers. What others may still belong to goes last.
    changes = [change for change in removals if change["kind"] in ("instance", "herd")]
    for key, item in sorted(after.items(), key=lambda pair: _ORDER.index(pair[0][0])):
        if key not in before:
            changes.append(_change("add", key, None, item))
            continue
        fields = [field for field in item if item[field] != before[key].get(field)]
        if fields:
            old = {field: before[key].get(field) for field in fields}
            changes.append(_change("change", key, old, {field: item[field] for field in fields}))
    return changes + [change for change in removals if change["kind"] not in ("instance", "herd")]


def _change(action: str, key: tuple[str, ...], before: Any, after: Any) -> dict[str, Any]:
    return {
        "action": action,
        "kind": key[0],
        "key": list(key[1:]),
        "name": record_name(key),
        "before": before,
        "after": after,
    }


def merge_fleets(current: Fleet, wanted: Fleet, live: Iterable[tuple[str, str]] = ()) -> Fleet:
    """What the registry holds after a "merged" load: see fleet_difference."""
    live_herds = set(live)
    target: Fleet = {
        section: {**current[section], **wanted[section]} for section in ("environments", "datacenters", "servers")
    }
    for name, server in wanted["servers"].items():
        if server["datacenter"] is None:
            # The network may be known to the registry only.
            found = datacenter_of(server["address"], target["datacenters"])
            target["servers"][name] = {**server, "datacenter": found}
    herds = {herd_key(herd): herd for herd in current["herds"]}
    for herd in wanted["herds"]:
        key = herd_key(herd)
        old = herds.get(key)
        herds[key] = {**herd, "members": _merge_members(old, herd, key in live_herds)} if old else herd
    target["herds"] = list(herds.values())
    return target


def _primary_of(herd: dict[str, Any]) -> str | None:
    return next((member["server"] for member in herd["members"] if member["role"] == "primary"), None)


def _merge_members(old: dict[str, Any], new: dict[str, Any], keep_roles: bool) -> list[dict[str, Any]]:
    recorded, written = _primary_of(old), _primary_of(new)
    members = {member["server"]: member for member in old["members"]}
    if recorded is None or not keep_roles:
        members.update((member["server"], member) for member in new["members"])
        for server, member in members.items():
            # Left over from before, and there is one primary only.
            if member["role"] == "primary" and server != written:
                members[server] = {**member, "role": "replica", "upstream": written}
        return list(members.values())
    for member in new["members"]:
        known = members.get(member["server"])
        kept: dict[str, Any] = {}
        if known:
            kept = {"role": known["role"], "upstream": known["upstream"]}
        elif member["role"] == "primary" or member["upstream"] == written:
            kept = {"role": "replica", "upstream": recorded}
        members[member["server"]] = {**member, **kept}
    return list(members.values())


def kept_roles(current: Fleet, wanted: Fleet, live: Iterable[tuple[str, str]]) -> list[str]:
    """In words, per herd, where "merged" keeps recorded roles that the file contradicts."""
    live_herds = set(live)
    recorded = {herd_key(herd): herd for herd in current["herds"]}
    notes = []
    for herd in wanted["herds"]:
        old = recorded.get(herd_key(herd))
        if old is None or herd_key(herd) not in live_herds:
            continue
        known = {member["server"]: (member["role"], member["upstream"]) for member in old["members"]}
        differing = [
            member["server"]
            for member in herd["members"]
            if member["server"] in known and known[member["server"]] != (member["role"], member["upstream"])
        ]
        if differing and _primary_of(old) is not None:
            notes.append(
                f"herd {names.herd_name(herd['name'], herd['environment'])}: the recorded roles and upstreams are kept "
                f"(primary: {_primary_of(old)}); the file differs for {', '.join(differing)}"
            )
    return notes


def part_of_fleet(fleet: Fleet, environments: Iterable[str] = (), herds: Iterable[str] = ()) -> Fleet:
    """The part of a fleet that these environments and herds (by name, or as herd_environment) make; empty means all.

    What a part needs is in it: the environments, servers and data centers of its herds.
    """
    wanted_environments, wanted_herds = set(environments), set(herds)
    if not wanted_environments and not wanted_herds:
        return fleet
    chosen = [
        herd
        for herd in fleet["herds"]
        if (not wanted_environments or herd["environment"] in wanted_environments)
        and (not wanted_herds or {herd["name"], names.herd_name(herd["name"], herd["environment"])} & wanted_herds)
    ]
    used = {member["server"] for herd in chosen for member in herd["members"]}
    servers = {
        name: server
        for name, server in fleet["servers"].items()
        if name in used or (not wanted_herds and server["environment"] in wanted_environments)
    }
    kept_environments = {herd["environment"] for herd in chosen} | {
        server["environment"] for server in servers.values()
    }
    if not wanted_herds:
        kept_environments |= wanted_environments
    kept_datacenters = {server["datacenter"] for server in servers.values()}
    return {
        "environments": {name: item for name, item in fleet["environments"].items() if name in kept_environments},
        "datacenters": {name: item for name, item in fleet["datacenters"].items() if name in kept_datacenters},
        "servers": servers,
        "herds": chosen,
    }
