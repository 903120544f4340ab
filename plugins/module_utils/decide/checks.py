# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks of a planned failover: one table, one row a check. Private to the collection.

A row reads facts and yields a finding for everything that is wrong; nothing found is "ok". The same table serves the
plan, check mode, the run under its lock, and the documentation. Which severity a finding has, what an operator can do
about it and whether it may be accepted is the row's, so that it is said in one place.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator, Tuple

from ansible_collections.elephaas.herd.plugins.module_utils.decide.candidate import Choice, Wishes
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd, Member
from ansible_collections.elephaas.herd.plugins.module_utils.decide.size import human_seconds
from ansible_collections.elephaas.herd.plugins.module_utils.decide.stage import (
    FINISH,
    PROMOTE,
    STUCK,
    SWITCH,
    Stage,
    mirrored_operations,
)
from ansible_collections.elephaas.herd.plugins.module_utils.decide.verdict import REFUSE, WARN, Verdict

#: Settings that a standby must have at least as high as its primary, or it refuses to start
#: (PostgreSQL documentation, "Hot Standby", administrator's overview).
STANDBY_CRITICAL = (
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
)

#: Programs without which a member cannot play its part.
REQUIRED_PROGRAMS = ("psql", "pg_ctl", "pg_controldata", "pg_waldump")


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
            if member is not self.candidate and not member.detached and member.facts is not None
        ]


Finding = Tuple[str, str]


@dataclass(frozen=True)
class Check:
    """One row. stages: in which stages of a failover the question makes sense."""

    code: str
    level: str
    title: str
    reads: str
    why: str
    next_step: str
    find: Callable[[Situation], Iterator[Finding]]
    acceptable: bool = False
    stages: tuple[str, ...] = (SWITCH,)


def run_checks(situation: Situation) -> list[Verdict]:
    """Every finding of every check that applies to this stage, in the table's order."""
    return [
        Verdict(check.code, check.level, subject, reason, check.next_step, check.acceptable)
        for check in CHECKS
        if situation.stage.name in check.stages
        for subject, reason in check.find(situation)
    ]


# --- 1. one operation at a time -------------------------------------------------------------------


def _held(situation: Situation) -> Iterator[Finding]:
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


def _registry_lost(situation: Situation) -> Iterator[Finding]:
    if situation.herd.registry_error:
        yield situation.herd.name, situation.herd.registry_error


def _on_hold(situation: Situation) -> Iterator[Finding]:
    if situation.herd.hold_reason:
        yield situation.herd.name, f"the herd is on hold: {situation.herd.hold_reason}"


def _members_missing(situation: Situation) -> Iterator[Finding]:
    for name in situation.herd.missing:
        yield name, "it is on record as a member, but not in this inventory"


def _stuck(situation: Situation) -> Iterator[Finding]:
    yield situation.herd.name, situation.stage.why


# --- 2. and 3. who is primary, and is it this herd at all -----------------------------------------


def _primary_mismatch(situation: Situation) -> Iterator[Finding]:
    writable = situation.herd.writable
    if len(writable) == 1 and writable[0].name != situation.herd.lead:
        yield situation.herd.name, f"{situation.herd.lead} is on record as primary, {writable[0].name} accepts writes"


def _not_one_writable(situation: Situation) -> Iterator[Finding]:
    writable = situation.herd.writable
    if len(writable) > 1:
        names = ", ".join(member.name for member in writable)
        yield situation.herd.name, f"split brain: {len(writable)} members accept writes: {names}"


def _no_primary(situation: Situation) -> Iterator[Finding]:
    lead = situation.primary
    if not situation.herd.writable and lead is not None:
        state = "unreachable" if not lead.reachable else lead.status
        yield situation.herd.name, f"no member accepts writes; {lead.name}, the primary on record, is {state}"


def _member_unreachable(situation: Situation) -> Iterator[Finding]:
    for member in situation.herd.members:
        if not member.reachable:
            yield member.name, f"its host cannot be reached, so nobody knows whether it accepts writes: {member.error}"


def _other_cluster(situation: Situation) -> Iterator[Finding]:
    yield from _differs(situation, "system_identifier", "system identifier")


def _other_major(situation: Situation) -> Iterator[Finding]:
    yield from _differs(situation, "major", "major version")


def _differs(situation: Situation, key: str, what: str) -> Iterator[Finding]:
    # Measured against the instance that takes writes: it is the one whose data must survive.
    reference = situation.candidate if situation.stage.name == FINISH else situation.primary
    expected = reference.fact(key) if reference else None
    for member in situation.herd.members:
        found = member.fact(key)
        if expected and found and found != expected:
            yield member.name, f"its {what} is {found}, that of {reference.name if reference else '?'} is {expected}"


def _wrong_server(situation: Situation) -> Iterator[Finding]:
    for member in situation.herd.members:
        problem = member.fact("identity_problem")
        if problem:
            yield member.name, str(problem)


def _no_answer(situation: Situation) -> Iterator[Finding]:
    for member in situation.herd.members:
        problem = member.fact("sql_error")
        if problem:
            yield member.name, f"PostgreSQL runs but does not answer: {problem}"


# --- 5. and 6. the candidate and the followers ----------------------------------------------------


def _no_candidate(situation: Situation) -> Iterator[Finding]:
    # Without the one primary on record there is nothing to measure replicas against; other checks say so.
    if situation.choice.winner is None and [member.name for member in situation.herd.writable] == [situation.herd.lead]:
        reasons = "; ".join(f"{lost.name}: {lost.reason}" for lost in situation.choice.runners_up)
        yield situation.herd.name, f"no replica is fit to be promoted ({reasons or 'the herd has a single member'})"


def _follower_pinned(situation: Situation) -> Iterator[Finding]:
    for member in situation.replicas_to_be:
        value = member.fact("settings", "recovery_target_timeline")
        if value not in (None, "", "latest"):
            yield member.name, f"recovery_target_timeline is {value}: it would not follow the new primary"


def _standby_settings(situation: Situation) -> Iterator[Finding]:
    if situation.candidate is None:
        return
    for name in STANDBY_CRITICAL:
        needed = _number(situation.candidate.fact("settings", name))
        for member in situation.replicas_to_be:
            has = _number(member.fact("settings", name))
            if needed is not None and has is not None and has < needed:
                yield member.name, f"{name} is {has}, that of {situation.candidate.name} is {needed}"


def _number(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _logical_slots(situation: Situation) -> Iterator[Finding]:
    primary = situation.primary
    names = [
        slot["name"] for slot in (primary.fact("slots") if primary else None) or [] if slot.get("type") == "logical"
    ]
    if primary is not None and names:
        yield primary.name, f"it has logical replication slots, which stay behind: {', '.join(sorted(names))}"


def _sync_standbys(situation: Situation) -> Iterator[Finding]:
    candidate = situation.candidate
    wanted = str(candidate.fact("settings", "synchronous_standby_names") or "").strip() if candidate else ""
    if not candidate or not wanted:
        return
    # Any standby will do ("*", or a number of any): those that will stream count. Names are another matter: who uses
    # which application_name towards the new primary shows only once it streams from there.
    anyone = re.match(r"\A(?:(?:ANY|FIRST)?\s*(\d+)\s*\(\s*\*\s*\)|\*)\Z", wanted, re.IGNORECASE)
    followers = [member for member in situation.replicas_to_be if member.running]
    if not anyone or int(anyone.group(1) or 1) > len(followers):
        yield (
            candidate.name,
            f"synchronous_standby_names is {wanted!r}: commits hang until such a standby streams from it",
        )


def _left_armed(situation: Situation) -> Iterator[Finding]:
    for member in situation.herd.members:
        if member.writable and "standby.signal" in (member.fact("signal_files") or []):
            yield (
                member.name,
                "it accepts writes, but its next start will be that of a replica: an earlier run armed it",
            )


def _left_stopped(situation: Situation) -> Iterator[Finding]:
    for member in situation.herd.members:
        if member.reachable and member.facts is not None and member.status in ("stopped", "absent"):
            if member is not situation.primary and member is not situation.candidate:
                yield member.name, f"it is {member.status} and stays so"


# --- 13. DNS --------------------------------------------------------------------------------------


def dns_value(member: Member, record_type: str) -> str | None:
    """What a vhost of that type has to hold to lead to this member; None when its record does not say."""
    if record_type == "CNAME":
        return member.dns_name
    try:
        address = ipaddress.ip_address(member.address)
    except ValueError:
        return None
    return str(address) if record_type == {4: "A", 6: "AAAA"}[address.version] else None


def same_dns_value(one: str | None, other: str | None) -> bool:
    """Names without regard to case and trailing dot (RFC 4343); addresses by value."""
    if one is None or other is None:
        return False
    try:
        return ipaddress.ip_address(one) == ipaddress.ip_address(other)
    except ValueError:
        return one.lower().rstrip(".") == other.lower().rstrip(".")


def _no_vhost(situation: Situation) -> Iterator[Finding]:
    if not situation.herd.vhost:
        yield situation.herd.name, "it has no vhost: nothing will lead applications to the new primary"


def _dns_skipped(situation: Situation) -> Iterator[Finding]:
    if situation.herd.vhost and situation.wishes.dns == "skip":
        yield situation.herd.vhost, "DNS is left alone, as asked: applications keep the old address"


def _dns(situation: Situation) -> dict[str, Any] | None:
    return situation.herd.dns if situation.wishes.dns != "skip" and situation.herd.vhost else None


def _dns_refused(situation: Situation) -> Iterator[Finding]:
    probe = _dns(situation)
    if probe and probe.get("error"):
        yield str(situation.herd.vhost), f"{probe.get('reason') or probe['error']} ({probe['error']})"


def _dns_changed(situation: Situation) -> Iterator[Finding]:
    probe = _dns(situation)
    if not probe or probe.get("error") or situation.primary is None:
        return
    record_type = str(probe.get("type"))
    expected = [dns_value(situation.primary, record_type)]
    if situation.stage.name == FINISH and situation.candidate is not None:
        expected.append(dns_value(situation.candidate, record_type))
    values = probe.get("values") or []
    if len(values) == 1 and any(same_dns_value(values[0], value) for value in expected):
        return
    holds = f"it holds {record_type} {', '.join(values) or 'nothing'}"
    if expected[0] is None:
        yield (
            str(situation.herd.vhost),
            f"{holds}, and the record of {situation.primary.server} has nothing to compare it with",
        )
    else:
        yield (
            str(situation.herd.vhost),
            f"{holds}, but {situation.primary.name} is {expected[0]}: somebody else has changed it",
        )


def _dns_no_target(situation: Situation) -> Iterator[Finding]:
    probe = _dns(situation)
    if not probe or probe.get("error") or situation.candidate is None:
        return
    record_type = str(probe.get("type"))
    if dns_value(situation.candidate, record_type) is None:
        needs = "a dns_name" if record_type == "CNAME" else f"an address for {record_type} records"
        yield situation.candidate.server, f"the record of this server lacks {needs}, which {situation.herd.vhost} needs"


def _dns_silent(situation: Situation) -> Iterator[Finding]:
    probe = _dns(situation)
    for server in (probe or {}).get("servers") or []:
        if server.get("error"):
            yield str(situation.herd.vhost), f"name server {server.get('server')} does not answer: {server['error']}"


def _dns_ttl(situation: Situation) -> Iterator[Finding]:
    probe = _dns(situation)
    ttl = (probe or {}).get("ttl")
    if ttl is not None and int(ttl) > situation.wishes.max_ttl:
        yield (
            str(situation.herd.vhost),
            f"its TTL is {human_seconds(float(ttl))}: clients may use the old address that much longer",
        )


# --- 14. the hosts --------------------------------------------------------------------------------


def _programs(situation: Situation) -> Iterator[Finding]:
    for member in situation.herd.members:
        programs = member.fact("programs") or {}
        missing = [name for name in REQUIRED_PROGRAMS if name in programs and not programs[name]]
        if missing:
            yield member.name, f"programs are missing on its host: {', '.join(missing)}"


def _binary_differs(situation: Situation) -> Iterator[Finding]:
    for member in situation.herd.members:
        runs, on_disk = member.fact("version"), member.fact("binary_version")
        if runs and on_disk and runs != on_disk:
            yield member.name, f"{runs} runs, {on_disk} is on disk: a restart changes the version"


ALL_STAGES = (SWITCH, PROMOTE, FINISH)

CHECKS: tuple[Check, ...] = (
    Check(
        "OPERATION_HELD",
        REFUSE,
        "One operation per herd at a time",
        "the lease in the registry; the claims mirrored on the members' hosts",
        "Two runs on one herd could promote two members.",
        "Wait for that run, or talk to its operator; a dead run's lease is taken over when it expires.",
        _held,
        stages=ALL_STAGES,
    ),
    Check(
        "REGISTRY_LOST",
        REFUSE,
        "The registry can be asked and can record",
        "one query to the registry",
        "It says who else acts, and keeps what this run does.",
        "Bring it back, or say -e without_registry=true: the members' hosts then hold lock and record.",
        _registry_lost,
        stages=ALL_STAGES,
    ),
    Check(
        "HERD_ON_HOLD",
        REFUSE,
        "A herd on hold is not touched",
        "the registry's hold reason",
        "Somebody has a reason that this run cannot know.",
        "Have the hold released first.",
        _on_hold,
        stages=ALL_STAGES,
    ),
    Check(
        "MEMBER_MISSING",
        REFUSE,
        "The inventory shows the whole herd",
        "the member list of the record, the inventory",
        "A filtered inventory or a sliced job hides members: one of them may accept writes.",
        "Use an inventory without filters, and job templates without slicing.",
        _members_missing,
        stages=ALL_STAGES,
    ),
    Check(
        "INTERRUPTED_UNCLEAR",
        REFUSE,
        "An interrupted failover can be continued",
        "roles, control files and signal files of the old and the new primary",
        "From this state neither going on nor going back is proven safe.",
        "Look at both instances and their logs first. If the old primary restarted read-only and is ahead, promote it "
        "again with elephaas.herd.promote, proof none.",
        _stuck,
        stages=(STUCK,),
    ),
    Check(
        "PRIMARY_MISMATCH",
        REFUSE,
        "The record and the servers agree on the primary",
        "the recorded role; who is seen accepting writes",
        "A record that is wrong about the primary may be wrong about everything else.",
        "Run the elephaas.herd.status playbook, which checks in what the servers show, and look at its table.",
        _primary_mismatch,
    ),
    Check(
        "SPLIT_BRAIN",
        REFUSE,
        "Not more than one member accepts writes",
        "pg_is_in_recovery() on every member",
        "Whichever is promoted or demoted now, commits of the other are lost.",
        "Decide which one is right, stop the other, and resynchronize it.",
        _not_one_writable,
        stages=ALL_STAGES,
    ),
    Check(
        "NO_PRIMARY",
        REFUSE,
        "The primary runs",
        "pg_is_in_recovery() on every member, reachability",
        "Zero loss can only be promised while the primary can still hand over its last record.",
        "Start the primary, or wait for its host; failing over a lost primary is not part of this version.",
        _no_primary,
    ),
    Check(
        "MEMBER_UNREACHABLE",
        REFUSE,
        "Every member's host answers",
        "one ssh connection per host",
        "A member that cannot be seen may accept writes, and cannot be made to follow.",
        "Bring the host back, or say -e accept=MEMBER_UNREACHABLE to go on without it.",
        _member_unreachable,
        acceptable=True,
    ),
    Check(
        "MEMBER_LEFT",
        WARN,
        "An unreachable member does not keep a begun failover from ending",
        "one ssh connection per host",
        "Waiting for it would keep applications and the other members waiting too.",
        "Once its host is back, make it follow the new primary before it is used.",
        _member_unreachable,
        stages=(PROMOTE, FINISH),
    ),
    Check(
        "OTHER_CLUSTER",
        REFUSE,
        "All members are one cluster",
        "the system identifier in each control file",
        "An instance with another system identifier is another database.",
        "Correct the record: this instance does not belong to this herd.",
        _other_cluster,
        stages=ALL_STAGES,
    ),
    Check(
        "OTHER_MAJOR",
        REFUSE,
        "All members run one major version",
        "PG_VERSION",
        "Streaming replication does not cross major versions.",
        "Correct the record, or upgrade the member.",
        _other_major,
        stages=ALL_STAGES,
    ),
    Check(
        "WRONG_SERVER",
        REFUSE,
        "The server that answers is the one that was meant",
        "data_directory and port of the server that answers",
        "A port that another instance uses would aim every command at the wrong database.",
        "Correct port or data directory in the record.",
        _wrong_server,
        stages=ALL_STAGES,
    ),
    Check(
        "NO_ANSWER",
        REFUSE,
        "Every running member answers a query",
        "one query through the local socket",
        "A server that hangs now will hang when it must stop.",
        "See that PostgreSQL's log.",
        _no_answer,
        stages=ALL_STAGES,
    ),
    Check(
        "NO_CANDIDATE",
        REFUSE,
        "A replica is fit to be promoted",
        "recovery state, upstream, replay, lag, disk, recovery settings of each replica",
        "The reasons stand beside each member.",
        "Remove the reason for one of them, or raise the bound it names.",
        _no_candidate,
    ),
    Check(
        "FOLLOWER_PINNED",
        REFUSE,
        "Every follower goes to the newest timeline",
        "recovery_target_timeline",
        "A follower pinned to a timeline is left behind by a promotion.",
        "Set recovery_target_timeline = 'latest'.",
        _follower_pinned,
        stages=(SWITCH, PROMOTE),
    ),
    Check(
        "STANDBY_SETTINGS",
        REFUSE,
        "Every follower's settings suffice for the new primary",
        ", ".join(STANDBY_CRITICAL),
        "A standby with a lower value than its primary refuses to start.",
        "Raise the setting and restart that member first.",
        _standby_settings,
        stages=(SWITCH, PROMOTE),
    ),
    Check(
        "LOGICAL_SLOTS",
        REFUSE,
        "Nobody depends on logical replication slots of the old primary",
        "pg_replication_slots of the primary",
        "Before failover slots (version 17) they do not move: a subscriber misses what is written until it is set up anew.",
        "Move the subscribers on purpose, or say -e accept=LOGICAL_SLOTS.",
        _logical_slots,
        acceptable=True,
    ),
    Check(
        "SYNC_STANDBYS",
        REFUSE,
        "The new primary can complete synchronous commits",
        "synchronous_standby_names of the candidate",
        "A commit that waits for a standby which is not there hangs, and no statement_timeout ends it.",
        "Have it name standbys that will stream from the candidate, or say -e accept=SYNC_STANDBYS.",
        _sync_standbys,
        acceptable=True,
        stages=(SWITCH, PROMOTE),
    ),
    Check(
        "PRIMARY_ARMED",
        WARN,
        "The primary would restart as a primary",
        "signal files in its data directory",
        "A run that died after arming leaves it so; a reboot would then leave the herd without a primary.",
        "This run arms it again. Where none is to follow, undo it with elephaas.herd.follow, state absent.",
        _left_armed,
    ),
    Check(
        "MEMBER_STOPPED",
        WARN,
        "Members that are down are shown",
        "status of each member",
        "They are not promoted and not started; they are pointed at the new primary for when they are.",
        "Start them afterwards.",
        _left_stopped,
        stages=ALL_STAGES,
    ),
    Check(
        "NO_VHOST",
        WARN,
        "The herd has a vhost",
        "the registry's vhost",
        "Without it applications have to be moved by hand.",
        "Record a vhost for the herd.",
        _no_vhost,
        stages=ALL_STAGES,
    ),
    Check(
        "DNS_SKIPPED",
        WARN,
        "DNS is part of the failover",
        "the dns option",
        "Applications follow the vhost.",
        "Repoint it with elephaas.herd.dns_repoint.",
        _dns_skipped,
        stages=ALL_STAGES,
    ),
    Check(
        "DNS_REFUSED",
        REFUSE,
        "The name server would take our update",
        "an update that changes nothing, signed with our key (RFC 2136, RFC 8945)",
        "A failover whose DNS update is refused leaves every application at a stopped server.",
        "Correct key, server or the server's update policy.",
        _dns_refused,
        stages=ALL_STAGES,
    ),
    Check(
        "DNS_CHANGED",
        REFUSE,
        "The vhost leads to the primary now",
        "the record at the name servers",
        "Somebody else manages this name, or the record of the fleet is wrong.",
        "Find out who changed it; set it back, or correct the fleet's record.",
        _dns_changed,
        stages=ALL_STAGES,
    ),
    Check(
        "DNS_NO_TARGET",
        REFUSE,
        "It is known what the vhost has to hold afterwards",
        "the type of the vhost's record; address and dns_name of the candidate's server",
        "A CNAME needs a name, an address record an address of its family.",
        "Record dns_name or address of that server.",
        _dns_no_target,
        stages=ALL_STAGES,
    ),
    Check(
        "DNS_SILENT",
        REFUSE,
        "Every authoritative name server answers",
        "one query to each",
        "Resolvers that ask the silent one will go on using the old value it holds.",
        "Bring it back, or say -e accept=DNS_SILENT to go on without it.",
        _dns_silent,
        acceptable=True,
        stages=ALL_STAGES,
    ),
    Check(
        "DNS_TTL_LONG",
        WARN,
        "The TTL is short",
        "the record's TTL",
        "Clients see the gap plus what is left of the TTL.",
        "Lower it one old TTL ahead.",
        _dns_ttl,
        stages=ALL_STAGES,
    ),
    Check(
        "PROGRAM_MISSING",
        REFUSE,
        "PostgreSQL's programs are on every host",
        "psql, pg_ctl, pg_controldata, pg_waldump",
        "The proof that nothing is lost is read with them.",
        "Install them, or set bin_directory.",
        _programs,
        stages=ALL_STAGES,
    ),
    Check(
        "BINARY_DIFFERS",
        WARN,
        "The binary on disk is the one that runs",
        "pg_ctl --version, server_version",
        "A restart after an unattended upgrade changes the version.",
        "Restart it at a time of your choice first.",
        _binary_differs,
    ),
)
