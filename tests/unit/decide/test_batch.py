# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many failures a run puts up with."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.elephaas.herd.plugins.module_utils.decide.batch import budget_used_up
from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError


@pytest.mark.parametrize(
    ("budget", "failed", "total", "used_up"),
    [
        ("", 40, 40, False),
        ("  ", 40, 40, False),
        ("0", 0, 40, False),
        ("0", 1, 40, True),
        ("2", 2, 40, False),
        ("2", 3, 40, True),
        ("0%", 0, 40, False),
        ("0%", 1, 40, True),
        (" 10% ", 4, 40, False),
        ("10%", 5, 40, True),
        # A third of ten is three and a bit: four are more.
        ("33%", 3, 10, False),
        ("33%", 4, 10, True),
        ("100%", 40, 40, False),
    ],
)
def test_the_budget(budget: str, failed: int, total: int, used_up: bool) -> None:
    assert budget_used_up(budget, failed, total) is used_up


@given(st.integers(0, 200), st.integers(0, 100), st.integers(1, 100))
def test_what_is_allowed_may_be_reached(budget: int, failed: int, total: int) -> None:
    assert budget_used_up(str(budget), failed, total) == (failed > budget)
    assert budget_used_up(f"{budget}%", failed, total) == (Fraction(failed, total) > Fraction(budget, 100))


@pytest.mark.parametrize("budget", ["-1", "1.5", "ten", "%", "5 %", "5%%", "1e3", "٣", "5\n6"])
def test_anything_else_is_refused_by_name(budget: str) -> None:
    with pytest.raises(OperatorError) as caught:
        budget_used_up(budget, 0, 1)
    assert caught.value.code == "BAD_ARGUMENTS"
    assert repr(budget) in caught.value.reason
