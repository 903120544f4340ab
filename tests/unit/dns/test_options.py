# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TSIG keys from options and from files in BIND's configuration language."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.options import (
    ALGORITHMS,
    Options,
    load_key,
    make_key,
    parse_keys,
)

SECRET = "c2VjcmV0LXNlY3JldC1zZWNyZXQ="
PLAIN = f'key "herd-key" {{ algorithm hmac-sha256; secret "{SECRET}"; }};'


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        f"key herd-key {{ algorithm hmac-sha256; secret {SECRET}; }};",
        f"key herd-key{{algorithm hmac-sha256;secret {SECRET};}};",
        f'key "Herd-Key." {{\n\tsecret "{SECRET}";\n\talgorithm "HMAC-SHA256";\n}};\n',
        f'// key "old" {{ secret "AAAA"; }};\n# key\n/* key "x" {{ */ {PLAIN} // }};',
        f'options {{ directory "/var/lib/bind"; listen-on port 53 {{ any; }}; }};\n{PLAIN}\n',
        f'{PLAIN}\nserver 10.0.0.1 {{ keys {{ "x"; }}; }}; controls {{ inet * allow {{ any; }} keys {{ "a"; }}; }};',
        f'include "/etc/bind/else.conf";\n{PLAIN}',
    ],
)
def test_key_statements_in_every_dress(text: str) -> None:
    (key,) = parse_keys(text, "a file")
    assert (key.name, key.algorithm, key.secret) == ("herd-key", "hmac-sha256", base64.b64decode(SECRET))


@pytest.mark.parametrize(
    "text",
    [
        f'key "x" {{ algorithm hmac-sha256; secret "{SECRET}"; }}',
        f'key "x" {{ algorithm hmac-sha256; secret "{SECRET}"; ',
        f'key "x" {{ secret "{SECRET}"; }};',
        'key "x" { algorithm hmac-sha256; };',
        f'key "x" {{ algorithm rot13; secret "{SECRET}"; }};',
        f'key "x" {{ algorithm hmac-sha256; secret "{SECRET[1:]}"; }};',
        f'key "x" {{ algorithm hmac-sha256; secret "{SECRET}; }};',
        f'/* key "x" {{ algorithm hmac-sha256; secret "{SECRET}"; }};',
        'key "x" { algorithm hmac-sha256; secret ""; };',
    ],
)
def test_broken_key_statements_are_refused_without_showing_them(text: str) -> None:
    with pytest.raises(OperatorError) as caught:
        parse_keys(text, "a file")
    assert caught.value.code == "DNS_KEY_INVALID"
    assert SECRET[1:] not in repr(caught.value.as_result())
    assert caught.value.__cause__ is None


def test_a_file_with_several_keys_needs_a_name(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    other = base64.b64encode(b"other").decode()
    path.write_text(f'{PLAIN}\nkey "second" {{ algorithm hmac-sha512; secret "{other}"; }};\n')
    path.chmod(0o600)
    with pytest.raises(OperatorError, match="second"):
        load_key(None, None, None, str(path))
    key, warnings = load_key("Second.", "hmac-sha256", None, str(path))
    assert key is not None
    assert (key.name, key.algorithm, key.secret, warnings) == ("second", "hmac-sha512", b"other", ())
    with pytest.raises(OperatorError, match="third"):
        load_key("third", None, None, str(path))


def test_a_key_file_for_all_to_read_is_warned_about(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(PLAIN)
    path.chmod(0o644)
    assert str(path) in load_key(None, None, None, str(path))[1][0]


@pytest.mark.parametrize(
    "arguments",
    [
        (None, None, SECRET, None),
        ("herd-key", None, SECRET, "/nonexistent"),
        ("herd-key", None, None, "/nonexistent"),
        ("herd-key", None, "not base64!", None),
    ],
)
def test_unusable_keys_are_refused_by_options(arguments: tuple[str | None, ...]) -> None:
    with pytest.raises(OperatorError) as caught:
        load_key(*arguments)
    assert caught.value.code == "DNS_KEY_INVALID"
    assert SECRET not in repr(caught.value.as_result())


def test_no_key_is_a_choice_of_its_own() -> None:
    assert load_key(None, None, None, None) == (None, ())
    assert load_key("herd-key", None, None, None) == (None, ())


@given(st.binary(min_size=16, max_size=64), st.sampled_from(ALGORITHMS))
def test_secrets_survive_and_stay_out_of_sight(raw: bytes, algorithm: str) -> None:
    encoded = base64.b64encode(raw).decode()
    (key,) = parse_keys(f'key k {{ algorithm {algorithm}; secret "{encoded}"; }};', "a file")
    assert key.secret == raw
    assert key == make_key("K.", algorithm, encoded, "the options")
    assert key.tsig().secret == raw
    assert encoded not in repr(key)
    assert repr(raw) not in repr(key)


@given(st.text(alphabet='key"{};#/* \nabc=', max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        parse_keys(text, "a file")
    except OperatorError as error:
        assert error.code == "DNS_KEY_INVALID"


def test_options_need_a_server() -> None:
    for empty in (None, [], [""]):
        with pytest.raises(OperatorError) as caught:
            Options.from_params({"server": empty})
        assert caught.value.code == "DNS_NOT_CONFIGURED"
        assert "ELEPHAAS_DNS_SERVER" in caught.value.next_step
    for wrong in ({"port": 70000}, {"timeout": -1}):
        with pytest.raises(OperatorError):
            Options.from_params({"server": ["ns1"], **wrong})
