# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person wants to see of the fleet, and which rows that are. Private to the collection.

The inventory asks this of what is on record, `status` of what was just seen: the same words, the same meaning. Who
gives several filters wants rows that meet all of them; of the values of one filter, one is enough.

What is not known meets no filter: an instance whose version nobody has seen is neither of version 15 nor below it.
How many rows a filter left out for that reason is told (see narrow).

A row is a mapping with herd, environment, datacenter and server, and with role, version, lag_bytes and is_online, None
where not known. Two more keys may be there: `standing`, a second role under which the row counts, and `dr_pair`
(see has_dr_pair), which without_dr_pair needs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Callable, Iterable, Mapping, NamedTuple, Sequence

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.fields import ROLES
from ansible_collections.elephaas.herd.plugins.module_utils.decide.names import herd_name
from ansible_collections.elephaas.herd.plugins.module_utils.decide.size import SIZE_RULE, human_bytes, parse_bytes
from ansible_collections.elephaas.herd.plugins.module_utils.decide.version import VERSION_RULE, Version, parse_version

UNASSIGNED = "unassigned"
"""The environment of what nobody has given one: 1.x had servers and herds without, and its reporter still adds some."""

Row = Mapping[str, Any]


class Criterion(NamedTuple):
    """One filter at work.

    option: its name. wanted: its value, for people. on_record: whether only the record can answer it, so that a host
    need not be looked at. passes: None where the answer is not known.
    """

    option: str
    wanted: str
    on_record: bool
    passes: Callable[[Row], bool | None]


@dataclass(frozen=True)
class Filters:
    """What is wanted. An empty tuple, None or False means: everything.

    environments, datacenters: names. herds: names (`trading`) or names with environment (`trading_prod`).
    roles: any of fleet.ROLES. versions: leading parts of a version number (`15`, `15.8`).
    version_below: a version number; compared as numbers. lag_above: bytes.
    online: True for online, False for offline. without_dr_pair: of herds that has_dr_pair is not true for.
    unassigned: without environment or data center; and servers that host no instance.
    """

    environments: tuple[str, ...] = ()
    datacenters: tuple[str, ...] = ()
    herds: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    version_below: str | None = None
    lag_above: int | None = None
    online: bool | None = None
    without_dr_pair: bool = False
    unassigned: bool = False

    @cached_property
    def tests(self) -> tuple[Criterion, ...]:
        """The filters that were given, those first that need no look at a host."""
        return tuple(_tests(self))

    @cached_property
    def of_places(self) -> bool:
        """Whether a server can answer all that is asked: what it hosts does not matter."""
        return not any(test.option not in ("environments", "datacenters", "unassigned") for test in self.tests)

    def on_record(self) -> Filters:
        """Only the filters that the record answers."""
        kept = {test.option for test in self.tests if test.on_record}
        return Filters(**{field.name: getattr(self, field.name) for field in fields(self) if field.name in kept})

    def takes_instance(self, row: Row) -> bool:
        """Whether this instance is wanted."""
        return all(test.passes(row) for test in self.tests)

    def takes_server(self, row: Row, hosted: int, wanted: int) -> bool:
        """Whether this server is wanted. hosted: instances on it; wanted: those of them that are wanted."""
        if self.environments and row.get("environment") not in self.environments:
            return False
        if self.datacenters and row.get("datacenter") not in self.datacenters:
            return False
        if wanted or not self.tests:
            return True
        return self.of_places and (not self.unassigned or not hosted or _is_unassigned(row))


EVERYTHING = Filters()


def has_dr_pair(datacenters: Iterable[Any]) -> bool:
    """Whether a herd whose members stand in these data centers outlives the loss of one of them.

    It needs members in two: a second member in the same data center, or in one that nobody knows, does not help.
    """
    return len({name for name in datacenters if name and isinstance(name, str)}) > 1


def _is_unassigned(row: Row) -> bool:
    return row.get("environment") == UNASSIGNED or not row.get("datacenter")


def _tests(filters: Filters) -> Iterable[Criterion]:
    def among(option: str, column: str) -> Criterion:
        wanted = getattr(filters, option)
        return Criterion(option, ", ".join(wanted), True, lambda row: row.get(column) in wanted)

    if filters.environments:
        yield among("environments", "environment")
    if filters.datacenters:
        yield among("datacenters", "datacenter")
    if filters.herds:
        herds = frozenset(filters.herds)
        yield Criterion(
            "herds", ", ".join(filters.herds), True,
            lambda row: row["herd"] in herds or herd_name(row["herd"], row["environment"]) in herds,
        )  # fmt: skip
    if filters.without_dr_pair:
        yield Criterion("without_dr_pair", "true", True, _without_dr_pair)
    if filters.unassigned:
        yield Criterion("unassigned", "true", True, _is_unassigned)
    if filters.roles:
        roles = frozenset(filters.roles)
        yield Criterion("roles", ", ".join(filters.roles), False, lambda row: _has_role(row, roles))
    if filters.versions:
        parts = [_version("versions", text) for text in filters.versions]
        yield Criterion("versions", ", ".join(filters.versions), False, lambda row: _is_version(row, parts))
    if filters.version_below is not None:
        bound = _version("version_below", filters.version_below)
        yield Criterion("version_below", filters.version_below, False, lambda row: _is_below(row, bound))
    if filters.lag_above is not None:
        limit = filters.lag_above
        yield Criterion("lag_above", human_bytes(limit), False, lambda row: _above(row.get("lag_bytes"), limit))
    if filters.online is not None:
        online = filters.online
        yield Criterion("online" if online else "offline", "true", False, lambda row: _is(row.get("is_online"), online))


def _without_dr_pair(row: Row) -> bool | None:
    paired = row.get("dr_pair")
    return None if paired is None else not paired


def _has_role(row: Row, wanted: frozenset[str]) -> bool | None:
    held = {role for role in (row.get("role"), row.get("standing")) if isinstance(role, str)}
    return bool(held & wanted) if held else None


def _is_version(row: Row, parts: Sequence[Version]) -> bool | None:
    version = parse_version(row.get("version"))
    return None if version is None else any(part.leads(version) for part in parts)


def _is_below(row: Row, bound: Version) -> bool | None:
    version = parse_version(row.get("version"))
    return None if version is None else version.order < bound.order


def _above(value: Any, limit: int) -> bool | None:
    known = isinstance(value, int) and not isinstance(value, bool)
    return value > limit if known else None


def _is(value: Any, wanted: bool) -> bool | None:
    return value is wanted if isinstance(value, bool) else None


# --- what people type ------------------------------------------------------------------------------


def parse_filters(options: Mapping[str, Any]) -> Filters:
    """Filters from options as YAML, extra variables (strings, with commas) or a survey (empty: not given) have them.

    Besides the fields of Filters there is `offline`, where true is the same as online: false.
    Raises OperatorError FILTER_INVALID that names the option, its value and what is allowed.
    """
    known = [field.name for field in fields(Filters)]
    for name in options:
        if name not in (*known, "offline"):
            raise _invalid("filter", name, ", ".join((*known, "offline")))
    found: dict[str, Any] = {
        name: _words(name, options.get(name)) for name in ("environments", "datacenters", "herds", "roles", "versions")
    }
    for role in found["roles"]:
        if role not in ROLES:
            raise _invalid("roles", role, ", ".join(ROLES))
    for version in found["versions"]:
        _version("versions", version)
    found["version_below"] = _one(options, "version_below")
    if found["version_below"] is not None:
        _version("version_below", found["version_below"])
    lag = _one(options, "lag_above")
    if lag is not None:
        found["lag_above"] = parse_bytes(lag)
        if found["lag_above"] is None:
            raise _invalid("lag_above", lag, SIZE_RULE)
    for name in ("without_dr_pair", "unassigned"):
        found[name] = bool(_flag(name, options.get(name)))
    found["online"] = _online(_flag("online", options.get("online")), _flag("offline", options.get("offline")))
    return Filters(**found)


def _online(online: bool | None, offline: bool | None) -> bool | None:
    if online and offline:
        raise _invalid("offline", offline, "not both online and offline")
    return False if offline else online


def _invalid(option: str, value: Any, allowed: str) -> OperatorError:
    evidence = {"option": option, "value": str(value), "allowed": allowed}
    return OperatorError(
        "FILTER_INVALID", f"{option}: {str(value)!r} is not allowed.", f"Allowed: {allowed}.", evidence
    )


def _version(option: str, text: str) -> Version:
    version = parse_version(text)
    if version is None:
        raise _invalid(option, text, VERSION_RULE)
    return version


def _text(option: str, value: Any) -> str:
    if isinstance(value, float):
        # 15.10 without quotes has become 15.1 long before it is seen here.
        raise _invalid(option, value, "text; put the number in quotes")
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise _invalid(option, value, "text, or a list of texts")
    return str(value).strip()


def _words(option: str, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    items = value if isinstance(value, (list, tuple)) else [value]
    words = [word.strip() for item in items for word in _text(option, item).split(",")]
    return tuple(dict.fromkeys(word for word in words if word))


def _one(options: Mapping[str, Any], option: str) -> str | None:
    value = options.get(option)
    return (_text(option, value) or None) if value is not None else None


def _flag(option: str, value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    said = str(value).strip().lower()
    if said in ("true", "yes", "on", "1"):
        return True
    if said in ("false", "no", "off", "0"):
        return False
    if said:
        raise _invalid(option, value, "true or false")
    return None


def unknown_names(filters: Filters, rows: Iterable[Row]) -> list[str]:
    """What is named in a filter and met nowhere, in words; a mistyped name would look like an empty answer.

    rows: all servers and instances there are, wanted or not.
    """
    if not (filters.environments or filters.datacenters or filters.herds):
        return []
    known: dict[str, set[str]] = {"environments": set(), "datacenters": set(), "herds": set()}
    for row in rows:
        known["environments"].add(row["environment"])
        if isinstance(row.get("datacenter"), str):
            known["datacenters"].add(row["datacenter"])
        if row.get("herd"):
            known["herds"].update((row["herd"], herd_name(row["herd"], row["environment"])))
    problems = []
    for option, there in known.items():
        strange = [name for name in getattr(filters, option) if name not in there]
        if strange:
            shown = ", ".join(sorted(there)[:_SHOWN]) + (", …" if len(there) > _SHOWN else "")
            problems.append(f"{option}: {', '.join(map(repr, strange))} is not known. There are: {shown or 'none'}.")
    return problems


# A fleet of a thousand herds must not push the message off the screen.
_SHOWN = 40


# --- what is left ----------------------------------------------------------------------------------


class Step(NamedTuple):
    """What one filter left. unknown: rows that it left out because the answer is not known."""

    option: str
    wanted: str
    left: int
    unknown: int


def narrow(filters: Filters, rows: Iterable[Row]) -> tuple[list[Row], list[Step]]:
    """The rows that are wanted, and how many each filter left of what the one before had left."""
    left = list(rows)
    steps = []
    for test in filters.tests:
        answers = [(row, test.passes(row)) for row in left]
        left = [row for row, answer in answers if answer]
        unknown = sum(1 for _row, answer in answers if answer is None)
        steps.append(Step(test.option, test.wanted, len(left), unknown))
    return left, steps
