# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a failover wants to know of an instance beyond a look at it. Private to the collection.

Kept apart from probe.py because it costs a second psql call and walks through directories: a status of the whole fleet
does not pay for it. Nothing in here fails; what could not be found out is None, and no decision rests on None.
"""

from __future__ import annotations

import json
import os
import re
import time
from typing import Any, Iterator

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.conninfo import parse_conninfo
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.managers import find_autostart, find_managers
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.probe import address_of, observe
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.psql import SqlError, query
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.target import Target

# A data directory may hold millions of files: better a number that says "at least" than a plan that waits for it.
_WALK_S = 2.0
_INIT_FORK = re.compile(r"([0-9]+)_init\Z")

# Works on 13 to 18. pg_config and pg_file_settings are for superusers, and fail the whole statement for anybody else;
# pg_database_collation_actual_version came with 15.
_SQL = """
SELECT json_build_object(
  'settings', (SELECT json_object_agg(name, setting) FROM pg_settings WHERE name IN ('cluster_name',
      'dynamic_library_path', 'full_page_writes', 'primary_conninfo', 'shared_preload_libraries')),
  'archiver', (SELECT json_build_object(
      'failed_count', failed_count, 'last_failed_wal', last_failed_wal,
      'failing', coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false),
      'last_failed_age_s', extract(epoch FROM clock_timestamp() - last_failed_time)) FROM pg_stat_archiver),
  'transactions', (SELECT coalesce(json_agg(t), '[]') FROM (
      SELECT pid, usename AS user, application_name, state, extract(epoch FROM clock_timestamp() - xact_start) AS age_s
        FROM pg_stat_activity
       WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
       ORDER BY xact_start LIMIT 5) t),
  'prepared', (SELECT json_build_object('count', count(*),
      'oldest_s', extract(epoch FROM clock_timestamp() - min(prepared))) FROM pg_prepared_xacts),
  'backup_sessions', (SELECT coalesce(json_agg(application_name ORDER BY pid), '[]') FROM pg_stat_activity
      WHERE application_name ILIKE 'pgbackrest [backup]%'),
  'icu', (SELECT pg_collation_actual_version(oid) FROM pg_collation
      WHERE collprovider = 'i' ORDER BY collname = 'und-x-icu' DESC, collname LIMIT 1),
  'databases', (SELECT coalesce(json_agg(json_build_object('name', datname, 'locale', datcollate,
      'provider', coalesce(to_jsonb(d)->>'datlocprovider', 'c'), 'recorded', to_jsonb(d)->>'datcollversion',
      'actual', {actual_version}) ORDER BY datname), '[]') FROM pg_database d WHERE datallowconn),
  'library_directory', {library_directory},
  'preload_in_files', {preload_in_files}
);
"""
_LIBRARY_DIRECTORY = "(SELECT setting FROM pg_config WHERE name = 'PKGLIBDIR')"
_PRELOAD_IN_FILES = """(SELECT setting FROM pg_file_settings
      WHERE name = 'shared_preload_libraries' AND error IS NULL ORDER BY seqno DESC LIMIT 1)"""


def observe_readiness(target: Target) -> dict[str, Any]:
    """The facts of one instance as probe.observe() has them, with `readiness` among them."""
    facts = observe(target)
    facts["readiness"] = readiness(target, facts)
    return facts


def readiness(target: Target, facts: dict[str, Any]) -> dict[str, Any]:
    """The facts that instance_info documents as `readiness`. facts: what probe.observe() has found just now."""
    there = facts["status"] != "absent"
    found: dict[str, Any] = {
        "managers": find_managers(target.data_directory),
        "autostart": find_autostart(facts["debian_cluster"], facts["postmaster_pid"]),
        "glibc": _glibc(),
        "archive_ready": _archive_ready(target.data_directory) if there else None,
        # Only a primary has any that hold something.
        "unlogged": _unlogged(target.data_directory) if there and facts["writable"] else None,
        "sql_error": None,
        "standby_name": None,
        "full_page_writes": None,
        "archiver": None,
        "transactions": None,
        "prepared": None,
        "backup_sessions": None,
        "preload": None,
        "icu": None,
        "databases": None,
    }
    if facts["status"] != "running" or facts["sql_error"]:
        return found
    try:
        answer = json.loads(query(address_of(facts), _statement(facts), target.timeout))
    except (SqlError, OperatorError, json.JSONDecodeError) as error:
        found["sql_error"] = str(error)
        return found
    settings = answer["settings"]
    found.update({name: answer[name] for name in ("archiver", "transactions", "prepared", "backup_sessions")})
    found.update(
        standby_name=standby_name(settings) if facts["superuser"] else None,
        full_page_writes=settings.get("full_page_writes") == "on",
        preload=_preload(answer),
        icu=answer["icu"],
        databases=answer["databases"],
    )
    return found


def _statement(facts: dict[str, Any]) -> str:
    return _SQL.format(
        actual_version="pg_database_collation_actual_version(oid)" if facts["version_num"] >= 150000 else "NULL",
        library_directory=_LIBRARY_DIRECTORY if facts["superuser"] else "NULL",
        preload_in_files=_PRELOAD_IN_FILES if facts["superuser"] else "NULL",
    )


def standby_name(settings: dict[str, str]) -> str | None:
    """The name under which it streams from an upstream, which synchronous_standby_names is matched with; None: unknown.

    libpqwalreceiver falls back to cluster_name, and then to walreceiver.
    """
    try:
        named = parse_conninfo(settings.get("primary_conninfo") or "").get("application_name")
    except OperatorError:
        return None
    return named or settings.get("cluster_name") or "walreceiver"


def _preload(answer: dict[str, Any]) -> dict[str, Any] | None:
    """What the next start loads: all of it, and what of it is not on disk."""
    loaded = answer["settings"].get("shared_preload_libraries")
    if loaded is None or answer["library_directory"] is None:
        return None
    wanted = answer["preload_in_files"] if answer["preload_in_files"] is not None else loaded
    libraries = [name for name in (part.strip().strip('"') for part in wanted.split(",")) if name]
    path = answer["settings"].get("dynamic_library_path") or "$libdir"
    missing = [name for name in libraries if not _on_disk(name, path, answer["library_directory"])]
    return {"libraries": sorted(libraries), "missing": sorted(missing)}


def _on_disk(name: str, path: str, library_directory: str) -> bool:
    """As the server looks for it ("Shared Library Preloading", dynamic_library_path)."""
    directories = [""] if "/" in name else [part for part in path.split(":") if part]
    for directory in directories:
        full = os.path.join(directory, name) if directory else name
        if full.startswith("$libdir"):
            full = library_directory + full[len("$libdir") :]
        if os.path.exists(full) or os.path.exists(full + ".so"):
            return True
    return False


def _glibc() -> str | None:
    try:
        # "glibc 2.36"; another C library does not know the name.
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").rpartition(" ")[2] or None
    except (ValueError, OSError):
        return None


def _archive_ready(data_directory: str) -> int | None:
    try:
        names = os.listdir(os.path.join(data_directory, "pg_wal", "archive_status"))
    except OSError:
        return None
    return sum(1 for name in names if name.endswith(".ready"))


def _unlogged(data_directory: str) -> dict[str, Any]:
    """Relations that are empty after a promotion: each has an init fork ("The Initialization Fork"), tables as indexes.

    bytes: of their first segments. complete: the walk came to its end within its time.
    """
    deadline = time.monotonic() + _WALK_S
    count = size = 0
    for directory in _database_directories(data_directory):
        try:
            names = os.listdir(directory)
        except OSError:
            continue
        for match in filter(None, map(_INIT_FORK.match, names)):
            if time.monotonic() > deadline:
                return {"relations": count, "bytes": size, "complete": False}
            count += 1
            try:
                size += os.path.getsize(os.path.join(directory, match.group(1)))
            except OSError:
                # Dropped meanwhile.
                pass
        if time.monotonic() > deadline:
            return {"relations": count, "bytes": size, "complete": False}
    return {"relations": count, "bytes": size, "complete": True}


def _database_directories(data_directory: str) -> Iterator[str]:
    # base/<database>, and pg_tblspc/<tablespace>/PG_<version>/<database>
    tops = [os.path.join(data_directory, "base")]
    tablespaces = os.path.join(data_directory, "pg_tblspc")
    for name in _listed(tablespaces):
        tops += [os.path.join(tablespaces, name, inner) for inner in _listed(os.path.join(tablespaces, name))]
    for top in tops:
        for name in _listed(top):
            yield os.path.join(top, name)


def _listed(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []
