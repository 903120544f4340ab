# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first process of a lab: it holds the lab's namespaces and reaps. Kill it, however rudely, and the lab ends.

Everything the lab starts lives in its PID namespace or one nested in it, and the kernel ends those with their first
process. The state folder in its arguments is how a lab is found again: no file can be stale that way.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

RUN = Path("/run/herdlab")


def find(state: Path) -> int | None:
    """The process id of the lab with this state folder, or None when there is none."""
    # Of any checkout: what one has brought up, another one must find in its way, and be able to end.
    program = os.fsencode("/".join(Path(__file__).parts[-2:]))
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            arguments = (entry / "cmdline").read_bytes().split(b"\0")[-3:-1]
            if len(arguments) < 2 or not arguments[0].endswith(b"/" + program) or arguments[1] != os.fsencode(state):
                continue
            # The process before it is ready has the same arguments for a moment, but is not the first of its namespace.
            for line in (entry / "status").read_text(encoding="utf-8").splitlines():
                if line.startswith("NSpid:") and line.split()[-1] == "1":
                    return int(entry.name)
    return None


def start(state: Path, log: Path, timeout: float = 10.0) -> int:
    """Start a lab's first process, detached from this one, in namespaces of its own; returns its process id."""
    from . import kernel
    from .errors import LabError

    def outer() -> int:
        os.setsid()
        kernel.unshare(kernel.NEW_MOUNT | kernel.NEW_HOSTNAME | kernel.NEW_IPC | kernel.NEW_PID | kernel.NEW_NETWORK)
        if os.fork() == 0:
            kernel.leave(inner)
        return 0

    def inner() -> int:
        with open(os.devnull, "rb") as nothing, log.open("ab") as output:
            os.dup2(nothing.fileno(), 0)
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        os.closerange(3, 4096)
        os.chdir("/")
        # First of all: what is mounted from here on must not show on the machine.
        kernel.mount("none", "/", flags=kernel.RECURSIVE | kernel.PRIVATE)
        kernel.mount("proc", "/proc", "proc")
        for directory, mode in (("/run", "0755"), ("/dev/shm", "1777")):
            kernel.tmpfs(directory, mode)
        RUN.mkdir()
        os.execv(sys.executable, [sys.executable, "-I", "-S", __file__, str(state)])

    child = os.fork()
    if child == 0:
        kernel.leave(outer)
    os.waitpid(child, 0)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        pid = find(state)
        if pid is not None:
            return pid
        time.sleep(0.02)
    raise LabError(f"the lab's first process did not start; see {log}")


def stop(state: Path, timeout: float = 30.0) -> bool:
    """End the lab with this state folder and wait until all of it is gone; False when there was none."""
    from .errors import LabError

    pid = find(state)
    if pid is None:
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + timeout
    while _lives(pid):
        if time.monotonic() > deadline:
            raise LabError(f"the lab (process {pid}) does not end")
        time.sleep(0.02)
    return True


def _lives(pid: int) -> bool:
    """Whether anything is left: the kernel ends the whole namespace before its first process even becomes a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def reap_forever() -> None:
    """Be the first process: collect what ended. Only SIGKILL from outside ends us, and with us everything."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        signal.sigwait({signal.SIGCHLD})


if __name__ == "__main__":
    reap_forever()
