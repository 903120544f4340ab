# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of a herd at one moment: the record and the live facts of every member. Private to the collection.

Everything in decide/ reads herds through these two classes, so that a changed fact has one place to be renamed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.hold import hold_of, hold_text
from ansible_collections.elephaas.herd.plugins.module_utils.decide.lsn import parse_lsn


@dataclass(frozen=True)
class Member:
    """One instance: what the registry says of it (role, upstream …) and what its host says (facts).

    recorded_lsn, last_seen: the position at the last check-in that saw it running, and when that was (ISO 8601).
    """

    name: str
    server: str
    datacenter: str | None = None
    address: str = ""
    dns_name: str | None = None
    port: int = 5432
    role: str = "replica"
    upstream: str | None = None
    priority: int = 0
    replication_user: str | None = None
    recorded_lsn: str | None = None
    last_seen: str | None = None
    reachable: bool = True
    error: str = ""
    facts: dict[str, Any] | None = None

    def fact(self, *path: str) -> Any:
        """A value deep inside the live facts; None where anything on the way is missing."""
        value: Any = self.facts
        for key in path:
            if not isinstance(value, dict):
                return None
            value = value.get(key)
        return value

    def position(self, name: str) -> int | None:
        """A WAL position (current, received or replayed) in bytes; None when unknown."""
        text = self.fact("positions", name)
        return parse_lsn(text) if text else None

    @property
    def status(self) -> str:
        """running, starting, stopping, stopped, absent; unknown when there are no facts."""
        return self.fact("status") or "unknown"

    @property
    def running(self) -> bool:
        """PostgreSQL is up."""
        return self.status == "running"

    @property
    def writable(self) -> bool:
        """It accepts writes."""
        return bool(self.fact("writable"))

    @property
    def in_recovery(self) -> bool:
        """It runs as a replica."""
        return self.running and self.fact("role") == "replica"

    @property
    def streaming(self) -> bool:
        """Its WAL receiver streams."""
        return self.fact("upstream", "status") == "streaming"

    @property
    def detached(self) -> bool:
        """Promoted for a diagnosis, and recorded so: exempt from the rule of one writable instance."""
        return self.role == "detached"

    @property
    def own_slots(self) -> list[str]:
        """The slot that it uses on its upstream, or would use as a replica."""
        names = (self.fact("upstream", "slot"), self.fact("settings", "primary_slot_name"))
        return sorted({str(name) for name in names if name})

    def keeps_upstream(self, source: str | None, target: Member) -> bool:
        """Whether a failover from source to target leaves it where it is: a cascade, which the new timeline reaches.

        One whose upstream was the old primary moves over; and so does the sibling that the new primary itself streamed
        from, or it would stream from a server which no longer streams from anybody.
        """
        return self.upstream not in (None, source, self.name) and self.name != target.upstream

    def streams_from(self, upstream: Member) -> bool:
        """Whether its connection settings name that member's host and port.

        They may name the host by address, by DNS name or by the server's name.
        """
        host = self.fact("upstream", "host")
        port = self.fact("upstream", "port")
        names = {name.lower().rstrip(".") for name in (upstream.address, upstream.dns_name, upstream.server) if name}
        return bool(host) and str(host).lower().rstrip(".") in names and int(port or 5432) == upstream.port


@dataclass(frozen=True)
class Operation:
    """An operation on the herd, as recorded in the registry or mirrored on members' hosts.

    source, target: inventory names of the old and the new primary. lease_until: seconds since the epoch.
    decisions: what was agreed to for this herd when the operation began (plan.decisions), where it is known.
    unplanned: it began without a primary.
    """

    verb: str
    state: str
    token: int
    plan_id: str | None = None
    source: str | None = None
    target: str | None = None
    operator: str = ""
    lease_until: float | None = None
    started: str = ""
    finished: str | None = None
    decisions: dict[str, Any] | None = None
    unplanned: bool = False

    @property
    def open(self) -> bool:
        """Its lead is still the instance it moves away from, and the same command must be able to finish it."""
        return self.state in ("open", "incomplete")


_USERS = (("upstream", "user"), ("replication_user",))


@dataclass(frozen=True)
class Herd:
    """A herd: its members, its vhost's DNS state, and the operation that may be open on it.

    lead: the inventory name of the anchor under which the herd was selected.
    hold_reason, hold_by, hold_since: why nobody may act on it, who said so and when; see decide/hold.py.
    missing: members on record that the inventory does not hold (a filtered inventory, a sliced job).
    held: who holds the herd's lease, when somebody else's run is alive; empty when it is free.
    registry_error: why the registry could not be asked; empty when it could, or was not to be.
    dns: what elephaas.herd.dns_repoint's probe returned for the vhost; None when it was not asked.
    way_back: members whose rehearsed replication connection to the candidate was refused, by inventory name: the
        refusal's code, reason and next_step.
    now: seconds since the epoch, as a fact.
    """

    name: str
    herd: str
    environment: str
    lead: str
    members: tuple[Member, ...]
    protected: bool = False
    vhost: str | None = None
    hold_reason: str | None = None
    hold_by: str | None = None
    hold_since: str | None = None
    missing: tuple[str, ...] = ()
    operation: Operation | None = None
    last_failover: Operation | None = None
    held: str = ""
    registry_error: str = ""
    dns: dict[str, Any] | None = None
    way_back: dict[str, dict[str, Any]] = field(default_factory=dict)
    now: float = field(default=0.0)

    def member(self, name: str | None) -> Member | None:
        """The member of that inventory name, or None."""
        for member in self.members:
            if member.name == name:
                return member
        return None

    def replication_user(self, primary: Member) -> str | None:
        """As whom a replica of that member logs in: by the record, else as the members do, or did before a promotion."""
        seen = [member.fact(*path) for path in _USERS for member in (primary, *self.members)]
        return primary.replication_user or next((str(user) for user in seen if user), None)

    @property
    def hold(self) -> str:
        """Why it is on hold, with who and when; empty when it is not."""
        hold = hold_of(self.hold_reason, self.hold_by, self.hold_since)
        return hold_text(hold) if hold else ""

    @property
    def writable(self) -> tuple[Member, ...]:
        """Members seen accepting writes, without those detached for a diagnosis."""
        return tuple(member for member in self.members if member.writable and not member.detached)

    @property
    def highest_token(self) -> int:
        """The highest operation token that any member's host mirrors; 0 when none does."""
        return max([0] + [int(member.fact("operation", "token") or 0) for member in self.members])
