# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who streamed from whom before an instance was restarted, and whether all of it is back. Private to the collection."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any, NamedTuple

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.psql import Address, Session, SqlError
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.target import Target

# The first looks are close together, for a replica that was restarted itself streams at once; one whose upstream was away
# takes seconds, and forty primaries that wait for theirs must not spend the machine on looking.
_FIRST_POLL_S = 0.05
_LAST_POLL_S = 0.25

# pg_stat_wal_receiver of a replica; pg_stat_replication of who has replicas.
_SQL = (
    "SELECT json_build_object('receives', (SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'), "
    "'senders', (SELECT coalesce(json_agg(json_build_array(application_name, host(client_addr))), '[]') "
    "FROM pg_stat_replication WHERE state = 'streaming'));"
)


class Peers(NamedTuple):
    """receives: it streams from an upstream. senders: how many stream from it, by (application name, address)."""

    receives: bool
    senders: Counter[tuple[str, str | None]]


def peers(facts: dict[str, Any]) -> Peers:
    """Who streamed when these facts were taken. A base backup does not count: it never comes back by itself."""
    return Peers(
        (facts["upstream"] or {}).get("status") == "streaming",
        Counter(
            (sender["application_name"], sender["client_addr"])
            for sender in facts["replicas"]
            if sender["state"] == "streaming"
        ),
    )


def await_peers(target: Target, address: Address, before: Peers) -> float:
    """Wait until everybody who streamed before streams again; when that was, in seconds since 1970.

    After its upstream was away a replica tries again every wal_retrieve_retry_interval (5 s by default).
    Raises OperatorError NOT_STREAMING after target.timeout seconds, with who is missing.
    """
    deadline = time.monotonic() + target.timeout
    pause = _FIRST_POLL_S
    session: Session | None = None
    missing, said = "", ""
    try:
        while True:
            try:
                session = session or Session(address, target.timeout)
                missing = _missing(before, json.loads(session.ask(_SQL, target.timeout)))
                if not missing:
                    return time.time()
            except SqlError as error:
                session, said = None, str(error)
            if time.monotonic() > deadline:
                break
            time.sleep(pause)
            pause = min(_LAST_POLL_S, pause * 1.2)
    finally:
        if session:
            session.close()
    raise OperatorError(
        "NOT_STREAMING",
        f"{target.label} runs again, but {missing or said} after {target.timeout:g} s.",
        "See its log, and that of the other side.",
    )


def _missing(before: Peers, now: dict[str, Any]) -> str:
    if before.receives and not now["receives"]:
        return "does not stream from its upstream"
    gone = before.senders - Counter((name, address) for name, address in now["senders"])
    if gone:
        return f"{', '.join(f'{name} ({address})' for name, address in sorted(gone, key=str))} does not stream from it"
    return ""
