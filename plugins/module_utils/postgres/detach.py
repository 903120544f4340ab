# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Promotes a replica for a diagnosis: it leaves its herd, and must not disturb what the herd keeps. Private.

What is switched off for that is switched on again when it comes back.
"""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.postgres import trigger
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.probe import address_of, observe
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.promotion import promoted
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.psql import SqlError, query
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.standby import store_settings
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.target import Target
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.token import TokenStore
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.verb import require_answer, require_token

# A command that says "archived" and does nothing ("Continuous Archiving"): with an empty one the WAL would pile up.
_NO_ARCHIVE = "/bin/true"


def detached(target: Target, facts: dict[str, Any], store: TokenStore) -> list[str]:
    """Switch archiving off and promote it; what was done, in words.

    Archiving goes first: at its promotion a server archives the history file of its new timeline, whose number the
    herd's next failover would take too. Raises OperatorError ARCHIVING_ON, and what promoted() raises.
    """
    if facts["writable"]:
        return []
    require_answer(facts)
    require_token(store, target, check_mode=False)
    options = {"proof": "none", "expect_timeline": facts["timeline"], "slots": [], "checkpoint": False}
    if not facts["settings"]["archive_command_set"]:
        return promoted(target, options, False, facts, store)
    # Once it has been switched off, what stands there is ours: of an earlier try, that died half way.
    if store.read_archiving() is None:
        store.write_archiving(_own_archiving(target, facts))
    try:
        return _no_archiving(target, facts) + promoted(target, options, False, facts, store)
    except OperatorError:
        # A replica that stays in its herd must archive as before once it is its primary. One that was told to promote may
        # still do so at any moment, and must not archive then.
        if not trigger.is_requested(target.data_directory) and not observe(target)["writable"]:
            restore_archiving(target, facts, store)
        raise


def _own_archiving(target: Target, facts: dict[str, Any]) -> dict[str, str]:
    """What ALTER SYSTEM has set of it before. May hold credentials: never return or show it."""
    sql = (
        "SELECT coalesce(json_object_agg(name, setting), '{}') FROM pg_file_settings"
        " WHERE name IN ('archive_command', 'archive_library') AND sourcefile LIKE '%/postgresql.auto.conf';"
    )
    try:
        found: dict[str, str] = json.loads(query(address_of(facts), sql, target.timeout))
        return found
    except SqlError as error:
        raise OperatorError("ARCHIVING_ON", f"The archiving of {target.label} cannot be read: {error}.") from error


def restore_archiving(target: Target, facts: dict[str, Any], store: TokenStore) -> list[str]:
    """Take back that archiving was switched off, if it was: what was done, in words.

    Of a server that is stopped, it holds from its next start. Raises OperatorError ARCHIVING_OFF.
    """
    before = store.read_archiving()
    if before is None:
        return []
    names = ["archive_command", *(["archive_library"] if facts["major"] >= 15 else [])]
    try:
        store_settings(facts, {name: before.get(name) for name in names}, target.timeout)
        if facts["status"] == "running":
            query(address_of(facts), "SELECT pg_reload_conf();", target.timeout)
    except (SqlError, OperatorError) as error:
        raise OperatorError(
            "ARCHIVING_OFF",
            f"The archiving of {target.label} could not be switched on again: {error}.",
            "Set archive_command (and archive_library) on it as before, and reload it.",
        ) from error
    store.forget_archiving()
    return ["switched archiving on again, as it was before its promotion for a diagnosis"]


def _no_archiving(target: Target, facts: dict[str, Any]) -> list[str]:
    names: dict[str, str | None] = {"archive_command": _NO_ARCHIVE}
    if facts["major"] >= 15:
        names["archive_library"] = ""
    store_settings(facts, names, target.timeout)
    address = address_of(facts)
    try:
        query(address, "SELECT pg_reload_conf();", target.timeout)
        # pg_reload_conf only asks: each new session shows what the postmaster has read by then.
        sql = "SELECT count(*) FROM pg_settings WHERE name = 'archive_command' AND setting = '/bin/true';"
        for _attempt in range(100):
            if query(address, sql, target.timeout) == "1":
                return ["switched archiving off (archive_command)"]
    except SqlError as error:
        raise OperatorError(
            "ARCHIVING_ON", f"Archiving of {target.label} could not be switched off: {error}."
        ) from error
    raise OperatorError(
        "ARCHIVING_ON",
        f"Archiving of {target.label} was switched off in its settings, and it does not take them.",
        "See where archive_command is set: on the command line it cannot be changed.",
    )
