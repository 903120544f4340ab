# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The brain of a failover: every check passes on a healthy herd and refuses what it is there for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.elephaas.herd.plugins.module_utils.decide.candidate import Wishes
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd, Operation
from ansible_collections.elephaas.herd.plugins.module_utils.decide.plan import (
    changed_decisions,
    decisions,
    plan_failover,
    plan_id,
    unplannable,
)
from ansible_collections.elephaas.herd.plugins.module_utils.decide.text import all_plans

from .herds import (
    FAR,
    NEAR,
    PRIMARY,
    claimed,
    healthy,
    member,
    promoted,
    stopped,
    unreachable,
    with_fact,
)
from .pairs import armed_and_stopped


def plan(herd: Herd, confirm: str = "", **wishes: Any) -> dict[str, Any]:
    return plan_failover(herd, Wishes(**wishes), confirm)


def codes(document: dict[str, Any]) -> set[str]:
    return {verdict["code"] for verdict in document["verdicts"]}


def actions(document: dict[str, Any]) -> dict[str, tuple[str, str | None]]:
    return {move["name"]: (move["action"], move["upstream"]) for move in document["moves"]}


def test_a_healthy_herd_goes_to_the_other_data_center() -> None:
    decided = plan(healthy())
    assert decided["outcome"] == "go" and decided["verdicts"] == []
    assert (decided["source"], decided["target"]) == (PRIMARY, FAR)
    assert actions(decided) == {
        PRIMARY: ("rejoin", FAR),
        NEAR: ("follow", FAR),
        FAR: ("promote", None),
    }
    assert decided["dns"] == {
        "record": "trading.example.com",
        "type": "A",
        "ttl": 30,
        "from": "10.10.0.11",
        "to": "10.20.0.11",
    }
    assert decided["runners_up"][0]["name"] == NEAR
    assert "another data center" in decided["runners_up"][0]["reason"]


def test_an_accepted_refusal_is_a_warning_and_part_of_the_id() -> None:
    herd = unreachable(healthy(), NEAR)
    decided = plan(herd, accept=("MEMBER_UNREACHABLE",))
    assert decided["outcome"] == "go" and decided["accepted"] == ["MEMBER_UNREACHABLE"]
    assert actions(decided)[NEAR][0] == "leave"
    other = plan(healthy())
    assert plan_id([decided]) != plan_id([other])


def test_only_acceptable_refusals_can_be_accepted() -> None:
    decided = plan(promoted(healthy(), FAR), accept=("SPLIT_BRAIN",))
    assert decided["outcome"] == "refuse"


def test_stopping_a_replica_changes_the_id() -> None:
    before, after = plan(healthy()), plan(stopped(healthy(), NEAR, "shut down in recovery"))
    assert actions(after)[NEAR] == ("point", FAR)
    assert plan_id([before]) != plan_id([after])


@given(st.integers(0x1000000, 0x1FFFFFF), st.integers(0x1000000, 0x1FFFFFF), st.integers(1, 50))
def test_positions_and_traffic_never_change_the_id(one: int, other: int, clients: int) -> None:
    herd = with_fact(healthy(), PRIMARY, f"0/{max(one, other):X}", "positions", "current")
    herd = with_fact(herd, FAR, f"0/{one:X}", "positions", "received")
    herd = with_fact(herd, FAR, f"0/{other:X}", "positions", "replayed")
    herd = with_fact(herd, PRIMARY, clients, "clients")
    assert plan_id([plan(herd)]) == plan_id([plan(healthy())])


@given(st.permutations(range(3)))
def test_the_order_of_members_does_not_matter(order: list[int]) -> None:
    herd = healthy()
    shuffled = replace(herd, members=tuple(herd.members[index] for index in order))
    assert decisions(plan(shuffled)) == decisions(plan(herd))


def test_a_plan_survives_json() -> None:
    decided = plan(healthy())
    again = json.loads(json.dumps(decided))
    assert changed_decisions(again, decided) == [] and plan_id([again]) == plan_id([decided])


def test_leave_excludes_a_whole_data_center() -> None:
    decided = plan(healthy(), leave="newyork")
    assert decided["target"] == NEAR
    assert {lost["code"] for lost in decided["runners_up"]} == {"LEFT_DATACENTER"}


def test_the_operator_may_name_the_candidate_by_server() -> None:
    assert plan(healthy(), candidate="chi-db2")["target"] == NEAR


def test_a_replica_behind_on_replay_only_is_no_candidate() -> None:
    # Users of other tools were switched to replicas that had received everything and were 15 minutes behind on replay.
    herd = with_fact(healthy(), FAR, "0/100", "positions", "replayed")
    assert plan(herd)["target"] == NEAR


def test_a_cascade_below_a_sibling_keeps_its_upstream() -> None:
    herd = healthy(member("nyc-db2", upstream_server="chi-db2"))
    assert actions(plan(herd))["trading_prod@nyc-db2"] == ("verify", NEAR)


def test_a_cascade_below_the_candidate_keeps_it() -> None:
    herd = healthy(member("nyc-db2", upstream_server="nyc-db1"))
    assert actions(plan(herd))["trading_prod@nyc-db2"] == ("verify", FAR)


def test_a_cascaded_replica_is_no_candidate() -> None:
    # Its receiver goes on streaming from its living upstream when the primary stops: nothing tells it that this was all.
    herd = healthy(
        members=(member("chi-db1", "primary"), member("chi-db2"), member("nyc-db1", upstream_server="chi-db2"))
    )
    decided = plan(herd)
    assert decided["target"] == NEAR
    assert {lost["code"] for lost in decided["runners_up"]} == {"CASCADED"}
    assert actions(decided)[FAR] == ("verify", NEAR)


def test_the_old_primary_keeps_no_slots_of_those_that_left_it() -> None:
    herd = with_fact(healthy(), NEAR, "chi_db2", "upstream", "slot")
    slots = [{"name": "chi_db2", "type": "physical"}, {"name": "backup", "type": "physical"}]
    assert plan(with_fact(herd, PRIMARY, slots, "slots"))["left_slots"] == ["chi_db2"]


def test_the_old_primarys_own_slot_is_reserved_too() -> None:
    assert plan(with_fact(healthy(), PRIMARY, "chi_db1", "settings", "primary_slot_name"))["slots"] == ["chi_db1"]


def test_an_unreachable_candidate_whose_waiter_may_live_blocks_every_other() -> None:
    herd = with_fact(claimed(healthy(), (PRIMARY, NEAR)), PRIMARY, ["standby.signal"], "signal_files")
    decided = plan(unreachable(herd, FAR), accept=("MEMBER_UNREACHABLE",), candidate="chi-db2")
    assert (decided["stage"], decided["outcome"]) == ("stuck", "refuse")


def test_a_target_promoted_by_hand_is_not_finished_blindly() -> None:
    herd = promoted(claimed(healthy(), (NEAR, FAR)), FAR, by_waiter=False)
    assert plan(unreachable(herd, PRIMARY), accept=("MEMBER_UNREACHABLE",))["stage"] == "stuck"


def test_nothing_is_done_already_beside_a_second_writable_member() -> None:
    herd = promoted(claimed(healthy(), (FAR,), closed="done"), FAR)
    decided = plan(herd)
    assert decided["outcome"] == "refuse" and "SPLIT_BRAIN" in codes(decided)


def test_followers_slots_are_reserved() -> None:
    herd = with_fact(healthy(), NEAR, "chi_db2", "upstream", "slot")
    assert plan(herd)["slots"] == ["chi_db2"]


# --- interrupted and finished runs ---------------------------------------------------------------


def test_a_run_that_stopped_nothing_is_planned_afresh() -> None:
    decided = plan(claimed(healthy(), (PRIMARY, NEAR, FAR)))
    assert (decided["stage"], decided["outcome"], decided["target"]) == ("switch", "go", FAR)


def test_a_run_that_died_after_the_stop_goes_on_to_promote_the_same_candidate() -> None:
    decided = plan(armed_and_stopped(claimed(healthy(), (PRIMARY, NEAR, FAR), target=NEAR)))
    assert (decided["stage"], decided["outcome"], decided["target"]) == ("promote", "go", NEAR)


def test_a_run_that_died_after_the_promotion_is_finished() -> None:
    decided = plan(promoted(armed_and_stopped(claimed(healthy(), (PRIMARY, NEAR, FAR))), FAR))
    assert (decided["stage"], decided["outcome"]) == ("finish", "go")
    assert decided["begun_plan_id"] == "p00000001"


def test_the_interrupted_command_keeps_its_plan_id() -> None:
    before = plan(healthy())
    begun = claimed(healthy(), (PRIMARY, NEAR, FAR), plan=plan_id([before]), decisions=before["decisions"])
    after = plan(promoted(armed_and_stopped(begun), FAR))
    assert after["stage"] == "finish" and plan_id([after]) == plan_id([before])


def test_a_finished_run_is_recognised_by_its_former_lead() -> None:
    herd = promoted(claimed(healthy(), (FAR,), closed="done"), FAR)
    herd = with_fact(with_fact(herd, PRIMARY, False, "writable"), PRIMARY, "replica", "role")
    decided = plan(herd)
    assert decided["outcome"] == "done"
    # … and from the new lead only when asked for by its id: otherwise this is the way back.
    as_lead = replace(herd, lead=FAR)
    assert plan(as_lead, confirm="p00000001")["outcome"] == "done"
    assert plan(as_lead, confirm="p00000002")["outcome"] != "done"


def test_a_member_that_never_closed_its_claim_does_not_reopen_a_finished_run() -> None:
    herd = promoted(claimed(claimed(healthy(), (NEAR,)), (FAR,), closed="done"), FAR)
    herd = with_fact(with_fact(herd, PRIMARY, False, "writable"), PRIMARY, "replica", "role")
    assert plan(herd)["outcome"] == "done"


def test_a_run_is_not_over_while_only_its_followers_closed_their_claims() -> None:
    herd = claimed(claimed(healthy(), (PRIMARY, FAR)), (NEAR,), closed="done")
    assert plan(promoted(armed_and_stopped(herd), FAR))["stage"] == "finish"


def test_the_registry_alone_knows_of_an_operation_too() -> None:
    operation = Operation("failover", "incomplete", 4, "p00000009", PRIMARY, FAR)
    herd = healthy(operation=operation, last_failover=operation)
    decided = plan(promoted(armed_and_stopped(herd), FAR))
    assert (decided["stage"], decided["begun_plan_id"]) == ("finish", "p00000009")


def test_a_failed_rehearsal_refuses_before_anything_stops() -> None:
    herd = healthy(way_back={PRIMARY: {"code": "UPSTREAM_AUTH", "reason": "no pg_hba.conf entry", "next_step": ""}})
    assert plan(herd)["outcome"] == "refuse"
    taken = plan(herd, accept=("WAY_BACK",))
    assert taken["outcome"] == "go" and taken["accepted"] == ["WAY_BACK"]
    # The second look rehearses nothing; with the first one's findings it decides the same.
    again = plan(healthy(way_back=taken["way_back"]), accept=("WAY_BACK",))
    assert changed_decisions(taken, again) == []


def test_a_changed_situation_is_named() -> None:
    changed = changed_decisions(plan(healthy()), plan(stopped(healthy(), NEAR, "shut down in recovery")))
    assert len(changed) == 1 and changed[0].startswith("moves:")


def test_the_roles_to_record() -> None:
    assert plan(healthy())["roles"] == {
        "nyc-db1": {"role": "primary", "upstream_server": None},
        "chi-db1": {"role": "replica", "upstream_server": "nyc-db1"},
        "chi-db2": {"role": "replica", "upstream_server": "nyc-db1"},
    }


def test_without_the_registry_a_live_claim_on_a_host_holds_the_herd() -> None:
    herd = replace(claimed(healthy(), (NEAR,), token=3), now=-60.0)
    assert "OPERATION_HELD" in codes(plan(herd, without_registry=True))
    assert "OPERATION_HELD" not in codes(plan(herd))
    for free in ({"takeover": True}, {"token": 3}):
        assert "OPERATION_HELD" not in codes(plan(herd, without_registry=True, **free))
    assert "OPERATION_HELD" not in codes(plan(replace(herd, now=60.0), without_registry=True))


_FACTS = st.sampled_from(
    [
        unreachable,
        lambda herd, name: with_fact(herd, name, True, "replay_paused"),
        stopped,
        promoted,
        lambda herd, name: with_fact(herd, name, ["standby.signal"], "signal_files"),
        lambda herd, name: with_fact(herd, name, "8", "system_identifier"),
        lambda herd, name: claimed(herd, (name,), token=3),
        lambda herd, name: claimed(herd, (name,), token=3, closed="done"),
    ]
)


@given(st.lists(st.tuples(_FACTS, st.sampled_from([PRIMARY, NEAR, FAR])), max_size=4))
def test_whatever_happens_a_plan_is_safe(events: list[tuple[Callable[[Herd, str], Herd], str]]) -> None:
    herd = healthy()
    for change, name in events:
        if herd.member(name).facts is not None:  # type: ignore[union-attr]
            herd = change(herd, name)
    decided = plan(herd)
    moves = actions(decided)
    assert json.loads(json.dumps(decided))["herd"] == "trading_prod"
    if decided["outcome"] == "go":
        assert [name for name, (action, _to) in moves.items() if action == "promote"] == [decided["target"]]
        assert decided["target"] != decided["source"]
        target = herd.member(decided["target"])
        assert target is not None and target.reachable
        # Nobody else may accept writes by the time the target does, but the source, which is stopped first.
        others = {one.name for one in herd.members if one.writable} - {decided["target"], decided["source"]}
        assert not others
        assert all(to != name for name, (_action, to) in moves.items())


def test_a_herd_that_cannot_be_decided_about_is_refused_alone() -> None:
    broken = unplannable("odd_prod", "odd_prod@chi-db9", "KeyError: 'positions'")
    assert (broken["outcome"], broken["herd"]) == ("refuse", "odd_prod")
    assert plan_id([broken, plan(healthy())])
    assert any("INTERNAL_ERROR" in line for line in all_plans([broken, plan(healthy())], "p00000000"))


def test_a_primary_that_crashed_since_is_no_part_of_what_was_agreed_to() -> None:
    """A planned failover must not become a lossy one under the lock."""
    crashed = with_fact(stopped(healthy(), PRIMARY), PRIMARY, {"state": "in production"}, "control")
    changed = changed_decisions(plan(healthy()), plan(crashed))
    assert len(changed) == 1 and changed[0].startswith("stage: switch became takeover")


def test_backends_that_outlived_their_postmaster_are_no_dead_primary() -> None:
    left = with_fact(stopped(healthy(), PRIMARY), PRIMARY, [4711], "leftovers")
    assert "NOT_PROVEN_DEAD" in codes(plan(left))
    assert "NOT_PROVEN_DEAD" in codes(plan(left, dead="I am sure")), "its host answers: a word is not enough"
    assert "NOT_PROVEN_DEAD" not in codes(plan(left, fence=True))


def test_an_old_primary_that_somebody_restarted_read_only_is_one_of_the_candidates() -> None:
    """Armed, and then crashed and restarted before it could be stopped: it holds everything."""
    herd = with_fact(with_fact(healthy(), PRIMARY, "replica", "role"), PRIMARY, False, "writable")
    herd = with_fact(herd, PRIMARY, {"received": None, "replayed": "0/6000000"}, "positions")
    decided = plan(with_fact(herd, PRIMARY, ["standby.signal"], "signal_files"))
    assert (decided["stage"], decided["target"], decided["proof"]) == ("takeover", PRIMARY, "stopped")
    assert decided["loss"]["text"] == "nothing"
    asked = plan(with_fact(herd, PRIMARY, {"received": None, "replayed": "0/1000"}, "positions"))
    assert actions(asked)[PRIMARY] == ("rejoin", asked["target"])


def test_a_lost_primary_that_hangs_is_not_back_because_the_herd_is_locked() -> None:
    """Under the lock, the claims of the run itself make it a failover that was begun."""
    hangs = with_fact(healthy(), PRIMARY, "no answer within 3 s", "sql_error")
    shown = plan(hangs, fence=True)
    assert shown["stage"] == "takeover"
    locked = claimed(hangs, (NEAR, FAR), target=str(shown["target"]))
    for name in (NEAR, FAR):
        record = (locked.member(name) or locked.members[0]).fact("operation")
        record["operation"]["unplanned"] = True
        locked = with_fact(locked, name, record, "operation")
    assert changed_decisions(shown, plan(locked, fence=True)) == []
