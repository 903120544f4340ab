# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is the matter in a herd, told from the facts of its members. Private to the collection."""

from __future__ import annotations

from typing import Any, Iterator

from ansible_collections.elephaas.herd.plugins.module_utils.decide.candidate import replay_lag
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd, Member
from ansible_collections.elephaas.herd.plugins.module_utils.decide.size import human_bytes
from ansible_collections.elephaas.herd.plugins.module_utils.decide.verdict import (
    REFUSE,
    WARN,
    Verdict,
    most_severe_first,
    worst,
)


def herd_status(herd: Herd, whole: bool, max_lag: int) -> dict[str, Any]:
    """The state of a herd as plain data: herd, environment, vhost, level, problems, members, operation.

    whole: all members were looked at; otherwise nothing is said about what the others might be.
    max_lag: bytes of replay lag above which a replica is a problem.
    """
    primary = herd.writable[0] if len(herd.writable) == 1 else None
    problems = most_severe_first(_problems(herd, primary, whole, max_lag))
    return {
        "herd": herd.name,
        "environment": herd.environment,
        "vhost": herd.vhost,
        "whole": whole,
        "primary": primary.name if primary else None,
        "level": worst(problems),
        "problems": [problem.as_dict() for problem in problems],
        "members": [_row(herd, member, primary) for member in herd.members],
    }


def upstream_name(herd: Herd, member: Member) -> str | None:
    """The member that this one streams from, as an inventory name; its host and port when that is no member."""
    for other in herd.members:
        if other.name != member.name and member.streams_from(other):
            return other.name
    host = member.fact("upstream", "host")
    return f"{host}:{member.fact('upstream', 'port') or 5432}" if host else None


def lag_of(primary: Member | None, member: Member) -> int | None:
    """Bytes that a replica has still to replay: from the primary's position, else from what it has received itself."""
    if not member.in_recovery:
        return None
    if primary is not None:
        return replay_lag(primary, member)
    return member.fact("positions", "replay_lag_bytes")


def _row(herd: Herd, member: Member, primary: Member | None) -> dict[str, Any]:
    role = member.fact("role")
    return {
        "instance": member.name,
        "server": member.server,
        "datacenter": member.datacenter,
        "port": member.port,
        "recorded_role": member.role,
        "role": role,
        "state": _state(member),
        "version": member.fact("version") or member.fact("binary_version"),
        "timeline": member.fact("timeline"),
        "lag_bytes": lag_of(primary, member),
        "upstream": upstream_name(herd, member) if member.in_recovery else None,
        "clients": member.fact("clients"),
        "reachable": member.reachable,
    }


def _state(member: Member) -> str:
    if not member.reachable:
        return "unreachable"
    if member.fact("sql_error"):
        return "not answering"
    if member.writable:
        return "writable"
    if member.in_recovery:
        return member.fact("upstream", "status") or "not streaming"
    return member.status


def _problems(herd: Herd, primary: Member | None, whole: bool, max_lag: int) -> Iterator[Verdict]:
    yield from _herd_problems(herd, whole)
    for member in herd.members:
        yield from _member_problems(herd, member, primary, max_lag)


def _herd_problems(herd: Herd, whole: bool) -> Iterator[Verdict]:
    if len(herd.writable) > 1:
        names = ", ".join(member.name for member in herd.writable)
        yield Verdict(
            "SPLIT_BRAIN",
            REFUSE,
            herd.name,
            f"{len(herd.writable)} members accept writes: {names}",
            "Stop the one that must not, and keep its data directory until the difference is understood.",
        )
    if whole and not herd.writable:
        yield Verdict("NO_PRIMARY", REFUSE, herd.name, "no member accepts writes", "See why below.")
    if len(herd.writable) == 1 and herd.writable[0].role != "primary":
        recorded = [member.name for member in herd.members if member.role == "primary"]
        yield Verdict(
            "PRIMARY_MISMATCH",
            REFUSE,
            herd.name,
            f"{herd.writable[0].name} accepts writes, {', '.join(recorded) or 'none'} is on record as primary",
            "Where that is right, correct the record; where it is not, find out who promoted it.",
        )
    if herd.operation and herd.operation.open:
        operation = herd.operation
        yield Verdict(
            "OPERATION_OPEN",
            WARN,
            herd.name,
            f"a {operation.verb} from {operation.source} to {operation.target} by {operation.operator} is not finished",
            "If its run is dead, run the same command again.",
        )
    if herd.hold_reason:
        yield Verdict("HERD_ON_HOLD", WARN, herd.name, f"on hold: {herd.hold_reason}", "")
    if whole and len({member.datacenter for member in herd.members}) < 2:
        yield Verdict(
            "NO_DR_PAIR", WARN, herd.name, "all of it stands in one data center", "Add a replica in another one."
        )


def _member_problems(herd: Herd, member: Member, primary: Member | None, max_lag: int) -> Iterator[Verdict]:
    if not member.reachable:
        yield Verdict("UNREACHABLE", REFUSE, member.name, member.error, "See to its host and to ssh.")
        return
    if member.fact("identity_problem"):
        yield Verdict(
            "WRONG_SERVER",
            REFUSE,
            member.name,
            str(member.fact("identity_problem")),
            "Correct port or data directory in the record.",
        )
    if member.fact("sql_error"):
        yield Verdict("NO_ANSWER", REFUSE, member.name, str(member.fact("sql_error")), "See that PostgreSQL's log.")
        return
    if not member.running:
        control = member.fact("control", "state")
        shown = f"PostgreSQL is {member.status}" + (f" (control file: {control})" if control else "")
        yield Verdict("NOT_RUNNING", REFUSE, member.name, shown, "")
        return
    identifiers = {other.fact("system_identifier") for other in herd.members if other.writable}
    if identifiers and member.fact("system_identifier") not in identifiers:
        yield Verdict(
            "OTHER_CLUSTER",
            REFUSE,
            member.name,
            "its system identifier is not that of the primary",
            "It is another database: correct the record.",
        )
    if member.writable and "standby.signal" in (member.fact("signal_files") or []):
        yield Verdict(
            "PRIMARY_ARMED",
            WARN,
            member.name,
            "it accepts writes, but its next start will be that of a replica: a failover was interrupted",
            "Run that failover again.",
        )
    if member.in_recovery:
        yield from _replica_problems(herd, member, primary, max_lag)


def _replica_problems(herd: Herd, member: Member, primary: Member | None, max_lag: int) -> Iterator[Verdict]:
    if not member.streaming:
        yield Verdict(
            "NOT_STREAMING",
            REFUSE,
            member.name,
            f"no WAL receiver streams from {upstream_name(herd, member) or '?'}",
            "See its log; its upstream may be gone or on another timeline.",
        )
    recorded = herd.member(member.upstream)
    if recorded is not None and not member.streams_from(recorded):
        yield Verdict(
            "WRONG_UPSTREAM",
            WARN,
            member.name,
            f"it streams from {upstream_name(herd, member) or '?'}, {recorded.name} is on record",
            "",
        )
    if member.fact("replay_paused"):
        yield Verdict("REPLAY_PAUSED", WARN, member.name, "replay is paused", "SELECT pg_wal_replay_resume()")
    timeline = primary.fact("timeline") if primary else None
    followed = member.fact("upstream", "receiver_timeline") or member.fact("timeline")
    if timeline and followed and followed != timeline:
        yield Verdict(
            "TIMELINE",
            REFUSE,
            member.name,
            f"it is on timeline {followed}, the primary on {timeline}",
            "It has to follow the new primary, or be resynchronized.",
        )
    lag = lag_of(primary, member)
    if lag is not None and lag > max_lag:
        yield Verdict("LAG", WARN, member.name, f"it is {human_bytes(lag)} behind", "")
