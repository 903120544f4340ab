# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show the fleet at a glance from the facts that a play has gathered."""

from __future__ import annotations

import json
from typing import Any

from ansible.utils.display import Display

from ansible_collections.elephaas.herd.plugins.module_utils.decide import status_view
from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.filters import parse_filters
from ansible_collections.elephaas.herd.plugins.module_utils.decide.size import SIZE_RULE, parse_bytes
from ansible_collections.elephaas.herd.plugins.module_utils.decide.status import herd_status
from ansible_collections.elephaas.herd.plugins.module_utils.decide.text import printable
from ansible_collections.elephaas.herd.plugins.module_utils.decide.verdict import OK
from ansible_collections.elephaas.herd.plugins.plugin_utils.action import ControllerAction
from ansible_collections.elephaas.herd.plugins.plugin_utils.herd import herd_of
from ansible_collections.elephaas.herd.plugins.plugin_utils.output import write_private_json
from ansible_collections.elephaas.herd.plugins.plugin_utils.recorded import (
    Inventory,
    check_names,
    recorded_rows,
    unassigned_servers,
)

_RECORD = ("version", "lag_bytes", "last_seen", "pgdata", "system_identifier")


class ActionModule(ControllerAction):
    """The controller-side work of elephaas.herd.status_report."""

    ARGUMENT_SPEC = {
        "observations": {"type": "list", "elements": "dict", "required": True},
        "considered": {"type": "list", "elements": "str"},
        "filters": {"type": "dict", "default": {}},
        "reconciled": {"type": "list", "elements": "dict", "default": []},
        "record_error": {"type": "str", "default": ""},
        "max_lag": {"type": "str", "default": "16MB"},
        "sort": {
            "type": "str",
            "default": "problem",
            "choices": [sign + sort for sort in status_view.SORTS for sign in ("", "-")],
        },
        "format": {"type": "str", "default": "table", "choices": ["table", "wide", "json"]},
        "output_file": {"type": "str", "default": ""},
    }

    def work(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        filters = parse_filters(params["filters"])
        max_lag = parse_bytes(params["max_lag"])
        if max_lag is None:
            raise OperatorError(
                "BAD_ARGUMENTS", f"max_lag: {params['max_lag']!r} is not a size.", f"Allowed: {SIZE_RULE}."
            )
        inventory = Inventory(task_vars["hostvars"], task_vars["groups"])
        check_names(inventory, filters)
        seen = [one["name"] for one in params["observations"]]
        names = dict.fromkeys([*(params["considered"] or ()), *seen])
        shown = status_view.view(
            _herds(params["observations"], inventory, max_lag),
            recorded_rows(inventory, names, filters),
            filters,
            params["sort"],
        )
        # A limit says nothing of hosts that the play does not run on.
        everywhere = filters.unassigned and not task_vars.get("ansible_limit")
        servers = unassigned_servers(inventory, filters) if everywhere else []
        document = {
            "herds": shown.herds,
            "selection": {
                "considered": shown.considered,
                "shown": shown.shown,
                "hidden_problems": shown.hidden_problems,
                "filters": [step._asdict() for step in shown.steps],
            },
            "servers": servers,
        }
        if params["format"] == "json":
            Display().display(json.dumps(document, indent=2, sort_keys=True))
        else:
            lines = status_view.view_lines(shown, params["sort"], params["format"] == "wide")
            lines += status_view.server_lines(servers)
            Display().display("\n".join(["", *lines, *_notes(params)]))
        if params["output_file"]:
            write_private_json(params["output_file"], document)
        healthy = all(herd["level"] == OK for herd in shown.herds) and not shown.hidden_problems
        return {**document, "healthy": healthy, "changed": False}


def _herds(observations: list[dict[str, Any]], inventory: Inventory, max_lag: int) -> list[dict[str, Any]]:
    """The status of every herd of which somebody looked at a member."""
    looks = {seen["name"]: {"instance": seen["facts"]} for seen in observations if seen["facts"]}
    dead = {seen["name"]: seen["error"] for seen in observations if not seen["facts"]}
    variables = {seen["name"]: inventory.variables(seen["name"]) for seen in observations}
    records = {name: {key: known.get(f"elephaas_{key}") for key in _RECORD} for name, known in variables.items()}
    members = {str(variables[name]["elephaas_herd_group"]): name for name in sorted(variables, reverse=True)}
    herds = []
    for one in sorted(members.values()):
        whole = variables.keys() >= set(variables[one]["elephaas_members"])
        herds.append(herd_status(herd_of(one, variables, looks, dead), whole, max_lag, records))
    return herds


def _notes(params: dict[str, Any]) -> list[str]:
    notes = [
        printable(f"put on record: {one['herd']} was failed over from {one['from_server']} to {one['to_server']}")
        for one in params["reconciled"]
    ]
    if params["record_error"]:
        notes.append(f"NOTHING WAS PUT ON RECORD: {printable(params['record_error'])}")
    return notes
