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
TAKEOVER = "takeover"
RESTORE = "restore"
PROMOTE = "promote"
FINISH = "finish"
DONE = "done"
STUCK = "stuck"

#: What each stage means, for people; docs and plans print it.
MEANING = {
    SWITCH: "the primary runs; nothing has been stopped",
    TAKEOVER: "there is no primary; the most advanced replica takes over",
    RESTORE: "the primary is back, and nobody was promoted: the members follow it again",
    PROMOTE: "the old primary is stopped and armed; the candidate still has to be promoted",
    FINISH: "the candidate is promoted; DNS, the other members and the records are left",
    DONE: "already done",
    STUCK: "no safe way forward is known from here",
}


@dataclass(frozen=True)
class Stage:
    """name: one of the constants above; source and target: the old and the new primary where they are fixed.

    operation: the one that was begun, or that is done.
    """

    name: str
    why: str
    source: Member | None = None
    target: Member | None = None
    operation: Operation | None = None

    @property
    def unplanned(self) -> bool:
        """The old primary is lost: whatever becomes of it, it is not part of the herd any more."""
        return self.name == TAKEOVER or bool(self.name == FINISH and self.operation and self.operation.unplanned)


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
        unplanned=bool(detail.get("unplanned")),
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


def stage_of(herd: Herd, confirm: str = "", declared: bool = False) -> Stage:
    """Where this herd stands.

    confirm: the plan id that the operator gave, if any. declared: somebody states, or will see to it, that the recorded
    primary is dead: one that runs and does not answer counts as lost then.
    """
    begun = begun_failover(herd)
    if begun:
        source, target = herd.member(begun.source), herd.member(begun.target)
        if source is None or target is None:
            # Renamed, removed or filtered out meanwhile: what it stopped or promoted cannot be looked for.
            return Stage(STUCK, _unknown_members(begun), source, target, begun)
        decide = _stage_of_takeover if begun.unplanned else _stage_of_switch
        return decide(begun, source, target)

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
    lead = herd.member(herd.lead)
    if lead is not None and _is_lost(herd, lead, declared):
        return Stage(TAKEOVER, MEANING[TAKEOVER], lead)
    return Stage(SWITCH, MEANING[SWITCH], lead)


def _unknown_members(begun: Operation) -> str:
    return (
        f"a failover from {begun.source or 'a member that is unknown'} to {begun.target or 'one that is unknown'} by "
        f"{begun.operator} was interrupted, and this inventory does not hold both"
    )


def _is_lost(herd: Herd, lead: Member, declared: bool) -> bool:
    """No other member accepts writes, and the primary on record does not, or hangs and was declared dead."""
    others = [member for member in herd.writable if member.name != lead.name]
    hangs = bool(lead.fact("sql_error")) and declared
    return not others and (hangs or not lead.writable) and lead.status != "absent"


def _stage_of_takeover(begun: Operation, source: Member, target: Member) -> Stage:
    if target.writable and promoted_by_operation(target):
        # Also beside an old primary that has come back: the sooner DNS and the others are with the new one, the better.
        return Stage(FINISH, MEANING[FINISH], source, target, begun)
    # One that hangs is not back: it only could write.
    back = source.writable and not source.fact("sql_error")
    if back and not target.writable and not _promotion_requested(target):
        return Stage(RESTORE, MEANING[RESTORE], source, None, begun)
    if target.reachable and target.status == "stopped" and not _promotion_requested(target):
        return Stage(TAKEOVER, MEANING[TAKEOVER], source, None, begun)
    if target.in_recovery:
        # Once its promotion was asked for it may happen at any moment: no other member may be promoted any more.
        fixed = target if _promotion_requested(target) else None
        return Stage(TAKEOVER, MEANING[TAKEOVER], source, fixed, begun)
    return _stuck(begun, source, target)


def _stage_of_switch(begun: Operation, source: Member, target: Member) -> Stage:
    armed = "standby.signal" in (source.fact("signal_files") or [])
    if target.writable and not source.writable and promoted_by_operation(target):
        return Stage(FINISH, MEANING[FINISH], source, target, begun)
    # A waiter that nobody can reach may still promote the moment the primary stops, whoever the next candidate is.
    if source.writable and not target.writable and (target.reachable or not armed):
        return Stage(SWITCH, "an earlier run began and stopped nothing", source, None, begun)
    cleanly_stopped = source.status == "stopped" and source.fact("control", "state") == "shut down"
    if target.in_recovery and cleanly_stopped and armed:
        return Stage(PROMOTE, MEANING[PROMOTE], source, target, begun)
    if not source.writable and not target.writable and not _promotion_requested(target):
        # It went down in another way than it was asked to, or was restarted read-only by somebody else.
        why = f"{_interrupted(source, target)}; nobody was promoted"
        return Stage(TAKEOVER, why, source, None, begun)
    return _stuck(begun, source, target)


def _stuck(begun: Operation, source: Member, target: Member) -> Stage:
    return Stage(STUCK, _interrupted(source, target), source, target, begun)


def _interrupted(source: Member, target: Member) -> str:
    return (
        f"an earlier failover from {source.name} to {target.name} was interrupted: {source.name} is "
        f"{_shown(source)}, {target.name} is {_shown(target)}"
    )


def _promotion_requested(member: Member) -> bool:
    """An operation has asked for its promotion, which may happen at any moment, or is not known to it yet."""
    asked = member.fact("waiter", "times", "promote_called")
    # One that failed after it had asked has asked all the same.
    return bool(asked and member.fact("waiter", "state") in ("promoting", "failed")) or not member.reachable


def promoted_by_operation(member: Member) -> bool:
    """Whether its present timeline began with a promotion that one of our operations asked for.

    That it accepts writes is no proof: somebody may have promoted it by hand while the old primary took writes too.
    """
    if not member.fact("waiter", "times", "promote_called"):
        return False
    # A process that died right after its request could not write down what came of it.
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
