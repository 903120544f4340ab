# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An old primary that comes back: what status says, what no start does, and how it becomes a replica.

The tests share one lab and go in their order: the trouble is made once, looked at, and ended by demote.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from .moving_fleet import MovingFleet, until


def _herd(name: str, port: int, *servers: str, **more: Any) -> dict[str, Any]:
    members = [{"server": server} for server in servers]
    return {"name": name, "environment": "stage", "port": port, "pgdata": f"/srv/{name}", "members": members, **more}


FLEET: dict[str, Any] = {
    "environments": {"stage": {}},
    "datacenters": {"east": {"networks": ["10.70.0.0/16"]}, "west": {"networks": ["10.80.0.0/16"]}},
    "servers": {
        "e1": {"environment": "stage", "address": "10.70.0.11"},
        "e2": {"environment": "stage", "address": "10.70.0.12"},
        "w1": {"environment": "stage", "address": "10.80.0.11"},
        "w2": {"environment": "stage", "address": "10.80.0.12"},
    },
    "herds": [
        # Somebody promotes w1 while e1 runs, with w2 still streaming from it.
        _herd("apart", 5432, "e1", "w1", "w2", vhost="apart.stage.example.com"),
        # e2 loses its power, and comes back with a PostgreSQL that starts by itself.
        _herd("lost", 5433, "e2", "w2", control="pg_ctlcluster", pgdata="/var/lib/postgresql/15/lost"),
        # e1 is stopped as it should be, and w1 promoted by hand; w2 loses its signal file.
        _herd("clean", 5434, "e1", "w1", "w2"),
        # w1 is promoted for a diagnosis.
        _herd("probe", 5435, "e1", "w1"),
    ],
}
HERDS = {f"{herd['name']}_stage": herd for herd in FLEET["herds"]}
ADDRESSES = {name: server["address"] for name, server in FLEET["servers"].items()}


class Fleet(MovingFleet):
    """The lab with that fleet in it."""

    def shell(self, name: str, script: str) -> str:
        """A shell script in the data directory of an instance, as its owner."""
        herd, _at, server = name.partition("@")
        return self.execute(server, "sh", "-c", f'cd "$0" && {script}', HERDS[herd]["pgdata"], user="postgres").stdout

    def pg_ctl(self, instance: str, *arguments: str) -> None:
        program = "$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)/pg_ctl"
        herd = HERDS[instance.partition("@")[0]]
        config = f"/etc/postgresql/15/{herd['name']}/postgresql.conf"
        option = f"-o '-c config_file={config}'" if herd.get("control") and "start" in arguments else ""
        self.shell(instance, f"{program} -D . -w {option} {' '.join(arguments)} </dev/null >/dev/null 2>&1")

    def process(self, name: str) -> str:
        """Its postmaster and when it was started; empty when there is none."""
        return self.shell(name, 'sed -n "1p;3p" postmaster.pid 2>/dev/null || true')

    def processes(self) -> dict[str, str]:
        return {name: self.process(name) for name in ALL}

    def armed(self, name: str) -> bool:
        return "standby.signal" in self.shell(name, "ls")

    def role(self, name: str) -> tuple[str, str | None]:
        """Role on record, and the server of its upstream."""
        herd, _at, server = name.partition("@")
        tables = self.tables()
        servers = {row["server_id"]: row["hostname"] for row in tables["ele_server"]}
        herds = {row["herd_id"]: row["herd_name"] for row in tables["ele_herd"]}
        rows = {row["instance_id"]: row for row in tables["ele_instance"]}
        (row,) = [
            row
            for row in rows.values()
            if (herds[row["herd_id"]], servers[row["server_id"]]) == (HERDS[herd]["name"], server)
        ]
        upstream = rows.get(row["upstream_id"])
        return row["role"], servers[upstream["server_id"]] if upstream else None

    def record(self, name: str, role: str) -> None:
        herd, _at, server = name.partition("@")
        arguments = {"herd": HERDS[herd]["name"], "environment": "stage", "server": server, "role": role}
        if role in ("superseded", "primary"):
            arguments["upstream"] = ""
        self.run("ansible", "localhost", "-m", "elephaas.herd.registry_instance", "-a", json.dumps(arguments))

    def streams_from(self, name: str) -> str:
        """Address of who it streams from; empty when it does not."""
        return self.sql(
            name, "SELECT coalesce((SELECT sender_host FROM pg_stat_wal_receiver WHERE status = 'streaming'), '')"
        )

    def rows(self, name: str) -> str:
        return self.sql(name, "SELECT string_agg(what, ',' ORDER BY what) FROM kept")


ALL = [f"{name}@{member['server']}" for name, herd in HERDS.items() for member in herd["members"]]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("demote")
    file = folder / "fleet.yml"
    file.write_text(yaml.safe_dump(FLEET), encoding="utf-8")
    fleet = Fleet(folder / "lab")
    try:
        fleet.up(file)
        _make_trouble(fleet)
        yield fleet
    finally:
        fleet.down()


def _make_trouble(fleet: Fleet) -> None:
    for herd in HERDS.values():
        fleet.sql(f"{herd['name']}_stage@{herd['members'][0]['server']}", "CREATE TABLE kept (what text)")
    for name in ("apart_stage@w1", "lost_stage@w2", "clean_stage@w1"):
        until(lambda name=name: fleet.sql(name, "SELECT to_regclass('kept')") == "kept", f"{name} has replayed")  # type: ignore[misc]
    fleet.sql("apart_stage@w1", "SELECT pg_promote()")
    fleet.sql("apart_stage@e1", "INSERT INTO kept VALUES ('e1-a')")
    fleet.sql("apart_stage@e1", "INSERT INTO kept VALUES ('e1-b')")
    fleet("poweroff", "e2")
    fleet.sql("lost_stage@w2", "SELECT pg_promote()")
    fleet.record("lost_stage@e2", "superseded")
    fleet.record("lost_stage@w2", "primary")
    fleet("poweron", "e2")
    fleet.sql("lost_stage@e2", "INSERT INTO kept VALUES ('e2-a')")
    fleet.pg_ctl("clean_stage@e1", "stop", "-m", "fast")
    fleet.sql("clean_stage@w1", "SELECT pg_promote()")


def problems(output: str, code: str) -> list[str]:
    return [line.strip() for line in output.splitlines() if f" {code} " in line]


def test_status_shouts_split_brain(fleet: Fleet) -> None:
    assert [fleet.sql(name, "SELECT pg_is_in_recovery()") for name in ("apart_stage@e1", "lost_stage@e2")] == ["f", "f"]
    shown = fleet.play("status").stdout
    lines = [line.strip() for line in shown[shown.index("problems:") :].splitlines()]
    first, second = lines[1], next(line for line in lines[2:] if "SPLIT_BRAIN" in line)
    assert first.startswith("REFUSE SPLIT_BRAIN apart_stage: 2 members accept writes: "), shown
    # A person has promoted it, and only a person knows why: the record and the timelines disagree.
    forked = fleet.shell("apart_stage@w1", "cat pg_wal/00000002.history").split()[1]
    assert f"apart_stage@e1 has been on its own since {forked}" in first
    assert "which one is right cannot be told" in first
    for name in ("apart_stage@e1", "apart_stage@w1"):
        assert f"ansible-playbook elephaas.herd.demote --limit {name}" in first
    # Of the other one the record knows.
    forked = fleet.shell("lost_stage@w2", "cat pg_wal/00000002.history").split()[1]
    assert "lost_stage@w2 is the right one, because a failover has superseded the others" in second, second
    written = re.search(rf"lost_stage@e2 has been on its own since {forked}, and has written (\d+) bytes", second)
    assert written is not None and int(written[1]) > 100, second
    assert second.endswith("Run: ansible-playbook elephaas.herd.demote --limit lost_stage@e2")
    table = shown[shown.index("HERD  ") :].splitlines()
    assert [row.split()[1] for row in table[1:4]] == ["apart_stage"] * 3, "nothing stands above it"
    # The look itself has made nobody a primary again.
    assert fleet.role("lost_stage@e2") == ("superseded", None)
    assert fleet.role("lost_stage@w2") == ("primary", None)


def test_no_start_and_no_restart_brings_one_up_writable(fleet: Fleet) -> None:
    before = fleet.processes()
    done = fleet.play("restart", "--limit", "dc_east", "-e", "confirm=yes")
    assert done.returncode != 0, done.stdout
    for code in ("SUPERSEDED lost_stage@e2", "SECOND_PRIMARY apart_stage@e1"):
        assert f"REFUSE {code}:" in done.stdout, done.stdout
    # The herd that nothing is wrong with was restarted, and no other.
    assert [name for name, process in fleet.processes().items() if process != before[name]] == ["probe_stage@e1"]
    # Stopping it is always right; and then it is started by nobody, not even while nobody else can be seen.
    assert fleet.play("stop", "--limit", "lost_stage@e2", "-e", "confirm=yes").returncode == 0
    fleet("partition", "w2")
    for limit in ("lost_stage@e2", "dc_east"):
        done = fleet.play("start", "--limit", limit, "-e", "confirm=yes")
        assert done.returncode != 0 and "REFUSE SUPERSEDED lost_stage@e2:" in done.stdout, done.stdout
    # Nobody has put this one on record as superseded: its timeline is the one that another began from.
    assert "REFUSE SECOND_PRIMARY clean_stage@e1:" in done.stdout, done.stdout
    fleet("heal", "w2")
    assert fleet.process("lost_stage@e2") == fleet.process("clean_stage@e1") == ""
    shown = fleet.play("status", "--limit", "lost_stage", "--check").stdout
    assert "REFUSE SUPERSEDED lost_stage@e2: it was the primary before a failover, and is stopped" in shown


def test_a_replica_without_its_signal_file(fleet: Fleet) -> None:
    """The control state "shut down in recovery": it would start writable, on the timeline of its primary."""
    name = "clean_stage@w2"
    fleet.pg_ctl(name, "stop")
    fleet.shell(name, "rm standby.signal")
    done = fleet.play("start", "--limit", name)
    assert done.returncode != 0 and f"REFUSE STARTS_WRITABLE {name}:" in done.stdout, done.stdout
    single = fleet.run(
        "ansible", name, "-m", "elephaas.herd.instance", "-a",
        json.dumps({"data_directory": "/srv/clean", "port": 5434, "state": "started"}), check=False,
    )  # fmt: skip
    assert single.returncode != 0 and "STARTS_WRITABLE" in single.stdout, single.stdout
    assert fleet.process(name) == ""
    # It never wrote anything by itself: it is a replica again, and of the new primary.
    done = fleet.play("demote", "--limit", name, "-e", "confirm=yes")
    assert done.returncode == 0, done.stdout
    assert fleet.streams_from(name) == ADDRESSES["w1"]


def test_demote_asks_and_refuses(fleet: Fleet) -> None:
    before = fleet.processes(), fleet.tables()
    for limit, refused in (
        ("apart_stage@e1", ["nobody is there to be asked"]),
        ("apart_stage:probe_stage", ["MORE_THAN_ONE apart_stage@e1:", "ONLY_PRIMARY probe_stage@e1:"]),
    ):
        done = fleet.play("demote", "--limit", limit)
        assert done.returncode != 0 and all(said in done.stdout for said in refused), done.stdout
    shown = fleet.play("demote", "--limit", "apart_stage@e1", "--check")
    assert shown.returncode == 0, shown.stdout
    assert "WARN DIVERGED apart_stage@e1: it has been on its own since 0/" in shown.stdout
    assert "WARN SUBSCRIBERS apart_stage@e1: w2 streams from it" in shown.stdout
    assert "WARN RECORDED apart_stage@w1: it is put on record" in shown.stdout
    assert (fleet.processes(), fleet.tables()) == before


def test_a_diverged_one_stays_stopped_with_all_that_it_holds(fleet: Fleet) -> None:
    both = [("apart_stage@e1", "apart_stage@w1", "e1-a,e1-b", 2), ("lost_stage@e2", "lost_stage@w2", "e2-a", 1)]
    limit = ":".join(name for name, *_more in both)
    done = fleet.play("demote", "--limit", limit, "-e", "confirm=yes")
    assert done.returncode == 0, done.stdout
    again = fleet.play("demote", "--limit", limit, "-e", "confirm=yes")
    assert again.returncode == 0 and again.stdout.count("nothing to do: e") == 2, again.stdout
    for name, primary, rows, commits in both:
        held = rf"^{name}: it has been on its own since \S+, and has written \d+ bytes .*, (\d+) commits"
        counted = re.search(held, done.stdout, re.MULTILINE)
        assert counted is not None and int(counted[1]) >= commits, done.stdout
        assert re.search(rf"^{name.partition('@')[0]} +done +1 of 1 .*left: diverged$", done.stdout, re.MULTILINE), (
            done.stdout
        )
        assert fleet.process(name) == "" and fleet.armed(name)
        settings = fleet.shell(name, "cat postgresql.auto.conf")
        assert ADDRESSES[primary.partition("@")[2]] in settings, settings
        # Whoever starts it now, by hand, gets a server that takes no writes, and that holds every row.
        fleet.pg_ctl(name, "start")
        assert fleet.rows(name) == rows
        assert fleet.refuses_writes(name)
        assert fleet.rows(primary) == ""
    fleet.play("status")
    for name, primary, _rows, _commits in both:
        assert fleet.role(name) == ("superseded", None), "it does not stream from its herd"
        assert fleet.role(primary) == ("primary", None)
        fleet.pg_ctl(name, "stop")


def test_one_that_has_not_diverged_streams(fleet: Fleet) -> None:
    done = fleet.play("demote", "--limit", "clean_stage@e1", "-e", "confirm=yes")
    assert done.returncode == 0, done.stdout
    fleet.sql("clean_stage@w1", "INSERT INTO kept VALUES ('new')")
    until(lambda: fleet.rows("clean_stage@e1") == "new", "it has the new row")
    assert fleet.streams_from("clean_stage@e1") == ADDRESSES["w1"]
    assert fleet.refuses_writes("clean_stage@e1")
    assert fleet.role("clean_stage@e1") == ("replica", "w1")
    assert fleet.role("clean_stage@w1") == ("primary", None)


def test_a_detached_member_gets_its_archiving_back(fleet: Fleet) -> None:
    name = "probe_stage@w1"
    for setting in ("archive_mode = on", "archive_command = 'true # ours'"):
        fleet.sql(name, f"ALTER SYSTEM SET {setting}")
    fleet.pg_ctl(name, "restart")
    assert fleet.play("promote", "--limit", name, "-e", "confirm=yes").returncode == 0
    assert fleet.sql(name, "SHOW archive_command") == "/bin/true"
    done = fleet.play("demote", "--limit", name, "-e", "confirm=yes")
    assert done.returncode == 0 and "left: diverged" in done.stdout, done.stdout
    assert fleet.process(name) == "" and fleet.armed(name)
    settings = fleet.shell(name, "cat postgresql.auto.conf")
    assert "archive_command = 'true # ours'" in settings and "/bin/true" not in settings
    assert fleet.role(name) == ("superseded", None)
    assert fleet.sql("probe_stage@e1", "SELECT pg_is_in_recovery()") == "f"
