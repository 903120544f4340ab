# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and values as people write them."""

from __future__ import annotations

import ipaddress
import string

import dns.name
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.names import (
    infer_type,
    parse_name,
    parse_value,
    show_name,
    show_value,
)

ZONE = dns.name.from_text("prod.example.com.")
labels = st.text(alphabet=string.ascii_letters + string.digits, min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("trading-db.prod.example.com", "trading-db.prod.example.com"),
        ("Trading-DB.Prod.Example.COM.", "trading-db.prod.example.com"),
        ("trading-db", "trading-db.prod.example.com"),
        ("other.example.org", "other.example.org"),
        ("trading-db.", "trading-db"),
        (" _pg.example.com ", "_pg.example.com"),
        ("bücher.example.com", "xn--bcher-kva.example.com"),
        ("BÜCHER.example.com.", "xn--bcher-kva.example.com"),
    ],
)
def test_names(text: str, shown: str) -> None:
    name = parse_name(text, ZONE)
    assert name.is_absolute()
    assert show_name(name) == shown


@pytest.mark.parametrize(
    "text",
    ["", ".", "a..b", "*.example.com", "-a.example.com", "a-.example.com", "a b.example.com", "x" * 64 + ".com",
     "a\n.example.com", "a\\046b.example.com", "a/b.example.com", ".".join(["abcdefghi"] * 26), "{{ x }}.example.com"],
)  # fmt: skip
def test_what_is_no_host_name(text: str) -> None:
    with pytest.raises(OperatorError) as caught:
        parse_name(text, ZONE)
    assert caught.value.code == "DNS_NAME_INVALID"


def test_a_single_label_needs_a_zone() -> None:
    with pytest.raises(OperatorError, match="zone"):
        parse_name("trading-db")


@given(st.lists(labels, min_size=2, max_size=5), st.booleans())
def test_case_and_final_dot_do_not_matter(parts: list[str], dot: bool) -> None:
    text = ".".join(parts)
    name = parse_name(text + ("." if dot else ""))
    assert name == parse_name(text.swapcase())
    assert show_name(name) == text.lower()
    assert parse_name(show_name(name)) == name


@given(st.ip_addresses())
def test_addresses_have_one_spelling(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    kind = "A" if address.version == 4 else "AAAA"
    assert infer_type(str(address)) == kind
    rdata = parse_value(address.exploded.upper(), kind)
    assert rdata == parse_value(str(address), kind)
    assert ipaddress.ip_address(show_value(rdata)) == address


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("10.0.0.1", "CNAME"),
        ("10.0.0.1", "AAAA"),
        ("fd00::1", "A"),
        ("db1.example.com", "A"),
        ("10.0.0.1.", "A"),
        ("010.0.0.1", "A"),
        ("10.0.0.0/8", "A"),
        ("fe80::1%eth0", "AAAA"),
    ],
)
def test_values_of_another_type(text: str, kind: str) -> None:
    with pytest.raises(OperatorError) as caught:
        parse_value(text, kind)
    assert caught.value.code == "DNS_VALUE_INVALID"


def test_alias_values_belong_to_the_zone_when_short() -> None:
    assert show_value(parse_value("DB1", "CNAME", ZONE)) == "db1.prod.example.com"
    assert parse_value("DB1.prod.example.com.", "CNAME") == parse_value("db1", "CNAME", ZONE)
