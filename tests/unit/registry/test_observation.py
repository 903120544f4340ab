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


def look(
    operation: dict[str, Any] | None = None,
    last_token: int = 3,
    roles: dict[str, str] | None = None,
    **facts: dict[str, Any] | None,
) -> Verdicts:
    seen = {name: {"server": name, "reachable": item is not None, "facts": item} for name, item in facts.items()}
    recorded = members()
    for name, role in (roles or {}).items():
        recorded[name].update(role=role, upstream_server=None)
    return judge(recorded, operation, last_token, seen)


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


# -- an old primary that comes back ------------------------------------------------------------------------------------

AFTER = {"a": "superseded", "b": "primary"}


def streaming(of: str, timeline: int = 2, status: str | None = "streaming") -> dict[str, Any]:
    upstream = {"host": of, "port": 5432, "status": status, "receiver_timeline": timeline if status else None}
    return {**replica(of), "upstream": upstream, "timeline": timeline}


def on_2() -> dict[str, Any]:
    return {**primary(), "timeline": 2}


def test_a_superseded_member_that_is_writable_beside_the_primary_stays_superseded() -> None:
    verdicts = look(roles=AFTER, a=primary(), b=on_2(), c=streaming("b"))
    assert codes(verdicts) == ["SPLIT_BRAIN"]
    assert (verdicts.reconciliation, verdicts.rejoined) == (None, {})


@pytest.mark.parametrize(
    "successor",
    [
        None,  # not reached
        replica("a"),
        {**replica("a"), "status": "stopped"},
        {**on_2(), "status": "stopped", "writable": False},
    ],
)
def test_a_superseded_member_that_is_writable_alone_is_no_primary_again(successor: dict[str, Any] | None) -> None:
    for roles in (AFTER, {"a": "superseded", "b": "replica"}):
        verdicts = look(roles=roles, a=primary(), b=successor, c=replica("a"))
        assert (verdicts.reconciliation, verdicts.rejoined) == (None, {})
        assert codes(verdicts) == ["SUPERSEDED"]


def test_a_failover_to_it_that_the_hosts_know_makes_it_the_primary_again() -> None:
    """It can only be a candidate once it has followed; the registry has missed both."""
    found = look(roles=AFTER, a={**primary(), "operation": done("a", 9)}, b=replica("a"), c=replica("a")).reconciliation
    assert found is not None and found.roles["a"] == {"role": "primary", "upstream_server": None}


def test_a_superseded_member_is_a_replica_once_it_streams_on_the_primarys_timeline() -> None:
    verdicts = look(roles=AFTER, a=streaming("b"), b=on_2(), c=streaming("b"))
    assert verdicts.rejoined == {"a": {"role": "replica", "upstream_server": "b"}}
    assert verdicts.mismatches == []
    # Below another replica too.
    assert look(roles=AFTER, a=streaming("c"), b=on_2(), c=streaming("b")).rejoined["a"]["upstream_server"] == "c"


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (streaming("b", timeline=1), on_2()),
        (streaming("b", status=None), on_2()),
        (streaming("b", status="waiting"), on_2()),
        (streaming("elsewhere"), on_2()),
        (streaming("b"), primary()),  # the primary does not say on which timeline it is
        (streaming("b"), streaming("c")),  # no primary
        (streaming("b"), None),
        ({"status": "stopped", "writable": False, "role": "replica", "system_identifier": "7"}, on_2()),
    ],
)
def test_a_superseded_member_stays_so_until_then(a: dict[str, Any], b: dict[str, Any] | None) -> None:
    verdicts = look(roles=AFTER, a=a, b=b, c=streaming("b"))
    assert (verdicts.reconciliation, verdicts.rejoined) == (None, {})


def test_a_live_operation_decides_about_a_superseded_member_itself() -> None:
    operation = {"token": 3, "lease_live": True, "operator": "ann"}
    assert look(operation, roles=AFTER, a=streaming("b"), b=on_2(), c=streaming("b")).rejoined == {}


def test_a_superseded_member_that_is_down_does_not_hold_up_the_next_failover() -> None:
    down = {"status": "stopped", "writable": False, "role": "primary", "system_identifier": "7"}
    seen: dict[str, Any] = {"b": streaming("c", 3), "c": {**primary(), "timeline": 3, "operation": done("c", 9)}}
    found = look(roles=AFTER, a=down, **seen).reconciliation
    assert found is not None
    assert "a" not in found.roles
    # And one that follows the newest primary is one of the herd again.
    found = look(roles=AFTER, a=streaming("c", 3), **seen).reconciliation
    assert found is not None and found.roles["a"] == {"role": "replica", "upstream_server": "c"}
    found = look(roles=AFTER, a=streaming("c", 2), **seen).reconciliation
    assert found is not None and "a" not in found.roles
