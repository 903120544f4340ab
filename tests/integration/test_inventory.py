# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory from a real registry, and without it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.elephaas.herd.plugins.module_utils.decide import fleet as fleets
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry import schema
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import connect
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.fleet import load_fleet
from ansible_collections.elephaas.herd.tests.integration.registry_client import FLEET, HOSTILE
from ansible_collections.elephaas.herd.tests.integration.registry_server import Server

COLLECTIONS = Path(__file__).resolve().parents[2] / ".build" / "collections"
MEMBERS = ["trading_prod@chi-db1", "trading_prod@nyc-db1", "trading_prod@nyc-db2"]


@pytest.fixture(name="registry", scope="module")
def fixture_registry() -> Iterator[Server]:
    directory = Path(tempfile.mkdtemp(prefix="inventory"))
    server = Server(directory)
    try:
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory)


@pytest.fixture(name="database")
def fixture_database(registry: Server) -> str:
    """A registry that holds the fleet."""
    name = registry.new_database()
    connection = connect(registry.options(name))
    schema.apply_migrations(connection, "utility")
    load_fleet(connection, "utility", fleets.parse_fleet(FLEET), "merged")
    connection.close()
    return name


def configure(place: Path, registry: Server, database: str, **options: Any) -> None:
    """Write herds.yml (JSON is YAML)."""
    base = {"plugin": "elephaas.herd.herds", "snapshot_path": str(place / "kept" / "snapshot")}
    (place / "herds.yml").write_text(json.dumps({**base, **registry.options(database), **options}))


def inventory(place: Path, **environment: str) -> tuple[dict[str, Any], str]:
    """What ansible-inventory --list prints, and what it warns about, on one line."""
    (place / "ansible.cfg").write_text("[inventory]\nunparsed_is_failed = true\n")
    program = Path(sys.executable).with_name("ansible-inventory")
    run = subprocess.run(
        [str(program), "-i", "herds.yml", "--list"],
        cwd=place,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_HOME": str(place), **environment},
        text=True,
        capture_output=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout), " ".join(run.stderr.split())


def test_the_fleet(tmp_path: Path, registry: Server, database: str) -> None:
    configure(tmp_path, registry, database)
    found, warnings = inventory(tmp_path)
    assert warnings == ""
    assert found["trading_prod"]["hosts"] == MEMBERS
    assert found["leads"]["hosts"] == ["Order-Book_prod@nyc-db1", MEMBERS[0], "trading_stage@nyc-db1"]
    assert found["dr_pairs"]["hosts"] == MEMBERS[:1]
    assert found["servers"]["hosts"] == ["chi-db1", "nyc-db1", "nyc-db2"]
    assert set(found["dc_newyork"]["hosts"]) > {"nyc-db1", "trading_prod@nyc-db2"}
    variables = found["_meta"]["hostvars"][MEMBERS[2]]
    assert variables["ansible_host"] == "10.20.0.12"
    assert variables["ansible_user"] == "postgres"
    assert variables["elephaas_upstream"] == MEMBERS[1]
    assert variables["elephaas_pgdata"] == "/srv/other"
    assert variables["elephaas_port"] == 5555
    assert variables["elephaas_protected"] is True
    assert variables["elephaas_inventory_source"] == "registry"


def test_lead_and_former_lead_follow_the_operation(tmp_path: Path, registry: Server, database: str) -> None:
    configure(tmp_path, registry, database)
    registry.sql(
        "INSERT INTO utility.ele_operation (herd_id, env_name, herd_name, verb, state, token, operator, "
        "from_server, to_server) "
        "SELECT herd_id, 'prod', herd_name, 'failover', 'open', 7, 'ada', 'nyc-db1', 'chi-db1' FROM utility.ele_herd "
        "WHERE herd_name = 'trading' AND pgdata = '/srv/trading'",
        database,
    )
    found, _warnings = inventory(tmp_path)
    assert MEMBERS[1] in found["leads"]["hosts"]
    assert MEMBERS[0] not in found["leads"]["hosts"]
    assert "former_leads" not in found
    operation = found["_meta"]["hostvars"][MEMBERS[2]]["elephaas_operation"]
    assert (operation["token"], operation["from"], operation["to"]) == (7, MEMBERS[1], MEMBERS[0])
    registry.sql("UPDATE utility.ele_operation SET state = 'done', finished_dt = now()", database)
    found, _warnings = inventory(tmp_path)
    assert MEMBERS[0] in found["leads"]["hosts"]
    assert found["former_leads"]["hosts"] == [MEMBERS[1]]
    assert found["_meta"]["hostvars"][MEMBERS[2]]["elephaas_operation"] is None


def test_rows_typed_by_hand_stay_data(tmp_path: Path, registry: Server, database: str) -> None:
    configure(tmp_path, registry, database)
    connection = connect(registry.options(database))
    with connection.cursor() as cursor:
        cursor.execute("UPDATE utility.ele_herd SET hold_reason = %s WHERE herd_name = 'trading'", [HOSTILE])
    connection.close()
    found, _warnings = inventory(tmp_path)
    assert found["_meta"]["hostvars"][MEMBERS[0]]["elephaas_hold_reason"] == {"__ansible_unsafe": HOSTILE}


def test_a_registry_without_tables_is_an_empty_inventory(tmp_path: Path, registry: Server) -> None:
    configure(tmp_path, registry, registry.new_database())
    found, warnings = inventory(tmp_path)
    assert found["_meta"]["hostvars"] == {}
    assert "REGISTRY_SCHEMA_MISSING" in warnings
    assert "elephaas.herd.registry_load" in warnings
    assert not (tmp_path / "kept").exists()


def test_a_registry_that_lost_its_rows_does_not_take_the_snapshot_along(
    tmp_path: Path, registry: Server, database: str
) -> None:
    configure(tmp_path, registry, database)
    inventory(tmp_path)
    before = (tmp_path / "kept" / "snapshot").read_text()
    empty = registry.new_database()
    connection = connect(registry.options(empty))
    schema.apply_migrations(connection, "utility")
    connection.close()
    configure(tmp_path, registry, empty)
    found, _warnings = inventory(tmp_path)
    assert found["_meta"]["hostvars"] == {}
    assert (tmp_path / "kept" / "snapshot").read_text() == before


def test_the_registry_is_lost(tmp_path: Path, registry: Server, database: str) -> None:
    configure(tmp_path, registry, database)
    before, _warnings = inventory(tmp_path)
    # The same options, but nobody there: what a stopped server is to its clients.
    registry.stop()
    try:
        after, warnings = inventory(tmp_path)
    finally:
        registry.run("rm", "-rf", str(registry.directory / "data"))
        registry.start()
    assert "THE REGISTRY CANNOT BE READ" in warnings
    assert "without_registry=true" in warnings
    for variables in before["_meta"]["hostvars"].values():
        assert variables.pop("elephaas_inventory_source") == "registry"
    for variables in after["_meta"]["hostvars"].values():
        assert variables.pop("elephaas_inventory_source") == "snapshot"
    assert after == before


def test_a_snapshot_that_cannot_be_kept_is_only_a_warning(tmp_path: Path, registry: Server, database: str) -> None:
    (tmp_path / "kept").write_text("not a folder")
    configure(tmp_path, registry, database)
    found, warnings = inventory(tmp_path)
    assert found["leads"]["hosts"]
    assert "there will be no inventory" in warnings


def test_default_place_of_the_snapshot(tmp_path: Path, registry: Server, database: str) -> None:
    configure(tmp_path, registry, database, snapshot_path=None)
    inventory(tmp_path)
    (kept,) = (tmp_path / "elephaas").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600


def test_dsn_from_the_environment_or_a_template(tmp_path: Path, registry: Server, database: str) -> None:
    dsn = f"host={registry.directory} port=5432 user=postgres dbname={database}"
    base = {"plugin": "elephaas.herd.herds", "snapshot": False}
    (tmp_path / "herds.yml").write_text(json.dumps(base))
    found, _warnings = inventory(tmp_path, ELEPHAAS_REGISTRY_DSN=dsn)
    assert found["trading_prod"]["hosts"] == MEMBERS
    template = "{{ lookup('ansible.builtin.env', 'MY_DSN') }}"
    (tmp_path / "herds.yml").write_text(json.dumps({**base, "dsn": template}))
    found, _warnings = inventory(tmp_path, MY_DSN=dsn)
    assert found["trading_prod"]["hosts"] == MEMBERS


def test_the_cache_knows_the_options(tmp_path: Path, registry: Server, database: str) -> None:
    cache = {"cache": True, "cache_plugin": "ansible.builtin.jsonfile", "cache_connection": str(tmp_path / "cache")}
    configure(tmp_path, registry, database, **cache)
    inventory(tmp_path)
    registry.sql("UPDATE utility.ele_herd SET vhost = 'changed.example.com'", database)
    found, _warnings = inventory(tmp_path)
    assert found["_meta"]["hostvars"][MEMBERS[0]]["elephaas_vhost"] == "trading-db.example.com"
    shutil.rmtree(tmp_path / "cache")
    found, _warnings = inventory(tmp_path)
    assert found["_meta"]["hostvars"][MEMBERS[0]]["elephaas_vhost"] == "changed.example.com"
    # What is kept is the whole fleet: a filter is asked anew.
    configure(tmp_path, registry, database, **cache, herds=["nothing"])
    assert MEMBERS[0] not in inventory(tmp_path)[0]["_meta"]["hostvars"]
    configure(tmp_path, registry, database, **cache, roles=["replica"])
    assert set(inventory(tmp_path)[0]["trading_prod"]["hosts"]) < set(MEMBERS)
    # The same file, another registry.
    configure(tmp_path, registry, registry.new_database(), **cache)
    assert inventory(tmp_path)[0]["_meta"]["hostvars"] == {}
