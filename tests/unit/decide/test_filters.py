# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters, sizes and versions: what people type, and which rows that leaves."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.fields import ROLES
from ansible_collections.elephaas.herd.plugins.module_utils.decide.filters import (
    EVERYTHING,
    Filters,
    has_dr_pair,
    narrow,
    parse_filters,
    unknown_names,
)
from ansible_collections.elephaas.herd.plugins.module_utils.decide.size import human_bytes, parse_bytes
from ansible_collections.elephaas.herd.plugins.module_utils.decide.version import major_version, parse_version


def row(**changes: Any) -> dict[str, Any]:
    return {
        "herd": "trading", "environment": "prod", "datacenter": "chicago", "server": "chi-db1", "role": "replica",
        "version": "15.8", "lag_bytes": 2048, "is_online": True, "dr_pair": True, **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "changes", "taken"),
    [
        ({"environments": "prod, stage"}, {}, True),
        ({"environments": "stage"}, {}, False),
        ({"datacenters": ["chicago"]}, {}, True),
        ({"datacenters": ["chicago"]}, {"datacenter": None}, False),
        ({"herds": "trading"}, {}, True),
        ({"herds": "trading_prod"}, {}, True),
        ({"herds": "trading_stage,payments"}, {}, False),
        ({"roles": "replica"}, {}, True),
        ({"roles": "primary"}, {}, False),
        # Recorded as promoted for a diagnosis, and seen taking writes: it is both.
        ({"roles": "primary"}, {"role": "primary", "standing": "detached"}, True),
        ({"roles": "detached"}, {"role": "primary", "standing": "detached"}, True),
        ({"versions": "15,16"}, {}, True),
        ({"versions": [15]}, {}, True),
        ({"versions": "15.8"}, {}, True),
        ({"versions": "15.1"}, {"version": "15.18"}, False),
        ({"versions": "17"}, {"version": "17beta1"}, True),
        ({"versions": "17beta1"}, {"version": "17beta2"}, False),
        ({"version_below": "15.10"}, {}, True),
        ({"version_below": "15.8"}, {}, False),
        ({"version_below": 16}, {"version": "15.18"}, True),
        ({"version_below": "16"}, {"version": "16.0"}, False),
        ({"version_below": "16"}, {"version": "16rc1"}, True),
        ({"version_below": "9.6.10"}, {"version": "9.6.9"}, True),
        ({"lag_above": 2047}, {}, True),
        ({"lag_above": "2kB"}, {}, False),
        ({"lag_above": "1 KiB"}, {}, True),
        ({"online": "true"}, {}, True),
        ({"online": False}, {}, False),
        ({"offline": "yes"}, {"is_online": False}, True),
        ({"offline": "no"}, {}, True),
        ({"without_dr_pair": True}, {}, False),
        ({"without_dr_pair": "true"}, {"dr_pair": False}, True),
        ({"unassigned": "on"}, {}, False),
        ({"unassigned": True}, {"environment": "unassigned"}, True),
        ({"unassigned": True}, {"datacenter": None}, True),
        # An answer to a survey's question that nobody answered.
        (dict.fromkeys(("environments", "versions", "version_below", "lag_above", "online", "unassigned"), ""), {}, True),
        # All of several filters.
        ({"herds": "trading", "version_below": "15"}, {}, False),
    ],
)  # fmt: skip
def test_a_filter_takes_what_it_says(options: dict[str, Any], changes: dict[str, Any], taken: bool) -> None:
    assert parse_filters(options).takes_instance(row(**changes)) is taken


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ({"versions": "15"}, {"version": None}),
        ({"versions": "15"}, {"version": "EDB 15.3"}),
        ({"version_below": "99"}, {"version": None}),
        ({"lag_above": 0}, {"lag_bytes": None}),
        ({"online": True}, {"is_online": None}),
        ({"offline": True}, {"is_online": None}),
        ({"roles": "replica"}, {"role": None}),
        ({"without_dr_pair": True}, {"dr_pair": None}),
    ],
)
def test_what_is_not_known_meets_no_filter_and_is_counted(options: dict[str, Any], changes: dict[str, Any]) -> None:
    left, steps = narrow(parse_filters(options), [row(**changes)])
    assert left == []
    assert [(step.left, step.unknown) for step in steps] == [(0, 1)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"roles": "leader"}, "primary, replica, detached, superseded"),
        ({"versions": "15,abc"}, "'abc' is not allowed. .*17beta1"),
        ({"version_below": "abc"}, "version_below: 'abc' is not allowed"),
        # 15.10 without quotes.
        ({"version_below": 15.1}, "put the number in quotes"),
        ({"versions": [15.1]}, "put the number in quotes"),
        ({"lag_above": "64 MegaB"}, "64MB"),
        ({"lag_above": -1}, "bytes"),
        ({"online": "maybe"}, "true or false"),
        ({"online": True, "offline": True}, "not both online and offline"),
        ({"environments": {"prod": {}}}, "a list of texts"),
        ({"herds": [True]}, "a list of texts"),
        ({"enviroments": "prod"}, "environments, datacenters"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_is_allowed(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OperatorError) as refused:
        parse_filters(options)
    assert refused.value.code == "FILTER_INVALID"
    assert re.search(words, refused.value.as_result()["msg"])


def test_servers_are_taken_for_what_they_host_or_for_themselves() -> None:
    server = {"server": "s", "environment": "prod", "datacenter": "chicago"}
    bare = {**server, "datacenter": None}
    assert EVERYTHING.takes_server(server, 0, 0)
    assert Filters(environments=("prod",)).takes_server(server, 2, 0)
    assert not Filters(environments=("stage",)).takes_server(server, 2, 2)
    assert not Filters(datacenters=("newyork",)).takes_server(server, 2, 2)
    assert Filters(versions=("15",)).takes_server(server, 2, 1)
    assert not Filters(versions=("15",)).takes_server(server, 2, 0)
    unassigned = Filters(unassigned=True)
    assert unassigned.takes_server(server, 0, 0)
    assert not unassigned.takes_server(server, 1, 0)
    assert unassigned.takes_server(bare, 1, 1)
    assert unassigned.takes_server({**server, "environment": "unassigned"}, 1, 0)
    # Nothing that it hosts can be of that version.
    assert not Filters(unassigned=True, versions=("15",)).takes_server(bare, 0, 0)


@pytest.mark.parametrize(
    ("datacenters", "paired"),
    [
        ([], False),
        (["chicago"], False),
        (["chicago", "chicago"], False),
        (["chicago", None], False),
        ([None, None], False),
        (["chicago", "newyork"], True),
    ],
)
def test_a_dr_pair_stands_in_two_data_centers(datacenters: list[str | None], paired: bool) -> None:
    assert has_dr_pair(datacenters) is paired


def test_a_mistyped_name_is_told_with_those_there_are() -> None:
    rows = [row(), row(herd=None, environment="stage", datacenter=None)]
    filters = Filters(environments=("prdo", "stage"), datacenters=("chicago",), herds=("trading_stage",))
    assert unknown_names(filters, rows) == [
        "environments: 'prdo' is not known. There are: prod, stage.",
        "herds: 'trading_stage' is not known. There are: trading, trading_prod.",
    ]
    assert unknown_names(Filters(herds=("trading", "trading_prod")), rows) == []


filters_of_any_kind = st.builds(
    Filters,
    environments=st.sampled_from([(), ("prod",), ("prod", "stage")]),
    datacenters=st.sampled_from([(), ("chicago",)]),
    herds=st.sampled_from([(), ("trading",), ("trading_prod", "x")]),
    roles=st.lists(st.sampled_from(ROLES), max_size=2).map(tuple),
    versions=st.sampled_from([(), ("15",), ("15.8", "17")]),
    version_below=st.sampled_from([None, "15.10", "17"]),
    lag_above=st.none() | st.integers(0, 4096),
    online=st.none() | st.booleans(),
    without_dr_pair=st.booleans(),
    unassigned=st.booleans(),
)
any_value = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.none(), max_size=1)
rows_of_any_kind = st.builds(
    row,
    environment=st.sampled_from(["prod", "stage", "unassigned"]),
    datacenter=st.sampled_from(["chicago", "newyork"]) | any_value,
    role=st.sampled_from(ROLES) | any_value,
    version=st.sampled_from(["15.8", "15.10", "17beta1"]) | any_value,
    lag_bytes=st.integers(0, 4096) | any_value,
    is_online=any_value,
    dr_pair=st.sampled_from([True, False, None]),
)


@given(filters_of_any_kind, st.lists(rows_of_any_kind, max_size=6))
def test_narrowing_is_taking_each(filters: Filters, rows: list[dict[str, Any]]) -> None:
    left, steps = narrow(filters, rows)
    assert left == [one for one in rows if filters.takes_instance(one)]
    counts = [len(rows), *(step.left for step in steps)]
    assert counts == sorted(counts, reverse=True)
    assert all(before - step.left >= step.unknown for before, step in zip(counts, steps, strict=False))
    assert counts[-1] == len(left)
    # What the record alone answers never rejects what the whole would take.
    assert all(filters.on_record().takes_instance(one) for one in left)
    assert all(criterion.on_record for criterion in filters.on_record().tests)


def as_typed(filters: Filters, commas: bool) -> dict[str, Any]:
    def words(values: tuple[str, ...]) -> Any:
        return ", ".join(values) if commas else list(values)

    return {
        **{name: words(getattr(filters, name)) for name in ("environments", "datacenters", "herds", "roles", "versions")},
        "version_below": filters.version_below or "",
        "lag_above": "" if filters.lag_above is None else str(filters.lag_above),
        "online": "" if filters.online is None else str(filters.online).lower(),
        "without_dr_pair": str(filters.without_dr_pair),
        "unassigned": filters.unassigned,
    }  # fmt: skip


@given(filters_of_any_kind, st.booleans())
def test_text_and_lists_mean_the_same(filters: Filters, commas: bool) -> None:
    parsed = parse_filters(as_typed(filters, commas))
    assert {**vars(parsed), "roles": set(parsed.roles)} == {**vars(filters), "roles": set(filters.roles)}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (0, 0), ("0", 0), ("17 B", 17), ("1k", 1024), ("1kB", 1024), ("1 KiB", 1024), ("64MB", 64 << 20),
        ("1.5GiB", 3 << 29), ("2tb", 2 << 40), (" 3PB ", 3 << 50),
        ("", None), ("MB", None), ("-1", None), ("1,5MB", None), ("1e3", None), ("1 X", None), (True, None),
        (1.5, None), (None, None), ("\uff11MB", None), ("1\u212aB", None), ("1MB\nx", None),
    ],
)  # fmt: skip
def test_sizes(text: Any, count: int | None) -> None:
    assert parse_bytes(text) == count


@given(st.integers(0, 1 << 60))
def test_what_is_shown_can_be_typed(count: int) -> None:
    again = parse_bytes(human_bytes(count))
    assert again is not None
    assert abs(again - count) <= count * 0.06


@pytest.mark.parametrize(
    "ordered",
    [
        ["9.6.9", "9.6.24", "10", "15.8", "15.10", "16devel", "16alpha1", "16beta1", "16beta2", "16rc1", "16", "16.1"],
        ["15", "15.0.1", "15.1"],
    ],
)
def test_versions_are_compared_as_numbers(ordered: list[str]) -> None:
    orders = [version.order for version in map(parse_version, ordered) if version]
    assert len(orders) == len(ordered)
    assert orders == sorted(set(orders))


@given(st.tuples(st.integers(0, 99), st.integers(0, 99)), st.tuples(st.integers(0, 99), st.integers(0, 99)))
def test_below_is_the_order_of_numbers(one: tuple[int, int], other: tuple[int, int]) -> None:
    filters = parse_filters({"version_below": f"{other[0]}.{other[1]}"})
    assert filters.takes_instance(row(version=f"{one[0]}.{one[1]}")) is (one < other)


@pytest.mark.parametrize(
    ("version", "major"),
    [("15.18", "15"), ("17beta1", "17"), ("18", "18"), ("", None), (None, None), ("x", None), (15, None)],
)
def test_major_version(version: object, major: str | None) -> None:
    assert major_version(version) == major
