# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a hold means, to the herd that has one and to who wants to act on it."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.elephaas.herd.plugins.module_utils.decide.bulk import VERBS, Request, plan_bulk
from ansible_collections.elephaas.herd.plugins.module_utils.decide.candidate import Wishes
from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd
from ansible_collections.elephaas.herd.plugins.module_utils.decide.hold import (
    checked_reason,
    hold_lines,
    hold_text,
    settle,
    settled_text,
)
from ansible_collections.elephaas.herd.plugins.module_utils.decide.plan import plan_failover
from ansible_collections.elephaas.herd.plugins.module_utils.decide.status import herd_status
from ansible_collections.elephaas.herd.tests.unit.decide.herds import FAR, healthy

MINE = {"reason": "disk is replaced", "by": "ada", "since": "2026-01-31T09:12:33.123456Z"}
FOUND = {"hold_reason": MINE["reason"], "hold_by": MINE["by"], "hold_since": MINE["since"]}
SHOWN = "disk is replaced (ada, since 2026-01-31 09:12 UTC)"


@pytest.mark.parametrize(
    ("state", "now", "reason", "replace", "outcome"),
    [
        ("held", None, "why", False, "held"),
        ("held", MINE, "disk is replaced", False, "unchanged"),
        ("held", MINE, "disk is replaced", True, "unchanged"),
        ("held", MINE, "another", False, "refused"),
        ("held", MINE, "another", True, "replaced"),
        ("released", MINE, "", False, "released"),
        ("released", None, "", False, "unchanged"),
    ],
)
def test_what_becomes_of_a_herd(state: str, now: Any, reason: str, replace: bool, outcome: str) -> None:
    assert settle(state, now, reason, replace) == outcome


def test_a_hold_says_as_much_as_is_known() -> None:
    assert hold_text(MINE) == SHOWN
    assert hold_text({**MINE, "by": None}) == "disk is replaced (since 2026-01-31 09:12 UTC)"
    assert hold_text({**MINE, "since": None}) == "disk is replaced (ada)"
    assert hold_text({**MINE, "by": None, "since": None}) == "disk is replaced"


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines", "\x1b[2J", "nul\x00"])
def test_a_reason_is_one_line_of_text(reason: str) -> None:
    with pytest.raises(OperatorError) as caught:
        checked_reason(reason)
    assert caught.value.code == "HOLD_REASON"
    assert checked_reason("  Größe {{ 1 }} ' ") == "Größe {{ 1 }} '"


def test_what_was_done_is_told() -> None:
    def said(check_mode: bool = False, **row: Any) -> str:
        return settled_text({"hold": None, "before": None, "operation": None, "error": None, **row}, check_mode)

    assert said(outcome="unchanged") == "not on hold"
    assert said(outcome="unchanged", hold=MINE, before=MINE) == f"on hold already: {SHOWN}"
    assert said(outcome="released", before=MINE) == f"released; it was on hold: {SHOWN}"
    assert said(True, outcome="released", before=MINE).startswith("would be released")
    assert said(outcome="held", hold=MINE) == "on hold: disk is replaced"
    other = {**MINE, "reason": "network"}
    assert said(outcome="replaced", hold=other, before=MINE) == f"on hold: network; instead of: {SHOWN}"
    running = {"verb": "failover", "operator": "bob", "started": "2026-01-31T10:00:00.000000Z"}
    assert "a failover by bob, begun 2026-01-31 10:00 UTC, is not finished" in said(
        outcome="held", hold=MINE, operation=running
    )
    rows: list[dict[str, Any]] = [{"name": "a_prod", "hold": MINE}, {"name": "b_prod", "hold": None}]
    assert hold_lines(rows) == "a_prod: disk is replaced\nb_prod: (not on hold)\n"


def refusals(plan: dict[str, Any]) -> dict[str, str]:
    assert plan["outcome"] == "refuse"
    return {verdict["code"]: verdict["reason"] for verdict in plan["verdicts"] if verdict["level"] == "refuse"}


# What the inventory's snapshot says counts where the registry is lost, in the very disaster too.
@pytest.mark.parametrize("without_registry", [False, True])
def test_every_verb_refuses_a_held_herd(without_registry: bool) -> None:
    herd: Herd = healthy(**FOUND)
    for verb in VERBS:
        request = Request(verb, frozenset([FAR]), without_registry=without_registry)
        assert SHOWN in refusals(plan_bulk(herd, request))["HERD_ON_HOLD"]
    accepted = Wishes(without_registry=without_registry, takeover=True, accept=("HERD_ON_HOLD",))
    assert "disk is replaced" in refusals(plan_failover(herd, accepted))["HERD_ON_HOLD"]


def test_the_status_shows_it() -> None:
    status = herd_status(healthy(**FOUND), True, 0)
    assert {key: status[key] for key in FOUND} == FOUND
    assert [problem["reason"] for problem in status["problems"] if problem["code"] == "HERD_ON_HOLD"] == [
        f"on hold: {SHOWN}"
    ]
