# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a state of follow returns. Private to the collection."""

from __future__ import annotations

from typing import Any, NamedTuple


class Outcome(NamedTuple):
    """did: what was done, in words; empty: nothing. before, after: for a diff, without secrets."""

    did: list[str]
    before: str
    after: str
    more: dict[str, Any]
