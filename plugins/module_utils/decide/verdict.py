# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The outcome of one check on facts. Private to the collection."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Iterable

OK = "ok"
WARN = "warn"
REFUSE = "refuse"

_SEVERITY = {OK: 0, WARN: 1, REFUSE: 2}


@dataclass(frozen=True)
class Verdict:
    """One check, one subject, one reason that a person can act on.

    code: stable, UPPER_SNAKE.
    level: ok, warn or refuse.
    subject: the herd, instance or record that it is about.
    reason: what is so, in one sentence.
    next_step: what to do about it.
    acceptable: an operator may accept a refusal of this code (it then becomes a warning, and is part of the plan id).
    """

    code: str
    level: str
    subject: str
    reason: str
    next_step: str = ""
    acceptable: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain data for results and JSON."""
        return asdict(self)


def accept(verdicts: Iterable[Verdict], codes: Iterable[str]) -> list[Verdict]:
    """Turn acceptable refusals whose code was accepted by the operator into warnings that say so."""
    accepted = set(codes)
    return [
        replace(verdict, level=WARN, reason=f"accepted: {verdict.reason}")
        if verdict.level == REFUSE and verdict.acceptable and verdict.code in accepted
        else verdict
        for verdict in verdicts
    ]


def worst(verdicts: Iterable[Verdict]) -> str:
    """The most severe level among the verdicts; ok when there are none."""
    return max((verdict.level for verdict in verdicts), key=_SEVERITY.__getitem__, default=OK)


def most_severe_first(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """For people: refusals, then warnings, then the rest; otherwise in the order given."""
    return sorted(verdicts, key=lambda verdict: -_SEVERITY[verdict.level])
