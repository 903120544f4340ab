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

from ansible_collections.elephaas.herd.plugins.module_utils.decide import (
    findings,
    findings_dns,
    findings_hosts,
    findings_replication,
    findings_work,
)
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
        "NOT_SUPERUSER",
        REFUSE,
        "Our account is a superuser of every running member",
        "rolsuper of the account that runs psql",
        "Arming, promoting and pointing at another upstream are for superusers, and half of these checks read "
        "what others are not shown.",
        "Make os_user name the account that owns the cluster, or make its role a superuser.",
        findings_hosts.not_superuser,
    ),
    Check(
        "MANAGED_ELSEWHERE",
        REFUSE,
        "Nobody else manages the herd",
        "processes of Patroni, repmgrd, pg_autoctl, stolon and the configuration they name; patroni.dynamic.json",
        "Two managers end in two primaries: the other one promotes or restarts as soon as the primary stops.",
        "Fail over with that manager, or end it on every member's host first, and remove what it left in the "
        "data directory.",
        findings_hosts.managed_elsewhere,
    ),
    Check(
        "MANAGER_ON_HOST",
        WARN,
        "No failover manager of unknown purpose runs on a member's host",
        "processes of the same, of Pacemaker, Corosync and Heartbeat, whose configuration cannot be read",
        "It may manage this herd.",
        "See that it does not manage this instance.",
        findings_hosts.manager_on_host,
    ),
    Check(
        "AUTOSTART",
        WARN,
        "Only people start the old primary",
        "Debian's start.conf; UnitFileState= and Restart= of the systemd unit that runs it",
        "From the moment it is armed it comes back read-only. An unplanned failover cannot arm it: then it comes "
        "back writable unless it is fenced.",
        "Set start.conf to manual, or disable the unit; or have a fence ready for an unplanned failover.",
        findings_hosts.autostart,
    ),
    Check(
        "NO_CANDIDATE",
        REFUSE,
        "A replica is fit to be promoted",
        "recovery state, upstream, replay, lag, disk, recovery settings of each replica",
        "The reasons stand beside each member.",
        "Remove the reason for one of them, or raise the bound it names.",
        findings_replication.no_candidate,
    ),
    Check(
        "APPLY_DELAY",
        REFUSE,
        "The candidate applies at once",
        "recovery_min_apply_delay of the candidate",
        "Its last transactions have to be applied before it can be promoted: nobody can write meanwhile, or the "
        "promotion runs out of time and everything is taken back.",
        "Set it to 0 and wait until it has caught up.",
        findings_replication.apply_delay,
        acceptable=True,
    ),
    Check(
        "FOLLOWER_PINNED",
        REFUSE,
        "Every follower goes to the newest timeline",
        "recovery_target_timeline",
        "A follower pinned to a timeline is left behind by a promotion.",
        "Set recovery_target_timeline = 'latest'.",
        findings_replication.follower_pinned,
        stages=(SWITCH, PROMOTE),
    ),
    Check(
        "FOLLOWER_LATE",
        WARN,
        "Every follower replays at once",
        "pg_is_wal_replay_paused() and recovery_min_apply_delay of each follower",
        "A standby changes the timeline where it replays, not where it receives: until then it cannot be seen "
        "streaming, and the failover stays incomplete.",
        "Resume its replay, or expect to finish the failover by the same command later.",
        findings_replication.follower_late,
    ),
    Check(
        "STANDBY_SETTINGS",
        REFUSE,
        "Every follower's settings suffice for the new primary",
        ", ".join(STANDBY_SETTINGS),
        "A standby with a lower value than its primary refuses to start.",
        "Raise the setting and restart that member first.",
        findings_replication.standby_settings,
        stages=(SWITCH, PROMOTE),
    ),
    Check(
        "WALSENDERS_FULL",
        REFUSE,
        "The candidate has a walsender for every follower",
        "max_wal_senders and pg_stat_replication of the candidate",
        'A follower that is refused stays behind on the old timeline ("Replication", max_wal_senders).',
        "Raise max_wal_senders on the candidate and restart it, or end receivers that nobody needs.",
        findings_replication.walsenders_full,
    ),
    Check(
        "SLOTS_FULL",
        REFUSE,
        "The candidate has room for the followers' slots",
        "max_replication_slots and pg_replication_slots of the candidate; primary_slot_name of each follower",
        "Each follower's slot is reserved there before anything stops.",
        "Raise max_replication_slots on the candidate and restart it, or drop slots that nobody uses.",
        findings_replication.slots_full,
    ),
    Check(
        "WAY_BACK",
        REFUSE,
        "The candidate accepts replication connections from every member",
        "one replication connection from each member to the candidate, opened as it would stream later",
        "A line that is missing in pg_hba.conf, a password or a firewall shows here, while nothing is at stake.",
        "Put it right, or say -e accept=WAY_BACK to leave that member behind.",
        findings_replication.way_back,
        acceptable=True,
    ),
    Check(
        "NO_REWIND",
        WARN,
        "pg_rewind could bring a lost primary back",
        "wal_log_hints, data_checksums and full_page_writes of primary and candidate",
        "A primary that shuts down cleanly needs no rewind; one that crashes on the way, or at the next "
        'failover, would have to be copied anew (pg_rewind, "Prerequisites").',
        "Set wal_log_hints and full_page_writes to on, and restart at a time of your choice.",
        findings_replication.no_rewind,
    ),
    Check(
        "LOGICAL_SLOTS",
        REFUSE,
        "Nobody depends on logical replication slots of the old primary",
        "pg_replication_slots of the primary; from version 17 on failover slots, and whether the candidate has "
        "synchronized them",
        "Others than failover slots do not move: a subscriber misses what is written until it is set up anew "
        '("Logical Replication Failover").',
        "Move the subscribers on purpose, or say -e accept=LOGICAL_SLOTS.",
        findings_work.logical_slots,
        acceptable=True,
    ),
    Check(
        "FOREIGN_WALSENDER",
        WARN,
        "Only members receive the primary's WAL",
        "pg_stat_replication of the primary, beside the names and addresses of the members",
        "A fast stop waits until each receiver has got the last record, at most for wal_sender_timeout; none of "
        'them follows the vhost by itself ("Shutting Down the Server").',
        "See who it is. Point it at the new primary afterwards; a pg_receivewal that must miss nothing needs a "
        "slot there.",
        findings_work.foreign_walsenders,
    ),
    Check(
        "SYNC_STANDBYS",
        REFUSE,
        "The new primary can complete synchronous commits",
        "synchronous_standby_names of the candidate; the application_name (else cluster_name, else walreceiver) of each "
        "member that will stream from it",
        "A commit that waits for a standby which is not there hangs, and no statement_timeout ends it ✱.",
        "Have it name standbys that will stream from the candidate, or say -e accept=SYNC_STANDBYS.",
        findings_replication.sync_standbys,
        acceptable=True,
        stages=(SWITCH, PROMOTE),
    ),
    Check(
        "ARCHIVE_FAILING",
        REFUSE,
        "The primary archives its WAL",
        "pg_stat_archiver: the last failure is newer than the last success",
        "A stop takes 3 s longer, in which the archiver tries again in vain ✱; and what is not archived by then is missing "
        'from every restore across this moment ("Continuous Archiving").',
        "Repair archive_command, see pg_stat_archiver.",
        findings_work.archive_failing,
        acceptable=True,
    ),
    Check(
        "ARCHIVE_BACKLOG",
        REFUSE,
        "Little WAL waits to be archived",
        "pg_wal/archive_status/*.ready of the primary",
        "Before it ends, the archiver works through all of it, and the stop waits for that: ten files of a second each "
        "are ten seconds in which nobody can write ✱.",
        "Wait until it has caught up, or raise max_archive_backlog.",
        findings_work.archive_backlog,
        acceptable=True,
    ),
    Check(
        "ARCHIVE_ENDS",
        WARN,
        "The new primary goes on archiving",
        "archive_mode and archive_command of primary and candidate",
        "Without the new timeline in the archive no restore gets past the failover.",
        "Set archive_mode (which needs a restart) and archive_command as on the primary.",
        findings_work.archive_ends,
    ),
    Check(
        "BACKUP_RUNNING",
        REFUSE,
        "No backup is being taken from the primary",
        "pg_stat_progress_basebackup; sessions of pgBackRest",
        "A backup does not survive the stop of its server, and has to begin again.",
        "Wait for its end.",
        findings_work.backups,
        acceptable=True,
    ),
    Check(
        "LONG_TRANSACTION",
        WARN,
        "No transaction has been open for long",
        "xact_start in pg_stat_activity of the primary, idle transactions too",
        "A fast stop ends every session: hours of work of a job are rolled back.",
        "Ask whose it is, or wait for its end; max_transaction_age sets from when on it is shown.",
        findings_work.long_transactions,
    ),
    Check(
        "PREPARED_TRANSACTIONS",
        WARN,
        "No transaction is left prepared",
        "pg_prepared_xacts of the primary",
        "They survive the failover, and their transaction manager has to find the new primary to finish them.",
        "Finish them, or see that their transaction manager follows the vhost.",
        findings_work.prepared_transactions,
    ),
    Check(
        "UNLOGGED_TABLES",
        WARN,
        "Nothing unlogged is left behind",
        "init forks (*_init) in the primary's data directory, all databases and tablespaces",
        "Their contents are not in the WAL (CREATE TABLE, UNLOGGED): they are empty on the new primary, and on "
        "the old one when it comes back.",
        "See that whoever fills them can fill them again.",
        findings_work.unlogged_tables,
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
        findings_dns.no_vhost,
        stages=ALL_STAGES,
    ),
    Check(
        "DNS_SKIPPED",
        WARN,
        "DNS is part of the failover",
        "the dns option",
        "Applications follow the vhost.",
        "Repoint it with elephaas.herd.dns_repoint.",
        findings_dns.dns_skipped,
        stages=ALL_STAGES,
    ),
    Check(
        "DNS_REFUSED",
        REFUSE,
        "The name server would take our update",
        "an update that changes nothing, signed with our key (RFC 2136, RFC 8945)",
        "A failover whose DNS update is refused leaves every application at a stopped server.",
        "Correct key, server or the server's update policy.",
        findings_dns.dns_refused,
        stages=ALL_STAGES,
    ),
    Check(
        "DNS_CHANGED",
        REFUSE,
        "The vhost leads to the primary now",
        "the record at the name servers",
        "Somebody else manages this name, or the record of the fleet is wrong.",
        "Find out who changed it; set it back, or correct the fleet's record.",
        findings_dns.dns_changed,
        stages=ALL_STAGES,
    ),
    Check(
        "DNS_NO_TARGET",
        REFUSE,
        "It is known what the vhost has to hold afterwards",
        "the type of the vhost's record; address and dns_name of the candidate's server",
        "A CNAME needs a name, an address record an address of its family.",
        "Record dns_name or address of that server.",
        findings_dns.dns_no_target,
        stages=ALL_STAGES,
    ),
    Check(
        "DNS_SILENT",
        REFUSE,
        "Every authoritative name server answers",
        "one query to each",
        "Resolvers that ask the silent one will go on using the old value it holds.",
        "Bring it back, or say -e accept=DNS_SILENT to go on without it.",
        findings_dns.dns_silent,
        acceptable=True,
        stages=ALL_STAGES,
    ),
    Check(
        "DNS_TTL_LONG",
        WARN,
        "The TTL is short",
        "the record's TTL",
        "A resolver goes on giving out the old address for what is left of the TTL: clients see the gap plus that.",
        "Reckon with the gap plus one TTL, or lower the TTL and wait one old TTL before you fail over.",
        findings_dns.dns_ttl,
        stages=ALL_STAGES,
    ),
    Check(
        "PROGRAM_MISSING",
        REFUSE,
        "PostgreSQL's programs are on every host",
        "psql, pg_ctl, pg_controldata, pg_waldump",
        "The proof that nothing is lost is read with them.",
        "Install them, or set bin_directory.",
        findings_hosts.programs,
        stages=ALL_STAGES,
    ),
    Check(
        "BINARY_DIFFERS",
        WARN,
        "The binary on disk is the one that runs",
        "pg_ctl --version, server_version",
        "A restart after an unattended upgrade changes the version.",
        "Restart it at a time of your choice first.",
        findings_hosts.binary_differs,
    ),
    Check(
        "CONFIG_ERRORS",
        REFUSE,
        "Every member would start with its files as they are",
        "pg_file_settings and pg_hba_file_rules",
        "The old primary is started again, to come back or to take everything back; with a broken file it stays down.",
        "Correct them: pg_file_settings and pg_hba_file_rules list them all.",
        findings_hosts.config_errors,
    ),
    Check(
        "PENDING_RESTART",
        WARN,
        "No setting waits for a restart",
        "pending_restart in pg_settings",
        "The old primary is restarted by this, and comes back with them.",
        "See that these changes are meant.",
        findings_hosts.pending_restart,
    ),
    Check(
        "PRELOAD_MISSING",
        REFUSE,
        "Every preloaded library is on disk",
        "shared_preload_libraries as the files have it, dynamic_library_path, the library directory",
        'A server that does not find one of them does not start ("Shared Library Preloading"), and a running one '
        "does not show it.",
        "Install it, or take it out of shared_preload_libraries.",
        findings_hosts.preload_missing,
    ),
    Check(
        "PRELOAD_DIFFERS",
        WARN,
        "All members preload the same libraries",
        "shared_preload_libraries of every member",
        "What applications use of it would be missing after the failover.",
        "Make them alike.",
        findings_hosts.preload_differs,
    ),
    Check(
        "COLLATION_DIFFERS",
        REFUSE,
        "All members order text alike",
        "version of glibc and of ICU on every host; pg_database_collation_actual_version() from version 15 on; "
        "the databases' locales",
        "Indexes on text were built in the primary's order: where the library orders otherwise, they find too "
        'little and let duplicates in ("Collation", managing collations).',
        "Bring the operating systems to the same version, or accept it and REINDEX right after the failover.",
        findings_hosts.collation_differs,
        acceptable=True,
    ),
)
