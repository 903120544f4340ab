# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's own code of a failover, with everything beyond it replaced by what a herd in decide/herds.py says.

The boundary is what leaves the controller: jobs for hosts, questions to name servers and to the registry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any, cast

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


class FakeHosts:
    """Hosts that show a herd's facts whatever they are asked, and remember what that was."""

    def __init__(self, herd: Herd) -> None:
        self.herd = herd
        #: Verb, its state, and whether it was a rehearsal.
        self.asked: list[tuple[str, str | None, bool]] = []

    def job(self, name: str, verb: str, timeout_s: float, **params: Any) -> Any:
        """As Hosts does."""
        return SimpleNamespace(name=name, job=verb, params=params)

    def run(self, jobs: Mapping[str, Any], limit_s: float, on_outcome: Any = None) -> dict[str, Outcome]:
        """Every job was done and left the member as it was, but on a host that is dead, or a way back that is closed."""
        outcomes = {}
        for name, job in jobs.items():
            rehearsal = bool(job.params.get("check_mode"))
            self.asked.append((job.job, job.params.get("state"), rehearsal))
            member, refused = self.herd.member(name), self.herd.way_back.get(name) if rehearsal else None
            if refused:
                outcomes[name] = Outcome(None, dict(refused), reached=True)
            elif member is None or member.facts is None:
                outcomes[name] = Outcome(None, {"code": "HOST_UNREACHABLE", "msg": "no route to host"}, reached=False)
            else:
                outcomes[name] = Outcome({"changed": False, "instance": member.facts}, None, reached=True)
        return outcomes

    @property
    def acts(self) -> set[tuple[str, str | None]]:
        """What was more than a look, a rehearsal or a claim."""
        return {
            (verb, state)
            for verb, state, rehearsal in self.asked
            if not rehearsal and verb not in ("look", "operation_token")
        }


class FakeUpdater:
    """Name servers that say what is known of the herd's vhost."""

    def __init__(self, herd: Herd) -> None:
        self._herd = herd

    def probe(self, vhost: str) -> dict[str, Any]:
        """As dns.repoint.Updater does."""
        assert self._herd.dns is not None
        return self._herd.dns


class FakeLease(Lease):
    """A registry that gives the herd away unless somebody else holds it; ends: how each operation was closed."""

    herd_now: Herd
    ends: list[str]

    def begin(self, verb: str, plan_id: str, token_floor: int, plan: dict[str, Any], **ends: Any) -> int:
        """As Lease does."""
        now = self.herd_now
        for code, why in (("OPERATION_HELD", now.held), ("HERD_ON_HOLD", now.hold), ("REGISTRY", now.registry_error)):
            if why:
                raise OperatorError(code, why)
        return max(TOKEN, token_floor + 1)

    def renew(self, token: int, phase: str, detail: dict[str, Any]) -> str:
        """As Lease does."""
        return ""

    def close(self, token: int, outcome: str, **end: Any) -> str:
        """As Lease does."""
        self.ends.append(outcome)
        return ""


def planner_for(herd: Herd, wishes: Wishes, check_mode: bool, monkeypatch: pytest.MonkeyPatch) -> Planner:
    """A planner of a run, or of a rehearsal, to which that herd is the world."""

    def look(names: Iterable[str], *_args: Any, **_more: Any) -> list[dict[str, Any]]:
        asked = [herd.member(name) for name in names]
        return [{"name": one.name, "facts": one.facts, "error": one.error} for one in asked if one]

    def who_holds(_registry: Any, _verb: str, herds: Mapping[str, Any], _holder: Any) -> Any:
        return {lead: OperatorError("OPERATION_HELD", herd.held) for lead in herds if herd.held}, herd.registry_error

    monkeypatch.setattr(planning, "look", look)
    monkeypatch.setattr(planning, "who_holds", who_holds)
    task, play_context = SimpleNamespace(check_mode=check_mode), SimpleNamespace(check_mode=check_mode)
    planner = Planner(hostvars_of(herd), task, cast(Any, play_context), (5, 10), {}, {}, wishes)
    planner.hosts = cast(Hosts, FakeHosts(herd))
    monkeypatch.setattr(planner, "updater", lambda: cast(Updater, FakeUpdater(herd)))
    return planner


def conductor_for(planner: Planner, herd: Herd) -> Conductor:
    """What conducts that herd, which has become this one since the plan was shown."""
    lease = FakeLease({}, herd.herd, herd.environment, "ada", {}, {}, 60)
    object.__setattr__(lease, "herd_now", herd)
    object.__setattr__(lease, "ends", [])
    return Conductor(planner, lease, herd.lead, Bounds(1, 1, 1, 1))
