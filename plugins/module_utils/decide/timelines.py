# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the timelines of two instances of one herd relate, and what one of them holds alone. Private to the collection.

By history, never by number: two replicas that are promoted apart from each other take the same number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping

from ansible_collections.elephaas.herd.plugins.module_utils.decide.lsn import parse_lsn, record_end

#: The state of an instance that stopped (or was killed) while in recovery: without a signal file it would start
#: writable, on the timeline of the primary that it followed.
RECOVERY_STATES = ("shut down in recovery", "in archive recovery")

SAME = "same"
DESCENDANT = "descendant"
ANCESTOR = "ancestor"
DIVERGED = "diverged"
UNKNOWN = "unknown"

# xl_tot_len of a checkpoint record: its header, that of its data, and the CheckPoint itself (access/xlogrecord.h,
# catalog/pg_control.h).
_CHECKPOINT_LENGTH = 24 + 2 + 88
_SEGMENT_SIZE = 16 * 1024 * 1024

Facts = Mapping[str, Any]
"""Of an instance, as instance_info gives them; timeline and timeline_history are enough for a relation."""


@dataclass(frozen=True)
class Relation:
    """What the other one's timeline is to this one's.

    DESCENDANT: it began from this very timeline. ANCESTOR: this one began from it, at once or over others. DIVERGED: both
    began from a third, and have gone apart. fork: the position in bytes at which they part; None when nobody knows.
    """

    kind: str
    fork: int | None = None


@dataclass(frozen=True)
class Parting:
    """What an instance has written that the other one does not have.

    diverged: it cannot follow the other one as it is; None when that cannot be told. fork: since which position, and
    alone: how many bytes of WAL; None when unknown.
    """

    diverged: bool | None
    fork: int | None = None
    alone: int | None = None


def relation(own: Facts, other: Facts) -> Relation:
    """Compare two histories. Of two that are the same nobody can say that both have not been written to apart."""
    mine, theirs = _lineage(own), _lineage(other)
    if mine is None or theirs is None:
        return _without_history(own.get("timeline"), other.get("timeline"))
    fork: int | None = None
    for (timeline, end), (their_timeline, their_end) in zip(mine, theirs):
        if timeline != their_timeline:
            # Both began at the end of what they share; with nothing shared, a history has a gap.
            return Relation(UNKNOWN if fork is None else DIVERGED, fork)
        if end is None or their_end is None:
            break
        fork = min(end, their_end)
        if end != their_end:
            return Relation(DIVERGED, fork)
    if end is None and their_end is None:
        return Relation(SAME)
    return Relation(DESCENDANT, their_end) if end is None else Relation(ANCESTOR, end)


def _lineage(facts: Facts) -> list[tuple[int, int | None]] | None:
    """Each timeline that led here, and where it was left; the last one goes on. None when its history is not there."""
    timeline, history = facts.get("timeline"), facts.get("timeline_history") or []
    if not timeline or (timeline > 1 and not history):
        return None
    left: list[tuple[int, int | None]] = [(entry["timeline"], parse_lsn(entry["switch_lsn"])) for entry in history]
    return [*left, (int(timeline), None)]


def _without_history(own: int | None, other: int | None) -> Relation:
    # Of one system identifier, everything began from timeline 1.
    if own == 1 and other and other > 1:
        return Relation(DESCENDANT)
    if other == 1 and own and own > 1:
        return Relation(ANCESTOR)
    return Relation(UNKNOWN)


def parting(own: Facts, other: Facts) -> Parting:
    """What this instance holds that the other one, which is further on, does not."""
    found = relation(own, other)
    end = wal_end(own)
    alone = max(0, end - found.fork) if end is not None and found.fork is not None else None
    if found.kind == DESCENDANT:
        past = _past(own, found.fork, alone)
        return Parting(past, found.fork, 0 if past is False else alone)
    if found.kind == SAME:
        # In recovery it has written nothing by itself. Otherwise both may have, and no history shows where they part.
        return Parting(False if _follows(own) else None)
    if found.kind == UNKNOWN:
        return Parting(None)
    # At least the record of its own promotion.
    return Parting(True, found.fork, alone)


def _past(own: Facts, fork: int | None, alone: int | None) -> bool | None:
    control = own.get("control") or {}
    if fork is not None and own.get("status") != "running" and control.get("state") == "shut down":
        # Where its last record begins, and not where it ends: how long it is differs between versions.
        return parse_lsn(control["checkpoint_lsn"]) >= fork if control.get("checkpoint_lsn") else None
    return None if alone is None else alone > 0


def _follows(facts: Facts) -> bool:
    if facts.get("status") == "running":
        return not facts.get("writable")
    return (facts.get("control") or {}).get("state") in RECOVERY_STATES


def wal_end(facts: Facts) -> int | None:
    """Where its WAL ends, in bytes; None when that is not known, as after a crash."""
    positions, control = facts.get("positions") or {}, facts.get("control") or {}
    if facts.get("status") == "running":
        known = [
            parse_lsn(text) for text in (positions.get(key) for key in ("current", "received", "replayed")) if text
        ]
        return max(known, default=None)
    if control.get("state") == "shut down" and control.get("checkpoint_lsn"):
        # The checkpoint of a shutdown is the last thing that is written.
        size = int(control.get("wal_segment_size") or _SEGMENT_SIZE)
        return record_end(parse_lsn(control["checkpoint_lsn"]), _CHECKPOINT_LENGTH, size)
    if control.get("state") == "shut down in recovery" and control.get("min_recovery_end_lsn"):
        return parse_lsn(control["min_recovery_end_lsn"]) or None
    return None


def starts_on_its_upstreams_timeline(facts: Facts) -> bool:
    """Whether its next start is that of a second primary on the same timeline: a replica that lost its signal file."""
    if facts.get("signal_files"):
        return False
    if facts.get("status") == "running":
        return facts.get("role") == "replica"
    return (facts.get("control") or {}).get("state") in RECOVERY_STATES
