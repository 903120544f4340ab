# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A look at many instances, named as the inventory names them. Private to the collection."""

from __future__ import annotations

import functools
import typing as t
from collections import Counter
from collections.abc import Iterable, Mapping

from ansible.playbook.play_context import PlayContext

from ansible_collections.elephaas.herd.plugins.plugin_utils.action import plain
from ansible_collections.elephaas.herd.plugins.plugin_utils.connect import own_play_context, target_of
from ansible_collections.elephaas.herd.plugins.plugin_utils.remote import Job, Outcome, run_jobs

NOT_IN_INVENTORY = "it is not in the inventory (filtered out, or its row in the registry is bad)"

HostVariables = t.Mapping[str, t.Mapping[str, t.Any]]


class Remembered(Mapping[str, t.Mapping[str, t.Any]]):
    """The variables of hosts, those of each host gathered once.

    Each access to core's own makes ansible-core gather and merge all variables of that host anew, which takes some
    milliseconds: for a hundred hosts read four times over, longer than all that is done with them.
    """

    def __init__(self, hostvars: HostVariables) -> None:
        self._hostvars = hostvars
        self._known: dict[str, t.Mapping[str, t.Any]] = {}

    def __getitem__(self, name: str) -> t.Mapping[str, t.Any]:
        if name not in self._hostvars:
            # ansible-core 2.16 would give an undefined value.
            raise KeyError(name)
        if name not in self._known:
            self._known[name] = self._hostvars[name]
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        return name in self._hostvars

    def __iter__(self) -> t.Iterator[str]:
        return iter(self._hostvars)

    def __len__(self) -> int:
        return len(self._hostvars)


def instance_params(variables: Mapping[str, t.Any], timeout_s: float) -> dict[str, t.Any]:
    """The host variables of an instance as the parameters that every host verb takes (doc fragment instance).

    timeout_s: how long one question to the server may take, or one change of its state.
    """
    return plain(
        {
            "data_directory": variables["elephaas_pgdata"],
            "port": int(variables["elephaas_port"]),
            "os_user": variables["elephaas_os_user"],
            "control": variables["elephaas_control"],
            "timeout": timeout_s,
        }
    )


def look(
    names: Iterable[str],
    hostvars: HostVariables,
    task: t.Any,
    play_context: PlayContext,
    timeout_s: float,
    look_timeout_s: float,
    readiness: bool = False,
    run: t.Callable[..., dict[str, Outcome]] | None = None,
) -> list[dict[str, t.Any]]:
    """Observations of these instances, each as registry_checkin and status_report take them, in the order given.

    timeout_s: for connecting to a host. look_timeout_s: for one instance to answer. readiness: see instance_info.
    run: what does the jobs within a time limit, for a caller that has connections of its own.
    """
    hostvars = Remembered(hostvars)
    known = {name: hostvars.get(name) for name in names}
    jobs: dict[str, Job] = {}
    for name, variables in known.items():
        if variables is not None:
            target = target_of(variables, task, play_context)
            jobs[name] = Job(target, "look", {**instance_params(variables, look_timeout_s), "readiness": readiness})
    # Instances of one host are looked at one after the other, and one that hangs uses up its whole time.
    on_one_host = max(Counter(job.target.key for job in jobs.values()).values(), default=1)
    # Beside the answers: readiness asks a second question, of 5 s at most, and walks through directories for 2 s.
    each_s = look_timeout_s + (10 if readiness else 1)
    if run is None:
        run = functools.partial(run_jobs, play_context=own_play_context(play_context), timeout_s=timeout_s)
    outcomes = run(jobs, limit_s=each_s * on_one_host)
    observations = []
    for name, variables in known.items():
        outcome = outcomes.get(name)
        facts = outcome.result["instance"] if outcome and outcome.result else None
        error = "" if facts is not None else outcome.error["msg"] if outcome and outcome.error else NOT_IN_INVENTORY
        observations.append(_observation(name, variables or {}, facts, error))
    return observations


def _observation(
    name: str, variables: Mapping[str, t.Any], facts: dict[str, t.Any] | None, error: str
) -> dict[str, t.Any]:
    return {
        "name": name,
        "herd": plain(variables.get("elephaas_herd")),
        "environment": plain(variables.get("elephaas_environment")),
        "server": plain(variables.get("elephaas_server")),
        "reachable": facts is not None,
        "facts": facts,
        "error": error,
    }
