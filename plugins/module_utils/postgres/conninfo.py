# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libpq connection strings: read, written, and shown without their secrets. Private to the collection.

The grammar is libpq's "Keyword/Value Connection Strings"; the URI form is recognised and not taken apart.
"""

from __future__ import annotations

from typing import Mapping

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError

# Keywords whose value is a secret (libpq, "Parameter Key Words").
_SECRETS = ("password", "sslpassword", "oauth_client_secret")
_SPACE = " \t\n\r\f\v"


def parse_conninfo(text: str) -> dict[str, str]:
    """ "host=a port=5432" -> {"host": "a", "port": "5432"}; the last of a repeated keyword wins, as in libpq.

    Raises OperatorError CONNINFO_UNREADABLE for what libpq would refuse, and for the URI form.
    """
    if text.lstrip().startswith(("postgresql://", "postgres://")):
        raise OperatorError(
            "CONNINFO_UNREADABLE",
            "The connection string is in the URI form, which is left alone.",
            "Write primary_conninfo in the keyword/value form.",
        )
    found: dict[str, str] = {}
    position = 0
    while True:
        position = _skip_space(text, position)
        if position == len(text):
            return found
        end = position
        while end < len(text) and text[end] not in _SPACE + "=":
            end += 1
        key = text[position:end]
        position = _skip_space(text, end)
        if not key or position == len(text) or text[position] != "=":
            raise _unreadable(f'"=" is missing after "{key}"')
        value, position = _value(text, _skip_space(text, position + 1))
        found[key] = value


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in _SPACE:
        position += 1
    return position


def _value(text: str, position: int) -> tuple[str, int]:
    quoted = position < len(text) and text[position] == "'"
    if quoted:
        position += 1
    value = ""
    while position < len(text):
        char = text[position]
        if char == "\\":
            # A backslash takes the next character literally; at the very end it stands for nothing.
            value += text[position + 1 : position + 2]
            position += 2
            continue
        if quoted and char == "'":
            return value, position + 1
        if not quoted and char in _SPACE:
            return value, position
        value += char
        position += 1
    if quoted:
        raise _unreadable("a quoted value does not end")
    return value, min(position, len(text))


def _unreadable(why: str) -> OperatorError:
    return OperatorError("CONNINFO_UNREADABLE", f"The connection string cannot be read: {why}.")


def format_conninfo(parts: Mapping[str, str]) -> str:
    """{"host": "a b"} -> "host='a b'": what parse_conninfo (and libpq) read back as the same values."""
    return " ".join(f"{key}={_quote(value)}" for key, value in parts.items())


def _quote(value: str) -> str:
    if value and all(char not in _SPACE + "'\\" for char in value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def without_secrets(parts: Mapping[str, str]) -> dict[str, str]:
    """The same parts without passwords."""
    return {key: value for key, value in parts.items() if key not in _SECRETS}


def has_secret(parts: Mapping[str, str]) -> bool:
    """A password stands in the connection string itself."""
    return any(parts.get(key) for key in _SECRETS)
