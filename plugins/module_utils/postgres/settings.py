# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration files of an instance that does not run. Private to the collection.

Only a running server knows its settings for sure. For a stopped one the files are read as the server would
("Setting Parameters": postgresql.conf, its includes in order, then postgresql.auto.conf; the last value wins).
A file that cannot be read makes every answer unknown (None), never a guess.
"""

from __future__ import annotations

import os
import re
from typing import Any

# name -> (type, default of PostgreSQL 13 to 18). The types are those of pg_settings.vartype.
KNOWN: dict[str, tuple[str, Any]] = {
    "max_connections": ("integer", 100),
    "max_worker_processes": ("integer", 8),
    "max_wal_senders": ("integer", 10),
    "max_prepared_transactions": ("integer", 0),
    "max_locks_per_transaction": ("integer", 64),
    "max_replication_slots": ("integer", 10),
    "max_slot_wal_keep_size": ("integer", -1),
    "recovery_min_apply_delay": ("integer", 0),
    "wal_level": ("enum", "replica"),
    "archive_mode": ("enum", "off"),
    "hot_standby": ("bool", True),
    "wal_log_hints": ("bool", False),
    "default_transaction_read_only": ("bool", False),
    "recovery_target": ("string", ""),
    "recovery_target_lsn": ("string", ""),
    "recovery_target_name": ("string", ""),
    "recovery_target_time": ("string", ""),
    "recovery_target_timeline": ("string", "latest"),
    "recovery_target_xid": ("string", ""),
    "synchronous_standby_names": ("string", ""),
    "primary_conninfo": ("string", ""),
    "primary_slot_name": ("string", ""),
    "archive_command": ("string", ""),
    "archive_library": ("string", ""),
    "listen_addresses": ("string", "localhost"),
    "unix_socket_directories": ("string", None),
    "port": ("integer", 5432),
    "config_file": ("string", None),
    "hba_file": ("string", None),
}

# Base units of the settings above that have one ("Parameter Names and Values"): milliseconds and megabytes.
_UNITS = {
    "recovery_min_apply_delay": {"us": 0.001, "ms": 1, "s": 1000, "min": 60000, "h": 3600000, "d": 86400000},
    "max_slot_wal_keep_size": {"B": 1 / 1048576, "kB": 1 / 1024, "MB": 1, "GB": 1024, "TB": 1048576},
}

_LINE = re.compile(
    r"\A\s*([A-Za-z_][A-Za-z0-9_$.]*)\s*(?:=\s*|\s+)('(?:[^'\\]|''|\\.)*'|[^\s#']+)\s*(?:#.*)?\Z", re.DOTALL
)
_MAX_DEPTH = 10


class Unreadable(Exception):
    """A configuration file could not be read or understood; the text names it."""


def read_settings(config_file: str, data_directory: str) -> dict[str, Any]:
    """Every known setting of a stopped instance, typed as in KNOWN. Raises Unreadable."""
    raw: dict[str, str] = {}
    _read(config_file, raw, 0, required=True)
    _read(os.path.join(data_directory, "postgresql.auto.conf"), raw, 0, required=False)
    return {name: convert(name, raw[name]) if name in raw else default for name, (_type, default) in KNOWN.items()}


def _read(path: str, raw: dict[str, str], depth: int, required: bool) -> None:
    if depth > _MAX_DEPTH:
        raise Unreadable(f"{path} is included too deeply")
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            lines = stream.read().split("\n")
    except FileNotFoundError as error:
        if not required:
            return
        raise Unreadable(f"{path} does not exist") from error
    except OSError as error:
        raise Unreadable(f"{path} cannot be read ({error.strerror})") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.match(line)
        if not match:
            raise Unreadable(f"{path} line {number} cannot be understood")
        name, value = match.group(1).lower(), unquote(match.group(2))
        beside = os.path.join(os.path.dirname(path), value)
        if name == "include":
            _read(beside, raw, depth + 1, required=True)
        elif name == "include_if_exists":
            _read(beside, raw, depth + 1, required=False)
        elif name == "include_dir":
            _read_directory(beside, raw, depth + 1)
        else:
            raw[name] = value


def _read_directory(path: str, raw: dict[str, str], depth: int) -> None:
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise Unreadable(f"{path} cannot be listed ({error.strerror})") from error
    for name in names:
        if name.endswith(".conf") and not name.startswith("."):
            _read(os.path.join(path, name), raw, depth, required=True)


def unquote(token: str) -> str:
    """A value as it stands in a configuration file -> the value (doubled quotes and backslash escapes undone)."""
    if not token.startswith("'"):
        return token
    escapes = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
    return re.sub(
        r"''|\\([0-7]{1,3})|\\(.)",
        lambda found: (
            "'"
            if found.group(0) == "''"
            else chr(int(found.group(1), 8) & 255)
            if found.group(1)
            else escapes.get(found.group(2), found.group(2))
        ),
        token[1:-1],
        flags=re.DOTALL,
    )


def quote(value: str) -> str:
    """A value -> as it stands in a configuration file, in the form that ALTER SYSTEM writes."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def convert(name: str, text: str) -> Any:
    """The text of a setting (from a file, or from pg_settings) -> int, bool or str; None when it makes no sense."""
    kind = KNOWN[name][0] if name in KNOWN else "string"
    if kind == "bool":
        word = text.lower()
        # The server takes any unique beginning of these words ("Boolean" in "Parameter Names and Values").
        if word in ("1", "on") or (word and ("true".startswith(word) or "yes".startswith(word))):
            return True
        if word in ("0", "of", "off") or (word and ("false".startswith(word) or "no".startswith(word))):
            return False
        return None
    if kind == "integer":
        match = re.match(r"\A\s*(-?[0-9.]+)\s*([A-Za-z]*)\s*\Z", text)
        factor = _UNITS.get(name, {}).get(match.group(2)) if match and match.group(2) else 1
        try:
            return round(float(match.group(1)) * factor) if match and factor else None
        except ValueError:
            return None
    return text
