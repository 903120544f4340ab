# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of the registry as results and diffs show them. Private to the collection."""

from __future__ import annotations

from typing import Any

import yaml

from ansible_collections.elephaas.herd.plugins.module_utils.decide.fleet_change import Change


def shown(changes: list[Change]) -> list[dict[str, Any]]:
    """Changes as the return value C(changes) of the modules."""
    return [{key: change[key] for key in ("action", "kind", "name", "before", "after")} for change in changes]


def diff_of(changes: list[Change]) -> dict[str, str]:
    """Changes as a diff of two YAML documents."""
    return {side: _side(changes, side) for side in ("before", "after")}


def _side(changes: list[Change], side: str) -> str:
    things = {f"{change['kind']} {change['name']}": change[side] for change in changes if change[side] is not None}
    return yaml.safe_dump(things, sort_keys=False, allow_unicode=True, width=120) if things else ""
