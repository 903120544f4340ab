# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One step of a bulk operation on one instance: claim it, act, release it, in one go. Private to the collection."""

from __future__ import annotations

import contextlib
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.demotion import demoted
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.detach import detached
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.states import bring_to
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.target import Target
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.token import claim, release
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.verb import look_and_guard


def take_step(target: Target, params: dict[str, Any]) -> dict[str, Any]:
    """Bring the instance to params["state"] (as in states.py, or "detached", or "demoted") under the operation's token.

    params: state, mode, log_file, wait_streaming; expect (what decide/bulk.py saw: role, running, system_identifier,
    timeline); claim (token, operation, lease_s, authority, takeover); of "demoted" also follows (see demotion.py).
    Returns {"changed", "did", "times", "left"} (left: what is not as it was wished, None: all is).
    Raises OperatorError SITUATION_CHANGED, and what the state itself raises.
    """
    facts, store = look_and_guard(target)
    _require_expected(target, facts, params["expect"])
    token = params["claim"]["token"]
    claim(store, write=True, **params["claim"])
    target = target._replace(token=token)
    times: dict[str, float] = {}
    left: dict[str, Any] | None = None
    outcome = "aborted"
    try:
        if params["state"] == "detached":
            did = detached(target, facts, store)
        elif params["state"] == "demoted":
            times, did, left = demoted(target, params["follows"], facts, store)
        else:
            times, did = bring_to(target, params, False, facts, store)
        outcome = "done"
    finally:
        # A newer operation may have taken over meanwhile: then there is nothing of ours to close.
        with contextlib.suppress(OperatorError):
            release(store, token, outcome, write=True)
    return {"changed": bool(did), "did": did, "times": times, "left": left}


def _require_expected(target: Target, facts: dict[str, Any], expect: dict[str, Any]) -> None:
    now = {**facts, "running": facts["status"] != "stopped"}
    changed = [f"{key} is {now[key]}, was {value}" for key, value in expect.items() if now[key] != value]
    if changed:
        raise OperatorError(
            "SITUATION_CHANGED",
            f"{target.label} is not as it was when the plan was made: {'; '.join(changed)}.",
            "Look at the new plan and run again.",
        )
