# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The herd that is switched: how it is made, loaded, brought back to the same state, and what is done to it by hand."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from ansible_collections.elephaas.herd.tests.integration.lab_client import Lab

VHOST = "bench-db.stage.example.com"
DATA = "/var/lib/postgresql/15/bench"
PORT = 5432
# The primary moves between the first and the last; the one in the middle is the sibling.
SERVERS = {"chi-db1": "10.10.0.11", "chi-db2": "10.10.0.12", "nyc-db1": "10.20.0.11"}
SIBLING = "chi-db2"
PAIR = ("chi-db1", "nyc-db1")
FLEET = {
    "environments": {"stage": {}},
    "datacenters": {"chicago": {"networks": ["10.10.0.0/16"]}, "newyork": {"networks": ["10.20.0.0/16"]}},
    "servers": {name: {"environment": "stage", "address": address} for name, address in SERVERS.items()},
    "herds": [
        {
            "name": "bench",
            "environment": "stage",
            "port": PORT,
            "pgdata": DATA,
            "vhost": VHOST,
            "members": [{"server": name} for name in SERVERS],
        }
    ],
}
HERD = "bench_stage"
PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))[-1]
# A switch that takes longer has failed; the writers end by themselves soon after it.
PATIENCE_S = 240
CHUNK_MB = 64

# Runs a command and says when it began and ended, in nanoseconds, and how.
CLOCK = 'began=$(date +%s%N); "$@" >&2; status=$?; echo "$began $(date +%s%N) $status"'
# Ansible comes as root, the others as postgres.
OPEN = 'config=$1; shift; for host; do ssh -F "$config" -l root "$host" :; ssh -F "$config" -l postgres "$host" :; done'
UPDATE = """\
server {server}
update delete {vhost}. A
update add {vhost}. 10 A {address}
send
"""
BALLAST = """
    SET ROLE app;
    CREATE TABLE ballast (n bigint, changed timestamptz, filler text) WITH (fillfactor = 80);
"""
# About 1,000 bytes a row with its share of the page that fillfactor leaves free.
ROWS_PER_MB = 1050
GROW = """
    SET ROLE app;
    INSERT INTO ballast SELECT n, now(), repeat(md5(n::text), 22) FROM generate_series({first}, {last}) AS n;
"""
# Not the writer's business: what else a commit of an application changes.
BURDEN = """
    SET ROLE app;
    CREATE UNIQUE INDEX ON ballast (n);
    CREATE FUNCTION change_a_row() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        -- In the condition itself, a volatile function would keep the index from being used.
        one bigint := 1 + floor(random() * {rows});
    BEGIN
        UPDATE ballast SET changed = now() WHERE n = one;
        RETURN NULL;
    END $$;
    CREATE TRIGGER burden AFTER INSERT ON lab_writes FOR EACH ROW EXECUTE FUNCTION change_a_row();
    RESET ROLE;
    VACUUM (FREEZE, ANALYZE) ballast;
"""
STREAMING = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND replay_lsn >= '{lsn}'"


def gone(before: Mapping[str, int], now: Mapping[str, int]) -> int:
    """How many rows are there no more, by the counts of each writer's rows."""
    return sum(max(0, count - now.get(run, 0)) for run, count in before.items())


class Herd:
    """The herd in the lab, and what is done to it by hand."""

    def __init__(self, lab: Lab, place: Path) -> None:
        self.lab = lab
        self.controller = lab.state / "controller"
        self.place = place
        self._present: dict[str, int] = {}

    def sql(self, server: str, statement: str, database: str = "postgres") -> str:
        """SQL on a member."""
        return self.lab.sql(f"{HERD}@{server}", statement, database)

    def on(self, server: str, *argv: str | Path) -> None:
        """A command of the account postgres on a member."""
        self.lab.execute(server, *map(str, argv), user="postgres")

    def put(self, server: str, path: str, text: str, user: str = "postgres") -> None:
        """Append to a file that only its owner may read."""
        command = f"umask 077; mkdir -p $(dirname {path}); cat >>{path}"
        self.lab("exec", "--user", user, server, "--", "sh", "-c", command, input=text)

    def up(self, megabytes: int) -> None:
        """Bring it up with that much data."""
        fleet = self.place / "fleet.yml"
        fleet.write_text(yaml.safe_dump(FLEET), encoding="utf-8")
        self.lab.up(fleet)
        primary = PAIR[0]
        for server in SERVERS:
            # What PostgreSQL comes with: the lab's own hosts have less, so that a hundred of them fit on a machine.
            self.sql(server, "ALTER SYSTEM SET shared_buffers = '128MB'")
            self.on(server, PROGRAMS / "pg_ctl", "restart", "-D", DATA, "-m", "fast", "-w", "-s", "-l", "/dev/null")
        self.sql(primary, BALLAST, "app")
        rows = 0
        while rows < megabytes * ROWS_PER_MB:
            more = min(CHUNK_MB * ROWS_PER_MB, megabytes * ROWS_PER_MB - rows)
            self.sql(primary, GROW.format(first=rows + 1, last=rows + more), "app")
            rows += more
            self.wait_for_replicas(primary)
        # Makes the writers' table.
        self.start_writers([], 1, 1)
        self.lab("writer", "stop", HERD)
        self.sql(primary, BURDEN.format(rows=rows), "app")

    def primary(self) -> str:
        """Which of the two is it now."""
        found = [name for name in PAIR if self.sql(name, "SELECT pg_is_in_recovery()") == "f"]
        if len(found) != 1:
            sys.exit(f"there should be one primary, and there are: {found}")
        return found[0]

    def wait_for_replicas(self, primary: str) -> None:
        """Until both replicas stream and have replayed what is there."""
        self._wait(primary, STREAMING.format(lsn=self.sql(primary, "SELECT pg_current_wal_flush_lsn()")), "2")

    def _wait(self, server: str, ask: str, wanted: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while (found := self.sql(server, ask)) != wanted:
            if time.monotonic() > deadline:
                sys.exit(f"{server} still answers {found}, not {wanted}: {ask}")
            time.sleep(0.2)

    def level(self) -> None:
        """Make the herd what it was before anybody's turn, whoever was the last one."""
        primary = self.primary()
        upstream = f"host={SERVERS[primary]} port={PORT} user=replicator application_name="
        for server in SERVERS:
            self.sql(server, "ALTER SYSTEM RESET primary_slot_name")
            if server != primary:
                self.sql(server, f"ALTER SYSTEM SET primary_conninfo = '{upstream}{server}'")
            self.sql(server, "SELECT pg_reload_conf()")
        for server in SERVERS:
            # A replica that was told to do without its slot lets go of it a moment later.
            self._wait(server, "SELECT count(*) FROM pg_replication_slots WHERE active", "0")
            self.sql(server, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
        self.wait_for_replicas(primary)
        self.lead_vhost_to(primary)

    def calm(self) -> None:
        """Nothing left over from before: replicas have caught up, and what was changed is on disk."""
        primary = self.primary()
        self.wait_for_replicas(primary)
        # A replica makes a restart point of the primary's last checkpoint only.
        for server in sorted(SERVERS, key=lambda server: server != primary):
            self.sql(server, "CHECKPOINT")
        self.lab.run("sh", "-ec", OPEN, "open", str(self.controller / "ssh_config"), *SERVERS.values())

    def update(self, server: str) -> Path:
        """The DNS update that leads the vhost to a server."""
        path = self.place / f"to-{server}.nsupdate"
        if not path.exists():
            dns = self.lab.run("sh", "-c", 'echo "$ELEPHAAS_DNS_SERVER"').stdout.strip()
            path.write_text(UPDATE.format(server=dns, vhost=VHOST, address=SERVERS[server]), encoding="utf-8")
        return path

    def lead_vhost_to(self, server: str) -> None:
        """By hand."""
        self.lab.run("nsupdate", "-k", str(self.controller / "tsig.key"), str(self.update(server)))

    def start_writers(self, options: Sequence[str], rate: int, connections: int) -> None:
        """Commits from now on."""
        how = ["--rate", str(rate), "--connections", str(connections), "--dns-cache", "0", *options]
        self.lab("writer", "start", HERD, *how, "--seconds", str(2 * PATIENCE_S))

    def timed(self, argv: Sequence[str]) -> float:
        """Seconds that a command of the controller's side took; ends the measurement where it fails."""
        done = self.lab.run("bash", "-c", CLOCK, "clock", *argv, stdin=subprocess.DEVNULL, timeout=PATIENCE_S)
        began, ended, status = map(int, done.stdout.split())
        if status != 0:
            sys.exit(f"{shlex.join(argv)} ended with {status}:\n{done.stderr}")
        return (ended - began) / 1e9

    def gone_since(self, primary: str) -> int:
        """How many rows of earlier rounds, which were there at their end, are there no more."""
        found = self.sql(primary, "SELECT run, count(*) FROM lab_writes GROUP BY run", "app")
        present = {run: int(count) for run, count in (line.split("|") for line in found.splitlines())}
        lost = gone(self._present, present)
        self._present = present
        return lost
