# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three states of follow: following, prepared, absent (two more are in isolation.py). Private to the collection.

Each takes (target, parameters of the module, check mode, facts, token store) and returns an Outcome.
"""

from __future__ import annotations

import json
import time
from typing import Any, NamedTuple

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.timelines import RECOVERY_STATES
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.conninfo import (
    format_conninfo,
    parse_conninfo,
    without_secrets,
)
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.control import log_marks, log_since, start
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.layout import find_layout
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.outcome import Outcome
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.probe import address_of, observe
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.psql import SqlError, query
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.slots import drop_unused_slots
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.standby import (
    configured,
    desired_conninfo,
    effective_conninfo,
    refuse_self,
    reload_settings,
    remove_signal,
    signal_present,
    store_settings,
    test_upstream,
    write_signal,
)
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.target import Target
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.token import TokenStore, check_token
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.verb import require_answer

_POLL_S = 0.05


class _Wish(NamedTuple):
    """The settings as they should be. conninfo and changes hold secrets; before and after do not."""

    conninfo: dict[str, str]
    changes: dict[str, str | None]
    before: str
    after: str


def _wish(target: Target, params: dict[str, Any], facts: dict[str, Any], store: TokenStore) -> _Wish:
    host, port = params["upstream_host"], params["upstream_port"]
    refuse_self(facts, host, port)
    present = configured(facts, find_layout(target, None).config_file, target.timeout)
    # One that was isolated has its user, password and TLS settings from before.
    known = present["primary_conninfo"] or (store.read_isolated() or {}).get("primary_conninfo", "")
    conninfo = desired_conninfo(known, host, port, params["upstream_user"], params["application_name"])
    slot = present["primary_slot_name"] if params["slot"] is None else params["slot"]
    wanted = {"primary_conninfo": format_conninfo(conninfo), "primary_slot_name": slot}
    return _Wish(
        conninfo,
        {name: value for name, value in wanted.items() if value != present[name]},
        _shown(
            parse_conninfo(present["primary_conninfo"]),
            present["primary_slot_name"],
            signal_present(target.data_directory),
        ),
        _shown(conninfo, slot, True),
    )


def _shown(conninfo: dict[str, str], slot: str, signal: bool) -> str:
    """What a diff shows: never a password."""
    return (
        f"primary_conninfo = {format_conninfo(without_secrets(conninfo))}\n"
        f"primary_slot_name = {slot}\nstandby.signal: {'present' if signal else 'absent'}\n"
    )


def following(
    target: Target, params: dict[str, Any], check_mode: bool, facts: dict[str, Any], store: TokenStore
) -> Outcome:
    """Make it stream from the upstream, and see it."""
    stopped = facts["status"] == "stopped"
    if not stopped:
        require_answer(facts)
    if facts["writable"]:
        raise OperatorError(
            "IS_PRIMARY", f"{target.label} is a writable primary.", "Stop it first; it is started as a replica then."
        )
    wish = _wish(target, params, facts, store)
    did = []
    if not signal_present(target.data_directory):
        did.append("wrote standby.signal")
    if wish.changes:
        did.append(f"pointed it at {params['upstream_host']}:{params['upstream_port']}")
    if stopped:
        did.append("started it")
    elif not did and effective_conninfo(facts, target.timeout) != format_conninfo(wish.conninfo):
        did.append("reloaded it")
    if check_mode:
        if did or not _streams(facts, params, target.timeout):
            test_upstream(
                facts["programs"]["psql"], wish.conninfo, facts["system_identifier"], target.label, target.timeout
            )
        return Outcome(did, wish.before, wish.after, {})
    # Signal first: from here on no start, by anyone, can come up writable, whatever else fails below.
    if not signal_present(target.data_directory):
        write_signal(target.data_directory)
    if wish.changes:
        store_settings(facts, wish.changes, target.timeout)
    log_file = store.server_log
    marks = log_marks(target, log_file)
    if stopped:
        start(target, log_file)
        facts = observe(target)
    elif did:
        reload_settings(facts, format_conninfo(wish.conninfo), target.timeout)
    _see_streaming(target, params, facts, log_file, marks)
    store.forget_isolated()
    dropped = drop_unused_slots(address_of(facts), params["drop_slots"])
    did += [f"dropped the replication slot {name}" for name in dropped]
    return Outcome(did, wish.before, wish.after, {})


def _receiver(facts: dict[str, Any], timeout: float) -> dict[str, Any]:
    sql = """SELECT coalesce((SELECT json_build_object('status', status, 'timeline', received_tli, 'host', sender_host,
        'port', sender_port) FROM pg_stat_wal_receiver LIMIT 1), '{}');"""
    return json.loads(query(address_of(facts), sql, timeout))


def _streams(facts: dict[str, Any], params: dict[str, Any], timeout: float) -> bool:
    try:
        seen = _receiver(facts, timeout)
    except SqlError:
        return False
    return (
        seen.get("status") == "streaming"
        and seen.get("host") == params["upstream_host"]
        and seen.get("port") == params["upstream_port"]
        and params["expected_timeline"] in (None, seen.get("timeline"))
    )


def _see_streaming(
    target: Target, params: dict[str, Any], facts: dict[str, Any], log_file: str, marks: dict[str, int]
) -> None:
    deadline = time.monotonic() + params["wait_s"]
    while not _streams(facts, params, target.timeout):
        if time.monotonic() > deadline:
            now = observe(target)
            wanted = f" on timeline {params['expected_timeline']}" if params["expected_timeline"] else ""
            raise OperatorError(
                "NOT_STREAMING",
                f"{target.label} does not stream from {params['upstream_host']}:{params['upstream_port']}{wanted} "
                f"after {params['wait_s']} s.",
                "See its log, of which the end is shown. If its timeline has forked off, it needs a resync.",
                {
                    "status": now["status"],
                    "upstream": now["upstream"],
                    "timeline": now["timeline"],
                    "positions": now["positions"],
                    "log_tail": log_since(target, log_file, marks),
                },
            )
        time.sleep(_POLL_S)


def prepared(
    target: Target, params: dict[str, Any], check_mode: bool, facts: dict[str, Any], store: TokenStore
) -> Outcome:
    """From the return on, its next start is the start of a replica of the upstream."""
    stopped = facts["status"] == "stopped"
    if not stopped:
        require_answer(facts)
        if not facts["writable"]:
            raise OperatorError("IS_REPLICA", f"{target.label} is a running replica.", "Use state=following.")
    wish = _wish(target, params, facts, store)
    seen = test_upstream(
        facts["programs"]["psql"], wish.conninfo, facts["system_identifier"], target.label, target.timeout
    )
    did = []
    if wish.changes:
        did.append(f"pointed it at {params['upstream_host']}:{params['upstream_port']} from its next start on")
    if not signal_present(target.data_directory):
        did.append("wrote standby.signal")
    if check_mode:
        return Outcome(did, wish.before, wish.after, {"upstream": seen})
    if not stopped:
        # Now, so that the checkpoint of the shutdown has little left to write while nobody can.
        _sql(facts, "CHECKPOINT;", target.timeout)
    if wish.changes:
        store_settings(facts, wish.changes, target.timeout)
    # Last: should anything above fail, the primary is still one that restarts as a primary. Not reloaded: the
    # settings mean nothing before the next start, and a reload would apply whatever else stands in the files.
    with store.locked():
        # The checkpoint may have taken minutes, and the connection of whoever waits for it may be gone. A run that has
        # been called off meanwhile must not arm a primary that nobody disarms any more.
        check_token(store.read(), target.token)
        if not signal_present(target.data_directory):
            write_signal(target.data_directory)
    return Outcome(did, wish.before, wish.after, {"upstream": seen, "armed_lsn": _armed_lsn(facts, target, stopped)})


def _armed_lsn(facts: dict[str, Any], target: Target, stopped: bool) -> str | None:
    if not stopped:
        # After the signal file: no shutdown checkpoint before this position is one with the signal file in place.
        return _sql(facts, "SELECT pg_current_wal_lsn();", target.timeout)
    return facts["control"]["checkpoint_lsn"] if facts["control"]["state"] == "shut down" else None


def _sql(facts: dict[str, Any], sql: str, timeout: float) -> str:
    try:
        return query(address_of(facts), sql, timeout)
    except SqlError as error:
        raise OperatorError(
            "NO_ANSWER", f"The instance in {facts['data_directory']} failed at {sql.partition(';')[0]}: {error}."
        ) from error


def absent(
    target: Target, _params: dict[str, Any], check_mode: bool, facts: dict[str, Any], store: TokenStore
) -> Outcome:
    """Take prepared back: its next start is that of a primary again."""
    if facts["status"] != "stopped":
        require_answer(facts)
    before = f"standby.signal: {'present' if signal_present(target.data_directory) else 'absent'}\n"
    if before.endswith("absent\n"):
        return Outcome([], before, before, {})
    if facts["status"] == "running" and not facts["writable"]:
        raise OperatorError(
            "IS_REPLICA",
            f"{target.label} runs in recovery: without standby.signal its next start would be writable.",
            "To make it a primary, promote it.",
        )
    if facts["control"]["state"] in RECOVERY_STATES:
        raise OperatorError(
            "STARTS_WRITABLE",
            f'{target.label} was last a replica ("{facts["control"]["state"]}"): without standby.signal it would '
            "start writable on the timeline of its primary.",
            "Start it as it is, and promote it on purpose if it is to be the primary.",
        )
    if not check_mode:
        with store.locked():
            # A newer operation may have been granted since this one showed its token: it relies on the signal file.
            check_token(store.read(), target.token)
            remove_signal(target.data_directory)
    return Outcome(["removed standby.signal"], before, "standby.signal: absent\n", {})
