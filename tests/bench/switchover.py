# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A planned failover as writers see it, beside a bare script and beside repmgr.

One herd of three in two data centers, with about a gigabyte of data; each of several hundred commits a second inserts a
row and changes a random old one. Its primary is moved from one data center to the other and back, by each contender in
turn:

playbook  elephaas.herd.failover, confirmed with `yes`, as an operator types it: it looks, decides, locks, switches, leads
          the vhost over, makes the other members follow, sees them stream, and records all of it.
script    the floor. Over ssh connections that are open it stops the primary, promotes the candidate and sends one
          signed DNS update that was written beforehand; no checks, and the other members are left behind.
repmgr    `repmgr standby switchover --siblings-follow` on the candidate, with the configuration its manual gives.

What is the same for all of them: the servers, the load, the direction, every ssh connection from the controller is open,
both replicas stream without slots, a checkpoint was just made before the load began. The clock runs on the controller's side, from the
command's start to its end. The gap is the longest time between two acknowledged commits of all writers together, from
before the command until after it. Lost is what was acknowledged and is not in the new primary.

repmgr does no DNS, so its writers do not go through DNS either: they ask the members for one that accepts writes, the
candidate first, so the moment it does they find it, without the update and the look-up that the other two pay for.
It gets its own database role without a password, and its records are brought up to date before each of its turns.
What a contender leaves to be done (the script: the old primary and the sibling; repmgr: the vhost) is not timed.

`--only playbook --rounds 100` is 100 planned failovers in a row under load; nothing is repaired in between.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from ansible_collections.elephaas.herd.tests.bench.harness import ROOT, Times, print_result, print_table, turns
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
REPMGR_CONF = "/var/lib/postgresql/repmgr.conf"
# A switch that takes longer has failed; the writers end by themselves soon after it.
PATIENCE_S = 180
CHUNK_MB = 64

# Runs a command and says when it began and ended, in nanoseconds, and how.
CLOCK = 'began=$(date +%s%N); "$@" >&2; status=$?; echo "$began $(date +%s%N) $status"'
# The whole floor.
SCRIPT = """\
set -eu
ssh -F {ssh_config} -l postgres {old} '{programs}/pg_ctl stop -D {data} -m fast -w -s'
ssh -F {ssh_config} -l postgres {new} '{programs}/pg_ctl promote -D {data} -w -s'
nsupdate -k {key} {update}
"""
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


@dataclass(frozen=True)
class Switch:
    """What one switch cost."""

    gap_s: float
    wall_s: float
    acknowledged: int
    lost: int
    # Whether an old primary acknowledged anything after its successor had.
    two_primaries: bool


class Herd:
    """The herd in the lab, and what is done to it by hand."""

    def __init__(self, lab: Lab, place: Path) -> None:
        self.lab = lab
        self.controller = lab.state / "controller"
        self._place = place
        self._ssh = ["ssh", "-F", str(self.controller / "ssh_config")]
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
        fleet = self._place / "fleet.yml"
        fleet.write_text(yaml.safe_dump(FLEET), encoding="utf-8")
        self.lab.up(fleet)
        primary = PAIR[0]
        for server in SERVERS:
            # What PostgreSQL comes with: the lab's own hosts have less, so that a hundred of them fit on a machine.
            self.sql(server, "ALTER SYSTEM SET shared_buffers = '128MB'")
            self.on(server, PROGRAMS / "pg_ctl", "restart", "-D", DATA, "-m", "fast", "-w", "-s", "-l", "/dev/null")
            # Where a command ends up on the hosts, it finds the same: all of them know each other.
        self.sql(primary, BALLAST, "app")
        rows = 0
        while rows < megabytes * ROWS_PER_MB:
            more = min(CHUNK_MB * ROWS_PER_MB, megabytes * ROWS_PER_MB - rows)
            self.sql(primary, GROW.format(first=rows + 1, last=rows + more), "app")
            rows += more
            self.wait_for_replicas(primary)
        # The writers' table.
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
        ask = STREAMING.format(lsn=self.sql(primary, "SELECT pg_current_wal_flush_lsn()"))
        deadline = time.monotonic() + PATIENCE_S
        while self.sql(primary, ask) != "2":
            if time.monotonic() > deadline:
                sys.exit(f"not both replicas stream from {primary}")
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
        self.wait_for_replicas(primary)
        for server in SERVERS:
            self.sql(server, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")
        self.lead_vhost_to(primary)

    def calm(self) -> None:
        """Nothing left over from before: replicas have caught up, and what was changed is on disk."""
        primary = self.primary()
        self.wait_for_replicas(primary)
        for server in (primary, *SERVERS):
            self.sql(server, "CHECKPOINT")
        for account in ("root", "postgres"):
            for address in SERVERS.values():
                self.lab.run(*self._ssh, "-l", account, address, "true")

    def update(self, server: str) -> Path:
        """The DNS update that leads the vhost to a server."""
        path = self._place / f"to-{server}.nsupdate"
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
        gone = sum(max(0, count - present.get(run, 0)) for run, count in self._present.items())
        self._present = present
        return gone


class Playbook:
    """Ours."""

    writers: tuple[str, ...] = ()

    def __init__(self, herd: Herd) -> None:
        self._herd = herd

    def prepare(self, old: str, new: str) -> None:
        """Have the registry know what the others did."""
        done = self._herd.lab.playbook("status")
        if f"{HERD}@{old}" not in self._herd.lab.run("ansible-inventory", "--graph", "primaries").stdout:
            sys.exit(f"the registry does not know the primary {old}:\n{done.stdout}")

    def command(self, old: str, new: str) -> list[str]:
        """What an operator types."""
        return [
            *("ansible-playbook", "elephaas.herd.failover", "--limit", HERD),
            *("-e", f"candidate={new}", "-e", "confirm=yes"),
        ]

    def finish(self, old: str, new: str) -> None:
        """Nothing is left to do."""


class Script:
    """The floor."""

    writers: tuple[str, ...] = ()

    def __init__(self, herd: Herd) -> None:
        self._herd = herd

    def prepare(self, old: str, new: str) -> None:
        """Nothing."""

    def command(self, old: str, new: str) -> list[str]:
        """Stop, promote, DNS."""
        folder = self._herd.controller
        text = SCRIPT.format(
            ssh_config=folder / "ssh_config",
            old=SERVERS[old],
            new=SERVERS[new],
            programs=PROGRAMS,
            data=DATA,
            key=folder / "tsig.key",
            update=self._herd.update(new),
        )
        return ["bash", "-c", text]

    def finish(self, old: str, new: str) -> None:
        """Start the old primary as a replica."""
        self._herd.put(old, f"{DATA}/postgresql.auto.conf", f"primary_conninfo = 'host={SERVERS[new]} user=replicator'\n")
        self._herd.put(old, f"{DATA}/standby.signal", "")
        self._herd.on(old, PROGRAMS / "pg_ctl", "start", "-D", DATA, "-w", "-s", "-l", "/dev/null")


class Repmgr:
    """The peer."""

    def __init__(self, herd: Herd) -> None:
        self._herd = herd
        self._ready = False
        # The candidate first: see the module's documentation.
        self.writers: tuple[str, ...] = ()

    def _repmgr(self, server: str, *words: str) -> None:
        self._herd.on(server, PROGRAMS / "repmgr", "-f", REPMGR_CONF, *words)

    def _install(self, primary: str) -> None:
        """Its configuration, its database, and ssh from each member to each, as it needs them."""
        key = self._herd.controller.parent.parent / "members_key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, stdin=subprocess.DEVNULL)
        known = (self._herd.controller / "known_hosts").read_text(encoding="utf-8")
        access = "".join(f"host all,replication repmgr {address}/32 trust\n" for address in SERVERS.values())
        for number, (server, address) in enumerate(SERVERS.items(), start=1):
            self._herd.put(server, "~postgres/.ssh/id_ed25519", key.read_text(encoding="utf-8"))
            self._herd.put(server, "~postgres/.ssh/known_hosts", known)
            public = key.with_suffix(".pub").read_text(encoding="utf-8")
            self._herd.put(server, "/run/herdlab/authorized_keys", public, user="root")
            self._herd.put(server, f"{DATA}/pg_hba.conf", access)
            self._herd.sql(server, "SELECT pg_reload_conf()")
            settings = {
                "node_id": number,
                "node_name": server,
                "conninfo": f"host={address} port={PORT} user=repmgr dbname=repmgr connect_timeout=2",
                "data_directory": DATA,
                "pg_bindir": PROGRAMS,
                "replication_user": "repmgr",
            }
            text = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
            self._herd.put(server, REPMGR_CONF, text)
        self._herd.sql(primary, "CREATE ROLE repmgr SUPERUSER REPLICATION LOGIN; CREATE DATABASE repmgr OWNER repmgr")

    def prepare(self, old: str, new: str) -> None:
        """Have its records say what the others did."""
        self.writers = ("--servers", ",".join((new, old, SIBLING)))
        if not self._ready:
            self._install(old)
            self._ready = True
        self._repmgr(old, "primary", "register", "--force")
        number = list(SERVERS).index(old) + 1
        for server in (new, SIBLING):
            self._herd.wait_for_replicas(old)
            self._repmgr(server, "standby", "register", "--force", f"--upstream-node-id={number}")
        self._herd.wait_for_replicas(old)

    def command(self, old: str, new: str) -> list[str]:
        """On the candidate."""
        repmgr = f"{PROGRAMS}/repmgr -f {REPMGR_CONF} standby switchover --siblings-follow"
        return ["ssh", "-F", str(self._herd.controller / "ssh_config"), "-l", "postgres", SERVERS[new], repmgr]

    def finish(self, old: str, new: str) -> None:
        """The vhost."""
        self._herd.lead_vhost_to(new)


Contender = Playbook | Script | Repmgr
CONTENDERS: Mapping[str, type[Contender]] = {"playbook": Playbook, "script": Script, "repmgr": Repmgr}


def switch(herd: Herd, contender: Contender, load: argparse.Namespace) -> Switch:
    """One switch under load."""
    old = herd.primary()
    new = PAIR[1 - PAIR.index(old)]
    contender.prepare(old, new)
    herd.calm()
    herd.start_writers(contender.writers, load.rate, load.connections)
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
        one = switch(herd, contenders[name], load)
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
    if "repmgr" in names[1:]:
        ratios["wall_vs_repmgr"] = walls[ours].median / walls["repmgr"].median
    print_result("switchover", rounds=load.rounds, gap_s=gaps[ours].median, **ratios, lost=lost[ours])
    return lost[ours] == 0 and not any(one.two_primaries for one in found[ours])


@contextmanager
def lab() -> Iterator[Herd]:
    """A lab that is taken down whatever happens."""
    # SIGTERM ends a process without a finally; as an exit it does not.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    with tempfile.TemporaryDirectory(prefix="elephaas-bench-") as name:
        place = Path(name)
        client = Lab(place / "lab")
        try:
            yield Herd(client, place)
        finally:
            client.down()


def main() -> int:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(prog="script/bench switchover", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="switches of each contender")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, help="leave the others out")
    parser.add_argument("--size-mb", type=int, default=1000, help="how large the database is")
    parser.add_argument("--rate", type=int, default=400, help="commits a second that are tried for")
    parser.add_argument("--connections", type=int, default=8, help="over so many connections")
    parser.add_argument("--warm-up", type=float, default=5, help="seconds of load before each switch")
    arguments = parser.parse_args()
    names = [name for name in CONTENDERS if name in (arguments.only or CONTENDERS)]
    if "repmgr" in names and not (PROGRAMS / "repmgr").exists():
        subprocess.run([ROOT / "script" / "bootstrap", "--bench"], check=True)
    with lab() as herd:
        herd.up(arguments.size_mb)
        return 0 if measure(herd, names, arguments) else 1


if __name__ == "__main__":
    sys.exit(main())
