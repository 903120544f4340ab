# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the fleet that is recorded to the one that is wanted: what changes, and what must not. Private to the collection.

A I(change) is {"action": "add"|"change"|"remove"|"rename", "kind", "key": [...], "name", "before": {...}|None,
"after": {...}|None}. Of what is changed, before and after hold only the fields that differ; of what is renamed, what
names it. Fleets are described in decide/fleet.py.
"""

from __future__ import annotations

from typing import AbstractSet, Any, Dict, Iterable, Mapping, Tuple

from ansible_collections.elephaas.herd.plugins.module_utils.decide import names
from ansible_collections.elephaas.herd.plugins.module_utils.decide.fields import Problems
from ansible_collections.elephaas.herd.plugins.module_utils.decide.fleet import (
    MEND,
    Fleet,
    clashes,
    datacenter_of,
    herd_key,
    primary_of,
)

Change = Dict[str, Any]
RecordKey = Tuple[str, ...]
"""A kind, then what names one of it: ("server", name), ("herd", environment, name),
("instance", environment, herd, server)."""

KINDS = ("environment", "datacenter", "server", "herd", "instance")
"""In the order in which they can be added."""


def records(fleet: Fleet) -> dict[RecordKey, dict[str, Any]]:
    """Every thing of a fleet by its key: kind, then what names it."""
    found: dict[RecordKey, dict[str, Any]] = {}
    for kind in ("environment", "datacenter", "server"):
        for name, item in fleet[kind + "s"].items():
            found[(kind, name)] = item
    for herd in fleet["herds"]:
        key = herd_key(herd)
        fields = {field: value for field, value in herd.items() if field not in ("name", "environment", "members")}
        found[("herd", *key)] = fields
        for member in herd["members"]:
            fields = {field: value for field, value in member.items() if field != "server"}
            found[("instance", *key, member["server"])] = fields
    return found


def record_name(key: RecordKey) -> str:
    """The name of a thing for people: prod, chi-db1, trading_prod, trading_prod@chi-db1."""
    if key[0] == "herd":
        return names.herd_name(key[2], key[1])
    if key[0] == "instance":
        return names.instance_name(key[2], key[1], key[3])
    return key[1]


def fleet_difference(current: Fleet, wanted: Fleet, mode: str, live: Iterable[tuple[str, str]] = ()) -> list[Change]:
    """Every change that a load makes, in an order in which it can be made; empty when there is nothing to do.

    mode: "merged" (what is not in wanted stays) or "overridden" (it is removed).
    live: herds (environment, name) that have been seen or operated on. A file's order of members says who was to be
    primary on the day it was written, so "merged" keeps the recorded roles and upstreams of these.
    Raises OperatorError FLEET_INVALID when the result could not be (such as a port taken by a herd not in the file).
    """
    target = wanted if mode == "overridden" else merge_fleets(current, wanted, live)
    problems = Problems()
    problems.found.extend(clashes(target))
    problems.raise_if_any("FLEET_INVALID", "The fleet", MEND)
    return difference(current, target)


def difference(current: Fleet, target: Fleet) -> list[Change]:
    """What turns one fleet into the other, in an order in which it can be made; empty when they are the same."""
    before, after = records(current), records(target)
    removals = [
        _change("remove", key, before[key], None)
        for key in sorted(set(before) - set(after), key=lambda item: (-KINDS.index(item[0]), item))
    ]
    # Instances and herds go first: they free ports and servers. What others may still belong to goes last.
    changes = [change for change in removals if change["kind"] in ("instance", "herd")]
    for key, item in sorted(after.items(), key=lambda pair: KINDS.index(pair[0][0])):
        if key not in before:
            changes.append(_change("add", key, None, item))
            continue
        fields = [field for field in item if item[field] != before[key].get(field)]
        if fields:
            old = {field: before[key].get(field) for field in fields}
            changes.append(_change("change", key, old, {field: item[field] for field in fields}))
    return changes + [change for change in removals if change["kind"] not in ("instance", "herd")]


def _change(action: str, key: RecordKey, before: Any, after: Any) -> Change:
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


def _merge_members(old: dict[str, Any], new: dict[str, Any], keep_roles: bool) -> list[dict[str, Any]]:
    recorded, written = primary_of(old), primary_of(new)
    members = {member["server"]: member for member in old["members"]}
    if recorded is None or not keep_roles:
        members.update((member["server"], member) for member in new["members"])
        for server, member in members.items():
            # Left over from before, and there is one primary only.
            if member["role"] == "primary" and written is not None and server != written:
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
        if differing and primary_of(old) is not None:
            notes.append(
                f"herd {names.herd_name(herd['name'], herd['environment'])}: the recorded roles and upstreams are kept "
                f"(primary: {primary_of(old)}); the file differs for {', '.join(differing)}"
            )
    return notes


_DONE = {"remove": "removed", "change": "changed"}
#: What tells where a herd or a member of it is, and what leads to it.
_PLACE = frozenset({"role", "upstream", "port", "pgdata", "vhost"})


def _moves(change: Change) -> bool:
    """Whether a change of a herd or an instance takes something away or puts it elsewhere; a renaming is told apart."""
    if change["kind"] not in ("herd", "instance"):
        return False
    return change["action"] == "remove" or (change["action"] == "change" and bool(_PLACE & set(change["after"])))


def in_use(
    changes: Iterable[Change],
    online: AbstractSet[tuple[str, str, str]],
    busy: AbstractSet[tuple[str, str]],
    live: AbstractSet[tuple[str, str]],
    held: Mapping[tuple[str, str], str],
) -> list[str]:
    """Why these changes should not be made while the fleet runs, in words.

    online: instances (environment, herd, server) recorded as online. busy: herds (environment, name) with an open
    operation. live: herds that were seen or operated on. held: herds on hold, with the reason.
    """
    problems = []
    for change in changes:
        key = tuple(change["key"])
        if key[:2] in held and _moves(change):
            owner = names.herd_name(key[1], key[0])
            problems.append(
                f"{change['name']} would be {_DONE[change['action']]} and herd {owner} is on hold: {held[key[:2]]}"
            )
            continue
        if change["kind"] == "herd" and change["action"] == "remove" and key in busy:
            problems.append(f"herd {change['name']} would be removed and has an open operation")
        if change["kind"] != "instance":
            continue
        herd = key[:2]
        if change["action"] == "remove":
            if key in online:
                problems.append(f"{change['name']} would be removed and is online")
            elif herd in busy:
                owner = names.herd_name(herd[1], herd[0])
                problems.append(f"{change['name']} would be removed and herd {owner} has an open operation")
        elif change["action"] == "change" and "role" in change["after"] and herd in live:
            problems.append(
                f"{change['name']} would be recorded as {change['after']['role']} instead of {change['before']['role']}"
            )
    return problems
