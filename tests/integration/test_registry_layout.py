# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry's layout on a real PostgreSQL server: migrations, 1.x, and who may do what."""

from __future__ import annotations

import copy
import threading
from typing import Any

import psycopg2
import pytest

from ansible_collections.elephaas.herd.plugins.module_utils.decide import fleet as fleets
from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry import checkin, schema
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import connect
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.fleet import load_fleet
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.inventory import read_inventory
from ansible_collections.elephaas.herd.tests.integration.registry_client import (
    FLEET,
    begin,
    finish,
    make_1x,
    query,
    refused,
)
from ansible_collections.elephaas.herd.tests.integration.registry_server import Server


def test_an_empty_database_gets_every_migration_once(empty: Any) -> None:
    titles = [item.title for item in schema.load_migrations()]
    before = schema.apply_migrations(empty, "utility", check_mode=True)
    assert (before["layout"], before["pending"], before["changed"]) == ("none", titles, True)
    assert schema.schema_state(empty, "utility")["layout"] == "none"  # check mode changed nothing
    assert schema.apply_migrations(empty, "utility")["now_applied"] == titles
    again = schema.apply_migrations(empty, "utility")
    assert (again["changed"], again["applied"], again["pending"]) == (False, titles, [])


def test_the_schema_may_have_any_name(empty: Any) -> None:
    name = 'We"ird; name'
    schema.apply_migrations(empty, name)
    wanted = fleets.parse_fleet(FLEET)
    assert load_fleet(empty, name, wanted, "merged")["after"] == wanted
    assert len(read_inventory(empty, name)["instances"]) == 5


def test_a_1x_database_is_recognised_and_keeps_its_rows(empty: Any) -> None:
    make_1x(empty)
    before = schema.schema_state(empty, "utility")
    assert (before["layout"], before["applied"]) == ("1.x", ["0001_elephaas_1"])
    assert schema.apply_migrations(empty, "utility")["now_applied"] == before["pending"]
    document = read_inventory(empty, "utility")
    found = {(i["herd"], i["server"]): i for i in document["instances"]}
    assert found["Main", "db1"]["role"] == "primary"
    assert (found["Main", "db2"]["role"], found["Main", "db2"]["upstream_server"]) == ("replica", "db1")
    assert (found["Main", "db2"]["pgdata"], found["Main", "db2"]["base_name"]) == ("/srv/own", "main")
    # Nobody knows which of the two was the primary, so none is made up.
    assert {found["twin", "db1"]["role"], found["twin", "db2"]["role"]} == {"detached"}
    assert {s["server"]: s["environment"] for s in document["servers"]}["stray"] == "unassigned"
    assert query(empty, "SELECT lsn::text FROM ele_instance WHERE instance_id = 1") == [("1/60",)]
    assert query(empty, "SELECT xlog_pos, master_host FROM v_flat_instance WHERE instance_id = 2") == [
        (4294967296, "db1")
    ]
    assert query(empty, "SELECT count(*) FROM ele_migration") == [(len(schema.load_migrations()),)]


def test_rows_that_do_not_fit_are_all_named_and_nothing_half_done_stays(empty: Any) -> None:
    make_1x(empty)
    query(empty, "INSERT INTO ele_server (hostname) VALUES ('bad name'), ('db1')")
    error = refused("REGISTRY_MIGRATION_FAILED", lambda: schema.apply_migrations(empty, "utility"))
    assert "'bad name'" in error.reason
    assert "'db1'" in error.reason
    state = schema.schema_state(empty, "utility")
    assert (state["layout"], state["applied"]) == ("ours", ["0001_elephaas_1"])
    query(empty, "DELETE FROM ele_server WHERE server_id > 3")
    schema.apply_migrations(empty, "utility")
    assert schema.schema_state(empty, "utility")["pending"] == []


def test_rows_behind_the_new_doors_are_all_named_and_empty_means_nothing(empty: Any) -> None:
    make_1x(empty)
    query(empty, "UPDATE ele_herd SET vhost = CASE herd_name WHEN 'Main' THEN '' WHEN 'lost' THEN 'a b' ELSE '-x' END")
    query(empty, "INSERT INTO ele_server (hostname) VALUES ('127.0.0.1')")
    error = refused("REGISTRY_MIGRATION_FAILED", lambda: schema.apply_migrations(empty, "utility"))
    for named in ("'lost': vhost 'a b'", "'twin': vhost '-x'", "name '127.0.0.1'"):
        assert named in error.reason
    assert error.evidence["migration"] == "0007_doors_and_renaming"
    query(empty, "UPDATE ele_herd SET vhost = 'x.example.com' WHERE herd_name <> 'Main'")
    query(empty, "DELETE FROM ele_server WHERE hostname = '127.0.0.1'")
    schema.apply_migrations(empty, "utility")
    assert query(empty, "SELECT vhost FROM ele_herd WHERE herd_name = 'Main'") == [(None,)]


def test_tables_that_are_no_registry_are_left_alone(empty: Any) -> None:
    query(empty, "CREATE SCHEMA utility; CREATE TABLE utility.ele_herd (herd_id int)")
    error = refused("REGISTRY_SCHEMA_UNKNOWN", lambda: schema.apply_migrations(empty, "utility"))
    assert "ele_herd.herd_name" in error.reason


def test_a_registry_from_the_future_or_with_other_migrations_is_refused(registry: Any) -> None:
    query(registry, "INSERT INTO ele_migration (number, name, checksum) VALUES (9999, 'beyond', 'x')")
    assert (
        "9999_beyond" in refused("REGISTRY_SCHEMA_NEWER", lambda: schema.apply_migrations(registry, "utility")).reason
    )
    query(registry, "DELETE FROM ele_migration WHERE number = 9999")
    query(registry, "UPDATE ele_migration SET checksum = 'x' WHERE number = 2")
    assert "0002_" in refused("REGISTRY_MIGRATION_CHANGED", lambda: schema.require_current(registry, "utility")).reason


def test_two_runs_at_once_apply_each_migration_once(server: Server) -> None:
    database = server.new_database()
    results: list[dict[str, Any]] = []
    errors: list[Exception] = []

    def work() -> None:
        connection = connect(server.options(database))
        try:
            results.append(schema.apply_migrations(connection, "utility"))
        except (OperatorError, psycopg2.Error) as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sorted(len(result["now_applied"]) for result in results) == [0, 0, 0, len(schema.load_migrations())]


def test_a_database_that_is_missing_is_said_so(server: Server) -> None:
    refused("REGISTRY_DATABASE_MISSING", lambda: connect(server.options("nowhere")))


def test_a_registry_without_tables_is_said_so(empty: Any) -> None:
    refused("REGISTRY_SCHEMA_MISSING", lambda: read_inventory(empty, "utility"))
    refused("REGISTRY_SCHEMA_MISSING", lambda: schema.require_current(empty, "utility"))


def test_group_roles_may_do_what_they_are_for_and_no_more(server: Server, database: str) -> None:
    for kind in ("reader", "reporter", "operator"):
        server.sql(f"DROP ROLE IF EXISTS test_{kind}; CREATE ROLE test_{kind} LOGIN IN ROLE elephaas_{kind}")
    wanted = fleets.parse_fleet(FLEET)
    changed = copy.deepcopy(FLEET)
    changed["servers"]["nyc-db2"]["ssh_port"] = 2222
    seen = [
        {
            "herd": "trading",
            "environment": "prod",
            "server": "chi-db1",
            "reachable": False,
            "facts": None,
            "error": "no",
        }
    ]
    for kind in ("reader", "reporter", "operator"):
        connection = connect(server.options(database, f"test_{kind}"))
        assert read_inventory(connection, "utility")["format"] == 1
        assert load_fleet(connection, "utility", wanted, "merged", check_mode=True)["changed"] is False
        if kind == "reader":
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                begin(connection)
        else:
            assert checkin.check_in(connection, "utility", seen, "me")["mismatches"] == []
            token = begin(connection)["operation"]["token"]
            finish(connection, token, "done", roles={"nyc-db2": {"role": "replica", "upstream_server": "nyc-db1"}})
            finish_back = begin(connection, from_server="nyc-db1", to_server="chi-db1")["operation"]["token"]
            finish(
                connection, finish_back, "done", roles={"nyc-db2": {"role": "replica", "upstream_server": "nyc-db1"}}
            )
        if kind == "operator":
            assert load_fleet(connection, "utility", fleets.parse_fleet(changed), "merged")["changed"]
        else:
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                load_fleet(connection, "utility", fleets.parse_fleet(changed), "merged")
        connection.close()


def test_the_reporter_of_1x_still_reports(registry: Any) -> None:
    call = (
        "SELECT sp_instance_checkin(sherd := %s, shost := %s, nport := %s, sver := %s, bonline := %s, sdatadir := %s,"
        " smasterhost := %s, nxlog := %s)"
    )
    query(registry, call, "trading", "chi-db1", 5432, "15.4", True, "/srv/trading", None, 96)
    query(registry, call, "trading", "chi-db1", 5432, "15.3", True, "/srv/trading", None, 97)
    # Found by its upstream, and added; its server gets the environment that nobody has chosen yet.
    query(registry, call, "trading", "brand-new", 5440, "15.4", True, "/srv/new", "chi-db1", 90)
    document = read_inventory(registry, "utility")
    found = {i["server"]: i for i in document["instances"] if (i["herd"], i["environment"]) == ("trading", "prod")}
    assert (found["chi-db1"]["version"], found["chi-db1"]["is_online"], found["chi-db1"]["role"]) == (
        "15.4",
        True,
        "primary",
    )
    new = found["brand-new"]
    assert (new["role"], new["upstream_server"], new["port"], new["pgdata"]) == ("replica", "chi-db1", 5440, "/srv/new")
    assert {s["server"]: s["environment"] for s in document["servers"]}["brand-new"] == "unassigned"
