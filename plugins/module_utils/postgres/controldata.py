# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""pg_controldata: what the control file of an instance says, running or not. Private to the collection."""

from __future__ import annotations

import os
import time
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.command import run

# src/bin/pg_controldata/pg_controldata.c
_CHECKSUM = "Calculated CRC checksum does not match"

_TEXT = {
    "Database cluster state": "state",
    "Latest checkpoint location": "checkpoint_lsn",
    "Latest checkpoint's REDO location": "redo_lsn",
    "Minimum recovery ending location": "min_recovery_end_lsn",
    "Backup start location": "backup_start_lsn",
    "wal_level setting": "wal_level",
    "Database system identifier": "system_identifier",
}
_INTEGER = {
    "pg_control version number": "control_version",
    "Latest checkpoint's TimeLineID": "checkpoint_timeline",
    "Latest checkpoint's PrevTimeLineID": "checkpoint_previous_timeline",
    "Min recovery ending loc's timeline": "min_recovery_timeline",
    "max_connections setting": "max_connections",
    "max_worker_processes setting": "max_worker_processes",
    "max_wal_senders setting": "max_wal_senders",
    "max_prepared_xacts setting": "max_prepared_transactions",
    "max_locks_per_xact setting": "max_locks_per_transaction",
    "WAL block size": "wal_block_size",
    "Bytes per WAL segment": "wal_segment_size",
}


def parse_controldata(text: str) -> dict[str, Any]:
    """The output of pg_controldata (C locale) -> {"state", "checkpoint_lsn", ..., "data_checksums": bool}.

    Sizes in bytes, positions as text, the system identifier as text (it does not fit every JSON reader's numbers).
    Raises OperatorError CONTROL_FILE_UNREADABLE when a field that everything depends on is missing.
    """
    fields: dict[str, Any] = {}
    for line in text.splitlines():
        label, separator, value = line.partition(":")
        label, value = label.strip(), value.strip()
        if not separator:
            continue
        if label in _TEXT:
            fields[_TEXT[label]] = value
        elif label in _INTEGER and value.isdigit():
            fields[_INTEGER[label]] = int(value)
        elif label == "wal_log_hints setting":
            fields["wal_log_hints"] = value == "on"
        elif label == "Data page checksum version":
            fields["data_checksums"] = value != "0"
    missing = [
        key for key in ("state", "system_identifier", "checkpoint_timeline", "checkpoint_lsn") if key not in fields
    ]
    if missing:
        raise OperatorError(
            "CONTROL_FILE_UNREADABLE",
            f"pg_controldata did not say: {', '.join(missing)}.",
            evidence={"output": text[-500:]},
        )
    return fields


def read_controldata(bin_directory: str, data_directory: str, timeout: float) -> dict[str, Any]:
    """Run pg_controldata on a data directory. Raises OperatorError CONTROL_FILE_UNREADABLE."""
    program = os.path.join(bin_directory, "pg_controldata")
    output = _run(program, data_directory, timeout)
    if _CHECKSUM in output:
        # The server may have been writing it at that moment; only twice in a row is it broken.
        time.sleep(0.05)
        output = _run(program, data_directory, timeout)
    if _CHECKSUM in output:
        # pg_controldata warns and then prints whatever it found: not a base for decisions.
        raise OperatorError("CONTROL_FILE_UNREADABLE", f"The control file in {data_directory} fails its checksum.")
    return parse_controldata(output)


def _run(program: str, data_directory: str, timeout: float) -> str:
    try:
        done = run([program, "-D", data_directory], timeout)
    except OSError as error:
        raise OperatorError("CONTROL_FILE_UNREADABLE", f"{program} cannot be run: {error.strerror}.") from error
    if done.status != 0:
        raise OperatorError(
            "CONTROL_FILE_UNREADABLE",
            f"The control file in {data_directory} cannot be read: {done.stderr.strip() or 'no message'}.",
            "Check that data_directory is a PostgreSQL data directory of the version that bin_directory holds.",
        )
    return done.stdout + done.stderr


def control_timeline(control: dict[str, Any]) -> int:
    """The newest timeline that the control file knows of.

    After a promotion the last checkpoint is still one of the old timeline until the next one ends, but the
    minimum recovery point already names the new one; along one history timelines only grow.
    """
    return max(control["checkpoint_timeline"], control.get("min_recovery_timeline", 0))
