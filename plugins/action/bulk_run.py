# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carry out the plan of a bulk operation on one herd."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.batch import budget_used_up
from ansible_collections.elephaas.herd.plugins.module_utils.decide.bulk import changed_since, request_of
from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.plan import GO
from ansible_collections.elephaas.herd.plugins.plugin_utils.action import plain
from ansible_collections.elephaas.herd.plugins.plugin_utils.bulk_plans import leads_of, plan_herds
from ansible_collections.elephaas.herd.plugins.plugin_utils.conduct import Conductor
from ansible_collections.elephaas.herd.plugins.plugin_utils.connect import own_play_context, target_of
from ansible_collections.elephaas.herd.plugins.plugin_utils.instances import Remembered, instance_params
from ansible_collections.elephaas.herd.plugins.plugin_utils.lease import Lease
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.action import (
    RegistryAction,
    awx_facts,
    operator_name,
)
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import REGISTRY_ARGUMENT_SPEC
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.holder import this_holder
from ansible_collections.elephaas.herd.plugins.plugin_utils.remote import Job, run_jobs

#: A step stops, starts and waits for replication; each may take its whole time, and looking comes on top.
_PARTS_OF_A_STEP = 3
_LOOKING_S = 30
#: For so long what was looked at counts as seen, where the hosts' own last look before they act is enough. What makes a
#: server writable depends on all the others, and is decided once more in any case.
_FRESH_S = 30
_DECIDED_AGAIN = ("start", "promote", "demote")


class ActionModule(RegistryAction):
    """The controller-side work of elephaas.herd.bulk_run."""

    ARGUMENT_SPEC = {
        "plan": {"type": "dict", "required": True},
        "plan_id": {"type": "str", "required": True},
        "operator": {"type": "str", "default": ""},
        "without_registry": {"type": "bool", "default": False},
        "takeover": {"type": "bool", "default": False},
        "registry": {"type": "dict", "options": REGISTRY_ARGUMENT_SPEC, "apply_defaults": True},
        "lease_s": {"type": "int", "default": 300},
        "timeout": {"type": "float", "default": 5.0},
        "look_timeout": {"type": "float", "default": 10.0},
        "step_timeout": {"type": "int", "default": 60},
        "max_failures": {"type": "str", "default": ""},
        "earlier": {"type": "str", "default": ""},
    }

    # What a rehearsal shows is the plan.
    _supports_check_mode = False

    def secrets(self, params: dict[str, Any]) -> Iterable[str]:
        return super().secrets(params["registry"])

    def work(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """See the module's documentation."""
        plan = params["plan"]
        if plan["outcome"] != GO:
            return {"changed": False, "did": {}, "left": {}, "failures": [], "seconds": 0.0, "unrecorded": ""}
        self._keep_to_the_budget(params, task_vars)
        hostvars = Remembered(task_vars["hostvars"])
        context = own_play_context(self._play_context)
        limit_s = params["step_timeout"] * _PARTS_OF_A_STEP + _LOOKING_S

        def job(name: str, more: dict[str, Any]) -> Job:
            named = instance_params(hostvars[name], params["step_timeout"])
            return Job(target_of(hostvars[name], self._task, self._play_context), "step", {**named, **more})

        def changes() -> list[str]:
            name = task_vars["inventory_hostname"]
            if time.time() - plan["made_at"] < _FRESH_S and plan["verb"] not in _DECIDED_AGAIN:
                return []
            leads = leads_of([name], hostvars)
            timeouts = (params["timeout"], params["look_timeout"])
            now = plan_herds(leads, request_of(plan), hostvars, self._task, self._play_context, timeouts, {}, "")
            return changed_since(plan, now[plan["herd"]])

        followed = {step["follows"]["upstream"] for step in plan["steps"] if step["follows"]}
        lead = hostvars[task_vars["inventory_hostname"]]
        done = Conductor(
            plan=plan,
            plan_id=params["plan_id"],
            lease=Lease(
                registry=None if params["without_registry"] else params["registry"],
                herd=plain(lead["elephaas_herd"]),
                environment=plain(lead["elephaas_environment"]),
                operator=operator_name(params["operator"], task_vars),
                awx=awx_facts(task_vars),
                # This is a worker that ends with the task; what holds the lease is the run that forked it.
                holder=this_holder(os.getppid()),
                lease_s=params["lease_s"],
            ),
            servers={
                name: plain(hostvars[name]["elephaas_server"])
                for name in [*(step["name"] for step in plan["steps"]), *followed]
            },
            upstreams={name: _reached(hostvars[name]) for name in followed},
            job=job,
            run=lambda jobs: run_jobs(jobs, context, params["timeout"], limit_s),
            takeover=params["takeover"],
            changes=changes,
        ).carry_out()
        result = {"changed": any(done["did"].values()), **done}
        problems = [failure["msg"] for failure in done["failures"]]
        problems += [f"{name}: {why}" for name, why in plan["left"].items()]
        if done["unrecorded"]:
            problems.append(f"what was done could not be put on record: {done['unrecorded']}")
        if problems:
            result.update(failed=True, msg="; ".join(problems))
        return result

    @staticmethod
    def _keep_to_the_budget(params: dict[str, Any], task_vars: dict[str, Any]) -> None:
        if not params["max_failures"].strip():
            return  # not for nothing are the variables of all hosts gathered, by each of them
        hosts, register = task_vars["ansible_play_hosts_all"], params["earlier"]
        results = [task_vars["hostvars"][host].get(register) for host in hosts] if register else []
        failed = sum(1 for one in results if one and one.get("failed") and one.get("code") != "NOT_BEGUN")
        if budget_used_up(params["max_failures"], failed, len(hosts)):
            raise OperatorError(
                "NOT_BEGUN",
                f"{failed} of {len(hosts)} herds failed, and max_failures is {params['max_failures']}.",
                "See to the failures, and run the same command again.",
            )


def _reached(upstream: Mapping[str, Any]) -> dict[str, Any]:
    """How a replica reaches that instance: its own server, never the name that applications use."""
    return plain(
        {
            "upstream_host": upstream["elephaas_address"],
            "upstream_port": int(upstream["elephaas_port"]),
        }
    )
