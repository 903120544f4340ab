# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every check of a planned failover finds what it is there for, and passes what is as near to that as can be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.elephaas.herd.plugins.module_utils.decide.candidate import REQUIREMENTS, Wishes, unfit_reasons
from ansible_collections.elephaas.herd.plugins.module_utils.decide.checks import CHECKS
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd
from ansible_collections.elephaas.herd.plugins.module_utils.decide.plan import plan_failover
from ansible_collections.elephaas.herd.plugins.module_utils.decide.verdict import REFUSE, WARN

from .herds import FAR, NEAR, PRIMARY, healthy, member, stopped, with_fact, with_member
from .pairs import CANDIDATE_PAIRS, PAIRS, Pair, databases, named, on_both, ready, setting, walsenders, with_slots
from .refusals import REFUSALS, Refusal

ROWS = {check.code: check for check in CHECKS}


def plan(herd: Herd, **wishes: Any) -> dict[str, Any]:
    return plan_failover(herd, Wishes(**wishes))


def codes(document: dict[str, Any], level: str | None = None) -> set[str]:
    return {verdict["code"] for verdict in document["verdicts"] if level in (None, verdict["level"])}


def reasons(document: dict[str, Any], code: str) -> list[str]:
    return [f"{verdict['subject']}: {verdict['reason']}" for verdict in document["verdicts"] if verdict["code"] == code]


def test_every_check_has_its_pair_and_every_pair_its_check() -> None:
    assert sorted(pair.code for pair in PAIRS) == sorted(check.code for check in CHECKS)
    primary, replica = healthy().members[:2]
    table = [code for code, _reason in unfit_reasons(primary, replica, primary, Wishes())]
    assert [pair.code for pair in CANDIDATE_PAIRS] == table == list(REQUIREMENTS)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.code)
def test_a_check_finds_and_passes(pair: Pair) -> None:
    found, passed = plan(pair.finds, **pair.wishes), plan(pair.passes, **pair.passing_wishes)
    assert reasons(found, pair.code), "it finds nothing"
    assert all(verdict["reason"] and verdict["subject"] for verdict in found["verdicts"])
    assert pair.code not in codes(passed)
    if ROWS[pair.code].level == WARN:
        # It is shown, and stops nothing; nothing else speaks up for the same reason.
        assert (found["outcome"], codes(found)) == ("go", {pair.code} | pair.beside)


@pytest.mark.parametrize("pair", CANDIDATE_PAIRS, ids=lambda pair: pair.code)
def test_an_unfit_replica_loses_and_the_reason_is_shown(pair: Pair) -> None:
    found, passed = plan(pair.finds, **pair.wishes), plan(pair.passes, **pair.passing_wishes)
    assert found["target"] == NEAR
    (lost,) = [one for one in found["runners_up"] if one["name"] == FAR]
    assert lost["code"] == pair.code
    assert lost["reason"]
    assert passed["target"] == FAR


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.name)
def test_what_must_be_refused_is(case: Refusal) -> None:
    decided = plan(case.herd, **case.wishes)
    assert decided["outcome"] == "refuse"
    assert case.code in codes(decided, REFUSE)


@pytest.mark.parametrize(
    "case", [case for case in REFUSALS if case.code in ROWS and ROWS[case.code].acceptable], ids=lambda case: case.name
)
def test_what_is_acceptable_can_be_accepted(case: Refusal) -> None:
    decided = plan(case.herd, **{**case.wishes, "accept": (case.code,)})
    assert (decided["outcome"], decided["accepted"]) == ("go", [case.code])


@pytest.mark.parametrize(
    "case",
    [case for case in REFUSALS if case.name in ROWS and not ROWS[case.name].acceptable],
    ids=lambda case: case.name,
)
def test_nothing_else_can_be_accepted(case: Refusal) -> None:
    assert plan(case.herd, **{**case.wishes, "accept": tuple(ROWS)})["outcome"] == "refuse"


def without_readiness(herd: Herd) -> Herd:
    members = [replace(one, facts={**one.facts, "readiness": None}) if one.facts else one for one in herd.members]
    return replace(herd, members=tuple(members))


@pytest.mark.parametrize("pair", PAIRS + CANDIDATE_PAIRS, ids=lambda pair: pair.code)
def test_what_was_not_looked_for_refuses_nothing(pair: Pair) -> None:
    for herd, wishes in ((pair.finds, pair.wishes), (pair.passes, pair.passing_wishes)):
        assert codes(plan(without_readiness(herd), **wishes), REFUSE) <= codes(plan(herd, **wishes), REFUSE)


@pytest.mark.parametrize("key", sorted((healthy().members[0].facts or {})["readiness"]))
@pytest.mark.parametrize("name", [PRIMARY, NEAR, FAR])
def test_what_could_not_be_found_out_is_no_finding(key: str, name: str) -> None:
    assert codes(plan(ready(name, None, key))) == set()


def test_every_row_says_why_and_what_to_do() -> None:
    for check in CHECKS:
        assert all((check.title, check.reads, check.why, check.next_step)), check.code
        assert check.level in (REFUSE, WARN), check.code
        # Only a refusal can be accepted; a warning stops nothing.
        assert check.level == REFUSE or not check.acceptable, check.code


# --- what needs more than a pair ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("herd", "refused"),
    [
        (named("*"), False),
        (named("ANY 2 (*)"), False),
        (named("ANY 3 (*)"), True),
        (named("FIRST 1 (nyc)"), True),
        (named("nyc"), True),
        (named('"nyc-db1"'), True),
        (named(""), False),
        (named('"nyc-db1", "chi-db1"'), False),
        (named('"chi-db2"', near="walreceiver"), True),
        (named("walreceiver", near="walreceiver"), False),
        (named('2 ("chi-db1", "chi-db2")'), False),
        (named('2 ("chi-db1", "chi-db2")', near="other"), True),
        # Two of the same name are two.
        (named("ANY 2 (both)", near="both", primary="both"), False),
        # A cascade streams from somebody else, and what is down from nobody.
        (with_member(named('"chi-db2"'), NEAR, upstream="trading_prod@nyc-db2"), True),
        (stopped(named('"chi-db2"'), NEAR), True),
        # What it says it will be called goes before what it would be called otherwise.
        (with_fact(named("mine"), NEAR, "mine", "upstream", "application_name"), False),
        (named("FIRST 1 (nyc"), True),
    ],
)
def test_synchronous_standbys_must_be_there(herd: Herd, refused: bool) -> None:
    assert ("SYNC_STANDBYS" in codes(plan(herd))) == refused


@pytest.mark.parametrize(
    ("senders", "strangers"),
    [
        ([], 0),
        (walsenders(("chi-db2", "chi-db2"), ("nyc-db1", "nyc-db1")), 0),
        (walsenders(("chi-db2", "chi-db2"), ("chi-db2", "chi-db2")), 1),
        (walsenders(("pg_receivewal", "192.0.2.9"), ("subscription", "192.0.2.9")), 2),
        (walsenders(("pg_basebackup", "192.0.2.9"), backup=True), 0),
    ],
)
def test_each_member_accounts_for_one_walsender(senders: list[dict[str, Any]], strangers: int) -> None:
    assert len(reasons(plan(with_fact(healthy(), PRIMARY, senders, "replicas")), "FOREIGN_WALSENDER")) == strangers


def test_a_cascade_has_no_walsender_on_the_primary() -> None:
    herd = healthy(member("nyc-db2", upstream_server="nyc-db1"))
    herd = with_fact(herd, PRIMARY, walsenders(("nyc-db2", "nyc-db2")), "replicas")
    assert len(reasons(plan(herd), "FOREIGN_WALSENDER")) == 1


@pytest.mark.parametrize(
    ("mine", "theirs", "differs"),
    [
        (databases("i", "en-US", "153.120"), databases("i", "en-US", "153.14"), True),
        (databases("i", "en-US", "153.120"), databases("i", "en-US", "153.120"), False),
        (databases("b", "C.UTF-8", "1"), databases("b", "C.UTF-8", "2"), False),
        (databases("c", "C", None), databases("c", "C", None), False),
        # Before version 15 only the C library tells, which is the same here.
        (databases("c", "de_DE.UTF-8", None), databases("c", "de_DE.UTF-8", None), False),
        (databases("c", "de_DE.UTF-8", "2.36"), [], False),
    ],
)
def test_text_is_compared_by_what_orders_it(mine: Any, theirs: Any, differs: bool) -> None:
    herd = ready(PRIMARY, mine, "databases", herd=ready(FAR, theirs, "databases"))
    herd = ready(NEAR, None, "databases", herd=herd)
    assert ("COLLATION_DIFFERS" in codes(plan(herd))) == differs


def test_before_version_15_the_hosts_library_tells() -> None:
    herd = ready(NEAR, None, "databases", herd=on_both(databases("c", "de_DE.UTF-8", None), "databases"))
    assert codes(plan(ready(FAR, "2.28", "glibc", herd=herd))) == {"COLLATION_DIFFERS"}


def test_a_slot_that_is_there_already_takes_no_further_room() -> None:
    herd = with_slots(10, "backup_3")
    assert "SLOTS_FULL" not in codes(plan(herd))


def test_bounds_are_the_operators() -> None:
    herd = ready(PRIMARY, 17, "archive_ready")
    assert codes(plan(herd, max_archive_backlog=17)) == set()
    herd = setting(FAR, "max_wal_senders", 3, healthy(member("nyc-db2", upstream_server="nyc-db1")))
    # The cascade below the candidate has its walsender already.
    herd = with_fact(herd, FAR, walsenders(("nyc-db2", "nyc-db2")), "replicas")
    assert codes(plan(herd)) == set()
    assert codes(plan(setting(FAR, "max_wal_senders", 2, herd))) == {"WALSENDERS_FULL"}


def test_the_way_back_is_told_with_its_next_step() -> None:
    herd = healthy(
        way_back={NEAR: {"code": "UPSTREAM_AUTH", "reason": "no pg_hba.conf entry.", "next_step": "Add it."}}
    )
    assert reasons(plan(herd), "WAY_BACK") == [f"{NEAR}: it cannot stream from {FAR}: no pg_hba.conf entry. Add it."]


def test_what_waits_for_a_restart_is_told_apart() -> None:
    herd = with_fact(with_fact(healthy(), PRIMARY, ["x"], "pending_restart"), NEAR, ["y"], "pending_restart")
    shown = reasons(plan(herd), "PENDING_RESTART")
    assert shown == [
        f"{PRIMARY}: it comes back with other values than now: x",
        f"{NEAR}: it is not restarted, and these wait for it: y",
    ]
