# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way into the registry: connection options, transactions, and its errors in words. Private to the collection.

Controller only. psycopg2 is imported when a connection is made: documentation and sanity tests need none.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from ansible.module_utils.basic import env_fallback

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError

try:
    import psycopg2
    import psycopg2.extensions
    from psycopg2 import sql
except ImportError as error:
    psycopg2 = None  # type: ignore[assignment]
    sql = None  # type: ignore[assignment]
    PSYCOPG2_IMPORT_ERROR: ImportError | None = error
else:
    PSYCOPG2_IMPORT_ERROR = None

DEFAULT_SCHEMA = "utility"
DEFAULT_DATABASE = "admin"
DEFAULT_CONNECT_TIMEOUT_S = 5

# What the documentation fragment elephaas.herd.registry describes.
REGISTRY_ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "dsn": {"type": "str", "no_log": True, "fallback": (env_fallback, ["ELEPHAAS_REGISTRY_DSN"])},
    "host": {"type": "list", "elements": "str"},
    "port": {"type": "list", "elements": "int"},
    "dbname": {"type": "str"},
    "user": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "passfile": {"type": "path"},
    "sslmode": {"type": "str", "choices": ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]},
    "connect_timeout": {"type": "int", "default": DEFAULT_CONNECT_TIMEOUT_S},
    "schema": {
        "type": "str",
        "default": DEFAULT_SCHEMA,
        "fallback": (env_fallback, ["ELEPHAAS_REGISTRY_SCHEMA"]),
    },
}

# A registry host that vanishes must not hold up a failover: libpq gives up on an unanswered packet after this time.
_DEAD_AFTER_MS = 10_000
_KEEPALIVES = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}


def connection_parameters(options: dict[str, Any], writing: bool = False) -> dict[str, Any]:
    """libpq parameters from options named as in REGISTRY_ARGUMENT_SPEC; single options win over the DSN.

    What is given nowhere is left to libpq and its PG* variables, but for the database name.
    Raises OperatorError REGISTRY_BAD_DSN, REGISTRY_MISSING_LIBRARY.
    """
    _need_library()
    parameters: dict[str, Any] = {}
    if options.get("dsn"):
        try:
            parameters.update(psycopg2.extensions.parse_dsn(options["dsn"]))
        except psycopg2.ProgrammingError:
            # libpq's message quotes the DSN, password and all.
            raise OperatorError(
                "REGISTRY_BAD_DSN",
                "The registry's dsn is no libpq connection string.",
                "Write it as 'host=db1,db2 dbname=admin user=me' or 'postgresql://me@db1,db2/admin'.",
            ) from None
    for option in ("host", "port"):
        value = options.get(option)
        if value:
            parameters[option] = ",".join(str(item) for item in (value if isinstance(value, list) else [value]))
    for option in ("dbname", "user", "password", "passfile", "sslmode"):
        if options.get(option):
            parameters[option] = str(options[option])
    if not parameters.get("dbname") and "PGDATABASE" not in os.environ and "PGSERVICE" not in os.environ:
        if "service" not in parameters:
            parameters["dbname"] = DEFAULT_DATABASE
    parameters.setdefault("connect_timeout", str(options.get("connect_timeout") or DEFAULT_CONNECT_TIMEOUT_S))
    parameters.setdefault("fallback_application_name", "elephaas")
    # Whatever PGCLIENTENCODING says: one row that a smaller encoding cannot hold would take all others along.
    parameters["client_encoding"] = "UTF8"
    parameters.setdefault("tcp_user_timeout", str(_DEAD_AFTER_MS))
    for name, seconds in _KEEPALIVES.items():
        parameters.setdefault(name, str(seconds))
    if writing and "," in parameters.get("host", os.environ.get("PGHOST", "")):
        # Of several hosts, the one that takes writes.
        parameters.setdefault("target_session_attrs", os.environ.get("PGTARGETSESSIONATTRS", "read-write"))
    return parameters


def _need_library() -> None:
    if psycopg2 is None:
        raise OperatorError(
            "REGISTRY_MISSING_LIBRARY",
            f"The Python that runs Ansible on the controller can not load psycopg2: {PSYCOPG2_IMPORT_ERROR}.",
            "Install psycopg2 (or psycopg2-binary) for the Python shown by ansible --version.",
        )


def connect(options: dict[str, Any], writing: bool = False) -> Any:
    """A psycopg2 connection in autocommit mode: one statement is one round trip; see transaction().

    options: as in REGISTRY_ARGUMENT_SPEC; what is absent counts as not given.
    writing: with several hosts, take the one that accepts writes.
    Raises OperatorError REGISTRY_MISSING_LIBRARY, REGISTRY_BAD_DSN, REGISTRY_DATABASE_MISSING, REGISTRY_UNREACHABLE;
    none of them shows a password.
    """
    parameters = connection_parameters(options, writing)
    try:
        connection = psycopg2.connect(**parameters)
    except psycopg2.OperationalError as error:
        reason = _without_password(" ".join(str(error).split()), parameters)
        # The server has no SQLSTATE for us at this point, and libpq's text is translated: ask for the name only.
        database = parameters.get("dbname") or os.environ.get("PGDATABASE", "")
        if database and f'"{database}"' in reason and "does not exist" in reason and "role" not in reason:
            raise OperatorError(
                "REGISTRY_DATABASE_MISSING",
                f"The registry's database does not exist: {reason}.",
                f"Have it created first, for example: createdb {database}; then run elephaas.herd.registry_load.",
            ) from None
        raise OperatorError(
            "REGISTRY_UNREACHABLE",
            f"No connection to the registry: {reason}.",
            "Check host, port, user and password file of the registry connection, and that its PostgreSQL runs.",
        ) from None
    connection.autocommit = True
    return connection


def _without_password(text: str, parameters: dict[str, Any]) -> str:
    password = parameters.get("password") or os.environ.get("PGPASSWORD")
    return text.replace(password, "********") if password else text


@contextlib.contextmanager
def open_registry(options: dict[str, Any], writing: bool = False) -> Iterator[tuple[Any, str]]:
    """Connect, give (connection, schema), close. Database errors leave as OperatorError (see as_operator_error)."""
    connection = connect(options, writing)
    try:
        with as_operator_error():
            yield connection, options.get("schema") or DEFAULT_SCHEMA
    finally:
        connection.close()


@contextlib.contextmanager
def transaction(connection: Any, schema: str, keep: bool = True) -> Iterator[Any]:
    """One transaction with the schema first in search_path and every deferrable rule deferred to its end.

    Gives a cursor. keep=False undoes everything at the end: how check mode asks the real database.
    """
    connection.autocommit = False
    try:
        with connection.cursor() as cursor:
            cursor.execute(set_path(schema))
            # The locks of a controller that lost its power end with this, not with the server's TCP keepalive, after hours.
            cursor.execute(
                "SET LOCAL idle_in_transaction_session_timeout = '60s'; SET LOCAL lock_timeout = '60s';"
                " SET CONSTRAINTS ALL DEFERRED"
            )
            yield cursor
            if keep:
                connection.commit()
            else:
                cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    finally:
        if not connection.closed:
            connection.rollback()
            connection.autocommit = True


def set_path(schema: str) -> Any:
    """The statement that makes unqualified names mean the registry's, until the transaction ends.

    pg_temp last: a temporary table must not stand in for one of the registry's.
    """
    return sql.SQL("SET LOCAL search_path TO {}, pg_temp").format(sql.Identifier(schema))


# What the registry's own rules mean to a person. The names are those of the migrations.
_RULES = {
    "ele_environment_name_unique": "an environment of that name exists already",
    "ele_datacenter_name_unique": "a data center of that name exists already",
    "ele_server_name_unique": "a server of that name exists already",
    "ele_herd_name_unique": "the environment has a herd of that name already",
    "ele_instance_once_per_server": "the herd has a member on that server already",
    "ele_instance_port_once_per_server": "another instance on that server has that port",
    "ele_instance_pgdata_once_per_server": "another instance on that server has that data directory",
    "ele_instance_one_primary": "the herd would have two recorded primaries",
    "ele_instance_upstream_in_herd": "an upstream is a member of the same herd, and stays while others stream from it",
    "ele_instance_no_loop": "an instance would stream from itself, in the end",
    "ele_instance_primary_has_no_upstream": "a primary has no upstream",
    "ele_inventory_name_taken": "the inventory would have that name twice",
    "ele_inventory_name_reserved": "the inventory uses that name for something of its own",
    "ele_server_address_valid": "a server's address is an IPv4 or IPv6 address, or a DNS name",
    "ele_server_dns_name_valid": "a server's dns_name is a DNS name",
    "ele_server_ssh_user_valid": "ssh_user is an account name",
    "ele_herd_vhost_valid": "a vhost is a DNS name",
    "ele_herd_os_user_valid": "os_user is an account name",
    "ele_operation_one_open": "the herd has an open operation already",
}


@contextlib.contextmanager
def as_operator_error() -> Iterator[None]:
    """Turn psycopg2's errors into OperatorError.

    Codes: REGISTRY_SCHEMA_MISSING, REGISTRY_SCHEMA_OLD, REGISTRY_FORBIDDEN, REGISTRY_RULE, REGISTRY_BUSY,
    REGISTRY_UNREACHABLE (lost on the way), REGISTRY_TEXT (what no database in UTF-8 holds), REGISTRY_ERROR.
    """
    try:
        yield
    except psycopg2.Error as error:
        raise explain(error) from None
    except ValueError as error:
        # psycopg2 refuses text by itself, before it sends it, or after it got it from a database in another encoding.
        if not isinstance(error, UnicodeError) and "NUL (0x00)" not in str(error):
            raise
        raise OperatorError(
            "REGISTRY_TEXT",
            f"There is text that the registry cannot hold: {str(error).rstrip('.')}.",
            "Leave NUL characters and what is not Unicode out, and keep the registry in a database in UTF-8.",
        ) from None


def explain(error: Any) -> OperatorError:
    """The OperatorError for one of psycopg2's errors."""
    state = error.pgcode or ""
    diagnostics = getattr(error, "diag", None)
    message = (getattr(diagnostics, "message_primary", None) or " ".join(str(error).split())).rstrip(".")
    detail = getattr(diagnostics, "message_detail", None) or ""
    evidence = {"sqlstate": state, "detail": detail}
    load = "Run the playbook elephaas.herd.registry_load, or the module elephaas.herd.registry_schema."
    if state in ("42P01", "3F000"):
        return OperatorError("REGISTRY_SCHEMA_MISSING", f"The registry has no tables yet: {message}.", load, evidence)
    if state in ("42703", "42883"):
        return OperatorError(
            "REGISTRY_SCHEMA_OLD", f"The registry's layout is older than this collection: {message}.", load, evidence
        )
    if state == "42501":
        hint = "Grant the user one of the roles elephaas_reader, elephaas_reporter, elephaas_operator."
        return OperatorError("REGISTRY_FORBIDDEN", f"The registry refuses this user: {message}.", hint, evidence)
    if state == "25006":
        hint = "Name the registry's primary first, or all its hosts."
        return OperatorError("REGISTRY_READ_ONLY", f"This registry server takes no writes: {message}.", hint, evidence)
    if state.startswith("23"):
        rule = getattr(diagnostics, "constraint_name", None) or ""
        evidence["constraint"] = rule
        words = _RULES.get(rule, message)
        return OperatorError("REGISTRY_RULE", f"The registry refuses this: {words}. {detail or message}", "", evidence)
    if state in ("55P03", "57014", "40P01", "40001"):
        return OperatorError(
            "REGISTRY_BUSY", f"The registry is busy: {message}.", "Run the same command again.", evidence
        )
    if isinstance(error, psycopg2.OperationalError) and (not state or state.startswith(("08", "57P"))):
        return OperatorError(
            "REGISTRY_UNREACHABLE", f"The connection to the registry was lost: {message}.", "", evidence
        )
    return OperatorError("REGISTRY_ERROR", f"The registry failed: {message}. {detail}".strip(), "", evidence)
