# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was seen, recorded and reconciled."""

from __future__ import annotations

from typing import Any

from ansible_collections.elephaas.herd.plugins.plugin_utils.registry import checkin
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.inventory import read_inventory
from ansible_collections.elephaas.herd.tests.integration.registry_client import (
    BEFORE,
    begin,
    dump,
    end_lease,
    facts,
    of,
    query,
    roles_of,
    saw,
)
from ansible_collections.elephaas.herd.tests.integration.registry_server import Server


def test_a_check_in_records_what_was_seen(server: Server, database: str, registry: Any) -> None:
    seen = [
        saw("chi-db1", facts("primary", lsn="0/5000000")),
        saw("nyc-db1", facts("replica", "10.10.0.11", "0/4000000")),
        saw("nyc-db2", None),
    ]
    before = dump(server, database)
    rehearsed = checkin.check_in(registry, "utility", seen, "me", check_mode=True)
    assert dump(server, database) == before
    done = checkin.check_in(registry, "utility", seen, "me")
    assert done == rehearsed
    assert (done["changed"], done["mismatches"], done["reconciled"]) == (True, [], [])
    found = {i["server"]: i for i in read_inventory(registry, "utility")["instances"] if i["environment"] == "prod"}
    assert [found[s]["is_online"] for s in ("chi-db1", "nyc-db2")] == [True, None]
    assert (found["chi-db1"]["version"], found["chi-db1"]["system_identifier"]) == ("15.18", "7123456789012345678")
    # nyc-db1 has two herds: the dictionary holds one of them, so ask for the right one.
    lag = query(
        registry, f"SELECT lag_bytes, last_seen IS NOT NULL FROM ele_instance WHERE instance_id = {of('nyc-db1')}"
    )
    assert lag == [(0x1000000, True)]
    seen[0] = saw("chi-db1", facts("primary", lsn="0/6000000"))
    assert checkin.check_in(registry, "utility", seen, "me")["changed"] is False  # only positions moved


def test_a_check_in_reconciles_a_failover_that_the_registry_missed(registry: Any) -> None:
    mirrored = {
        "token": 7,
        "closed": "done",
        "operation": {"to": "trading_prod@nyc-db1", "plan_id": "p9", "operator": "zoe"},
    }
    seen = [
        saw("chi-db1", facts("replica", "nyc-db1")),
        saw("nyc-db1", facts("primary", operation=mirrored)),
        saw("nyc-db2", facts("replica", "10.20.0.11")),
    ]
    rehearsed = checkin.check_in(registry, "utility", seen, "me", check_mode=True)
    assert [item["operation_id"] for item in rehearsed["reconciled"]] == [None]
    assert roles_of(registry) == BEFORE
    done = checkin.check_in(registry, "utility", seen, "me")
    assert [(item["from_server"], item["to_server"], item["plan_id"]) for item in done["reconciled"]] == [
        ("chi-db1", "nyc-db1", "p9")
    ]
    assert roles_of(registry) == {
        "chi-db1": ("replica", "nyc-db1"),
        "nyc-db1": ("primary", None),
        "nyc-db2": ("replica", "nyc-db1"),
    }
    row = query(registry, "SELECT verb, state, without_registry, operator, token, plan_id FROM ele_operation")
    assert row == [("failover", "done", True, "zoe", 7, "p9")]
    assert checkin.check_in(registry, "utility", seen, "me")["changed"] is False
    assert begin(registry, from_server="nyc-db1", to_server="chi-db1")["operation"]["token"] == 8


def test_a_live_operation_holds_the_roles_and_its_end_on_the_hosts_closes_it(registry: Any) -> None:
    token = begin(registry)["operation"]["token"]
    mirrored = {"token": token, "closed": "done", "operation": {"to": "trading_prod@nyc-db1", "plan_id": "p1"}}
    seen = [saw("chi-db1", facts("replica", "nyc-db1")), saw("nyc-db1", facts("primary", operation=mirrored))]
    held = checkin.check_in(registry, "utility", seen, "me")
    assert [item["code"] for item in held["mismatches"]] == ["OTHER_PRIMARY"]
    assert "ann" in held["mismatches"][0]["reason"]
    assert roles_of(registry)["chi-db1"][0] == "primary"
    end_lease(registry)
    assert checkin.check_in(registry, "utility", seen, "me")["reconciled"]
    assert roles_of(registry)["nyc-db1"] == ("primary", None)
    assert query(registry, "SELECT state, token FROM ele_operation") == [("done", token)]


def test_one_unknown_herd_or_member_does_not_stop_the_others(registry: Any) -> None:
    seen = [
        saw("chi-db1", facts("primary")),
        saw("elsewhere", facts("primary")),
        {**saw("chi-db1", facts("primary")), "herd": "nothing"},
    ]
    done = checkin.check_in(registry, "utility", seen, "me")
    assert {item["code"] for item in done["mismatches"]} == {"HERD_UNKNOWN", "INSTANCE_UNKNOWN"}
    assert done["changed"]


def test_a_superseded_member_stays_so_until_it_streams_from_its_herd(
    server: Server, database: str, registry: Any
) -> None:
    query(
        registry, f"UPDATE ele_instance SET role = 'superseded', upstream_id = NULL WHERE instance_id = {of('chi-db1')}"
    )
    query(registry, f"UPDATE ele_instance SET role = 'primary', upstream_id = NULL WHERE instance_id = {of('nyc-db1')}")
    registry.commit()
    after = roles_of(registry)
    new = facts("primary", timeline=2)
    other = facts("replica", "10.20.0.11")
    for back, code in (
        (facts("primary"), "SPLIT_BRAIN"),
        (facts("replica", "nyc-db1"), None),
        (facts("primary", status="stopped", writable=False), None),
    ):
        seen = [saw("chi-db1", back), saw("nyc-db1", new), saw("nyc-db2", other)]
        done = checkin.check_in(registry, "utility", seen, "me")
        assert [item["code"] for item in done["mismatches"]] == ([code] if code else [])
        assert roles_of(registry) == after
    done = checkin.check_in(registry, "utility", [saw("chi-db1", facts("primary")), saw("nyc-db1", None)], "me")
    assert [item["code"] for item in done["mismatches"]] == ["SUPERSEDED"]
    assert roles_of(registry) == after

    streams = {"host": "10.20.0.11", "port": 5432, "status": "streaming", "receiver_timeline": 2}
    seen = [saw("chi-db1", {**facts("replica"), "upstream": streams}), saw("nyc-db1", new), saw("nyc-db2", other)]
    before = dump(server, database)
    rehearsed = checkin.check_in(registry, "utility", seen, "me", check_mode=True)
    assert dump(server, database) == before
    done = checkin.check_in(registry, "utility", seen, "me")
    assert done["differences"] == rehearsed["differences"]
    assert {"instance": "trading_prod@chi-db1", "field": "role", "before": "superseded", "after": "replica"} in done[
        "differences"
    ]
    assert roles_of(registry) == {**after, "chi-db1": ("replica", "nyc-db1")}
    assert query(registry, "SELECT count(*) FROM ele_operation") == [(0,)], "nobody has failed over"
    assert checkin.check_in(registry, "utility", seen, "me")["changed"] is False
