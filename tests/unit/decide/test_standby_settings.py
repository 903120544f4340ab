# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of a restart where settings change that standbys need, against a simulation of what PostgreSQL does."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.elephaas.herd.plugins.module_utils.decide.standby_settings import (
    PRIMARY_FIRST,
    REPLICAS_FIRST,
    STANDBY_SETTINGS,
    restart_order,
    too_low,
)

ONE, OTHER = STANDBY_SETTINGS[:2]
Settings = Mapping[str, int]
Replicas = Mapping[str, tuple[Settings, Settings]]
"""Replica -> its values now, and after its restart."""


def goes_well(demanded: Settings, primary_after: Settings | None, restarts: Sequence[str], replicas: Replicas) -> bool:
    """Restart one after the other ("" is the primary), as PostgreSQL would take it.

    A replica that starts with less than the WAL demands is FATAL; one that runs with less than what the WAL comes to
    demand pauses its replay. Whoever is not restarted keeps its values.
    """
    running = {name: now for name, (now, _after) in replicas.items()}
    for name in restarts:
        if name:
            running[name] = replicas[name][1]
        elif primary_after is not None:
            demanded = primary_after
        if any(too_low(values, demanded) for values in running.values()):
            return False
    return True


def must_be_right(demanded: Settings, primary_after: Settings | None, chosen: Replicas, kept: Replicas) -> None:
    order, problems = restart_order(
        primary_after,
        {name: (now, after, demanded) for name, (now, after) in chosen.items()},
        {name: now for name, (now, _after) in kept.items()},
    )
    everybody = {**chosen, **kept}
    primary = [""] if primary_after is not None else []
    well = {
        REPLICAS_FIRST: goes_well(demanded, primary_after, [*chosen, *primary], everybody),
        PRIMARY_FIRST: goes_well(demanded, primary_after, [*primary, *chosen], everybody),
    }
    assert bool(problems) == (order is None)
    if order is None:
        # Refused only where neither would do. Without the primary the two are the same.
        assert not any(well.values())
    else:
        assert well[order]
        # What interrupts the herd's writing last is taken wherever it can be.
        assert order == REPLICAS_FIRST or not well[REPLICAS_FIRST]


@pytest.mark.parametrize("restarts_primary", [True, False])
@pytest.mark.parametrize("restarts_second", [True, False])
def test_one_setting_exhaustively(restarts_primary: bool, restarts_second: bool) -> None:
    values = range(1, 4)
    for primary, after, now1, after1, now2, after2 in itertools.product(values, repeat=6):
        if now1 < primary or now2 < primary:
            continue  # a herd whose replay stands still already; see below
        second = {"second": ({ONE: now2}, {ONE: after2})}
        must_be_right(
            {ONE: primary},
            {ONE: after} if restarts_primary else None,
            {"first": ({ONE: now1}, {ONE: after1}), **(second if restarts_second else {})},
            {} if restarts_second else second,
        )


def test_two_settings_exhaustively() -> None:
    """One may rise while the other falls."""
    pairs = [{ONE: one, OTHER: other} for one, other in itertools.product(range(1, 4), repeat=2)]
    for primary, after, now, replica_after in itertools.product(pairs, repeat=4):
        if not too_low(now, primary):
            must_be_right(primary, after, {"replica": (now, replica_after)}, {})


SETTINGS = st.fixed_dictionaries({name: st.integers(1, 4) for name in STANDBY_SETTINGS})


@given(SETTINGS, st.none() | SETTINGS, st.lists(st.tuples(SETTINGS, SETTINGS, st.booleans()), max_size=4))
def test_all_settings_and_more_replicas(
    demanded: Settings, primary_after: Settings | None, replicas: list[tuple[Settings, Settings, bool]]
) -> None:
    chosen: dict[str, tuple[Settings, Settings]] = {}
    kept: dict[str, tuple[Settings, Settings]] = {}
    for number, (now, after, selected) in enumerate(replicas):
        # It replays now, so it has what is demanded.
        enough = {name: max(now[name], demanded[name]) for name in now}
        (chosen if selected else kept)[f"replica{number}"] = (enough, after)
    must_be_right(demanded, primary_after, chosen, kept)


def test_a_replica_that_stands_still_is_helped_by_its_restart() -> None:
    """Its primary's value was raised before; it pauses, and with the raised value it starts."""
    assert restart_order(None, {"replica": ({ONE: 1}, {ONE: 2}, {ONE: 2})}, {}) == (REPLICAS_FIRST, [])


def test_what_nobody_tells_is_high_enough() -> None:
    assert too_low({}, {ONE: 5}) == too_low({ONE: 5}, {}) == []
    assert restart_order({}, {"replica": ({}, {}, {})}, {"kept": {}}) == (REPLICAS_FIRST, [])


@pytest.mark.parametrize(
    ("primary_after", "replica", "kept", "says"),
    [
        ({ONE: 9}, None, {ONE: 5}, "kept: max_connections is 5, 9 is needed (it is not restarted"),
        ({ONE: 9}, ({ONE: 5}, {ONE: 5}, {ONE: 5}), None, "replica: max_connections is 5, 9 is needed (the primary's"),
        (None, ({ONE: 5}, {ONE: 4}, {ONE: 5}), None, "replica: max_connections is 4, 5 is needed (it would not start"),
        ({ONE: 5}, ({ONE: 5}, {ONE: 4}, {ONE: 5}), None, "replica: max_connections is 4, 5 is needed (the primary's"),
        (
            {ONE: 4, OTHER: 9},
            ({ONE: 5, OTHER: 8}, {ONE: 4, OTHER: 9}, {ONE: 5, OTHER: 8}),
            None,
            "replica: max_worker_processes is 8, 9 is needed (some values rise and others fall",
        ),
    ],
)
def test_a_refusal_says_who_lacks_what(
    primary_after: Settings | None,
    replica: tuple[Settings, Settings, Settings] | None,
    kept: Settings | None,
    says: str,
) -> None:
    order, problems = restart_order(
        primary_after, {"replica": replica} if replica else {}, {"kept": kept} if kept else {}
    )
    assert order is None
    assert any(problem.startswith(says) for problem in problems), problems
