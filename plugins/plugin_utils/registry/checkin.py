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
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import (
    as_operator_error,
    explain,
    psycopg2,
    sql,
    transaction,
)
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.roles import (
    Roles,
    check_roles,
    read_roles,
    write_roles,
)

HerdKey = tuple[str, str]
"""Environment and herd."""

# What is recorded of an instance, and of which type; a record set of JSON carries all of a fleet in one statement.
_COLUMNS = {
    "is_online": "boolean",
    "version": "text",
    "system_identifier": "text",
    "timeline": "bigint",
    "lsn": "pg_lsn",
    "lag_bytes": "bigint",
}


def check_in(
    connection: Any, schema: str, observations: list[dict[str, Any]], operator: str, check_mode: bool = False
) -> dict[str, Any]:
    """Record observations: [{"herd", "environment", "server", "facts"|None, "reachable", "error"|None}].

    One transaction for all: a registry may be far away, and a round trip for each of a thousand instances is a minute.
    When it fails, each herd gets one of its own, so that one herd's trouble is not another's.
    Returns {"changed", "differences": [{"instance", "field", "before", "after"}],
    "reconciled": [{"herd", "from_server", "to_server", "operation_id", "plan_id", "roles"}],
    "mismatches": [{"instance"|None, "herd", "code", "reason"}]}.
    Positions, lag and the time of last sight are recorded too, but are no differences.
    """
    herds: dict[HerdKey, list[dict[str, Any]]] = {}
    for item in observations:
        herds.setdefault((item["environment"], item["herd"]), []).append(item)
    try:
        result = _record(connection, schema, herds, operator, check_mode)
    except OperatorError:
        if connection.closed:
            raise
        result = _nothing()
        for key, items in sorted(herds.items()):
            part = _record_alone(connection, schema, key, items, operator, check_mode)
            for name, entries in part.items():
                result[name].extend(entries)
    return {**result, "changed": bool(result["differences"] or result["reconciled"])}


def _mismatch(environment: str, herd: str, server: str | None, code: str, reason: str) -> dict[str, Any]:
    return {
        "instance": instance_name(herd, environment, server) if server else None,
        "herd": herd_name(herd, environment),
        "code": code,
        "reason": reason,
    }


def _nothing() -> dict[str, list[dict[str, Any]]]:
    return {"differences": [], "reconciled": [], "mismatches": []}


def _record_alone(
    connection: Any, schema: str, key: HerdKey, items: list[dict[str, Any]], operator: str, check_mode: bool
) -> dict[str, list[dict[str, Any]]]:
    """Record what was seen of one herd; what keeps it from that is a mismatch."""
    try:
        return _record(connection, schema, {key: items}, operator, check_mode)
    except OperatorError as error:
        return {**_nothing(), "mismatches": [_mismatch(*key, None, error.code, error.reason)]}


def _record(
    connection: Any, schema: str, herds: dict[HerdKey, list[dict[str, Any]]], operator: str, check_mode: bool
) -> dict[str, list[dict[str, Any]]]:
    """Record what was seen of these herds in one transaction. Raises OperatorError, and then nothing is recorded."""
    found = _nothing()
    with as_operator_error(), transaction(connection, schema, keep=not check_mode) as cursor:
        records = operations.lock_herds(cursor, herds)
        herd_ids = [record["herd_id"] for record in records.values()]
        members = _members(cursor, herd_ids)
        open_operations = operations.open_operations(cursor, herd_ids)
        rows: list[dict[str, Any]] = []
        reconciliations = []
        rejoined = []
        for key, items in sorted(herds.items()):
            environment, herd = key
            if key not in records:
                error = operations.herd_unknown(herd, environment)
                found["mismatches"].append(_mismatch(environment, herd, None, error.code, error.reason))
                continue
            herd_id = records[key]["herd_id"]
            recorded = members.get(herd_id, {})
            seen = {}
            for item in items:
                if item["server"] in recorded:
                    seen[item["server"]] = item
                else:
                    reason = "the registry has no such member"
                    found["mismatches"].append(_mismatch(environment, herd, item["server"], "INSTANCE_UNKNOWN", reason))
            operation = open_operations.get(herd_id)
            verdicts = observation.judge(recorded, operation, records[key]["last_token"], seen)
            for mismatch in verdicts.mismatches:
                found["mismatches"].append(_mismatch(*key, mismatch.server, mismatch.code, mismatch.reason))
            for server, values in verdicts.values.items():
                row, changes = _merged(recorded, server, values)
                rows.append(row)
                found["differences"].extend(
                    {"instance": instance_name(herd, environment, server), **change} for change in changes
                )
            if verdicts.rejoined:
                rejoined.append((key, herd_id, verdicts.rejoined))
            if verdicts.reconciliation:
                reconciliations.append((key, records[key], operation, verdicts.reconciliation))
        _write(cursor, rows)
        for herd_key, herd_id, roles in rejoined:
            _write_roles(cursor, herd_key, herd_id, roles, found)
        for herd_key, record, operation, reconciliation in reconciliations:
            _reconcile(cursor, herd_key, record, operation, reconciliation, operator, check_mode, found)
    # Only what the transaction kept is told.
    return found


def _members(cursor: Any, herd_ids: list[int]) -> dict[int, dict[str, dict[str, Any]]]:
    """herd_id -> server -> what is recorded of that member."""
    cursor.execute(
        "SELECT i.herd_id, s.hostname, json_build_object('instance_id', i.instance_id, 'role', i.role,"
        " 'upstream_server', us.hostname, 'is_online', i.is_online,"
        " 'version', i.version, 'system_identifier', i.system_identifier, 'timeline', i.timeline, 'lsn', i.lsn,"
        " 'lag_bytes', i.lag_bytes, 'port', i.effective_port,"
        " 'names', array_remove(ARRAY[s.hostname, s.address, s.dns_name], NULL))::text"
        " FROM ele_instance i JOIN ele_server s ON s.server_id = i.server_id"
        " LEFT JOIN ele_instance u ON u.instance_id = i.upstream_id"
        " LEFT JOIN ele_server us ON us.server_id = u.server_id"
        " WHERE i.herd_id = ANY (%s) ORDER BY s.hostname",
        (herd_ids,),
    )
    members: dict[int, dict[str, dict[str, Any]]] = {}
    for herd_id, server, document in cursor.fetchall():
        members.setdefault(herd_id, {})[server] = json.loads(document)
    return members


def _merged(
    members: dict[str, dict[str, Any]], server: str, values: dict[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The row of one instance with what was seen put in, and what changed besides the volatile."""
    before = members[server]
    after = {column: values.get(column, before[column]) for column in _COLUMNS}
    upstream = values.get("upstream_server", before["upstream_server"])
    upstream_id = members[upstream]["instance_id"] if upstream in members else None
    row = {
        **after,
        "instance_id": before["instance_id"],
        "upstream_id": upstream_id,
        # Whoever changes it on record meanwhile must not find it changed back by a look that has nothing to say of it.
        "moves": upstream != before["upstream_server"],
    }
    after["upstream_server"] = upstream
    changes = [
        {"field": field, "before": before[field], "after": value}
        for field, value in after.items()
        if field not in observation.VOLATILE and value != before[field]
    ]
    return row, changes


def _write(cursor: Any, rows: list[dict[str, Any]]) -> None:
    cursor.execute(
        sql.SQL(
            "UPDATE ele_instance i SET {values},"
            " upstream_id = CASE WHEN seen.moves THEN seen.upstream_id ELSE i.upstream_id END,"
            " last_seen = CASE WHEN seen.is_online THEN now() ELSE i.last_seen END"
            " FROM json_to_recordset(%s) AS seen (instance_id int, upstream_id int, moves boolean, {types})"
            " WHERE i.instance_id = seen.instance_id"
        ).format(
            values=sql.SQL(", ".join(f"{name} = seen.{name}" for name in _COLUMNS)),
            types=sql.SQL(", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())),
        ),
        (json.dumps(rows),),
    )


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
    if not _write_roles(cursor, key, herd["herd_id"], found.roles, result):
        return
    operation_id = None
    if not check_mode:
        operation_id = _history(cursor, key, herd, operation, found, operator)
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


def _write_roles(
    cursor: Any, key: HerdKey, herd_id: int, roles: Roles, result: dict[str, list[dict[str, Any]]]
) -> bool:
    """Record these roles, and what changed by that; False, and a mismatch, when a rule of the registry refuses them."""
    environment, name = key
    check_roles(roles, read_roles(cursor, herd_id), herd_name(name, environment))
    # An upstream may have been seen in the middle of a change: the facts are kept anyway.
    cursor.execute("SAVEPOINT roles")
    try:
        changes = write_roles(cursor, herd_id, roles)
    except psycopg2.Error as error:
        reason = explain(error).reason
        cursor.execute("ROLLBACK TO SAVEPOINT roles")
        result["mismatches"].append(_mismatch(environment, name, next(iter(roles)), "ROLES_REFUSED", reason))
        return False
    result["differences"].extend(
        {
            "instance": instance_name(name, environment, change["server"]),
            "field": change["field"],
            "before": change["before"],
            "after": change["after"],
        }
        for change in changes
    )
    return True


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
