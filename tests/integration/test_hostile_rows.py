# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ten thousand hostile rows in a real registry, past every rule of it, and what Ansible makes of them.

The registry's own rules are dropped first: whatever a table can hold may stand in it. Then the inventory, an inventory
script with what it printed (as AWX runs jobs), a playbook that uses the values in every way, and the status of hostile
herds. No text may be run, no text may change, and no row may cost another its place.
"""

from __future__ import annotations

import ast
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from psycopg2 import sql
from psycopg2.extras import Json, execute_values

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.fleet import parse_fleet
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry import operations, schema
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.checkin import check_in
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import as_operator_error, connect
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.fleet import load_fleet
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.holder import this_holder
from ansible_collections.elephaas.herd.tests.hostile import NOT_IN_POSTGRESQL, SAFE_HOST, SAFE_USER, seeds, texts
from ansible_collections.elephaas.herd.tests.integration.registry_client import FLEET
from ansible_collections.elephaas.herd.tests.integration.registry_server import Server, running_server

ROOT = Path(__file__).resolve().parents[2]
CORES = [Path(sys.prefix), ROOT / ".venv-oldest"]
ROWS = {"environment": 500, "datacenter": 500, "server": 3000, "herd": 2500, "instance": 2500, "operation": 1000}

# Every rule that PostgreSQL holds for the registry goes: what a row may be is then only a matter of types.
WITHOUT_RULES = """
DO $$
DECLARE item record;
BEGIN
    FOR item IN SELECT c.oid::regclass AS view FROM pg_class c
                 WHERE c.relnamespace = 'utility'::regnamespace AND c.relkind = 'v'
    LOOP EXECUTE format('DROP VIEW %s CASCADE', item.view); END LOOP;
    FOR item IN SELECT conrelid::regclass AS tab, conname FROM pg_constraint
                 WHERE connamespace = 'utility'::regnamespace AND conrelid <> 0 AND contype NOT IN ('p', 't')
                 ORDER BY contype = 'u'
    LOOP EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I CASCADE', item.tab, item.conname); END LOOP;
    FOR item IN SELECT i.indexrelid::regclass AS index FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
                 WHERE c.relnamespace = 'utility'::regnamespace AND NOT i.indisprimary
    LOOP EXECUTE format('DROP INDEX %s', item.index); END LOOP;
    FOR item IN SELECT tgname, tgrelid::regclass AS tab FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
                 WHERE c.relnamespace = 'utility'::regnamespace AND NOT tgisinternal
    LOOP EXECUTE format('DROP TRIGGER %I ON %s', item.tgname, item.tab); END LOOP;
    FOR item IN SELECT attrelid::regclass AS tab, attname, atttypid FROM pg_attribute a
                  JOIN pg_class c ON c.oid = a.attrelid
                 WHERE c.relnamespace = 'utility'::regnamespace AND c.relkind = 'r' AND attnum > 0
                   AND NOT attisdropped AND atttypid = 'varchar'::regtype
    LOOP EXECUTE format('ALTER TABLE %s ALTER %I TYPE text', item.tab, item.attname); END LOOP;
END
$$
"""

PROBED = 50
"""Hosts whose values a playbook uses."""
LOOKED_AT = 20
"""Hosts whose instances, which are not there, are looked at."""


WELL = {"system_identifier": "1", "version": "15.8"}

# A herd with one member that is a host, and thirty on servers whose names are none.
LAME = """
INSERT INTO utility.ele_server (server_id, hostname, environment_id, address, ssh_user, ssh_port)
VALUES (9000, 'lame', {prod}, '127.0.0.1', 'postgres', 1);
INSERT INTO utility.ele_herd (herd_id, herd_name, environment_id, base_name, db_port, pgdata)
VALUES (9000, 'lame', {prod}, 'lame', 5432, '/srv/lame');
INSERT INTO utility.ele_instance (herd_id, server_id, role, effective_port, effective_pgdata)
SELECT 9000, server_id, 'replica', 5432, '/srv/lame' FROM (
    SELECT server_id FROM utility.ele_server WHERE server_id = 9000
    UNION ALL (SELECT server_id FROM utility.ele_server WHERE hostname !~ '^[A-Za-z0-9][A-Za-z0-9_.-]*$' LIMIT 30)) s
"""

# What makes a row a host or a group: hostile in some rows only, or no row would get through.
IDENTITY = {
    "environment": ("env_name",),
    "datacenter": ("dc_name",),
    "server": ("hostname", "address", "ssh_user"),
    "herd": ("herd_name",),
    "instance": (),
    "operation": (),
}
# Column of a herd or an instance -> host variable.
SHOWN = {
    "herd": {name: f"elephaas_{name}" for name in ("vhost", "os_user", "control", "replication_user", "base_name", "hold_reason", "hold_by")},
    "instance": {
        "role": "elephaas_role",
        "version": "elephaas_version",
        "effective_pgdata": "elephaas_pgdata",
        "system_identifier": "elephaas_system_identifier",
    },
    "server": {"dns_name": "elephaas_dns_name"},
}  # fmt: skip


@dataclass
class Fleet:
    """What was written: of each kind the rows as {column: text}, by id; and what was there before as it was seen."""

    server: Server
    database: str
    canary: Path
    rows: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    before: dict[str, Any] = field(default_factory=dict)

    def expected(self) -> dict[str, dict[str, str]]:
        """The texts of each host that nothing is wrong with, but that its texts are hostile."""
        found = {}
        for number, instance in self.rows["instance"].items():
            server, herd = self.rows["server"][number], self.rows["herd"][number]
            if "broken" not in server and "broken" not in herd:
                host = f"{herd['herd_name']}_prod@{server['hostname']}"
                found[host] = {
                    variable: row[column]
                    for kind, row in (("herd", herd), ("instance", instance), ("server", server))
                    for column, variable in SHOWN[kind].items()
                }
        return found


def _write(cursor: Any, kind: str, source: Iterator[str], **fixed: Any) -> dict[int, dict[str, Any]]:
    """Rows with hostile text in every column of type text (and json), each with what *fixed* says of it by number."""
    cursor.execute(
        "SELECT column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = 'utility' AND table_name = %s AND data_type IN ('text', 'jsonb')",
        [f"ele_{kind}"],
    )
    columns = dict(cursor.fetchall())
    rows = {}
    for number in range(1000, 1000 + ROWS[kind]):
        row: dict[str, Any] = {name: next(source) for name in columns}
        for name, value in fixed.items():
            row[name] = value(number) if callable(value) else value
        if IDENTITY[kind] and number % 5 == 0:
            name = IDENTITY[kind][number // 5 % len(IDENTITY[kind])]
            row[name] = row["broken"] = next(source)
        rows[number] = row
    written = [name for name in rows[1000] if name != "broken"]
    execute_values(
        cursor,
        sql.SQL("INSERT INTO utility.{} ({}) VALUES %s")
        .format(sql.Identifier(f"ele_{kind}"), sql.SQL(", ").join(map(sql.Identifier, written)))
        .as_string(cursor),
        [
            [Json({row[name]: [row[name]]}) if columns.get(name) == "jsonb" else row[name] for name in written]
            for row in rows.values()
        ],
    )
    return rows


@pytest.fixture(name="fleet", scope="module")
def fixture_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A registry with a good fleet and ten thousand hostile rows."""
    place = tmp_path_factory.mktemp("hostile")
    with running_server() as server:
        fleet = Fleet(server, server.new_database(), place / "CANARY")
        connection = connect(server.options(fleet.database))
        schema.apply_migrations(connection, "utility")
        load_fleet(connection, "utility", parse_fleet(FLEET), "merged")
        configure(place, fleet)
        fleet.before = listed(place, CORES[0])
        source = texts(fleet.canary)
        with connection.cursor() as cursor:
            cursor.execute(WITHOUT_RULES)
            cursor.execute("SELECT environment_id FROM utility.ele_environment WHERE env_name = 'prod'")
            (prod,) = cursor.fetchone()
            fleet.rows["environment"] = _write(cursor, "environment", source, environment_id=lambda number: number)
            fleet.rows["datacenter"] = _write(cursor, "datacenter", source, datacenter_id=lambda number: number)
            fleet.rows["server"] = _write(
                cursor, "server", source, server_id=lambda number: number, hostname=lambda number: f"s{number}",
                environment_id=prod, datacenter_id=lambda number: 1000 + number % 500, address="127.0.0.1",
                ssh_user="postgres", ssh_port=1,
            )  # fmt: skip
            # Every text by itself where a person would write one.
            alone = itertools.cycle(seeds(fleet.canary))
            fleet.rows["herd"] = _write(
                cursor, "herd", source, herd_id=lambda number: number, herd_name=lambda number: f"h{number}",
                hold_reason=lambda number: next(alone), db_port=5432,
                # Every tenth one in a hostile environment.
                environment_id=lambda number: 1000 + number % 500 if number % 10 == 1 else prod,
            )  # fmt: skip
            for number, row in fleet.rows["herd"].items():
                if number % 10 == 1:
                    row["broken"] = "its environment"
            fleet.rows["instance"] = _write(
                cursor, "instance", source, instance_id=lambda number: number, herd_id=lambda number: number,
                server_id=lambda number: number, effective_port=5432, lag_bytes=-1, last_seen="infinity",
            )  # fmt: skip
            fleet.rows["operation"] = _write(
                cursor, "operation", source, operation_id=lambda number: number, herd_id=lambda number: number,
                # Two of three are operations that the inventory reads.
                token=7, state=lambda number: ("open", "incomplete", next(source))[number % 3],
                started_dt=lambda number: ("infinity", "-infinity", "2025-01-01", "0044-03-15 BC")[number % 4],
                lease_until="infinity",
            )  # fmt: skip
            cursor.execute(LAME.format(prod=prod))
        connection.close()
        yield fleet
    assert not fleet.canary.exists(), "something ran a text"


def ansible(place: Path, core: Path, *argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one of Ansible's programs of that ansible-core in that folder."""
    (place / "ansible.cfg").write_text(
        "[defaults]\nforks = 10\ngathering = explicit\nretry_files_enabled = false\n"
        "[inventory]\nunparsed_is_failed = true\n[ssh_connection]\nretries = 0\n"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "ELEPHAAS_", "PG"))}
    return subprocess.run(
        [str(core / "bin" / argv[0]), *argv[1:]],
        cwd=place,
        env={
            **clean,
            "PATH": f"{core / 'bin'}:{clean['PATH']}",
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build" / "collections"),
            "ANSIBLE_HOME": str(place / "home"),
            **environment,
        },
        capture_output=True,
        check=False,
        encoding="utf-8",
        timeout=120,
    )


def configure(place: Path, fleet: Fleet, **options: Any) -> None:
    """Write herds.yml (JSON is YAML)."""
    base = {"plugin": "elephaas.herd.herds", "snapshot": False, **fleet.server.options(fleet.database)}
    (place / "herds.yml").write_text(json.dumps({**base, **options}))


def listed(place: Path, core: Path, source: str = "herds.yml", *arguments: str, **environment: str) -> dict[str, Any]:
    """What ansible-inventory --list gives; what is wrapped for Ansible as the text that it is."""
    done = ansible(place, core, "ansible-inventory", "-i", source, "--list", *arguments, **environment)
    assert done.returncode == 0, done.stderr[-2000:]
    (place / "printed.json").write_text(done.stdout)
    (place / "warnings").write_text(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout, object_hook=_unwrapped)
    return found


def _unwrapped(item: dict[str, Any]) -> Any:
    return item["__ansible_unsafe"] if set(item) == {"__ansible_unsafe"} else item


def without_time(found: dict[str, Any]) -> dict[str, Any]:
    for variables in found["_meta"]["hostvars"].values():
        variables.pop("elephaas_inventory_read_at", None)
    return found


@pytest.fixture(name="core", params=CORES, ids=["newest", "oldest"])
def fixture_core(request: pytest.FixtureRequest) -> Path:
    """Each ansible-core that is there."""
    core: Path = request.param
    if not (core / "bin" / "ansible-inventory").exists():
        pytest.skip(f"there is no {core.name}")
    return core


def assert_whole(found: dict[str, Any], fleet: Fleet) -> None:
    """The good hosts as they were before; the hostile ones with their texts; nobody whom ssh must not see."""
    variables = found["_meta"]["hostvars"]
    for host, before in without_time(fleet.before)["_meta"]["hostvars"].items():
        assert {**variables[host], "elephaas_inventory_read_at": None} == {**before, "elephaas_inventory_read_at": None}
    for group, content in fleet.before.items():
        if group not in ("_meta", "all"):
            assert set(content["hosts"]) <= set(found[group]["hosts"]), group
    expected = fleet.expected()
    assert len(expected) > 1500
    for host, wanted in expected.items():
        assert {name: variables[host][name] for name in wanted} == wanted
    for host, values in variables.items():
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*(@[A-Za-z0-9][A-Za-z0-9_.-]*)?", host)
        assert SAFE_HOST.fullmatch(values["ansible_host"])
        assert SAFE_USER.fullmatch(values["ansible_user"])


def test_the_inventory(tmp_path: Path, fleet: Fleet, core: Path) -> None:
    configure(tmp_path, fleet)
    # A client's encoding that holds few of these characters is one more thing around us that must not matter.
    found = listed(tmp_path, core, PGCLIENTENCODING="LATIN1")
    assert_whole(found, fleet)
    warned = (tmp_path / "warnings").read_text()
    assert warned.count("left out") > 500
    assert all(line.isprintable() for line in warned.split("\n")), "a warning drives the terminal"
    # As AWX does it: what was printed is the inventory of the job, through a script.
    listed(tmp_path, core, "herds.yml", "--export")
    script(tmp_path)
    assert without_time(listed(tmp_path, core, "script")) == without_time(found)


def script(place: Path) -> None:
    """An inventory script that prints what ansible-inventory printed."""
    printed = (place / "printed.json").rename(place / "kept.json")
    (place / "script").write_text(f"#!/bin/sh\ncat {printed}\n")
    (place / "script").chmod(0o700)


USE = """
- hosts: instances
  gather_facts: false
  connection: local
  tasks:
    - debug: {var: elephaas_hold_reason}
    - debug: {msg: "{{ elephaas_hold_reason }} and {{ elephaas_operation }}"}
    - set_fact:
        kept: ["{{ elephaas_hold_reason }}"]
        all_of_it: "{{ dict(names | zip(names | map('extract', hostvars[inventory_hostname]))) }}"
    - debug: {msg: "{{ item }}: {{ all_of_it }}"}
      loop: "{{ kept }}"
    - command: {argv: [printf, "%s", "{{ elephaas_hold_reason }}"]}
      register: printed
      when: inventory_hostname in ansible_play_hosts[:6]
    - copy:
        content: >-
          {{ {'seen': dict(ansible_play_hosts | zip(ansible_play_hosts | map('extract', hostvars, 'all_of_it'))),
              'kept': dict(ansible_play_hosts | zip(ansible_play_hosts | map('extract', hostvars, 'kept'))),
              'printed': dict(ansible_play_hosts[:6]
                              | zip(ansible_play_hosts[:6] | map('extract', hostvars, ['printed', 'stdout'])))}
             | to_json }}
        dest: "{{ playbook_dir }}/used.json"
      run_once: true
- hosts: lame_prod
  gather_facts: false
  tasks:
    # Members that are no hosts of the inventory: such a name is all that ssh would get.
    - ping:
      delegate_to: "{{ item }}"
      loop: "{{ elephaas_members | difference(groups.instances) }}"
      register: asked
      ignore_errors: true
      ignore_unreachable: true
    - assert: {that: [asked.results | length > 20]}
"""


def literal(text: str) -> Any:
    """What set_fact makes of text that looks like a list or a dictionary, before ansible-core 2.19: data, as it says."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def test_values_in_use(tmp_path: Path, fleet: Fleet, core: Path) -> None:
    expected = fleet.expected()
    # Every text by itself is the reason for a hold of one of them.
    hosts = list({wanted["elephaas_hold_reason"]: host for host, wanted in expected.items()}.values())[:PROBED]
    configure(tmp_path, fleet, herds=[*(host.partition("@")[0] for host in hosts), "lame_prod"])
    listed(tmp_path, core, "herds.yml", "--export")
    script(tmp_path)
    names = sorted(next(iter(expected.values())))
    (tmp_path / "use.yml").write_text(USE)
    for source in ("herds.yml", "script"):
        extra = json.dumps({"names": names, "ansible_python_interpreter": sys.executable})
        done = ansible(tmp_path, core, "ansible-playbook", "-i", source, "use.yml", "-e", extra)
        assert done.returncode == 0, [line[:900] for line in done.stdout.splitlines() if "fatal: " in line][:2]
        used = json.loads((tmp_path / "used.json").read_text())
        assert set(used["seen"]) == {*hosts, "lame_prod@lame"}
        for host in hosts:
            assert used["seen"][host] == expected[host]
            text = expected[host]["elephaas_hold_reason"]
            assert used["kept"][host] in ([text], [literal(text)])
        for host, text in used["printed"].items():
            assert text == expected[host]["elephaas_hold_reason"].rstrip("\n")
        assert not fleet.canary.exists()


def test_the_status_of_hostile_herds(tmp_path: Path, fleet: Fleet, core: Path) -> None:
    hosts = list(fleet.expected())[:LOOKED_AT]
    configure(tmp_path, fleet, herds=[host.partition("@")[0] for host in hosts])
    registry = fleet.server.options(fleet.database)
    extra = json.dumps(
        {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "elephaas_registry": registry}
    )
    done = ansible(tmp_path, core, "ansible-playbook", "-i", "herds.yml", "elephaas.herd.status", "-e", extra)
    total = f"{LOOKED_AT} herds, {LOOKED_AT} instances"
    assert total in done.stdout, done.stdout[-3000:] + done.stderr[-2000:]
    shown = done.stdout[done.stdout.index("problems:") : done.stdout.index(total)]
    assert all(line.isprintable() for line in shown.split("\n")), "what is shown drives the terminal"
    assert not fleet.canary.exists()


def test_what_is_written_is_what_is_read(fleet: Fleet) -> None:
    """Operations, check-ins and fleet files keep any text that PostgreSQL can hold, and refuse the others in words."""
    database = fleet.server.new_database()
    connection = connect(fleet.server.options(database))
    schema.apply_migrations(connection, "utility")
    for number, value in enumerate([*seeds(fleet.canary), *NOT_IN_POSTGRESQL]):
        for write in (_load, _operate):
            try:
                with as_operator_error():
                    write(connection, value)
            except OperatorError as error:
                assert value in NOT_IN_POSTGRESQL, (write, number, error.reason)
                assert error.code in ("FLEET_INVALID", "REGISTRY_TEXT", "REGISTRY_ERROR")
            else:
                assert value not in NOT_IN_POSTGRESQL, (write, number)
        # What one host says must not keep the others' words from the record.
        check_in(connection, "utility", observations(value), "ada")
        assert server_versions(connection)["nyc-db1"] == "15.8"
    connection.close()


def _load(connection: Any, value: str) -> None:
    document = {**FLEET, "environments": {"prod": {"description": value}, "stage": {}}}
    after = load_fleet(connection, "utility", parse_fleet(document), "merged")["after"]
    assert after["environments"]["prod"]["description"] == value


def _operate(connection: Any, value: str) -> None:
    request = {
        "herd": "trading", "environment": "prod", "verb": "failover", "plan_id": value, "operator": value,
        "from_server": "chi-db1", "to_server": "nyc-db1", "plan": {value: [value]}, "lease_s": 60, "token_floor": 0,
        "awx": {"user": value}, "holder": this_holder(os.getpid()),
    }  # fmt: skip
    token = operations.begin(connection, "utility", request)["operation"]["token"]
    about = {"herd": "trading", "environment": "prod", "token": token, "lease_s": 60}
    operations.record_phase(connection, "utility", {**about, "phase": value, "detail": {value: value}})
    ended = {**about, "outcome": "aborted", "detail": {"why": value}, "roles": None}
    found = operations.finish(connection, "utility", ended)["operation"]
    assert (found["plan_id"], found["operator"], found["plan"]) == (value, value, {value: [value]})
    assert found["phases"][0]["detail"] == {value: value}


def observations(value: str) -> list[dict[str, Any]]:
    """What was seen of two herds: the host of one says *value* wherever it can, the other one nothing of the sort."""
    odd = {"status": "running", "role": "primary", "writable": True, "timeline": 1}
    odd |= {"system_identifier": value, "version": value, "positions": {"current": value}}
    seen = {"environment": "prod", "reachable": True, "error": None}
    return [
        {**seen, "herd": "trading", "server": "chi-db1", "facts": odd, "error": value},
        {**seen, "herd": "Order-Book", "server": "nyc-db1", "facts": {**odd, **WELL, "positions": {}}},
    ]


def server_versions(connection: Any) -> dict[str, str]:
    """The version on record of each server's instance, if it has one; then the records are made empty again."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE utility.ele_instance i SET version = NULL FROM utility.ele_server s, utility.ele_instance old"
            " WHERE s.server_id = i.server_id AND old.instance_id = i.instance_id"
            " AND i.version IS NOT NULL RETURNING s.hostname, old.version"
        )
        return dict(cursor.fetchall())
