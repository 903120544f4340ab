# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check mode refuses in every case in which the real run refuses, and so does the second look under the lock.

Others shipped a `not ansible_check_mode` that switched off exactly the checks that mattered.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.elephaas.herd.plugins.module_utils.decide.candidate import Wishes
from ansible_collections.elephaas.herd.plugins.module_utils.decide.gate import PROCEED, STOP, answer
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd
from ansible_collections.elephaas.herd.plugins.module_utils.decide.plan import plan_failover, plan_id
from ansible_collections.elephaas.herd.plugins.module_utils.decide.stage import SWITCH, TAKEOVER
from ansible_collections.elephaas.herd.plugins.plugin_utils.failover.operation import Ended
from ansible_collections.elephaas.herd.plugins.plugin_utils.instances import Remembered
from ansible_collections.elephaas.herd.tests.unit.decide.herds import healthy
from ansible_collections.elephaas.herd.tests.unit.decide.pairs import PAIRS
from ansible_collections.elephaas.herd.tests.unit.decide.refusals import REFUSALS, Refusal

from .stage import TOKEN, FakeHosts, conductor_for, hostvars_of, planner_for

MODES = pytest.mark.parametrize("rehearsal", [True, False], ids=["check mode", "real run"])


def decided(
    herd: Herd, wishes: dict[str, Any], rehearsal: bool, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Any], FakeHosts]:
    """The plan of a herd, as the controller comes to it; and its hosts."""
    planner = planner_for(herd, Wishes(**wishes), rehearsal, monkeypatch)
    plan = planner.plans([herd.lead], "")[herd.name]
    assert isinstance(planner.hosts, FakeHosts)
    return plan, planner.hosts


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.name)
def test_check_mode_refuses_what_the_real_run_refuses(case: Refusal, monkeypatch: pytest.MonkeyPatch) -> None:
    """From what hosts, name servers and the registry say to the gate: refused both times, in the same words."""
    plans = {}
    for rehearsal in (True, False):
        plan, hosts = decided(case.herd, case.wishes, rehearsal, monkeypatch)
        plans[rehearsal] = plan
        assert plan["outcome"] == "refuse"
        assert case.code in [verdict["code"] for verdict in plan["verdicts"] if verdict["level"] == "refuse"]
        # Whatever is agreed to, nobody passes; and until here nothing was done to anybody.
        for confirm in (plan_id([plan]), "yes", ""):
            assert answer([plan], plan_id([plan]), confirm, rehearsal, can_ask=True).action == STOP
        assert hosts.acts == []
    assert plans[True] == plans[False]


@MODES
def test_what_is_fine_passes(rehearsal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the refusals above are those of their herds, and not of the stage that they were put on."""
    plan, hosts = decided(healthy(), {}, rehearsal, monkeypatch)
    assert (plan["outcome"], plan["verdicts"]) == ("go", [])
    assert plan["decisions"] == plan_failover(healthy(), Wishes())["decisions"]
    # Each member has tried its way to the new primary, and only tried.
    assert [one for one in hosts.asked if one.rehearsal]
    assert hosts.acts == []
    gate = answer([plan], plan_id([plan]), plan_id([plan]), rehearsal, can_ask=False)
    assert gate.action == (STOP if rehearsal else PROCEED)


def shown_before(case: Refusal) -> tuple[Herd, dict[str, Any]]:
    """A herd that was fine when the plan was shown, as near to the refused one as there is."""
    for pair in PAIRS:
        if pair.code == case.name:
            shown = plan_failover(pair.passes, Wishes(**pair.passing_wishes))
            if shown["outcome"] == "go" and shown["stage"] in (SWITCH, TAKEOVER):
                return pair.passes, pair.passing_wishes
    names = {one.name for one in case.herd.members}
    left = [one for one in healthy().members if one.name in names]
    return (replace(healthy(), members=tuple(left)) if len(left) > 1 else healthy()), {}


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.name)
def test_what_came_up_since_the_plan_was_shown_is_refused_under_the_lock(
    case: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is stopped, armed or promoted, and the claims are given back."""
    before, wishes = shown_before(case)
    shown = plan_failover(before, Wishes(**wishes))
    assert shown["outcome"] == "go"
    # The way back is rehearsed before the lock only (it takes a login per member); what it found then is in the plan.
    shown = {**shown, "way_back": case.herd.way_back}
    planner = planner_for(case.herd, Wishes(**case.wishes), False, monkeypatch)
    planner.hostvars = Remembered({**hostvars_of(before), **hostvars_of(case.herd)})
    conductor, hosts, lease = conductor_for(planner, case.herd)
    with pytest.raises(Ended) as ended:
        conductor.lock(shown, "p00000001")
    assert ended.value.outcome == ("aborted" if lease.ends else "refused")
    assert lease.ends in ([], ["aborted"])
    assert hosts.acts == []
    states = [one.state for one in hosts.asked if one.verb == "operation_token"]
    assert states.count("claimed") == states.count("released")


def test_what_is_still_fine_is_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    conductor, hosts, lease = conductor_for(planner_for(healthy(), Wishes(), False, monkeypatch), healthy())
    operation = conductor.lock(plan_failover(healthy(), Wishes()), "p00000001")
    assert (operation.token, operation.plan["outcome"], list(operation.phases)) == (TOKEN, "go", ["begun", "locked"])
    assert [one[1:3] for one in hosts.asked] == [("operation_token", "claimed")] * 3
    assert lease.ends == []
