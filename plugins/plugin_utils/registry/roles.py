# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Roles and upstreams of a herd's members, moved in one go. Private to the collection."""

from __future__ import annotations

from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.fields import ROLES

Roles = dict[str, dict[str, Any]]


def read_roles(cursor: Any, herd_id: int) -> Roles:
    """The recorded members: server -> {"role", "upstream_server"|None}."""
    cursor.execute(
        "SELECT s.hostname, i.role, us.hostname FROM ele_instance i JOIN ele_server s ON s.server_id = i.server_id"
        " LEFT JOIN ele_instance u ON u.instance_id = i.upstream_id"
        " LEFT JOIN ele_server us ON us.server_id = u.server_id"
        " WHERE i.herd_id = %s ORDER BY s.hostname",
        (herd_id,),
    )
    return {server: {"role": role, "upstream_server": upstream} for server, role, upstream in cursor.fetchall()}


def check_roles(roles: Roles, members: Roles, herd: str) -> None:
    """Raise OperatorError ROLES_INVALID for a server, role or upstream that the herd can not have."""
    for server, wanted in roles.items():
        role, upstream = wanted.get("role"), wanted.get("upstream_server")
        if server not in members:
            raise OperatorError(
                "ROLES_INVALID", f"Herd {herd} has no member on server {server!r}; it has: {', '.join(members)}."
            )
        if role not in ROLES:
            raise OperatorError("ROLES_INVALID", f"{server}: {role!r} is no role; allowed: {', '.join(ROLES)}.")
        if upstream is not None and (upstream not in members or role != "replica"):
            raise OperatorError("ROLES_INVALID", f"{server}: a {role} can not have the upstream {upstream!r}.")


def write_roles(cursor: Any, herd_id: int, roles: Roles) -> list[dict[str, Any]]:
    """Record these roles; members not named keep theirs. One primary and no loop are held by the registry's rules.

    roles: server -> {"role", "upstream_server"|None}. The caller's transaction has its constraints deferred.
    Returns what changed: [{"server", "field", "before", "after"}].
    """
    members = read_roles(cursor, herd_id)
    changes: list[dict[str, Any]] = []
    for server, wanted in roles.items():
        after = {"role": wanted["role"], "upstream_server": wanted.get("upstream_server")}
        before = members[server]
        if after == before:
            continue
        cursor.execute(
            "UPDATE ele_instance i SET role = %(role)s, upstream_id = (SELECT u.instance_id FROM ele_instance u"
            " JOIN ele_server s ON s.server_id = u.server_id WHERE u.herd_id = %(herd)s AND s.hostname = %(upstream)s)"
            " FROM ele_server s WHERE s.server_id = i.server_id AND i.herd_id = %(herd)s AND s.hostname = %(server)s",
            {"role": after["role"], "upstream": after["upstream_server"], "herd": herd_id, "server": server},
        )
        changes.extend(
            {"server": server, "field": field, "before": before[field], "after": after[field]}
            for field in after
            if after[field] != before[field]
        )
    cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    cursor.execute("SET CONSTRAINTS ALL DEFERRED")
    return changes
