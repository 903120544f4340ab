# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the DNS name of one herd lead to its live primary, as the plan says."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.bulk import changed_since
from ansible_collections.elephaas.herd.plugins.module_utils.decide.dns_drift import done_text, request_of
from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.plan import GO
from ansible_collections.elephaas.herd.plugins.plugin_utils.action import plain
from ansible_collections.elephaas.herd.plugins.plugin_utils.bulk_plans import leads_of, plan_names
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.options import DNS_ARGUMENT_SPEC
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.prepared import Prepared
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.repoint import Updater
from ansible_collections.elephaas.herd.plugins.plugin_utils.instances import Remembered
from ansible_collections.elephaas.herd.plugins.plugin_utils.lease import Lease
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.action import (
    RegistryAction,
    awx_facts,
    operator_name,
)
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import REGISTRY_ARGUMENT_SPEC
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.holder import this_holder


class ActionModule(RegistryAction):
    """The controller-side work of elephaas.herd.switch_dns_run."""

    ARGUMENT_SPEC = {
        "plan": {"type": "dict", "required": True},
        "plan_id": {"type": "str", "required": True},
        "operator": {"type": "str", "default": ""},
        "without_registry": {"type": "bool", "default": False},
        "dns": {"type": "dict", "options": DNS_ARGUMENT_SPEC, "apply_defaults": True},
        "registry": {"type": "dict", "options": REGISTRY_ARGUMENT_SPEC, "apply_defaults": True},
        "lease_s": {"type": "int", "default": 300},
        "timeout": {"type": "float", "default": 5.0},
        "look_timeout": {"type": "float", "default": 10.0},
        "wait_s": {"type": "float", "default": 10.0},
    }

    # What a rehearsal shows is the plan.
    _supports_check_mode = False

    def secrets(self, params: dict[str, Any]) -> Iterable[str]:
        return super().secrets(params["registry"])

    def work(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """See the module's documentation."""
        plan = params["plan"]
        if plan["outcome"] != GO:
            return {"changed": False, "did": {}, "failures": [], "seconds": 0.0, "note": "", "unrecorded": ""}
        began = time.monotonic()
        hostvars = Remembered(task_vars["hostvars"])
        lead = hostvars[task_vars["inventory_hostname"]]
        lease = Lease(
            registry=None if params["without_registry"] else params["registry"],
            herd=plain(lead["elephaas_herd"]),
            environment=plain(lead["elephaas_environment"]),
            operator=operator_name(params["operator"], task_vars),
            awx=awx_facts(task_vars),
            # This is a worker that ends with the task; what holds the lease is the run that forked it.
            holder=this_holder(os.getppid()),
            lease_s=params["lease_s"],
        )
        shown = {"primary": plan["primary"], "dns": plan["dns"]}
        token = lease.begin(plan["verb"], params["plan_id"], int(plan["token_floor"]), shown)
        try:
            self._decide_again(params, hostvars, task_vars["inventory_hostname"])
            prepared = _prepare(params)
        except OperatorError as error:
            lease.close(token, "refused", detail={"code": error.code, "reason": error.reason})
            raise
        failure = _send(prepared, params["wait_s"])
        result = prepared.result()
        told = done_text(plan["dns"], prepared.confirmed_at or time.time()) if prepared.applied else []
        detail = {key: result[key] for key in ("record", "type", "before", "after", "servers")}
        detail.update(did=told, **(failure or {}))
        unrecorded = lease.close(token, "failed" if failure else "done", detail=detail)
        return _outcome(plan, result, told, failure, unrecorded, time.monotonic() - began)

    def _decide_again(self, params: dict[str, Any], hostvars: Remembered, name: str) -> None:
        """Nobody else moves a primary from now on; whether somebody has since the plan was made is to be seen.

        Raises OperatorError SITUATION_CHANGED.
        """
        plan = params["plan"]
        now = plan_names(
            leads_of([name], hostvars),
            request_of(plan),
            params["dns"],
            hostvars,
            self._task,
            self._play_context,
            (params["timeout"], params["look_timeout"]),
            {},
            "",
        )[plan["herd"]]
        changes = changed_since(plan, now)
        if changes:
            raise OperatorError(
                "SITUATION_CHANGED",
                f"Since the plan was made, the situation has changed, so nothing was done: {'; '.join(changes)}.",
                "Look at the new plan and run again.",
            )


def _prepare(params: dict[str, Any]) -> Prepared:
    dns = params["plan"]["dns"]
    return Updater.from_params(params["dns"]).prepare(
        dns["record"],
        dns["should_hold"],
        type=dns["type"],
        # What the plan has shown is the update's prerequisite, however many values that was.
        expected=dns["holds"],
        ttl=dns["ttl_to"] if dns["retimes"] else None,
        allow_multiple=True,
    )


def _send(prepared: Prepared, wait_s: float) -> dict[str, str] | None:
    """Send it, and see it on every server; what went wrong, where something did."""
    try:
        prepared.send()
        prepared.read_back(wait_s)
    except OperatorError as error:
        return {"code": error.code, "reason": f"{error.reason}. {error.next_step}"}
    return None


def _outcome(
    plan: Mapping[str, Any],
    result: dict[str, Any],
    told: list[str],
    failure: dict[str, str] | None,
    unrecorded: str,
    seconds: float,
) -> dict[str, Any]:
    name = plan["dns"]["record"]
    problems = [failure["reason"]] if failure else []
    if unrecorded:
        problems.append(f"what was done could not be put on record: {unrecorded}")
    outcome = {
        "changed": result["changed"],
        "did": {name: told},
        "failures": [{"name": name, "code": failure["code"], "msg": failure["reason"], "log_tail": []}]
        if failure
        else [],
        "note": "; ".join([*told, *(f"warning: {warning}" for warning in result["warnings"])]),
        "seconds": round(seconds, 3),
        "unrecorded": unrecorded,
        "dns": result,
    }
    return {**outcome, "failed": True, "msg": "; ".join(problems)} if problems else outcome
