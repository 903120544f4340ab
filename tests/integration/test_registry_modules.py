# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry through Ansible: the playbook and the modules."""

from __future__ import annotations

from pathlib import Path

import yaml

from ansible_collections.elephaas.herd.plugins.module_utils.decide import fleet as fleets
from ansible_collections.elephaas.herd.tests.integration.registry_client import (
    FLEET,
    KEY,
    Ansible,
    dump,
    facts,
)
from ansible_collections.elephaas.herd.tests.integration.registry_server import Server


def test_the_playbook_and_the_modules(server: Server, tmp_path: Path) -> None:
    database = server.new_database()
    ansible = Ansible(server, database, tmp_path)
    (tmp_path / "fleet.yml").write_text(yaml.safe_dump(FLEET, sort_keys=False), encoding="utf-8")
    before = dump(server, database)
    rehearsed = ansible.load("--check", "--diff", "-vvv")
    assert rehearsed.returncode == 0, rehearsed.stdout
    assert "+herd trading_prod:" in rehearsed.stdout
    assert "+0001_elephaas_1" in rehearsed.stdout
    assert dump(server, database) == before
    assert "changed=2" in ansible.load().stdout
    assert "changed=0" in ansible.load().stdout
    assert "changed=0" in ansible.load("-e", "mode=overridden").stdout

    info = ansible.module("registry_info", {"history": 5})
    assert fleets.parse_fleet(info["fleet"]) == fleets.parse_fleet(FLEET)
    assert [herd["group"] for herd in info["herds"]] == ["trading_prod", "trading_stage", "Order_Book_prod"]
    part = ansible.module("registry_info", {"herds": ["Order-Book_prod"]})
    assert [herd["name"] for herd in part["fleet"]["herds"]] == ["Order-Book"]
    assert {item["server"] for item in part["instances"]} == {"nyc-db1"}

    failover = {**KEY, "verb": "failover", "plan_id": "p1", "from_server": "chi-db1", "to_server": "nyc-db1"}
    begun = ansible.module("registry_operation", {**failover, "state": "begun"})
    token = begun["operation"]["token"]
    assert begun["operation"]["holder"]["pid"] > 0
    done = ansible.module("registry_operation", {**KEY, "state": "finished", "token": token, "outcome": "done"})
    assert done["changed"]
    assert (
        ansible.module("registry_operation", {**KEY, "state": "finished", "token": token, "outcome": "done"})["changed"]
        is False
    )
    stale = ansible.module("registry_operation", {**KEY, "state": "phase", "token": 99, "phase": "x"})
    assert stale["code"] == "TOKEN_STALE"

    # The file's order of members is from before the failover: the recorded roles stay, and that is said.
    again = ansible.load()
    assert "changed=0" in again.stdout
    assert "recorded roles and upstreams are kept" in again.stdout + again.stderr
    assert ansible.load("-e", "mode=overridden").returncode == 2

    seen = [{**KEY, "server": "nyc-db1", "reachable": True, "facts": facts("primary")}]
    checked = ansible.module("registry_checkin", {"observations": seen}, "--check", "--diff")
    assert (checked["changed"], checked["mismatches"]) == (True, [])
    assert ansible.module("registry_checkin", {"observations": seen})["changed"]
    assert ansible.module("registry_checkin", {"observations": seen})["changed"] is False


def test_a_limit_and_a_broken_file_end_with_an_error(server: Server, database: str, tmp_path: Path) -> None:
    ansible = Ansible(server, database, tmp_path)
    (tmp_path / "fleet.yml").write_text(
        "herds: [{name: 'a b', environment: x, pgdata: y, members: []}]\n", encoding="utf-8"
    )
    broken = ansible.load()
    assert broken.returncode == 2
    assert "FLEET_INVALID" in broken.stdout
    limited = ansible.load("--limit", "other", inventory="other,localhost,")
    assert limited.returncode not in (0, 2)
    assert "without --limit" in limited.stdout + limited.stderr


def test_a_password_is_in_no_error(server: Server, tmp_path: Path) -> None:
    ansible = Ansible(server, "nowhere", tmp_path)
    failed = ansible.module("registry_info", {"history": 1}, "-vvv")
    assert failed["code"] == "REGISTRY_DATABASE_MISSING"
