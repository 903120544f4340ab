# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab as tests use it: its own command line, with a state folder per test session."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FLEETS = ROOT / "tests" / "lab" / "fleets"
PROGRAM = ROOT / "tests" / "lab" / "lab"
# A command that hangs must become a failure that names it.
PATIENCE = 300.0


@dataclass
class Report:
    """What a writer's report said."""

    acknowledged: int
    lost: int
    longest_gap_s: float
    status: int


class Lab:
    """One lab in a state folder of its own."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def __call__(self, *arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """A command of the lab; fails the test when it fails, unless check is false."""
        environment = dict(options.pop("env", None) or os.environ)
        environment["ELEPHAAS_LAB_STATE"] = str(self.state)
        # The ansible-core that runs these tests runs the playbooks too.
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment.get('PATH', '')}"
        # The lab's own configuration says where the collection is.
        environment.pop("ANSIBLE_COLLECTIONS_PATH", None)
        options.setdefault("timeout", PATIENCE)
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        done = subprocess.run(
            [str(PROGRAM), *arguments], check=False, capture_output=True, text=True, env=environment, **options
        )
        if check:
            assert done.returncode == 0, f"lab {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def run(self, *argv: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """A command on the controller's side."""
        return self("run", "--", *argv, check=check, **options)

    def playbook(
        self, name: str, *arguments: str, check: bool = True, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """One of the collection's playbooks, by its short name."""
        return self.run("ansible-playbook", f"elephaas.herd.{name}", *arguments, check=check, **options)

    def sql(self, instance: str, statement: str, database: str = "postgres") -> str:
        """What SQL on an instance prints, without the last newline."""
        return self("sql", "--db", database, instance, statement).stdout.rstrip("\n")

    def dig(self, name: str, kind: str = "A", server: int = 1) -> list[str]:
        """What the lab's DNS answers."""
        return self("dig", "--server", str(server), name, kind).stdout.split()

    def execute(
        self, server: str, *argv: str, user: str = "root", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """A command on a server."""
        return self("exec", "--user", user, server, "--", *argv, check=check)

    def report(self, herd: str) -> Report:
        """A writer's report."""
        done = self("writer", "report", herd, check=False)
        found = re.fullmatch(r"acknowledged=(\d+) lost=(\d+) longest_gap_s=(\d+\.\d{3})\n", done.stdout)
        assert found, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return Report(int(found[1]), int(found[2]), float(found[3]), done.returncode)

    def up(self, fleet: Path, *arguments: str) -> None:
        """Bring a fleet up."""
        self("up", *arguments, str(fleet))

    def down(self) -> None:
        """End it."""
        self("down")
