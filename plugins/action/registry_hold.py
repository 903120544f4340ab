# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put herds on hold, or take that off: the controller-side work of elephaas.herd.registry_hold."""

from __future__ import annotations

import json
from typing import Any

from ansible.utils.display import Display

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.hold import (
    REFUSED,
    UNCHANGED,
    checked_reason,
    hold_lines,
    settled_text,
)
from ansible_collections.elephaas.herd.plugins.module_utils.decide.text import table
from ansible_collections.elephaas.herd.plugins.plugin_utils.action import plain
from ansible_collections.elephaas.herd.plugins.plugin_utils.bulk_plans import leads_of
from ansible_collections.elephaas.herd.plugins.plugin_utils.instances import Remembered
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.action import (
    RegistryAction,
    awx_facts,
    operator_name,
)
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import REGISTRY_ARGUMENT_SPEC
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.holds import settle_holds
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.schema import require_current


class ActionModule(RegistryAction):
    """One connection and one transaction, however many herds."""

    ARGUMENT_SPEC = {
        **REGISTRY_ARGUMENT_SPEC,
        "state": {"type": "str", "choices": ["held", "released"], "default": "held"},
        "herds": {
            "type": "list",
            "elements": "dict",
            "options": {"herd": {"type": "str", "required": True}, "environment": {"type": "str", "required": True}},
        },
        "reason": {"type": "str", "default": ""},
        "replace": {"type": "bool", "default": False},
        "operator": {"type": "str", "default": ""},
    }

    def work(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """See the module's documentation."""
        reason = checked_reason(params["reason"]) if params["state"] == "held" else ""
        with self.registry(params, writing=True) as (connection, schema):
            require_current(connection, schema)
            rows = settle_holds(
                connection,
                schema,
                params["state"],
                _herds(params, task_vars),
                reason,
                params["replace"],
                operator_name(params["operator"], task_vars),
                awx_facts(task_vars),
                self.check_mode,
            )
        shown = [(row["name"], row["outcome"], settled_text(row, self.check_mode)) for row in rows]
        Display().display("\n" + "\n".join(table(("HERD", "OUTCOME", "WHAT"), shown, indent="")))
        result: dict[str, Any] = {
            "changed": any(row["outcome"] not in (UNCHANGED, REFUSED) for row in rows),
            "herds": json.loads(json.dumps(rows)),
        }
        if self.diff_mode:
            result["diff"] = {
                "before": hold_lines([{**row, "hold": row["before"]} for row in rows]),
                "after": hold_lines(rows),
            }
        refused = [row for row in rows if row["outcome"] == REFUSED]
        if refused:
            # The others are on hold all the same, so this belongs to the result and not in place of it.
            codes = sorted({row["code"] for row in refused})
            said = "; ".join(f"{row['name']}: {row['error']}" for row in refused)
            result.update(failed=True, **OperatorError(codes[0], f"Refused: {said}").as_result())
        return result


def _herds(params: dict[str, Any], task_vars: dict[str, Any]) -> list[tuple[str, str]]:
    if params["herds"] is not None:
        return [(herd["environment"], herd["herd"]) for herd in params["herds"]]
    hostvars = Remembered(task_vars["hostvars"])
    leads = leads_of(task_vars["ansible_play_hosts_all"], hostvars)
    return [
        (plain(hostvars[lead]["elephaas_environment"]), plain(hostvars[lead]["elephaas_herd"]))
        for _group, lead in sorted(leads.items())
    ]
