# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The waiter: a process on the candidate's host that promotes it at the moment the proof is there.

Private to the collection.

It is armed before the old primary is stopped, so that no round trip of the controller lies between stop and
promote. Its record, beside the operation's token, says what it does; `state` is one of:

arming, waiting -> promoting -> promoted        the way it is meant
waiting -> expired | disarmed | superseded      it ended without having asked for a promotion
waiting | promoting -> failed                   `error` says why

Whoever changes `state` away from waiting holds the instance's lock. So of a promotion and a disarming exactly one
happens: both look at the state under the lock before they act.

After its fork the waiter imports nothing: the module's archive, where its code came from, is gone by then.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from typing import Any, NamedTuple

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.lsn import format_lsn, parse_lsn, record_end
from ansible_collections.elephaas.herd.plugins.module_utils.postgres import trigger
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.pidfile import process_lives, start_time
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.psql import (
    Address,
    Session,
    SqlError,
)
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.slots import create_slots, drop_unused_slots
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.token import TokenStore, check_token
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.walrecord import (
    Record,
    read_last_record,
    shutdown_problem,
)

_POLL_S = 0.005
_AGAIN_S = 0.5
_ANSWER_S = 5.0
_READY_S = 15.0
_PROMOTION_S = 120.0
# Kept free of the instance's own names; probes do not count it as a client.
APPLICATION = "elephaas_waiter"

_POLL = """SELECT pg_is_in_recovery(), pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn(),
 (SELECT coalesce(status, 'hidden') FROM pg_stat_wal_receiver LIMIT 1);"""


class Orders(NamedTuple):
    """What one waiter is told. Sizes in bytes, deadline_s in seconds from now; paths absolute."""

    token: int
    address: Address
    pg_waldump: str
    data_directory: str
    timeline: int
    armed_lsn: str
    segment_size: int
    page_size: int
    deadline_s: float
    slots: list[str]


class _Position(NamedTuple):
    in_recovery: bool
    received: int | None
    replayed: int
    receiver: str


def waiter_lives(record: dict[str, Any] | None) -> bool:
    """Is the process of that record still there? Pid and start time: a pid alone may have a new owner."""
    return bool(record and record.get("pid")) and (
        process_lives(record["pid"]) and start_time(record["pid"]) == record["start_time"]  # type: ignore[index]
    )


def arm(store: TokenStore, orders: Orders) -> dict[str, Any]:
    """Create the slots, start the waiter, and return its record once it waits.

    Raises OperatorError SLOT_CONFLICT, WAITER_FAILED and what the token check raises.
    """
    with store.locked():
        # Under the lock: a claim with a newer token cannot come between this check and the new record.
        check_token(store.read(), orders.token)
        earlier = call_off(store, "superseded")
        created = create_slots(orders.address, orders.slots, list((earlier or {}).get("slots_created", [])))
        now = time.time()
        store.write_waiter(
            {
                "state": "arming",
                "token": orders.token,
                "plan_id": _plan_of(store),
                "pid": None,
                "start_time": "",
                "armed_at": now,
                "deadline_at": now + orders.deadline_s,
                "expect_timeline": orders.timeline,
                "armed_lsn": orders.armed_lsn,
                "slots": orders.slots,
                "slots_created": created,
                "evidence": {},
                "times": {"armed": now},
                "seconds_without_primary": None,
                "error": None,
            }
        )
    problem = _detach(store, orders)
    record = store.read_waiter() or {}
    if problem:
        raise OperatorError(
            "WAITER_FAILED",
            f"The waiter did not start: {problem}",
            f"See {store.waiter_log}.",
            {"waiter": record},
        )
    return record


def _plan_of(store: TokenStore) -> str | None:
    record = store.read()
    return record["operation"].get("plan_id") if record else None


def inherited_armed_lsn(store: TokenStore) -> str | None:
    """The armed position of an earlier waiter of the same plan that was not called off, or None.

    A run that resumes one that died may find the old primary's host gone; what its first waiter was armed with
    still holds, because the old primary has been unable to restart writable ever since.
    """
    earlier, plan = store.read_waiter(), _plan_of(store)
    if not earlier or not plan or earlier.get("plan_id") != plan or earlier["state"] == "disarmed":
        return None
    return earlier["armed_lsn"]


def call_off(store: TokenStore, state: str) -> dict[str, Any] | None:
    """End a waiter that has not asked for a promotion yet; its record. Call it under the lock.

    Raises OperatorError ALREADY_PROMOTED when a living waiter has asked for one.
    """
    record = store.read_waiter()
    if record is None:
        return None
    if record["state"] == "promoting" and waiter_lives(record):
        raise _promotion_requested(record)
    if record["state"] in ("waiting", "arming"):
        # The state first: from here on the waiter, should it wake up, finds itself called off.
        record["state"] = state
        store.write_waiter(record)
    _end_process(record)
    return record


def disarm(store: TokenStore, address: Address | None, token: int | None) -> tuple[bool, dict[str, Any] | None]:
    """Make sure that no waiter will promote: (did that change anything?, its record).

    address: where to drop the slots that the arming created; None while the server is down.
    Raises OperatorError ALREADY_PROMOTED when a promotion was already asked for, and what the token check raises.
    """
    with store.locked():
        # Waits for a waiter that is deciding right now; afterwards its state says how it decided.
        check_token(store.read(), token)
        record = store.read_waiter()
        if record is None:
            return False, None
        if _asked(record) or (record["state"] == "promoted" and record["token"] == token):
            raise _promotion_requested(record)
        if record["token"] != token:
            # Of an operation that is over, or was overtaken: its token is spent, so it cannot promote any more.
            _end_process(record)
            return False, record
        changed = record["state"] != "disarmed" or waiter_lives(record)
        record["state"] = "disarmed"
        store.write_waiter(record)
        # From here on a waiter that wakes up finds its state changed, before it could ask for a promotion.
        _end_process(record)
        if address:
            dropped = drop_unused_slots(address, record["slots_created"])
            changed = changed or bool(dropped)
            record["slots_created"] = [name for name in record["slots_created"] if name not in dropped]
            store.write_waiter(record)
    return changed, record


def _asked(record: dict[str, Any]) -> bool:
    """A promotion was asked for of which nobody has seen the end. One that failed after it had asked has asked."""
    return record["state"] in ("promoting", "failed") and bool(record["times"].get("promote_called"))


def _promotion_requested(record: dict[str, Any]) -> OperatorError:
    return OperatorError(
        "ALREADY_PROMOTED",
        f"The waiter has already asked for the promotion (state {record['state']}).",
        "Nothing can be undone any more: run the same command again to finish.",
        {"waiter": record},
    )


def _end_process(record: dict[str, Any] | None) -> None:
    if not waiter_lives(record):
        return
    pid = record["pid"]  # type: ignore[index]
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while waiter_lives(record):
        if time.monotonic() > deadline:
            raise OperatorError("WAITER_ALIVE", f"The waiter (process {pid}) cannot be ended.", "Look at that process.")
        time.sleep(0.005)


def _detach(store: TokenStore, orders: Orders) -> str:
    """Start the waiter as a process of its own; "" once it waits, else what went wrong."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        try:
            # Its own session: the end of the ssh connection must not reach it. Forked twice: it has no parent
            # that would have to wait for it, and no way to a terminal.
            os.setsid()
            if os.fork() == 0:
                _become_daemon(store.waiter_log, writing)
                _Waiter(store, orders).run(writing)
        except BaseException as error:  # noqa: BLE001 - nothing may get back into the module's code
            os.write(2, f"waiter: {error!r}\n".encode())
        finally:
            # Never run the module's exit handlers, never return into its code.
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    answer = b""
    deadline = time.monotonic() + _READY_S
    while not answer.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reading], [], [], left)[0]:
            answer = b"it did not report in time\n"
            break
        piece = os.read(reading, 4096)
        if not piece:
            answer = b"it ended at once\n"
            break
        answer += piece
    os.close(reading)
    text = answer.decode("utf-8", "replace").strip()
    return "" if text == "waiting" else text


def _become_daemon(log: str, keep: int) -> None:
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    # Nothing inherited may stay open: ssh waits for the last holder of its pipes, and so does our own parent.
    # The descriptor to report on survives below and above.
    os.closerange(3, keep)
    os.closerange(keep + 1, max(keep + 2, min(os.sysconf("SC_OPEN_MAX"), 65536)))
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)


def _now() -> float:
    """Seconds that also pass while the machine is suspended: a deadline must not be slept through."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.time()


class _Waiter:
    """The process itself."""

    def __init__(self, store: TokenStore, orders: Orders) -> None:
        self._store = store
        self._orders = orders
        self._deadline = _now() + orders.deadline_s
        self._session: Session | None = None
        # A replay position that was seen before the present one: it is behind a whole record, and before the last.
        self._before = parse_lsn(orders.armed_lsn)
        self._replayed: int | None = None
        # When the upstream was first seen gone; None while it streams.
        self._gone_at: float | None = None
        # The position at which the last record was no proof, and when to look at it again all the same.
        self._refused_at: int | None = None
        self._ask_again = 0.0

    def run(self, report: int) -> None:
        """Wait, then promote; every way out leaves a final state in the record."""
        try:
            self._look()
            with self._store.locked():
                record = self._mine("arming")
                record.update(state="waiting", pid=os.getpid(), start_time=start_time(os.getpid()))
                self._store.write_waiter(record)
        except (OperatorError, SqlError, _CalledOff) as error:
            os.write(report, (str(error).replace("\n", " ") + "\n").encode())
            self._fail(str(error), "arming")
            return
        os.write(report, b"waiting\n")
        os.close(report)
        try:
            while _now() < self._deadline:
                position = self._look_again()
                proof = self._proof(position) if position else None
                if position and proof and self._promote(proof, position.replayed):
                    return
                time.sleep(_POLL_S)
            self._expire()
        except _CalledOff:
            return
        except Exception as error:  # noqa: BLE001 - whatever it was, the record must say so
            self._fail(f"{type(error).__name__}: {error}", "waiting", "promoting")

    def _mine(self, *states: str) -> dict[str, Any]:
        """This waiter's record, if it is still its own and in one of these states. Call it under the lock."""
        record = self._store.read_waiter()
        if (
            record is None
            or record["state"] not in states
            or record["token"] != self._orders.token
            or (record["pid"] not in (None, os.getpid()))
        ):
            raise _CalledOff("it was called off")
        return record

    def _ask(self, sql: str, timeout: float) -> str:
        if self._session is None:
            self._session = Session(self._orders.address, _ANSWER_S)
        try:
            return self._session.ask(sql, timeout)
        except SqlError:
            self._session = None
            raise

    def _look(self) -> _Position:
        answer = self._ask(_POLL, _ANSWER_S)
        in_recovery, received, replayed, receiver = answer.split("|")
        return _Position(
            in_recovery == "t",
            parse_lsn(received) if received else None,
            parse_lsn(replayed) if replayed else 0,
            receiver,
        )

    def _look_again(self) -> _Position | None:
        try:
            position = self._look()
        except SqlError:
            # It restarts, or its backends were ended: as long as the deadline allows, it may come back.
            time.sleep(0.05)
            return None
        if not position.in_recovery:
            raise RuntimeError("the candidate was promoted by somebody else")
        if self._replayed not in (None, position.replayed):
            self._before = max(self._before, self._replayed or 0)
        self._replayed = position.replayed
        if position.receiver in ("streaming", "hidden"):
            self._gone_at = None
        elif self._gone_at is None:
            self._gone_at = time.time()
        return position

    def _quiet(self, position: _Position) -> bool:
        """Nothing comes in any more, and what came in is replayed.

        As long as the receiver streams, the old primary's server lives: a checkpoint record of the same kind is
        also written at the end of a crash recovery, with a writable server behind it. The received position may be
        the smaller one (it restarts at a segment boundary), but nothing may be received and not yet replayed.
        """
        return position.receiver not in ("streaming", "hidden") and (position.received or 0) <= position.replayed

    def _proof(self, position: _Position) -> Record | None:
        """The record that allows the promotion, when it is the last thing there is."""
        if not self._quiet(position) or (position.replayed == self._refused_at and _now() < self._ask_again):
            return None
        orders = self._orders
        start = format_lsn(min(self._before, position.replayed))
        record, said = read_last_record(
            orders.pg_waldump,
            orders.data_directory,
            orders.timeline,
            start,
            position.replayed,
            orders.segment_size,
            30,
        )
        problem = shutdown_problem(
            record, orders.timeline, orders.armed_lsn, position.replayed, orders.segment_size, orders.page_size
        )
        if problem is None:
            return record
        # The same position should hold the same record: look at it again at once only when something new arrives.
        self._refused_at = position.replayed
        self._ask_again = _now() + _AGAIN_S
        self._note(
            evidence={
                "refused": problem,
                "replayed_lsn": format_lsn(position.replayed),
                "read_from": start,
                "pg_waldump": said,
            }
        )
        return None

    def _note(self, **fields: Any) -> None:
        with self._store.locked():
            record = self._mine("waiting")
            record.update(fields)
            self._store.write_waiter(record)

    def _promote(self, last: Record, replayed: int) -> bool:
        """Ask for the promotion, if everything still holds under the lock. True: the work is done."""
        orders = self._orders
        read_at = time.time()
        with self._store.locked():
            # Disarmed or replaced by a newer operation in the meantime: the other side holds the lock first, or
            # finds "promoting". There is no third order.
            record = self._mine("waiting")
            check_token(self._store.read(), orders.token)
            if _now() >= self._deadline:
                return False
            # The comparison once more, on what is true now: a receiver that came back may have brought records,
            # and then the one that was read is not the last any more.
            try:
                position = self._look()
            except SqlError:
                return False
            if not position.in_recovery or not self._quiet(position) or position.replayed != replayed:
                return False
            end = record_end(last.start, last.total_length, orders.segment_size, orders.page_size)
            record["evidence"] = {
                "record": f"{last.manager} {last.description.split(';')[0]}",
                "record_lsn": format_lsn(last.start),
                "record_end": format_lsn(end),
                "received_lsn": format_lsn(position.received) if position.received else None,
                "replayed_lsn": format_lsn(position.replayed),
                "timeline_old": orders.timeline,
            }
            record["times"].update(receiver_gone=self._gone_at, record_read=read_at, promote_called=time.time())
            record["state"] = "promoting"
            # Before the call: should this process die in between, nobody may believe that nothing was asked.
            self._store.write_waiter(record)
            self._ask(trigger.REQUEST, _ANSWER_S)
        self._see_writable(record)
        return True

    def _see_writable(self, record: dict[str, Any]) -> None:
        orders = self._orders
        if not trigger.see_through(lambda sql: self._ask(sql, _ANSWER_S), orders.data_directory, _PROMOTION_S):
            raise RuntimeError(f"the promotion was asked for and did not happen within {_PROMOTION_S:g} s")
        record["times"]["recovery_ended"] = time.time()
        # A commit on local disk: a synchronous standby that is not there yet must not hold up the proof.
        self._ask(
            "BEGIN READ WRITE; SET LOCAL synchronous_commit = local; SELECT txid_current(); COMMIT;", _PROMOTION_S
        )
        record["times"]["writable"] = time.time()
        timeline = self._ask("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8);", _ANSWER_S)
        record["evidence"]["timeline_new"] = int(timeline, 16)
        if record["evidence"]["timeline_new"] <= orders.timeline:
            raise RuntimeError(f"it is writable, but still on timeline {timeline}")
        gone = record["times"]["receiver_gone"]
        record["seconds_without_primary"] = round(record["times"]["writable"] - gone, 3) if gone else None
        record["state"] = "promoted"
        with self._store.locked():
            self._mine("promoting")
            self._store.write_waiter(record)

    def _expire(self) -> None:
        with self._store.locked():
            record = self._mine("waiting")
            record["state"] = "expired"
            record["error"] = "the old primary's last record did not arrive before the deadline"
            dropped = drop_unused_slots(self._orders.address, record["slots_created"])
            record["slots_created"] = [name for name in record["slots_created"] if name not in dropped]
            self._store.write_waiter(record)

    def _fail(self, why: str, *states: str) -> None:
        try:
            with self._store.locked():
                record = self._mine(*states)
                record.update(state="failed", error=why)
                self._store.write_waiter(record)
        except (_CalledOff, OperatorError) as error:
            os.write(2, f"waiter: {why}; {error}\n".encode())


class _CalledOff(Exception):
    """Somebody else has taken this waiter's record over; it has nothing left to do."""
