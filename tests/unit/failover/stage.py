# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's own code of a failover, with everything beyond it replaced by what a herd in decide/herds.py says.

The boundary is what leaves the controller: jobs for hosts, questions to name servers and to the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest

from ansible_collections.elephaas.herd.plugins.module_utils.decide.candidate import Wishes
from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd, Member, Operation
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.repoint import Updater
from ansible_collections.elephaas.herd.plugins.plugin_utils.failover import planning
from ansible_collections.elephaas.herd.plugins.plugin_utils.failover.conductor import Conductor
from ansible_collections.elephaas.herd.plugins.plugin_utils.failover.hosts import Bounds, Hosts
from ansible_collections.elephaas.herd.plugins.plugin_utils.failover.planning import Planner
from ansible_collections.elephaas.herd.plugins.plugin_utils.lease import Lease
from ansible_collections.elephaas.herd.plugins.plugin_utils.remote import Outcome

TOKEN = 7


def hostvars_of(herd: Herd) -> dict[str, dict[str, Any]]:
    """The inventory variables of its members, from which the controller makes the herd again."""
    shared = {
        "elephaas_herd_group": herd.name,
        "elephaas_herd": herd.herd,
        "elephaas_environment": herd.environment,
        "elephaas_members": [*(one.name for one in herd.members), *herd.missing],
        "elephaas_protected": herd.protected,
        "elephaas_vhost": herd.vhost,
        "elephaas_hold_reason": herd.hold_reason,
        "elephaas_hold_by": herd.hold_by,
        "elephaas_hold_since": herd.hold_since,
        "elephaas_operation": _record(herd.operation),
        "elephaas_last_failover": _record(herd.last_failover),
    }
    return {one.name: {**shared, **_own(one)} for one in herd.members}


def _own(one: Member) -> dict[str, Any]:
    return {
        "elephaas_server": one.server,
        "elephaas_datacenter": one.datacenter,
        "elephaas_address": one.address,
        "elephaas_dns_name": one.dns_name,
        "elephaas_port": one.port,
        "elephaas_role": one.role,
        "elephaas_upstream": one.upstream,
        "elephaas_priority": one.priority,
        "elephaas_replication_user": one.replication_user,
        "elephaas_lsn": one.recorded_lsn,
        "elephaas_last_seen": one.last_seen,
    }


def _record(operation: Operation | None) -> dict[str, Any] | None:
    if operation is None:
        return None
    return {
        "verb": operation.verb,
        "state": operation.state,
        "token": operation.token,
        "plan_id": operation.plan_id,
        "from": operation.source,
        "to": operation.target,
        "operator": operation.operator,
        "started": operation.started,
        "finished": operation.finished,
        "unplanned": operation.unplanned,
    }


class Asked(NamedTuple):
    """What a host was asked to do, or a name server (verb dns)."""

    name: str
    verb: str
    state: str | None
    params: dict[str, Any]

    @property
    def rehearsal(self) -> bool:
        """It was to change nothing."""
        return bool(self.params.get("check_mode"))


class FakeHosts:
    """Hosts that show a herd's facts whatever they are asked, and remember what that was.

    refusals: what some refuse, by name, verb and state: the code. A host that is not there answers HOST_UNREACHABLE.
    shown: facts of a member from a certain verb and state on, by the same key.
    """

    def __init__(self, herd: Herd) -> None:
        self.herd = herd
        self.asked: list[Asked] = []
        self.refusals: dict[tuple[str, str, str | None], str] = {}
        self.shown: dict[tuple[str, str, str | None], dict[str, Any]] = {}

    def job(self, name: str, verb: str, timeout_s: float, **params: Any) -> Any:
        """As Hosts does."""
        return SimpleNamespace(name=name, job=verb, params=params)

    def run(
        self,
        jobs: Mapping[str, Any],
        limit_s: float,
        on_outcome: Callable[[str, Outcome], None] = lambda _name, _outcome: None,
    ) -> dict[str, Outcome]:
        """Every job is done, unless it is refused, its host is dead, or the way back is closed."""
        outcomes = {}
        for name, job in jobs.items():
            asked = Asked(name, job.job, job.params.get("state"), job.params)
            self.asked.append(asked)
            outcomes[name] = self._outcome(asked)
            on_outcome(name, outcomes[name])
        return outcomes

    def _outcome(self, asked: Asked) -> Outcome:
        member, code = self.herd.member(asked.name), self.refusals.get(asked[:3])
        closed = self.herd.way_back.get(asked.name) if asked.rehearsal else None
        if member is None or member.facts is None or code == "HOST_UNREACHABLE":
            return Outcome(None, {"code": "HOST_UNREACHABLE", "msg": "no route to host"}, reached=False)
        if closed or code:
            return Outcome(None, dict(closed or {"code": code, "reason": f"refused: {code}"}), reached=True)
        waiter = {"evidence": {"timeline_new": 2}}
        facts = {"sql_error": None, **self.shown.get(asked[:3], member.facts)}
        return Outcome({"changed": False, "instance": facts, "waiter": waiter, "armed_lsn": "0/1"}, None, reached=True)

    @property
    def acts(self) -> list[tuple[str, str, str | None]]:
        """What was more than a look, a rehearsal or a claim, in order."""
        return [one[:3] for one in self.asked if not one.rehearsal and one.verb not in ("look", "operation_token")]


class FakeUpdater:
    """Name servers that say what is known of the herd's vhost, and take every update."""

    def __init__(self, hosts: FakeHosts) -> None:
        self._hosts = hosts

    def probe(self, vhost: str) -> dict[str, Any]:
        """As dns.repoint.Updater does."""
        assert self._hosts.herd.dns is not None
        return self._hosts.herd.dns

    def prepare(self, _record: str, to: str, **_more: Any) -> Any:
        """As dns.repoint.Updater does."""
        code = self._hosts.refusals.get(("", "dns", "prepared"))
        if code:
            raise OperatorError(code, "refused")
        return SimpleNamespace(send=lambda: self._hosts.asked.append(Asked(to, "dns", "sent", {})), read_back=bool)


class FakeLease(Lease):
    """A registry that gives the herd away unless somebody else holds it; ends: how each operation was closed."""

    herd_now: Herd
    ends: list[str]
    overtaken: list[str]

    def begin(self, verb: str, plan_id: str, token_floor: int, plan: dict[str, Any], **ends: Any) -> int:
        """As Lease does."""
        now = self.herd_now
        for code, why in (("OPERATION_HELD", now.held), ("HERD_ON_HOLD", now.hold), ("REGISTRY", now.registry_error)):
            if why:
                raise OperatorError(code, why)
        return max(TOKEN, token_floor + 1)

    def renew(self, token: int, phase: str, detail: dict[str, Any]) -> str:
        """As Lease does. overtaken: the phases at which another run has taken over."""
        return "bob has taken over" if phase in self.overtaken else ""

    def close(self, token: int, outcome: str, **end: Any) -> str:
        """As Lease does."""
        self.ends.append(outcome)
        return ""


def planner_for(herd: Herd, wishes: Wishes, check_mode: bool, monkeypatch: pytest.MonkeyPatch) -> Planner:
    """A planner of a run, or of a rehearsal, to which that herd is the world."""

    def look(names: Iterable[str], *_args: Any, readiness: bool = False, run: Any = None) -> list[dict[str, Any]]:
        # What is not asked for is not seen.
        hidden = set() if readiness else {"readiness"}
        asked = [one for one in map(herd.member, names) if one]
        facts = {
            one.name: {key: one.facts[key] for key in one.facts if key not in hidden} for one in asked if one.facts
        }
        return [{"name": one.name, "facts": facts.get(one.name), "error": one.error} for one in asked]

    def who_holds(_registry: Any, _verb: str, herds: Mapping[str, Any], _holder: Any) -> Any:
        return {lead: OperatorError("OPERATION_HELD", herd.held) for lead in herds if herd.held}, herd.registry_error

    monkeypatch.setattr(planning, "look", look)
    monkeypatch.setattr(planning, "who_holds", who_holds)
    task, play_context = SimpleNamespace(check_mode=check_mode), SimpleNamespace(check_mode=check_mode)
    planner = Planner(hostvars_of(herd), task, cast(Any, play_context), (5, 10), {}, {}, wishes)
    hosts = FakeHosts(herd)
    planner.hosts = cast(Hosts, hosts)
    monkeypatch.setattr(planner, "updater", lambda: cast(Updater, FakeUpdater(hosts)))
    return planner


def conductor_for(planner: Planner, herd: Herd, **options: Any) -> tuple[Conductor, FakeHosts, FakeLease]:
    """What conducts that herd, which has become this one since the plan was shown; its hosts and its lease."""
    lease = FakeLease({}, herd.herd, herd.environment, "ada", {}, {}, 60)
    for name, value in (("herd_now", herd), ("ends", []), ("overtaken", [])):
        object.__setattr__(lease, name, value)
    return Conductor(planner, lease, herd.lead, Bounds(1, 1, 1, 1), **options), cast(FakeHosts, planner.hosts), lease
