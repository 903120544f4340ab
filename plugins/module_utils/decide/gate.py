# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a run may act: the plan was shown, and somebody agreed to that very plan. Private to the collection."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Sequence

from ansible_collections.elephaas.herd.plugins.module_utils.decide.plan import GO

PROCEED = "proceed"
ASK = "ask"
STOP = "stop"
REFUSED = "refused"

_PLAN_ID = re.compile(r"\Ap[0-9a-f]{8}\Z")


@dataclass(frozen=True)
class Answer:
    """action: proceed, ask, stop (nothing to do, or a rehearsal) or refused; and why."""

    action: str
    why: str


def answer(plans: Sequence[dict[str, Any]], plan_id: str, confirm: str, rehearsal: bool, can_ask: bool) -> Answer:
    """Decide at the gate.

    plans: of all selected herds; asks tells whether somebody has to agree. plan_id: over all of them. confirm: what the operator gave, a plan id, "yes" or "".
    rehearsal: check mode. can_ask: a person sits at a terminal.
    """
    if not any(plan["outcome"] == GO for plan in plans):
        return Answer(STOP, "there is nothing to do")
    free = not any(plan["asks"] for plan in plans if plan["outcome"] == GO)
    if rehearsal:
        return Answer(STOP, "a rehearsal ends here" + ("" if free else f"; to do exactly this: -e confirm={plan_id}"))
    if free and not confirm:
        return Answer(PROCEED, "nothing here needs to be confirmed")
    if confirm == plan_id:
        return Answer(PROCEED, f"confirmed as {plan_id}")
    if confirm == "yes":
        guarded = sorted(plan["herd"] for plan in plans if plan["protected"])
        if guarded:
            return Answer(REFUSED, f"{', '.join(guarded)}: protected, so it takes the plan id: -e confirm={plan_id}")
        return Answer(PROCEED, "confirmed with yes")
    if _PLAN_ID.match(confirm):
        return Answer(
            REFUSED,
            f"{confirm} is another plan than the one above: the situation has changed, or the selection has. "
            f"Read it again; to do it: -e confirm={plan_id}",
        )
    if confirm:
        return Answer(REFUSED, f"confirm={confirm!r} is neither a plan id nor yes; to do this: -e confirm={plan_id}")
    if can_ask:
        return Answer(ASK, f"type {plan_id} to go on")
    return Answer(REFUSED, f"nobody is there to be asked; to do exactly this: -e confirm={plan_id}")


def agreed(reply: str, plan_id: str, plans: Sequence[dict[str, Any]]) -> bool:
    """Whether what a person typed agrees to the plan. An empty reply never does."""
    reply = reply.strip()
    return reply == plan_id or (reply == "yes" and not any(plan["protected"] for plan in plans))
