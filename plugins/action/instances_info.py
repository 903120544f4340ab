# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of instances_info."""

from __future__ import annotations

import typing as t

from ansible_collections.elephaas.herd.plugins.plugin_utils.action import ControllerAction
from ansible_collections.elephaas.herd.plugins.plugin_utils.instances import look


class ActionModule(ControllerAction):
    """Entry point for Ansible."""

    ARGUMENT_SPEC: t.ClassVar[dict[str, t.Any]] = {
        "instances": {"type": "list", "elements": "str"},
        "timeout": {"type": "float", "default": 5.0},
        "look_timeout": {"type": "float", "default": 10.0},
        "readiness": {"type": "bool", "default": False},
    }

    def work(self, params: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """See the module's documentation."""
        names = params["instances"] if params["instances"] is not None else task_vars["ansible_play_hosts_all"]
        observations = look(
            names,
            task_vars["hostvars"],
            self._task,
            self._play_context,
            params["timeout"],
            params["look_timeout"],
            params["readiness"],
        )
        seen = sum(1 for observation in observations if observation["reachable"])
        return {
            "changed": False,
            "msg": f"{seen} of {len(observations)} instances were looked at.",
            "observations": observations,
        }
