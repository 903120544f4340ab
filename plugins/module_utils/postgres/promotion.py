# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The three states of promote: armed, promoted, disarmed. Private to the collection.

Each takes (target, parameters of the module, check mode, facts, token store) and returns what it did, in words;
an empty list means that nothing was to be done.
"""

from __future__ import annotations

import re
import time
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.lsn import parse_lsn
from ansible_collections.elephaas.herd.plugins.module_utils.postgres import trigger
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.probe import address_of, observe
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.psql import Address, SqlError, begin, query
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.slots import create_slots
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.target import Target
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.token import TokenStore, check_token
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.verb import require_answer, require_token
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.waiter import (
    APPLICATION,
    Orders,
    arm,
    call_off,
    disarm,
    inherited_armed_lsn,
    waiter_lives,
)

# "Replication Slots": lower-case letters, numbers, underscore.
_SLOT = re.compile(r"\A[a-z0-9_]{1,63}\Z")
_POLL_S = 0.01


def armed(
    target: Target, params: dict[str, Any], check_mode: bool, facts: dict[str, Any], store: TokenStore
) -> list[str]:
    """Start the waiter, unless the same one waits already."""
    record = require_token(store, target, check_mode)
    require_answer(facts)
    _refuse_unfit(target, params, facts)
    armed_lsn = _armed_lsn(params, facts, store)
    present = store.read_waiter()
    if (
        present
        and present["state"] == "waiting"
        and present["token"] == target.token
        and waiter_lives(present)
        and present["expect_timeline"] == facts["timeline"]
        and set(params["slots"]) <= set(present["slots"])
        and params["armed_lsn"] in (None, present["armed_lsn"])
    ):
        return []
    if not check_mode and record:
        arm(
            store,
            Orders(
                token=record["token"],
                address=address_of(facts, APPLICATION),
                pg_waldump=facts["programs"]["pg_waldump"],
                data_directory=target.data_directory,
                timeline=facts["timeline"],
                armed_lsn=armed_lsn,
                segment_size=facts["control"]["wal_segment_size"],
                page_size=facts["control"]["wal_block_size"],
                deadline_s=params["deadline_s"],
                slots=params["slots"],
            ),
        )
    return [f"armed: it promotes once the shutdown checkpoint behind {armed_lsn} is here"]


def _refuse_unfit(target: Target, params: dict[str, Any], facts: dict[str, Any]) -> None:
    if params["proof"] != "shutdown_checkpoint":
        raise OperatorError(
            "BAD_OPTION", "A waiter without a proof would promote at any moment.", "Use proof=shutdown_checkpoint."
        )
    if facts["writable"]:
        raise OperatorError(
            "ALREADY_PROMOTED",
            f"{target.label} is not in recovery: there is nothing to wait for.",
            "Look at the herd again.",
        )
    if not facts["superuser"]:
        # Without it the state of the WAL receiver is hidden, and with it half of the proof.
        raise OperatorError(
            "NOT_SUPERUSER", f"{target.os_user} is not a superuser of {target.label}.", "Grant it, or set os_user."
        )
    if not facts["programs"]["pg_waldump"]:
        raise OperatorError(
            "NO_PROGRAMS", f"There is no pg_waldump in {facts['bin_directory']}.", "Install it, or set bin_directory."
        )
    if facts["replay_paused"]:
        raise OperatorError(
            "REPLAY_PAUSED", f"Replay is paused on {target.label}.", "Run pg_wal_replay_resume() on it."
        )
    _refuse_timeline(target, params, facts)
    for name in params["slots"]:
        if not _SLOT.match(name):
            raise OperatorError(
                "BAD_OPTION", f"{name!r} is no name for a slot: a-z, 0-9 and _ are allowed, at most 63."
            )


def _refuse_timeline(target: Target, params: dict[str, Any], facts: dict[str, Any]) -> None:
    if params["expect_timeline"] not in (None, facts["timeline"]):
        raise OperatorError(
            "WRONG_TIMELINE",
            f"{target.label} is on timeline {facts['timeline']}, expected {params['expect_timeline']}.",
            "Look at the herd again: somebody else may have promoted a member.",
        )


def _armed_lsn(params: dict[str, Any], facts: dict[str, Any], store: TokenStore) -> str:
    if params["armed_lsn"]:
        parse_lsn(params["armed_lsn"])
        return params["armed_lsn"]
    inherited = inherited_armed_lsn(store)
    if inherited:
        return inherited
    upstream = facts["upstream"] or {}
    if upstream.get("status") == "streaming" and facts["positions"]["received"]:
        return facts["positions"]["received"]
    raise OperatorError(
        "ARMED_LSN_NEEDED",
        "The replica does not stream, so a shutdown checkpoint that it holds may be of any earlier shutdown.",
        "Give armed_lsn: of the stopped old primary, the position of its last checkpoint (control.checkpoint_lsn).",
    )


def promoted(
    target: Target, params: dict[str, Any], check_mode: bool, facts: dict[str, Any], store: TokenStore
) -> list[str]:
    """See it writable: through its waiter, or (proof none) at once."""
    did: list[str] = []
    if not facts["writable"]:
        require_token(store, target, check_mode)
        require_answer(facts)
        _refuse_timeline(target, params, facts)
        if params["proof"] == "none":
            did.append("promoted it without a proof")
            if not check_mode:
                _promote_now(target, params, facts, store)
        else:
            waiter = _own_waiter(target, store)
            did.append("its waiter promoted it")
            if not check_mode:
                _await(target, store, waiter)
    if params["checkpoint"] and not check_mode:
        try:
            if params["checkpoint_wait"]:
                query(address_of(facts), "CHECKPOINT;", target.timeout)
            else:
                begin(address_of(facts), "CHECKPOINT;")
        except SqlError as error:
            raise OperatorError(
                "CHECKPOINT_FAILED",
                f"{target.label} is writable, but its checkpoint did not end: {error}.",
                "Run it again.",
            ) from error
    return did


def _own_waiter(target: Target, store: TokenStore) -> dict[str, Any]:
    record = store.read_waiter()
    if record is None or record["token"] != target.token:
        raise OperatorError(
            "NOT_ARMED", f"No waiter was armed on {target.label} for token {target.token}.", "Use state=armed first."
        )
    return record


def _await(target: Target, store: TokenStore, record: dict[str, Any]) -> None:
    deadline = time.monotonic() + target.timeout
    while record["state"] in ("arming", "waiting", "promoting"):
        # Its life first, its record after: one that ends in between has written its last word before.
        lives = waiter_lives(record)
        record = _own_waiter(target, store)
        if not lives and record["pid"] and record["state"] in ("waiting", "promoting"):
            if not observe(target)["writable"]:
                raise OperatorError(
                    "WAITER_DIED",
                    f"The waiter of {target.label} died in state {record['state']}.",
                    "Arm it again, or call it off with state=disarmed.",
                    {"waiter": record},
                )
            return
        if time.monotonic() > deadline:
            raise OperatorError(
                "STILL_WAITING",
                f"{target.label} was not promoted within {target.timeout:g} s, and its waiter still waits"
                f"{_why(record)}.",
                "Wait longer, or call it off with state=disarmed.",
                {"waiter": record},
            )
        time.sleep(_POLL_S)
    if record["state"] == "promoted":
        return
    if record["state"] == "expired":
        raise OperatorError(
            "PROOF_FAILED" if record["evidence"].get("refused") else "WAITER_EXPIRED",
            f"{target.label} was not promoted: {record['error']}{_why(record)}.",
            "It is still a replica and its waiter has ended. The old primary can be brought back.",
            {"waiter": record},
        )
    raise OperatorError(
        "WAITER_FAILED",
        f"The waiter of {target.label} ended in state {record['state']}: {record['error'] or 'it was called off'}.",
        "Look at the instance before anything else is done.",
        {"waiter": record},
    )


def _why(record: dict[str, Any]) -> str:
    refused = record["evidence"].get("refused")
    return f" ({refused})" if refused else ""


def _promote_now(target: Target, params: dict[str, Any], facts: dict[str, Any], store: TokenStore) -> None:
    """Ask at once, on record in the waiter's place: the next run has to know that it was us who asked."""
    address = address_of(facts)
    try:
        with store.locked():
            # A newer claim, or the waiter's own decision, either came before this lock or sees its effect.
            operation = check_token(store.read(), target.token)
            earlier = call_off(store, "superseded")
            create_slots(address, params["slots"], list((earlier or {}).get("slots_created", [])))
            record = {
                "state": "promoting",
                "token": operation["token"],
                "plan_id": operation["operation"].get("plan_id"),
                "pid": None,
                "start_time": "",
                "expect_timeline": facts["timeline"],
                "slots": params["slots"],
                "slots_created": [],
                "evidence": {"timeline_old": facts["timeline"], "replayed_lsn": facts["positions"]["replayed"]},
                "times": {"promote_called": time.time()},
                "seconds_without_primary": None,
                "error": None,
            }
            # Before the call: should this process die in between, nobody may believe that nothing was asked.
            store.write_waiter(record)
            query(address, trigger.REQUEST, 10)
    except SqlError as error:
        raise OperatorError(
            "PROMOTE_FAILED", f"{target.label} could not be promoted: {error}.", "See its log."
        ) from error
    if not trigger.see_through(lambda sql: query(address, sql, 10), target.data_directory, target.timeout):
        raise OperatorError(
            "STILL_PROMOTING", f"{target.label} is still in recovery after {target.timeout:g} s.", "See its log."
        )
    _note_promoted(target, address, record, store)


def _note_promoted(target: Target, address: Address, record: dict[str, Any], store: TokenStore) -> None:
    record["times"]["writable"] = time.time()
    try:
        timeline = query(address, "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8);", target.timeout)
    except SqlError as error:
        raise OperatorError("NO_ANSWER", f"{target.label} was promoted and does not answer: {error}.") from error
    record["evidence"]["timeline_new"] = int(timeline, 16)
    record["state"] = "promoted"
    with store.locked():
        store.write_waiter(record)


def disarmed(
    target: Target, _params: dict[str, Any], check_mode: bool, facts: dict[str, Any], store: TokenStore
) -> list[str]:
    """Be certain that nothing of ours will promote it any more."""
    if check_mode:
        require_token(store, target, check_mode)
        _refuse_promoted(target, facts)
        record = store.read_waiter()
        return ["disarmed it"] if record and record["state"] != "disarmed" else []
    _refuse_promoted(target, facts)
    answers = facts["status"] == "running" and not facts["sql_error"]
    changed, _record = disarm(store, address_of(facts) if answers else None, target.token)
    # Seen, not concluded: only a second look, after the waiter is gone, says that it is still a replica.
    now = observe(target)
    _refuse_promoted(target, now)
    if now["status"] != "stopped":
        require_answer(now)
    return ["disarmed it"] if changed else []


def _refuse_promoted(target: Target, facts: dict[str, Any]) -> None:
    asked = trigger.is_requested(target.data_directory)
    if facts["writable"] or facts["role"] == "primary" or asked:
        raise OperatorError(
            "ALREADY_PROMOTED",
            f"{target.label} {'was told to promote' if asked else 'is not a replica any more'}.",
            "Nothing can be undone any more: run the same command again to finish.",
            {"role": facts["role"], "timeline": facts["timeline"], "waiter": facts["waiter"]},
        )
