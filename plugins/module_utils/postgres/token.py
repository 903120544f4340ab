# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operation token of an instance, mirrored on its own host. Private to the collection.

`~os_user/.elephaas/<system identifier>-<port>.json`: which operation may change this instance. It outlives the
registry and the controller. Every change happens under a lock of the file system (flock), which dies with its
holder, and is atomic (rename): a reader never sees half a record.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from typing import Any, Iterator

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.mirror import is_failover, kept_failover

_LOCK_WAIT_S = 10.0


class TokenStore:
    """The record of one instance. Times are seconds since 1970 of this host's clock.

    A record: {"token": int, "operation": {...}, "authority": str, "lease_s": int, "closed": None|"done"|"aborted",
    "claimed_at": float, "lease_until": float, "last_failover": a record or None (see decide/mirror.py)}.
    """

    def __init__(self, home: str, system_identifier: str, port: int) -> None:
        self.directory = os.path.join(home, ".elephaas")
        stem = os.path.join(self.directory, f"{system_identifier}-{port}")
        self._record = f"{stem}.json"
        self._lock = f"{stem}.lock"
        self.waiter_file = f"{stem}.waiter.json"
        self.waiter_log = f"{stem}.waiter.log"
        self.server_log = f"{stem}.server.log"
        self._isolated = f"{stem}.isolated.json"
        self._archiving = f"{stem}.archiving.json"

    def prepare(self) -> None:
        """Make the directory. Raises OperatorError STATE_DIRECTORY."""
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> OperatorError:
        return OperatorError(
            "STATE_DIRECTORY",
            f"{error.filename or self.directory} cannot be written: {error.strerror}.",
            "The operation's token is kept there: give the instance's account a home directory with room in it.",
        )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the instance's lock. Raises OperatorError STATE_LOCKED after 10 s, STATE_DIRECTORY."""
        self.prepare()
        try:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._failed(error) from error
        try:
            deadline = time.monotonic() + _LOCK_WAIT_S
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError as error:
                    if error.errno not in (errno.EWOULDBLOCK, errno.EINTR):
                        raise self._failed(error) from error
                if time.monotonic() > deadline:
                    raise OperatorError(
                        "STATE_LOCKED",
                        f"{self._lock} is held by another process.",
                        "A promotion or another run works on this instance: look at it and try again.",
                    )
                time.sleep(0.01)
            yield
        finally:
            os.close(descriptor)

    def read(self) -> dict[str, Any] | None:
        """The record, or None when nothing was ever claimed. Raises OperatorError STATE_DIRECTORY."""
        return self._load(self._record)

    def write(self, record: dict[str, Any]) -> None:
        """Replace the record; durable when this returns. Call it under the lock."""
        self._save(self._record, record, durable=True)

    def read_waiter(self) -> dict[str, Any] | None:
        """What the last waiter wrote, or None."""
        return self._load(self.waiter_file)

    def write_waiter(self, record: dict[str, Any]) -> None:
        """Replace the waiter's record; atomic, not flushed: it means nothing after the host itself went down."""
        self._save(self.waiter_file, record, durable=False)

    def read_isolated(self) -> dict[str, Any] | None:
        """The connection settings that were taken from a member when its primary was lost; they can hold a password."""
        return self._load(self._isolated)

    def write_isolated(self, settings: dict[str, Any]) -> None:
        """Keep them until it follows somebody again; durable, because the server's own files no longer have them."""
        self._save(self._isolated, settings, durable=True)

    def forget_isolated(self) -> None:
        """It follows somebody again."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._isolated)

    def read_archiving(self) -> dict[str, str] | None:
        """What ALTER SYSTEM had set of archiving before it was switched off; None when it was not. May hold credentials."""
        return self._load(self._archiving)

    def write_archiving(self, settings: dict[str, str]) -> None:
        """Keep it, readable by the instance's account alone, as where it stood."""
        self._save(self._archiving, settings, durable=True)

    def forget_archiving(self) -> None:
        """It is back where it stood."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._archiving)

    def _load(self, path: str) -> dict[str, Any] | None:
        try:
            with open(path, encoding="utf-8") as stream:
                return json.load(stream)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed(error) from error
        except ValueError as error:
            raise OperatorError(
                "STATE_DIRECTORY",
                f"{path} is damaged.",
                "See which operation is open for this instance, then remove the file.",
            ) from error

    def _save(self, path: str, record: dict[str, Any], durable: bool) -> None:
        self.prepare()
        temporary = f"{path}.{os.getpid()}.tmp"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                # All of it: a full disk takes a part, and a record that is cut short would stop every verb.
                left = json.dumps(record, sort_keys=True).encode("utf-8")
                while left:
                    left = left[os.write(descriptor, left) :]
                if durable:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.rename(temporary, path)
            if durable:
                fsync_directory(self.directory)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise self._failed(error) from error


def fsync_directory(path: str) -> None:
    """Make a rename, creation or removal in `path` survive a crash of the host."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _describe(record: dict[str, Any]) -> str:
    operation = record["operation"]
    lease = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(record["lease_until"]))
    return (
        f"token {record['token']}: {operation.get('verb') or 'an operation'} "
        f"by {operation.get('operator') or 'unknown'}, "
        f"plan {operation.get('plan_id') or 'unknown'}, lease until {lease}"
    )


def check_claim(
    record: dict[str, Any] | None, token: int, operation: dict[str, Any], authority: str, takeover: bool, now: float
) -> bool:
    """May this claim be made over that record? True: it is the same claim again; False: a new one.

    A token must be greater than the stored one: an older run that wakes up late must find its token spent.
    With authority=host nobody hands out tokens in order, so there a live claim of someone else also stands.
    Raises OperatorError TOKEN_STALE, TOKEN_CLOSED, OPERATION_HELD, OPERATION_OPEN.
    """
    if record is None:
        return False
    stored = record["token"]
    # Without the registry two runs can come to the same token, and of the same plan they have the same id: the number
    # that each run makes up for itself tells them apart.
    same = [operation.get(key) == record["operation"].get(key) for key in ("plan_id", "run")]
    if token == stored and all(same):
        if record["closed"]:
            raise OperatorError(
                "TOKEN_CLOSED",
                f"The operation of token {token} was already closed here ({record['closed']}).",
                "Begin a new operation.",
                {"stored": record},
            )
        return True
    if token <= stored:
        raise OperatorError(
            "TOKEN_STALE",
            f"Token {token} is too old here: {_describe(record)}.",
            "Another operation has taken over. Run the command again to look at the situation afresh.",
            {"stored": record},
        )
    finished = record["token"] <= operation.get("over", 0)
    if is_failover(record) and not record["closed"] and not finished and operation.get("verb") != "failover":
        raise OperatorError(
            "OPERATION_OPEN",
            f"A failover is not finished on this instance, {_describe(record)}.",
            "Finish it first, by the same command that began it.",
            {"stored": record},
        )
    if authority == "host" and not record["closed"] and record["lease_until"] > now and not takeover:
        raise OperatorError(
            "OPERATION_HELD",
            f"Another operation is open on this instance, {_describe(record)}.",
            "Wait until it ends or its lease runs out; take it over only when you know that its run is dead.",
            {"stored": record},
        )
    return False


def check_token(record: dict[str, Any] | None, token: int | None) -> dict[str, Any]:
    """The record, if `token` is the open operation's. Raises OperatorError TOKEN_MISSING, TOKEN_STALE, TOKEN_CLOSED."""
    if token is None:
        raise OperatorError(
            "TOKEN_MISSING",
            "This can do harm and was called without an operation's token.",
            "Run it through the playbook, which plans, asks and claims a token first.",
        )
    if record is None:
        raise OperatorError(
            "TOKEN_MISSING", f"Token {token} was never claimed on this host.", "Claim it with operation_token first."
        )
    if record["token"] != token:
        raise OperatorError(
            "TOKEN_STALE",
            f"Token {token} is not the current one here: {_describe(record)}.",
            "Another operation has taken over. Run the command again to look at the situation afresh.",
            {"stored": record},
        )
    if record["closed"]:
        raise OperatorError(
            "TOKEN_CLOSED",
            f"The operation of token {token} was closed here ({record['closed']}).",
            "Begin a new operation.",
            {"stored": record},
        )
    return record


def claim(
    store: TokenStore,
    token: int,
    operation: dict[str, Any],
    lease_s: int,
    authority: str,
    takeover: bool,
    write: bool,
) -> tuple[bool, dict[str, Any]]:
    """Claim the instance for an operation: (is it new?, the record). With write=False only checks.

    Raises what check_claim raises.
    """
    if not write:
        now = time.time()
        again = check_claim(store.read(), token, operation, authority, takeover, now)
        return not again, _record(token, operation, lease_s, authority, now)
    # Read, decide and write under one lock: of two claims at once exactly one sees the other's record.
    with store.locked():
        now = time.time()
        present = store.read()
        again = check_claim(present, token, operation, authority, takeover, now)
        record = _record(token, operation, lease_s, authority, now)
        record["last_failover"] = kept_failover(present)
        if again and present:
            record["claimed_at"] = present["claimed_at"]
            record["last_failover"] = present.get("last_failover")
        store.write(record)
        return not again, record


def _record(token: int, operation: dict[str, Any], lease_s: int, authority: str, now: float) -> dict[str, Any]:
    return {
        "token": token,
        "operation": operation,
        "authority": authority,
        "lease_s": lease_s,
        "closed": None,
        "claimed_at": now,
        "lease_until": now + lease_s,
        "last_failover": None,
    }


def renew(store: TokenStore, token: int | None, write: bool) -> dict[str, Any]:
    """Check the token of a harmful verb and, when writing, extend the lease. Raises what check_token raises."""
    if not write:
        return check_token(store.read(), token)
    with store.locked():
        record = check_token(store.read(), token)
        record["lease_until"] = time.time() + record["lease_s"]
        store.write(record)
        return record


def release(store: TokenStore, token: int, outcome: str, write: bool) -> tuple[bool, dict[str, Any] | None]:
    """Close the operation: (did that change anything?, the record). Raises OperatorError TOKEN_STALE, TOKEN_CLOSED.

    Nothing claimed here: nothing to close. The record stays: an older token must still be refused afterwards.
    """
    if not write:
        return _may_release(store.read(), token, outcome)
    with store.locked():
        changed, record = _may_release(store.read(), token, outcome)
        if changed and record:
            record["closed"] = outcome
            store.write(record)
        return changed, record


def _may_release(record: dict[str, Any] | None, token: int, outcome: str) -> tuple[bool, dict[str, Any] | None]:
    if record is None or (record["token"] == token and record["closed"] == outcome):
        return False, record
    return True, check_token(record, token)
