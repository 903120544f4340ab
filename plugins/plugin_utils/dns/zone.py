# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading DNS from the servers that own it: which zone, which servers, what stands there now.

Private to the collection; controller only. Every question goes to one server by address, without recursion, so that no
cache ever answers.
"""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.library import dns
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.names import show_name, show_values
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.wire import DATAGRAM_BYTES, Address, NoAnswer, ask

Result = TypeVar("Result")


@dataclass(frozen=True)
class Reading:
    """What one authoritative server says of one name, of the types CNAME, A and AAAA.

    rrsets: at that name itself, sorted by type; empty when it has none of them. error/reason: set when the server could
    not be read; then rrsets says nothing.
    """

    server: str
    ip: str | None
    rrsets: tuple[dns.rrset.RRset, ...] = ()
    error: str | None = None
    reason: str = ""

    @property
    def types(self) -> list[str]:
        """The types that are there: [] for an absent record, two of them for a mixture."""
        return [dns.rdatatype.to_text(rrset.rdtype) for rrset in self.rrsets]

    @property
    def values(self) -> list[str]:
        """All values, sorted, as results show them."""
        return show_values(self.rrsets)

    @property
    def ttl(self) -> int | None:
        """Seconds; None when absent, the longest when there are several record sets."""
        return max((rrset.ttl for rrset in self.rrsets), default=None)

    def as_record(self) -> dict[str, Any]:
        """{"type": "CNAME"|"A"|"AAAA"|"A+AAAA"|None, "values": [...], "ttl": seconds|None}."""
        return {"type": "+".join(self.types) or None, "values": self.values, "ttl": self.ttl}

    def as_result(self) -> dict[str, Any]:
        """as_record() plus server, address, error (a code or None) and reason."""
        return {
            "server": self.server,
            "address": self.ip,
            **self.as_record(),
            "error": self.error,
            "reason": self.reason,
        }


def question(name: dns.name.Name, rdtype: str) -> dns.message.Message:
    """A question without "recursion desired": we want the server's own data, never what it cached."""
    message = dns.message.make_query(name, rdtype, use_edns=0, payload=DATAGRAM_BYTES)
    message.flags &= ~dns.flags.RD
    return message


def resolve(host: str, port: int) -> list[Address]:
    """The addresses of a server named in the options, by the system's resolver; IPv4 first, each once.

    Raises NoAnswer when the name cannot be resolved.
    """
    try:
        return [Address(host, str(ipaddress.ip_address(host)), port)]
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise NoAnswer(f"the name {host} of a DNS server cannot be resolved ({error})", delivered=False) from error
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return [Address(host, ip, port) for ip in dict.fromkeys(str(entry[4][0]) for entry in found)]


def together(jobs: Sequence[Callable[[], Result]], timeout: float) -> list[Result | None]:
    """The results of all jobs, run at once; None for a job that is not back after `timeout` seconds.

    Threads of a pool would be joined at exit; a name look-up that hangs because its resolver died with the site must
    not hold the run back, so these are daemons and are left behind. A job's exception is raised here.
    """
    done: queue.Queue[tuple[int, Result | None, BaseException | None]] = queue.Queue()

    def run(index: int) -> None:
        try:
            done.put((index, jobs[index](), None))
        except BaseException as error:  # noqa: BLE001 - handed over to the caller's thread
            done.put((index, None, error))

    for index in range(len(jobs)):
        threading.Thread(target=run, args=(index,), daemon=True).start()
    results: list[Result | None] = [None] * len(jobs)
    deadline = time.monotonic() + timeout
    for _each in jobs:
        try:
            index, result, error = done.get(timeout=max(deadline - time.monotonic(), 0.001))
        except queue.Empty:
            break
        if error is not None:
            raise error
        results[index] = result
    return results


def find_zone(server: Address, name: dns.name.Name, timeout: float) -> dns.name.Name:
    """The zone on this server that owns `name`: the closest name upwards with an authoritative SOA (as nsupdate does).

    Raises NoAnswer; OperatorError DNS_NOT_AUTHORITATIVE when the server owns none, or has given that part away.
    """
    candidate = name
    refusal = ""
    while len(candidate) > 1:
        answer = ask(question(candidate, "SOA"), server, timeout)
        soas = [rrset.name for rrset in (*answer.answer, *answer.authority) if rrset.rdtype == dns.rdatatype.SOA]
        authoritative = bool(answer.flags & dns.flags.AA)
        if authoritative and candidate in soas:
            return candidate
        if authoritative and not answer.answer and len(soas) == 1 and name.is_subdomain(soas[0]):
            return soas[0]  # "no such record" names its zone (RFC 2308 section 3); saves the walk
        cuts = [rrset.name for rrset in answer.authority if rrset.rdtype == dns.rdatatype.NS]
        if not authoritative and cuts and len(cuts[0]) > 1 and name.is_subdomain(cuts[0]):
            refusal = f"it has delegated {show_name(cuts[0])} to other servers"
            break
        if answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            refusal = f"it answers {dns.rcode.to_text(answer.rcode())}"
        candidate = candidate.parent()
    raise not_authoritative(server, name, refusal or "it has no zone for it")


def not_authoritative(server: Address, name: dns.name.Name, why: str) -> OperatorError:
    """DNS_NOT_AUTHORITATIVE: this server does not own the name."""
    return OperatorError(
        "DNS_NOT_AUTHORITATIVE",
        f"the DNS server {server} is not authoritative for {show_name(name)}: {why}",
        "give the primary server of the record's zone as server",
        {"server": str(server), "record": show_name(name)},
    )


def name_servers(server: Address, zone: dns.name.Name, timeout: float) -> list[dns.name.Name]:
    """The zone's NS names, sorted. Raises NoAnswer."""
    answer = ask(question(zone, "NS"), server, timeout)
    return sorted(
        rdata.target
        for rrset in answer.answer
        if rrset.rdtype == dns.rdatatype.NS and rrset.name == zone
        for rdata in rrset
    )


def server_addresses(server: Address, host: dns.name.Name, timeout: float) -> list[Address]:
    """The addresses of a name server: as the update server knows them, else by the system's resolver.

    The update server first: it owns the names inside the zone, and answers also when the site's resolvers are gone.
    Raises NoAnswer.
    """
    found: list[Address] = []
    for rdtype in ("A", "AAAA"):
        try:
            answer = ask(question(host, rdtype), server, timeout)
        except NoAnswer:
            break
        found.extend(
            Address(show_name(host), rdata.address, server.port)
            for rrset in (*answer.answer, *answer.additional)
            if rrset.name == host and rrset.rdtype == dns.rdatatype.from_text(rdtype)
            for rdata in rrset
        )
    return found or resolve(show_name(host), server.port)


def read(server: Address, name: dns.name.Name, timeout: float) -> Reading:
    """What this server says of `name` now. A server that answers, but not as an owner, is an error in the Reading.

    Raises NoAnswer.
    """
    rrsets: dict[int, dns.rrset.RRset] = {}
    for rdtype in ("A", "AAAA"):
        answer = ask(question(name, rdtype), server, timeout)
        code = answer.rcode()
        if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            text = dns.rcode.to_text(code)
            return Reading(server.host, server.ip, error="DNS_SERVER_FAILED", reason=f"{server} answers {text}")
        if not answer.flags & dns.flags.AA:
            reason = f"{server} is not authoritative for {show_name(name)}"
            return Reading(server.host, server.ip, error="DNS_NOT_AUTHORITATIVE", reason=reason)
        # A CNAME's answer goes on with what it points at (RFC 1034 section 3.6.2): only this name's own records count.
        for rrset in answer.answer:
            if rrset.name == name and dns.rdatatype.to_text(rrset.rdtype) in ("CNAME", "A", "AAAA"):
                rrsets[int(rrset.rdtype)] = rrset
        if int(dns.rdatatype.CNAME) in rrsets:
            break  # nothing else can stand beside it
    ordered = sorted(rrsets.values(), key=lambda rrset: dns.rdatatype.to_text(rrset.rdtype))
    return Reading(server.host, server.ip, tuple(ordered))


def read_any(host: str, addresses: Sequence[Address], name: dns.name.Name, timeout: float) -> Reading:
    """`read` from the first address of one server that answers; no answer is an error in the Reading."""
    reason = f"{host} cannot be resolved"
    for address in addresses:
        try:
            return read(address, name, timeout)
        except NoAnswer as failure:
            reason = failure.reason
    return Reading(host, None, error="DNS_UNREACHABLE", reason=reason)
