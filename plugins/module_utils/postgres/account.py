# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does a piece of work as the operating system user that owns an instance. Private to the collection."""

from __future__ import annotations

import json
import os
import pwd
import sys
from typing import Any, Callable

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError


def owner_of(data_directory: str) -> str:
    """The name of the account that owns the data directory. Raises OperatorError NO_DATA_DIRECTORY, WRONG_ACCOUNT."""
    try:
        uid = os.stat(data_directory).st_uid
    except OSError as error:
        raise OperatorError(
            "NO_DATA_DIRECTORY",
            f"The data directory {data_directory} cannot be looked at: {error.strerror}.",
            "Check data_directory, or name os_user when the directory does not exist yet.",
        ) from error
    if uid == 0:
        raise OperatorError(
            "WRONG_ACCOUNT",
            f"The data directory {data_directory} belongs to root; PostgreSQL refuses to run as root.",
            "Check data_directory.",
        )
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError as error:
        raise OperatorError(
            "WRONG_ACCOUNT", f"The owner of {data_directory} (uid {uid}) has no account on this host."
        ) from error


def run_as(os_user: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run `work` as os_user and return the dictionary that it returns.

    As root: in a forked child that has dropped root for good (groups, gid, uid, HOME), which sends its result
    back as JSON through a pipe; the parent stays root, so that it can clean up after itself. As os_user: in place.
    Raises the OperatorError that `work` raised, or WRONG_ACCOUNT. The child cannot import anything that is not
    loaded yet: the code of a module lies where only root can read it.
    """
    try:
        account = pwd.getpwnam(os_user)
    except KeyError as error:
        raise OperatorError(
            "WRONG_ACCOUNT", f"There is no account {os_user} on this host.", "Check os_user."
        ) from error
    if account.pw_uid == 0:
        raise OperatorError(
            "WRONG_ACCOUNT", "PostgreSQL does not run as root.", "Set os_user to the instance's account."
        )
    if os.geteuid() == account.pw_uid:
        _settle(account)
        return work()
    if os.geteuid() != 0:
        raise OperatorError(
            "WRONG_ACCOUNT",
            f"This runs as {_account_name()}, but the instance belongs to {os_user}.",
            f"Connect or become root or {os_user}.",
        )
    return _in_child(account, work)


def _account_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"


def _settle(account: pwd.struct_passwd) -> None:
    os.environ.update(HOME=account.pw_dir, USER=account.pw_name, LOGNAME=account.pw_name)
    # The directory that we were started in may not be readable for this account: every program would complain.
    os.chdir("/")
    os.umask(0o077)


def _in_child(account: pwd.struct_passwd, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            os.initgroups(account.pw_name, account.pw_gid)
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
            _settle(account)
            answer: dict[str, Any]
            try:
                answer = {"result": work()}
            except OperatorError as error:
                answer = {"error": error.as_result()}
            except Exception:  # noqa: BLE001 - the parent shows it
                import traceback  # slow to import, and hardly ever needed

                answer = {"crash": traceback.format_exc()}
            with os.fdopen(writing, "wb") as stream:
                stream.write(json.dumps(answer).encode("utf-8"))
            status = 0
        finally:
            # _exit: the parent's exit handlers (temporary files, buffers) are the parent's to run.
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        raw = stream.read()
    os.waitpid(child, 0)
    answer = json.loads(raw.decode("utf-8")) if raw else {"crash": "the process that ran as the OS user ended silently"}
    if "error" in answer:
        said = answer["error"]
        raise OperatorError(said["code"], said["reason"], said["next_step"], said["evidence"])
    if "crash" in answer:
        raise RuntimeError(answer["crash"])
    return answer["result"]
