# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One instance of the registry: the controller-side work of elephaas.herd.registry_instance."""

from __future__ import annotations

from ansible_collections.elephaas.herd.plugins.module_utils.decide.fields import ROLES
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.record_action import (
    FORCE,
    RecordAction,
    record_spec,
)

_FIELDS = {
    "role": {"type": "str", "choices": list(ROLES)},
    "upstream": {"type": "str"},
    "db_port": {"type": "int"},
    "pgdata": {"type": "str"},
    "priority": {"type": "int"},
}


class ActionModule(RecordAction):
    """See the module's documentation."""

    KIND = "instance"
    FIELDS = _FIELDS
    ARGUMENT_SPEC = record_spec("instance", _FIELDS, FORCE)
