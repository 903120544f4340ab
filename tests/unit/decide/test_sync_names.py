# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""synchronous_standby_names is read as PostgreSQL reads it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.elephaas.herd.plugins.module_utils.decide.sync_names import SyncNames, parse_sync_names


@pytest.mark.parametrize(
    ("text", "number", "names"),
    [
        ("*", 1, ("*",)),
        ("a", 1, ("a",)),
        (" a , B ", 1, ("a", "b")),
        ("2 (a, b, c)", 2, ("a", "b", "c")),
        ("FIRST 2 (a, b)", 2, ("a", "b")),
        ("any 1(a,b)", 1, ("a", "b")),
        ("ANY 3 (*)", 3, ("*",)),
        ('"first"', 1, ("first",)),
        ('"chi-db1", "say ""hi"""', 1, ("chi-db1", 'say "hi"')),
        ("s1, 2", 1, ("s1", "2")),
        ("2", 1, ("2",)),
        ("_x$1, ünique", 1, ("_x$1", "ünique")),
        ('"*"', 1, ("*",)),
    ],
)
def test_what_the_server_takes(text: str, number: int, names: tuple[str, ...]) -> None:
    assert parse_sync_names(text) == SyncNames(number, names)


@pytest.mark.parametrize(
    "text", ["a b", "a,", ",a", "chi-db1", "FIRST (a)", "FIRST a", "2 (a", "2 ()", '"a', "(a)", "ANY 1 (a), b", '""']
)
def test_what_the_server_refuses(text: str) -> None:
    assert parse_sync_names(text) is None


def test_names_have_no_case_and_the_star_is_everybody() -> None:
    rule = parse_sync_names("A, b")
    assert rule is not None
    assert rule.names_it("a") and rule.names_it("B") and not rule.names_it("c")
    everybody = parse_sync_names("*")
    assert everybody is not None and everybody.names_it("whoever")


@given(st.text(alphabet='ab ,()*"FIRSTANY12-', max_size=20))
def test_no_text_is_too_much_for_it(text: str) -> None:
    rule = parse_sync_names(text)
    assert rule is None or (rule.names and rule.number >= 0)
