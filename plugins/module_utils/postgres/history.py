# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Timeline history files (pg_wal/XXXXXXXX.history). Private to the collection."""

from __future__ import annotations

import os
import re
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.lsn import segment_file_name

# Its columns are parent timeline, switch point and reason (src/backend/access/transam/timeline.c).
_LINE = re.compile(r"\A\s*(\d+)\s+([0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8})(?:\s|\Z)")


def parse_history(text: str) -> list[dict[str, Any]]:
    """[{"timeline": 1, "switch_lsn": "0/3000060"}], oldest first: where each ancestor timeline was left."""
    matches = (_LINE.match(line) for line in text.splitlines() if not line.lstrip().startswith("#"))
    return [{"timeline": int(match.group(1)), "switch_lsn": match.group(2)} for match in matches if match]


def read_history(data_directory: str, timeline: int) -> list[dict[str, Any]] | None:
    """The history of `timeline`; [] for timeline 1, which has none; None when the file is missing."""
    if timeline <= 1:
        return []
    path = os.path.join(data_directory, "pg_wal", f"{timeline:08X}.history")
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return parse_history(stream.read())
    except OSError:
        return None


def replayed_timeline(data_directory: str, replayed: int, segment_size: int) -> int:
    """The newest timeline of which there is the WAL file with the last replayed byte; 0 when there is none.

    A replica that nobody streams to has this alone to tell its timeline by: its control file learns of a new one only
    at a restartpoint, minutes later. replayed: a position, the end of what was replayed. Sizes in bytes.
    """
    segment = segment_file_name(0, max(0, replayed - 1), segment_size)[8:]
    try:
        names = os.listdir(os.path.join(data_directory, "pg_wal"))
    except OSError:
        return 0
    return max((int(name[:8], 16) for name in names if re.match(r"\A[0-9A-F]{8}" + segment + r"\Z", name)), default=0)
