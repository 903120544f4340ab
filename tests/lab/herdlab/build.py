# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""up and down: the order in which a lab is built, and how it ends."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from . import accounts, controller, dns, hosts, kernel, network, places, postgres, programs, registry, supervisor
from .errors import LabError
from .plan import Instance, Plan, make_plan, read_fleet
from .state import State

# More than the cores: most of a start is waiting.
_WORKERS = 8


def up(state: State, fleet_file: Path, load: bool) -> int:
    """Build the fleet of a file; a lab that is left in the state folder ends first. Returns an exit status."""
    began = time.monotonic()
    fleet = read_fleet(fleet_file)
    plan = make_plan(fleet)
    programs.require(any(instance.debian for instance in plan.instances))
    with state.locked():
        supervisor.stop(state.root)
        state.create()
        accounts.write(
            state,
            {host.ssh_user for host in plan.hosts},
            {"postgres", *(instance.os_user for instance in plan.instances)},
        )
        shutil.copy(fleet_file, state.root / "fleet.yml")
        pid = supervisor.start(state.root, state.logs / "supervisor.log")
        status = kernel.run_in(pid, lambda: reported(lambda: _build(state, plan)))
        if status == 0:
            plan.save(state.plan)
        else:
            supervisor.stop(state.root)
            return status
    if load:
        say("loading the fleet into the registry")
        command = ["ansible-playbook", "elephaas.herd.registry_load", "-e", f"fleet_file={state.root / 'fleet.yml'}"]
        log = state.logs / "registry_load.log"
        status = controller.run_logged(pid, state, plan, command, log)
        if status != 0:
            said = log.read_text(encoding="utf-8", errors="replace").strip()
            raise LabError(f"the fleet is up, but loading it into the registry failed:\n{said}")
    say(f"up after {time.monotonic() - began:.1f} s")
    return 0


def down(state: State) -> int:
    """End the lab and remove what it made, but for its logs."""
    if not state.root.exists():
        say("nothing was up")
        return 0
    with state.locked():
        found = supervisor.stop(state.root)
        state.clear()
    say("down" if found else "nothing was up")
    return 0


def reported(work: Callable[[], None]) -> int:
    """Do work; an error that a person can act on becomes a line and an exit status."""
    import sys

    try:
        work()
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


def _build(state: State, plan: Plan) -> None:
    passwords = {name: secrets.token_urlsafe(18) for name in ("replication", "app", "registry")}
    say(f"{len(plan.hosts)} hosts, {len(plan.fleet['herds'])} herds, {len(plan.instances)} instances")
    private = {*hosts.PRIVATE, *(path for host in plan.hosts for path in host.private)}
    places.ensure(private, ["/etc/resolv.conf", "/etc/hosts", "/etc/hostname"])
    key = controller.write_keys(state)
    hosts.prepare(state, plan, key)
    network.create(plan)
    for host in plan.hosts:
        hosts.power_on(state, host)
    say("hosts are up")
    postgres.write_passwords(state, plan, passwords["replication"])
    dns.prepare(state, plan)
    controller.write(state, plan, passwords)
    herds = [plan.members(f"{herd['name']}_{herd['environment']}") for herd in plan.fleet["herds"]]
    tasks: list[Callable[[], None]] = [
        lambda: dns.start(plan, 1),
        lambda: dns.start(plan, 2),
        lambda: registry.create(state, plan, passwords["registry"]),
    ]
    tasks += [partial(_start_herd, state, plan, members, passwords) for members in herds]
    _all(tasks)
    postgres.wait_until_streaming(plan)
    say("every replica streams")


def _start_herd(state: State, plan: Plan, members: list[Instance], passwords: dict[str, str]) -> None:
    postgres.create_herd(state, plan, members, passwords)
    for member in members:
        postgres.start(plan, member)


def _all(tasks: Iterable[Callable[[], None]]) -> None:
    """Do everything, several at a time; the first failure is raised once nothing runs any more."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        futures = [pool.submit(task) for task in tasks]
    for future in futures:
        future.result()


def say(text: str) -> None:
    """Progress, for a person."""
    print(f"lab: {text}", flush=True)
