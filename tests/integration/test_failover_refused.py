# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a failover refuses before anything is stopped: in the rehearsal and in the real run, with the same words."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from .moving_fleet import FLEET, MovingFleet, herd_of, plan_id, shared_fleet, until

# Herd -> the code of what is wrong with it, and words about it.
TROUBLE = {
    "paused_prod": ("NO_CANDIDATE", "its replay is paused"),
    "behind_prod": ("NO_CANDIDATE", "it has still to receive"),
    "split_prod": ("SPLIT_BRAIN", "2 members accept writes: split_prod@e1, split_prod@w1"),
    "moved_prod": ("DNS_CHANGED", "it holds A 10.30.0.12, but moved_prod@e1 is 10.30.0.11"),
    "dark_prod": ("MEMBER_UNREACHABLE", "dark_prod@w9"),
    "solo_prod": ("NO_CANDIDATE", "the herd has a single member"),
}
# Applications that must not notice anything. That of moved_prod has been led elsewhere already.
WRITING = ("paused_prod", "behind_prod", "split_prod", "dark_prod", "solo_prod")


@pytest.fixture(scope="module")
def fleet(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> MovingFleet:
    return shared_fleet(pytestconfig, tmp_path_factory)


@pytest.fixture
def troubled(fleet: MovingFleet) -> Iterator[MovingFleet]:
    """The fleet with one kind of trouble in each herd, and applications that write all the same."""
    assert fleet.dig("moved.prod.example.com") == ["10.30.0.11"]
    # So that it goes on waiting for the receiver that stands still below.
    fleet.sql("behind_prod@e1", "ALTER SYSTEM SET wal_sender_timeout = 0")
    fleet.sql("behind_prod@e1", "SELECT pg_reload_conf()")
    receiver = fleet.sql("behind_prod@w1", "SELECT pid FROM pg_stat_wal_receiver")
    for herd in WRITING:
        fleet("writer", "start", herd, "--rate", "20", "--connections", "1")
    fleet.sql("paused_prod@w1", "SELECT pg_wal_replay_pause()")
    until(lambda: fleet.sql("paused_prod@w1", "SELECT pg_get_wal_replay_pause_state()") == "paused", "paused")
    fleet.execute("w1", "kill", "-STOP", receiver)
    for _segment in range(3):
        fleet.sql("behind_prod@e1", "SELECT pg_switch_wal() FROM (SELECT pg_logical_emit_message(false, 'x', 'x')) m")
    fleet.pg_ctl("split_prod@w1", "promote")
    assert fleet.sql("split_prod@w1", "SELECT pg_is_in_recovery()") == "f"
    repoint(fleet, "moved.prod.example.com", "10.30.0.12")
    fleet("poweroff", "w9")
    try:
        yield fleet
    finally:
        fleet.execute("w1", "kill", "-CONT", receiver)
        fleet.sql("behind_prod@e1", "ALTER SYSTEM RESET wal_sender_timeout")
        fleet.sql("behind_prod@e1", "SELECT pg_reload_conf()")
        fleet("poweron", "w9", check=False)
        for herd in WRITING:
            fleet("writer", "stop", herd)


def repoint(fleet: MovingFleet, name: str, address: str) -> None:
    """Change a record behind everybody's back."""
    key = fleet.state / "controller" / "tsig.key"
    fleet.run("nsupdate", "-k", str(key), input=f"server 192.0.2.2\ndel {name} A\nadd {name} 10 A {address}\nsend\n")
    until(lambda: all(fleet.dig(name, server=number) == [address] for number in (1, 2)), f"{name} at {address}")


def outcome_of(done: subprocess.CompletedProcess[str], herd: str) -> str:
    """The word beside a herd in the table at the end."""
    rows = [line.split() for line in done.stdout.splitlines() if line.split()[:1] == [herd]]
    return rows[-1][1] if rows else "not shown"


def test_each_trouble_is_refused_and_stops_nobody_else(troubled: MovingFleet) -> None:
    fleet = troubled
    limit = ",".join(["fine_prod", *TROUBLE])
    before = fleet.stillness("fine_prod", *TROUBLE)
    rehearsed = fleet.play("failover", "--limit", limit, "--check")
    assert fleet.stillness("fine_prod", *TROUBLE) == before
    refused_before = fleet.stillness(*TROUBLE)
    gaps = {herd: fleet.report(herd) for herd in WRITING}
    source = fleet.primary("fine_prod")
    target = {"e1": "w1", "w1": "e1"}[source]
    acted = fleet.play("failover", "--limit", limit, "-e", f"confirm={plan_id(rehearsed)}")

    # One herd's refusal is not another's: the healthy one moved, and the run still ends red.
    assert (outcome_of(rehearsed, "fine_prod"), outcome_of(acted, "fine_prod")) == ("rehearsed", "done")
    fleet.must_be_settled("fine_prod", target)
    for done in (rehearsed, acted):
        assert done.returncode != 0
        for herd, (code, words) in TROUBLE.items():
            assert outcome_of(done, herd) == "refused", herd
            (line,) = [line for line in done.stdout.splitlines() if f"REFUSE {code} {herd}" in line or (
                code in line and "REFUSE" in line and str(herd_of(herd)["vhost"]) in line)]  # fmt: skip
            assert words in line, line
    # Nothing moved on their servers, name servers and in the registry but what fine_prod moved.
    after = fleet.stillness(*TROUBLE)
    for key in refused_before:
        if key.startswith(("e", "w", *[str(herd_of(herd)["vhost"]) for herd in TROUBLE])):
            assert without_fine(refused_before[key]) == without_fine(after[key]), key
    for herd in WRITING:
        report = fleet.report(herd)
        assert report.acknowledged > gaps[herd].acknowledged
        assert (report.lost, report.status) == (0, 0)
        # A stop and a start of the server would show here; a busy machine takes a moment, too.
        assert report.longest_gap_s < 5

    # Without the trouble, or with what can be accepted accepted, the very same herds go.
    fleet.sql("paused_prod@w1", "SELECT pg_wal_replay_resume()")
    repoint(fleet, "moved.prod.example.com", "10.30.0.11")
    done = fleet.fail_over("paused_prod,moved_prod,dark_prod", "-e", "accept=MEMBER_UNREACHABLE")
    for herd in ("paused_prod", "moved_prod"):
        assert outcome_of(done, herd) == "done"
        fleet.must_be_settled(herd, "w1")
    assert outcome_of(done, "dark_prod") == "done"
    assert fleet.dig("dark.prod.example.com") == [FLEET["servers"]["w1"]["address"]]
    members = fleet.members_that_answer("dark_prod")
    assert [members[server].writable for server in ("e1", "w1")] == [False, True]
    for herd in ("paused_prod", "dark_prod"):
        report = fleet.report(herd)
        assert (report.lost, report.status) == (0, 0)


def without_fine(look: str) -> str:
    """A look at a server without the claims' folder, in which fine_prod has its own as well."""
    return "\n".join(line for line in look.splitlines() if line.startswith(("==", "/", "Data", "primary_")))


def refused_twice(fleet: MovingFleet, code: str, *env: str) -> None:
    """Rehearsal and real run refuse by this code, and nobody notices that they ran."""
    before = fleet.stillness("fine_prod")
    for arguments in (("--check",), ("-e", "confirm=yes")):
        done = fleet.play("failover", "--limit", "fine_prod", *arguments, env=env)
        assert done.returncode != 0, done.stdout
        assert outcome_of(done, "fine_prod") == "refused"
        assert f"REFUSE {code}" in done.stdout, done.stdout
    # One of two name servers may be silent: what it says is not compared then.
    after = fleet.stillness("fine_prod")
    assert after == before


def test_a_key_that_the_name_server_does_not_take(fleet: MovingFleet) -> None:
    refused_twice(
        fleet, "DNS_REFUSED", f"ELEPHAAS_DNS_KEY_FILE={fleet.state / 'controller' / 'wrong-tsig.key'}"
    )  # fmt: skip


def test_a_name_server_that_takes_no_updates_is_unreachable(fleet: MovingFleet) -> None:
    fleet("dns", "stop", "--server", "1")
    try:
        refused_twice(fleet, "DNS_REFUSED")
    finally:
        fleet("dns", "start", "--server", "1")


def test_a_silent_second_name_server(fleet: MovingFleet) -> None:
    fleet("dns", "stop", "--server", "2")
    try:
        refused_twice(fleet, "DNS_SILENT")
    finally:
        fleet("dns", "start", "--server", "2")
