# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a failover: what will happen to whom, and its id. Private to the collection.

The same plan is shown in check mode, agreed to at the gate, decided once more under the lock, and carried out.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Iterable

from ansible_collections.elephaas.herd.plugins.module_utils.decide.candidate import Choice, Wishes, choose
from ansible_collections.elephaas.herd.plugins.module_utils.decide.checks import run_checks
from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.findings import Situation
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd, Member, Operation
from ansible_collections.elephaas.herd.plugins.module_utils.decide.stage import (
    DONE,
    FINISH,
    PROMOTE,
    RESTORE,
    STUCK,
    SWITCH,
    TAKEOVER,
    Stage,
    stage_of,
)
from ansible_collections.elephaas.herd.plugins.module_utils.decide.takeover import (
    STATEMENT,
    loss_of,
    proof_of_death,
    rank,
)
from ansible_collections.elephaas.herd.plugins.module_utils.decide.verdict import (
    REFUSE,
    WARN,
    Verdict,
    accept,
    most_severe_first,
    worst,
)
from ansible_collections.elephaas.herd.plugins.module_utils.decide.vhost import dns_value

GO = "go"

#: What can happen to a member, for people.
ACTIONS = {
    "promote": "becomes the primary",
    "rejoin": "is stopped and comes back as a replica",
    "follow": "follows the new primary",
    "verify": "keeps its upstream, and is seen on the new timeline",
    "point": "stays stopped, and is pointed at the new primary",
    "leave": "is left as it is",
    "supersede": "is superseded: it must not come up writable any more",
    "keep": "stays the primary",
}


@dataclass(frozen=True)
class Move:
    """What happens to one member. upstream: whom it streams from afterwards, as an inventory name."""

    name: str
    action: str
    upstream: str | None = None


def plan_failover(herd: Herd, wishes: Wishes, confirm: str = "") -> dict[str, Any]:
    """Decide the failover of one herd.

    confirm: the plan id that the operator gave, if any; only used to recognise a finished run.
    Returns plain data, described in the documentation of elephaas.herd.failover_plan_info.
    """
    stage = stage_of(herd, confirm, wishes.declared)
    if stage.name == DONE:
        return _document(Situation(herd, stage, wishes), [], [])
    choice, problem = _choice(herd, stage, wishes)
    situation = Situation(herd, stage, wishes, choice)
    verdicts = accept(([problem] if problem else []) + run_checks(situation), wishes.accept)
    return _document(situation, verdicts, _moves(situation))


def unplannable(name: str, lead: str, reason: str) -> dict[str, Any]:
    """The plan of a herd about which nothing can be decided, so that the others can go on without it."""
    herd = Herd(name, name, "", lead, ())
    found = Verdict("INTERNAL_ERROR", REFUSE, name, reason, "Report it, with the herd's row in the registry.")
    return _document(Situation(herd, Stage(STUCK, reason)), [found], [])


def _choice(herd: Herd, stage: Stage, wishes: Wishes) -> tuple[Choice, Verdict | None]:
    source = stage.source
    try:
        if stage.name == TAKEOVER and stage.target is None and source is not None:
            return rank(herd, source, wishes), None
        if stage.name == SWITCH and source is not None and [one.name for one in herd.writable] == [source.name]:
            return choose(herd, source, wishes), None
    except OperatorError as error:
        return Choice(), Verdict(error.code, REFUSE, herd.name, error.reason, error.next_step)
    return Choice(), None


def _moves(situation: Situation) -> list[Move]:
    herd, stage = situation.herd, situation.stage
    members = sorted(herd.members, key=lambda member: member.name)
    if stage.name == RESTORE and stage.source is not None:
        return [_restored(member, stage.source) for member in members]
    if situation.candidate is None:
        return []
    return [_move(member, stage, situation.candidate) for member in members]


def _restored(member: Member, primary: Member) -> Move:
    if member is primary:
        return Move(member.name, "keep")
    if member.role != "replica" or not member.in_recovery:
        return Move(member.name, "leave", member.upstream)
    return Move(member.name, "follow", member.upstream or primary.name)


def _move(member: Member, stage: Stage, target: Member) -> Move:
    source = stage.source.name if stage.source else None
    if member.name == target.name:
        return Move(member.name, "promote")
    if member.name == source and stage.unplanned and not member.in_recovery:
        return Move(member.name, "supersede")
    if member.role in ("detached", "superseded") or not member.reachable or member.status == "absent":
        return Move(member.name, "leave", member.upstream)
    if member.name == source:
        return Move(member.name, "rejoin", target.name)
    keeps = member.keeps_upstream(source, target)
    upstream = member.upstream if keeps else target.name
    if member.status == "stopped":
        return Move(member.name, "leave" if keeps else "point", upstream)
    return Move(member.name, "verify" if keeps else "follow", upstream)


def _dns_change(situation: Situation) -> dict[str, Any] | None:
    herd, target, probe = situation.herd, situation.candidate, situation.herd.dns
    if situation.wishes.dns == "skip" or not herd.vhost or not probe or probe.get("error") or target is None:
        return None
    values = probe.get("values") or []
    return {
        "record": herd.vhost,
        "type": probe.get("type"),
        "ttl": probe.get("ttl"),
        "from": values[0] if len(values) == 1 else ", ".join(values),
        "to": dns_value(target, str(probe.get("type"))),
    }


def _slots(herd: Herd, moves: Iterable[Move]) -> list[str]:
    """Names of the physical slots that followers will use on the new primary: their present ones."""
    names = []
    for move in moves:
        member = herd.member(move.name)
        if member is not None and move.action in ("follow", "rejoin"):
            names += member.own_slots
    return sorted(set(names))


def _left_slots(herd: Herd, stage: Stage) -> list[str]:
    """Slots of the herd's own members on the old primary. As a replica it would keep WAL for them until its disk is full."""
    if stage.source is None:
        return []
    ours = {name for member in herd.members for name in member.own_slots}
    # A cascade that keeps streaming from the old primary's host needs its slot there.
    kept = {
        name
        for member in herd.members
        if member.upstream == stage.source.name and member.detached
        for name in member.own_slots
    }
    present = {slot["name"] for slot in stage.source.fact("slots") or [] if slot.get("type") == "physical"}
    return sorted((ours - kept) & present)


def _document(situation: Situation, verdicts: list[Verdict], moves: list[Move]) -> dict[str, Any]:
    herd, stage, wishes, choice = situation.herd, situation.stage, situation.wishes, situation.choice
    source, target = stage.source, situation.candidate
    begun = _continued(stage, target)
    # Whom the others follow afterwards.
    primary = source if stage.name == RESTORE else target
    outcome = DONE if stage.name == DONE else REFUSE if worst(verdicts) == REFUSE else GO
    loss = loss_of(herd, source, target) if stage.name == TAKEOVER and source and target else None
    plan = {
        "herd": herd.name,
        "lead": herd.lead,
        "vhost": herd.vhost,
        "verb": "failover",
        "protected": herd.protected,
        "asks": True,
        "outcome": outcome,
        "stage": stage.name,
        "unplanned": stage.unplanned,
        "why": stage.why,
        "begun_plan_id": begun.plan_id if begun else None,
        "begun_target": begun.target if begun else None,
        "agreed": begun.decisions if begun else None,
        "source": source.name if source else None,
        "target": target.name if target else None,
        "target_why": choice.why or ("chosen by the run that began" if stage.target else ""),
        "runners_up": [asdict(lost) for lost in choice.runners_up],
        "dns": _dns_change(situation),
        "moves": [asdict(move) for move in moves],
        "slots": _slots(herd, moves),
        "left_slots": _left_slots(herd, stage),
        "verdicts": [verdict.as_dict() for verdict in most_severe_first(verdicts)],
        "accepted": sorted(
            {verdict.code for verdict in verdicts if verdict.level == WARN and verdict.acceptable} & set(wishes.accept)
        ),
        "accept": sorted(wishes.accept),
        "armed": source is not None and "standby.signal" in (source.fact("signal_files") or []),
        "proof": proof_of_death(source, wishes) if stage.name == TAKEOVER and source else None,
        "statement": wishes.dead,
        "loss": {**asdict(loss), "text": loss.text} if loss else None,
        "way_back": herd.way_back,
        "token_floor": herd.highest_token,
        "system_identifier": primary.fact("system_identifier") if primary else None,
        "timeline": primary.fact("timeline") if primary else None,
        "replication_user": _replication_user(herd, primary) if primary else None,
        "roles": _roles_after(herd, moves),
    }
    return {**plan, "decisions": decisions(plan)}


def _continued(stage: Stage, target: Member | None) -> Operation | None:
    """The operation that this plan goes on with, whose agreement holds for it too."""
    operation = stage.operation
    if stage.name in (PROMOTE, FINISH, DONE, RESTORE):
        return operation
    if stage.name == TAKEOVER and operation and operation.unplanned and target and operation.target == target.name:
        return operation
    return None


def _replication_user(herd: Herd, target: Member) -> str | None:
    """The role to replicate as: on record, or what the replicas use now."""
    if target.replication_user:
        return target.replication_user
    used = [member.fact("upstream", "user") for member in (target, *herd.members)]
    return next((user for user in used if user), None)


def _roles_after(herd: Herd, moves: Iterable[Move]) -> dict[str, dict[str, str | None]]:
    """The roles to record once the plan is done: server -> role and upstream_server."""
    servers = {member.name: member.server for member in herd.members}
    roles: dict[str, dict[str, str | None]] = {}
    for move in moves:
        role = {"promote": "primary", "supersede": "superseded", "leave": "", "keep": ""}.get(move.action, "replica")
        if role:
            upstream = servers.get(move.upstream or "") if role == "replica" else None
            roles[servers[move.name]] = {"role": role, "upstream_server": upstream}
    return roles


def decisions(plan: dict[str, Any]) -> dict[str, Any]:
    """What the operator agrees to: who, to where, what happens to whom, which refusals were accepted.

    Never positions, lag or bytes: they differ at every look, and an id over them could never be confirmed.
    """
    dns = plan["dns"]
    return {
        "herd": plan["herd"],
        "outcome": plan["outcome"],
        "source": plan["source"],
        "target": plan["target"],
        "unplanned": plan["unplanned"],
        "proof": plan["proof"],
        "statement": plan["statement"] if plan["proof"] == STATEMENT else "",
        "dns": [_canonical(dns[key]) for key in ("record", "type", "from", "to")] if dns else None,
        "moves": sorted([move["name"], move["action"], move["upstream"] or ""] for move in plan["moves"]),
        "slots": plan["slots"],
        # As given, and not as found: what comes and goes with time, such as a backlog, must not make it another plan.
        "accept": plan["accept"],
        "refused": sorted({verdict["code"] for verdict in plan["verdicts"] if verdict["level"] == REFUSE}),
    }


def _canonical(value: Any) -> Any:
    return value.lower().rstrip(".") if isinstance(value, str) else value


def plan_id(plans: Iterable[dict[str, Any]]) -> str:
    """ "p" and eight hex digits over the decisions for all herds. A leading letter keeps it a string in YAML."""
    # What was agreed to for a herd stays part of the id while that herd goes through it, so that the command which
    # was interrupted half way through forty herds gives the same id again.
    rows = [plan["agreed"] or plan["decisions"] for plan in plans]
    text = json.dumps(sorted(rows, key=lambda row: row["herd"]), sort_keys=True)
    return "p" + hashlib.sha256(text.encode()).hexdigest()[:8]


#: The stages in which the remaining part of a plan is the same plan.
_ONWARD = {SWITCH: (PROMOTE, FINISH), PROMOTE: (FINISH,), TAKEOVER: (FINISH,)}


def changed_decisions(confirmed: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What a second look decides otherwise, in words; empty when the confirmed plan still stands.

    A stage that has moved on in the confirmed direction is no change: the run that began is being finished.
    """
    before, after = decisions(confirmed), decisions(now)
    if now["stage"] != confirmed["stage"]:
        if now["stage"] not in _ONWARD.get(confirmed["stage"], ()):
            # Such as a primary that has crashed since: what would now be lost is nothing that anybody has agreed to.
            return [f"stage: {confirmed['stage']} became {now['stage']} ({now['why']})"]
        # The remaining part of the same plan: only who becomes primary must be the same.
        keys: tuple[str, ...] = ("herd", "target", "unplanned")
    else:
        keys = tuple(before)
    return [f"{key}: {before[key]} became {after[key]}" for key in keys if before[key] != after[key]]
