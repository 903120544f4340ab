# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""120 instances restarted by the playbook, beside `xargs -P` over multiplexed ssh with `pg_ctl restart`.

40 herds of three, three instances on each server: what a hundred instances in forty clusters look like where herds
share servers, and where one host has to bear several restarts at a time.

playbook    elephaas.herd.restart, confirmed with the id that a rehearsal gave. A herd's replicas go first, one after
            the other, each seen streaming again before the next, then its primary; the herds at once, as forks allow.
xargs -P N  the fastest that one can type: no order, no look at what streams, nothing on record. A herd may well be
            down altogether for a moment.

Every ssh connection is open before a clock runs, and every replica streams. The rehearsal is timed too, for the table
alone: it is what an operator does before, not what the restart costs.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from ansible_collections.elephaas.herd.tests.bench.harness import ROOT, print_result, print_table, run, take_turns

LAB = ROOT / "tests" / "lab" / "lab"
MEMBERS = 3
PER_SERVER = 3
# Bringing up forty herds takes minutes where others use the machine too.
PATIENCE_S = 900.0
STREAMING = "SELECT count(*) FROM pg_stat_replication WHERE state = $$streaming$$"


class Fleet:
    """A lab with that many herds, and the two ways to restart all of it."""

    def __init__(self, place: Path, herds: int, forks: int) -> None:
        state = place / "lab"
        self._environment = {**os.environ, "ELEPHAAS_LAB_STATE": str(state)}
        # The lab's own configuration says where the collection is.
        self._environment.pop("ANSIBLE_COLLECTIONS_PATH", None)
        self._forks = str(forks)
        self._ssh = ["ssh", "-F", str(state / "controller" / "ssh_config"), "-l", "root"]
        self._programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))[-1]
        document = run([LAB, "fleet", str(herds), str(MEMBERS), "--per-server", str(PER_SERVER)])
        self._file = place / "fleet.yml"
        self._file.write_text(document, encoding="utf-8")
        fleet = yaml.safe_load(document)
        addresses = {name: server["address"] for name, server in fleet["servers"].items()}
        self.servers = len(addresses)
        self.herds = herds
        # Address, port, data directory.
        self._instances = [
            (addresses[member["server"]], herd["port"], herd["pgdata"])
            for herd in fleet["herds"]
            for member in herd["members"]
        ]

    @property
    def instances(self) -> int:
        """How many there are."""
        return len(self._instances)

    def up(self) -> None:
        """Bring it up."""
        self._lab("up", self._file)

    def down(self) -> None:
        """Leave nothing of it."""
        self._lab("down")

    def _lab(self, *arguments: str | Path, **options: Any) -> str:
        return run([LAB, *arguments], timeout_s=PATIENCE_S, env=self._environment, **options)

    def _over_ssh(self, at_once: int, commands: Iterable[tuple[str, list[str]]]) -> str:
        """Run commands of the account postgres on servers, that many at a time; what they print."""
        lines = []
        for address, command in commands:
            remote = shlex.join(["runuser", "-u", "postgres", "--", *command])
            # One quoting for the remote shell, one for xargs.
            lines.append(" ".join(f'"{word}"' for word in (address, remote)) + "\n")
        argv = ["xargs", "-P", str(at_once), "-L", "1", *self._ssh]
        return self._lab("run", "--", *argv, input="".join(lines))

    def settle(self) -> None:
        """Wait until every replica streams; every ssh connection is open afterwards."""
        deadline = time.monotonic() + 120
        ask = [
            (address, [str(self._programs / "psql"), "-XAtq", "-p", str(port), "-d", "postgres", "-c", STREAMING])
            for address, port, _data in self._instances
        ]
        while sum(int(count) for count in self._over_ssh(8, ask).split()) != self.instances - self.herds:
            if time.monotonic() > deadline:
                sys.exit("not every replica streams")
            time.sleep(0.5)

    def _play(self, *arguments: str) -> str:
        argv = ["ansible-playbook", "--forks", self._forks, "elephaas.herd.restart", *arguments]
        return self._lab("run", "--", *argv, stdin=subprocess.DEVNULL)

    def rehearse(self) -> str:
        """The id of the plan to restart everything."""
        shown = self._play("--check")
        found = re.search(r"^plan id: (p[0-9a-f]{8})$", shown, re.MULTILINE)
        if found is None:
            sys.exit(f"the rehearsal shows no plan:\n{shown}")
        return found[1]

    def playbook(self, identifier: str) -> None:
        """Restart everything by the playbook; ends the measurement where that was not all."""
        shown = self._play("-e", f"confirm={identifier}")
        done = re.findall(rf"^\S+ +done +{MEMBERS} of {MEMBERS} ", shown, re.MULTILINE)
        if len(done) != self.herds:
            sys.exit(f"{len(done)} of {self.herds} herds were restarted:\n{shown}")

    def xargs(self, at_once: int) -> None:
        """Restart everything by hand, that many at a time."""
        # The server keeps its standard output: without -l the ssh session would never end.
        restart = [str(self._programs / "pg_ctl"), "restart", "-w", "-s", "-m", "fast", "-l", "/dev/null", "-D"]
        self._over_ssh(at_once, ((address, [*restart, data]) for address, _port, data in self._instances))


def measure(fleet: Fleet, at_once: list[int], rounds: int) -> None:
    """Time them in turn, and print what was found."""
    fleet.settle()
    identifier = fleet.rehearse()
    contenders: dict[str, Callable[[], object]] = {
        "playbook": functools.partial(fleet.playbook, identifier),
        **{f"xargs -P {number}": functools.partial(fleet.xargs, number) for number in at_once},
        "rehearsal": fleet.rehearse,
    }
    times = take_turns(contenders, rounds, before=fleet.settle)
    by_hand = min(times[f"xargs -P {number}"].median for number in at_once)
    print(f"{fleet.instances} instances of {fleet.herds} herds on {fleet.servers} servers, {rounds} rounds")
    print_table(
        ["", "median s", "min-max", "ms an instance", "vs the best xargs"],
        [
            [name, found.median, found.spread, round(1000 * found.median / fleet.instances), found.median / by_hand]
            for name, found in times.items()
        ],
    )
    print_result("restart", vs_xargs=times["playbook"].median / by_hand)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(prog="script/bench restart", description=__doc__.splitlines()[0])
    parser.add_argument("--herds", type=int, default=40, help="herds of three")
    parser.add_argument("--rounds", type=int, default=3, help="restarts of everything by each contender")
    parser.add_argument("--forks", type=int, default=20, help="herds that the playbook works on at once")
    parser.add_argument("--xargs", type=int, nargs="+", default=[8, 20], help="instances that xargs works on at once")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        fleet = Fleet(Path(name), arguments.herds, arguments.forks)
        try:
            fleet.up()
            measure(fleet, arguments.xargs, arguments.rounds)
        finally:
            fleet.down()


if __name__ == "__main__":
    main()
