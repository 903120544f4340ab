# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What measurements rest on: nobody is always first, and a row that is gone is counted whenever it went."""

from __future__ import annotations

from ansible_collections.elephaas.herd.tests.bench.harness import turns
from ansible_collections.elephaas.herd.tests.bench.switching.herd import gone


def test_each_has_a_turn_in_each_round_and_nobody_is_always_first() -> None:
    assert list(turns(["a", "b", "c"], 3)) == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


def test_rows_of_earlier_rounds_that_are_gone_are_counted_and_new_ones_do_not_make_up_for_them() -> None:
    assert gone({}, {"first": 10}) == 0
    assert gone({"first": 10, "second": 5}, {"first": 10, "second": 5, "third": 7}) == 0
    assert gone({"first": 10, "second": 5, "third": 7}, {"first": 9, "third": 12}) == 6
