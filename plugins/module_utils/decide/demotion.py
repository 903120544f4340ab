# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a member may become a replica of the herd's live primary, and what that costs. Private to the collection.

It takes writes away from one member and gives none to another, so the only thing to get right is whose writes those are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Collection

from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd, Member
from ansible_collections.elephaas.herd.plugins.module_utils.decide.split_brain import (
    alone_text,
    demote_command,
    rightful,
)
from ansible_collections.elephaas.herd.plugins.module_utils.decide.timelines import (
    ANCESTOR,
    DESCENDANT,
    parting,
    relation,
)
from ansible_collections.elephaas.herd.plugins.module_utils.decide.verdict import REFUSE, WARN, Verdict


@dataclass
class Demotion:
    """What is to be done with one member.

    skip, left: why nothing has to be done, or can be done now. follows: whom it follows, as a step of the plan takes it:
    {"upstream": inventory name, "upstream_user", "timeline", "history", "recorded": upstream is put on record as the
    primary}.
    """

    skip: str = ""
    left: str = ""
    follows: dict[str, Any] | None = None
    verdicts: list[Verdict] = field(default_factory=list)


def demotion(herd: Herd, member: Member, selected: Collection[str]) -> Demotion:
    """Decide for one selected member that could be looked at. selected: all that the run is to demote."""
    replica = member.fact("role") == "replica" and bool(member.fact("signal_files"))
    if replica and member.role == "replica":
        return Demotion(skip="it is a replica" if member.running else "it is a stopped replica, and start brings it up")
    if member.status in ("starting", "stopping"):
        return Demotion(left=f"it is {member.status}")
    if member.fact("sql_error"):
        return Demotion(left=f"it does not answer ({member.fact('sql_error')}): stop it first")
    primary, refusal = _live_primary(herd, member, selected)
    if primary is None or refusal is not None:
        return Demotion(verdicts=[refusal] if refusal else [])
    if replica and not member.running and parting(member.facts or {}, primary.facts or {}).diverged:
        return Demotion(skip="it is stopped, can only come up read-only, and has diverged: it needs a resync")
    found = relation(member.facts or {}, primary.facts or {})
    verdicts = [*_wrong_way(member, primary, found.kind), *_subscribers(member, primary, found.kind)]
    verdicts += _costs(herd, member, primary)
    follows = {
        "upstream": primary.name,
        "upstream_user": herd.replication_user(primary),
        "timeline": primary.fact("timeline"),
        "history": primary.fact("timeline_history") or [],
        # Without a primary on record the herd would be found by no limit.
        "recorded": member.role == "primary",
    }
    return Demotion(follows=follows, verdicts=verdicts)


def _refused(code: str, member: Member, reason: str, next_step: str = "") -> Verdict:
    return Verdict(code, REFUSE, member.name, reason, next_step)


def _live_primary(herd: Herd, member: Member, selected: Collection[str]) -> tuple[Member | None, Verdict | None]:
    others = [
        other
        for other in herd.writable
        if other.name != member.name and other.role != "superseded" and not other.fact("sql_error")
    ]
    chosen = [other.name for other in others if other.name in selected]
    if member.writable and chosen:
        return None, _refused(
            "MORE_THAN_ONE",
            member,
            f"{', '.join(chosen)} accepts writes too, and is selected as well: nobody would be left",
            "Limit the run to the one that is to become a replica.",
        )
    # Nobody is to follow one that this very run makes a replica.
    others = [other for other in others if other.name not in selected] or others
    if not others:
        # One that was detached for a diagnosis is not the herd's only primary, but it has nobody to follow either.
        if member.writable and not member.detached:
            return None, _refused(
                "ONLY_PRIMARY",
                member,
                "it is the only member that accepts writes",
                "To move the primary, use failover.",
            )
        return None, _refused(
            "NO_PRIMARY", member, "no other member accepts writes, so there is none to follow", "Bring the primary up."
        )
    if len(others) > 1:
        right, why = rightful(herd, others)
        if right is None:
            names = ", ".join(other.name for other in others)
            return None, _refused(
                "SPLIT_BRAIN", member, f"which of {names} it should follow cannot be told: {why}", "Demote those first."
            )
        return right, None
    return others[0], None


def _wrong_way(member: Member, primary: Member, kind: str) -> list[Verdict]:
    """The one that is right must not be demoted for the sake of the one that is not."""
    if kind != DESCENDANT and primary.role != "primary" and member.role not in ("superseded", "detached"):
        return [
            _refused(
                "NOT_OVERTAKEN",
                member,
                f"nothing shows that {primary.name} took over from it: no timeline there began from its own, and the "
                "record does not say so",
                f"Where {primary.name} is the wrong one: {demote_command(primary.name)}",
            )
        ]
    if kind == ANCESTOR and not member.detached:
        return [
            Verdict(
                "NEWER_TIMELINE",
                WARN,
                member.name,
                f"its timeline is the newer one, as after a failover from {primary.name}: only right if it was promoted "
                "by mistake",
                "",
            )
        ]
    return []


def _subscribers(member: Member, primary: Member, kind: str) -> list[Verdict]:
    senders = [str(one.get("application_name")) for one in member.fact("replicas") or [] if not one.get("backup")]
    if not senders:
        return []
    # Out of a split brain there is no other way; the new primary itself, promoted, does not stream any more.
    if kind == DESCENDANT or member.role == "superseded":
        return [
            Verdict(
                "SUBSCRIBERS",
                WARN,
                member.name,
                f"{', '.join(senders)} streams from it, and stays behind on its timeline",
                f"Point them at {primary.name} with follow.",
            )
        ]
    return [
        _refused(
            "SUBSCRIBERS",
            member,
            f"{', '.join(senders)} streams from it",
            f"Point them at {primary.name} with follow first.",
        )
    ]


def _costs(herd: Herd, member: Member, primary: Member) -> list[Verdict]:
    stops = "it is stopped and becomes" if member.running else "it becomes"
    clients = member.fact("clients") or 0
    used = f"; it has {clients} client{'' if clients == 1 else 's'}" if clients else ""
    found = [Verdict("DEMOTES", WARN, member.name, f"{stops} a replica of {primary.name}{used}", "")]
    apart = parting(member.facts or {}, primary.facts or {})
    if apart.diverged:
        found.append(
            Verdict(
                "DIVERGED",
                WARN,
                member.name,
                f"it {alone_text(apart)}, which {primary.name} does not have: it cannot follow as it is. Nothing is "
                "destroyed: it stays stopped, and can only come up read-only",
                "What only it holds is lost when it is rebuilt (resync with discard_divergent=true): save it first.",
            )
        )
    elif apart.diverged is None:
        found.append(
            Verdict(
                "DIVERGED",
                WARN,
                member.name,
                f"whether it holds what {primary.name} does not have is found out once it is stopped: if so, it stays "
                "stopped, and can only come up read-only",
                "",
            )
        )
    if member.role == "primary":
        leads = f"; see that {herd.vhost} leads there, which is not changed by this" if herd.vhost else ""
        found.append(Verdict("RECORDED", WARN, primary.name, f"it is put on record as the herd's primary{leads}", ""))
    return found
