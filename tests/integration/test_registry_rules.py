# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry's own rules, held against rows typed by hand."""

from __future__ import annotations

import threading
from typing import Any

import psycopg2
import pytest

from ansible_collections.elephaas.herd.plugins.module_utils.decide import fields
from ansible_collections.elephaas.herd.plugins.module_utils.decide.names import FIXED_GROUPS, group_name
from ansible_collections.elephaas.herd.tests.integration.registry_client import (
    of,
    query,
)
from ansible_collections.elephaas.herd.tests.integration.registry_server import Server

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
        ("ele_server_address_valid", "UPDATE ele_server SET address = '-oProxyCommand=id'"),
        ("ele_server_dns_name_valid", "UPDATE ele_server SET dns_name = '{{ x }}.example.com'"),
        ("ele_server_ssh_user_valid", "UPDATE ele_server SET ssh_user = 'a b'"),
        ("ele_herd_vhost_valid", "UPDATE ele_herd SET vhost = E'db.example.com\\n'"),
        ("ele_herd_os_user_valid", "UPDATE ele_herd SET os_user = '$(id)'"),
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


DOORS = {
    # Column of the registry -> (field, values on both sides of the line).
    "ele_server.address": (
        fields.SERVER,
        "address",
        [
            "10.0.0.1", "10.0.0", "fd00::1", "fe80::1%eth0", "fe80::1%", "fe80::1%$(id)", "::ffff:1.2.3.4", "db1",
            "db-1.example.com.", "-db1", "db1-", "a..b", "5.example.com", "12", "", " db1", "db1\n", "ä", "a" * 63,
            "a" * 64, ".".join(["a" * 62] * 4), "a b", "user@db1", "{{ x }}",
        ],
    ),
    "ele_server.dns_name": (
        fields.SERVER, "dns_name", ["db1", "_x.example.com", "db1.", "db1..", "x/y", "-x", "x-.y", "", "x\n", "*.x"],
    ),
    "ele_server.ssh_user": (
        fields.SERVER, "ssh_user", ["postgres", "ann@corp.example", "CORP+ann", "-l", "a b", "", "a\n", "a" * 129],
    ),
    "ele_herd.vhost": (fields.HERD, "vhost", ["db.example.com", "-x", "a b", "x\n", "x" * 64]),
    "ele_herd.os_user": (fields.HERD, "os_user", ["postgres", "0x", "-x", "a b", "x" * 33, "a\n"]),
}  # fmt: skip


@pytest.mark.parametrize("column", sorted(DOORS))
def test_the_doors_of_python_and_of_the_registry_let_in_the_same(registry: Any, column: str) -> None:
    keys, field, values = DOORS[column]
    table, _dot, name = column.partition(".")
    for value in values:
        problems = fields.Problems()
        fields.read_field(value, keys, field, field, problems)
        try:
            query(registry, f"UPDATE {table} SET {name} = %s", value)
            taken = True
        except psycopg2.errors.CheckViolation:
            taken = False
        assert taken == (not problems.found), value


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
