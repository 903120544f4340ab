# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet that the failover and status tests move about, and what its servers themselves say about it.

One lab for all of them, since it takes longer to build than most of what is tested; each herd has one kind of trouble,
so that one run meets all of them. Nothing here believes Ansible: what holds is read from the servers.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from .lab_client import PROGRAM, Lab

_KEY = pytest.StashKey["MovingFleet"]()


def _herd(name: str, environment: str, port: int, *members: Any) -> dict[str, Any]:
    return {
        "name": name,
        "environment": environment,
        "port": port,
        "pgdata": f"/srv/{name}",
        "vhost": f"{name}.{environment}.example.com",
        "members": [member if isinstance(member, dict) else {"server": member} for member in members],
    }


FLEET: dict[str, Any] = {
    "environments": {"prod": {"protected": True}, "stage": {}},
    "datacenters": {"east": {"networks": ["10.30.0.0/16"]}, "west": {"networks": ["10.40.0.0/16"]}},
    "servers": {
        "e1": {"environment": "prod", "address": "10.30.0.11"},
        "e2": {"environment": "prod", "address": "10.30.0.12"},
        "w1": {"environment": "prod", "address": "10.40.0.11"},
        "w2": {"environment": "prod", "address": "10.40.0.12"},
        "w9": {"environment": "prod", "address": "10.40.0.19"},
        "se": {"environment": "stage", "address": "10.30.0.21", "dns_name": "se.stage.example.com"},
        "sw": {"environment": "stage", "address": "10.40.0.21", "dns_name": "sw.stage.example.com"},
    },
    "herds": [
        # A cascade: w2 streams from w1.
        _herd("main", "prod", 5432, "e1", "e2", "w1", {"server": "w2", "upstream": "w1"}),
        # Unprotected, and its vhost is an alias.
        _herd("small", "stage", 5432, "se", "sw"),
        _herd("fine", "prod", 5501, "e1", "w1"),
        _herd("paused", "prod", 5502, "e1", "w1"),
        _herd("behind", "prod", 5503, "e1", "w1"),
        _herd("split", "prod", 5504, "e1", "w1"),
        _herd("moved", "prod", 5505, "e1", "w1"),
        _herd("dark", "prod", 5506, "e1", "w1", "w9"),
        _herd("solo", "prod", 5507, "e1"),
    ],
}

# Everything on a server that a rehearsal or a refusal must not touch; positions move by themselves and are left out.
_LOOK = r"""
set -eu
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
for data in "$@"; do
    echo "== $data"
    "$bin/pg_controldata" "$data" | grep -E 'cluster state|system identifier|wal_log_hints'
    # Timelines by their history: the control file learns of a new one only at a checkpoint some time later.
    ls -d "$data"/*.signal "$data"/recovery.* "$data"/pg_wal/*.history 2>/dev/null || true
    sed -n 's/^#.*//;/./p' "$data/postgresql.auto.conf"
    ls "$data/pg_replslot"
    # The server's process and when it started: the same server, never stopped.
    sed -n '1p;3p' "$data/postmaster.pid" 2>/dev/null || echo "no server"
done
cd ~postgres
ls -la --time-style=full-iso .elephaas 2>/dev/null | sed 1d || true
cat .elephaas/*.json 2>/dev/null || true
"""

_TABLES = """
import json, os, psycopg2
cursor = psycopg2.connect(os.environ["ELEPHAAS_REGISTRY_DSN"]).cursor()
cursor.execute("SELECT relname FROM pg_class WHERE relnamespace = 'utility'::regnamespace AND relkind = 'r' ORDER BY 1")
found = {}
for (name,) in cursor.fetchall():
    cursor.execute(f"SELECT to_jsonb(t) FROM utility.{name} t ORDER BY to_jsonb(t)::text")
    found[name] = [row for (row,) in cursor.fetchall()]
print(json.dumps(found))
"""

# Ends a run and all that it started, as if the controller's power were cut: no handler of it gets to say anything.
# It is there before it is needed, since a moment later there would be another moment to kill at.
_KILLER = """
import os, signal, sys
mark = sys.argv[1].encode()
print("ready", flush=True)
sys.stdin.readline()
left = True
while left:
    left = False
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/environ", "rb") as stream:
                    if mark in stream.read():
                        os.kill(int(name), signal.SIGKILL)
                        left = True
            except OSError:
                pass
print("killed", flush=True)
"""


@dataclass
class Member:
    """What one instance says about itself. upstream: the server its receiver streams from."""

    server: str
    writable: bool
    timeline: int
    upstream: str | None


class Run:
    """A playbook that goes on while the test looks on, and that can be killed at any moment."""

    def __init__(self, fleet: MovingFleet, name: str, arguments: Iterable[str], log: Path) -> None:
        self._mark = f"ELEPHAAS_TEST_RUN={uuid.uuid4().hex}"
        self._log = log
        self._killer = fleet.background(
            "run", "--", sys.executable, "-c", _KILLER, self._mark.partition("=")[2],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._killer.stdout is not None
        assert self._killer.stdout.readline() == "ready\n"
        with log.open("w", encoding="utf-8") as output:
            self._process = fleet.background(
                "run", "--", "env", self._mark, "ansible-playbook", f"elephaas.herd.{name}", *arguments,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    @property
    def output(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Cut the controller's power."""
        assert self._killer.stdin is not None and self._killer.stdout is not None
        assert self.running, f"it had ended before it was to be killed:\n{self.output}"
        self._killer.stdin.write("now\n")
        self._killer.stdin.flush()
        assert self._killer.stdout.readline() == "killed\n"
        self._process.wait(30)

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Let it go on to its end."""
        status = self._process.wait(300)
        return subprocess.CompletedProcess([], status, self.output, "")

    def close(self) -> None:
        """Leave nothing running."""
        if self.running:
            self.kill()
        self._killer.kill()
        self._killer.wait()


class MovingFleet(Lab):
    """The lab with that fleet in it."""

    def background(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """A command of the lab that goes on while the test does."""
        return subprocess.Popen([str(PROGRAM), *arguments], text=True, env=self._environment(), **options)

    def _environment(self) -> dict[str, str]:
        environment = {**os.environ, "ELEPHAAS_LAB_STATE": str(self.state)}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment.get('PATH', '')}"
        environment.pop("ANSIBLE_COLLECTIONS_PATH", None)
        return environment

    def play(self, name: str, *arguments: str, env: Iterable[str] = ()) -> subprocess.CompletedProcess[str]:
        """A playbook with nobody at a terminal; its standard error is part of stdout, as a person sees it."""
        argv = ["env", *env, "ansible-playbook", f"elephaas.herd.{name}", *arguments]
        done = self.run(*argv, check=False, stdin=subprocess.DEVNULL)
        return subprocess.CompletedProcess(argv, done.returncode, done.stdout + done.stderr, "")

    def fail_over(self, limit: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Rehearse, then do exactly the plan that the rehearsal showed; fails the test when either fails."""
        rehearsed = self.play("failover", "--limit", limit, "--check", *arguments)
        assert rehearsed.returncode == 0, rehearsed.stdout
        done = self.play("failover", "--limit", limit, "-e", f"confirm={plan_id(rehearsed)}", *arguments)
        assert done.returncode == 0, done.stdout
        return done

    # --- what the servers say ---------------------------------------------------------------------

    def members(self, herd: str) -> dict[str, Member]:
        """Every member of a herd, by server; fails when one does not answer."""
        found = self.members_that_answer(herd)
        assert sorted(found) == sorted(servers_of(herd)), f"of {herd} only {sorted(found)} answer"
        return found

    def members_that_answer(self, herd: str) -> dict[str, Member]:
        """Every member of a herd that runs, by server."""
        addresses = {server["address"]: name for name, server in FLEET["servers"].items()}
        found = {}
        for server in servers_of(herd):
            answer = self(
                "sql", f"{herd}@{server}",
                "SELECT pg_is_in_recovery(),"
                " coalesce((SELECT received_tli FROM pg_stat_wal_receiver WHERE status = 'streaming'),"
                " CASE WHEN NOT pg_is_in_recovery() THEN ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))"
                "::bit(32)::int END, 0), coalesce((SELECT sender_host FROM pg_stat_wal_receiver), '')",
                check=False,
            )  # fmt: skip
            if answer.returncode:
                continue
            recovery, timeline, sender = answer.stdout.rstrip("\n").split("|")
            found[server] = Member(server, recovery == "f", int(timeline), addresses.get(sender))
        return found

    def primary(self, herd: str) -> str:
        """The server of the one member that takes writes; fails when it is not exactly one."""
        writable = [member.server for member in self.members(herd).values() if member.writable]
        assert len(writable) == 1, f"{herd}: {writable} take writes"
        return writable[0]

    def refuses_writes(self, instance: str) -> bool:
        """Whether it answers that it takes no writes; any other failure fails the test."""
        done = self("sql", instance, "CREATE TABLE must_not_be (n int)", check=False)
        assert done.returncode == 0 or "read-only transaction" in done.stdout + done.stderr, done.stderr
        return done.returncode != 0

    def stillness(self, *herds: str) -> dict[str, Any]:
        """All that stays the same while nothing is done: servers, name servers, registry. Compare two of them."""
        shown: dict[str, Any] = {"registry": self.tables()}
        wanted = [herd for herd in FLEET["herds"] if f"{herd['name']}_{herd['environment']}" in herds]
        for server in sorted({member["server"] for herd in wanted for member in herd["members"]}):
            paths = [herd["pgdata"] for herd in wanted if server in [member["server"] for member in herd["members"]]]
            look = self("exec", server, "--", "sh", "-c", _LOOK, "sh", *paths, check=False)
            shown[server] = look.stdout + look.stderr
        for herd in wanted:
            zone = herd["vhost"].partition(".")[2]
            for number in (1, 2):
                shown[f"{herd['vhost']} {number}"] = self(
                    "dig", "--server", str(number), herd["vhost"], check=False
                ).stdout
                shown[f"{zone} {number}"] = self("dig", "--server", str(number), zone, "SOA", check=False).stdout
        return shown

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Every row of every table of the registry."""
        return dict(json.loads(self.run(sys.executable, "-c", _TABLES).stdout))

    def roles(self, herd: str) -> dict[str, str]:
        """The roles on record: server -> role."""
        shown = self.run("ansible-inventory", "--list", check=True).stdout
        variables = json.loads(shown)["_meta"]["hostvars"]
        return {server: variables[f"{herd}@{server}"]["elephaas_role"] for server in servers_of(herd)}

    def open_operations(self) -> list[dict[str, Any]]:
        """Operations that the registry does not have as over."""
        return [row for row in self.tables()["ele_operation"] if row["state"] in ("open", "incomplete")]

    def open_claims(self, herd: str) -> list[str]:
        """Servers on which a claim of this herd is not closed."""
        port = herd_of(herd)["port"]
        found = []
        for server in servers_of(herd):
            home = self.execute(server, "sh", "-c", f"cat ~postgres/.elephaas/*-{port}.json", check=False).stdout
            found += [server for record in _documents(home) if record.get("closed") is None and "token" in record]
        return found

    def must_be_settled(self, herd: str, primary: str) -> None:
        """Exactly this primary, everyone else streams on its timeline, DNS leads there, nothing is left open."""
        deadline = time.monotonic() + 30
        while True:
            members = self.members(herd)
            wrong = [
                member
                for member in members.values()
                if member.writable != (member.server == primary)
                or member.timeline != members[primary].timeline
                or (member.server != primary and member.upstream is None)
            ]
            if not wrong or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        assert not wrong, f"{wrong} with {primary} as primary"
        server = FLEET["servers"][primary]
        for number in (1, 2):
            answer = self.dig(str(herd_of(herd)["vhost"]), server=number)
            assert answer[-1] == server["address"]
            assert len(answer) == 1 or answer[0] == f"{server['dns_name']}."
        assert self.roles(herd) == {name: "primary" if name == primary else "replica" for name in servers_of(herd)}
        assert not [row for row in self.open_operations() if f"{row['herd_name']}_{row['env_name']}" == herd]
        assert self.open_claims(herd) == []

    def wait_on(self, server: str, condition: str, seconds: float = 60.0) -> None:
        """Return as soon as a shell condition holds on a server (looked at there, every few milliseconds)."""
        script = f"for i in $(seq {int(seconds * 100)}); do if {condition}; then exit 0; fi; sleep 0.01; done; exit 1"
        done = self("exec", server, "--", "sh", "-c", script, check=False)
        assert done.returncode == 0, f"{server}: never {condition}\n{done.stderr}"

    def pg_ctl(self, instance: str, *arguments: str) -> None:
        """PostgreSQL's own tool, by hand, as an operator would at that server's prompt."""
        herd, _at, server = instance.partition("@")
        script = '"$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)/pg_ctl" -D "$0" -w "$@" </dev/null >/dev/null 2>&1'
        self.execute(server, "sh", "-c", script, str(herd_of(herd)["pgdata"]), *arguments, user="postgres")


def herd_of(name: str) -> dict[str, Any]:
    """A herd of the fleet file, by name and environment as in main_prod."""
    return next(herd for herd in FLEET["herds"] if f"{herd['name']}_{herd['environment']}" == name)


def servers_of(herd: str) -> list[str]:
    """The servers of a herd."""
    return [str(member["server"]) for member in herd_of(herd)["members"]]


def plan_id(done: subprocess.CompletedProcess[str]) -> str:
    """The plan's id in a run's output."""
    found = re.findall(r"^plan id: (p[0-9a-f]{8})$", done.stdout, re.MULTILINE)
    assert len(found) == 1, done.stdout
    return str(found[0])


def until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never {what}"
        time.sleep(0.1)


def shared_fleet(config: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> MovingFleet:
    """The one lab with the moving fleet of this session; it ends with the session."""
    if _KEY not in config.stash:
        folder = tmp_path_factory.mktemp("moving")
        file = folder / "fleet.yml"
        file.write_text(yaml.safe_dump(FLEET), encoding="utf-8")
        fleet = MovingFleet(folder / "lab")
        config.add_cleanup(fleet.down)
        fleet.up(file)
        config.stash[_KEY] = fleet
    return config.stash[_KEY]


def _documents(text: str) -> list[dict[str, Any]]:
    decoder, found, text = json.JSONDecoder(), [], text.strip()
    while text:
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:].strip()
    return found
