# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host's record keeps of the operations before: never less than the last failover, never a chain of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.elephaas.herd.plugins.module_utils.decide.mirror import (
    is_failover,
    kept_failover,
    moved_away,
    records_of,
)


def record(verb: str, token: int = 1, kept: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"token": token, "operation": {"verb": verb}, "closed": "done", "last_failover": kept}


def test_what_is_a_failover() -> None:
    assert is_failover(record("failover"))
    for other in (None, {}, {"operation": None}, record("restart")):
        assert not is_failover(other)


def test_nothing_is_kept_of_nothing() -> None:
    assert kept_failover(None) is None
    assert kept_failover(record("restart")) is None
    assert records_of(None) == []


def test_a_superseded_failover_does_not_begin_once_more() -> None:
    older = {**record("failover", 4)}
    begun = {**record("failover", 5, kept_failover(older)), "closed": None}
    assert kept_failover(begun) == {key: value for key, value in older.items() if key != "last_failover"}


@given(st.lists(st.sampled_from(["failover", "restart", "stop", "promote"]), min_size=1, max_size=8))
def test_the_last_failover_survives_whatever_follows(verbs: list[str]) -> None:
    present: dict[str, Any] | None = None
    for token, verb in enumerate(verbs, start=1):
        kept = kept_failover(present)
        present = record(verb, token, kept)
    found = records_of(present)
    assert found[0]["token"] == len(verbs)
    failovers = [token for token, verb in enumerate(verbs, start=1) if verb == "failover"]
    known = [one["token"] for one in found if is_failover(one)]
    assert (max(known) if known else None) == (max(failovers) if failovers else None)
    # It does not grow with every operation.
    assert len(found) <= 2
    assert all("last_failover" not in one for one in found[1:])


def failover(source: str, target: str, token: int = 1, closed: str | None = "done") -> dict[str, Any]:
    operation = {"verb": "failover", "from": f"trading_prod@{source}", "to": f"trading_prod@{target}"}
    return {"token": token, "operation": operation, "closed": closed, "last_failover": None}


OWN = ("chi-db1.example.com", "chi-db1")


@pytest.mark.parametrize(
    ("found", "away"),
    [
        (failover("chi-db1", "nyc-db1"), True),
        (failover("CHI-DB1.example.com", "nyc-db1"), True),
        ({**record("restart", 9), "last_failover": failover("chi-db1", "nyc-db1")}, True),
        (failover("nyc-db1", "chi-db1"), False),  # it came here
        (failover("chi-db2", "nyc-db1"), False),  # it is a bystander, or goes by a name that nobody told
        (failover("chi-db1", "nyc-db1", closed=None), False),  # not done: the same command finishes it
        (failover("chi-db1", "nyc-db1", closed="aborted"), False),
        ({**failover("nyc-db1", "chi-db1", 9), "last_failover": failover("chi-db1", "nyc-db1")}, False),  # and back
        (record("restart"), False),
        (None, False),
    ],
)
def test_a_failover_that_took_the_primary_away_from_this_host(found: dict[str, Any] | None, away: bool) -> None:
    assert (moved_away(found, OWN) is not None) is away
