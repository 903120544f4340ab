# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at the herds of all selected instances, and decide what a bulk verb does to each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.batch import budget_used_up
from ansible_collections.elephaas.herd.plugins.module_utils.decide.bulk import VERBS, Request
from ansible_collections.elephaas.herd.plugins.plugin_utils.bulk_plans import herds_held, leads_of, plan_herds
from ansible_collections.elephaas.herd.plugins.plugin_utils.instances import Remembered
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.action import RegistryAction
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import REGISTRY_ARGUMENT_SPEC


class ActionModule(RegistryAction):
    """The controller-side work of elephaas.herd.bulk_plan_info."""

    ARGUMENT_SPEC = {
        "verb": {"type": "str", "choices": list(VERBS), "required": True},
        "instances": {"type": "list", "elements": "str"},
        "mode": {"type": "str", "choices": ["fast", "smart", "immediate"], "default": "fast"},
        "only_pending": {"type": "bool", "default": False},
        "accept": {"type": "str", "default": ""},
        "max_failures": {"type": "str", "default": ""},
        "without_registry": {"type": "bool", "default": False},
        "registry": {"type": "dict", "options": REGISTRY_ARGUMENT_SPEC, "apply_defaults": True},
        "timeout": {"type": "float", "default": 5.0},
        "look_timeout": {"type": "float", "default": 10.0},
    }

    def secrets(self, params: dict[str, Any]) -> Iterable[str]:
        return super().secrets(params["registry"])

    def work(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """See the module's documentation."""
        # What makes no sense is refused before anybody is asked.
        budget_used_up(params["max_failures"], 0, 1)
        hostvars = Remembered(task_vars["hostvars"])
        selected = params["instances"] if params["instances"] is not None else task_vars["ansible_play_hosts_all"]
        leads = leads_of(selected, hostvars)
        request = Request(
            params["verb"],
            frozenset(selected),
            params["mode"],
            params["only_pending"],
            tuple(code.strip() for code in params["accept"].split(",") if code.strip()),
            params["without_registry"],
        )
        held, lost = (
            ({}, "") if params["without_registry"] else herds_held(params["registry"], params["verb"], leads, hostvars)
        )
        plans = plan_herds(
            leads,
            request,
            hostvars,
            self._task,
            self._play_context,
            (params["timeout"], params["look_timeout"]),
            held,
            lost,
        )
        return {"changed": False, "plans": plans}
