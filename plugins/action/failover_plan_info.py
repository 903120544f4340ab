# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide the failover of herds from live facts, DNS and the registry. Reads, and changes nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

from ansible_collections.elephaas.herd.plugins.plugin_utils.failover.options import (
    FAILOVER_ARGUMENT_SPEC,
    planner_of,
    require_hooks,
)
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.action import RegistryAction


class ActionModule(RegistryAction):
    """The controller-side work of elephaas.herd.failover_plan_info."""

    ARGUMENT_SPEC = {
        **FAILOVER_ARGUMENT_SPEC,
        "leads": {"type": "list", "elements": "str"},
        "confirm": {"type": "str", "default": ""},
        "hooks": {"type": "dict", "default": {}},
    }

    def secrets(self, params: dict[str, Any]) -> Iterable[str]:
        return super().secrets(params["registry"])

    def work(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """See the module's documentation."""
        require_hooks({**params["hooks"], "fence": params["wishes"]["fence"]}, task_vars.get("playbook_dir"))
        leads = params["leads"] if params["leads"] is not None else [task_vars["inventory_hostname"]]
        with contextlib.closing(planner_of(self, params, task_vars)) as planner:
            return {"changed": False, "plans": planner.plans(leads, params["confirm"])}
