# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One record added, changed, renamed or removed: what that means for the fleet."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.elephaas.herd.plugins.module_utils.decide import fleet as fleets
from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.fleet_change import difference, in_use, records
from ansible_collections.elephaas.herd.plugins.module_utils.decide.record import (
    Decision,
    Wish,
    decide,
    renamed_herds,
)
from ansible_collections.elephaas.herd.tests.unit.registry.documents import document, documents

HERD = ("herd", "prod", "Order-Book")


def member(server: str) -> tuple[str, ...]:
    return ("instance", *HERD[1:], server)


@pytest.fixture(name="fleet")
def fixture_fleet() -> fleets.Fleet:
    """chi-db1 is the primary, chi-db2 streams from it, far-db1 from chi-db2."""
    return fleets.parse_fleet(document())


def have(fleet: fleets.Fleet, *key: str, new: tuple[str, ...] | None = None, **values: Any) -> Decision:
    return decide(fleet, Wish(key, values, (key[0], *new) if new else None))


def remove(fleet: fleets.Fleet, *key: str) -> Decision:
    return decide(fleet, Wish(key, present=False))


def refused(code: str, fleet: fleets.Fleet, *key: str, new: tuple[str, ...] | None = None, **values: Any) -> str:
    with pytest.raises(OperatorError) as caught:
        have(fleet, *key, new=new, **values)
    assert caught.value.code == code, caught.value.as_result()
    return f"{caught.value.reason} {caught.value.next_step}"


# -- present -----------------------------------------------------------------------------------------------------------


def test_only_what_is_given_changes(fleet: fleets.Fleet) -> None:
    found = have(fleet, "server", "chi-db1", ssh_port="2222")
    assert [(c["before"], c["after"]) for c in found.changes] == [({"ssh_port": 22}, {"ssh_port": 2222})]
    assert have(found.target, "server", "chi-db1", ssh_port=2222).changes == []


def test_an_empty_text_clears_what_may_be_nothing(fleet: fleets.Fleet) -> None:
    named = have(fleet, *HERD, vhost="db.example.com", base_name="other").target
    cleared = have(named, *HERD, vhost="", base_name="")
    assert cleared.after is not None
    assert (cleared.after["vhost"], cleared.after["base_name"]) == (None, "order-book")
    assert "pgdata" in refused("RECORD_INVALID", fleet, *HERD, pgdata="")


def test_a_new_record_gets_the_defaults_of_a_fleet_file(fleet: fleets.Fleet) -> None:
    herd = have(fleet, "herd", "stage", "New", pgdata="/srv/new", port=5500)
    for server in ("chi-db1", "chi-db2"):
        herd = have(herd.target, "instance", "stage", "New", server)
    written = document()
    written["herds"].append(
        {
            "name": "New",
            "environment": "stage",
            "pgdata": "/srv/new",
            "port": 5500,
            "members": [{"server": "chi-db1"}, {"server": "chi-db2"}],
        }
    )
    assert herd.target == fleets.parse_fleet(written)


def test_a_server_belongs_where_its_address_lies(fleet: fleets.Fleet) -> None:
    new = have(fleet, "server", "new", environment="prod", address="10.10.9.1")
    assert new.after is not None
    assert new.after["datacenter"] == "annex"
    moved = have(new.target, "server", "new", address="10.10.0.1")
    assert moved.changes[0]["after"] == {"address": "10.10.0.1", "datacenter": "chicago"}
    # Given by hand, and no network says otherwise.
    assert have(fleet, "server", "far-db1", address="192.0.2.1").changes[0]["after"] == {"address": "192.0.2.1"}
    assert have(fleet, "server", "far-db1", datacenter="").changes[0]["after"] == {"datacenter": None}


def test_servers_follow_their_networks(fleet: fleets.Fleet) -> None:
    found = have(fleet, "datacenter", "new", networks=["10.10.0.11/32"])
    assert found.affected == ["server chi-db1: datacenter chicago becomes new"]
    assert have(fleet, "datacenter", "chicago", networks=[]).affected == [
        "server chi-db1: datacenter chicago becomes none"
    ]


def test_members_move_with_their_herd_unless_they_have_a_place_of_their_own(fleet: fleets.Fleet) -> None:
    own = have(fleet, *member("chi-db2"), port=5600).target
    found = have(own, *HERD, port=5433)
    assert {m["server"]: m["port"] for m in found.target["herds"][0]["members"]} == {
        "chi-db1": 5433,
        "chi-db2": 5600,
        "far-db1": 5433,
    }
    assert len(found.affected) == 2
    assert have(own, *member("chi-db2"), pgdata="").changes == []


def test_an_upstream_follows_from_a_new_role(fleet: fleets.Fleet) -> None:
    away = have(fleet, *member("far-db1"), role="detached")
    assert away.changes[0]["after"] == {"role": "detached", "upstream": None}
    back = have(away.target, *member("far-db1"), role="replica")
    assert back.changes[0]["after"] == {"role": "replica", "upstream": "chi-db1"}


@pytest.mark.parametrize(
    ("code", "key", "values", "said"),
    [
        ("RECORD_INVALID", ("server", "a b"), {}, ("name", "'a b'", "letters")),
        ("RECORD_INVALID", ("server", "new"), {"ssh_port": 0}, ("ssh_port", "0", "1 to 65535")),
        ("RECORD_INVALID", ("server", "new"), {"address": "-oProxyCommand=x"}, ("address", "-oProxy", "IPv4")),
        ("RECORD_INVALID", ("server", "new"), {}, ("environment", "needs")),
        ("RECORD_INVALID", ("herd", "prod", "new"), {}, ("pgdata", "needs")),
        ("RECORD_INVALID", ("herd", "prod", "new"), {"port": 70000, "vhost": "a b"}, ("2 problems", "db_port: 70000")),
        ("RECORD_INVALID", ("datacenter", "x"), {"networks": ["10.0.0.1/8"]}, ("networks", "host bits")),
        ("RECORD_UNKNOWN", ("server", "new"), {"environment": "prd"}, ("prd", "prod, stage", "registry_environment")),
        ("RECORD_UNKNOWN", ("server", "chi-db1"), {"datacenter": "x"}, ("chicago", "registry_datacenter")),
        ("RECORD_UNKNOWN", ("herd", "prd", "new"), {"pgdata": "/x"}, ("prd", "prod, stage")),
        ("RECORD_UNKNOWN", ("instance", "prod", "x", "chi-db1"), {}, ("x_prod", "Order-Book_prod", "registry_herd")),
        ("RECORD_UNKNOWN", (*member("nowhere"),), {}, ("nowhere", "chi-db1", "registry_server")),
        ("RECORD_CLASH", (*member("chi-db2"),), {"role": "primary"}, ("chi-db1, chi-db2", "elephaas.herd.failover")),
        ("RECORD_CLASH", (*member("chi-db2"),), {"upstream": "far-db1"}, ("chi-db2 would stream from itself",)),
        ("RECORD_CLASH", (*member("chi-db2"),), {"upstream": "nowhere"}, ("'nowhere'", "chi-db1")),
        ("RECORD_CLASH", (*member("chi-db1"),), {"upstream": "chi-db2"}, ("a primary has no upstream",)),
        ("RECORD_CLASH", ("server", "primaries"), {"environment": "prod"}, ("fixed name", "another")),
        ("RECORD_CLASH", ("server", "127.0.0.1"), {"environment": "prod"}, ("fixed name",)),
        ("RECORD_CLASH", ("server", "Order_Book_prod"), {"environment": "prod"}, ("already that of", "rename")),
        ("RECORD_CLASH", ("datacenter", "x"), {"networks": ["10.10.9.0/24"]}, ("10.10.9.0/24", "annex")),
    ],
)
def test_what_is_refused_says_why_and_what_is_allowed(
    fleet: fleets.Fleet, code: str, key: tuple[str, ...], values: dict[str, Any], said: tuple[str, ...]
) -> None:
    words = refused(code, fleet, *key, **values)
    assert [word for word in said if word not in words] == []


@pytest.mark.parametrize("field", ["port", "pgdata"])
def test_a_place_on_a_server_is_one_herds(fleet: fleets.Fleet, field: str) -> None:
    other = {"port": 5500, "pgdata": "/srv/new", field: fleet["herds"][0][field]}
    target = have(fleet, "herd", "prod", "new", **other).target
    assert "Order-Book_prod" in refused("RECORD_CLASH", target, "instance", "prod", "new", "chi-db1")


def test_what_clashed_before_does_not_stop_another_change(fleet: fleets.Fleet) -> None:
    fleet["datacenters"]["twin"] = {"networks": ["10.10.0.0/16"], "description": None}
    assert have(fleet, "environment", "prod", protected=False).changes


def test_a_herd_without_a_recorded_primary_takes_no_guess(fleet: fleets.Fleet) -> None:
    fleet["servers"]["new"] = {**fleet["servers"]["chi-db1"], "address": None}
    headless = have(fleet, *member("chi-db1"), role="detached").target
    assert "detached" in refused("RECORD_INVALID", headless, *member("new"))
    assert have(headless, *member("new"), upstream="chi-db2").changes


# -- renaming ----------------------------------------------------------------------------------------------------------


def test_names_follow(fleet: fleets.Fleet) -> None:
    found = have(fleet, "environment", "prod", new=("live",), protected=False)
    assert [(c["action"], c["name"]) for c in found.changes] == [("rename", "prod"), ("change", "live")]
    assert "herd Order-Book_prod becomes Order-Book_live" in found.affected
    assert "instance Order-Book_prod@chi-db1 becomes Order-Book_live@chi-db1" in found.affected
    assert renamed_herds(fleet, found.changes) == [("prod", "Order-Book")]
    # Done before: the old name is gone, the new one is there.
    assert have(found.target, "environment", "prod", new=("live",), protected=False).changes == []


def test_a_herd_moves_to_another_environment(fleet: fleets.Fleet) -> None:
    found = have(fleet, *HERD, new=("stage", "Book"))
    assert found.key == ("herd", "stage", "Book")
    assert ("instance", "stage", "Book", "chi-db1") in records(found.target)
    assert found.after is not None
    assert found.after["base_name"] == "order-book"
    assert "prod, stage" in refused("RECORD_UNKNOWN", fleet, *HERD, new=("nowhere", "Book"))


def test_a_name_that_is_taken_or_of_nothing_is_refused(fleet: fleets.Fleet) -> None:
    assert "has both" in refused("RECORD_CLASH", fleet, "server", "chi-db1", new=("chi-db2",))
    assert "nothing" in refused("RECORD_UNKNOWN", fleet, "server", "nothing", new=("nowhere",))
    assert "fixed name" in refused("RECORD_CLASH", fleet, "server", "chi-db1", new=("leads",))
    assert "new_name" in refused("RECORD_INVALID", fleet, "server", "chi-db1", new=("a b",))


# -- removing ----------------------------------------------------------------------------------------------------------


def test_what_goes_with_an_environment(fleet: fleets.Fleet) -> None:
    found = remove(fleet, "environment", "prod")
    assert set(found.removed) == {
        "environment prod",
        "server chi-db1", "server chi-db2", "server far-db1",
        "herd Order-Book_prod",
        "instance Order-Book_prod@chi-db1", "instance Order-Book_prod@chi-db2", "instance Order-Book_prod@far-db1",
    }  # fmt: skip
    assert len(found.dependants) == len(found.removed) - 1
    assert remove(found.target, "environment", "prod").changes == []


def test_a_server_takes_the_members_of_any_environment_along(fleet: fleets.Fleet) -> None:
    fleet = have(fleet, "herd", "stage", "guest", port=5500, pgdata="/srv/guest").target
    fleet = have(fleet, "instance", "stage", "guest", "chi-db2").target
    found = remove(fleet, "server", "chi-db2")
    assert set(found.removed) == {
        "server chi-db2", "instance Order-Book_prod@chi-db2", "instance guest_stage@chi-db2",
    }  # fmt: skip
    assert found.affected == ["instance Order-Book_prod@far-db1: upstream chi-db2 becomes none"]
    assert "instance guest_stage@chi-db2" in remove(fleet, "environment", "prod").removed


def test_who_loses_the_primary_is_told(fleet: fleets.Fleet) -> None:
    found = remove(fleet, *member("chi-db1"))
    assert found.affected == [
        "instance Order-Book_prod@chi-db2: upstream chi-db1 becomes none",
        "herd Order-Book_prod: no primary is recorded any more",
    ]


def test_servers_of_a_data_center_that_goes_stay(fleet: fleets.Fleet) -> None:
    found = remove(fleet, "datacenter", "annex")
    assert found.removed == ["datacenter annex"]
    assert set(found.affected) == {
        "server chi-db2: datacenter annex becomes chicago",  # the wider network holds it, too
        "server far-db1: datacenter annex becomes none",
    }


def test_what_is_in_use_is_told(fleet: fleets.Fleet) -> None:
    changes = remove(fleet, "environment", "prod").changes
    assert in_use(changes, set(), set(), set(), {}) == []
    assert in_use(changes, {("prod", "Order-Book", "far-db1")}, set(), set(), {}) == [
        "Order-Book_prod@far-db1 would be removed and is online"
    ]
    assert len(in_use(changes, set(), {("prod", "Order-Book")}, set(), {})) == 4
    moved = have(fleet, *member("far-db1"), role="detached").changes
    assert len(in_use(moved, set(), set(), {("prod", "Order-Book")}, {})) == 1


def test_what_moves_a_held_herd_is_told(fleet: fleets.Fleet) -> None:
    held = {("prod", "Order-Book"): "disk is replaced"}

    def problems(found: Decision) -> list[str]:
        return in_use(found.changes, set(), set(), set(), held)

    gone = problems(remove(fleet, "environment", "prod"))
    assert "Order-Book_prod would be removed and herd Order-Book_prod is on hold: disk is replaced" in gone
    assert len(gone) == 4
    assert len(problems(have(fleet, *member("far-db1"), role="detached"))) == 1
    assert len(problems(have(fleet, "herd", "prod", "Order-Book", vhost="elsewhere.example.com"))) == 1
    # What says nothing of where it is, and other herds, may change.
    assert problems(have(fleet, "herd", "prod", "Order-Book", description="under repair")) == []
    assert problems(have(fleet, *member("far-db1"), priority=3)) == []


# -- any record of any fleet -------------------------------------------------------------------------------------------


@given(documents(), st.data())
def test_a_removal_leaves_nothing_that_refers_to_what_is_gone(wanted: dict[str, Any], data: st.DataObject) -> None:
    fleet = fleets.parse_fleet(wanted)
    key = data.draw(st.sampled_from(sorted(records(fleet))))
    found = remove(fleet, *key)
    target = found.target
    assert key not in records(target)
    assert difference(fleet, target) == found.changes
    assert len(found.removed) == len(records(fleet)) - len(records(target))
    for server in target["servers"].values():
        assert server["environment"] in target["environments"]
        assert server["datacenter"] is None or server["datacenter"] in target["datacenters"]
    for herd in target["herds"]:
        assert herd["environment"] in target["environments"]
        servers = {item["server"] for item in herd["members"]}
        assert servers <= set(target["servers"])
        assert {item["upstream"] for item in herd["members"]} <= {None, *servers}
    assert fleets.clashes(target) == []


@given(documents(), st.data())
def test_a_name_given_and_taken_back_changes_nothing(wanted: dict[str, Any], data: st.DataObject) -> None:
    fleet = fleets.parse_fleet(wanted)
    key = data.draw(st.sampled_from(sorted(key for key in records(fleet) if key[0] != "instance")))
    new = (*key[:-1], "another")
    renamed = decide(fleet, Wish(key, {}, new))
    assert [change["action"] for change in renamed.changes] == ["rename"]
    assert len(records(renamed.target)) == len(records(fleet))
    assert difference(fleet, decide(renamed.target, Wish(new, {}, key)).target) == []


@given(documents())
def test_a_record_as_it_is_changes_nothing(wanted: dict[str, Any]) -> None:
    fleet = fleets.parse_fleet(wanted)
    for key, item in records(fleet).items():
        assert (
            decide(fleet, Wish(key, {name: value for name, value in item.items() if value is not None})).changes == []
        )
