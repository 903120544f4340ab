# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Operations on a herd: one at a time, by lease and increasing token; phases, history. Private to the collection.

A lease says who acts now; the token says whose word still counts. Both go by the registry's clock. A run that lost its
lease finds its token refused here, and on the members' hosts, where the same token is mirrored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.hold import NEXT_STEP, hold_of, hold_text
from ansible_collections.elephaas.herd.plugins.module_utils.decide.names import herd_name
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import sql, transaction
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.holder import proven_dead, same_process
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.inventory import iso_utc
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.roles import (
    Roles,
    check_roles,
    read_roles,
    write_roles,
)

DEFAULT_LEASE_S = 120
OUTCOMES = ("done", "failed", "aborted", "incomplete", "refused")

# Columns of an operation as JSON; the FOR UPDATE that some callers add makes one run at a time decide.
_OPERATION = """
SELECT o.herd_id, json_build_object(
    'operation_id', o.operation_id, 'herd', o.herd_name, 'environment', o.env_name, 'verb', o.verb, 'state', o.state,
    'token', o.token, 'plan_id', o.plan_id, 'from_server', o.from_server, 'to_server', o.to_server,
    'operator', o.operator, 'holder', o.holder, 'lease_until', {lease},
    'lease_live', o.state = 'open' AND coalesce(o.lease_until > clock_timestamp(), false),
    'started', {started}, 'finished', {finished}, 'plan', o.plan, 'phases', o.phases, 'detail', o.detail, 'awx', o.awx,
    'without_registry', o.without_registry)::text
  FROM ele_operation o
"""


def _operations(cursor: Any, where: str, values: tuple[Any, ...]) -> list[dict[str, Any]]:
    """Operations by a condition that is a constant of the calling code."""
    return [operation for _herd_id, operation in _with_herd(cursor, where, values)]


def _with_herd(cursor: Any, where: str, values: tuple[Any, ...]) -> list[tuple[int, dict[str, Any]]]:
    """The same, each with the herd_id of its herd."""
    statement = sql.SQL(_OPERATION).format(
        lease=iso_utc("o.lease_until"), started=iso_utc("o.started_dt"), finished=iso_utc("o.finished_dt")
    )
    cursor.execute(statement + sql.SQL(where), values)
    return [(herd_id, json.loads(document)) for herd_id, document in cursor.fetchall()]


def lock_herds(cursor: Any, herds: Iterable[tuple[str, str]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Pairs of environment and herd, as far as the registry knows them, each as read_herds has it,
    and locked: who decides about a herd's operations comes one by one.
    """
    wanted = list(herds)
    # An advisory lock: a row lock would need the right to update herds, which reporters do not have. The locks are
    # taken in the order of the subquery, so that two runs over many herds do not wait for each other.
    cursor.execute(
        "SELECT env_name, herd_name, herd_id,"
        " pg_advisory_xact_lock(hashtextextended('elephaas herd ' || current_schema(), 0) # herd_id)"
        "  FROM (SELECT e.env_name, h.herd_name, h.herd_id FROM ele_herd h JOIN ele_environment e USING (environment_id)"
        "         JOIN unnest(%s::text[], %s::text[]) AS wanted (env_name, herd_name) USING (env_name, herd_name)"
        "         ORDER BY h.herd_id OFFSET 0) known",
        ([environment for environment, _herd in wanted], [herd for _environment, herd in wanted]),
    )
    found = {(environment, herd): herd_id for environment, herd, herd_id, _lock in cursor.fetchall()}
    # A second statement: the first one's snapshot is from before the locks were granted.
    records = read_herds(cursor, list(found.values()))
    return {key: records[herd_id] for key, herd_id in found.items() if herd_id in records}


def read_herds(cursor: Any, herd_ids: list[int]) -> dict[int, dict[str, Any]]:
    """By herd_id: {"herd_id", "last_token", "hold_reason", "hold_by", "hold_since" (ISO 8601 in UTC)}."""
    cursor.execute(
        sql.SQL(
            "SELECT herd_id, last_token, hold_reason, hold_by, {since} FROM ele_herd WHERE herd_id = ANY (%s)"
        ).format(since=iso_utc("hold_since")),
        (herd_ids,),
    )
    keys = ("herd_id", "last_token", "hold_reason", "hold_by", "hold_since")
    return {row[0]: dict(zip(keys, row, strict=True)) for row in cursor.fetchall()}


def lock_herd(cursor: Any, herd: str, environment: str) -> dict[str, Any]:
    """One herd, as lock_herds has it. Raises OperatorError HERD_UNKNOWN."""
    found = lock_herds(cursor, [(environment, herd)])
    if not found:
        raise herd_unknown(herd, environment)
    return found[(environment, herd)]


def herd_unknown(herd: str, environment: str) -> OperatorError:
    """The error for a herd that the registry does not have."""
    return OperatorError(
        "HERD_UNKNOWN",
        f"The registry knows no herd {herd!r} in environment {environment!r}.",
        "Load it with elephaas.herd.registry_load, or correct the name.",
    )


def open_operation(cursor: Any, herd_id: int) -> dict[str, Any] | None:
    """The herd's open (or incomplete) operation, None when there is none."""
    return open_operations(cursor, [herd_id]).get(herd_id)


def open_operations(cursor: Any, herd_ids: list[int]) -> dict[int, dict[str, Any]]:
    """The open (or incomplete) operations of these herds, by herd_id; a herd has one at most."""
    return dict(_with_herd(cursor, " WHERE o.herd_id = ANY (%s) AND o.state IN ('open', 'incomplete')", (herd_ids,)))


def history(cursor: Any, environments: list[str], herds: list[str], limit: int) -> list[dict[str, Any]]:
    """The newest operations first, of these environments and herds (name, or herd_environment); empty means all."""
    return _operations(
        cursor,
        " WHERE (%s::text[] = '{}' OR o.env_name = ANY (%s::text[]))"
        " AND (%s::text[] = '{}' OR o.herd_name = ANY (%s::text[])"
        " OR o.herd_name || '_' || o.env_name = ANY (%s::text[]))"
        " ORDER BY o.operation_id DESC LIMIT %s",
        (environments, environments, herds, herds, herds, limit),
    )


def begin(connection: Any, schema: str, request: dict[str, Any], check_mode: bool = False) -> dict[str, Any]:
    """Take the herd's lease for an operation, or resume the one that was left open.

    request: herd, environment, verb, plan_id, from_server, to_server, operator, plan (dict), lease_s, token_floor,
    holder (see holder.this_holder), awx (dict).
    A live lease is refused, unless its holder is proven dead on this very host or is this very run. An operation left
    open is resumed when verb, plan_id, from_server and to_server are the same; otherwise it is superseded, except that
    only a failover supersedes a failover: what it left half done must be finished, not forgotten. The token grows.
    Returns {"operation", "resumed": bool, "took_over": operation|None}; in check mode the operation as it would be,
    with the token that it would get.
    Raises OperatorError OPERATION_HELD, OPERATION_OPEN, HERD_ON_HOLD, HERD_UNKNOWN, SERVER_NOT_MEMBER.
    """
    name = herd_name(request["herd"], request["environment"])
    with transaction(connection, schema, keep=not check_mode) as cursor:
        herd = lock_herd(cursor, request["herd"], request["environment"])
        hold = hold_of(herd["hold_reason"], herd["hold_by"], herd["hold_since"])
        if hold:
            raise OperatorError("HERD_ON_HOLD", f"Herd {name} is on hold: {hold_text(hold)}", NEXT_STEP)
        members = read_roles(cursor, herd["herd_id"])
        for server in (request.get("from_server"), request.get("to_server")):
            if server and server not in members:
                raise OperatorError(
                    "SERVER_NOT_MEMBER", f"Herd {name} has no member on {server!r}; it has: {', '.join(members)}."
                )

        found = open_operation(cursor, herd["herd_id"])
        resumed = found is not None and all(
            found[key] == request.get(key) for key in ("verb", "plan_id", "from_server", "to_server")
        )
        if found and found["lease_live"] and not proven_dead(found["holder"]):
            # This very run may ask again for what it holds, such as after a lost answer.
            if not (resumed and same_process(found["holder"], request["holder"])):
                raise _held(name, found)
        if found and found["verb"] == "failover" != request["verb"]:
            raise OperatorError(
                "OPERATION_OPEN",
                f"A failover of herd {name} from {found['from_server']} to {found['to_server']} by {found['operator']},"
                f" begun {found['started']}, is not finished.",
                "Finish it first, by the same command that began it.",
                {key: found[key] for key in ("operator", "started", "plan_id", "from_server", "to_server")},
            )
        token = max(herd["last_token"], request.get("token_floor") or 0) + 1
        if check_mode:
            planned = {
                **(found if resumed and found else {"operation_id": None, "phases": []}),
                **_would_be(request, token),
            }
            return {"operation": planned, "resumed": resumed, "took_over": found}

        cursor.execute("UPDATE ele_herd SET last_token = %s WHERE herd_id = %s", (token, herd["herd_id"]))
        values = {
            **{
                key: request.get(key)
                for key in ("herd", "environment", "verb", "plan_id", "from_server", "to_server", "operator")
            },
            "herd_id": herd["herd_id"],
            "token": token,
            "holder": json.dumps(request["holder"]),
            "plan": json.dumps(request.get("plan") or {}),
            "awx": json.dumps(request.get("awx") or {}),
            "lease_s": request.get("lease_s") or DEFAULT_LEASE_S,
        }
        if resumed and found:
            operation_id = _resume(cursor, found, values)
        else:
            operation_id = _open(cursor, found, values)
        return {"operation": _by_id(cursor, operation_id), "resumed": resumed, "took_over": found}


def _held(name: str, found: dict[str, Any]) -> OperatorError:
    holder = found["holder"]
    return OperatorError(
        "OPERATION_HELD",
        f"{found['operator']} is running {found['verb']} on herd {name} since {found['started']}"
        f" (on {holder.get('host', 'an unknown host')}, process {holder.get('pid', 'unknown')};"
        f" lease until {found['lease_until']}).",
        "Wait for it, or ask them. Should their run be dead, its lease ends by itself and the same command takes over.",
        {
            key: found[key]
            for key in ("operator", "verb", "started", "lease_until", "token", "plan_id", "from_server", "to_server")
        },
    )


def _would_be(request: dict[str, Any], token: int) -> dict[str, Any]:
    keys = ("herd", "environment", "verb", "plan_id", "from_server", "to_server", "operator")
    return {**{key: request.get(key) for key in keys}, "state": "open", "token": token}


def _resume(cursor: Any, found: dict[str, Any], values: dict[str, Any]) -> int:
    cursor.execute(
        "UPDATE ele_operation SET state = 'open', token = %(token)s, operator = %(operator)s, holder = %(holder)s,"
        " plan = %(plan)s, awx = %(awx)s, finished_dt = NULL,"
        " lease_until = clock_timestamp() + %(lease_s)s * interval '1 second' WHERE operation_id = %(operation_id)s",
        {**values, "operation_id": found["operation_id"]},
    )
    _add_phase(
        cursor, found["operation_id"], "resumed", {"from_token": found["token"], "from_operator": found["operator"]}
    )
    return int(found["operation_id"])


def _open(cursor: Any, found: dict[str, Any] | None, values: dict[str, Any]) -> int:
    if found:
        cursor.execute(
            "UPDATE ele_operation SET state = 'superseded', finished_dt = clock_timestamp(), lease_until = NULL,"
            " detail = detail || %s WHERE operation_id = %s",
            (
                json.dumps(
                    {
                        "left_as": "incomplete",
                        "superseded_by_token": values["token"],
                        "superseded_by": values["operator"],
                    }
                ),
                found["operation_id"],
            ),
        )
    cursor.execute(
        "INSERT INTO ele_operation (herd_id, env_name, herd_name, verb, token, plan_id, from_server, to_server,"
        " operator, holder, plan, awx, lease_until)"
        " VALUES (%(herd_id)s, %(environment)s, %(herd)s, %(verb)s, %(token)s, %(plan_id)s,"
        " %(from_server)s, %(to_server)s, %(operator)s, %(holder)s, %(plan)s, %(awx)s,"
        " clock_timestamp() + %(lease_s)s * interval '1 second') RETURNING operation_id",
        values,
    )
    return int(cursor.fetchone()[0])


def _by_id(cursor: Any, operation_id: int) -> dict[str, Any]:
    return _operations(cursor, " WHERE o.operation_id = %s", (operation_id,))[0]


def _add_phase(cursor: Any, operation_id: int, name: str, detail: dict[str, Any]) -> None:
    cursor.execute(
        sql.SQL(
            "UPDATE ele_operation SET phases = phases || jsonb_build_array(jsonb_build_object("
            "'name', %s::text, 'at', {now}, 'detail', %s::jsonb)) WHERE operation_id = %s"
        ).format(now=iso_utc("clock_timestamp()")),
        (name, json.dumps(detail), operation_id),
    )


def _by_token(cursor: Any, herd: dict[str, Any], token: int, name: str) -> dict[str, Any]:
    """The operation whose word this token is; OperatorError TOKEN_STALE when another one's counts by now."""
    found = _operations(cursor, " WHERE o.herd_id = %s AND o.token = %s", (herd["herd_id"], token))
    if found:
        return found[0]
    now = open_operation(cursor, herd["herd_id"])
    by = f" Since then {now['operator']} took it over (token {now['token']}, {now['started']})." if now else ""
    raise OperatorError(
        "TOKEN_STALE",
        f"Token {token} is no longer that of an operation on herd {name}.{by}",
        "Stop this run. Look at the herd before anything else is done to it.",
        {"token": token, "last_token": herd["last_token"]},
    )


def record_phase(
    connection: Any,
    schema: str,
    request: dict[str, Any],
    check_mode: bool = False,
) -> dict[str, Any]:
    """Record that a phase was reached, and renew the lease.

    request: herd, environment, token, phase (name), detail (dict), lease_s.
    Returns {"operation"}. Raises OperatorError TOKEN_STALE, OPERATION_CLOSED, HERD_UNKNOWN.
    """
    name = herd_name(request["herd"], request["environment"])
    with transaction(connection, schema, keep=not check_mode) as cursor:
        herd = lock_herd(cursor, request["herd"], request["environment"])
        found = _by_token(cursor, herd, request["token"], name)
        _require_open(found, name)
        _add_phase(cursor, found["operation_id"], request["phase"], request.get("detail") or {})
        cursor.execute(
            "UPDATE ele_operation SET lease_until = clock_timestamp() + %s * interval '1 second'"
            " WHERE operation_id = %s",
            (request.get("lease_s") or DEFAULT_LEASE_S, found["operation_id"]),
        )
        return {"operation": _by_id(cursor, found["operation_id"])}


def verify_token(connection: Any, schema: str, environment: str, herd: str, token: int) -> dict[str, Any]:
    """The open operation whose token this is. Reads only.

    Raises OperatorError TOKEN_STALE, OPERATION_CLOSED, HERD_UNKNOWN.
    """
    name = herd_name(herd, environment)
    with transaction(connection, schema, keep=False) as cursor:
        found = _by_token(cursor, lock_herd(cursor, herd, environment), token, name)
    _require_open(found, name)
    return found


def _require_open(found: dict[str, Any], name: str) -> None:
    if found["state"] != "open":
        raise OperatorError("OPERATION_CLOSED", f"The operation on herd {name} is closed as {found['state']} already.")


def finish(connection: Any, schema: str, request: dict[str, Any], check_mode: bool = False) -> dict[str, Any]:
    """Close an operation; what it made of roles and of who is online is recorded in the same transaction.

    request: herd, environment, token, outcome (one of OUTCOMES), detail (dict), roles (server -> role and
    upstream_server; those of a failover only when it is done, and it has them by itself), online (server -> bool: as just seen).
    "incomplete" gives up the lease and leaves the operation to be resumed. Finishing twice the same way changes
    nothing.
    Returns {"changed", "operation", "role_changes": [{"server", "field", "before", "after"}]}.
    Raises OperatorError TOKEN_STALE, OPERATION_CLOSED, ROLES_INVALID, HERD_UNKNOWN, REGISTRY_RULE.
    """
    name = herd_name(request["herd"], request["environment"])
    outcome = request["outcome"]
    with transaction(connection, schema, keep=not check_mode) as cursor:
        herd = lock_herd(cursor, request["herd"], request["environment"])
        found = _by_token(cursor, herd, request["token"], name)
        if found["state"] == outcome:
            return {"changed": False, "operation": found, "role_changes": []}
        if found["state"] not in ("open", "incomplete"):
            raise OperatorError(
                "OPERATION_CLOSED", f"The operation on herd {name} is closed as {found['state']}, so not as {outcome}."
            )
        role_changes = []
        roles: Roles = {}
        if found["verb"] != "failover":
            roles = request.get("roles") or {}
        elif outcome == "done":
            roles = {**default_roles(found["from_server"], found["to_server"]), **(request.get("roles") or {})}
        if roles:
            check_roles(roles, read_roles(cursor, herd["herd_id"]), name)
            role_changes = write_roles(cursor, herd["herd_id"], roles)
        for server, online in (request.get("online") or {}).items():
            cursor.execute(
                "UPDATE ele_instance i SET is_online = %s, last_seen = clock_timestamp() FROM ele_server s"
                " WHERE s.server_id = i.server_id AND i.herd_id = %s AND s.hostname = %s",
                (online, herd["herd_id"], server),
            )
        close(cursor, found["operation_id"], outcome, request.get("detail") or {})
        return {"changed": True, "operation": _by_id(cursor, found["operation_id"]), "role_changes": role_changes}


def note(
    cursor: Any,
    herd_id: int,
    environment: str,
    herd: str,
    verb: str,
    operator: str,
    awx: dict[str, Any],
    detail: dict[str, Any],
) -> None:
    """Put into the history what was done to a herd's record alone: it claims nothing, so it has no token and no lease."""
    cursor.execute(
        "INSERT INTO ele_operation (herd_id, env_name, herd_name, verb, state, operator, awx, detail, finished_dt)"
        " VALUES (%s, %s, %s, %s, 'done', %s, %s, %s, clock_timestamp())",
        (herd_id, environment, herd, verb, operator, json.dumps(awx), json.dumps(detail)),
    )


def close(cursor: Any, operation_id: int, outcome: str, detail: dict[str, Any]) -> None:
    """Give an operation its outcome and end its lease."""
    cursor.execute(
        "UPDATE ele_operation SET state = %s, detail = detail || %s, lease_until = NULL,"
        " finished_dt = CASE WHEN %s THEN NULL ELSE clock_timestamp() END WHERE operation_id = %s",
        (outcome, json.dumps(detail), outcome == "incomplete", operation_id),
    )


def default_roles(from_server: str | None, to_server: str | None) -> Roles:
    """What a failover from one server to another means for these two."""
    roles: Roles = {}
    if to_server:
        roles[to_server] = {"role": "primary", "upstream_server": None}
        if from_server:
            roles[from_server] = {"role": "replica", "upstream_server": to_server}
    return roles
