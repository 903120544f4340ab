# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write-ahead log positions (LSN), as numbers and as PostgreSQL prints them. Private to the collection.

An LSN is a 64-bit byte position in the WAL, printed as two hexadecimal 32-bit halves
(PostgreSQL documentation, "pg_lsn Type").
"""

from __future__ import annotations

import re

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError

_LSN = re.compile(r"\A([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})\Z")

# Sizes of XLogLongPageHeaderData (first page of a segment) and XLogPageHeaderData (every other
# page), from src/include/access/xlog_internal.h; the same on every supported 64-bit platform.
_LONG_PAGE_HEADER = 40
_PAGE_HEADER = 24
_ALIGNMENT = 8


def parse_lsn(text: str) -> int:
    """ "0/3000060" -> bytes. Raises OperatorError BAD_LSN for anything else."""
    match = _LSN.match(text)
    if not match:
        raise OperatorError("BAD_LSN", f"{text!r} is not a WAL position such as 0/3000060.")
    return (int(match.group(1), 16) << 32) | int(match.group(2), 16)


def format_lsn(position: int) -> str:
    """Bytes -> "0/3000060", as PostgreSQL prints it."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def record_end(start: int, total_length: int, segment_size: int, page_size: int = 8192) -> int:
    """The position right behind a WAL record: its start plus its length, alignment and page headers on the way.

    start: bytes, where the record begins (never inside a page header).
    total_length: xl_tot_len in bytes.
    segment_size, page_size: bytes (wal_segment_size, wal_block_size).
    Returns what pg_last_wal_replay_lsn() shows once that record, and nothing after it, was replayed.
    """
    position = start
    remaining = total_length
    while True:
        page_end = position - position % page_size + page_size
        step = min(remaining, page_end - position)
        position += step
        remaining -= step
        if not remaining:
            break
        position += _LONG_PAGE_HEADER if position % segment_size == 0 else _PAGE_HEADER
    return position + -position % _ALIGNMENT


def segment_file_name(timeline: int, position: int, segment_size: int) -> str:
    """The name of the WAL file that holds a position on a timeline (XLogFileName in access/xlog_internal.h).

    position, segment_size: bytes.
    """
    number = position // segment_size
    per_id = 0x100000000 // segment_size
    return f"{timeline:08X}{number // per_id:08X}{number % per_id:08X}"
