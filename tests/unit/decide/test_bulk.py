# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The brain of start, stop, restart, reload, the diagnostic promote and demote: every finding, and in which order."""

from __future__ import annotations

import copy
import inspect
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.elephaas.herd.plugins.module_utils.decide import bulk, bulk_findings, demotion
from ansible_collections.elephaas.herd.plugins.module_utils.decide.bulk import STATES, VERBS, Request, plan_bulk
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd, Member, Operation
from ansible_collections.elephaas.herd.plugins.module_utils.decide.plan import plan_id
from ansible_collections.elephaas.herd.plugins.module_utils.decide.text import bulk_lines

from .herds import (
    ADDRESSES,
    FAR,
    NEAR,
    PRIMARY,
    claimed,
    facts,
    healthy,
    member,
    promoted,
    stopped,
    unreachable,
    with_fact,
    with_member,
)

BELOW = "trading_prod@nyc-db2"
ALL = frozenset({PRIMARY, NEAR, FAR, BELOW})


def herd(*extra: Member, **changes: Any) -> Herd:
    """A healthy herd in an environment that is not protected."""
    return healthy(*extra, protected=False, **changes)


def cascade() -> Herd:
    """Four members: the last streams from the other site's replica."""
    return herd(member("nyc-db2", upstream_server="nyc-db1"))


def down(*names: str) -> Herd:
    """The healthy herd with those members stopped."""
    found = herd()
    for name in names:
        found = stopped(found, name, "shut down" if name == PRIMARY else "shut down in recovery")
    return found


def with_role(found: Herd, name: str, role: str) -> Herd:
    """The herd with another role on record."""
    return with_member(found, name, role=role)


def writable_when_started(found: Herd, name: str) -> Herd:
    """The herd with a stopped member that would come up writable."""
    return with_fact(stopped(found, name), name, "primary", "role")


def sender(name: str = "nyc-db2", **changes: Any) -> dict[str, Any]:
    """A row of pg_stat_replication."""
    return {
        "application_name": name,
        "client_addr": "10.20.0.12",
        "state": "streaming",
        "sync_state": "async",
        "backup": False,
        **changes,
    }


def fit_for(verb: str) -> Herd:
    """A herd in which the verb does something to NEAR."""
    if verb == "demote":
        return with_role(promoted(herd(), NEAR), NEAR, "detached")
    return down(NEAR) if verb == "start" else herd()


def plan(found: Herd, verb: str, *selected: str, **request: Any) -> dict[str, Any]:
    return plan_bulk(found, Request(verb, frozenset(selected) or ALL, **request))


def codes(document: dict[str, Any], level: str) -> set[str]:
    return {verdict["code"] for verdict in document["verdicts"] if verdict["level"] == level}


def turns(document: dict[str, Any]) -> list[list[str]]:
    """Who acts at the same time, turn after turn."""
    found: dict[int, list[str]] = {}
    for step in document["steps"]:
        found.setdefault(step["turn"], []).append(step["name"])
    return [sorted(found[turn]) for turn in sorted(found)]


# -- what each verb does to a herd where all is well -------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_a_plan_is_plain_data_that_can_be_shown(verb: str) -> None:
    document = plan(cascade(), verb, BELOW)
    assert json.loads(json.dumps(document)) == document
    assert all(step["state"] == STATES[verb] for step in document["steps"])
    assert bulk_lines(document)[0].startswith("trading_prod: ")


@pytest.mark.parametrize("verb", VERBS)
def test_a_second_look_under_the_lock(verb: str) -> None:
    """What it finds changed is named; clients that nobody was asked about count too."""
    found = fit_for(verb)
    agreed = plan(found, verb, NEAR, mode="smart", accept=("NO_ANSWER",))
    asked = bulk.request_of(json.loads(json.dumps(agreed)))
    assert (asked.verb, asked.selected, asked.mode, asked.accept) == (verb, frozenset({NEAR}), "smart", ("NO_ANSWER",))
    assert bulk.changed_since(agreed, bulk.plan_bulk(found, asked)) == []
    gone = bulk.plan_bulk(unreachable(found, NEAR), asked)
    assert any(change.startswith("steps: ") for change in bulk.changed_since(agreed, gone))


def test_a_plan_that_nobody_agreed_to_asks_once_clients_come() -> None:
    quiet = with_fact(herd(), PRIMARY, [], "replicas")
    agreed = plan(quiet, "stop", PRIMARY)
    assert agreed["asks"] is False
    now = plan(with_fact(quiet, PRIMARY, 3, "clients"), "stop", PRIMARY)
    assert bulk.changed_since(agreed, now) == ["it would have to be agreed to now: PRIMARY_IN_USE"]
    assert bulk.changed_since({**agreed, "asks": True}, now) == []


def test_restart_goes_from_the_far_end_to_the_primary() -> None:
    document = plan(cascade(), "restart")
    assert document["outcome"] == "go"
    assert document["verdicts"] == []
    assert turns(document) == [[BELOW], [FAR], [NEAR], [PRIMARY]]
    assert bulk_lines(document) == [
        "trading_prod: restarts nyc-db2, then nyc-db1, then chi-db2, then chi-db1 (primary)"
    ]


def test_restart_of_a_part_keeps_the_order() -> None:
    assert turns(plan(cascade(), "restart", PRIMARY, BELOW)) == [[BELOW], [PRIMARY]]
    assert turns(plan(cascade(), "restart", NEAR)) == [[NEAR]]


def test_stop_and_start_go_down_the_cascade() -> None:
    assert turns(plan(cascade(), "stop")) == [[PRIMARY], sorted([NEAR, FAR]), [BELOW]]
    found = cascade()
    for name in ALL:
        found = stopped(found, name, "shut down")
    assert turns(plan(found, "start")) == [[PRIMARY], sorted([NEAR, FAR]), [BELOW]]


def test_reload_happens_at_once() -> None:
    assert turns(plan(cascade(), "reload")) == [sorted(ALL)]


def test_what_is_as_it_should_be_is_left_alone() -> None:
    started = plan(herd(), "start")
    assert (started["outcome"], started["steps"], started["asks"]) == ("done", [], False)
    assert started["skipped"] == dict.fromkeys([PRIMARY, NEAR, FAR], "it runs")
    half = plan(down(NEAR), "stop", NEAR, FAR)
    assert half["skipped"] == {NEAR: "it is stopped"}
    assert turns(half) == [[FAR]]


def test_restart_does_not_start_what_is_stopped() -> None:
    document = plan(down(NEAR), "restart")
    assert NEAR in document["skipped"]
    assert turns(document) == [[FAR], [PRIMARY]]
    moving = plan(with_fact(herd(), NEAR, "starting", "status"), "restart", NEAR)
    assert moving["left"] == {NEAR: "it is starting"}


def test_restart_only_where_a_setting_waits_for_it() -> None:
    found = with_fact(herd(), FAR, ["max_connections"], "pending_restart")
    document = plan(found, "restart", only_pending=True)
    assert turns(document) == [[FAR]]
    assert set(document["skipped"]) == {PRIMARY, NEAR}
    assert plan(herd(), "restart", only_pending=True)["outcome"] == "done"
    assert turns(plan(found, "restart")) == [[FAR], [NEAR], [PRIMARY]]


def test_reload_says_what_waits_for_a_restart() -> None:
    found = with_fact(herd(), NEAR, ["shared_buffers", "wal_level"], "pending_restart")
    why = {step["name"]: step["why"] for step in plan(found, "reload")["steps"]}
    assert why == {PRIMARY: "", NEAR: "waits for a restart: shared_buffers, wal_level", FAR: ""}


def test_a_promoted_member_is_not_promoted_again() -> None:
    found = with_role(promoted(herd(), FAR), FAR, "detached")
    assert plan(found, "promote", FAR)["outcome"] == "done"
    # It counts for nothing in its former herd.
    assert codes(plan(found, "restart", NEAR), "warn") == set()
    assert codes(plan(stopped(found, FAR), "start", FAR), "refuse") == set()


def test_a_lowered_setting_turns_the_order_round() -> None:
    found = cascade()
    for name in ALL:
        found = with_fact(found, name, {"max_connections": 50}, "next_start")
        found = with_fact(found, name, {"state": "…", "max_connections": 100}, "control")
    assert turns(plan(found, "restart")) == [[PRIMARY], [NEAR], [FAR], [BELOW]]
    raised = found
    for name in ALL:
        raised = with_fact(raised, name, {"max_connections": 200}, "next_start")
    assert turns(plan(raised, "restart"))[-1] == [PRIMARY]


def test_what_each_host_must_still_see() -> None:
    by_name = {step["name"]: step["expect"] for step in plan(down(NEAR), "start")["steps"]}
    assert by_name == {
        NEAR: {
            "role": "replica",
            "running": False,
            "system_identifier": healthy().members[0].fact("system_identifier"),
            "timeline": 1,
        }
    }


# -- findings: each passes on a herd where all is well, and speaks where it must ---------------------------------------

Case = tuple[str, str, Callable[[], Herd], dict[str, Any]]

FAILOVER = Operation("failover", "incomplete", 7, source=PRIMARY, target=FAR, operator="ada")

#: Code -> verb, whom, a herd that it refuses, the request's further options.
REFUSED: dict[str, Case] = {
    "HERD_ON_HOLD": ("reload", NEAR, lambda: herd(hold_reason="migration"), {}),
    "OPERATION_OPEN": ("restart", NEAR, lambda: herd(operation=FAILOVER), {}),
    "OPERATION_HELD": ("stop", NEAR, lambda: herd(held="ada is running restart"), {}),
    "REGISTRY_LOST": ("restart", NEAR, lambda: herd(registry_error="connection refused"), {}),
    "HERD_INCOMPLETE": ("restart", NEAR, lambda: herd(missing=(BELOW,)), {}),
    "WRONG_SERVER": ("stop", NEAR, lambda: with_fact(herd(), NEAR, "port 5432 is /srv/other", "identity_problem"), {}),
    "SUPERSEDED": ("start", PRIMARY, lambda: with_role(down(PRIMARY), PRIMARY, "superseded"), {}),
    "STARTS_WRITABLE": ("start", NEAR, lambda: with_fact(down(NEAR), NEAR, [], "signal_files"), {}),
    "SECOND_PRIMARY": ("start", PRIMARY, lambda: promoted(down(PRIMARY), FAR), {}),
    "UNREACHABLE": ("restart", NEAR, lambda: unreachable(herd(), NEAR), {}),
    "NO_ANSWER": ("restart", NEAR, lambda: with_fact(herd(), NEAR, "timed out", "sql_error"), {}),
    "CONFIG_ERRORS": ("reload", NEAR, lambda: with_fact(herd(), NEAR, ["line 3: ?", "line 4: ?"], "config_errors"), {}),
    "BACKUP_RUNNING": ("restart", NEAR, lambda: with_fact(herd(), NEAR, True, "base_backup_running"), {}),
    "STANDBY_SETTINGS": (
        "restart",
        NEAR,
        lambda: with_fact(
            with_fact(herd(), NEAR, {"max_connections": 50}, "next_start"), NEAR, {"max_connections": 100}, "control"
        ),
        {},
    ),
    "REGISTRY_NEEDED": ("promote", NEAR, herd, {"without_registry": True}),
    "NOT_RUNNING": ("promote", NEAR, lambda: down(NEAR), {}),
    "NOT_A_REPLICA": ("promote", PRIMARY, herd, {}),
    "SUBSCRIBERS": ("promote", NEAR, lambda: with_fact(herd(), NEAR, [sender()], "replicas"), {}),
    "SYNCHRONOUS": (
        "promote",
        NEAR,
        lambda: with_fact(herd(), PRIMARY, [sender("walreceiver", sync_state="quorum")], "replicas"),
        {},
    ),
}


@pytest.mark.parametrize("code", REFUSED)
def test_what_refuses(code: str) -> None:
    verb, name, broken, request = REFUSED[code]
    document = plan(broken(), verb, name, **request)
    assert code in codes(document, "refuse")
    assert document["outcome"] == "refuse"
    verdict = next(verdict for verdict in document["verdicts"] if verdict["code"] == code)
    assert verdict["reason"]
    assert f"REFUSE {code} " in "\n".join(bulk_lines(document))
    assert bulk_lines(document)[0].endswith("  REFUSED")


def test_whom_commits_wait_for() -> None:
    """By the name in its connection settings; without one it calls itself as its cluster_name says."""
    for changes, named, waits in (
        ({"application_name": "mine"}, "mine", True),
        ({"application_name": "other", "client_addr": ADDRESSES["chi-db2"]}, "mine", False),
        ({"application_name": "15/main", "client_addr": ADDRESSES["chi-db2"]}, None, True),
        ({"application_name": "15/main", "client_addr": ADDRESSES["nyc-db1"]}, None, False),
    ):
        found = with_fact(herd(), PRIMARY, [sender(**{"sync_state": "sync", **changes})], "replicas")
        found = with_fact(found, NEAR, named, "upstream", "application_name")
        assert ("SYNCHRONOUS" in codes(plan(found, "promote", NEAR), "refuse")) == waits
        found = with_fact(found, PRIMARY, [sender(**{"sync_state": "async", **changes})], "replicas")
        assert codes(plan(found, "promote", NEAR), "refuse") == set()


def test_more_than_one_is_promoted_by_failover_only() -> None:
    assert codes(plan(herd(), "promote", NEAR, FAR), "refuse") == {"MORE_THAN_ONE"}
    assert codes(plan(herd(), "promote", NEAR), "refuse") == set()


@pytest.mark.parametrize(("verb", "name"), [(verb, NEAR) for verb in VERBS])
def test_a_healthy_herd_is_refused_nothing(verb: str, name: str) -> None:
    document = plan(fit_for(verb), verb, name)
    assert codes(document, "refuse") == set()
    assert document["outcome"] == "go"
    assert document["left"] == {}


def test_every_refusal_has_its_case() -> None:
    """A code that is nowhere refused here would not be noticed when it stopped refusing."""
    source = "".join(inspect.getsource(module) for module in (bulk, bulk_findings, demotion))
    raised = set(re.findall(r'(?:Verdict|refused?)\(\s*"([A-Z_]+)"', source))
    warned = {"LEFT_OUT", "PRIMARY_IN_USE", "IMMEDIATE", "REPLICA_DOWN", "LEAVES_HERD", "MEMBERS_UNSEEN"}
    # Those of demote are in test_demotion.py.
    warned |= {"DEMOTES", "DIVERGED", "NEWER_TIMELINE", "RECORDED"}
    assert raised - warned == {*REFUSED, "MORE_THAN_ONE", "ONLY_PRIMARY", "NO_PRIMARY", "SPLIT_BRAIN", "NOT_OVERTAKEN"}


#: Code -> verb, whom, a herd that it speaks of, the request's further options; and whether somebody is asked.
WARNED: dict[str, tuple[Case, bool]] = {
    "PRIMARY_IN_USE": (("stop", PRIMARY, lambda: with_fact(herd(), PRIMARY, 1, "clients"), {}), True),
    "IMMEDIATE": (("stop", NEAR, herd, {"mode": "immediate"}), True),
    "REPLICA_DOWN": (("restart", NEAR, lambda: with_fact(herd(), FAR, None, "upstream", "status"), {}), True),
    "LEAVES_HERD": (("promote", NEAR, herd, {}), True),
    "MEMBERS_UNSEEN": (("start", PRIMARY, lambda: unreachable(down(PRIMARY), FAR), {}), True),
    "BACKUP_RUNNING": (
        ("restart", NEAR, REFUSED["BACKUP_RUNNING"][2], {"accept": ("BACKUP_RUNNING",)}),
        True,
    ),
    "NO_ANSWER": (("restart", NEAR, REFUSED["NO_ANSWER"][2], {"accept": ("NO_ANSWER",)}), True),
    "LEFT_OUT": (("stop", NEAR, lambda: unreachable(herd(), NEAR), {}), False),
}


@pytest.mark.parametrize("code", WARNED)
def test_what_warns_and_who_is_asked(code: str) -> None:
    (verb, name, broken, request), asks = WARNED[code]
    document = plan(broken(), verb, name, **request)
    assert code in codes(document, "warn")
    assert document["outcome"] == "go"
    assert document["asks"] is asks
    if verb != "promote":
        assert plan(herd(), verb, name)["asks"] is False


@pytest.mark.parametrize("verb", VERBS)
def test_a_protected_herd_always_asks(verb: str) -> None:
    found = stopped(healthy(), NEAR) if verb == "start" else healthy()
    assert plan(found, verb, NEAR)["asks"] is True


@pytest.mark.parametrize("verb", ["stop", "restart"])
@pytest.mark.parametrize(
    ("fact", "value", "says"),
    [
        ("clients", 1, "has 1 client and 0 replicas"),
        ("clients", 3, "has 3 clients and 0 replicas"),
        ("replicas", [sender()], "has 0 clients and 1 replica"),
        ("sql_error", "timed out", "it does not tell how many clients it has"),
    ],
)
def test_a_primary_in_use(verb: str, fact: str, value: Any, says: str) -> None:
    document = plan(with_fact(herd(), PRIMARY, value, fact), verb, PRIMARY)
    (reason,) = [verdict["reason"] for verdict in document["verdicts"] if verdict["code"] == "PRIMARY_IN_USE"]
    assert reason.endswith(says)
    assert document["asks"] is True
    # A replica that is in use is one of several: nobody writes there.
    assert plan(with_fact(herd(), NEAR, 5, "clients"), verb, NEAR)["asks"] is False


def test_only_what_is_acceptable_can_be_accepted() -> None:
    for code, (verb, name, broken, request) in REFUSED.items():
        document = plan(broken(), verb, name, **{**request, "accept": (code,)})
        assert (document["outcome"] == "go") == (code in ("BACKUP_RUNNING", "NO_ANSWER"))


@pytest.mark.parametrize("verb", ["stop", "reload"])
def test_an_inventory_in_part_is_enough_to_stop_and_to_reload(verb: str) -> None:
    assert plan(herd(missing=(BELOW,)), verb, NEAR)["outcome"] == "go"


def test_a_restart_beside_a_dead_host_asks_nothing_of_it() -> None:
    """The member that cannot be reached is not selected; the others are restarted."""
    document = plan(unreachable(herd(), FAR), "restart", NEAR)
    assert document["outcome"] == "go"
    assert turns(document) == [[NEAR]]


def test_who_cannot_be_reached_is_left_out_by_name() -> None:
    for verb in ("start", "stop", "reload"):
        document = plan(unreachable(down(NEAR) if verb == "start" else herd(), FAR), verb)
        assert document["left"] == {FAR: "no route to host"}
        assert document["outcome"] == "go"
        assert FAR not in [name for turn in turns(document) for name in turn]


def test_no_data_directory() -> None:
    document = plan(with_fact(herd(), NEAR, "absent", "status"), "start", NEAR)
    assert document["left"] == {NEAR: "there is no data directory"}
    assert document["steps"] == []


def test_what_is_shutting_down_is_not_started() -> None:
    assert plan(with_fact(herd(), NEAR, "stopping", "status"), "start", NEAR)["left"] == {NEAR: "it is shutting down"}


def test_a_failover_known_to_a_host_alone_is_open_too() -> None:
    """One that was done without the registry."""
    document = plan(claimed(herd(), (NEAR,)), "restart", NEAR)
    assert "OPERATION_OPEN" in codes(document, "refuse")
    over = claimed(herd(), (NEAR, FAR), closed="done")
    assert codes(plan(over, "restart", NEAR), "refuse") == set()


def test_a_failover_that_a_restarts_record_keeps_is_open_too() -> None:
    found = claimed(herd(), (NEAR,))
    kept = found.member(NEAR).fact("operation")  # type: ignore[union-attr]
    record = {"token": 9, "closed": "done", "operation": {"verb": "restart"}, "last_failover": kept}
    assert "OPERATION_OPEN" in codes(plan(with_fact(found, NEAR, record, "operation"), "restart", FAR), "refuse")


# -- start: nobody comes up writable beside another one ----------------------------------------------------------------


def second_primary(document: dict[str, Any]) -> str:
    reasons = [verdict["reason"] for verdict in document["verdicts"] if verdict["code"] == "SECOND_PRIMARY"]
    assert len(reasons) <= 1
    return reasons[0] if reasons else ""


def test_the_primary_of_a_herd_that_is_down_is_started() -> None:
    document = plan(down(PRIMARY, NEAR, FAR), "start")
    assert document["outcome"] == "go"
    assert turns(document) == [[PRIMARY], sorted([NEAR, FAR])]


def test_the_primary_alone_is_started() -> None:
    assert plan(down(PRIMARY), "start")["outcome"] == "go"


def test_an_old_primary_beside_the_new_one() -> None:
    found = promoted(down(PRIMARY), FAR)
    assert "accepts writes already" in second_primary(plan(found, "start", PRIMARY))
    # The new one went down as well: its timeline tells.
    found = stopped(found, FAR)
    assert "newer timeline" in second_primary(plan(found, "start", PRIMARY))
    # And it is the new one that may be started, once it is on record.
    recorded = with_role(with_role(found, PRIMARY, "replica"), FAR, "primary")
    assert plan(recorded, "start", FAR)["outcome"] == "go"
    assert plan(recorded, "start", PRIMARY)["outcome"] == "refuse"


def test_a_replica_that_would_come_up_writable() -> None:
    found = writable_when_started(down(PRIMARY), NEAR)
    assert "another member is the recorded primary" in second_primary(plan(found, "start", NEAR))
    assert second_primary(plan(with_role(found, NEAR, "detached"), "start", NEAR)) == ""
    nobody = with_role(found, PRIMARY, "replica")
    # Both would come up writable, and nothing tells which of them should.
    assert "none of them is the recorded primary" in second_primary(plan(nobody, "start", NEAR))
    assert second_primary(plan(with_fact(nobody, PRIMARY, "replica", "role"), "start", NEAR)) == ""
    assert "cannot be looked at" in second_primary(plan(unreachable(nobody, FAR), "start", NEAR))


def on(found: Herd, name: str, timeline: int, *left: tuple[int, str]) -> Herd:
    """The herd with a member on that timeline; left: its ancestors, and where each was left."""
    history = [{"timeline": ancestor, "switch_lsn": position} for ancestor, position in left]
    return with_fact(with_fact(found, name, timeline, "timeline"), name, history, "timeline_history")


def test_a_timeline_is_told_by_its_history_and_not_by_its_number() -> None:
    """Both were promoted from the first timeline, apart from each other, and so both are on the second."""
    found = stopped(promoted(down(PRIMARY), FAR), FAR)
    found = on(on(found, PRIMARY, 2, (1, "0/5000000")), FAR, 2, (1, "0/6000000"))
    reason = second_primary(plan(found, "start", PRIMARY))
    assert f"{FAR} is on another timeline 2, which parted from its own at 0/5000000" in reason
    # The same number and the same history are one timeline.
    same = on(with_fact(found, FAR, "replica", "role"), FAR, 2, (1, "0/5000000"))
    assert plan(same, "start", PRIMARY)["outcome"] == "go"
    # A higher number that the other one's history leads to.
    later = on(found, FAR, 3, (1, "0/5000000"), (2, "0/7000000"))
    assert "which began from its own at 0/7000000" in second_primary(plan(later, "start", PRIMARY))


def test_a_replica_that_went_astray_proves_nothing_against_the_recorded_primary() -> None:
    found = on(on(down(PRIMARY), PRIMARY, 3, (1, "0/6000000")), NEAR, 2, (1, "0/5000000"))
    assert plan(found, "start", PRIMARY)["outcome"] == "go"
    # It does against one that somebody else is the primary of by the record,
    swapped = with_role(with_role(found, PRIMARY, "replica"), NEAR, "primary")
    assert second_primary(plan(swapped, "start", PRIMARY))
    # and on a timeline of a higher number.
    higher = on(found, NEAR, 4, (1, "0/5000000"))
    assert second_primary(plan(higher, "start", PRIMARY))
    # What a failover has superseded proves nothing at all.
    assert plan(with_role(higher, NEAR, "superseded"), "start", PRIMARY)["outcome"] == "go"


def test_a_superseded_primary_is_not_started_though_nobody_else_can_be_seen() -> None:
    found = with_role(down(PRIMARY), PRIMARY, "superseded")
    for name in (NEAR, FAR):
        found = unreachable(found, name)
    for selected in ((PRIMARY,), tuple(ALL)):
        document = plan(found, "start", *selected)
        assert "SUPERSEDED" in codes(document, "refuse")
        (verdict,) = [verdict for verdict in document["verdicts"] if verdict["code"] == "SUPERSEDED"]
        assert verdict["next_step"].endswith(f"ansible-playbook elephaas.herd.demote --limit {PRIMARY}")


def test_a_failover_that_only_the_hosts_know_and_a_record_from_before_it() -> None:
    """The inventory is a snapshot, and the new primary cannot be seen."""
    found = claimed(unreachable(down(PRIMARY), FAR), (PRIMARY,), closed="done")
    # The copy on the new primary's host alone says that a failover is over; this one is the old primary's.
    assert plan(found, "start", PRIMARY)["outcome"] == "go"
    over = replace(found, last_failover=Operation("failover", "done", 7, source=PRIMARY, target=FAR))
    assert f"a failover from it to {FAR} is done" in second_primary(plan(over, "start", PRIMARY))
    back = replace(found, last_failover=Operation("failover", "done", 8, source=FAR, target=PRIMARY))
    assert plan(back, "start", PRIMARY)["outcome"] == "go"


# -- restart: an overtaken primary that runs comes up writable again ---------------------------------------------------


def split() -> Herd:
    """The old primary is back, and FAR has taken over from it."""
    return on(promoted(herd(), FAR), FAR, 2, (1, "0/5000000"))


def test_an_overtaken_primary_is_not_restarted() -> None:
    assert f"{FAR} accepts writes too" in second_primary(plan(split(), "restart", PRIMARY))
    assert "newer timeline" in second_primary(plan(stopped(split(), FAR), "restart", PRIMARY))
    superseded = with_role(split(), PRIMARY, "superseded")
    assert codes(plan(superseded, "restart", PRIMARY), "refuse") == {"SUPERSEDED"}
    for name in (NEAR, FAR):
        superseded = unreachable(superseded, name)
    assert "SUPERSEDED" in codes(plan(superseded, "restart"), "refuse")
    for verb in ("stop", "reload"):
        assert codes(plan(superseded, verb, PRIMARY), "refuse") == set()


def test_the_one_that_took_over_is_restarted_beside_the_old_primary() -> None:
    assert codes(plan(split(), "restart", FAR), "refuse") == set()
    # Two that went apart are not told from each other.
    apart = on(split(), PRIMARY, 2, (1, "0/4000000"))
    assert second_primary(plan(apart, "restart", FAR)) and second_primary(plan(apart, "restart", PRIMARY))
    assert codes(plan(with_role(apart, PRIMARY, "superseded"), "restart", FAR), "refuse") == set()


def test_a_superseded_replica_is_restarted() -> None:
    assert codes(plan(with_role(herd(), NEAR, "superseded"), "restart", NEAR), "refuse") == set()
    unarmed = with_fact(with_role(herd(), NEAR, "superseded"), NEAR, [], "signal_files")
    assert codes(plan(unarmed, "restart", NEAR), "refuse") == {"STARTS_WRITABLE", "SUPERSEDED"}


def test_a_replica_without_signal_file_is_neither_started_nor_restarted() -> None:
    """Control state "shut down in recovery": it would start writable, on the timeline of its primary."""
    assert codes(plan(with_fact(herd(), NEAR, [], "signal_files"), "restart", NEAR), "refuse") == {"STARTS_WRITABLE"}
    for state in ("shut down in recovery", "in archive recovery"):
        found = with_fact(stopped(herd(), NEAR, state), NEAR, [], "signal_files")
        for selected in ((NEAR,), tuple(ALL)):
            assert "STARTS_WRITABLE" in codes(plan(found, "start", *selected), "refuse")


MEMBERS = (PRIMARY, NEAR, FAR)
SITUATIONS = st.fixed_dictionaries(
    {
        name: st.fixed_dictionaries(
            {
                "reachable": st.booleans(),
                "running": st.booleans(),
                "signal": st.booleans(),
                "timeline": st.integers(1, 3),
                "role": st.sampled_from(["primary", "replica", "superseded", "detached"]),
            }
        )
        for name in MEMBERS
    }
)


@given(SITUATIONS, st.sets(st.sampled_from(MEMBERS), min_size=1))
def test_a_start_never_makes_a_second_primary(situation: dict[str, dict[str, Any]], selected: set[str]) -> None:
    """Whatever is found: what comes up writable is alone, is on no older timeline, and is no overtaken primary."""
    members = []
    for one in herd().members:
        seen = situation[one.name]
        role = "replica" if seen["signal"] else "primary"
        known = facts(role, ADDRESSES["chi-db1"])
        known.update(
            status="running" if seen["running"] else "stopped",
            writable=seen["running"] and role == "primary",
            timeline=seen["timeline"],
        )
        changed = replace(one, role=seen["role"], facts=known)
        members.append(changed if seen["reachable"] else replace(changed, reachable=False, facts=None, error="dead"))
    found = herd()
    document = plan_bulk(replace(found, members=tuple(members)), Request("start", frozenset(selected)))
    if document["outcome"] != "go":
        return
    started = [step["name"] for step in document["steps"]]
    for name in started:
        assert situation[name]["role"] != "superseded"
        if situation[name]["signal"] or situation[name]["role"] == "detached":
            continue
        others = [situation[other] for other in MEMBERS if other != name and situation[other]["role"] != "detached"]
        for other in others:
            if other["reachable"]:
                assert not (other["running"] and not other["signal"])
                assert other["timeline"] <= situation[name]["timeline"]
    writable = [name for name in started if not situation[name]["signal"] and situation[name]["role"] != "detached"]
    if len(writable) > 1:
        # Both on the record as the primary: a registry holds one at most.
        assert all(situation[name]["role"] == "primary" for name in writable) or not any(
            one["role"] == "primary" for one in situation.values()
        )


# -- any cascade -------------------------------------------------------------------------------------------------------


@st.composite
def herds(draw: st.DrawFn) -> tuple[Herd, dict[str, str | None]]:
    """A herd of up to seven members in any cascade, and who streams from whom."""
    count = draw(st.integers(1, 7))
    names = draw(st.permutations([f"s{number}" for number in range(count)]))
    above: dict[str, str | None] = {names[0]: None}
    for number, name in enumerate(names[1:], start=1):
        above[name] = names[draw(st.integers(0, number - 1))]
    by_record = draw(st.booleans())
    members = []
    for name in draw(st.permutations(names)):
        upstream = above[name]
        members.append(
            Member(
                name=f"h_e@{name}",
                server=name,
                address=f"addr-{name}",
                role="replica" if upstream else "primary",
                upstream=f"h_e@{upstream}" if upstream else None,
                # What is seen, or where that says nothing (such as through a proxy) what is on record.
                facts=facts("replica", "elsewhere" if by_record else f"addr-{upstream}")
                if upstream
                else facts("primary"),
            )
        )
    found = Herd(name="h_e", herd="h", environment="e", lead=f"h_e@{names[0]}", members=tuple(members))
    return found, {f"h_e@{name}": upstream and f"h_e@{upstream}" for name, upstream in above.items()}


def lower_everywhere(found: Herd) -> Herd:
    for one in found.members:
        found = with_fact(found, one.name, {"max_connections": 10}, "next_start")
        found = with_fact(found, one.name, {"state": "…", "max_connections": 100}, "control")
    return found


@given(herds(), st.data())
def test_the_order_of_any_cascade(drawn: tuple[Herd, dict[str, str | None]], data: st.DataObject) -> None:
    found, above = drawn
    selected = data.draw(st.sets(st.sampled_from(sorted(above)), min_size=1))
    lowered = data.draw(st.booleans())
    document = plan_bulk(lower_everywhere(found) if lowered else found, Request("restart", frozenset(selected)))
    whole = {name for name, upstream in above.items() if upstream is None} <= selected
    if lowered and not whole:
        # Replicas would not start again before the primary has been.
        assert document["outcome"] == "refuse"
        return
    order = [step["name"] for step in document["steps"]]
    assert sorted(order) == sorted(selected), "everybody who is selected, nobody else, nobody twice"
    assert [len(turn) for turn in turns(document)] == [1] * len(selected), "one at a time"
    place = {name: number for number, name in enumerate(order)}
    for name in selected:
        upstream = above[name]
        while upstream is not None:
            if upstream in selected:
                # With lower values from the primary down, else from the far end up.
                assert (place[name] < place[upstream]) != (lowered and len(selected) > 1)
            upstream = above[upstream]
    for verb in ("stop", "start"):
        down_the_cascade = found
        if verb == "start":
            for name in above:
                down_the_cascade = with_fact(down_the_cascade, name, "stopped", "status")
                down_the_cascade = with_fact(down_the_cascade, name, False, "writable")
        steps = plan_bulk(down_the_cascade, Request(verb, frozenset(selected)))["steps"]
        turn = {step["name"]: step["turn"] for step in steps}
        assert sorted(turn) == sorted(selected)
        assert len(steps) == len(selected)
        for name, upstream in above.items():
            if name in turn and upstream in turn:
                assert turn[upstream] < turn[name]


def test_two_that_stream_from_each_other_are_no_endless_loop() -> None:
    found = replace(
        herd(),
        members=(
            member("chi-db1", "primary"),
            member("nyc-db1", upstream_server="nyc-db2"),
            member("nyc-db2", upstream_server="nyc-db1"),
        ),
    )
    assert turns(plan(found, "restart"))[-1] == [PRIMARY]
    assert plan(found, "start")["outcome"] == "done"


# -- the id of a plan --------------------------------------------------------------------------------------------------


def identifier(found: Herd, verb: str = "restart", *selected: str, **request: Any) -> str:
    return plan_id([plan(found, verb, *selected, **request)])


@given(st.integers(0, 2**40), st.integers(0, 500), st.floats(0, 1e9), st.permutations(range(3)))
def test_an_id_does_not_move_with_the_traffic(position: int, clients: int, when: float, order: list[int]) -> None:
    found = herd()
    for one in found.members:
        for kind in ("current", "received", "replayed"):
            found = with_fact(found, one.name, f"{position >> 32:X}/{position & 0xFFFFFFFF:X}", "positions", kind)
        found = with_fact(found, one.name, when, "started_at")
        found = with_fact(found, one.name, {"free_bytes": position}, "disk")
    found = with_fact(found, PRIMARY, clients, "clients")
    found = replace(found, members=tuple(found.members[place] for place in order), now=when)
    for verb in VERBS:
        assert identifier(found, verb) == identifier(herd(), verb)


def test_an_id_changes_with_what_happens() -> None:
    ids = [
        identifier(herd()),
        identifier(herd(), "stop"),
        identifier(herd(), "reload"),
        identifier(herd(), "restart", NEAR),
        identifier(herd(), "restart", FAR),
        identifier(herd(), "restart", mode="immediate"),
        identifier(down(NEAR)),
        identifier(lower_everywhere(herd())),
        identifier(promoted(stopped(herd(), PRIMARY), FAR)),
        identifier(herd(hold_reason="migration")),
        identifier(unreachable(herd(), NEAR), "stop"),
        identifier(down(NEAR), "stop"),
        plan_id(
            [plan(herd(), "restart"), {**plan(herd(), "restart"), "herd": "other", "decisions": {"herd": "other"}}]
        ),
    ]
    assert len(set(ids)) == len(ids)


def test_an_id_covers_what_was_accepted() -> None:
    backup = with_fact(herd(), NEAR, True, "base_backup_running")
    assert len({identifier(backup), identifier(backup, accept=("BACKUP_RUNNING",)), identifier(herd())}) == 3


def test_planning_changes_nothing() -> None:
    found = cascade()
    before = copy.deepcopy(found)
    for verb in VERBS:
        plan(found, verb)
    assert found == before
