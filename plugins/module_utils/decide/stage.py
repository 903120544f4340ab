# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a failover of this herd has come, told from live facts and the records of its operation.

A run may die anywhere. What the next run has to do follows from what the servers show, never from
what the dead run meant to do next. Private to the collection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd, Member, Operation
from ansible_collections.elephaas.herd.plugins.module_utils.decide.mirror import records_of

SWITCH = "switch"
PROMOTE = "promote"
FINISH = "finish"
DONE = "done"
STUCK = "stuck"

#: What each stage means, for people; docs and plans print it.
MEANING = {
    SWITCH: "the primary runs; nothing has been stopped",
    PROMOTE: "the old primary is stopped and armed; the candidate still has to be promoted",
    FINISH: "the candidate is promoted; DNS, the other members and the records are left",
    DONE: "already done",
    STUCK: "no safe way forward is known from here",
}


@dataclass(frozen=True)
class Stage:
    """name: one of the constants above; source and target: the old and the new primary where they are fixed."""

    name: str
    why: str
    source: Member | None = None
    target: Member | None = None
    operation: Operation | None = None


@dataclass(frozen=True)
class Mirrored:
    """One copy of an operation's record. holder: the member on whose host it lies."""

    holder: str
    operation: Operation


def mirrored_operations(herd: Herd) -> list[Mirrored]:
    """The operation records that members' hosts mirror; closed ones have the state done or aborted."""
    found = []
    for member in herd.members:
        found += [Mirrored(member.name, _operation(record)) for record in records_of(member.fact("operation"))]
    return found


def _operation(record: dict[str, Any]) -> Operation:
    detail = record.get("operation") or {}
    return Operation(
        verb=detail.get("verb") or "",
        state=record.get("closed") or "open",
        token=int(record["token"]),
        plan_id=detail.get("plan_id"),
        source=detail.get("from"),
        target=detail.get("to"),
        operator=detail.get("operator") or "",
        lease_until=record.get("lease_until"),
        decisions=detail.get("decisions"),
    )


def closed_failovers(herd: Herd) -> list[Operation]:
    """Failovers that are over, by the registry or by the copy on the new primary's host.

    That copy is closed after all others, so it alone tells: another member's is closed when that member is settled,
    and one that could not be reached at the end stays open for ever.
    """
    closed = [
        copy.operation
        for copy in mirrored_operations(herd)
        if not copy.operation.open and copy.holder == copy.operation.target
    ]
    if herd.last_failover and not herd.last_failover.open:
        closed.append(herd.last_failover)
    return [operation for operation in closed if operation.verb == "failover"]


def begun_failover(herd: Herd) -> Operation | None:
    """The failover that was begun and not closed: the registry's record or a host's, whichever token is higher.

    Hosts are asked too, because a run without the registry leaves its record only there.
    """
    # A host's copy goes first: of two records of one operation, it also knows what was agreed to.
    records = [copy.operation for copy in mirrored_operations(herd) if copy.operation.open]
    if herd.operation and herd.operation.open:
        records.append(herd.operation)
    over = max((operation.token for operation in closed_failovers(herd)), default=0)
    records = [operation for operation in records if operation.verb == "failover" and operation.token > over]
    return max(records, key=lambda operation: operation.token, default=None)


def finished_failover(herd: Herd) -> Operation | None:
    """The newest failover that ended as done."""
    done = [operation for operation in closed_failovers(herd) if operation.state == "done"]
    return max(done, key=lambda operation: operation.token, default=None)


def stage_of(herd: Herd, confirm: str = "") -> Stage:
    """Where this herd stands. confirm: the plan id that the operator gave, if any."""
    begun = begun_failover(herd)
    source, target = (herd.member(begun.source), herd.member(begun.target)) if begun else (None, None)
    if begun and source and target:
        return _stage_of_begun(begun, source, target)

    finished = finished_failover(herd)
    if finished:
        target = herd.member(finished.target)
        selected_by_former_lead = finished.source == herd.lead
        # Alone: beside a second writable member nothing is done, whatever the records say.
        alone = target is not None and [member.name for member in herd.writable] == [target.name]
        if target and alone and (selected_by_former_lead or (confirm and confirm == finished.plan_id)):
            return Stage(
                DONE,
                f"{finished.target} took over from {finished.source}"
                + (f", plan {finished.plan_id}" if finished.plan_id else ""),
                herd.member(finished.source),
                target,
                finished,
            )
    return Stage(SWITCH, MEANING[SWITCH], herd.member(herd.lead))


def _stage_of_begun(begun: Operation, source: Member, target: Member) -> Stage:
    armed = "standby.signal" in (source.fact("signal_files") or [])
    if target.writable and not source.writable and promoted_by_waiter(target):
        return Stage(FINISH, MEANING[FINISH], source, target, begun)
    # A waiter that nobody can reach may still promote the moment the primary stops, whoever the next candidate is.
    if source.writable and not target.writable and (target.reachable or not armed):
        return Stage(SWITCH, "an earlier run began and stopped nothing", source, None, begun)
    cleanly_stopped = source.status == "stopped" and source.fact("control", "state") == "shut down"
    if target.in_recovery and cleanly_stopped and armed:
        return Stage(PROMOTE, MEANING[PROMOTE], source, target, begun)
    return Stage(
        STUCK,
        f"an earlier failover from {source.name} to {target.name} was interrupted: {source.name} is "
        f"{_shown(source)}, {target.name} is {_shown(target)}",
        source,
        target,
        begun,
    )


def promoted_by_waiter(member: Member) -> bool:
    """Whether its present timeline began with a promotion that a waiter asked for, with the proof in its hands.

    That it accepts writes is no proof: somebody may have promoted it by hand while the old primary took writes too.
    """
    if not member.fact("waiter", "times", "promote_called"):
        return False
    # A waiter that died right after its request could not write down what came of it.
    began = member.fact("waiter", "evidence", "timeline_new")
    before = member.fact("waiter", "expect_timeline")
    timeline = member.fact("timeline")
    return timeline == began if began else bool(before and timeline and timeline > before)


def _shown(member: Member) -> str:
    if not member.reachable:
        return "unreachable"
    if member.writable:
        armed = "standby.signal" in (member.fact("signal_files") or [])
        return "writable, and armed to restart as a replica" if armed else "writable, and not promoted by that failover"
    if member.in_recovery:
        return "in recovery"
    state = member.fact("control", "state")
    return f"{member.status} ({state})" if state else member.status
