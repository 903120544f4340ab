# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who descends from whom, and what an instance holds alone: by history, never by number."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.elephaas.herd.plugins.module_utils.decide.lsn import format_lsn
from ansible_collections.elephaas.herd.plugins.module_utils.decide.timelines import (
    ANCESTOR,
    DESCENDANT,
    DIVERGED,
    SAME,
    UNKNOWN,
    Parting,
    Relation,
    parting,
    relation,
    starts_on_its_upstreams_timeline,
    wal_end,
)

A, B, C = 0x5000060, 0x6000000, 0x7000000


def on(timeline: int, *left: tuple[int, int]) -> dict[str, Any]:
    """The facts of an instance on that timeline; left: each ancestor, and where it was left."""
    history = [{"timeline": ancestor, "switch_lsn": format_lsn(position)} for ancestor, position in left]
    return {"timeline": timeline, "timeline_history": history}


RELATIONS: dict[str, tuple[dict[str, Any], dict[str, Any], Relation]] = {
    "both on the first": (on(1), on(1), Relation(SAME)),
    "both on a later one": (on(2, (1, A)), on(2, (1, A)), Relation(SAME)),
    "a failover": (on(1), on(2, (1, A)), Relation(DESCENDANT, A)),
    "two failovers": (on(1), on(3, (1, A), (2, B)), Relation(DESCENDANT, A)),
    "the second failover": (on(2, (1, A)), on(3, (1, A), (2, B)), Relation(DESCENDANT, B)),
    "a number is left out": (on(2, (1, A)), on(7, (1, A), (2, B)), Relation(DESCENDANT, B)),
    "the same number from another position": (on(2, (1, A)), on(2, (1, B)), Relation(DIVERGED, A)),
    "the same number from another parent": (on(3, (1, A)), on(3, (1, A), (2, B)), Relation(DIVERGED, A)),
    "apart, with a higher number": (on(2, (1, B)), on(3, (1, A)), Relation(DIVERGED, A)),
    "apart since long": (on(4, (1, A), (2, B)), on(5, (1, A), (3, C)), Relation(DIVERGED, A)),
    "apart at the same position": (on(2, (1, A)), on(3, (1, A)), Relation(DIVERGED, A)),
    "no descendant: its parent was left before": (on(2, (1, B)), on(3, (1, A), (2, C)), Relation(DIVERGED, A)),
    "no history, but the first": (on(1), on(2), Relation(DESCENDANT)),
    "no history of either": (on(2), on(3), Relation(UNKNOWN)),
    "no history of one": (on(2), on(3, (1, A), (2, B)), Relation(UNKNOWN)),
    "nothing is known": ({}, on(1), Relation(UNKNOWN)),
    "a history with a gap": (on(3, (2, B)), on(3, (1, A), (2, B)), Relation(UNKNOWN)),
}
OPPOSITE = {DESCENDANT: ANCESTOR}


@pytest.mark.parametrize("case", RELATIONS)
def test_relations(case: str) -> None:
    one, two, expected = RELATIONS[case]
    back = Relation(OPPOSITE.get(expected.kind, expected.kind), expected.fork)
    assert [relation(*pair) for pair in ((one, two), (two, one))] == [expected, back]


@st.composite
def families(draw: st.DrawFn) -> list[list[tuple[int, int]]]:
    """Up to seven timelines, as promotions make them: the lineage of each, with made-up (and colliding) numbers."""
    lineages: list[list[tuple[int, int]]] = [[(1, 0)]]  # each timeline with the position at which it began
    for _promotion in range(draw(st.integers(0, 6))):
        parent = draw(st.sampled_from(lineages))
        number = parent[-1][0] + draw(st.integers(1, 2))
        lineages.append([*parent, (number, parent[-1][1] + draw(st.integers(1, 3)) * 8)])
    return lineages


def as_facts(lineage: list[tuple[int, int]]) -> dict[str, Any]:
    left = [(timeline, began) for (timeline, _own), (_next, began) in itertools.pairwise(lineage)]
    return on(lineage[-1][0], *left)


@given(families(), st.data())
def test_relations_in_any_family(lineages: list[list[tuple[int, int]]], data: st.DataObject) -> None:
    one, other = data.draw(st.sampled_from(lineages)), data.draw(st.sampled_from(lineages))
    found = relation(as_facts(one), as_facts(other))
    back = relation(as_facts(other), as_facts(one))
    shared = 0
    while shared < min(len(one), len(other)) and one[shared] == other[shared]:
        shared += 1
    if one == other:
        assert found.kind == back.kind == SAME
    elif shared == len(one):
        assert (found.kind, back.kind) == (DESCENDANT, ANCESTOR)
        assert found.fork == back.fork == other[shared][1]
    elif shared == len(other):
        assert (found.kind, back.kind) == (ANCESTOR, DESCENDANT)
        assert found.fork == back.fork == one[shared][1]
    else:
        assert found == back
        assert found == Relation(DIVERGED, min(one[shared][1], other[shared][1]))


def running(current: int, facts: dict[str, Any]) -> dict[str, Any]:
    positions = {"current": format_lsn(current)}
    return {**facts, "status": "running", "role": "primary", "writable": True, "positions": positions}


def replica(received: int, replayed: int, facts: dict[str, Any]) -> dict[str, Any]:
    positions = {"received": format_lsn(received), "replayed": format_lsn(replayed)}
    return {**facts, "status": "running", "role": "replica", "writable": False, "positions": positions}


def stopped(state: str, facts: dict[str, Any], **control: Any) -> dict[str, Any]:
    return {**facts, "status": "stopped", "writable": False, "control": {"state": state, **control}}


NEW = on(2, (1, A))
#: How an instance is found, and what it holds that the primary on NEW does not.
PARTINGS: dict[str, tuple[dict[str, Any], Parting]] = {
    "it writes on": (running(A + 500, on(1)), Parting(True, A, 500)),
    "it has written nothing since": (running(A, on(1)), Parting(False, A, 0)),
    # The checkpoint of its shutdown is where the new timeline begins: all of it was received.
    "stopped, and all was received": (stopped("shut down", on(1), checkpoint_lsn="0/4FFFFC0"), Parting(False, A, 0)),
    "stopped, and no two versions agree on how long that is": (
        stopped("shut down", on(1), checkpoint_lsn="0/4FFFFC8"),
        Parting(False, A, 0),
    ),
    "stopped, past it by a checkpoint": (
        stopped("shut down", on(1), checkpoint_lsn="0/5000060"),
        Parting(True, A, 120),
    ),
    "it crashed": (stopped("in production", on(1), checkpoint_lsn="0/4000000"), Parting(None, A)),
    "a replica behind it": (replica(A - 8, A - 16, on(1)), Parting(False, A, 0)),
    "a replica past it": (replica(A + 8, A - 16, on(1)), Parting(True, A, 8)),
    "a replica that begins at a segment boundary": (replica(A - 96, A + 16, on(1)), Parting(True, A, 16)),
    "promoted apart": (running(B + 64, on(2, (1, B))), Parting(True, A, B + 64 - A)),
    "promoted from it": (running(B + 64, on(3, (1, A), (2, B))), Parting(True, B, 64)),
    "on the same timeline, writable": (running(B, NEW), Parting(None)),
    "on the same timeline, stopped": (stopped("shut down", NEW, checkpoint_lsn="0/6000000"), Parting(None)),
    "a replica of it": (replica(B, B, NEW), Parting(False)),
    "a replica of it, stopped": (stopped("shut down in recovery", NEW), Parting(False)),
    "its history is gone": (running(B, on(2)), Parting(None)),
    "no history, but the first": (running(B, on(1)), Parting(None)),
}


@pytest.mark.parametrize("case", PARTINGS)
def test_what_it_holds_alone(case: str) -> None:
    own, expected = PARTINGS[case]
    primary = on(2) if case == "no history, but the first" else NEW
    assert parting(own, primary) == expected


def test_the_end_of_a_shutdown_checkpoint_crosses_pages_and_segments() -> None:
    # The record begins 32 bytes before the end of a segment of 1 MB, whose successor has a long header.
    control = {"checkpoint_lsn": "0/50FFFE0", "wal_segment_size": 1024 * 1024}
    assert wal_end(stopped("shut down", on(1), **control)) == 0x5100000 + 40 + 88
    control["wal_segment_size"] = 16 * 1024 * 1024
    assert wal_end(stopped("shut down", on(1), **control)) == 0x5100000 + 24 + 88


def test_a_stopped_replica_ends_where_it_has_to_recover_to() -> None:
    assert wal_end(stopped("shut down in recovery", on(1), min_recovery_end_lsn="0/5000060")) == A
    assert wal_end(stopped("shut down in recovery", on(1), min_recovery_end_lsn="0/0")) is None


@pytest.mark.parametrize(
    ("facts", "trap"),
    [
        (stopped("shut down in recovery", {"signal_files": []}), True),
        (stopped("in archive recovery", {"signal_files": []}), True),
        (stopped("shut down in recovery", {"signal_files": ["standby.signal"]}), False),
        (stopped("shut down", {"signal_files": []}), False),
        (replica(A, A, {"signal_files": []}), True),
        (replica(A, A, {"signal_files": ["standby.signal"]}), False),
        (running(A, {"signal_files": [], "control": {"state": "in production"}}), False),
    ],
)
def test_the_trap_of_a_replica_that_lost_its_signal_file(facts: dict[str, Any], trap: bool) -> None:
    """Control state "shut down in recovery" without standby.signal: it starts writable, on the same timeline."""
    assert starts_on_its_upstreams_timeline(facts) is trap
