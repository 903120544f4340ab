# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the primary is in the midst of, and what of it a failover delays, ends or leaves behind. Private to the collection."""

from __future__ import annotations

from typing import Any, Iterator

from ansible_collections.elephaas.herd.plugins.module_utils.decide.findings import Finding, Situation
from ansible_collections.elephaas.herd.plugins.module_utils.decide.findings_replication import standby_name
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Member
from ansible_collections.elephaas.herd.plugins.module_utils.decide.size import human_bytes, human_seconds


def logical_slots(situation: Situation) -> Iterator[Finding]:
    """Logical slots that would stay behind."""
    primary = situation.primary
    if primary is None:
        return
    stay, late = [], []
    for slot in primary.fact("slots") or []:
        if slot.get("type") != "logical" or slot.get("temporary"):
            continue
        if not slot.get("failover"):
            stay.append(str(slot["name"]))
        elif not _synchronized(situation.candidate, slot["name"]):
            late.append(str(slot["name"]))
    if stay:
        yield primary.name, f"it has logical replication slots, which stay behind: {', '.join(sorted(stay))}"
    if late and situation.candidate is not None:
        yield situation.candidate.name, f"failover slots are not synchronized to it: {', '.join(sorted(late))}"


def _synchronized(candidate: Member | None, name: str) -> bool:
    # "Logical Replication Failover": synchronized, persisted, and still valid.
    return candidate is None or any(
        slot.get("name") == name and slot.get("synced") and not slot.get("temporary") and not slot.get("invalid")
        for slot in candidate.fact("slots") or []
    )


def foreign_walsenders(situation: Situation) -> Iterator[Finding]:
    """Receivers of the primary's WAL that are no members of the herd."""
    primary = situation.primary
    if primary is None:
        return
    # One that is recorded below another member has no connection here to account for.
    members = [one for one in situation.herd.members if one is not primary and one.upstream in (None, primary.name)]
    for row in _strangers(primary, members):
        place = f" at {row['client_addr']}" if row.get("client_addr") else ""
        yield (
            primary.name,
            (
                f"{row.get('application_name') or 'a receiver without a name'}{place} receives its WAL ({row.get('state')}) "
                "and is no member: a stop waits for it, and it does not move"
            ),
        )


def _strangers(primary: Member, members: list[Member]) -> list[dict[str, Any]]:
    # Each member accounts for one row. Whoever has both its address and its name goes first: a pg_receivewal on a
    # replica's host has its address too, and a replica may connect from another address than that of its server.
    rows = [
        row
        for row in primary.fact("replicas") or []
        if not row.get("backup") and not str(row.get("application_name") or "").startswith("elephaas")
    ]

    def named(row: dict[str, Any], member: Member) -> bool:
        known_as = standby_name(member)
        return known_as is None or known_as == row.get("application_name")

    def placed(row: dict[str, Any], member: Member) -> bool:
        return bool(row.get("client_addr") == member.address)

    left = list(members)
    for both in (True, False):
        for row in list(rows):
            owner = next((one for one in left if named(row, one) and (placed(row, one) or not both)), None)
            if owner is not None:
                left.remove(owner)
                rows.remove(row)
    return rows


def archive_failing(situation: Situation) -> Iterator[Finding]:
    """The primary cannot archive its WAL."""
    primary = situation.primary
    archiver = primary.fact("readiness", "archiver") if primary else None
    if primary is not None and _archives(primary) and archiver and archiver.get("failing"):
        yield (
            primary.name,
            (
                f"archiving fails since {archiver.get('last_failed_wal')} ({archiver.get('failed_count')} times, last "
                f"{human_seconds(archiver.get('last_failed_age_s'))} ago): a stop waits while the archiver tries again"
            ),
        )


def archive_backlog(situation: Situation) -> Iterator[Finding]:
    """WAL waits to be archived."""
    primary = situation.primary
    waiting = primary.fact("readiness", "archive_ready") if primary else None
    if primary is not None and _archives(primary) and (waiting or 0) > situation.wishes.max_archive_backlog:
        yield (
            primary.name,
            (
                f"{waiting} WAL files wait to be archived, the bound is {situation.wishes.max_archive_backlog}: a stop waits "
                "until the archiver is through with them"
            ),
        )


def _archives(member: Member) -> bool:
    return member.fact("settings", "archive_mode") in ("on", "always")


def archive_ends(situation: Situation) -> Iterator[Finding]:
    """The primary archives, and the candidate would not."""
    primary, candidate = situation.primary, situation.candidate
    if (
        primary is None
        or candidate is None
        or not _archives(primary)
        or not primary.fact("settings", "archive_command_set")
    ):
        return
    if candidate.fact("settings", "archive_mode") == "off":
        yield candidate.name, "archive_mode is off: nothing of the new timeline would be archived"
    elif candidate.fact("settings", "archive_command_set") is False:
        yield candidate.name, "it has no archive_command: nothing of the new timeline would be archived"


def unlogged_tables(situation: Situation) -> Iterator[Finding]:
    """Relations that will be empty."""
    primary = situation.primary
    seen = primary.fact("readiness", "unlogged") if primary else None
    if primary is not None and seen and seen.get("relations"):
        least = "" if seen.get("complete") else "at least "
        yield (
            primary.name,
            (
                f"{least}{seen['relations']} unlogged tables, indexes and sequences ({human_bytes(seen.get('bytes'))}) are "
                "not replicated, and will be empty"
            ),
        )


def long_transactions(situation: Situation) -> Iterator[Finding]:
    """Transactions that have been open for long."""
    primary = situation.primary
    if primary is None:
        return
    for one in primary.fact("readiness", "transactions") or []:
        if (one.get("age_s") or 0) > situation.wishes.max_transaction_age:
            who = f"{one.get('user')}{', ' + one['application_name'] if one.get('application_name') else ''}"
            yield (
                primary.name,
                (
                    f"process {one.get('pid')} ({who}; {one.get('state')}) has had a transaction open for "
                    f"{human_seconds(one.get('age_s'))}: it will be rolled back"
                ),
            )


def prepared_transactions(situation: Situation) -> Iterator[Finding]:
    """Transactions that are prepared and not finished."""
    primary = situation.primary
    seen = primary.fact("readiness", "prepared") if primary else None
    if primary is not None and seen and seen.get("count"):
        yield (
            primary.name,
            (
                f"{seen['count']} prepared transactions, the oldest {human_seconds(seen.get('oldest_s'))} old, go on holding "
                "their locks on the new primary"
            ),
        )


def backups(situation: Situation) -> Iterator[Finding]:
    """A backup is being taken from the primary."""
    primary = situation.primary
    if primary is None:
        return
    if primary.fact("base_backup_running"):
        yield primary.name, "a base backup is being taken from it, and would be lost"
    for name in primary.fact("readiness", "backup_sessions") or []:
        yield primary.name, f"a backup is being taken from it ({name}), and would be lost"
