# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans and outcomes as text on a screen. Private to the collection."""

from __future__ import annotations

from typing import Any, Iterable, Sequence

from ansible_collections.elephaas.herd.plugins.module_utils.decide.plan import ACTIONS, GO
from ansible_collections.elephaas.herd.plugins.module_utils.decide.size import human_seconds
from ansible_collections.elephaas.herd.plugins.module_utils.decide.stage import DONE, SWITCH
from ansible_collections.elephaas.herd.plugins.module_utils.decide.verdict import OK


def printable(value: Any) -> str:
    """One line, no control characters: what comes from a host or the registry must not drive the terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(value))


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], indent: str = "  ") -> list[str]:
    """Left-aligned columns, two blanks apart."""
    cells = [[printable(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return [(indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths))).rstrip() for row in cells]


def plan_lines(plan: dict[str, Any]) -> list[str]:
    """The plan of one herd, as shown before a failover and by its rehearsal."""
    herd = printable(plan["herd"])
    if plan["outcome"] == DONE:
        return [f"{herd}: already done: {printable(plan['why'])}"]
    verdict = "" if plan["outcome"] == GO else "  REFUSED"
    lines = [f"{herd}: {printable(plan['source'])} -> {printable(plan['target'] or '?')}{verdict}"]
    if plan["stage"] != SWITCH:
        lines.append(f"  resumes: {printable(plan['why'])}")
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
    lines.append(f"  expected loss: {plan['expected_loss_bytes']} bytes")
    return lines


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
    lines: list[str] = []
    for plan in sorted(plans, key=lambda plan: (order[plan["outcome"]], plan["herd"])):
        lines += plan_lines(plan) + [""]
    return lines + [f"plan id: {plan_id}"]


def outcome_lines(outcomes: Sequence[dict[str, Any]]) -> list[str]:
    """How each herd of a failover ended, what needs attention first."""
    order = {"incomplete": 0, "refused": 1, "aborted": 2}
    rows = sorted(outcomes, key=lambda row: (order.get(row["outcome"], 9), row["herd"]))
    return table(
        ("HERD", "OUTCOME", "WITHOUT PRIMARY", "WHAT"),
        [
            (row["herd"], row["outcome"], human_seconds(row.get("gap_s")) if row.get("gap_s") else "-", row["reason"])
            for row in rows
        ],
    )
