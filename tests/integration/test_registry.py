# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry on a real PostgreSQL server, which these tests start and stop."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import yaml

from ansible_collections.elephaas.herd.plugins.module_utils.decide import fleet as fleets
from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.names import FIXED_GROUPS, group_name
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry import checkin, operations, schema
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import connect, transaction
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.fleet import load_fleet, read_fleet
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.holder import this_holder
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.inventory import read_inventory
from ansible_collections.elephaas.herd.tests.integration.registry_server import Server, running_server, server_program

HOSTILE = "{{ lookup('pipe', 'id') }}\n'; DROP TABLE ele_herd; --\"%s%(x)s\\"

FLEET: dict[str, Any] = {
    "environments": {"prod": {"protected": True}, "stage": {}},
    "datacenters": {"chicago": {"networks": ["10.10.0.0/16"]}, "newyork": {"networks": ["10.20.0.0/16"]}},
    "servers": {
        "chi-db1": {"environment": "prod", "address": "10.10.0.11"},
        "nyc-db1": {"environment": "prod", "address": "10.20.0.11"},
        "nyc-db2": {"environment": "prod", "address": "10.20.0.12", "dns_name": "nyc-db2.example.com"},
    },
    "herds": [
        {
            "name": "trading",
            "environment": "prod",
            "pgdata": "/srv/trading",
            "vhost": "trading-db.example.com",
            "description": HOSTILE,
            "members": [
                {"server": "chi-db1"},
                {"server": "nyc-db1"},
                {"server": "nyc-db2", "upstream": "nyc-db1", "port": 5555, "pgdata": "/srv/other"},
            ],
        },
        {
            "name": "trading",
            "environment": "stage",
            "port": 6000,
            "pgdata": "/srv/stage",
            "members": [{"server": "nyc-db1"}],
        },
        {
            "name": "Order-Book",
            "environment": "prod",
            "port": 5433,
            "pgdata": "/srv/book",
            "members": [{"server": "nyc-db1"}],
        },
    ],
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as found:
        yield found


@pytest.fixture(scope="module")
def template(server: Server) -> str:
    """A database with a registry that holds FLEET."""
    name = server.new_database()
    connection = connect(server.options(name))
    schema.apply_migrations(connection, "utility")
    load_fleet(connection, "utility", fleets.parse_fleet(FLEET), "merged")
    connection.close()
    return name


@pytest.fixture()
def database(server: Server, template: str) -> str:
    return server.new_database(template)


@pytest.fixture()
def registry(server: Server, database: str) -> Iterator[Any]:
    connection = connect(server.options(database))
    yield connection
    connection.close()


@pytest.fixture()
def empty(server: Server) -> Iterator[Any]:
    connection = connect(server.options(server.new_database()))
    yield connection
    connection.close()


def query(connection: Any, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute("SET search_path TO utility")
        cursor.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


def dump(server: Server, database: str) -> str:
    """Everything in a database, sequences included: what check mode must leave alone."""
    program = server_program("pg_dump")
    # Newer pg_dump puts a random word around its output.
    done = subprocess.run(
        [program, "-h", str(server.directory), "-U", "postgres", database],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return "\n".join(line for line in done.stdout.splitlines() if "restrict" not in line)


def refused(code: str, work: Callable[[], Any]) -> OperatorError:
    with pytest.raises(OperatorError) as caught:
        work()
    assert caught.value.code == code, caught.value.as_result()
    return caught.value


# -- layout ----------------------------------------------------------------------------------------------------------


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


def _make_1x(connection: Any) -> None:
    """A 1.x database by its own first migration, without our ledger; with rows and a bystander of Django's."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA utility; SET search_path TO utility")
        cursor.execute(schema.load_migrations()[0].text)
        cursor.execute(
            "CREATE TABLE auth_user (id int, password text);"
            "INSERT INTO ele_environment (env_name) VALUES ('prod');"
            "INSERT INTO ele_server (environment_id, hostname) VALUES (1, 'db1'), (1, 'db2'), (NULL, 'stray');"
            "INSERT INTO ele_herd (environment_id, base_name, herd_name, pgdata, vhost)"
            " VALUES (1, 'main', 'Main', '/srv/main', 'main-db'), (NULL, 'lost', 'lost', '/srv/lost', NULL),"
            " (1, 'twin', 'twin', '/srv/twin', NULL);"
            "UPDATE ele_herd SET db_port = 5433 WHERE herd_name = 'twin';"
            "INSERT INTO ele_instance (herd_id, server_id, version, xlog_pos, is_online, master_id, local_pgdata)"
            " VALUES (1, 1, '9.4.5', 4294967296 + 96, true, NULL, NULL),"
            " (1, 2, '9.4.5', 4294967296, true, 1, '/srv/own'),"
            " (3, 1, NULL, NULL, false, NULL, NULL), (3, 2, NULL, NULL, false, NULL, NULL)"
        )


def test_a_1x_database_is_recognised_and_keeps_its_rows(empty: Any) -> None:
    _make_1x(empty)
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
    _make_1x(empty)
    query(empty, "INSERT INTO ele_server (hostname) VALUES ('bad name'), ('db1')")
    error = refused("REGISTRY_MIGRATION_FAILED", lambda: schema.apply_migrations(empty, "utility"))
    assert "'bad name'" in error.reason
    assert "'db1'" in error.reason
    state = schema.schema_state(empty, "utility")
    assert (state["layout"], state["applied"]) == ("ours", ["0001_elephaas_1"])
    query(empty, "DELETE FROM ele_server WHERE server_id > 3")
    schema.apply_migrations(empty, "utility")
    assert schema.schema_state(empty, "utility")["pending"] == []


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


# -- rules, held against rows typed by hand --------------------------------------------------------------------------

INSTANCE = (
    "INSERT INTO ele_instance (herd_id, server_id, role, upstream_id, local_port, local_pgdata)"
    " SELECT h.herd_id, s.server_id, '{role}', {upstream}, {port}, {pgdata}"
    " FROM ele_herd h JOIN ele_environment e USING (environment_id), ele_server s"
    " WHERE h.herd_name = '{herd}' AND e.env_name = '{env}' AND s.hostname = '{server}'"
)


def instance(**changes: Any) -> str:
    values = {
        "role": "replica",
        "upstream": "NULL",
        "port": 7000,
        "pgdata": "'/srv/new'",
        "herd": "Order-Book",
        "env": "prod",
        "server": "chi-db1",
    }
    return INSTANCE.format(**{**values, **changes})


def of(server: str, herd: str = "trading", env: str = "prod") -> str:
    return (
        "(SELECT instance_id FROM v_flat_instance"
        f" WHERE hostname = '{server}' AND herd_name = '{herd}' AND env_name = '{env}')"
    )


def set_upstream(server: str, upstream: str) -> str:
    return f"UPDATE ele_instance SET upstream_id = {upstream} WHERE instance_id = {of(server)}"


@pytest.mark.parametrize(
    ("rule", "statement"),
    [
        ("ele_environment_name_unique", "INSERT INTO ele_environment (env_name) VALUES ('prod')"),
        ("ele_environment_name_valid", "INSERT INTO ele_environment (env_name) VALUES ('a b')"),
        ("ele_environment_name_valid", "INSERT INTO ele_environment (env_name) VALUES (E'a\\n')"),
        ("ele_datacenter_name_unique", "INSERT INTO ele_datacenter (dc_name) VALUES ('chicago')"),
        ("ele_datacenter_name_valid", "INSERT INTO ele_datacenter (dc_name) VALUES ('-x')"),
        ("ele_server_name_unique", "INSERT INTO ele_server (hostname) VALUES ('chi-db1')"),
        ("ele_server_name_valid", "INSERT INTO ele_server (hostname) VALUES ('-oProxy')"),
        ("ele_server_ssh_port_valid", "UPDATE ele_server SET ssh_port = 0"),
        ("ele_herd_name_unique", "UPDATE ele_herd SET herd_name = 'trading' WHERE herd_name = 'Order-Book'"),
        ("ele_herd_name_valid", "UPDATE ele_herd SET herd_name = '{{ x }}' WHERE herd_name = 'Order-Book'"),
        ("ele_herd_port_valid", "UPDATE ele_herd SET db_port = 65536"),
        ("ele_herd_pgdata_absolute", "UPDATE ele_herd SET pgdata = 'relative'"),
        ("ele_herd_control_known", "UPDATE ele_herd SET control = 'magic'"),
        ("ele_server_environment", "DELETE FROM ele_environment WHERE env_name = 'prod'"),
        ("ele_instance_server", "DELETE FROM ele_server WHERE hostname = 'chi-db1'"),
        ("ele_instance_port_valid", instance(port=65536)),
        ("ele_instance_pgdata_absolute", instance(pgdata="'relative'")),
        ("ele_instance_role_known", instance(role="master")),
        ("ele_instance_once_per_server", instance(server="nyc-db1")),
        ("ele_instance_one_primary", instance(role="primary")),
        ("ele_instance_port_once_per_server", instance(port=5432)),
        ("ele_instance_pgdata_once_per_server", instance(pgdata="'/srv/trading'")),
        ("ele_instance_upstream_in_herd", instance(upstream=of("chi-db1"))),
        ("ele_instance_upstream_in_herd", f"DELETE FROM ele_instance WHERE instance_id = {of('nyc-db1')}"),
        ("ele_instance_primary_has_no_upstream", set_upstream("chi-db1", of("nyc-db1"))),
        ("ele_instance_no_loop", set_upstream("nyc-db1", of("nyc-db2"))),
        ("ele_instance_no_loop", set_upstream("nyc-db1", "instance_id")),
        # What follows from the herd is held too: the members of one move onto those of another.
        ("ele_instance_port_once_per_server", "UPDATE ele_herd SET db_port = 6000 WHERE herd_name = 'Order-Book'"),
        (
            "ele_instance_pgdata_once_per_server",
            "UPDATE ele_herd SET pgdata = '/srv/stage' WHERE herd_name = 'Order-Book'",
        ),
        ("ele_inventory_name_taken", "INSERT INTO ele_server (hostname) VALUES ('trading_prod')"),
        ("ele_inventory_name_taken", "INSERT INTO ele_server (hostname) VALUES ('chi_db1')"),
        ("ele_inventory_name_taken", "INSERT INTO ele_datacenter (dc_name) VALUES ('new-york'), ('new_york')"),
        (
            "ele_inventory_name_taken",
            "UPDATE ele_herd SET herd_name = 'Order_Book', environment_id = 1 WHERE environment_id = 2",
        ),
        ("ele_inventory_name_reserved", "UPDATE ele_herd SET herd_name = 'dc' WHERE herd_name = 'Order-Book'"),
        (
            "ele_operation_state_known",
            """INSERT INTO ele_operation (env_name, herd_name, verb, token, operator, state)
               VALUES ('e', 'h', 'v', 1, 'o', 'x')""",
        ),
    ],
)
def test_a_rule_holds_for_rows_typed_by_hand(registry: Any, rule: str, statement: str) -> None:
    with pytest.raises(psycopg2.Error) as caught:
        query(registry, statement)
    assert caught.value.diag.constraint_name == rule


@pytest.mark.parametrize("name", sorted(FIXED_GROUPS))
def test_fixed_names_are_the_same_in_python_and_in_the_registry(registry: Any, name: str) -> None:
    with pytest.raises(psycopg2.errors.CheckViolation):
        query(registry, "INSERT INTO ele_server (hostname) VALUES (%s)", name)


@pytest.mark.parametrize("name", ["Order-Book_prod", "9lives", "a.b-c_d", "x"])
def test_groups_are_named_the_same_in_python_and_in_the_registry(registry: Any, name: str) -> None:
    assert query(registry, "SELECT ele_group_name(%s)", name) == [(group_name(name),)]


def test_names_follow_their_rows_and_can_be_swapped(registry: Any) -> None:
    query(
        registry,
        "BEGIN; SET CONSTRAINTS ALL DEFERRED;"
        "UPDATE ele_server SET hostname = CASE hostname WHEN 'chi-db1' THEN 'nyc-db1' ELSE 'chi-db1' END"
        " WHERE hostname IN ('chi-db1', 'nyc-db1');"
        "UPDATE ele_environment SET env_name = 'live' WHERE env_name = 'prod'; COMMIT",
    )
    query(registry, "DELETE FROM ele_herd WHERE herd_name = 'Order-Book'")
    names = {
        name for (name,) in query(registry, "SELECT name FROM ele_inventory_name WHERE kind IN ('herd', 'environment')")
    }
    assert names == {"env_live", "env_stage", "trading_live", "trading_stage"}
    query(registry, "INSERT INTO ele_server (hostname) VALUES ('Order_Book_prod')")


def test_two_sessions_can_not_make_a_loop_together(server: Server, database: str) -> None:
    one, two = (psycopg2.connect(host=str(server.directory), user="postgres", dbname=database) for _number in range(2))
    query(
        one,
        "UPDATE ele_instance SET upstream_id = NULL, role = 'detached'"
        f" WHERE instance_id IN ({of('nyc-db1')}, {of('nyc-db2')})",
    )
    one.commit()
    query(one, set_upstream("nyc-db1", of("nyc-db2")))
    error: list[Exception] = []

    def other() -> None:
        try:
            query(two, set_upstream("nyc-db2", of("nyc-db1")))
            two.commit()
        except psycopg2.Error as found:
            error.append(found)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()  # it waits for the first one's herd
    one.commit()
    thread.join(10)
    assert len(error) == 1
    one.close()
    two.close()


def test_stamps_are_kept_by_the_registry(registry: Any) -> None:
    query(registry, "UPDATE ele_server SET created_dt = '2001-01-01', modified_dt = '2001-01-01'")
    assert query(
        registry, "SELECT count(*) FROM ele_server WHERE created_dt < '2002-01-01' OR modified_dt < '2002-01-01'"
    ) == [(0,)]


# -- fleets ----------------------------------------------------------------------------------------------------------


def recorded(registry: Any) -> fleets.Fleet:
    with transaction(registry, "utility", keep=False) as cursor:
        return read_fleet(cursor).fleet


def by_server(fleet: fleets.Fleet) -> fleets.Fleet:
    fleet = copy.deepcopy(fleet)
    for herd in fleet["herds"]:
        herd["members"].sort(key=lambda member: member["server"])
    fleet["herds"].sort(key=fleets.herd_key)
    return fleet


def test_a_fleet_comes_back_as_it_went_in(registry: Any) -> None:
    wanted = fleets.parse_fleet(FLEET)
    assert recorded(registry) == wanted
    assert fleets.parse_fleet(fleets.fleet_document(recorded(registry))) == wanted
    for mode in ("merged", "overridden"):
        assert load_fleet(registry, "utility", wanted, mode)["changed"] is False


def other_fleet() -> fleets.Fleet:
    other = copy.deepcopy(FLEET)
    trading = other["herds"][0]
    trading["port"] = 5444
    trading["members"] = [
        {"server": "nyc-db2"},
        {"server": "nyc-db1", "port": 5432},
        {"server": "chi-db1", "upstream": "nyc-db1"},
    ]
    del other["herds"][1], other["environments"]["stage"], other["datacenters"]["newyork"]
    other["servers"]["new-db1"] = {"environment": "prod"}
    other["herds"].append(
        {
            "name": "extra",
            "environment": "prod",
            "port": 6000,
            "pgdata": "/srv/stage",
            "members": [{"server": "nyc-db1"}],
        }
    )
    return fleets.parse_fleet(other)


def test_overriding_makes_it_so_and_check_mode_says_the_same(server: Server, database: str, registry: Any) -> None:
    wanted = other_fleet()
    before = dump(server, database)
    rehearsed = load_fleet(registry, "utility", wanted, "overridden", check_mode=True)
    assert dump(server, database) == before
    done = load_fleet(registry, "utility", wanted, "overridden")
    assert rehearsed["changes"] == done["changes"]
    assert set(done["removed"]) == {
        "instance trading_stage@nyc-db1",
        "herd trading_stage",
        "environment stage",
        "datacenter newyork",
    }
    assert by_server(done["after"]) == by_server(wanted)
    assert load_fleet(registry, "utility", wanted, "overridden")["changed"] is False
    # And all the way back.
    load_fleet(registry, "utility", fleets.parse_fleet(FLEET), "overridden")
    assert by_server(recorded(registry)) == by_server(fleets.parse_fleet(FLEET))


def test_merging_adds_and_removes_nothing(registry: Any) -> None:
    part = {
        "environments": {"prod": {"protected": True}},
        "servers": {"lon-db1": {"environment": "prod", "address": "10.20.3.4"}},
        "herds": [
            {"name": "london", "environment": "prod", "pgdata": "/srv/london", "members": [{"server": "lon-db1"}]}
        ],
    }
    done = load_fleet(registry, "utility", fleets.parse_fleet(part), "merged")
    assert (done["removed"], len(done["changes"])) == ([], 3)
    assert done["after"]["servers"]["lon-db1"]["datacenter"] == "newyork"  # a network that only the registry knows
    assert len(done["after"]["herds"]) == 4
    assert load_fleet(registry, "utility", fleets.parse_fleet(part), "merged")["changed"] is False


def test_what_is_in_use_is_not_removed_unless_forced(registry: Any) -> None:
    smaller = copy.deepcopy(FLEET)
    del smaller["herds"][2]
    wanted = fleets.parse_fleet(smaller)
    query(registry, f"UPDATE ele_instance SET is_online = true WHERE instance_id = {of('nyc-db1', 'Order-Book')}")
    error = refused("FLEET_IN_USE", lambda: load_fleet(registry, "utility", wanted, "overridden"))
    assert "Order-Book_prod@nyc-db1" in error.reason
    refused("FLEET_IN_USE", lambda: load_fleet(registry, "utility", wanted, "overridden", check_mode=True))
    query(registry, "UPDATE ele_instance SET is_online = false")
    token = begin(registry, herd="Order-Book", from_server=None, to_server=None)["operation"]["token"]
    refused("FLEET_IN_USE", lambda: load_fleet(registry, "utility", wanted, "overridden"))
    assert load_fleet(registry, "utility", wanted, "overridden", force=True)["changed"]
    # History outlives the herd.
    assert query(registry, "SELECT herd_name, token FROM ele_operation") == [("Order-Book", token)]


def test_a_load_before_the_layout_is_there_can_be_rehearsed(server: Server) -> None:
    wanted = fleets.parse_fleet(FLEET)
    for prepare in (None, _make_1x):
        database = server.new_database()
        connection = connect(server.options(database))
        if prepare:
            prepare(connection)
        before = dump(server, database)
        assert load_fleet(connection, "utility", wanted, "merged", check_mode=True)["changed"]
        if prepare is None:
            assert dump(server, database) == before
        assert schema.schema_state(connection, "utility")["pending"]
        with pytest.raises(OperatorError):
            load_fleet(connection, "utility", wanted, "merged")
        connection.close()


def test_hostile_text_stays_text(registry: Any) -> None:
    assert recorded(registry)["herds"][0]["description"] == HOSTILE
    query(registry, "UPDATE ele_server SET address = %s, ssh_user = %s", HOSTILE, HOSTILE)
    query(
        registry, "UPDATE ele_herd SET vhost = %s, pgdata = '/' || %s WHERE herd_name = 'Order-Book'", HOSTILE, HOSTILE
    )
    found = next(i for i in read_inventory(registry, "utility")["instances"] if i["herd"] == "Order-Book")
    assert (found["address"], found["ssh_user"], found["vhost"], found["pgdata"]) == (
        HOSTILE,
        HOSTILE,
        HOSTILE,
        "/" + HOSTILE,
    )
    detail = {"text": HOSTILE}
    operation = begin(registry, operator=HOSTILE, verb=HOSTILE, plan_id=HOSTILE, plan=detail)["operation"]
    operations.record_phase(
        registry, "utility", {**KEY, "token": operation["token"], "phase": HOSTILE, "detail": detail}
    )
    assert HOSTILE in refused("OPERATION_HELD", lambda: begin(registry, holder=FOREIGN)).reason
    operation = finish(registry, operation["token"], "aborted", detail=detail)["operation"]
    assert (operation["operator"], operation["phases"][0]["name"], operation["detail"]) == (HOSTILE, HOSTILE, detail)


# -- operations ------------------------------------------------------------------------------------------------------

KEY = {"herd": "trading", "environment": "prod"}
# A process on another host: never proven dead from here.
FOREIGN = {"host": "elsewhere", "pid": 4242, "start": "1", "place": "another boot"}
OTHER = {**FOREIGN, "pid": 4243}


def begin(connection: Any, check_mode: bool = False, **changes: Any) -> dict[str, Any]:
    request = {
        **KEY,
        "verb": "failover",
        "plan_id": "p1",
        "from_server": "chi-db1",
        "to_server": "nyc-db1",
        "operator": "ann",
        "plan": {"why": "drill"},
        "lease_s": 60,
        "token_floor": 0,
        "holder": FOREIGN,
        "awx": {},
    }
    return operations.begin(connection, "utility", {**request, **changes}, check_mode)


def finish(connection: Any, token: int, outcome: str, check_mode: bool = False, **more: Any) -> dict[str, Any]:
    return operations.finish(connection, "utility", {**KEY, "token": token, "outcome": outcome, **more}, check_mode)


def end_lease(registry: Any) -> None:
    query(registry, "UPDATE ele_operation SET lease_until = now() - interval '1 second'")


def roles_of(registry: Any) -> dict[str, tuple[str, str | None]]:
    instances = read_inventory(registry, "utility")["instances"]
    return {
        i["server"]: (i["role"], i["upstream_server"])
        for i in instances
        if (i["herd"], i["environment"]) == ("trading", "prod")
    }


BEFORE = {"chi-db1": ("primary", None), "nyc-db1": ("replica", "chi-db1"), "nyc-db2": ("replica", "nyc-db1")}


@pytest.mark.parametrize("check_mode", [False, True])
@pytest.mark.parametrize("plan_id", ["p1", "p2"])
def test_a_live_lease_is_refused_by_name_and_time(registry: Any, check_mode: bool, plan_id: str) -> None:
    started = begin(registry)["operation"]["started"]
    error = refused(
        "OPERATION_HELD", lambda: begin(registry, check_mode, operator="bob", plan_id=plan_id, holder=OTHER)
    )
    assert "ann" in error.reason
    assert started in error.reason
    # Another herd is another matter.
    begin(registry, environment="stage", from_server=None, to_server=None)


def test_the_run_that_holds_the_lease_can_ask_again(registry: Any) -> None:
    first, again = begin(registry), begin(registry)
    assert again["resumed"]
    assert again["operation"]["operation_id"] == first["operation"]["operation_id"]
    assert again["operation"]["token"] > first["operation"]["token"]
    refused("OPERATION_HELD", lambda: begin(registry, plan_id="p2"))


def test_a_lease_that_ended_is_taken_over_and_the_old_token_counts_no_more(registry: Any) -> None:
    old = begin(registry)["operation"]
    end_lease(registry)
    taken = begin(registry, operator="bob", plan_id="p2")
    new = taken["operation"]
    assert (taken["resumed"], taken["took_over"]["token"]) == (False, old["token"])
    assert new["token"] > old["token"]
    request = {**KEY, "token": old["token"], "phase": "promoted"}
    refused("OPERATION_CLOSED", lambda: operations.record_phase(registry, "utility", request))
    refused("OPERATION_CLOSED", lambda: finish(registry, old["token"], "done"))
    assert roles_of(registry) == BEFORE
    states = query(registry, "SELECT token, state, finished_dt IS NOT NULL FROM ele_operation ORDER BY operation_id")
    assert states == [(old["token"], "superseded", True), (new["token"], "open", False)]


def test_the_same_plan_is_resumed_and_keeps_its_phases(registry: Any) -> None:
    old = begin(registry)["operation"]
    operations.record_phase(
        registry, "utility", {**KEY, "token": old["token"], "phase": "armed", "detail": {"at": "0/3"}}
    )
    end_lease(registry)
    resumed = begin(registry, operator="bob")
    assert resumed["resumed"]
    assert resumed["operation"]["operation_id"] == old["operation_id"]
    assert [phase["name"] for phase in resumed["operation"]["phases"]] == ["armed", "resumed"]
    refused("TOKEN_STALE", lambda: finish(registry, old["token"], "done"))
    assert "bob" in refused("TOKEN_STALE", lambda: finish(registry, 999, "done")).reason


def test_a_holder_that_died_on_this_host_is_taken_over_at_once(registry: Any) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        begin(registry, holder=this_holder(process.pid))
        refused("OPERATION_HELD", lambda: begin(registry, operator="bob", plan_id="p2"))
    finally:
        process.kill()
        process.wait()
    assert begin(registry, operator="bob", plan_id="p2")["took_over"]["operator"] == "ann"


def test_a_phase_renews_the_lease(registry: Any) -> None:
    operation = begin(registry, lease_s=5)["operation"]
    renewed = operations.record_phase(
        registry, "utility", {**KEY, "token": operation["token"], "phase": "stopped", "lease_s": 600}
    )["operation"]
    assert renewed["lease_until"] > operation["lease_until"]
    assert renewed["lease_live"]


def test_the_token_exceeds_what_the_hosts_hold(registry: Any) -> None:
    assert begin(registry, token_floor=41)["operation"]["token"] == 42
    assert begin(registry)["operation"]["token"] == 43


def test_a_finished_failover_moves_the_roles(registry: Any) -> None:
    token = begin(registry)["operation"]["token"]
    done = finish(registry, token, "done", roles={"nyc-db2": {"role": "replica", "upstream_server": "chi-db1"}})
    after = {"chi-db1": ("replica", "nyc-db1"), "nyc-db1": ("primary", None), "nyc-db2": ("replica", "chi-db1")}
    assert roles_of(registry) == after
    assert {(c["server"], c["field"], c["before"], c["after"]) for c in done["role_changes"]} == {
        ("chi-db1", "role", "primary", "replica"),
        ("chi-db1", "upstream_server", None, "nyc-db1"),
        ("nyc-db1", "role", "replica", "primary"),
        ("nyc-db1", "upstream_server", "chi-db1", None),
        ("nyc-db2", "upstream_server", "nyc-db1", "chi-db1"),
    }
    assert finish(registry, token, "done")["changed"] is False
    refused("OPERATION_CLOSED", lambda: finish(registry, token, "aborted"))
    found = [o for o in read_inventory(registry, "utility")["operations"] if o["herd"] == "trading"]
    assert [(o["state"], o["from_server"], o["to_server"]) for o in found] == [("done", "chi-db1", "nyc-db1")]


@pytest.mark.parametrize(
    "roles",
    [
        {"nowhere": {"role": "replica", "upstream_server": "nyc-db1"}},
        {"nyc-db2": {"role": "leader"}},
        {"nyc-db2": {"role": "replica", "upstream_server": "nowhere"}},
    ],
)
def test_roles_that_can_not_be_leave_everything_as_it_is(registry: Any, roles: dict[str, Any]) -> None:
    token = begin(registry)["operation"]["token"]
    refused("ROLES_INVALID", lambda: finish(registry, token, "done", roles=roles))
    assert roles_of(registry) == BEFORE


def test_two_primaries_are_refused_by_the_registry(registry: Any) -> None:
    token = begin(registry)["operation"]["token"]
    with pytest.raises(psycopg2.IntegrityError):
        finish(registry, token, "done", roles={"nyc-db2": {"role": "primary", "upstream_server": None}})
    assert roles_of(registry) == BEFORE


def test_an_incomplete_operation_stays_open_and_is_resumed_at_once(registry: Any) -> None:
    token = begin(registry)["operation"]["token"]
    finish(registry, token, "incomplete", detail={"left": ["dns"]})
    found = read_inventory(registry, "utility")["operations"]
    assert [(o["state"], o["lease_until"]) for o in found] == [("incomplete", None)]
    assert roles_of(registry) == BEFORE
    resumed = begin(registry, operator="bob", holder={**FOREIGN, "pid": 1})
    assert resumed["resumed"]
    assert resumed["operation"]["state"] == "open"


def test_the_inventory_shows_the_open_operation_and_the_newest_done_failover(registry: Any) -> None:
    finish(registry, begin(registry)["operation"]["token"], "done")
    finish(
        registry,
        begin(registry, from_server="nyc-db1", to_server="chi-db1", plan_id="p2")["operation"]["token"],
        "aborted",
    )
    begin(registry, from_server="nyc-db1", to_server="chi-db1", plan_id="p3")
    found = [(o["plan_id"], o["state"]) for o in read_inventory(registry, "utility")["operations"]]
    assert found == [("p1", "done"), ("p3", "open")]


def test_a_herd_on_hold_or_unknown_is_refused(registry: Any) -> None:
    query(registry, "UPDATE ele_herd SET hold_reason = 'disk is being replaced' WHERE herd_name = 'trading'")
    assert "disk is being" in refused("HERD_ON_HOLD", lambda: begin(registry)).reason
    refused("HERD_UNKNOWN", lambda: begin(registry, herd="nothing"))
    refused("SERVER_NOT_MEMBER", lambda: begin(registry, herd="Order-Book"))


def test_check_mode_of_operations_changes_nothing(server: Server, database: str, registry: Any) -> None:
    before = dump(server, database)
    assert begin(registry, True)["operation"]["token"] == 1
    assert dump(server, database) == before
    token = begin(registry)["operation"]["token"]
    before = dump(server, database)
    operations.record_phase(registry, "utility", {**KEY, "token": token, "phase": "armed"}, check_mode=True)
    assert finish(registry, token, "done", True)["role_changes"]
    assert dump(server, database) == before


def test_of_two_that_begin_at_once_one_wins(server: Server, database: str) -> None:
    outcomes: list[str] = []

    def work(pid: int) -> None:
        connection = connect(server.options(database))
        try:
            begin(connection, plan_id=f"p{pid}", holder={**FOREIGN, "pid": pid})
            outcomes.append("begun")
        except OperatorError as error:
            outcomes.append(error.code)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(pid,)) for pid in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["OPERATION_HELD"] * 4 + ["begun"]


# -- check-in --------------------------------------------------------------------------------------------------------


def saw(server: str, facts: dict[str, Any] | None) -> dict[str, Any]:
    return {**KEY, "server": server, "reachable": facts is not None, "facts": facts, "error": None}


def facts(role: str, upstream: str | None = None, lsn: str = "0/3000060", **more: Any) -> dict[str, Any]:
    position = {"current": lsn} if role == "primary" else {"received": lsn, "replayed": lsn}
    return {
        "status": "running",
        "role": role,
        "writable": role == "primary",
        "version": "15.18",
        "system_identifier": "7123456789012345678",
        "timeline": 1,
        "positions": position,
        "upstream": {"host": upstream, "port": 5432} if upstream else None,
        **more,
    }


def test_a_check_in_records_what_was_seen(server: Server, database: str, registry: Any) -> None:
    seen = [
        saw("chi-db1", facts("primary", lsn="0/5000000")),
        saw("nyc-db1", facts("replica", "10.10.0.11", "0/4000000")),
        saw("nyc-db2", None),
    ]
    before = dump(server, database)
    rehearsed = checkin.check_in(registry, "utility", seen, "me", check_mode=True)
    assert dump(server, database) == before
    done = checkin.check_in(registry, "utility", seen, "me")
    assert done == rehearsed
    assert (done["changed"], done["mismatches"], done["reconciled"]) == (True, [], [])
    found = {i["server"]: i for i in read_inventory(registry, "utility")["instances"] if i["environment"] == "prod"}
    assert [found[s]["is_online"] for s in ("chi-db1", "nyc-db2")] == [True, None]
    assert (found["chi-db1"]["version"], found["chi-db1"]["system_identifier"]) == ("15.18", "7123456789012345678")
    # nyc-db1 has two herds: the dictionary holds one of them, so ask for the right one.
    lag = query(
        registry, f"SELECT lag_bytes, last_seen IS NOT NULL FROM ele_instance WHERE instance_id = {of('nyc-db1')}"
    )
    assert lag == [(0x1000000, True)]
    seen[0] = saw("chi-db1", facts("primary", lsn="0/6000000"))
    assert checkin.check_in(registry, "utility", seen, "me")["changed"] is False  # only positions moved


def test_a_check_in_reconciles_a_failover_that_the_registry_missed(registry: Any) -> None:
    mirrored = {
        "token": 7,
        "closed": "done",
        "operation": {"to": "trading_prod@nyc-db1", "plan_id": "p9", "operator": "zoe"},
    }
    seen = [
        saw("chi-db1", facts("replica", "nyc-db1")),
        saw("nyc-db1", facts("primary", operation=mirrored)),
        saw("nyc-db2", facts("replica", "10.20.0.11")),
    ]
    rehearsed = checkin.check_in(registry, "utility", seen, "me", check_mode=True)
    assert [item["operation_id"] for item in rehearsed["reconciled"]] == [None]
    assert roles_of(registry) == BEFORE
    done = checkin.check_in(registry, "utility", seen, "me")
    assert [(item["from_server"], item["to_server"], item["plan_id"]) for item in done["reconciled"]] == [
        ("chi-db1", "nyc-db1", "p9")
    ]
    assert roles_of(registry) == {
        "chi-db1": ("replica", "nyc-db1"),
        "nyc-db1": ("primary", None),
        "nyc-db2": ("replica", "nyc-db1"),
    }
    row = query(registry, "SELECT verb, state, without_registry, operator, token, plan_id FROM ele_operation")
    assert row == [("failover", "done", True, "zoe", 7, "p9")]
    assert checkin.check_in(registry, "utility", seen, "me")["changed"] is False
    assert begin(registry, from_server="nyc-db1", to_server="chi-db1")["operation"]["token"] == 8


def test_a_live_operation_holds_the_roles_and_its_end_on_the_hosts_closes_it(registry: Any) -> None:
    token = begin(registry)["operation"]["token"]
    mirrored = {"token": token, "closed": "done", "operation": {"to": "trading_prod@nyc-db1", "plan_id": "p1"}}
    seen = [saw("chi-db1", facts("replica", "nyc-db1")), saw("nyc-db1", facts("primary", operation=mirrored))]
    held = checkin.check_in(registry, "utility", seen, "me")
    assert [item["code"] for item in held["mismatches"]] == ["OTHER_PRIMARY"]
    assert "ann" in held["mismatches"][0]["reason"]
    assert roles_of(registry)["chi-db1"][0] == "primary"
    end_lease(registry)
    assert checkin.check_in(registry, "utility", seen, "me")["reconciled"]
    assert roles_of(registry)["nyc-db1"] == ("primary", None)
    assert query(registry, "SELECT state, token FROM ele_operation") == [("done", token)]


def test_one_unknown_herd_or_member_does_not_stop_the_others(registry: Any) -> None:
    seen = [
        saw("chi-db1", facts("primary")),
        saw("elsewhere", facts("primary")),
        {**saw("chi-db1", facts("primary")), "herd": "nothing"},
    ]
    done = checkin.check_in(registry, "utility", seen, "me")
    assert {item["code"] for item in done["mismatches"]} == {"HERD_UNKNOWN", "INSTANCE_UNKNOWN"}
    assert done["changed"]


# -- through Ansible -------------------------------------------------------------------------------------------------


class Ansible:
    """Ansible commands of the environment that runs these tests, in a directory of their own."""

    def __init__(self, server: Server, database: str, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("PG", "ELEPHAAS_"))
        }
        self.environment["ELEPHAAS_REGISTRY_DSN"] = (
            f"host={server.directory} user=postgres dbname={database} password=hunter2"
        )
        self.environment["ANSIBLE_HOME"] = str(directory / "home")

    def run(self, program: str, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).parent / program), *argv],
            env=self.environment,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def module(self, name: str, arguments: dict[str, Any], *flags: str) -> dict[str, Any]:
        done = self.run(
            "ansible",
            "-i",
            "localhost,",
            "localhost",
            "-m",
            f"elephaas.herd.{name}",
            "-a",
            json.dumps(arguments),
            *flags,
        )
        assert "hunter2" not in done.stdout + done.stderr
        return json.loads(done.stdout.partition("=>")[2])

    def load(self, *argv: str, inventory: str = "localhost,") -> subprocess.CompletedProcess[str]:
        done = self.run(
            "ansible-playbook", "-i", inventory, "elephaas.herd.registry_load", "-e", "fleet_file=fleet.yml", *argv
        )
        assert "hunter2" not in done.stdout + done.stderr
        return done


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
