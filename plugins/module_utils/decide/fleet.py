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
from typing import Any, Dict, Iterable, Iterator

from ansible_collections.elephaas.herd.plugins.module_utils.decide import fields, names
from ansible_collections.elephaas.herd.plugins.module_utils.decide.fields import Keys, Problems
from ansible_collections.elephaas.herd.plugins.module_utils.decide.words import quoted

Fleet = Dict[str, Any]

MEND = "Correct these places and run again; nothing was changed."


def _read_named(document: dict[str, Any], section: str, keys: Keys, problems: Problems) -> dict[str, dict[str, Any]]:
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
        result[str(name)] = fields.read_fields(item, keys, f"{section}.{name}", problems)
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


def _read_members(herd: dict[str, Any], items: object, path: str, problems: Problems) -> list[dict[str, Any]]:
    if not isinstance(items, list):
        problems.bad(f"{path}.members", items, "a list of members ([] when there are none yet)")
        return []
    members = []
    for index, item in enumerate(items):
        member = fields.read_fields(item, fields.MEMBER, f"{path}.members[{index}]", problems)
        member["port"] = member["port"] or herd["port"]
        member["pgdata"] = member["pgdata"] or herd["pgdata"]
        members.append(member)
    if members:
        _settle_roles(members, f"{path}.members", problems)
    return members


def _settle_roles(members: list[dict[str, Any]], path: str, problems: Problems) -> None:
    """Fill in who is primary and who streams from whom, and refuse what can not be."""
    primaries = [member["server"] for member in members if member["role"] == "primary"]
    if not primaries and members[0]["role"] is None:
        members[0]["role"] = "primary"
        primaries = [members[0]["server"]]
    if not primaries:
        problems.add(path, "a herd has exactly one primary, found: none")
    for member in members:
        member["role"] = member["role"] or "replica"
        if member["role"] == "replica" and member["upstream"] is None:
            member["upstream"] = primaries[0] if primaries else None
    for index, field, problem in member_problems(members):
        problems.add(path if index is None else f"{path}[{index}].{field}", problem)


def member_problems(members: list[dict[str, Any]]) -> Iterator[tuple[int | None, str, str]]:
    """What a herd's members can not be together: (index of a member, or None for all of them; field; problem)."""
    by_server: dict[str, dict[str, Any]] = {}
    for index, member in enumerate(members):
        if member["server"] in by_server:
            yield index, "server", f"server {member['server']} is listed twice in this herd"
        by_server.setdefault(member["server"], member)
    primaries = [str(member["server"]) for member in members if member["role"] == "primary"]
    if len(primaries) > 1:
        yield None, "role", f"a herd has exactly one primary, found: {', '.join(primaries)}"
    for index, member in enumerate(members):
        upstream = member["upstream"]
        if upstream is None:
            continue
        if member["role"] != "replica":
            yield index, "upstream", f"{upstream!r} given, but a {member['role']} has no upstream"
        elif upstream not in by_server:
            allowed = "another member: " + ", ".join(map(str, by_server))
            yield index, "upstream", f"{quoted(upstream)} is not valid; allowed: {allowed}"
        elif _loops(member, by_server):
            yield index, "upstream", f"{member['server']} would stream from itself, in the end"


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
    problems = Problems()
    sections = ("environments", "datacenters", "servers", "herds")
    if not isinstance(document, dict):
        problems.bad("fleet", document, "a mapping with the keys " + ", ".join(sections))
        problems.raise_if_any("FLEET_INVALID", "The fleet", MEND)
        return {}
    for key in document:
        if key not in sections:
            problems.add(str(key), "unknown key; allowed: " + ", ".join(sections))

    environments = _read_named(document, "environments", fields.ENVIRONMENT, problems)
    datacenters = _read_named(document, "datacenters", fields.DATACENTER, problems)
    servers = _read_named(document, "servers", fields.SERVER, problems)
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
        herd = fields.read_fields(item, fields.HERD, path, problems, others=("members",))
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
    problems.raise_if_any("FLEET_INVALID", "The fleet", MEND)
    return fleet


def _known(name: str | None, section: dict[str, Any], path: str, problems: Problems) -> None:
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


def primary_of(herd: dict[str, Any]) -> str | None:
    """The server of a herd's recorded primary; None when there is none."""
    return next((member["server"] for member in herd["members"] if member["role"] == "primary"), None)


def fleet_document(fleet: Fleet) -> dict[str, Any]:
    """A fleet as a person would write it: what is the default is left out. parse_fleet gives the same fleet again."""
    document: dict[str, Any] = {
        "environments": {name: _short(item, fields.ENVIRONMENT) for name, item in fleet["environments"].items()},
        "datacenters": {name: _short(item, fields.DATACENTER) for name, item in fleet["datacenters"].items()},
        "servers": {},
        "herds": [],
    }
    for name, server in fleet["servers"].items():
        item = _short(server, fields.SERVER)
        if server["datacenter"] == datacenter_of(server["address"], fleet["datacenters"]):
            item.pop("datacenter", None)
        document["servers"][name] = item
    for herd in fleet["herds"]:
        item = _short(herd, fields.HERD)
        if herd["base_name"] == herd["name"].lower():
            item.pop("base_name")
        primary = primary_of(herd)
        item["members"] = []
        for index, member in enumerate(herd["members"]):
            short = _short(member, fields.MEMBER)
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


def _short(item: dict[str, Any], keys: Keys) -> dict[str, Any]:
    return {key: item[key] for key in keys if item[key] is not None and item[key] != fields.default_of(keys, key)}


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
