# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a vhost's record has to hold to lead to a member. Private to the collection."""

from __future__ import annotations

import ipaddress

from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Member


def dns_value(member: Member, record_type: str) -> str | None:
    """What a vhost of that type has to hold to lead to this member; None when its record does not say."""
    if record_type == "CNAME":
        return member.dns_name
    try:
        address = ipaddress.ip_address(member.address)
    except ValueError:
        return None
    return str(address) if record_type == {4: "A", 6: "AAAA"}[address.version] else None


def same_dns_value(one: str | None, other: str | None) -> bool:
    """Names without regard to case and trailing dot (RFC 4343); addresses by value."""
    if one is None or other is None:
        return False
    try:
        return ipaddress.ip_address(one) == ipaddress.ip_address(other)
    except ValueError:
        return one.lower().rstrip(".") == other.lower().rstrip(".")
