# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Herds on hold in the registry: who, why, since when; and what a hold leaves alone."""

from __future__ import annotations

import threading
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.record import Wish
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry import operations
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import connect, transaction
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.fleet import read_fleet
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.holds import settle_holds
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.inventory import read_inventory
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.records import settle_record
from ansible_collections.elephaas.herd.tests.integration.registry_client import (
    HOSTILE,
    KEY,
    begin,
    dump,
    finish,
    query,
    refused,
)
from ansible_collections.elephaas.herd.tests.integration.registry_server import Server

TRADING, BOOK, NOBODY = ("prod", "trading"), ("prod", "Order-Book"), ("prod", "nobody")


def settle(
    registry: Any, state: str, *herds: tuple[str, str], reason: str = "disk", replace: bool = False, **more: Any
) -> list[dict[str, Any]]:
    who = more.pop("operator", "ann")
    return settle_holds(registry, "utility", state, herds, reason, replace, who, {"job_id": "7"}, **more)


def outcomes(rows: list[dict[str, Any]]) -> list[str]:
    return [row["outcome"] for row in rows]


def test_a_hold_says_who_and_why_until_it_is_released(registry: Any, server: Server, database: str) -> None:
    before = dump(server, database)
    rehearsed = settle(registry, "held", TRADING, BOOK, NOBODY, check_mode=True)
    assert dump(server, database) == before
    done = settle(registry, "held", TRADING, BOOK, NOBODY, TRADING)
    assert outcomes(rehearsed) == outcomes(done) == ["held", "held", "refused"]
    assert done[2]["code"] == "HERD_UNKNOWN"
    rows = read_inventory(registry, "utility")["instances"]
    shown = {(row["environment"], row["herd"]): row for row in rows}[TRADING]
    assert (shown["hold_reason"], shown["hold_by"]) == ("disk", "ann")
    assert query(registry, "SELECT now() - hold_since < '1 min' FROM ele_herd WHERE hold_by = 'ann'") == [(True,)] * 2
    assert shown["hold_since"] == done[0]["hold"]["since"]
    error = refused("HERD_ON_HOLD", lambda: begin(registry))
    assert "disk (ann, since 20" in error.reason

    settled = dump(server, database)
    assert outcomes(settle(registry, "held", TRADING, operator="bob")) == ["unchanged"]
    (other,) = settle(registry, "held", TRADING, reason="net", operator="bob")
    assert (other["outcome"], other["code"]) == ("refused", "HERD_ON_HOLD")
    assert "disk (ann" in other["error"]
    assert dump(server, database) == settled
    (replaced,) = settle(registry, "held", TRADING, reason=HOSTILE, replace=True, operator="bob")
    assert (replaced["outcome"], replaced["before"]["reason"]) == ("replaced", "disk")
    released = settle(registry, "released", TRADING, BOOK, operator="eve")
    assert [(row["outcome"], row["before"]["reason"]) for row in released] == [
        ("released", HOSTILE),
        ("released", "disk"),
    ]
    assert outcomes(settle(registry, "released", TRADING)) == ["unchanged"]
    assert query(
        registry, "SELECT count(*) FROM ele_herd WHERE num_nonnulls(hold_reason, hold_by, hold_since) > 0"
    ) == [(0,)]
    with transaction(registry, "utility", keep=False) as cursor:
        history = operations.history(cursor, [], ["trading"], 20)
    assert [(one["verb"], one["operator"], one["state"], one["token"]) for one in history] == [
        ("release", "eve", "done", None),
        ("hold", "bob", "done", None),
        ("hold", "ann", "done", None),
    ]
    assert history[1]["detail"]["before"]["reason"] == "disk"
    assert history[0]["awx"] == {"job_id": "7"}


def test_an_open_operation_goes_on_and_the_next_one_does_not(registry: Any) -> None:
    token = begin(registry)["operation"]["token"]
    (row,) = settle(registry, "held", TRADING)
    assert (row["outcome"], row["operation"]["verb"], row["operation"]["operator"]) == ("held", "failover", "ann")
    operations.record_phase(registry, "utility", {**KEY, "token": token, "phase": "promoted"})
    # Nor does it take a token, or one that a failover without the registry left on the hosts would look old.
    assert query(registry, "SELECT last_token FROM ele_herd WHERE herd_name = 'trading' ORDER BY 1 DESC LIMIT 1") == [
        (token,)
    ]
    finish(registry, token, "incomplete")
    refused("HERD_ON_HOLD", lambda: begin(registry))
    settle(registry, "released", TRADING)
    assert begin(registry)["resumed"]


def test_who_types_the_row_gives_a_name_and_a_time_too(registry: Any) -> None:
    def now() -> tuple[Any, ...]:
        seen = "SELECT hold_reason, hold_by = session_user, hold_since IS NOT NULL FROM ele_herd WHERE herd_name = 'Order-Book'"
        return query(registry, seen)[0]

    query(registry, "UPDATE ele_herd SET hold_reason = 'typed' WHERE herd_name = 'Order-Book'")
    assert now() == ("typed", True, True)
    query(registry, "UPDATE ele_herd SET hold_reason = '  ' WHERE herd_name = 'Order-Book'")
    assert now() == (None, None, False)


def test_the_record_of_a_held_herd_stays_where_it_is(registry: Any) -> None:
    def change(*key: str, force: bool = False, **wish: Any) -> None:
        settle_record(registry, "utility", Wish(key, **wish), cascade=True, force=force)

    settle(registry, "held", BOOK)
    with transaction(registry, "utility", keep=False) as cursor:
        assert ("prod", "Order-Book") not in read_fleet(cursor).live
    herd = ("herd", *BOOK)
    for wish in (
        {"present": False},
        {"values": {"vhost": "elsewhere.example.com"}},
        {"values": {"port": 5499}},
        {"new_key": ("herd", "prod", "Ledger")},
    ):
        error = refused("RECORD_IN_USE", lambda wish=wish: change(*herd, **wish))  # type: ignore[misc]
        assert "on hold: disk" in error.reason
    assert "on hold: disk" in refused("RECORD_IN_USE", lambda: change("server", "nyc-db1", present=False)).reason
    change(*herd, values={"description": "under repair"})
    change("herd", *TRADING, values={"vhost": "elsewhere.example.com"})
    change(*herd, values={"port": 5499}, force=True)


def test_no_operation_begins_while_its_herd_is_being_held(registry: Any, server: Server, database: str) -> None:
    """The hold waits for the lock of a run that is about to begin, and then finds its operation."""
    other = connect(server.options(database))
    rows: list[dict[str, Any]] = []
    try:
        with transaction(registry, "utility") as cursor:
            operations.lock_herd(cursor, "trading", "prod")
            holding = threading.Thread(target=lambda: rows.extend(settle(other, "held", TRADING)))
            holding.start()
            holding.join(0.3)
            assert holding.is_alive()
        holding.join(30)
    finally:
        other.close()
    assert outcomes(rows) == ["held"]
