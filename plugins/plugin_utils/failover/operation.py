# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A failover under way, as one part of it hands it on to the next. Private to the collection; controller only."""

from __future__ import annotations

import time
import typing as t
from dataclasses import asdict, dataclass, field


@dataclass
class Operation:
    """What a part of a failover has to know of those before it; plain data, so that a play can carry it.

    token, run: of the claims. plan: as decided under the lock. plan_id: what was agreed to.
    waiter: the record of the promotion. timeline: the new primary's; None before the promotion.
    dns_trouble: why the vhost does not lead to the new primary yet. phases: name -> seconds since 1970.
    claimed: the members whose hosts took this run's claim. Without the registry another run can come to the same token,
    so nothing may be closed or undone where the claim is not ours.
    """

    token: int
    run: str
    plan: dict[str, t.Any]
    plan_id: str
    waiter: dict[str, t.Any] | None = None
    timeline: int | None = None
    dns_trouble: str = ""
    phases: dict[str, float] = field(default_factory=dict)
    claimed: list[str] = field(default_factory=list)

    def reached(self, phase: str) -> None:
        """Note when a phase was reached."""
        self.phases[phase] = round(time.time(), 3)

    @property
    def source(self) -> str:
        """The old primary."""
        return str(self.plan["source"])

    @property
    def target(self) -> str:
        """The new primary; the old one where the herd goes back to it."""
        return str(self.plan["target"] or self.plan["source"])

    def as_data(self) -> dict[str, t.Any]:
        """For the play."""
        return asdict(self)

    def summary(self) -> dict[str, t.Any]:
        """For the record in the registry."""
        return {
            "phases": self.phases,
            "promoted": self.waiter or {},
            "dns": self.plan["dns"],
            "loss": self.plan["loss"],
        }


class Ended(Exception):
    """This part of the failover cannot go on: how the herd was left.

    outcome: refused (nothing was begun), aborted (nothing has changed) or incomplete. reason: for the table.
    """

    def __init__(self, outcome: str, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason
