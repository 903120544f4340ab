# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What start, stop, restart, reload, a diagnostic promote and demote do to the selected members of a herd. Private.

Pure: the same plan is shown in check mode, agreed to at the gate, and carried out step by step. Every host checks what
its step expects once more, so that a situation which has changed since stops its herd and no other.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Callable, Iterable

from ansible_collections.elephaas.herd.plugins.module_utils.decide.bulk_findings import (
    ASKING,
    config_errors,
    herd_findings,
    interrupts,
    stays_writable,
    unfit_for_diagnosis,
    unfit_for_restart,
    would_write,
)
from ansible_collections.elephaas.herd.plugins.module_utils.decide.demotion import demotion
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd, Member
from ansible_collections.elephaas.herd.plugins.module_utils.decide.plan import GO
from ansible_collections.elephaas.herd.plugins.module_utils.decide.stage import DONE, closed_failovers
from ansible_collections.elephaas.herd.plugins.module_utils.decide.standby_settings import (
    PRIMARY_FIRST,
    STANDBY_SETTINGS,
    Values,
    restart_order,
)
from ansible_collections.elephaas.herd.plugins.module_utils.decide.verdict import (
    REFUSE,
    WARN,
    Verdict,
    accept,
    most_severe_first,
    worst,
)

#: Verbs, and the state of module instance that each step asks for.
STATES = {
    "start": "started",
    "stop": "stopped",
    "restart": "restarted",
    "reload": "reloaded",
    "promote": "detached",
    "demote": "demoted",
}
VERBS = tuple(STATES)


@dataclass(frozen=True)
class Request:
    """What is asked for: the verb, the selected members' inventory names, and how.

    mode: of a stop (fast, smart, immediate). only_pending: restart only where a changed setting waits for it.
    accept: codes of acceptable refusals that the operator accepts. without_registry: the registry is not there to lock
    the herd and to keep what was done.
    """

    verb: str
    selected: frozenset[str]
    mode: str = "fast"
    only_pending: bool = False
    accept: tuple[str, ...] = ()
    without_registry: bool = False


@dataclass(frozen=True)
class Step:
    """One change of one member.

    expect: what its host must still see before it acts. turn: all of a turn happen at once, and the next one only after
    all of it went well. why: for the plan's reader. follows: of a demotion, whom it follows (see decide/demotion.py).
    """

    name: str
    role: str
    expect: dict[str, Any]
    turn: int
    why: str = ""
    follows: dict[str, Any] | None = None


@dataclass
class Draft:
    """A plan while it is made.

    skipped: member -> why nothing needs to be done. left: member -> why it cannot be done now.
    """

    steps: list[Step] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)


def plan_bulk(herd: Herd, request: Request) -> dict[str, Any]:
    """Decide what the verb does to this herd. Plain data, described in the documentation of bulk_plan_info."""
    draft = Draft()
    selected = [member for member in herd.members if member.name in request.selected]
    draft.verdicts += herd_findings(herd, request.verb)
    for member in selected:
        if not member.reachable:
            draft.left[member.name] = member.error or "its host does not answer"
        elif member.fact("identity_problem"):
            draft.verdicts.append(
                Verdict(
                    "WRONG_SERVER",
                    REFUSE,
                    member.name,
                    str(member.fact("identity_problem")),
                    "Correct port or data directory in the record.",
                )
            )
        elif member.status == "absent":
            draft.left[member.name] = "there is no data directory"
    present = [member for member in selected if member.reachable and member.status != "absent"]
    _PLANNERS[request.verb](herd, request, present, draft)
    return _document(herd, request, draft, selected)


def _document(herd: Herd, request: Request, draft: Draft, selected: Iterable[Member]) -> dict[str, Any]:
    verdicts = most_severe_first(accept(draft.verdicts, request.accept))
    verdicts += [
        Verdict("LEFT_OUT", WARN, name, why, "See to it, and run the same command again.")
        for name, why in draft.left.items()
    ]
    refused = worst(verdicts) == REFUSE
    outcome = REFUSE if refused else GO if draft.steps or draft.left else DONE
    steps = [
        {
            "name": step.name,
            "state": STATES[request.verb],
            "role": step.role,
            "expect": step.expect,
            "turn": step.turn,
            "why": step.why,
            "follows": step.follows,
        }
        for step in draft.steps
    ]
    plan = {
        "herd": herd.name,
        "verb": request.verb,
        "mode": request.mode,
        "outcome": outcome,
        "protected": herd.protected,
        # What nobody would be surprised by needs no confirmation.
        "asks": herd.protected or any(verdict.level == WARN and verdict.code in ASKING for verdict in verdicts),
        "steps": steps,
        "skipped": draft.skipped,
        "left": draft.left,
        "verdicts": [verdict.as_dict() for verdict in verdicts],
        "token_floor": herd.highest_token,
        # A host's copy of a failover that is over may have stayed open, where that host was away at its end.
        "over": max((operation.token for operation in closed_failovers(herd)), default=0),
        "made_at": herd.now,
        "request": {
            **asdict(request),
            "selected": sorted(member.name for member in selected),
            "accept": list(request.accept),
        },
        "agreed": None,
    }
    return {**plan, "decisions": _decisions(plan)}


def request_of(plan: dict[str, Any]) -> Request:
    """What a plan was made for."""
    asked = plan["request"]
    return Request(**{**asked, "selected": frozenset(asked["selected"]), "accept": tuple(asked["accept"])})


def changed_since(agreed: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What a second look decides otherwise, in words; empty when the plan that was agreed to still stands."""
    changes = [
        f"{key}: {agreed['decisions'][key]} became {now['decisions'][key]}"
        for key in agreed["decisions"]
        if agreed["decisions"][key] != now["decisions"][key]
    ]
    if now["asks"] and not agreed["asks"]:
        codes = sorted({verdict["code"] for verdict in now["verdicts"] if verdict["code"] in ASKING})
        changes.append(f"it would have to be agreed to now: {', '.join(codes)}")
    return changes


def _decisions(plan: dict[str, Any]) -> dict[str, Any]:
    return {
        "herd": plan["herd"],
        "verb": plan["verb"],
        "mode": plan["mode"],
        "outcome": plan["outcome"],
        "steps": sorted(
            [step["turn"], step["name"], step["state"], step["role"], *_whom_it_follows(step)] for step in plan["steps"]
        ),
        "left": sorted(plan["left"]),
        "accepted": sorted({verdict["code"] for verdict in plan["verdicts"] if _is_accepted(verdict)}),
        "refused": sorted({verdict["code"] for verdict in plan["verdicts"] if verdict["level"] == REFUSE}),
    }


def _whom_it_follows(step: dict[str, Any]) -> list[str]:
    return [str(step["follows"]["upstream"])] if step["follows"] else []


def _is_accepted(verdict: dict[str, Any]) -> bool:
    return bool(verdict["acceptable"]) and verdict["level"] == WARN


# -- what each verb does ----------------------------------------------------------------------------------------------


def _start(herd: Herd, _request: Request, present: list[Member], draft: Draft) -> None:
    """The primary first, then whoever streams from it: a replica that starts meets its upstream."""
    for member in _by_depth(herd, present):
        if member.status in ("running", "starting"):
            draft.skipped[member.name] = "it runs"
        elif member.status == "stopping":
            draft.left[member.name] = "it is shutting down"
        else:
            draft.verdicts += would_write(herd, member)
            draft.steps.append(_step(member, _depth(herd, member)))


def _stop(herd: Herd, request: Request, present: list[Member], draft: Draft) -> None:
    """The primary first: while its replicas stream, its shutdown waits until they have received everything."""
    for member in _by_depth(herd, present):
        if member.status == "stopped":
            draft.skipped[member.name] = "it is stopped"
            continue
        draft.steps.append(_step(member, _depth(herd, member)))
        draft.verdicts += interrupts(member, "stops")
        if request.mode == "immediate":
            draft.verdicts.append(
                Verdict("IMMEDIATE", WARN, member.name, "without a checkpoint: it recovers as after a crash", "")
            )


def _restart(herd: Herd, request: Request, present: list[Member], draft: Draft) -> None:
    chosen = []
    for member in present:
        if member.status == "stopped":
            draft.skipped[member.name] = "it is stopped, and stays so: start brings it up"
        elif not member.running:
            draft.left[member.name] = f"it is {member.status}"
        elif request.only_pending and not member.fact("pending_restart"):
            draft.skipped[member.name] = "no changed setting waits for a restart"
        else:
            chosen.append(member)
    if draft.left:
        draft.verdicts.append(
            Verdict(
                "UNREACHABLE",
                REFUSE,
                herd.name,
                f"{', '.join(draft.left)} cannot be restarted, and no member is while the order is broken",
                "See to it, or limit the run to the others.",
            )
        )
    order, problems = _restart_order(herd, chosen)
    draft.verdicts += [
        Verdict("STANDBY_SETTINGS", REFUSE, herd.name, problem, 'See "Hot Standby" in PostgreSQL\'s documentation.')
        for problem in problems
    ]
    for member in chosen:
        draft.verdicts += stays_writable(herd, member)
        draft.verdicts += unfit_for_restart(herd, member)
    inward = list(reversed(_by_depth(herd, chosen)))
    if order == PRIMARY_FIRST:
        inward.reverse()
    for turn, member in enumerate(inward):
        again = "" if member.fact("role") == "primary" else "seen streaming again before the next"
        draft.steps.append(_step(member, turn, again))
        draft.verdicts += interrupts(member, "is restarted")


def _restart_order(herd: Herd, chosen: list[Member]) -> tuple[str | None, list[str]]:
    names = {member.name for member in chosen}
    primary_after: Values | None = None
    restarted: dict[str, tuple[Values, Values, Values]] = {}
    kept: dict[str, Values] = {}
    for member in herd.members:
        if member.detached or not member.running:
            continue
        now = _values(member.fact("settings"))
        after = _values(member.fact("next_start")) or now
        if not member.in_recovery:
            primary_after = after if member.name in names else primary_after
        elif member.name in names:
            # What it met in the WAL stands in its control file; that is what its start compares with.
            restarted[member.name] = (now, after, _values(member.fact("control")))
        else:
            kept[member.name] = now
    return restart_order(primary_after, restarted, kept)


def _values(found: Any) -> Values:
    return {name: int(found[name]) for name in STANDBY_SETTINGS if isinstance((found or {}).get(name), int)}


def _reload(_herd: Herd, _request: Request, present: list[Member], draft: Draft) -> None:
    for member in present:
        if not member.running:
            draft.skipped[member.name] = f"it is {member.status}"
            continue
        draft.verdicts += config_errors(member)
        pending = member.fact("pending_restart") or []
        draft.steps.append(_step(member, 0, f"waits for a restart: {', '.join(pending)}" if pending else ""))


def _promote(herd: Herd, request: Request, present: list[Member], draft: Draft) -> None:
    """For a diagnosis: the member leaves the herd, which keeps its primary, its lead and its DNS name."""
    if request.without_registry:
        draft.verdicts.append(
            Verdict(
                "REGISTRY_NEEDED",
                REFUSE,
                herd.name,
                "that a member has left the herd must be put on record, or the next look is a split brain",
                "Bring the registry back first.",
            )
        )
    todo = []
    for member in present:
        if member.detached and member.writable:
            draft.skipped[member.name] = "it is detached and writable"
        else:
            todo.append(member)
    if len(todo) + len(draft.left) > 1:
        names = ", ".join([*(member.name for member in todo), *draft.left])
        draft.verdicts.append(
            Verdict(
                "MORE_THAN_ONE",
                REFUSE,
                herd.name,
                f"{len(todo) + len(draft.left)} members are selected to be promoted for a diagnosis: {names}",
                "Limit the run to one of them. To make a replica the herd's primary, use failover.",
            )
        )
    for member in todo:
        draft.verdicts += unfit_for_diagnosis(herd, member)
        draft.steps.append(_step(member, 0, "archiving is switched off first; it leaves the herd"))


def _demote(herd: Herd, request: Request, present: list[Member], draft: Draft) -> None:
    """A former primary, or one promoted beside it, becomes a replica of the herd's live primary."""
    for member in present:
        found = demotion(herd, member, request.selected)
        draft.verdicts += found.verdicts
        if found.skip:
            draft.skipped[member.name] = found.skip
        elif found.left:
            draft.left[member.name] = found.left
        elif found.follows:
            step = _step(member, 0, "what only it holds is kept")
            draft.steps.append(replace(step, follows=found.follows))


_PLANNERS: dict[str, Callable[[Herd, Request, list[Member], Draft], None]] = {
    "start": _start,
    "stop": _stop,
    "restart": _restart,
    "reload": _reload,
    "promote": _promote,
    "demote": _demote,
}

# -- shared -----------------------------------------------------------------------------------------------------------


def _step(member: Member, turn: int, why: str = "") -> Step:
    role = str(member.fact("role"))
    expect = {
        "role": role,
        "running": member.status != "stopped",
        "system_identifier": member.fact("system_identifier"),
        "timeline": member.fact("timeline"),
    }
    return Step(member.name, role, expect, turn, why)


def _by_depth(herd: Herd, members: Iterable[Member]) -> list[Member]:
    """Nearest to the primary first, then by name."""
    return sorted(members, key=lambda member: (_depth(herd, member), member.name))


def _depth(herd: Herd, member: Member) -> int:
    """How many members stand between this one and the top of its cascade, by what is seen, else by the record."""
    depth, seen, here = 0, {member.name}, member
    while here.fact("role") == "replica" or here.upstream:
        above = next((other for other in herd.members if here.streams_from(other)), None) or herd.member(here.upstream)
        if above is None or above.name in seen:
            # Its upstream is no member, or two stream from each other: below the primary, wherever that is.
            return depth + 1
        seen.add(above.name)
        depth, here = depth + 1, above
    return depth
