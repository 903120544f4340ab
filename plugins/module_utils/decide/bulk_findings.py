# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What speaks against a bulk verb on a herd or on one of its members, or should be seen first. Private to the collection."""

from __future__ import annotations

from typing import Any, Iterator

from ansible_collections.elephaas.herd.plugins.module_utils.decide.findings_hosts import config_problem
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd, Member
from ansible_collections.elephaas.herd.plugins.module_utils.decide.hold import NEXT_STEP
from ansible_collections.elephaas.herd.plugins.module_utils.decide.stage import begun_failover
from ansible_collections.elephaas.herd.plugins.module_utils.decide.verdict import REFUSE, WARN, Verdict

#: Warnings that a person should have seen before it happens.
ASKING = ("PRIMARY_IN_USE", "IMMEDIATE", "REPLICA_DOWN", "LEAVES_HERD", "BACKUP_RUNNING", "NO_ANSWER", "MEMBERS_UNSEEN")


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
    if member.role == "superseded":
        yield Verdict(
            "SUPERSEDED",
            REFUSE,
            member.name,
            "it was the primary before a failover, and what it holds has been overtaken",
            "Make it a replica of the new primary; do not start it as it is.",
        )
        return
    if member.fact("role") != "primary" or member.detached:
        return
    reason = ""
    others = [other for other in herd.members if other.name != member.name and not other.detached]
    writable = [other.name for other in others if other.writable]
    unseen = [other.name for other in others if not other.reachable]
    alike = [other.name for other in others if other.status == "stopped" and other.fact("role") == "primary"]
    newer = [other.name for other in others if (other.fact("timeline") or 0) > (member.fact("timeline") or 0)]
    if writable:
        reason = f"{', '.join(writable)} accepts writes already"
    elif newer:
        reason = f"{', '.join(newer)} is on a newer timeline, so there was a failover while it was down"
    elif member.role != "primary" and unseen:
        reason = f"it is recorded as {member.role}, and {', '.join(unseen)} cannot be looked at"
    elif member.role != "primary" and any(other.role == "primary" for other in others):
        reason = f"it is recorded as {member.role}, and another member is the recorded primary"
    elif member.role != "primary" and alike:
        reason = f"{', '.join(alike)} would too, and none of them is the recorded primary"
    if reason:
        yield Verdict(
            "SECOND_PRIMARY",
            REFUSE,
            member.name,
            f"it would accept writes, and {reason}",
            "Make it a replica (follow, or a rebuild), or correct the record where that is what is wrong.",
        )
    elif unseen:
        yield Verdict(
            "MEMBERS_UNSEEN",
            WARN,
            member.name,
            f"it will accept writes, and whether {', '.join(unseen)} was made the primary meanwhile cannot be seen",
            "",
        )


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
