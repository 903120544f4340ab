# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load a whole fleet into the registry: the controller-side work of elephaas.herd.registry_fleet."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from ansible.errors import AnsibleError

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.fleet import parse_fleet
from ansible_collections.elephaas.herd.plugins.plugin_utils.action import plain
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.action import RegistryAction
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import REGISTRY_ARGUMENT_SPEC
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.fleet import load_fleet
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.shown import diff_of, shown


class ActionModule(RegistryAction):
    """Read the file, one call of load_fleet."""

    ARGUMENT_SPEC = {
        **REGISTRY_ARGUMENT_SPEC,
        "state": {"type": "str", "choices": ["merged", "overridden"], "default": "merged"},
        "fleet": {"type": "dict"},
        "fleet_file": {"type": "path"},
        "force": {"type": "bool", "default": False},
    }
    CONSTRAINTS = {"mutually_exclusive": [["fleet", "fleet_file"]], "required_one_of": [["fleet", "fleet_file"]]}

    def work(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        document = params["fleet"] if params["fleet"] is not None else self._read(params["fleet_file"])
        wanted = parse_fleet(document)
        with self.registry(params, writing=True) as (connection, schema):
            outcome = load_fleet(connection, schema, wanted, params["state"], params["force"], self.check_mode)
        changes = outcome["changes"]
        result: dict[str, Any] = {
            "changed": outcome["changed"],
            "changes": shown(changes),
            "removed": outcome["removed"],
            "msg": _summary(changes, self.check_mode),
        }
        if outcome["warnings"]:
            result["warnings"] = outcome["warnings"]
        if self.diff_mode:
            result["diff"] = diff_of(changes)
        return result

    def _read(self, name: str) -> Any:
        # As typed on the command line first; then beside the playbook.
        path = os.path.abspath(name)
        if not os.path.exists(path):
            path = self._loader.path_dwim(name)
        if not os.path.isfile(path):
            raise OperatorError(
                "FLEET_FILE_MISSING", f"There is no fleet file {name!r}.", "Give its path, absolute or from here."
            )
        try:
            # Ansible's own loader: it also reads vaulted files. Its result is data, never a template.
            return plain(self._loader.load_from_file(path, cache=False))
        except (AnsibleError, OSError) as error:
            raise OperatorError("FLEET_FILE_UNREADABLE", f"The fleet file {name!r} can not be read: {error}") from error


def _summary(changes: list[dict[str, Any]], check_mode: bool) -> str:
    if not changes:
        return "The registry holds this fleet already."
    counts = Counter((change["action"], change["kind"]) for change in changes)
    steps = [f"{action} {count} {kind}{'s' if count > 1 else ''}" for (action, kind), count in counts.items()]
    return ("Would " if check_mode else "Done: ") + ", ".join(steps) + "."
