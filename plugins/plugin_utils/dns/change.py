# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a repoint is allowed to do, decided from what stands there now, and the messages that say it (RFC 2136).

Private to the collection; controller only. No I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.library import dns
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.names import (
    RECORD_TYPES,
    alias_target,
    infer_type,
    parse_value,
    show_name,
    show_value,
)
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.options import Key
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.zone import Reading

ABSENT = "absent"
# TTL in seconds of a record that is made new without one: clients of a herd should not hold on to it for long.
NEW_RECORD_TTL = 60
# A server drops a CNAME silently where other data stands (RFC 2136 section 3.4.2.2), after it deleted what we asked it
# to delete: the name would be empty. So a switch to CNAME demands that nothing of this sort is there.
_BESIDE_ADDRESSES = ("TXT", "MX", "SRV", "CAA", "HTTPS", "SVCB", "SSHFP", "TLSA", "LOC", "NAPTR", "HINFO", "RP", "PTR")


@dataclass(frozen=True)
class Wish:
    """What the caller asked for, as written. `expected`: None (whatever is there), "absent", or values."""

    value: str
    type: str = "auto"
    expected: str | Sequence[str] | None = None
    ttl: int | None = None
    allow_type_change: bool = False
    allow_multiple: bool = False


@dataclass(frozen=True)
class Change:
    """A decided repoint: the record set that stands there, and the one that shall."""

    name: dns.name.Name
    zone: dns.name.Name
    before: tuple[dns.rrset.RRset, ...]
    after: dns.rrset.RRset
    needed: bool
    ttl_asked: bool

    def reached(self, reading: Reading) -> bool:
        """Whether this reading shows the wanted record (its TTL only counts when one was asked for)."""
        return same_records(reading.rrsets, (self.after,), with_ttl=self.ttl_asked)

    def untouched(self, reading: Reading) -> bool:
        """Whether this reading still shows what stood there when the change was decided."""
        return same_records(reading.rrsets, self.before, with_ttl=False)


def same_records(left: Sequence[dns.rrset.RRset], right: Sequence[dns.rrset.RRset], with_ttl: bool) -> bool:
    """Whether both hold the same types and values, ignoring case, order and (unless asked) TTL."""

    def content(rrsets: Sequence[dns.rrset.RRset]) -> set[tuple[int, int, str]]:
        return {(int(each.rdtype), each.ttl if with_ttl else 0, show_value(data)) for each in rrsets for data in each}

    return content(left) == content(right)


def decide(name: dns.name.Name, zone: dns.name.Name, now: Reading, wish: Wish) -> Change:
    """The change that makes `now` into what is wished, or the reason why it is refused.

    Raises OperatorError: DNS_RECORD_MIXED (several record types stand there), DNS_RECORD_ABSENT, DNS_RECORD_CHANGED
    (not what was expected), DNS_RECORD_MULTIPLE, DNS_TYPE_CHANGE, DNS_VALUE_INVALID, DNS_NAME_INVALID,
    DNS_NOT_CONFIGURED.
    """
    if wish.type != "auto" and wish.type not in RECORD_TYPES:
        raise OperatorError("DNS_NOT_CONFIGURED", f"type {wish.type!r} is none of auto, {', '.join(RECORD_TYPES)}")
    if wish.ttl is not None and not 0 <= wish.ttl <= 2147483647:  # RFC 2181 section 8
        raise OperatorError("DNS_NOT_CONFIGURED", f"ttl {wish.ttl} is not between 0 and 2147483647 seconds")
    if len(now.types) > 1:
        raise OperatorError(
            "DNS_RECORD_MIXED",
            f"{show_name(name)} has records of several types ({', '.join(now.types)}): changing one of them would "
            "leave clients of the other at the old primary",
            "leave exactly one type there",
            {"found": now.as_record()},
        )
    kind = _kind(name, now, wish)
    rdata = parse_value(wish.value, kind, zone)
    if kind == "CNAME" and name == zone:
        raise OperatorError("DNS_VALUE_INVALID", f"{show_name(name)} is the top of its zone: no CNAME can stand there")
    if alias_target(rdata) == name:
        raise OperatorError("DNS_VALUE_INVALID", f"{show_name(name)} cannot be an alias of itself")
    ttl = wish.ttl if wish.ttl is not None else now.ttl if now.ttl is not None else NEW_RECORD_TTL
    after = dns.rrset.from_rdata(name, ttl, rdata)
    change = Change(name, zone, now.rrsets, after, needed=True, ttl_asked=wish.ttl is not None)
    if change.reached(now):
        return Change(name, zone, now.rrsets, after, needed=False, ttl_asked=change.ttl_asked)
    if not same_records(now.rrsets, (after,), with_ttl=False):
        _check_expected(name, zone, now, wish)
    if len(now.values) > 1 and not wish.allow_multiple:
        raise OperatorError(
            "DNS_RECORD_MULTIPLE",
            f"{show_name(name)} has {len(now.values)} values ({', '.join(now.values)}); a herd's name points to one "
            "primary",
            "set allow_multiple to replace them all by the one",
            {"found": now.as_record()},
        )
    return change


def _kind(name: dns.name.Name, now: Reading, wish: Wish) -> str:
    """The type that shall stand there; a change of type only when it is allowed."""
    fitting = infer_type(wish.value)
    kind = fitting if wish.type == "auto" else wish.type
    if now.types and now.types != [kind] and not wish.allow_type_change:
        raise OperatorError(
            "DNS_TYPE_CHANGE",
            f"{show_name(name)} is of type {now.types[0]}, {wish.value!r} would make it {kind}",
            f"give a value for {now.types[0]}, or set allow_type_change",
            {"found": now.as_record()},
        )
    return kind


def _check_expected(name: dns.name.Name, zone: dns.name.Name, now: Reading, wish: Wish) -> None:
    expected = [wish.expected] if isinstance(wish.expected, str) else list(wish.expected or [])
    if not now.rrsets:
        if expected != [ABSENT]:
            raise OperatorError(
                "DNS_RECORD_ABSENT",
                f"{show_name(name)} has no CNAME, A or AAAA record",
                "correct the name, or say that it is expected to be absent to have it made",
                {"expected": expected, "found": now.as_record()},
            )
        return
    if not expected:
        return
    wanted = expected
    if expected != [ABSENT]:
        wanted = sorted(show_value(parse_value(value, infer_type(value), zone)) for value in expected)
    if wanted != now.values:
        raise record_changed(name, now, wanted)


def record_changed(name: dns.name.Name, now: Reading, expected: Sequence[str], hint: str = "") -> OperatorError:
    """DNS_RECORD_CHANGED with what was expected and what is there. Nothing was changed."""
    found = ", ".join(now.values) or "nothing"
    return OperatorError(
        "DNS_RECORD_CHANGED",
        f"{show_name(name)} points to {found} (expected: {', '.join(expected) or 'nothing'}); "
        f"nothing was changed{hint}",
        "find out who changed it; run again when that value is the right one to start from",
        {"expected": list(expected), "found": now.as_record()},
    )


def update_message(change: Change, key: Key) -> dns.update.UpdateMessage:
    """The signed update that makes the change, and only if what was read still stands there, value for value."""
    message = _conditional(change, key)
    for rrset in change.before:
        message.delete(change.name, rrset.rdtype)
    message.add(change.name, change.after.ttl, change.after[0])
    return message


def rehearsal_message(change: Change, key: Key) -> dns.update.UpdateMessage:
    """An update that changes nothing and yet needs everything the real one needs: key, policy, prerequisites.

    It adds what is already there (a server ignores that: RFC 2136 section 3.4.2.2; the serial stays), and deletes the
    wanted type where it is not there, which asks the server's policy about that type.
    """
    message = _conditional(change, key)
    for rrset in change.before:
        message.add(change.name, rrset.ttl, *rrset)
    if all(rrset.rdtype != change.after.rdtype for rrset in change.before):
        message.delete(change.name, change.after.rdtype)
    return message


def _conditional(change: Change, key: Key) -> dns.update.UpdateMessage:
    message = dns.update.UpdateMessage(change.zone)
    message.use_tsig(key.tsig())
    present = {rrset.rdtype for rrset in change.before}
    for rrset in change.before:
        message.present(change.name, *rrset)
    for rdtype in RECORD_TYPES:
        if dns.rdatatype.from_text(rdtype) not in present:
            message.absent(change.name, rdtype)
    if change.after.rdtype == dns.rdatatype.CNAME and change.after.rdtype not in present:
        if present:
            for rdtype in _BESIDE_ADDRESSES:
                message.absent(change.name, rdtype)
        else:
            message.absent(change.name)
    return message
