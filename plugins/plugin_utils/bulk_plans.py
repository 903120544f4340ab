# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a look at all members of some herds to the plan of each. Private to the collection."""

from __future__ import annotations

import os
import typing as t
from collections.abc import Iterable, Mapping
from functools import partial

from ansible.playbook.play_context import PlayContext

from ansible_collections.elephaas.herd.plugins.module_utils.decide import dns_drift
from ansible_collections.elephaas.herd.plugins.module_utils.decide.bulk import Request, plan_bulk
from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd
from ansible_collections.elephaas.herd.plugins.plugin_utils.action import plain
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.repoint import Updater
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.zone import together
from ansible_collections.elephaas.herd.plugins.plugin_utils.herd import herd_of, seen_by_name
from ansible_collections.elephaas.herd.plugins.plugin_utils.instances import HostVariables, look
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.asking import who_holds
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.holder import this_holder

#: A probe of a name asks the update server about ten things, one after the other, and each may take the whole time-out.
_QUESTIONS_OF_A_PROBE = 12


def leads_of(selected: Iterable[str], hostvars: HostVariables) -> dict[str, str]:
    """One selected member for each herd, by the name of the herd's group."""
    leads: dict[str, str] = {}
    for name in selected:
        leads.setdefault(str(hostvars[name]["elephaas_herd_group"]), name)
    return leads


def herds_held(
    registry: dict[str, t.Any], verb: str, leads: Mapping[str, str], hostvars: HostVariables
) -> tuple[dict[str, str], str]:
    """By herd, why no operation may begin on it now; and why the registry cannot be asked at all."""
    herds = {
        group: (plain(hostvars[lead]["elephaas_herd"]), plain(hostvars[lead]["elephaas_environment"]))
        for group, lead in leads.items()
    }
    # An action is a worker that ends with its task; what holds a lease is the run that forked it.
    held, lost = who_holds(registry, verb, herds, this_holder(os.getppid()))
    return {group: error.reason for group, error in held.items()}, lost


def see_herds(
    leads: Mapping[str, str],
    hostvars: HostVariables,
    task: t.Any,
    play_context: PlayContext,
    timeouts_s: tuple[float, float],
    held: Mapping[str, str],
    registry_error: str,
    dns: Mapping[str, dict[str, t.Any]],
) -> dict[str, Herd]:
    """Each herd from a look at all of its members, limit or not, by the name of its group.

    timeouts_s: for connecting, and for one instance to answer. held: by herd, who holds it.
    registry_error: why the registry cannot be asked. dns: by herd, the probe of its DNS name, where that was asked.
    """
    members = [name for lead in leads.values() for name in plain(hostvars[lead]["elephaas_members"])]
    seen = look([name for name in members if name in hostvars], hostvars, task, play_context, *timeouts_s)
    looks, errors = seen_by_name(seen)
    return {
        group: herd_of(
            lead,
            hostvars,
            looks,
            errors,
            held=held.get(group, ""),
            registry_error=registry_error,
            dns=dns.get(group),
        )
        for group, lead in sorted(leads.items())
    }


def plan_herds(
    leads: Mapping[str, str],
    request: Request,
    hostvars: HostVariables,
    task: t.Any,
    play_context: PlayContext,
    timeouts_s: tuple[float, float],
    held: Mapping[str, str],
    registry_error: str,
) -> dict[str, dict[str, t.Any]]:
    """The bulk plan of each herd. The parameters are those of see_herds."""
    herds = see_herds(leads, hostvars, task, play_context, timeouts_s, held, registry_error, {})
    return {group: plan_bulk(herd, request) for group, herd in herds.items()}


def plan_names(
    leads: Mapping[str, str],
    request: dns_drift.Request,
    dns_options: dict[str, t.Any],
    hostvars: HostVariables,
    task: t.Any,
    play_context: PlayContext,
    timeouts_s: tuple[float, float],
    held: Mapping[str, str],
    registry_error: str,
) -> dict[str, dict[str, t.Any]]:
    """What is done to the DNS name of each herd. The parameters are those of see_herds, and how to speak with DNS."""
    vhosts = {group: plain(hostvars[lead].get("elephaas_vhost")) for group, lead in leads.items()}
    dns = _probe({group: vhost for group, vhost in vhosts.items() if vhost}, dns_options)
    herds = see_herds(leads, hostvars, task, play_context, timeouts_s, held, registry_error, dns)
    plans = {}
    for group, herd in herds.items():
        recorded = {
            member.name: plain(hostvars[member.name].get("elephaas_system_identifier")) or "" for member in herd.members
        }
        plans[group] = dns_drift.plan_dns(herd, request, recorded)
    return plans


def _probe(vhosts: Mapping[str, str], options: dict[str, t.Any]) -> dict[str, dict[str, t.Any]]:
    """What stands at each name, all of them asked at the same time."""
    try:
        updater = Updater.from_params(options)
    except OperatorError as error:
        return {group: {"error": error.code, "reason": error.reason, "next_step": error.next_step} for group in vhosts}
    limit_s = _QUESTIONS_OF_A_PROBE * updater.options.timeout * len(updater.options.servers)
    answers = together([partial(updater.probe, vhost) for vhost in vhosts.values()], limit_s)
    late = {"error": "DNS_UNREACHABLE", "reason": f"the name servers did not answer within {limit_s:g} s"}
    return {group: answer or late for group, answer in zip(vhosts, answers, strict=True)}
