# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventory documents as the registry gives them, made in Python."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def server(name: str, environment: str = "prod", **changes: Any) -> Row:
    """A server's row."""
    return {
        "server": name, "environment": environment, "protected": False, "datacenter": name.partition("-")[0],
        "address": None, "ssh_port": 22, "ssh_user": "postgres", "dns_name": None, **changes,
    }  # fmt: skip


def instance(herd: str, on: str, role: str = "replica", environment: str = "prod", **changes: Any) -> Row:
    """An instance's row."""
    row = server(on, environment)
    return {
        **row, "herd": herd, "role": role, "upstream_server": None, "port": 5432, "pgdata": "/pg/data",
        "version": "15.18", "vhost": f"{herd}.example.com", "lag_bytes": None, "is_online": True, "last_seen": None,
        "timeline": 1, "system_identifier": "7300000000000000001", "os_user": "postgres", "control": "auto",
        "replication_user": None, "priority": 0, "base_name": herd.lower(), "hold_reason": None,
        "hold_by": None, "hold_since": None, **changes,
    }  # fmt: skip


def operation(herd: str, state: str, moved_from: str | None, moved_to: str | None, **changes: Any) -> Row:
    """An operation's row."""
    return {
        "herd": herd, "environment": "prod", "verb": "failover", "state": state, "token": 3, "plan_id": "p1234abcd",
        "from_server": moved_from, "to_server": moved_to, "operator": "ada", "lease_until": None,
        "started": "2025-01-01T00:00:00.000000Z", "finished": None, **changes,
    }  # fmt: skip


def document(servers: list[Row] = (), instances: list[Row] = (), operations: list[Row] = ()) -> Row:  # type: ignore[assignment]
    """The whole document."""
    return {
        "format": 1, "read_at": "2025-01-01T00:00:00.000000Z", "servers": list(servers), "instances": list(instances),
        "operations": list(operations),
    }  # fmt: skip


def trading(*operations: Row, roles: tuple[str, str, str] = ("primary", "replica", "replica")) -> Row:
    """One herd of three on chi-db1, nyc-db1, nyc-db2."""
    servers = ("chi-db1", "nyc-db1", "nyc-db2")
    return document(
        [server(name) for name in servers],
        [instance("trading", name, role) for name, role in zip(servers, roles, strict=True)],
        list(operations),
    )
