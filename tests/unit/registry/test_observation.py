# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a check-in decides about a herd."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.observation import Verdicts, judge


def member(role: str, upstream: str | None = None, name: str = "x") -> dict[str, Any]:
    return {
        "role": role,
        "upstream_server": upstream,
        "system_identifier": "7",
        "port": 5432,
        "names": [name],
        "is_online": None,
    }


def members() -> dict[str, dict[str, Any]]:
    return {
        "a": member("primary", name="a"),
        "b": member("replica", "a", "b"),
        "c": member("replica", "b", "c"),
    }


def primary(lsn: str = "0/5000000") -> dict[str, Any]:
    return {
        "status": "running",
        "writable": True,
        "role": "primary",
        "system_identifier": "7",
        "positions": {"current": lsn},
    }


def replica(of: str, lsn: str = "0/4000000") -> dict[str, Any]:
    return {
        "status": "running",
        "writable": False,
        "role": "replica",
        "system_identifier": "7",
        "positions": {"received": lsn, "replayed": lsn},
        "upstream": {"host": of, "port": 5432},
    }


def done(to: str, token: int, closed: str | None = "done") -> dict[str, Any]:
    return {"token": token, "closed": closed, "operation": {"to": f"h_e@{to}", "plan_id": "p1", "operator": "ann"}}


def look(operation: dict[str, Any] | None = None, last_token: int = 3, **facts: dict[str, Any] | None) -> Verdicts:
    seen = {name: {"server": name, "reachable": item is not None, "facts": item} for name, item in facts.items()}
    return judge(members(), operation, last_token, seen)


def codes(verdicts: Verdicts) -> list[str]:
    return [mismatch.code for mismatch in verdicts.mismatches]


def test_a_herd_that_is_as_recorded() -> None:
    verdicts = look(a=primary(), b=replica("a"), c=replica("b"))
    assert (verdicts.mismatches, verdicts.reconciliation) == ([], None)
    assert verdicts.values["a"] == {"is_online": True, "system_identifier": "7", "lsn": "0/5000000", "lag_bytes": 0}
    assert verdicts.values["b"]["lag_bytes"] == 0x1000000


def test_a_failover_without_the_registry_is_reconciled() -> None:
    verdicts = look(a=replica("b"), b=primary(), c=replica("b"))
    found = verdicts.reconciliation
    assert found is not None
    assert (found.from_server, found.to_server, found.record) == ("a", "b", None)
    assert found.roles == {
        "b": {"role": "primary", "upstream_server": None},
        "a": {"role": "replica", "upstream_server": "b"},
        "c": {"role": "replica", "upstream_server": "b"},
    }


def test_a_cascade_through_an_unknown_name_keeps_its_recorded_upstream_unless_that_was_the_old_primary() -> None:
    found = look(a=replica("vhost"), c=replica("vhost"), b=primary()).reconciliation
    assert found is not None
    assert found.roles["c"]["upstream_server"] == "b"
    assert found.roles["a"]["upstream_server"] == "b"


def test_an_old_primary_that_was_not_reached_may_be_alive() -> None:
    verdicts = look(a=None, b=primary(), c=replica("b"))
    assert verdicts.reconciliation is None
    assert codes(verdicts) == ["OTHER_PRIMARY"]


def test_the_hosts_own_record_explains_an_old_primary_that_was_not_reached() -> None:
    found = look(a=None, b={**primary(), "operation": done("b", 9)}, c=replica("b")).reconciliation
    assert found is not None
    assert found.record is not None
    assert (found.record["token"], found.record["plan_id"]) == (9, "p1")
    assert found.roles["a"] == {"role": "superseded", "upstream_server": None}


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (done("b", 3), "no newer than what the registry knows"),
        (done("b", 9, None), "not closed"),
        (done("b", 9, "aborted"), "aborted"),
        (done("c", 9), "about another member"),
    ],
)
def test_a_record_that_explains_nothing(record: dict[str, Any], why: str) -> None:
    verdicts = look(a=None, b={**primary(), "operation": record}, c=replica("b"))
    assert verdicts.reconciliation is None, why


@pytest.mark.parametrize(
    ("live", "record", "moves"),
    [
        (True, None, False),
        (True, done("b", 9), False),
        (False, None, False),
        (False, done("b", 9), True),
        (False, done("b", 3), True),  # the registry's own operation, finished on the hosts only
        (False, done("b", 2), False),
    ],
)
def test_an_open_operation_holds_the_roles(live: bool, record: dict[str, Any] | None, moves: bool) -> None:
    operation = {"token": 3, "lease_live": live, "operator": "ann"}
    verdicts = look(operation=operation, a=replica("b"), b={**primary(), "operation": record}, c=replica("b"))
    assert (verdicts.reconciliation is not None) is moves
    assert codes(verdicts) == ([] if moves else ["OTHER_PRIMARY"])


def test_an_older_failover_to_it_proves_nothing_after_a_newer_one_away_from_it() -> None:
    kept = {"token": 11, "closed": "done", "operation": {"verb": "restart"}, "last_failover": done("b", 9)}
    assert look(a=None, b={**primary(), "operation": kept}, c=replica("b")).reconciliation is not None
    away = {**replica("b"), "operation": done("a", 10)}
    assert look(a=None, b={**primary(), "operation": kept}, c=away).reconciliation is None


def test_two_writable_members_are_never_resolved() -> None:
    verdicts = look(a=primary(), b={**primary(), "operation": done("b", 9)}, c=replica("b"))
    assert verdicts.reconciliation is None
    assert codes(verdicts) == ["SPLIT_BRAIN"]


def test_a_member_that_is_no_replica_yet_stops_it() -> None:
    stopped = {"status": "stopped", "writable": False, "role": "primary", "system_identifier": "7"}
    verdicts = look(a=stopped, b={**primary(), "operation": done("b", 9)}, c=replica("b"))
    assert codes(verdicts) == ["OTHER_PRIMARY"]


def test_no_primary_is_said() -> None:
    assert codes(look(a=replica("b"), b=replica("a"))) == ["NO_PRIMARY"]


def test_another_cluster_on_that_port_is_not_recorded() -> None:
    verdicts = look(a={**primary(), "system_identifier": "8"}, b=replica("a"), c=replica("b"))
    assert codes(verdicts) == ["SYSTEM_IDENTIFIER"]
    assert verdicts.values["a"] == {"is_online": False}


def test_an_instance_that_is_not_itself_is_not_recorded() -> None:
    verdicts = look(a={**primary(), "identity_problem": "another directory"}, b=replica("a"))
    assert codes(verdicts) == ["IDENTITY"]
    assert verdicts.values["a"] == {"is_online": False}


def test_not_reached_is_neither_online_nor_offline() -> None:
    assert look(a=primary(), b=None).values["b"] == {"is_online": None}


def test_a_replica_seen_on_another_upstream_is_recorded_so() -> None:
    verdicts = look(a=primary(), b=replica("a"), c=replica("a"))
    assert verdicts.values["c"]["upstream_server"] == "a"
    assert "upstream_server" not in verdicts.values["b"]
