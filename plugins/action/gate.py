# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show what a run is about to do, once for all selected herds, and let it pass or not."""

from __future__ import annotations

import os
from typing import Any

from ansible.errors import AnsiblePromptInterrupt, AnsiblePromptNoninteractive
from ansible.utils.display import Display

from ansible_collections.elephaas.herd.plugins.module_utils.decide import gate, plan, text
from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.action import ControllerAction

#: Set by AWX, Tower and ansible-runner. They give a job a pseudo-terminal at which nobody sits.
UNATTENDED_ENVIRONMENT = ("AWX_ISOLATED_DATA_DIR", "RUNNER_OMIT_EVENTS")
UNATTENDED_VARIABLES = ("awx_job_id", "tower_job_id")


class ActionModule(ControllerAction):
    """The controller-side work of elephaas.herd.gate."""

    ARGUMENT_SPEC = {
        "plans": {"type": "list", "elements": "dict", "required": True},
        "confirm": {"type": "str", "default": ""},
        "seconds": {"type": "int", "default": 300},
    }

    def work(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        plans = params["plans"]
        identifier = plan.plan_id(plans)
        display = Display()
        display.display("\n" + "\n".join(text.all_plans(plans, identifier)))
        attended = not (
            any(name in os.environ for name in UNATTENDED_ENVIRONMENT)
            or any(name in task_vars for name in UNATTENDED_VARIABLES)
        )
        decided = gate.answer(plans, identifier, params["confirm"].strip(), self.check_mode, attended)
        if decided.action == gate.ASK:
            decided = _ask(decided, display, plans, identifier, params["seconds"])
        if decided.action == gate.REFUSED:
            raise OperatorError("NOT_CONFIRMED", f"Nothing was done: {decided.why}.", evidence={"plan_id": identifier})
        display.display(decided.why)
        return {
            "plan_id": identifier,
            "proceed": decided.action == gate.PROCEED,
            "reason": decided.why,
            "changed": False,
        }


def _ask(
    question: gate.Answer, display: Display, plans: list[dict[str, Any]], identifier: str, seconds: int
) -> gate.Answer:
    try:
        reply = display.prompt_until(f"{question.why} (within {seconds} s, anything else refuses):", seconds=seconds)
    except AnsiblePromptNoninteractive:
        return gate.answer(plans, identifier, "", rehearsal=False, can_ask=False)
    except AnsiblePromptInterrupt:
        return gate.Answer(gate.REFUSED, "it was interrupted")
    if gate.agreed((reply or b"").decode(errors="replace"), identifier, plans):
        return gate.Answer(gate.PROCEED, "confirmed at the terminal")
    return gate.Answer(gate.REFUSED, "the plan was not confirmed")
