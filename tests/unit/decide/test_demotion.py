# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom demote makes a replica, of whom, and what status says of a split brain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.elephaas.herd.plugins.module_utils.decide.bulk import Request, plan_bulk
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd, Operation
from ansible_collections.elephaas.herd.plugins.module_utils.decide.plan import plan_id
from ansible_collections.elephaas.herd.plugins.module_utils.decide.status import herd_status
from ansible_collections.elephaas.herd.plugins.module_utils.decide.status_view import status_lines
from ansible_collections.elephaas.herd.plugins.module_utils.decide.text import bulk_lines

from .herds import FAR, NEAR, PRIMARY, healthy, member, promoted, stopped, unreachable, with_fact, with_member

DEMOTE = "ansible-playbook elephaas.herd.demote --limit"


def on(found: Herd, name: str, timeline: int, *left: tuple[int, str]) -> Herd:
    """The herd with a member on that timeline; left: its ancestors, and where each was left."""
    history = [{"timeline": ancestor, "switch_lsn": position} for ancestor, position in left]
    return with_fact(with_fact(found, name, timeline, "timeline"), name, history, "timeline_history")


def role(found: Herd, **roles: str) -> Herd:
    """The herd with other roles on record: primary=, near=, far=."""
    for key, value in roles.items():
        found = with_member(found, {"primary": PRIMARY, "near": NEAR, "far": FAR}[key], role=value)
    return found


def split(current: str = "0/50004B0") -> Herd:
    """FAR was promoted at 0/5000060 while PRIMARY, which is still recorded so, went on."""
    found = on(promoted(healthy(protected=False), FAR, by_waiter=False), FAR, 2, (1, "0/5000060"))
    return with_fact(found, PRIMARY, current, "positions", "current")


def superseded() -> Herd:
    """The same after a failover: the record knows."""
    return role(split(), primary="superseded", far="primary")


def down(found: Herd, checkpoint: str, state: str = "shut down", armed: bool = False) -> Herd:
    """The herd with PRIMARY stopped; checkpoint: where its last one is."""
    found = stopped(found, PRIMARY)
    found = with_fact(found, PRIMARY, {"state": state, "checkpoint_lsn": checkpoint}, "control")
    if armed:
        found = with_fact(with_fact(found, PRIMARY, ["standby.signal"], "signal_files"), PRIMARY, "replica", "role")
    return found


def plan(found: Herd, *selected: str) -> dict[str, Any]:
    return plan_bulk(found, Request("demote", frozenset(selected or (PRIMARY,))))


def verdicts(document: dict[str, Any], level: str) -> dict[str, str]:
    return {one["code"]: one["reason"] for one in document["verdicts"] if one["level"] == level}


# -- demote ------------------------------------------------------------------------------------------------------------


def test_out_of_a_split_brain() -> None:
    document = plan(superseded())
    assert (document["outcome"], document["asks"]) == ("go", True)
    (step,) = document["steps"]
    assert (step["name"], step["state"], step["role"]) == (PRIMARY, "demoted", "primary")
    assert step["follows"] == {
        "upstream": FAR,
        "upstream_user": "replicator",
        "timeline": 2,
        "history": [{"timeline": 1, "switch_lsn": "0/5000060"}],
        "recorded": False,
    }
    found = verdicts(document, "warn")
    assert set(found) == {"DEMOTES", "DIVERGED"}
    assert "since 0/5000060, and has written 1104 bytes (1.1 kB) of WAL past that" in found["DIVERGED"]
    assert bulk_lines(document)[0] == "trading_prod: demotes chi-db1 (primary)"


def test_the_recorded_primary_gives_its_place_on_record() -> None:
    document = plan(split())
    assert document["steps"][0]["follows"]["recorded"] is True
    assert "trading.example.com" in verdicts(document, "warn")["RECORDED"]


@pytest.mark.parametrize(
    ("found", "diverged"),
    [
        (lambda: down(superseded(), "0/5000028"), False),
        (lambda: down(superseded(), "0/5000060"), True),
        (lambda: down(superseded(), "0/5000028", armed=True), False),
        (lambda: down(superseded(), "0/5000028", state="in production"), True),  # nobody knows
    ],
)
def test_a_stopped_former_primary(found: Callable[[], Herd], diverged: bool) -> None:
    document = plan(found())
    assert document["outcome"] == "go" and len(document["steps"]) == 1
    assert ("DIVERGED" in verdicts(document, "warn")) is diverged


def test_one_that_was_demoted_already_and_has_diverged() -> None:
    document = plan(down(superseded(), "0/6000000", armed=True))
    assert document["outcome"] == "done"
    assert "needs a resync" in document["skipped"][PRIMARY]


def test_a_replica_is_left_alone_but_not_one_that_lost_its_signal_file() -> None:
    assert plan(superseded(), NEAR)["skipped"] == {NEAR: "it is a replica"}
    lost = with_fact(stopped(superseded(), NEAR, "shut down in recovery"), NEAR, [], "signal_files")
    document = plan(lost, NEAR)
    assert document["outcome"] == "go" and len(document["steps"]) == 1


def test_a_detached_member_comes_back() -> None:
    found = role(split(), far="detached")
    document = plan(found, FAR)
    assert document["outcome"] == "go"
    assert document["steps"][0]["follows"]["upstream"] == PRIMARY
    assert set(verdicts(document, "warn")) == {"DEMOTES", "DIVERGED"}
    # And one that was never promoted.
    assert len(plan(role(healthy(), near="detached"), NEAR)["steps"]) == 1


def test_one_that_was_promoted_by_mistake() -> None:
    document = plan(split(), FAR)
    assert document["outcome"] == "go"
    assert "only right if it was promoted by mistake" in verdicts(document, "warn")["NEWER_TIMELINE"]


def sender(name: str, backup: bool = False) -> dict[str, Any]:
    return {"application_name": name, "backup": backup}


Case = tuple[Callable[[], Herd], str, tuple[str, ...]]
REFUSED: dict[str, Case] = {
    "ONLY_PRIMARY": (healthy, PRIMARY, ()),
    "NO_PRIMARY": (lambda: down(healthy(), "0/5000028"), PRIMARY, ()),
    "MORE_THAN_ONE": (superseded, PRIMARY, (FAR,)),
    "NOT_OVERTAKEN": (lambda: on(split(), PRIMARY, 2, (1, "0/4000000")), PRIMARY, ()),
    "SPLIT_BRAIN": (
        lambda: on(promoted(role(split(), primary="superseded"), NEAR), NEAR, 3, (1, "0/5000080")),
        PRIMARY,
        (),
    ),
    "SUBSCRIBERS": (lambda: with_fact(split(), FAR, [sender("nyc-db2")], "replicas"), FAR, ()),
    "HERD_ON_HOLD": (lambda: replace(superseded(), hold_reason="migration"), PRIMARY, ()),
}


@pytest.mark.parametrize("code", REFUSED)
def test_what_refuses(code: str) -> None:
    broken, name, more = REFUSED[code]
    document = plan(broken(), name, *more)
    assert code in verdicts(document, "refuse"), document["verdicts"]
    assert document["outcome"] == "refuse"


def test_subscribers_do_not_keep_a_split_brain_alive() -> None:
    """They would keep the old primary from being demoted for ever: nobody else accepts them."""
    for found in (split(), superseded(), on(superseded(), PRIMARY, 2, (1, "0/4000000"))):
        document = plan(with_fact(found, PRIMARY, [sender("nyc-db2"), sender("base", backup=True)], "replicas"))
        assert document["outcome"] == "go"
        assert verdicts(document, "warn")["SUBSCRIBERS"].startswith("nyc-db2 streams from it")
    assert "SUBSCRIBERS" not in {
        **verdicts(plan(with_fact(split(), FAR, [sender("base", backup=True)], "replicas"), FAR), "refuse")
    }


def test_what_a_superseded_one_follows_is_not_another_superseded_one() -> None:
    document = plan(role(split(), primary="superseded", far="superseded"))
    assert "ONLY_PRIMARY" in verdicts(document, "refuse")


def test_one_that_does_not_answer_or_is_not_there_is_left() -> None:
    assert "stop it first" in plan(with_fact(superseded(), PRIMARY, "timed out", "sql_error"))["left"][PRIMARY]
    assert plan(unreachable(superseded(), PRIMARY))["left"] == {PRIMARY: "no route to host"}
    assert plan(with_fact(superseded(), PRIMARY, "stopping", "status"))["left"] == {PRIMARY: "it is stopping"}
    # Nor does anybody follow one that hangs.
    hangs = with_fact(superseded(), FAR, "timed out", "sql_error")
    assert "ONLY_PRIMARY" in verdicts(plan(hangs), "refuse")


def test_as_whom_it_logs_in() -> None:
    """By the record; else as the replicas do; else as the primary did itself, before it was promoted."""
    found = superseded()
    recorded = with_member(found, FAR, replication_user="copy-cat")
    assert plan(recorded)["steps"][0]["follows"]["upstream_user"] == "copy-cat"
    alone = with_fact(replace(found, members=(found.members[0], found.members[2])), FAR, "before", "replication_user")
    assert plan(alone)["steps"][0]["follows"]["upstream_user"] == "before"


def test_the_id_covers_whom_it_follows_but_no_position() -> None:
    assert plan_id([plan(split("0/9000000"))]) == plan_id([plan(split())])
    other = replace(split(), members=(*split().members, member("nyc-db2")))
    moved = on(
        promoted(role(other, far="superseded"), "trading_prod@nyc-db2"), "trading_prod@nyc-db2", 2, (1, "0/5000060")
    )
    assert plan(moved)["steps"][0]["follows"]["upstream"] == "trading_prod@nyc-db2"
    assert plan_id([plan(moved)]) != plan_id([plan(split())])


ROLES = st.sampled_from(["primary", "replica", "superseded", "detached"])


@given(
    st.fixed_dictionaries(
        {name: st.tuples(ROLES, st.booleans(), st.booleans(), st.integers(0, 2)) for name in (PRIMARY, NEAR, FAR)}
    ),
    st.sets(st.sampled_from([PRIMARY, NEAR, FAR]), min_size=1),
)
def test_a_primary_is_left(situation: dict[str, tuple[str, bool, bool, int]], selected: set[str]) -> None:
    """Whatever is found: whoever is demoted follows one that accepts writes, is not selected, and was not superseded."""
    found = healthy()
    for name, (recorded, writes, runs, branch) in situation.items():
        found = with_member(found, name, role=recorded)
        found = promoted(found, name) if writes else found
        found = on(found, name, *((1,) if branch == 0 else (2, (1, f"0/{branch}000000"))))
        found = found if runs else stopped(found, name, "shut down")
    document = plan(found, *selected)
    if document["outcome"] != "go":
        return
    for step in document["steps"]:
        upstream = found.member(step["follows"]["upstream"])
        assert upstream is not None and upstream.writable and upstream.name != step["name"]
        assert upstream.role not in ("superseded", "detached")
        if situation[step["name"]][1]:
            assert upstream.name not in selected
        assert document["asks"] is True


# -- what status says --------------------------------------------------------------------------------------------------


def test_nobody_follows_one_that_is_demoted_too() -> None:
    """Found by the property above: a stopped former primary beside two that accept writes, of which one is left."""
    found = stopped(promoted(promoted(healthy(), PRIMARY), FAR), NEAR, "shut down")
    found = with_member(with_member(found, NEAR, role="primary"), FAR, role="primary")
    steps = {step["name"]: step["follows"]["upstream"] for step in plan(found, PRIMARY, NEAR)["steps"]}
    assert steps.get(NEAR, FAR) == FAR


def shouted(found: Herd) -> dict[str, Any]:
    problem: dict[str, Any] = herd_status(found, True, 1024)["problems"][0]
    assert (problem["code"], problem["level"]) == ("SPLIT_BRAIN", "refuse")
    return problem


def test_the_record_names_the_right_one() -> None:
    problem = shouted(superseded())
    assert f"{FAR} is the right one, because a failover has superseded the others" in problem["reason"]
    assert f"{PRIMARY} has been on its own since 0/5000060, and has written 1104 bytes (1.1 kB)" in problem["reason"]
    assert problem["next_step"] == f"Run: {DEMOTE} {PRIMARY}"


@pytest.mark.parametrize(
    ("found", "right", "why"),
    [
        (lambda: role(split(), primary="replica"), FAR, "its timeline began from those of all others"),
        (lambda: role(split(), primary="replica", far="primary"), FAR, "its timeline began from those of all others"),
        (
            lambda: replace(split(), last_failover=Operation("failover", "done", 7, source=PRIMARY, target=FAR)),
            FAR,
            f"a failover from {PRIMARY} to it is done",
        ),
        (lambda: on(split(), PRIMARY, 2, (1, "0/4000000")), PRIMARY, "it is the recorded primary"),
    ],
)
def test_which_one_is_right(found: Callable[[], Herd], right: str, why: str) -> None:
    problem = shouted(found())
    assert f"{right} is the right one, because {why}" in problem["reason"]
    wrong = FAR if right == PRIMARY else PRIMARY
    assert problem["next_step"] == f"Run: {DEMOTE} {wrong}"


@pytest.mark.parametrize(
    "found",
    [
        split,  # promoted after a failover, or by mistake
        lambda: role(on(split(), PRIMARY, 2, (1, "0/4000000")), primary="replica"),
        lambda: role(on(split(), PRIMARY, 2, (1, "0/5000060")), primary="replica"),  # one history, two that write
    ],
)
def test_nobody_can_tell_which_one_is_right(found: Callable[[], Herd]) -> None:
    problem = shouted(found())
    assert "cannot be told" in problem["reason"]
    assert problem["next_step"] == f"Demote the wrong one: {DEMOTE} {PRIMARY} or {DEMOTE} {FAR}"


def test_both_positions_are_told_where_nobody_can_tell() -> None:
    reason = shouted(split())["reason"]
    assert f"{PRIMARY} has been on its own since 0/5000060, and has written 1104 bytes" in reason
    assert f"{FAR} has been on its own since 0/5000060" in reason


def test_nothing_stands_above_a_split_brain() -> None:
    broken = replace(stopped(healthy(), PRIMARY), name="alpha_prod")
    lines = status_lines([herd_status(one, True, 1024) for one in (broken, healthy(), superseded())])
    assert lines[1].strip().startswith("REFUSE SPLIT_BRAIN trading_prod:")
    rows = lines[next(number for number, line in enumerate(lines) if line.startswith("HERD")) + 1 :]
    assert rows[0].startswith("! trading_prod") and "recorded superseded" in "".join(rows[:3])


@pytest.mark.parametrize(
    ("found", "said", "next_step"),
    [
        (
            lambda: down(superseded(), "0/6000000"),
            "is stopped; it has been on its own since 0/5000060",
            f"Run: {DEMOTE}",
        ),
        (lambda: down(superseded(), "0/5000028"), "and is stopped", f"Run: {DEMOTE}"),
        (
            lambda: down(superseded(), "0/6000000", armed=True),
            "can only come up read-only; it has been on its own",
            "resync it with discard_divergent=true",
        ),
        (lambda: unreachable(superseded(), FAR), "accepts writes, which nobody else gets", f"run: {DEMOTE}"),
    ],
)
def test_a_superseded_member_is_shown_as_such(found: Callable[[], Herd], said: str, next_step: str) -> None:
    shown = herd_status(found(), True, 1024)
    (problem,) = [one for one in shown["problems"] if one["subject"] == PRIMARY]
    assert (problem["code"], problem["level"]) == ("SUPERSEDED", "refuse")
    assert said in problem["reason"] and next_step in problem["next_step"]
    assert shown["primary"] in (FAR, None)
    assert "PRIMARY_MISMATCH" not in {one["code"] for one in shown["problems"]}


def test_a_superseded_one_that_streams_again_is_no_problem() -> None:
    assert herd_status(role(healthy(), near="superseded"), True, 1024)["problems"] == []
