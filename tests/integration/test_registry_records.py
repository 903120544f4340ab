# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records of the registry: removed with all that goes with them or not at all, renamed with their history."""

from __future__ import annotations

import contextlib
import copy
import getpass
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from ansible_collections.elephaas.herd.plugins.module_utils.decide import fleet as fleets
from ansible_collections.elephaas.herd.plugins.module_utils.decide.fleet_change import record_name, records
from ansible_collections.elephaas.herd.plugins.module_utils.decide.record import Decision, Wish
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry import schema
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import connect
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.fleet import load_fleet
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.inventory import read_inventory
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.operations import history
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.records import settle_record
from ansible_collections.elephaas.herd.tests.integration.registry_client import (
    FLEET,
    Ansible,
    begin,
    dump,
    finish,
    of,
    query,
    recorded,
    refused,
    roles_of,
)
from ansible_collections.elephaas.herd.tests.integration.registry_server import Server
from ansible_collections.elephaas.herd.tests.integration.sshd_server import running_sshd

PROD = Wish(("environment", "prod"), present=False)
TRADING = ("herd", "prod", "trading")


@pytest.fixture()
def three_herds(registry: Any) -> Any:
    """The registry with a third herd in prod, and a history."""
    more = copy.deepcopy(FLEET)
    more["herds"].append(
        {
            "name": "london",
            "environment": "prod",
            "port": 5500,
            "pgdata": "/srv/london",
            "members": [{"server": "nyc-db2"}, {"server": "chi-db1"}],
        }
    )
    load_fleet(registry, "utility", fleets.parse_fleet(more), "merged")
    finish(registry, begin(registry, from_server=None, to_server=None)["operation"]["token"], "aborted")
    return registry


def names(registry: Any) -> set[str]:
    return {f"{key[0]} {record_name(key)}" for key in records(recorded(registry))}


def settle(registry: Any, *key: str, new: tuple[str, ...] | None = None, **values: Any) -> Decision:
    return settle_record(registry, "utility", Wish(key, values, (key[0], *new) if new else None))


# -- removing ----------------------------------------------------------------------------------------------------------


def test_what_check_mode_lists_is_what_is_gone(server: Server, database: str, three_herds: Any) -> None:
    before, untouched = names(three_herds), dump(server, database)
    for check_mode in (True, False):
        error = refused(
            "RECORD_HAS_DEPENDANTS",
            lambda mode=check_mode: settle_record(three_herds, "utility", PROD, check_mode=mode),
        )
        assert "herd london_prod" in error.reason
    rehearsed = settle_record(three_herds, "utility", PROD, cascade=True, check_mode=True)
    assert dump(server, database) == untouched
    done = settle_record(three_herds, "utility", PROD, cascade=True)
    assert (rehearsed.removed, rehearsed.affected) == (done.removed, done.affected)
    assert set(done.removed) == before - names(three_herds)
    assert len([item for item in done.removed if item.startswith("herd ")]) == 3
    # A server takes members of another environment's herd along.
    assert "instance trading_stage@nyc-db1" in done.removed
    assert names(three_herds) == {"environment stage", "datacenter chicago", "datacenter newyork", "herd trading_stage"}
    with three_herds.cursor() as cursor:
        cursor.execute("SET search_path TO utility")
        assert [(o["herd"], o["state"]) for o in history(cursor, ["prod"], [], 9)] == [("trading", "aborted")]
    assert settle_record(three_herds, "utility", PROD, cascade=True).changes == []


@pytest.mark.parametrize("check_mode", [True, False])
def test_what_runs_is_not_removed_unless_forced(three_herds: Any, check_mode: bool) -> None:
    query(three_herds, f"UPDATE ele_instance SET is_online = true WHERE instance_id = {of('nyc-db1', 'Order-Book')}")
    before = names(three_herds)

    def remove(force: bool = False) -> Decision:
        return settle_record(three_herds, "utility", PROD, True, force, check_mode)

    assert "Order-Book_prod@nyc-db1 would be removed and is online" in refused("RECORD_IN_USE", remove).reason
    query(three_herds, "UPDATE ele_instance SET is_online = false")
    begin(three_herds, herd="Order-Book", from_server=None, to_server=None)
    assert "herd Order-Book_prod would be removed" in refused("RECORD_IN_USE", remove).reason
    assert names(three_herds) == before
    assert remove(force=True).removed
    state = "open" if check_mode else "aborted"
    assert query(three_herds, "SELECT state FROM ele_operation WHERE herd_name = 'Order-Book'") == [(state,)]


@contextlib.contextmanager
def held_up(server: Server, database: str) -> Iterator[Callable[[], int]]:
    """Removals get stuck at the first server, when herds and instances are gone; gives who waits: its process id."""
    with contextlib.closing(connect(server.options(database))) as holder:
        query(
            holder,
            "CREATE FUNCTION stop_here() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM pg_advisory_xact_lock(42); RETURN OLD; END';"
            "CREATE TRIGGER stop_here BEFORE DELETE ON ele_server FOR EACH ROW EXECUTE FUNCTION stop_here();"
            "SELECT pg_advisory_lock(42)",
        )

        def waiting() -> int:
            for _attempt in range(600):
                found = query(
                    holder,
                    "SELECT pid FROM pg_stat_activity WHERE datname = %s AND wait_event = 'advisory'",
                    database,
                )
                if found:
                    return int(found[0][0])
                time.sleep(0.05)
            pytest.fail("nobody waits")

        yield waiting


def test_a_removal_whose_connection_ends_half_way_removes_nothing(
    server: Server, database: str, three_herds: Any
) -> None:
    errors: list[Exception] = []

    def work() -> None:
        try:
            settle_record(three_herds, "utility", PROD, cascade=True)
        except psycopg2.Error as error:
            errors.append(error)

    with held_up(server, database) as waiting:
        before = names(three_herds)
        thread = threading.Thread(target=work)
        thread.start()
        server.sql(f"SELECT pg_terminate_backend({waiting()})")
        thread.join(30)
    assert len(errors) == 1
    with contextlib.closing(connect(server.options(database))) as again:
        assert names(again) == before
        query(again, "DROP TRIGGER stop_here ON ele_server")
        assert settle_record(again, "utility", PROD, cascade=True).removed


def test_a_removal_that_is_killed_half_way_removes_nothing(
    server: Server, database: str, three_herds: Any, tmp_path: Path
) -> None:
    ansible = Ansible(server, database, tmp_path)
    with held_up(server, database) as waiting:
        before = names(three_herds)
        task = ["-m", "elephaas.herd.registry_environment", "-a", "name=prod state=absent cascade=true"]
        run = subprocess.Popen(
            [str(Path(sys.executable).with_name("ansible")), "-i", "localhost,", "localhost", *task],
            env=ansible.environment,
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            backend = waiting()
            # The workers of newer cores lead sessions of their own.
            workers = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
            for worker in workers:
                os.kill(int(worker), signal.SIGKILL)
        finally:
            run.kill()
            run.wait()
    # Its server process goes on, and finds nobody to commit for.
    for _attempt in range(600):
        if server.sql(f"SELECT count(*) FROM pg_stat_activity WHERE pid = {backend}") == [(0,)]:
            break
        time.sleep(0.05)
    assert names(three_herds) == before


def test_two_removals_at_once_are_one_after_the_other(server: Server, database: str) -> None:
    outcomes: list[bool] = []

    def work() -> None:
        with contextlib.closing(connect(server.options(database))) as connection:
            outcomes.append(bool(settle_record(connection, "utility", PROD, cascade=True).changes))

    threads = [threading.Thread(target=work) for _number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False, False, True]


def test_an_operation_that_begins_meanwhile_is_waited_for(server: Server, database: str, registry: Any) -> None:
    begun = psycopg2.connect(host=str(server.directory), user="postgres", dbname=database)
    query(begun, f"UPDATE ele_instance SET is_online = true WHERE instance_id = {of('nyc-db2')}")
    refusals: list[str] = []

    def work() -> None:
        wish = Wish(("instance", "prod", "trading", "nyc-db2"), present=False)
        refusals.append(refused("RECORD_IN_USE", lambda: settle_record(registry, "utility", wish)).reason)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    begun.commit()
    begun.close()
    thread.join(10)
    assert "is online" in refusals[0]


# -- renaming ----------------------------------------------------------------------------------------------------------


def test_history_and_inventory_follow_a_renaming(registry: Any) -> None:
    finish(registry, begin(registry)["operation"]["token"], "done")
    settle(registry, *TRADING, new=("prod", "deals"))
    settle(registry, "environment", "prod", new=("live",))
    settle(registry, "server", "chi-db1", new=("chi-db9",))
    settle(registry, "datacenter", "chicago", new=("ord",))
    document = read_inventory(registry, "utility")
    found = next(o for o in document["operations"] if o["herd"] == "deals")
    assert (found["environment"], found["from_server"], found["to_server"]) == ("live", "chi-db9", "nyc-db1")
    place = {i["server"]: (i["role"], i["datacenter"]) for i in document["instances"] if i["herd"] == "deals"}
    assert (place["chi-db9"], place["nyc-db1"]) == (("replica", "ord"), ("primary", "newyork"))
    with registry.cursor() as cursor:
        cursor.execute("SET search_path TO utility")
        assert [o["state"] for o in history(cursor, ["live"], ["deals"], 9)] == ["done"]
        assert history(cursor, ["prod"], [], 9) == []
    inventory = {name for (name,) in query(registry, "SELECT name FROM ele_inventory_name")}
    assert {"deals_live", "env_live", "server_chi_db9", "chi-db9", "dc_ord"} <= inventory
    assert not {"trading_prod", "env_prod", "server_chi_db1", "chi-db1", "dc_chicago"} & inventory


def test_names_that_are_swapped_or_used_again_do_not_mix_up_history(registry: Any) -> None:
    finish(registry, begin(registry)["operation"]["token"], "done")
    query(
        registry,
        "BEGIN; SET CONSTRAINTS ALL DEFERRED; UPDATE ele_server SET hostname = CASE hostname WHEN 'chi-db1' THEN 'nyc-db1' ELSE 'chi-db1' END"
        " WHERE hostname IN ('chi-db1', 'nyc-db1'); COMMIT",
    )
    moved = "SELECT from_server, to_server FROM ele_operation"
    assert query(registry, moved) == [("nyc-db1", "chi-db1")]
    settle(registry, "server", "chi-db1", new=("old-db1",))
    settle(registry, "server", "chi-db1", environment="prod")
    settle(registry, "server", "chi-db1", new=("other",))
    assert query(registry, moved) == [("nyc-db1", "old-db1")]


def test_a_herd_moves_to_another_environment_with_its_members(registry: Any) -> None:
    refused("RECORD_CLASH", lambda: settle(registry, *TRADING, new=("stage", "trading")))
    settle(registry, *TRADING, new=("stage", "deals"))
    assert "instance deals_stage@chi-db1" in names(registry)
    assert settle(registry, *TRADING, new=("stage", "deals")).changes == []


def test_what_an_operation_is_about_keeps_its_name_until_it_ends(registry: Any) -> None:
    token = begin(registry)["operation"]["token"]
    for key, new in ((TRADING, ("prod", "x")), (("environment", "prod"), ("x",)), (("server", "nyc-db2"), ("x",))):
        error = refused("RECORD_IN_USE", lambda of=key, to=new: settle(registry, *of, new=to))
        assert "trading_prod would be renamed" in error.reason
    settle(registry, "environment", "stage", new=("test",))
    finish(registry, token, "aborted")
    assert settle(registry, *TRADING, new=("prod", "x")).changes


# -- changing ----------------------------------------------------------------------------------------------------------


def test_members_without_a_place_of_their_own_follow_their_herd(registry: Any) -> None:
    found = settle(registry, *TRADING, port=5444, pgdata="/srv/moved", vhost="")
    assert found.target == recorded(registry)
    rows = query(registry, "SELECT local_port, local_pgdata, effective_port FROM ele_instance ORDER BY instance_id")
    assert rows[:3] == [(None, None, 5444), (None, None, 5444), (5555, "/srv/other", 5555)]
    back = settle(registry, "instance", "prod", "trading", "nyc-db2", port=5444, pgdata="")
    assert back.target == recorded(registry)
    assert query(
        registry, f"SELECT local_port, local_pgdata FROM ele_instance WHERE instance_id = {of('nyc-db2')}"
    ) == [(None, None)]


def test_the_role_of_a_herd_that_was_seen_is_not_rewritten_by_the_way(registry: Any) -> None:
    key = ("instance", "prod", "trading", "nyc-db2")
    query(registry, "UPDATE ele_instance SET last_seen = now()")
    assert "replica" in refused("RECORD_IN_USE", lambda: settle(registry, *key, role="detached")).reason
    settle_record(registry, "utility", Wish(key, {"role": "detached"}), force=True)
    assert roles_of(registry)["nyc-db2"] == ("detached", None)


def test_whole_fleets_are_built_and_taken_down_record_by_record(registry: Any) -> None:
    wanted = recorded(registry)
    for key in sorted(records(wanted), key=lambda key: key[0] != "environment"):
        settle_record(registry, "utility", Wish(key, present=False), cascade=True)
    assert names(registry) == set()
    for kind in ("environment", "datacenter", "server", "herd", "instance"):
        for key, item in records(wanted).items():
            if key[0] == kind:
                settle(registry, *key, **{name: value for name, value in item.items() if value is not None})
    assert recorded(registry) == wanted


# -- through Ansible ---------------------------------------------------------------------------------------------------


def test_each_module_by_itself(server: Server, tmp_path: Path) -> None:
    database = server.new_database()
    with contextlib.closing(connect(server.options(database))) as connection:
        schema.apply_migrations(connection, "utility")
    ansible = Ansible(server, database, tmp_path)
    steps: list[tuple[str, dict[str, Any]]] = [
        ("environment", {"name": "prod", "protected": True}),
        ("datacenter", {"name": "chicago", "networks": ["10.10.0.0/16"]}),
        ("server", {"name": "chi-db1", "environment": "prod", "address": "10.10.0.11", "check_ssh": False}),
        ("herd", {"environment": "prod", "name": "trading", "pgdata": "/srv/trading", "db_port": 5440}),
        ("instance", {"environment": "prod", "herd": "trading", "server": "chi-db1"}),
    ]
    for kind, arguments in steps:
        before = dump(server, database)
        rehearsed = ansible.module(f"registry_{kind}", arguments, "--check")
        assert rehearsed["changed"], rehearsed
        assert dump(server, database) == before
        done = ansible.module(f"registry_{kind}", arguments)
        assert (done["changes"], done["record"]) == (rehearsed["changes"], rehearsed["record"])
        assert ansible.module(f"registry_{kind}", arguments)["changed"] is False
    assert done["record"] == {
        "environment": "prod",
        "herd": "trading",
        "server": "chi-db1",
        "role": "primary",
        "upstream": None,
        "port": 5440,
        "pgdata": "/srv/trading",
        "priority": 0,
    }
    cleared = json.dumps({"environment": "prod", "name": "trading", "description": "for traders"})
    task = ["-m", "elephaas.herd.registry_herd", "-a", cleared]
    shown = ansible.run("ansible", "-i", "localhost,", "localhost", *task, "--check", "--diff").stdout
    assert "+  description: for traders" in shown
    refusal = ansible.module("registry_herd", {"environment": "prod", "name": "trading", "db_port": 70000})
    assert (refusal["code"], "db_port: 70000" in refusal["msg"]) == ("RECORD_INVALID", True)
    gone = ansible.module("registry_environment", {"name": "prod", "state": "absent", "cascade": True}, "--check")
    assert gone["removed"] == [
        "instance trading_prod@chi-db1", "herd trading_prod", "server chi-db1", "environment prod",
    ]  # fmt: skip
    wrong = ansible.module("registry_environment", {"name": "prod", "state": "absent", "new_name": "x"})
    assert wrong["code"] == "BAD_ARGUMENTS"


def test_a_server_is_logged_in_to_before_it_is_recorded(
    server: Server, database: str, tmp_path: Path, registry: Any
) -> None:
    ansible = Ansible(server, database, tmp_path)
    with running_sshd(tmp_path) as port:
        new = {
            "name": "new-db1", "environment": "prod", "address": "127.0.0.1", "ssh_port": port,
            "ssh_user": getpass.getuser(), "ssh_timeout": 5,
        }  # fmt: skip

        def record(*flags: str, key: str = "key", known: str = "known", **changes: Any) -> dict[str, Any]:
            options = f"-o UserKnownHostsFile={tmp_path}/{known} -o IdentitiesOnly=yes -o ControlMaster=no -F none"
            variables = {
                "keys": str(tmp_path),
                "ansible_ssh_private_key_file": "{{ keys }}/" + key,
                "ansible_ssh_common_args": options,
            }
            (tmp_path / "vars.json").write_text(json.dumps(variables), encoding="utf-8")
            return ansible.module("registry_server", {**new, **changes}, "-e", "@vars.json", *flags)

        public = (tmp_path / "other_key.pub").read_text().split()[1]
        for flags in ((), ("--check",)):
            stranger = record(*flags, key="other_key")
            assert stranger["code"] == "AUTH_REFUSED"
            assert public in stranger["next_step"]
            assert f"~{getpass.getuser()}/.ssh/authorized_keys on 127.0.0.1" in stranger["next_step"]
        unknown = record(known="nothing")
        assert unknown["code"] == "HOST_KEY_REFUSED"
        assert f"ssh-keyscan -p {port} -t ed25519 127.0.0.1 >> {tmp_path}/nothing" in unknown["next_step"]
        assert record(ssh_port=1)["code"] == "HOST_UNREACHABLE"
        assert "server new-db1" not in names(registry)
        # What is wrong with the record is told without asking anybody.
        assert record(known="nothing", environment="nowhere")["code"] == "RECORD_UNKNOWN"
        assert record("--check")["changed"]
        assert record()["changed"]
        assert record(key="other_key")["changed"] is False  # nothing new about the way there
        assert record(key="other_key", ssh_port=1)["code"] == "HOST_UNREACHABLE"
        assert record(key="other_key", dns_name="new-db1.example.com")["changed"]
        assert record(ssh_port=1, check_ssh=False)["changed"]
        assert record(key="other_key", state="absent")["removed"] == ["server new-db1"]
