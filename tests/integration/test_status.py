# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The status playbook on a real fleet: what it shows, what it puts on record, and that dead hosts do not hold it up."""

from __future__ import annotations

import json
import re
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .moving_fleet import MovingFleet, herd_of, servers_of, shared_fleet

HERDS = ("main_prod", "small_stage", "fine_prod")
LIMIT = ",".join(HERDS)
INSTANCES = sorted(f"{herd}@{server}" for herd in HERDS for server in servers_of(herd))


@pytest.fixture(scope="module")
def fleet(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> MovingFleet:
    return shared_fleet(pytestconfig, tmp_path_factory)


def replica_of(fleet: MovingFleet, herd: str, candidates: Iterable[str]) -> str:
    """The first of the candidates that is not the herd's primary now."""
    primary = fleet.primary(herd)
    return next(server for server in candidates if server != primary)


@pytest.fixture
def lame(fleet: MovingFleet) -> Iterator[MovingFleet]:
    """One replica of a herd is stopped, a server of another one has lost power."""
    replica = replica_of(fleet, "main_prod", ("e2", "w2"))
    off = replica_of(fleet, "small_stage", servers_of("small_stage"))
    fleet.pg_ctl(f"main_prod@{replica}", "stop", "-m", "fast")
    fleet("poweroff", off)
    try:
        yield fleet
    finally:
        fleet("poweron", off)
        fleet.pg_ctl(f"main_prod@{replica}", "start")


def rows_of(output: str) -> list[list[str]]:
    """The table's rows, a list of cells each."""
    lines = output.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("HERD "))
    rows = []
    for line in lines[start + 1 :]:
        if not line.strip():
            break
        rows.append(re.split(r" {2,}", line.strip().removeprefix("! ").removeprefix("~ ")))
    return rows


def observed(fleet: MovingFleet) -> dict[str, Any]:
    """What the registry says about each instance of these herds, without the moment of the last look."""
    variables = json.loads(fleet.run("ansible-inventory", "--list").stdout)["_meta"]["hostvars"]
    keys = (
        "elephaas_role",
        "elephaas_is_online",
        "elephaas_version",
        "elephaas_timeline",
        "elephaas_system_identifier",
    )
    return {name: {key: variables[name][key] for key in keys} for name in INSTANCES}


def test_every_instance_is_shown_with_what_it_is(fleet: MovingFleet) -> None:
    before = fleet.tables()
    rehearsed = fleet.play("status", "--limit", LIMIT, "--check")
    assert rehearsed.returncode == 0, rehearsed.stdout
    assert fleet.tables() == before
    done = fleet.play("status", "--limit", LIMIT)
    assert done.returncode == 0, done.stdout
    rows = rows_of(done.stdout)
    assert sorted(f"{row[0]}@{row[1]}" for row in rows) == INSTANCES
    assert [row[:6] for row in rows_of(rehearsed.stdout)] == [row[:6] for row in rows]
    for herd in HERDS:
        members = fleet.members(herd)
        for row in [row for row in rows if row[0] == herd]:
            member = members[row[1]]
            assert row[3] == ("primary" if member.writable else "replica")
            assert row[4] == ("writable" if member.writable else "streaming")
            assert row[5] == str(member.timeline)
            assert row[7] == (member.upstream or "-")
            assert row[9] == str(herd_of(herd)["port"])
    assert "3 herds, 8 instances: 3 ok, 0 with warnings, 0 with problems" in done.stdout
    # What it saw is on record now.
    for name, seen in observed(fleet).items():
        assert seen["elephaas_is_online"] is True
        assert seen["elephaas_version"] == fleet.sql(name, "SHOW server_version").split()[0]
        assert seen["elephaas_system_identifier"] == fleet.sql(
            name, "SELECT system_identifier FROM pg_control_system()"
        )
    # A second look sees nothing new: only the lag of a server that is written to could differ, and none is.
    again = fleet.play("status", "--limit", LIMIT)
    assert set(re.findall(r"changed=(\d+)", again.stdout)) == {"0"}, again.stdout


def test_as_json_for_a_part_of_the_fleet(fleet: MovingFleet, tmp_path: Path) -> None:
    file = tmp_path / "status.json"
    done = fleet.play("status", "--limit", "main_prod:&dc_west", "-e", "format=json", "-e", f"output_file={file}")
    assert done.returncode == 0, done.stdout
    shown = re.search(r"^\{$.*?^\}$", done.stdout, re.MULTILINE | re.DOTALL)
    assert shown, done.stdout
    document = json.loads(shown[0])
    assert document == json.loads(file.read_text(encoding="utf-8"))
    assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0
    (herd,) = document["herds"]
    assert herd["herd"] == "main_prod"
    assert [member["instance"] for member in herd["members"]] == ["main_prod@w1", "main_prod@w2"]
    # Seen in part only, it is no herd without a primary.
    assert herd["problems"] == []


def test_what_is_wrong_comes_first_and_does_not_hold_it_up(lame: MovingFleet) -> None:
    fleet = lame
    began = time.monotonic()
    done = fleet.play("status", "--limit", LIMIT)
    took = time.monotonic() - began
    # One timeout of 5 s for all dead hosts; the rest is a busy machine.
    assert took < 60
    order = [row[0] for row in rows_of(done.stdout)]
    assert order == sorted(order[:6]) + ["fine_prod"] * 2
    assert set(order[:6]) == {"main_prod", "small_stage"}
    problems = done.stdout.partition("problems:\n")[2].partition("\n\n")[0]
    assert "NOT_RUNNING main_prod@" in problems
    assert "UNREACHABLE small_stage@" in problems
    assert "fine_prod" not in problems
    assert "3 herds, 8 instances: 1 ok, 0 with warnings, 2 with problems" in done.stdout
    online = {name: seen["elephaas_is_online"] for name, seen in observed(fleet).items()}
    assert sorted(name.partition("@")[0] for name, seen in online.items() if seen is not True) == [
        "main_prod",
        "small_stage",
    ]


def test_what_is_offline_is_found_and_the_rest_is_left_alone(lame: MovingFleet) -> None:
    fleet = lame
    done = fleet.play("status", "--limit", LIMIT, "-e", "offline=true", "-e", "sort=-datacenter", "-e", "format=wide")
    assert done.returncode == 0, done.stdout
    stopped, silent = "main_prod", "small_stage"
    assert {row[0] for row in rows_of(done.stdout)} == {stopped, silent}
    assert len(rows_of(done.stdout)) == 2
    assert "shown: 2 of 8 instances (offline=true leaves 2)" in done.stdout
    # The record alone rules out the herd with the dead host: nobody waits for it, nothing of it is recorded anew.
    before = {row["instance_id"]: row for row in fleet.tables()["ele_instance"]}
    done = fleet.play("status", "--limit", LIMIT, "-e", "environments=prod", "-e", "role=primary")
    assert done.returncode == 0, done.stdout
    assert sorted(row[0] for row in rows_of(done.stdout)) == ["fine_prod", "main_prod"]
    assert "NOT_RUNNING main_prod@" in done.stdout
    assert "UNREACHABLE" not in done.stdout
    after = {row["instance_id"]: row for row in fleet.tables()["ele_instance"]}
    # 2 + 4 members of the two herds, without the one that is stopped; the replicas that are not shown are recorded too.
    moved = [key for key in after if after[key]["last_seen"] != before[key]["last_seen"]]
    assert len(moved) == 5


def test_a_filter_that_leaves_nothing_is_an_answer_and_a_senseless_one_an_error(fleet: MovingFleet) -> None:
    done = fleet.play("status", "--limit", LIMIT, "-e", "herds=fine", "-e", "version_below=13", "--check")
    assert done.returncode == 0, done.stdout
    assert "No instance matches: of 8, herds=fine leaves 2, version_below=13 leaves none" in done.stdout
    before = fleet.tables()
    for argument, message in (
        ("environments=prdo", "There are: prod, stage."),
        ("version_below=abc", "a version number such as 15"),
        ("sort=lagg", "must be one of: problem"),
    ):
        done = fleet.play("status", "-e", argument)
        assert done.returncode != 0, done.stdout
        assert message in " ".join(done.stdout.split())
    assert fleet.tables() == before


def test_a_limit_that_selects_nothing_is_an_error(fleet: MovingFleet) -> None:
    before = fleet.tables()
    for limit, message in (
        ("mian_prod", "mian_prod"),
        ("e1", "selects no host of group instances"),
        ("main_prod:!dc_east:!dc_west", "no hosts to target"),
    ):
        done = fleet.play("status", "--limit", limit)
        assert done.returncode != 0, done.stdout
        assert message in done.stdout
    assert fleet.tables() == before
