# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans and outcomes as text on a screen. Private to the collection."""

from __future__ import annotations

from typing import Any, Iterable, Sequence

from ansible_collections.elephaas.herd.plugins.module_utils.decide.dns_drift import VERB as SWITCH_DNS
from ansible_collections.elephaas.herd.plugins.module_utils.decide.dns_drift import differing
from ansible_collections.elephaas.herd.plugins.module_utils.decide.plan import ACTIONS, GO
from ansible_collections.elephaas.herd.plugins.module_utils.decide.size import human_seconds
from ansible_collections.elephaas.herd.plugins.module_utils.decide.stage import DONE, SWITCH
from ansible_collections.elephaas.herd.plugins.module_utils.decide.verdict import OK


def printable(value: Any) -> str:
    """One line, no control characters: what comes from a host or the registry must not drive the terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(value))


# A longer value would push every row of its table off the screen.
_WIDEST = 200


def _cell(value: Any) -> str:
    text = printable(value)
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "\N{HORIZONTAL ELLIPSIS}"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], indent: str = "  ") -> list[str]:
    """Left-aligned columns, two blanks apart."""
    cells = [[_cell(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return [(indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths))).rstrip() for row in cells]


def plan_lines(plan: dict[str, Any]) -> list[str]:
    """The plan of one herd, as shown before it is carried out and by its rehearsal."""
    if plan["verb"] == SWITCH_DNS:
        return verdict_lines(plan["verdicts"])
    if plan["verb"] != "failover":
        return bulk_lines(plan)
    herd = printable(plan["herd"])
    if plan["outcome"] == DONE:
        return [f"{herd}: already done: {printable(plan['why'])}"]
    verdict = "" if plan["outcome"] == GO else "  REFUSED"
    lines = [f"{herd}: {printable(plan['source'])} -> {printable(plan['target'] or '?')}{verdict}"]
    if plan["stage"] != SWITCH:
        resumes = "unplanned" if plan["unplanned"] and not plan["begun_plan_id"] else "resumes"
        lines.append(f"  {resumes}: {printable(plan['why'])}")
    if plan["target"]:
        lines.append(f"  promoted because: {printable(plan['target_why'])}")
    lines += [f"  not {printable(lost['name'])}: {printable(lost['reason'])}" for lost in plan["runners_up"]]
    if plan["dns"]:
        dns = plan["dns"]
        lines.append(
            "  " + printable(f"DNS {dns['record']} {dns['type']} {dns['from']} -> {dns['to']}, TTL {dns['ttl']} s")
        )
    for move in plan["moves"]:
        upstream = f" ({printable(move['upstream'])})" if move["action"] in ("follow", "verify", "point") else ""
        lines.append(f"  {printable(move['name'])} {ACTIONS[move['action']]}{upstream}")
    lines += verdict_lines(plan["verdicts"])
    if plan["target"]:
        lines.append(f"  loss: {printable(plan['loss']['text'] if plan['loss'] else 'nothing')}")
    return lines


#: What a bulk verb does to an instance, and what it leaves.
_DOING = {
    "start": "starts",
    "stop": "stops",
    "restart": "restarts",
    "reload": "reloads",
    "promote": "promotes",
    "demote": "demotes",
}


def bulk_lines(plan: dict[str, Any]) -> list[str]:
    """One line for what happens to a herd, turn after turn, and one for each finding: a fleet must fit on a screen."""
    herd = printable(plan["herd"])
    if plan["outcome"] == DONE:
        return [f"{herd}: nothing to do: {printable(_reasons(plan['skipped']))}"]
    turns: dict[int, list[str]] = {}
    for step in plan["steps"]:
        server = step["name"].partition("@")[2] or step["name"]
        turns.setdefault(step["turn"], []).append(server + (" (primary)" if step["role"] == "primary" else ""))
    order = ", then ".join(" and ".join(turns[turn]) for turn in sorted(turns)) or "nothing"
    verdict = "" if plan["outcome"] == GO else "  REFUSED"
    lines = [f"{herd}: {_DOING[plan['verb']]} {printable(order)}{verdict}"]
    if plan["skipped"]:
        lines.append(f"  left as it is: {printable(_reasons(plan['skipped']))}")
    return lines + verdict_lines(plan["verdicts"])


_DRIFT = {"refuse": "REFUSED", GO: "changes", DONE: "stays"}


def drift_lines(plans: Sequence[dict[str, Any]]) -> list[str]:
    """What the DNS names of herds hold beside what they should, one table for all of them; nothing without plans."""
    if not plans:
        return []
    rows, notes = [], []
    for plan in plans:
        dns = plan["dns"]
        if dns is None:
            rows.append((plan["herd"], _DRIFT[plan["outcome"]], *["-"] * 6))
            continue
        apart = [f"{one['server']}: {', '.join(one['values'] or []) or 'nothing'}" for one in differing(dns)]
        apart += [f"{one['server']}: silent" for one in dns["servers"] if one["error"]]
        ttl = (
            f"{dns['ttl']} -> {dns['ttl_to']} s" if dns["retimes"] else "-" if dns["ttl"] is None else f"{dns['ttl']} s"
        )
        rows.append(
            (
                plan["herd"],
                _DRIFT[plan["outcome"]],
                dns["record"],
                dns["type"] or "-",
                ", ".join(dns["holds"]) or "-",
                dns["should_hold"] or "?",
                ttl,
                "; ".join(apart) or ("agree" if dns["servers"] else "-"),
            )
        )
        if dns["retimes"] and plan["outcome"] == GO:
            after = human_seconds(float(dns["ttl"] or 0))
            notes.append(printable(f"  {dns['record']}: the new TTL is in effect everywhere {after} after the change"))
    header = ("HERD", "", "VHOST", "TYPE", "HOLDS", "SHOULD HOLD", "TTL", "SERVERS")
    return table(header, rows, indent="") + notes


def _reasons(skipped: dict[str, str]) -> str:
    """Members by the reason that they share."""
    by_reason: dict[str, list[str]] = {}
    for name, why in skipped.items():
        by_reason.setdefault(why, []).append(name.partition("@")[2] or name)
    return "; ".join(f"{', '.join(names)} ({why})" for why, names in by_reason.items()) or "no member is selected"


def verdict_lines(verdicts: Iterable[dict[str, Any]]) -> list[str]:
    """Findings, one a line, each with what to do about it."""
    lines = []
    for verdict in verdicts:
        if verdict["level"] == OK:
            continue
        line = f"  {verdict['level'].upper()} {verdict['code']} {verdict['subject']}: {verdict['reason']}"
        if verdict["next_step"]:
            line += f". {verdict['next_step']}"
        lines.append("  " + printable(line).strip())
    return lines


def all_plans(plans: Iterable[dict[str, Any]], plan_id: str) -> list[str]:
    """Everything that a run is about to do; refused herds first, they are what a reader must not miss."""
    order = {"refuse": 0, GO: 1, DONE: 2}
    in_order = sorted(plans, key=lambda plan: (order[plan["outcome"]], plan["herd"]))
    lines = drift_lines([plan for plan in in_order if plan["verb"] == SWITCH_DNS])
    for plan in in_order:
        lines += plan_lines(plan) + ([""] if plan["verb"] == "failover" else [])
    return lines + [f"plan id: {plan_id}"]


def _worst_first(outcomes: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    order = {"failed": 0, "incomplete": 1, "not begun": 2, "refused": 3, "aborted": 4}
    return sorted(outcomes, key=lambda row: (order.get(row["outcome"], 9), row["herd"]))


def bulk_outcome_lines(outcomes: Iterable[dict[str, Any]]) -> list[str]:
    """How each herd of a bulk operation ended: failures with the end of that PostgreSQL's log, then one table."""
    rows = _worst_first(outcomes)
    lines: list[str] = []
    for row in rows:
        lines += [printable(f"{name}: {left['reason']}") for name, left in row["left"].items()]
        for failure in row["failures"]:
            lines.append(printable(f"{failure['name']}: {failure['msg']}"))
            lines += [f"    {printable(line)}" for line in failure["log_tail"]]
    if lines:
        lines.append("")
    counted = "NAMES" if any(row["verb"] == SWITCH_DNS for row in rows) else "INSTANCES"
    return lines + table(
        ("HERD", "OUTCOME", counted, "TOOK", "WHAT"),
        [
            (
                row["herd"],
                row["outcome"],
                f"{row['changed']} of {row['planned']}",
                human_seconds(row["seconds"]) if row["seconds"] else "-",
                row["reason"],
            )
            for row in rows
        ],
        indent="",
    )


def outcome_lines(outcomes: Sequence[dict[str, Any]]) -> list[str]:
    """How each herd of a failover ended, what needs attention first."""
    rows = _worst_first(outcomes)
    return table(
        ("HERD", "OUTCOME", "WITHOUT PRIMARY", "WHAT"),
        [
            (row["herd"], row["outcome"], human_seconds(row.get("gap_s")) if row.get("gap_s") else "-", row["reason"])
            for row in rows
        ],
    )
