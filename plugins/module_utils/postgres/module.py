# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every host verb has in common: options, the change of account, errors. Private to the collection."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.account import owner_of, run_as
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.target import Target, check_options, target_from

# Options of the verbs that can close their operation in the same run.
RELEASE_OPTIONS: dict[str, Any] = {
    "release": {"type": "bool", "default": False},
    "release_outcome": {"type": "str", "choices": ["done", "aborted"], "default": "done"},
}


def instance_argument_spec(timeout: int, with_token: bool = False, **more: Any) -> dict[str, Any]:
    """The options of doc fragment elephaas.herd.instance (and .token), merged with a module's own."""
    spec: dict[str, Any] = {
        # Not of type path, which puts the host's environment in: /srv/$HOME is a directory of that name.
        "data_directory": {"type": "str", "required": True},
        "port": {"type": "int", "required": True},
        "os_user": {"type": "str"},
        "bin_directory": {"type": "str"},
        "socket_directory": {"type": "str"},
        "control": {"type": "str", "choices": ["auto", "pg_ctl", "pg_ctlcluster"], "default": "auto"},
        "system_identifier": {"type": "str"},
        "timeout": {"type": "int", "default": timeout},
    }
    if with_token:
        spec["token"] = {"type": "int", "no_log": False}
    spec.update(more)
    return spec


def run_verb(module: Any, verb: Callable[[Target, dict[str, Any], bool], dict[str, Any]]) -> None:
    """Run `verb(target, params, check_mode)` as the instance's account, and exit the module with what it returns."""
    params = dict(module.params)
    try:
        check_options(params)
        os_user = params["os_user"] or owner_of(params["data_directory"])
        target = target_from(params, os_user)
        result = run_as(os_user, lambda: verb(target, params, module.check_mode))
    except OperatorError as error:
        module.fail_json(**error.as_result())
    module.exit_json(**result)
