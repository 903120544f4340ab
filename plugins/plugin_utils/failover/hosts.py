# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The members' hosts as a failover speaks to them: jobs of host verbs, many at once. Private to the collection."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

from ansible.playbook.play_context import PlayContext

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.connect import own_play_context, target_of
from ansible_collections.elephaas.herd.plugins.plugin_utils.instances import HostVariables, instance_params
from ansible_collections.elephaas.herd.plugins.plugin_utils.remote import Job, Outcome
from ansible_collections.elephaas.herd.plugins.plugin_utils.session import Sessions

# What a verb takes besides what names the instance, as the module of that name has it by default.
_DEFAULTS: dict[str, dict[str, t.Any]] = {
    "instance": {"mode": "fast", "log_file": None, "wait_streaming": True},
    "follow": {
        "upstream_host": None,
        "upstream_port": 5432,
        "upstream_user": None,
        "slot": None,
        "application_name": None,
        "drop_slots": [],
        "expected_timeline": None,
        "wait_s": 60,
    },
    "promote": {
        "proof": "shutdown_checkpoint",
        "expect_timeline": None,
        "armed_lsn": None,
        "deadline_s": 120,
        "slots": [],
        "checkpoint": False,
        "checkpoint_wait": True,
    },
    "operation_token": {},
    "look": {"readiness": False},
}
_SHARED = {"token": None, "system_identifier": None, "release": False, "release_outcome": "done", "check_mode": False}

# For finding out about the instance, before and after what is asked for.
_LOOKING_S = 30


class Bounds(t.NamedTuple):
    """How long things may take, in seconds: a stop, the last record's way to the candidate, following, one question."""

    stop_s: float
    deadline_s: float
    follow_s: float
    answer_s: float

    def of(self, verb: str) -> float:
        """For one verb on one instance."""
        own = {"instance": self.stop_s, "promote": self.deadline_s, "follow": self.follow_s}
        return own.get(verb, self.answer_s)


class Hosts:
    """Does host verbs on instances, named as the inventory names them, over connections that stay until close()."""

    def __init__(
        self, hostvars: HostVariables, task: t.Any, play_context: PlayContext, connect_timeout_s: float
    ) -> None:
        self.hostvars = hostvars
        self._task = task
        self._play_context = play_context
        self._sessions = Sessions(own_play_context(play_context), connect_timeout_s)

    def job(self, name: str, verb: str, timeout_s: float, **params: t.Any) -> Job:
        """One verb on one instance. timeout_s: for each question to it and each change of its state."""
        variables = self.hostvars[name]
        target = target_of(variables, self._task, self._play_context)
        named = instance_params(variables, timeout_s)
        return Job(target, verb, {**named, **_SHARED, **_DEFAULTS[verb], **params})

    def run(
        self,
        jobs: Mapping[str, Job],
        limit_s: float,
        on_outcome: t.Callable[[str, Outcome], None] = lambda _name, _outcome: None,
    ) -> dict[str, Outcome]:
        """Do all jobs at once. limit_s: how long the longest of them may take by itself."""
        return self._sessions.run(jobs, limit_s + _LOOKING_S, on_outcome) if jobs else {}

    def close(self) -> None:
        """Leave no connection open."""
        self._sessions.close()


class Verbs:
    """Host verbs on behalf of one operation: all of them show its token, and name the cluster that is meant."""

    def __init__(self, hosts: Hosts, bounds: Bounds, token: int, system_identifier: str | None) -> None:
        self._hosts = hosts
        self._bounds = bounds
        self._identity = {"token": token, "system_identifier": system_identifier}

    def job(self, name: str, verb: str, **params: t.Any) -> Job:
        """One verb on one instance."""
        return self._hosts.job(name, verb, self._bounds.of(verb), **{**self._identity, **params})

    def run(
        self,
        verb: str,
        jobs: Mapping[str, Job],
        on_outcome: t.Callable[[str, Outcome], None] = lambda _name, _outcome: None,
    ) -> dict[str, Outcome]:
        """Do all jobs at once; none takes longer than that verb."""
        return self._hosts.run(jobs, self._bounds.of(verb), on_outcome)

    def do(self, name: str, verb: str, **params: t.Any) -> dict[str, t.Any]:
        """One verb on one instance, and its result. Raises OperatorError, also HOST_UNREACHABLE."""
        return result_of(name, self.run(verb, {name: self.job(name, verb, **params)})[name])


def result_of(name: str, outcome: Outcome) -> dict[str, t.Any]:
    """The result of a job. Raises what it was refused with, or HOST_UNREACHABLE (and the like) when nobody knows."""
    if outcome.result is not None:
        return outcome.result
    raise error_of(name, outcome)


def error_of(name: str, outcome: Outcome) -> OperatorError:
    """Why a job has no result."""
    said = outcome.error or {}
    reason = str(said.get("reason") or said.get("msg") or "no answer")
    # What its host refused names the instance itself.
    text = reason if outcome.reached else f"the host of {name} cannot be used: {reason}"
    return OperatorError(str(said.get("code")), text, str(said.get("next_step") or ""), said.get("evidence") or {})
