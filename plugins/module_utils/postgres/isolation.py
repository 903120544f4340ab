# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Holding still what is left of a herd that has lost its primary. Private to the collection.

Two states of follow: `isolated` ends a replica's replication, so that what it holds cannot change any more while the
most advanced one is looked for; `held` sees to it that a stopped old primary can only come up read-only.
"""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.layout import find_layout
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.outcome import Outcome
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.pidfile import find_postmaster, leftovers
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.probe import address_of
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.psql import SqlError, query
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.standby import (
    configured,
    reload_settings,
    signal_present,
    store_settings,
    write_signal,
)
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.target import Target
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.token import TokenStore, check_token
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.verb import require_answer
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.waiter import call_off

_POLL_S = 0.02

# What it received and what it replayed must be the same before positions are compared; a paused replay never gets there.
_QUIET = """SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)
 AND (pg_is_wal_replay_paused() OR coalesce(pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn(), true));"""


def isolated(
    target: Target, _params: dict[str, Any], check_mode: bool, facts: dict[str, Any], store: TokenStore
) -> Outcome:
    """Clear primary_conninfo and see the WAL receiver gone."""
    require_answer(facts)
    if facts["writable"]:
        raise OperatorError("IS_PRIMARY", f"{target.label} accepts writes.", "Look at the herd again.")
    present = configured(facts, find_layout(target, None).config_file, target.timeout)
    did = ["cleared primary_conninfo"] if present["primary_conninfo"] else []
    if not check_mode:
        if did:
            # Kept first: the password in it may exist nowhere else.
            store.write_isolated(present)
            store_settings(facts, {"primary_conninfo": ""}, target.timeout)
        with store.locked():
            # A waiter of an earlier, planned attempt must not decide beside this run.
            call_off(store, "superseded")
        reload_settings(facts, "", target.timeout)
        _see_quiet(target, facts)
    return Outcome(did, "", "", {})


def _see_quiet(target: Target, facts: dict[str, Any]) -> None:
    deadline = time.monotonic() + target.timeout
    while True:
        try:
            if query(address_of(facts), _QUIET, target.timeout) == "t":
                return
        except SqlError as error:
            raise OperatorError("NO_ANSWER", f"{target.label} does not answer: {error}.", "See its log.") from error
        if time.monotonic() > deadline:
            raise OperatorError(
                "STILL_RECEIVING",
                f"{target.label} still receives or replays after {target.timeout:g} s.",
                "See pg_stat_wal_receiver, and for a primary_conninfo on the server's command line.",
            )
        time.sleep(_POLL_S)


def held(
    target: Target, _params: dict[str, Any], check_mode: bool, facts: dict[str, Any], store: TokenStore
) -> Outcome:
    """From the return on, its next start, by whomever, is read-only."""
    if facts["status"] != "stopped":
        raise OperatorError(
            "NOT_STOPPED", f"{target.label} is {facts['status']}, not stopped.", "Look at the herd again."
        )
    did = [] if signal_present(target.data_directory) else ["wrote standby.signal"]
    if did and not check_mode:
        with store.locked():
            check_token(store.read(), target.token)
            write_signal(target.data_directory)
    # Somebody may have started it between the look and the signal file; and backends may outlive their postmaster.
    running = find_postmaster(target.data_directory)
    left = [str(item["pid"]) for item in leftovers(target.data_directory)]
    if running or left:
        raise OperatorError(
            "NOT_STOPPED",
            f"{target.label} is not stopped: process {running.pid if running else ', '.join(left)} can write.",
            "End it first (mode immediate); its next start is read-only.",
        )
    return Outcome(did, "", "", {})
