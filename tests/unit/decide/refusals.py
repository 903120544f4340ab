# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every situation in which a planned failover is refused, for tests of whatever must refuse there too."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.checks import CHECKS
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd
from ansible_collections.elephaas.herd.plugins.module_utils.decide.verdict import REFUSE

from .herds import NEAR, healthy
from .pairs import CANDIDATE_PAIRS, PAIRS


@dataclass(frozen=True)
class Refusal:
    """name: of the situation. code: by which it is refused. wishes: keywords of Wishes."""

    name: str
    herd: Herd
    code: str
    wishes: dict[str, Any] = field(default_factory=dict)


_REFUSING = {check.code for check in CHECKS if check.level == REFUSE}


def _without_near(herd: Herd) -> Herd:
    """The herd with the one replica left of which something is wrong."""
    return replace(herd, members=tuple(one for one in herd.members if one.name != NEAR))


REFUSALS: tuple[Refusal, ...] = (
    *(
        # What was accepted in order to get that far is refused when it was not.
        Refusal(pair.code, pair.finds, pair.code, {key: value for key, value in pair.wishes.items() if key != "accept"})
        for pair in PAIRS
        if pair.code in _REFUSING and pair.code != "APPLY_DELAY"
    ),
    *(
        Refusal(f"NO_CANDIDATE: {pair.code}", _without_near(pair.finds), "NO_CANDIDATE", pair.wishes)
        for pair in CANDIDATE_PAIRS
    ),
    Refusal("CANDIDATE_UNKNOWN", healthy(), "CANDIDATE_UNKNOWN", {"candidate": "elsewhere"}),
)
