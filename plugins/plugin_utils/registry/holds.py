# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Herds put on hold, and taken off it, many in one transaction. Private to the collection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.hold import (
    NEXT_STEP,
    REFUSED,
    UNCHANGED,
    Hold,
    hold_of,
    hold_text,
    settle,
)
from ansible_collections.elephaas.herd.plugins.module_utils.decide.names import herd_name
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry import operations
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import transaction


def settle_holds(
    connection: Any,
    schema: str,
    state: str,
    herds: Iterable[tuple[str, str]],
    reason: str,
    replace: bool,
    operator: str,
    awx: dict[str, Any],
    check_mode: bool = False,
) -> list[dict[str, Any]]:
    """Put these herds (environment, name) on hold, or take that off (state: held, released); see decide/hold.py.

    The locks are those of operations.begin, so that no operation begins while its herd is being put on hold. What is
    refused of one herd keeps no other from its hold: forty herds are safer with thirty-nine of them on hold.
    Returns one row per herd: {"name", "herd", "environment", "outcome", "hold", "before", "operation", "code", "error"}.
    """
    rows = []
    with transaction(connection, schema, keep=not check_mode) as cursor:
        wanted = list(dict.fromkeys(herds))
        known = operations.lock_herds(cursor, wanted)
        open_ones = operations.open_operations(cursor, [herd["herd_id"] for herd in known.values()])
        for environment, herd in wanted:
            row: dict[str, Any] = {
                "name": herd_name(herd, environment),
                "herd": herd,
                "environment": environment,
                "outcome": REFUSED,
                "hold": None,
                "before": None,
                "operation": None,
                "code": None,
                "error": None,
            }
            rows.append(row)
            record = known.get((environment, herd))
            if record is None:
                unknown = operations.herd_unknown(herd, environment)
                row.update(code=unknown.code, error=f"{unknown.reason} {unknown.next_step}")
                continue
            before = held(record)
            outcome = settle(state, before, reason, replace)
            found = open_ones.get(record["herd_id"])
            row.update(outcome=outcome, before=before, hold=before, operation=_shown(found))
            if outcome == REFUSED and before is not None:
                row.update(
                    code="HERD_ON_HOLD",
                    error=f"It is on hold already: {hold_text(before)}. {NEXT_STEP}"
                    " To put your reason in its place: -e replace=true.",
                )
            elif outcome != UNCHANGED and check_mode:
                # A rehearsal writes nothing that it would undo: the history's numbers would move on all the same.
                row["hold"] = hold_of(reason if state == "held" else None, operator, None)
            elif outcome != UNCHANGED:
                row["hold"] = _write(cursor, record["herd_id"], reason if state == "held" else None, operator)
                detail = {key: row[key] for key in ("hold", "before")}
                verb = "hold" if state == "held" else "release"
                operations.note(cursor, record["herd_id"], environment, herd, verb, operator, awx, detail)
    return rows


def held(record: dict[str, Any]) -> Hold | None:
    """The hold of a herd as operations.lock_herds has it."""
    return hold_of(record["hold_reason"], record["hold_by"], record["hold_since"])


def _write(cursor: Any, herd_id: int, reason: str | None, operator: str) -> Hold | None:
    cursor.execute(
        "UPDATE ele_herd SET hold_reason = %s, hold_by = %s, hold_since = clock_timestamp() WHERE herd_id = %s",
        (reason, operator, herd_id),
    )
    return held(operations.read_herds(cursor, [herd_id])[herd_id])


def _shown(operation: dict[str, Any] | None) -> dict[str, Any] | None:
    keys = ("verb", "operator", "started", "state", "plan_id")
    return {key: operation[key] for key in keys} if operation else None
