# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a look at all members of some herds to the plan of each. Private to the collection."""

from __future__ import annotations

import typing as t
from collections.abc import Iterable, Mapping

from ansible.playbook.play_context import PlayContext

from ansible_collections.elephaas.herd.plugins.module_utils.decide.bulk import Request, plan_bulk
from ansible_collections.elephaas.herd.plugins.plugin_utils.action import plain
from ansible_collections.elephaas.herd.plugins.plugin_utils.herd import herd_of, seen_by_name
from ansible_collections.elephaas.herd.plugins.plugin_utils.instances import HostVariables, look


def leads_of(selected: Iterable[str], hostvars: HostVariables) -> dict[str, str]:
    """One selected member for each herd, by the name of the herd's group."""
    leads: dict[str, str] = {}
    for name in selected:
        leads.setdefault(str(hostvars[name]["elephaas_herd_group"]), name)
    return leads


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
    """The plan of each herd, from a look at all of its members, limit or not.

    timeouts_s: for connecting, and for one instance to answer. held: by herd, who holds it.
    registry_error: why the registry cannot be asked.
    """
    members = [name for lead in leads.values() for name in plain(hostvars[lead]["elephaas_members"])]
    seen = look([name for name in members if name in hostvars], hostvars, task, play_context, *timeouts_s)
    looks, errors = seen_by_name(seen)
    return {
        group: plan_bulk(
            herd_of(lead, hostvars, looks, errors, held=held.get(group, ""), registry_error=registry_error), request
        )
        for group, lead in sorted(leads.items())
    }
