# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who takes over when the primary is lost, what that may cost, and what proves the death. Private to the collection.

Unplanned, data decides before any preference: timeline history first, then the larger of the received and the replayed
position (the received one restarts at a segment boundary after a restart of the replica, so it can be the smaller).
"""

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.elephaas.herd.plugins.module_utils.decide.candidate import (
    Choice,
    Rejection,
    Wishes,
    advantage,
    asked_for,
    preference,
)
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd, Member
from ansible_collections.elephaas.herd.plugins.module_utils.decide.lsn import format_lsn, parse_lsn
from ansible_collections.elephaas.herd.plugins.module_utils.decide.size import human_bytes

#: What the proof of death can be; the plan's id covers which one it is.
STOPPED = "stopped"
FENCE = "fence"
STATEMENT = "statement"


@dataclass(frozen=True)
class Loss:
    """What the old primary has committed, as far as is known, and the new one does not hold.

    size: bytes of WAL; None when no position of the old primary is known at all. exact: it cannot be more.
    as_of: when the old primary's position was that.
    """

    size: int | None
    exact: bool = False
    as_of: str = ""

    @property
    def text(self) -> str:
        """In words."""
        if self.size is None:
            return "unknown: no position of the old primary is on record"
        if self.exact:
            return f"{human_bytes(self.size)}, by the old primary's own control file" if self.size else "nothing"
        return f"at least {human_bytes(self.size)} as of {self.as_of}; what it wrote later is not known"


def proof_of_death(source: Member, wishes: Wishes) -> str:
    """What proves, or will prove before anything is promoted, that the old primary takes no writes; "" for nothing.

    Seen stopped counts because the run holds it stopped: it can only come up read-only from then on. "Cannot be
    reached" proves nothing, and replicas of a frozen primary still show "streaming" (reproduced).
    """
    # Backends that outlived their postmaster go on acknowledging commits.
    stopped = source.status == "stopped" and not source.fact("leftovers")
    if source.reachable and (stopped or source.in_recovery):
        return STOPPED
    if wishes.fence:
        return FENCE
    # Where its host answers, it can be seen to: a word is not enough.
    return STATEMENT if wishes.dead and not source.reachable else ""


def progress(member: Member) -> tuple[int, int]:
    """How far a replica has come: its timeline, and the larger of what it received and replayed."""
    received, replayed = member.position("received"), member.position("replayed")
    timeline = member.fact("upstream", "receiver_timeline") or member.fact("timeline") or 0
    return max(int(timeline), int(member.fact("timeline") or 0)), max(received or 0, replayed or 0)


def rank(herd: Herd, source: Member, wishes: Wishes) -> Choice:
    """Pick the most advanced replica; the old primary itself where it came up read-only and is ahead of all.

    Raises OperatorError CANDIDATE_UNKNOWN when the one that was asked for is not a member of this herd.
    """
    replicas = [member for member in herd.members if member.name != source.name or member.in_recovery]
    asked = asked_for(herd, replicas, wishes.candidate)
    rejected, fit = [], []
    for member in sorted(replicas, key=lambda member: member.name):
        reason = _unfit(member, wishes)
        if reason:
            rejected.append(Rejection("UNFIT", member.name, reason))
        else:
            fit.append(member)
    if asked is not None:
        rejected += [
            Rejection("NOT_ASKED", member.name, f"{asked.name} was asked for") for member in fit if member != asked
        ]
        return Choice(asked if asked in fit else None, "asked for", tuple(rejected))
    if not fit:
        return Choice(None, "", tuple(rejected))
    best = max(progress(member) for member in fit)
    equal = [member for member in fit if progress(member) == best]
    ranked = sorted(equal, key=lambda member: [key for key, _wins in preference(source, member, wishes)])
    winner = ranked[0]
    lost = [Rejection("RUNNER_UP", member.name, advantage(source, winner, member, wishes)) for member in ranked[1:]]
    lost += [Rejection("BEHIND", member.name, _behind(progress(member), best)) for member in fit if member not in equal]
    why = f"the most advanced: {_place(best)}" if len(equal) < len(fit) or len(fit) == 1 else lost[0].reason
    return Choice(winner, why, tuple(lost + rejected))


def _unfit(member: Member, wishes: Wishes) -> str:
    if not member.reachable:
        return f"its host cannot be reached: {member.error}"
    if member.role in ("detached", "superseded"):
        return f"it is {member.role}"
    if not member.in_recovery:
        return f"PostgreSQL is {member.status}" if not member.running else "it is not in recovery"
    if wishes.leave and member.datacenter == wishes.leave:
        return f"it stands in {wishes.leave}, which is to be left"
    if member.fact("base_backup_running"):
        return "a base backup is being taken from it"
    return ""


def _place(at: tuple[int, int]) -> str:
    return f"timeline {at[0]}, {format_lsn(at[1])}"


def _behind(at: tuple[int, int], best: tuple[int, int]) -> str:
    if at[0] < best[0]:
        return f"it is on timeline {at[0]}, behind {_place(best)}"
    return f"it is {human_bytes(best[1] - at[1])} behind {_place(best)}"


def ahead_of(herd: Herd, source: Member, target: Member) -> list[Member]:
    """Reachable members in recovery that hold more than the one to be promoted."""
    return [
        member
        for member in herd.members
        if member is not target
        and not member.detached
        and (member is not source or member.in_recovery)
        and member.in_recovery
        and progress(member) > progress(target)
    ]


def loss_of(herd: Herd, source: Member, target: Member) -> Loss:
    """What is lost when the target takes over, from the newest position of the old primary that anybody knows."""
    held = progress(target)[1]
    if source.name == target.name:
        return Loss(0, exact=True)
    ended = source.fact("control", "checkpoint_lsn")
    if ended and source.status == "stopped" and source.fact("control", "state") == "shut down":
        # The shutdown checkpoint is its last record: who has come past its start holds everything before it.
        return Loss(max(0, parse_lsn(ended) - held), exact=True)
    known = [
        (parse_lsn(end), "the last word that reached a replica")
        for end in (member.fact("upstream", "latest_end_lsn") for member in herd.members)
        if end
    ]
    if source.recorded_lsn:
        known.append((parse_lsn(source.recorded_lsn), source.last_seen or "an unknown time"))
    if ended:
        known.append((parse_lsn(ended), "its last checkpoint"))
    if not known:
        return Loss(None)
    position, as_of = max(known)
    return Loss(max(0, position - held), False, as_of)
