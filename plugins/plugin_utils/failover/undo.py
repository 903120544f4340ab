# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Back to where a planned failover began, as long as nobody was promoted. Private to the collection; controller only.

Three things in this order: the candidate confirms that nothing will promote it any more; the old primary's postmaster
is seen gone, or seen running untouched; only then the signal file is removed, and it is seen accepting writes.
A candidate that cannot be asked may have been promoted: then nothing is undone.
"""

from __future__ import annotations

import typing as t

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.failover.hosts import Verbs


def undo(verbs: Verbs, source: str, target: str) -> None:
    """Bring the old primary back. Raises OperatorError when it cannot be known to accept writes again."""
    verbs.do(target, "promote", state="disarmed", look_after=False)
    seen = verbs.do(source, "look")["instance"]
    if not _untouched(seen):
        if seen["status"] == "running" and seen["role"] == "replica" and not seen["sql_error"]:
            # Somebody has restarted it meanwhile, read-only as it was armed to be. It holds all there is, and nobody
            # was promoted: a new timeline is the only safe way out of recovery.
            verbs.do(source, "promote", state="promoted", proof="none")
            return
        # One on its way down answers nobody, and counts as writable until it is gone.
        verbs.do(source, "instance", state="stopped", look_after=False)
    verbs.do(source, "follow", state="absent", look_after=False)
    back = verbs.do(source, "instance", state="started")["instance"]
    if not back["writable"]:
        raise OperatorError("NOT_BACK", f"{source} was started and does not accept writes.", "See its log.")


def _untouched(seen: dict[str, t.Any]) -> bool:
    return bool(seen["writable"] and seen["status"] == "running" and not seen["sql_error"])
