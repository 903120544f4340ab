# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From host variables and the results of a look at each member to the herd that decide/ reads. Private to the collection."""

from __future__ import annotations

import datetime
import time
from collections.abc import Container, Iterable, Mapping
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd, Member, Operation

Look = Mapping[str, Any]
"""What a verb returned about an instance: its facts stand under "instance"."""


def seen_by_name(
    observations: Iterable[Mapping[str, Any]],
) -> tuple[dict[str, Look], dict[str, str]]:
    """Observations as herd_of takes them: looks by name, and for the instances without one the reason."""
    looks: dict[str, Look] = {}
    errors: dict[str, str] = {}
    for seen in observations:
        if seen["facts"]:
            looks[str(seen["name"])] = {"instance": seen["facts"]}
        else:
            errors[str(seen["name"])] = str(seen["error"])
    return looks, errors


def herd_of(
    lead: str,
    hostvars: Mapping[str, Mapping[str, Any]],
    looks: Mapping[str, Look],
    unreachable: Mapping[str, str],
    held: str = "",
    registry_error: str = "",
    dns: dict[str, Any] | None = None,
    only: Container[str] | None = None,
) -> Herd:
    """Build the herd of that lead.

    looks: by inventory name.
    unreachable: reason by inventory name, for hosts that were found dead before the look.
    held: who holds the herd, when a live run does. dns: the probe of the vhost.
    only: the members that were asked about; the others are not part of the result.
    """
    own = hostvars[lead]
    names = [str(name) for name in own["elephaas_members"]]
    present = [name for name in names if name in hostvars and (only is None or name in only)]
    return Herd(
        name=str(own["elephaas_herd_group"]),
        herd=str(own["elephaas_herd"]),
        environment=str(own["elephaas_environment"]),
        lead=lead,
        members=tuple(_member(name, hostvars[name], looks.get(name), unreachable.get(name)) for name in present),
        protected=bool(own.get("elephaas_protected")),
        vhost=own.get("elephaas_vhost"),
        hold_reason=own.get("elephaas_hold_reason"),
        hold_by=own.get("elephaas_hold_by"),
        hold_since=own.get("elephaas_hold_since"),
        missing=tuple(name for name in names if name not in hostvars),
        operation=_operation(own.get("elephaas_operation")),
        last_failover=_operation(own.get("elephaas_last_failover")),
        held=held,
        registry_error=registry_error,
        dns=dns,
        now=time.time(),
    )


def _member(name: str, variables: Mapping[str, Any], look: Look | None, dead: str | None) -> Member:
    facts = (look or {}).get("instance")
    error = dead or ""
    if facts is None and not error:
        error = str((look or {}).get("msg") or "it was not looked at")
    return Member(
        name=name,
        server=str(variables["elephaas_server"]),
        datacenter=variables.get("elephaas_datacenter"),
        address=str(variables.get("elephaas_address") or variables["elephaas_server"]),
        dns_name=variables.get("elephaas_dns_name"),
        port=int(variables["elephaas_port"]),
        role=str(variables.get("elephaas_role") or "replica"),
        upstream=variables.get("elephaas_upstream"),
        priority=int(variables.get("elephaas_priority") or 0),
        replication_user=variables.get("elephaas_replication_user"),
        recorded_lsn=variables.get("elephaas_lsn"),
        last_seen=variables.get("elephaas_last_seen"),
        reachable=facts is not None,
        error=error,
        facts=dict(facts) if facts is not None else None,
    )


def _operation(record: Mapping[str, Any] | None) -> Operation | None:
    if not record:
        return None
    return Operation(
        verb=str(record.get("verb") or ""),
        state=str(record.get("state") or "open"),
        token=int(record.get("token") or 0),
        plan_id=record.get("plan_id"),
        source=record.get("from"),
        target=record.get("to"),
        operator=str(record.get("operator") or ""),
        lease_until=_epoch(record.get("lease_until")),
        started=str(record.get("started") or ""),
        finished=record.get("finished"),
        unplanned=bool(record.get("unplanned")),
    )


def _epoch(text: Any) -> float | None:
    if not text:
        return None
    return datetime.datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
