# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lease, token and history of an operation: the controller-side work of elephaas.herd.registry_operation."""

from __future__ import annotations

import os
from typing import Any

from ansible_collections.elephaas.herd.plugins.plugin_utils.registry import operations
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.action import (
    RegistryAction,
    awx_facts,
    operator_name,
)
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import REGISTRY_ARGUMENT_SPEC
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.holder import this_holder
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.schema import require_current


class ActionModule(RegistryAction):
    """One call per state."""

    ARGUMENT_SPEC = {
        **REGISTRY_ARGUMENT_SPEC,
        "state": {"type": "str", "choices": ["begun", "phase", "finished"], "required": True},
        "herd": {"type": "str", "required": True},
        "environment": {"type": "str", "required": True},
        "verb": {"type": "str"},
        "plan_id": {"type": "str"},
        "from_server": {"type": "str"},
        "to_server": {"type": "str"},
        "operator": {"type": "str"},
        "plan": {"type": "dict"},
        "lease_s": {"type": "int", "default": operations.DEFAULT_LEASE_S},
        "token_floor": {"type": "int", "default": 0},
        # Not a secret: a number that orders operations.
        "token": {"type": "int", "no_log": False},
        "phase": {"type": "str"},
        "detail": {"type": "dict"},
        "outcome": {"type": "str", "choices": list(operations.OUTCOMES)},
        "roles": {"type": "dict"},
    }
    CONSTRAINTS = {
        "required_if": [
            ("state", "begun", ("verb",)),
            ("state", "phase", ("token", "phase")),
            ("state", "finished", ("token", "outcome")),
        ]
    }

    def work(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        request = {key: params[key] for key in self.ARGUMENT_SPEC if key not in REGISTRY_ARGUMENT_SPEC}
        with self.registry(params, writing=True) as (connection, schema):
            require_current(connection, schema)
            if params["state"] == "begun":
                request["operator"] = operator_name(params["operator"], task_vars)
                request["awx"] = awx_facts(task_vars)
                # This is a worker that ends with the task; what holds the lease is the run that forked it.
                request["holder"] = this_holder(os.getppid())
                outcome = operations.begin(connection, schema, request, self.check_mode)
                return self._result(outcome, True, resumed=outcome["resumed"], took_over=outcome["took_over"])
            if params["state"] == "phase":
                return self._result(operations.record_phase(connection, schema, request, self.check_mode), True)
            outcome = operations.finish(connection, schema, request, self.check_mode)
            return self._result(outcome, outcome["changed"], role_changes=outcome["role_changes"])

    @staticmethod
    def _result(outcome: dict[str, Any], changed: bool, **more: Any) -> dict[str, Any]:
        operation = {**outcome["operation"], "resumed": more.get("resumed", False)}
        return {"changed": changed, "operation": operation, **more}
