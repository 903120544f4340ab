# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of a fleet written into the registry, in as few statements as kinds of change. Private to the collection.

Ten thousand instances one by one are as many round trips and plans, and took a minute; in sets they take seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.fleet_change import Change
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import sql

# Statements are put together from constants of this file; all values of a statement go as one parameter, which the
# server reads as rows w. Every key and field of every kind has a column there.
_ROWS = (
    "json_to_recordset(%s::json) AS w(position int, name text, environment text, herd text, server text,"
    " protected boolean, description text, networks cidr[], address text, datacenter text, ssh_port int,"
    " ssh_user text, dns_name text, port int, pgdata text, vhost text, os_user text, control text,"
    " replication_user text, base_name text, role text, upstream text, priority int, new_name text,"
    " new_environment text)"
)
_ENVIRONMENT = "(SELECT environment_id FROM ele_environment WHERE env_name = w.environment)"
_DATACENTER = "(SELECT datacenter_id FROM ele_datacenter WHERE dc_name = w.datacenter)"
_SERVER = "(SELECT server_id FROM ele_server WHERE hostname = w.server)"
_JOIN_HERD = (
    " JOIN ele_environment e ON e.env_name = w.environment"
    " JOIN ele_herd h ON h.environment_id = e.environment_id AND h.herd_name = w.herd"
)
_JOIN_SERVER = " JOIN ele_server s ON s.hostname = w.server"


class _Table:
    """How one kind is kept.

    name: of the table. keys: what names a row, column -> SQL of its value. columns: field of a fleet -> column and SQL
    of its value. joins, found: how the row t of a row w is found.
    """

    def __init__(
        self,
        name: str,
        keys: dict[str, str],
        columns: dict[str, tuple[str, str]],
        found: str,
        joins: str = "",
    ) -> None:
        self.name = name
        self.keys = keys
        self.columns = columns
        self.found = found
        self.rows = _ROWS + joins

    def insert(self, fields: Iterable[str]) -> str:
        pairs = [*self.keys.items(), *(self.columns[field] for field in fields)]
        return (
            f"INSERT INTO {self.name} ({', '.join(column for column, _value in pairs)})"
            f" SELECT {', '.join(value for _column, value in pairs)} FROM {self.rows} ORDER BY w.position"
        )

    def update(self, assignments: str) -> str:
        return f"UPDATE {self.name} t SET {assignments} FROM {self.rows} WHERE {self.found}"

    def change(self, fields: Iterable[str]) -> str:
        return self.update(", ".join(f"{column} = {value}" for column, value in map(self.columns.__getitem__, fields)))

    def delete(self) -> str:
        return f"DELETE FROM {self.name} t USING {self.rows} WHERE {self.found}"


_TABLES = {
    "environment": _Table(
        "ele_environment",
        {"env_name": "w.name"},
        {"protected": ("protected", "w.protected"), "description": ("env_descr", "w.description")},
        "t.env_name = w.name",
    ),
    "datacenter": _Table(
        "ele_datacenter",
        {"dc_name": "w.name"},
        {"networks": ("networks", "w.networks"), "description": ("dc_descr", "w.description")},
        "t.dc_name = w.name",
    ),
    "server": _Table(
        "ele_server",
        {"hostname": "w.name"},
        {
            "environment": ("environment_id", _ENVIRONMENT),
            "address": ("address", "w.address"),
            "datacenter": ("datacenter_id", _DATACENTER),
            "ssh_port": ("ssh_port", "w.ssh_port"),
            "ssh_user": ("ssh_user", "w.ssh_user"),
            "dns_name": ("dns_name", "w.dns_name"),
        },
        "t.hostname = w.name",
    ),
    "herd": _Table(
        "ele_herd",
        {"environment_id": _ENVIRONMENT, "herd_name": "w.herd"},
        {
            "port": ("db_port", "w.port"),
            "pgdata": ("pgdata", "w.pgdata"),
            "vhost": ("vhost", "w.vhost"),
            "description": ("herd_descr", "w.description"),
            "os_user": ("os_user", "w.os_user"),
            "control": ("control", "w.control"),
            "replication_user": ("replication_user", "w.replication_user"),
            "base_name": ("base_name", "w.base_name"),
        },
        f"t.environment_id = {_ENVIRONMENT} AND t.herd_name = w.herd",
    ),
    "instance": _Table(
        "ele_instance",
        {"herd_id": "h.herd_id", "server_id": _SERVER},
        {
            "role": ("role", "w.role"),
            # An override is kept only where it says something else than the herd, which was written before.
            "port": ("local_port", "nullif(w.port, h.db_port)"),
            "pgdata": ("local_pgdata", "nullif(w.pgdata, h.pgdata)"),
            "priority": ("priority", "w.priority"),
        },
        f"t.herd_id = h.herd_id AND t.server_id = {_SERVER}",
        _JOIN_HERD,
    ),
}
_RENAMINGS = {
    "environment": "env_name = w.new_name",
    "datacenter": "dc_name = w.new_name",
    "server": "hostname = w.new_name",
    "herd": (
        "herd_name = w.new_name,"
        " environment_id = (SELECT environment_id FROM ele_environment WHERE env_name = w.new_environment)"
    ),
}

# A fleet gives each member's effective port and directory, so a member that does not move keeps them: they are pinned
# while the herd's change, and an override equal to the herd's new value is none any more.
_PIN = (
    "UPDATE ele_instance t SET local_port = t.effective_port, local_pgdata = t.effective_pgdata"
    f" FROM {_ROWS} {_JOIN_HERD} WHERE t.herd_id = h.herd_id"
)
_RELEASE = (
    "UPDATE ele_instance t SET local_port = nullif(t.local_port, h.db_port),"
    f" local_pgdata = nullif(t.local_pgdata, h.pgdata) FROM {_ROWS} {_JOIN_HERD} WHERE t.herd_id = h.herd_id"
    " AND (t.local_port = h.db_port OR t.local_pgdata = h.pgdata)"
)
_NO_UPSTREAM = f"UPDATE ele_instance t SET upstream_id = NULL FROM {_ROWS} {_JOIN_HERD} {_JOIN_SERVER} WHERE "
_UPSTREAM = _TABLES["instance"].update(
    "upstream_id = (SELECT u.instance_id FROM ele_instance u JOIN ele_server us ON us.server_id = u.server_id"
    " WHERE u.herd_id = h.herd_id AND us.hostname = w.upstream)"
)
# Nobody will finish what was begun on a herd that is gone.
_CLOSE_OPERATIONS = (
    "UPDATE ele_operation o SET state = 'aborted', finished_dt = clock_timestamp(), lease_until = NULL,"
    """ detail = detail || '{"herd_removed": true}'"""
    f" FROM {_ROWS} {_JOIN_HERD} WHERE o.herd_id = h.herd_id AND o.state IN ('open', 'incomplete')"
)


def write_changes(cursor: Any, changes: list[Change]) -> None:
    """Make these changes, in their order by kind, inside the caller's transaction.

    The caller has every deferrable constraint deferred; they are checked before this returns.
    Raises OperatorError REGISTRY_BUSY when the registry is not what the changes were decided on.
    """
    for change in changes:
        if change["action"] == "rename":
            _rename(cursor, change)
    _loosen_upstreams(cursor, changes)
    for action, kind, fields, rows in _sets(changes):
        table = _TABLES[kind]
        if action == "remove":
            if kind == "herd":
                _run(cursor, _CLOSE_OPERATIONS, rows)
            _run_all(cursor, table.delete(), rows)
        elif action == "add":
            _run_all(cursor, table.insert(fields), rows)
        elif fields:
            moves = kind == "herd" and not {"port", "pgdata"}.isdisjoint(fields)
            if moves:
                _run(cursor, _PIN, rows)
            _run_all(cursor, table.change(fields), rows)
            if moves:
                _run(cursor, _RELEASE, rows)
    # Members before their upstreams may have come in any order, and roles may have been swapped.
    streaming = [
        change
        for change in changes
        if change["kind"] == "instance"
        and (
            (change["action"] == "change" and "upstream" in change["after"])
            or (change["action"] == "add" and change["after"]["upstream"] is not None)
        )
    ]
    _run_all(cursor, _UPSTREAM, [_row(change) for change in streaming])
    cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


def _sets(changes: list[Change]) -> list[tuple[str, str, tuple[str, ...], list[dict[str, Any]]]]:
    """Changes that one statement can make together: (action, kind, fields with a column of their own, rows)."""
    found: dict[tuple[str, str, tuple[str, ...]], list[dict[str, Any]]] = {}
    for change in changes:
        if change["action"] != "rename":
            fields = tuple(field for field in change["after"] or () if field in _TABLES[change["kind"]].columns)
            found.setdefault((change["action"], change["kind"], fields), []).append(_row(change))
    return [(*key, rows) for key, rows in found.items()]


def _row(change: Change) -> dict[str, Any]:
    """The row w of a change."""
    values = dict(change["after"] or {})
    names = ("environment", "herd", "server") if change["kind"] in ("herd", "instance") else ("name",)
    values.update(zip(names, change["key"], strict=False))
    return values


def _rename(cursor: Any, change: Change) -> None:
    new = change["new_key"]
    row = {**_row({**change, "after": {}}), "new_name": new[-1], "new_environment": new[0]}
    _run_all(cursor, _TABLES[change["kind"]].update(_RENAMINGS[change["kind"]]), [row])


def _loosen_upstreams(cursor: Any, changes: list[Change]) -> None:
    """Take upstreams away where the changes would break a rule on their way to where no rule is broken."""
    members = [change for change in changes if change["kind"] == "instance"]
    # A check constraint can not be deferred: who becomes primary loses the upstream before that.
    risen = [c for c in members if c["action"] == "change" and c["after"].get("role", "replica") != "replica"]
    _run(cursor, _NO_UPSTREAM + "t.herd_id = h.herd_id AND t.server_id = s.server_id", [_row(c) for c in risen])
    # Who streams from what goes is given another upstream, or goes too, before the transaction ends.
    gone = [c for c in members if c["action"] == "remove"]
    _run(
        cursor,
        _NO_UPSTREAM + "t.herd_id = h.herd_id AND t.upstream_id = (SELECT u.instance_id FROM ele_instance u"
        " WHERE u.herd_id = h.herd_id AND u.server_id = s.server_id)",
        [_row(c) for c in gone],
    )


def _run(cursor: Any, statement: str, rows: list[dict[str, Any]]) -> int:
    if not rows:
        return 0
    numbered = [{**row, "position": position} for position, row in enumerate(rows)]
    cursor.execute(sql.SQL(statement), (json.dumps(numbered),))
    return int(cursor.rowcount)


def _run_all(cursor: Any, statement: str, rows: list[dict[str, Any]]) -> None:
    """Run a statement that has to find, or make, exactly one row for each."""
    if _run(cursor, statement, rows) != len(rows):
        raise OperatorError(
            "REGISTRY_BUSY", "Somebody changed the registry meanwhile; nothing was kept.", "Run the same command again."
        )
