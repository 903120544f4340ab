# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a DNS update server is reached with: options shared by everything that speaks DNS, and the TSIG key.

Private to the collection; controller only. Nothing here ever puts a secret into a message.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.basic import env_fallback

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.library import dns, require_dnspython

DEFAULT_ALGORITHM = "hmac-sha256"
# The list of RFC 8945 section 6 without GSS (another protocol) and the truncated forms (key files have none).
ALGORITHMS = ("hmac-md5", "hmac-sha1", "hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512")
DNS_ARGUMENT_SPEC: dict[str, Any] = {
    "server": {"type": "list", "elements": "str", "fallback": (env_fallback, ["ELEPHAAS_DNS_SERVER"])},
    "port": {"type": "int", "default": 53},
    "zone": {"type": "str"},
    "key_name": {"type": "str", "no_log": False, "fallback": (env_fallback, ["ELEPHAAS_DNS_KEY_NAME"])},
    "key_algorithm": {
        "type": "str",
        "choices": list(ALGORITHMS),
        "no_log": False,
        "fallback": (env_fallback, ["ELEPHAAS_DNS_KEY_ALGORITHM"]),
    },
    "key_secret": {"type": "str", "no_log": True, "fallback": (env_fallback, ["ELEPHAAS_DNS_KEY_SECRET"])},
    "key_file": {"type": "path", "no_log": False, "fallback": (env_fallback, ["ELEPHAAS_DNS_KEY_FILE"])},
    "authoritative": {"type": "list", "elements": "str"},
    "timeout": {"type": "float", "default": 3.0},
}
_TOKEN = re.compile(r'\s+|//[^\n]*|\#[^\n]*|/\*.*?\*/|"(?P<quoted>[^"\n]*)"|(?P<mark>[{};])|(?P<word>[^\s{};"]+)', re.S)


@dataclass(frozen=True)
class Key:
    """A TSIG key (RFC 8945). The secret stays out of repr(), so no traceback or log shows it."""

    name: str
    algorithm: str
    secret: bytes = field(repr=False)

    def tsig(self) -> dns.tsig.Key:
        """The key as dnspython takes it."""
        require_dnspython()
        # RFC 8945 section 6: the oldest algorithm has a longer name on the wire than in key files.
        wire = "hmac-md5.sig-alg.reg.int" if self.algorithm == "hmac-md5" else self.algorithm
        return dns.tsig.Key(dns.name.from_text(self.name), self.secret, dns.name.from_text(wire))


@dataclass(frozen=True)
class Options:
    """Where to send updates and what to sign them with. `timeout` is in seconds and counts per server."""

    servers: tuple[str, ...]
    port: int = 53
    zone: str | None = None
    key: Key | None = None
    authoritative: tuple[str, ...] = ()
    timeout: float = 3.0
    warnings: tuple[str, ...] = ()

    @classmethod
    def from_params(cls, params: dict[str, Any]) -> Options:
        """Options from module parameters named as in DNS_ARGUMENT_SPEC; others are ignored.

        Raises OperatorError DNS_NOT_CONFIGURED (no server), DNS_KEY_INVALID (a key that cannot be used).
        A missing key is no error here: reading needs none.
        """
        servers = tuple(str(entry).strip() for entry in params.get("server") or () if str(entry).strip())
        if not servers:
            raise OperatorError(
                "DNS_NOT_CONFIGURED",
                "no DNS update server is given",
                "set the option server or the environment variable ELEPHAAS_DNS_SERVER",
            )
        port = int(params.get("port") or 53)
        timeout = float(params.get("timeout") or 3.0)
        if not 0 < port < 65536 or timeout <= 0:
            raise OperatorError("DNS_NOT_CONFIGURED", f"port {port} or timeout {timeout} is out of range")
        key, warnings = load_key(
            params.get("key_name"), params.get("key_algorithm"), params.get("key_secret"), params.get("key_file")
        )
        listed = (str(entry).strip() for entry in params.get("authoritative") or ())
        return cls(
            servers=servers,
            port=port,
            zone=params.get("zone") or None,
            key=key,
            authoritative=tuple(entry for entry in listed if entry),
            timeout=timeout,
            warnings=warnings,
        )


def load_key(
    name: str | None, algorithm: str | None, secret: str | None, path: str | None
) -> tuple[Key | None, tuple[str, ...]]:
    """The key from options (name and secret) or from a key file, and warnings; (None, ()) when nothing is given.

    Raises OperatorError DNS_KEY_INVALID; its text names the key or the file, never their content.
    """
    if secret and path:
        raise OperatorError(
            "DNS_KEY_INVALID",
            "both a key secret and a key file are given",
            "give one of key_secret and key_file (the environment variables count too)",
        )
    if path:
        text, warnings = _read_key_file(path)
        return _choose(parse_keys(text, path), name, path), warnings
    if not secret:
        return None, ()
    if not name:
        raise OperatorError("DNS_KEY_INVALID", "a key secret without the name of its key", "set key_name")
    return make_key(name, algorithm, secret, "the options"), ()


def make_key(name: str, algorithm: str | None, secret: str, source: str) -> Key:
    """A checked Key; `source` says in messages where it came from. Raises OperatorError DNS_KEY_INVALID."""
    chosen = (algorithm or DEFAULT_ALGORITHM).lower().rstrip(".")
    if chosen == "hmac-md5.sig-alg.reg.int":
        chosen = "hmac-md5"
    if chosen not in ALGORITHMS:
        raise OperatorError(
            "DNS_KEY_INVALID",
            f"key {name!r} from {source} has algorithm {chosen!r}, which is not known here",
            f"use one of {', '.join(ALGORITHMS)}",
        )
    try:
        raw = base64.b64decode("".join(secret.split()), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if not raw:
        # `from None`, and no value in the text: the decoder's own message could carry the secret into a log.
        raise OperatorError(
            "DNS_KEY_INVALID", f"the secret of key {name!r} from {source} is not base64", "copy it from the key file"
        ) from None
    return Key(name=name.rstrip(".").lower(), algorithm=chosen, secret=raw)


def parse_keys(text: str, source: str) -> list[Key]:
    """All `key "name" { algorithm …; secret …; };` statements of BIND's configuration language in `text`.

    Comments in its three styles, quotes or none, and other statements around are accepted (BIND 9 ARM, section
    "Configuration File"). A `key` that is only named inside another statement (`server … { keys … }`) is not one.
    Raises OperatorError DNS_KEY_INVALID for a key statement that is incomplete.
    """
    keys: list[Key] = []
    statement: list[str] = []
    depth = 0
    for word in _tokens(text, source):
        if word == "{":
            depth += 1
        elif word == "}":
            depth -= 1
        if word == ";" and depth == 0:
            if statement[:1] == ["key"] and "{" in statement:
                keys.append(_key_statement(statement, source))
            statement = []
        else:
            statement.append(word)
    if depth != 0 or statement[:1] == ["key"]:
        raise OperatorError("DNS_KEY_INVALID", f"{source} ends inside a statement: a brace or semicolon is missing")
    return keys


def _tokens(text: str, source: str) -> list[str]:
    """Words and the marks `{`, `}`, `;`. A quoted mark comes out as a word that holds more than the mark."""
    tokens = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or (match.group("word") or "").startswith("/*"):
            raise OperatorError("DNS_KEY_INVALID", f"{source} has an open quote or comment")
        if match.group("quoted") is not None:
            quoted = match.group("quoted")
            tokens.append(f" {quoted}" if quoted in ("{", "}", ";") else quoted)
        elif match.lastgroup:
            tokens.append(match.group(match.lastgroup))
        position = match.end()
    return tokens


def _key_statement(statement: list[str], source: str) -> Key:
    """`["key", name, "{", "algorithm", a, ";", "secret", s, ";", "}"]` as a Key."""
    name = statement[1] if len(statement) > 2 and statement[2] == "{" else ""
    fields: dict[str, str] = {}
    clause: list[str] = []
    for token in statement[3:]:
        if token in (";", "}"):
            if len(clause) == 2:
                fields[clause[0].lower()] = clause[1]
            clause = []
        else:
            clause.append(token)
    if not name or "secret" not in fields or "algorithm" not in fields:
        raise OperatorError(
            "DNS_KEY_INVALID",
            f"{source} has a key statement without name, algorithm or secret",
            'write: key "name" { algorithm hmac-sha256; secret "…"; };',
        )
    return make_key(name, fields["algorithm"], fields["secret"], source)


def _choose(keys: list[Key], name: str | None, path: str) -> Key:
    if name:
        wanted = name.rstrip(".").lower()
        keys = [key for key in keys if key.name == wanted]
        if not keys:
            raise OperatorError("DNS_KEY_INVALID", f"{path} holds no key named {wanted!r}")
    if len(keys) != 1:
        names = ", ".join(key.name for key in keys) or "none"
        raise OperatorError(
            "DNS_KEY_INVALID", f"{path} should hold one key, it holds: {names}", "choose one with key_name"
        )
    return keys[0]


def _read_key_file(path: str) -> tuple[str, tuple[str, ...]]:
    try:
        with open(path, encoding="utf-8") as handle:
            mode = os.fstat(handle.fileno()).st_mode
            text = handle.read()
    except UnicodeDecodeError:
        raise OperatorError("DNS_KEY_INVALID", f"{path} is not a text file") from None
    except (OSError, ValueError) as error:  # ValueError: a path that no file can have
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise OperatorError(
            "DNS_KEY_INVALID", f"the key file {path!r} cannot be read: {reason}", "check its path and owner"
        ) from error
    if mode & stat.S_IROTH:
        return text, (f"the key file {path} can be read by everybody on this machine",)
    return text, ()
