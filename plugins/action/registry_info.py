# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the registry: the controller-side work of elephaas.herd.registry_info."""

from __future__ import annotations

from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.fleet import fleet_document, part_of_fleet
from ansible_collections.elephaas.herd.plugins.module_utils.decide.names import herd_group
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.action import RegistryAction
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import (
    REGISTRY_ARGUMENT_SPEC,
    transaction,
)
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.fleet import read_fleet
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.inventory import read_inventory
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.operations import history
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.schema import require_current, schema_state


class ActionModule(RegistryAction):
    """Reads; never writes."""

    ARGUMENT_SPEC = {
        **REGISTRY_ARGUMENT_SPEC,
        "environments": {"type": "list", "elements": "str", "default": []},
        "herds": {"type": "list", "elements": "str", "default": []},
        "history": {"type": "int", "default": 20},
    }

    def work(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        with self.registry(params, writing=False) as (connection, schema):
            require_current(connection, schema)
            state = schema_state(connection, schema)
            document = read_inventory(connection, schema)
            with transaction(connection, schema, keep=False) as cursor:
                fleet = part_of_fleet(read_fleet(cursor).fleet, params["environments"], params["herds"])
                operations = history(cursor, params["environments"], params["herds"], params["history"])
        herds = {(herd["environment"], herd["name"]) for herd in fleet["herds"]}
        return {
            "changed": False,
            "layout": {"schema": schema, **state},
            "environments": [{"name": name, **item} for name, item in fleet["environments"].items()],
            "datacenters": [{"name": name, **item} for name, item in fleet["datacenters"].items()],
            "servers": [item for item in document["servers"] if item["server"] in fleet["servers"]],
            "herds": [_herd(herd) for herd in fleet["herds"]],
            "instances": [item for item in document["instances"] if (item["environment"], item["herd"]) in herds],
            "operations": operations,
            "fleet": fleet_document(fleet),
        }


def _herd(herd: dict[str, Any]) -> dict[str, Any]:
    fields = {key: value for key, value in herd.items() if key != "members"}
    return {
        **fields,
        "group": herd_group(herd["name"], herd["environment"]),
        "members": [m["server"] for m in herd["members"]],
    }
