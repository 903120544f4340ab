# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Started, stopped, restarted, reloaded: the states that an instance can be brought to. Private to the collection."""

from __future__ import annotations

import socket
import time
from typing import Any, Callable

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.mirror import moved_away
from ansible_collections.elephaas.herd.plugins.module_utils.decide.standby_settings import too_low
from ansible_collections.elephaas.herd.plugins.module_utils.postgres import streaming
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.control import (
    log_marks,
    log_since,
    refuse_writable_start,
    start,
    stop,
)
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.probe import address_of, observe, require_identity
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.psql import SqlError, query
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.target import Target
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.token import TokenStore
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.verb import require_answer, require_token

_POLL_S = 0.05


def bring_to(
    target: Target, params: dict[str, Any], check_mode: bool, facts: dict[str, Any], store: TokenStore
) -> tuple[dict[str, float], list[str]]:
    """Bring the instance to params["state"]: when it was asked for and seen (seconds since 1970), and what was done.

    params: state, mode (of a stop), log_file (None: one of ours), and for restarted wait_streaming.
    facts: of this very moment. An empty list of what was done means that nothing had to be.
    """
    return _STATES[params["state"]](target, params, check_mode, facts, store)


def _stopped(
    target: Target, params: dict[str, Any], check_mode: bool, facts: dict[str, Any], store: TokenStore
) -> tuple[dict[str, float], list[str]]:
    if facts["status"] == "stopped":
        return {}, []
    _may_interrupt(target, check_mode, facts, store)
    did = [f"stopped ({params['mode']}) the {facts['role']}, process {facts['postmaster_pid']}"]
    return ({} if check_mode else stop(target, params["mode"], facts["postmaster_pid"])), did


def _may_interrupt(target: Target, check_mode: bool, facts: dict[str, Any], store: TokenStore) -> None:
    # Whatever could be writable counts: starting up, hanging, or just not telling.
    harmless = facts["role"] == "replica" and not facts["writable"]
    if not harmless:
        require_token(store, target, check_mode)


def _started(
    target: Target, params: dict[str, Any], check_mode: bool, facts: dict[str, Any], store: TokenStore
) -> tuple[dict[str, float], list[str]]:
    if facts["status"] == "stopping":
        raise OperatorError(
            "STILL_STOPPING",
            f"{target.label} is shutting down (process {facts['postmaster_pid']}) and cannot be started yet.",
            "Stop it with state=stopped, which waits for the end, and start it then.",
        )
    if facts["status"] != "stopped":
        _await_ready(target, facts)
        return {}, []
    refuse_writable_start(facts)
    if target.token is None:
        # Whoever acts under a token has seen the other members; all that is known here is this host's own record.
        _refuse_overtaken(target, facts)
    else:
        # The undo of a failover: an operation that was overtaken must not start a primary beside the new one.
        require_token(store, target, check_mode)
    did = [f"started it as a {facts['role']}"]
    return ({} if check_mode else start(target, _log_file(params, store))), did


def _refuse_overtaken(target: Target, facts: dict[str, Any]) -> None:
    own = socket.gethostname()
    away = moved_away(facts["operation"], (own, own.partition(".")[0]))
    if facts["role"] == "primary" and away:
        raise OperatorError(
            "SUPERSEDED",
            f"{target.label} would come up writable, and a failover from it to {away['operation'].get('to')} is done.",
            "Make it a replica with elephaas.herd.demote. elephaas.herd.start looks at all members before it starts one.",
            {"stored": away},
        )


def _log_file(params: dict[str, Any], store: TokenStore) -> str:
    if not params["log_file"]:
        store.prepare()
    return params["log_file"] or store.server_log


def _await_ready(target: Target, facts: dict[str, Any]) -> None:
    """Somebody else has started it a moment ago: started means that it accepts connections."""
    deadline = time.monotonic() + target.timeout
    while facts["status"] == "starting":
        if time.monotonic() > deadline:
            raise OperatorError(
                "START_TIMEOUT",
                f"{target.label} was started and does not accept connections after {target.timeout:g} s.",
                "See its log: it may be replaying WAL after a crash.",
                {"sql_error": facts["sql_error"]},
            )
        time.sleep(0.2)
        facts = observe(target)
        require_identity(facts, target)


def _restarted(
    target: Target, params: dict[str, Any], check_mode: bool, facts: dict[str, Any], store: TokenStore
) -> tuple[dict[str, float], list[str]]:
    if facts["status"] == "stopped":
        return _started(target, params, check_mode, facts, store)
    _may_interrupt(target, check_mode, facts, store)
    # All that would keep it from coming up again is looked for while it still runs.
    refuse_writable_start(facts)
    _refuse_config_errors(target, facts)
    if not check_mode:
        facts = _await_demands(target, facts)
    _refuse_low_settings(target, facts)
    did = [f"restarted ({params['mode']}) the {facts['role']}, process {facts['postmaster_pid']}"]
    if check_mode:
        return {}, did
    log_file = _log_file(params, store)
    marks = log_marks(target, log_file)
    before = streaming.peers(facts)
    times = stop(target, params["mode"], facts["postmaster_pid"])
    # A stop can take long enough for another operation to take over: it must not meet a primary that comes up again.
    _may_interrupt(target, check_mode, facts, store)
    times.update(start(target, log_file))
    if params["wait_streaming"]:
        try:
            times["streaming"] = streaming.await_peers(target, address_of(facts), before)
        except OperatorError as error:
            raise OperatorError(
                error.code,
                error.reason,
                error.next_step,
                {**error.evidence, "log_tail": log_since(target, log_file, marks)},
            ) from error
    return times, did


def _refuse_config_errors(target: Target, facts: dict[str, Any]) -> None:
    if facts["config_errors"]:
        raise OperatorError(
            "CONFIG_ERRORS",
            f"The configuration files of {target.label} have errors: {facts['config_errors'][0]}.",
            "Correct them first: pg_file_settings and pg_hba_file_rules list them all.",
            {"config_errors": facts["config_errors"]},
        )


def _low_settings(facts: dict[str, Any]) -> list[str]:
    if facts["role"] != "replica":
        return []
    return too_low(facts["next_start"], facts["control"])


def _await_demands(target: Target, facts: dict[str, Any]) -> dict[str, Any]:
    """A primary restarted with lower values has said so in its WAL: give the replica a moment to replay that."""
    deadline = time.monotonic() + min(target.timeout, 10)
    while _low_settings(facts) and facts["replay_paused"] is False and time.monotonic() < deadline:
        time.sleep(0.2)
        facts = observe(target)
        require_identity(facts, target)
    return facts


def _refuse_low_settings(target: Target, facts: dict[str, Any]) -> None:
    low = _low_settings(facts)
    if low:
        raise OperatorError(
            "STANDBY_SETTINGS",
            f"{target.label} would not start again: {'; '.join(low)} by its primary.",
            "Restart the primary with the lower value first, or raise it here.",
        )


def _reloaded(
    target: Target, _params: dict[str, Any], check_mode: bool, facts: dict[str, Any], _store: TokenStore
) -> tuple[dict[str, float], list[str]]:
    require_answer(facts)
    _refuse_config_errors(target, facts)
    did = ["reloaded its configuration"]
    if check_mode:
        return {}, did
    address = address_of(facts)
    try:
        before, _reloading = query(
            address, "SELECT pg_conf_load_time();\nSELECT pg_reload_conf();", target.timeout
        ).split("\n")
        requested = time.time()
        deadline = time.monotonic() + target.timeout
        # A new session takes over what the postmaster has read.
        while query(address, "SELECT pg_conf_load_time();", target.timeout) == before:
            if time.monotonic() > deadline:
                raise OperatorError(
                    "RELOAD_TIMEOUT", f"{target.label} was told to reload and has not done so.", "See its log."
                )
            time.sleep(_POLL_S)
    except SqlError as error:
        raise OperatorError(
            "RELOAD_FAILED", f"{target.label} could not be reloaded: {error}.", "See its log."
        ) from error
    return {"reload_requested": requested, "reloaded": time.time()}, did


_STATES: dict[str, Callable[..., tuple[dict[str, float], list[str]]]] = {
    "started": _started,
    "stopped": _stopped,
    "restarted": _restarted,
    "reloaded": _reloaded,
}
