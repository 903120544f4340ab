# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Timeline history files (pg_wal/XXXXXXXX.history). Private to the collection."""

from __future__ import annotations

import os
import re
from typing import Any

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
