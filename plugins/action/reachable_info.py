# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of reachable_info."""

from __future__ import annotations

import typing as t
from dataclasses import asdict

from ansible_collections.elephaas.herd.plugins.plugin_utils.action import ControllerAction, plain
from ansible_collections.elephaas.herd.plugins.plugin_utils.connect import own_play_context, target_of
from ansible_collections.elephaas.herd.plugins.plugin_utils.reach import Answer, reach

NOT_IN_INVENTORY = Answer(
    False, "it is not in the inventory (filtered out, or its row in the registry is bad)", 0.0, "NOT_IN_INVENTORY"
)


class ActionModule(ControllerAction):
    """Entry point for Ansible."""

    ARGUMENT_SPEC: t.ClassVar[dict[str, t.Any]] = {
        "hosts": {"type": "list", "elements": "str"},
        "timeout": {"type": "float", "default": 5.0},
    }

    def work(self, params: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """See the module's documentation."""
        hostvars = task_vars["hostvars"]
        names = list(dict.fromkeys(params["hosts"] if params["hosts"] is not None else self._members(task_vars)))
        targets = {
            name: target_of(hostvars[name], self._task, self._play_context) for name in names if name in hostvars
        }
        answers = reach(targets, own_play_context(self._play_context), params["timeout"])
        seen = {name: answers.get(name, NOT_IN_INVENTORY) for name in names}
        reachable = [name for name in names if seen[name].reachable]
        return {
            "changed": False,
            "msg": f"{len(reachable)} of {len(names)} hosts answer.",
            "hosts": {name: asdict(answer) for name, answer in seen.items()},
            "reachable": reachable,
            # Not named unreachable: that word in a result says that the host of the task could not be reached.
            "errors": {name: answer.error for name, answer in seen.items() if not answer.reachable},
        }

    def _members(self, task_vars: dict[str, t.Any]) -> list[str]:
        """All members of the herds of this play's hosts."""
        hostvars = task_vars["hostvars"]
        members: list[str] = []
        for name in task_vars["ansible_play_hosts_all"]:
            members.extend(plain(hostvars[name].get("elephaas_members", [name])))
        return members
