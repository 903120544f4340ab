# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What text from outside may hold, and how messages quote it. Private to the collection."""

from __future__ import annotations

import re

# No database in UTF-8 and no file system takes half of a surrogate pair, which YAML and JSON can write; nor a NUL.
UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")
# What has no place in a name or a path, though some systems would take it.
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

_LONGEST_QUOTE = 80


def quoted(value: object) -> str:
    """The value as a message shows it: in quotes, on one line, printable, and not longer than a line."""
    text = repr(value)
    return text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 3] + "..."
