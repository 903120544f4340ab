# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry as one document for the inventory plugin: one SELECT, one round trip. Private to the collection."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import as_operator_error, sql

FORMAT = 1

_DOCUMENT = """
SELECT json_build_object(
    'format', {format},
    'read_at', {read_at},
    'servers', coalesce((
        SELECT json_agg(json_build_object(
            'server', s.hostname, 'environment', e.env_name, 'protected', e.protected, 'datacenter', d.dc_name,
            'address', s.address, 'ssh_port', s.ssh_port, 'ssh_user', s.ssh_user, 'dns_name', s.dns_name)
            ORDER BY s.hostname)
          FROM {schema}.ele_server s
          JOIN {schema}.ele_environment e ON e.environment_id = s.environment_id
          LEFT JOIN {schema}.ele_datacenter d ON d.datacenter_id = s.datacenter_id), '[]'),
    'instances', coalesce((
        SELECT json_agg(json_build_object(
            'herd', h.herd_name, 'environment', e.env_name, 'protected', e.protected, 'datacenter', d.dc_name,
            'server', s.hostname, 'address', s.address, 'ssh_port', s.ssh_port, 'ssh_user', s.ssh_user,
            'dns_name', s.dns_name, 'role', i.role, 'upstream_server', us.hostname, 'port', i.effective_port,
            'pgdata', i.effective_pgdata, 'version', i.version, 'vhost', h.vhost, 'lag_bytes', i.lag_bytes,
            'is_online', i.is_online, 'last_seen', {last_seen}, 'system_identifier', i.system_identifier,
            'timeline', i.timeline, 'lsn', i.lsn, 'os_user', h.os_user, 'control', h.control,
            'replication_user', h.replication_user, 'priority', i.priority, 'base_name', h.base_name,
            'hold_reason', h.hold_reason, 'hold_by', h.hold_by, 'hold_since', {hold_since})
            ORDER BY e.env_name, h.herd_name, s.hostname)
          FROM {schema}.ele_instance i
          JOIN {schema}.ele_herd h ON h.herd_id = i.herd_id
          JOIN {schema}.ele_environment e ON e.environment_id = h.environment_id
          JOIN {schema}.ele_server s ON s.server_id = i.server_id
          LEFT JOIN {schema}.ele_datacenter d ON d.datacenter_id = s.datacenter_id
          LEFT JOIN {schema}.ele_instance u ON u.instance_id = i.upstream_id
          LEFT JOIN {schema}.ele_server us ON us.server_id = u.server_id), '[]'),
    'operations', coalesce((
        SELECT json_agg(json_build_object(
            'herd', h.herd_name, 'environment', e.env_name, 'verb', o.verb, 'state', o.state, 'token', o.token,
            'plan_id', o.plan_id, 'from_server', o.from_server, 'to_server', o.to_server, 'operator', o.operator,
            'lease_until', {lease_until}, 'started', {started}, 'finished', {finished},
            'unplanned', coalesce(o.plan->>'unplanned' = 'true', false))
            ORDER BY e.env_name, h.herd_name, o.operation_id)
          FROM {schema}.ele_operation o
          JOIN {schema}.ele_herd h ON h.herd_id = o.herd_id
          JOIN {schema}.ele_environment e ON e.environment_id = h.environment_id
         WHERE o.state IN ('open', 'incomplete')
            OR o.operation_id = (SELECT max(n.operation_id) FROM {schema}.ele_operation n
                                  WHERE n.herd_id = o.herd_id AND n.state = 'done' AND n.verb = 'failover')), '[]')
)::text
"""


def iso_utc(expression: str) -> Any:
    """SQL for a timestamptz expression of ours (never a value) as ISO 8601 in UTC."""
    return sql.SQL(f"""to_char({expression} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""")


def read_inventory(connection: Any, schema: str) -> dict[str, Any]:
    """Everything the inventory needs: {"format", "read_at", "servers", "instances", "operations"}.

    Per herd, operations holds the open one (state open or incomplete) if there is one, and the newest failover that
    is done. Times are ISO 8601 in UTC. Raises OperatorError REGISTRY_SCHEMA_MISSING, REGISTRY_SCHEMA_OLD, ….
    """
    statement = sql.SQL(_DOCUMENT).format(
        format=sql.Literal(FORMAT),
        schema=sql.Identifier(schema),
        read_at=iso_utc("now()"),
        last_seen=iso_utc("i.last_seen"),
        hold_since=iso_utc("h.hold_since"),
        lease_until=iso_utc("o.lease_until"),
        started=iso_utc("o.started_dt"),
        finished=iso_utc("o.finished_dt"),
    )
    with as_operator_error(), connection.cursor() as cursor:
        cursor.execute(statement)
        return json.loads(cursor.fetchone()[0])
