# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fleet files: what they may hold, and what a load would change."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.elephaas.herd.plugins.module_utils.decide import fleet as fleets
from ansible_collections.elephaas.herd.plugins.module_utils.decide import fleet_change, names
from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.tests.unit.registry.documents import document, documents

EMPTY: fleets.Fleet = {"environments": {}, "datacenters": {}, "servers": {}, "herds": []}


def problems_of(wrong: object) -> str:
    with pytest.raises(OperatorError) as caught:
        fleets.parse_fleet(wrong)
    assert caught.value.code == "FLEET_INVALID"
    return "\n".join(caught.value.evidence["problems"])


def test_everything_is_filled_in() -> None:
    fleet = fleets.parse_fleet(document())
    assert fleet["environments"]["stage"] == {"protected": False, "description": None}
    assert {name: server["datacenter"] for name, server in fleet["servers"].items()} == {
        "chi-db1": "chicago",
        "chi-db2": "annex",  # the most specific network wins
        "far-db1": "annex",
    }
    herd = fleet["herds"][0]
    assert (herd["port"], herd["pgdata"], herd["base_name"], herd["control"]) == (
        5432,
        "/srv/pg/main",
        "order-book",
        "auto",
    )
    assert [(m["role"], m["upstream"], m["port"], m["pgdata"]) for m in herd["members"]] == [
        ("primary", None, 5432, "/srv/pg/main"),
        ("replica", "chi-db1", 5432, "/srv/pg/main"),
        ("replica", "chi-db2", 5432, "/srv/pg/main"),
    ]


def test_the_document_is_left_alone() -> None:
    given_document = document()
    fleets.parse_fleet(given_document)
    assert given_document == document()


def test_a_named_primary_wins_over_the_first_member() -> None:
    wanted = document()
    wanted["herds"][0]["members"] = [{"server": "chi-db1"}, {"server": "chi-db2", "role": "primary"}]
    members = fleets.parse_fleet(wanted)["herds"][0]["members"]
    assert [(m["role"], m["upstream"]) for m in members] == [("replica", "chi-db2"), ("primary", None)]


@pytest.mark.parametrize(
    ("place", "value", "path", "allowed"),
    [
        (("herds", 0, "port"), 70000, "herds[0].port", "1 to 65535"),
        (("herds", 0, "port"), True, "herds[0].port", "whole number"),
        (("herds", 0, "pgdata"), "data", "herds[0].pgdata", "absolute"),
        (("herds", 0, "pgdata"), "/srv/../etc", "herds[0].pgdata", "'..'"),
        (("herds", 0, "pgdata"), "/srv/a\nb", "herds[0].pgdata", "absolute"),
        (("herds", 0, "name"), "a b", "herds[0].name", "letters"),
        (("herds", 0, "name"), "x" * 64, "herds[0].name", "63"),
        (("herds", 0, "control"), "magic", "herds[0].control", "pg_ctlcluster"),
        (("herds", 0, "os_user"), "-oops", "herds[0].os_user", "account"),
        (("herds", 0, "colour"), "red", "herds[0].colour", "unknown key"),
        (("herds", 0, "environment"), "prd", "herds[0] (Order-Book).environment", "prod, stage"),
        (("herds", 0, "members", 1, "server"), "chi-db9", "members[1].server", "chi-db1"),
        (("herds", 0, "members", 1, "server"), "chi-db1", "members[1].server", "twice"),
        (("herds", 0, "members", 2, "upstream"), "far-db1", "members[2].upstream", "itself"),
        (("herds", 0, "members", 1, "upstream"), "far-db1", "members[1].upstream", "itself"),
        (("herds", 0, "members", 0, "upstream"), "chi-db2", "members[0].upstream", "no upstream"),
        (("servers", "chi-db1", "address"), "-oProxyCommand=x", "servers.chi-db1.address", "IPv4"),
        (("servers", "chi-db1", "address"), "10.10.0.300", "servers.chi-db1.address", "IPv4"),
        (("servers", "chi-db1", "environment"), None, "servers.chi-db1.environment", "missing"),
        (("datacenters", "chicago", "networks"), ["10.10.0.1/16"], "datacenters.chicago.networks", "host bits"),
        (("environments", "prod", "protected"), "yes", "environments.prod.protected", "true or false"),
    ],
)
def test_what_is_refused_says_where_and_what_is_allowed(
    place: tuple[Any, ...], value: Any, path: str, allowed: str
) -> None:
    wrong = document()
    at: Any = wrong
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = value
    found = problems_of(wrong)
    assert path in found
    assert allowed in found


@pytest.mark.parametrize("roles", [("primary", "primary"), ("replica", "replica"), ("detached", None)])
def test_a_herd_has_exactly_one_primary(roles: tuple[str | None, str | None]) -> None:
    wrong = document()
    for member, role in zip(wrong["herds"][0]["members"][:2], roles, strict=True):
        member["role"] = role
    assert "exactly one primary" in problems_of(wrong)


def test_all_problems_are_told_at_once() -> None:
    wrong = document()
    wrong["herds"][0]["port"] = 0
    wrong["servers"]["chi-db1"]["ssh_port"] = 0
    wrong["more"] = 1
    assert len(problems_of(wrong).splitlines()) == 3


@pytest.mark.parametrize("reserved", sorted(names.FIXED_GROUPS))
def test_a_server_can_not_be_called_like_a_fixed_group(reserved: str) -> None:
    wrong = document()
    wrong["servers"][reserved] = {"environment": "prod"}
    assert "fixed name" in problems_of(wrong)


@pytest.mark.parametrize(
    ("herd", "environment"),
    [("env", "x"), ("dc_chicago", "prod"), ("server", "chi-db1"), ("pg", "15"), ("PG_15", "prod")],
)
def test_groups_of_the_inventory_are_kept_free(herd: str, environment: str) -> None:
    reserved = names.reserved_problem(names.herd_group(herd, environment))
    assert (reserved is None) == (herd == "PG_15")


def test_names_that_become_one_group_are_refused() -> None:
    wrong = document()
    wrong["herds"].append({**wrong["herds"][0], "name": "Order_Book", "port": 5499, "pgdata": "/srv/other"})
    assert "'Order_Book_prod'" in problems_of(wrong)


def test_a_server_called_like_a_herds_group_is_refused() -> None:
    wrong = document()
    wrong["servers"]["Order_Book_prod"] = {"environment": "prod"}
    assert "'Order_Book_prod'" in problems_of(wrong)


@pytest.mark.parametrize(("field", "same"), [("port", {"pgdata": "/srv/other"}), ("pgdata", {"port": 5499})])
def test_two_herds_can_not_share_a_place_on_a_server(field: str, same: dict[str, Any]) -> None:
    wrong = document()
    wrong["herds"].append({**wrong["herds"][0], "name": "second", **same})
    assert f"{field} " in problems_of(wrong)


@pytest.mark.parametrize("nothing", [None, [], "text", 5])
def test_what_is_no_fleet_is_refused(nothing: object) -> None:
    assert "mapping" in problems_of(nothing)


# -- any fleet -------------------------------------------------------------------------------------------------------


@given(documents())
@settings(max_examples=60, deadline=None)
def test_a_fleet_written_out_and_read_again_is_the_same(wanted: dict[str, Any]) -> None:
    fleet = fleets.parse_fleet(wanted)
    assert fleets.parse_fleet(fleets.fleet_document(fleet)) == fleet


@given(documents())
@settings(max_examples=40, deadline=None)
def test_loading_what_is_there_changes_nothing(wanted: dict[str, Any]) -> None:
    fleet = fleets.parse_fleet(wanted)
    live = {fleets.herd_key(herd) for herd in fleet["herds"]}
    for mode in ("merged", "overridden"):
        assert fleet_change.fleet_difference(fleet, fleet, mode) == []
        assert fleet_change.fleet_difference(fleet, fleet, mode, live) == []


@given(documents(), documents())
@settings(max_examples=60, deadline=None)
def test_overridden_removes_and_merged_never_does(before: dict[str, Any], after: dict[str, Any]) -> None:
    current, wanted = fleets.parse_fleet(before), fleets.parse_fleet(after)
    removed = {
        c["name"] for c in fleet_change.fleet_difference(current, wanted, "overridden") if c["action"] == "remove"
    }
    assert {f"{name}" for name in set(current["servers"]) - set(wanted["servers"])} <= removed
    try:
        merged = fleet_change.fleet_difference(current, wanted, "merged")
    except OperatorError as error:
        assert error.code == "FLEET_INVALID"  # a place taken by a herd that the file does not have
    else:
        assert not [change for change in merged if change["action"] == "remove"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
    )
)
@settings(max_examples=150, deadline=None)
def test_anything_at_all_is_a_fleet_or_a_list_of_problems(anything: object) -> None:
    for wrong in (anything, {"herds": anything, "servers": anything}, {"herds": [anything], "datacenters": anything}):
        try:
            fleets.parse_fleet(wrong)
        except OperatorError as error:
            assert error.evidence["problems"]


# -- merged loads and roles that have moved --------------------------------------------------------------------------


def failed_over() -> fleets.Fleet:
    fleet = fleets.parse_fleet(document())
    members = fleet["herds"][0]["members"]
    members[0].update(role="replica", upstream="chi-db2")
    members[1].update(role="primary", upstream=None)
    return fleet


def test_a_merged_load_keeps_the_roles_of_a_herd_that_was_seen() -> None:
    live = {("prod", "Order-Book")}
    current, wanted = failed_over(), fleets.parse_fleet(document())
    assert fleet_change.fleet_difference(current, wanted, "merged", live) == []
    notes = fleet_change.kept_roles(current, wanted, live)
    assert len(notes) == 1
    assert "chi-db1, chi-db2" in notes[0]
    assert fleet_change.fleet_difference(current, wanted, "merged") != []
    assert fleet_change.kept_roles(current, wanted, ()) == []


def test_a_new_member_of_a_herd_that_failed_over_follows_the_new_primary() -> None:
    more = document()
    more["servers"]["new-db1"] = {"environment": "prod"}
    more["herds"][0]["members"].append({"server": "new-db1"})
    changes = fleet_change.fleet_difference(failed_over(), fleets.parse_fleet(more), "merged", {("prod", "Order-Book")})
    added = next(change for change in changes if change["kind"] == "instance")
    assert (added["name"], added["after"]["role"], added["after"]["upstream"]) == (
        "Order-Book_prod@new-db1",
        "replica",
        "chi-db2",
    )


def test_a_merged_file_can_not_take_what_another_herd_has() -> None:
    other = copy.deepcopy(document())
    other["herds"][0].update(name="second", pgdata="/srv/second")
    with pytest.raises(OperatorError, match="port 5432 on server chi-db1"):
        fleet_change.fleet_difference(fleets.parse_fleet(document()), fleets.parse_fleet(other), "merged")


def test_a_part_of_a_fleet_is_a_fleet() -> None:
    more = document()
    more["herds"].append(
        {"name": "tiny", "environment": "stage", "port": 6000, "pgdata": "/t", "members": [{"server": "chi-db1"}]}
    )
    part = fleets.part_of_fleet(fleets.parse_fleet(more), herds=["tiny_stage"])
    assert [herd["name"] for herd in part["herds"]] == ["tiny"]
    assert set(part["servers"]) == {"chi-db1"}
    assert set(part["environments"]) == {"prod", "stage"}  # the server's, and the herd's
    assert fleets.parse_fleet(fleets.fleet_document(part)) == part


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_group_is_always_an_identifier(one: str, two: str) -> None:
    group = names.group_name(one, two)
    assert group.isidentifier()
    assert group.isascii()


@pytest.mark.parametrize("bad", ["", ".x", "-x", "a b", "a/b", "a\n", "ä", "a" * 64, 5, None, "{{ x }}"])
def test_check_name_refuses(bad: object) -> None:
    with pytest.raises(OperatorError) as caught:
        names.check_name("server", bad)
    assert caught.value.code == "NAME_INVALID"
    assert "server" in caught.value.reason
