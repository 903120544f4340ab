# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's command line."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from .errors import LabError

_ENVIRONMENT = "--environment-file"


def parser() -> argparse.ArgumentParser:
    """What the lab understands."""
    top = argparse.ArgumentParser(prog="lab", description="Real fleets of PostgreSQL, sshd and BIND on one machine.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, words: str, *arguments: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=words, description=words)
        for argument in arguments:
            command.add_argument(argument)
        return command

    command = add("up", "build a fleet (a lab that is there already ends first)")
    command.add_argument("fleet", metavar="FLEET.yml", type=Path)
    command.add_argument("--no-load", action="store_true", help="leave the registry empty")
    add("down", "end everything the lab started and remove it, but for its logs")
    add("status", "show hosts and instances")
    command = add("run", "run a command on the controller's side, with the lab's inventory and configuration")
    command.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- CMD …")
    command = add("exec", "run a command on a server, as root or another account", "server")
    command.add_argument("--user")
    command.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- CMD …")
    command = add("sql", "run SQL on an instance (<herd>_<environment>@<server>), plain output", "instance", "sql")
    command.add_argument("--db", default="postgres", help="database (default postgres)")
    command = add("dig", "ask the lab's DNS, one value a line", "name")
    command.add_argument("type", nargs="?", default="A")
    command.add_argument("--server", type=int, choices=(1, 2), default=1, help="1 primary (default), 2 secondary")
    add("poweroff", "cut a server's power", "server")
    command = add("poweron", "start a server again, and its instances", "server")
    command.add_argument("--no-start", action="store_true", help="leave its instances stopped")
    add("partition", "take a server's network cable out", "server")
    add("heal", "put a server's network cable back", "server")
    command = add("registry", "stop or start the registry's PostgreSQL")
    command.add_argument("what", choices=("stop", "start"))
    command = add("dns", "stop or start a DNS server")
    command.add_argument("what", choices=("stop", "start"))
    command.add_argument("--server", type=int, choices=(1, 2), help="1 the primary, 2 the secondary; both by default")
    command = add("writer", "an application that commits numbered rows through a herd's vhost")
    command.add_argument("what", choices=("start", "stop", "report"))
    command.add_argument("herd", help="<herd>_<environment>, or the herd's name where that is unique")
    command.add_argument("--rate", type=float, default=50.0, help="commits per second (default 50)")
    command.add_argument("--connections", type=int, default=2, help="how many connections (default 2)")
    command.add_argument(
        "--dns-cache",
        type=float,
        default=0.1,
        help="seconds for which a looked-up address may be used again, at most its TTL (default 0.1)",
    )
    command.add_argument(
        "--servers",
        metavar="NAME,NAME…",
        help="write to whichever of these servers accepts writes, found by asking them in this order, not by the vhost",
    )
    command.add_argument("--seconds", type=float, help="end by itself after that long (default: when it is stopped)")
    command = add("fleet", "print a fleet file of some size")
    command.add_argument("herds", type=int)
    command.add_argument("members", type=int)
    command.add_argument("--per-server", type=int, default=1, help="instances on each server (default 1)")
    return top


def main(argv: list[str]) -> int:
    """Run one command; returns its exit status."""
    # Python ignores it, and what we become or start would ignore it as well.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        if argv[:1] == [_ENVIRONMENT]:
            _take_environment(Path(argv[1]))
            argv = argv[2:]
        arguments = parser().parse_args(argv)
        if arguments.command == "fleet":
            return _print_fleet(arguments)
        if os.getuid() != 0:
            _become_root(argv)
        return _dispatch(arguments)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(
            f"lab: {sys.executable} has no module {error.name}: run script/bootstrap, "
            "or install python3-yaml python3-psycopg2 python3-dnspython",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        return 130


def _print_fleet(arguments: argparse.Namespace) -> int:
    import yaml

    from .generate import fleet

    document = fleet(arguments.herds, arguments.members, arguments.per_server)
    yaml.safe_dump(document, sys.stdout, sort_keys=False)
    return 0


def _become_root(argv: list[str]) -> None:
    """Run again through sudo. It resets the environment, so ours travels in a private file, not in arguments."""
    sudo = shutil.which("sudo")
    if sudo is None:
        raise LabError("the lab needs root for namespaces: run it as root, or install sudo")
    descriptor, name = tempfile.mkstemp(prefix="lab-environment-")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(dict(os.environ), file)
    launcher = str(Path(__file__).resolve().parent.parent / "main.py")
    os.execv(sudo, [sudo, "-n", "--", sys.executable, launcher, _ENVIRONMENT, name, *argv])


def _take_environment(path: Path) -> None:
    kept = {name: os.environ[name] for name in ("SUDO_UID", "SUDO_GID", "SUDO_USER") if name in os.environ}
    environment = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    os.environ.clear()
    os.environ.update(environment)
    os.environ.update(kept)


def _dispatch(arguments: argparse.Namespace) -> int:
    # Imported here: as root only, and with whatever they need from the project's environment.
    from . import build, inside, supervisor
    from .kernel import run_in
    from .plan import Plan
    from .state import State

    state = State.from_environment()
    if arguments.command == "up":
        return build.up(state, arguments.fleet.resolve(), not arguments.no_load)
    if arguments.command == "down":
        return build.down(state)
    pid = supervisor.find(state.root)
    if pid is None or not state.plan.exists():
        raise LabError(f"no lab is up in {state.root}")
    plan = Plan.load(state.plan)
    work: Callable[[State, Plan, argparse.Namespace], int] = getattr(inside, f"do_{arguments.command}")
    return run_in(pid, lambda: inside.guarded(work, state, plan, arguments))
