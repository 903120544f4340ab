# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Point a DNS name at another server: options, check mode and the token. The work is done by plugin_utils/dns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.action import ControllerAction
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.options import DNS_ARGUMENT_SPEC
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.prepared import Prepared
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.repoint import Updater
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry import operations
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import (
    REGISTRY_ARGUMENT_SPEC,
    connection_parameters,
    open_registry,
)

_WISH = ("type", "expected", "ttl", "allow_type_change", "allow_multiple")


class ActionModule(ControllerAction):
    """The controller-side work of elephaas.herd.dns_repoint."""

    ARGUMENT_SPEC = {
        **DNS_ARGUMENT_SPEC,
        "record": {"type": "str", "required": True},
        "value": {"type": "str", "required": True},
        "type": {"type": "str", "choices": ["auto", "CNAME", "A", "AAAA"], "default": "auto"},
        "expected": {"type": "list", "elements": "str"},
        "ttl": {"type": "int"},
        "allow_type_change": {"type": "bool", "default": False},
        "allow_multiple": {"type": "bool", "default": False},
        "verify": {"type": "bool", "default": True},
        "wait_s": {"type": "float", "default": 10.0},
        "require_all": {"type": "bool", "default": False},
        "herd": {"type": "str"},
        "environment": {"type": "str"},
        "token": {"type": "int", "no_log": False},
        "registry": {"type": "dict", "default": {}},
        "without_registry": {"type": "bool", "default": False},
        "registry_may_be_lost": {"type": "bool", "default": False},
    }

    def secrets(self, params: dict[str, Any]) -> Iterable[str]:
        """What must not be seen of the registry's options."""
        yield from (str(params["registry"].get(option) or "") for option in ("dsn", "password"))
        try:
            yield connection_parameters(_registry_options(params)).get("password") or ""
        except OperatorError:
            return  # a DSN that cannot be read is never shown; work() says what is wrong with it

    def work(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Repoint, or rehearse it in check mode; the result is described in the module's RETURN."""
        notes = _check_token(params)
        updater = Updater.from_params(params)
        prepared = updater.prepare(params["record"], params["value"], **{key: params[key] for key in _WISH})
        prepared.notes.extend(notes)
        if not self.check_mode:
            prepared.send()
        elif prepared.change.needed:
            prepared.rehearse()
        try:
            # A rehearsed change is not there to be read back.
            if params["verify"] and not (self.check_mode and prepared.change.needed):
                prepared.read_back(params["wait_s"], params["require_all"])
        except OperatorError as error:
            # The change is made all the same: changed, before and servers belong to the failure.
            return {**self._result(prepared), "failed": True, **error.as_result()}
        return self._result(prepared)

    def _result(self, prepared: Prepared) -> dict[str, Any]:
        result = prepared.result()
        if self.check_mode:
            result["changed"] = prepared.change.needed
        if not self.diff_mode:
            del result["diff"]
        return result


def _registry_options(params: dict[str, Any]) -> dict[str, Any]:
    """The registry's options with what the environment says and their defaults; OperatorError BAD_ARGUMENTS."""
    validation = ArgumentSpecValidator(REGISTRY_ARGUMENT_SPEC).validate(params["registry"])
    if validation.error_messages:
        raise OperatorError("BAD_ARGUMENTS", f"registry: {'; '.join(validation.error_messages)}")
    options: dict[str, Any] = validation.validated_parameters
    return options


def _check_token(params: dict[str, Any]) -> list[str]:
    """Refuse the repoint of a herd outside its current operation; returns notes for the result.

    So no --tags and no --start-at-task slips past the gate, and a run that was taken over changes nothing any more.
    """
    if not params["herd"]:
        return []
    if params["token"] is None or not params["environment"]:
        raise OperatorError(
            "TOKEN_MISSING",
            f"the vhost of herd {params['herd']} is repointed only within an operation: give environment and token",
            "run the whole playbook, not a part of it; or leave herd out to change a record by hand",
        )
    if params["without_registry"]:
        return ["the operation's token was not checked in the registry"]
    # Of several hosts the one that takes writes: a replica may not know yet that the token is stale.
    try:
        with open_registry(_registry_options(params), writing=True) as (connection, schema):
            operations.verify_token(connection, schema, params["environment"], params["herd"], params["token"])
    except OperatorError as error:
        if error.code != "REGISTRY_UNREACHABLE" or not params["registry_may_be_lost"]:
            raise
        # It may be lost in the very disaster. The herd is locked by the claims on the members' hosts as well, and
        # applications must not stay at a stopped server because a record cannot be read.
        return [f"the operation's token was not checked in the registry: {error.reason}"]
    return []
