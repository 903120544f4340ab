# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The primary is gone: what is refused, what proves its death, what is lost, and what becomes of it when it is back."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .moving_fleet import MovingFleet, Run, plan_id, until


def _herd(name: str, port: int, *servers: str) -> dict[str, Any]:
    return {
        "name": name,
        "environment": "stage",
        "port": port,
        "pgdata": f"/srv/{name}",
        "vhost": f"{name}.stage.example.com",
        "members": [{"server": server} for server in servers],
    }


# What happens to a host happens to all of its herds: the one that loses its power has one herd alone.
FLEET: dict[str, Any] = {
    "environments": {"stage": {}},
    "datacenters": {"east": {"networks": ["10.70.0.0/16"]}, "west": {"networks": ["10.80.0.0/16"]}},
    "servers": {
        "e1": {"environment": "stage", "address": "10.70.0.11"},
        "e2": {"environment": "stage", "address": "10.70.0.12"},
        "e3": {"environment": "stage", "address": "10.70.0.13"},
        "w1": {"environment": "stage", "address": "10.80.0.11"},
        "w2": {"environment": "stage", "address": "10.80.0.12"},
    },
    "herds": [
        _herd("dark", 5432, "e1", "w1", "w2"),
        _herd("frozen", 5432, "e3", "e2"),
        _herd("crashed", 5501, "e2", "w1", "w2"),
        _herd("ended", 5502, "e2", "w1"),
        _herd("killed", 5503, "e2", "w1", "w2"),
        _herd("halfway", 5504, "e2", "w1", "w2"),
        _herd("returned", 5505, "e2", "w1", "w2"),
    ],
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MovingFleet]:
    folder = tmp_path_factory.mktemp("lost")
    file = folder / "fleet.yml"
    file.write_text(yaml.safe_dump(FLEET), encoding="utf-8")
    fleet = MovingFleet(folder / "lab")
    try:
        fleet.up(file)
        yield fleet
    finally:
        fleet.down()


def outcomes(file: Path) -> dict[str, dict[str, Any]]:
    """The result file, by herd."""
    return {row["herd"]: row for row in json.loads(file.read_text())["outcomes"]}


def recovery(fleet: MovingFleet, instance: str) -> str:
    """pg_is_in_recovery() of a running instance."""
    return fleet.sql(instance, "SELECT pg_is_in_recovery()")


def must_follow(fleet: MovingFleet, instance: str, primary: str) -> None:
    """It streams from that server, on that one's timeline."""
    herd = instance.partition("@")[0]
    timeline = fleet.sql(f"{herd}@{primary}", "SELECT timeline_id FROM pg_control_checkpoint()")
    asked = (
        "SELECT host(sender_host::inet), received_tli >= " + timeline + " FROM pg_stat_wal_receiver"
        " WHERE status = 'streaming'"
    )
    until(
        lambda: fleet.sql(instance, asked) == f"{FLEET['servers'][primary]['address']}|t",
        f"{instance} streams from {primary}",
    )


def role(fleet: MovingFleet, instance: str) -> str:
    """The role on record."""
    hosts = json.loads(fleet.run("ansible-inventory", "--list").stdout)["_meta"]["hostvars"]
    return str(hosts[instance]["elephaas_role"])


def vhost_leads_to(fleet: MovingFleet, herd: str, server: str) -> None:
    for number in (1, 2):
        assert fleet.dig(f"{herd}.stage.example.com", server=number) == [FLEET["servers"][server]["address"]]


def pg_ctl(fleet: MovingFleet, instance: str, *arguments: str, check: bool = True) -> None:
    """PostgreSQL's own tool, by hand, as an operator would at that server's prompt."""
    herd, _at, server = instance.partition("@")
    script = '"$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)/pg_ctl" -D "$0" -w "$@" </dev/null >/dev/null 2>&1'
    data = f"/srv/{herd.rpartition('_')[0]}"
    fleet.execute(server, "sh", "-c", script, data, *arguments, user="postgres", check=check)


def crash(fleet: MovingFleet, instance: str) -> None:
    """End a PostgreSQL as a lack of memory would: all of its processes at once."""
    herd, _at, server = instance.partition("@")
    data = f"/srv/{herd.rpartition('_')[0]}"
    script = 'pid=$(head -n 1 "$0/postmaster.pid"); kill -9 $pid $(pgrep -P $pid) || true'
    fleet.execute(server, "sh", "-c", script, data)


def test_a_host_without_power(fleet: MovingFleet, tmp_path: Path) -> None:
    """Refused without a statement; with it done, and what is lost is said; then the host comes back by itself."""
    fleet("writer", "start", "dark_stage", "--rate", "200", "--dns-cache", "5")
    time.sleep(1)
    # What no replica has received any more is lost with the host: the registry learns how far the primary came.
    cut = f"table inet cut {{ chain in {{ type filter hook input priority 0; ip saddr {FLEET['servers']['e1']['address']} drop; }}; }}"
    for server in ("w1", "w2"):
        fleet.execute(server, "nft", cut)
    time.sleep(1)
    fleet.play("status", "--limit", "dark_stage")
    fleet("poweroff", "e1")
    for server in ("w1", "w2"):
        fleet.execute(server, "nft", "delete table inet cut")
    said = ("-e", json.dumps({"dead": "power is cut, ticket 4711", "accept": "STILL_HEARD"}))

    for arguments in (("--check",), ("-e", "confirm=yes")):
        refused = fleet.play("failover", "--limit", "dark_stage", *arguments)
        assert refused.returncode != 0
        assert "REFUSE NOT_PROVEN_DEAD dark_stage@e1" in refused.stdout, refused.stdout
    bounded = fleet.play("failover", "--limit", "dark_stage", "--check", *said, "-e", "max_loss=0")
    assert bounded.returncode != 0
    assert "REFUSE LOSS_BEYOND_BOUND dark_stage" in bounded.stdout
    assert recovery(fleet, "dark_stage@w1") == recovery(fleet, "dark_stage@w2") == "t"

    file = tmp_path / "outcome.json"
    done = fleet.play("failover", "--limit", "dark_stage", "-e", "confirm=yes", *said, "-e", f"output_file={file}")
    assert done.returncode == 0, done.stdout
    outcome = outcomes(file)["dark_stage"]
    new = str(outcome["target"]).partition("@")[2]
    other = next(server for server in ("w1", "w2") if server != new)
    assert recovery(fleet, f"dark_stage@{new}") == "f"
    must_follow(fleet, f"dark_stage@{other}", new)
    vhost_leads_to(fleet, "dark", new)
    assert role(fleet, "dark_stage@e1") == "superseded"
    # The writer gets to the new primary by itself, and its own list of what it was promised tells the real loss.
    before = fleet.report("dark_stage")
    until(lambda: fleet.report("dark_stage").acknowledged > before.acknowledged, "the writer goes on")
    report = fleet.report("dark_stage")
    assert report.lost > 0
    assert outcome["loss"]["size"] > 0 and not outcome["loss"]["exact"]
    statement = [row for row in fleet.tables()["ele_operation"] if row["herd_name"] == "dark"][-1]
    assert "ticket 4711" in json.dumps(statement["phases"])
    fleet("writer", "stop", "dark_stage")

    # The host is powered on, and its PostgreSQL starts by itself: who still has the old address can write there.
    fleet("poweron", "e1")
    until(lambda: fleet("sql", "dark_stage@e1", "SELECT 1", check=False).returncode == 0, "e1 is back")
    assert recovery(fleet, "dark_stage@e1") == "f"
    assert not fleet.refuses_writes("dark_stage@e1")
    vhost_leads_to(fleet, "dark", new)
    status = fleet.play("status", "--limit", "dark_stage")
    assert "SPLIT_BRAIN" in status.stdout
    assert role(fleet, "dark_stage@e1") == "superseded"
    vhost_leads_to(fleet, "dark", new)
    again = fleet.play("failover", "--limit", "dark_stage", "--check")
    assert again.returncode != 0
    assert "REFUSE SPLIT_BRAIN" in again.stdout


def test_a_frozen_primary_is_fenced(fleet: MovingFleet, tmp_path: Path) -> None:
    """It answers nobody and may wake up at any moment. The fence is the network's switch, which a hook asks."""
    request, answer = tmp_path / "request", tmp_path / "answer"
    hook = tmp_path / "fence.yml"
    hook.write_text(
        yaml.safe_dump(
            [
                {
                    "name": "Ask the switch",
                    "ansible.builtin.copy": {"dest": str(request), "content": "{{ failover_event.source }}"},
                    "delegate_to": "localhost",
                },
                {
                    "name": "Know that the port is down",
                    "ansible.builtin.wait_for": {"path": str(answer), "timeout": 60},
                    "delegate_to": "localhost",
                },
            ]
        )
    )
    ended = threading.Event()

    def switch() -> None:
        while not ended.is_set():
            if request.exists():
                fleet("partition", request.read_text().partition("@")[2])
                answer.write_text("down")
                return
            time.sleep(0.1)

    tmp_path.chmod(0o777)
    script = 'pid=$(head -n 1 "$0/postmaster.pid"); kill -STOP $(pgrep -P $pid) $pid || true'
    fleet.execute("e3", "sh", "-c", script, "/srv/frozen")
    plain = fleet.play("failover", "--limit", "frozen_stage", "-e", "confirm=yes", "-e", "failover_look_timeout=3")
    assert plain.returncode != 0
    assert "REFUSE NO_ANSWER frozen_stage@e3" in plain.stdout, plain.stdout
    assert recovery(fleet, "frozen_stage@e2") == "t"
    # Whoever asks its replica hears that all is well (seen): that is no sign of life, and its silence none of death.
    assert fleet.sql("frozen_stage@e2", "SELECT status FROM pg_stat_wal_receiver") == "streaming"
    arguments = ("--limit", "frozen_stage", "-e", "failover_look_timeout=3", "-e")
    missing = fleet.play("failover", *arguments, json.dumps({"fence": "/nowhere/fence.yml"}), "--check")
    assert missing.returncode != 0
    assert "HOOK_NOT_FOUND" in missing.stdout
    thread = threading.Thread(target=switch)
    thread.start()
    try:
        wishes = json.dumps({"fence": str(hook), "accept": "LOSS_BEYOND_BOUND", "confirm": "yes"})
        done = fleet.play("failover", *arguments, wishes)
    finally:
        ended.set()
        thread.join()
    assert done.returncode == 0, done.stdout
    assert answer.exists()
    assert recovery(fleet, "frozen_stage@e2") == "f"
    vhost_leads_to(fleet, "frozen", "e2")
    # It wakes up, and nobody can tell it anything: a client of the old address gets nowhere.
    fleet.execute("e3", "sh", "-c", script.replace("-STOP", "-CONT"), "/srv/frozen")
    tried = fleet.run(
        "env", "PGCONNECT_TIMEOUT=3", "psql", "-h", FLEET["servers"]["e3"]["address"], "-p", "5432", "-c", "SELECT 1",
        check=False,
    )  # fmt: skip
    assert tried.returncode != 0
    assert re.search(r"timeout expired|timed out|No route|unreachable", tried.stderr), tried.stderr


def test_a_crashed_primary_on_a_living_host_needs_no_statement(fleet: MovingFleet, tmp_path: Path) -> None:
    """It is seen stopped, and held so: whoever starts it gets a read-only server."""
    crash(fleet, "crashed_stage@e2")
    done = fleet.fail_over(
        "crashed_stage", "-e", f"output_file={tmp_path / 'o.json'}", "-e", "accept=LOSS_BEYOND_BOUND"
    )
    assert "it must not come up writable" in done.stdout
    new = str(outcomes(tmp_path / "o.json")["crashed_stage"]["target"]).partition("@")[2]
    vhost_leads_to(fleet, "crashed", new)
    must_follow(fleet, f"crashed_stage@{'w2' if new == 'w1' else 'w1'}", new)
    assert role(fleet, "crashed_stage@e2") == "superseded"
    # Started by hand, not by us: a crash recovery, and then a replica.
    pg_ctl(fleet, "crashed_stage@e2", "start", check=False)
    assert fleet.refuses_writes("crashed_stage@e2")


def test_a_cleanly_stopped_primary_loses_nothing(fleet: MovingFleet, tmp_path: Path) -> None:
    fleet.sql("ended_stage@e2", "CREATE TABLE last_words (n int); INSERT INTO last_words VALUES (42)")
    pg_ctl(fleet, "ended_stage@e2", "stop", "-m", "fast")
    done = fleet.fail_over("ended_stage", "-e", f"output_file={tmp_path / 'o.json'}")
    assert "loss: nothing" in done.stdout
    outcome = outcomes(tmp_path / "o.json")["ended_stage"]
    assert (outcome["loss"]["size"], outcome["loss"]["exact"]) == (0, True)
    assert fleet.sql("ended_stage@w1", "SELECT n FROM last_words") == "42"
    assert fleet.execute("e2", "test", "-e", "/srv/ended/standby.signal").returncode == 0


ISOLATED = "ls ~postgres/.elephaas/*-{port}.isolated.json 2>/dev/null"
PROMOTED = "! test -e /srv/{herd}/standby.signal"


def _killed_at(fleet: MovingFleet, herd: str, moment: str, command: tuple[str, ...], log: Path) -> str:
    """A run whose controller loses its power at that moment on w1; its output."""
    port = next(row["port"] for row in FLEET["herds"] if row["name"] == herd)
    run = Run(fleet, "failover", command, log)
    try:
        fleet.wait_on("w1", moment.format(herd=herd, port=port))
        run.kill()
    finally:
        run.close()
    return run.output


@pytest.mark.parametrize(("herd", "moment"), [("killed", ISOLATED), ("halfway", PROMOTED)])
def test_the_same_command_ends_what_a_dead_controller_began(
    fleet: MovingFleet, tmp_path: Path, herd: str, moment: str
) -> None:
    """Cut off from a dead primary and nobody promoted, or promoted and nobody told."""
    crash(fleet, f"{herd}_stage@e2")
    wishes = json.dumps({"confirm": "yes", "accept": "LOSS_BEYOND_BOUND", "candidate": "w1"})
    command = ("--limit", f"{herd}_stage", "-e", wishes)
    output = _killed_at(fleet, herd, moment, command, tmp_path / "killed.log")
    ended = fleet.play("failover", *command)
    assert ended.returncode == 0, f"{output}\n=== and then\n{ended.stdout}"
    assert plan_id(ended) == re.findall(r"^plan id: (\w+)$", output, re.MULTILINE)[0]
    assert recovery(fleet, f"{herd}_stage@w1") == "f"
    assert recovery(fleet, f"{herd}_stage@w2") == "t"
    must_follow(fleet, f"{herd}_stage@w2", "w1")
    vhost_leads_to(fleet, herd, "w1")


def test_a_primary_that_returns_before_anybody_was_promoted(fleet: MovingFleet, tmp_path: Path) -> None:
    """Its members were cut off from it, and follow it again: by the same command, with the settings they had."""
    before = fleet.sql("returned_stage@w1", "SHOW primary_conninfo").replace("'", "")
    freeze = "pid=$(head -n 1 /srv/returned/postmaster.pid); kill -{signal} $(pgrep -P $pid) $pid"
    # A member that hangs from the moment of the lock on: it can be cut off from nothing, so nobody is promoted.
    hook = tmp_path / "hang.yml"
    task = {
        "name": "Hang",
        "ansible.builtin.shell": freeze.format(signal="STOP"),
        "delegate_to": "returned_stage@w2",
        "changed_when": True,
    }
    hook.write_text(yaml.safe_dump([task]))
    tmp_path.chmod(0o755)
    wishes = {"confirm": "yes", "accept": "LOSS_BEYOND_BOUND,STILL_HEARD", "dead": "so it seemed", "candidate": "w1"}
    hung = {**wishes, "failover_before_stop": str(hook), "failover_follow_timeout": 4}
    fleet("partition", "e2")
    try:
        left = fleet.play("failover", "--limit", "returned_stage", "-e", json.dumps(hung))
    finally:
        fleet.execute("w2", "sh", "-c", freeze.format(signal="CONT"))
        fleet("heal", "e2")
    assert left.returncode != 0
    assert "returned_stage  incomplete" in left.stdout, left.stdout
    assert recovery(fleet, "returned_stage@w1") == recovery(fleet, "returned_stage@w2") == "t"
    assert fleet.sql("returned_stage@w1", "SHOW primary_conninfo") == ""
    ended = fleet.play("failover", "--limit", "returned_stage", "-e", json.dumps(wishes))
    assert ended.returncode == 0, f"{left.stdout}\n=== and then\n{ended.stdout}"
    assert "the primary is back" in ended.stdout
    assert recovery(fleet, "returned_stage@e2") == "f"
    for server in ("w1", "w2"):
        must_follow(fleet, f"returned_stage@{server}", "e2")
    assert fleet.sql("returned_stage@w1", "SHOW primary_conninfo").replace("'", "") == before
    assert not fleet.open_operations()
