# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many failures a run over many herds puts up with. Private to the collection."""

from __future__ import annotations

import re

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError

_BUDGET = re.compile(r"\A([0-9]+)(%?)\Z")


def budget_used_up(budget: str, failed: int, total: int) -> bool:
    """Whether so many failures among so many herds are more than the budget allows.

    budget: a number of herds, or a percentage of them; empty for no limit. As with Ansible's max_fail_percentage, what
    is allowed may be reached: 0 stops after the first failure. Raises OperatorError BAD_ARGUMENTS.
    """
    text = budget.strip()
    if not text:
        return False
    found = _BUDGET.match(text)
    if not found:
        raise OperatorError(
            "BAD_ARGUMENTS", f"max_failures is {budget!r}; it takes a number of herds, or a percentage such as 10%."
        )
    allowed = int(found[1])
    return failed * 100 > allowed * total if found[2] else failed > allowed
