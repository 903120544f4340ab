# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which operation may act on an instance: the rules, on real files and from several processes at once."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.token import (
    TokenStore,
    check_claim,
    check_token,
    claim,
    release,
    renew,
)


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    return TokenStore(str(tmp_path), "7000", 5432)


def operation(plan: str = "p1") -> dict[str, Any]:
    return {"plan_id": plan, "operator": "ann", "verb": "failover"}


def code_of(function: Callable[[], object]) -> str:
    with pytest.raises(OperatorError) as caught:
        function()
    return caught.value.code


def test_an_open_failover_stands_in_the_way_unless_it_is_known_to_be_over(store: TokenStore) -> None:
    """The copy on a host that was away at the end stays open for ever."""
    claim(store, 5, operation(), 60, "registry", False, write=True)
    restart = {"plan_id": "p2", "operator": "bob", "verb": "restart"}
    assert code_of(lambda: claim(store, 6, {**restart, "over": 4}, 60, "registry", False, True)) == "OPERATION_OPEN"
    new, record = claim(store, 6, {**restart, "over": 5}, 60, "registry", False, write=True)
    assert new
    assert record["last_failover"] is None


def test_a_life(store: TokenStore, tmp_path: Path) -> None:
    assert store.read() is None
    assert code_of(lambda: renew(store, None, write=True)) == "TOKEN_MISSING"
    assert code_of(lambda: renew(store, 1, write=True)) == "TOKEN_MISSING"
    new, record = claim(store, 1, operation(), 60, "registry", False, write=True)
    assert new
    assert record["closed"] is None
    file = tmp_path / ".elephaas" / "7000-5432.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    again, same = claim(store, 1, operation(), 60, "registry", False, write=True)
    assert not again
    assert same["claimed_at"] == record["claimed_at"]
    before = store.read()
    assert before
    assert renew(store, 1, write=True)["lease_until"] >= before["lease_until"]
    assert release(store, 1, "done", write=True)[0]
    assert not release(store, 1, "done", write=True)[0]
    assert code_of(lambda: renew(store, 1, write=True)) == "TOKEN_CLOSED"
    assert code_of(lambda: release(store, 1, "aborted", write=True)) == "TOKEN_CLOSED"
    assert code_of(lambda: claim(store, 1, operation(), 60, "registry", False, write=True)) == "TOKEN_CLOSED"
    assert claim(store, 2, operation(), 60, "host", False, write=True)[0]
    assert code_of(lambda: renew(store, 1, write=True)) == "TOKEN_STALE"
    assert sorted(os.listdir(file.parent)) == ["7000-5432.json", "7000-5432.lock"], "no temporary file stays"


def test_looking_does_not_write(store: TokenStore, tmp_path: Path) -> None:
    assert claim(store, 1, operation(), 60, "registry", False, write=False)[0]
    assert release(store, 1, "done", write=False) == (False, None)
    assert list(tmp_path.iterdir()) == []


RECORDS = st.fixed_dictionaries(
    {
        "token": st.integers(1, 5),
        "operation": st.fixed_dictionaries({"plan_id": st.sampled_from(["p1", "p2"])}),
        "closed": st.sampled_from([None, "done", "aborted"]),
        "lease_until": st.integers(90, 110),
    }
)


@given(RECORDS, st.integers(1, 5), st.sampled_from(["p1", "p2"]), st.sampled_from(["registry", "host"]), st.booleans())
def test_claims(record: dict[str, Any], token: int, plan: str, authority: str, takeover: bool) -> None:
    try:
        again = check_claim(record, token, {"plan_id": plan}, authority, takeover, now=100)
    except OperatorError as error:
        held = authority == "host" and not takeover and record["closed"] is None and record["lease_until"] > 100
        same = token == record["token"] and plan == record["operation"]["plan_id"]
        expected = (
            "TOKEN_CLOSED"
            if same
            else "TOKEN_STALE"
            if token <= record["token"]
            else "OPERATION_HELD"
            if held
            else None
        )
        assert error.code == expected
        assert not same or record["closed"]
        return
    # Granted: never an older token, never one of another plan, never one that was closed.
    assert token >= record["token"]
    assert again == (token == record["token"])
    if again:
        assert plan == record["operation"]["plan_id"]
        assert record["closed"] is None
        check_token(record, token)
    elif authority == "host" and not takeover:
        assert record["closed"] or record["lease_until"] <= 100


def test_of_many_claims_with_one_token_one_plan_wins(store: TokenStore, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError\n"
        "from ansible_collections.elephaas.herd.plugins.module_utils.postgres.token import TokenStore, claim\n"
        "try:\n"
        "    claim(TokenStore(sys.argv[1], '7000', 5432), 1, {'plan_id': sys.argv[2]}, 60, 'host', False, True)\n"
        "    print('won')\n"
        "except OperatorError as error:\n"
        "    print(error.code)\n"
    )
    collections = Path(__file__).resolve().parents[3] / ".build" / "collections"
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), f"p{number}"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(collections)},
        )
        for number in range(6)
    ]
    said = sorted(run.communicate()[0].strip() for run in runs)
    assert said == ["TOKEN_STALE"] * 5 + ["won"]


def test_herds_on_one_host_do_not_stand_in_each_others_way(store: TokenStore, tmp_path: Path) -> None:
    """Two controllers, two herds, one host, the same token: each herd has its own record, told by cluster and port."""
    others = [TokenStore(str(tmp_path), "7001", 5432), TokenStore(str(tmp_path), "7000", 5433)]
    claim(store, 3, operation(), 60, "host", False, write=True)
    for other in others:
        assert claim(other, 3, operation("p2"), 60, "host", False, write=True)[0]
        release(other, 3, "aborted", write=True)
    record = store.read()
    assert record is not None and record["closed"] is None and renew(store, 3, write=True)


def test_a_damaged_record_is_no_permission(store: TokenStore, tmp_path: Path) -> None:
    claim(store, 1, operation(), 60, "registry", False, write=True)
    (tmp_path / ".elephaas" / "7000-5432.json").write_text('{"token": ')
    assert code_of(lambda: renew(store, 1, write=True)) == "STATE_DIRECTORY"
    assert code_of(lambda: claim(store, 9, operation(), 60, "registry", True, write=True)) == "STATE_DIRECTORY"


def test_no_room_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    lost = TokenStore(str(tmp_path / "file"), "7000", 5432)
    assert code_of(lambda: claim(lost, 1, operation(), 60, "registry", False, write=True)) == "STATE_DIRECTORY"
