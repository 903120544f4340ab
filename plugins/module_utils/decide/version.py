# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Version numbers of PostgreSQL, compared as numbers: 15.8 < 15.10 < 16beta1 < 16. Private to the collection."""

from __future__ import annotations

import functools
import re
from typing import Any, NamedTuple

VERSION_RULE = "a version number such as 15, 15.8 or 17beta1"

_VERSION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9}){0,2})(?:(devel|alpha|beta|rc)([0-9]{0,9}))?\Z")
# What comes before a release, in its order.
_STAGES = {"devel": -4, "alpha": -3, "beta": -2, "rc": -1}


class Version(NamedTuple):
    """numbers: as written, (15, 8). stage: (0, 0) for a release, (-2, 1) for beta1."""

    numbers: tuple[int, ...]
    stage: tuple[int, int]

    @property
    def order(self) -> tuple[int, ...]:
        """What two versions are compared by: 15 is 15.0, and a beta comes before its release."""
        return (*self.numbers, 0, 0)[:3] + self.stage

    def leads(self, other: Version) -> bool:
        """Whether this one is a leading part of the other: 15 of 15.8, 17 of 17beta1, but 15.1 not of 15.18."""
        if self.stage != (0, 0):
            return self == other
        return other.numbers[: len(self.numbers)] == self.numbers


@functools.lru_cache(maxsize=1024)
def _parse(text: str) -> Version | None:
    found = _VERSION.match(text)
    if not found:
        return None
    stage = (_STAGES[found[2]], int(found[3] or 0)) if found[2] else (0, 0)
    return Version(tuple(int(part) for part in found[1].split(".")), stage)


def parse_version(value: Any) -> Version | None:
    """The version in this text; None when there is none, or when it is no text."""
    return _parse(value) if isinstance(value, str) else None


def major_version(value: Any) -> str | None:
    """The major version (`15` of `15.18`, `17` of `17beta1`), or None. Since PostgreSQL 10 it is the first number."""
    version = parse_version(value)
    return str(version.numbers[0]) if version else None
