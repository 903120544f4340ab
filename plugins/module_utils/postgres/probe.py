# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One look at one instance: everything that decisions are made from. Private to the collection.

One pg_controldata and one psql call; nothing is written. Works on PostgreSQL 13 to 18, running or not.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.lsn import parse_lsn
from ansible_collections.elephaas.herd.plugins.module_utils.decide.standby_settings import STANDBY_SETTINGS
from ansible_collections.elephaas.herd.plugins.module_utils.decide.timelines import RECOVERY_STATES
from ansible_collections.elephaas.herd.plugins.module_utils.postgres import token as token_store
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.command import run
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.conninfo import (
    format_conninfo,
    has_secret,
    parse_conninfo,
    without_secrets,
)
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.controldata import (
    control_timeline,
    read_controldata,
)
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.history import read_history, replayed_timeline
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.layout import PROGRAMS, Layout, find_layout
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.pidfile import (
    Postmaster,
    find_postmaster,
    leftovers,
    socket_holder,
)
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.psql import Address, SqlError, query
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.settings import (
    KNOWN,
    Unreadable,
    convert,
    read_settings,
)
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.target import Target

SIGNAL_FILES = ("standby.signal", "recovery.signal")

# What a caller gets as "settings"; the rest of what is read has a place of its own.
_PRIVATE_SETTINGS = ("primary_conninfo", "archive_command", "archive_library", "unix_socket_directories")
_PRESET = ("data_checksums", "wal_segment_size", "data_directory")

# A column that only newer versions have is read through to_jsonb, which gives null for the older ones.
_SQL = """
SELECT json_build_object(
  'in_recovery', pg_is_in_recovery(),
  'version', current_setting('server_version'),
  'version_num', current_setting('server_version_num')::int,
  'superuser', (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
  'system_identifier', (SELECT system_identifier::text FROM pg_control_system()),
  'current', CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_lsn() END,
  'timeline', CASE WHEN NOT pg_is_in_recovery()
              THEN ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END,
  'received', pg_last_wal_receive_lsn(),
  'replayed', pg_last_wal_replay_lsn(),
  'replay_delay_s', extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()),
  'replay_paused', CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() END,
  'receiver', (SELECT json_build_object(
      'status', status, 'receiver_timeline', received_tli, 'latest_end_lsn', latest_end_lsn,
      'last_message_age_s', extract(epoch FROM clock_timestamp() - last_msg_receipt_time),
      'host', sender_host, 'port', sender_port) FROM pg_stat_wal_receiver LIMIT 1),
  'replicas', (SELECT coalesce(json_agg(json_build_object(
      'application_name', r.application_name, 'client_addr', host(r.client_addr), 'client_port', r.client_port,
      'state', r.state, 'sync_state', r.sync_state, 'sent_lsn', r.sent_lsn, 'write_lsn', r.write_lsn,
      'flush_lsn', r.flush_lsn, 'replay_lsn', r.replay_lsn, 'slot', s.slot_name, 'pid', r.pid,
      'backup', r.state = 'backup') ORDER BY r.application_name, r.pid), '[]')
      FROM pg_stat_replication r LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid),
  'clients', (SELECT count(*) FROM pg_stat_activity
      WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND application_name NOT LIKE 'elephaas%%'),
  'slots', (SELECT coalesce(json_agg(json_build_object(
      'name', slot_name, 'type', slot_type, 'active', active, 'restart_lsn', restart_lsn,
      'wal_status', wal_status, 'temporary', temporary,
      'failover', (to_jsonb(s)->>'failover')::boolean, 'synced', (to_jsonb(s)->>'synced')::boolean,
      'invalid', to_jsonb(s)->>'invalidation_reason') ORDER BY slot_name), '[]') FROM pg_replication_slots s),
  'settings', (SELECT json_object_agg(name, setting) FROM pg_settings WHERE name IN (%s)),
  'started_at', extract(epoch FROM pg_postmaster_start_time()),
  'pending_restart', (SELECT coalesce(json_agg(name ORDER BY name), '[]') FROM pg_settings WHERE pending_restart),
  'backups', (SELECT count(*) FROM pg_stat_progress_basebackup)
);
"""

# What the configuration files say now, which a reload or a restart would read. Only a superuser may look into them
# ("pg_file_settings", "pg_hba_file_rules"), and a statement that names them fails for everybody else: hence psql's \\if.
# A setting that only a restart can change is no error there, though PostgreSQL gives it in the same column.
_FILES_SQL = """
SELECT rolsuper AS elephaas_superuser FROM pg_roles WHERE rolname = current_user \\gset
\\if :elephaas_superuser
WITH files AS MATERIALIZED (SELECT * FROM pg_file_settings)  -- each reading of it parses all files
SELECT json_build_object(
  'next_start', (SELECT json_object_agg(s.name, coalesce(
      (SELECT f.setting FROM files f WHERE f.name = s.name ORDER BY f.seqno DESC LIMIT 1),
      CASE WHEN s.source = 'configuration file' THEN s.boot_val ELSE s.setting END))
      FROM pg_settings s WHERE s.name IN (%s)),
  'config_errors', (SELECT coalesce(json_agg(text), '[]') FROM (
      SELECT format('%%s line %%s: %%s%%s', sourcefile, sourceline, name || ': ', error) AS text
        FROM files
       WHERE error IS NOT NULL AND error <> 'setting could not be applied'
      UNION ALL
      SELECT format('pg_hba.conf line %%s: %%s', line_number, error) FROM pg_hba_file_rules WHERE error IS NOT NULL) e));
\\endif
"""


def observe(target: Target) -> dict[str, Any]:
    """The facts of one instance, in the shape that instance_info documents as `instance`.

    A server that hangs, starts, stops or refuses is a fact, never an exception. Raises OperatorError only when
    the question itself makes no sense (no programs, an unreadable control file).
    """
    facts = _empty(target)
    try:
        if not os.listdir(target.data_directory):
            facts["status"] = "absent"
    except (FileNotFoundError, NotADirectoryError):
        facts["status"] = "absent"
    except OSError as error:
        raise OperatorError(
            "NO_DATA_DIRECTORY",
            f"{target.data_directory} cannot be read by {target.os_user}: {error.strerror}.",
            "Check data_directory and os_user.",
        ) from error
    if facts["status"] == "absent":
        return facts
    postmaster = find_postmaster(target.data_directory)
    layout = find_layout(target, postmaster)
    control = read_controldata(layout.bin_directory, target.data_directory, target.timeout)
    _add_layout(facts, layout)
    facts.update(
        status="running" if postmaster else "stopped",
        postmaster_pid=postmaster.pid if postmaster else None,
        system_identifier=control["system_identifier"],
        timeline=control_timeline(control),
        control=control,
        disk=_disk(target.data_directory),
        signal_files=[name for name in SIGNAL_FILES if os.path.exists(os.path.join(target.data_directory, name))],
    )
    if postmaster:
        _add_running(facts, target, postmaster)
    else:
        _add_stopped(facts, target, layout)
    facts["timeline_history"] = read_history(target.data_directory, facts["timeline"])
    if facts["timeline_history"] is None:
        facts["timeline_history"] = []
        facts["warnings"].append(f"The history file of timeline {facts['timeline']} is missing in pg_wal.")
    _add_identity(facts, target, postmaster)
    store = token_store.TokenStore(target.home, facts["system_identifier"], target.port)
    try:
        facts["operation"], facts["waiter"] = store.read(), store.read_waiter()
    except OperatorError as error:
        facts["warnings"].append(error.reason)
    return facts


def _empty(target: Target) -> dict[str, Any]:
    return {
        "status": "stopped",
        "os_user": target.os_user,
        "data_directory": target.data_directory,
        "port": target.port,
        "bin_directory": None,
        "socket_directory": None,
        "control_method": None,
        "debian_cluster": None,
        "postmaster_pid": None,
        "identity_problem": None,
        "sql_error": None,
        "superuser": None,
        "role": None,
        "signal_files": [],
        "leftovers": [],
        "writable": False,
        "default_read_only": False,
        "version": None,
        "version_num": None,
        "major": None,
        "binary_version": None,
        "system_identifier": None,
        "timeline": None,
        "timeline_history": [],
        "positions": {
            "current": None,
            "received": None,
            "replayed": None,
            "replay_delay_s": None,
            "replay_lag_bytes": None,
            "observed_at": time.time(),
        },
        "replay_paused": None,
        "upstream": None,
        "replication_user": None,
        "replicas": [],
        "clients": 0,
        "slots": [],
        "settings": {},
        "control": {},
        "disk": None,
        "base_backup_running": False,
        "started_at": None,
        "pending_restart": [],
        "config_errors": [],
        "next_start": {},
        "programs": dict.fromkeys(PROGRAMS),
        "operation": None,
        "waiter": None,
        # Filled by readiness.py, for who asks for it.
        "readiness": None,
        "warnings": [],
    }


def _add_layout(facts: dict[str, Any], layout: Layout) -> None:
    facts.update(
        bin_directory=layout.bin_directory,
        socket_directory=layout.socket_directory,
        control_method=layout.control_method,
        debian_cluster=list(layout.debian_cluster) if layout.debian_cluster else None,
        major=layout.major,
        programs={
            name: layout.program(name) if os.access(layout.program(name), os.X_OK) else None for name in PROGRAMS
        },
    )
    try:
        # It says: pg_controldata (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1). It comes with the server, and starts in a
        # fraction of the time that postgres itself takes.
        facts["binary_version"] = run([layout.program("pg_controldata"), "--version"], 5).stdout.split()[2]
    except (OSError, IndexError):
        facts["warnings"].append(f"{layout.program('pg_controldata')} does not tell its version.")


def _disk(path: str) -> dict[str, int]:
    room = os.statvfs(path)
    return {"free_bytes": room.f_bavail * room.f_frsize, "total_bytes": room.f_blocks * room.f_frsize}


def address_of(facts: dict[str, Any], application: str = "elephaas") -> Address:
    """How to ask the server that `facts` describe. Raises OperatorError NO_SOCKET, NO_PROGRAMS."""
    if not facts["socket_directory"]:
        raise OperatorError(
            "NO_SOCKET",
            f"The instance in {facts['data_directory']} has no Unix socket directory.",
            "Set unix_socket_directories, or socket_directory here.",
        )
    if not facts["programs"]["psql"]:
        raise OperatorError("NO_PROGRAMS", f"There is no psql in {facts['bin_directory']}.", "Install it.")
    return Address(facts["programs"]["psql"], facts["socket_directory"], facts["port"], application)


def _ask(facts: dict[str, Any], timeout: float) -> dict[str, Any]:
    sql = _SQL % _in(*KNOWN, *_PRESET) + _FILES_SQL % _in(*STANDBY_SETTINGS)
    try:
        address = address_of(facts)
    except OperatorError as error:
        raise SqlError(error.reason) from error
    try:
        return _read(query(address, sql, timeout))
    except SqlError as error:
        if "recovery is not in progress" not in str(error) and "recovery is in progress" not in str(error):
            raise
        # It was promoted between two functions of the same statement: the second look sees the new state.
        return _read(query(address, sql, timeout))


def _in(*names: str) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _read(printed: str) -> dict[str, Any]:
    """The documents of both statements as one; the second is there for a superuser only."""
    answer: dict[str, Any] = {}
    for line in printed.splitlines():
        answer.update(json.loads(line))
    return answer


def _add_running(facts: dict[str, Any], target: Target, postmaster: Postmaster) -> None:
    if postmaster.status == "stopping":
        facts["status"] = "stopping"
    elif postmaster.status == "starting":
        facts["status"] = "starting"
    try:
        answer = _ask(facts, target.timeout)
    except (SqlError, json.JSONDecodeError) as error:
        _add_mute(facts, str(error))
        return
    if facts["status"] == "starting":
        # It became ready after postmaster.pid was read.
        facts["status"] = "running"
    settings = {name: convert(name, text) for name, text in answer["settings"].items() if name not in _PRESET}
    facts.update(
        superuser=answer["superuser"],
        role="replica" if answer["in_recovery"] else "primary",
        writable=not answer["in_recovery"],
        version=answer["version"].split()[0],
        version_num=answer["version_num"],
        replay_paused=answer["replay_paused"],
        replicas=answer["replicas"],
        clients=answer["clients"],
        slots=answer["slots"],
        base_backup_running=answer["backups"] > 0,
        started_at=answer["started_at"],
        pending_restart=answer["pending_restart"],
        config_errors=answer.get("config_errors", []),
        next_start={name: int(text) for name, text in (answer.get("next_start") or {}).items() if _is_number(text)},
        _answered_as=(answer["settings"].get("data_directory"), answer["system_identifier"]),
    )
    if not answer["superuser"]:
        facts["warnings"].append(f"{target.os_user} is not a superuser there: some facts are hidden from it.")
    receiver = answer["receiver"]
    if answer["timeline"]:
        facts["timeline"] = answer["timeline"]
    elif receiver and receiver["receiver_timeline"]:
        facts["timeline"] = max(facts["timeline"], receiver["receiver_timeline"])
    _add_positions(facts, answer)
    _add_settings(facts, settings, answer["settings"])
    if answer["in_recovery"]:
        facts["upstream"] = _upstream(facts, settings, receiver)
        replayed = facts["positions"]["replayed"]
        if replayed:
            held = replayed_timeline(
                facts["data_directory"], parse_lsn(replayed), facts["settings"]["wal_segment_size"]
            )
            facts["timeline"] = max(facts["timeline"], held)


def _is_number(text: Any) -> bool:
    # A file may hold anything; what is no number is among config_errors.
    return isinstance(text, str) and text.strip().isdigit()


def _add_mute(facts: dict[str, Any], message: str) -> None:
    """The postmaster lives and no SQL answer comes: what the control file still proves."""
    facts["sql_error"] = message
    facts["status"] = "starting" if "starting up" in message and facts["status"] == "running" else facts["status"]
    # The control file says "in production" from the end of recovery until the shutdown checkpoint is written:
    # a hung server that could write must never look like one that could not.
    facts["writable"] = facts["control"]["state"] in ("in production", "shutting down")
    facts["role"] = "primary" if facts["writable"] or not facts["signal_files"] else "replica"


def _add_positions(facts: dict[str, Any], answer: dict[str, Any]) -> None:
    received, replayed = answer["received"], answer["replayed"]
    lag = None
    if answer["in_recovery"] and received and replayed:
        # After a restart the received position begins at a segment boundary and can be the smaller one.
        lag = max(0, parse_lsn(received) - parse_lsn(replayed))
    delay = answer["replay_delay_s"]
    facts["positions"] = {
        "current": answer["current"],
        "received": received if answer["in_recovery"] else None,
        "replayed": replayed if answer["in_recovery"] else None,
        # The age of the last replayed commit says nothing about an idle primary: nothing to replay is no delay.
        "replay_delay_s": None if not answer["in_recovery"] or delay is None else 0.0 if lag == 0 else round(delay, 3),
        "replay_lag_bytes": lag,
        "observed_at": time.time(),
    }


def _add_settings(facts: dict[str, Any], settings: dict[str, Any], raw: dict[str, str]) -> None:
    facts["replication_user"] = _user_of(settings.get("primary_conninfo"))
    facts["default_read_only"] = bool(settings.get("default_transaction_read_only"))
    facts["settings"] = {name: settings.get(name) for name in KNOWN if name not in _PRIVATE_SETTINGS}
    facts["settings"].update(
        # What the command is may hold credentials; that there is one is what decisions need.
        archive_command_set=bool(
            (settings.get("archive_command") or "(disabled)") != "(disabled)" or settings.get("archive_library")
        ),
        data_checksums=raw["data_checksums"] == "on"
        if "data_checksums" in raw
        else facts["control"].get("data_checksums"),
        wal_segment_size=facts["control"].get("wal_segment_size"),
    )


def _user_of(conninfo: str | None) -> str | None:
    try:
        return parse_conninfo(conninfo or "").get("user")
    except OperatorError:
        return None  # _upstream warns of it, where it means anything


def _upstream(
    facts: dict[str, Any], settings: dict[str, Any], receiver: dict[str, Any] | None
) -> dict[str, Any] | None:
    text = settings.get("primary_conninfo")
    if not text:
        return None
    upstream: dict[str, Any] = {
        "host": None,
        "port": None,
        "user": None,
        "slot": settings.get("primary_slot_name") or None,
        "application_name": None,
        "conninfo": None,
        "password_inline": None,
        "status": None,
        "receiver_timeline": None,
        "latest_end_lsn": None,
        "last_message_age_s": None,
        "connected_host": None,
        "connected_port": None,
    }
    try:
        parts = parse_conninfo(text)
        port = parts.get("port", "5432")
        upstream.update(
            host=parts.get("host") or parts.get("hostaddr"),
            port=int(port) if port.isdigit() else None,
            user=parts.get("user"),
            application_name=parts.get("application_name"),
            conninfo=format_conninfo(without_secrets(parts)),
            password_inline=has_secret(parts),
        )
    except OperatorError as error:
        # The text itself is not shown: it may hold a password in a form that we do not understand.
        facts["warnings"].append(f"primary_conninfo: {error.reason}")
    if receiver:
        upstream.update(
            {key: receiver[key] for key in ("status", "receiver_timeline", "latest_end_lsn", "last_message_age_s")}
        )
        upstream.update(connected_host=receiver["host"], connected_port=receiver["port"])
    return upstream


def _add_stopped(facts: dict[str, Any], target: Target, layout: Layout) -> None:
    in_recovery = facts["control"]["state"] in RECOVERY_STATES
    facts["role"] = "replica" if facts["signal_files"] or in_recovery else "primary"
    if in_recovery and not facts["signal_files"]:
        facts["warnings"].append("It was a replica and has no signal file: it would start writable on that timeline.")
    if os.path.exists(os.path.join(target.data_directory, "postmaster.pid")):
        orphans = leftovers(target.data_directory)
        facts["leftovers"] = [item["pid"] for item in orphans]
        if orphans:
            pids = ", ".join(str(item["pid"]) for item in orphans)
            facts["warnings"].append(f"Its postmaster died and left processes behind, which can still write: {pids}.")
    try:
        settings = read_settings(layout.config_file, target.data_directory)
    except Unreadable as error:
        facts["warnings"].append(f"The settings are unknown: {error}.")
        facts["settings"] = {name: None for name in KNOWN if name not in _PRIVATE_SETTINGS}
        return
    settings["config_file"] = layout.config_file
    _add_settings(facts, settings, {})
    if facts["role"] == "replica":
        facts["upstream"] = _upstream(facts, settings, None)
    configured = settings["port"]
    if configured != target.port:
        facts["identity_problem"] = f"It is configured for port {configured}, not {target.port}."


def _add_identity(facts: dict[str, Any], target: Target, postmaster: Postmaster | None) -> None:
    """identity_problem: why what was found is not the instance that was meant."""
    answered = facts.pop("_answered_as", None)
    if postmaster is None:
        for directory in {facts["socket_directory"], target.socket_directory} - {None}:
            holder = socket_holder(directory, target.port)
            if holder:
                facts["identity_problem"] = (
                    f"It does not run, and port {target.port} is served by process {holder[0]} for {holder[1]}."
                )
    elif postmaster.port and postmaster.port != target.port:
        facts["identity_problem"] = f"It listens on port {postmaster.port}, not {target.port}."
    elif answered:
        directory, identifier = answered
        if directory and os.path.realpath(directory) != os.path.realpath(target.data_directory):
            facts["identity_problem"] = f"The server on port {target.port} has the data directory {directory}."
        elif identifier != facts["system_identifier"]:
            facts["identity_problem"] = f"The server on port {target.port} has the system identifier {identifier}."
    if facts["identity_problem"] is None and target.system_identifier not in (None, facts["system_identifier"]):
        facts["identity_problem"] = (
            f"Its system identifier is {facts['system_identifier']}, expected {target.system_identifier}."
        )


def require_identity(facts: dict[str, Any], target: Target) -> None:
    """Refuse to touch anything but the instance that was meant.

    Raises OperatorError WRONG_SYSTEM_IDENTIFIER, WRONG_INSTANCE, NO_DATA_DIRECTORY.
    """
    if facts["status"] == "absent":
        raise OperatorError(
            "NO_DATA_DIRECTORY", f"There is nothing in {target.data_directory}.", "Check data_directory."
        )
    if target.system_identifier not in (None, facts["system_identifier"]):
        raise OperatorError(
            "WRONG_SYSTEM_IDENTIFIER",
            f"{target.label} has the system identifier {facts['system_identifier']}, "
            f"expected {target.system_identifier}.",
            "This is another cluster: check data_directory and what the registry says.",
            {"found": facts["system_identifier"], "expected": target.system_identifier},
        )
    if facts["identity_problem"]:
        raise OperatorError(
            "WRONG_INSTANCE",
            f"{target.label} is not what was found: {facts['identity_problem']}",
            "Check port and data_directory.",
        )
