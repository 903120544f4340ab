# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Host variables as the rows that filters are asked about. Private to the collection.

The inventory is read once per host: with a thousand hosts, asking hostvars is what a run spends its time with.
"""

from __future__ import annotations

import typing as t
from collections.abc import Iterable, Mapping

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.filters import (
    Filters,
    has_dr_pair,
    narrow,
    unknown_names,
)
from ansible_collections.elephaas.herd.plugins.plugin_utils.action import plain

HostVariables = Mapping[str, Mapping[str, t.Any]]
Groups = Mapping[str, t.Sequence[str]]

_COLUMNS = ("herd", "environment", "datacenter", "server", "role", "version", "lag_bytes", "is_online")


class Inventory:
    """What the inventory says of hosts, in built-in types, each host read when it is first asked for."""

    def __init__(self, hostvars: HostVariables, groups: Groups) -> None:
        self._hostvars = hostvars
        self._groups = groups
        self._known: dict[str, dict[str, t.Any]] = {}

    def variables(self, name: str) -> dict[str, t.Any]:
        """The elephaas_* variables of a host, under their full names."""
        if name not in self._known:
            host = self._hostvars[name]
            self._known[name] = {key: plain(host[key]) for key in host if key.startswith("elephaas_")}
        return self._known[name]

    def group(self, name: str) -> list[str]:
        """The hosts of a group."""
        return [str(host) for host in self._groups.get(name, ())]

    def row(self, name: str, paired: bool = False) -> dict[str, t.Any]:
        """The recorded row of an instance or a server; paired: with dr_pair, for which all members are asked."""
        variables = self.variables(name)
        row = {column: variables.get(f"elephaas_{column}") for column in _COLUMNS}
        if paired:
            row["dr_pair"] = self._dr_pair(variables.get("elephaas_members") or ())
        return row

    def _dr_pair(self, members: Iterable[str]) -> bool | None:
        """None when a member is not in this inventory, and the others stand in one data center."""
        there = [name for name in members if name in self._hostvars]
        found = has_dr_pair(self.variables(name).get("elephaas_datacenter") for name in there)
        return found if found or len(there) == len(list(members)) else None


def recorded_rows(inventory: Inventory, names: Iterable[str], filters: Filters) -> dict[str, dict[str, t.Any]]:
    """What is on record of these instances, by name, with all that the filters ask about."""
    return {name: inventory.row(name, filters.without_dr_pair) for name in names}


def check_names(inventory: Inventory, filters: Filters) -> None:
    """Raise OperatorError FILTER_UNKNOWN when a filter names what is not in the inventory."""
    if not (filters.environments or filters.datacenters or filters.herds):
        return
    rows = [inventory.row(name) for group in ("instances", "servers") for name in inventory.group(group)]
    problems = unknown_names(filters, rows)
    if problems:
        raise OperatorError("FILTER_UNKNOWN", f"Filter {' '.join(problems)}", "Correct it, or load what is missing.")


def worth_a_look(inventory: Inventory, names: Iterable[str], filters: Filters) -> list[str]:
    """The instances of all herds of which one may turn out to be wanted; the record rules out the others.

    Whole herds: a second primary in a data center that nobody asked for is a problem of the one that somebody did.
    """
    asked = filters.on_record()
    if not asked.tests:
        return list(names)
    rows = recorded_rows(inventory, names, asked)
    left, _steps = narrow(asked, [{**row, "name": name} for name, row in rows.items()])
    herds = {(row["environment"], row["herd"]) for row in left}
    return [name for name, row in rows.items() if (row["environment"], row["herd"]) in herds]


def unassigned_servers(inventory: Inventory, filters: Filters) -> list[dict[str, t.Any]]:
    """Servers without environment or data center, or with nothing on them, as far as the other filters take them."""
    hosted: dict[str, int] = {}
    for name in inventory.group("instances"):
        server = str(inventory.variables(name).get("elephaas_server"))
        hosted[server] = hosted.get(server, 0) + 1
    found = []
    for name in inventory.group("servers"):
        variables, count = inventory.variables(name), hosted.get(name, 0)
        if filters.takes_server(inventory.row(name), count, 0):
            found.append(
                {
                    "server": name,
                    "environment": variables.get("elephaas_environment"),
                    "datacenter": variables.get("elephaas_datacenter"),
                    "address": variables.get("elephaas_address"),
                    "instances": count,
                }
            )
    return found
