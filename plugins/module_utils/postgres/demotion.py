# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a former primary a replica, without destroying what only it holds. Private to the collection.

Armed before it is stopped: from then on nobody's start, not even an automatic one, brings it up writable.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ansible_collections.elephaas.herd.plugins.module_utils.decide.lsn import format_lsn
from ansible_collections.elephaas.herd.plugins.module_utils.decide.split_brain import alone_text
from ansible_collections.elephaas.herd.plugins.module_utils.decide.timelines import Parting, parting
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.control import stop
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.detach import restore_archiving
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.following import following, prepared
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.probe import observe, require_identity
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.target import Target
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.token import TokenStore
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.verb import require_token
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.walrecord import Written, written_since

# Reading all WAL since the fork may take longer than any question to a server.
_READING_S = 120.0


class Demoted(NamedTuple):
    """times: when it was asked for and seen. did: in words. left: why it stays stopped and armed; None: it streams."""

    times: dict[str, float]
    did: list[str]
    left: dict[str, Any] | None


def demoted(target: Target, params: dict[str, Any], facts: dict[str, Any], store: TokenStore) -> Demoted:
    """Make it a replica of the upstream, and see it stream; where it has diverged, leave it stopped and armed.

    params: upstream_host, upstream_port, upstream_user, and what the upstream is on: timeline, history.
    Raises what following() and stop() raise; but for its very first part, it is armed then.
    """
    require_token(store, target, check_mode=False)
    wish = {
        "upstream_host": params["upstream_host"],
        "upstream_port": params["upstream_port"],
        "upstream_user": params["upstream_user"],
        "application_name": None,
        "slot": None,
        "expected_timeline": params["timeline"],
        "wait_s": target.timeout,
        "drop_slots": [],
    }
    times: dict[str, float] = {}
    did: list[str] = []
    if facts["status"] == "stopped" or facts["writable"]:
        did += prepared(target, wish, False, facts, store).did
    if facts["writable"]:
        times = stop(target, "fast", facts["postmaster_pid"])
        did.append(f"stopped (fast) the primary, process {facts['postmaster_pid']}")
    if did:
        facts = observe(target)
        require_identity(facts, target)
    did += restore_archiving(target, facts, store)
    if facts["status"] == "stopped":
        left = _diverged(facts, params)
        if left:
            return Demoted(times, did, left)
    did += following(target, wish, False, facts, store).did
    return Demoted(times, did, None)


def _diverged(facts: dict[str, Any], params: dict[str, Any]) -> dict[str, Any] | None:
    """Why it cannot follow as it is; None when it can."""
    apart = parting(facts, {"timeline": params["timeline"], "timeline_history": params["history"]})
    written = _written(facts, apart)
    if apart.diverged is False or (apart.diverged is None and written == Written(0, 0)):
        return None
    held = f"it {alone_text(apart)}"
    if written is not None:
        held += f": {written.records} records, {written.commits} commits, its own maintenance included"
    return {
        "code": "DIVERGED",
        "since": format_lsn(apart.fork) if apart.fork is not None else None,
        "bytes": apart.alone,
        "commits": written.commits if written else None,
        "reason": f"{held}. It stays stopped, and can only come up read-only. It needs a resync "
        "(discard_divergent=true destroys what only it holds)",
    }


def _written(facts: dict[str, Any], apart: Parting) -> Written | None:
    program = facts["programs"]["pg_waldump"]
    if apart.fork is None or not program:
        return None
    size = int(facts["control"]["wal_segment_size"])
    return written_since(program, facts["data_directory"], facts["timeline"], apart.fork, size, _READING_S)
