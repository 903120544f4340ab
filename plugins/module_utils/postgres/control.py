# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts and stops an instance, through pg_ctl or Debian's pg_ctlcluster. Private to the collection."""

from __future__ import annotations

import glob
import os
import shlex
import time
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.timelines import starts_on_its_upstreams_timeline
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.command import run
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.layout import find_layout
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.pidfile import (
    find_postmaster,
    is_postmaster_of,
    leftovers,
)
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.target import Target

# What a shell does not leave alone between double quotes.
_SHELL = frozenset('"$`\\\n')
_TAIL_BYTES = 4000
_TAIL_LINES = 20


def refuse_writable_start(facts: dict[str, Any]) -> None:
    """A replica without signal file starts as a second primary on the same timeline. Raises STARTS_WRITABLE."""
    if starts_on_its_upstreams_timeline(facts):
        raise OperatorError(
            "STARTS_WRITABLE",
            f'The instance in {facts["data_directory"]} was a replica ("{facts["control"]["state"]}") and has no '
            "standby.signal: it would start writable, on the timeline of its primary.",
            "Point it at its upstream with follow, which writes the signal file; or promote it once it runs.",
            {"state": facts["control"]["state"], "signal_files": facts["signal_files"]},
        )


def start(target: Target, log_file: str) -> dict[str, float]:
    """Start it and wait until it accepts connections: {"start_requested", "started"} (seconds since 1970).

    log_file: where pg_ctl sends what the server prints before (or without) its own logging.
    Raises OperatorError START_FAILED, with what the server has logged since.
    """
    layout = find_layout(target, None)
    marks = _log_sizes(target, log_file, layout.debian_cluster)
    seconds = str(int(target.timeout))
    environment = {}
    if layout.control_method == "pg_ctlcluster" and layout.debian_cluster:
        argv = ["pg_ctlcluster", *layout.debian_cluster, "start", "--", "-w", "-t", seconds]
    else:
        argv = [layout.program("pg_ctl"), "start", "-w", "-t", seconds, "-l", log_file]
        if _SHELL.isdisjoint(target.data_directory):
            # On the server's command line, where people and monitoring look for it.
            argv += ["-D", target.data_directory]
        else:
            # pg_ctl puts -D between double quotes into a shell's command line; PGDATA goes untouched by any shell.
            environment["PGDATA"] = target.data_directory
        if os.path.dirname(layout.config_file) != target.data_directory:
            argv += ["-o", f"-c config_file={shlex.quote(layout.config_file)}"]
    requested = time.time()
    done = run(argv, target.timeout + 10, environment, directory="/")
    # Not the exit status: it is 2 when somebody else was faster, and what counts is that this server is up.
    postmaster = find_postmaster(target.data_directory)
    if done.status not in (0, 2) or postmaster is None:
        raise OperatorError(
            "START_FAILED",
            f"{target.label} did not start: {_last_line(done.stderr or done.stdout)}",
            "See its log, of which the end is shown.",
            {"log_tail": _new_log_lines(target, log_file, layout.debian_cluster, marks)},
        )
    return {"start_requested": requested, "started": time.time()}


def stop(target: Target, mode: str, pid: int) -> dict[str, float]:
    """Stop it and see its postmaster gone: {"stop_requested", "stopped"} (seconds since 1970).

    mode: fast, smart or immediate. pid: its postmaster. Raises OperatorError STOP_TIMEOUT, STOP_FAILED.
    """
    layout = find_layout(target, None)
    options = ["-w", "-t", str(int(target.timeout))]
    environment = {}
    if layout.control_method == "pg_ctlcluster" and layout.debian_cluster:
        argv = ["pg_ctlcluster", "-m", mode, *layout.debian_cluster, "stop", "--", *options]
    else:
        argv = [layout.program("pg_ctl"), "stop", "-m", mode, *options]
        environment["PGDATA"] = target.data_directory
    requested = time.time()
    deadline = time.monotonic() + target.timeout
    done = run(argv, target.timeout + 10, environment, directory="/")
    # The control file says "shut down" while the postmaster still waits for a walsender, and postmaster.pid can
    # vanish a moment before its process: only a process that is gone cannot write any more.
    while is_postmaster_of(pid, target.data_directory) and time.monotonic() < deadline:
        time.sleep(0.02)
    if is_postmaster_of(pid, target.data_directory):
        held = [item for item in leftovers(target.data_directory) if item["parent"] == pid]
        raise OperatorError(
            "STOP_TIMEOUT",
            f"{target.label} is still shutting down after {target.timeout:g} s (process {pid}): "
            f"{_last_line(done.stderr or done.stdout)}",
            "It waits for the processes shown, such as the sender to a replica that hangs; it goes on shutting down.",
            {"pid": pid, "processes": held},
        )
    again = find_postmaster(target.data_directory)
    if again is not None:
        raise OperatorError(
            "STOP_FAILED",
            f"{target.label} was stopped, and somebody else has started it again (process {again.pid}).",
            "Find out what restarts it (a service with Restart=, a cluster manager), and switch that off first.",
        )
    return {"stop_requested": requested, "stopped": time.time()}


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def _logs(target: Target, log_file: str, debian: tuple[str, str] | None) -> list[str]:
    paths = [log_file]
    if debian:
        paths.append(f"/var/log/postgresql/postgresql-{debian[0]}-{debian[1]}.log")
    try:
        # Written by the logging collector: which file it writes to, one per destination.
        with open(
            os.path.join(target.data_directory, "current_logfiles"), encoding="utf-8", errors="replace"
        ) as stream:
            named = [line.rstrip("\n").partition(" ")[2] for line in stream]
    except OSError:
        named = []
    paths += [os.path.join(target.data_directory, name) for name in named]
    # A new start may open a new file in the default log_directory.
    paths += glob.glob(os.path.join(glob.escape(target.data_directory), "log", "*.log"))
    return paths


def _log_sizes(target: Target, log_file: str, debian: tuple[str, str] | None) -> dict[str, int]:
    sizes = {}
    for path in _logs(target, log_file, debian):
        try:
            sizes[path] = os.path.getsize(path)
        except OSError:
            continue
    return sizes


def log_since(target: Target, log_file: str, marks: dict[str, int]) -> list[str]:
    """What the server has logged since log_marks was taken, at most its last 20 lines."""
    return _new_log_lines(target, log_file, find_layout(target, None).debian_cluster, marks)


def log_marks(target: Target, log_file: str) -> dict[str, int]:
    """How long each log is now."""
    return _log_sizes(target, log_file, find_layout(target, None).debian_cluster)


def _new_log_lines(target: Target, log_file: str, debian: tuple[str, str] | None, marks: dict[str, int]) -> list[str]:
    lines: list[str] = []
    for path in dict.fromkeys(_logs(target, log_file, debian)):
        try:
            with open(path, "rb") as stream:
                end = stream.seek(0, os.SEEK_END)
                # Only what is new: older lines are of another start and may hold statements of users.
                stream.seek(max(marks.get(path, 0), end - _TAIL_BYTES))
                lines += stream.read().decode("utf-8", "replace").splitlines()
        except OSError:
            continue
    return lines[-_TAIL_LINES:]
