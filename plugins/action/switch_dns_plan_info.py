# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at the herds of all selected instances and at DNS, and decide what is done to each herd's DNS name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.dns_drift import VERB, Request
from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.bulk_plans import herds_held, leads_of, plan_names
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.options import DNS_ARGUMENT_SPEC
from ansible_collections.elephaas.herd.plugins.plugin_utils.instances import Remembered
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.action import RegistryAction
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import REGISTRY_ARGUMENT_SPEC

_LONGEST_TTL = 2147483647  # RFC 2181 section 8


class ActionModule(RegistryAction):
    """The controller-side work of elephaas.herd.switch_dns_plan_info."""

    ARGUMENT_SPEC = {
        "instances": {"type": "list", "elements": "str"},
        "ttl": {"type": "int"},
        "accept": {"type": "str", "default": ""},
        "without_registry": {"type": "bool", "default": False},
        "dns": {"type": "dict", "options": DNS_ARGUMENT_SPEC, "apply_defaults": True},
        "registry": {"type": "dict", "options": REGISTRY_ARGUMENT_SPEC, "apply_defaults": True},
        "timeout": {"type": "float", "default": 5.0},
        "look_timeout": {"type": "float", "default": 10.0},
    }

    def secrets(self, params: dict[str, Any]) -> Iterable[str]:
        return super().secrets(params["registry"])

    def work(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """See the module's documentation."""
        if params["ttl"] is not None and not 0 <= params["ttl"] <= _LONGEST_TTL:
            raise OperatorError("BAD_ARGUMENTS", f"ttl is {params['ttl']}; it takes seconds, 0 to {_LONGEST_TTL}.")
        hostvars = Remembered(task_vars["hostvars"])
        selected = params["instances"] if params["instances"] is not None else task_vars["ansible_play_hosts_all"]
        leads = leads_of(selected, hostvars)
        request = Request(
            params["ttl"],
            tuple(code.strip() for code in params["accept"].split(",") if code.strip()),
            params["without_registry"],
        )
        held, lost = ({}, "") if params["without_registry"] else herds_held(params["registry"], VERB, leads, hostvars)
        plans = plan_names(
            leads,
            request,
            params["dns"],
            hostvars,
            self._task,
            self._play_context,
            (params["timeout"], params["look_timeout"]),
            held,
            lost,
        )
        return {"changed": False, "plans": plans}
