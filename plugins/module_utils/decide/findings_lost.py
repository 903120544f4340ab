# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong when a herd has lost its primary: see findings.py. Private to the collection."""

from __future__ import annotations

from typing import Iterator

from ansible_collections.elephaas.herd.plugins.module_utils.decide.findings import Finding, Situation
from ansible_collections.elephaas.herd.plugins.module_utils.decide.size import human_bytes, human_seconds
from ansible_collections.elephaas.herd.plugins.module_utils.decide.takeover import (
    FENCE,
    STATEMENT,
    ahead_of,
    loss_of,
    progress,
    proof_of_death,
)
from ansible_collections.elephaas.herd.plugins.module_utils.decide.timelines import (
    ANCESTOR,
    DIVERGED,
    UNKNOWN,
    relation,
)

# A walsender that has nothing to send speaks when half of wal_sender_timeout (60 s by default) has passed.
FRESH_S = 35.0


def not_proven_dead(situation: Situation) -> Iterator[Finding]:
    """Nothing says that the lost primary takes no writes."""
    source = situation.primary
    if source is None or proof_of_death(source, situation.wishes):
        return
    if not source.reachable:
        yield source.name, f"its host cannot be reached ({source.error}), which does not prove that it takes no writes"
    else:
        left = source.fact("leftovers")
        seen = (
            f"processes that its postmaster left behind can still write: {left}" if left else f"it is {source.status}"
        )
        yield source.name, f"its host answers, and {seen}: stop it there (mode immediate), or have it fenced"


def still_heard(situation: Situation) -> Iterator[Finding]:
    """Replicas that hear from a primary which is said to be dead."""
    source = situation.primary
    if source is None or proof_of_death(source, situation.wishes) != STATEMENT:
        return
    for member in situation.herd.members:
        age = member.fact("upstream", "last_message_age_s")
        if member.streaming and member.streams_from(source) and age is not None and float(age) < FRESH_S:
            yield member.name, f"it heard from {source.name} {human_seconds(float(age))} ago: somebody sends from there"


def not_fenced(situation: Situation) -> Iterator[Finding]:
    """What clients may do at the old primary when it comes back."""
    source, dns = situation.primary, situation.herd.dns or {}
    if source is None or proof_of_death(source, situation.wishes) != STATEMENT:
        return
    ttl = f"for up to {human_seconds(float(dns['ttl']))} (the TTL)" if dns.get("ttl") is not None else "from DNS"
    reason = (
        f"nothing keeps it from coming back: should its PostgreSQL start by itself, it takes writes of whoever still "
        f"uses its address, {ttl} or longer where an application caches it, until it is demoted; those commits are lost"
    )
    yield source.name, reason


def fenced(situation: Situation) -> Iterator[Finding]:
    """A hook is to fence the lost primary."""
    source = situation.primary
    if source is not None and proof_of_death(source, situation.wishes) == FENCE:
        yield source.name, "the fence hook is run first, and nothing is promoted unless it succeeds"


def loss(situation: Situation) -> Iterator[Finding]:
    """What will be lost."""
    source, candidate = situation.primary, situation.candidate
    if source is None or candidate is None:
        return
    found = loss_of(situation.herd, source, candidate)
    if found.size != 0 or not found.exact:
        yield situation.herd.name, f"commits that {candidate.name} has not received are lost: {found.text}"


def loss_beyond_bound(situation: Situation) -> Iterator[Finding]:
    """More is lost than the operator has allowed, or nobody knows."""
    source, candidate = situation.primary, situation.candidate
    if source is None or candidate is None:
        return
    found = loss_of(situation.herd, source, candidate)
    if found.size is None or found.size > situation.wishes.max_loss:
        yield situation.herd.name, f"the loss is {found.text}; the bound is {human_bytes(situation.wishes.max_loss)}"


def candidate_behind(situation: Situation) -> Iterator[Finding]:
    """Another member holds more than the one to be promoted."""
    source, candidate = situation.primary, situation.candidate
    if source is None or candidate is None:
        return
    for member in ahead_of(situation.herd, source, candidate):
        yield candidate.name, f"{member.name} holds more than it does"


def timelines_diverge(situation: Situation) -> Iterator[Finding]:
    """Members in recovery that are not of one history: positions of different histories cannot be compared."""
    candidate = situation.candidate
    if candidate is None:
        return
    for member in situation.herd.members:
        if member is candidate or not member.in_recovery or member.detached:
            continue
        found = relation(candidate.facts or {}, member.facts or {})
        beyond = found.kind == ANCESTOR and found.fork is not None and progress(member)[1] > found.fork
        if beyond or found.kind in (DIVERGED, UNKNOWN):
            yield member.name, f"its history and that of {candidate.name} have gone apart, or are not known"


def no_successor(situation: Situation) -> Iterator[Finding]:
    """No replica can take over."""
    if situation.candidate is None:
        reasons = "; ".join(f"{lost.name}: {lost.reason}" for lost in situation.choice.runners_up)
        yield situation.herd.name, f"no replica can take over ({reasons or 'the herd has a single member'})"


def unseen(situation: Situation) -> Iterator[Finding]:
    """Members besides the lost primary that nobody can look at: they may hold more than the candidate."""
    for member in situation.herd.members:
        if not member.reachable and member is not situation.primary and not member.detached:
            yield member.name, f"its host cannot be reached, and it may hold more than any other: {member.error}"
        elif member.status == "stopped" and member.role == "replica" and member is not situation.primary:
            yield member.name, "it is stopped, and may hold more than any other: start it first"
