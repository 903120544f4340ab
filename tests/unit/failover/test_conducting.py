# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of whom in a failover, in which order, and what is not asked once something has failed."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.elephaas.herd.plugins.module_utils.decide.candidate import Wishes
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd
from ansible_collections.elephaas.herd.plugins.module_utils.decide.plan import plan_failover
from ansible_collections.elephaas.herd.plugins.plugin_utils.failover.conductor import Conductor
from ansible_collections.elephaas.herd.plugins.plugin_utils.failover.operation import Ended, Operation
from ansible_collections.elephaas.herd.tests.unit.decide.herds import FAR, NEAR, PRIMARY, healthy, stopped, with_fact

from .stage import TOKEN, FakeHosts, FakeLease, conductor_for, planner_for

# What each step is on a host.
ARM = (PRIMARY, "follow", "prepared")
WAIT = (FAR, "promote", "armed")
PROMOTE = (FAR, "promote", "promoted")
STOP = (PRIMARY, "instance", "stopped")
DNS = ("10.20.0.11", "dns", "sent")
CALL_OFF = (FAR, "promote", "disarmed")
UNARM = (PRIMARY, "follow", "absent")
BACK = (PRIMARY, "instance", "started")


def locked(
    monkeypatch: pytest.MonkeyPatch, herd: Herd | None = None, **wishes: Any
) -> tuple[Conductor, Operation, FakeHosts, FakeLease]:
    """A herd whose failover may begin; what was asked for the lock is forgotten."""
    herd = herd or healthy()
    conductor, hosts, lease = conductor_for(planner_for(herd, Wishes(**wishes), False, monkeypatch), herd)
    operation = conductor.lock(plan_failover(herd, Wishes(**wishes)), "p00000001")
    hosts.asked.clear()
    return conductor, operation, hosts, lease


def test_the_order_of_a_planned_failover(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arm, wait, stop; then DNS, the others, and the checkpoint last.

    It may take minutes, and it recycles WAL that a sibling which lags may need (reproduced).
    """
    conductor, operation, hosts, lease = locked(monkeypatch)
    conductor.settle(conductor.switch(operation), [])
    first, last = hosts.acts[:5], hosts.acts[5:]
    assert first[:2] == [ARM, WAIT]
    assert sorted(first[2:]) == sorted([PROMOTE, STOP, DNS])
    assert first.index(DNS) > first.index(PROMOTE)
    assert last == [(PRIMARY, "follow", "following"), (NEAR, "follow", "following"), PROMOTE]
    assert [one[:3] for one in hosts.asked if one.params.get("checkpoint")] == [PROMOTE]
    assert hosts.asked[-1].params["checkpoint"]
    assert all(one.params["token"] == TOKEN for one in hosts.asked if one.verb != "dns")
    # Each names the cluster that is meant: a name that is somebody else's as well changes nothing there.
    identifier = healthy().members[0].fact("system_identifier")
    assert {one.params["system_identifier"] for one in hosts.asked if one.verb != "dns"} == {identifier}
    assert lease.ends == ["done"]


@pytest.mark.parametrize("refused", [ARM, WAIT, ("", "dns", "prepared")], ids=["arming", "waiter", "DNS"])
def test_nobody_is_stopped_after_something_was_refused(
    refused: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others ignored the errors of the switchover command, and then stopped the live leader."""
    conductor, operation, hosts, lease = locked(monkeypatch)
    hosts.refusals[refused] = "NO"
    with pytest.raises(Ended) as ended:
        conductor.switch(operation)
    assert (ended.value.outcome, lease.ends) == ("aborted", ["aborted"])
    assert STOP not in hosts.acts and PROMOTE not in hosts.acts and DNS not in hosts.acts
    # The signal file goes only after the candidate has confirmed that nothing promotes it any more.
    assert hosts.acts[-3:] == [CALL_OFF, UNARM, BACK]


def test_a_run_that_was_overtaken_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two controllers on one herd the one whose lease was taken over finds out before anything is stopped."""
    conductor, operation, hosts, lease = locked(monkeypatch)
    lease.overtaken.append("armed")
    with pytest.raises(Ended, match="bob has taken over"):
        conductor.switch(operation)
    assert STOP not in hosts.acts and PROMOTE not in hosts.acts and DNS not in hosts.acts


@pytest.mark.parametrize("name", [PRIMARY, NEAR, FAR])
def test_a_claim_of_another_run_on_any_host_ends_this_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two controllers without the registry: the hosts decide, and who gets not all of them gives back what it has.

    And nothing else: the other run may have come to the same token.
    """
    herd = healthy()
    conductor, hosts, _lease = conductor_for(planner_for(herd, Wishes(), False, monkeypatch), herd)
    hosts.refusals[(name, "operation_token", "claimed")] = "OPERATION_HELD"
    with pytest.raises(Ended, match="OPERATION_HELD") as ended:
        conductor.lock(plan_failover(herd, Wishes()), "p00000001")
    assert ended.value.outcome == "aborted"
    assert hosts.acts == []
    released = [one for one in hosts.asked if one.state == "released"]
    assert {one.name for one in released} == {PRIMARY, NEAR, FAR} - {name}
    assert name == FAR or released[-1].name == FAR
    assert all(one.params["token"] == TOKEN for one in released)


@pytest.mark.parametrize("code", ["WAITER_DIED", "WAITER_EXPIRED", "PROOF_FAILED"])
def test_without_a_promotion_the_old_primary_is_brought_back(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others left the old primary down after a switchover that failed."""
    conductor, operation, hosts, lease = locked(monkeypatch)
    hosts.refusals[PROMOTE] = code
    hosts.shown[(PRIMARY, "look", None)] = {"writable": False, "status": "stopped", "role": None, "sql_error": None}
    with pytest.raises(Ended, match=code) as ended:
        conductor.switch(operation)
    assert (ended.value.outcome, lease.ends) == ("aborted", ["aborted"])
    # Its postmaster is seen gone before the signal file is removed.
    assert hosts.acts[-4:] == [CALL_OFF, STOP, UNARM, BACK]
    assert DNS not in hosts.acts


def test_nothing_is_undone_while_the_candidate_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been promoted: no primary is better than two."""
    conductor, operation, hosts, lease = locked(monkeypatch)
    for act in (PROMOTE, CALL_OFF):
        hosts.refusals[act] = "HOST_UNREACHABLE"
    with pytest.raises(Ended) as ended:
        conductor.switch(operation)
    assert (ended.value.outcome, lease.ends) == ("incomplete", ["incomplete"])
    assert UNARM not in hosts.acts and BACK not in hosts.acts and DNS not in hosts.acts


@pytest.mark.parametrize("name", [PRIMARY, NEAR])
def test_a_member_that_does_not_follow_leaves_it_incomplete(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Siblings that others did not attach again, and an exit of 0 after "failed": it is not done, and stays open."""
    conductor, operation, hosts, lease = locked(monkeypatch)
    conductor.switch(operation)
    hosts.refusals[(name, "follow", "following")] = "NOT_STREAMING"
    with pytest.raises(Ended, match=r"UNSETTLED.*NOT_STREAMING") as ended:
        conductor.settle(operation, [])
    assert (ended.value.outcome, lease.ends) == ("incomplete", ["incomplete"])
    assert not [one for one in hosts.asked if one.params.get("checkpoint")]


# --- the primary is gone ---------------------------------------------------------------------------

GONE = with_fact(stopped(healthy(), PRIMARY), PRIMARY, {"state": "shut down", "checkpoint_lsn": "0/5000059"}, "control")
HOLD = (PRIMARY, "follow", "held")


def test_the_order_of_an_unplanned_failover(monkeypatch: pytest.MonkeyPatch) -> None:
    conductor, operation, hosts, _lease = locked(monkeypatch, GONE)
    assert (operation.plan["stage"], operation.target) == ("takeover", FAR)
    conductor.settle(conductor.switch(operation), [])
    assert hosts.acts == [
        HOLD,
        (NEAR, "follow", "isolated"),
        (FAR, "follow", "isolated"),
        PROMOTE,
        DNS,
        (NEAR, "follow", "following"),
        PROMOTE,
    ]


@pytest.mark.parametrize("refused", [HOLD, (NEAR, "follow", "isolated"), (FAR, "follow", "isolated")])
def test_nobody_is_promoted_before_death_is_proven_and_every_receiver_is_gone(
    refused: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    conductor, operation, hosts, _lease = locked(monkeypatch, GONE)
    hosts.refusals[refused] = "NO"
    with pytest.raises(Ended):
        conductor.switch(operation)
    assert PROMOTE not in hosts.acts and DNS not in hosts.acts


def test_who_turns_out_to_hold_more_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was in flight has arrived at another one since the plan was shown."""
    conductor, operation, hosts, _lease = locked(monkeypatch, GONE)
    more = with_fact(healthy(), NEAR, "0/6000000", "positions", "received").member(NEAR)
    assert more is not None and more.facts is not None
    hosts.shown[(NEAR, "follow", "isolated")] = more.facts
    with pytest.raises(Ended, match="CANDIDATE_OVERTAKEN"):
        conductor.switch(operation)
    assert PROMOTE not in hosts.acts and DNS not in hosts.acts
