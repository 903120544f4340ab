# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Operations in the registry: one at a time, by lease and token."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import psycopg2
import pytest

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry import operations
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import connect
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.holder import this_holder
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.inventory import read_inventory
from ansible_collections.elephaas.herd.tests.integration.registry_client import (
    BEFORE,
    FOREIGN,
    KEY,
    OTHER,
    begin,
    dump,
    end_lease,
    finish,
    query,
    refused,
    roles_of,
)
from ansible_collections.elephaas.herd.tests.integration.registry_server import Server


@pytest.mark.parametrize("check_mode", [False, True])
@pytest.mark.parametrize("plan_id", ["p1", "p2"])
def test_a_live_lease_is_refused_by_name_and_time(registry: Any, check_mode: bool, plan_id: str) -> None:
    started = begin(registry)["operation"]["started"]
    error = refused(
        "OPERATION_HELD", lambda: begin(registry, check_mode, operator="bob", plan_id=plan_id, holder=OTHER)
    )
    assert "ann" in error.reason
    assert started in error.reason
    # Another herd is another matter.
    begin(registry, environment="stage", from_server=None, to_server=None)


def test_the_run_that_holds_the_lease_can_ask_again(registry: Any) -> None:
    first, again = begin(registry), begin(registry)
    assert again["resumed"]
    assert again["operation"]["operation_id"] == first["operation"]["operation_id"]
    assert again["operation"]["token"] > first["operation"]["token"]
    refused("OPERATION_HELD", lambda: begin(registry, plan_id="p2"))


def test_a_lease_that_ended_is_taken_over_and_the_old_token_counts_no_more(registry: Any) -> None:
    old = begin(registry)["operation"]
    end_lease(registry)
    taken = begin(registry, operator="bob", plan_id="p2")
    new = taken["operation"]
    assert (taken["resumed"], taken["took_over"]["token"]) == (False, old["token"])
    assert new["token"] > old["token"]
    request = {**KEY, "token": old["token"], "phase": "promoted"}
    refused("OPERATION_CLOSED", lambda: operations.record_phase(registry, "utility", request))
    refused("OPERATION_CLOSED", lambda: finish(registry, old["token"], "done"))
    assert roles_of(registry) == BEFORE
    states = query(registry, "SELECT token, state, finished_dt IS NOT NULL FROM ele_operation ORDER BY operation_id")
    assert states == [(old["token"], "superseded", True), (new["token"], "open", False)]


def test_the_same_plan_is_resumed_and_keeps_its_phases(registry: Any) -> None:
    old = begin(registry)["operation"]
    operations.record_phase(
        registry, "utility", {**KEY, "token": old["token"], "phase": "armed", "detail": {"at": "0/3"}}
    )
    end_lease(registry)
    resumed = begin(registry, operator="bob")
    assert resumed["resumed"]
    assert resumed["operation"]["operation_id"] == old["operation_id"]
    assert [phase["name"] for phase in resumed["operation"]["phases"]] == ["armed", "resumed"]
    refused("TOKEN_STALE", lambda: finish(registry, old["token"], "done"))
    assert "bob" in refused("TOKEN_STALE", lambda: finish(registry, 999, "done")).reason


def test_a_holder_that_died_on_this_host_is_taken_over_at_once(registry: Any) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        begin(registry, holder=this_holder(process.pid))
        refused("OPERATION_HELD", lambda: begin(registry, operator="bob", plan_id="p2"))
    finally:
        process.kill()
        process.wait()
    assert begin(registry, operator="bob", plan_id="p2")["took_over"]["operator"] == "ann"


def test_a_phase_renews_the_lease(registry: Any) -> None:
    operation = begin(registry, lease_s=5)["operation"]
    renewed = operations.record_phase(
        registry, "utility", {**KEY, "token": operation["token"], "phase": "stopped", "lease_s": 600}
    )["operation"]
    assert renewed["lease_until"] > operation["lease_until"]
    assert renewed["lease_live"]


def test_the_token_exceeds_what_the_hosts_hold(registry: Any) -> None:
    assert begin(registry, token_floor=41)["operation"]["token"] == 42
    assert begin(registry)["operation"]["token"] == 43


def test_a_finished_failover_moves_the_roles(registry: Any) -> None:
    token = begin(registry)["operation"]["token"]
    done = finish(registry, token, "done", roles={"nyc-db2": {"role": "replica", "upstream_server": "chi-db1"}})
    after = {"chi-db1": ("replica", "nyc-db1"), "nyc-db1": ("primary", None), "nyc-db2": ("replica", "chi-db1")}
    assert roles_of(registry) == after
    assert {(c["server"], c["field"], c["before"], c["after"]) for c in done["role_changes"]} == {
        ("chi-db1", "role", "primary", "replica"),
        ("chi-db1", "upstream_server", None, "nyc-db1"),
        ("nyc-db1", "role", "replica", "primary"),
        ("nyc-db1", "upstream_server", "chi-db1", None),
        ("nyc-db2", "upstream_server", "nyc-db1", "chi-db1"),
    }
    assert finish(registry, token, "done")["changed"] is False
    refused("OPERATION_CLOSED", lambda: finish(registry, token, "aborted"))
    found = [o for o in read_inventory(registry, "utility")["operations"] if o["herd"] == "trading"]
    assert [(o["state"], o["from_server"], o["to_server"]) for o in found] == [("done", "chi-db1", "nyc-db1")]


@pytest.mark.parametrize(
    "roles",
    [
        {"nowhere": {"role": "replica", "upstream_server": "nyc-db1"}},
        {"nyc-db2": {"role": "leader"}},
        {"nyc-db2": {"role": "replica", "upstream_server": "nowhere"}},
    ],
)
def test_roles_that_can_not_be_leave_everything_as_it_is(registry: Any, roles: dict[str, Any]) -> None:
    token = begin(registry)["operation"]["token"]
    refused("ROLES_INVALID", lambda: finish(registry, token, "done", roles=roles))
    assert roles_of(registry) == BEFORE


def test_two_primaries_are_refused_by_the_registry(registry: Any) -> None:
    token = begin(registry)["operation"]["token"]
    with pytest.raises(psycopg2.IntegrityError):
        finish(registry, token, "done", roles={"nyc-db2": {"role": "primary", "upstream_server": None}})
    assert roles_of(registry) == BEFORE


def test_an_incomplete_operation_stays_open_and_is_resumed_at_once(registry: Any) -> None:
    token = begin(registry)["operation"]["token"]
    finish(registry, token, "incomplete", detail={"left": ["dns"]})
    found = read_inventory(registry, "utility")["operations"]
    assert [(o["state"], o["lease_until"]) for o in found] == [("incomplete", None)]
    assert roles_of(registry) == BEFORE
    resumed = begin(registry, operator="bob", holder={**FOREIGN, "pid": 1})
    assert resumed["resumed"]
    assert resumed["operation"]["state"] == "open"


def test_the_inventory_shows_the_open_operation_and_the_newest_done_failover(registry: Any) -> None:
    finish(registry, begin(registry)["operation"]["token"], "done")
    finish(
        registry,
        begin(registry, from_server="nyc-db1", to_server="chi-db1", plan_id="p2")["operation"]["token"],
        "aborted",
    )
    begin(registry, from_server="nyc-db1", to_server="chi-db1", plan_id="p3")
    found = [(o["plan_id"], o["state"]) for o in read_inventory(registry, "utility")["operations"]]
    assert found == [("p1", "done"), ("p3", "open")]


def test_a_herd_on_hold_or_unknown_is_refused(registry: Any) -> None:
    query(registry, "UPDATE ele_herd SET hold_reason = 'disk is being replaced' WHERE herd_name = 'trading'")
    assert "disk is being" in refused("HERD_ON_HOLD", lambda: begin(registry)).reason
    refused("HERD_UNKNOWN", lambda: begin(registry, herd="nothing"))
    refused("SERVER_NOT_MEMBER", lambda: begin(registry, herd="Order-Book"))


def test_check_mode_of_operations_changes_nothing(server: Server, database: str, registry: Any) -> None:
    before = dump(server, database)
    assert begin(registry, True)["operation"]["token"] == 1
    assert dump(server, database) == before
    token = begin(registry)["operation"]["token"]
    before = dump(server, database)
    operations.record_phase(registry, "utility", {**KEY, "token": token, "phase": "armed"}, check_mode=True)
    assert finish(registry, token, "done", True)["role_changes"]
    assert dump(server, database) == before


def test_of_two_that_begin_at_once_one_wins(server: Server, database: str) -> None:
    outcomes: list[str] = []

    def work(pid: int) -> None:
        connection = connect(server.options(database))
        try:
            begin(connection, plan_id=f"p{pid}", holder={**FOREIGN, "pid": pid})
            outcomes.append("begun")
        except OperatorError as error:
            outcomes.append(error.code)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(pid,)) for pid in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["OPERATION_HELD"] * 4 + ["begun"]
