# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks of a planned failover: one table, one row a check. Private to the collection.

A row reads facts and yields a finding for everything that is wrong; nothing found is "ok". The same table serves the
plan, check mode, the run under its lock, and the documentation. Which severity a finding has, what an operator can do
about it and whether it may be accepted is the row's, so that it is said in one place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterator

from ansible_collections.elephaas.herd.plugins.module_utils.decide import findings
from ansible_collections.elephaas.herd.plugins.module_utils.decide.findings import Finding, Situation
from ansible_collections.elephaas.herd.plugins.module_utils.decide.stage import FINISH, PROMOTE, STUCK, SWITCH
from ansible_collections.elephaas.herd.plugins.module_utils.decide.standby_settings import STANDBY_SETTINGS
from ansible_collections.elephaas.herd.plugins.module_utils.decide.verdict import REFUSE, WARN, Verdict


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


ALL_STAGES = (SWITCH, PROMOTE, FINISH)

CHECKS: tuple[Check, ...] = (
    Check(
        "OPERATION_HELD",
        REFUSE,
        "One operation per herd at a time",
        "the lease in the registry; the claims mirrored on the members' hosts",
        "Two runs on one herd could promote two members.",
        "Wait for that run, or talk to its operator; a dead run's lease is taken over when it expires.",
        findings.held,
        stages=ALL_STAGES,
    ),
    Check(
        "REGISTRY_LOST",
        REFUSE,
        "The registry can be asked and can record",
        "one query to the registry",
        "It says who else acts, and keeps what this run does.",
        "Bring it back, or say -e without_registry=true: the members' hosts then hold lock and record.",
        findings.registry_lost,
        stages=ALL_STAGES,
    ),
    Check(
        "HERD_ON_HOLD",
        REFUSE,
        "A herd on hold is not touched",
        "the registry's hold reason",
        "Somebody has a reason that this run cannot know.",
        "Have the hold released first.",
        findings.on_hold,
        stages=ALL_STAGES,
    ),
    Check(
        "MEMBER_MISSING",
        REFUSE,
        "The inventory shows the whole herd",
        "the member list of the record, the inventory",
        "A filtered inventory or a sliced job hides members: one of them may accept writes.",
        "Use an inventory without filters, and job templates without slicing.",
        findings.members_missing,
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
        findings.stuck,
        stages=(STUCK,),
    ),
    Check(
        "PRIMARY_MISMATCH",
        REFUSE,
        "The record and the servers agree on the primary",
        "the recorded role; who is seen accepting writes",
        "A record that is wrong about the primary may be wrong about everything else.",
        "Run the elephaas.herd.status playbook, which checks in what the servers show, and look at its table.",
        findings.primary_mismatch,
    ),
    Check(
        "SPLIT_BRAIN",
        REFUSE,
        "Not more than one member accepts writes",
        "pg_is_in_recovery() on every member",
        "Whichever is promoted or demoted now, commits of the other are lost.",
        "Decide which one is right, stop the other, and resynchronize it.",
        findings.not_one_writable,
        stages=ALL_STAGES,
    ),
    Check(
        "NO_PRIMARY",
        REFUSE,
        "The primary runs",
        "pg_is_in_recovery() on every member, reachability",
        "Zero loss can only be promised while the primary can still hand over its last record.",
        "Start the primary, or wait for its host; failing over a lost primary is not part of this version.",
        findings.no_primary,
    ),
    Check(
        "MEMBER_UNREACHABLE",
        REFUSE,
        "Every member's host answers",
        "one ssh connection per host",
        "A member that cannot be seen may accept writes, and cannot be made to follow.",
        "Bring the host back, or say -e accept=MEMBER_UNREACHABLE to go on without it.",
        findings.member_unreachable,
        acceptable=True,
    ),
    Check(
        "MEMBER_LEFT",
        WARN,
        "An unreachable member does not keep a begun failover from ending",
        "one ssh connection per host",
        "Waiting for it would keep applications and the other members waiting too.",
        "Once its host is back, make it follow the new primary before it is used.",
        findings.member_unreachable,
        stages=(PROMOTE, FINISH),
    ),
    Check(
        "OTHER_CLUSTER",
        REFUSE,
        "All members are one cluster",
        "the system identifier in each control file",
        "An instance with another system identifier is another database.",
        "Correct the record: this instance does not belong to this herd.",
        findings.other_cluster,
        stages=ALL_STAGES,
    ),
    Check(
        "OTHER_MAJOR",
        REFUSE,
        "All members run one major version",
        "PG_VERSION",
        "Streaming replication does not cross major versions.",
        "Correct the record, or upgrade the member.",
        findings.other_major,
        stages=ALL_STAGES,
    ),
    Check(
        "WRONG_SERVER",
        REFUSE,
        "The server that answers is the one that was meant",
        "data_directory and port of the server that answers",
        "A port that another instance uses would aim every command at the wrong database.",
        "Correct port or data directory in the record.",
        findings.wrong_server,
        stages=ALL_STAGES,
    ),
    Check(
        "NO_ANSWER",
        REFUSE,
        "Every running member answers a query",
        "one query through the local socket",
        "A server that hangs now will hang when it must stop.",
        "See that PostgreSQL's log.",
        findings.no_answer,
        stages=ALL_STAGES,
    ),
    Check(
        "NO_CANDIDATE",
        REFUSE,
        "A replica is fit to be promoted",
        "recovery state, upstream, replay, lag, disk, recovery settings of each replica",
        "The reasons stand beside each member.",
        "Remove the reason for one of them, or raise the bound it names.",
        findings.no_candidate,
    ),
    Check(
        "FOLLOWER_PINNED",
        REFUSE,
        "Every follower goes to the newest timeline",
        "recovery_target_timeline",
        "A follower pinned to a timeline is left behind by a promotion.",
        "Set recovery_target_timeline = 'latest'.",
        findings.follower_pinned,
        stages=(SWITCH, PROMOTE),
    ),
    Check(
        "STANDBY_SETTINGS",
        REFUSE,
        "Every follower's settings suffice for the new primary",
        ", ".join(STANDBY_SETTINGS),
        "A standby with a lower value than its primary refuses to start.",
        "Raise the setting and restart that member first.",
        findings.standby_settings,
        stages=(SWITCH, PROMOTE),
    ),
    Check(
        "LOGICAL_SLOTS",
        REFUSE,
        "Nobody depends on logical replication slots of the old primary",
        "pg_replication_slots of the primary",
        "Before failover slots (version 17) they do not move: a subscriber misses what is written until it is set up anew.",
        "Move the subscribers on purpose, or say -e accept=LOGICAL_SLOTS.",
        findings.logical_slots,
        acceptable=True,
    ),
    Check(
        "SYNC_STANDBYS",
        REFUSE,
        "The new primary can complete synchronous commits",
        "synchronous_standby_names of the candidate",
        "A commit that waits for a standby which is not there hangs, and no statement_timeout ends it.",
        "Have it name standbys that will stream from the candidate, or say -e accept=SYNC_STANDBYS.",
        findings.sync_standbys,
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
        findings.left_armed,
    ),
    Check(
        "MEMBER_STOPPED",
        WARN,
        "Members that are down are shown",
        "status of each member",
        "They are not promoted and not started; they are pointed at the new primary for when they are.",
        "Start them afterwards.",
        findings.left_stopped,
        stages=ALL_STAGES,
    ),
    Check(
        "NO_VHOST",
        WARN,
        "The herd has a vhost",
        "the registry's vhost",
        "Without it applications have to be moved by hand.",
        "Record a vhost for the herd.",
        findings.no_vhost,
        stages=ALL_STAGES,
    ),
    Check(
        "DNS_SKIPPED",
        WARN,
        "DNS is part of the failover",
        "the dns option",
        "Applications follow the vhost.",
        "Repoint it with elephaas.herd.dns_repoint.",
        findings.dns_skipped,
        stages=ALL_STAGES,
    ),
    Check(
        "DNS_REFUSED",
        REFUSE,
        "The name server would take our update",
        "an update that changes nothing, signed with our key (RFC 2136, RFC 8945)",
        "A failover whose DNS update is refused leaves every application at a stopped server.",
        "Correct key, server or the server's update policy.",
        findings.dns_refused,
        stages=ALL_STAGES,
    ),
    Check(
        "DNS_CHANGED",
        REFUSE,
        "The vhost leads to the primary now",
        "the record at the name servers",
        "Somebody else manages this name, or the record of the fleet is wrong.",
        "Find out who changed it; set it back, or correct the fleet's record.",
        findings.dns_changed,
        stages=ALL_STAGES,
    ),
    Check(
        "DNS_NO_TARGET",
        REFUSE,
        "It is known what the vhost has to hold afterwards",
        "the type of the vhost's record; address and dns_name of the candidate's server",
        "A CNAME needs a name, an address record an address of its family.",
        "Record dns_name or address of that server.",
        findings.dns_no_target,
        stages=ALL_STAGES,
    ),
    Check(
        "DNS_SILENT",
        REFUSE,
        "Every authoritative name server answers",
        "one query to each",
        "Resolvers that ask the silent one will go on using the old value it holds.",
        "Bring it back, or say -e accept=DNS_SILENT to go on without it.",
        findings.dns_silent,
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
        findings.dns_ttl,
        stages=ALL_STAGES,
    ),
    Check(
        "PROGRAM_MISSING",
        REFUSE,
        "PostgreSQL's programs are on every host",
        "psql, pg_ctl, pg_controldata, pg_waldump",
        "The proof that nothing is lost is read with them.",
        "Install them, or set bin_directory.",
        findings.programs,
        stages=ALL_STAGES,
    ),
    Check(
        "BINARY_DIFFERS",
        WARN,
        "The binary on disk is the one that runs",
        "pg_ctl --version, server_version",
        "A restart after an unattended upgrade changes the version.",
        "Restart it at a time of your choice first.",
        findings.binary_differs,
    ),
)
