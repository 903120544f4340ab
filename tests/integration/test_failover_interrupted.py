# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Failovers that die half way, and failovers whose proof never comes: what is left, and that the same command ends it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from .moving_fleet import MovingFleet, Run, plan_id, servers_of, shared_fleet

HERD = "small_stage"
CLAIM = "~postgres/.elephaas/*-5432.json"
WAITER = "~postgres/.elephaas/*-5432.waiter.json"
# One moment after the other, each as a server sees it.
ARMED = "test -e /srv/small/standby.signal"
WAITING = f'grep -q \'"state": "waiting"\' {WAITER}'
GONE = "! test -e /srv/small/postmaster.pid"
KILL_WAITER = f"kill -9 $(grep -o '\"pid\": [0-9]*' {WAITER} | grep -o '[0-9]*')"


@pytest.fixture(scope="module")
def fleet(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MovingFleet]:
    """The shared fleet, with an application that writes to the herd that is hurt here."""
    fleet = shared_fleet(pytestconfig, tmp_path_factory)
    fleet("writer", "start", HERD)
    yield fleet
    fleet("writer", "stop", HERD)


@pytest.fixture
def sides(fleet: MovingFleet) -> tuple[str, str]:
    """The servers of the old and of the new primary."""
    source = fleet.primary(HERD)
    return source, next(server for server in servers_of(HERD) if server != source)


def _claimed(fleet: MovingFleet, source: str, target: str) -> None:
    fleet.wait_on(source, f"grep -q '\"closed\": null' {CLAIM}")


def _armed(fleet: MovingFleet, source: str, target: str) -> None:
    fleet.wait_on(source, ARMED)


def _waiting(fleet: MovingFleet, source: str, target: str) -> None:
    fleet.wait_on(target, WAITING)


def _stopped(fleet: MovingFleet, source: str, target: str) -> None:
    fleet.wait_on(source, GONE)


def _without_waiter(fleet: MovingFleet, source: str, target: str) -> None:
    fleet.wait_on(target, f"{WAITING} && {KILL_WAITER}")


def _promoted(fleet: MovingFleet, source: str, target: str) -> None:
    fleet.wait_on(target, "! test -e /srv/small/standby.signal")


@pytest.mark.parametrize("moment", [_claimed, _armed, _waiting, _stopped, _without_waiter, _promoted])
def test_the_same_command_ends_what_a_dead_controller_began(
    fleet: MovingFleet, sides: tuple[str, str], tmp_path: Path, moment: Callable[[MovingFleet, str, str], None]
) -> None:
    source, target = sides
    command = ("--limit", HERD, "-e", "confirm=yes")
    run = Run(fleet, "failover", command, tmp_path / "killed.log")
    try:
        moment(fleet, source, target)
        run.kill()
    finally:
        run.close()
    assert "PLAY RECAP" not in run.output
    ended = fleet.play("failover", *command)
    # Whoever confirmed the first by its id has confirmed what is left of it, too.
    assert plan_id(ended) == re.findall(r"^plan id: (\w+)$", run.output, re.MULTILINE)[0]
    assert ended.returncode == 0, f"{run.output}\n=== and then\n{ended.stdout}"
    fleet.must_be_settled(HERD, target)
    assert fleet.refuses_writes(f"{HERD}@{source}")
    report = fleet.report(HERD)
    assert (report.lost, report.status) == (0, 0)


def _must_be_as_before(fleet: MovingFleet, source: str) -> None:
    """The old primary takes writes again, the replica follows it, nothing is open, nothing is lost."""
    fleet.must_be_settled(HERD, source)
    before = fleet.report(HERD)
    assert (before.lost, before.status) == (0, 0)
    deadline = time.monotonic() + 30
    while fleet.report(HERD).acknowledged <= before.acknowledged:
        assert time.monotonic() < deadline, "the application does not write any more"
        time.sleep(0.2)


def test_without_its_waiter_a_failover_is_undone(fleet: MovingFleet, sides: tuple[str, str], tmp_path: Path) -> None:
    source, target = sides
    run = Run(fleet, "failover", ("--limit", HERD, "-e", "confirm=yes"), tmp_path / "run.log")
    try:
        fleet.wait_on(target, f"{WAITING} && {KILL_WAITER}")
        ended = run.wait()
    finally:
        run.close()
    assert ended.returncode != 0
    assert f"{HERD}  aborted" in ended.stdout
    _must_be_as_before(fleet, source)


def test_a_candidate_that_never_gets_the_last_record_is_not_promoted(
    fleet: MovingFleet, sides: tuple[str, str], tmp_path: Path
) -> None:
    """The old primary gives up on a receiver that does not answer, stops, and gets its role back."""
    source, target = sides
    # What it waits for a silent replica while it stops; a minute by default.
    fleet.sql(f"{HERD}@{source}", "ALTER SYSTEM SET wal_sender_timeout = '3s'")
    fleet.sql(f"{HERD}@{source}", "SELECT pg_reload_conf()")
    receiver = fleet.sql(f"{HERD}@{target}", "SELECT pid FROM pg_stat_wal_receiver")
    arguments = ("--limit", HERD, "-e", "confirm=yes", "-e", "failover_deadline=12", "-e", "failover_stop_timeout=30")
    # Frozen from the start: between the stop and the last record there is no time to come in between.
    fleet.execute(target, "kill", "-STOP", receiver)
    run = Run(fleet, "failover", arguments, tmp_path / "run.log")
    try:
        ended = run.wait()
    finally:
        run.close()
        fleet.execute(target, "kill", "-CONT", receiver)
    assert ended.returncode != 0
    assert f"{HERD}  aborted" in ended.stdout, ended.stdout
    _must_be_as_before(fleet, source)
    fleet.sql(f"{HERD}@{source}", "ALTER SYSTEM RESET wal_sender_timeout")
    fleet.sql(f"{HERD}@{source}", "SELECT pg_reload_conf()")


def test_a_candidate_cut_off_while_it_waits(fleet: MovingFleet, sides: tuple[str, str], tmp_path: Path) -> None:
    """Nobody can ask it whether it was promoted, so nothing is undone; the same command, once it is back, ends it."""
    source, target = sides
    fleet.sql(f"{HERD}@{source}", "ALTER SYSTEM SET wal_sender_timeout = '3s'")
    fleet.sql(f"{HERD}@{source}", "SELECT pg_reload_conf()")
    arguments = ("--limit", HERD, "-e", "confirm=yes", "-e", "failover_deadline=10", "-e", "failover_stop_timeout=30")
    # With a receiver that is frozen it waits for some seconds, and not only for a moment.
    receiver = fleet.sql(f"{HERD}@{target}", "SELECT pid FROM pg_stat_wal_receiver")
    fleet.execute(target, "kill", "-STOP", receiver)
    run = Run(fleet, "failover", arguments, tmp_path / "run.log")
    try:
        fleet.wait_on(target, WAITING)
        fleet("partition", target)
        ended = run.wait()
    finally:
        run.close()
        fleet.execute(target, "kill", "-CONT", receiver)
        with suppress(AssertionError):
            fleet("heal", target)
    assert ended.returncode != 0
    assert f"{HERD}  incomplete" in ended.stdout, ended.stdout
    # Zero members that take writes is better than two.
    assert not fleet.members_that_answer(HERD)[target].writable
    again = fleet.play("failover", *arguments)
    if again.returncode:
        assert f"{HERD}  aborted" in again.stdout, again.stdout
        _must_be_as_before(fleet, source)
    else:
        fleet.must_be_settled(HERD, target)
    fleet.sql(f"{HERD}@{fleet.primary(HERD)}", "ALTER SYSTEM RESET wal_sender_timeout")
    report = fleet.report(HERD)
    assert (report.lost, report.status) == (0, 0)
