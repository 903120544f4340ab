# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the old primary to a new one that accepts writes. Private to the collection; controller only.

What lies between the stop of the old primary and the DNS update is downtime of writers. The order closes races; each
function says which.
"""

from __future__ import annotations

import typing as t

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd
from ansible_collections.elephaas.herd.plugins.module_utils.decide.stage import SWITCH
from ansible_collections.elephaas.herd.plugins.module_utils.decide.takeover import STATEMENT, STOPPED, ahead_of
from ansible_collections.elephaas.herd.plugins.plugin_utils.failover.hosts import Verbs, error_of, result_of
from ansible_collections.elephaas.herd.plugins.plugin_utils.failover.operation import Operation
from ansible_collections.elephaas.herd.plugins.plugin_utils.remote import Outcome


def hand_over(
    operation: Operation,
    verbs: Verbs,
    upstream: dict[str, t.Any],
    deadline_s: float,
    ready: t.Callable[[], None],
    promoted: t.Callable[[], None],
) -> None:
    """Planned: the old primary hands over its last record, or nothing has happened.

    Arming comes first: whoever restarts the old primary from then on gets a read-only server. The waiter comes before
    the stop: the promotion waits on its own host for the old primary's last record, so that no round trip of ours lies
    between stop and promotion.
    upstream: how the old primary connects to the new one. ready: called when all is armed, before anything stops; may
    refuse. promoted: called the moment the candidate is seen writable, while the stop may still be under way.
    Raises OperatorError; with operation.timeline still None, nobody was promoted, as far as is known.
    """
    plan, source, target = operation.plan, operation.source, operation.target
    armed = verbs.do(source, "follow", state="prepared", look_after=False, **upstream)
    operation.reached("armed")
    verbs.do(
        target,
        "promote",
        state="armed",
        expect_timeline=plan["timeline"],
        armed_lsn=armed.get("armed_lsn"),
        slots=plan["slots"],
        deadline_s=deadline_s,
        look_after=False,
    )
    operation.reached("waiting")
    ready()
    jobs = {target: verbs.job(target, "promote", state="promoted", look_after=False)}
    if plan["stage"] == SWITCH:
        # Not waited for: what allows the promotion is read on the candidate, whatever would be reported here.
        jobs[source] = verbs.job(source, "instance", state="stopped", look_after=False)
    outcomes: dict[str, Outcome] = {}

    def heard(name: str, outcome: Outcome) -> None:
        outcomes[name] = outcome
        if name == target and outcome.result is not None:
            _note_promoted(operation, outcome.result)
            promoted()
        elif name == source and outcome.result is None and outcome.reached and operation.timeline is None:
            # Its last record will not come: every second more is downtime. (A candidate that fails is not the end of
            # the waiting: a stop that has not begun yet would hit a primary which has just been brought back.)
            raise error_of(name, outcome)

    try:
        verbs.run("promote", jobs, heard)
        result_of(target, outcomes[target])
    except OperatorError:
        if not _promoted_all_the_same(operation, verbs):
            raise
        promoted()
    if source in outcomes:
        operation.reached("stopped")


def _note_promoted(operation: Operation, result: dict[str, t.Any]) -> None:
    waiter = result["waiter"] or {}
    operation.waiter = waiter
    seen = result["instance"]
    # A waiter that died right after its request could not write it down. What was seen before the promotion is one less.
    new = (waiter.get("evidence") or {}).get("timeline_new")
    operation.timeline = int(new or (seen["timeline"] if seen["writable"] else seen["timeline"] + 1))
    operation.reached("promoted")


def _promoted_all_the_same(operation: Operation, verbs: Verbs) -> bool:
    """After a failure: whether the candidate was promoted all the same. If not, nothing promotes it any more."""
    try:
        verbs.do(operation.target, "promote", state="disarmed", look_after=False)
    except OperatorError as error:
        if error.code != "ALREADY_PROMOTED":
            return False
        _note_promoted(operation, verbs.do(operation.target, "promote", state="promoted"))
        return True
    return False


def take_over(
    operation: Operation,
    verbs: Verbs,
    isolate: list[str],
    look: t.Callable[[dict[str, t.Any]], Herd],
    dead: t.Callable[[], None],
) -> None:
    """Unplanned: the most advanced replica takes over.

    Nothing is promoted before the death is proven (dead, which raises otherwise), and nothing is compared before every
    receiver is gone: what is still in flight could make another member the most advanced one.
    isolate: the members whose receivers have to go. look: from their looks to the herd. Raises OperatorError.
    """
    plan, source, target = operation.plan, operation.source, operation.target
    dead()
    operation.reached("isolating")
    outcomes = verbs.run("follow", {name: verbs.job(name, "follow", state="isolated") for name in isolate})
    looks = {name: result_of(name, outcome) for name, outcome in outcomes.items()}
    operation.reached("isolated")
    herd = look(looks)
    chosen, old = herd.member(target), herd.member(source)
    ahead = ahead_of(herd, old, chosen) if chosen and old else []
    if ahead:
        # What was agreed to names somebody who is not the most advanced any more.
        names = ", ".join(member.name for member in ahead)
        raise OperatorError(
            "CANDIDATE_OVERTAKEN",
            f"Now that all receivers are gone, {names} holds more than {target}.",
            "Look at the new plan, and run again.",
        )
    timeline = looks[target]["instance"]["timeline"]
    result = verbs.do(target, "promote", state="promoted", proof="none", expect_timeline=timeline, slots=plan["slots"])
    _note_promoted(operation, result)


def prove_death(operation: Operation, verbs: Verbs, statement: str, operator: str, fenced: bool) -> dict[str, t.Any]:
    """What goes on record as the proof that the old primary takes no writes. Raises OperatorError NOT_FENCED, …"""
    plan, source = operation.plan, operation.source
    if plan["proof"] == STOPPED:
        # Seen stopped is not enough: nobody may be able to start it as a primary. One that runs in recovery takes no
        # writes, and would not after a restart either.
        if any(move["name"] == source and move["action"] == "supersede" for move in plan["moves"]):
            verbs.do(source, "follow", state="held")
            operation.reached("held")
        return {"proof": STOPPED}
    if plan["proof"] == STATEMENT:
        return {"proof": STATEMENT, "statement": statement, "by": operator}
    if not fenced:
        raise OperatorError(
            "NOT_FENCED", f"Nothing has fenced {source} in this run.", "See to the fence hook, and run again."
        )
    return {"proof": plan["proof"]}
