# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is there a fit candidate, and can everybody stream from it: findings for a failover. Private to the collection."""

from __future__ import annotations

from typing import Any, Iterator

from ansible_collections.elephaas.herd.plugins.module_utils.decide.findings import Finding, Situation
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Member
from ansible_collections.elephaas.herd.plugins.module_utils.decide.size import human_seconds
from ansible_collections.elephaas.herd.plugins.module_utils.decide.standby_settings import STANDBY_SETTINGS
from ansible_collections.elephaas.herd.plugins.module_utils.decide.sync_names import parse_sync_names


def no_candidate(situation: Situation) -> Iterator[Finding]:
    """No replica is fit to be promoted."""
    # Without the one primary on record there is nothing to measure replicas against; other checks say so.
    if situation.choice.winner is None and [member.name for member in situation.herd.writable] == [situation.herd.lead]:
        reasons = "; ".join(f"{lost.name}: {lost.reason}" for lost in situation.choice.runners_up)
        yield situation.herd.name, f"no replica is fit to be promoted ({reasons or 'the herd has a single member'})"


def apply_delay(situation: Situation) -> Iterator[Finding]:
    """A candidate that applies late on purpose. It is one only when that was accepted."""
    candidate = situation.candidate
    delay = _delay(candidate) if candidate else 0
    if candidate and delay:
        yield (
            candidate.name,
            (
                f"recovery_min_apply_delay is {human_seconds(delay / 1000)}: what was committed within that time has to be "
                "applied first, while nobody can write"
            ),
        )


def _delay(member: Member) -> int:
    return _number(member.fact("settings", "recovery_min_apply_delay")) or 0


def follower_pinned(situation: Situation) -> Iterator[Finding]:
    """Followers that would stay on the old timeline."""
    for member in situation.replicas_to_be:
        value = member.fact("settings", "recovery_target_timeline")
        if value not in (None, "", "latest"):
            yield member.name, f"recovery_target_timeline is {value}: it would not follow the new primary"


def follower_late(situation: Situation) -> Iterator[Finding]:
    """Followers that reach the new timeline only after they have replayed what they hold back."""
    for member in situation.replicas_to_be:
        if not member.in_recovery:
            continue
        if member.fact("replay_paused"):
            yield member.name, "its replay is paused: it does not reach the new timeline before that is resumed"
        elif _delay(member):
            yield (
                member.name,
                f"it reaches the new timeline {human_seconds(_delay(member) / 1000)} late, by its own setting",
            )


def standby_settings(situation: Situation) -> Iterator[Finding]:
    """Followers whose settings are too low for the new primary."""
    if situation.candidate is None:
        return
    for name in STANDBY_SETTINGS:
        needed = _number(situation.candidate.fact("settings", name))
        for member in situation.replicas_to_be:
            has = _number(member.fact("settings", name))
            # It is the one that restarts, and comes back with what its files say now.
            restarts = member is situation.primary and _number(member.fact("next_start", name)) is not None
            if restarts:
                has = _number(member.fact("next_start", name))
            if needed is not None and has is not None and has < needed:
                word = "will be" if restarts and has != _number(member.fact("settings", name)) else "is"
                yield member.name, f"{name} {word} {has}, that of {situation.candidate.name} is {needed}"


def _number(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def sync_standbys(situation: Situation) -> Iterator[Finding]:
    """Synchronous standbys that the new primary would wait for in vain."""
    candidate = situation.candidate
    text = str(candidate.fact("settings", "synchronous_standby_names") or "").strip() if candidate else ""
    if not candidate or not text:
        return
    rule = parse_sync_names(text)
    if rule is None:
        yield candidate.name, f"synchronous_standby_names is {text!r}, which cannot be understood"
        return
    streaming = {member.name: standby_name(member) for member in situation.followers if member.running}
    # A member whose name could not be found out may be one of them: nothing is refused for what is not known.
    fitting = [name for name, known_as in streaming.items() if known_as is None or rule.names_it(known_as)]
    if len(fitting) < rule.number:
        shown = ", ".join(f"{name} as {known_as}" for name, known_as in sorted(streaming.items())) or "nobody"
        yield (
            candidate.name,
            (
                f"synchronous_standby_names is {text!r}: it waits for {rule.number}, and of those that will stream from it "
                f"({shown}) {len(fitting)} will do"
            ),
        )


def standby_name(member: Member) -> str | None:
    """The application name under which it will stream; None when it is not known."""
    name = member.fact("upstream", "application_name") or member.fact("readiness", "standby_name")
    return str(name) if name else None


def walsenders_full(situation: Situation) -> Iterator[Finding]:
    """More followers than the candidate has walsenders for."""
    candidate = situation.candidate
    limit = _number(candidate.fact("settings", "max_wal_senders")) if candidate else None
    if candidate is None or limit is None:
        return
    used, coming = len(candidate.fact("replicas") or []), len(situation.followers)
    if used + coming > limit:
        yield (
            candidate.name,
            f"max_wal_senders is {limit}: {used} are in use, and {coming} members will want one",
        )


def slots_full(situation: Situation) -> Iterator[Finding]:
    """More followers with slots than the candidate has room for."""
    candidate = situation.candidate
    limit = _number(candidate.fact("settings", "max_replication_slots")) if candidate else None
    if candidate is None or limit is None:
        return
    present = {str(slot.get("name")) for slot in candidate.fact("slots") or []}
    missing = {name for member in situation.followers for name in member.own_slots} - present
    if len(present) + len(missing) > limit:
        yield (
            candidate.name,
            f"max_replication_slots is {limit}: {len(present)} slots exist, and {', '.join(sorted(missing))} are needed",
        )


def no_rewind(situation: Situation) -> Iterator[Finding]:
    """Members that pg_rewind could not bring back."""
    for member in (situation.primary, situation.candidate):
        if member is None:
            continue
        if member.fact("settings", "wal_log_hints") is False and member.fact("settings", "data_checksums") is False:
            yield member.name, "it has neither wal_log_hints nor data checksums, so pg_rewind cannot bring it back"
        elif member.fact("readiness", "full_page_writes") is False:
            yield member.name, "full_page_writes is off, so pg_rewind can use neither it nor its WAL"


def way_back(situation: Situation) -> Iterator[Finding]:
    """Members whose rehearsed connection to the candidate was refused."""
    for name, refusal in sorted(situation.herd.way_back.items()):
        said = " ".join(str(refusal[key]) for key in ("reason", "next_step") if refusal.get(key))
        target = situation.candidate.name if situation.candidate else "the new primary"
        yield name, f"it cannot stream from {target}: {said or refusal.get('code') or 'refused'}"
