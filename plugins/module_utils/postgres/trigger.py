# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells a replica to promote, and sees to it that it hears. Private to the collection."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Callable

from ansible_collections.elephaas.herd.plugins.module_utils.postgres.psql import SqlError

# Asks for the promotion without waiting in the server, whose own loop looks only every 100 ms.
REQUEST = "SELECT pg_promote(false);"

# PROMOTE_SIGNAL_FILE of src/include/access/xlog.h: there from the request until the startup process has seen it.
_FILE = "promote"
_POLL_S = 0.002
_NUDGE_S = 0.02


def is_requested(data_directory: str) -> bool:
    """A promotion was asked for that the server has not seen yet."""
    return os.path.exists(os.path.join(data_directory, _FILE))


def see_through(ask: Callable[[str], str], data_directory: str, timeout: float) -> bool:
    """After the request, wait until the server is out of recovery: False when it is not within `timeout` seconds.

    ask: runs one statement and returns what it prints; may raise SqlError.
    """
    deadline = time.monotonic() + timeout
    nudge_at = time.monotonic() + _NUDGE_S
    while not _is_out(ask):
        if time.monotonic() > deadline:
            return False
        if time.monotonic() > nudge_at:
            # A wake-up can be taken for another one. While a WAL receiver tries to reconnect, the startup process
            # sees the request or the receiver's end, and then sleeps all the same until wal_retrieve_retry_interval
            # (5 s by default) has passed since the last attempt (WaitForWALToBecomeAvailable in
            # src/backend/access/transam/xlogrecovery.c). Asking again wakes it: seen in every third promotion.
            with contextlib.suppress(SqlError):
                ask(REQUEST)
            nudge_at = time.monotonic() + _NUDGE_S
        time.sleep(_POLL_S)
    # A repeated request leaves its file behind when the first one had been seen already; the server would remove it
    # only at its next start.
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(data_directory, _FILE))
    return True


def _is_out(ask: Callable[[str], str]) -> bool:
    try:
        return ask("SELECT pg_is_in_recovery();") == "f"
    except SqlError:
        return False
