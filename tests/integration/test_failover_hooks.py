# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hooks of a failover: what runs when, what it is told, and what becomes of the herd when one fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .moving_fleet import MovingFleet, servers_of, shared_fleet

HERD = "fine_prod"


@pytest.fixture(scope="module")
def fleet(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MovingFleet]:
    fleet = shared_fleet(pytestconfig, tmp_path_factory)
    fleet("writer", "start", HERD)
    yield fleet
    fleet("writer", "stop", HERD)


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    """A folder that the controller's account can write to, wherever it runs."""
    folder = tmp_path / "diary"
    folder.mkdir()
    for path in (folder, tmp_path):
        path.chmod(0o777)
    return folder


def _hook(diary: Path, name: str, *more: dict[str, Any]) -> str:
    """A file of tasks that notes what it was told, and where DNS leads and who takes writes by then."""
    note = {
        "name": "Note what is told",
        "ansible.builtin.copy": {
            "dest": f"{diary}/{name}.json",
            "content": "{{ {'event': failover_event, 'dns': dig.stdout} | to_json }}",
        },
        "delegate_to": "localhost",
    }
    look = {
        "name": "Look at DNS",
        "ansible.builtin.command": "dig +short @192.0.2.2 {{ failover_event.vhost }}",
        "delegate_to": "localhost",
        "register": "dig",
        "changed_when": False,
    }
    file = diary / f"{name}.yml"
    file.write_text(yaml.safe_dump([look, note, *more]))
    return str(file)


def _told(diary: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((diary / f"{name}.json").read_text()))


FAIL = {"name": "Say no", "ansible.builtin.fail": {"msg": "the pooler does not answer"}}


def _arguments(hooks: dict[str, str]) -> tuple[str, str]:
    return "-e", json.dumps({f"failover_{point}": hook for point, hook in hooks.items()})


def test_each_runs_at_its_point_and_is_told_what_happens(fleet: MovingFleet, diary: Path) -> None:
    source = fleet.primary(HERD)
    target = next(server for server in servers_of(HERD) if server != source)
    (old,) = fleet.dig("fine.prod.example.com")
    points = ("before_stop", "after_promote", "after_dns", "on_failure")
    fleet.fail_over(HERD, *_arguments({point: _hook(diary, point) for point in points}))
    fleet.must_be_settled(HERD, target)
    (new,) = fleet.dig("fine.prod.example.com")
    assert {point: _told(diary, point)["dns"] for point in points[:3]} == {
        "before_stop": old,
        "after_promote": old,
        "after_dns": new,
    }
    event = _told(diary, "after_dns")["event"]
    assert (event["source"], event["target"]) == (f"{HERD}@{source}", f"{HERD}@{target}")
    assert (event["point"], event["herd"], event["environment"]) == ("after_dns", "fine", "prod")
    assert not (diary / "on_failure.json").exists()


def test_one_that_fails_before_the_stop_leaves_everything_as_it_was(fleet: MovingFleet, diary: Path) -> None:
    source, before = fleet.primary(HERD), fleet.report(HERD)
    hooks = _arguments({"before_stop": _hook(diary, "before_stop", FAIL), "on_failure": _hook(diary, "on_failure")})
    rehearsed = fleet.play("failover", "--limit", HERD, "--check", *hooks)
    assert rehearsed.returncode == 0, rehearsed.stdout
    assert not list(diary.glob("*.json"))
    confirm = next(line for line in rehearsed.stdout.splitlines() if line.startswith("plan id: ")).split()[-1]
    done = fleet.play("failover", "--limit", HERD, "-e", f"confirm={confirm}", *hooks)
    assert done.returncode != 0
    assert f"{HERD}  aborted" in done.stdout, done.stdout
    assert "the pooler does not answer" in done.stdout
    told = _told(diary, "on_failure")["event"]
    assert told["outcome"] == "aborted"
    fleet.must_be_settled(HERD, source)
    # No outage that is longer than those of the failovers before.
    assert fleet.report(HERD).longest_gap_s <= max(before.longest_gap_s, 5)


def test_one_that_fails_after_the_promotion_does_not_keep_applications_waiting(fleet: MovingFleet, diary: Path) -> None:
    """DNS and the other members go on; the operation stays open until the same command finds the hook content."""
    source = fleet.primary(HERD)
    target = next(server for server in servers_of(HERD) if server != source)
    broken = _arguments({"after_promote": _hook(diary, "after_promote", FAIL)})
    rehearsed = fleet.play("failover", "--limit", HERD, "--check", *broken)
    confirm = next(line for line in rehearsed.stdout.splitlines() if line.startswith("plan id: ")).split()[-1]
    left = fleet.play("failover", "--limit", HERD, "-e", f"confirm={confirm}", *broken)
    assert left.returncode != 0
    assert f"{HERD}  incomplete" in left.stdout, left.stdout
    assert "the hook after_promote failed: the pooler does not answer" in left.stdout
    members = fleet.members(HERD)
    assert (members[source].writable, members[target].writable, members[source].upstream) == (False, True, target)
    assert fleet.open_operations()
    again = fleet.play("failover", "--limit", HERD, "-e", f"confirm={confirm}")
    assert again.returncode == 0, again.stdout
    fleet.must_be_settled(HERD, target)


def test_one_that_is_not_there_stops_the_run_before_anything(fleet: MovingFleet) -> None:
    before = fleet.stillness(HERD)
    for hook in ("hooks/relative.yml", "/nowhere/hook.yml", "no_such_role", "no.such.role"):
        for arguments in (("--check",), ("-e", "confirm=p00000000")):
            done = fleet.play("failover", "--limit", HERD, *_arguments({"after_dns": hook}), *arguments)
            assert done.returncode != 0
            assert "HOOK_NOT_FOUND" in done.stdout, done.stdout
    assert fleet.stillness(HERD) == before
