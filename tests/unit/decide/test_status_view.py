# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is shown of a fleet: filters on what was seen, the order of rows, and what is said when nothing is left."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.elephaas.herd.plugins.module_utils.decide.filters import Filters
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd
from ansible_collections.elephaas.herd.plugins.module_utils.decide.status import herd_status
from ansible_collections.elephaas.herd.plugins.module_utils.decide.status_view import (
    SORTS,
    View,
    rows_in_order,
    seen_row,
    status_lines,
    view,
    view_lines,
)

from .herds import FAR, NEAR, PRIMARY, healthy, member, promoted, stopped, unreachable, with_fact, with_member

RECORD = {"version": "15.1", "lag_bytes": 7, "last_seen": "2025-01-01T00:00:00.000000Z", "pgdata": "/pg"}


def recorded(herd: Herd, **changes: Any) -> dict[str, dict[str, Any]]:
    """What is on record of the herd's members, as filters are asked about it."""
    return {
        one.name: {
            "herd": herd.herd, "environment": herd.environment, "datacenter": one.datacenter, "server": one.server,
            "role": one.role, "version": "15.1", "lag_bytes": 7, "is_online": True, **changes,
        }
        for one in herd.members
    }  # fmt: skip


def look(*herds: Herd, filters: Filters | None = None, sort: str = "problem", **changes: Any) -> View:
    """A view of herds of which every member was looked at."""
    statuses = [herd_status(herd, True, 1024, {one.name: RECORD for one in herd.members}) for herd in herds]
    rows = {name: row for herd in herds for name, row in recorded(herd, **changes).items()}
    return view(statuses, rows, filters or Filters(), sort)


def names(shown: View) -> list[str]:
    return [one["instance"] for herd in shown.herds for one in herd["members"]]


def another(name: str, **changes: Any) -> Herd:
    """The healthy herd under another name."""
    herd = replace(healthy(), name=f"{name}_prod", herd=name, **changes)
    members = tuple(replace(one, name=one.name.replace("trading", name)) for one in herd.members)
    return replace(herd, members=members)


def test_everything_is_shown_without_a_filter() -> None:
    shown = look(healthy())
    assert names(shown) == [PRIMARY, NEAR, FAR]
    assert (shown.considered, shown.shown, shown.steps, shown.hidden_problems) == (3, 3, [], 0)
    assert view_lines(shown)[-1].startswith("1 herds, 3 instances: 1 ok")


FILTERED: dict[str, tuple[Herd, Filters, list[str]]] = {
    "what was seen counts, not the record": (healthy(), Filters(version_below="15.2"), []),
    "unreachable: the record counts": (unreachable(healthy(), NEAR), Filters(version_below="15.2"), [NEAR]),
    "unreachable: the lag on record": (unreachable(healthy(), NEAR), Filters(lag_above=6), [NEAR]),
    "a primary is not behind": (healthy(), Filters(lag_above=-1), [PRIMARY, NEAR, FAR]),
    "lag": (with_fact(healthy(), FAR, "0/4000000", "positions", "replayed"), Filters(lag_above=1 << 20), [FAR]),
    "stopped is offline": (stopped(healthy(), NEAR), Filters(online=False), [NEAR]),
    "a dead host's instance is offline": (unreachable(healthy(), NEAR), Filters(online=False), [NEAR]),
    "hung is offline": (with_fact(healthy(), NEAR, "timed out", "sql_error"), Filters(online=False), [NEAR]),
    "another server is offline": (with_fact(healthy(), NEAR, "no", "identity_problem"), Filters(online=False), [NEAR]),
    "online": (stopped(healthy(), NEAR), Filters(online=True), [PRIMARY, FAR]),
    "roles as seen": (promoted(healthy(), FAR), Filters(roles=("primary",)), [PRIMARY, FAR]),
    "promoted for a diagnosis": (
        with_member(promoted(healthy(), FAR), FAR, role="detached"), Filters(roles=("detached",)), [FAR],
    ),
    "data center": (healthy(), Filters(datacenters=("newyork",)), [FAR]),
}  # fmt: skip


@pytest.mark.parametrize("case", FILTERED)
def test_filters_ask_about_what_was_seen(case: str) -> None:
    herd, filters, wanted = FILTERED[case]
    assert names(look(herd, filters=filters)) == wanted


def test_a_herd_is_shown_with_all_its_problems() -> None:
    shown = look(stopped(healthy(), NEAR), another("fine"), filters=Filters(roles=("primary",)))
    assert names(shown) == [PRIMARY, "fine_prod@chi-db1"]
    assert [problem["code"] for problem in shown.herds[0]["problems"]] == ["NOT_RUNNING"]


def test_problems_that_a_filter_hides_are_counted() -> None:
    shown = look(stopped(healthy(), NEAR), another("fine"), filters=Filters(herds=("fine",)))
    assert shown.hidden_problems == 1
    assert "1 herds that were looked at and are not shown have problems" in view_lines(shown)[-1]


def test_nothing_left_says_which_filter_it_was() -> None:
    shown = look(healthy(), filters=Filters(datacenters=("newyork",), versions=("14",)))
    assert view_lines(shown) == [
        "No instance matches: of 3, datacenters=newyork leaves 1, versions=14 leaves none",
    ]  # fmt: skip


def test_what_is_not_known_is_said_to_be_left_out() -> None:
    shown = look(unreachable(healthy(), NEAR), filters=Filters(versions=("15",)), version=None)
    assert names(shown) == [PRIMARY, FAR]
    assert "shown: 2 of 3 instances (versions=15 leaves 2 (1 not known))" in view_lines(shown)


def test_instances_that_nobody_looked_at_are_counted() -> None:
    far = replace(healthy(), members=healthy().members[2:])
    shown = view([herd_status(far, False, 1024)], recorded(healthy()), Filters(datacenters=("newyork",)))
    assert (names(shown), shown.considered, shown.steps[0].left) == ([FAR], 3, 1)


def test_nothing_to_look_at() -> None:
    assert view_lines(look()) == ["There is no instance to look at."]


ORDERS = {
    "problem": ["zebra", "zebra", "zebra", "alpha", "alpha", "alpha"],
    "-problem": ["alpha", "alpha", "alpha", "zebra", "zebra", "zebra"],
    "herd": ["alpha", "alpha", "alpha", "zebra", "zebra", "zebra"],
    "environment": ["zebra", "zebra", "zebra", "alpha", "alpha", "alpha"],
    "datacenter": ["alpha", "alpha", "zebra", "zebra", "alpha", "zebra"],
    "-datacenter": ["alpha", "zebra", "alpha", "alpha", "zebra", "zebra"],
    # Of the unreachable one the recorded version is known, of a primary no lag.
    "version": ["zebra", "alpha", "alpha", "alpha", "zebra", "zebra"],
    "-lag": ["alpha", "alpha", "zebra", "alpha", "zebra", "zebra"],
}


@pytest.mark.parametrize("sort", ORDERS)
def test_rows_are_sorted_and_problems_stay_first(sort: str) -> None:
    lagging = with_fact(another("alpha"), "alpha_prod@nyc-db1", "0/4000000", "positions", "replayed")
    lagging = replace(lagging, environment="stage")
    broken = unreachable(another("zebra"), "zebra_prod@chi-db2")
    herds = look(lagging, broken, sort=sort).herds
    rows = rows_in_order(herds, sort)
    assert [herd["herd"].partition("_")[0] for herd, _member in rows] == ORDERS[sort]
    lines = status_lines(herds, sort)
    assert lines[0] == "problems:"
    assert "REFUSE UNREACHABLE zebra_prod" in lines[1]


@given(
    st.lists(st.tuples(st.sampled_from(["15.1", "15.10", None, "x"]), st.sampled_from([None, 0, 5])), max_size=5),
    st.sampled_from([sign + sort for sort in SORTS for sign in ("", "-")]),
)
def test_sorting_loses_nothing_and_keeps_the_unknown_last(values: list[tuple[Any, Any]], sort: str) -> None:
    template = herd_status(healthy(), True, 1024)
    members = [
        {**template["members"][1], "instance": f"t_prod@s{number}", "version": version, "lag_bytes": lag}
        for number, (version, lag) in enumerate(values)
    ]
    rows = rows_in_order([{**template, "members": members}], sort)
    assert sorted(one["instance"] for _herd, one in rows) == [one["instance"] for one in members]
    lags = [one["lag_bytes"] for _herd, one in rows]
    if sort.endswith("lag"):
        assert [lag is None for lag in lags] == sorted(lag is None for lag in lags)
        known = [lag for lag in lags if lag is not None]
        assert known == sorted(known, reverse=sort == "-lag")


def test_the_wide_form_shows_what_is_only_on_record_in_parentheses() -> None:
    herd = unreachable(with_fact(healthy(), PRIMARY, ["max_connections"], "pending_restart"), NEAR)
    herd = with_fact(herd, PRIMARY, [{"name": "a", "active": True}, {"name": "b", "active": False}], "slots")
    lines = view_lines(look(herd), wide=True)
    header = next(line for line in lines if line.startswith("HERD"))
    row = {one.server: next(line for line in lines if f" {one.server} " in line) for one in herd.members}
    assert "PENDING RESTART" in header and "LAST SEEN" in header
    assert "2 (1 inactive)" in row["chi-db1"] and "max_connections" in row["chi-db1"]
    assert "(15.1)" in row["chi-db2"] and "2025-01-01T00:00:00" in row["chi-db2"] and "/pg" in row["chi-db2"]
    assert "10.20.0.11" in row["nyc-db1"] and "7312345678901234567" in row["nyc-db1"]


def test_one_data_center_that_nobody_knows_is_no_second_one() -> None:
    herd = healthy(members=(member("chi-db1", "primary"), member("nyc-db1", datacenter=None)))
    assert [problem["reason"] for problem in herd_status(herd, True, 1024)["problems"]] == [
        "it stands in one data center, as far as is known"
    ]


@given(st.none() | st.booleans(), st.sampled_from(["primary", "replica", "detached", "superseded"]))
def test_a_seen_row_holds_all_that_filters_ask_for(online: bool | None, role: str) -> None:
    shown = {**herd_status(unreachable(healthy(), NEAR), True, 1024)["members"][1], "online": online}
    row = seen_row({"herd": "trading", "environment": "prod"}, {**shown, "recorded_role": role})
    assert row["is_online"] is bool(online)
    assert row["role"] == role
    assert (row["standing"] == role) == (role in ("detached", "superseded"))
