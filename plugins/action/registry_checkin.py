# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Record what was seen of herds: the controller-side work of elephaas.herd.registry_checkin."""

from __future__ import annotations

from typing import Any

from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.action import RegistryAction, operator_name
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.checkin import as_lines, check_in
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import REGISTRY_ARGUMENT_SPEC
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.schema import require_current

_OBSERVATION = {
    "name": {"type": "str"},
    "herd": {"type": "str", "required": True},
    "environment": {"type": "str", "required": True},
    "server": {"type": "str", "required": True},
    "facts": {"type": "dict"},
    "reachable": {"type": "bool", "required": True},
    "error": {"type": "str"},
}


class ActionModule(RegistryAction):
    """One call of check_in."""

    ARGUMENT_SPEC = {
        **REGISTRY_ARGUMENT_SPEC,
        "observations": {"type": "list", "elements": "dict", "required": True, "options": _OBSERVATION},
        "operator": {"type": "str"},
    }

    def work(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        operator = operator_name(params["operator"], task_vars)
        with self.registry(params, writing=True) as (connection, schema):
            require_current(connection, schema)
            result = check_in(connection, schema, params["observations"], operator, self.check_mode)
        if result["mismatches"]:
            result["warnings"] = as_lines(result["mismatches"])
        if self.diff_mode:
            result["diff"] = {side: _side(result["differences"], side) for side in ("before", "after")}
        return result


def _side(differences: list[dict[str, Any]], side: str) -> str:
    return "".join(f"{item['instance']} {item['field']}: {item[side]}\n" for item in differences)
