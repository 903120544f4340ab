# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's writers: start, stop, and the report on what they were promised and what is there."""

from __future__ import annotations

import dataclasses
import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import LabError
from .plan import Plan
from .state import State

# Exit status of a report that found a commit lost, or acknowledged by a server that was no longer the primary.
BROKEN_PROMISE = 3


@dataclasses.dataclass
class Record:
    """What a writer noted: acknowledged rows as (number, monotonic seconds, connection), connections, its end."""

    acknowledged: list[tuple[int, float, str]]
    # Connection -> (address, timeline): one term of office of one primary.
    terms: dict[str, tuple[str, str]]
    stopped: float | None

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read a record; a writer may be appending to it, so a line without its end is left out."""
        record = cls([], {}, None)
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            kind, *fields = line.split()
            if not line.endswith("\n"):
                break
            if kind == "ack":
                record.acknowledged.append((int(fields[0]), float(fields[1]), fields[3]))
            elif kind == "connection":
                record.terms[fields[0]] = (fields[2], fields[3])
            elif kind == "stop":
                record.stopped = float(fields[0])
        record.acknowledged.sort(key=lambda entry: entry[1])
        return record

    def longest_gap(self, until: float) -> float:
        """Seconds of the longest time without an acknowledged commit, from the first one to the given moment."""
        moments = [moment for _number, moment, _connection in self.acknowledged]
        if not moments:
            return 0.0
        return max(
            after - before for before, after in zip(moments, [*moments[1:], max(until, moments[-1])], strict=True)
        )

    def out_of_term(self) -> int:
        """Commits acknowledged in a primary's term after a later term had begun: an old primary that still took writes.

        A term is a server on a timeline, so a primary that got its role back has a new one.
        """
        begun: list[tuple[str, str]] = []
        late = 0
        for _number, _moment, connection in self.acknowledged:
            term = self.terms[connection]
            if term not in begun:
                begun.append(term)
            late += term != begun[-1]
        return late


class Writer:
    """One herd's writer and its files in the state folder."""

    def __init__(self, state: State, plan: Plan, herd_name: str) -> None:
        self._herd = plan.herd(herd_name)
        self._plan = plan
        self._state = state
        self.name = f"{self._herd['name']}_{self._herd['environment']}"
        if not self._herd["vhost"]:
            raise LabError(f"herd {self.name} has no vhost, through which its writer is to go")
        self._pid = state.writers / f"{self.name}.pid"
        self._run = state.writers / f"{self.name}.run"
        self._record = state.writers / f"{self.name}.record"
        self._log = state.logs / f"writer-{self.name}.log"

    def _process(self) -> int | None:
        with suppress(OSError, ValueError):
            pid = int(self._pid.read_text(encoding="utf-8"))
            if os.fsencode(self._record) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return pid
        return None

    def start(
        self,
        rate: float,
        connections: int,
        dns_cache: float,
        servers: list[str],
        seconds: float | None,
        timeout: float = 15.0,
    ) -> None:
        """Start the writer; returns when its first commit was acknowledged."""
        if self._process() is not None:
            raise LabError(f"the writer of {self.name} runs already")
        run = secrets.token_hex(6)
        self._run.write_text(run, encoding="utf-8")
        self._record.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "herdlab.writer_process", "--record", str(self._record), "--run", run]
        argv += ["--vhost", self._herd["vhost"], "--port", str(self._port()), "--rate", str(rate)]
        argv += ["--connections", str(connections), "--dns-cache", str(dns_cache)]
        for server in self._plan.dns:
            argv += ["--dns", server]
        for server in servers:
            argv += ["--server", self._plan.host(server).address]
        if seconds is not None:
            argv += ["--seconds", str(seconds)]
        environment = dict(os.environ)
        environment["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
        environment["PGPASSFILE"] = str(self._state.controller / "pgpass")
        with self._log.open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environment
            )
        self._pid.write_text(str(process.pid), encoding="utf-8")
        deadline = time.monotonic() + timeout
        while not (self._record.exists() and Record.read(self._record).acknowledged):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                said = self._log.read_text(encoding="utf-8").strip().splitlines()[-1:]
                raise LabError(f"the writer of {self.name} could not commit: {''.join(said)} (see {self._log})")
            time.sleep(0.05)

    def stop(self, timeout: float = 10.0) -> None:
        """End the writer and wait until it has."""
        pid = self._process()
        if pid is None:
            raise LabError(f"no writer of {self.name} runs")
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + timeout
        while self._process() is not None:
            if time.monotonic() > deadline:
                raise LabError(f"the writer of {self.name} (process {pid}) does not end")
            time.sleep(0.02)

    def report(self) -> int:
        """Print acknowledged and lost commits and the longest gap; lost is what the primary behind the vhost lacks."""
        if not self._record.exists():
            raise LabError(f"no writer of {self.name} was started")
        running = self._process() is not None
        record = Record.read(self._record)
        present = self._present(self._run.read_text(encoding="utf-8"))
        lost = sum(number not in present for number, _moment, _connection in record.acknowledged)
        late = record.out_of_term()
        # An outage that has not ended yet counts as well.
        until = time.monotonic() if running else record.stopped or 0.0
        gap = record.longest_gap(until)
        print(f"acknowledged={len(record.acknowledged)} lost={lost} longest_gap_s={gap:.3f}")
        if late:
            print(
                f"lab: {late} commits were acknowledged by an old primary after its successor's first", file=sys.stderr
            )
        return BROKEN_PROMISE if lost or late else 0

    def _port(self) -> int:
        return int(next(member["port"] for member in self._herd["members"] if member["role"] == "primary"))

    def _present(self, run: str) -> set[int]:
        """The numbers that the primary behind the vhost holds."""
        import psycopg2

        try:
            connection = psycopg2.connect(
                host=self._herd["vhost"],
                port=self._port(),
                dbname="app",
                user="app",
                passfile=str(self._state.controller / "pgpass"),
                connect_timeout=5,
            )
            return self._read(connection, run)
        except psycopg2.Error as error:
            raise LabError(f"cannot read what {self._herd['vhost']} holds: {str(error).strip()}") from None

    def _read(self, connection: Any, run: str) -> set[int]:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_is_in_recovery(), host(inet_server_addr())")
            ((in_recovery, address),) = cursor.fetchall()
            if in_recovery:
                raise LabError(f"the vhost {self._herd['vhost']} leads to {address}, which is a replica")
            cursor.execute("SELECT n FROM lab_writes WHERE run = %s", (run,))
            return {number for (number,) in cursor.fetchall()}
