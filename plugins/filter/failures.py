# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What went wrong in a task's result, one line a failure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def failures(result: Mapping[str, Any]) -> list[str]:
    """Lines for every failed or unreachable part of a registered result; a looped one has several parts."""
    parts = result.get("results", [result])
    lines = []
    for part in parts:
        if not part.get("failed") and not part.get("unreachable"):
            continue
        item = part.get(part.get("ansible_loop_var", "item"))
        name = item.get("name") if isinstance(item, Mapping) else item
        why = part.get("msg") or ("its host cannot be reached" if part.get("unreachable") else "it failed")
        lines.append(f"{name}: {why}" if name else str(why))
    return lines


class FilterModule:
    """Filters of the collection that read results."""

    def filters(self) -> dict[str, Any]:
        return {"failures": failures}
