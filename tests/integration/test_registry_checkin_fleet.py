# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A check-in of many herds on a real registry: few statements, and one herd's trouble is not another's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg2
import psycopg2.extensions
import pytest

from ansible_collections.elephaas.herd.plugins.module_utils.decide.fleet import parse_fleet
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry import checkin
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import connect
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.fleet import load_fleet
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.schema import apply_migrations
from ansible_collections.elephaas.herd.tests.integration.registry_server import Server

HERDS = [f"herd{number}" for number in range(1, 7)]


@pytest.fixture()
def registry(server: Server) -> Iterator[Any]:
    """A registry with six herds of two; server p takes all primaries, r all replicas."""
    connection = connect(server.options(server.new_database()))
    apply_migrations(connection, "utility")
    fleet = {
        "environments": {"prod": {}},
        "servers": {name: {"environment": "prod", "address": f"10.0.0.{ord(name)}"} for name in "pr"},
        "herds": [
            {
                "name": name, "environment": "prod", "port": 5500 + number, "pgdata": f"/srv/{name}",
                "members": [{"server": "p"}, {"server": "r"}],
            }
            for number, name in enumerate(HERDS)
        ],
    }  # fmt: skip
    load_fleet(connection, "utility", parse_fleet(fleet), "merged")
    yield connection
    connection.close()


def seen(herd: str, **changes: Any) -> list[dict[str, Any]]:
    """Both members of a herd, healthy; changes are the primary's."""
    port = 5500 + HERDS.index(herd)
    primary = {
        "status": "running", "role": "primary", "writable": True, "version": "15.18", "system_identifier": "7",
        "timeline": 1, "positions": {"current": "0/5000000"}, **changes,
    }  # fmt: skip
    replica = {
        **primary, "role": "replica", "writable": False, "system_identifier": "7", "version": "15.18",
        "positions": {"received": "0/5000000", "replayed": "0/4000000"},
        "upstream": {"host": "10.0.0.112", "port": port},
    }  # fmt: skip
    return [
        {"herd": herd, "environment": "prod", "server": name, "reachable": True, "facts": facts, "error": None}
        for name, facts in (("p", primary), ("r", replica))
    ]


def recorded(connection: Any) -> dict[tuple[str, str], tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT herd_name, hostname, version, is_online, lag_bytes, lsn::text, last_seen IS NOT NULL"
            "  FROM utility.ele_instance JOIN utility.ele_herd USING (herd_id) JOIN utility.ele_server USING (server_id)"
        )
        return {(herd, server): tuple(values) for herd, server, *values in cursor.fetchall()}


def test_the_number_of_statements_does_not_grow_with_the_fleet(registry: Any) -> None:
    counts = []
    for herds in (HERDS[:1], HERDS):
        sent = Statements(registry)
        done = checkin.check_in(sent, "utility", [item for herd in herds for item in seen(herd)], "me")
        assert done["mismatches"] == []
        counts.append(sent.count)
    assert counts[0] == counts[1]
    assert set(recorded(registry).values()) == {
        ("15.18", True, 0, "0/5000000", True),
        ("15.18", True, 0x1000000, "0/5000000", True),
    }


@pytest.mark.parametrize("facts", [{"system_identifier": "no number"}, {"version": "nul\x00"}, {"timeline": 1 << 70}])
def test_what_the_registry_cannot_hold_keeps_no_other_herd_from_its_record(
    registry: Any, facts: dict[str, Any]
) -> None:
    items = [item for herd in HERDS for item in seen(herd, **(facts if herd == "herd3" else {}))]
    done = checkin.check_in(registry, "utility", items, "me")
    assert {item["herd"] for item in done["mismatches"]} == {"herd3_prod"}
    found = recorded(registry)
    assert {herd for (herd, _server), values in found.items() if values[1]} == {*HERDS} - {"herd3"}
    assert found[("herd3", "r")] == (None, None, None, None, False)
    assert {item["instance"].partition("_")[0] for item in done["differences"]} == {*HERDS} - {"herd3"}


class Statements:
    """A connection that counts what is sent."""

    def __init__(self, connection: Any) -> None:
        self.__dict__.update(connection_=connection, count=0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection_, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "count":
            self.__dict__[name] = value
        else:
            setattr(self.connection_, name, value)

    def cursor(self) -> Any:
        statements = self

        class Counting(psycopg2.extensions.cursor):
            def execute(self, *arguments: Any) -> None:
                statements.count += 1
                super().execute(*arguments)

        return self.connection_.cursor(cursor_factory=Counting)
