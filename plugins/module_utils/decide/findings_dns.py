# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a herd's vhost and its name servers, for a failover. Private to the collection."""

from __future__ import annotations

from typing import Any, Iterator

from ansible_collections.elephaas.herd.plugins.module_utils.decide.findings import Finding, Situation
from ansible_collections.elephaas.herd.plugins.module_utils.decide.size import human_seconds
from ansible_collections.elephaas.herd.plugins.module_utils.decide.stage import FINISH
from ansible_collections.elephaas.herd.plugins.module_utils.decide.vhost import dns_value, same_dns_value


def no_vhost(situation: Situation) -> Iterator[Finding]:
    """No DNS name leads to the herd."""
    if not situation.herd.vhost:
        yield situation.herd.name, "it has no vhost: nothing will lead applications to the new primary"


def dns_skipped(situation: Situation) -> Iterator[Finding]:
    """DNS is to be left alone."""
    if situation.herd.vhost and situation.wishes.dns == "skip":
        yield situation.herd.vhost, "DNS is left alone, as asked: applications keep the old address"


def _dns(situation: Situation) -> dict[str, Any] | None:
    return situation.herd.dns if situation.wishes.dns != "skip" and situation.herd.vhost else None


def dns_refused(situation: Situation) -> Iterator[Finding]:
    """The name server would refuse our update."""
    probe = _dns(situation)
    if probe and probe.get("error"):
        yield str(situation.herd.vhost), f"{probe.get('reason') or probe['error']} ({probe['error']})"


def dns_changed(situation: Situation) -> Iterator[Finding]:
    """The vhost leads somewhere else than to the primary."""
    probe = _dns(situation)
    if not probe or probe.get("error") or situation.primary is None:
        return
    record_type = str(probe.get("type"))
    expected = [dns_value(situation.primary, record_type)]
    if situation.stage.name == FINISH and situation.candidate is not None:
        expected.append(dns_value(situation.candidate, record_type))
    values = probe.get("values") or []
    if len(values) == 1 and any(same_dns_value(values[0], value) for value in expected):
        return
    holds = f"it holds {record_type} {', '.join(values) or 'nothing'}"
    if expected[0] is None:
        yield (
            str(situation.herd.vhost),
            f"{holds}, and the record of {situation.primary.server} has nothing to compare it with",
        )
    else:
        yield (
            str(situation.herd.vhost),
            f"{holds}, but {situation.primary.name} is {expected[0]}: somebody else has changed it",
        )


def dns_no_target(situation: Situation) -> Iterator[Finding]:
    """Nothing is known that the vhost could hold for the candidate."""
    probe = _dns(situation)
    if not probe or probe.get("error") or situation.candidate is None:
        return
    record_type = str(probe.get("type"))
    if dns_value(situation.candidate, record_type) is None:
        needs = "a dns_name" if record_type == "CNAME" else f"an address for {record_type} records"
        yield situation.candidate.server, f"the record of this server lacks {needs}, which {situation.herd.vhost} needs"


def dns_silent(situation: Situation) -> Iterator[Finding]:
    """Authoritative name servers that do not answer."""
    probe = _dns(situation)
    for server in (probe or {}).get("servers") or []:
        if server.get("error"):
            yield str(situation.herd.vhost), f"name server {server.get('server')} does not answer: {server['error']}"


def dns_ttl(situation: Situation) -> Iterator[Finding]:
    """The TTL is long."""
    probe = _dns(situation)
    ttl = (probe or {}).get("ttl")
    if ttl is not None and int(ttl) > situation.wishes.max_ttl:
        yield (
            str(situation.herd.vhost),
            f"its TTL is {human_seconds(float(ttl))}: clients wait for the gap, and up to that much longer",
        )
