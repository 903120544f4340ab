# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole fleets in the registry: read back, compared and written. Private to the collection.

What a fleet is and what a load changes is decided in module_utils/decide; here it is only carried out.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.fleet import Fleet
from ansible_collections.elephaas.herd.plugins.module_utils.decide.fleet_change import (
    Change,
    fleet_difference,
    in_use,
    kept_roles,
)
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import transaction
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.schema import rehearse_migrations, require_current
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.writing import write_changes

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
          -- What has no token, a hold, was done to nothing but the record.
          OR EXISTS (SELECT 1 FROM ele_operation o WHERE o.herd_id = h.herd_id AND o.token IS NOT NULL)), '[]'),
    'held', coalesce((SELECT json_agg(json_build_array(e.env_name, h.herd_name, h.hold_reason))
        FROM ele_herd h JOIN ele_environment e ON e.environment_id = h.environment_id
       WHERE h.hold_reason IS NOT NULL), '[]'),
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
    held: herds on hold, with the reason.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.live = {tuple(item) for item in document.pop("live", ())}
        self.online = {tuple(item) for item in document.pop("online", ())}
        self.busy = {tuple(item) for item in document.pop("busy", ())}
        self.held = {(environment, herd): reason for environment, herd, reason in document.pop("held", ())}
        self.fleet: Fleet = document


def read_fleet(cursor: Any) -> RecordedFleet:
    """Read the fleet in one SELECT; the cursor's search_path holds the registry's schema (see transaction)."""
    cursor.execute(_FLEET)
    return RecordedFleet(json.loads(cursor.fetchone()[0]))


@contextlib.contextmanager
def changing_fleet(
    connection: Any, schema: str, check_mode: bool, removing: bool
) -> Iterator[tuple[Any, RecordedFleet]]:
    """One transaction over the fleet: gives (cursor, what is recorded), and keeps what was written at its end.

    Check mode keeps nothing; there, pending migrations are rehearsed, so that it also answers before the registry has
    its tables. removing: no operation begins and nothing is seen online between the reading and the end.
    Raises OperatorError REGISTRY_SCHEMA_MISSING, REGISTRY_SCHEMA_OLD.
    """
    if not check_mode:
        require_current(connection, schema)
    with transaction(connection, schema, keep=not check_mode) as cursor:
        if check_mode:
            rehearse_migrations(cursor, connection, schema)
        else:
            # One change of the fleet at a time; readers, check-ins and operations go on …
            cursor.execute("LOCK TABLE ele_environment IN SHARE ROW EXCLUSIVE MODE")
            if removing:
                # … but for a removal, which must not overtake them.
                cursor.execute("LOCK TABLE ele_instance, ele_operation IN SHARE ROW EXCLUSIVE MODE")
        yield cursor, read_fleet(cursor)


def load_fleet(
    connection: Any, schema: str, wanted: Fleet, mode: str, force: bool = False, check_mode: bool = False
) -> dict[str, Any]:
    """Make the registry hold this fleet; see decide.fleet_change.fleet_difference for mode "merged" and "overridden".

    All of it is one transaction (see changing_fleet). Check mode compares and writes nothing.
    Returns {"changed", "changes": [change], "removed": [name], "warnings": [text], "before": Fleet, "after": Fleet}.
    Raises OperatorError FLEET_INVALID, FLEET_IN_USE (what would be removed or given another role is online or has an
    open operation, or its herd is on hold, and force is off), and those of connection.explain.
    """
    with changing_fleet(connection, schema, check_mode, removing=mode == "overridden") as (cursor, recorded):
        changes = fleet_difference(recorded.fleet, wanted, mode, recorded.live)
        if not force:
            _refuse_in_use(changes, recorded)
        after = recorded.fleet
        if changes and not check_mode:
            write_changes(cursor, changes)
            after = read_fleet(cursor).fleet
    warnings = kept_roles(recorded.fleet, wanted, recorded.live) if mode == "merged" else []
    return {
        "changed": bool(changes),
        "changes": changes,
        "removed": [f"{change['kind']} {change['name']}" for change in changes if change["action"] == "remove"],
        "warnings": warnings,
        "before": recorded.fleet,
        "after": after,
    }


def _refuse_in_use(changes: list[Change], recorded: RecordedFleet) -> None:
    problems = in_use(changes, recorded.online, recorded.busy, recorded.live, recorded.held)
    if problems:
        raise OperatorError(
            "FLEET_IN_USE",
            "Nothing was loaded: " + "; ".join(problems) + ".",
            "Correct the fleet file, or, if the registry is what is wrong, run again with force.",
            {"problems": problems},
        )
