# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of an operation that a member's host mirrors: what it keeps of the one before. Private to the collection."""

from __future__ import annotations

from typing import Any, Iterable


def is_failover(record: dict[str, Any] | None) -> bool:
    """Whether this is the record of a failover."""
    return bool(record) and (record.get("operation") or {}).get("verb") == "failover"  # type: ignore[union-attr]


def kept_failover(replaced: dict[str, Any] | None) -> dict[str, Any] | None:
    """What a new record has to keep of the one that it replaces: the last failover, which it may be the only one to know.

    A restart after a failover that the registry has not heard of would otherwise wipe out the proof of it.
    """
    # One that was not closed was superseded: kept, it would look as if it had begun once more.
    if is_failover(replaced) and (replaced or {}).get("closed"):
        return {key: value for key, value in (replaced or {}).items() if key != "last_failover"}
    return (replaced or {}).get("last_failover")


def records_of(record: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The record itself, and the failover that it keeps."""
    if not record:
        return []
    kept = record.get("last_failover")
    return [record, kept] if kept else [record]


def moved_away(record: dict[str, Any] | None, own_names: Iterable[str]) -> dict[str, Any] | None:
    """The newest failover that is done, by a host's record, if it took the primary away from that host; else None.

    own_names: what the host calls itself. An instance does not know its name in the inventory; where the host goes by
    another name than its record there, this tells nothing.
    """
    done = [one for one in records_of(record) if is_failover(one) and one.get("closed") == "done"]
    newest = max(done, key=lambda one: int(one["token"]), default=None)
    if newest is None:
        return None
    names = {name.lower() for name in own_names if name}
    source, target = (str(newest["operation"].get(key) or "").rpartition("@")[2].lower() for key in ("from", "to"))
    return newest if source in names and target not in names else None
