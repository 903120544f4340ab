# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""DNS names that were changed by hand lead to the live primaries again; herds on hold are left alone by all of it.

The tests share one lab, and build on one another in the order of the file.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .moving_fleet import MovingFleet, plan_id


def _herd(name: str, environment: str, port: int, *servers: str) -> dict[str, Any]:
    return {
        "name": name,
        "environment": environment,
        "port": port,
        "pgdata": f"/srv/{name}",
        "vhost": f"{name}.{environment}.example.com",
        "members": [{"server": server} for server in servers],
    }


EAST, WEST = "10.70.0.11", "10.80.0.11"
FLEET: dict[str, Any] = {
    "environments": {"prod": {"protected": True}, "stage": {}},
    "datacenters": {"east": {"networks": ["10.70.0.0/16"]}, "west": {"networks": ["10.80.0.0/16"]}},
    "servers": {
        "e1": {"environment": "stage", "address": EAST},
        "w1": {"environment": "stage", "address": WEST},
        "pe": {"environment": "prod", "address": "10.70.0.21", "dns_name": "pe.prod.example.com"},
        "pw": {"environment": "prod", "address": "10.80.0.21", "dns_name": "pw.prod.example.com"},
    },
    "herds": [
        _herd("one", "stage", 5432, "e1", "w1"),
        _herd("two", "stage", 5433, "e1", "w1"),
        _herd("three", "stage", 5434, "e1", "w1"),
        # Protected, and its name is an alias.
        _herd("safe", "prod", 5432, "pe", "pw"),
    ],
}
VHOSTS = {f"{herd['name']}_{herd['environment']}": herd["vhost"] for herd in FLEET["herds"]}


class NamedFleet(MovingFleet):
    """The lab with that fleet in it, and its name servers."""

    def by_hand(self, herd: str, kind: str, *values: str, ttl: int = 10) -> None:
        """Somebody changes a name with BIND's own tool, and the second server has it too."""
        name = VHOSTS[herd]
        lines = [
            f"update delete {name} {kind}",
            *(f"update add {name} {ttl} {kind} {value}" for value in values),
            "send",
        ]
        script = 'exec nsupdate -k "$ELEPHAAS_DNS_KEY_FILE"'
        server = self.run("printenv", "ELEPHAAS_DNS_SERVER").stdout.strip()
        self.run("sh", "-c", script, input="\n".join([f"server {server}", *lines, ""]))
        # It follows by NOTIFY.
        self.run(
            "sh",
            "-c",
            f'for n in $(seq 100); do {self._asks(2, name, kind)} | grep -q "{values[-1]}" && exit; sleep 0.1; done; exit 1',
        )

    def _asks(self, server: int, name: str, kind: str) -> str:
        zone = name.partition(".")[2]
        return f"dig +noall +answer +norecurse @$(dig +short {zone} NS | sort | sed -n {server}p) {name} {kind}"

    def names(self) -> dict[str, list[tuple[int, str, str]]]:
        """What both servers hold at every name, as (TTL, type, value), and each zone's serial number."""
        found: dict[str, list[tuple[int, str, str]]] = {}
        for number in (1, 2):
            script = "; ".join(self._asks(number, name, "A") for name in VHOSTS.values())
            zones = sorted({name.partition(".")[2] for name in VHOSTS.values()})
            script += "; " + "; ".join(
                f"dig +noall +answer +norecurse @$(dig +short {zone} NS | sort | sed -n {number}p) {zone} SOA"
                for zone in zones
            )
            for line in self.run("sh", "-c", script).stdout.splitlines():
                name, ttl, _in, kind, value = line.split(None, 4)
                found.setdefault(f"{name.rstrip('.')} at {number}", []).append((int(ttl), kind, value))
        # A server turns the order of several values round from one answer to the next.
        return {name: sorted(rows) for name, rows in found.items()}

    def leads_to(self, herd: str, *values: str) -> bool:
        """Whether the name holds these values on both servers; fails where they do not agree."""
        held = [sorted(value.rstrip(".") for _ttl, kind, value in self._held(herd, number)) for number in (1, 2)]
        assert held[0] == held[1], f"{herd}: {held}"
        return held[0] == sorted(values)

    def _held(self, herd: str, number: int) -> list[tuple[int, str, str]]:
        name = f"{VHOSTS[herd]} at {number}"
        kept = self.names()[name]
        return [row for row in kept if row[1] == kept[0][1]]

    def ttls(self, herd: str) -> set[int]:
        return {ttl for number in (1, 2) for ttl, _kind, _value in self._held(herd, number)}

    def unchanged(self) -> dict[str, Any]:
        """What stays as it is while nothing is done. Compare two of them."""
        return {"names": self.names(), "registry": self.tables()}

    def switch(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Confirmed as an operator would who has read the plan; it may fail."""
        return self.play("switch_dns", *arguments, "-e", "confirm=yes")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NamedFleet]:
    folder = tmp_path_factory.mktemp("names")
    file = folder / "fleet.yml"
    file.write_text(yaml.safe_dump(FLEET), encoding="utf-8")
    fleet = NamedFleet(folder / "lab")
    try:
        fleet.up(file)
        yield fleet
    finally:
        fleet.down()


def rows_of(output: str) -> dict[str, list[str]]:
    """The table of the drift: herd -> its cells."""
    lines = output[output.index("SHOULD HOLD") : output.index("plan id:")].splitlines()[1:]
    return {line.split()[0]: line.split()[1:] for line in lines if line.partition(" ")[0] in VHOSTS}


def test_drift_is_shown_and_repaired(fleet: NamedFleet) -> None:
    fleet.by_hand("one_stage", "A", WEST)
    fleet.by_hand("two_stage", "A", EAST, WEST)
    fleet.by_hand("safe_prod", "CNAME", "pw.prod.example.com.")
    before = fleet.unchanged()
    # Any of its instances selects a herd, a replica as well.
    rehearsed = fleet.play("switch_dns", "--limit", "dc_west", "--check")
    assert rehearsed.returncode == 0, rehearsed.stdout
    rows = rows_of(rehearsed.stdout)
    assert rows["one_stage"][:5] == ["changes", "one.stage.example.com", "A", WEST, EAST]
    assert rows["two_stage"][:6] == ["changes", "two.stage.example.com", "A", f"{EAST},", WEST, EAST]
    assert rows["safe_prod"][:5] == [
        "changes",
        "safe.prod.example.com",
        "CNAME",
        "pw.prod.example.com",
        "pe.prod.example.com",
    ]
    assert rows["three_stage"][0] == "stays"
    refused = fleet.play("switch_dns", "-e", "confirm=yes")
    assert (refused.returncode, "safe_prod: protected" in refused.stdout) == (2, True), refused.stdout
    assert fleet.unchanged() == before

    done = fleet.play("switch_dns", "--limit", "dc_west", "-e", f"confirm={plan_id(rehearsed)}")
    assert done.returncode == 0, done.stdout
    assert "resolvers may answer the old value until" in done.stdout
    for herd in ("one_stage", "two_stage", "three_stage"):
        assert fleet.leads_to(herd, EAST)
    assert fleet.leads_to("safe_prod", "pe.prod.example.com")
    history = fleet.tables()["ele_operation"]
    assert sorted((row["herd_name"], row["verb"], row["state"]) for row in history) == [
        (herd, "switch_dns", "done") for herd in ("one", "safe", "two")
    ]
    assert {row["plan_id"] for row in history} == {plan_id(rehearsed)}

    settled = fleet.unchanged()
    again = fleet.play("switch_dns")
    assert again.returncode == 0, again.stdout
    assert "there is nothing to do" in again.stdout
    assert fleet.unchanged() == settled


def test_one_hold_at_a_time_and_every_verb_minds_it(fleet: NamedFleet) -> None:
    def play(name: str, *arguments: str, status: int = 0, says: str = "") -> None:
        done = fleet.play(name, "--limit", "three_stage@w1", *arguments)
        assert done.returncode == status, done.stdout
        assert says in done.stdout, done.stdout

    before = fleet.unchanged()
    play("hold", "-e", "reason='disk is replaced'", "--check", "--diff", says="+three_stage: disk is replaced")
    assert fleet.unchanged() == before
    play("hold", "-e", "reason='disk is replaced'", says="three_stage  held")
    held = {row["herd_name"]: row for row in fleet.tables()["ele_herd"]}
    assert [name for name, row in held.items() if row["hold_reason"]] == ["three"]
    assert (held["three"]["hold_reason"], bool(held["three"]["hold_by"])) == ("disk is replaced", True)
    assert held["three"]["hold_since"]

    settled = fleet.unchanged()
    play("hold", "-e", "reason='disk is replaced'", says="on hold already")
    play("hold", "-e", "reason=other", status=2, says="HERD_ON_HOLD")
    for verb in ("restart", "switch_dns", "failover"):
        limit = "three_stage@e1" if verb == "failover" else "three_stage"
        done = fleet.play(verb, "--limit", limit, "--check")
        assert done.returncode == 2, done.stdout
        assert "REFUSE HERD_ON_HOLD three_stage" in done.stdout, done.stdout
    status = fleet.play("status", "--limit", "three_stage", "--check")
    assert f"on hold: disk is replaced ({held['three']['hold_by']}, since " in status.stdout
    assert fleet.unchanged() == settled


def test_a_refused_herd_keeps_no_other_from_its_name(fleet: NamedFleet, tmp_path: Path) -> None:
    """three is on hold; somebody promotes the replica of two beside its primary."""
    fleet.execute(
        "w1",
        "sh",
        "-c",
        '"$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)/pg_ctl" -D /srv/two -w promote',
        user="postgres",
    )
    for herd in ("one_stage", "two_stage", "three_stage"):
        fleet.by_hand(herd, "A", WEST)
    file = tmp_path / "outcome.json"
    done = fleet.switch("--limit", "env_stage", "-e", f"output_file={file}")
    assert done.returncode == 2, done.stdout
    assert "REFUSE SPLIT_BRAIN two_stage" in done.stdout
    outcomes = {row["herd"]: row for row in json.loads(file.read_text(encoding="utf-8"))["outcomes"]}
    assert {herd: (row["outcome"], row["reason"]) for herd, row in outcomes.items() if herd != "one_stage"} == {
        "two_stage": ("refused", "SPLIT_BRAIN"),
        "three_stage": ("refused", "HERD_ON_HOLD"),
    }
    assert outcomes["one_stage"]["outcome"] == "done"
    assert fleet.leads_to("one_stage", EAST)
    assert fleet.leads_to("two_stage", WEST)
    assert fleet.leads_to("three_stage", WEST)


def test_a_ttl_is_lowered_ahead(fleet: NamedFleet) -> None:
    fleet.by_hand("one_stage", "A", EAST, ttl=3600)
    done = fleet.switch("--limit", "one_stage", "-e", "ttl=15")
    assert done.returncode == 0, done.stdout
    assert "TTL 3600 s -> 15 s, in effect everywhere from" in done.stdout
    assert (fleet.ttls("one_stage"), fleet.leads_to("one_stage", EAST)) == ({15}, True)
    assert "there is nothing to do" in fleet.play("switch_dns", "--limit", "one_stage", "-e", "ttl=15").stdout


def test_without_the_registry(fleet: NamedFleet) -> None:
    fleet.by_hand("one_stage", "A", WEST)
    fleet("registry", "stop")
    try:
        lost = fleet.play("switch_dns", "--limit", "one_stage", "--check")
        assert lost.returncode == 2
        assert "REFUSE REGISTRY_LOST one_stage" in lost.stdout, lost.stdout
        done = fleet.switch("--limit", "one_stage:three_stage", "-e", "without_registry=true")
        assert done.returncode == 2, done.stdout
        # The inventory's snapshot knows of the hold.
        assert "REFUSE HERD_ON_HOLD three_stage: it is on hold: disk is replaced (" in done.stdout
        assert "NOT_BEGUN" not in done.stdout
    finally:
        fleet("registry", "start")
    assert fleet.leads_to("one_stage", EAST)
    assert fleet.leads_to("three_stage", WEST)


def test_a_released_herd_is_done_again(fleet: NamedFleet) -> None:
    released = fleet.play("release", "--limit", "one_stage:three_stage")
    assert released.returncode == 0, released.stdout
    assert "released; it was on hold: disk is replaced (" in released.stdout
    assert not [row for row in fleet.tables()["ele_herd"] if row["hold_reason"] or row["hold_by"] or row["hold_since"]]
    settled = fleet.tables()
    again = fleet.play("release", "--limit", "three_stage")
    assert (again.returncode, "changed=0" in again.stdout) == (0, True), again.stdout
    assert fleet.tables() == settled
    done = fleet.switch("--limit", "three_stage")
    assert done.returncode == 0, done.stdout
    assert fleet.leads_to("three_stage", EAST)
