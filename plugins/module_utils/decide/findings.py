# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong in a herd that is to be failed over: one function a question. Private to the collection.

Each reads a situation and yields a subject and a reason for everything that is wrong. What a finding means, and what to
do about it, stands in the table in checks.py. Here: who else acts, who is primary, and is it this herd at all; the rest
by subject in findings_hosts.py, findings_replication.py, findings_work.py and findings_dns.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Iterator, Tuple

from ansible_collections.elephaas.herd.plugins.module_utils.decide.candidate import Choice, Wishes
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd, Member
from ansible_collections.elephaas.herd.plugins.module_utils.decide.size import human_seconds
from ansible_collections.elephaas.herd.plugins.module_utils.decide.stage import (
    PROMOTE,
    SWITCH,
    Stage,
    mirrored_operations,
)


@dataclass(frozen=True)
class Situation:
    """All that a check may look at."""

    herd: Herd
    stage: Stage
    wishes: Wishes = field(default_factory=Wishes)
    choice: Choice = field(default_factory=Choice)

    @property
    def primary(self) -> Member | None:
        """The old primary."""
        return self.stage.source

    @property
    def candidate(self) -> Member | None:
        """The primary to be: fixed by an operation that was begun, else the one chosen."""
        return self.stage.target or self.choice.winner

    @property
    def replicas_to_be(self) -> list[Member]:
        """Every member that runs on as a replica of the candidate, directly or not."""
        return [
            member
            for member in self.herd.members
            if member is not self.candidate
            and not member.detached
            and member.facts is not None
            and not (self.stage.unplanned and member is self.primary)
        ]

    @property
    def followers(self) -> list[Member]:
        """Those of them that will stream from the candidate itself: running siblings, and the old primary."""
        candidate, source = self.candidate, self.primary
        if candidate is None:
            return []
        return [
            member
            for member in self.replicas_to_be
            if member is source
            or (member.running and not member.keeps_upstream(source.name if source else None, candidate))
        ]


Finding = Tuple[str, str]


# --- 1. one operation at a time -------------------------------------------------------------------


def held(situation: Situation) -> Iterator[Finding]:
    """Somebody else's run is alive."""
    herd, wishes = situation.herd, situation.wishes
    if herd.held:
        yield herd.name, herd.held
    if not wishes.without_registry or wishes.takeover:
        return
    # The registry grants a token only when no lease is alive; without it, the hosts' copies have to tell.
    for copy in mirrored_operations(herd):
        operation = copy.operation
        alive = operation.open and operation.lease_until is not None and operation.lease_until > herd.now
        if alive and operation.token != wishes.token:
            left = human_seconds(operation.lease_until - herd.now)  # type: ignore[operator]
            yield copy.holder, f"{operation.operator} runs a {operation.verb} on it, its lease lasts another {left}"


def registry_lost(situation: Situation) -> Iterator[Finding]:
    """The registry was to be asked and could not be."""
    if situation.herd.registry_error:
        yield situation.herd.name, situation.herd.registry_error


def on_hold(situation: Situation) -> Iterator[Finding]:
    """The herd is on hold."""
    if situation.herd.hold_reason:
        yield situation.herd.name, f"the herd is on hold: {situation.herd.hold_reason}"


def members_missing(situation: Situation) -> Iterator[Finding]:
    """Members on record that this inventory does not hold."""
    for name in situation.herd.missing:
        yield name, "it is on record as a member, but not in this inventory"


def stuck(situation: Situation) -> Iterator[Finding]:
    """An interrupted failover that cannot be continued."""
    yield situation.herd.name, situation.stage.why


# --- 2. and 3. who is primary, and is it this herd at all -----------------------------------------


def primary_mismatch(situation: Situation) -> Iterator[Finding]:
    """Another member than the recorded primary accepts writes."""
    writable = situation.herd.writable
    if len(writable) == 1 and writable[0].name != situation.herd.lead:
        yield situation.herd.name, f"{situation.herd.lead} is on record as primary, {writable[0].name} accepts writes"


def not_one_writable(situation: Situation) -> Iterator[Finding]:
    """More than one member accepts writes."""
    # A lost primary that came back is one more reason to bring its successor's failover to an end.
    lost = situation.primary if situation.stage.unplanned else None
    writable = [member for member in situation.herd.writable if member is not lost]
    if len(writable) > 1:
        names = ", ".join(member.name for member in writable)
        yield situation.herd.name, f"split brain: {len(writable)} members accept writes: {names}"


def no_primary(situation: Situation) -> Iterator[Finding]:
    """No member accepts writes."""
    lead = situation.primary
    if not situation.herd.writable and lead is not None:
        state = "unreachable" if not lead.reachable else lead.status
        yield situation.herd.name, f"no member accepts writes; {lead.name}, the primary on record, is {state}"


def member_unreachable(situation: Situation) -> Iterator[Finding]:
    """Members whose hosts do not answer."""
    for member in situation.herd.members:
        if not member.reachable:
            yield member.name, f"its host cannot be reached, so nobody knows whether it accepts writes: {member.error}"


def other_cluster(situation: Situation) -> Iterator[Finding]:
    """Members of another cluster."""
    yield from _differs(situation, "system_identifier", "system identifier")


def other_major(situation: Situation) -> Iterator[Finding]:
    """Members of another major version."""
    yield from _differs(situation, "major", "major version")


def _differs(situation: Situation, key: str, what: str) -> Iterator[Finding]:
    # Measured against the instance that takes writes: it is the one whose data must survive.
    switching = situation.stage.name in (SWITCH, PROMOTE)
    reference = situation.primary if switching else situation.candidate or situation.primary
    expected = reference.fact(key) if reference else None
    for member in situation.herd.members:
        found = member.fact(key)
        if expected and found and found != expected:
            yield member.name, f"its {what} is {found}, that of {reference.name if reference else '?'} is {expected}"


def wrong_server(situation: Situation) -> Iterator[Finding]:
    """Members at whose port another server answers."""
    for member in situation.herd.members:
        problem = member.fact("identity_problem")
        if problem:
            yield member.name, str(problem)


def no_answer(situation: Situation) -> Iterator[Finding]:
    """Members that run and do not answer."""
    for member in situation.herd.members:
        problem = member.fact("sql_error")
        lost = situation.stage.unplanned and member is situation.primary
        if problem and not lost:
            yield member.name, f"PostgreSQL runs but does not answer: {problem}"


def left_armed(situation: Situation) -> Iterator[Finding]:
    """A primary that an interrupted run has armed."""
    for member in situation.herd.members:
        if member.writable and "standby.signal" in (member.fact("signal_files") or []):
            yield (
                member.name,
                "it accepts writes, but its next start will be that of a replica: an earlier run armed it",
            )


def left_stopped(situation: Situation) -> Iterator[Finding]:
    """Members that are down."""
    for member in situation.herd.members:
        if member.reachable and member.facts is not None and member.status in ("stopped", "absent"):
            if member is not situation.primary and member is not situation.candidate:
                yield member.name, f"it is {member.status} and stays so"
