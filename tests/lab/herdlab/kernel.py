# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Linux namespaces and mounts, as far as the lab needs them (namespaces(7), mount(2), pivot_root(2))."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

NEW_MOUNT = 0x00020000
NEW_HOSTNAME = 0x04000000
NEW_IPC = 0x08000000
NEW_PID = 0x20000000
NEW_NETWORK = 0x40000000

READ_ONLY = 1
REMOUNT = 32
BIND = 4096
RECURSIVE = 16384
PRIVATE = 1 << 18
DETACH = 2
# Mount flags as mountinfo names them: a remount must repeat those it wants to keep.
_FLAGS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "noatime": 1024, "nodiratime": 2048, "relatime": 1 << 21}

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Leave the given namespaces for new ones; a new PID namespace starts with the next child."""
    _check(_libc.unshare(flags), "unshare")


def join(descriptor: int) -> None:
    """Join the namespace that this descriptor (of /proc/PID/ns/… or a named network) stands for."""
    _check(_libc.setns(descriptor, 0), "setns")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), options.encode() or None
    )
    _check(result, f"mount of {source} on {target}")


def unmount_later(target: str) -> None:
    """Take a mount out of the tree now; it ends when the last user is gone."""
    _check(_libc.umount2(target.encode(), DETACH), f"umount of {target}")


def tmpfs(target: str, mode: str = "0755") -> None:
    """An empty file system in memory on a directory."""
    mount("tmpfs", target, "tmpfs", 0, f"mode={mode}")


def mounts() -> list[tuple[str, int]]:
    """Every mount of this namespace: where, and its flags as mount(2) wants them."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields = line.split()
        where = fields[4].encode().decode("unicode_escape")
        found.append((where, sum(_FLAGS.get(option, 0) for option in fields[5].split(","))))
    return found


def namespaces_of(pid: int) -> list[int]:
    """Descriptors of a process' namespaces, in the order in which to join them (mount last: it changes all paths)."""
    kinds = ("ipc", "uts", "net", "pid", "mnt")
    return [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds]


def run_in(pid: int, work: Callable[[], int]) -> int:
    """Do work in the namespaces of a process and return its exit status.

    It is done in a child of a child: the one in between moves to the namespaces, and a PID namespace begins with the
    next process. All share the terminal and the process group: keys reach the work as they would without the lab.
    """

    def move() -> int:
        directory = os.getcwd()
        for descriptor in namespaces_of(pid):
            join(descriptor)
            os.close(descriptor)
        with suppress(OSError):
            os.chdir(directory)
        return _child(work)

    return _child(move)


def _child(work: Callable[[], int]) -> int:
    child = os.fork()
    if child == 0:
        leave(work)
    return _wait(child)


def leave(work: Callable[[], int]) -> NoReturn:
    """Do work as the last thing in a forked child; its result is the exit status."""
    status = 1
    try:
        status = work()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 -- a forked child must never return into its parent's code
        import traceback

        traceback.print_exc()
    finally:
        import sys

        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _wait(child: int) -> int:
    """Wait for a child that shares our terminal; passes on what only we were sent."""

    def forward(number: int, _frame: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, forward)
    # The terminal sends these to the whole group: the child decides what they mean.
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    while True:
        _pid, status = os.waitpid(child, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            os.kill(os.getpid(), signal.SIGSTOP)
            os.kill(child, signal.SIGCONT)
            continue
        return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
