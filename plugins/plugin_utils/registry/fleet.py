# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole fleets in the registry: read back, compared and written. Private to the collection.

What a fleet is and what a load changes is decided in module_utils/decide/fleet.py; here it is only carried out.
"""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.fleet import Fleet, fleet_difference, kept_roles
from ansible_collections.elephaas.herd.plugins.module_utils.decide.names import herd_name
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import sql, transaction
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.schema import rehearse_migrations, require_current

# The order of a fleet file is the order in which its things came in, so ids keep it.
_FLEET = """
SELECT json_build_object(
    'environments', coalesce((SELECT json_object_agg(env_name, json_build_object(
        'protected', protected, 'description', env_descr) ORDER BY environment_id) FROM ele_environment), '{}'),
    'datacenters', coalesce((SELECT json_object_agg(dc_name, json_build_object(
        'networks', networks::text[], 'description', dc_descr) ORDER BY datacenter_id) FROM ele_datacenter), '{}'),
    'servers', coalesce((SELECT json_object_agg(hostname, json_build_object(
        'environment', env_name, 'address', address, 'datacenter', dc_name, 'ssh_port', ssh_port,
        'ssh_user', ssh_user, 'dns_name', dns_name) ORDER BY server_id)
        FROM ele_server JOIN ele_environment USING (environment_id)
        LEFT JOIN ele_datacenter USING (datacenter_id)), '{}'),
    'herds', coalesce((SELECT json_agg(json_build_object(
        'name', h.herd_name, 'environment', e.env_name, 'port', h.db_port, 'pgdata', h.pgdata, 'vhost', h.vhost,
        'description', h.herd_descr, 'os_user', h.os_user, 'control', h.control,
        'replication_user', h.replication_user, 'base_name', h.base_name,
        'members', coalesce((SELECT json_agg(json_build_object(
            'server', s.hostname, 'role', i.role, 'upstream', us.hostname, 'port', i.effective_port,
            'pgdata', i.effective_pgdata, 'priority', i.priority) ORDER BY i.instance_id)
            FROM ele_instance i JOIN ele_server s ON s.server_id = i.server_id
            LEFT JOIN ele_instance u ON u.instance_id = i.upstream_id
            LEFT JOIN ele_server us ON us.server_id = u.server_id
           WHERE i.herd_id = h.herd_id), '[]')) ORDER BY h.herd_id)
        FROM ele_herd h JOIN ele_environment e ON e.environment_id = h.environment_id), '[]'),
    'live', coalesce((SELECT json_agg(json_build_array(e.env_name, h.herd_name))
        FROM ele_herd h JOIN ele_environment e ON e.environment_id = h.environment_id
       WHERE EXISTS (SELECT 1 FROM ele_instance i WHERE i.herd_id = h.herd_id AND i.last_seen IS NOT NULL)
          OR EXISTS (SELECT 1 FROM ele_operation o WHERE o.herd_id = h.herd_id)), '[]'),
    'online', coalesce((SELECT json_agg(json_build_array(e.env_name, h.herd_name, s.hostname))
        FROM ele_instance i JOIN ele_herd h ON h.herd_id = i.herd_id JOIN ele_server s ON s.server_id = i.server_id
        JOIN ele_environment e ON e.environment_id = h.environment_id WHERE i.is_online), '[]'),
    'busy', coalesce((SELECT json_agg(json_build_array(e.env_name, h.herd_name))
        FROM ele_operation o JOIN ele_herd h ON h.herd_id = o.herd_id
        JOIN ele_environment e ON e.environment_id = h.environment_id
       WHERE o.state IN ('open', 'incomplete')), '[]')
)::text
"""


class RecordedFleet:
    """The registry's fleet, and what is known about it beyond a fleet file.

    fleet: as decide/fleet.py describes it. live: herds (environment, name) that were seen or operated on.
    online: instances (environment, herd, server) recorded as online. busy: herds with an open operation.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.live = {tuple(item) for item in document.pop("live", ())}
        self.online = {tuple(item) for item in document.pop("online", ())}
        self.busy = {tuple(item) for item in document.pop("busy", ())}
        self.fleet: Fleet = document


def read_fleet(cursor: Any) -> RecordedFleet:
    """Read the fleet in one SELECT; the cursor's search_path holds the registry's schema (see transaction)."""
    cursor.execute(_FLEET)
    return RecordedFleet(json.loads(cursor.fetchone()[0]))


def load_fleet(
    connection: Any, schema: str, wanted: Fleet, mode: str, force: bool = False, check_mode: bool = False
) -> dict[str, Any]:
    """Make the registry hold this fleet; see decide.fleet.fleet_difference for mode "merged" and "overridden".

    All of it is one transaction. Check mode compares and writes nothing; there, pending migrations are rehearsed, so
    that it also answers before the registry has its tables.
    Returns {"changed", "changes": [change], "removed": [name], "warnings": [text], "before": Fleet, "after": Fleet}.
    Raises OperatorError FLEET_INVALID, FLEET_IN_USE (what would be removed or given another role is online or has an
    open operation, and force is off), and those of connection.explain.
    """
    if not check_mode:
        require_current(connection, schema)
    with transaction(connection, schema, keep=not check_mode) as cursor:
        if check_mode:
            rehearse_migrations(cursor, connection, schema)
        else:
            # One load at a time; readers, check-ins and operations go on.
            cursor.execute("LOCK TABLE ele_environment IN SHARE ROW EXCLUSIVE MODE")
        recorded = read_fleet(cursor)
        changes = fleet_difference(recorded.fleet, wanted, mode, recorded.live)
        if not force:
            _refuse_in_use(changes, recorded)
        after = recorded.fleet
        if changes and not check_mode:
            for change in changes:
                _WRITERS[change["kind"]](cursor, change)
            # Instances before their upstreams may have come in any order, and roles may have been swapped.
            _write_upstreams(cursor, changes)
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            after = read_fleet(cursor).fleet
    warnings = kept_roles(recorded.fleet, wanted, recorded.live) if mode == "merged" else []
    return _outcome(changes, recorded.fleet, after, warnings)


def _outcome(changes: list[dict[str, Any]], before: Fleet, after: Fleet, warnings: list[str]) -> dict[str, Any]:
    removed = [f"{change['kind']} {change['name']}" for change in changes if change["action"] == "remove"]
    return {
        "changed": bool(changes),
        "changes": changes,
        "removed": removed,
        "warnings": warnings,
        "before": before,
        "after": after,
    }


def _refuse_in_use(changes: list[dict[str, Any]], recorded: RecordedFleet) -> None:
    problems = []
    for change in changes:
        if change["kind"] == "herd" and change["action"] == "remove" and tuple(change["key"]) in recorded.busy:
            problems.append(f"herd {change['name']} would be removed and has an open operation")
        if change["kind"] != "instance":
            continue
        environment, herd, _server = change["key"]
        owner = herd_name(herd, environment)
        if change["action"] == "remove":
            if tuple(change["key"]) in recorded.online:
                problems.append(f"{change['name']} would be removed and is online")
            elif (environment, herd) in recorded.busy:
                problems.append(f"{change['name']} would be removed and herd {owner} has an open operation")
        elif change["action"] == "change" and "role" in change["after"] and (environment, herd) in recorded.live:
            problems.append(
                f"{change['name']} would be recorded as {change['after']['role']} instead of {change['before']['role']}"
            )
    if problems:
        raise OperatorError(
            "FLEET_IN_USE",
            "The registry is not overridden: " + "; ".join(problems) + ".",
            "Correct the fleet file, or, if the registry is what is wrong, run again with force.",
            {"problems": problems},
        )


# -- one writer per kind ----------------------------------------------------------------------------------------------
# Column lists are constants of this file; every value goes as a parameter.

_ENVIRONMENT = "(SELECT environment_id FROM ele_environment WHERE env_name = %(environment)s)"
_DATACENTER = "(SELECT datacenter_id FROM ele_datacenter WHERE dc_name = %(datacenter)s)"
_SERVER = "(SELECT server_id FROM ele_server WHERE hostname = %(server)s)"
_OF_HERD = (
    "(SELECT h.{column} FROM ele_herd h JOIN ele_environment e USING (environment_id)"
    " WHERE e.env_name = %(environment)s AND h.herd_name = %(herd)s)"
)
_HERD = _OF_HERD.format(column="herd_id")

# kind -> (table, how a row is found, {field of a fleet: (column, SQL of its value)})
_TABLES: dict[str, tuple[str, str, dict[str, tuple[str, str]]]] = {
    "environment": (
        "ele_environment",
        "env_name = %(name)s",
        {"protected": ("protected", "%(protected)s"), "description": ("env_descr", "%(description)s")},
    ),
    "datacenter": (
        "ele_datacenter",
        "dc_name = %(name)s",
        {"networks": ("networks", "%(networks)s::cidr[]"), "description": ("dc_descr", "%(description)s")},
    ),
    "server": (
        "ele_server",
        "hostname = %(name)s",
        {
            "environment": ("environment_id", _ENVIRONMENT),
            "address": ("address", "%(address)s"),
            "datacenter": ("datacenter_id", _DATACENTER),
            "ssh_port": ("ssh_port", "%(ssh_port)s"),
            "ssh_user": ("ssh_user", "%(ssh_user)s"),
            "dns_name": ("dns_name", "%(dns_name)s"),
        },
    ),
    "herd": (
        "ele_herd",
        f"herd_id = {_HERD}",
        {
            "port": ("db_port", "%(port)s"),
            "pgdata": ("pgdata", "%(pgdata)s"),
            "vhost": ("vhost", "%(vhost)s"),
            "description": ("herd_descr", "%(description)s"),
            "os_user": ("os_user", "%(os_user)s"),
            "control": ("control", "%(control)s"),
            "replication_user": ("replication_user", "%(replication_user)s"),
            "base_name": ("base_name", "%(base_name)s"),
        },
    ),
    "instance": (
        "ele_instance",
        f"herd_id = {_HERD} AND server_id = {_SERVER}",
        {
            "role": ("role", "%(role)s"),
            # An override is kept only where it says something else than the herd, which was written before.
            "port": ("local_port", f"nullif(%(port)s, {_OF_HERD.format(column='db_port')})"),
            "pgdata": ("local_pgdata", f"nullif(%(pgdata)s, {_OF_HERD.format(column='pgdata')})"),
            "priority": ("priority", "%(priority)s"),
        },
    ),
}
# What names a row: column and SQL of its value, for inserts.
_KEYS: dict[str, dict[str, str]] = {
    "environment": {"env_name": "%(name)s"},
    "datacenter": {"dc_name": "%(name)s"},
    "server": {"hostname": "%(name)s"},
    "herd": {"environment_id": _ENVIRONMENT, "herd_name": "%(herd)s"},
    "instance": {"herd_id": _HERD, "server_id": _SERVER},
}


def _statement(template: str, kind: str, **parts: str) -> Any:
    """SQL from constants of this file: {table} and {found} of the kind, {herd}, and further parts."""
    table, found, _columns = _TABLES[kind]
    constants = {"table": table, "found": found, "herd": _HERD, **parts}
    return sql.SQL(template).format(**{name: sql.SQL(text) for name, text in constants.items()})


def _parameters(change: dict[str, Any]) -> dict[str, Any]:
    values = dict(change["after"] or {})
    if change["kind"] in ("herd", "instance"):
        names: tuple[str, ...] = ("environment", "herd", "server")[: len(change["key"])]
    else:
        names = ("name",)
    values.update(zip(names, change["key"], strict=True))
    return values


def _write(cursor: Any, change: dict[str, Any]) -> None:
    kind, values = change["kind"], _parameters(change)
    if change["action"] == "remove":
        cursor.execute(_statement("DELETE FROM {table} WHERE {found}", kind), values)
        return
    columns = _TABLES[kind][2]
    fields = [columns[field] for field in change["after"] if field in columns]
    if change["action"] == "add":
        pairs = [*_KEYS[kind].items(), *fields]
        statement = _statement(
            "INSERT INTO {table} ({columns}) VALUES ({values})",
            kind,
            columns=", ".join(column for column, _value in pairs),
            values=", ".join(value for _column, value in pairs),
        )
        cursor.execute(statement, values)
    elif fields:
        assignments = ", ".join(f"{column} = {value}" for column, value in fields)
        cursor.execute(
            _statement("UPDATE {table} SET {assignments} WHERE {found}", kind, assignments=assignments), values
        )


def _write_herd(cursor: Any, change: dict[str, Any]) -> None:
    moves = change["action"] == "change" and bool({"port", "pgdata"} & set(change["after"]))
    values = _parameters(change)
    if moves:
        # A fleet gives each member's effective port and directory, so a member that does not move keeps them: they are
        # pinned while the herd's change, and an override equal to the herd's new value is none any more.
        pin = (
            "UPDATE ele_instance SET local_port = effective_port, local_pgdata = effective_pgdata"
            " WHERE herd_id = {herd}"
        )
        cursor.execute(_statement(pin, "herd"), values)
    _write(cursor, change)
    if moves:
        release = (
            "UPDATE ele_instance i SET local_port = nullif(i.local_port, h.db_port),"
            " local_pgdata = nullif(i.local_pgdata, h.pgdata)"
            " FROM ele_herd h WHERE h.herd_id = i.herd_id AND h.herd_id = {herd}"
        )
        cursor.execute(_statement(release, "herd"), values)


def _write_instance(cursor: Any, change: dict[str, Any]) -> None:
    values = _parameters(change)
    if change["action"] == "change" and change["after"].get("role", "replica") != "replica":
        # A check constraint can not be deferred: who becomes primary loses the upstream before that.
        cursor.execute(_statement("UPDATE {table} SET upstream_id = NULL WHERE {found}", "instance"), values)
    if change["action"] == "remove":
        # Its subscribers are given another upstream, or are removed too, before the transaction ends.
        orphan = (
            "UPDATE {table} SET upstream_id = NULL WHERE upstream_id = (SELECT instance_id FROM {table} WHERE {found})"
        )
        cursor.execute(_statement(orphan, "instance"), values)
    _write(cursor, change)


_WRITERS = {
    "environment": _write,
    "datacenter": _write,
    "server": _write,
    "herd": _write_herd,
    "instance": _write_instance,
}


def _write_upstreams(cursor: Any, changes: list[dict[str, Any]]) -> None:
    statement = _statement(
        "UPDATE {table} SET upstream_id = (SELECT u.instance_id FROM ele_instance u"
        " JOIN ele_server s ON s.server_id = u.server_id"
        " WHERE u.herd_id = {herd} AND s.hostname = %(upstream)s) WHERE {found}",
        "instance",
    )
    for change in changes:
        if change["kind"] == "instance" and change["action"] != "remove" and "upstream" in change["after"]:
            cursor.execute(statement, _parameters(change))
