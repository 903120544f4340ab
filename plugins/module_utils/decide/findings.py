# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong in a herd that is to be failed over: one function a question. Private to the collection.

Each reads a situation and yields a subject and a reason for everything that is wrong. What a finding means, and what to
do about it, stands in the table in checks.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Iterator, Tuple

from ansible_collections.elephaas.herd.plugins.module_utils.decide.candidate import Choice, Wishes
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd, Member
from ansible_collections.elephaas.herd.plugins.module_utils.decide.size import human_seconds
from ansible_collections.elephaas.herd.plugins.module_utils.decide.stage import (
    FINISH,
    Stage,
    mirrored_operations,
)
from ansible_collections.elephaas.herd.plugins.module_utils.decide.standby_settings import STANDBY_SETTINGS
from ansible_collections.elephaas.herd.plugins.module_utils.decide.vhost import dns_value, same_dns_value

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


# --- 1. one operation at a time -------------------------------------------------------------------


def held(situation: Situation) -> Iterator[Finding]:
    """Somebody else's run is alive."""
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


def registry_lost(situation: Situation) -> Iterator[Finding]:
    """The registry was to be asked and could not be."""
    if situation.herd.registry_error:
        yield situation.herd.name, situation.herd.registry_error


def on_hold(situation: Situation) -> Iterator[Finding]:
    """The herd is on hold."""
    if situation.herd.hold_reason:
        yield situation.herd.name, f"the herd is on hold: {situation.herd.hold_reason}"


def members_missing(situation: Situation) -> Iterator[Finding]:
    """Members on record that this inventory does not hold."""
    for name in situation.herd.missing:
        yield name, "it is on record as a member, but not in this inventory"


def stuck(situation: Situation) -> Iterator[Finding]:
    """An interrupted failover that cannot be continued."""
    yield situation.herd.name, situation.stage.why


# --- 2. and 3. who is primary, and is it this herd at all -----------------------------------------


def primary_mismatch(situation: Situation) -> Iterator[Finding]:
    """Another member than the recorded primary accepts writes."""
    writable = situation.herd.writable
    if len(writable) == 1 and writable[0].name != situation.herd.lead:
        yield situation.herd.name, f"{situation.herd.lead} is on record as primary, {writable[0].name} accepts writes"


def not_one_writable(situation: Situation) -> Iterator[Finding]:
    """More than one member accepts writes."""
    writable = situation.herd.writable
    if len(writable) > 1:
        names = ", ".join(member.name for member in writable)
        yield situation.herd.name, f"split brain: {len(writable)} members accept writes: {names}"


def no_primary(situation: Situation) -> Iterator[Finding]:
    """No member accepts writes."""
    lead = situation.primary
    if not situation.herd.writable and lead is not None:
        state = "unreachable" if not lead.reachable else lead.status
        yield situation.herd.name, f"no member accepts writes; {lead.name}, the primary on record, is {state}"


def member_unreachable(situation: Situation) -> Iterator[Finding]:
    """Members whose hosts do not answer."""
    for member in situation.herd.members:
        if not member.reachable:
            yield member.name, f"its host cannot be reached, so nobody knows whether it accepts writes: {member.error}"


def other_cluster(situation: Situation) -> Iterator[Finding]:
    """Members of another cluster."""
    yield from _differs(situation, "system_identifier", "system identifier")


def other_major(situation: Situation) -> Iterator[Finding]:
    """Members of another major version."""
    yield from _differs(situation, "major", "major version")


def _differs(situation: Situation, key: str, what: str) -> Iterator[Finding]:
    # Measured against the instance that takes writes: it is the one whose data must survive.
    reference = situation.candidate if situation.stage.name == FINISH else situation.primary
    expected = reference.fact(key) if reference else None
    for member in situation.herd.members:
        found = member.fact(key)
        if expected and found and found != expected:
            yield member.name, f"its {what} is {found}, that of {reference.name if reference else '?'} is {expected}"


def wrong_server(situation: Situation) -> Iterator[Finding]:
    """Members at whose port another server answers."""
    for member in situation.herd.members:
        problem = member.fact("identity_problem")
        if problem:
            yield member.name, str(problem)


def no_answer(situation: Situation) -> Iterator[Finding]:
    """Members that run and do not answer."""
    for member in situation.herd.members:
        problem = member.fact("sql_error")
        if problem:
            yield member.name, f"PostgreSQL runs but does not answer: {problem}"


# --- 5. and 6. the candidate and the followers ----------------------------------------------------


def no_candidate(situation: Situation) -> Iterator[Finding]:
    """No replica is fit to be promoted."""
    # Without the one primary on record there is nothing to measure replicas against; other checks say so.
    if situation.choice.winner is None and [member.name for member in situation.herd.writable] == [situation.herd.lead]:
        reasons = "; ".join(f"{lost.name}: {lost.reason}" for lost in situation.choice.runners_up)
        yield situation.herd.name, f"no replica is fit to be promoted ({reasons or 'the herd has a single member'})"


def follower_pinned(situation: Situation) -> Iterator[Finding]:
    """Followers that would stay on the old timeline."""
    for member in situation.replicas_to_be:
        value = member.fact("settings", "recovery_target_timeline")
        if value not in (None, "", "latest"):
            yield member.name, f"recovery_target_timeline is {value}: it would not follow the new primary"


def standby_settings(situation: Situation) -> Iterator[Finding]:
    """Followers whose settings are too low for the new primary."""
    if situation.candidate is None:
        return
    for name in STANDBY_SETTINGS:
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


def logical_slots(situation: Situation) -> Iterator[Finding]:
    """Logical slots that would stay behind."""
    primary = situation.primary
    names = [
        slot["name"] for slot in (primary.fact("slots") if primary else None) or [] if slot.get("type") == "logical"
    ]
    if primary is not None and names:
        yield primary.name, f"it has logical replication slots, which stay behind: {', '.join(sorted(names))}"


def sync_standbys(situation: Situation) -> Iterator[Finding]:
    """Synchronous standbys that the new primary would wait for in vain."""
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


def left_armed(situation: Situation) -> Iterator[Finding]:
    """A primary that an interrupted run has armed."""
    for member in situation.herd.members:
        if member.writable and "standby.signal" in (member.fact("signal_files") or []):
            yield (
                member.name,
                "it accepts writes, but its next start will be that of a replica: an earlier run armed it",
            )


def left_stopped(situation: Situation) -> Iterator[Finding]:
    """Members that are down."""
    for member in situation.herd.members:
        if member.reachable and member.facts is not None and member.status in ("stopped", "absent"):
            if member is not situation.primary and member is not situation.candidate:
                yield member.name, f"it is {member.status} and stays so"


# --- 13. DNS --------------------------------------------------------------------------------------


def no_vhost(situation: Situation) -> Iterator[Finding]:
    """No DNS name leads to the herd."""
    if not situation.herd.vhost:
        yield situation.herd.name, "it has no vhost: nothing will lead applications to the new primary"


def dns_skipped(situation: Situation) -> Iterator[Finding]:
    """DNS is to be left alone."""
    if situation.herd.vhost and situation.wishes.dns == "skip":
        yield situation.herd.vhost, "DNS is left alone, as asked: applications keep the old address"


def _dns(situation: Situation) -> dict[str, Any] | None:
    return situation.herd.dns if situation.wishes.dns != "skip" and situation.herd.vhost else None


def dns_refused(situation: Situation) -> Iterator[Finding]:
    """The name server would refuse our update."""
    probe = _dns(situation)
    if probe and probe.get("error"):
        yield str(situation.herd.vhost), f"{probe.get('reason') or probe['error']} ({probe['error']})"


def dns_changed(situation: Situation) -> Iterator[Finding]:
    """The vhost leads somewhere else than to the primary."""
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


def dns_no_target(situation: Situation) -> Iterator[Finding]:
    """Nothing is known that the vhost could hold for the candidate."""
    probe = _dns(situation)
    if not probe or probe.get("error") or situation.candidate is None:
        return
    record_type = str(probe.get("type"))
    if dns_value(situation.candidate, record_type) is None:
        needs = "a dns_name" if record_type == "CNAME" else f"an address for {record_type} records"
        yield situation.candidate.server, f"the record of this server lacks {needs}, which {situation.herd.vhost} needs"


def dns_silent(situation: Situation) -> Iterator[Finding]:
    """Authoritative name servers that do not answer."""
    probe = _dns(situation)
    for server in (probe or {}).get("servers") or []:
        if server.get("error"):
            yield str(situation.herd.vhost), f"name server {server.get('server')} does not answer: {server['error']}"


def dns_ttl(situation: Situation) -> Iterator[Finding]:
    """The TTL is long."""
    probe = _dns(situation)
    ttl = (probe or {}).get("ttl")
    if ttl is not None and int(ttl) > situation.wishes.max_ttl:
        yield (
            str(situation.herd.vhost),
            f"its TTL is {human_seconds(float(ttl))}: clients may use the old address that much longer",
        )


# --- 14. the hosts --------------------------------------------------------------------------------


def programs(situation: Situation) -> Iterator[Finding]:
    """Programs that are missing on a host."""
    for member in situation.herd.members:
        programs = member.fact("programs") or {}
        missing = [name for name in REQUIRED_PROGRAMS if name in programs and not programs[name]]
        if missing:
            yield member.name, f"programs are missing on its host: {', '.join(missing)}"


def binary_differs(situation: Situation) -> Iterator[Finding]:
    """A restart would change the version."""
    for member in situation.herd.members:
        runs, on_disk = member.fact("version"), member.fact("binary_version")
        if runs and on_disk and runs != on_disk:
            yield member.name, f"{runs} runs, {on_disk} is on disk: a restart changes the version"
