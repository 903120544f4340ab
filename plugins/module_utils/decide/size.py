# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytes and durations as people read them. Private to the collection."""

from __future__ import annotations

import re
from fractions import Fraction

SIZE_RULE = "bytes, or a number with a unit such as 512kB, 64MB, 1.5GB or 1GiB (1 kB is 1024 bytes, as in PostgreSQL)"

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")

# K, kB, KB, KiB … are the same: PostgreSQL counts in 1024 under the names of 1000, and what is shown here does too.
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,6})?) *(?:([KMGTP])(?:I?B)?|B)?\Z", re.ASCII | re.IGNORECASE)


def parse_bytes(value: object) -> int | None:
    """A size in bytes from 64, "64", "64MB" or "1.5 GiB"; None when it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    found = _SIZE.match(str(value).strip())
    if not found:
        return None
    power = " KMGTP".index(found[2].upper()) if found[2] else 0
    return int(Fraction(found[1]) * 1024**power)


def human_bytes(count: int | None) -> str:
    """1536 -> "1.5 kB", with PostgreSQL's unit names (kB is 1024 bytes); "?" for unknown."""
    if count is None:
        return "?"
    value = float(count)
    for unit in _UNITS:
        if abs(value) < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def human_seconds(seconds: float | None) -> str:
    """75.0 -> "1 min 15 s"; "?" for unknown."""
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
