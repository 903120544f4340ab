# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a herd's DNS name leads to its live primary, and whether it may be made to."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.elephaas.herd.plugins.module_utils.decide.bulk import changed_since
from ansible_collections.elephaas.herd.plugins.module_utils.decide.dns_drift import (
    Request,
    done_text,
    plan_dns,
    request_of,
)
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd, Operation
from ansible_collections.elephaas.herd.plugins.module_utils.decide.plan import plan_id
from ansible_collections.elephaas.herd.plugins.module_utils.decide.text import all_plans
from ansible_collections.elephaas.herd.tests.unit.decide.herds import (
    FAR,
    NEAR,
    PRIMARY,
    SYSTEM_IDENTIFIER,
    claimed,
    dns,
    healthy,
    promoted,
    stopped,
    unreachable,
    with_fact,
    with_member,
)

HERE, THERE = "10.10.0.11", "10.20.0.11"
IDENTIFIERS = dict.fromkeys((PRIMARY, NEAR, FAR), SYSTEM_IDENTIFIER)


def probed(*values: str, **changes: Any) -> dict[str, Any]:
    """The name as its probe returns it, the same on both servers."""
    servers = [{"server": name, "values": list(values), "error": None} for name in ("ns1", "ns2")]
    return {**dns(), "zone": "example.com", "values": list(values), "servers": servers, **changes}


def herd(*values: str, **changes: Any) -> Herd:
    """A healthy herd with its primary HERE, and a name that holds these values (HERE without any)."""
    return healthy(dns=probed(*(values or (HERE,))), **changes)


def decide(found: Herd, identifiers: dict[str, str] | None = None, **request: Any) -> dict[str, Any]:
    return plan_dns(found, Request(**request), IDENTIFIERS if identifiers is None else identifiers)


def codes(plan: dict[str, Any], level: str = "refuse") -> set[str]:
    return {verdict["code"] for verdict in plan["verdicts"] if verdict["level"] == level}


def moved(found: Herd) -> Herd:
    """Somebody promoted FAR by hand, and the old primary is stopped."""
    return stopped(promoted(found, FAR), PRIMARY)


# -- what the name should hold ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "holds", "should_hold"),
    [
        (herd(), [HERE], HERE),
        (healthy(dns=probed("CHI-db1.Example.com.", type="CNAME")), ["CHI-db1.Example.com."], "chi-db1.example.com"),
        # A replica that is stopped, or not streaming, says nothing against the primary.
        (stopped(herd(), NEAR), [HERE], HERE),
        # Nor does a member that left the herd for a diagnosis.
        (with_member(promoted(herd(), FAR), FAR, role="detached"), [HERE], HERE),
        (unreachable(with_member(herd(), FAR, role="detached"), FAR), [HERE], HERE),
    ],
)
def test_a_name_that_leads_there_stays(found: Herd, holds: list[str], should_hold: str) -> None:
    plan = decide(found)
    assert (plan["outcome"], plan["steps"], plan["asks"]) == ("done", [], False)
    assert (plan["dns"]["holds"], plan["dns"]["should_hold"], plan["primary"]) == (holds, should_hold, PRIMARY)


@pytest.mark.parametrize(
    ("found", "to", "primary"),
    [
        (herd(THERE), HERE, PRIMARY),
        (herd(HERE, THERE), HERE, PRIMARY),
        (healthy(dns=probed("nyc-db1.example.com", type="CNAME")), "chi-db1.example.com", PRIMARY),
        # What is on record does not count.
        (moved(herd()), THERE, FAR),
        (moved(healthy(dns=probed("chi-db1.example.com", type="CNAME"))), "nyc-db1.example.com", FAR),
        # The old primary was overtaken, wherever it is now.
        (unreachable(with_member(with_member(promoted(herd(), FAR), PRIMARY, role="superseded"), FAR, role="primary"), PRIMARY), THERE, FAR),
    ],
)  # fmt: skip
def test_a_name_that_leads_elsewhere_changes(found: Herd, to: str, primary: str) -> None:
    plan = decide(found)
    assert (plan["outcome"], plan["asks"], plan["primary"]) == ("go", True, primary), plan["verdicts"]
    assert plan["dns"]["should_hold"] == to
    assert [step["name"] for step in plan["steps"]] == ["trading.example.com"]


def test_a_herd_without_a_name_is_left_alone() -> None:
    plan = decide(unreachable(herd(vhost=None), FAR))
    assert (plan["outcome"], plan["dns"], plan["verdicts"]) == ("done", None, [])


def test_who_is_not_on_record_as_primary_is_pointed_out() -> None:
    assert codes(decide(moved(herd())), "warn") == {"PRIMARY_MISMATCH"}
    assert codes(decide(with_member(moved(herd()), FAR, role="primary")), "warn") == set()


# -- the TTL -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "ttl", "outcome", "retimes", "moves"),
    [
        (herd(), None, "done", False, False),
        (herd(), 30, "done", False, False),
        (herd(), 5, "go", True, False),
        (herd(), 0, "go", True, False),
        (herd(THERE), 5, "go", True, True),
        (herd(THERE), 30, "go", False, True),
    ],
)
def test_a_ttl_is_set_where_it_differs(found: Herd, ttl: int | None, outcome: str, retimes: bool, moves: bool) -> None:
    plan = decide(found, ttl=ttl)
    assert (plan["outcome"], plan["dns"]["retimes"], plan["dns"]["moves"]) == (outcome, retimes, moves)
    assert plan["dns"]["ttl_to"] == (ttl if retimes else 30)


def test_when_it_counts_is_told() -> None:
    both = {**decide(herd(THERE), ttl=5)["dns"]}
    assert done_text(both, 1.5) == [
        "10.20.0.11 -> 10.10.0.11; resolvers may answer the old value until 1970-01-01 00:00:31 UTC",
        "TTL 30 s -> 5 s, in effect everywhere from 1970-01-01 00:00:31 UTC on",
    ]
    assert done_text(decide(herd())["dns"], 1.5) == []


# -- refusals ----------------------------------------------------------------------------------------------------------

_RUNNING = Operation("failover", "open", 9, "p00000001", PRIMARY, FAR, "ada")
REFUSED: dict[str, tuple[str, Callable[[], Herd]]] = {
    "two": ("SPLIT_BRAIN", lambda: promoted(herd(), FAR)),
    "two, one superseded": ("SPLIT_BRAIN", lambda: with_member(promoted(herd(), FAR), PRIMARY, role="superseded")),
    "none": ("NO_PRIMARY", lambda: stopped(herd(), PRIMARY)),
    "none that can be seen": ("NO_PRIMARY", lambda: unreachable(herd(), PRIMARY)),
    "the old one is back": ("SUPERSEDED", lambda: with_member(herd(), PRIMARY, role="superseded")),
    "a newer timeline": ("TIMELINE", lambda: with_fact(herd(), NEAR, 2, "timeline")),
    "a newer timeline, stopped": ("TIMELINE", lambda: with_fact(stopped(herd(), NEAR), NEAR, 2, "timeline")),
    "an unknown timeline": ("TIMELINE", lambda: with_fact(herd(), PRIMARY, None, "timeline")),
    "another database": ("OTHER_CLUSTER", lambda: with_fact(herd(), PRIMARY, "1", "system_identifier")),
    "no identifier": ("OTHER_CLUSTER", lambda: with_fact(herd(), PRIMARY, None, "system_identifier")),
    "a replica of another": ("OTHER_CLUSTER", lambda: with_fact(herd(), NEAR, "1", "system_identifier")),
    "another server": ("WRONG_SERVER", lambda: with_fact(herd(), PRIMARY, "port 5433 answers", "identity_problem")),
    "no answer": ("NO_ANSWER", lambda: with_fact(herd(), PRIMARY, "timeout", "sql_error")),
    "one that comes up": (
        "SECOND_PRIMARY",
        lambda: with_fact(with_fact(herd(), FAR, "primary", "role"), FAR, "starting", "status"),
    ),
    "unseen": ("MEMBER_UNREACHABLE", lambda: unreachable(herd(), FAR)),
    "not in the inventory": ("HERD_INCOMPLETE", lambda: herd(missing=("trading_prod@x",))),
    "on hold": ("HERD_ON_HOLD", lambda: herd(hold_reason="migration")),
    "failover on record": ("OPERATION_OPEN", lambda: herd(operation=_RUNNING)),
    "failover on a host": ("OPERATION_OPEN", lambda: claimed(herd(), (PRIMARY, FAR))),
    "held": ("OPERATION_HELD", lambda: herd(held="ada is running restart")),
    "no registry": ("REGISTRY_LOST", lambda: herd(registry_error="connection refused")),
    "no DNS": ("DNS_REFUSED", lambda: healthy(dns=None)),
    "silent DNS": (
        "DNS_REFUSED",
        lambda: healthy(dns={"error": "DNS_UNREACHABLE", "reason": "no answer", "values": [], "type": None}),
    ),
    "no record": ("DNS_RECORD_ABSENT", lambda: healthy(dns=probed(type=None, ttl=None, error="DNS_VALUE_INVALID"))),
    "several types": (
        "DNS_REFUSED",
        lambda: healthy(dns=probed(HERE, "::1", type="A+AAAA", error="DNS_RECORD_MIXED", reason="several types")),
    ),
    "the key": ("DNS_REFUSED", lambda: healthy(dns=probed(THERE, error="DNS_KEY_REFUSED", reason="BADKEY"))),
    "no name": (
        "DNS_NO_TARGET",
        lambda: with_member(healthy(dns=probed("x.example.com", type="CNAME")), PRIMARY, dns_name=None),
    ),
    "no such address": ("DNS_NO_TARGET", lambda: healthy(dns=probed("2001:db8::1", type="AAAA"))),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str) -> None:
    code, found = REFUSED[case]
    # Whether or not the name would have to be changed.
    for values in ((), (THERE,)):
        start = found()
        if values and start.dns is not None and start.dns.get("type") == "A" and not start.dns.get("error"):
            start = replace(start, dns=probed(*values))
        plan = decide(start)
        assert plan["outcome"] == "refuse"
        assert code in codes(plan), plan["verdicts"]
        assert plan["decisions"]["outcome"] == "refuse"
        assert code in plan["decisions"]["refused"]
        # Nothing but what says so can be accepted.
        again = decide(start, accept=(code,))
        accepted = code == "MEMBER_UNREACHABLE"
        assert (code in codes(again)) != accepted


def test_only_an_unseen_member_can_be_accepted() -> None:
    plan = decide(unreachable(herd(THERE), FAR), accept=("MEMBER_UNREACHABLE",))
    assert (plan["outcome"], plan["decisions"]["accepted"]) == ("go", ["MEMBER_UNREACHABLE"])
    # Accepted or not, somebody has to take writes.
    none = decide(unreachable(stopped(herd(THERE), PRIMARY), FAR), accept=("MEMBER_UNREACHABLE", "NO_PRIMARY"))
    assert codes(none) == {"NO_PRIMARY"}


def test_a_key_that_is_refused_matters_where_something_is_to_be_changed() -> None:
    assert decide(healthy(dns=probed(HERE, error="DNS_KEY_REFUSED", reason="BADKEY")))["outcome"] == "done"
    assert decide(healthy(dns=probed(HERE, error="DNS_KEY_REFUSED", reason="BADKEY")), ttl=5)["outcome"] == "refuse"


def test_a_record_without_identifiers_takes_the_word_of_the_herd() -> None:
    assert decide(herd(THERE), identifiers={PRIMARY: ""})["outcome"] == "go"
    assert codes(decide(herd(THERE), identifiers={PRIMARY: "1"})) == {"OTHER_CLUSTER"}


def test_a_failover_that_is_over_is_no_obstacle() -> None:
    over = claimed(moved(herd()), (FAR,), token=4, closed="done")
    assert decide(over)["outcome"] == "go"


def test_without_the_registry_the_hosts_tell_who_acts() -> None:
    busy = claimed(herd(THERE), (FAR,))
    members = []
    for member in busy.members:
        facts = copy.deepcopy(member.facts)
        if facts and facts["operation"]:
            facts["operation"]["lease_until"] = 100.0
            facts["operation"]["operation"]["verb"] = "restart"
        members.append(replace(member, facts=facts))
    busy = replace(busy, members=tuple(members), now=40.0)
    plan = decide(busy, without_registry=True)
    assert codes(plan) == {"OPERATION_HELD"}
    assert "another 1 min" in plan["verdicts"][0]["reason"]
    assert decide(replace(busy, now=101.0), without_registry=True)["outcome"] == "go"
    # With the registry, its lease tells.
    assert decide(busy)["outcome"] == "go"


# -- single name servers -----------------------------------------------------------------------------------------------


def test_a_server_that_lags_behind() -> None:
    apart = [{"server": "ns1", "values": [HERE], "error": None}, {"server": "ns2", "values": [THERE], "error": None}]
    # Our update would change nothing: somebody has to look at the zone transfer.
    assert codes(decide(healthy(dns=probed(HERE, servers=apart)))) == {"DNS_SERVERS_DIFFER"}
    # Otherwise it starts one.
    ahead = decide(healthy(dns=probed(THERE, servers=apart)))
    assert (ahead["outcome"], codes(ahead, "warn")) == ("go", {"DNS_SERVERS_DIFFER"})
    assert decide(healthy(dns=probed(HERE, servers=apart)), ttl=5)["outcome"] == "go"


def test_a_server_that_is_down_is_told() -> None:
    down = [
        {"server": "ns1", "values": [HERE], "error": None},
        {"server": "ns2", "values": [], "error": "DNS_UNREACHABLE"},
    ]
    plan = decide(healthy(dns=probed(HERE, servers=down)))
    assert (plan["outcome"], codes(plan, "warn")) == ("done", {"DNS_SILENT"})


# -- what is agreed to -------------------------------------------------------------------------------------------------


def test_the_plan_id_covers_what_is_done_and_nothing_else() -> None:
    first = decide(herd(THERE))
    assert plan_id([first]) == plan_id([decide(with_fact(herd(THERE), PRIMARY, "0/9", "positions", "current"))])
    assert plan_id([first]) == plan_id([decide(healthy(dns=probed(THERE, ttl=77)))])
    others = [
        decide(herd(HERE)),
        decide(herd("10.9.9.9")),
        decide(moved(herd("10.9.9.9"))),
        decide(herd(THERE), ttl=5),
        decide(herd(THERE), ttl=6),
        decide(unreachable(herd(THERE), FAR)),
        decide(unreachable(herd(THERE), FAR), accept=("MEMBER_UNREACHABLE",)),
        decide(herd(THERE, vhost="other.example.com")),
    ]
    assert len({plan_id([plan]) for plan in [first, *others]}) == 9


def test_a_second_look_finds_what_has_changed() -> None:
    agreed = decide(herd(THERE), ttl=5)
    assert request_of(agreed) == Request(ttl=5)
    assert changed_since(agreed, decide(herd(THERE), ttl=5)) == []
    assert changed_since(agreed, decide(moved(herd(THERE)), ttl=5))
    assert changed_since(agreed, decide(herd(HERE), ttl=5))
    assert changed_since(agreed, decide(claimed(herd(THERE), (PRIMARY, FAR)), ttl=5))


def test_the_drift_is_one_table() -> None:
    plans = [
        decide(replace(herd(THERE), name="a_prod"), ttl=3600),
        decide(replace(promoted(herd(), FAR), name="b_prod")),
        decide(replace(herd(), name="c_prod")),
        decide(replace(herd(vhost=None), name="d_prod")),
    ]
    lines = all_plans(plans, "p12345678")
    assert [line.split()[:2] for line in lines[:5]] == [
        ["HERD", "VHOST"],
        ["b_prod", "REFUSED"],
        ["a_prod", "changes"],
        ["c_prod", "stays"],
        ["d_prod", "stays"],
    ]
    assert lines[2].split() == ("a_prod changes trading.example.com A 10.20.0.11 10.10.0.11 30 -> 3600 s agree".split())
    text = "\n".join(lines)
    assert "the new TTL is in effect everywhere 30 s after the change" in text
    assert "REFUSE SPLIT_BRAIN b_prod: 2 members accept writes" in text
    assert lines[-1] == "plan id: p12345678"
