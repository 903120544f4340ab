# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host verbs, each as one function: what a module and a job of the controller's fan-out both call.

Private to the collection. Each takes (target, parameters, check mode), runs as the instance's account, and returns what
the module of the same name documents. The parameters are the module's, with every default filled in; where
`look_after` is there and false, the facts afterwards are left out: within a failover each look is downtime of writers.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.postgres.following import absent, following, prepared
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.isolation import held, isolated
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.probe import observe, require_identity
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.promotion import armed, disarmed, promoted
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.readiness import observe_readiness
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.states import bring_to
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.target import Target
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.token import claim, release
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.verb import finish, look_and_guard, require_token

_FOLLOW = {
    "following": following,
    "prepared": prepared,
    "absent": absent,
    "isolated": isolated,
    "held": held,
}
_PROMOTE = {"armed": armed, "promoted": promoted, "disarmed": disarmed}


def _looked_at_again(target: Target, params: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    if not params.get("look_after", True):
        return {}
    facts = observe(target)
    require_identity(facts, target)
    return facts


def instance(target: Target, params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Started, stopped, restarted, reloaded."""
    facts, store = look_and_guard(target)
    times, did = bring_to(target, params, check_mode, facts, store)
    released = finish(target, store, params, check_mode)
    result: dict[str, Any] = {"changed": bool(did) or released, "did": did}
    if times:
        result["times"] = times
    if not check_mode and (did or facts["status"] == "starting"):
        facts = _looked_at_again(target, params, facts)
    result["instance"] = facts
    return result


def follow(target: Target, params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Following an upstream, prepared to, or no longer; isolated, or held."""
    facts, store = look_and_guard(target)
    require_token(store, target, check_mode)
    outcome = _FOLLOW[params["state"]](target, params, check_mode, facts, store)
    released = finish(target, store, params, check_mode)
    if outcome.did and not check_mode:
        facts = _looked_at_again(target, params, facts)
    result: dict[str, Any] = {"changed": bool(outcome.did) or released, "did": outcome.did, "instance": facts}
    result["diff"] = {"before": outcome.before, "after": outcome.after}
    result.update(outcome.more)
    return result


def promote(target: Target, params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Armed, promoted, disarmed."""
    facts, store = look_and_guard(target)
    did = _PROMOTE[params["state"]](target, params, check_mode, facts, store)
    released = finish(target, store, params, check_mode)
    if did and not check_mode:
        facts = _looked_at_again(target, params, facts)
    return {"changed": bool(did) or released, "did": did, "waiter": store.read_waiter(), "instance": facts}


def operation_token(target: Target, params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Claimed for an operation, or released by it."""
    token = params["token"]
    facts, store = look_and_guard(target)
    if params["state"] == "released":
        changed, record = release(store, token, params["outcome"], write=not check_mode)
    else:
        changed, record = claim(
            store,
            token,
            params["operation"],
            params["lease_s"],
            params["authority"],
            params["takeover"],
            write=not check_mode,
        )
        if not check_mode:
            # What counts for the plan is what is true once nobody else may act any more.
            facts = observe_readiness(target) if params.get("readiness") else observe(target)
    facts["operation"] = record if not check_mode else facts["operation"]
    return {"changed": changed, "operation": record, "instance": facts}
