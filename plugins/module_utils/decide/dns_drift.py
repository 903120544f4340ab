# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a herd's DNS name does not lead to its live primary, and whether it may be made to. Private to the collection.

Pure: the same plan is shown in check mode, agreed to at the gate, and decided once more under the herd's lease. What
moves applications is the live look alone: never the record of who is primary, which may be what is wrong.
"""

from __future__ import annotations

import datetime
from dataclasses import asdict, dataclass
from typing import Any, Iterator, Mapping

from ansible_collections.elephaas.herd.plugins.module_utils.decide.bulk_findings import herd_findings
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd, Member
from ansible_collections.elephaas.herd.plugins.module_utils.decide.plan import GO
from ansible_collections.elephaas.herd.plugins.module_utils.decide.size import human_seconds
from ansible_collections.elephaas.herd.plugins.module_utils.decide.stage import DONE, mirrored_operations
from ansible_collections.elephaas.herd.plugins.module_utils.decide.verdict import (
    REFUSE,
    WARN,
    Verdict,
    accept,
    most_severe_first,
    worst,
)
from ansible_collections.elephaas.herd.plugins.module_utils.decide.vhost import dns_value, same_dns_value

VERB = "switch_dns"


@dataclass(frozen=True)
class Request:
    """What is asked for.

    ttl: seconds that the record is to have from now on; None leaves it as it is.
    accept: codes of acceptable refusals that the operator accepts. without_registry: the registry is not there to lock
    the herd and to keep what was done.
    """

    ttl: int | None = None
    accept: tuple[str, ...] = ()
    without_registry: bool = False


def plan_dns(herd: Herd, request: Request, identifiers: Mapping[str, str]) -> dict[str, Any]:
    """Decide what is done to this herd's DNS name. Plain data, described in the documentation of switch_dns_plan_info.

    identifiers: the system identifiers on record, by inventory name.
    """
    if not herd.vhost:
        return _document(herd, request, None, None, [])
    primary, verdicts = live_primary(herd, identifiers)
    dns = _dns(herd, request, primary)
    verdicts = [*herd_findings(herd, VERB), *_claims(herd, request), *verdicts, *_dns_findings(herd, primary, dns)]
    return _document(herd, request, primary, dns, accept(verdicts, request.accept))


def live_primary(herd: Herd, identifiers: Mapping[str, str]) -> tuple[Member | None, list[Verdict]]:
    """The one member that takes writes, and what speaks against sending applications to it; None when it is not one.

    Members detached for a diagnosis are no members for this.
    """
    writable = herd.writable
    if len(writable) > 1:
        names = ", ".join(member.name for member in writable)
        reason = f"{len(writable)} members accept writes: {names}"
        return None, [
            Verdict("SPLIT_BRAIN", REFUSE, herd.name, reason, "Stop the one that must not; elephaas.herd.status tells.")
        ]
    if not writable:
        unseen = [
            Verdict(
                "NO_PRIMARY", REFUSE, herd.name, "no member that can be seen accepts writes", "Start or promote one."
            )
        ]
        return None, [*unseen, *_unseen(herd, None)]
    primary = writable[0]
    return primary, [*_unfit(herd, primary, identifiers), *_unseen(herd, primary), *_beside(herd, primary)]


def _unfit(herd: Herd, primary: Member, identifiers: Mapping[str, str]) -> Iterator[Verdict]:
    """What is wrong with the member that takes writes."""

    def refuse(code: str, reason: str, next_step: str) -> Verdict:
        return Verdict(code, REFUSE, primary.name, reason, next_step)

    if primary.role == "superseded":
        yield refuse(
            "SUPERSEDED",
            "it accepts writes, but was the primary before a failover, and what it holds has been overtaken",
            "Stop it, and make it a replica of the new primary.",
        )
    if primary.fact("identity_problem"):
        yield refuse(
            "WRONG_SERVER", str(primary.fact("identity_problem")), "Correct port or data directory in the record."
        )
    if primary.fact("sql_error"):
        yield refuse("NO_ANSWER", f"it does not answer: {primary.fact('sql_error')}", "See that PostgreSQL's log.")
    recorded, found = identifiers.get(primary.name), primary.fact("system_identifier")
    if not found or (recorded and recorded != found):
        yield refuse(
            "OTHER_CLUSTER",
            f"its system identifier is {found or 'not known'}, {recorded or 'none'} is on record",
            "It is another database: find out which, and correct the record.",
        )
    if primary.role not in ("primary", "superseded"):
        yield Verdict(
            "PRIMARY_MISMATCH",
            WARN,
            herd.name,
            f"{primary.name} accepts writes, and is on record as {primary.role}",
            "Find out who promoted it. elephaas.herd.status puts on record what it can explain.",
        )


def _unseen(herd: Herd, primary: Member | None) -> Iterator[Verdict]:
    """Members that nobody can look at: one of them may be the primary, or another one."""
    for member in herd.members:
        if member.reachable or member.detached or member is primary:
            continue
        if member.role == "superseded":
            # Whatever it does: a failover has left it behind, and applications are not sent to it.
            yield Verdict("SUPERSEDED_UNSEEN", WARN, member.name, f"it cannot be looked at: {member.error}", "")
            continue
        yield Verdict(
            "MEMBER_UNREACHABLE",
            REFUSE,
            member.name,
            f"its host cannot be reached, so nobody knows whether it accepts writes: {member.error}",
            "Bring it back, or, where you know that it accepts none: -e accept=MEMBER_UNREACHABLE.",
            acceptable=True,
        )


def _beside(herd: Herd, primary: Member) -> Iterator[Verdict]:
    """Other members that contradict the one that takes writes."""
    identifier, timeline = primary.fact("system_identifier"), primary.fact("timeline") or 0
    for member in herd.members:
        if member is primary or member.detached or not member.reachable or member.status == "absent":
            continue
        other = member.fact("system_identifier")
        if identifier and other and other != identifier:
            yield Verdict(
                "OTHER_CLUSTER",
                REFUSE,
                member.name,
                f"its system identifier is {other}, that of {primary.name} is {identifier}",
                "One of the two is another database: find out which, and correct the record.",
            )
        if member.fact("role") == "primary" and member.status != "stopped":
            yield Verdict(
                "SECOND_PRIMARY",
                REFUSE,
                member.name,
                f"it is {member.status} and no replica: it may accept writes beside {primary.name} any moment",
                "Stop the one that must not.",
            )
        if member.role != "superseded" and (member.fact("timeline") or 0) > timeline:
            yield Verdict(
                "TIMELINE",
                REFUSE,
                member.name,
                f"it is on timeline {member.fact('timeline')}, {primary.name} on {timeline or 'an unknown one'}: there was"
                " a failover, after which that one is no primary",
                "Find the new primary, and make the old one its replica.",
            )


def _claims(herd: Herd, request: Request) -> Iterator[Verdict]:
    """Without the registry the hosts' records have to tell whether somebody acts on the herd right now."""
    if not request.without_registry:
        return
    for copy in mirrored_operations(herd):
        operation = copy.operation
        if operation.open and operation.lease_until is not None and operation.lease_until > herd.now:
            left = human_seconds(operation.lease_until - herd.now)
            yield Verdict(
                "OPERATION_HELD",
                REFUSE,
                copy.holder,
                f"{operation.operator} runs a {operation.verb} on it, its lease lasts another {left}",
                "Wait for its end.",
            )


def _dns(herd: Herd, request: Request, primary: Member | None) -> dict[str, Any]:
    """What the name holds and what it must hold."""
    probe = herd.dns or {}
    values, ttl = list(probe.get("values") or []), probe.get("ttl")
    to = dns_value(primary, str(probe.get("type"))) if primary is not None else None
    moves = to is not None and not (len(values) == 1 and same_dns_value(values[0], to))
    retimes = to is not None and request.ttl is not None and request.ttl != ttl
    return {
        "record": herd.vhost,
        "type": probe.get("type"),
        "holds": values,
        "should_hold": to,
        "ttl": ttl,
        "ttl_to": request.ttl if retimes else ttl,
        "moves": moves,
        "retimes": retimes,
        "servers": [
            {key: server.get(key) for key in ("server", "values", "error")} for server in probe.get("servers") or []
        ],
    }


def differing(dns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The authoritative servers that answer, but not what the update server does."""
    return [
        server
        for server in dns["servers"]
        if not server["error"] and sorted(server["values"] or []) != sorted(dns["holds"])
    ]


def _dns_findings(herd: Herd, primary: Member | None, dns: dict[str, Any]) -> Iterator[Verdict]:
    name, probe = str(herd.vhost), herd.dns or {"error": "DNS_NOT_CONFIGURED", "reason": "DNS was not asked"}
    changes = dns["moves"] or dns["retimes"]
    if probe.get("zone") and not dns["holds"]:
        yield Verdict(
            "DNS_RECORD_ABSENT",
            REFUSE,
            name,
            "it has no CNAME, A or AAAA record",
            "Make it once with elephaas.herd.dns_repoint and expected: absent.",
        )
    elif probe.get("error") and (changes or dns["should_hold"] is None):
        yield Verdict(
            "DNS_REFUSED",
            REFUSE,
            name,
            f"{probe.get('reason') or probe['error']} ({probe['error']})",
            str(probe.get("next_step") or "Correct server, key or the server's update policy."),
        )
    elif primary is not None and dns["should_hold"] is None:
        needs = "a dns_name" if dns["type"] == "CNAME" else f"an address for {dns['type']} records"
        yield Verdict(
            "DNS_NO_TARGET",
            REFUSE,
            primary.server,
            f"the record of this server lacks {needs}, which {name} needs",
            "Record dns_name or address of that server.",
        )
    apart = differing(dns)
    if apart:
        said = ", ".join(f"{one['server']} answers {', '.join(one['values'] or []) or 'nothing'}" for one in apart)
        # Our update starts new zone transfers, and is read back; without one, nothing that we do would mend it.
        yield Verdict(
            "DNS_SERVERS_DIFFER",
            WARN if changes else REFUSE,
            name,
            f"its servers do not agree: {said}",
            "" if changes else "Look at the zone transfers to these servers.",
        )
    for server in dns["servers"]:
        if server["error"]:
            yield Verdict(
                "DNS_SILENT", WARN, name, f"name server {server['server']} does not answer: {server['error']}", ""
            )


def _document(
    herd: Herd, request: Request, primary: Member | None, dns: dict[str, Any] | None, verdicts: list[Verdict]
) -> dict[str, Any]:
    changes = dns is not None and (dns["moves"] or dns["retimes"])
    steps = [{"name": herd.vhost}] if changes else []
    leads_to = f"{herd.vhost} leads to {primary.name}" if primary else "it has no DNS name"
    plan = {
        "herd": herd.name,
        "verb": VERB,
        "outcome": REFUSE if worst(verdicts) == REFUSE else GO if steps else DONE,
        "protected": herd.protected,
        # Applications move with it.
        "asks": bool(steps),
        "primary": primary.name if primary else None,
        "dns": dns,
        "steps": steps,
        "skipped": {} if steps else {str(herd.vhost or herd.name): leads_to},
        "left": {},
        "verdicts": [verdict.as_dict() for verdict in most_severe_first(verdicts)],
        "token_floor": herd.highest_token,
        "request": {**asdict(request), "accept": list(request.accept)},
        "agreed": None,
    }
    return {**plan, "decisions": _decisions(plan)}


def request_of(plan: Mapping[str, Any]) -> Request:
    """What a plan was made for."""
    return Request(**{**plan["request"], "accept": tuple(plan["request"]["accept"])})


def _decisions(plan: dict[str, Any]) -> dict[str, Any]:
    """What the operator agrees to; never what caches or single servers answer."""
    dns = plan["dns"] or {}
    return {
        "herd": plan["herd"],
        "verb": plan["verb"],
        "outcome": plan["outcome"],
        "primary": plan["primary"],
        "record": dns.get("record"),
        "type": dns.get("type"),
        "from": sorted(_canonical(value) for value in dns.get("holds") or []),
        "to": _canonical(dns.get("should_hold") or ""),
        "ttl": dns["ttl_to"] if dns.get("retimes") else None,
        "accepted": sorted({one["code"] for one in plan["verdicts"] if one["acceptable"] and one["level"] == WARN}),
        "refused": sorted({one["code"] for one in plan["verdicts"] if one["level"] == REFUSE}),
    }


def _canonical(value: str) -> str:
    return value.lower().rstrip(".")


def done_text(dns: Mapping[str, Any], at: float) -> list[str]:
    """What was done to the name, and from when on it counts everywhere. at: seconds since 1970 of the server's word.

    A resolver keeps what it has read for the old TTL, whatever the new one is.
    """
    until = datetime.datetime.fromtimestamp(at + (dns["ttl"] or 0), datetime.timezone.utc)
    when = until.strftime("%Y-%m-%d %H:%M:%S UTC")
    texts = []
    if dns["moves"]:
        texts.append(
            f"{', '.join(dns['holds'])} -> {dns['should_hold']}; resolvers may answer the old value until {when}"
        )
    if dns["retimes"]:
        texts.append(f"TTL {dns['ttl']} s -> {dns['ttl_to']} s, in effect everywhere from {when} on")
    return texts
