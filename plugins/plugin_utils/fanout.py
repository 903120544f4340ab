# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many questions at once, each in a process of its own. Private to the collection.

A process can be killed whatever it hangs in: connection plugins have no time limit over all they do (ssh's
ConnectTimeout ends with the banner; a frozen sshd, or a multiplexing master whose network went away, waits for ever).
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import signal
import time
import typing as t

from ansible.utils.display import Display

# More processes at a time would cost more memory than the time is worth; the rest waits for its turn.
AT_ONCE = 200

Question = t.Callable[[], dict[str, t.Any]]
Answer = dict[str, t.Any] | None


def fan_out(
    questions: t.Mapping[str, Question],
    limit_s: float,
    on_answer: t.Callable[[str, Answer], None] = lambda _key, _answer: None,
) -> dict[str, Answer]:
    """Run all questions; the answer for each key, None where none came within *limit_s* seconds of its start.

    An answer is what json can carry. A question that raises is answered by {"crash": text}.
    on_answer: told each key and answer at once, while other questions are still under way; what it raises ends them all.
    """
    waiting = list(questions.items())[::-1]
    answers: dict[str, Answer] = dict.fromkeys(questions)
    running: dict[int, _Child] = {}
    # One garbage collection less to unshare the memory of hundreds of children.
    gc.freeze()
    try:
        with selectors.DefaultSelector() as selector:
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
                    on_answer(child.key, answers[child.key])
    finally:
        for child in running.values():
            child.end()
        gc.unfreeze()
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
    def start(cls, key: str, question: Question, limit_s: float) -> _Child:
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

    def answer(self) -> Answer:
        """What it said; None when it was cut short."""
        try:
            answer: dict[str, t.Any] = json.loads(self._received)
            return answer
        except ValueError:
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


def _be_child(question: Question, writing: int, limit_s: float) -> t.NoReturn:
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
            answer = {"crash": f"{type(error).__name__}: {error}"}
        with os.fdopen(writing, "wb") as stream:
            stream.write(json.dumps(answer).encode())
    finally:
        os._exit(0)
