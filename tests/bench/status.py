# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`elephaas.herd.status` over a real fleet in the lab, and where its time goes.

The hosts of the lab are on this machine: what the instances spend on being looked at is part of the time, as it would
not be with hosts of their own. The first run opens the ssh connections; the ones after it find them open, as a person
does who looks twice.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ansible_collections.elephaas.herd.tests.bench.harness import ROOT, print_result, print_table, run, take_turns

LAB = ROOT / "tests" / "lab" / "lab"
# Every line of Ansible's log begins with the moment, and the task that begins is named.
MOMENT = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) .*?(?:TASK \[.*? : (.*?)\]|(PLAY RECAP))")
PHASES = {
    "Check the arguments": "arguments",
    "Look": "look",
    "Put on record what was seen": "check-in",
    "Show it": "report",
}


@contextmanager
def lab(herds: int, members: int, per_server: int, folder: Path) -> Iterator[dict[str, str]]:
    """The environment of a lab with such a fleet; it is taken down whatever happens."""
    environment = {**os.environ, "ELEPHAAS_LAB_STATE": str(folder / "lab")}
    # The lab's own configuration says where the collection is.
    environment.pop("ANSIBLE_COLLECTIONS_PATH", None)
    fleet = folder / "fleet.yml"
    fleet.write_text(run([LAB, "fleet", str(herds), str(members), "--per-server", str(per_server)]), encoding="utf-8")
    try:
        run([LAB, "up", fleet], env=environment)
        yield environment
    finally:
        run([LAB, "down"], env=environment)


def phases(log: Path, began: float, ended: float) -> dict[str, float]:
    """Seconds of each phase of one run, by the log that it wrote; what comes before the first task is the inventory."""
    marks = [("inventory", began)]
    for line in log.read_text(encoding="utf-8").splitlines():
        found = MOMENT.match(line)
        if found:
            moment = time.mktime(time.strptime(found[1], "%Y-%m-%d %H:%M:%S")) + int(found[2]) / 1000
            marks.append((PHASES.get(found[3] or "", "end"), moment))
    marks.append(("", ended))
    return {name: marks[place + 1][1] - moment for place, (name, moment) in enumerate(marks[:-1])}


def main() -> None:
    """See the module's documentation."""
    parser = argparse.ArgumentParser(prog="script/bench status", description=__doc__.partition("\n")[0])
    parser.add_argument("--herds", type=int, default=40)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--per-server", type=int, default=3, help="instances on each server")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    columns = ("inventory", "arguments", "look", "check-in", "report", "end")
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory(prefix="elephaas-bench-") as name:
        folder = Path(name)
        with lab(arguments.herds, arguments.members, arguments.per_server, folder) as environment:

            def status() -> None:
                log = folder / f"log-{len(rows)}"
                before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
                shown = run(
                    [LAB, "run", "--", "ansible-playbook", "elephaas.herd.status"],
                    env={**environment, "ANSIBLE_LOG_PATH": str(log)},
                )
                after, ended = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
                wanted = (
                    f"{arguments.herds} herds, {arguments.herds * arguments.members} instances: {arguments.herds} ok"
                )
                if wanted not in shown:
                    raise SystemExit(f"not every instance was looked at, so this measures nothing:\n{shown}")
                took = phases(log, began, ended)
                cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                rows.append([len(rows) + 1, ended - began, *(took.get(phase, 0.0) for phase in columns), cpu])

            status()
            rows[0][0] = "first"
            times = take_turns({"status": status}, arguments.rounds)["status"]
    print_table(("run", "wall", *columns, "controller's cpu"), rows)
    print(
        f"{arguments.herds * arguments.members} instances, {arguments.per_server} on a server,"
        f" {os.cpu_count()} cores; median of the runs after the first"
    )
    print_result("status", wall_s=times.median)


if __name__ == "__main__":
    main()
