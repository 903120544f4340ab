# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show the fleet at a glance from the facts that a play has gathered."""

from __future__ import annotations

import json
from typing import Any

from ansible.utils.display import Display

from ansible_collections.elephaas.herd.plugins.module_utils.decide import status, text
from ansible_collections.elephaas.herd.plugins.module_utils.decide.verdict import OK
from ansible_collections.elephaas.herd.plugins.plugin_utils.action import ControllerAction
from ansible_collections.elephaas.herd.plugins.plugin_utils.herd import herd_of
from ansible_collections.elephaas.herd.plugins.plugin_utils.output import write_private_json


class ActionModule(ControllerAction):
    """The controller-side work of elephaas.herd.status_report."""

    ARGUMENT_SPEC = {
        "observations": {"type": "list", "elements": "dict", "required": True},
        "reconciled": {"type": "list", "elements": "dict", "default": []},
        "record_error": {"type": "str", "default": ""},
        "max_lag": {"type": "int", "default": 16 * 1024 * 1024},
        "format": {"type": "str", "default": "table", "choices": ["table", "json"]},
        "output_file": {"type": "str", "default": ""},
    }

    def work(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        hostvars = task_vars["hostvars"]
        looks = {seen["name"]: {"instance": seen["facts"]} for seen in params["observations"] if seen["facts"]}
        dead = {seen["name"]: seen["error"] for seen in params["observations"] if not seen["facts"]}
        selected = {seen["name"] for seen in params["observations"]}
        members = {str(hostvars[name]["elephaas_herd_group"]): name for name in sorted(selected, reverse=True)}
        herds = []
        for one in sorted(members.values()):
            whole = selected.issuperset(hostvars[one]["elephaas_members"])
            herds.append(
                status.herd_status(herd_of(one, hostvars, looks, dead, only=selected), whole, params["max_lag"])
            )
        display = Display()
        if params["format"] == "json":
            display.display(json.dumps({"herds": herds}, indent=2, sort_keys=True))
        else:
            notes = [
                text.printable(
                    f"put on record: {one['herd']} was failed over from {one['from_server']} to {one['to_server']}"
                )
                for one in params["reconciled"]
            ]
            if params["record_error"]:
                notes.append(f"NOTHING WAS PUT ON RECORD: {text.printable(params['record_error'])}")
            display.display("\n".join(["", *text.status_lines(herds), *notes]))
        if params["output_file"]:
            write_private_json(params["output_file"], {"herds": herds})
        return {"herds": herds, "healthy": all(herd["level"] == OK for herd in herds), "changed": False}
