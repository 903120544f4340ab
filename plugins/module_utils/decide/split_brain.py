# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several members accept writes: which is the right one, where the facts tell, and what to do. Private to the collection."""

from __future__ import annotations

from typing import Iterable

from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd, Member
from ansible_collections.elephaas.herd.plugins.module_utils.decide.lsn import format_lsn
from ansible_collections.elephaas.herd.plugins.module_utils.decide.size import human_bytes
from ansible_collections.elephaas.herd.plugins.module_utils.decide.stage import finished_failover
from ansible_collections.elephaas.herd.plugins.module_utils.decide.timelines import (
    DESCENDANT,
    Parting,
    parting,
    relation,
)
from ansible_collections.elephaas.herd.plugins.module_utils.decide.verdict import REFUSE, Verdict


def demote_command(name: str) -> str:
    """What an operator types to make that instance a replica."""
    return f"ansible-playbook elephaas.herd.demote --limit {name}"


def rightful(herd: Herd, rivals: Iterable[Member]) -> tuple[Member | None, str]:
    """Which of these writable members is the herd's primary, and how that is known; None, and why nobody can tell."""
    rivals = list(rivals)
    left = [member for member in rivals if member.role != "superseded"]
    if len(left) == 1:
        return left[0], "a failover has superseded the others" if len(rivals) > 1 else "it is the only one"
    newest = [one for one in left if all(_took_over(one, other) for other in left if other is not one)]
    recorded = [member for member in left if member.role == "primary"]
    finished = finished_failover(herd)
    if newest and finished and finished.target == newest[0].name:
        return newest[0], f"a failover from {finished.source} to it is done"
    if newest and recorded and newest != recorded:
        return None, (
            f"the timeline of {newest[0].name} is the newest, which is right after a failover, and "
            f"{recorded[0].name} is the recorded primary, which is right if the other one was promoted by mistake"
        )
    if newest:
        return newest[0], "its timeline began from those of all others"
    if recorded:
        return recorded[0], "it is the recorded primary, and no timeline speaks against it"
    return None, "no timeline began from all others, and none of them is the recorded primary"


def _took_over(member: Member, other: Member) -> bool:
    return relation(other.facts or {}, member.facts or {}).kind == DESCENDANT


def split_brain(herd: Herd) -> Verdict:
    """What is so, since when, and the command to run next. The herd has at least two writable members."""
    right, why = rightful(herd, herd.writable)
    said = [f"{len(herd.writable)} members accept writes: {', '.join(_described(one) for one in herd.writable)}"]
    if right is None:
        said += _partings(herd.writable, herd.writable)
        said.append(f"which one is right cannot be told: {why}")
        commands = " or ".join(demote_command(one.name) for one in herd.writable)
        return Verdict("SPLIT_BRAIN", REFUSE, herd.name, "; ".join(said), f"Demote the wrong one: {commands}")
    wrong = [member for member in herd.writable if member is not right]
    said.insert(1, f"{right.name} is the right one, because {why}")
    said += _partings(wrong, [right])
    commands = ", then ".join(demote_command(one.name) for one in wrong)
    return Verdict("SPLIT_BRAIN", REFUSE, herd.name, "; ".join(said), f"Run: {commands}")


def _described(member: Member) -> str:
    recorded = f"recorded {member.role}" if member.role != "replica" else "recorded as a replica"
    clients = member.fact("clients") or 0
    used = f", {clients} client{'' if clients == 1 else 's'}" if clients else ""
    return f"{member.name} (timeline {member.fact('timeline') or '?'}, {recorded}{used})"


def _partings(members: Iterable[Member], others: Iterable[Member]) -> list[str]:
    found = [
        (one, parting(one.facts or {}, other.facts or {})) for one in members for other in others if one is not other
    ]
    return [f"{one.name} {alone_text(apart)}" for one, apart in found if apart.fork is not None]


def alone_text(apart: Parting) -> str:
    """Since when an instance has been on its own, and how much it has written since; for the end of a sentence."""
    if apart.fork is None:
        return "has been on its own since nobody knows when"
    since = f"has been on its own since {format_lsn(apart.fork)}"
    if apart.alone is None:
        return f"{since}, and how much it has written past that is not known"
    if not apart.alone:
        return f"{since}, and has written nothing past that"
    return f"{since}, and has written {counted_bytes(apart.alone)} of WAL past that"


def counted_bytes(count: int) -> str:
    """In bytes, and in a unit that says something to people."""
    return f"{count} bytes" if count < 1024 else f"{count} bytes ({human_bytes(count)})"
