# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What speaks against a bulk verb on a herd or on one of its members, or should be seen first. Private to the collection."""

from __future__ import annotations

from typing import Any, Iterator

from ansible_collections.elephaas.herd.plugins.module_utils.decide.findings_hosts import config_problem
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd, Member
from ansible_collections.elephaas.herd.plugins.module_utils.decide.hold import NEXT_STEP
from ansible_collections.elephaas.herd.plugins.module_utils.decide.lsn import format_lsn
from ansible_collections.elephaas.herd.plugins.module_utils.decide.split_brain import demote_command
from ansible_collections.elephaas.herd.plugins.module_utils.decide.stage import begun_failover, finished_failover
from ansible_collections.elephaas.herd.plugins.module_utils.decide.timelines import (
    ANCESTOR,
    DESCENDANT,
    DIVERGED,
    UNKNOWN,
    Relation,
    relation,
    starts_on_its_upstreams_timeline,
)
from ansible_collections.elephaas.herd.plugins.module_utils.decide.verdict import REFUSE, WARN, Verdict

#: Warnings that a person should have seen before it happens.
ASKING = (
    "PRIMARY_IN_USE",
    "IMMEDIATE",
    "REPLICA_DOWN",
    "LEAVES_HERD",
    "BACKUP_RUNNING",
    "NO_ANSWER",
    "MEMBERS_UNSEEN",
    "DEMOTES",
    "DIVERGED",
    "NEWER_TIMELINE",
    "RECORDED",
)


def herd_findings(herd: Herd, verb: str) -> Iterator[Verdict]:
    """What concerns the herd as a whole."""
    if herd.hold_reason:
        yield Verdict(
            "HERD_ON_HOLD",
            REFUSE,
            herd.name,
            f"it is on hold: {herd.hold}",
            NEXT_STEP,
        )
    begun = begun_failover(herd)
    if begun is not None:
        yield Verdict(
            "OPERATION_OPEN",
            REFUSE,
            herd.name,
            f"a failover from {begun.source} to {begun.target} by {begun.operator} is not finished",
            "Finish it first, by the same command that began it.",
        )
    elif herd.held and not herd.hold_reason:
        yield Verdict("OPERATION_HELD", REFUSE, herd.name, herd.held, "Wait for its end.")
    if herd.registry_error:
        yield Verdict(
            "REGISTRY_LOST",
            REFUSE,
            herd.name,
            herd.registry_error,
            "Without it nobody keeps two runs apart but the hosts themselves: -e without_registry=true goes on so.",
        )
    if herd.missing and verb not in ("stop", "reload"):
        yield Verdict(
            "HERD_INCOMPLETE",
            REFUSE,
            herd.name,
            f"the inventory does not hold all of it: {', '.join(herd.missing)}",
            "Use an inventory without filters, and an AWX job without slices.",
        )


def would_write(herd: Herd, member: Member) -> Iterator[Verdict]:
    """A stopped member that comes up writable must be the only one, and the one that the record expects.

    After a site came back, a bulk start is how an old primary becomes a second one.
    """
    yield from _second_on_its_timeline(member)
    if member.role == "superseded":
        yield _superseded(member)
        return
    if member.fact("role") != "primary" or member.detached:
        return
    reason = ""
    others = _others(herd, member)
    writable = [other.name for other in others if other.writable]
    unseen = [other.name for other in others if not other.reachable]
    alike = [other.name for other in others if other.status == "stopped" and other.fact("role") == "primary"]
    overtaken = _overtaken(member, others)
    moved = finished_failover(herd)
    if writable:
        reason = f"{', '.join(writable)} accepts writes already"
    elif overtaken:
        reason = f"{overtaken}, so there was a failover while it was down"
    elif unseen and moved is not None and moved.source == member.name and moved.target in unseen:
        # The record of roles may be a snapshot from before that failover.
        reason = f"a failover from it to {moved.target} is done, and {', '.join(unseen)} cannot be looked at"
    elif member.role != "primary" and unseen:
        reason = f"it is recorded as {member.role}, and {', '.join(unseen)} cannot be looked at"
    elif member.role != "primary" and any(other.role == "primary" for other in others):
        reason = f"it is recorded as {member.role}, and another member is the recorded primary"
    elif member.role != "primary" and alike:
        reason = f"{', '.join(alike)} would too, and none of them is the recorded primary"
    if reason:
        yield _second_primary(member, reason)
    elif unseen:
        yield Verdict(
            "MEMBERS_UNSEEN",
            WARN,
            member.name,
            f"it will accept writes, and whether {', '.join(unseen)} was made the primary meanwhile cannot be seen",
            "",
        )


def stays_writable(herd: Herd, member: Member) -> Iterator[Verdict]:
    """A running member whose restart would bring an overtaken primary up writable once more."""
    yield from _second_on_its_timeline(member)
    armed = bool(member.fact("signal_files"))
    if member.role == "superseded":
        if not (member.in_recovery and armed):
            yield _superseded(member)
        return
    if not member.writable or member.detached:
        return
    others = _others(herd, member)
    # One that a failover from it, or from its ancestors, has left behind is in nobody's way: it is to be demoted.
    rivals = [
        other.name
        for other in others
        if other.writable and other.role != "superseded" and _relation(member, other).kind != ANCESTOR
    ]
    overtaken = _overtaken(member, others)
    if rivals:
        yield _second_primary(member, f"{', '.join(rivals)} accepts writes too")
    elif overtaken:
        yield _second_primary(member, overtaken)


def _others(herd: Herd, member: Member) -> list[Member]:
    return [other for other in herd.members if other.name != member.name and not other.detached]


def _relation(member: Member, other: Member) -> Relation:
    return relation(member.facts or {}, other.facts or {})


def _superseded(member: Member) -> Verdict:
    return Verdict(
        "SUPERSEDED",
        REFUSE,
        member.name,
        "it was the primary before a failover, and what it holds has been overtaken",
        f"Make it a replica of the new primary: {demote_command(member.name)}",
    )


def _second_primary(member: Member, reason: str) -> Verdict:
    return Verdict(
        "SECOND_PRIMARY",
        REFUSE,
        member.name,
        f"it would accept writes, and {reason}",
        f"Make it a replica ({demote_command(member.name)}), or correct the record where that is what is wrong.",
    )


def _second_on_its_timeline(member: Member) -> Iterator[Verdict]:
    if starts_on_its_upstreams_timeline(member.facts or {}):
        yield Verdict(
            "STARTS_WRITABLE",
            REFUSE,
            member.name,
            "it was a replica and has no standby.signal: it would start writable, on the timeline of its primary",
            f"Make it a replica again: {demote_command(member.name)}",
        )


def _overtaken(member: Member, others: list[Member]) -> str:
    """Which other member's timeline shows that this one is no longer the primary; empty when none does."""
    for other in others:
        if not other.reachable or other.status == "absent" or other.role == "superseded":
            continue
        found = _relation(member, other)
        own, theirs = member.fact("timeline") or 0, other.fact("timeline") or 0
        if found.kind == DESCENDANT:
            at = f", which began from its own at {format_lsn(found.fork)}" if found.fork is not None else ""
            return f"{other.name} is on a newer timeline ({theirs}{at})"
        # A replica that went astray on an older timeline proves nothing against the recorded primary.
        astray = member.role == "primary" and other.role == other.fact("role") == "replica" and theirs < own
        if found.kind == DIVERGED and not astray:
            return f"{other.name} is on another timeline {theirs}, which parted from its own at {_at(found)}"
        if found.kind == UNKNOWN and theirs > own:
            return f"{other.name} is on a newer timeline ({theirs})"
    return ""


def _at(found: Relation) -> str:
    return format_lsn(found.fork) if found.fork is not None else "an unknown position"


def interrupts(member: Member, does: str) -> Iterator[Verdict]:
    """A primary that somebody is connected to. does: what happens to it, in words."""
    clients, replicas = member.fact("clients") or 0, len(member.fact("replicas") or [])
    if member.fact("role") == "primary" and (clients or replicas or member.fact("sql_error")):
        seen = "it does not tell how many clients it has" if member.fact("sql_error") else _counted(clients, replicas)
        yield Verdict("PRIMARY_IN_USE", WARN, member.name, f"it {does}, and {seen}", "")


def _counted(clients: int, replicas: int) -> str:
    return f"has {clients} client{'' if clients == 1 else 's'} and {replicas} replica{'' if replicas == 1 else 's'}"


def unfit_for_restart(herd: Herd, member: Member) -> Iterator[Verdict]:
    """Why it might not come up again, and whom its absence would hurt."""
    if member.fact("sql_error"):
        yield Verdict(
            "NO_ANSWER",
            REFUSE,
            member.name,
            f"it does not answer, so what streams cannot be compared: {member.fact('sql_error')}",
            "See that PostgreSQL's log; -e accept=NO_ANSWER restarts it all the same.",
            acceptable=True,
        )
    yield from config_errors(member)
    if member.fact("base_backup_running"):
        yield Verdict(
            "BACKUP_RUNNING",
            REFUSE,
            member.name,
            "a base backup is being taken from it, and would be lost",
            "Wait for its end.",
            acceptable=True,
        )
    waiting = [other.name for other in herd.members if other.in_recovery and not other.streaming]
    down = [other.name for other in herd.members if other.reachable and not other.running and not other.detached]
    broken = sorted({*waiting, *down} - {member.name})
    if member.in_recovery and broken:
        yield Verdict(
            "REPLICA_DOWN",
            WARN,
            member.name,
            f"{', '.join(broken)} does not stream either, so while it is restarted the herd has one replica less still",
            "",
        )


def config_errors(member: Member) -> Iterator[Verdict]:
    """Configuration files that PostgreSQL would not take."""
    problem = config_problem(member)
    if problem:
        yield Verdict(
            "CONFIG_ERRORS",
            REFUSE,
            member.name,
            problem,
            "Correct them: pg_file_settings and pg_hba_file_rules list them all.",
        )


def unfit_for_diagnosis(herd: Herd, member: Member) -> Iterator[Verdict]:
    """Why its promotion would disturb the herd that it leaves."""

    def refuse(code: str, reason: str, next_step: str = "") -> Verdict:
        return Verdict(code, REFUSE, member.name, reason, next_step)

    if not member.running or member.fact("sql_error"):
        yield refuse("NOT_RUNNING", f"it is {member.status} and does not answer", "Start it first.")
        return
    if not member.in_recovery:
        yield refuse("NOT_A_REPLICA", "it accepts writes already", "Only a replica can be promoted.")
        return
    subscribers = [
        str(sender.get("application_name")) for sender in member.fact("replicas") or [] if not sender.get("backup")
    ]
    if subscribers:
        yield refuse(
            "SUBSCRIBERS",
            f"{', '.join(subscribers)} streams from it and would follow it out of the herd",
            "Point them at another upstream first.",
        )
    upstreams = [other for other in herd.members if member.streams_from(other) and other.fact("replicas")]
    waited_for = [
        sender
        for other in upstreams
        for sender in other.fact("replicas")
        if sender.get("sync_state") in ("sync", "quorum") and _leads_to(sender, member)
    ]
    if waited_for:
        yield refuse(
            "SYNCHRONOUS",
            "the primary's commits wait for it (synchronous_standby_names)",
            "Take it out of synchronous_standby_names first.",
        )
    yield Verdict(
        "LEAVES_HERD",
        WARN,
        member.name,
        "it becomes writable beside its herd, for a diagnosis only: it has to be rebuilt to come back",
        "",
    )


def _leads_to(sender: dict[str, Any], member: Member) -> bool:
    """Whether this row of pg_stat_replication is that member."""
    named = member.fact("upstream", "application_name")
    if named:
        return bool(sender.get("application_name") == named)
    # It then calls itself as its cluster_name says, which Debian sets, else walreceiver.
    return sender.get("client_addr") == member.address or sender.get("application_name") == "walreceiver"
