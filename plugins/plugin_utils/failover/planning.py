# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a look at all members of the selected herds to the plan of each. Private to the collection; controller only.

Reads, and changes nothing. The same code decides for the rehearsal, for the run, and once more under the lock.
"""

from __future__ import annotations

import os
import typing as t
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from ansible.playbook.play_context import PlayContext

from ansible_collections.elephaas.herd.plugins.module_utils.decide.candidate import Wishes
from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd
from ansible_collections.elephaas.herd.plugins.module_utils.decide.plan import GO, plan_failover, unplannable
from ansible_collections.elephaas.herd.plugins.module_utils.decide.stage import SWITCH
from ansible_collections.elephaas.herd.plugins.plugin_utils.action import plain
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.repoint import Updater
from ansible_collections.elephaas.herd.plugins.plugin_utils.failover.hosts import Hosts, error_of
from ansible_collections.elephaas.herd.plugins.plugin_utils.herd import Look, herd_of, seen_by_name
from ansible_collections.elephaas.herd.plugins.plugin_utils.instances import HostVariables, Remembered, look
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.asking import who_holds
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.holder import this_holder

Plan = dict[str, t.Any]

# Each is a few questions and answers: more at once would only queue at the name server.
_PROBES_AT_ONCE = 8


class Planner:
    """Plans failovers of herds named by their leads.

    registry: connection options, None to go without. dns: options of elephaas.herd.dns_repoint.
    timeouts_s: for connecting to a host, and for one instance to answer.
    """

    def __init__(
        self,
        hostvars: HostVariables,
        task: t.Any,
        play_context: PlayContext,
        timeouts_s: tuple[float, float],
        registry: dict[str, t.Any] | None,
        dns: dict[str, t.Any],
        wishes: Wishes,
    ) -> None:
        self.hostvars = Remembered(hostvars)
        self.hosts = Hosts(self.hostvars, task, play_context, timeouts_s[0])
        self.wishes = wishes
        self._task = task
        self._play_context = play_context
        self._timeouts_s = timeouts_s
        self._registry = registry
        self._dns = dns

    def close(self) -> None:
        """Leave no connection open."""
        self.hosts.close()

    def plans(self, leads: Iterable[str], confirm: str) -> dict[str, Plan]:
        """The plan of each herd, by its group. confirm: the plan id that the operator gave."""
        leads = list(leads)
        # Before anything forks: a thread that holds a lock while others fork leaves it locked in the children.
        probes = self._probe(leads)
        held, lost = self._ask_registry(leads)
        members = [str(name) for lead in leads for name in self.hostvars[lead]["elephaas_members"]]
        seen = look(
            dict.fromkeys(name for name in members if name in self.hostvars),
            self.hostvars,
            self._task,
            self._play_context,
            *self._timeouts_s,
            readiness=True,
            run=self.hosts.run,
        )
        looks, unseen = seen_by_name(seen)
        herds: dict[str, Herd] = {}
        plans: dict[str, Plan] = {}
        for lead in leads:
            name = str(self.hostvars[lead]["elephaas_herd_group"])
            try:
                herds[name] = herd_of(lead, self.hostvars, looks, unseen, held.get(lead, ""), lost, probes.get(lead))
                plans[name] = plan_failover(herds[name], self.wishes, confirm)
            except Exception as error:  # noqa: BLE001 - one herd that nobody foresaw must not stop forty others
                plans[name] = unplannable(name, lead, f"{type(error).__name__}: {error}")
        refused = self._rehearse([plan for plan in plans.values() if plan["outcome"] == GO])
        for herd in herds.values():
            if herd.name in refused:
                plans[herd.name] = plan_failover(replace(herd, way_back=refused[herd.name]), self.wishes, confirm)
        return plans

    def again(self, lead: str, plan: Plan, looks: Mapping[str, Look], token: int) -> Plan:
        """What is decided now that the herd is locked. looks: of the members that were claimed.

        The way back is not rehearsed once more, so what the rehearsal found belongs to this plan as well.
        """
        left = {move["name"]: "it was left out" for move in plan["moves"] if move["name"] not in looks}
        return plan_failover(self.herd(lead, looks, left, plan["way_back"]), replace(self.wishes, token=token), "")

    def herd(
        self, lead: str, looks: Mapping[str, Look], unseen: Mapping[str, str], way_back: dict[str, dict[str, t.Any]]
    ) -> Herd:
        """The herd as those looks show it, and its vhost as it is now."""
        herd = herd_of(lead, self.hostvars, looks, unseen, dns=self._probe([lead]).get(lead))
        return replace(herd, way_back=way_back)

    def updater(self) -> Updater:
        """What sends the DNS update. Raises OperatorError for bad options."""
        return Updater.from_params(self._dns)

    def _probe(self, leads: list[str]) -> dict[str, dict[str, t.Any]]:
        """What the name servers say about each herd's vhost, by lead; nothing where DNS is to be left alone."""
        vhosts = {lead: plain(self.hostvars[lead].get("elephaas_vhost")) for lead in leads}
        asked = {lead: str(vhost) for lead, vhost in vhosts.items() if vhost and self.wishes.dns != "skip"}

        def probe(vhost: str) -> dict[str, t.Any]:
            try:
                return self.updater().probe(vhost)
            except OperatorError as error:
                return {"record": vhost, "error": error.code, "reason": error.reason}

        if len(asked) <= 1:
            return {lead: probe(vhost) for lead, vhost in asked.items()}
        with ThreadPoolExecutor(min(_PROBES_AT_ONCE, len(asked))) as pool:
            return dict(zip(asked, pool.map(probe, asked.values()), strict=True))

    def _ask_registry(self, leads: list[str]) -> tuple[dict[str, str], str]:
        """Who holds a herd, by lead; and why the registry cannot be asked."""
        if self._registry is None:
            return {}, ""
        herds = {
            lead: (plain(self.hostvars[lead]["elephaas_herd"]), plain(self.hostvars[lead]["elephaas_environment"]))
            for lead in leads
        }
        held, lost = who_holds(self._registry, "failover", herds, this_holder(os.getppid()))
        return {lead: error.reason for lead, error in held.items()}, lost

    def _rehearse(self, plans: list[Plan]) -> dict[str, dict[str, dict[str, t.Any]]]:
        """While nothing is at stake, each member connects to its upstream-to-be as the replica that it will be.

        Returns what was refused: herd -> member -> {"code", "reason", "next_step"}.
        """
        jobs, herds = {}, {}
        for plan in plans:
            for move in plan["moves"]:
                # Of a lost primary's herd nobody can be sure of; what does not work shows when it settles.
                if plan["stage"] != SWITCH or move["action"] not in ("rejoin", "follow", "point"):
                    continue
                state = "following" if move["action"] == "follow" else "prepared"
                jobs[move["name"]] = self.hosts.job(
                    move["name"],
                    "follow",
                    self._timeouts_s[1],
                    state=state,
                    check_mode=True,
                    **self.upstream(plan, move["upstream"]),
                )
                herds[move["name"]] = plan["herd"]
        refused: dict[str, dict[str, dict[str, t.Any]]] = {}
        outcomes = self.hosts.run(jobs, self._timeouts_s[1])
        for name, outcome in outcomes.items():
            if outcome.result is None:
                error = error_of(name, outcome)
                refused.setdefault(herds[name], {})[name] = {
                    "code": error.code,
                    "reason": error.reason,
                    "next_step": error.next_step,
                }
        return refused

    def upstream(self, plan: Plan, name: str) -> dict[str, t.Any]:
        """How a member connects to that upstream: its server by address, never the vhost, which may lead to itself."""
        variables = self.hostvars[name]
        return {
            "upstream_host": plain(variables["elephaas_address"]),
            "upstream_port": int(variables["elephaas_port"]),
            "upstream_user": plan["replication_user"],
        }
