# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Herds to decide about: a healthy one, and what can be done to it."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd, Member

SYSTEM_IDENTIFIER = "7312345678901234567"
PRIMARY, NEAR, FAR = "trading_prod@chi-db1", "trading_prod@chi-db2", "trading_prod@nyc-db1"
ADDRESSES = {"chi-db1": "10.10.0.11", "chi-db2": "10.10.0.12", "nyc-db1": "10.20.0.11", "nyc-db2": "10.20.0.12"}

_SETTINGS = {
    "max_connections": 100,
    "max_worker_processes": 8,
    "max_wal_senders": 10,
    "max_prepared_transactions": 0,
    "max_locks_per_transaction": 64,
    "max_replication_slots": 10,
    "wal_log_hints": True,
    "data_checksums": True,
    "archive_mode": "on",
    "archive_command_set": True,
    "synchronous_standby_names": "",
    "recovery_min_apply_delay": 0,
    "recovery_target_timeline": "latest",
    "recovery_target_lsn": "",
}

_READINESS = {
    "managers": [],
    "autostart": [],
    "glibc": "2.36",
    "icu": "153.120",
    "databases": [{"name": "app", "provider": "c", "locale": "en_US.UTF-8", "recorded": "2.36", "actual": "2.36"}],
    "archive_ready": 0,
    "archiver": {"failing": False, "failed_count": 3, "last_failed_wal": None, "last_failed_age_s": None},
    "unlogged": {"relations": 0, "bytes": 0, "complete": True},
    "transactions": [],
    "prepared": {"count": 0, "oldest_s": None},
    "backup_sessions": [],
    "preload": {"libraries": ["pg_stat_statements"], "missing": []},
    "standby_name": "walreceiver",
    "full_page_writes": True,
    "sql_error": None,
}


def facts(role: str, upstream: str | None = None, position: str = "0/5000060") -> dict[str, Any]:
    """Live facts as instance_info returns them, as far as decisions read them."""
    primary = role == "primary"
    return {
        "status": "running",
        "role": role,
        "writable": primary,
        "identity_problem": None,
        "signal_files": [] if primary else ["standby.signal"],
        "version": "15.18",
        "binary_version": "15.18",
        "major": 15,
        "system_identifier": SYSTEM_IDENTIFIER,
        "timeline": 1,
        "positions": {
            "current": position if primary else None,
            "received": None if primary else position,
            "replayed": None if primary else position,
            "replay_lag_bytes": None if primary else 0,
        },
        "replay_paused": None if primary else False,
        "upstream": None
        if primary
        else {
            "host": upstream,
            "port": 5432,
            "user": "replicator",
            "slot": None,
            "status": "streaming",
            "receiver_timeline": 1,
        },
        "superuser": True,
        "replicas": [],
        "clients": 0,
        "slots": [],
        "pending_restart": [],
        "config_errors": [],
        "next_start": {},
        "settings": dict(_SETTINGS),
        "control": {"state": "in production" if primary else "in archive recovery"},
        "disk": {"free_bytes": 10**10},
        "base_backup_running": False,
        "programs": {"psql": "/b/psql", "pg_ctl": "/b/pg_ctl", "pg_controldata": "/b/c", "pg_waldump": "/b/w"},
        "operation": None,
        "readiness": {**copy.deepcopy(_READINESS), "unlogged": _READINESS["unlogged"] if primary else None},
    }


def member(server: str, role: str = "replica", upstream_server: str | None = "chi-db1", **changes: Any) -> Member:
    """A member of trading_prod on that server, healthy unless changed."""
    upstream = ADDRESSES[upstream_server] if upstream_server and role == "replica" else None
    one = Member(
        name=f"trading_prod@{server}",
        server=server,
        datacenter="chicago" if server.startswith("chi") else "newyork",
        address=ADDRESSES[server],
        dns_name=f"{server}.example.com",
        role=role,
        upstream=f"trading_prod@{upstream_server}" if upstream else None,
        facts=facts(role, upstream),
    )
    assert one.facts is not None
    one.facts["readiness"]["standby_name"] = server
    return replace(one, **changes)


def dns(value: str = "10.10.0.11", **changes: Any) -> dict[str, Any]:
    """A vhost as its probe returns it."""
    return {
        "record": "trading.example.com",
        "type": "A",
        "values": [value],
        "ttl": 30,
        "key_ok": True,
        "error": None,
        "servers": [{"server": "ns1", "values": [value], "error": None}],
        **changes,
    }


def healthy(*extra: Member, **changes: Any) -> Herd:
    """Three members in two data centers, the primary in Chicago, nothing wrong."""
    herd = Herd(
        name="trading_prod",
        herd="trading",
        environment="prod",
        lead=PRIMARY,
        members=(member("chi-db1", "primary"), member("chi-db2"), member("nyc-db1"), *extra),
        protected=True,
        vhost="trading.example.com",
        dns=dns(),
    )
    return replace(herd, **changes)


def with_fact(herd: Herd, name: str, value: Any, *path: str) -> Herd:
    """The herd with one fact of one member changed; path leads to it."""
    members = []
    for one in herd.members:
        if one.name == name:
            changed = copy.deepcopy(one.facts)
            assert changed is not None
            inner = changed
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value
            members.append(replace(one, facts=changed))
        else:
            members.append(one)
    return replace(herd, members=tuple(members))


def with_member(herd: Herd, name: str, **changes: Any) -> Herd:
    """The herd with one member's record changed."""
    return replace(herd, members=tuple(replace(one, **changes) if one.name == name else one for one in herd.members))


def unreachable(herd: Herd, name: str) -> Herd:
    """The herd with one member's host dead."""
    return with_member(herd, name, reachable=False, error="no route to host", facts=None)


def stopped(herd: Herd, name: str, state: str = "shut down") -> Herd:
    """The herd with one member's PostgreSQL stopped."""
    herd = with_fact(herd, name, "stopped", "status")
    herd = with_fact(herd, name, False, "writable")
    return with_fact(herd, name, {"state": state}, "control")


def promoted(herd: Herd, name: str, by_waiter: bool = True) -> Herd:
    """The herd with one replica promoted."""
    herd = with_fact(herd, name, "primary", "role")
    herd = with_fact(herd, name, True, "writable")
    herd = with_fact(herd, name, None, "upstream")
    herd = with_fact(herd, name, 2, "timeline")
    waiter = {"expect_timeline": 1, "times": {"promote_called": 1.0}, "evidence": {"timeline_new": 2}}
    return with_fact(herd, name, waiter if by_waiter else None, "waiter")


def claimed(
    herd: Herd,
    names: tuple[str, ...],
    token: int = 1,
    closed: str | None = None,
    plan: str = "p00000001",
    target: str = FAR,
    decisions: dict[str, Any] | None = None,
) -> Herd:
    """The herd with an operation's record on the hosts of those members."""
    record = {
        "token": token,
        "closed": closed,
        "lease_until": 0.0,
        "operation": {
            "verb": "failover",
            "plan_id": plan,
            "from": PRIMARY,
            "to": target,
            "operator": "ada",
            "decisions": decisions,
        },
    }
    for name in names:
        herd = with_fact(herd, name, record, "operation")
    return herd
