# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings that a standby must have at least as high as its primary, and what they mean for a restart. Private.

PostgreSQL documentation, "Hot Standby", administrator's overview: a standby with a lower value does not start, and one
that meets a raised value of its primary in the WAL pauses its replay (13: shuts down). So where a value is raised the
standbys are restarted first, and where it is lowered the primary is.
"""

from __future__ import annotations

from typing import Iterable, Mapping

STANDBY_SETTINGS = (
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
)

Values = Mapping[str, int]

REPLICAS_FIRST = "replicas first"
PRIMARY_FIRST = "primary first"


def too_low(has: Values, needs: Values) -> list[str]:
    """Each setting that is too low, in words; one that either side does not tell is taken as high enough."""
    return [
        f"{name} is {has[name]}, {needs[name]} is needed"
        for name in STANDBY_SETTINGS
        if name in has and name in needs and has[name] < needs[name]
    ]


def restart_order(
    primary_after: Values | None, restarted: Mapping[str, tuple[Values, Values, Values]], kept: Mapping[str, Values]
) -> tuple[str | None, list[str]]:
    """In which order these members can be restarted: REPLICAS_FIRST, PRIMARY_FIRST, or None and why not.

    primary_after: the primary's values after its restart; None when it is not restarted.
    restarted: replica -> its values now, its values after its restart, and what its upstream's WAL demands of it now.
    kept: replica that is not restarted -> its values.
    """
    problems = []
    for name, values in kept.items():
        problems += _say(name, too_low(values, primary_after or {}), "it is not restarted, and the primary's rises")
    fails_first = {name: too_low(after, demanded) for name, (_now, after, demanded) in restarted.items()}
    if not any(fails_first.values()):
        for name, (_now, after, _demanded) in restarted.items():
            problems += _say(name, too_low(after, primary_after or {}), "the primary's rises above it")
        return (None, problems) if problems else (REPLICAS_FIRST, [])
    if primary_after is None:
        for name, low in fails_first.items():
            problems += _say(name, low, "it would not start until the primary has been restarted with the lower value")
        return None, problems
    for name, (now, after, _demanded) in restarted.items():
        problems += _say(
            name, too_low(now, primary_after), "some values rise and others fall, change them in two turns"
        )
        problems += _say(name, too_low(after, primary_after), "the primary's stays above it")
    return (None, problems) if problems else (PRIMARY_FIRST, [])


def _say(name: str, low: Iterable[str], why: str) -> list[str]:
    return [f"{name}: {text} ({why})" for text in low]
