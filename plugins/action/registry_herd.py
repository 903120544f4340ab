# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One herd of the registry: the controller-side work of elephaas.herd.registry_herd."""

from __future__ import annotations

from ansible_collections.elephaas.herd.plugins.module_utils.decide.fields import CONTROLS
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.record_action import (
    FORCE,
    RecordAction,
    record_spec,
)

_FIELDS = {
    "db_port": {"type": "int"},
    "pgdata": {"type": "str"},
    "vhost": {"type": "str"},
    "description": {"type": "str"},
    "os_user": {"type": "str"},
    "control": {"type": "str", "choices": list(CONTROLS)},
    "replication_user": {"type": "str"},
    "base_name": {"type": "str"},
}


class ActionModule(RecordAction):
    """See the module's documentation."""

    KIND = "herd"
    FIELDS = _FIELDS
    ARGUMENT_SPEC = record_spec(
        "herd", _FIELDS, FORCE, {"new_name": {"type": "str"}, "new_environment": {"type": "str"}}
    )
