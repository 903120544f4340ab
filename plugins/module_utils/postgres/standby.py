# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes an instance a standby of a given upstream: signal file and connection settings.

Private to the collection.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.command import run
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.conninfo import (
    format_conninfo,
    has_secret,
    parse_conninfo,
    without_secrets,
)
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.probe import address_of
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.psql import SqlError, literal, query
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.settings import Unreadable, quote, read_settings
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.token import fsync_directory

STANDBY_SIGNAL = "standby.signal"

_POLL_S = 0.02

# What libpq says before any server has answered; everything else is an answer of the upstream.
_NO_ANSWER = re.compile(
    r"refused|timeout|timed out|no route|unreachable|could not translate|could not connect|closed the connection"
    r"|not known|reset by peer|starting up|shutting down|no answer|is not yet accepting|does not accept|too many",
    re.IGNORECASE,
)


def signal_present(data_directory: str) -> bool:
    """Is standby.signal there?"""
    return os.path.exists(os.path.join(data_directory, STANDBY_SIGNAL))


def write_signal(data_directory: str) -> None:
    """Create standby.signal, durably: from the return on, any start of this instance is read-only."""
    path = os.path.join(data_directory, STANDBY_SIGNAL)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    # The file's name lives in the directory: without this a power failure could take it back.
    fsync_directory(data_directory)


def remove_signal(data_directory: str) -> None:
    """Remove standby.signal, durably."""
    os.unlink(os.path.join(data_directory, STANDBY_SIGNAL))
    fsync_directory(data_directory)


def configured(facts: dict[str, Any], config_file: str, timeout: float) -> dict[str, str]:
    """primary_conninfo and primary_slot_name as the next start would read them. Holds secrets: never return it.

    Raises OperatorError SETTINGS_UNREADABLE.
    """
    names = ("primary_conninfo", "primary_slot_name")
    if facts["status"] == "running":
        # What stands in the files, as the server itself parses them: memory may be older.
        sql = (
            "SELECT coalesce(json_object_agg(name, setting), '{}') FROM (SELECT DISTINCT ON (name) name, setting "
            "FROM pg_file_settings WHERE name IN ('primary_conninfo', 'primary_slot_name') "
            "ORDER BY name, seqno DESC) s;"
        )
        try:
            found = json.loads(query(address_of(facts), sql, timeout))
            return {name: found.get(name) or "" for name in names}
        except SqlError as error:
            raise OperatorError("SETTINGS_UNREADABLE", f"The connection settings cannot be read: {error}.") from error
    try:
        settings = read_settings(config_file, facts["data_directory"])
    except Unreadable as error:
        raise OperatorError("SETTINGS_UNREADABLE", f"The connection settings cannot be read: {error}.") from error
    return {name: settings[name] for name in names}


def desired_conninfo(
    present: str, host: str, port: int, user: str | None, application_name: str | None
) -> dict[str, str]:
    """The connection parts for a new upstream: those of now (passfile, sslmode …), with the place changed.

    Raises OperatorError CONNINFO_UNREADABLE, BAD_OPTION.
    """
    parts = parse_conninfo(present)
    # hostaddr would win over host, and lead back to where it came from.
    parts.pop("hostaddr", None)
    parts.update(host=host, port=str(port))
    if user:
        parts["user"] = user
    if application_name:
        parts["application_name"] = application_name
    for key, value in parts.items():
        if any(ord(char) < 32 for char in value):
            raise OperatorError("BAD_OPTION", f"The connection setting {key} holds a control character.")
    return parts


def test_upstream(
    psql: str, parts: dict[str, str], system_identifier: str, label: str, timeout: float
) -> dict[str, Any]:
    """Open a replication connection as the standby would, and ask who is there.

    Returns {"system_identifier", "timeline", "position"}. Raises OperatorError UPSTREAM_UNREACHABLE, UPSTREAM_AUTH,
    UPSTREAM_OTHER_CLUSTER. A password goes through the environment, never through the argument list.
    """
    # The name of the test must not be one that synchronous_standby_names waits for.
    shown = {**without_secrets(parts), "application_name": "elephaas_test", "replication": "true"}
    # A dbname of the standby's own would ask for a logical walsender.
    shown.pop("dbname", None)
    environment = {"PGCONNECT_TIMEOUT": str(max(2, int(timeout)))}
    if has_secret(parts):
        environment["PGPASSWORD"] = parts.get("password", "")
    place = f"{parts['host']}:{parts['port']}"
    done = run(
        [psql, "-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-P", "pager=off", "-d", format_conninfo(shown)],
        timeout + 1,
        environment,
        "IDENTIFY_SYSTEM;",
    )
    if done.status != 0:
        message = " ".join(done.stderr.split())
        unreachable = done.timed_out or bool(_NO_ANSWER.search(message))
        raise OperatorError(
            "UPSTREAM_UNREACHABLE" if unreachable else "UPSTREAM_AUTH",
            f"{label} cannot replicate from {place}: {message}.",
            "Check that the upstream runs, its listen_addresses, and the network between them."
            if unreachable
            else "Check the upstream's pg_hba.conf (a replication line for this host), the user and its password.",
            {"upstream": place, "message": message},
        )
    fields = (done.stdout.strip().split("|") + ["", "", ""])[:3]
    if fields[0] != system_identifier:
        raise OperatorError(
            "UPSTREAM_OTHER_CLUSTER",
            f"{place} belongs to another cluster (system identifier {fields[0]}, here {system_identifier}).",
            "Check upstream_host and upstream_port.",
            {"upstream": place, "found": fields[0], "expected": system_identifier},
        )
    return {"system_identifier": fields[0], "timeline": int(fields[1]), "position": fields[2]}


def refuse_self(facts: dict[str, Any], host: str, port: int) -> None:
    """An instance that follows itself would wait for ever. Raises OperatorError FOLLOWS_ITSELF."""
    if port != facts["port"]:
        return
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return
    for family, kind, _protocol, _name, address in found:
        try:
            with socket.socket(family, kind) as probe:
                # Only an address of this very host can be bound; port 0 disturbs nobody.
                probe.bind((address[0], 0))
        except OSError:
            continue
        raise OperatorError(
            "FOLLOWS_ITSELF",
            f"{host}:{port} is this very host and port: the instance in {facts['data_directory']} would follow itself.",
            "Name the upstream's own server, not the name that applications use.",
        )


def store_settings(facts: dict[str, Any], values: dict[str, str | None], timeout: float) -> None:
    """Write settings so that they hold from the next start (and, after a reload, in a running server). None: take it out.

    Running: ALTER SYSTEM, because the server owns postgresql.auto.conf. Not running: the file is edited the way
    the server does it. Raises OperatorError SETTING_REFUSED.
    """
    if facts["status"] == "running":
        # The server's log would keep a password for ever.
        statements = "SET log_statement = 'none'; SET log_min_error_statement = 'panic'; SET log_duration = off;\n"
        statements += "SET log_min_duration_statement = -1; SET log_min_duration_sample = -1;\n"
        statements += "".join(
            f"ALTER SYSTEM RESET {name};\n" if value is None else f"ALTER SYSTEM SET {name} ={literal(value)};\n"
            for name, value in values.items()
        )
        try:
            query(address_of(facts), statements, timeout)
        except SqlError as error:
            # The server's message may quote the statement, and with it a password: only its beginning is shown.
            message = str(error).split("STATEMENT:", 1)[0].split("LINE ", 1)[0]
            raise OperatorError("SETTING_REFUSED", f"ALTER SYSTEM failed: {message}.") from error
        return
    path = os.path.join(facts["data_directory"], "postgresql.auto.conf")
    try:
        _rewrite_auto_conf(path, values)
    except OSError as error:
        raise OperatorError("SETTING_REFUSED", f"{path} cannot be written: {error.strerror}.") from error


def _rewrite_auto_conf(path: str, values: dict[str, str | None]) -> None:
    with open(path, encoding="utf-8", errors="surrogateescape") as stream:
        present = stream.read()
    text = edit_auto_conf(present, values)
    # The name that the server itself uses: should we die here, it overwrites the leftover.
    temporary = f"{path}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    os.rename(temporary, path)
    fsync_directory(os.path.dirname(path))


def effective_conninfo(facts: dict[str, Any], timeout: float) -> str:
    """primary_conninfo as the running server uses it. Holds secrets: never return it."""
    try:
        return query(address_of(facts), "SELECT setting FROM pg_settings WHERE name = 'primary_conninfo';", timeout)
    except SqlError as error:
        raise OperatorError(
            "NO_ANSWER", f"The instance in {facts['data_directory']} does not answer: {error}."
        ) from error


def reload_settings(facts: dict[str, Any], conninfo: str, timeout: float) -> None:
    """Make a running server use what is in its files. A new upstream needs no restart since PostgreSQL 13.

    conninfo: primary_conninfo as it has to be afterwards. Raises OperatorError SETTING_OVERRIDDEN, SETTING_REFUSED.
    """
    try:
        query(address_of(facts), "SELECT pg_reload_conf();", timeout)
    except SqlError as error:
        raise OperatorError("SETTING_REFUSED", f"The configuration cannot be reloaded: {error}.") from error
    deadline = time.monotonic() + 5
    while effective_conninfo(facts, timeout) != conninfo:
        # The postmaster reads its files a moment after it was told to.
        if time.monotonic() > deadline:
            raise OperatorError(
                "SETTING_OVERRIDDEN",
                f"primary_conninfo of the instance in {facts['data_directory']} does not take effect.",
                "Look at pg_file_settings, and for primary_conninfo on the server's command line.",
            )
        time.sleep(_POLL_S)


def edit_auto_conf(text: str, values: dict[str, str | None]) -> str:
    """postgresql.auto.conf with these settings and no other change: older lines of the same names go. None: only that."""
    names = "|".join(re.escape(name) for name in values)
    ours = re.compile(rf"\s*(?:{names})\s*(?:=|\s)", re.IGNORECASE)
    kept = [line for line in text.splitlines() if not ours.match(line)]
    new = [f"{name} = {quote(value)}" for name, value in values.items() if value is not None]
    return "\n".join(kept + new) + "\n"
