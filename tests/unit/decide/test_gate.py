# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing acts without somebody having agreed to that very plan."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.elephaas.herd.plugins.module_utils.decide import gate

ID = "p3f09ac12"


def plans(*outcomes: str, protected: bool = False) -> list[dict[str, Any]]:
    return [
        {"herd": f"herd{number}", "outcome": outcome, "protected": protected, "asks": True}
        for number, outcome in enumerate(outcomes)
    ]


@pytest.mark.parametrize(
    ("outcomes", "protected", "confirm", "rehearsal", "can_ask", "action"),
    [
        (["go"], True, ID, False, False, gate.PROCEED),
        (["go", "refuse"], True, ID, False, False, gate.PROCEED),
        (["go"], False, "yes", False, False, gate.PROCEED),
        (["go"], True, "yes", False, False, gate.REFUSED),
        (["go"], True, "p00000000", False, True, gate.REFUSED),
        (["go"], True, "Yes", False, True, gate.REFUSED),
        (["go"], True, "", False, True, gate.ASK),
        (["go"], True, "", False, False, gate.REFUSED),
        (["go"], True, ID, True, True, gate.STOP),
        (["done", "refuse"], True, ID, False, True, gate.STOP),
        ([], True, ID, False, True, gate.STOP),
    ],
)
def test_the_gate(
    outcomes: list[str], protected: bool, confirm: str, rehearsal: bool, can_ask: bool, action: str
) -> None:
    assert gate.answer(plans(*outcomes, protected=protected), ID, confirm, rehearsal, can_ask).action == action


@given(st.text(max_size=12), st.booleans())
def test_only_the_id_or_an_allowed_yes_passes_unasked(confirm: str, protected: bool) -> None:
    passed = gate.answer(plans("go", protected=protected), ID, confirm, False, False).action == gate.PROCEED
    assert passed == (confirm == ID or (confirm == "yes" and not protected))


@given(st.text(max_size=12), st.booleans())
def test_what_a_person_types(reply: str, protected: bool) -> None:
    expected = reply.strip() == ID or (reply.strip() == "yes" and not protected)
    assert gate.agreed(reply, ID, plans("go", protected=protected)) == expected


def test_a_refusal_names_the_id_to_use() -> None:
    for confirm in ("", "yes", "p00000000", "maybe"):
        assert ID in gate.answer(plans("go", protected=True), ID, confirm, False, False).why
