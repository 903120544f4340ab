# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guards that every changing verb passes first. Private to the collection."""

from __future__ import annotations

from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.probe import observe, require_identity
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.target import Target
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.token import TokenStore, release, renew


def store_of(target: Target, facts: dict[str, Any]) -> TokenStore:
    """The token store of that instance."""
    return TokenStore(target.home, facts["system_identifier"], target.port)


def look_and_guard(target: Target) -> tuple[dict[str, Any], TokenStore]:
    """The facts of the instance, once it is certain that it is the one that was meant."""
    facts = observe(target)
    require_identity(facts, target)
    return facts, store_of(target, facts)


def require_token(store: TokenStore, target: Target, check_mode: bool) -> dict[str, Any] | None:
    """The open operation's record; its lease is renewed. Raises TOKEN_MISSING, TOKEN_STALE, TOKEN_CLOSED.

    A rehearsal (check mode) before anything was claimed has no token yet, and changes nothing either.
    """
    if check_mode and target.token is None:
        return None
    return renew(store, target.token, write=not check_mode)


def require_answer(facts: dict[str, Any]) -> None:
    """The server must run and answer. Raises OperatorError NOT_RUNNING, NO_ANSWER."""
    if facts["status"] in ("stopped", "absent"):
        raise OperatorError(
            "NOT_RUNNING", f"The instance in {facts['data_directory']} does not run.", "Start it first."
        )
    if facts["status"] != "running" or facts["sql_error"]:
        raise OperatorError(
            "NO_ANSWER",
            f"The instance in {facts['data_directory']} is {facts['status']} and does not answer: "
            f"{facts['sql_error']}.",
            "Look at its log and at what it waits for.",
        )


def finish(target: Target, store: TokenStore, params: dict[str, Any], check_mode: bool) -> bool:
    """Close the operation here, when the caller asked for it with `release`: True when that changed something."""
    if not params["release"] or target.token is None:
        return False
    return release(store, target.token, params["release_outcome"], write=not check_mode)[0]
