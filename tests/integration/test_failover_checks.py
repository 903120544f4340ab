# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real servers in the states that a failover has to notice, all of them seen by one look.

Each herd has as many states at once as do not hide each other; one has none, on the same hosts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import yaml

from ansible_collections.elephaas.herd.plugins.module_utils.decide.candidate import Wishes
from ansible_collections.elephaas.herd.plugins.module_utils.decide.plan import plan_failover
from ansible_collections.elephaas.herd.plugins.plugin_utils.herd import herd_of, seen_by_name

from .lab_client import Lab


def _herd(name: str, port: int, *servers: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "environment": "prod",
        "port": port,
        "pgdata": f"/srv/{name}",
        "vhost": f"{name}.prod.example.com",
        "members": [{"server": server} for server in servers],
        **more,
    }


FLEET: dict[str, Any] = {
    "environments": {"prod": {}},
    "datacenters": {"east": {"networks": ["10.30.0.0/16"]}, "west": {"networks": ["10.40.0.0/16"]}},
    "servers": {
        "a1": {"environment": "prod", "address": "10.30.0.11"},
        "b1": {"environment": "prod", "address": "10.40.0.11"},
    },
    "herds": [
        _herd("fine", 5501, "a1", "b1"),
        _herd("busy", 5502, "a1", "b1"),
        _herd("files", 5503, "a1", "b1", control="pg_ctlcluster"),
        # Its third member is the one that applies late.
        _herd("crowded", 5504, "a1", "b1", "c1"),
        _herd("plain", 5505, "a1"),
    ],
}
FLEET["servers"]["c1"] = {"environment": "prod", "address": "10.30.0.12"}

# Beside what each herd shows for itself: one Pacemaker runs on b1, and nobody can tell for whom.
ON_B1 = {"MANAGER_ON_HOST"}
WISHES = Wishes(dns="skip", max_archive_backlog=0, max_transaction_age=0)
# DNS is not what is looked at here.
IGNORED = {"DNS_SKIPPED"}

PLAYBOOK = """
- hosts: leads
  gather_facts: false
  tasks:
    - elephaas.herd.instances_info:
        instances: "{{ groups['instances'] }}"
        readiness: true
      run_once: true
      register: look
    - ansible.builtin.copy:
        content: "{{ {'look': look, 'hostvars': hostvars} | to_json }}"
        dest: "{{ playbook_dir }}/seen.json"
      delegate_to: localhost
      run_once: true
"""

# A process of that name, with that configuration, as far as anybody can see.
REPMGRD = """
printf "node_id=1\\ndata_directory='{}'\\n" >/tmp/repmgr.conf
(exec -a /usr/bin/repmgrd tail -f /tmp/repmgr.conf) </dev/null >/dev/null 2>&1 &
"""


class Fleet(Lab):
    """The lab with that fleet in it."""

    def by_hand(self, server: str, script: str, *arguments: str) -> None:
        """A script on a server, as postgres; what it starts in the background goes on."""
        programs = 'PATH="$(ls -d /usr/lib/postgresql/*/bin | tail -n 1):$PATH"; set -eu; '
        self.execute(server, "bash", "-c", programs + script, "bash", *arguments, user="postgres")

    def background(self, server: str, *commands: str) -> None:
        """Commands that go on."""
        self.by_hand(server, "\n".join(f"setsid {command} </dev/null >/dev/null 2>&1 &" for command in commands))

    def restart(self, *instances: str) -> None:
        """Restart instances, one after the other."""
        for instance in instances:
            herd, _at, server = instance.partition("_prod@")
            self.by_hand(server, 'pg_ctl -D "$1" -s -w -m fast -l /tmp/start.log restart', f"/srv/{herd}")

    def alter(self, instance: str, **settings: Any) -> None:
        """ALTER SYSTEM, without a reload."""
        self.sql(instance, "".join(f"ALTER SYSTEM SET {name} = '{value}';" for name, value in settings.items()))

    def sees(self, instance: str, query: str) -> None:
        """Wait until a query is true."""
        deadline = time.monotonic() + 30
        while self.sql(instance, query) != "t":
            assert time.monotonic() < deadline, f"{instance}: never {query}"
            time.sleep(0.1)


def make_busy(fleet: Fleet) -> None:
    """What a stop would wait for, end, or leave behind."""
    primary, replica = "busy_prod@a1", "busy_prod@b1"
    fleet.alter(replica, max_prepared_transactions=5)
    fleet.alter(
        primary, max_prepared_transactions=5, wal_level="logical", archive_mode="on", archive_command="false",
        full_page_writes="off", wal_sender_timeout=0,
    )  # fmt: skip
    fleet.restart(replica, primary)
    fleet.sees(replica, "SELECT count(*) = 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'")
    fleet.sql(primary, "SELECT pg_create_logical_replication_slot('etl', 'test_decoding')")
    fleet.sql(primary, "CREATE UNLOGGED TABLE cache AS SELECT 1 AS n", "app")
    fleet.sql(primary, "BEGIN; CREATE TABLE later (n int); PREPARE TRANSACTION 'later'")
    fleet.sql(primary, "SELECT pg_switch_wal()")
    fleet.background(
        "a1",
        "psql -X -p 5502 -d app -c 'BEGIN; SELECT pg_sleep(600)'",
        "pg_receivewal -p 5502 -n -D /tmp",
        "pg_basebackup -p 5502 -r 32k -X none -c fast -D /tmp/busy-backup",
    )
    fleet.sees(
        primary,
        "SELECT (SELECT count(*) FROM pg_stat_replication WHERE application_name = 'pg_receivewal') = 1"
        " AND (SELECT count(*) FROM pg_stat_progress_basebackup) = 1"
        " AND (SELECT last_failed_wal IS NOT NULL FROM pg_stat_archiver)"
        " AND (SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)' AND xact_start < now()) = 1",
    )


def make_files(fleet: Fleet) -> None:
    """What the next start would meet, and who else may cause it."""
    primary = "files_prod@a1"
    fleet.alter(primary, shared_buffers="17MB", shared_preload_libraries="pg_stat_statements, no_such_library")
    fleet.alter(primary, max_connections=30)
    fleet.sql(primary, "SELECT pg_reload_conf()")
    fleet.sees(primary, "SELECT count(*) = 3 FROM pg_settings WHERE pending_restart")
    fleet.by_hand(
        "a1",
        "echo 'no_such_setting = 1' >>/etc/postgresql/*/files/postgresql.conf\n" + REPMGRD.format("/srv/files"),
    )
    fleet.by_hand("b1", "echo '{}' >/srv/files/patroni.dynamic.json")


def make_crowded(fleet: Fleet) -> None:
    """No room on the candidate, commits that would wait for it, a sibling that applies late."""
    primary, candidate, late = "crowded_prod@a1", "crowded_prod@b1", "crowded_prod@c1"
    fleet.alter(primary, max_wal_senders=2, primary_slot_name="a1")
    fleet.alter(candidate, max_wal_senders=2, synchronous_standby_names='FIRST 2 (b1, "c1")')
    fleet.alter(late, recovery_min_apply_delay="1h")
    fleet.sql(late, "SELECT pg_reload_conf()")
    fleet.restart(primary)
    # A replica may be lower than its primary has been only once it has replayed that the primary is lower now.
    fleet.sees(primary, "SELECT count(*) = 2 FROM pg_stat_replication WHERE state = 'streaming'")
    fleet.restart(candidate)
    fleet.sql(candidate, "SELECT pg_create_physical_replication_slot('kept_' || n) FROM generate_series(1, 12) n")
    fleet.background("b1", "pg_receivewal -p 5504 -n -D /tmp")
    fleet.sees(candidate, "SELECT count(*) = 1 FROM pg_stat_replication")
    fleet.sees(primary, "SELECT count(*) = 2 FROM pg_stat_replication WHERE state = 'streaming'")


def make_plain(fleet: Fleet) -> None:
    """An account that may not do what has to be done."""
    fleet.sql("plain_prod@a1", "ALTER ROLE postgres NOSUPERUSER")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("checks")
    file = folder / "fleet.yml"
    file.write_text(yaml.safe_dump(FLEET), encoding="utf-8")
    fleet = Fleet(folder / "lab")
    try:
        fleet.up(file)
        with ThreadPoolExecutor() as pool:
            # All at once: each has its own herd, and most of it is waiting.
            list(pool.map(lambda make: make(fleet), (make_busy, make_files, make_crowded, make_plain)))
        # A Pacemaker for nobody knows whom, and a repmgrd for somebody else's instance.
        fleet.background("b1", "bash -c 'exec -a /usr/sbin/pacemakerd sleep 600'")
        fleet.by_hand("b1", REPMGRD.format("/srv/other"))
        yield fleet
    finally:
        fleet.down()


@pytest.fixture(scope="module")
def plans(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The plan for each herd, from one look at all servers."""
    folder = tmp_path_factory.mktemp("look")
    (folder / "look.yml").write_text(PLAYBOOK, encoding="utf-8")
    fleet.run("ansible-playbook", str(folder / "look.yml"))
    seen = json.loads((folder / "seen.json").read_text(encoding="utf-8"))
    looks, errors = seen_by_name(seen["look"]["observations"])
    assert errors == {}
    for name, look in looks.items():
        assert look["instance"]["readiness"]["sql_error"] is None, name
    decided = {}
    for herd in FLEET["herds"]:
        lead = f"{herd['name']}_prod@a1"
        decided[herd["name"]] = plan_failover(herd_of(lead, seen["hostvars"], looks, errors), WISHES)
    return decided


def found(plan: dict[str, Any]) -> dict[str, str]:
    """Code -> subjects and reasons, in one text."""
    texts: dict[str, str] = {}
    for verdict in plan["verdicts"]:
        if verdict["code"] not in IGNORED:
            texts[verdict["code"]] = texts.get(verdict["code"], "") + f"{verdict['subject']}: {verdict['reason']}\n"
    return texts


def test_nothing_is_found_where_nothing_is(plans: dict[str, dict[str, Any]]) -> None:
    # Its neighbours on the same hosts have everything.
    assert set(found(plans["fine"])) == ON_B1
    assert (plans["fine"]["outcome"], plans["fine"]["target"]) == ("go", "fine_prod@b1")


def test_what_the_primary_is_in_the_midst_of(plans: dict[str, dict[str, Any]]) -> None:
    seen = found(plans["busy"])
    assert set(seen) - ON_B1 == {
        "ARCHIVE_BACKLOG",
        "ARCHIVE_ENDS",
        "ARCHIVE_FAILING",
        "BACKUP_RUNNING",
        "FOREIGN_WALSENDER",
        "LOGICAL_SLOTS",
        "LONG_TRANSACTION",
        "NO_REWIND",
        "PREPARED_TRANSACTIONS",
        "UNLOGGED_TABLES",
    }
    assert plans["busy"]["target"] == "busy_prod@b1"
    assert "pg_receivewal" in seen["FOREIGN_WALSENDER"]
    # The members' own, the base backup's and the look's connections are nobody strange.
    assert seen["FOREIGN_WALSENDER"].count("\n") == 1
    assert "1 prepared transactions" in seen["PREPARED_TRANSACTIONS"]
    assert "busy_prod@a1: 1 unlogged tables, indexes and sequences (8.0 kB)" in seen["UNLOGGED_TABLES"]
    assert "postgres, psql; active" in seen["LONG_TRANSACTION"]
    assert "busy_prod@b1: archive_mode is off" in seen["ARCHIVE_ENDS"]


def test_what_the_next_start_would_meet(plans: dict[str, dict[str, Any]]) -> None:
    seen = found(plans["files"])
    assert set(seen) - ON_B1 == {
        "AUTOSTART",
        "CONFIG_ERRORS",
        "MANAGED_ELSEWHERE",
        "PENDING_RESTART",
        "PRELOAD_DIFFERS",
        "PRELOAD_MISSING",
        "STANDBY_SETTINGS",
    }
    assert "start.conf says auto" in seen["AUTOSTART"]
    assert "/files/postgresql.conf line" in seen["CONFIG_ERRORS"]
    assert "max_connections, shared_buffers, shared_preload_libraries" in seen["PENDING_RESTART"]
    # The one that is installed is not missing.
    assert seen["PRELOAD_MISSING"].rstrip().endswith(": no_such_library")
    assert "max_connections will be 30, that of files_prod@b1 is 40" in seen["STANDBY_SETTINGS"]
    first, second = seen["MANAGED_ELSEWHERE"].splitlines()
    assert first.startswith("files_prod@a1: process") and "repmgrd" in first
    assert second == "files_prod@b1: patroni.dynamic.json is in its data directory"


def test_who_could_stream_from_the_candidate(plans: dict[str, dict[str, Any]]) -> None:
    plan, seen = plans["crowded"], found(plans["crowded"])
    assert plan["target"] == "crowded_prod@b1"
    assert [(lost["name"], lost["code"]) for lost in plan["runners_up"]] == [("crowded_prod@c1", "APPLY_DELAY")]
    assert set(seen) - ON_B1 == {"FOLLOWER_LATE", "SLOTS_FULL", "SYNC_STANDBYS", "WALSENDERS_FULL"}
    assert "(crowded_prod@a1 as walreceiver, crowded_prod@c1 as c1) 1 will do" in seen["SYNC_STANDBYS"]
    assert "max_wal_senders is 2: 1 are in use, and 2 members will want one" in seen["WALSENDERS_FULL"]
    assert "12 slots exist, and a1 are needed" in seen["SLOTS_FULL"]
    assert "crowded_prod@c1: it reaches the new timeline 1 h 0 min late" in seen["FOLLOWER_LATE"]


def test_who_may_not(plans: dict[str, dict[str, Any]]) -> None:
    seen = found(plans["plain"])
    assert set(seen) == {"NO_CANDIDATE", "NOT_SUPERUSER"}
    assert seen["NOT_SUPERUSER"] == "plain_prod@a1: postgres is not a superuser there\n"
