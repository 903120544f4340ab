# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One record of the registry, added, changed, renamed or removed with all that goes with it. Private to the collection.

What that means is decided in module_utils/decide/record.py; here it is asked, refused or carried out.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.fleet_change import in_use
from ansible_collections.elephaas.herd.plugins.module_utils.decide.names import herd_name
from ansible_collections.elephaas.herd.plugins.module_utils.decide.record import (
    Decision,
    Wish,
    decide,
    renamed_herds,
    subject,
)
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.fleet import RecordedFleet, changing_fleet
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.writing import write_changes


def settle_record(
    connection: Any, schema: str, wish: Wish, cascade: bool = False, force: bool = False, check_mode: bool = False
) -> Decision:
    """Make the registry hold this record as it is wished for, in one transaction; says what changed, and what it was.

    cascade: what goes with a removed record may go. force: also while it is in use.
    Check mode decides by the same rules and writes nothing.
    Raises OperatorError RECORD_HAS_DEPENDANTS, RECORD_IN_USE, those of decide.record.decide and of connection.explain.
    """
    disturbing = not wish.present or wish.new_key is not None
    with changing_fleet(connection, schema, check_mode, removing=disturbing) as (cursor, recorded):
        decision = decide(recorded.fleet, wish)
        if not wish.present and decision.dependants and not cascade:
            raise _has_dependants(wish, decision)
        if not force:
            _refuse_in_use(decision, recorded)
        if decision.changes and not check_mode:
            write_changes(cursor, decision.changes)
    return decision


def _has_dependants(wish: Wish, decision: Decision) -> OperatorError:
    gone = [item for item in decision.removed if item in decision.dependants]
    parts = [f"these go with it: {', '.join(gone)}"] if gone else []
    if decision.affected:
        parts.append(f"these are affected: {', '.join(decision.affected)}")
    return OperatorError(
        "RECORD_HAS_DEPENDANTS",
        f"{subject(wish.key)} is not removed: {'; '.join(parts)}.",
        "Run again with cascade to remove it with all of these, or move them away first.",
        {"removed": decision.removed, "affected": decision.affected},
    )


def _refuse_in_use(decision: Decision, recorded: RecordedFleet) -> None:
    problems = in_use(decision.changes, recorded.online, recorded.busy, recorded.live, recorded.held)
    for environment, name in renamed_herds(recorded.fleet, decision.changes):
        renamed = f"herd {herd_name(name, environment)} would be renamed, or a member of it, and"
        if (environment, name) in recorded.busy:
            problems.append(f"{renamed} has an open operation")
        if (environment, name) in recorded.held:
            problems.append(f"{renamed} is on hold: {recorded.held[(environment, name)]}")
    if problems:
        raise OperatorError(
            "RECORD_IN_USE",
            f"Nothing was changed: {'; '.join(problems)}.",
            "Stop what is online, let operations end, have holds released (elephaas.herd.status shows all three)."
            " Should the registry be what is wrong, run again with force.",
            {"problems": problems, "removed": decision.removed, "affected": decision.affected},
        )
