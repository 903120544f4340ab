# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""synchronous_standby_names, read as PostgreSQL reads it. Private to the collection.

"synchronous_standby_names" in the documentation; src/backend/replication/syncrep_gram.y and syncrep_scanner.l.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Iterable

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<quoted>"(?:[^"]|"")+")
      | (?P<word>[A-Za-z_\u0080-\uffff][A-Za-z0-9_$\u0080-\uffff]*)
      | (?P<number>[0-9]+)
      | (?P<star>\*)
      | (?P<mark>[(),])
    )""",
    re.VERBOSE,
)
_NAMES = ("quoted", "word", "number", "star")


@dataclass(frozen=True)
class SyncNames:
    """A commit waits for this many of the standbys of these names. "*" is any name.

    FIRST and ANY differ in who is waited for when there are more than enough, not in how many have to be there.
    """

    number: int
    names: tuple[str, ...]

    def names_it(self, standby: str) -> bool:
        """Whether a standby that streams under that name is one of them."""
        return any(name in ("*", standby.lower()) for name in self.names)


def parse_sync_names(text: str) -> SyncNames | None:
    """None: not understood, and PostgreSQL would not have taken it either."""
    tokens = []
    position, text = 0, text.strip()
    while position < len(text):
        found = _TOKEN.match(text, position)
        if not found or found.lastgroup is None:
            return None
        tokens.append((found.lastgroup, found.group(found.lastgroup)))
        position = found.end()
    method = [kind == "word" and value.lower() in ("first", "any") for kind, value in tokens[:1]] == [True]
    rest = tokens[1:] if method else tokens
    counted = len(rest) > 2 and rest[0][0] == "number" and rest[1] == ("mark", "(") and rest[-1] == ("mark", ")")
    if method and not counted:
        return None
    names = _names(rest[2:-1] if counted else rest)
    return SyncNames(int(rest[0][1]) if counted else 1, names) if names else None


def _names(tokens: Iterable[tuple[str, str]]) -> tuple[str, ...] | None:
    """The names of a list; None when it is none. Compared without regard to case, as by pg_strcasecmp."""
    names = []
    expected_name = True
    for kind, value in tokens:
        if expected_name != (kind in _NAMES) or (not expected_name and value != ","):
            return None
        if expected_name:
            names.append((value[1:-1].replace('""', '"') if kind == "quoted" else value).lower())
        expected_name = not expected_name
    return None if expected_name else tuple(names)
