# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules for one record each have in common. Private to the collection."""

from __future__ import annotations

from typing import Any, ClassVar

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.record import (
    KEY_FIELDS,
    OPTIONS,
    Decision,
    Wish,
    subject,
)
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.action import RegistryAction
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import REGISTRY_ARGUMENT_SPEC
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.records import settle_record
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.shown import diff_of, shown

# What the documentation fragments elephaas.herd.record and elephaas.herd.record.force describe.
_STATE: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "cascade": {"type": "bool", "default": False},
}
FORCE: dict[str, dict[str, Any]] = {"force": {"type": "bool", "default": False}}


def record_spec(kind: str, *options: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The argument spec of a record module: the registry, what names a record, and these options."""
    spec = {**REGISTRY_ARGUMENT_SPEC, **_STATE}
    spec.update((name, {"type": "str", "required": True}) for name in KEY_FIELDS[kind])
    for more in options:
        spec.update(more)
    return spec


class RecordAction(RegistryAction):
    """Makes one record be there, or not be there.

    A subclass sets KIND, FIELDS (options that are fields of the record) and ARGUMENT_SPEC (see record_spec).
    """

    KIND: ClassVar[str]
    FIELDS: ClassVar[dict[str, dict[str, Any]]]

    def look(self, params: dict[str, Any], decision: Decision, task_vars: dict[str, Any]) -> None:
        """Have a look at the world before the decision is carried out. Raise OperatorError to refuse it."""

    def work(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """One call of settle_record, after a rehearsal."""
        wish = self._wish(params)
        consent = params["cascade"], params.get("force", False)
        with self.registry(params, writing=True) as (connection, schema):
            # What is refused is refused before anything else is asked; then decided again, on what is there then.
            decision = settle_record(connection, schema, wish, *consent, check_mode=True)
            self.look(params, decision, task_vars)
            if decision.changes and not self.check_mode:
                decision = settle_record(connection, schema, wish, *consent)
        result: dict[str, Any] = {
            "changed": bool(decision.changes),
            "changes": shown(decision.changes),
            "removed": decision.removed,
            "affected": decision.affected,
            "record": _record(decision),
            "msg": _summary(decision, self.check_mode),
        }
        if self.diff_mode:
            result["diff"] = diff_of(decision.changes)
        return result

    def _wish(self, params: dict[str, Any]) -> Wish:
        names = KEY_FIELDS[self.KIND]
        key = (self.KIND, *(params[name] for name in names))
        given = {name: params.get(f"new_{name}") for name in names}
        new_key = None
        if any(value is not None for value in given.values()):
            new_key = (self.KIND, *(params[name] if given[name] is None else given[name] for name in names))
        present = params["state"] == "present"
        if new_key and not present:
            raise OperatorError("BAD_ARGUMENTS", "state=absent removes a record, and gives it no new name.")
        fields = {option: field for field, option in OPTIONS.items()}
        values = {fields.get(name, name): params[name] for name in self.FIELDS if params[name] is not None}
        return Wish(key, values, new_key, present)


def _record(decision: Decision) -> dict[str, Any] | None:
    if decision.after is None:
        return None
    fields = {name: value for name, value in decision.after.items() if name != "members"}
    return {**dict(zip(KEY_FIELDS[decision.key[0]], decision.key[1:], strict=True)), **fields}


def _summary(decision: Decision, check_mode: bool) -> str:
    name = subject(decision.key)
    if not decision.changes:
        return f"{name} {'is not recorded' if decision.after is None else 'is recorded so already'}."
    done = "would be" if check_mode else "is"
    verb = "removed" if decision.after is None else "recorded" if decision.before is None else "changed"
    more = f", and {len(decision.dependants)} more with it" if decision.dependants else ""
    return f"{name} {done} {verb}{more}."
