# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show how each herd of a failover ended, and keep it in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ansible.utils.display import Display

from ansible_collections.elephaas.herd.plugins.module_utils.decide import text
from ansible_collections.elephaas.herd.plugins.module_utils.decide.plan import GO
from ansible_collections.elephaas.herd.plugins.module_utils.decide.stage import DONE, SWITCH
from ansible_collections.elephaas.herd.plugins.plugin_utils.action import ControllerAction
from ansible_collections.elephaas.herd.plugins.plugin_utils.output import write_private_json

#: Outcomes after which nobody has to do anything.
GOOD = ("done", "already done", "rehearsed")


class ActionModule(ControllerAction):
    """The controller-side work of elephaas.herd.failover_report."""

    ARGUMENT_SPEC = {
        "hosts": {"type": "list", "elements": "str", "required": True},
        "output_file": {"type": "str", "default": ""},
    }

    def work(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        hostvars = task_vars["hostvars"]
        outcomes = []
        for name in params["hosts"]:
            variables = hostvars[name]
            plan = ((variables.get("failover_plans") or {}).get("plans") or {}).get(variables["elephaas_herd_group"])
            # A former lead that left the herd to its lead was planned under that one's name.
            if plan and name == plan["lead"]:
                outcomes.append(_outcome(variables, plan, self.check_mode))
        Display().display("\n" + "\n".join(text.outcome_lines(outcomes)))
        if params["output_file"]:
            write_private_json(params["output_file"], {"outcomes": outcomes})
        unfinished = [row["herd"] for row in outcomes if row["outcome"] not in GOOD]
        return {"outcomes": json.loads(json.dumps(outcomes)), "unfinished": unfinished, "changed": False}


def _outcome(variables: Mapping[str, Any], plan: Mapping[str, Any], rehearsal: bool) -> dict[str, Any]:
    gate = variables.get("failover_gate") or {}
    row = {
        "herd": str(variables["elephaas_herd_group"]),
        "plan_id": gate.get("plan_id"),
        "source": plan["source"],
        "target": plan["target"],
        "gap_s": None,
        "loss": plan["loss"],
    }
    if plan["outcome"] == DONE:
        return {**row, "outcome": "already done", "reason": plan["why"]}
    if plan["outcome"] != GO:
        codes = [verdict["code"] for verdict in plan["verdicts"] if verdict["level"] == "refuse"]
        return {**row, "outcome": "refused", "reason": ", ".join(sorted(set(codes)))}
    if rehearsal:
        return {**row, "outcome": "rehearsed", "reason": f"{plan['source']} -> {plan['target']}"}
    ended = variables.get("failover_ended")
    if not ended:
        return {**row, "outcome": "incomplete", "reason": "the run did not get to its end; run the same command again"}
    operation = variables.get("failover_operation") or {}
    # Only the run that stopped and promoted can tell how long there was no primary: a waiter that was armed on a stopped
    # one has not seen it go.
    waiter = (operation.get("waiter") or {}) if plan["stage"] == SWITCH else {}
    return {
        **row,
        "outcome": ended["outcome"],
        "reason": ended["reason"].strip(),
        "gap_s": waiter.get("seconds_without_primary"),
        "phases": operation.get("phases") or {},
    }
