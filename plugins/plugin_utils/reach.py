# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts answer, all asked at once, each by its own connection settings. Private to the collection.

A dead site costs one timeout here, where a loop of tasks would pay one for every host on it. Every question runs in a
process of its own, which can be killed whatever it hangs in: connection plugins have no time limit over all they do
(ssh's ConnectTimeout ends with the banner; a frozen sshd, or a multiplexing master whose network went away, waits for
ever).
"""

from __future__ import annotations

import functools
import gc
import json
import os
import selectors
import shlex
import signal
import time
import typing as t
from dataclasses import asdict, dataclass

from ansible import constants as C
from ansible.errors import AnsibleAuthenticationFailure, AnsibleError
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader
from ansible.utils.display import Display

HOST_UNREACHABLE = "HOST_UNREACHABLE"
HOST_KEY_REFUSED = "HOST_KEY_REFUSED"
AUTH_REFUSED = "AUTH_REFUSED"
LOGIN_REFUSED = "LOGIN_REFUSED"

# What a host may take beyond the connection timeout to log in and answer. Starting ssh on a busy controller counts too.
GRACE_S = 2.0

# More processes at a time would cost more memory than the time is worth; the rest waits for its turn.
AT_ONCE = 200

# What a login shell prints by itself comes before this line.
_MARKER = "elephaas.herd is here"

# Texts of OpenSSH's client, which it never translates.
_HOST_KEY_TEXTS = ("Host key verification failed", "HOST IDENTIFICATION HAS CHANGED", "host key is known for")
_AUTH_TEXTS = ("Permission denied (", "Too many authentication failures", "No supported authentication methods")
_SSH_PREFIX = "Failed to connect to the host via ssh:"


@dataclass(frozen=True)
class Target:
    """How one host is connected to.

    plugin: name of the connection plugin. options: the host's variables that the plugin reads, already templated.
    task_keys: the task's own settings (remote_user, port …), which count where the variables say nothing.
    python: what is looked for as the host's Python.
    """

    plugin: str
    options: dict[str, t.Any]
    task_keys: dict[str, t.Any]
    python: str = "python3"

    @property
    def key(self) -> str:
        """Equal for targets that would be asked the very same question."""
        options = dict(self.options)
        if options.get("ansible_host") or options.get("ansible_ssh_host"):
            # The plugin falls back to it, and has no need to.
            options.pop("inventory_hostname", None)
        return json.dumps([self.plugin, self.python, options], sort_keys=True, default=repr)


@dataclass(frozen=True)
class Answer:
    """What became of it.

    error: in words, empty when reachable. code: one of those above, or None.
    seconds: how long it took. user: whom the host knows us as. python: path of its Python, None when there is none.
    """

    reachable: bool
    error: str
    seconds: float
    code: str | None = None
    user: str | None = None
    python: str | None = None


def reach(targets: t.Mapping[str, Target], play_context: PlayContext, timeout_s: float) -> dict[str, Answer]:
    """Ask all targets at once; returns an answer for each name, within about one timeout (per 200 targets).

    Names with equal targets share one question.
    """
    distinct = {target.key: target for target in targets.values()}
    # One garbage collection less to unshare the memory of hundreds of children.
    gc.freeze()
    try:
        answers = _fan_out(
            {key: functools.partial(_ask, target, play_context, timeout_s) for key, target in distinct.items()},
            timeout_s + GRACE_S,
        )
    finally:
        gc.unfreeze()
    late = Answer(False, f"no answer within {timeout_s:g} s", timeout_s + GRACE_S, HOST_UNREACHABLE)
    return {name: answers[target.key] or late for name, target in targets.items()}


def _ask(target: Target, play_context: PlayContext, timeout_s: float) -> Answer:
    started = time.monotonic()
    try:
        status, output, errors = _run(target, play_context, timeout_s)
    except AnsibleError as error:
        code, text = classify(str(error), isinstance(error, AnsibleAuthenticationFailure))
        return Answer(False, text, _since(started), code)
    lines = output.partition(_MARKER)[2].split("\n")[1:]
    if status != 0 or not lines or not lines[0]:
        text = last_line(errors) or last_line(output) or "it closed the session"
        return Answer(False, f"the login is refused: {text}", _since(started), LOGIN_REFUSED)
    python = lines[1] if len(lines) > 1 and lines[1] else None
    return Answer(True, "", _since(started), None, lines[0], python)


def _run(target: Target, play_context: PlayContext, timeout_s: float) -> tuple[int, str, str]:
    """Log in and look. Raises AnsibleError as connection plugins do."""
    connection = connection_loader.get(
        target.plugin, play_context, new_stdin=None, ansible_playbook_pid=str(os.getppid())
    )
    if connection is None:
        raise AnsibleError(f"there is no connection plugin {target.plugin}")
    connection.set_become_plugin(None)
    connection.set_options(task_keys=target.task_keys, var_options=target.options)
    for option, value in (("timeout", max(1, round(timeout_s))), ("reconnection_retries", 0)):
        if option in C.config.get_configuration_definitions("connection", connection._load_name):
            connection.set_option(option, value)
    look = f"echo {shlex.quote(_MARKER)}; id -un; command -v {shlex.quote(target.python)} || true"
    # A connection plugin takes one string for the user's login shell, which may be none of POSIX's.
    status, output, errors = connection.exec_command(f"/bin/sh -c {shlex.quote(look)}", sudoable=False)
    return status, _text(output), _text(errors)


def classify(message: str, authentication: bool = False) -> tuple[str, str]:
    """The code for a connection plugin's error, and its last line in words."""
    text = message.partition(_SSH_PREFIX)[2] if _SSH_PREFIX in message else message
    said = last_line(text) or "it cannot be reached"
    if any(part in text for part in _HOST_KEY_TEXTS):
        return HOST_KEY_REFUSED, f"its host key is unknown or has changed: {said}"
    if authentication or any(part in text for part in _AUTH_TEXTS):
        return AUTH_REFUSED, f"it does not accept our key or password: {said}"
    return HOST_UNREACHABLE, said


def last_line(text: str) -> str:
    """The last line that holds something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _text(value: t.Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)


def _fan_out(questions: dict[str, t.Callable[[], Answer]], limit_s: float) -> dict[str, Answer | None]:
    """Run each question in a process of its own; None where none came within *limit_s* seconds of its start."""
    waiting = list(reversed(questions.items()))
    answers: dict[str, Answer | None] = dict.fromkeys(questions)
    running: dict[int, _Child] = {}
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or running:
                while waiting and len(running) < AT_ONCE:
                    key, question = waiting.pop()
                    child = _Child.start(key, question, limit_s)
                    running[child.pipe] = child
                    selector.register(child.pipe, selectors.EVENT_READ)
                first_end = min(child.deadline for child in running.values())
                for event, _mask in selector.select(max(0.0, first_end - time.monotonic())):
                    running[event.fd].read()
                now = time.monotonic()
                for child in [child for child in running.values() if child.finished or now >= child.deadline]:
                    answers[child.key] = child.answer()
                    selector.unregister(child.pipe)
                    del running[child.pipe]
                    child.end()
        finally:
            for child in running.values():
                child.end()
    return answers


class _Child:
    """A forked process with one question, in a process group with everything that it starts."""

    def __init__(self, key: str, pid: int, pipe: int, deadline: float) -> None:
        self.key = key
        self.pid = pid
        self.pipe = pipe
        self.deadline = deadline
        self.finished = False
        self._received = b""

    @classmethod
    def start(cls, key: str, question: t.Callable[[], Answer], limit_s: float) -> _Child:
        reading, writing = os.pipe()
        deadline = time.monotonic() + limit_s
        pid = os.fork()
        if pid == 0:
            _be_child(question, writing, limit_s)
        os.close(writing)
        return cls(key, pid, reading, deadline)

    def read(self) -> None:
        part = os.read(self.pipe, 65536)
        self._received += part
        self.finished = not part

    def answer(self) -> Answer | None:
        """What it said; None when it was cut short."""
        try:
            return Answer(**json.loads(self._received))
        except (ValueError, TypeError):
            return None

    def end(self) -> None:
        """Leave nothing of it behind. A multiplexing master that ssh put into the background has left the group."""
        os.close(self.pipe)
        for kill in (os.killpg, os.kill):
            try:
                kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # not yet the leader of its group, or gone
        os.waitpid(self.pid, 0)


def _be_child(question: t.Callable[[], Answer], writing: int, limit_s: float) -> t.NoReturn:
    """The whole life of a child. Never returns."""
    try:
        # No terminal: ssh must not ask anybody anything.
        os.setsid()
        # Should the parent be killed, nobody else would end what hangs here.
        signal.signal(signal.SIGALRM, lambda _number, _frame: os.killpg(0, signal.SIGKILL))
        signal.alarm(max(1, round(limit_s)) + 1)
        # The parent kills us at any time. Were we just then writing to the queue that all workers of this Ansible
        # share, its lock would never be released.
        display = Display()
        display._final_q = None
        display.verbosity = 0
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nowhere, standard)
        try:
            answer = question()
        except Exception as error:  # noqa: BLE001  # a plugin of anybody: it becomes the answer for its host
            answer = Answer(False, f"{type(error).__name__}: {error}", 0.0, HOST_UNREACHABLE)
        os.write(writing, json.dumps(asdict(answer)).encode())
    finally:
        os._exit(0)
