# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Conducts the failover of one herd: lock, switch, settle. Private to the collection; controller only.

One task conducts a herd, for the reason that bulk operations have (docs/architecture.md). What a run has to do follows
from the plan's stage, which follows from what the servers show; so the same command goes on with what a dead run left.
"""

from __future__ import annotations

import contextlib
import secrets
import typing as t
from dataclasses import dataclass

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.plan import GO, changed_decisions
from ansible_collections.elephaas.herd.plugins.module_utils.decide.stage import (
    FINISH,
    PROMOTE,
    RESTORE,
    SWITCH,
    TAKEOVER,
)
from ansible_collections.elephaas.herd.plugins.module_utils.decide.takeover import STOPPED
from ansible_collections.elephaas.herd.plugins.plugin_utils.failover.hosts import Bounds, Verbs, error_of
from ansible_collections.elephaas.herd.plugins.plugin_utils.failover.operation import Ended, Operation
from ansible_collections.elephaas.herd.plugins.plugin_utils.failover.planning import Plan, Planner
from ansible_collections.elephaas.herd.plugins.plugin_utils.failover.switch import hand_over, prove_death, take_over
from ansible_collections.elephaas.herd.plugins.plugin_utils.failover.undo import undo
from ansible_collections.elephaas.herd.plugins.plugin_utils.failover.vhost import Vhost
from ansible_collections.elephaas.herd.plugins.plugin_utils.lease import Lease
from ansible_collections.elephaas.herd.plugins.plugin_utils.remote import Job

AGAIN = "Run the same command again to finish: what is done stays done."


@dataclass(frozen=True)
class Conductor:
    """The failover of the herd of that lead.

    takeover: over a live claim on the hosts, without the registry. statement: of the old primary's death, by the
    operator. fenced: a hook of this run has seen to it.
    """

    planner: Planner
    lease: Lease
    lead: str
    bounds: Bounds
    takeover: bool = False
    statement: str = ""
    fenced: bool = False

    def lock(self, plan: Plan, plan_id: str) -> Operation:
        """Lease, claims, and the decision once more. Raises Ended: refused, aborted, or incomplete."""
        known = self.planner.hostvars
        try:
            token = self.lease.begin(
                "failover",
                plan_id,
                int(plan["token_floor"]),
                plan,
                from_server=str(known[plan["source"]]["elephaas_server"]),
                to_server=str(known[plan["target"] or plan["begun_target"]]["elephaas_server"]),
            )
        except OperatorError as error:
            raise Ended("refused", f"{error.reason} [{error.code}]") from error
        operation = Operation(token, str(secrets.randbits(62)), plan, plan_id)
        operation.reached("begun")
        with self._given_up(operation, acted=False):
            self._claim_and_decide(operation)
        return operation

    def _claim_and_decide(self, operation: Operation) -> None:
        plan, token = operation.plan, operation.token
        # From here on no other run can act on these members, with or without the registry.
        jobs = self._claims(operation)
        # A lost primary is looked at once more: it may have come back while somebody read the plan.
        lost = [move["name"] for move in plan["moves"] if move["action"] == "supersede" and move["name"] not in jobs]
        asked = {name: self.planner.hosts.job(name, "look", self.bounds.answer_s) for name in lost}
        outcomes = self._verbs(operation).run("operation_token", {**jobs, **asked})
        claims = {name: outcomes[name] for name in jobs}
        # One that was claimed without our hearing of it has to be given back too, where nobody else can have this token.
        unheard = self.lease.registry is not None
        operation.claimed = [
            name for name, said in claims.items() if said.result is not None or (unheard and not said.reached)
        ]
        looks = {name: outcome.result for name, outcome in outcomes.items() if outcome.result is not None}
        refused = [str(error_of(name, outcome)) for name, outcome in claims.items() if outcome.result is None]
        now = self.planner.again(self.lead, plan, looks, token)
        changed = changed_decisions(plan, now)
        if refused or changed or now["outcome"] != GO:
            why = "; ".join(refused or changed or [verdict["reason"] for verdict in now["verdicts"]])
            raise OperatorError("PLAN_CHANGED", f"Since the plan was shown, the situation has changed: {why}.")
        operation.plan = now
        operation.reached("locked")

    @contextlib.contextmanager
    def _given_up(self, operation: Operation, acted: bool) -> t.Iterator[None]:
        """Whatever goes wrong inside, foreseen or not, leaves the herd as it was, or as it can be gone on with."""
        try:
            yield
        except OperatorError as error:
            raise self._give_up(operation, f"{error.code}: {error.reason}", acted) from error
        except Ended:
            raise
        except Exception as error:
            raise self._give_up(operation, f"INTERNAL_ERROR: {type(error).__name__}: {error}.", acted) from error

    def _claims(self, operation: Operation) -> dict[str, Job]:
        plan = operation.plan
        params = {
            "state": "claimed",
            "authority": "host" if self.lease.registry is None else "registry",
            "takeover": self.takeover,
            "lease_s": self.lease.lease_s,
            "readiness": True,
            "operation": {
                "verb": "failover",
                "herd": plan["herd"],
                "plan_id": operation.plan_id,
                "from": plan["source"],
                "to": plan["target"] or plan["begun_target"],
                "operator": self.lease.operator,
                # Two runs can come to the same token and the same plan, but not to the same number.
                "run": operation.run,
                "decisions": plan["agreed"] or plan["decisions"],
                "unplanned": plan["unplanned"] or plan["stage"] == RESTORE,
            },
        }
        verbs = self._verbs(operation)
        return {name: verbs.job(name, "operation_token", **params) for name in _claimed(plan)}

    def switch(self, operation: Operation, dns: bool = True) -> Operation:
        """To a new primary that accepts writes, and the vhost after it.

        dns: send the update at once; without it, lead_vhost() has to. Raises Ended.
        """
        plan, stage, verbs = operation.plan, operation.plan["stage"], self._verbs(operation)
        vhost = Vhost(self.planner.updater, operation)
        if stage == RESTORE:
            return operation
        with self._given_up(operation, acted=True):
            if stage == FINISH:
                operation.timeline = plan["timeline"]
            elif stage == TAKEOVER:
                take_over(
                    operation,
                    verbs,
                    [
                        move["name"]
                        for move in plan["moves"]
                        if move["action"] in ("promote", "follow", "verify", "rejoin")
                    ],
                    lambda looks: self.planner.herd(self.lead, looks, {}, {}),
                    lambda: self._put_death_on_record(operation, verbs),
                )
            else:
                hand_over(
                    operation,
                    verbs,
                    self.planner.upstream(plan, operation.target),
                    self.bounds.deadline_s,
                    lambda: self._ready(operation, vhost if dns else None),
                    vhost.send,
                )
        if dns and stage in (FINISH, TAKEOVER):
            self.lead_vhost(operation)
        self.lease.renew(operation.token, "promoted", operation.summary())
        return operation

    def _ready(self, operation: Operation, vhost: Vhost | None) -> None:
        """The last moment at which nothing was stopped."""
        if vhost is not None:
            vhost.prepare()
            if operation.dns_trouble:
                raise OperatorError("DNS_NOT_READY", f"The DNS update cannot be made: {operation.dns_trouble}")
        overtaken = self.lease.renew(operation.token, "armed", {"phases": operation.phases})
        if overtaken:
            raise OperatorError("TOKEN_STALE", overtaken)

    def _put_death_on_record(self, operation: Operation, verbs: Verbs) -> None:
        proof = prove_death(operation, verbs, self.statement, self.lease.operator, self.fenced)
        overtaken = self.lease.renew(operation.token, "dead", {**proof, "old_primary": operation.source})
        if overtaken:
            raise OperatorError("TOKEN_STALE", overtaken)

    def lead_vhost(self, operation: Operation) -> Operation:
        """Lead applications to the new primary."""
        vhost = Vhost(self.planner.updater, operation)
        vhost.prepare()
        vhost.send()
        return operation

    def settle(self, operation: Operation, trouble: list[str]) -> Operation:
        """Every other member on the new timeline, and all of it on record. Raises Ended incomplete.

        trouble: what went wrong before and keeps the failover from being over, such as a hook that failed.
        The checkpoint comes last: it recycles WAL that a sibling which lags may need (seen). It may take minutes, and
        nobody waits for it.
        The claim on the new primary's host is closed after everything else: it alone says that the failover is over.
        """
        with self._given_up(operation, acted=True):
            self._settle_members(operation, trouble)
            self._close_done(operation)
        operation.reached("done")
        return operation

    def _settle_members(self, operation: Operation, trouble: list[str]) -> None:
        verbs = self._verbs(operation)
        outcomes = verbs.run("follow", self._settling(operation, verbs))
        trouble = trouble + [str(error_of(name, said)) for name, said in outcomes.items() if said.result is None]
        operation.reached("settled")
        Vhost(self.planner.updater, operation).see()
        if operation.dns_trouble:
            trouble.append(f"DNS: {operation.dns_trouble}")
        if trouble:
            raise OperatorError("UNSETTLED", f"{'; '.join(trouble)}.")

    def _close_done(self, operation: Operation) -> None:
        verbs, outcome = self._verbs(operation), "done"
        end: dict[str, t.Any] = {"detail": operation.summary(), "roles": operation.plan["roles"]}
        if operation.plan["stage"] == RESTORE:
            outcome, end = "aborted", {"detail": {"reason": operation.plan["why"]}}
        unrecorded = self.lease.close(operation.token, outcome, **end)
        try:
            if outcome == "done":
                # The checkpoint spares a later pg_rewind the wait for the one that PostgreSQL makes by itself: no more.
                closing = {"checkpoint": True, "checkpoint_wait": False, "release": True, "look_after": False}
                verbs.do(operation.target, "promote", state="promoted", **closing)
            else:
                verbs.do(operation.target, "operation_token", state="released", outcome=outcome)
        except OperatorError as error:
            raise Ended("incomplete", f"UNRECORDED: {error.reason} {AGAIN}") from error
        if unrecorded:
            raise Ended("incomplete", f"UNRECORDED: all is done, and the registry does not know: {unrecorded} {AGAIN}")

    def _settling(self, operation: Operation, verbs: Verbs) -> dict[str, Job]:
        plan, jobs = operation.plan, {}
        outcome = "aborted" if plan["stage"] == RESTORE else "done"
        for move in plan["moves"]:
            name = move["name"]
            if move["action"] == "supersede" and name in _claimed(plan):
                jobs[name] = verbs.job(name, "operation_token", state="released", outcome=outcome)
            elif move["action"] in ("follow", "rejoin", "verify", "point"):
                jobs[name] = verbs.job(
                    name,
                    "follow",
                    state="prepared" if move["action"] == "point" else "following",
                    expected_timeline=operation.timeline,
                    wait_s=self.bounds.follow_s,
                    drop_slots=plan["left_slots"] if move["action"] == "rejoin" else [],
                    release=True,
                    release_outcome=outcome,
                    look_after=False,
                    **self.planner.upstream(plan, move["upstream"]),
                )
        return jobs

    def give_up(self, operation: Operation, reason: str) -> Ended:
        """The play cannot go on, such as after a hook that failed: how the herd is left."""
        return self._give_up(operation, reason, acted=operation.timeline is not None)

    def _give_up(self, operation: Operation, reason: str, acted: bool) -> Ended:
        plan, trouble, left = operation.plan, "", "Nothing has changed."
        unchanged = not acted and plan["stage"] in (SWITCH, TAKEOVER) and not plan["armed"]
        if plan["stage"] == TAKEOVER:
            unchanged = not {"held", "isolating"} & set(operation.phases)
        elif not unchanged and plan["stage"] in (SWITCH, PROMOTE) and operation.timeline is None:
            try:
                if not {operation.source, operation.target} <= set(operation.claimed):
                    raise OperatorError("NOT_OURS", "Another run has claimed the old primary or the candidate.")
                undo(self._verbs(operation), operation.source, operation.target)
                unchanged, left = True, "The old primary accepts writes as before."
            except OperatorError as error:
                trouble = f" It could not be undone: {error.reason}"
        if unchanged:
            self._close_claims(operation)
            trouble += self.lease.close(operation.token, "aborted", detail={"reason": reason})
            return Ended("aborted", f"{reason} {left}{trouble}")
        detail = {"reason": reason, **operation.summary()}
        trouble += self.lease.close(operation.token, "incomplete", detail=detail)
        return Ended("incomplete", f"{reason}{trouble} {AGAIN}")

    def _close_claims(self, operation: Operation) -> None:
        """The candidate's last: its copy tells that the operation is over."""
        verbs, names = self._verbs(operation), operation.claimed
        others = [name for name in names if name != operation.target]
        for turn in (others, [operation.target] if operation.target in names else []):
            released = {"state": "released", "outcome": "aborted"}
            verbs.run("operation_token", {name: verbs.job(name, "operation_token", **released) for name in turn})

    def _verbs(self, operation: Operation) -> Verbs:
        return Verbs(self.planner.hosts, self.bounds, operation.token, operation.plan["system_identifier"])


def _claimed(plan: Plan) -> list[str]:
    """The members that are acted on; the host of a lost primary only where it answers."""
    return [
        move["name"]
        for move in plan["moves"]
        if move["action"] != "leave" and (move["action"] != "supersede" or plan["proof"] == STOPPED)
    ]
