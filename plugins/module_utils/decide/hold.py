# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A herd on hold: why, by whom, since when; and what putting it on hold or taking that off means. Private.

A I(hold) is {"reason", "by", "since"}, the last two null where nobody knows them; None for a herd that is not on hold.
"""

from __future__ import annotations

from typing import Any, Dict, Iterable, Mapping, Optional

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.words import CONTROL_CHARACTERS

Hold = Dict[str, Optional[str]]

HELD, REPLACED, RELEASED, UNCHANGED, REFUSED = "held", "replaced", "released", "unchanged", "refused"

NEXT_STEP = "Ask who put it on hold; elephaas.herd.release takes the hold off."


def hold_of(reason: str | None, by: str | None, since: str | None) -> Hold | None:
    """A hold from its columns."""
    return {"reason": reason, "by": by, "since": since} if reason else None


def hold_text(hold: Mapping[str, str | None]) -> str:
    """The reason with who and when, as far as that is known: disk is replaced (ada, since 2026-01-31 09:12 UTC)."""
    since = f"since {_minute(hold['since'])}" if hold["since"] else ""
    known = ", ".join(part for part in (hold["by"], since) if part)
    return f"{hold['reason']} ({known})" if known else str(hold["reason"])


def _minute(iso: Any) -> str:
    """ISO 8601 in UTC to the minute, for people."""
    return f"{str(iso)[:16].replace('T', ' ')} UTC"


def checked_reason(reason: str) -> str:
    """The reason as it is kept: on one line, since it is shown in tables. Raises OperatorError HOLD_REASON."""
    text = reason.strip()
    if not text:
        raise OperatorError(
            "HOLD_REASON", "A hold needs a reason: whoever finds it has to know.", "Say -e reason='why nobody may act'."
        )
    if CONTROL_CHARACTERS.search(text):
        raise OperatorError("HOLD_REASON", "The reason of a hold is one line of text.", "Write it on one line.")
    return text


def settle(state: str, now: Hold | None, reason: str, replace: bool) -> str:
    """What becomes of a herd: HELD, REPLACED, RELEASED, UNCHANGED, or REFUSED.

    state: held or released. now: the hold that is there. A second hold is refused unless replace is on: the release of
    one would be the release of both, and the first holder would never hear of it.
    """
    if state == "released":
        return RELEASED if now else UNCHANGED
    if now is None:
        return HELD
    if now["reason"] == reason:
        return UNCHANGED
    return REPLACED if replace else REFUSED


def settled_text(row: dict[str, Any], check_mode: bool) -> str:
    """What became of one herd, or would in check mode, in words.

    row: {"outcome", "hold" and "before": holds, "error": of a herd that is refused, "operation": the open one, if any}.
    """
    would = "would be " if check_mode else ""
    if row["outcome"] == REFUSED:
        return str(row["error"])
    if row["outcome"] == UNCHANGED:
        return f"on hold already: {hold_text(row['hold'])}" if row["hold"] else "not on hold"
    if row["outcome"] == RELEASED:
        return f"{would}released; it was on hold: {hold_text(row['before'])}"
    text = f"{would}on hold: {row['hold']['reason']}"
    if row["before"]:
        text += f"; instead of: {hold_text(row['before'])}"
    if row["operation"]:
        open_one = row["operation"]
        text += (
            f"; a {open_one['verb']} by {open_one['operator']}, begun {_minute(open_one['started'])}, is not finished:"
            " its run goes on, the next one is refused"
        )
    return text


def hold_lines(rows: Iterable[dict[str, Any]]) -> str:
    """One side of a diff: each herd with its reason."""
    return "".join(f"{row['name']}: {row['hold']['reason'] if row['hold'] else '(not on hold)'}\n" for row in rows)
