# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is shown of a fleet that was looked at: which instances, in which order, as text. Private to the collection."""

from __future__ import annotations

from typing import Any, Callable, Iterable, Mapping, NamedTuple, Sequence

from ansible_collections.elephaas.herd.plugins.module_utils.decide.filters import Filters, Row, Step, narrow
from ansible_collections.elephaas.herd.plugins.module_utils.decide.size import human_bytes
from ansible_collections.elephaas.herd.plugins.module_utils.decide.text import printable, table, verdict_lines
from ansible_collections.elephaas.herd.plugins.module_utils.decide.verdict import OK, REFUSE, WARN
from ansible_collections.elephaas.herd.plugins.module_utils.decide.version import parse_version

SORTS = ("problem", "herd", "environment", "datacenter", "version", "lag")
"""What rows can be sorted by; a leading '-' turns it round. problem: the worst herds first."""

STANDING_ROLES = ("detached", "superseded")
"""Roles that only the record knows: somebody has said so, and nothing that is seen takes it away."""

_RANK = {REFUSE: 0, WARN: 1, OK: 2}
_MARK = {REFUSE: "! ", WARN: "~ ", OK: "  "}

HerdStatus = Mapping[str, Any]
Member = Mapping[str, Any]


class View(NamedTuple):
    """What is shown.

    herds: statuses as herd_status makes them, with the members that are shown, in their order. A herd of which a member
    is shown is shown with all its problems. considered: how many instances there were to choose from.
    steps: what each filter left. hidden_problems: herds that were looked at, have problems, and are not shown.
    """

    herds: list[dict[str, Any]]
    considered: int
    steps: list[Step]
    hidden_problems: int

    @property
    def shown(self) -> int:
        """How many instances."""
        return sum(len(herd["members"]) for herd in self.herds)


def seen_row(recorded: Row, member: Member) -> dict[str, Any]:
    """What filters are asked about an instance that somebody has just tried to look at.

    What could not be seen counts as recorded. There is one exception: an instance whose host does not answer is not
    online, whatever was recorded when it last did; nobody who asks what is offline may miss it.
    """
    lag = member["lag_bytes"]
    if lag is None:
        lag = 0 if member["state"] == "writable" else recorded.get("lag_bytes")
    return {
        **recorded,
        "role": member["role"] or member["recorded_role"],
        "standing": member["recorded_role"] if member["recorded_role"] in STANDING_ROLES else None,
        "version": member["version"] or recorded.get("version"),
        "lag_bytes": lag,
        "is_online": bool(member["online"]),
    }


def view(herds: Iterable[HerdStatus], recorded: Mapping[str, Row], filters: Filters, sort: str = SORTS[0]) -> View:
    """Choose and order.

    herds: all that was looked at. recorded: by inventory name, the rows of all instances that the filters choose from;
    those that were not looked at are the ones that the record alone rules out. sort: one of SORTS, or with a '-'.
    """
    herds = list(herds)
    rows = {name: {**row, "name": name} for name, row in recorded.items()}
    for herd in herds:
        for member in herd["members"]:
            rows[member["instance"]] = seen_row(rows.get(member["instance"], {}), member)
            rows[member["instance"]]["name"] = member["instance"]
    left, steps = narrow(filters, rows.values())
    wanted = {row["name"] for row in left}
    chosen = [
        {**herd, "members": [member for member in herd["members"] if member["instance"] in wanted]} for herd in herds
    ]
    hidden = sum(not herd["members"] and herd["level"] != OK for herd in chosen)
    return View(ordered([herd for herd in chosen if herd["members"]], sort), len(rows), steps, hidden)


def ordered(herds: Iterable[HerdStatus], sort: str) -> list[dict[str, Any]]:
    """The herds in the order of their first row, and in each its members in the order of their rows."""
    found: dict[str, dict[str, Any]] = {}
    for herd, member in rows_in_order(herds, sort):
        found.setdefault(herd["herd"], {**herd, "members": []})["members"].append(member)
    return list(found.values())


def rows_in_order(herds: Iterable[HerdStatus], sort: str) -> list[tuple[HerdStatus, Member]]:
    """Every member with its herd. Equal ones by herd, a primary before its replicas; what is not known comes last."""
    rows = [(herd, member) for herd in herds for member in herd["members"]]
    rows.sort(key=lambda row: (row[0]["herd"], row[1]["role"] != "primary", row[1]["instance"]))
    key = _KEYS[sort.lstrip("-")]
    known = [row for row in rows if key(*row) is not None]
    unknown = [row for row in rows if key(*row) is None]
    # Sorting keeps the order of equal ones, also in reverse.
    known.sort(key=lambda row: key(*row), reverse=sort.startswith("-"))
    return known + unknown


def _urgency(herd: HerdStatus) -> tuple[int, bool, str]:
    """The worst first; and nothing is worse than two that accept writes, each of them losing what the other gets."""
    split = any(problem["code"] == "SPLIT_BRAIN" for problem in herd["problems"])
    return (_RANK[herd["level"]], not split, herd["herd"])


def _version_key(_herd: HerdStatus, member: Member) -> Any:
    version = parse_version(member["version"] or member["recorded_version"])
    return version.order if version else None


_KEYS: dict[str, Callable[[HerdStatus, Member], Any]] = {
    "problem": lambda herd, _member: _urgency(herd),
    "herd": lambda herd, _member: herd["herd"],
    "environment": lambda herd, _member: herd["environment"],
    "datacenter": lambda _herd, member: member["datacenter"] or None,
    "version": _version_key,
    "lag": lambda _herd, member: member["lag_bytes"],
}


# --- as text ---------------------------------------------------------------------------------------


def status_lines(herds: Sequence[HerdStatus], sort: str = SORTS[0], wide: bool = False) -> list[str]:
    """The fleet at a glance: problems, the worst first; then one row per instance; then one line of totals."""
    rows = rows_in_order(herds, sort)
    worst_first = sorted(herds, key=_urgency)
    lines = []
    problems = [verdict for herd in worst_first for verdict in herd["problems"]]
    if problems:
        lines += ["problems:", *verdict_lines(problems), ""]
    columns = {**_COLUMNS, **_WIDE_COLUMNS} if wide else _COLUMNS
    lines += table(list(columns), [[show(*row) for show in columns.values()] for row in rows], indent="")
    counts = {level: sum(1 for herd in herds if herd["level"] == level) for level in _RANK}
    lines += [
        "",
        (
            f"{len(herds)} herds, {len(rows)} instances: {counts[OK]} ok, {counts[WARN]} with warnings, "
            f"{counts[REFUSE]} with problems"
        ),
    ]
    return lines


def view_lines(shown: View, sort: str = SORTS[0], wide: bool = False) -> list[str]:
    """The same, and what the filters left; nothing is left is an answer, and says which filter it was."""
    lines = status_lines(shown.herds, sort, wide) if shown.herds else []
    if shown.steps:
        counts = ", ".join(
            f"{step.option}={step.wanted} leaves {step.left or 'none'}{_not_known(step)}" for step in shown.steps
        )
        if shown.herds:
            said = f"shown: {shown.shown} of {shown.considered} instances ({counts})"
        else:
            said = f"No instance matches: of {shown.considered}, {counts}"
        lines.append(printable(said))
    elif not shown.herds:
        lines.append("There is no instance to look at.")
    if shown.hidden_problems:
        lines.append(f"{shown.hidden_problems} herds that were looked at and are not shown have problems or warnings")
    return lines


def _not_known(step: Step) -> str:
    return f" ({step.unknown} not known)" if step.unknown else ""


def server_lines(servers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Servers that nobody has given a place, or anything to host."""
    if not servers:
        return []
    rows = [
        (one["server"], one["environment"], one["datacenter"] or "-", one["address"], one["instances"])
        for one in sorted(servers, key=lambda one: str(one["server"]))
    ]
    return ["", "unassigned servers:", *table(("SERVER", "ENVIRONMENT", "DC", "ADDRESS", "INSTANCES"), rows)]


def _role(_herd: HerdStatus, member: Member) -> str:
    recorded = member["recorded_role"]
    if not member["role"]:
        return f"({recorded})"
    return str(member["role"]) if member["role"] == recorded else f"{member['role']} (recorded {recorded})"


def _upstream(_herd: HerdStatus, member: Member) -> str:
    upstream = member["upstream"] or "-"
    return upstream.partition("@")[2] or upstream


def _seen_or_recorded(seen: Any, recorded: Any) -> Any:
    """What is only on record stands in parentheses, as a role does."""
    return seen or (f"({recorded})" if recorded else "-")


def _slots(_herd: HerdStatus, member: Member) -> Any:
    inactive = member["inactive_slots"]
    return f"{member['slots']} ({inactive} inactive)" if inactive else _known(member["slots"])


def _known(value: Any) -> Any:
    return "-" if value is None else value


_COLUMNS: dict[str, Callable[[HerdStatus, Member], Any]] = {
    "HERD": lambda herd, _member: _MARK[herd["level"]] + herd["herd"],
    "INSTANCE": lambda _herd, member: member["instance"].partition("@")[2] or member["instance"],
    "DC": lambda _herd, member: member["datacenter"] or "-",
    "ROLE": _role,
    "STATE": lambda _herd, member: member["state"],
    "TLI": lambda _herd, member: member["timeline"] or "-",
    "LAG": lambda _herd, member: "-" if member["lag_bytes"] is None else human_bytes(member["lag_bytes"]),
    "UPSTREAM": _upstream,
    "VERSION": lambda _herd, member: _seen_or_recorded(member["version"], member["recorded_version"]),
    "PORT": lambda _herd, member: member["port"],
    "CLIENTS": lambda _herd, member: _known(member["clients"]),
}
_WIDE_COLUMNS: dict[str, Callable[[HerdStatus, Member], Any]] = {
    "ENVIRONMENT": lambda herd, _member: herd["environment"],
    "ADDRESS": lambda _herd, member: member["address"],
    "DATA DIRECTORY": lambda _herd, member: _known(member["data_directory"]),
    "SYSTEM ID": lambda _herd, member: _known(member["system_identifier"]),
    "REPLICAS": lambda _herd, member: _known(member["replicas"]),
    "SLOTS": _slots,
    "PENDING RESTART": lambda _herd, member: ",".join(member["pending_restart"] or ()) or "-",
    "LAST SEEN": lambda _herd, member: (member["last_seen"] or "never").partition(".")[0],
}
