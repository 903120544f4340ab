# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide a failover of one herd from live facts, DNS and the registry. Reads, and changes nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.candidate import Wishes
from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd, Member
from ansible_collections.elephaas.herd.plugins.module_utils.decide.plan import (
    add_rehearsal,
    changed_decisions,
    plan_failover,
    roles_after,
)
from ansible_collections.elephaas.herd.plugins.module_utils.decide.verdict import REFUSE, Verdict
from ansible_collections.elephaas.herd.plugins.plugin_utils import herd as herds
from ansible_collections.elephaas.herd.plugins.plugin_utils.action import ControllerAction
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.options import DNS_ARGUMENT_SPEC
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.repoint import Updater
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry import operations
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import (
    REGISTRY_ARGUMENT_SPEC,
    open_registry,
)
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.holder import this_holder
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.schema import require_current


class ActionModule(ControllerAction):
    """The controller-side work of elephaas.herd.failover_plan_info."""

    ARGUMENT_SPEC = {
        "observations": {"type": "list", "elements": "dict", "default": []},
        "looks": {"type": "list", "elements": "dict", "default": []},
        "plan": {"type": "dict"},
        "rehearsal": {"type": "dict", "default": {}},
        "confirmed": {"type": "dict"},
        "token": {"type": "int", "no_log": False},
        "confirm": {"type": "str", "default": ""},
        "candidate": {"type": "str", "default": ""},
        "leave": {"type": "str", "default": ""},
        "prefer": {"type": "str", "default": ""},
        "accept": {"type": "str", "default": ""},
        "dns_mode": {"type": "str", "choices": ["update", "skip"], "default": "update"},
        "without_registry": {"type": "bool", "default": False},
        "takeover": {"type": "bool", "default": False},
        "max_receive_lag": {"type": "int", "default": Wishes.max_receive_lag},
        "max_replay_lag": {"type": "int", "default": Wishes.max_replay_lag},
        "min_free": {"type": "int", "default": Wishes.min_free},
        "max_ttl": {"type": "int", "default": Wishes.max_ttl},
        "dns": {"type": "dict", "options": DNS_ARGUMENT_SPEC, "apply_defaults": True},
        "registry": {"type": "dict", "options": REGISTRY_ARGUMENT_SPEC, "apply_defaults": True},
    }

    def work(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        lead, hostvars = task_vars["inventory_hostname"], task_vars["hostvars"]
        wishes = _wishes(params)
        if params["plan"]:
            found = _rehearsed(params["plan"], params["rehearsal"])
            return {"plan": add_rehearsal(params["plan"], found, wishes), "changed": False}
        held, registry_error = _ask_registry(params, hostvars[lead])
        looks, errors = herds.seen_by_name(params["observations"])
        herd = herds.herd_of(
            lead,
            hostvars,
            {**looks, **herds.looks_by_name(params["looks"])},
            errors,
            held=held,
            registry_error=registry_error,
            dns=_probe(params, hostvars[lead]),
        )
        plan = plan_failover(herd, wishes, params["confirm"])
        result: dict[str, Any] = {"changed": False, "changed_decisions": []}
        if params["confirmed"]:
            rehearsed = [Verdict(**verdict) for verdict in params["confirmed"]["rehearsal"]]
            plan = add_rehearsal(plan, rehearsed, wishes)
            result["changed_decisions"] = changed_decisions(params["confirmed"], plan)
        target = herd.member(plan["target"])
        if target is not None:
            result.update(
                new_primary={"host": target.address, "port": target.port, "user": _replication_user(herd, target)},
                system_identifier=target.fact("system_identifier"),
                timeline=target.fact("timeline"),
            )
        return {**result, "plan": plan, "roles": roles_after(plan, {one.name: one.server for one in herd.members})}


def _wishes(params: dict[str, Any]) -> Wishes:
    return Wishes(
        candidate=params["candidate"],
        leave=params["leave"],
        prefer=params["prefer"],
        max_receive_lag=params["max_receive_lag"],
        max_replay_lag=params["max_replay_lag"],
        min_free=params["min_free"],
        max_ttl=params["max_ttl"],
        accept=tuple(code.strip() for code in params["accept"].split(",") if code.strip()),
        dns=params["dns_mode"],
        without_registry=params["without_registry"],
        takeover=params["takeover"],
        token=params["token"],
    )


def _ask_registry(params: dict[str, Any], lead: Mapping[str, Any]) -> tuple[str, str]:
    """Who holds the herd, and why the registry cannot be asked; both empty when the way is free."""
    # A run that has a token holds the herd itself.
    if params["without_registry"] or params["token"] is not None:
        return "", ""
    request = {
        "herd": lead["elephaas_herd"],
        "environment": lead["elephaas_environment"],
        "verb": "failover",
        "operator": "",
        "holder": this_holder(os.getppid()),
    }
    try:
        with open_registry(params["registry"], writing=True) as (connection, schema):
            require_current(connection, schema)
            operations.begin(connection, schema, request, check_mode=True)
    except OperatorError as error:
        if error.code in ("OPERATION_HELD", "HERD_ON_HOLD"):
            return error.reason, ""
        return "", f"{error.reason} [{error.code}]"
    return "", ""


def _probe(params: dict[str, Any], lead: Mapping[str, Any]) -> dict[str, Any] | None:
    vhost = lead.get("elephaas_vhost")
    if not vhost or params["dns_mode"] == "skip":
        return None
    try:
        return Updater.from_params(params["dns"]).probe(str(vhost))
    except OperatorError as error:
        return {"record": str(vhost), "error": error.code, "reason": error.reason}


def _replication_user(herd: Herd, target: Member) -> str | None:
    """The role to replicate as: on record, or what the replicas use now."""
    if target.replication_user:
        return target.replication_user
    used = [member.fact("upstream", "user") for member in (target, *herd.members)]
    return next((user for user in used if user), None)


def _rehearsed(plan: dict[str, Any], rehearsal: Mapping[str, Any]) -> list[Verdict]:
    """What a rehearsal of the way back has found wrong."""
    if not rehearsal.get("failed") and not rehearsal.get("unreachable"):
        return []
    return [
        Verdict(
            "WAY_BACK",
            REFUSE,
            str(plan["source"]),
            f"it cannot come back as a replica of {plan['target']}: {rehearsal.get('reason') or rehearsal.get('msg')}",
            str(rehearsal.get("next_step") or "")
            or "Put it right, or say -e accept=WAY_BACK to leave the old primary behind.",
            acceptable=True,
        )
    ]
