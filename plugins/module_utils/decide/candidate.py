# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who would be promoted, and why not the others. Private to the collection.

Planned: every replica within the lag bounds is as good as the next as far as data goes, because the promotion waits
for the whole shutdown checkpoint record. So preference decides, not a few bytes of position: those flap under load.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd, Member
from ansible_collections.elephaas.herd.plugins.module_utils.decide.size import human_bytes, human_seconds


@dataclass(frozen=True)
class Wishes:
    """What the operator asked for, and the bounds that hold when nothing was asked.

    candidate: inventory name, or a server name, that must be promoted.
    leave: a data center whose members are no candidates at all.
    prefer: a data center that goes before all others.
    max_receive_lag, max_replay_lag: bytes.
    min_free: bytes free where the candidate's data directory is.
    max_ttl: seconds; a longer TTL of the vhost is shown as a warning.
    max_archive_backlog: WAL files of the primary that may wait for its archiver.
    max_transaction_age: seconds; older transactions are shown as a warning.
    accept: codes of acceptable refusals that the operator has accepted.
    dns: "update", or "skip" to leave DNS alone.
    without_registry: only the members' hosts tell who else acts; takeover: ignore leases there that are still running.
    token: of this run's own operation; None before it has one.
    dead: an operator's statement that the lost primary is dead, to be recorded. fence: a hook will make it so.
    max_loss: bytes that an unplanned failover may lose, as far as is known; unknown is more.
    """

    candidate: str = ""
    leave: str = ""
    prefer: str = ""
    max_receive_lag: int = 16 * 1024 * 1024
    max_replay_lag: int = 16 * 1024 * 1024
    min_free: int = 256 * 1024 * 1024
    max_ttl: int = 60
    max_archive_backlog: int = 16
    max_transaction_age: int = 300
    accept: tuple[str, ...] = ()
    dns: str = "update"
    without_registry: bool = False
    takeover: bool = False
    token: int | None = None
    dead: str = ""
    fence: bool = False
    max_loss: int = 16 * 1024 * 1024

    @property
    def declared(self) -> bool:
        """Somebody states that the recorded primary is dead, or a hook will see to it."""
        return bool(self.dead) or self.fence


@dataclass(frozen=True)
class Rejection:
    """Why a member is not the candidate."""

    code: str
    name: str
    reason: str


@dataclass(frozen=True)
class Choice:
    """The candidate (None when there is no fit one), why it won, and what was wrong with each of the others."""

    winner: Member | None = None
    why: str = ""
    runners_up: tuple[Rejection, ...] = field(default=())


def receive_lag(primary: Member, replica: Member) -> int | None:
    """Bytes the replica has still to receive; never negative (it may have been asked later). None when unknown."""
    current, received = primary.position("current"), replica.position("received")
    if current is None or received is None:
        return None
    return max(0, current - received)


def replay_lag(primary: Member, replica: Member) -> int | None:
    """Bytes the replica has still to replay, measured from the primary's position; None when unknown."""
    current, replayed = primary.position("current"), replica.position("replayed")
    if current is None or replayed is None:
        return None
    return max(0, current - replayed)


def unfit(primary: Member, replica: Member, upstream: Member | None, wishes: Wishes) -> Rejection | None:
    """The first reason for which this member cannot be promoted in a planned failover; None when it can."""
    for code, reason in _unfit_reasons(primary, replica, upstream, wishes):
        if reason:
            return Rejection(code, replica.name, reason)
    return None


def _unfit_reasons(primary: Member, replica: Member, upstream: Member | None, wishes: Wishes) -> list[tuple[str, Any]]:
    # A table, first match wins: what hides the later rows stands above them.
    settings = replica.fact("settings") or {}
    lag = receive_lag(primary, replica)
    behind = replay_lag(primary, replica)
    targets = sorted(
        name
        for name, value in settings.items()
        if name.startswith("recovery_target")
        and value
        and name not in ("recovery_target_timeline", "recovery_target_action", "recovery_target_inclusive")
    )
    delay = int(settings.get("recovery_min_apply_delay") or 0)
    follows = settings.get("recovery_target_timeline")
    free = replica.fact("disk", "free_bytes")
    return [
        ("UNREACHABLE", not replica.reachable and f"its host cannot be reached: {replica.error}"),
        ("DETACHED", replica.detached and "it is detached: promoted for a diagnosis, no longer part of the herd"),
        ("NOT_RUNNING", not replica.running and f"PostgreSQL is {replica.status}"),
        ("NOT_IN_RECOVERY", not replica.in_recovery and "it is not in recovery"),
        ("NOT_STREAMING", not replica.streaming and "it does not stream: no WAL receiver is running"),
        (
            "WRONG_UPSTREAM",
            upstream is not None
            and not replica.streams_from(upstream)
            and f"it streams from {replica.fact('upstream', 'host')}:{replica.fact('upstream', 'port')}, "
            f"the record says {upstream.name}",
        ),
        (
            "CASCADED",
            not replica.streams_from(primary)
            and "it does not stream from the primary itself, so it cannot see that the primary's last record was the last",
        ),
        ("REPLAY_PAUSED", replica.fact("replay_paused") and "its replay is paused"),
        ("RECOVERY_TARGET", targets and f"it has a recovery target: {', '.join(targets)}"),
        # Accepted, it is the check of the same code that shows it.
        (
            "APPLY_DELAY",
            delay
            and "APPLY_DELAY" not in wishes.accept
            and f"recovery_min_apply_delay is {human_seconds(delay / 1000)}",
        ),
        (
            "TIMELINE_PINNED",
            follows not in (None, "", "latest") and f"recovery_target_timeline is {follows}, not latest",
        ),
        ("BASE_BACKUP", replica.fact("base_backup_running") and "a base backup is being taken from it"),
        (
            "LAG_UNKNOWN",
            (lag is None or behind is None) and "its distance from the primary is not known",
        ),
        (
            "RECEIVE_LAG",
            lag is not None
            and lag > wishes.max_receive_lag
            and f"it has still to receive {human_bytes(lag)}, the bound is {human_bytes(wishes.max_receive_lag)}",
        ),
        (
            "REPLAY_LAG",
            behind is not None
            and behind > wishes.max_replay_lag
            and f"it has still to replay {human_bytes(behind)}, the bound is {human_bytes(wishes.max_replay_lag)}",
        ),
        (
            "DISK_LOW",
            free is not None
            and free < wishes.min_free
            and f"only {human_bytes(free)} are free on its disk, at least {human_bytes(wishes.min_free)} are wanted",
        ),
        (
            "LEFT_DATACENTER",
            bool(wishes.leave)
            and replica.datacenter == wishes.leave
            and f"it stands in {wishes.leave}, which is to be left",
        ),
    ]


def choose(herd: Herd, primary: Member, wishes: Wishes) -> Choice:
    """Pick the candidate of a planned failover.

    Raises OperatorError CANDIDATE_UNKNOWN when the one that was asked for is not a replica of this herd.
    """
    replicas = [member for member in herd.members if member.name != primary.name]
    asked = asked_for(herd, replicas, wishes.candidate)
    rejected: list[Rejection] = []
    fit: list[Member] = []
    for replica in sorted(replicas, key=lambda member: member.name):
        rejection = unfit(primary, replica, herd.member(replica.upstream), wishes)
        if rejection:
            rejected.append(rejection)
        else:
            fit.append(replica)
    if asked is not None:
        chosen = [member for member in fit if member.name == asked.name]
        rejected += [
            Rejection("NOT_ASKED", member.name, f"{asked.name} was asked for") for member in fit if member not in chosen
        ]
        if chosen:
            return Choice(chosen[0], "asked for", tuple(rejected))
        return Choice(None, "", tuple(rejected))
    ranked = sorted(fit, key=lambda member: [rank for rank, _wins in preference(primary, member, wishes)])
    if not ranked:
        return Choice(None, "", tuple(rejected))
    winner = ranked[0]
    lost = [Rejection("RUNNER_UP", member.name, advantage(primary, winner, member, wishes)) for member in ranked[1:]]
    if not lost:
        return Choice(winner, "the only fit replica", tuple(rejected))
    return Choice(winner, lost[0].reason, tuple(lost + rejected))


def asked_for(herd: Herd, replicas: list[Member], candidate: str) -> Member | None:
    """The replica that the operator names, None when none is named. Raises OperatorError CANDIDATE_UNKNOWN."""
    if not candidate:
        return None
    for member in replicas:
        if candidate in (member.name, member.server):
            return member
    raise OperatorError(
        "CANDIDATE_UNKNOWN",
        f"{candidate!r} is no replica of {herd.name}.",
        f"Name one of: {', '.join(member.name for member in replicas) or 'none, it has a single member'}.",
    )


def preference(primary: Member, member: Member, wishes: Wishes) -> list[tuple[Any, str]]:
    """What ranks replicas whose data is equally good."""
    # Sort keys, the smallest wins; with each, what to tell about it when it decides.
    row: dict[str, Any] = next(
        (row for row in primary.fact("replicas") or [] if row.get("client_addr") == member.address), {}
    )
    return [
        (
            0 if wishes.prefer and member.datacenter == wishes.prefer else 1,
            f"stands in the preferred data center {wishes.prefer}",
        ),
        (0 if member.datacenter != primary.datacenter else 1, "stands in another data center than the primary"),
        (-member.priority, f"has the higher priority {member.priority}"),
        (0 if row.get("sync_state") in ("sync", "quorum") else 1, "is synchronous"),
        (member.name, "goes first by name"),
    ]


def advantage(primary: Member, winner: Member, loser: Member, wishes: Wishes) -> str:
    """Why one replica goes before another, by the first preference in which they differ."""
    for (mine, wins), (other, _unused) in zip(preference(primary, winner, wishes), preference(primary, loser, wishes)):
        if mine != other:
            return f"{winner.name} {wins}"
    return f"{winner.name} goes first"
