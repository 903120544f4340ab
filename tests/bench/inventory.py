# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`ansible-inventory --list` over the registry, beside a static file and beside ansible-core alone.

The three contenders give the very same hosts, groups and variables; what they print is compared before the clock runs.

registry   our plugin and a real PostgreSQL server, with all that it does by default (it keeps a snapshot)
static     a YAML file. Only core's YAML plugin is enabled, so that no other one reads the file in vain before
memory     a plugin that has everything in memory and hands it to ansible-core by its API (add_host, add_group,
           set_variable, add_child), the way plugins are meant to: what the same inventory costs at least
"""

from __future__ import annotations

import argparse
import functools
import json
import marshal
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from ansible_collections.elephaas.herd.plugins.module_utils.decide.fleet import parse_fleet
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import connect
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.fleet import load_fleet
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.schema import apply_migrations
from ansible_collections.elephaas.herd.tests.bench.harness import (
    COLLECTIONS,
    print_result,
    print_table,
    run,
    take_turns,
)
from ansible_collections.elephaas.herd.tests.integration.registry_server import Server, running_server

SITES = ("chicago", "newyork", "london", "tokyo")
ENVIRONMENTS = ("dev", "stage", "prod")
MEMBERS = 2
PER_SERVER = 8
"""Instances of one server."""

SEEN = """
UPDATE utility.ele_instance
   SET version = CASE WHEN instance_id % 3 = 0 THEN '16.4' ELSE '15.8' END, is_online = instance_id % 50 <> 0,
       last_seen = now(), timeline = 3, lsn = '2A/7F003D90', lag_bytes = CASE role WHEN 'replica' THEN 0 END,
       system_identifier = (7300000000000000000 + herd_id)::text;
-- Every tenth herd has moved: the former primary streams from the new one.
INSERT INTO utility.ele_operation (herd_id, env_name, herd_name, verb, state, token, plan_id, operator, from_server,
                                   to_server, finished_dt)
SELECT r.herd_id, env_name, herd_name, 'failover', 'done', 1, 'p4f1c0de', 'ada', rs.hostname, ps.hostname, now()
  FROM utility.ele_instance r
  JOIN utility.ele_instance p ON p.instance_id = r.upstream_id
  JOIN utility.ele_server rs ON rs.server_id = r.server_id
  JOIN utility.ele_server ps ON ps.server_id = p.server_id
  JOIN utility.ele_herd h ON h.herd_id = r.herd_id
  JOIN utility.ele_environment e ON e.environment_id = h.environment_id
 WHERE r.herd_id % 10 = 0;
ANALYZE
"""
"""What a fleet looks like that is looked at and operated on; a fleet file says nothing of that."""

MEMORY_PLUGIN = '''
"""Everything is there already: only ansible-core's own work is left."""
DOCUMENTATION = """
name: memory
short_description: the same inventory from memory
description: a measurement's floor
options: {plugin: {description: its name, required: true, type: str}}
"""
import marshal

from ansible.plugins.inventory import BaseInventoryPlugin


class InventoryModule(BaseInventoryPlugin):
    NAME = "memory"
    trusted_by_default = True  # read from ansible-core 2.19 on: plain strings come out as plain strings

    def parse(self, inventory, loader, path, cache=True):
        super().parse(inventory, loader, path, cache)
        with open(path + ".marshal", "rb") as stream:
            hosts, groups = marshal.load(stream)
        for host, variables in hosts.items():
            inventory.add_host(host)
            for name, value in variables.items():
                inventory.set_variable(host, name, value)
        for group, (members, variables) in groups.items():
            inventory.add_group(group)
            for name, value in variables.items():
                inventory.set_variable(group, name, value)
            for host in members:
                inventory.add_child(group, host)
'''


def fleet(instances: int) -> dict[str, Any]:
    """A fleet document with this many instances, in herds of two over two sites."""
    count = max(2 * len(SITES), instances // PER_SERVER)
    servers = [f"{SITES[number % len(SITES)]}-db{number // len(SITES):04}" for number in range(count)]
    herds = []
    for number in range(instances // MEMBERS):
        # Neighbours are in different sites.
        places = [servers[(MEMBERS * number + member) % count] for member in range(MEMBERS)]
        herds.append(
            {
                "name": f"ledger{number:05}",
                "environment": ENVIRONMENTS[number % len(ENVIRONMENTS)],
                # Whoever shares a server differs in port and directory.
                "port": 5432 + number % 10_000,
                "pgdata": f"/var/lib/postgresql/15/ledger{number:05}",
                "vhost": f"ledger{number:05}-db.example.com",
                "description": "Accounts, and what becomes of them.",
                "replication_user": "replicator",
                "members": [{"server": place} for place in places],
            }
        )
    return {
        "environments": {name: {"protected": name == "prod"} for name in ENVIRONMENTS},
        "datacenters": {name: {"networks": [f"10.{number}.0.0/16"]} for number, name in enumerate(SITES)},
        "servers": {
            name: {
                "environment": ENVIRONMENTS[number % len(ENVIRONMENTS)],
                "address": f"10.{number % len(SITES)}.{number // 1000}.{number // len(SITES) % 250 + 1}",
                "dns_name": f"{name}.example.com",
            }
            for number, name in enumerate(servers)
        },
        "herds": herds,
    }


def fill(server: Server, instances: int) -> dict[str, Any]:
    """The options of a registry that holds this many instances."""
    options = server.options(server.new_database())
    connection = connect(options)
    try:
        apply_migrations(connection, "utility")
        load_fleet(connection, "utility", parse_fleet(fleet(instances)), "merged")
        with connection.cursor() as cursor:
            cursor.execute(SEEN)
    finally:
        connection.close()
    return options


class Contenders:
    """Three sources of one inventory, in a folder of their own."""

    def __init__(self, place: Path, core: Path, registry: dict[str, Any]) -> None:
        self.place = place
        self.program = core / "bin" / "ansible-inventory"
        (place / "ansible.cfg").write_text("[inventory]\nunparsed_is_failed = true\n")
        (place / "plugins").mkdir()
        (place / "plugins" / "memory.py").write_text(MEMORY_PLUGIN)
        (place / "memory.yml").write_text("plugin: memory\n")
        options = {"plugin": "elephaas.herd.herds", "snapshot_path": str(place / "snapshot"), **registry}
        (place / "herds.yml").write_text(json.dumps(options))
        self._copy(json.loads(self.list("herds.yml", "--export")))

    def _copy(self, found: dict[str, Any]) -> None:
        """Write what our plugin gave as a file and as a memory."""
        hosts = found.pop("_meta")["hostvars"]
        groups = {
            name: (content.get("hosts", []), content.get("vars", {}))
            for name, content in found.items()
            if name != "ungrouped"
        }
        children = {
            name: {"hosts": dict.fromkeys(members), "vars": variables}
            for name, (members, variables) in groups.items()
            if name != "all"
        }
        static = {"all": {"hosts": hosts, "vars": groups["all"][1], "children": children}}
        with open(self.place / "static.yml", "w", encoding="utf-8") as stream:
            yaml.dump(static, stream, Dumper=yaml.CSafeDumper, default_flow_style=False)
        # Only the group all has no hosts of its own.
        with open(self.place / "memory.yml.marshal", "wb") as binary:
            marshal.dump((hosts, groups), binary)

    def list(self, source: str, *arguments: str, keep: bool = True) -> str:
        """What ansible-inventory --list prints."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "ELEPHAAS_", "PG"))
        }
        environment.update(
            ANSIBLE_CONFIG=str(self.place / "ansible.cfg"),
            ANSIBLE_HOME=str(self.place / "home"),
            ANSIBLE_COLLECTIONS_PATH=str(COLLECTIONS),
            ANSIBLE_INVENTORY_PLUGINS=str(self.place / "plugins"),
            ANSIBLE_INVENTORY_ENABLED="ansible.builtin.yaml" if source == "static.yml" else "ansible.builtin.auto",
        )
        argv: list[str | Path] = [self.program, "-i", self.place / source, "--list", *arguments]
        return run(argv, keep=keep, env=environment, cwd=self.place)

    def compared(self) -> int:
        """Number of hosts. Ends the measurement where the three are not the same inventory."""
        expected = _comparable(self.list("herds.yml"))
        for source in ("static.yml", "memory.yml"):
            found = _comparable(self.list(source))
            if found != expected:
                different = [key for key in {**found, **expected} if found.get(key) != expected.get(key)]
                sys.exit(f"{source} is another inventory than herds.yml: {different[:5]}")
        return len(expected["_meta"])

    def reading_s(self) -> float:
        """What the memory plugin's own reading takes, in seconds."""
        started = time.perf_counter()
        marshal.loads((self.place / "memory.yml.marshal").read_bytes())  # noqa: S302  # we have just written it
        return time.perf_counter() - started


def _comparable(printed: str) -> dict[str, Any]:
    """Hosts, groups and variables, in no order, without the time of the reading."""
    found = json.loads(printed)
    hosts = found.pop("_meta")["hostvars"]
    for variables in hosts.values():
        del variables["elephaas_inventory_read_at"]
    groups = {name: {key: sorted(value) for key, value in content.items()} for name, content in found.items()}
    return {"_meta": hosts, **groups}


def measure(server: Server, core: Path, instances: int, rounds: int) -> list[Any]:
    """The line of the table for this many instances."""
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        contenders = Contenders(Path(name), core, fill(server, instances))
        hosts = contenders.compared()
        times = take_turns(
            {
                source: functools.partial(contenders.list, f"{source}.yml", keep=False)
                for source in ("herds", "static", "memory")
            },
            rounds,
        )
        own = times["herds"].median
        return [
            instances, hosts, rounds,
            *(part for source in times.values() for part in (source.median, source.spread)),
            own / times["static"].median, own / times["memory"].median, f"{contenders.reading_s():.3f}",
        ]  # fmt: skip


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(prog="script/bench inventory", description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000], help="numbers of instances")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each size; half of them from 10,000 on")
    parser.add_argument(
        "--core", type=Path, default=Path(sys.prefix), help="the virtual environment whose ansible-core is measured"
    )
    arguments = parser.parse_args()
    core = arguments.core.absolute()
    print(run([core / "bin" / "ansible-inventory", "--version"]).splitlines()[0])
    head = ["instances", "hosts", "rounds"]
    for source in ("registry", "static", "memory"):
        head += [f"{source} s", "min-max"]
    head += ["vs static", "vs memory", "reading of memory s"]
    rows = []
    with running_server() as server:
        for size in sorted(arguments.sizes):
            rounds = arguments.rounds if size < 10_000 else max(1, (arguments.rounds + 1) // 2)
            rows.append(measure(server, core, size, rounds))
    print_table(head, rows)
    print_result("inventory", n=rows[-1][0], vs_static=rows[-1][-3], vs_memory=rows[-1][-2])


if __name__ == "__main__":
    main()
