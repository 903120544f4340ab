# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One operation on one herd, as the registry keeps it: begun, alive, closed. Private to the collection; controller only.

A registry that goes away while an operation runs stops nothing: on the members' hosts the token still counts, and the
next status puts on record what was done. One that says that another run has taken over stops this one.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry import operations
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import open_registry
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.schema import require_current


@dataclass(frozen=True)
class Lease:
    """The herd and who acts on it.

    registry: connection options, None to act without it. herd, environment: names in the registry.
    operator, awx, holder: for the history. lease_s: how long the herd stays locked after the last sign of life.
    """

    registry: dict[str, t.Any] | None
    herd: str
    environment: str
    operator: str
    awx: dict[str, t.Any]
    holder: dict[str, t.Any]
    lease_s: int

    def _request(self, **more: t.Any) -> dict[str, t.Any]:
        return {"herd": self.herd, "environment": self.environment, "lease_s": self.lease_s, **more}

    def begin(self, verb: str, plan_id: str, token_floor: int, plan: dict[str, t.Any], **ends: t.Any) -> int:
        """Take the lease; the operation's token.

        token_floor: the highest token that a member's host knows. ends: from_server and to_server of a failover.
        Raises OperatorError as operations.begin does, and what opening the registry raises.
        """
        if self.registry is None:
            return token_floor + 1
        with open_registry(self.registry, writing=True) as (connection, schema):
            require_current(connection, schema)
            request = self._request(
                verb=verb,
                plan_id=plan_id,
                operator=self.operator,
                plan=plan,
                token_floor=token_floor,
                holder=self.holder,
                awx=self.awx,
                **ends,
            )
            return int(operations.begin(connection, schema, request)["operation"]["token"])

    def renew(self, token: int, phase: str, detail: dict[str, t.Any]) -> str:
        """A sign of life, on record as that phase; why this run has to stop here when another one has taken over."""
        if self.registry is None:
            return ""
        try:
            with open_registry(self.registry, writing=True) as (connection, schema):
                operations.record_phase(connection, schema, self._request(token=token, phase=phase, detail=detail))
        except OperatorError as error:
            if error.code in ("TOKEN_STALE", "OPERATION_CLOSED"):
                return error.reason
        return ""

    def close(self, token: int, outcome: str, **end: t.Any) -> str:
        """Put the end on record; why that could not be done, empty when it was. end: detail, roles, online."""
        if self.registry is None:
            return ""
        try:
            with open_registry(self.registry, writing=True) as (connection, schema):
                operations.finish(connection, schema, self._request(token=token, outcome=outcome, **end))
        except OperatorError as error:
            return error.reason
        return ""
