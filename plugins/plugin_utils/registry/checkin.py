# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Record what was seen of herds, and reconcile what was done without the registry. Private to the collection."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.names import herd_name, instance_name
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry import observation, operations
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import explain, psycopg2, transaction
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.roles import check_roles, read_roles, write_roles

_COLUMNS = ("is_online", "version", "system_identifier", "timeline", "lsn", "lag_bytes")


def check_in(
    connection: Any, schema: str, observations: list[dict[str, Any]], operator: str, check_mode: bool = False
) -> dict[str, Any]:
    """Record observations: [{"herd", "environment", "server", "facts"|None, "reachable", "error"|None}].

    One transaction per herd, so that one herd's trouble is not another's.
    Returns {"changed", "differences": [{"instance", "field", "before", "after"}],
    "reconciled": [{"herd", "from_server", "to_server", "operation_id", "plan_id", "roles"}],
    "mismatches": [{"instance"|None, "herd", "code", "reason"}]}.
    Positions, lag and the time of last sight are recorded too, but are no differences.
    """
    herds: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for item in observations:
        herds.setdefault((item["environment"], item["herd"]), []).append(item)
    result: dict[str, Any] = {"differences": [], "reconciled": [], "mismatches": []}
    for (environment, herd), items in sorted(herds.items()):
        try:
            _one_herd(connection, schema, (environment, herd), items, operator, check_mode, result)
        except OperatorError as error:
            result["mismatches"].append(_mismatch(environment, herd, None, error.code, error.reason))
    result["changed"] = bool(result["differences"] or result["reconciled"])
    return result


def _mismatch(environment: str, herd: str, server: str | None, code: str, reason: str) -> dict[str, Any]:
    return {
        "instance": instance_name(herd, environment, server) if server else None,
        "herd": herd_name(herd, environment),
        "code": code,
        "reason": reason,
    }


def _one_herd(
    connection: Any,
    schema: str,
    key: tuple[str, str],
    items: list[dict[str, Any]],
    operator: str,
    check_mode: bool,
    result: dict[str, Any],
) -> None:
    environment, herd = key
    found: dict[str, list[dict[str, Any]]] = {"differences": [], "reconciled": [], "mismatches": []}
    with transaction(connection, schema, keep=not check_mode) as cursor:
        record = operations.lock_herd(cursor, herd, environment)
        members = _members(cursor, record["herd_id"])
        operation = operations.open_operation(cursor, record["herd_id"])
        seen = {}
        for item in items:
            if item["server"] in members:
                seen[item["server"]] = item
            else:
                found["mismatches"].append(
                    _mismatch(environment, herd, item["server"], "INSTANCE_UNKNOWN", "the registry has no such member")
                )
        verdicts = observation.judge(members, operation, record["last_token"], seen)
        for mismatch in verdicts.mismatches:
            found["mismatches"].append(_mismatch(environment, herd, mismatch.server, mismatch.code, mismatch.reason))
        for server, values in verdicts.values.items():
            changes = _record(cursor, record["herd_id"], server, members[server], values)
            found["differences"].extend(
                {"instance": instance_name(herd, environment, server), **change} for change in changes
            )
        if verdicts.reconciliation:
            _reconcile(cursor, key, record, operation, verdicts.reconciliation, operator, check_mode, found)
    # Only what the transaction kept is told.
    for name, entries in found.items():
        result[name].extend(entries)


def _members(cursor: Any, herd_id: int) -> dict[str, dict[str, Any]]:
    cursor.execute(
        "SELECT s.hostname, json_build_object('role', i.role, 'upstream_server', us.hostname, 'is_online', i.is_online,"
        " 'version', i.version, 'system_identifier', i.system_identifier, 'timeline', i.timeline, 'lsn', i.lsn,"
        " 'lag_bytes', i.lag_bytes, 'port', i.effective_port,"
        " 'names', array_remove(ARRAY[s.hostname, s.address, s.dns_name], NULL))::text"
        " FROM ele_instance i JOIN ele_server s ON s.server_id = i.server_id"
        " LEFT JOIN ele_instance u ON u.instance_id = i.upstream_id"
        " LEFT JOIN ele_server us ON us.server_id = u.server_id"
        " WHERE i.herd_id = %s ORDER BY s.hostname",
        (herd_id,),
    )
    return {server: json.loads(document) for server, document in cursor.fetchall()}


def _record(
    cursor: Any, herd_id: int, server: str, before: dict[str, Any], values: dict[str, Any]
) -> list[dict[str, Any]]:
    """Write what is known of one instance; returns what changed besides the volatile."""
    after = {column: values.get(column, before[column]) for column in _COLUMNS}
    upstream = values.get("upstream_server", before["upstream_server"])
    cursor.execute(
        "UPDATE ele_instance i SET is_online = %(is_online)s, version = %(version)s,"
        " system_identifier = %(system_identifier)s, timeline = %(timeline)s, lsn = %(lsn)s, lag_bytes = %(lag_bytes)s,"
        " last_seen = CASE WHEN %(is_online)s THEN now() ELSE last_seen END,"
        " upstream_id = (SELECT u.instance_id FROM ele_instance u JOIN ele_server us ON us.server_id = u.server_id"
        "                 WHERE u.herd_id = %(herd)s AND us.hostname = %(upstream)s)"
        " FROM ele_server s WHERE s.server_id = i.server_id AND i.herd_id = %(herd)s AND s.hostname = %(server)s",
        {**after, "upstream": upstream, "herd": herd_id, "server": server},
    )
    after["upstream_server"] = upstream
    return [
        {"field": field, "before": before[field], "after": value}
        for field, value in after.items()
        if field not in observation.VOLATILE and value != before[field]
    ]


def _reconcile(
    cursor: Any,
    key: tuple[str, str],
    herd: dict[str, Any],
    operation: dict[str, Any] | None,
    found: observation.Reconciliation,
    operator: str,
    check_mode: bool,
    result: dict[str, list[dict[str, Any]]],
) -> None:
    environment, name = key
    members = read_roles(cursor, herd["herd_id"])
    check_roles(found.roles, members, herd_name(name, environment))
    # A rule of the registry may refuse this (an upstream seen in the middle of a change): the facts are kept anyway.
    cursor.execute("SAVEPOINT roles")
    try:
        changes = write_roles(cursor, herd["herd_id"], found.roles)
    except psycopg2.Error as error:
        reason = explain(error).reason
        cursor.execute("ROLLBACK TO SAVEPOINT roles")
        result["mismatches"].append(_mismatch(environment, name, found.to_server, "ROLES_REFUSED", reason))
        return
    operation_id = None
    if not check_mode:
        operation_id = _history(cursor, key, herd, operation, found, operator)
    result["differences"].extend(
        {
            "instance": instance_name(name, environment, change["server"]),
            "field": change["field"],
            "before": change["before"],
            "after": change["after"],
        }
        for change in changes
    )
    result["reconciled"].append(
        {
            "herd": herd_name(name, environment),
            "from_server": found.from_server,
            "to_server": found.to_server,
            "operation_id": operation_id,
            "plan_id": (found.record or {}).get("plan_id"),
            "roles": found.roles,
        }
    )


def _history(
    cursor: Any,
    key: tuple[str, str],
    herd: dict[str, Any],
    operation: dict[str, Any] | None,
    found: observation.Reconciliation,
    operator: str,
) -> int:
    """Record the failover that the registry did not see; in a registry that only learns who is primary, as such."""
    record = found.record or {}
    detail = {"reconciled_by": operator, "explained_by_hosts": bool(record)}
    if operation and operation["token"] == record.get("token"):
        # Its own open operation: finished on the hosts, and the answer was lost.
        operations.close(cursor, operation["operation_id"], "done", detail)
        cursor.execute(
            "UPDATE ele_operation SET without_registry = true WHERE operation_id = %s", (operation["operation_id"],)
        )
        return int(operation["operation_id"])
    token = max(herd["last_token"] + 1, record.get("token") or 0)
    if operation:
        operations.close(
            cursor, operation["operation_id"], "superseded", {"left_as": "incomplete", "superseded_by_token": token}
        )
    cursor.execute("UPDATE ele_herd SET last_token = %s WHERE herd_id = %s", (token, herd["herd_id"]))
    cursor.execute(
        "INSERT INTO ele_operation (herd_id, env_name, herd_name, verb, state, token, plan_id, from_server, to_server,"
        " operator, finished_dt, detail, without_registry)"
        " VALUES (%s, %s, %s, 'failover', 'done', %s, %s, %s, %s, %s, clock_timestamp(), %s, true)"
        " RETURNING operation_id",
        (
            herd["herd_id"], *key, token, record.get("plan_id"), found.from_server, found.to_server,
            str(record.get("operator") or operator), json.dumps(detail),
        ),
    )  # fmt: skip
    return int(cursor.fetchone()[0])


def as_lines(mismatches: list[dict[str, Any]]) -> list[str]:
    """Mismatches in words, for warnings."""
    return [f"{item['instance'] or item['herd']}: {item['reason']} [{item['code']}]" for item in mismatches]
