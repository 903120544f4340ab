# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be changed into what, what the messages say, and what answers mean."""

from __future__ import annotations

from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.change import (
    NEW_RECORD_TTL,
    Change,
    Wish,
    decide,
    rehearsal_message,
    update_message,
)
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.names import zone_file_text
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.options import Key
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.wire import Address, parse, rcode_error
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.zone import Reading, question

ZONE = dns.name.from_text("example.com.")
NAME = dns.name.from_text("db.example.com.")
SERVER = Address("ns1.example.com", "192.0.2.53", 53)
KEY = Key("herd", "hmac-sha256", b"0123456789abcdef0123456789abcdef")
VALUES = {"CNAME": "one.example.com", "A": "192.0.2.1", "AAAA": "fd00::1"}
OTHERS = {"CNAME": "two.example.com", "A": "192.0.2.2", "AAAA": "fd00::2"}
kinds = st.sampled_from(sorted(VALUES))


def there(*records: tuple[str, str], ttl: int = 30) -> Reading:
    """A reading that shows these (type, value)."""
    rrsets: dict[str, list[str]] = {}
    for rdtype, value in records:
        rrsets.setdefault(rdtype, []).append(f"{value}." if rdtype == "CNAME" else value)
    made = (dns.rrset.from_text_list(NAME, ttl, "IN", rdtype, values) for rdtype, values in sorted(rrsets.items()))
    return Reading("ns1", "192.0.2.53", tuple(made))


def refused(now: Reading, wish: Wish) -> str:
    with pytest.raises(OperatorError) as caught:
        decide(NAME, ZONE, now, wish)
    return caught.value.code


@given(kinds, st.none() | st.integers(0, 2147483647))
def test_a_value_replaces_one_of_its_type_and_keeps_the_ttl(kind: str, ttl: int | None) -> None:
    change = decide(NAME, ZONE, there((kind, VALUES[kind])), Wish(OTHERS[kind], ttl=ttl))
    assert change.needed
    assert change.after.ttl == (30 if ttl is None else ttl)
    assert not change.reached(there((kind, VALUES[kind])))
    assert change.untouched(there((kind, VALUES[kind]), ttl=99))
    assert change.reached(there((kind, OTHERS[kind]), ttl=change.after.ttl))


@given(kinds, kinds, st.booleans())
def test_the_type_changes_only_when_allowed(now: str, then: str, allowed: bool) -> None:
    reading, wish = there((now, VALUES[now])), Wish(OTHERS[then], allow_type_change=allowed)
    if now == then or allowed:
        assert decide(NAME, ZONE, reading, wish).after.rdtype == dns.rdatatype.from_text(then)
    else:
        assert refused(reading, wish) == "DNS_TYPE_CHANGE"


@given(kinds)
def test_what_is_there_already_needs_nothing_whatever_was_expected(kind: str) -> None:
    now = there((kind, VALUES[kind]))
    for expected in (None, OTHERS[kind], [OTHERS[kind]], "absent"):
        assert not decide(NAME, ZONE, now, Wish(VALUES[kind].upper(), expected=expected)).needed
    assert not decide(NAME, ZONE, now, Wish(VALUES[kind], ttl=30)).needed
    assert decide(NAME, ZONE, now, Wish(VALUES[kind], ttl=31, expected="192.0.2.77")).needed


@given(kinds)
def test_expectations(kind: str) -> None:
    now, wish = there((kind, VALUES[kind])), OTHERS[kind]
    for met in (VALUES[kind], VALUES[kind].upper(), [VALUES[kind]]):
        assert decide(NAME, ZONE, now, Wish(wish, expected=met)).needed
    for missed in ("absent", "three.example.com", "192.0.2.3", [VALUES[kind], "192.0.2.3"], [VALUES[kind]] * 2):
        assert refused(now, Wish(wish, expected=missed)) == "DNS_RECORD_CHANGED"
    assert refused(there(), Wish(wish)) == "DNS_RECORD_ABSENT"
    assert refused(there(), Wish(wish, expected=VALUES[kind])) == "DNS_RECORD_ABSENT"
    assert decide(NAME, ZONE, there(), Wish(wish, expected="absent")).after.ttl == NEW_RECORD_TTL


def test_mixtures_and_several_values() -> None:
    mixed = there(("A", "192.0.2.1"), ("AAAA", "fd00::1"))
    assert refused(mixed, Wish("192.0.2.2", allow_multiple=True, allow_type_change=True)) == "DNS_RECORD_MIXED"
    several = there(("A", "192.0.2.1"), ("A", "192.0.2.2"))
    assert refused(several, Wish("192.0.2.3")) == "DNS_RECORD_MULTIPLE"
    assert refused(several, Wish("192.0.2.2")) == "DNS_RECORD_MULTIPLE"
    assert decide(NAME, ZONE, several, Wish("192.0.2.2", allow_multiple=True)).needed
    exact = Wish("192.0.2.3", expected=["192.0.2.2", "192.0.2.1"], allow_multiple=True)
    assert decide(NAME, ZONE, several, exact).needed
    part = Wish("192.0.2.3", expected="192.0.2.1", allow_multiple=True)
    assert refused(several, part) == "DNS_RECORD_CHANGED"


@pytest.mark.parametrize(
    "wish", [Wish("192.0.2.2", type="TXT"), Wish("192.0.2.2", ttl=-1), Wish("192.0.2.2", ttl=2**31)]
)
def test_options_out_of_range(wish: Wish) -> None:
    assert refused(there(("A", "192.0.2.1")), wish) == "DNS_NOT_CONFIGURED"


def sections(change: Change, rehearsal: bool) -> tuple[list[str], list[str]]:
    """Prerequisites and updates as a server would read them."""
    made = (rehearsal_message if rehearsal else update_message)(change, KEY)
    message: Any = dns.message.from_wire(made.to_wire(), keyring=KEY.tsig())
    assert message.had_tsig
    return tuple(  # type: ignore[return-value]
        sorted(line for rrset in section for line in rrset.to_text().splitlines())
        for section in (message.prerequisite, message.update)
    )


def test_the_update_carries_what_was_read_as_its_condition() -> None:
    change = decide(NAME, ZONE, there(("CNAME", "one.example.com")), Wish("two.example.com"))
    prerequisites, updates = sections(change, rehearsal=False)
    assert "db.example.com. 0 IN CNAME one.example.com." in prerequisites
    assert "db.example.com. NONE A" in prerequisites
    assert updates == ["db.example.com. 30 IN CNAME two.example.com.", "db.example.com. ANY CNAME"]


@given(kinds, kinds, st.booleans())
def test_a_rehearsal_has_the_same_conditions_and_adds_only_what_is_there(now: str, then: str, absent: bool) -> None:
    reading = there() if absent else there((now, VALUES[now]))
    wish = Wish(OTHERS[then], expected="absent" if absent else None, allow_type_change=True)
    change = decide(NAME, ZONE, reading, wish)
    conditions, updates = sections(change, rehearsal=True)
    assert conditions == sections(change, rehearsal=False)[0]
    added = [line for line in updates if " IN " in line]
    assert "".join(f"{line}\n" for line in added) == zone_file_text(reading.rrsets)
    # What it deletes is a type that its own conditions say is not there.
    deleted = [line.split()[-1] for line in updates if " ANY " in line]
    assert all(f"db.example.com. NONE {kind}" in conditions for kind in deleted)
    assert then in deleted or (not absent and then == now)


def test_a_switch_to_cname_demands_that_nothing_stands_beside_it() -> None:
    change = decide(NAME, ZONE, there(("A", "192.0.2.1")), Wish("one.example.com", allow_type_change=True))
    assert {"db.example.com. NONE TXT", "db.example.com. NONE MX"} <= set(sections(change, rehearsal=False)[0])
    new = decide(NAME, ZONE, there(), Wish("one.example.com", expected="absent"))
    assert "db.example.com. NONE ANY" in sections(new, rehearsal=False)[0]


@pytest.mark.parametrize(
    ("rcode", "code"),
    [
        ("REFUSED", "DNS_KEY_REFUSED"),
        ("NOTAUTH", "DNS_KEY_REFUSED"),
        ("NXRRSET", "DNS_RECORD_CHANGED"),
        ("YXRRSET", "DNS_RECORD_CHANGED"),
        ("NXDOMAIN", "DNS_RECORD_CHANGED"),
        ("YXDOMAIN", "DNS_RECORD_CHANGED"),
        ("NOTZONE", "DNS_NOT_IN_ZONE"),
        ("SERVFAIL", "DNS_SERVER_FAILED"),
        ("FORMERR", "DNS_SERVER_FAILED"),
        ("NOTIMP", "DNS_SERVER_FAILED"),
    ],
)
def test_response_codes(rcode: str, code: str) -> None:
    error = rcode_error(dns.rcode.from_text(rcode), SERVER)
    assert error.code == code
    assert rcode in error.reason
    assert "ns1.example.com" in error.reason
    assert error.next_step


@given(st.integers(1, 15))
def test_every_other_code_is_an_error_too(code: int) -> None:
    assert rcode_error(code, SERVER).code.startswith("DNS_")


def signed_update() -> dns.message.Message:
    message = update_message(decide(NAME, ZONE, there(("A", "192.0.2.1")), Wish("192.0.2.2")), KEY)
    message.to_wire()
    return message


@given(st.sampled_from(["REFUSED", "NOTAUTH", "SERVFAIL", "NXRRSET"]))
def test_an_unsigned_refusal_is_passed_on(rcode: str) -> None:
    message = signed_update()
    response = dns.message.make_response(message)
    response.keyring = None
    response.tsig = None
    response.set_rcode(dns.rcode.from_text(rcode))
    with pytest.raises(OperatorError) as caught:
        parse(message, response.to_wire(), SERVER)
    assert caught.value.code == rcode_error(dns.rcode.from_text(rcode), SERVER).code


def test_a_success_must_be_signed_by_our_key() -> None:
    message = signed_update()
    other = Key("herd", "hmac-sha256", b"another-secret-another-secret-00")
    for key, trusted in ((None, False), (other, False), (KEY, True)):
        response = dns.message.make_response(message)
        response.tsig = None
        if key is not None:
            response.use_tsig(key.tsig())
            response.request_mac = message.mac or b""
        if trusted:
            assert parse(message, response.to_wire(), SERVER).rcode() == dns.rcode.NOERROR
            continue
        with pytest.raises(OperatorError) as caught:
            parse(message, response.to_wire(), SERVER)
        assert caught.value.code == "DNS_ANSWER_UNTRUSTED"


def test_zone_file_text() -> None:
    assert zone_file_text(there(("A", "192.0.2.2"), ("A", "192.0.2.1")).rrsets) == (
        "db.example.com. 30 IN A 192.0.2.1\ndb.example.com. 30 IN A 192.0.2.2\n"
    )
    assert zone_file_text(()) == ""


def test_questions_ask_for_no_recursion() -> None:
    message = question(NAME, "A")
    assert not message.flags & dns.flags.RD
    assert message.question[0].name == NAME
