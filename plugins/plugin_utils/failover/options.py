# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that planning a failover and carrying it out share. Private to the collection; controller only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible.plugins.action import ActionBase
from ansible.utils.collection_loader import AnsibleCollectionRef
from ansible.utils.collection_loader._collection_finder import _get_collection_role_path

from ansible_collections.elephaas.herd.plugins.module_utils.decide.candidate import Wishes
from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.options import DNS_ARGUMENT_SPEC
from ansible_collections.elephaas.herd.plugins.plugin_utils.failover.planning import Planner
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import REGISTRY_ARGUMENT_SPEC

#: Options of documentation fragment elephaas.herd.failover.
FAILOVER_ARGUMENT_SPEC: dict[str, Any] = {
    "wishes": {
        "type": "dict",
        "default": {},
        "options": {
            "candidate": {"type": "str", "default": ""},
            "leave": {"type": "str", "default": ""},
            "prefer": {"type": "str", "default": ""},
            "accept": {"type": "str", "default": ""},
            "dns": {"type": "str", "choices": ["update", "skip"], "default": "update"},
            "without_registry": {"type": "bool", "default": False},
            "takeover": {"type": "bool", "default": False},
            "dead": {"type": "str", "default": ""},
            "fence": {"type": "str", "default": ""},
            "max_receive_lag": {"type": "int", "default": Wishes.max_receive_lag},
            "max_replay_lag": {"type": "int", "default": Wishes.max_replay_lag},
            "max_loss": {"type": "int", "default": Wishes.max_loss},
            "min_free": {"type": "int", "default": Wishes.min_free},
            "max_ttl": {"type": "int", "default": Wishes.max_ttl},
            "max_archive_backlog": {"type": "int", "default": Wishes.max_archive_backlog},
            "max_transaction_age": {"type": "int", "default": Wishes.max_transaction_age},
        },
        "apply_defaults": True,
    },
    "timeout": {"type": "float", "default": 5.0},
    "look_timeout": {"type": "float", "default": 10.0},
    "dns": {"type": "dict", "options": DNS_ARGUMENT_SPEC, "apply_defaults": True},
    "registry": {"type": "dict", "options": REGISTRY_ARGUMENT_SPEC, "apply_defaults": True},
}


def planner_of(action: ActionBase, params: dict[str, Any], task_vars: Mapping[str, Any]) -> Planner:
    """What plans with these parameters."""
    wishes = {
        **params["wishes"],
        "accept": tuple(code.strip() for code in params["wishes"]["accept"].split(",") if code.strip()),
        "fence": bool(params["wishes"]["fence"].strip()),
        "dead": params["wishes"]["dead"].strip(),
    }
    return Planner(
        task_vars["hostvars"],
        action._task,
        action._play_context,
        (params["timeout"], params["look_timeout"]),
        None if params["wishes"]["without_registry"] else params["registry"],
        params["dns"],
        Wishes(**wishes),
    )


def require_hooks(hooks: Mapping[str, str], playbook_folder: str | None) -> None:
    """Find every hook before anything begins: an absolute path of a file of tasks, or the name of a role.

    A path that is relative would be looked for beside this collection's own tasks. Raises OperatorError HOOK_NOT_FOUND.
    """
    for point, hook in hooks.items():
        if hook and not (Path(hook).is_file() if os.path.isabs(hook) else _role_exists(hook, playbook_folder)):
            raise OperatorError(
                "HOOK_NOT_FOUND",
                f"The hook {point} is {hook!r}: there is no such "
                + ("file." if os.path.isabs(hook) else "role, and a file of tasks is named by its absolute path."),
                "Correct the path, or the role's name.",
            )


def _role_exists(name: str, playbook_folder: str | None) -> bool:
    if "/" in name or not name.strip():
        return False
    if AnsibleCollectionRef.is_valid_fqcr(name):
        return _get_collection_role_path(name) is not None
    places = [*(C.DEFAULT_ROLES_PATH or []), *([os.path.join(playbook_folder, "roles")] if playbook_folder else [])]
    return any(os.path.isdir(os.path.join(place, name)) for place in places)
