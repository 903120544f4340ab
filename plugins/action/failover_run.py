# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carry out the failover of one herd, or some parts of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.action import plain
from ansible_collections.elephaas.herd.plugins.plugin_utils.failover.conductor import Conductor
from ansible_collections.elephaas.herd.plugins.plugin_utils.failover.hosts import Bounds
from ansible_collections.elephaas.herd.plugins.plugin_utils.failover.operation import Ended, Operation
from ansible_collections.elephaas.herd.plugins.plugin_utils.failover.options import FAILOVER_ARGUMENT_SPEC, planner_of
from ansible_collections.elephaas.herd.plugins.plugin_utils.failover.planning import Planner
from ansible_collections.elephaas.herd.plugins.plugin_utils.lease import Lease
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.action import (
    RegistryAction,
    awx_facts,
    operator_name,
)
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.holder import this_holder

PARTS = ("lock", "switch", "vhost", "settle", "give_up")


class ActionModule(RegistryAction):
    """The controller-side work of elephaas.herd.failover_run."""

    ARGUMENT_SPEC = {
        **FAILOVER_ARGUMENT_SPEC,
        "parts": {"type": "list", "elements": "str", "choices": list(PARTS), "required": True},
        "plan": {"type": "dict"},
        "plan_id": {"type": "str", "default": ""},
        "operation": {"type": "dict"},
        "update_dns": {"type": "bool", "default": True},
        "fenced": {"type": "bool", "default": False},
        "trouble": {"type": "list", "elements": "str", "default": []},
        "reason": {"type": "str", "default": ""},
        "operator": {"type": "str", "default": ""},
        "lease_s": {"type": "int", "default": 180},
        "stop_timeout": {"type": "int", "default": 60},
        "deadline": {"type": "int", "default": 90},
        "follow_timeout": {"type": "int", "default": 60},
    }
    # What a rehearsal shows is the plan.
    _supports_check_mode = False

    def secrets(self, params: dict[str, Any]) -> Iterable[str]:
        return super().secrets(params["registry"])

    def work(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """See the module's documentation."""
        with contextlib.closing(planner_of(self, params, task_vars)) as planner:
            conductor = self._conductor(planner, params, task_vars)
            operation = Operation(**params["operation"]) if params["operation"] else None
            try:
                for part in params["parts"]:
                    operation = self._do(conductor, part, operation, params)
            except Ended as ended:
                error = OperatorError(f"FAILOVER_{ended.outcome.upper()}", ended.reason)
                end = {"outcome": ended.outcome, "reason": ended.reason}
                return {"failed": True, "changed": ended.outcome == "incomplete", **error.as_result(), "ended": end}
        if operation is None:
            raise OperatorError("BAD_ARGUMENTS", "There is no part to do.")
        result = {"changed": True, "operation": operation.as_data()}
        if params["parts"][-1] == "settle":
            planned = f"{operation.source} -> {operation.target}"
            reason = planned if operation.plan["target"] else operation.plan["why"]
            result["ended"] = {"outcome": "done", "reason": reason}
        return result

    @staticmethod
    def _do(conductor: Conductor, part: str, operation: Operation | None, params: dict[str, Any]) -> Operation:
        if part == "lock":
            if not params["plan"] or not params["plan_id"]:
                raise OperatorError("BAD_ARGUMENTS", "The part lock needs plan and plan_id.")
            return conductor.lock(params["plan"], params["plan_id"])
        if operation is None:
            raise OperatorError("BAD_ARGUMENTS", f"The part {part} needs the operation of the part before.")
        if part == "give_up":
            raise conductor.give_up(operation, params["reason"])
        if part == "switch":
            return conductor.switch(operation, params["update_dns"])
        if part == "vhost":
            return conductor.lead_vhost(operation)
        return conductor.settle(operation, params["trouble"])

    @staticmethod
    def _conductor(planner: Planner, params: dict[str, Any], task_vars: dict[str, Any]) -> Conductor:
        lead = str(task_vars["inventory_hostname"])
        variables = task_vars["hostvars"][lead]
        return Conductor(
            planner=planner,
            lease=Lease(
                registry=None if params["wishes"]["without_registry"] else params["registry"],
                herd=plain(variables["elephaas_herd"]),
                environment=plain(variables["elephaas_environment"]),
                operator=operator_name(params["operator"], task_vars),
                awx=awx_facts(task_vars),
                # This is a worker that ends with the task; what holds the lease is the run that forked it.
                holder=this_holder(os.getppid()),
                lease_s=params["lease_s"],
            ),
            lead=lead,
            bounds=Bounds(params["stop_timeout"], params["deadline"], params["follow_timeout"], params["look_timeout"]),
            takeover=params["wishes"]["takeover"],
            statement=params["wishes"]["dead"],
            fenced=params["fenced"],
        )
