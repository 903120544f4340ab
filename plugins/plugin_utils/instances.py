# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A look at many instances, named as the inventory names them. Private to the collection."""

from __future__ import annotations

import typing as t
from collections.abc import Iterable, Mapping

from ansible.playbook.play_context import PlayContext

from ansible_collections.elephaas.herd.plugins.plugin_utils.action import plain
from ansible_collections.elephaas.herd.plugins.plugin_utils.connect import Target, own_play_context, target_of
from ansible_collections.elephaas.herd.plugins.plugin_utils.remote import Job, run_jobs

NOT_IN_INVENTORY = "it is not in the inventory (filtered out, or its row in the registry is bad)"

HostVariables = t.Mapping[str, t.Mapping[str, t.Any]]


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
) -> list[dict[str, t.Any]]:
    """Observations of these instances, each as registry_checkin and status_report take them, in the order given.

    timeout_s: for connecting to a host. look_timeout_s: for one instance to answer.
    """
    wanted = list(dict.fromkeys(names))
    jobs: dict[str, Job] = {}
    shared: dict[str, int] = {}
    for name in wanted:
        if name in hostvars:
            target: Target = target_of(hostvars[name], task, play_context)
            jobs[name] = Job(target, "look", instance_params(hostvars[name], look_timeout_s))
            shared[target.key] = shared.get(target.key, 0) + 1
    # Instances of one host are looked at one after the other, and one that hangs uses up its whole time.
    limit_s = (look_timeout_s + 1) * max(shared.values(), default=1)
    outcomes = run_jobs(jobs, own_play_context(play_context), timeout_s, limit_s)
    observations = []
    for name in wanted:
        outcome = outcomes.get(name)
        facts = outcome.result["instance"] if outcome and outcome.result else None
        error = "" if facts is not None else outcome.error["msg"] if outcome and outcome.error else NOT_IN_INVENTORY
        observations.append(_observation(name, hostvars.get(name) or {}, facts, error))
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
