# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide a failover of one herd from live facts, DNS and the registry. Reads, and changes nothing."""

from __future__ import annotations

from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.candidate import Wishes
from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd
from ansible_collections.elephaas.herd.plugins.module_utils.decide.plan import (
    add_rehearsal,
    changed_decisions,
    plan_failover,
    roles_after,
)
from ansible_collections.elephaas.herd.plugins.module_utils.decide.verdict import REFUSE, Verdict
from ansible_collections.elephaas.herd.plugins.plugin_utils import herd as herds
from ansible_collections.elephaas.herd.plugins.plugin_utils.action import ControllerAction


class ActionModule(ControllerAction):
    """The controller-side work of elephaas.herd.failover_plan_info."""

    def work(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        lead, hostvars = task_vars["inventory_hostname"], task_vars["hostvars"]
        wishes = _wishes(params)
        if params["plan"]:
            plan = add_rehearsal(params["plan"], _rehearsed(params["plan"], params["rehearsal"]), wishes)
            return _result(plan, None, hostvars)
        herd = herds.herd_of(
            lead,
            hostvars,
            herds.looks_by_name(params["looks"]),
            params["unreachable"],
            held=_held(params, hostvars[lead]),
            dns=_probe(params, hostvars[lead]),
        )
        plan = plan_failover(herd, wishes, params["confirm"])
        confirmed = params["confirmed"]
        if confirmed:
            plan = add_rehearsal(plan, [Verdict(**verdict) for verdict in confirmed["rehearsal"]], wishes)
        return {
            **_result(plan, herd, hostvars),
            "changed_decisions": changed_decisions(confirmed, plan) if confirmed else [],
        }
