# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""For every check a herd on which it finds something, and one that is as near to that as can be and passes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd

from .herds import (
    ADDRESSES,
    FAR,
    NEAR,
    PRIMARY,
    claimed,
    dns,
    healthy,
    member,
    promoted,
    stopped,
    unreachable,
    with_fact,
    with_member,
)


@dataclass(frozen=True)
class Pair:
    """finds: with these wishes, the check finds something. passes: with those it does not.

    beside: warnings that cannot be told apart from it, because the same situation calls for both.
    """

    code: str
    finds: Herd
    passes: Herd = field(default_factory=healthy)
    wishes: dict[str, Any] = field(default_factory=dict)
    passing_wishes: dict[str, Any] = field(default_factory=dict)
    beside: frozenset[str] = frozenset()


def armed_and_stopped(herd: Herd) -> Herd:
    """The old primary stopped by a failover."""
    return with_fact(stopped(herd, PRIMARY), PRIMARY, ["standby.signal"], "signal_files")


def ready(name: str, value: Any, *path: str, herd: Herd | None = None) -> Herd:
    """A healthy herd with one fact of a member's readiness changed."""
    return with_fact(herd or healthy(), name, value, "readiness", *path)


def setting(member_name: str, name: str, value: Any, herd: Herd | None = None) -> Herd:
    """A healthy herd with one setting of a member changed."""
    return with_fact(herd or healthy(), member_name, value, "settings", name)


def walsenders(*rows: tuple[str, str], **more: Any) -> list[dict[str, Any]]:
    """pg_stat_replication: application name and server of each."""
    return [
        {"application_name": name, "client_addr": ADDRESSES.get(server, server), "state": "streaming", **more}
        for name, server in rows
    ]


def named(sync_names: str, **known_as: str) -> Herd:
    """The candidate waits for these; each other member streams under its server's name, or as given."""
    herd = setting(FAR, "synchronous_standby_names", sync_names)
    for name, value in known_as.items():
        herd = ready({"primary": PRIMARY, "near": NEAR}[name], value, "standby_name", herd=herd)
    return herd


def manager(certain: bool) -> list[dict[str, Any]]:
    """Patroni, seen."""
    return [{"name": "patroni", "pid": 7, "certain": certain, "evidence": "process 7 (patroni) is configured for it"}]


def logical(name: str, **more: Any) -> dict[str, Any]:
    """A logical slot."""
    return {"name": name, "type": "logical", "temporary": False, "failover": None, "synced": None, **more}


def failover_slot(synced: bool) -> Herd:
    """A slot that version 17 keeps in step on the candidate."""
    herd = with_fact(healthy(), PRIMARY, [logical("etl", failover=True)], "slots")
    return with_fact(herd, FAR, [logical("etl", failover=True, synced=synced)], "slots")


def with_slots(used: int, wanted: str | None) -> Herd:
    """A candidate with so many slots of its own, and a sibling that will want one there."""
    slots = [{"name": f"backup_{number}", "type": "physical"} for number in range(used)]
    return with_fact(with_fact(healthy(), FAR, slots, "slots"), NEAR, wanted, "upstream", "slot")


def databases(provider: str, locale: str, actual: str | None) -> list[dict[str, Any]]:
    """One database."""
    return [{"name": "app", "provider": provider, "locale": locale, "recorded": "1", "actual": actual}]


def on_both(value: Any, *path: str) -> Herd:
    """Primary and candidate alike."""
    return ready(PRIMARY, value, *path, herd=ready(FAR, value, *path))


def transaction(age_s: float) -> list[dict[str, Any]]:
    """One open transaction."""
    return [{"pid": 9, "user": "app", "application_name": "job", "state": "idle in transaction", "age_s": age_s}]


FINISHING = promoted(armed_and_stopped(claimed(healthy(), (PRIMARY, FAR))), FAR)
# An archive_mode that is off has neither a backlog nor failures that matter.
NO_ARCHIVE = setting(PRIMARY, "archive_mode", "off")
OTHER_LIBC = ready(FAR, "2.28", "glibc", herd=ready(FAR, databases("c", "en_US.UTF-8", "2.28"), "databases"))

DEAD = {"dead": "its power is cut"}
# Its host does not answer, and what is on record of it is all that is known.
LOST = with_member(unreachable(healthy(), PRIMARY), PRIMARY, recorded_lsn="0/5000060", last_seen="03:00")


def heard(seconds_ago: float) -> Herd:
    """Its primary is lost, and a replica heard from it that long ago."""
    return with_fact(LOST, NEAR, seconds_ago, "upstream", "last_message_age_s")


def ahead(received: str) -> Herd:
    """Its primary is lost, and NEAR has received up to there."""
    return with_fact(LOST, NEAR, received, "positions", "received")


def on_timeline_3(forked_at: str) -> Herd:
    """Its primary is lost, and NEAR is on another timeline than FAR, which has come to 0/5000060 on its own."""
    herd = with_fact(LOST, NEAR, [{"timeline": 1, "switch_lsn": forked_at}], "timeline_history")
    return with_fact(herd, NEAR, 3, "timeline")


PAIRS: tuple[Pair, ...] = (
    Pair("OPERATION_HELD", healthy(held="ada on ops1 since 03:00"), claimed(healthy(), (NEAR,), closed="done")),
    Pair("REGISTRY_LOST", healthy(registry_error="connection refused")),
    Pair("HERD_ON_HOLD", healthy(hold_reason="migration"), healthy(hold_reason="")),
    Pair("MEMBER_MISSING", healthy(missing=("trading_prod@nyc-db9",))),
    Pair("INTERRUPTED_UNCLEAR", claimed(healthy(), (PRIMARY,), target="trading_prod@gone"), FINISHING),
    Pair("PRIMARY_MISMATCH", promoted(stopped(healthy(), PRIMARY), FAR), stopped(healthy(), NEAR)),
    Pair(
        "SPLIT_BRAIN",
        promoted(healthy(), FAR),
        with_member(promoted(healthy(), FAR), FAR, role="detached"),
    ),
    Pair("NO_PRIMARY", with_fact(stopped(healthy(), PRIMARY), PRIMARY, "absent", "status"), stopped(healthy(), NEAR)),
    Pair("MEMBER_UNREACHABLE", unreachable(healthy(), NEAR), stopped(healthy(), NEAR)),
    Pair("MEMBER_LEFT", unreachable(FINISHING, NEAR), FINISHING),
    Pair("OTHER_CLUSTER", with_fact(healthy(), NEAR, "7999", "system_identifier"), unreachable(healthy(), NEAR)),
    Pair("OTHER_MAJOR", with_fact(healthy(), NEAR, 14, "major"), with_fact(healthy(), NEAR, "15.2", "version")),
    Pair("WRONG_SERVER", with_fact(healthy(), FAR, "port 5432 is /srv/other", "identity_problem")),
    Pair("NO_ANSWER", with_fact(healthy(), NEAR, "timed out", "sql_error"), stopped(healthy(), NEAR)),
    Pair(
        "NOT_SUPERUSER",
        with_fact(healthy(), NEAR, False, "superuser"),
        with_fact(stopped(healthy(), NEAR), NEAR, None, "superuser"),
    ),
    # One that is configured for another instance of the same host is no finding of postgres/managers.py at all.
    Pair(
        "MANAGED_ELSEWHERE",
        ready(NEAR, manager(True), "managers"),
        ready(NEAR, manager(False), "managers"),
    ),
    Pair("MANAGER_ON_HOST", ready(NEAR, manager(False), "managers"), ready(NEAR, manager(True), "managers")),
    Pair(
        "AUTOSTART",
        ready(PRIMARY, ["postgresql@15-main.service is enabled at boot"], "autostart"),
        ready(FAR, ["postgresql@15-main.service is enabled at boot"], "autostart"),
    ),
    Pair(
        "NO_CANDIDATE",
        healthy(members=(member("chi-db1", "primary"),)),
        healthy(members=(member("chi-db1", "primary"), member("chi-db2"))),
    ),
    Pair(
        "APPLY_DELAY",
        setting(FAR, "recovery_min_apply_delay", 60000),
        setting(NEAR, "recovery_min_apply_delay", 60000),
        {"candidate": "nyc-db1", "accept": ("APPLY_DELAY",)},
        {"candidate": "nyc-db1", "accept": ("APPLY_DELAY",)},
    ),
    Pair(
        "FOLLOWER_PINNED",
        setting(NEAR, "recovery_target_timeline", "1"),
        setting(NEAR, "recovery_target_timeline", ""),
    ),
    Pair(
        "FOLLOWER_LATE",
        with_fact(healthy(), NEAR, True, "replay_paused"),
        # What is stopped replays nothing either, and is told of as such.
        with_fact(stopped(healthy(), NEAR), NEAR, True, "replay_paused"),
    ),
    Pair(
        "STANDBY_SETTINGS",
        # It has 100 now, and restarts with what its file says.
        with_fact(healthy(), PRIMARY, {"max_connections": 50}, "next_start"),
        with_fact(setting(PRIMARY, "max_connections", 50), PRIMARY, {"max_connections": 100}, "next_start"),
    ),
    Pair("WALSENDERS_FULL", setting(FAR, "max_wal_senders", 1), setting(FAR, "max_wal_senders", 2)),
    Pair("SLOTS_FULL", with_slots(10, "chi_db2"), with_slots(10, None)),
    Pair(
        "WAY_BACK",
        healthy(way_back={NEAR: {"code": "UPSTREAM_AUTH", "reason": "no pg_hba.conf entry", "next_step": "Add it."}}),
    ),
    Pair(
        "NO_REWIND",
        setting(PRIMARY, "wal_log_hints", False, setting(PRIMARY, "data_checksums", False)),
        setting(PRIMARY, "wal_log_hints", False),
    ),
    Pair("LOGICAL_SLOTS", failover_slot(synced=False), failover_slot(synced=True)),
    Pair(
        "FOREIGN_WALSENDER",
        # A receiver on a replica's own host: its address alone tells nothing.
        with_fact(
            healthy(),
            PRIMARY,
            walsenders(("pg_receivewal", "chi-db2"), ("chi-db2", "chi-db2"), ("nyc-db1", "nyc-db1")),
            "replicas",
        ),
        # A replica that connects from another address than its server's, and a test connection of ours.
        with_fact(
            healthy(),
            PRIMARY,
            walsenders(("chi-db2", "192.0.2.9"), ("nyc-db1", "nyc-db1"), ("elephaas_test", "nyc-db1")),
            "replicas",
        ),
    ),
    Pair("SYNC_STANDBYS", named('FIRST 2 ("nyc-db1", "chi-db2")'), named('ANY 2 ("CHI-DB2", "chi-db1")')),
    Pair("PRIMARY_ARMED", with_fact(healthy(), PRIMARY, ["standby.signal"], "signal_files")),
    Pair("MEMBER_STOPPED", stopped(healthy(), NEAR, "shut down in recovery"), unreachable(healthy(), NEAR)),
    Pair(
        "ARCHIVE_FAILING",
        ready(PRIMARY, True, "archiver", "failing"),
        ready(PRIMARY, True, "archiver", "failing", herd=NO_ARCHIVE),
    ),
    Pair("ARCHIVE_BACKLOG", ready(PRIMARY, 17, "archive_ready"), ready(PRIMARY, 16, "archive_ready")),
    Pair("ARCHIVE_ENDS", setting(FAR, "archive_mode", "off"), setting(FAR, "archive_mode", "off", NO_ARCHIVE)),
    Pair(
        "BACKUP_RUNNING",
        with_fact(healthy(), PRIMARY, True, "base_backup_running"),
        with_fact(healthy(), NEAR, True, "base_backup_running"),
    ),
    Pair(
        "LONG_TRANSACTION",
        ready(PRIMARY, transaction(301), "transactions"),
        ready(PRIMARY, transaction(299), "transactions"),
    ),
    Pair(
        "PREPARED_TRANSACTIONS",
        ready(PRIMARY, {"count": 1, "oldest_s": 5.0}, "prepared"),
        ready(FAR, {"count": 1, "oldest_s": 5.0}, "prepared"),
    ),
    Pair(
        "UNLOGGED_TABLES",
        ready(PRIMARY, {"relations": 2, "bytes": 8192, "complete": True}, "unlogged"),
        ready(FAR, {"relations": 2, "bytes": 0, "complete": True}, "unlogged"),
    ),
    Pair("NO_VHOST", healthy(vhost=None, dns=None)),
    Pair("DNS_SKIPPED", healthy(), wishes={"dns": "skip"}, passing_wishes={"dns": "update"}),
    Pair(
        "DNS_REFUSED",
        healthy(dns=dns(error="DNS_KEY_REFUSED", reason="refused")),
        healthy(dns=dns(error="DNS_KEY_REFUSED", reason="refused")),
        passing_wishes={"dns": "skip"},
    ),
    Pair("DNS_CHANGED", healthy(dns=dns("192.0.2.7")), healthy(dns=dns("192.0.2.7")), {}, {"dns": "skip"}),
    Pair(
        "DNS_NO_TARGET", with_member(healthy(), FAR, address="nyc-db1"), with_member(healthy(), NEAR, address="chi-db2")
    ),
    Pair("DNS_SILENT", healthy(dns=dns(servers=[{"server": "ns2", "values": [], "error": "timed out"}]))),
    Pair("DNS_TTL_LONG", healthy(dns=dns(ttl=61)), healthy(dns=dns(ttl=60))),
    Pair("PROGRAM_MISSING", with_fact(healthy(), FAR, None, "programs", "pg_waldump")),
    Pair(
        "BINARY_DIFFERS",
        with_fact(healthy(), NEAR, "15.19", "binary_version"),
        with_fact(healthy(), NEAR, None, "binary_version"),
    ),
    Pair("CONFIG_ERRORS", with_fact(healthy(), PRIMARY, ["pg_hba.conf line 3: bad"], "config_errors")),
    Pair("PENDING_RESTART", with_fact(healthy(), PRIMARY, ["shared_buffers"], "pending_restart")),
    Pair(
        "PRELOAD_MISSING",
        ready(PRIMARY, ["pg_stat_statements"], "preload", "missing"),
        ready(PRIMARY, None, "preload"),
    ),
    Pair("PRELOAD_DIFFERS", ready(FAR, [], "preload", "libraries"), ready(FAR, None, "preload")),
    Pair(
        "COLLATION_DIFFERS",
        OTHER_LIBC,
        # The order of bytes is the same everywhere.
        ready(FAR, "2.28", "glibc", herd=on_both(databases("c", "C.UTF-8", None), "databases")),
    ),
    Pair("NOT_PROVEN_DEAD", LOST, stopped(healthy(), PRIMARY)),
    Pair("STILL_HEARD", heard(34.0), heard(36.0), DEAD, DEAD),
    Pair("MEMBER_UNSEEN", unreachable(LOST, NEAR), LOST, DEAD, DEAD),
    Pair("TIMELINES_DIVERGE", on_timeline_3("0/2000000"), on_timeline_3("0/5000060"), DEAD, DEAD),
    Pair(
        "NO_SUCCESSOR",
        with_member(with_member(LOST, NEAR, role="detached"), FAR, role="detached"),
        with_member(LOST, FAR, role="detached"),
        DEAD,
        DEAD,
    ),
    Pair(
        "CANDIDATE_BEHIND",
        ahead("0/5000061"),
        ahead("0/5000060"),
        {**DEAD, "candidate": FAR},
        {**DEAD, "candidate": FAR},
    ),
    Pair(
        "LOSS_BEYOND_BOUND",
        with_member(LOST, PRIMARY, recorded_lsn="0/6000061"),
        with_member(LOST, PRIMARY, recorded_lsn="0/6000060"),
        DEAD,
        DEAD,
    ),
    Pair(
        "LOSS",
        with_fact(
            stopped(healthy(), PRIMARY), PRIMARY, {"state": "in production", "checkpoint_lsn": "0/5000060"}, "control"
        ),
        with_fact(
            stopped(healthy(), PRIMARY), PRIMARY, {"state": "shut down", "checkpoint_lsn": "0/5000059"}, "control"
        ),
    ),
    Pair("NOT_FENCED", LOST, LOST, DEAD, {"fence": True}, frozenset({"LOSS"})),
    Pair("FENCED_FIRST", LOST, LOST, {"fence": True}, DEAD, frozenset({"LOSS"})),
)

#: What speaks against one replica, FAR: it is no candidate on the first herd, and it is the candidate on the second.
CANDIDATE_PAIRS: tuple[Pair, ...] = (
    Pair("UNREACHABLE", unreachable(healthy(), FAR), unreachable(healthy(), NEAR)),
    Pair("DETACHED", with_member(healthy(), FAR, role="detached")),
    Pair("NOT_RUNNING", stopped(healthy(), FAR)),
    Pair("NOT_IN_RECOVERY", with_fact(healthy(), FAR, "primary", "role")),
    Pair("NOT_STREAMING", with_fact(healthy(), FAR, None, "upstream", "status")),
    Pair(
        "WRONG_UPSTREAM",
        with_fact(healthy(), FAR, "10.99.0.1", "upstream", "host"),
        with_fact(healthy(), FAR, "CHI-DB1.example.com.", "upstream", "host"),
    ),
    Pair(
        "CASCADED",
        healthy(
            members=(member("chi-db1", "primary"), member("chi-db2"), member("nyc-db1", upstream_server="chi-db2"))
        ),
    ),
    Pair("REPLAY_PAUSED", with_fact(healthy(), FAR, True, "replay_paused")),
    Pair("RECOVERY_TARGET", setting(FAR, "recovery_target_lsn", "0/99")),
    Pair(
        "APPLY_DELAY",
        setting(FAR, "recovery_min_apply_delay", 60000),
        setting(FAR, "recovery_min_apply_delay", 60000),
        passing_wishes={"accept": ("APPLY_DELAY",)},
    ),
    Pair(
        "TIMELINE_PINNED", setting(FAR, "recovery_target_timeline", "1"), setting(FAR, "recovery_target_timeline", "")
    ),
    Pair("BASE_BACKUP", with_fact(healthy(), FAR, True, "base_backup_running")),
    Pair("LAG_UNKNOWN", with_fact(healthy(), FAR, None, "positions", "received")),
    Pair(
        "RECEIVE_LAG",
        with_fact(healthy(), FAR, "0/100", "positions", "received"),
        with_fact(healthy(), FAR, "0/5000000", "positions", "received"),
    ),
    Pair(
        "REPLAY_LAG",
        with_fact(healthy(), FAR, "0/100", "positions", "replayed"),
        with_fact(healthy(), FAR, "0/5000000", "positions", "replayed"),
    ),
    Pair(
        "DISK_LOW",
        with_fact(healthy(), FAR, 256 * 1024 * 1024 - 1, "disk", "free_bytes"),
        with_fact(healthy(), FAR, 256 * 1024 * 1024, "disk", "free_bytes"),
    ),
    Pair("LEFT_DATACENTER", healthy(), healthy(), {"leave": "newyork"}, {"leave": "chicago"}),
)
