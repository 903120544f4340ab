# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an operation could begin on some herds now. Private to the collection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry import operations
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import open_registry
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.schema import require_current

_HELD = ("OPERATION_HELD", "HERD_ON_HOLD", "OPERATION_OPEN", "HERD_UNKNOWN")


def who_holds(
    registry: dict[str, Any], verb: str, herds: Mapping[str, tuple[str, str]], holder: dict[str, Any]
) -> tuple[dict[str, OperatorError], str]:
    """Why no such operation may begin now, by key of *herds*; and why the registry cannot be asked at all, or "".

    herds: any key -> name and environment. holder: of the run that asks, which does not stand in its own way.
    Changes nothing.
    """
    held: dict[str, OperatorError] = {}
    try:
        with open_registry(registry, writing=True) as (connection, schema):
            require_current(connection, schema)
            for key, (herd, environment) in herds.items():
                request = {"herd": herd, "environment": environment, "verb": verb, "operator": "", "holder": holder}
                try:
                    operations.begin(connection, schema, request, check_mode=True)
                except OperatorError as error:
                    if error.code not in _HELD:
                        raise
                    held[key] = error
    except OperatorError as error:
        return held, f"{error.reason} [{error.code}]"
    return held, ""
