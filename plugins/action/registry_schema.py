# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring the registry to the layout of this collection: the controller-side work of elephaas.herd.registry_schema."""

from __future__ import annotations

from typing import Any

from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.action import RegistryAction
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.schema import apply_migrations


class ActionModule(RegistryAction):
    """One call of apply_migrations."""

    def work(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        with self.registry(params, writing=True) as (connection, schema):
            outcome = apply_migrations(connection, schema, self.check_mode)
        if outcome["changed"]:
            done = "would be applied" if self.check_mode else "applied"
            outcome["msg"] = (
                f"{', '.join(outcome['pending']) or 'rights of the group roles'} {done} in schema {schema}."
            )
        else:
            outcome["msg"] = f"Schema {schema} is as this collection needs it."
        missing = [role for role, state in outcome["roles"].items() if state == "missing"]
        if missing and not (self.check_mode and outcome["pending"]):
            hint = "Once a DBA has created them (CREATE ROLE … NOLOGIN), run this again."
            outcome["warnings"] = [
                f"Group roles are missing, and this user may not create them: {', '.join(missing)}. {hint}"
            ]
        if self.diff_mode:
            applied = "".join(f"{title}\n" for title in outcome["applied"])
            outcome["diff"] = {
                "before": applied,
                "after": applied + "".join(f"{title}\n" for title in outcome["pending"]),
                "before_header": f"migrations in schema {schema}",
                "after_header": f"migrations in schema {schema}",
            }
        return outcome
