# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""postmaster.pid: is there a postmaster, and is it the one of this data directory? Private to the collection.

The file's lines are those of src/include/utils/pidfile.h: pid, data directory, start time, port, first socket
directory, first listen address, shared memory key, status.
"""

from __future__ import annotations

import os
from typing import NamedTuple

_PROGRAMS = ("postgres", "postmaster")


class Postmaster(NamedTuple):
    """A live postmaster. port is 0 and the texts are empty while it has not written them yet."""

    pid: int
    data_directory: str
    port: int
    socket_directory: str
    listen_address: str
    status: str


def find_postmaster(data_directory: str) -> Postmaster | None:
    """The live postmaster of that data directory, or None (no file, or a stale one).

    A pid alone proves nothing: after a crash or a reboot it may belong to any other process. A postmaster's
    working directory is its data directory, so /proc decides; without /proc a living pid counts as the
    postmaster, which is the careful answer for everything that is decided from it.
    """
    lines = _lines(os.path.join(data_directory, "postmaster.pid"))
    pid = _number(lines[0]) if lines else 0
    # A stand-alone backend writes its pid negated; it holds the directory just the same.
    if not pid or not is_postmaster_of(abs(pid), data_directory):
        return None
    lines += [""] * (8 - len(lines))
    return Postmaster(abs(pid), lines[1], _number(lines[3]), lines[4], lines[5], lines[7].strip())


def is_postmaster_of(pid: int, data_directory: str) -> bool:
    """True while process `pid` lives and works in that data directory."""
    if not process_lives(pid):
        return False
    if not os.path.isdir("/proc/self"):
        return True
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as stream:
            if stream.read().strip() not in _PROGRAMS:
                return False
        return os.path.samefile(os.readlink(f"/proc/{pid}/cwd"), data_directory)
    except PermissionError:
        # Not ours: a postmaster of this data directory runs as the directory's owner, which is who we are.
        return False
    except OSError:
        return process_lives(pid)


def process_lives(pid: int) -> bool:
    """True while a process of that id exists and is not a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _stat_field(pid, 0) not in ("Z", "X")


def start_time(pid: int) -> str:
    """When the process started, in the kernel's clock ticks (text, to be compared only); empty when it is gone.

    Together with the pid it names one process for ever: pids are used again, start times are not.
    """
    return _stat_field(pid, 19)


def leftovers(data_directory: str) -> list[dict[str, object]]:
    """Processes of PostgreSQL that work in that data directory: [{"pid", "parent", "title"}].

    Shows what a shutdown waits for (a process title names the walsender's client) and the orphans of a
    postmaster that was killed: those can still write.
    """
    found: list[dict[str, object]] = []
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return found
    for pid in pids:
        if is_postmaster_of(pid, data_directory):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as stream:
                    title = stream.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
            except OSError:
                continue
            found.append({"pid": pid, "parent": _number(_stat_field(pid, 1)), "title": title})
    return found


def socket_holder(socket_directory: str, port: int) -> tuple[int, str] | None:
    """(pid, data directory) of the live server that owns this socket, by the socket's lock file, or None."""
    lines = _lines(os.path.join(socket_directory, f".s.PGSQL.{port}.lock"))
    pid = abs(_number(lines[0])) if lines else 0
    if not pid or not process_lives(pid):
        return None
    return pid, lines[1] if len(lines) > 1 else ""


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read().split("\n")
    except OSError:
        return []


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return 0


def _stat_field(pid: int, index: int) -> str:
    """Field `index` of /proc/<pid>/stat, counted from the state, which follows the name in parentheses; "" if gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            # A process may call itself ") R 1": only the last parenthesis ends the name.
            return stream.read().rpartition(")")[2].split()[index]
    except (OSError, IndexError):
        return ""
