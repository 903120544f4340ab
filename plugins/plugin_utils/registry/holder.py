# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which process holds a lease, and whether it is certainly gone. Private to the collection."""

from __future__ import annotations

import os
import socket
from typing import Any


def _start_ticks(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; None when it is gone or this system has no /proc."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            # The command name, in parentheses, may hold spaces and parentheses itself: count from the last one.
            return stream.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _place() -> str:
    """What a process id is unique within: this boot and this process namespace; empty when unknown.

    The host name is not enough: two containers may share it and each have a process 42.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as stream:
            return f"{stream.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def this_holder(pid: int) -> dict[str, Any]:
    """Describe a process of this host: {"host", "pid", "start", "place"}."""
    return {"host": socket.gethostname(), "pid": pid, "start": _start_ticks(pid), "place": _place()}


def proven_dead(holder: dict[str, Any]) -> bool:
    """True only when the holder ran in this very place and is gone (or its number was given to another process)."""
    pid, start, place = holder.get("pid"), holder.get("start"), holder.get("place")
    if not isinstance(pid, int) or not start or not place or place != _place():
        return False
    return _start_ticks(pid) != start


def same_process(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether both describe one process; unknown is no."""
    keys = ("pid", "start", "place")
    return all(one.get(key) and one.get(key) == other.get(key) for key in keys)
