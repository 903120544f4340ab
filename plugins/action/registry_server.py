# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One server of the registry: the controller-side work of elephaas.herd.registry_server."""

from __future__ import annotations

from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.record import Decision
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.record_action import (
    FORCE,
    RecordAction,
    record_spec,
)
from ansible_collections.elephaas.herd.plugins.plugin_utils.ssh_check import Login, check_login

_FIELDS = {
    "environment": {"type": "str"},
    "address": {"type": "str"},
    "datacenter": {"type": "str"},
    "ssh_port": {"type": "int"},
    "ssh_user": {"type": "str"},
    "dns_name": {"type": "str"},
}


class ActionModule(RecordAction):
    """See the module's documentation."""

    KIND = "server"
    FIELDS = _FIELDS
    ARGUMENT_SPEC = record_spec(
        "server",
        _FIELDS,
        FORCE,
        {
            "new_name": {"type": "str"},
            "check_ssh": {"type": "bool", "default": True},
            "ssh_timeout": {"type": "float", "default": 10.0},
        },
    )

    def look(self, params: dict[str, Any], decision: Decision, task_vars: dict[str, Any]) -> None:
        """Log in to a server that is new, or reached in a new way."""
        wanted = _login(decision.key[1], decision.after)
        if params["check_ssh"] and wanted and wanted != _login(params["name"], decision.before):
            check_login(wanted, decision.key[1], params["ssh_timeout"], self, task_vars)


def _login(name: str, record: dict[str, Any] | None) -> Login | None:
    return Login(record["address"] or name, record["ssh_port"], record["ssh_user"]) if record else None
