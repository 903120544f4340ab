# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is the matter in a herd, told from the facts of its members. Private to the collection.

What is shown of a fleet, in which order, is in status_view.
"""

from __future__ import annotations

import datetime
from typing import Any, Iterator, Mapping

from ansible_collections.elephaas.herd.plugins.module_utils.decide.candidate import replay_lag
from ansible_collections.elephaas.herd.plugins.module_utils.decide.filters import has_dr_pair
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd, Member
from ansible_collections.elephaas.herd.plugins.module_utils.decide.size import human_bytes
from ansible_collections.elephaas.herd.plugins.module_utils.decide.split_brain import (
    alone_text,
    demote_command,
    split_brain,
)
from ansible_collections.elephaas.herd.plugins.module_utils.decide.timelines import Parting, parting
from ansible_collections.elephaas.herd.plugins.module_utils.decide.verdict import (
    REFUSE,
    WARN,
    Verdict,
    most_severe_first,
    worst,
)

Record = Mapping[str, Any]
"""What is on record of an instance besides what Member holds: version, lag_bytes, last_seen, pgdata, system_identifier."""


def herd_status(herd: Herd, whole: bool, max_lag: int, records: Mapping[str, Record] | None = None) -> dict[str, Any]:
    """The state of a herd as plain data, as status_report documents an entry of `herds`.

    whole: all members were looked at; otherwise nothing is said about what the others might be.
    max_lag: bytes of replay lag above which a replica is a problem.
    records: by inventory name.
    """
    primary = herd.writable[0] if len(herd.writable) == 1 and herd.writable[0].role != "superseded" else None
    problems = most_severe_first(_problems(herd, primary, whole, max_lag))
    return {
        "herd": herd.name,
        "environment": herd.environment,
        "protected": herd.protected,
        "vhost": herd.vhost,
        "hold_reason": herd.hold_reason,
        "hold_by": herd.hold_by,
        "hold_since": herd.hold_since,
        "whole": whole,
        "primary": primary.name if primary else None,
        "level": worst(problems),
        "problems": [problem.as_dict() for problem in problems],
        "members": [_row(herd, member, primary, (records or {}).get(member.name, {})) for member in herd.members],
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


def _row(herd: Herd, member: Member, primary: Member | None, record: Record) -> dict[str, Any]:
    slots = member.fact("slots")
    replicas = member.fact("replicas")
    answers = member.running and not member.fact("sql_error")
    return {
        "instance": member.name,
        "server": member.server,
        "datacenter": member.datacenter,
        "address": member.address,
        "port": member.port,
        "data_directory": member.fact("data_directory") or record.get("pgdata"),
        "recorded_role": member.role,
        "role": member.fact("role"),
        "state": _state(member),
        "online": _online(member, record),
        "version": member.fact("version") or member.fact("binary_version"),
        "recorded_version": record.get("version"),
        "timeline": member.fact("timeline"),
        "system_identifier": member.fact("system_identifier") or record.get("system_identifier"),
        "lag_bytes": lag_of(primary, member),
        "recorded_lag_bytes": record.get("lag_bytes"),
        "upstream": upstream_name(herd, member) if member.in_recovery else None,
        "clients": member.fact("clients") if answers else None,
        "replicas": len(replicas) if answers and replicas is not None else None,
        "slots": len(slots) if answers and slots is not None else None,
        "inactive_slots": sum(not slot.get("active") for slot in slots) if answers and slots is not None else None,
        "pending_restart": member.fact("pending_restart") if answers else None,
        "config_errors": member.fact("config_errors") if answers else None,
        "started": _iso(member.fact("started_at")),
        "last_seen": _iso(member.fact("positions", "observed_at")) if answers else record.get("last_seen"),
        "reachable": member.reachable,
    }


def _online(member: Member, record: Record) -> bool | None:
    """As a check-in records it: up, answering, and the instance that is meant. None where nobody could look."""
    if not member.reachable:
        return None
    if not member.running or member.fact("sql_error") or member.fact("identity_problem"):
        return False
    recorded, found = record.get("system_identifier"), member.fact("system_identifier")
    return not recorded or not found or recorded == found


def _iso(seconds: Any) -> str | None:
    """Seconds since 1970 as ISO 8601 in UTC."""
    if seconds is None:
        return None
    moment = datetime.datetime.fromtimestamp(float(seconds), datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


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
        yield split_brain(herd)
    if whole and not herd.writable:
        yield Verdict("NO_PRIMARY", REFUSE, herd.name, "no member accepts writes", "See why below.")
    if len(herd.writable) == 1 and herd.writable[0].role not in ("primary", "superseded"):
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
        moves = f" from {operation.source} to {operation.target}" if operation.source else ""
        yield Verdict(
            "OPERATION_OPEN",
            WARN,
            herd.name,
            f"a {operation.verb}{moves} by {operation.operator} is not finished",
            "If its run is dead, run the same command again.",
        )
    if herd.hold_reason:
        yield Verdict("HERD_ON_HOLD", WARN, herd.name, f"on hold: {herd.hold}", "elephaas.herd.release takes it off.")
    if whole:
        yield from _dr_problems(herd)


def _dr_problems(herd: Herd) -> Iterator[Verdict]:
    datacenters = [member.datacenter for member in herd.members]
    if has_dr_pair(datacenters):
        return
    if any(datacenters):
        reason, next_step = "all of it stands in one data center", "Add a replica in another one."
        if not all(datacenters):
            reason, next_step = "it stands in one data center, as far as is known", "Record where its servers stand."
    else:
        reason, next_step = "nobody has recorded where its servers stand", "Give them a data center."
    yield Verdict("NO_DR_PAIR", WARN, herd.name, reason, next_step)


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
    if member.role == "superseded" and not member.in_recovery:
        # Beside another one that accepts writes, the split brain says it all.
        if not member.writable or len(herd.writable) == 1:
            yield _superseded(member, primary)
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


def _superseded(member: Member, primary: Member | None) -> Verdict:
    """An overtaken primary that is not yet anybody's replica."""
    if member.writable:
        reason = "it was the primary before a failover, and accepts writes, which nobody else gets"
        next_step = f"Keep applications away from it, bring its successor up, and run: {demote_command(member.name)}"
        return Verdict("SUPERSEDED", REFUSE, member.name, reason, next_step)
    armed = "standby.signal" in (member.fact("signal_files") or [])
    apart = parting(member.facts or {}, primary.facts or {}) if primary else Parting(None)
    reason = f"it was the primary before a failover, and is {member.status}"
    reason += ", and can only come up read-only" if armed else ""
    reason += f"; it {alone_text(apart)}" if apart.diverged else ""
    next_step = f"Run: {demote_command(member.name)}"
    if armed and apart.diverged:
        next_step = "It cannot follow as it is: save what only it holds, and resync it with discard_divergent=true"
    return Verdict("SUPERSEDED", REFUSE, member.name, reason, next_step)


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
