# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many instances asked, or acted on, from one task: one login and one run of Python per host. Private to the collection.

What Ansible does for a module, for each host, in a process of its own (building a payload, templating, a result
through a queue), costs more than the look itself. Here the same code of module_utils goes to all hosts at once, over
the connection and become plugins that the inventory names, through standard input; nothing is written on the host.
"""

from __future__ import annotations

import base64
import functools
import json
import shlex
import typing as t
import zlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from ansible.errors import AnsibleAuthenticationFailure, AnsibleError
from ansible.playbook.play_context import PlayContext

from ansible_collections.elephaas.herd.plugins.module_utils import decide, postgres
from ansible_collections.elephaas.herd.plugins.plugin_utils.connect import (
    HOST_UNREACHABLE,
    Target,
    as_text,
    classify,
    last_line,
    load_plugins,
    open_connection,
)
from ansible_collections.elephaas.herd.plugins.plugin_utils.fanout import Answer, fan_out

#: The host answered, and what it answered was no result of ours (no Python, a become that was refused …).
NO_RESULT = "NO_RESULT"

# What a login shell prints by itself comes before this line.
MARKER = "elephaas.herd answers:"

# Read by the host's Python from standard input. The modules come from memory: no file to write, none to leave behind
# when the connection breaks, and readable for the account that run_as changes to. Not derived from importlib.abc, whose
# import takes longer than that of all our own modules.
_LOADER = """\
import base64, importlib.machinery, json, sys, zlib

class Modules:
    def __init__(self, sources):
        self.sources = sources

    def find_spec(self, name, path=None, target=None):
        if name not in self.sources:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=self.sources[name] is None)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        source = self.sources[module.__name__]
        if source is not None:
            exec(compile(source, module.__name__, "exec"), module.__dict__)

def unpack(text):
    return json.loads(zlib.decompress(base64.b64decode(text)))

sys.meta_path.insert(0, Modules(unpack("{sources}")))
from {package}.postgres.program import run_jobs

def answer(jobs):
    print("\\n{marker}" + json.dumps(run_jobs(unpack(jobs))), flush=True)

"""


@dataclass(frozen=True)
class Job:
    """One thing to do with one instance: see postgres/program.py for job and params."""

    target: Target
    job: str
    params: dict[str, t.Any]


@dataclass(frozen=True)
class Outcome:
    """What became of a job: a result, or an error as OperatorError.as_result() gives it (code, msg, …).

    reached: the host did the job, or refused it itself; when not, nobody knows how far it came.
    """

    result: dict[str, t.Any] | None
    error: dict[str, t.Any] | None
    reached: bool


def run_jobs(
    jobs: t.Mapping[str, Job],
    play_context: PlayContext,
    timeout_s: float,
    limit_s: float,
    on_outcome: t.Callable[[str, Outcome], None] = lambda _name, _outcome: None,
) -> dict[str, Outcome]:
    """Do all jobs, at the same time on different hosts and one after the other on the same; an outcome for each name.

    timeout_s: for connecting. limit_s: for everything together on one host; after that it is given up, whatever it does.
    on_outcome: told each outcome as soon as its host has answered, while others are still under way.
    """
    by_host: dict[str, list[str]] = defaultdict(list)
    for name, job in jobs.items():
        by_host[job.target.key].append(name)
    # What all children need is made once: they inherit it.
    load_plugins((job.target for job in jobs.values()), play_context)
    sources()
    outcomes: dict[str, Outcome] = {}

    def note(key: str, answer: Answer) -> None:
        said = said_of(answer, timeout_s + limit_s)
        for place, name in enumerate(by_host[key]):
            outcomes[name] = outcome_of(said, place)
            on_outcome(name, outcomes[name])

    fan_out(
        {
            key: functools.partial(_ask, jobs[names[0]].target, [jobs[name] for name in names], play_context, timeout_s)
            for key, names in by_host.items()
        },
        timeout_s + limit_s,
        note,
    )
    return {name: outcomes[name] for name in jobs}


def said_of(answer: Answer, limit_s: float) -> dict[str, t.Any]:
    """What a host answered; that it is lost, where nothing came of it."""
    if answer is None:
        return lost(HOST_UNREACHABLE, f"no answer within {limit_s:g} s")
    return lost(HOST_UNREACHABLE, answer["crash"]) if "crash" in answer else answer


def outcome_of(said: dict[str, t.Any], place: int) -> Outcome:
    """What a host's answer says of the job at that place."""
    if "error" in said:
        return Outcome(None, said["error"], reached=False)
    answer = said["answers"][place]
    return Outcome(answer.get("result"), answer.get("error"), reached=True)


def lost(code: str, reason: str) -> dict[str, t.Any]:
    """The answer that stands for none."""
    return {"error": {"code": code, "msg": reason, "reason": reason, "next_step": "", "evidence": {}}}


def _ask(target: Target, jobs: list[Job], play_context: PlayContext, timeout_s: float) -> dict[str, t.Any]:
    program = f'{loader()}answer("{packed(jobs)}")\n'
    # Isolated, and without site-packages: only the standard library is needed, and nothing else can get in the way.
    command = f"{shlex.quote(target.python)} -I -S -"
    try:
        connection = open_connection(target, play_context, timeout_s)
        if connection.become is not None:
            command = connection.become.build_become_command(command, connection._shell)
        status, output, errors = connection.exec_command(command, in_data=program.encode(), sudoable=True)
    except AnsibleError as error:
        return lost(*classify(str(error), isinstance(error, AnsibleAuthenticationFailure)))
    _noise, found, answers = as_text(output).rpartition(f"\n{MARKER}")
    if not found:
        said = last_line(as_text(errors)) or last_line(as_text(output)) or f"exit status {status}"
        return lost(NO_RESULT, f"its Python ({target.python}) did not run there: {said}")
    try:
        return {"answers": json.loads(answers.partition("\n")[0])}
    except ValueError:
        return lost(NO_RESULT, "its answer was cut short")


PACKAGE = decide.__name__.rpartition(".")[0]


@functools.lru_cache(maxsize=1)
def sources() -> str:
    """Every module of decide/ and postgres/, and the packages above them (None: nothing but a name)."""
    parts = PACKAGE.split(".")
    modules: dict[str, str | None] = {".".join(parts[: end + 1]): None for end in range(len(parts))}
    for package in (decide, postgres):
        modules[package.__name__] = None
        for path in Path(package.__path__[0]).glob("[!_]*.py"):
            modules[f"{package.__name__}.{path.stem}"] = path.read_text(encoding="utf-8")
    return pack(modules)


def loader() -> str:
    """What a host's Python has to read first; afterwards it knows answer(jobs), which prints the answers behind MARKER."""
    return _LOADER.format(sources=sources(), package=PACKAGE, marker=MARKER)


def packed(jobs: list[Job]) -> str:
    """Jobs as answer() takes them."""
    return pack([{"job": job.job, "params": job.params} for job in jobs])


def pack(value: t.Any) -> str:
    """Data as one line of ASCII."""
    return base64.b64encode(zlib.compress(json.dumps(value).encode(), 6)).decode("ascii")
