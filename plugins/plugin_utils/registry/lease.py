# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lease of a herd, taken and given back by what may also have to do without the registry. Private to the collection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry import operations
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import open_registry
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.schema import require_current

_HELD = ("OPERATION_HELD", "HERD_ON_HOLD", "OPERATION_OPEN", "HERD_UNKNOWN")


def who_holds(
    options: dict[str, Any], verb: str, holder: dict[str, Any], herds: Mapping[str, tuple[str, str]]
) -> tuple[dict[str, str], str]:
    """By herd, why no operation may begin on it now; and why the registry cannot be asked at all.

    herds: environment and name, each by the key that the answer has.
    """
    held: dict[str, str] = {}
    try:
        with open_registry(options, writing=True) as (connection, schema):
            require_current(connection, schema)
            for key, (environment, herd) in herds.items():
                request = {"herd": herd, "environment": environment, "verb": verb, "operator": "", "holder": holder}
                try:
                    operations.begin(connection, schema, request, check_mode=True)
                except OperatorError as error:
                    if error.code not in _HELD:
                        raise
                    held[key] = error.reason
    except OperatorError as error:
        return held, f"{error.reason} [{error.code}]"
    return held, ""


def take_lease(options: dict[str, Any] | None, request: dict[str, Any]) -> int:
    """The token of the operation that begins; request as in operations.begin. Raises OperatorError as that does.

    options: of the registry's connection; None where it is lost. The token is then the next one that hosts would take.
    """
    if options is None:
        return int(request["token_floor"]) + 1
    with open_registry(options, writing=True) as (connection, schema):
        require_current(connection, schema)
        begun = operations.begin(connection, schema, request)
    return int(begun["operation"]["token"])


def end_lease(options: dict[str, Any] | None, request: dict[str, Any]) -> str:
    """Put the end on record; request as in operations.finish. Why that could not be done, empty when it was."""
    if options is None:
        return ""
    try:
        with open_registry(options, writing=True) as (connection, schema):
            operations.finish(connection, schema, request)
    except OperatorError as error:
        return error.reason
    return ""
