# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong on a member's host, or with how its PostgreSQL would start there. Private to the collection."""

from __future__ import annotations

from typing import Any, Iterator

from ansible_collections.elephaas.herd.plugins.module_utils.decide.findings import Finding, Situation
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Member

#: Programs without which a member cannot play its part.
REQUIRED_PROGRAMS = ("psql", "pg_ctl", "pg_controldata", "pg_waldump")


def managed_elsewhere(situation: Situation) -> Iterator[Finding]:
    """Members that a failover manager is configured for."""
    yield from _managers(situation, certain=True)


def manager_on_host(situation: Situation) -> Iterator[Finding]:
    """Failover managers of which nobody can tell what they manage."""
    yield from _managers(situation, certain=False)


def _managers(situation: Situation, certain: bool) -> Iterator[Finding]:
    for member in situation.herd.members:
        for manager in member.fact("readiness", "managers") or []:
            if bool(manager.get("certain")) == certain:
                yield member.name, str(manager.get("evidence"))


def autostart(situation: Situation) -> Iterator[Finding]:
    """The old primary is started by something that does not ask."""
    primary = situation.primary
    reasons = primary.fact("readiness", "autostart") if primary else None
    if primary is not None and reasons:
        yield primary.name, f"it is started without being asked: {', '.join(reasons)}"


def config_errors(situation: Situation) -> Iterator[Finding]:
    """Members that would not start with the files they have."""
    for member in situation.herd.members:
        problem = config_problem(member)
        if problem:
            yield member.name, problem


def config_problem(member: Member) -> str | None:
    """What is wrong in its configuration files, in words; None when nothing is."""
    errors = member.fact("config_errors") or []
    if not errors:
        return None
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"its configuration files have errors: {errors[0]}{more}"


def pending_restart(situation: Situation) -> Iterator[Finding]:
    """Settings that wait for a restart, which the old primary is given."""
    for member in situation.herd.members:
        names = ", ".join(member.fact("pending_restart") or [])
        if names and member is situation.primary:
            yield member.name, f"it comes back with other values than now: {names}"
        elif names:
            yield member.name, f"it is not restarted, and these wait for it: {names}"


def preload_missing(situation: Situation) -> Iterator[Finding]:
    """Members that would not start for want of a library."""
    for member in situation.herd.members:
        missing = member.fact("readiness", "preload", "missing")
        if missing:
            yield member.name, f"shared_preload_libraries names what is not on its disk: {', '.join(missing)}"


def preload_differs(situation: Situation) -> Iterator[Finding]:
    """Members that load other libraries than the primary."""
    primary = situation.primary
    expected = primary.fact("readiness", "preload", "libraries") if primary else None
    for member in situation.herd.members:
        found = member.fact("readiness", "preload", "libraries")
        if primary is not None and expected is not None and found is not None and set(found) != set(expected):
            yield (
                member.name,
                (
                    f"shared_preload_libraries is {', '.join(found) or 'empty'}, "
                    f"that of {primary.name} is {', '.join(expected) or 'empty'}"
                ),
            )


def collation_differs(situation: Situation) -> Iterator[Finding]:
    """Members whose libraries may order text otherwise than the primary's."""
    primary = situation.primary
    if primary is None:
        return
    for member in situation.herd.members:
        databases = {one.get("name"): one for one in member.fact("readiness", "databases") or []}
        differing: dict[str, list[str]] = {}
        for database in primary.fact("readiness", "databases") or []:
            there = databases.get(database.get("name"))
            here_version, there_version = _order(primary, database), _order(member, there) if there else None
            if here_version and there_version and here_version != there_version:
                differing.setdefault(f"{there_version}, on {primary.name} by {here_version}", []).append(
                    str(database["name"])
                )
        for versions, names in differing.items():
            yield member.name, f"text in {', '.join(names)} is ordered by {versions}: indexes may be wrong there"


def _order(member: Member, database: dict[str, Any]) -> str | None:
    """What orders the text of a database, with its version; None when it cannot change, or is not known."""
    locale = str(database.get("locale") or "").upper()
    if database.get("provider") == "i":
        version = database.get("actual") or member.fact("readiness", "icu")
        return f"ICU {version}" if version else None
    # Byte order is the same in every version: PostgreSQL notes no version for these either (pg_locale.c).
    if database.get("provider") != "c" or locale in ("C", "POSIX") or locale.startswith("C."):
        return None
    version = database.get("actual") or member.fact("readiness", "glibc")
    return f"glibc {version}" if version else None


def not_superuser(situation: Situation) -> Iterator[Finding]:
    """Members on which our account may not do what has to be done."""
    for member in situation.herd.members:
        if member.running and member.fact("superuser") is False:
            yield member.name, f"{member.fact('os_user') or 'the account'} is not a superuser there"


def programs(situation: Situation) -> Iterator[Finding]:
    """Programs that are missing on a host."""
    for member in situation.herd.members:
        programs = member.fact("programs") or {}
        missing = [name for name in REQUIRED_PROGRAMS if name in programs and not programs[name]]
        if missing:
            yield member.name, f"programs are missing on its host: {', '.join(missing)}"


def binary_differs(situation: Situation) -> Iterator[Finding]:
    """A restart would change the version."""
    for member in situation.herd.members:
        runs, on_disk = member.fact("version"), member.fact("binary_version")
        if runs and on_disk and runs != on_disk:
            yield member.name, f"{runs} runs, {on_disk} is on disk: a restart changes the version"
