# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes a host, a group or a variable, and what is left out."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.elephaas.herd.plugins.module_utils.decide.filters import Filters
from ansible_collections.elephaas.herd.plugins.plugin_utils.inventory import (
    STANDARD_GROUPS,
    DocumentError,
    build,
    connection_problem,
)

from .documents import document, instance, operation, server, trading


def test_groups_of_a_herd() -> None:
    model = build(trading())
    assert model.warnings == []
    members = ["trading_prod@chi-db1", "trading_prod@nyc-db1", "trading_prod@nyc-db2"]
    assert model.groups["trading_prod"] == model.groups["instances"] == members
    assert model.groups["leads"] == model.groups["primaries"] == model.groups["dr_pairs"] == members[:1]
    assert model.groups["replicas"] == members[1:]
    assert model.groups["online"] == model.groups["pg_15"] == members
    assert model.groups["offline"] == model.groups["former_leads"] == []
    assert model.groups["dc_nyc"] == ["nyc-db1", "nyc-db2", *members[1:]]
    assert model.groups["env_prod"] == ["chi-db1", "nyc-db1", "nyc-db2", *members]
    assert model.groups["server_chi_db1"] == ["chi-db1", members[0]]
    assert model.groups["servers"] == ["chi-db1", "nyc-db1", "nyc-db2"]


def test_variables_of_an_instance() -> None:
    rows = [
        instance("Order-Book", "chi-db1", "primary", address="10.1.0.1", ssh_port=2222, ssh_user="dba"),
        instance("Order-Book", "nyc-db1", upstream_server="chi-db1"),
    ]
    hosts = build(document([], rows, [operation("Order-Book", "open", "chi-db1", "nyc-db1")])).hosts
    primary, replica = hosts["Order-Book_prod@chi-db1"], hosts["Order-Book_prod@nyc-db1"]
    assert (primary["ansible_host"], primary["ansible_port"], primary["ansible_user"]) == ("10.1.0.1", 2222, "dba")
    assert replica["ansible_host"] == replica["elephaas_address"] == "nyc-db1"
    assert replica["elephaas_upstream"] == "Order-Book_prod@chi-db1"
    assert replica["elephaas_herd_group"] == "Order_Book_prod"
    assert replica["elephaas_members"] == ["Order-Book_prod@chi-db1", "Order-Book_prod@nyc-db1"]
    assert replica["elephaas_operation"]["from"] == "Order-Book_prod@chi-db1"
    assert replica["elephaas_operation"]["to"] == "Order-Book_prod@nyc-db1"
    assert replica["elephaas_operation"]["token"] == 3
    assert primary["elephaas_last_failover"] is None


@pytest.mark.parametrize(
    ("operations", "roles", "lead", "former"),
    [
        ([], ("primary", "replica", "replica"), "chi-db1", None),
        ([], ("replica", "primary", "replica"), "nyc-db1", None),
        ([], ("replica", "replica", "replica"), "chi-db1", None),
        ([], ("replica", "primary", "primary"), "nyc-db1", None),
        ([], ("superseded", "detached", "replica"), "chi-db1", None),
        # Open, and the roles have moved already: still found through the server it moves away from.
        ([("open", "chi-db1", "nyc-db1")], ("replica", "primary", "replica"), "chi-db1", None),
        ([("incomplete", "chi-db1", "nyc-db1")], ("replica", "primary", "replica"), "chi-db1", None),
        ([("done", "chi-db1", "nyc-db1")], ("replica", "primary", "replica"), "nyc-db1", "chi-db1"),
        # A newer operation is open: nothing is finished.
        ([("done", "chi-db1", "nyc-db1"), ("open", "nyc-db1", "nyc-db2")],
         ("replica", "primary", "replica"), "nyc-db1", None),
        # The herd has moved on since, by another way.
        ([("done", "chi-db1", "nyc-db1")], ("replica", "replica", "primary"), "nyc-db2", None),
        ([("aborted", "chi-db1", "nyc-db1")], ("primary", "replica", "replica"), "chi-db1", None),
        ([("incomplete", "chi-db1", "nyc-db1"), ("aborted", "chi-db1", "nyc-db2")],
         ("primary", "replica", "replica"), "chi-db1", None),
        # A refused attempt closes nothing.
        ([("incomplete", "chi-db1", "nyc-db1"), ("refused", "chi-db1", "nyc-db2")],
         ("replica", "primary", "replica"), "chi-db1", None),
        # The server it moves away from is no member any more.
        ([("open", "gone-db1", "nyc-db1")], ("replica", "primary", "replica"), "nyc-db1", None),
        # An operation that moves nothing.
        ([("open", None, None)], ("replica", "primary", "replica"), "nyc-db1", None),
    ],
)  # fmt: skip
def test_one_lead(operations: list, roles: tuple[str, str, str], lead: str, former: str | None) -> None:
    rows = [
        operation("trading", *values, started=f"2025-01-0{day}T00:00:00Z")
        for day, values in enumerate(operations, start=1)
    ]
    groups = build(trading(*rows, roles=roles)).groups
    assert groups["leads"] == groups["dr_pairs"] == [f"trading_prod@{lead}"]
    assert groups["former_leads"] == ([f"trading_prod@{former}"] if former else [])


@given(
    roles=st.lists(st.sampled_from(["primary", "replica", "detached", "superseded"]), min_size=1, max_size=5),
    operations=st.lists(
        st.tuples(
            st.sampled_from(["open", "done", "aborted", "incomplete", "refused"]),
            st.sampled_from([None, "s0", "s1", "s4", "gone"]),
            st.sampled_from([None, "s0", "s1", "s4", "gone"]),
        ),
        max_size=3,
    ),
    shuffled=st.randoms(use_true_random=False),
)
@settings(max_examples=200, deadline=None)
def test_exactly_one_lead_whatever_is_recorded(roles: list[str], operations: list, shuffled) -> None:  # type: ignore[no-untyped-def]
    rows = [instance("h", f"s{number}", role) for number, role in enumerate(roles)]
    records = [operation("h", *values, started=str(number)) for number, values in enumerate(operations)]
    model = build(document([], rows, records))
    assert len(model.groups["leads"]) == 1
    assert len(model.groups["former_leads"]) <= 1
    assert not set(model.groups["leads"]) & set(model.groups["former_leads"])
    assert bool(model.groups["dr_pairs"]) == (len(rows) > 1)
    shuffled.shuffle(rows)
    assert build(document([], rows, records)) == model


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (
            Filters(),
            {"a_prod@chi-1", "a_prod@nyc-1", "a_stage@chi-2", "b_prod@nyc-1", "chi-1", "chi-2", "nyc-1", "nyc-9"},
        ),
        (Filters(environments=("stage",)), {"a_stage@chi-2", "chi-2"}),
        (Filters(datacenters=("nyc",)), {"a_prod@nyc-1", "b_prod@nyc-1", "nyc-1", "nyc-9"}),
        (Filters(herds=("a",)), {"a_prod@chi-1", "a_prod@nyc-1", "a_stage@chi-2", "chi-1", "nyc-1", "chi-2"}),
        (Filters(herds=("a_stage",)), {"a_stage@chi-2", "chi-2"}),
        (Filters(roles=("primary",)), {"a_prod@chi-1", "a_stage@chi-2", "b_prod@nyc-1", "chi-1", "chi-2", "nyc-1"}),
        (Filters(versions=("16",)), {"b_prod@nyc-1", "nyc-1"}),
        (Filters(versions=("15.1",)), set()),
        (Filters(versions=("15.18",), roles=("replica",)), {"a_prod@nyc-1", "nyc-1"}),
        (Filters(online=False), {"a_prod@nyc-1", "nyc-1"}),
        (Filters(online=True), {"a_prod@chi-1", "b_prod@nyc-1", "chi-1", "nyc-1"}),
        (Filters(version_below="16.10", online=True), {"a_prod@chi-1", "b_prod@nyc-1", "chi-1", "nyc-1"}),
        (Filters(version_below="16"), {"a_prod@chi-1", "a_prod@nyc-1", "a_stage@chi-2", "chi-1", "chi-2", "nyc-1"}),
        (Filters(lag_above=4095), {"a_prod@nyc-1", "nyc-1"}),
        (Filters(without_dr_pair=True), {"a_stage@chi-2", "chi-2", "b_prod@nyc-1", "nyc-1"}),
        # Its other member is filtered out, and still its DR pair.
        (Filters(without_dr_pair=True, datacenters=("nyc",)), {"b_prod@nyc-1", "nyc-1"}),
        (Filters(unassigned=True), {"nyc-9"}),
    ],
)
def test_filters(filters: Filters, names: set[str]) -> None:
    model = build(
        document(
            [server("chi-1"), server("chi-2", "stage"), server("nyc-1"), server("nyc-9")],
            [
                instance("a", "chi-1", "primary"),
                instance("a", "nyc-1", is_online=False, lag_bytes=4096),
                instance("a", "chi-2", "primary", "stage", is_online=None),
                instance("b", "nyc-1", "primary", version="16.2", port=5433),
            ],
        ),
        filters,
    )
    assert set(model.hosts) == names


def test_what_nobody_has_given_a_place() -> None:
    servers = [
        server("new", "unassigned"), server("lost", datacenter=None), server("idle"), server("busy"),
    ]  # fmt: skip
    rows = [
        instance("old", "busy", "primary", "unassigned"),
        instance("trading", "lost", "primary", datacenter=None),
        instance("fine", "busy", "primary", port=5433),
    ]
    model = build(document(servers, rows), Filters(unassigned=True))
    assert set(model.hosts) == {"new", "lost", "idle", "busy", "old_unassigned@busy", "trading_prod@lost"}


def test_a_mistyped_name_in_a_filter_is_warned_about() -> None:
    model = build(trading(), Filters(environments=("prdo",)))
    assert model.hosts == {}
    assert model.warnings == ["Filter environments: 'prdo' is not known. There are: prod."]


def test_a_filter_does_not_change_what_a_herd_is() -> None:
    model = build(trading(), Filters(datacenters=("nyc",)))
    assert len(model.hosts["trading_prod@nyc-db1"]["elephaas_members"]) == 3
    assert model.groups["leads"] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"address": "-oProxyCommand=touch /tmp/owned"},
        {"address": "10.0.0.1 -v"},
        {"address": "host\nname"},
        {"address": "{{ 7*7 }}"},
        {"address": "fe80::1%-x"},
        {"address": 5},
        {"address": "ünïcode"},
        {"address": "a" * 300},
        {"ssh_user": "-l"},
        {"ssh_user": ""},
        {"ssh_user": None},
        {"ssh_user": 'a" -o x'},
        {"ssh_user": "$(id)"},
        {"ssh_port": 0},
        {"ssh_port": True},
        {"ssh_port": "22"},
        {"ssh_port": 65536},
    ],
)
def test_a_row_that_ssh_must_not_see_is_left_out_alone(changes: dict) -> None:
    rows = [instance("trading", "chi-db1", "primary"), instance("trading", "nyc-db1", **changes)]
    model = build(document([], rows))
    assert set(model.hosts) == {"trading_prod@chi-db1"}
    # Who operates on the herd must see that a member is missing.
    assert model.hosts["trading_prod@chi-db1"]["elephaas_members"] == ["trading_prod@chi-db1", "trading_prod@nyc-db1"]
    assert len(model.warnings) == 1
    assert "trading_prod@nyc-db1" in model.warnings[0]


@pytest.mark.parametrize("address", ["10.1.2.3", "2001:db8::1", "fe80::1%eth0", "db-1.example.com", "x_y", None])
def test_good_addresses(address: str | None) -> None:
    assert build(document([server("chi", address=address)])).warnings == []


def test_a_member_whose_server_has_no_name_is_missed() -> None:
    rows = [instance("trading", "chi-db1", "primary"), instance("trading", "nyc-db1") | {"server": "{{ x }}"}]
    model = build(document([], rows))
    assert set(model.hosts) == {"trading_prod@chi-db1"}
    assert [str(name) for name in model.hosts["trading_prod@chi-db1"]["elephaas_members"]] == [
        "trading_prod@chi-db1",
        "trading_prod@{{ x }}",
    ]
    assert len(model.warnings) == 1


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "all", "leads", "dc_x", "trading_prod", "env_prod", ""])
def test_a_server_with_a_name_of_something_else_is_left_out(name: str) -> None:
    rows = [server(name, datacenter=None), server("chi-db1")]
    model = build(document(rows, [instance("trading", "chi-db1", "primary")]))
    assert set(model.hosts) == {"chi-db1", "trading_prod@chi-db1"}
    assert len(model.warnings) == 1


def test_two_herds_with_one_group_are_not_mixed() -> None:
    rows = [instance("a-b", "chi-1", "primary"), instance("a_b", "chi-2", "primary")]
    model = build(document([], rows))
    assert model.groups["a_b_prod"] == ["a-b_prod@chi-1"]
    assert set(model.hosts) == {"a-b_prod@chi-1"}
    assert "a_b" in model.warnings[0]


def test_two_data_centers_with_one_group_are_not_mixed() -> None:
    rows = [server("s1", datacenter="x-y"), server("s2", datacenter="x_y"), server("s3", datacenter="x_y")]
    model = build(document(rows))
    assert model.groups["dc_x_y"] == ["s1"]
    assert len(model.warnings) == 1
    assert set(model.hosts) == {"s1", "s2", "s3"}


@pytest.mark.parametrize(
    "bad", [None, [], {}, {"format": 2}, {"format": 1}, {"format": 1, "servers": {}, "instances": []}]
)
def test_what_is_no_document(bad: object) -> None:
    with pytest.raises(DocumentError):
        build(bad)  # type: ignore[arg-type]


# Every filter that the good herd meets.
WIDE = Filters(
    environments=("prod",), herds=("good", "odd"), roles=("primary", "replica"), versions=("15",), version_below="16",
    online=True,
)  # fmt: skip

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_no_row_takes_the_inventory_away(data: st.DataObject) -> None:
    """Any value in any column of one row: the other herd stays, complete, and the result is JSON."""
    good = [instance("good", "chi-1", "primary"), instance("good", "nyc-1")]
    odd = instance("odd", "lon-1")
    odd.update(data.draw(st.dictionaries(st.sampled_from(sorted(odd)), json_values, max_size=6)))
    odd_server = server("lon-1")
    odd_server.update(data.draw(st.dictionaries(st.sampled_from(sorted(odd_server)), json_values, max_size=3)))
    odd_operation = operation("odd", "open", "lon-1", None)
    odd_operation.update(data.draw(st.dictionaries(st.sampled_from(sorted(odd_operation)), json_values, max_size=3)))
    filters = data.draw(st.sampled_from([Filters(), WIDE]))
    model = build(document([odd_server, server("chi-1")], [odd, *good], [odd_operation]), filters)
    assert {"good_prod@chi-1", "good_prod@nyc-1", "chi-1"} <= set(model.hosts)
    assert "good_prod@chi-1" in model.groups["leads"]
    assert set(STANDARD_GROUPS) <= set(model.groups)
    json.dumps([model.hosts, model.groups, model.group_variables])
    for variables in model.hosts.values():
        assert connection_problem(*(variables[f"ansible_{key}"] for key in ("host", "port", "user"))) is None
