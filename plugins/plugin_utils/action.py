# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The base of every module that does its work on the controller. Private to the collection.

Such a module opens no connection and needs no Python on the target host, not even on localhost: it runs in the Python
that runs Ansible.
"""

from __future__ import annotations

import traceback
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.parameters import remove_values
from ansible.plugins.action import ActionBase

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError


def plain(value: Any) -> Any:
    """The same data in built-in types: no tags, no lazy templates, no vault objects of any ansible-core."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        # From 2.19 on numbers carry tags too: subclasses that YAML and JSON writers do not know.
        return int(value) if isinstance(value, int) else float(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        # A vaulted string of ansible-core up to 2.18: its text is the decrypted value.
        return str(value)
    return value


class ControllerAction(ActionBase):
    """Validates arguments, runs work(), and lets no secret out, neither in results nor in errors.

    A subclass sets ARGUMENT_SPEC and CONSTRAINTS (mutually_exclusive, required_if, … as AnsibleModule takes them) and
    implements work(). It finds check mode and diff mode as self.check_mode and self.diff_mode.
    """

    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {}
    CONSTRAINTS: ClassVar[dict[str, Any]] = {}

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    check_mode: bool
    diff_mode: bool

    @abstractmethod
    def work(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Do it and return the result's keys. Raise OperatorError for what a person should read.

        params: the validated arguments in built-in types.
        """

    def secrets(self, params: dict[str, Any]) -> Iterable[str]:
        """Texts that must not leave besides the values of no_log options, such as the password within a DSN."""
        return ()

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """What Ansible calls; the result, or what failed, without any secret."""
        result: dict[str, Any] = super().run(tmp, task_vars) or {}
        # The task's own settings: check_mode and diff keywords of the task count, not only the command line.
        self.check_mode = bool(self._task.check_mode)
        self.diff_mode = bool(self._task.diff)

        validation = ArgumentSpecValidator(self.ARGUMENT_SPEC, **self.CONSTRAINTS).validate(
            plain(dict(self._task.args))
        )
        hidden = set(validation._no_log_values)
        params = validation.validated_parameters
        if validation.error_messages:
            outcome: dict[str, Any] = OperatorError("BAD_ARGUMENTS", "; ".join(validation.error_messages)).as_result()
            outcome["failed"] = True
        else:
            hidden.update(text for text in self.secrets(params) if text)
            outcome = self._work(params, task_vars or {})
        # no_log of the argument spec does nothing by itself in an action plugin.
        result.update(remove_values(outcome, hidden))
        return result

    def _work(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        try:
            return self.work(params, task_vars)
        except OperatorError as error:
            return {"failed": True, **error.as_result()}
        except Exception as error:  # noqa: BLE001 - whatever it is, it leaves through the remover of secrets too
            unexpected = OperatorError("INTERNAL_ERROR", f"Unexpected {type(error).__name__}: {error}")
            return {"failed": True, **unexpected.as_result(), "exception": traceback.format_exc()}
