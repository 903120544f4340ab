# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is the matter in a herd, and how it is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.elephaas.herd.plugins.module_utils.decide import status_view, text
from ansible_collections.elephaas.herd.plugins.module_utils.decide.candidate import Wishes
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd, Operation
from ansible_collections.elephaas.herd.plugins.module_utils.decide.plan import plan_failover
from ansible_collections.elephaas.herd.plugins.module_utils.decide.status import herd_status

from .herds import FAR, NEAR, PRIMARY, healthy, member, promoted, stopped, unreachable, with_fact, with_member

MAX_LAG = 1024


def status(herd: Herd, whole: bool = True) -> dict[str, Any]:
    return herd_status(herd, whole, MAX_LAG)


def codes(herd: Herd, whole: bool = True) -> set[str]:
    return {problem["code"] for problem in status(herd, whole)["problems"]}


def test_a_healthy_herd_has_no_problems() -> None:
    shown = status(healthy())
    assert (shown["level"], shown["problems"], shown["primary"]) == ("ok", [], PRIMARY)
    assert [(row["role"], row["state"], row["upstream"]) for row in shown["members"]] == [
        ("primary", "writable", None),
        ("replica", "streaming", PRIMARY),
        ("replica", "streaming", PRIMARY),
    ]


PROBLEMS: dict[str, Callable[[], Herd]] = {
    "SPLIT_BRAIN": lambda: promoted(healthy(), FAR),
    "NO_PRIMARY": lambda: stopped(healthy(), PRIMARY),
    "PRIMARY_MISMATCH": lambda: promoted(stopped(healthy(), PRIMARY), FAR),
    "OPERATION_OPEN": lambda: healthy(operation=Operation("failover", "open", 1)),
    "HERD_ON_HOLD": lambda: healthy(hold_reason="migration"),
    "NO_DR_PAIR": lambda: healthy(members=(member("chi-db1", "primary"), member("chi-db2"))),
    "UNREACHABLE": lambda: unreachable(healthy(), NEAR),
    "WRONG_SERVER": lambda: with_fact(healthy(), NEAR, "another data directory", "identity_problem"),
    "NO_ANSWER": lambda: with_fact(healthy(), NEAR, "timed out", "sql_error"),
    "NOT_RUNNING": lambda: stopped(healthy(), NEAR),
    "OTHER_CLUSTER": lambda: with_fact(healthy(), NEAR, "7", "system_identifier"),
    "NOT_STREAMING": lambda: with_fact(healthy(), NEAR, None, "upstream", "status"),
    "WRONG_UPSTREAM": lambda: with_fact(healthy(), NEAR, "10.20.0.11", "upstream", "host"),
    "REPLAY_PAUSED": lambda: with_fact(healthy(), NEAR, True, "replay_paused"),
    "TIMELINE": lambda: with_fact(healthy(), PRIMARY, 2, "timeline"),
    "PRIMARY_ARMED": lambda: with_fact(healthy(), PRIMARY, ["standby.signal"], "signal_files"),
    "LAG": lambda: with_fact(healthy(), NEAR, "0/4000000", "positions", "replayed"),
}


@pytest.mark.parametrize("code", sorted(PROBLEMS))
def test_a_problem_is_named(code: str) -> None:
    assert code in codes(PROBLEMS[code]())


def test_a_part_of_a_herd_says_nothing_about_the_rest() -> None:
    part = replace(healthy(), members=healthy().members[1:2])
    assert codes(part, whole=False) == set()


def test_problems_come_first_and_everything_is_listed() -> None:
    broken = replace(stopped(healthy(), NEAR), name="zebra_prod")
    lines = status_view.status_lines([status(healthy()), status(broken)])
    assert lines[0] == "problems:" and "NOT_RUNNING" in lines[1]
    rows = [line for line in lines if "chi-db1" in line and "NOT_RUNNING" not in line]
    assert [row[:6] for row in rows[:4:3]] == ["! zebr", "  trad"]
    assert lines[-1] == "2 herds, 6 instances: 1 ok, 0 with warnings, 1 with problems"


@given(st.text(max_size=30))
def test_nothing_read_from_a_host_drives_the_terminal(hostile: str) -> None:
    herd = with_member(healthy(), NEAR, reachable=False, facts=None, error=hostile, datacenter=hostile)
    shown = "\n".join(status_view.status_lines([status(herd)]))
    plan = plan_failover(with_fact(healthy(), PRIMARY, hostile, "identity_problem"), Wishes())
    shown += "\n".join(text.all_plans([plan], "p00000000"))
    assert all(char.isprintable() or char == "\n" for char in shown)
