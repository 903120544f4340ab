# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's Python that stays for several jobs, one after the other. Private to the collection; controller only.

Most of what a job costs is the start of Python on its host, and reading our code there: a failover, in which one job
waits for the answer of the one before, would pay for that eight times over. Where the connection is OpenSSH and needs
no password, the process is started as Ansible's own ssh plugin would start it and fed line by line; it ends with the
connection. Everywhere else each job is a run of its own (remote.py), with the same results.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shlex
import signal
import subprocess
import tempfile
import time
import typing as t
from collections import defaultdict
from collections.abc import Mapping

from ansible.errors import AnsibleError
from ansible.playbook.play_context import PlayContext

from ansible_collections.elephaas.herd.plugins.plugin_utils.connect import (
    HOST_UNREACHABLE,
    Target,
    as_text,
    classify,
    last_line,
    load_plugins,
    open_connection,
)
from ansible_collections.elephaas.herd.plugins.plugin_utils.remote import (
    MARKER,
    NO_RESULT,
    PACKAGE,
    Job,
    Outcome,
    loader,
    lost,
    outcome_of,
    pack,
    packed,
    run_jobs,
)

# The first line of standard input is our code. What is in an argument list can be read by everybody on that host.
_BOOT = "import sys,zlib,base64,json;exec(json.loads(zlib.decompress(base64.b64decode(sys.stdin.buffer.readline()))))"

# Verbs are loaded before any job: a job runs in a child that has dropped root, and what it loads ends with it.
_LOOP = f"""
import {PACKAGE}.postgres.verbs, {PACKAGE}.postgres.readiness
for line in iter(sys.stdin.buffer.readline, b""):
    answer(line)
"""

# What ssh itself ends with when it has not run anything (ssh(1), "EXIT STATUS").
_SSH_FAILED = 255

OnOutcome = t.Callable[[str, Outcome], None]


class Sessions:
    """Runs jobs as remote.run_jobs does, in processes that stay until close(). timeout_s: for connecting."""

    def __init__(self, play_context: PlayContext, timeout_s: float) -> None:
        self._play_context = play_context
        self._timeout_s = timeout_s
        self._sessions: dict[str, _Session] = {}

    def run(
        self, jobs: Mapping[str, Job], limit_s: float, on_outcome: OnOutcome = lambda _name, _outcome: None
    ) -> dict[str, Outcome]:
        """Do all jobs; see remote.run_jobs. What on_outcome raises ends the waiting, and the sessions still at work."""
        targets = {job.target.key: job.target for job in jobs.values()}
        if not all(_stays(target) for target in targets.values()):
            return run_jobs(jobs, self._play_context, self._timeout_s, limit_s, on_outcome)
        load_plugins(targets.values(), self._play_context)
        by_host: dict[str, list[str]] = defaultdict(list)
        for name, job in jobs.items():
            by_host[job.target.key].append(name)
        outcomes: dict[str, Outcome] = {}
        working: dict[str, _Session] = {}
        try:
            for key, names in by_host.items():
                session = self._session(key, targets[key])
                working[key] = session
                session.ask(packed([jobs[name] for name in names]), time.monotonic() + self._timeout_s + limit_s)
            while working:
                for key in _answered(working):
                    said = working.pop(key).said
                    for place, name in enumerate(by_host[key]):
                        outcomes[name] = outcome_of(said, place)
                        on_outcome(name, outcomes[name])
        finally:
            # One that was not heard out cannot be asked anything else.
            for session in working.values():
                session.end()
        return {name: outcomes[name] for name in jobs}

    def _session(self, key: str, target: Target) -> _Session:
        known = self._sessions.get(key)
        if known is None or known.ended:
            self._sessions[key] = _Session(target, self._play_context, self._timeout_s)
        return self._sessions[key]

    def close(self) -> None:
        """End them all. One that is still at work goes on until it is done, as after any lost connection."""
        for session in self._sessions.values():
            session.end()
        self._sessions.clear()


def _stays(target: Target) -> bool:
    """Whether its connection is one that we know how to keep open: nothing has to be typed into it."""
    secret = ("password", "_pass", "become_pass")
    options = [*target.options, *target.become_options, *(key for key, value in target.task_keys.items() if value)]
    return target.plugin in ("ssh", "ansible.builtin.ssh") and not any(name.endswith(secret) for name in options)


class _Session:
    """One process, at one question at a time. said: the answer, once `finished`; deadline: by time.monotonic()."""

    def __init__(self, target: Target, play_context: PlayContext, timeout_s: float) -> None:
        self.said: dict[str, t.Any] = {}
        self.finished = False
        self.deadline = 0.0
        self._limit_s = 0.0
        self._received = b""
        self._unsent = b""
        self._python = target.python
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed by end(), or with this object
        self._process: subprocess.Popen[bytes] | None = None
        # Our ends of the pipes to its standard input and from its standard output.
        self._pipes: tuple[t.IO[bytes], t.IO[bytes]] | None = None
        try:
            self._start(_command(target, play_context, timeout_s))
        except (AnsibleError, OSError) as error:
            self._fail(*classify(str(error)))
        else:
            self._send(pack(loader() + _LOOP))

    def _start(self, argv: list[bytes]) -> None:
        # No terminal: ssh must not ask anybody anything. And a group of its own, which can be ended as a whole.
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, start_new_session=True, bufsize=0
        )
        self._process = process
        if process.stdin and process.stdout:
            os.set_blocking(process.stdin.fileno(), False)
            self._pipes = process.stdin, process.stdout

    @property
    def ended(self) -> bool:
        """Nothing can be asked any more."""
        return self._process is None or self._process.poll() is not None

    def ask(self, question: str, deadline: float) -> None:
        """Take a question; it is sent, and answered, while _answered() waits."""
        if self._process is None:
            return
        self.finished, self._received = False, b""
        self.deadline, self._limit_s = deadline, deadline - time.monotonic()
        self._send(question)

    def _send(self, line: str) -> None:
        # Sent while it is waited for: a host that does not read must not keep the others waiting.
        self._unsent += line.encode("ascii") + b"\n"

    def register(self, selector: selectors.BaseSelector) -> None:
        """Wait for its answer, and for room for what it has not been told yet."""
        if self._pipes is None:
            return
        selector.register(self._pipes[1], selectors.EVENT_READ, self._read)
        if self._unsent:
            selector.register(self._pipes[0], selectors.EVENT_WRITE, self._write)

    def _write(self, pipe: int) -> None:
        try:
            self._unsent = self._unsent[os.write(pipe, self._unsent) :]
        except BlockingIOError:
            return
        except OSError:
            # One that has ended meanwhile is met when its answer is read.
            self._unsent = b""

    def _read(self, pipe: int) -> None:
        part = os.read(pipe, 65536)
        self._received += part
        _noise, found, answers = self._received.rpartition(f"\n{MARKER}".encode())
        if found and answers.endswith(b"\n"):
            try:
                self.said = {"answers": json.loads(answers)}
            except ValueError:
                self._fail(NO_RESULT, "its answer was cut short")
            self.finished = True
        elif not part:
            self._explain()

    def give_up(self) -> None:
        """The time is over."""
        self._fail(HOST_UNREACHABLE, f"no answer within {self._limit_s:g} s")
        self.end()

    def _explain(self) -> None:
        """It ended without an answer: what it said instead."""
        status = self._process.wait() if self._process else None
        self._errors.seek(0)
        errors = as_text(self._errors.read())
        if status == _SSH_FAILED:
            self._fail(*classify(errors))
        else:
            said = last_line(errors) or last_line(as_text(self._received)) or f"exit status {status}"
            self._fail(NO_RESULT, f"its Python ({self._python}) did not run there: {said}")
        self.end()

    def _fail(self, code: str, reason: str) -> None:
        self.said, self.finished = lost(code, reason), True

    def end(self) -> None:
        """Leave nothing of it behind here. A multiplexing master that ssh put into the background has left the group."""
        if self._process is None:
            return
        for pipe in self._pipes or ():
            with contextlib.suppress(OSError):
                pipe.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = self._pipes = None
        self._errors.close()


def _command(target: Target, play_context: PlayContext, timeout_s: float) -> list[bytes]:
    """What Ansible's own ssh plugin would run for this host. Raises AnsibleError."""
    connection = open_connection(target, play_context, timeout_s)
    connection.host = connection.get_option("host") or play_context.remote_addr
    command = f"{shlex.quote(target.python)} -I -S -c {shlex.quote(_BOOT)}"
    if connection.become is not None:
        command = connection.become.build_become_command(command, connection._shell)
    argv: list[bytes] = connection._build_command(
        connection.get_option("ssh_executable"), "ssh", connection.host, command
    )
    return argv


def _answered(working: Mapping[str, _Session]) -> list[str]:
    """Wait until one of them has answered or has had its time; the keys of all that have."""
    while not any(session.finished for session in working.values()):
        with selectors.DefaultSelector() as selector:
            for session in working.values():
                session.register(selector)
            first_end = min(session.deadline for session in working.values())
            for event, _mask in selector.select(max(0.0, first_end - time.monotonic())):
                event.data(event.fd)
        for session in working.values():
            if not session.finished and time.monotonic() >= session.deadline:
                session.give_up()
    return [key for key, session in working.items() if session.finished]
