# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries out the plan of a bulk operation on one herd: lock, one turn after the other, record. Private to the collection.

Every step claims, acts and releases in one run on its host, so nothing stays behind there when this controller dies.
The herd's lease is in the registry; without it, the claims on the hosts keep two runs apart, one instance at a time.
"""

from __future__ import annotations

import secrets
import time
import typing as t
from collections.abc import Mapping
from dataclasses import dataclass, field

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.lease import Lease
from ansible_collections.elephaas.herd.plugins.plugin_utils.remote import Job, Outcome

#: States after which an instance is online, or not.
_ONLINE = {
    "started": True,
    "restarted": True,
    "reloaded": True,
    "detached": True,
    "demoted": True,
    "stopped": False,
}


@dataclass
class Progress:
    """What has become of the steps so far: by instance, what was done, what is left all the same, or what went wrong."""

    did: dict[str, list[str]] = field(default_factory=dict)
    left: dict[str, dict[str, t.Any]] = field(default_factory=dict)
    # Steps of which nobody can say that they were not taken.
    unknown: list[str] = field(default_factory=list)
    failures: list[dict[str, t.Any]] = field(default_factory=list)

    def add(self, name: str, outcome: Outcome) -> None:
        """Note the outcome of one step."""
        if outcome.result is not None:
            self.did[name] = outcome.result["did"]
            if outcome.result.get("left"):
                self.left[name] = outcome.result["left"]
            return
        error = outcome.error or {}
        if not outcome.reached or error.get("code") == "STILL_PROMOTING":
            self.unknown.append(name)
        unknown = "" if outcome.reached else " Whether the step was begun is not known: look at the instance."
        self.failures.append(
            {
                "name": name,
                "code": error.get("code"),
                "msg": f"{error.get('msg')}{unknown}",
                "log_tail": (error.get("evidence") or {}).get("log_tail") or [],
            }
        )


@dataclass(frozen=True)
class Conductor:
    """One herd and how to act on it.

    plan: of decide/bulk.py. plan_id: what was agreed to. lease: of the herd in the registry.
    servers: instance -> server. upstreams: instance -> how a replica reaches it (upstream_host, upstream_port), of
    those that a step is to follow. job: makes the job of a step from its parameters. run: does jobs at the same time.
    takeover: over a live claim on the hosts.
    changes: asked under the lease, before the first turn: what speaks against the plan by now.
    """

    plan: dict[str, t.Any]
    plan_id: str
    lease: Lease
    servers: Mapping[str, str]
    job: t.Callable[[str, dict[str, t.Any]], Job]
    run: t.Callable[[dict[str, Job]], dict[str, Outcome]]
    takeover: bool
    changes: t.Callable[[], list[str]]
    upstreams: Mapping[str, dict[str, t.Any]] = field(default_factory=dict)
    run_number: str = field(default_factory=lambda: str(secrets.randbits(62)))

    def carry_out(self) -> dict[str, t.Any]:
        """Do it, and return {"did", "left", "failures", "seconds", "unrecorded"}. Raises OperatorError when it cannot begin.

        unrecorded: why the end could not be put on record; empty when it was.
        """
        began = time.monotonic()
        plan = {"steps": self.plan["steps"], "mode": self.plan["mode"]}
        token = self.lease.begin(self.plan["verb"], self.plan_id, int(self.plan["token_floor"]), plan)
        changed = self.changes()
        if changed:
            self.lease.close(token, "refused", detail={"changed": changed})
            raise OperatorError(
                "SITUATION_CHANGED",
                f"Since the plan was made, the situation has changed, so nothing was done: {'; '.join(changed)}.",
                "Look at the new plan and run again.",
            )
        progress, heard, overtaken = Progress(), time.monotonic(), ""
        for turn in sorted({step["turn"] for step in self.plan["steps"]}):
            steps = [step for step in self.plan["steps"] if step["turn"] == turn]
            outcomes = self.run({step["name"]: self.job(step["name"], self._params(step, token)) for step in steps})
            for name, outcome in outcomes.items():
                progress.add(name, outcome)
            if progress.failures:
                break
            if time.monotonic() - heard > self.lease.lease_s / 4:
                overtaken, heard = self.lease.renew(token, self.plan["verb"], {"did": progress.did}), time.monotonic()
                if overtaken:
                    break
        unrecorded = overtaken or self._finish(token, progress)
        return {
            "did": progress.did,
            "left": progress.left,
            "failures": progress.failures,
            "seconds": round(time.monotonic() - began, 3),
            "unrecorded": unrecorded,
        }

    def _params(self, step: dict[str, t.Any], token: int) -> dict[str, t.Any]:
        follows = step.get("follows")
        return {
            "follows": {**follows, **self.upstreams[follows["upstream"]]} if follows else None,
            "state": step["state"],
            "mode": self.plan["mode"],
            "log_file": None,
            "wait_streaming": True,
            "expect": step["expect"],
            "claim": {
                "token": token,
                "operation": {
                    "verb": self.plan["verb"],
                    "herd": self.plan["herd"],
                    "plan_id": self.plan_id,
                    "operator": self.lease.operator,
                    # Without the registry two runs can come to the same token, but not to the same number.
                    "run": self.run_number,
                    "over": self.plan["over"],
                },
                "lease_s": self.lease.lease_s,
                "authority": "registry" if self.lease.registry is not None else "host",
                "takeover": self.takeover,
            },
        }

    def _finish(self, token: int, progress: Progress) -> str:
        good = not progress.failures and not self.plan["left"]
        states = {step["name"]: step["state"] for step in self.plan["steps"]}
        roles: dict[str, dict[str, t.Any]] = {
            self.servers[name]: {"role": "detached", "upstream_server": None}
            # One that may have been promoted must not stay a member on record: it would be a split brain.
            for name in [*progress.did, *progress.unknown]
            if states[name] == "detached"
        }
        roles.update(self._roles_of_demoted(progress))
        return self.lease.close(
            token,
            "done" if good else "failed",
            detail={
                "did": progress.did,
                "failures": progress.failures,
                "left": {**self.plan["left"], **{name: left["reason"] for name, left in progress.left.items()}},
            },
            online={self.servers[name]: _ONLINE[states[name]] and name not in progress.left for name in progress.did},
            roles=roles,
        )

    def _roles_of_demoted(self, progress: Progress) -> dict[str, dict[str, t.Any]]:
        """A replica when it was seen streaming; one that stays down holds what nobody else does, and stays out."""
        roles: dict[str, dict[str, t.Any]] = {}
        for step in self.plan["steps"]:
            if step["state"] != "demoted" or step["name"] not in progress.did:
                continue
            upstream, stays = self.servers[step["follows"]["upstream"]], step["name"] in progress.left
            roles[self.servers[step["name"]]] = {
                "role": "superseded" if stays else "replica",
                "upstream_server": None if stays else upstream,
            }
            if step["follows"]["recorded"]:
                roles[upstream] = {"role": "primary", "upstream_server": None}
        return roles
