# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole fleets into the registry and out of it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.elephaas.herd.plugins.module_utils.decide import fleet as fleets
from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry import operations, schema
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import connect
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.fleet import load_fleet
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.inventory import read_inventory
from ansible_collections.elephaas.herd.tests.integration.registry_client import (
    FLEET,
    FOREIGN,
    HOSTILE,
    KEY,
    begin,
    dump,
    finish,
    make_1x,
    of,
    query,
    recorded,
    refused,
)
from ansible_collections.elephaas.herd.tests.integration.registry_server import Server


def by_server(fleet: fleets.Fleet) -> fleets.Fleet:
    fleet = copy.deepcopy(fleet)
    for herd in fleet["herds"]:
        herd["members"].sort(key=lambda member: member["server"])
    fleet["herds"].sort(key=fleets.herd_key)
    return fleet


def test_a_fleet_comes_back_as_it_went_in(registry: Any) -> None:
    wanted = fleets.parse_fleet(FLEET)
    assert recorded(registry) == wanted
    assert fleets.parse_fleet(fleets.fleet_document(recorded(registry))) == wanted
    for mode in ("merged", "overridden"):
        assert load_fleet(registry, "utility", wanted, mode)["changed"] is False


def other_fleet() -> fleets.Fleet:
    other = copy.deepcopy(FLEET)
    trading = other["herds"][0]
    trading["port"] = 5444
    trading["members"] = [
        {"server": "nyc-db2"},
        {"server": "nyc-db1", "port": 5432},
        {"server": "chi-db1", "upstream": "nyc-db1"},
    ]
    del other["herds"][1], other["environments"]["stage"], other["datacenters"]["newyork"]
    other["servers"]["new-db1"] = {"environment": "prod"}
    other["herds"].append(
        {
            "name": "extra",
            "environment": "prod",
            "port": 6000,
            "pgdata": "/srv/stage",
            "members": [{"server": "nyc-db1"}],
        }
    )
    return fleets.parse_fleet(other)


def test_overriding_makes_it_so_and_check_mode_says_the_same(server: Server, database: str, registry: Any) -> None:
    wanted = other_fleet()
    before = dump(server, database)
    rehearsed = load_fleet(registry, "utility", wanted, "overridden", check_mode=True)
    assert dump(server, database) == before
    done = load_fleet(registry, "utility", wanted, "overridden")
    assert rehearsed["changes"] == done["changes"]
    assert set(done["removed"]) == {
        "instance trading_stage@nyc-db1",
        "herd trading_stage",
        "environment stage",
        "datacenter newyork",
    }
    assert by_server(done["after"]) == by_server(wanted)
    assert load_fleet(registry, "utility", wanted, "overridden")["changed"] is False
    # And all the way back.
    load_fleet(registry, "utility", fleets.parse_fleet(FLEET), "overridden")
    assert by_server(recorded(registry)) == by_server(fleets.parse_fleet(FLEET))


def test_merging_adds_and_removes_nothing(registry: Any) -> None:
    part = {
        "environments": {"prod": {"protected": True}},
        "servers": {"lon-db1": {"environment": "prod", "address": "10.20.3.4"}},
        "herds": [
            {"name": "london", "environment": "prod", "pgdata": "/srv/london", "members": [{"server": "lon-db1"}]}
        ],
    }
    done = load_fleet(registry, "utility", fleets.parse_fleet(part), "merged")
    assert (done["removed"], len(done["changes"])) == ([], 3)
    assert done["after"]["servers"]["lon-db1"]["datacenter"] == "newyork"  # a network that only the registry knows
    assert len(done["after"]["herds"]) == 4
    assert load_fleet(registry, "utility", fleets.parse_fleet(part), "merged")["changed"] is False


def test_what_is_in_use_is_not_removed_unless_forced(registry: Any) -> None:
    smaller = copy.deepcopy(FLEET)
    del smaller["herds"][2]
    wanted = fleets.parse_fleet(smaller)
    query(registry, f"UPDATE ele_instance SET is_online = true WHERE instance_id = {of('nyc-db1', 'Order-Book')}")
    error = refused("FLEET_IN_USE", lambda: load_fleet(registry, "utility", wanted, "overridden"))
    assert "Order-Book_prod@nyc-db1" in error.reason
    refused("FLEET_IN_USE", lambda: load_fleet(registry, "utility", wanted, "overridden", check_mode=True))
    query(registry, "UPDATE ele_instance SET is_online = false")
    token = begin(registry, herd="Order-Book", from_server=None, to_server=None)["operation"]["token"]
    refused("FLEET_IN_USE", lambda: load_fleet(registry, "utility", wanted, "overridden"))
    assert load_fleet(registry, "utility", wanted, "overridden", force=True)["changed"]
    # History outlives the herd.
    assert query(registry, "SELECT herd_name, token FROM ele_operation") == [("Order-Book", token)]


def test_a_load_before_the_layout_is_there_can_be_rehearsed(server: Server) -> None:
    wanted = fleets.parse_fleet(FLEET)
    for prepare in (None, make_1x):
        database = server.new_database()
        connection = connect(server.options(database))
        if prepare:
            prepare(connection)
        before = dump(server, database)
        assert load_fleet(connection, "utility", wanted, "merged", check_mode=True)["changed"]
        if prepare is None:
            assert dump(server, database) == before
        assert schema.schema_state(connection, "utility")["pending"]
        with pytest.raises(OperatorError):
            load_fleet(connection, "utility", wanted, "merged")
        connection.close()


def test_hostile_text_stays_text(registry: Any) -> None:
    assert recorded(registry)["herds"][0]["description"] == HOSTILE
    query(registry, "UPDATE ele_herd SET pgdata = '/' || %s WHERE herd_name = 'Order-Book'", HOSTILE)
    found = next(i for i in read_inventory(registry, "utility")["instances"] if i["herd"] == "Order-Book")
    assert found["pgdata"] == "/" + HOSTILE
    detail = {"text": HOSTILE}
    operation = begin(registry, operator=HOSTILE, verb=HOSTILE, plan_id=HOSTILE, plan=detail)["operation"]
    operations.record_phase(
        registry, "utility", {**KEY, "token": operation["token"], "phase": HOSTILE, "detail": detail}
    )
    assert HOSTILE in refused("OPERATION_HELD", lambda: begin(registry, holder=FOREIGN)).reason
    operation = finish(registry, operation["token"], "aborted", detail=detail)["operation"]
    assert (operation["operator"], operation["phases"][0]["name"], operation["detail"]) == (HOSTILE, HOSTILE, detail)
