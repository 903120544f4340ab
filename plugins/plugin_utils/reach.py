# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts answer, all asked at once, each by its own connection settings. Private to the collection.

A dead site costs one timeout here, where a loop of tasks would pay one for every host on it.
"""

from __future__ import annotations

import functools
import shlex
import time
import typing as t
from dataclasses import asdict, dataclass

from ansible.errors import AnsibleAuthenticationFailure, AnsibleError
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
from ansible_collections.elephaas.herd.plugins.plugin_utils.fanout import fan_out

LOGIN_REFUSED = "LOGIN_REFUSED"

# What a host may take beyond the connection timeout to log in and answer. Starting ssh on a busy controller counts too.
GRACE_S = 2.0

# What a login shell prints by itself comes before this line.
_MARKER = "elephaas.herd is here"


@dataclass(frozen=True)
class Answer:
    """What became of it.

    error: in words, empty when reachable. code: LOGIN_REFUSED or one of connect.py's, None when reachable.
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
    load_plugins(distinct.values(), play_context)
    answers = fan_out(
        {key: functools.partial(_ask, target, play_context, timeout_s) for key, target in distinct.items()},
        timeout_s + GRACE_S,
    )
    return {name: _answer(answers[target.key], timeout_s) for name, target in targets.items()}


def _answer(said: dict[str, t.Any] | None, timeout_s: float) -> Answer:
    if said is None:
        return Answer(False, f"no answer within {timeout_s:g} s", timeout_s + GRACE_S, HOST_UNREACHABLE)
    if "crash" in said:
        return Answer(False, said["crash"], 0.0, HOST_UNREACHABLE)
    return Answer(**said)


def _ask(target: Target, play_context: PlayContext, timeout_s: float) -> dict[str, t.Any]:
    return asdict(_log_in(target, play_context, timeout_s))


def _log_in(target: Target, play_context: PlayContext, timeout_s: float) -> Answer:
    started = time.monotonic()
    look = f"echo {shlex.quote(_MARKER)}; id -un; command -v {shlex.quote(target.python)} || true"
    try:
        connection = open_connection(target, play_context, timeout_s)
        # A connection plugin takes one string for the user's login shell, which may be none of POSIX's.
        status, output, errors = connection.exec_command(f"/bin/sh -c {shlex.quote(look)}", sudoable=False)
    except AnsibleError as error:
        code, text = classify(str(error), isinstance(error, AnsibleAuthenticationFailure))
        return Answer(False, text, _since(started), code)
    lines = as_text(output).partition(_MARKER)[2].split("\n")[1:]
    if status != 0 or not lines or not lines[0]:
        text = last_line(as_text(errors)) or last_line(as_text(output)) or "it closed the session"
        return Answer(False, f"the login is refused: {text}", _since(started), LOGIN_REFUSED)
    python = lines[1] if len(lines) > 1 and lines[1] else None
    return Answer(True, "", _since(started), None, lines[0], python)


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)
