# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One record of the registry added, changed, renamed or removed: what that means for all others. Private to the collection.

The answer is a list of changes to the whole fleet, so that a record and a fleet file go by the same rules, and check
mode and the real run name the very same things.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, NoReturn

from ansible_collections.elephaas.herd.plugins.module_utils.decide import fields, names
from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.fleet import (
    Fleet,
    clashes,
    datacenter_of,
    herd_key,
    member_problems,
    primary_of,
)
from ansible_collections.elephaas.herd.plugins.module_utils.decide.fleet_change import (
    Change,
    RecordKey,
    difference,
    record_name,
    records,
)
from ansible_collections.elephaas.herd.plugins.module_utils.decide.words import quoted

KEY_FIELDS = {
    "environment": ("name",),
    "datacenter": ("name",),
    "server": ("name",),
    "herd": ("environment", "name"),
    "instance": ("environment", "herd", "server"),
}
"""What names a record of each kind: its options, in the order of a record's key."""

OPTIONS = {"port": "db_port"}
"""Options that are not called like their field: port is the registry's own, for the connection."""

_SECTIONS = {"environment": "environments", "datacenter": "datacenters", "server": "servers"}
_KEYS = {
    "environment": fields.ENVIRONMENT,
    "datacenter": fields.DATACENTER,
    "server": fields.SERVER,
    "herd": fields.HERD,
    "instance": fields.MEMBER,
}
_NOTHING_CHANGED = "Correct this and run again; nothing was changed."


@dataclass(frozen=True)
class Wish:
    """What somebody wants of one record.

    key: kind and what names it (see KEY_FIELDS). values: the fields that were given, as they were given; an empty text
    stands for nothing where a field may be nothing. new_key: what it is to be called, None to leave its name alone.
    present: false to remove it.
    """

    key: RecordKey
    values: dict[str, Any] = field(default_factory=dict)
    new_key: RecordKey | None = None
    present: bool = True


@dataclass(frozen=True)
class Decision:
    """What follows from a wish.

    key: how the record is called afterwards. before, after: its fields, None where there is no record.
    changes: everything that changes, in an order in which it can be done. removed, affected: the others among it, in
    words; what is affected stays, and changes or gets another name.
    target: the fleet afterwards.
    """

    key: RecordKey
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    changes: list[Change]
    removed: list[str]
    affected: list[str]
    target: Fleet

    @property
    def dependants(self) -> list[str]:
        """What changes beside the record itself, when it is removed."""
        own = title(self.key)
        return [*(item for item in self.removed if item != own), *self.affected]


def decide(fleet: Fleet, wish: Wish) -> Decision:
    """What the wish means for this fleet.

    Raises OperatorError RECORD_INVALID (a value), RECORD_UNKNOWN (something that it refers to), RECORD_CLASH (what two
    can not both have). Whether it may be done while the fleet runs is decided in fleet_change.in_use.
    """
    values = _read_values(wish)
    if not wish.present:
        return _decided(fleet, fleet, wish.key, None, _without(fleet, wish.key))
    renamed, key, rename = _rename(fleet, wish)
    target = _SETTERS[key[0]](renamed, key, values)
    _refuse_clashes(fleet, target, key)
    return _decided(fleet, renamed, key, rename, target)


def title(key: RecordKey) -> str:
    """Kind and name of a record, for people: server chi-db1."""
    return f"{key[0]} {record_name(key)}"


def subject(key: RecordKey) -> str:
    """The same at the beginning of a sentence: Server chi-db1."""
    return title(key)[0].upper() + title(key)[1:]


# -- values ------------------------------------------------------------------------------------------------------------


def _read_values(wish: Wish) -> dict[str, Any]:
    """The given fields, normalised. Raises RECORD_INVALID with every problem at once."""
    kind = wish.key[0]
    problems = fields.Problems()
    for option, value in zip(KEY_FIELDS[kind], wish.key[1:]):
        _check_name(option, value, problems)
    for option, value in zip(KEY_FIELDS[kind], (wish.new_key or wish.key)[1:]):
        if value not in wish.key[1:]:
            _check_name(f"new_{option}", value, problems)
    values = {}
    for name, value in wish.values.items():
        if value == "" and _KEYS[kind][name][1] is None:
            values[name] = None
        else:
            values[name] = fields.read_field(value, _KEYS[kind], name, OPTIONS.get(name, name), problems)
    problems.raise_if_any("RECORD_INVALID", subject(wish.key), _NOTHING_CHANGED)
    return values


def _check_name(option: str, value: object, problems: fields.Problems) -> None:
    problem = names.name_problem(value)
    if problem:
        problems.add(option, f"{quoted(value)} {problem}")


def _require(key: RecordKey, item: dict[str, Any]) -> None:
    """Raise RECORD_INVALID for a new record without what every one of its kind needs."""
    table = _KEYS[key[0]]
    missing = [
        name for name, (_read, default) in table.items() if default is fields.REQUIRED and item.get(name) is None
    ]
    if missing:
        raise OperatorError(
            "RECORD_INVALID",
            f"{subject(key)} is not in the registry yet, and a new one needs: {', '.join(missing)}.",
            "Give what is missing, or correct the name; nothing was changed.",
            {"missing": missing},
        )


def _unknown(key: RecordKey, known: list[str], why: str) -> NoReturn:
    raise OperatorError(
        "RECORD_UNKNOWN",
        f"{why}: the registry has no {title(key)}; it has: {', '.join(known) or 'none'}.",
        f"Add it first with elephaas.herd.registry_{key[0]}, or correct the name.",
        {"kind": key[0], "name": record_name(key), "known": known},
    )


# -- renaming ----------------------------------------------------------------------------------------------------------


def _rename(fleet: Fleet, wish: Wish) -> tuple[Fleet, RecordKey, Change | None]:
    """The fleet with the record under its new name, that name, and the change that leads there (None without one).

    When only the new name is there, the renaming was done before.
    """
    old, new = wish.key, wish.new_key
    if new is None or new == old:
        return fleet, old, None
    there = records(fleet)
    if old not in there and new not in there:
        _unknown(old, [record_name(key) for key in there if key[0] == old[0]], f"{title(new)} can not come of it")
    if old in there and new in there:
        raise OperatorError(
            "RECORD_CLASH",
            f"{subject(old)} can not become {record_name(new)}: the registry has both.",
            f"Choose another name, or remove one of them with elephaas.herd.registry_{old[0]}.",
        )
    if new in there:
        return fleet, new, None
    if old[0] == "herd" and new[1] not in fleet["environments"]:
        _unknown(("environment", new[1]), list(fleet["environments"]), f"{title(old)} can not move there")
    change = {
        "action": "rename",
        "kind": old[0],
        "key": list(old[1:]),
        "new_key": list(new[1:]),
        "name": record_name(old),
        "before": dict(zip(KEY_FIELDS[old[0]], old[1:])),
        "after": dict(zip(KEY_FIELDS[old[0]], new[1:])),
    }
    return _with_names(fleet, old, new), new, change


def _with_names(fleet: Fleet, old: RecordKey, new: RecordKey) -> Fleet:
    """The fleet with one record under another name, wherever it is named."""
    kind = old[0]

    def name(of: str, value: str | None) -> str | None:
        return new[1] if kind == of and value == old[1] else value

    target: Fleet = {
        section: {name(of, key): item for key, item in fleet[section].items()} for of, section in _SECTIONS.items()
    }
    target["servers"] = {
        key: {
            **server,
            "environment": name("environment", server["environment"]),
            "datacenter": name("datacenter", server["datacenter"]),
        }
        for key, server in target["servers"].items()
    }
    target["herds"] = [
        {
            **herd,
            "environment": name("environment", herd["environment"]),
            **(dict(zip(KEY_FIELDS["herd"], new[1:])) if old == ("herd", *herd_key(herd)) else {}),
            "members": [
                {**member, "server": name("server", member["server"]), "upstream": name("server", member["upstream"])}
                for member in herd["members"]
            ],
        }
        for herd in fleet["herds"]
    ]
    return target


def _new_key(key: RecordKey, rename: Change) -> RecordKey:
    """How a record is called after another one was renamed."""
    old, new = tuple(rename["key"]), tuple(rename["new_key"])
    if key == (rename["kind"], *old):
        return (key[0], *new)
    if rename["kind"] == "environment" and key[0] in ("herd", "instance") and key[1] == old[0]:
        return (key[0], new[0], *key[2:])
    if rename["kind"] == "herd" and key[0] == "instance" and key[1:3] == old:
        return (key[0], *new, key[3])
    if rename["kind"] == "server" and key[0] == "instance" and key[3] == old[0]:
        return (*key[:3], new[0])
    return key


def renamed_herds(fleet: Fleet, changes: list[Change]) -> list[tuple[str, str]]:
    """Herds (environment, name) whose name, or a member's, is another afterwards: their open operations lose them."""
    found = []
    for change in changes:
        if change["action"] == "rename":
            moved = [key for key in records(fleet) if _new_key(key, change) != key]
            found.extend(sorted({key[1:3] for key in moved if key[0] in ("herd", "instance")}))
    return found


# -- one setter per kind: the fleet with this record as it is wanted ---------------------------------------------------


def _with_item(fleet: Fleet, key: RecordKey, item: dict[str, Any]) -> Fleet:
    section = _SECTIONS[key[0]]
    return {**fleet, section: {**fleet[section], key[1]: item}}


def _filled(key: RecordKey, old: dict[str, Any] | None, values: dict[str, Any]) -> dict[str, Any]:
    """The old record, or the defaults of a new one, with the values that were given."""
    table = _KEYS[key[0]]
    item = {**(old or {name: fields.default_of(table, name) for name in table}), **values}
    if old is None:
        _require(key, item)
    return item


def _set_environment(fleet: Fleet, key: RecordKey, values: dict[str, Any]) -> Fleet:
    return _with_item(fleet, key, _filled(key, fleet["environments"].get(key[1]), values))


def _set_datacenter(fleet: Fleet, key: RecordKey, values: dict[str, Any]) -> Fleet:
    target = _with_item(fleet, key, _filled(key, fleet["datacenters"].get(key[1]), values))
    return _with_followers(fleet, target)


def _with_followers(fleet: Fleet, target: Fleet) -> Fleet:
    """The target with its data centers' servers in place: who followed from an address goes on doing so."""

    def place(server: dict[str, Any]) -> str | None:
        recorded: str | None = server["datacenter"]
        gone = recorded is not None and recorded not in target["datacenters"]
        if gone or recorded == datacenter_of(server["address"], fleet["datacenters"]):
            return datacenter_of(server["address"], target["datacenters"])
        return recorded

    servers = {name: {**server, "datacenter": place(server)} for name, server in target["servers"].items()}
    return {**target, "servers": servers}


def _set_server(fleet: Fleet, key: RecordKey, values: dict[str, Any]) -> Fleet:
    old = fleet["servers"].get(key[1])
    server = _filled(key, old, values)
    if server["environment"] not in fleet["environments"]:
        _unknown(("environment", server["environment"]), list(fleet["environments"]), f"{title(key)} can not be in it")
    datacenters = fleet["datacenters"]
    if values.get("datacenter") is not None:
        if values["datacenter"] not in datacenters:
            _unknown(("datacenter", values["datacenter"]), list(datacenters), f"{title(key)} can not be in it")
    elif old is None or "datacenter" in values:
        server["datacenter"] = datacenter_of(server["address"], datacenters)
    elif server["address"] != old["address"]:
        followed = old["datacenter"] == datacenter_of(old["address"], datacenters)
        found = datacenter_of(server["address"], datacenters)
        server["datacenter"] = found if followed or found else old["datacenter"]
    return _with_item(fleet, key, server)


def _herd_of(fleet: Fleet, key: RecordKey) -> dict[str, Any] | None:
    return next((herd for herd in fleet["herds"] if herd_key(herd) == key[1:3]), None)


def _with_herd(fleet: Fleet, herd: dict[str, Any]) -> Fleet:
    key = herd_key(herd)
    there = any(herd_key(old) == key for old in fleet["herds"])
    herds = [herd if herd_key(old) == key else old for old in fleet["herds"]]
    return {**fleet, "herds": herds if there else [*herds, herd]}


def _set_herd(fleet: Fleet, key: RecordKey, values: dict[str, Any]) -> Fleet:
    _kind, environment, name = key
    if environment not in fleet["environments"]:
        _unknown(("environment", environment), list(fleet["environments"]), f"{title(key)} can not be in it")
    old = _herd_of(fleet, key)
    herd = _filled(key, old, {**values, "environment": environment, "name": name})
    herd["base_name"] = herd["base_name"] or name.lower()
    # A member without a port or directory of its own moves along with its herd.
    herd["members"] = [
        {
            **member,
            **{place: herd[place] for place in ("port", "pgdata") if old and member[place] == old[place]},
        }
        for member in herd.get("members", ())
    ]
    return _with_herd(fleet, herd)


def _set_instance(fleet: Fleet, key: RecordKey, values: dict[str, Any]) -> Fleet:
    _kind, environment, name, server = key
    herd = _herd_of(fleet, key)
    if herd is None:
        known = [names.herd_name(item["name"], item["environment"]) for item in fleet["herds"]]
        _unknown(("herd", environment, name), known, f"{title(key)} can not be its member")
    if server not in fleet["servers"]:
        _unknown(("server", server), list(fleet["servers"]), f"{title(key)} can not be on it")
    old = next((member for member in herd["members"] if member["server"] == server), None)
    member = _filled(key, old, {**values, "server": server})
    member["port"] = member["port"] or herd["port"]
    member["pgdata"] = member["pgdata"] or herd["pgdata"]
    _settle_role(herd, member, old, values, key)
    members = [member if item is old else item for item in herd["members"]] + ([] if old else [member])
    return _with_herd(fleet, {**herd, "members": members})


def _settle_role(
    herd: dict[str, Any], member: dict[str, Any], old: dict[str, Any] | None, values: dict[str, Any], key: RecordKey
) -> None:
    """Fill in the role of a new member, and the upstream that follows from a new role."""
    primary = primary_of(herd)
    if member["role"] is None:
        if member["upstream"] is None and primary is None and herd["members"]:
            raise OperatorError(
                "RECORD_INVALID",
                f"{subject(key)}: role is missing, and no primary is recorded that it could stream from.",
                f"Give its role: {', '.join(fields.ROLES)}.",
            )
        member["role"] = "replica" if member["upstream"] or primary else "primary"
    if "upstream" in values:
        return
    if member["role"] != "replica":
        member["upstream"] = None
    elif old is None or old["role"] != "replica":
        member["upstream"] = None if primary == member["server"] else primary


_SETTERS: dict[str, Callable[[Fleet, RecordKey, dict[str, Any]], Fleet]] = {
    "environment": _set_environment,
    "datacenter": _set_datacenter,
    "server": _set_server,
    "herd": _set_herd,
    "instance": _set_instance,
}


# -- removing ----------------------------------------------------------------------------------------------------------


def _without(fleet: Fleet, key: RecordKey) -> Fleet:
    """The fleet without this record and what can not be without it; who streamed from what goes streams from nobody."""
    kind, name = key[0], key[1]
    target: Fleet = {section: dict(fleet[section]) for section in _SECTIONS.values()}
    if kind in _SECTIONS:
        target[_SECTIONS[kind]].pop(name, None)
    if kind == "environment":
        target["servers"] = {of: item for of, item in target["servers"].items() if item["environment"] != name}
    target["herds"] = []
    for herd in fleet["herds"]:
        whole = (kind == "environment" and herd["environment"] == name) or key == ("herd", *herd_key(herd))
        if not whole:
            gone = {
                member["server"]
                for member in herd["members"]
                if member["server"] not in target["servers"] or key == ("instance", *herd_key(herd), member["server"])
            }
            members = [
                {**member, "upstream": None if member["upstream"] in gone else member["upstream"]}
                for member in herd["members"]
                if member["server"] not in gone
            ]
            target["herds"].append({**herd, "members": members})
    return _with_followers(fleet, target) if kind == "datacenter" else target


# -- what follows ------------------------------------------------------------------------------------------------------


def _refuse_clashes(before: Fleet, target: Fleet, key: RecordKey) -> None:
    """Raise RECORD_CLASH for what can not be, unless it was so before: that is for somebody else to mend."""
    known = set(clashes(before))
    found = [problem for problem in clashes(target) if problem not in known]
    step = "Choose another value, or change the other record first; nothing was changed."
    if key[0] == "instance":
        herd = _herd_of(target, key)
        members = herd["members"] if herd else []
        for index, option, problem in member_problems(members):
            if index is None or members[index]["server"] == key[3]:
                found.append(f"{title(key)}: {option}: {problem}")
                if option == "role":
                    step = (
                        "To move the primary, use elephaas.herd.failover. If only the record is wrong, run"
                        " elephaas.herd.status, which records what it sees, or give the other member another role first."
                    )
    if found:
        raise OperatorError(
            "RECORD_CLASH",
            f"{subject(key)} can not be recorded so: {'; '.join(found)}.",
            step,
            {"problems": found},
        )


def _decided(fleet: Fleet, renamed: Fleet, key: RecordKey, rename: Change | None, target: Fleet) -> Decision:
    changes = [*([rename] if rename else []), *difference(renamed, target)]
    affected = []
    if rename:
        own = (rename["kind"], *rename["key"])
        for old in records(fleet):
            new = _new_key(old, rename)
            if new != old and old != own:
                affected.append(f"{title(old)} becomes {record_name(new)}")
    affected += [_in_words(change) for change in changes if change["action"] == "change" and not _is(change, key)]
    affected += _without_primary(renamed, target)
    before = records(fleet).get((rename["kind"], *rename["key"]) if rename else key)
    return Decision(
        key=key,
        before=before,
        after=records(target).get(key),
        changes=changes,
        removed=[f"{change['kind']} {change['name']}" for change in changes if change["action"] == "remove"],
        affected=affected,
        target=target,
    )


def _is(change: Change, key: RecordKey) -> bool:
    return (change["kind"], *change["key"]) == key


def _in_words(change: Change) -> str:
    steps = [
        f"{name} {'none' if change['before'][name] is None else change['before'][name]} becomes"
        f" {'none' if value is None else value}"
        for name, value in change["after"].items()
    ]
    return f"{change['kind']} {change['name']}: {', '.join(steps)}"


def _without_primary(before: Fleet, target: Fleet) -> list[str]:
    """Herds that lose their recorded primary and keep other members, in words."""
    led = {herd_key(herd) for herd in before["herds"] if primary_of(herd)}
    return [
        f"herd {names.herd_name(herd['name'], herd['environment'])}: no primary is recorded any more"
        for herd in target["herds"]
        if herd_key(herd) in led and herd["members"] and primary_of(herd) is None
    ]
