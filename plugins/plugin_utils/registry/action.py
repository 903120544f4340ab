# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every action on the registry has in common. Private to the collection."""

from __future__ import annotations

import getpass
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.action import ControllerAction
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import (
    REGISTRY_ARGUMENT_SPEC,
    connection_parameters,
    open_registry,
)

_AWX_KEYS = ("job_id", "job_template_id", "job_template_name", "user_name", "schedule_name", "workflow_job_id")


class RegistryAction(ControllerAction):
    """An action with the registry's connection options (documentation fragment elephaas.herd.registry)."""

    ARGUMENT_SPEC = REGISTRY_ARGUMENT_SPEC

    def secrets(self, params: dict[str, Any]) -> Iterable[str]:
        """The password, also when it is within the DSN."""
        try:
            password = connection_parameters(params).get("password")
        except OperatorError:
            # A DSN that can not be read is never shown; the value of the option itself is hidden anyway.
            return ()
        return (password,) if password else ()

    def registry(self, params: dict[str, Any], writing: bool) -> AbstractContextManager[tuple[Any, str]]:
        """with self.registry(params, writing=True) as (connection, schema): …"""
        return open_registry(params, writing)


def awx_facts(task_vars: dict[str, Any]) -> dict[str, Any]:
    """What AWX says about the job, by its own names without the prefix; empty elsewhere."""
    facts = {}
    for key in _AWX_KEYS:
        value = task_vars.get(f"awx_{key}", task_vars.get(f"tower_{key}"))
        if value is not None:
            facts[key] = str(value)
    return facts


def operator_name(given: str | None, task_vars: dict[str, Any]) -> str:
    """Who acts: as given, else AWX's user, else the account that runs Ansible."""
    if given:
        return given
    user = awx_facts(task_vars).get("user_name")
    if user:
        return user
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
