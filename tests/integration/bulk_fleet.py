# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet that is started, stopped and restarted in bulk, and what its servers and their logs say about that."""

from __future__ import annotations

import datetime
import json
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .moving_fleet import MovingFleet, plan_id, until


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
    "datacenters": {"east": {"networks": ["10.50.0.0/16"]}, "west": {"networks": ["10.60.0.0/16"]}},
    "servers": {
        "e1": {"environment": "stage", "address": "10.50.0.11"},
        "e2": {"environment": "stage", "address": "10.50.0.12"},
        "w1": {"environment": "stage", "address": "10.60.0.11"},
        "w2": {"environment": "stage", "address": "10.60.0.12"},
        "pe": {"environment": "prod", "address": "10.50.0.21"},
        "pw": {"environment": "prod", "address": "10.60.0.21"},
    },
    "herds": [
        # A cascade: w2 streams from w1.
        _herd("chain", "stage", 5432, "e1", "e2", "w1", {"server": "w2", "upstream": "w1"}),
        _herd("pair", "stage", 5433, "e1", "w1", "w2"),
        _herd("twin", "stage", 5434, "e2", "w2"),
        _herd("safe", "prod", 5432, "pe", "pw"),
    ],
}
HERDS = {f"{herd['name']}_{herd['environment']}": herd for herd in FLEET["herds"]}
EVERYTHING = sorted(f"{name}@{member['server']}" for name, herd in HERDS.items() for member in herd["members"])

_PID = 'for data in "$@"; do echo "$data $(sed -n "1p;3p" $data/postmaster.pid 2>/dev/null | tr "\\n" ":")"; done'
_LOGGED = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) (\S+) .*?LOG:  (.*)$", re.MULTILINE)
_KINDS = {
    "shutdown request": "stops",
    "database system is ready to accept": "answers",
    "started streaming WAL from primary": "streams",
}


@dataclass(frozen=True)
class Event:
    """A line of a server's log. at: seconds since 1970; kind: stops, answers or streams."""

    at: float
    kind: str


class BulkFleet(MovingFleet):
    """The lab with that fleet in it."""

    def pids(self, names: Iterable[str] = EVERYTHING) -> dict[str, str]:
        """Of each instance its process and when it was started; empty when there is none."""
        found: dict[str, str] = {}
        wanted = sorted(names)
        for server in sorted({name.partition("@")[2] for name in wanted}):
            here = {data_of(name): name for name in wanted if name.endswith(f"@{server}")}
            for line in self.execute(server, "sh", "-c", _PID, "sh", *here).stdout.splitlines():
                data, _blank, process = line.partition(" ")
                found[here[data]] = process
        return found

    def unchanged(self) -> dict[str, Any]:
        """All that stays as it is while nothing is done: processes, claims, registry. Compare two of them."""
        claims = {
            server: self.execute(server, "sh", "-c", "cat ~postgres/.elephaas/*.json 2>/dev/null || true").stdout
            for server in FLEET["servers"]
        }
        return {"pids": self.pids(), "claims": claims, "registry": self.tables()}

    def do(self, verb: str, limit: str | None, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A bulk playbook, confirmed as an operator would who read the plan; it may fail."""
        limited = ["--limit", limit] if limit else []
        if any(name.partition("@")[0].endswith("_prod") for name in selected(limit)):
            rehearsed = self.play(verb, *limited, *arguments, "--check")
            return self.play(verb, *limited, *arguments, "-e", f"confirm={plan_id(rehearsed)}")
        return self.play(verb, *limited, *arguments, "-e", "confirm=yes")

    def done(self, verb: str, limit: str | None, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The same, and it must not fail."""
        ended = self.do(verb, limit, *arguments)
        assert ended.returncode == 0, ended.stdout
        return ended

    def events(self, name: str, since: float) -> list[Event]:
        """What the instance has logged since, in order."""
        herd, _at, server = name.partition("@")
        text = self.execute(server, "cat", f"/var/log/postgresql/{herd}.log").stdout
        found = []
        for stamp, zone, message in _LOGGED.findall(text):
            assert zone in ("UTC", "GMT", "Etc/UTC"), "the moments of several servers are compared"
            at = datetime.datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=datetime.timezone.utc)
            kind = next((kind for text, kind in _KINDS.items() if text in message), None)
            if kind and at.timestamp() >= since:
                found.append(Event(at.timestamp(), kind))
        return found

    def absence(self, name: str, since: float, kind: str) -> tuple[float, float]:
        """From its one shutdown since then until it answers, or streams, again."""
        events = self.events(name, since)
        stops = [event.at for event in events if event.kind == "stops"]
        assert len(stops) == 1, f"{name} was stopped {len(stops)} times: {events}"
        back = [event.at for event in events if event.kind == kind and event.at > stops[0]]
        assert back, f"{name} was stopped and never {kind}: {events}"
        return stops[0], min(back)

    def all_stream(self, *herds: str) -> None:
        """Wait until in these herds one member takes writes and all others stream."""

        def settled() -> bool:
            for herd in herds:
                for name in members_of(herd):
                    asked = "SELECT NOT pg_is_in_recovery(), (SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming')"
                    said = self("sql", name, asked, check=False).stdout.strip()
                    if said != ("t|0" if name == members_of(herd)[0] else "f|1"):
                        return False
            return True

        until(settled, f"all of {herds} stream")

    def pg_ctl_of(self, name: str, *arguments: str) -> None:
        """PostgreSQL's own tool, by hand, as an operator would at that server's prompt."""
        script = '"$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)/pg_ctl" -D "$0" -w "$@" </dev/null >/dev/null 2>&1'
        self.execute(name.partition("@")[2], "sh", "-c", script, data_of(name), *arguments, user="postgres")

    def module(self, name: str, **arguments: Any) -> dict[str, Any]:
        """What a module says that runs on the controller."""
        argv = ["ansible", "localhost", "-m", f"elephaas.herd.{name}", "-a", json.dumps(arguments)]
        said = self.run(*argv, check=False).stdout.partition("=>")[2]
        return dict(json.loads(said))

    def history(self, herd: str) -> list[dict[str, Any]]:
        """The herd's operations, the newest first."""
        return list(self.module("registry_info", herds=[herd])["operations"])


def members_of(herd: str) -> list[str]:
    """The instances of a herd, its first primary first."""
    return [f"{herd}@{member['server']}" for member in HERDS[herd]["members"]]


def data_of(name: str) -> str:
    """The data directory of an instance."""
    return str(HERDS[name.partition("@")[0]]["pgdata"])


def selected(limit: str | None) -> list[str]:
    """The instances that a limit of one word selects, by the fleet file."""
    kind, _under, value = (limit or "all").partition("_")
    if limit is None:
        return EVERYTHING
    if kind == "server":
        return [name for name in EVERYTHING if name.endswith(f"@{value}")]
    if kind == "dc":
        return [name for name in EVERYTHING if value[0] in name.partition("@")[2]]
    if kind == "env":
        return [name for name in EVERYTHING if name.partition("@")[0].endswith(f"_{value}")]
    return [name for name in EVERYTHING if limit in (name, name.partition("@")[0])]
