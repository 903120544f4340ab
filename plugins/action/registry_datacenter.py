# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One data center of the registry: the controller-side work of elephaas.herd.registry_datacenter."""

from __future__ import annotations

from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.record_action import RecordAction, record_spec

_FIELDS = {
    "networks": {"type": "list", "elements": "str"},
    "description": {"type": "str"},
}


class ActionModule(RecordAction):
    """See the module's documentation."""

    KIND = "datacenter"
    FIELDS = _FIELDS
    ARGUMENT_SPEC = record_spec("datacenter", _FIELDS, {"new_name": {"type": "str"}})
