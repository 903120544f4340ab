# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fields of everything that the registry holds: what each may be, and its default. Private to the collection.

Fleet files, record modules and the registry's own rules (its CHECK constraints; a test compares) go by these tables.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from typing import Any, Callable, Dict, Iterable, Tuple

from ansible_collections.elephaas.herd.plugins.module_utils.decide import names
from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.words import (
    CONTROL_CHARACTERS,
    UNSTORABLE,
    quoted,
)

DEFAULT_PORT = 5432
DEFAULT_SSH_PORT = 22
DEFAULT_USER = "postgres"
CONTROLS = ("auto", "pg_ctl", "pg_ctlcluster")
ROLES = ("primary", "replica", "detached", "superseded")

_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\Z")
# Accounts of a directory service: postgres@corp.example.
_LOGIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,127}\Z")
# RFC 1123, section 2.1, and the underscore that private zones use.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?\Z")
# The name of an interface, behind the % of a link-local address (RFC 4007 allows anything there).
_ZONE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")
_DIGITS = re.compile(r"[0-9]{1,6}\Z")

# PostgreSQL's programs cut off what is longer (MAXPGPATH, less the names of files in it).
_MAX_PATH_BYTES = 900


class BadValue(Exception):
    """What is allowed, for a value that is not."""


class Problems:
    """Collects everything wrong with a document, so that a person mends it in one go."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, path: str, problem: str) -> None:
        """Something is wrong at this place."""
        self.found.append(f"{path}: {problem}")

    def bad(self, path: str, value: object, allowed: str) -> None:
        """This place has a value that is not allowed."""
        self.add(path, f"{quoted(value)} is not valid; allowed: {allowed}")

    def raise_if_any(self, code: str, what: str, next_step: str) -> None:
        """Raise OperatorError with everything that was found; what: that which has the problems, as a sentence's subject."""
        if self.found:
            count = "1 problem" if len(self.found) == 1 else f"{len(self.found)} problems"
            raise OperatorError(
                code, f"{what} has {count}: " + "; ".join(self.found) + ".", next_step, {"problems": list(self.found)}
            )


# -- one function per kind of value: returns it normalised, or raises BadValue(what is allowed) -----------------------


def _text(value: object) -> str:
    if not isinstance(value, str) or UNSTORABLE.search(value):
        raise BadValue("text that UTF-8 can hold, without NUL")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise BadValue("true or false")
    return value


def _number(low: int, high: int) -> Callable[[object], int]:
    def number(value: object) -> int:
        if isinstance(value, str) and _DIGITS.match(value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise BadValue(f"a whole number from {low} to {high}")
        return value

    return number


def _directory(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/") or CONTROL_CHARACTERS.search(value):
        raise BadValue("an absolute path, such as /var/lib/postgresql/15/main")
    path = posixpath.normpath(value)
    # POSIX leaves the meaning of exactly two leading slashes open; normpath keeps them.
    path = "/" + path.lstrip("/")
    if len(path.encode()) > _MAX_PATH_BYTES:
        raise BadValue(f"an absolute path of at most {_MAX_PATH_BYTES} bytes")
    if path == "/" or ".." in value.split("/"):
        raise BadValue("an absolute path without '..', not the root directory")
    return path


def _user(value: object) -> str:
    if not isinstance(value, str) or not _USER.match(value):
        raise BadValue("an account name (letters, digits, '_', '.', '-', starting with a letter or '_')")
    return value


def _login(value: object) -> str:
    if not isinstance(value, str) or not _LOGIN.match(value):
        raise BadValue(
            "an account name (letters, digits, '_', '.', '@', '+', '-', starting with a letter, digit or '_')"
        )
    return value


def _role_name(value: object) -> str:
    if not isinstance(value, str) or not value or CONTROL_CHARACTERS.search(value) or len(value.encode()) > 63:
        raise BadValue("a PostgreSQL role name of at most 63 bytes")
    return value


def _host(value: object) -> str:
    if not isinstance(value, str) or not _HOST.match(value):
        raise BadValue("a DNS name (letters, digits, '-', '_', '.')")
    return value


def _address(value: object) -> str:
    if isinstance(value, str):
        try:
            address = str(ipaddress.ip_address(value))
            if "%" not in address or _ZONE.match(address.partition("%")[2]):
                return address
        except ValueError:
            # Something of digits and dots only is a mistyped address, not a name.
            if _HOST.match(value) and re.search(r"[A-Za-z]", value):
                return value
    raise BadValue("an IPv4 or IPv6 address, or a DNS name")


def _choice(allowed: Iterable[str]) -> Callable[[object], str]:
    options = tuple(allowed)

    def choice(value: object) -> str:
        if not isinstance(value, str) or value not in options:
            raise BadValue(" or ".join(options))
        return value

    return choice


def _networks(value: object) -> list[str]:
    if not isinstance(value, list):
        raise BadValue("a list of networks such as 10.10.0.0/16")
    result = []
    for item in value:
        try:
            result.append(str(ipaddress.ip_network(_text(item))))
        except (ValueError, BadValue):
            raise BadValue(
                f"a list of networks such as 10.10.0.0/16, without host bits ({quoted(item)} is none)"
            ) from None
    return result


def _name(value: object) -> str:
    if names.name_problem(value):
        raise BadValue(names.NAME_RULE)
    return str(value)


REQUIRED = object()
"""Stands for the default of what has none."""

Keys = Dict[str, Tuple[Callable[[object], Any], Any]]
"""Per field: how to read a value, and the default when it is absent or null."""

ENVIRONMENT: Keys = {"protected": (_flag, False), "description": (_text, None)}
DATACENTER: Keys = {"networks": (_networks, ()), "description": (_text, None)}
SERVER: Keys = {
    "environment": (_name, REQUIRED),
    "address": (_address, None),
    "datacenter": (_name, None),
    "ssh_port": (_number(1, 65535), DEFAULT_SSH_PORT),
    "ssh_user": (_login, DEFAULT_USER),
    "dns_name": (_host, None),
}
HERD: Keys = {
    "name": (_name, REQUIRED),
    "environment": (_name, REQUIRED),
    "port": (_number(1, 65535), DEFAULT_PORT),
    "pgdata": (_directory, REQUIRED),
    "vhost": (_host, None),
    "description": (_text, None),
    "os_user": (_user, DEFAULT_USER),
    "control": (_choice(CONTROLS), "auto"),
    "replication_user": (_role_name, None),
    "base_name": (_name, None),
}
MEMBER: Keys = {
    "server": (_name, REQUIRED),
    "role": (_choice(ROLES), None),
    "upstream": (_name, None),
    "pgdata": (_directory, None),
    "port": (_number(1, 65535), None),
    "priority": (_number(0, 1000), 0),
}


def default_of(keys: Keys, field: str) -> Any:
    """The default of a field: None for what is required, and a list of its own for what is a list."""
    default = keys[field][1]
    return None if default is REQUIRED else list(default) if isinstance(default, tuple) else default


def read_fields(
    item: object, keys: Keys, path: str, problems: Problems, others: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The values of one thing, defaults filled in; None where a value was wrong (already reported).

    others: keys that the caller reads itself.
    """
    if item is None:
        item = {}
    required = True
    if not isinstance(item, dict):
        problems.bad(path, item, "a mapping with the keys " + ", ".join(keys))
        item, required = {}, False
    for key in item:
        if key not in keys and key not in others:
            problems.add(f"{path}.{key}", "unknown key; allowed: " + ", ".join((*keys, *others)))
    result: dict[str, Any] = {}
    for key in keys:
        value = item.get(key)
        if value is not None:
            result[key] = read_field(value, keys, key, f"{path}.{key}", problems)
            continue
        if required and keys[key][1] is REQUIRED:
            problems.add(f"{path}.{key}", "is missing")
        result[key] = default_of(keys, key)
    return result


def read_field(value: object, keys: Keys, key: str, path: str, problems: Problems) -> Any:
    """One value, normalised; None where it was wrong (reported)."""
    try:
        return keys[key][0](value)
    except BadValue as bad:
        problems.bad(path, value, str(bad))
        return None
