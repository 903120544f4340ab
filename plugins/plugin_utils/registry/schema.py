# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry's layout: numbered migrations, their ledger, and who may use it. Private to the collection."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import (
    explain,
    psycopg2,
    set_path,
    sql,
)

_FILE = re.compile(r"(?P<number>[0-9]{4})_(?P<name>[a-z0-9_]+)\.sql\Z")

# How long to wait for another session that is migrating the same registry.
_LOCK_WAIT_S = 60

# ElepHaaS 1.x: what must be there for its layout to be recognised.
_LAYOUT_1X = {
    "ele_environment": {"environment_id", "env_name", "env_descr", "created_dt", "modified_dt"},
    "ele_herd": {
        "herd_id", "environment_id", "base_name", "herd_name", "herd_descr", "db_port", "pgdata", "vhost",
        "created_dt", "modified_dt",
    },
    "ele_server": {"server_id", "environment_id", "hostname", "created_dt", "modified_dt"},
    "ele_instance": {
        "instance_id", "herd_id", "server_id", "version", "local_pgdata", "xlog_pos", "is_online", "master_id",
        "created_dt", "modified_dt",
    },
}  # fmt: skip

_LEDGER = """
CREATE TABLE ele_migration (
    number int PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_dt timestamptz NOT NULL DEFAULT now(),
    applied_by text NOT NULL DEFAULT session_user
)
"""

# Group roles: the database is shared, so the names say whose they are. Rights are per schema (see _grants).
READER, REPORTER, OPERATOR, REPORTER_1X = "elephaas_reader", "elephaas_reporter", "elephaas_operator", "util_exec"
GROUP_ROLES = (READER, REPORTER, OPERATOR, REPORTER_1X)


@dataclass(frozen=True)
class Migration:
    """One numbered step; checksum is SHA-256 of its text."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def title(self) -> str:
        """Number and name, as the file is called."""
        return f"{self.number:04d}_{self.name}"


def load_migrations() -> list[Migration]:
    """The migrations beside this file, by number without a gap.

    Beside this file, not by package: Ansible's collection loader has no resource reader for importlib.resources in
    every supported version, and a collection always lies unpacked on disk.
    """
    directory = os.path.join(os.path.dirname(os.path.abspath(__file__)), "migrations")
    found = []
    for filename in sorted(os.listdir(directory)):
        match = _FILE.match(filename)
        if match:
            with open(os.path.join(directory, filename), encoding="utf-8") as stream:
                found.append(Migration(int(match["number"]), match["name"], stream.read()))
    if not found or [item.number for item in found] != list(range(1, len(found) + 1)):
        raise OperatorError(
            "REGISTRY_MIGRATIONS_DAMAGED",
            f"The migrations in {directory} are not 0001, 0002, … without a gap.",
            "Install the collection again.",
        )
    return found


def schema_state(connection: Any, schema: str, migrations: list[Migration] | None = None) -> dict[str, Any]:
    """Where this registry stands: {"layout": "none"|"1.x"|"ours", "applied": [title], "pending": [title]}. Read only.

    Raises OperatorError REGISTRY_SCHEMA_UNKNOWN (tables that are no registry), REGISTRY_SCHEMA_NEWER,
    REGISTRY_MIGRATION_CHANGED.
    """
    migrations = migrations or load_migrations()
    with connection.cursor() as cursor:
        # The catalog itself: information_schema hides what this user has no rights on, and hidden is not missing.
        cursor.execute(
            "SELECT c.relname, array_agg(a.attname::text) FROM pg_catalog.pg_class c"
            " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
            " JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
            " WHERE n.nspname = %s AND c.relkind IN ('r', 'p') AND c.relname LIKE 'ele\\_%%' GROUP BY c.relname",
            (schema,),
        )
        tables = {name: set(columns) for name, columns in cursor.fetchall()}
        if "ele_migration" in tables:
            cursor.execute(
                sql.SQL("SELECT number, name, checksum FROM {}.ele_migration ORDER BY number").format(
                    sql.Identifier(schema)
                )
            )
            ledger = {number: (name, checksum) for number, name, checksum in cursor.fetchall()}
            _check_ledger(ledger, migrations, schema)
            return _state("ours", ledger, migrations)
    if not set(_LAYOUT_1X) & set(tables):
        return _state("none", {}, migrations)
    missing = [
        f"{table}.{column}"
        for table, columns in _LAYOUT_1X.items()
        for column in sorted(columns - tables.get(table, set()))
    ]
    if missing:
        raise OperatorError(
            "REGISTRY_SCHEMA_UNKNOWN",
            f"Schema {schema} holds ele_ tables that are no ElepHaaS 1.x registry: missing {', '.join(missing)}.",
            "Give another schema, or move these tables away.",
            {"missing": missing},
        )
    return _state("1.x", {1: ("", "")}, migrations)


def _state(layout: str, ledger: dict[int, Any], migrations: list[Migration]) -> dict[str, Any]:
    return {
        "layout": layout,
        "applied": [item.title for item in migrations if item.number in ledger],
        "pending": [item.title for item in migrations if item.number not in ledger],
    }


def _check_ledger(ledger: dict[int, tuple[str, str]], migrations: list[Migration], schema: str) -> None:
    known = {item.number: item for item in migrations}
    newer = sorted(set(ledger) - set(known))
    if newer:
        raise OperatorError(
            "REGISTRY_SCHEMA_NEWER",
            f"The registry in schema {schema} has migration {newer[-1]:04d}_{ledger[newer[-1]][0]},"
            " which this collection does not know.",
            "Use the newer version of elephaas.herd that brought the registry there.",
        )
    for number, (name, checksum) in ledger.items():
        if checksum != known[number].checksum:
            raise OperatorError(
                "REGISTRY_MIGRATION_CHANGED",
                f"Migration {number:04d}_{name} was applied with another text than this collection has.",
                "Install the released collection again; applied migrations never change.",
            )


def require_current(connection: Any, schema: str) -> None:
    """Raise OperatorError REGISTRY_SCHEMA_MISSING or REGISTRY_SCHEMA_OLD unless every migration is there."""
    state = schema_state(connection, schema)
    if not state["pending"]:
        return
    load = "Run the playbook elephaas.herd.registry_load, or the module elephaas.herd.registry_schema."
    if state["layout"] == "none":
        raise OperatorError("REGISTRY_SCHEMA_MISSING", f"The registry has no tables yet in schema {schema}.", load)
    raise OperatorError(
        "REGISTRY_SCHEMA_OLD",
        f"The registry in schema {schema} lacks: {', '.join(state['pending'])}.",
        load,
        dict(state),
    )


def apply_migrations(connection: Any, schema: str, check_mode: bool = False) -> dict[str, Any]:
    """Bring the registry to the layout of this collection.

    Each migration is one transaction, so an interrupted run leaves whole ones only; a session-level advisory lock keeps
    a second run waiting, which then finds nothing to do.
    Returns schema_state as found, plus "changed", "now_applied": [title] and "roles" (see group_roles).
    """
    migrations = load_migrations()
    if check_mode:
        found = schema_state(connection, schema, migrations)
        roles = group_roles(connection, schema)
        changed = bool(found["pending"]) or "to grant" in roles.values()
        return {**found, "changed": changed, "now_applied": [], "roles": roles}

    key = int.from_bytes(hashlib.sha256(f"elephaas registry {schema}".encode()).digest()[:8], "big", signed=True)
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, false)", (f"{_LOCK_WAIT_S}s",))
        cursor.execute("SELECT pg_advisory_lock(%s)", (key,))
        try:
            found = schema_state(connection, schema, migrations)
            pending = [item for item in migrations if item.title in found["pending"]]
            if found["layout"] == "1.x":
                _in_transaction(connection, schema, lambda cursor: _start_ledger(cursor, migrations[0]))
            for item in pending:
                _apply_one(connection, schema, item)
            roles = _settle_roles(connection, schema, again=bool(pending))
        finally:
            if not connection.closed:
                cursor.execute("SELECT pg_advisory_unlock(%s)", (key,))
    granted = "granted" in roles.values()
    return {
        **found,
        "changed": bool(pending) or granted,
        "now_applied": [item.title for item in pending],
        "roles": roles,
    }


def rehearse_migrations(cursor: Any, connection: Any, schema: str) -> None:
    """Apply what is pending inside the caller's transaction, which the caller undoes: how check mode sees past it."""
    migrations = load_migrations()
    pending = schema_state(connection, schema, migrations)["pending"]
    cursor.execute("SET LOCAL lock_timeout TO '10s'")
    cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    for item in migrations:
        if item.title in pending:
            if item.number == 1:
                cursor.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
            cursor.execute(item.text)


def _in_transaction(connection: Any, schema: str, work: Any) -> None:
    connection.autocommit = False
    try:
        with connection.cursor() as cursor:
            cursor.execute(set_path(schema))
            work(cursor)
        connection.commit()
    finally:
        if not connection.closed:
            connection.rollback()
            connection.autocommit = True


def _start_ledger(cursor: Any, first: Migration) -> None:
    cursor.execute(_LEDGER)
    _record(cursor, first)


def _record(cursor: Any, item: Migration) -> None:
    cursor.execute(
        "INSERT INTO ele_migration (number, name, checksum) VALUES (%s, %s, %s)",
        (item.number, item.name, item.checksum),
    )


def _apply_one(connection: Any, schema: str, item: Migration) -> None:
    def work(cursor: Any) -> None:
        if item.number == 1:
            cursor.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
            cursor.execute(_LEDGER)
        cursor.execute(item.text)
        _record(cursor, item)

    try:
        _in_transaction(connection, schema, work)
    except psycopg2.Error as error:
        reason = explain(error)
        raise OperatorError(
            "REGISTRY_MIGRATION_FAILED",
            f"Migration {item.title} was undone: {reason.reason}",
            "Mend what is named (nothing of this migration was kept) and run again.",
            {"migration": item.title, **reason.evidence},
        ) from None


def group_roles(connection: Any, schema: str) -> dict[str, str]:
    """Per group role "ready", "to grant" (it exists without rights on this schema) or "missing". Read only."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT r.rolname, has_schema_privilege(r.oid, n.oid, 'USAGE')"
            " FROM pg_catalog.pg_roles r LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = %s"
            " WHERE r.rolname = ANY (%s)",
            (schema, list(GROUP_ROLES)),
        )
        rights = dict(cursor.fetchall())
        return {
            role: "missing" if role not in rights else "ready" if rights[role] else "to grant" for role in GROUP_ROLES
        }


def _settle_roles(connection: Any, schema: str, again: bool) -> dict[str, str]:
    """Create what is missing when this user may, grant what is not granted; says per role what it found or did.

    again: grant also what looks granted, because migrations brought new tables.
    """
    roles = group_roles(connection, schema)
    with connection.cursor() as cursor:
        cursor.execute("SELECT rolsuper OR rolcreaterole FROM pg_catalog.pg_roles WHERE rolname = current_user")
        (may_create,) = cursor.fetchone()

    def work(cursor: Any) -> None:
        for role, state in roles.items():
            if state == "missing" and may_create:
                cursor.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(role)))
            if (state != "ready" or again) and (state != "missing" or may_create):
                for statement in _grants(role):
                    cursor.execute(sql.SQL(statement).format(role=sql.Identifier(role), schema=sql.Identifier(schema)))
                roles[role] = "granted"

    if again or set(roles.values()) != {"ready"}:
        _in_transaction(connection, schema, work)
    return roles


_REPORTER_1X_FUNCTION = "sp_instance_checkin(varchar, varchar, int, varchar, boolean, varchar, varchar, bigint)"
# Table by table: others' tables (Django's accounts of 1.x) may lie in the same schema.
_FLEET_TABLES = "ele_environment, ele_datacenter, ele_server, ele_herd, ele_instance"
_READABLE = f"ele_migration, {_FLEET_TABLES}, ele_operation, ele_inventory_name, v_flat_instance, v_dr_pairs"
_FLEET_SEQUENCES = ", ".join(
    f"ele_{kind}_{kind}_id_seq" for kind in ("environment", "datacenter", "server", "herd", "instance")
)


def _grants(role: str) -> list[str]:
    """What a role may do. Privileges, not memberships: a membership needs ADMIN OPTION on roles that a DBA made."""
    statements = ["GRANT USAGE ON SCHEMA {schema} TO {role}"]
    if role == REPORTER_1X:
        return [*statements, f"GRANT EXECUTE ON FUNCTION {_REPORTER_1X_FUNCTION} TO {{role}}"]
    statements.append(f"GRANT SELECT ON {_READABLE} TO {{role}}")
    if role in (REPORTER, OPERATOR):
        statements += [
            "GRANT UPDATE ON ele_instance TO {role}",
            "GRANT UPDATE (last_token) ON ele_herd TO {role}",
            "GRANT INSERT, UPDATE ON ele_operation TO {role}",
            "GRANT USAGE ON SEQUENCE ele_operation_operation_id_seq TO {role}",
        ]
    if role == OPERATOR:
        statements += [
            f"GRANT INSERT, UPDATE, DELETE ON {_FLEET_TABLES} TO {{role}}",
            f"GRANT USAGE ON SEQUENCE {_FLEET_SEQUENCES} TO {{role}}",
        ]
    return statements
