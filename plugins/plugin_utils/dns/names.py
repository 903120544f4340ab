# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and values of DNS records as people write them. Private to the collection; controller only. No I/O."""

from __future__ import annotations

import ipaddress
import re
import struct

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.library import dns, require_dnspython

RECORD_TYPES = ("CNAME", "A", "AAAA")
# A host name's label (RFC 1123 section 2.1), and the underscore that private zones use.
_LABEL = re.compile(rb"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?")


def parse_name(text: str, zone: dns.name.Name | None = None) -> dns.name.Name:
    """An absolute, lower-case name from what a person wrote.

    A single label without a dot is relative to `zone`; everything else is a full name, with or without the final dot
    (a longer name that silently grew the zone's name would be another record). International names are encoded (IDNA).
    Raises OperatorError DNS_NAME_INVALID.
    """
    require_dnspython()
    written = str(text).strip()
    try:
        name = dns.name.from_text(written, None)
        if not name.is_absolute():
            if len(name) == 1 and zone is None:
                raise OperatorError(
                    "DNS_NAME_INVALID",
                    f"{written!r} is a name without a domain, and no zone is given",
                    "write the full name, or set zone",
                )
            name = name.concatenate(zone if len(name) == 1 and zone is not None else dns.name.root)
    # struct.error: an escape of more than a byte (\\999), which dnspython does not look at.
    except (dns.exception.DNSException, UnicodeError, struct.error) as error:
        raise OperatorError("DNS_NAME_INVALID", f"{written!r} is no DNS name: {error}") from error
    name = name.canonicalize()
    bad = [label for label in name.labels[:-1] if not _LABEL.fullmatch(label)]
    if bad or len(name) < 2:
        raise OperatorError(
            "DNS_NAME_INVALID",
            f"{written!r} is no host name",
            "use labels of letters, digits, dashes and underscores, parted by dots",
        )
    return name


def show_name(name: dns.name.Name) -> str:
    """The name as results show it: lower case, encoded, without the final dot."""
    return name.canonicalize().to_text(omit_final_dot=True)


def infer_type(value: str) -> str:
    """The record type that can hold `value`: A, AAAA, or CNAME for everything that is no address."""
    try:
        return "A" if ipaddress.ip_address(str(value).strip()).version == 4 else "AAAA"
    except ValueError:
        return "CNAME"


def parse_value(text: str, rdtype: str, zone: dns.name.Name | None = None) -> dns.rdata.Rdata:
    """The value as record data; comparing two of them with == ignores case and spelling of addresses.

    Raises OperatorError DNS_VALUE_INVALID (a value of another type) or DNS_NAME_INVALID.
    """
    require_dnspython()
    written = str(text).strip()
    if infer_type(written) != rdtype:
        raise OperatorError(
            "DNS_VALUE_INVALID",
            f"{written!r} cannot be the value of {'a CNAME' if rdtype == 'CNAME' else f'an {rdtype}'} record",
            "give a host name for a CNAME, an IPv4 address for an A, an IPv6 address for an AAAA record",
        )
    plain = parse_name(written, zone).to_text() if rdtype == "CNAME" else str(ipaddress.ip_address(written))
    try:
        return dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.from_text(rdtype), plain)
    except dns.exception.DNSException as error:  # an IPv6 address with a scope ("%eth0") has no place in DNS
        raise OperatorError("DNS_VALUE_INVALID", f"{written!r} cannot stand in DNS: {error}") from error


def show_value(rdata: dns.rdata.Rdata) -> str:
    """The value as results show it: a name without the final dot, or an address in its shortest form."""
    target = alias_target(rdata)
    return rdata.to_text() if target is None else show_name(target)


def alias_target(rdata: dns.rdata.Rdata) -> dns.name.Name | None:
    """What a CNAME points at; None for an address."""
    return getattr(rdata, "target", None)


def show_values(rrsets: tuple[dns.rrset.RRset, ...]) -> list[str]:
    """All values of the record sets, sorted."""
    return sorted(show_value(rdata) for rrset in rrsets for rdata in rrset)


def zone_file_text(rrsets: tuple[dns.rrset.RRset, ...]) -> str:
    """The record sets as lines of a zone file (RFC 1035 section 5), sorted; empty for an absent record."""
    lines = []
    for rrset in rrsets:
        kind = dns.rdatatype.to_text(rrset.rdtype)
        for rdata in rrset:
            value = show_value(rdata) + ("." if kind == "CNAME" else "")
            lines.append(f"{show_name(rrset.name)}. {rrset.ttl} IN {kind} {value}")
    return "".join(f"{line}\n" for line in sorted(lines))
