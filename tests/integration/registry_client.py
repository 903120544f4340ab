# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the registry share: a fleet, questions to the database, and ways to run things."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.elephaas.herd.plugins.module_utils.decide import fleet as fleets
from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry import operations, schema
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import transaction
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.fleet import read_fleet
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.inventory import read_inventory
from ansible_collections.elephaas.herd.tests.integration.registry_server import Server, server_program

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


def make_1x(connection: Any) -> None:
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


def of(server: str, herd: str = "trading", env: str = "prod") -> str:
    return (
        "(SELECT instance_id FROM v_flat_instance"
        f" WHERE hostname = '{server}' AND herd_name = '{herd}' AND env_name = '{env}')"
    )


def recorded(registry: Any) -> fleets.Fleet:
    with transaction(registry, "utility", keep=False) as cursor:
        return read_fleet(cursor).fleet


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
