# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Herds that are set up in unusual ways, or not well: each fails over correctly or is refused, all of them in one run."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from .moving_fleet import MovingFleet, plan_id, until


def _herd(name: str, port: int, *members: Any, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "environment": "stage",
        "port": port,
        "pgdata": f"/srv/{name}",
        "vhost": f"{name}.stage.example.com",
        "members": [member if isinstance(member, dict) else {"server": member} for member in members],
        **more,
    }


def _below(server: str, upstream: str) -> dict[str, Any]:
    return {"server": server, "upstream": upstream}


ELSEWHERE = {"server": "b1", "port": 5699, "pgdata": "/data/quite/elsewhere"}

FLEET: dict[str, Any] = {
    "environments": {"stage": {}},
    "datacenters": {"east": {"networks": ["10.50.0.0/16"]}, "west": {"networks": ["10.60.0.0/16"]}},
    "servers": {
        "a1": {"environment": "stage", "address": "10.50.0.11"},
        "b1": {"environment": "stage", "address": "10.60.0.11"},
        "c1": {"environment": "stage", "address": "10.60.0.12"},
        "d1": {"environment": "stage", "address": "10.60.0.13"},
    },
    "herds": [
        _herd("sync", 5501, "a1", "b1", "c1"),
        _herd("alone", 5502, "a1", "b1"),
        _herd("deep", 5503, "a1", "b1", _below("c1", "b1"), _below("d1", "c1")),
        _herd("delayed", 5504, "a1", "b1", "c1"),
        _herd("slow", 5505, "a1", "b1"),
        _herd("elsewhere", 5506, "a1", ELSEWHERE),
        _herd("down", 5507, "a1", "b1", "c1"),
        _herd("slots", 5508, "a1", "b1", "c1"),
        _herd("debian", 5509, "a1", "b1", control="pg_ctlcluster"),
        _herd("other", 5510, "a1", "b1", "c1"),
    ],
}
HERDS = {f"{herd['name']}_stage": herd for herd in FLEET["herds"]}
ADDRESSES = {server["address"]: name for name, server in FLEET["servers"].items()}

# Herd -> the code of what is wrong with it, and words about it.
REFUSED = {
    "alone_stage": ("SYNC_STANDBYS", "synchronous_standby_names"),
    "slow_stage": ("NO_CANDIDATE", "it has still to replay"),
    "other_stage": ("OTHER_CLUSTER", "other_stage@c1"),
}
# Herd -> who streams from whom afterwards.
MOVED = {
    "sync_stage": {"b1": None, "a1": "b1", "c1": "b1"},
    "deep_stage": {"b1": None, "a1": "b1", "c1": "b1", "d1": "c1"},
    "delayed_stage": {"c1": None, "a1": "c1", "b1": "c1"},
    "elsewhere_stage": {"b1": None, "a1": "b1"},
    "down_stage": {"b1": None, "a1": "b1"},
    "slots_stage": {"b1": None, "a1": "b1", "c1": "b1"},
    "debian_stage": {"b1": None, "a1": "b1"},
}
LOG = "/tmp/odd.log"


class OddFleet(MovingFleet):
    """The lab with that fleet in it."""

    def by_hand(self, instance: str, script: str) -> str:
        """A script at that instance's server, as postgres; its data directory and port are $D and $P."""
        herd, _at, server = instance.partition("@")
        member = next(one for one in HERDS[herd]["members"] if one["server"] == server)
        data, port = (member.get(key) or HERDS[herd][key] for key in ("pgdata", "port"))
        programs = 'PATH="$(ls -d /usr/lib/postgresql/*/bin | tail -n 1):$PATH"; set -eu; '
        given = f"D={data} P={port}; "
        return self.execute(server, "bash", "-c", programs + given + script, user="postgres").stdout

    def alter(self, *instances: str, **settings: Any) -> None:
        """ALTER SYSTEM, and what a reload does."""
        statements = "".join(f"ALTER SYSTEM SET {name} = '{value}';" for name, value in settings.items())
        for instance in instances:
            for statement in [*statements.split(";")[:-1], "SELECT pg_reload_conf()"]:
                self.sql(instance, statement)

    def sees(self, instance: str, query: str) -> None:
        """Wait until a query is true."""
        until(lambda: self.sql(instance, query) == "t", f"{instance}: {query}")


def make_sync(fleet: OddFleet) -> None:
    """The same line in everybody's configuration: it names the candidate, and somebody to wait for after it."""
    fleet.alter("sync_stage@b1", "sync_stage@c1", "sync_stage@a1", synchronous_standby_names="FIRST 1 (b1, c1)")
    fleet.sees("sync_stage@a1", "SELECT sync_state = 'sync' FROM pg_stat_replication WHERE application_name = 'b1'")


def make_alone(fleet: OddFleet) -> None:
    """The same, but the candidate would wait for nobody but itself."""
    fleet.alter("alone_stage@b1", "alone_stage@a1", synchronous_standby_names="b1")


def make_delayed(fleet: OddFleet) -> None:
    """One holds back what it receives, and would be the candidate by its name."""
    fleet.alter("delayed_stage@b1", recovery_min_apply_delay="3s")


def make_slow(fleet: OddFleet) -> None:
    """It has received everything, and a query keeps it from replaying any of it."""
    fleet.alter("slow_stage@b1", max_standby_streaming_delay="-1")
    fleet.sql("slow_stage@a1", "CREATE TABLE read AS SELECT 1 AS n")
    fleet.sees("slow_stage@b1", "SELECT to_regclass('read') IS NOT NULL")
    fleet.by_hand(
        "slow_stage@b1",
        "setsid psql -X -p $P -c 'BEGIN; SELECT * FROM read; SELECT pg_sleep(600)' </dev/null >/dev/null 2>&1 &",
    )
    fleet.sees("slow_stage@b1", "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
    fleet.sql("slow_stage@a1", "DROP TABLE read")
    fleet.sql(
        "slow_stage@a1",
        "SELECT count(pg_logical_emit_message(true, 'x', repeat('x', 1024 * 1024))) FROM generate_series(1, 18)",
    )
    fleet.sees(
        "slow_stage@b1",
        "SELECT pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) > 16 * 1024 * 1024",
    )


def make_down(fleet: OddFleet) -> None:
    fleet.by_hand("down_stage@c1", "pg_ctl -D $D -s -w stop")


def make_slots(fleet: OddFleet) -> None:
    """Everybody has a slot on the primary, and the primary will want its own."""
    for name in ("b1", "c1"):
        fleet.sql("slots_stage@a1", f"SELECT pg_create_physical_replication_slot('{name}')")
    for name in ("a1", "b1", "c1"):
        fleet.alter(f"slots_stage@{name}", primary_slot_name=name)
    # Its log tells in which order things came.
    fleet.alter("slots_stage@b1", log_statement="all")
    fleet.sees("slots_stage@a1", "SELECT count(*) = 2 FROM pg_replication_slots WHERE active")


def make_other(fleet: OddFleet) -> None:
    """Somebody initialised that member anew."""
    fleet.by_hand(
        "other_stage@c1",
        "pg_ctl -D $D -s -w -m immediate stop; rm -rf $D/*; initdb -N -A trust -D $D >/dev/null;"
        'echo "port = $P" >>$D/postgresql.conf; pg_ctl -D $D -s -w -l /tmp/other.log start </dev/null >/dev/null 2>&1',
    )


MAKE = (make_sync, make_alone, make_delayed, make_slow, make_down, make_slots, make_other)


@dataclass
class Ran:
    """A rehearsal and the run that was agreed to; who was what in the refused herds before and after both."""

    fleet: OddFleet
    rehearsed: subprocess.CompletedProcess[str]
    acted: subprocess.CompletedProcess[str]
    before: list[str]
    after: list[str]


def servers(fleet: OddFleet) -> list[str]:
    """The servers of the refused herds: when each began to run, and as what."""
    asked = "SELECT pg_postmaster_start_time(), pg_is_in_recovery(), (pg_control_checkpoint()).timeline_id"
    names = [f"{herd}@{member['server']}" for herd in REFUSED for member in HERDS[herd]["members"]]
    return [f"{name}: {fleet.sql(name, asked)}" for name in names]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("odd")
    file = folder / "fleet.yml"
    file.write_text(yaml.safe_dump(FLEET), encoding="utf-8")
    fleet = OddFleet(folder / "lab")
    try:
        fleet.up(file)
        for herd in MOVED:
            fleet.sql(f"{herd}@a1", "CREATE TABLE kept (n int)")
        with ThreadPoolExecutor() as pool:
            # All at once: each has its own herd, and most of it is waiting.
            list(pool.map(lambda make: make(fleet), MAKE))
        before = servers(fleet)
        limit = ",".join(HERDS)
        rehearsed = fleet.play("failover", "--limit", limit, "--check")
        for herd in MOVED:
            # The one that holds back still does so when its primary goes.
            fleet.sql(f"{herd}@a1", "INSERT INTO kept SELECT generate_series(1, 100)")
        acted = fleet.play("failover", "--limit", limit, "-e", f"confirm={plan_id(rehearsed)}")
        yield Ran(fleet, rehearsed, acted, before, servers(fleet))
    finally:
        fleet.down()


def outcome_of(done: subprocess.CompletedProcess[str], herd: str) -> str:
    """The word beside a herd in the table at the end."""
    rows = [line.split() for line in done.stdout.splitlines() if line.split()[:1] == [herd]]
    return rows[-1][1] if rows else "not shown"


@pytest.mark.parametrize("herd", REFUSED)
def test_refused_in_check_mode_and_in_the_real_run(ran: Ran, herd: str) -> None:
    """By the same code and words; and nobody was restarted, promoted or stopped."""
    code, words = REFUSED[herd]
    for done in (ran.rehearsed, ran.acted):
        assert done.returncode != 0
        assert outcome_of(done, herd) == "refused", done.stdout
        lines = [line for line in done.stdout.splitlines() if f"REFUSE {code} {herd}" in line]
        assert lines, done.stdout
        assert any(words in line for line in lines), lines
    assert ran.before == ran.after


@pytest.mark.parametrize("herd", MOVED)
def test_it_fails_over(ran: Ran, herd: str) -> None:
    """One primary, everybody else streams on its timeline from whom it should; writes are taken; nothing is lost."""
    fleet = ran.fleet
    assert (outcome_of(ran.rehearsed, herd), outcome_of(ran.acted, herd)) == ("rehearsed", "done"), ran.acted.stdout
    (primary,) = [server for server, upstream in MOVED[herd].items() if upstream is None]
    for server, upstream in MOVED[herd].items():
        must_stream(fleet, f"{herd}@{server}", upstream)
    # A write that waits for a synchronous replica is not ended by statement_timeout (seen): the client gives up.
    fleet("sql", f"{herd}@{primary}", "INSERT INTO kept VALUES (101)", timeout=20)
    assert fleet.sql(f"{herd}@{primary}", "SELECT count(*), max(n) FROM kept") == "101|101"
    for number in (1, 2):
        found = fleet.dig(f"{HERDS[herd]['name']}.stage.example.com", server=number)
        assert [ADDRESSES[address] for address in found] == [primary]


def must_stream(fleet: OddFleet, instance: str, upstream: str | None) -> None:
    """It is the primary on timeline 2, or streams on that one from that server."""
    if upstream is None:
        assert fleet.sql(
            instance, "SELECT pg_is_in_recovery(), substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"
        ) == ("f|00000002")
        return
    seen = "SELECT pg_is_in_recovery(), received_tli, sender_host FROM pg_stat_wal_receiver WHERE status = 'streaming'"
    wanted = f"t|2|{FLEET['servers'][upstream]['address']}"
    until(lambda: fleet.sql(instance, seen) == wanted, f"{instance} streams from {upstream}", 10)


def test_the_new_primary_has_its_synchronous_replica(ran: Ran) -> None:
    ran.fleet.sees("sync_stage@b1", "SELECT sync_state = 'sync' FROM pg_stat_replication WHERE application_name = 'c1'")


def test_a_cascade_two_deep_gets_what_is_written_on_the_new_timeline(ran: Ran) -> None:
    """A cascade that is left on the old timeline is a bug that others shipped: it streams, and gets nothing."""
    ran.fleet.sql("deep_stage@b1", "CREATE TABLE reaches (n int)")
    for server in ("a1", "c1", "d1"):
        ran.fleet.sees(f"deep_stage@{server}", "SELECT to_regclass('reaches') IS NOT NULL")


def test_a_delayed_replica_keeps_its_delay(ran: Ran) -> None:
    assert "delayed_stage@b1: it reaches the new timeline 3 s late" in ran.rehearsed.stdout
    assert ran.fleet.sql("delayed_stage@b1", "SHOW recovery_min_apply_delay") == "3s"


def test_a_member_that_was_down_follows_when_it_is_started_by_hand(ran: Ran) -> None:
    fleet, member = ran.fleet, "down_stage@c1"
    assert "no server running" in fleet.by_hand(member, "pg_ctl -D $D status || true")
    assert f"host={FLEET['servers']['b1']['address']}" in fleet.by_hand(
        member, 'test -e $D/standby.signal && grep ^primary_conninfo $D/postgresql.auto.conf | tail -n 1 | tr -d "\'"'
    )
    fleet.by_hand(member, f"pg_ctl -D $D -s -w -l {LOG} start </dev/null >/dev/null 2>&1")
    must_stream(fleet, member, "b1")


def test_slots_are_there_before_the_promotion_and_gone_where_nobody_streams_from(ran: Ran) -> None:
    """A replica that finds no slot does not stream; a slot that nobody uses fills the disk of who keeps it."""
    fleet, active = ran.fleet, "SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots"
    fleet.sees("slots_stage@b1", f"SELECT ({active} WHERE active) = 'a1 c1'")
    assert fleet.sql("slots_stage@b1", active) == "a1 c1"
    for server in ("a1", "c1"):
        assert fleet.sql(f"slots_stage@{server}", active) == ""
    log = fleet.by_hand("slots_stage@b1", 'cat $(psql -X -At -p $P -c "SELECT pg_current_logfile()")')
    assert 0 < log.index("pg_create_physical_replication_slot") < log.index("selected new timeline ID: 2")


def test_debians_wrapper_knows_its_clusters(ran: Ran) -> None:
    """What pg_ctl starts behind the wrapper's back, pg_lsclusters shows with other options or not at all."""
    for server, state in (("a1", "online,recovery"), ("b1", "online")):
        shown = ran.fleet.by_hand(f"debian_stage@{server}", "pg_lsclusters -h").splitlines()
        assert [line.split()[3] for line in shown if line.split()[1] == "debian"] == [state]


def test_a_replica_in_another_place_left_no_second_one_behind(ran: Ran) -> None:
    fleet, old = ran.fleet, "elsewhere_stage@a1"
    assert fleet.sql(old, "SELECT sender_port FROM pg_stat_wal_receiver") == str(ELSEWHERE["port"])
    assert fleet.sql("elsewhere_stage@b1", "SHOW data_directory") == ELSEWHERE["pgdata"]
