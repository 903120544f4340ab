# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A planned failover as writers see it, beside a bare script and beside repmgr.

One herd of three in two data centers, with about a gigabyte of data. Each of several hundred commits a second inserts a
row and changes an old one somewhere in that gigabyte. The primary is moved to the other data center and back, by each
contender in turn:

playbook  elephaas.herd.failover, confirmed with `yes`, as an operator types it: it looks, decides, locks, switches,
          leads the vhost over, makes the other members follow and sees them stream, and records all of it.
script    the floor. Over open ssh connections it stops the primary, promotes the candidate, and sends one signed DNS
          update that was written beforehand. No checks, and the other members are left behind.
repmgr    `repmgr standby switchover --siblings-follow` on the candidate, configured as its manual says.

The same for all of them: servers, load and distance; every ssh connection from the controller is open; both replicas
stream, without slots; a checkpoint was made just before the load began. The clock runs on the controller's side, from
the command's start to its end. The gap is the longest time between two acknowledged commits of all writers together,
from before the command until after it. Lost is what was acknowledged and is not in the new primary.

repmgr does no DNS. So its writers do not go through DNS either: they ask the members for one that accepts writes, the
candidate first, and find it the moment it does, without the update and the look-up that the other two pay for. Its
database role needs no password, and its own records are brought up to date before each of its turns. What a contender
leaves to be done (the script: the old primary and the sibling; repmgr: the vhost) is done afterwards and not timed.

`--only playbook --rounds 100` is 100 planned failovers in a row under load; nothing is put right in between.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.elephaas.herd.tests.bench.harness import ROOT, Times, print_result, print_table, turns
from ansible_collections.elephaas.herd.tests.bench.switching.contenders import CONTENDERS, Contender
from ansible_collections.elephaas.herd.tests.bench.switching.herd import HERD, PAIR, PROGRAMS, Herd
from ansible_collections.elephaas.herd.tests.integration.lab_client import Lab


@dataclass(frozen=True)
class Switch:
    """What one switch cost."""

    gap_s: float
    wall_s: float
    acknowledged: int
    lost: int
    # Whether an old primary acknowledged anything after its successor had.
    two_primaries: bool


def switch(herd: Herd, contender: Contender, load: argparse.Namespace, prepare: bool) -> Switch:
    """One switch under load."""
    old = herd.primary()
    new = PAIR[1 - PAIR.index(old)]
    if prepare:
        contender.prepare(old, new)
    herd.calm()
    herd.start_writers(contender.writers(old, new), load.rate, load.connections)
    time.sleep(load.warm_up)
    wall = herd.timed(contender.command(old, new))
    time.sleep(1)
    herd.lab("writer", "stop", HERD)
    contender.finish(old, new)
    if herd.primary() != new:
        sys.exit(f"{new} should be the primary")
    report = herd.lab.report(HERD)
    lost = report.lost + herd.gone_since(new)
    return Switch(report.longest_gap_s, wall, report.acknowledged, lost, bool(report.status) and not report.lost)


def measure(herd: Herd, names: Sequence[str], load: argparse.Namespace) -> bool:
    """Let them switch in turn, and print what was found; whether nothing of ours was lost."""
    contenders = {name: CONTENDERS[name](herd) for name in names}
    found: dict[str, list[Switch]] = {name: [] for name in names}
    for name in turns(names, load.rounds):
        # One that is alone has to go on from where it stopped, with what it has on record.
        one = switch(herd, contenders[name], load, prepare=len(names) > 1 or not found[name])
        found[name].append(one)
        print(
            f"{name} {len(found[name])}: gap {one.gap_s:.3f} s, end to end {one.wall_s:.2f} s,"
            f" {one.acknowledged} acknowledged, {one.lost} lost{', TWO PRIMARIES' if one.two_primaries else ''}",
            flush=True,
        )
        if len(names) > 1:
            herd.level()
    size = int(herd.sql(PAIR[0], "SELECT sum(pg_database_size(oid)) / 1024 / 1024 FROM pg_database").partition(".")[0])
    print(f"{size} MB, {load.rate} commits a second over {load.connections} connections, {load.rounds} rounds")
    gaps = {name: Times(tuple(one.gap_s for one in found[name])) for name in names}
    walls = {name: Times(tuple(one.wall_s for one in found[name])) for name in names}
    lost = {name: sum(one.lost for one in found[name]) for name in names}
    print_table(
        ["", "gap s", "min-max", "end to end s", "min-max", "acknowledged", "lost"],
        [
            [
                name,
                gaps[name].median,
                gaps[name].spread,
                walls[name].median,
                walls[name].spread,
                sum(one.acknowledged for one in found[name]),
                lost[name],
            ]
            for name in names
        ],
    )
    ours = names[0]
    ratios = {f"gap_vs_{name}": gaps[ours].median / gaps[name].median for name in names[1:]}
    if len(names) > 1:
        ratios["wall_vs_repmgr"] = walls[ours].median / walls["repmgr"].median
    print_result("switchover", rounds=load.rounds, gap_s=gaps[ours].median, **ratios, lost=lost[ours])
    return lost[ours] == 0 and not any(one.two_primaries for one in found[ours])


@contextmanager
def lab() -> Iterator[Herd]:
    """A lab that is taken down whatever happens."""
    # SIGTERM ends a process without a finally; as an exit it does not.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit("stopped: taking the lab down"))
    with tempfile.TemporaryDirectory(prefix="elephaas-bench-") as name:
        place = Path(name)
        client = Lab(place / "lab")
        try:
            yield Herd(client, place)
        finally:
            # One that is pressed again and again must not keep the lab up.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            client.down()


def main() -> int:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(prog="script/bench switchover", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="switches of each contender")
    parser.add_argument("--only", choices=CONTENDERS, help="leave the others out, and with them the ratios")
    parser.add_argument("--size-mb", type=int, default=1000, help="how large the database is")
    parser.add_argument("--rate", type=int, default=400, help="commits a second that are tried for")
    parser.add_argument("--connections", type=int, default=8, help="over so many connections")
    parser.add_argument("--warm-up", type=float, default=5, help="seconds of load before each switch")
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else list(CONTENDERS)
    if "repmgr" in names and not (PROGRAMS / "repmgr").exists():
        subprocess.run([ROOT / "script" / "bootstrap", "--bench"], check=True)
    with lab() as herd:
        herd.up(arguments.size_mb)
        return 0 if measure(herd, names, arguments) else 1


if __name__ == "__main__":
    sys.exit(main())
