# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry is gone: what still works, what has to be asked for, and how it learns afterwards what was done."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from .moving_fleet import MovingFleet, plan_id, servers_of, shared_fleet

HERD = "fine_prod"


@pytest.fixture
def fleet(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MovingFleet]:
    """The shared fleet, with an application that writes to the herd that moves here."""
    fleet = shared_fleet(pytestconfig, tmp_path_factory)
    fleet("writer", "start", HERD)
    yield fleet
    fleet("registry", "start", check=False)
    fleet("writer", "stop", HERD)


def test_a_failover_without_the_registry_is_on_record_afterwards(fleet: MovingFleet) -> None:
    source = fleet.primary(HERD)
    target = next(server for server in servers_of(HERD) if server != source)
    # The snapshot is written by a run that reads the registry.
    fleet.run("ansible-inventory", "--list")
    operations = len(fleet.tables()["ele_operation"])
    tables = fleet.tables()
    fleet("registry", "stop")

    shown = fleet.run("ansible-inventory", "--list")
    groups = json.loads(shown.stdout)
    assert groups["_meta"]["hostvars"][f"{HERD}@{source}"]["elephaas_inventory_source"] == "snapshot"
    assert f"{HERD}@{source}" in groups["leads"]["hosts"]
    assert "WARNING" in shown.stderr
    assert "snapshot" in shown.stderr

    status = fleet.play("status", "--limit", HERD)
    assert status.returncode == 0, status.stdout
    assert "NOTHING WAS PUT ON RECORD" in status.stdout
    assert re.search(rf"^ *{HERD} +{source} .* primary +writable ", status.stdout, re.MULTILINE)

    for arguments in (("--check",), ("-e", "confirm=yes")):
        refused = fleet.play("failover", "--limit", HERD, *arguments)
        assert refused.returncode != 0
        assert "REFUSE REGISTRY_LOST" in refused.stdout
    assert fleet.primary(HERD) == source

    fleet.fail_over(HERD, "-e", "without_registry=true")
    members = fleet.members(HERD)
    assert [members[server].writable for server in (source, target)] == [False, True]
    assert members[source].upstream == target
    assert members[source].timeline == members[target].timeline
    assert fleet.open_claims(HERD) == []

    # Once more, still without: the members' hosts remember.
    again = fleet.play("failover", "--limit", HERD, "--check", "-e", "without_registry=true")
    assert again.returncode == 0, again.stdout
    assert f"{HERD}: already done" in again.stdout

    fleet("registry", "start")
    assert fleet.tables() == tables
    rehearsed = fleet.play("status", "--limit", HERD, "--check")
    assert rehearsed.returncode == 0, rehearsed.stdout
    assert fleet.tables() == tables
    reconciled = fleet.play("status", "--limit", HERD)
    assert reconciled.returncode == 0, reconciled.stdout
    assert f"{HERD} was failed over from {source} to {target}" in reconciled.stdout
    fleet.must_be_settled(HERD, target)
    rows = fleet.tables()["ele_operation"]
    assert len(rows) == operations + 1
    newest = max(rows, key=lambda row: row["operation_id"])
    assert (newest["state"], newest["without_registry"]) == ("done", True)
    assert (newest["from_server"], newest["to_server"]) == (source, target)
    listed = json.loads(fleet.run("ansible-inventory", "--list").stdout)
    assert f"{HERD}@{target}" in listed["leads"]["hosts"]
    assert f"{HERD}@{source}" not in listed["leads"]["hosts"]

    # And the way back, on record as ever.
    rehearsed = fleet.play("failover", "--limit", HERD, "--check")
    assert fleet.play("failover", "--limit", HERD, "-e", f"confirm={plan_id(rehearsed)}").returncode == 0
    fleet.must_be_settled(HERD, source)
    report = fleet.report(HERD)
    assert (report.lost, report.status) == (0, 0)
