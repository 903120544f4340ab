# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start, stop, restart, reload and promote on a real fleet: what the servers and their logs say happened.

The tests share one lab and leave it as they found it; the last ones do not, and say so.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from .bulk_fleet import EVERYTHING, FLEET, HERDS, BulkFleet, data_of, members_of, selected
from .moving_fleet import Run, plan_id, until

ROOT = Path(__file__).resolve().parents[2]
STAGE = [herd for herd in HERDS if herd.endswith("_stage")]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BulkFleet]:
    folder = tmp_path_factory.mktemp("bulk")
    file = folder / "fleet.yml"
    file.write_text(yaml.safe_dump(FLEET), encoding="utf-8")
    fleet = BulkFleet(folder / "lab")
    try:
        fleet.up(file)
        yield fleet
    finally:
        fleet.down()


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """The instances that have another process than before, or none."""
    return sorted(name for name in before if before[name] != after[name])


def outcome_of(output: str, herd: str) -> str:
    """What the last table of a run says about a herd."""
    found = re.findall(rf"^{herd}  +(\S+(?: \S+)*?)  ", output[output.rindex("HERD  ") :], re.MULTILINE)
    assert len(found) == 1, output
    return str(found[0])


# -- rehearsals, and who is asked ------------------------------------------------------------------------------------


def test_a_rehearsal_changes_nothing(fleet: BulkFleet) -> None:
    before = fleet.unchanged()
    for verb, limit, status in (
        ("restart", "all", 0),
        ("stop", "all", 0),
        ("reload", "all", 0),
        ("start", "all", 0),
        ("promote", "twin_stage@w2", 0),
        ("promote", "pair_stage", 2),
    ):
        done = fleet.play(verb, "--limit", limit, "--check")
        assert done.returncode == status, done.stdout
    assert fleet.unchanged() == before


def test_nothing_is_done_that_nobody_agreed_to(fleet: BulkFleet) -> None:
    before = fleet.unchanged()
    for verb, limit, arguments, why in (
        # A primary with replicas.
        ("stop", "twin_stage", [], "nobody is there to be asked"),
        ("restart", "twin_stage@e2", [], "nobody is there to be asked"),
        # A protected environment takes the id of the plan, for a replica as well.
        ("stop", "safe_prod@pw", [], "nobody is there to be asked"),
        ("stop", "safe_prod@pw", ["-e", "confirm=yes"], "protected"),
        ("reload", "env_prod", ["-e", "confirm=p00000000"], "p00000000 is another plan"),
    ):
        done = fleet.play(verb, "--limit", limit, *arguments)
        assert done.returncode != 0, done.stdout
        assert why in done.stdout, done.stdout
    assert fleet.unchanged() == before
    # A replica that nobody waits for is restarted without a question.
    assert fleet.play("restart", "--limit", "twin_stage@w2").returncode == 0
    assert changed(before["pids"], fleet.pids()) == ["twin_stage@w2"]


# -- stop and start, over every kind of selection --------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["chain_stage@w2", "twin_stage", "server_e1", "dc_west", None])
def test_stop_and_start(fleet: BulkFleet, limit: str | None) -> None:
    chosen = selected(limit)
    assert chosen
    before = fleet.pids()
    twice = limit in ("twin_stage", None)
    fleet.done("stop", limit)
    stopped = fleet.pids()
    assert sorted(name for name, process in stopped.items() if not process) == chosen
    assert changed(before, stopped) == chosen
    if twice:
        again = fleet.play("stop", *(["--limit", limit] if limit else []))
        assert again.returncode == 0, again.stdout
        assert "there is nothing to do" in again.stdout
        assert fleet.pids() == stopped
    fleet.done("start", limit)
    started = fleet.pids()
    assert all(started.values())
    assert changed(before, started) == chosen
    if twice:
        again = fleet.play("start", *(["--limit", limit] if limit else []))
        assert again.returncode == 0, again.stdout
        assert "there is nothing to do" in again.stdout
        assert fleet.pids() == started
    fleet.all_stream(*{name.partition("@")[0] for name in chosen})


def test_reload_makes_settings_count(fleet: BulkFleet) -> None:
    names = members_of("pair_stage")
    before = fleet.pids()
    for name in names:
        fleet.sql(name, "ALTER SYSTEM SET log_min_duration_statement = '4242'")
    fleet.done("reload", "pair_stage")
    assert {fleet.sql(name, "SHOW log_min_duration_statement") for name in names} == {"4242ms"}
    # A line that PostgreSQL would not take is not given to it.
    hba = "/srv/pair/pg_hba.conf"
    fleet.execute("w1", "sh", "-c", f"cp -p {hba} {hba}.kept && echo 'host all all nonsense' >> {hba}")
    for name in names:
        fleet.sql(name, "ALTER SYSTEM RESET log_min_duration_statement")
    refused = fleet.do("reload", "pair_stage")
    assert refused.returncode != 0
    assert "CONFIG_ERRORS pair_stage@w1" in refused.stdout
    assert {fleet.sql(name, "SHOW log_min_duration_statement") for name in names} == {"4242ms"}
    fleet.execute("w1", "mv", f"{hba}.kept", hba)
    fleet.done("reload", "pair_stage")
    assert {fleet.sql(name, "SHOW log_min_duration_statement") for name in names} == {"-1"}
    assert fleet.pids() == before


# -- restart -----------------------------------------------------------------------------------------------------------


def test_a_restart_under_load(fleet: BulkFleet) -> None:
    """Applications write; the logs of the servers say who was away when."""
    for herd in ("chain_stage", "pair_stage"):
        fleet("writer", "start", herd)
    try:
        before, began = fleet.pids(), time.time()
        ended = fleet.done("restart", "env_stage")
        after = fleet.pids()
    finally:
        for herd in ("chain_stage", "pair_stage"):
            fleet("writer", "stop", herd)
    assert changed(before, after) == selected("env_stage")
    for herd in STAGE:
        primary, *replicas = members_of(herd)
        away = {name: fleet.absence(name, began, "streams") for name in replicas}
        order = sorted(replicas, key=lambda name: away[name][0])
        for one, after_it in itertools.pairwise(order):
            assert away[one][1] <= away[after_it][0], f"{one} and {after_it} were away at the same time"
        stopped, _back = fleet.absence(primary, began, "answers")
        assert max(end for _start, end in away.values()) <= stopped
        if herd == "chain_stage":
            assert order[0] == "chain_stage@w2", "the far end of the cascade comes first"
        # One operation for each herd, with what was done to whom.
        newest, *earlier = fleet.history(herd)
        assert (newest["verb"], newest["state"], newest["plan_id"]) == ("restart", "done", plan_id(ended))
        assert sorted(newest["detail"]["did"]) == sorted(members_of(herd))
        assert newest["plan_id"] not in [operation["plan_id"] for operation in earlier]
    fleet.all_stream(*STAGE)
    for herd in ("chain_stage", "pair_stage"):
        report = fleet.report(herd)
        assert (report.lost, report.status) == (0, 0)
        assert report.acknowledged > 0


def test_lowered_raised_and_mixed_settings(fleet: BulkFleet) -> None:
    primary, *_replicas = names = members_of("pair_stage")

    def alter(**settings: int) -> None:
        for name in names:
            for setting, value in settings.items():
                fleet.sql(name, f"ALTER SYSTEM SET {setting} = {value}")
            fleet.sql(name, "SELECT pg_reload_conf()")

    def restart_and_order() -> list[str]:
        began = time.time()
        fleet.done("restart", "pair_stage", "-e", "only_pending=true")
        fleet.all_stream("pair_stage")
        return sorted(names, key=lambda name: fleet.absence(name, began, "answers")[0])

    alter(max_connections=30)
    assert restart_and_order()[0] == primary
    assert {fleet.sql(name, "SHOW max_connections") for name in names} == {"30"}
    # Replicas alone cannot go lower than what their primary has said in the WAL.
    alter(max_connections=45)
    assert restart_and_order()[-1] == primary
    assert {fleet.sql(name, "SHOW max_connections") for name in names} == {"45"}
    alter(max_connections=40, max_worker_processes=12)
    before = fleet.pids()
    refused = fleet.do("restart", "pair_stage")
    assert refused.returncode != 0
    assert "some values rise and others fall" in refused.stdout
    assert fleet.pids() == before
    alter(max_connections=45, max_worker_processes=8)


BREAKS = {
    # Passes every look at the configuration files, and fails at the start.
    "start": "echo \"shared_preload_libraries = 'nowhere_to_be_found'\"",
    # Starts, and its upstream turns it away.
    "stream": "sed -n \"s/^primary_conninfo = '\\(.*\\)'$/primary_conninfo = '\\1 password=wrong'/p\"",
}


def break_it(fleet: BulkFleet, name: str, how: str) -> None:
    """From its next restart on it fails."""
    script = f'cp -p "$0" "$0.kept" && {BREAKS[how]} < "$0.kept" >> "$0"'
    fleet.execute(name.partition("@")[2], "sh", "-c", script, f"{data_of(name)}/postgresql.auto.conf")


def mend(fleet: BulkFleet, name: str) -> None:
    """As it was; one that runs is told, one that does not is started."""
    path = f"{data_of(name)}/postgresql.auto.conf"
    fleet.execute(name.partition("@")[2], "mv", f"{path}.kept", path)
    if fleet.pids([name])[name]:
        fleet.sql(name, "SELECT pg_reload_conf()")
    else:
        fleet.done("start", name)


def test_a_replica_that_does_not_come_back_stops_its_herd_alone(fleet: BulkFleet) -> None:
    broken = {"chain_stage@e2": "start", "pair_stage@w1": "stream"}
    for name, how in broken.items():
        break_it(fleet, name, how)
    before = fleet.pids()
    # One herd after the other: a batch in which every herd fails must not be the last one.
    ended = fleet.do("restart", "env_stage", "-e", "serial=1", "-e", "bulk_timeout=10")
    after = fleet.pids()
    assert ended.returncode != 0
    for herd in ("chain_stage", "pair_stage"):
        primary = members_of(herd)[0]
        assert after[primary] == before[primary], f"{primary} was restarted though a replica is missing"
        assert fleet.history(herd)[0]["state"] == "failed"
    assert after["chain_stage@e2"] == ""
    assert sorted(set(changed(before, after)) & set(members_of("twin_stage"))) == members_of("twin_stage")
    assert "chain_stage@e2" in ended.stdout
    assert 'could not access file "nowhere_to_be_found"' in ended.stdout
    assert "does not stream from its upstream" in ended.stdout
    assert "password authentication failed" in ended.stdout
    assert [outcome_of(ended.stdout, herd) for herd in STAGE] == ["failed", "failed", "done"]
    for name in broken:
        mend(fleet, name)
    fleet.all_stream("chain_stage", "pair_stage")
    assert fleet.open_operations() == []


def test_a_budget_of_failures(fleet: BulkFleet) -> None:
    break_it(fleet, "chain_stage@w2", "start")
    before = fleet.pids()
    ended = fleet.do("restart", "env_stage", "-e", "serial=1", "-e", "max_failures=0", "-e", "bulk_timeout=10")
    assert ended.returncode != 0
    # The far end of the cascade is the first of all, and the last.
    assert changed(before, fleet.pids()) == ["chain_stage@w2"]
    assert [outcome_of(ended.stdout, herd) for herd in STAGE] == ["failed", "not begun", "not begun"]
    mend(fleet, "chain_stage@w2")
    fleet.all_stream("chain_stage")


def test_two_operators_and_a_killed_run(fleet: BulkFleet, tmp_path: Path) -> None:
    break_it(fleet, "chain_stage@w2", "stream")
    before = fleet.pids()
    command = ("--limit", "chain_stage,twin_stage", "-e", "confirm=yes", "-e", "bulk_timeout=40")
    first = Run(fleet, "restart", ("--limit", "chain_stage", *command[2:], "-e", "bulk_operator=ada"), tmp_path / "log")
    try:
        until(lambda: fleet.pids(["chain_stage@w2"])["chain_stage@w2"] not in ("", before["chain_stage@w2"]), "begun")
        second = fleet.play("restart", *command)
        assert second.returncode != 0
        assert "OPERATION_HELD chain_stage: ada is running restart on herd chain_stage" in second.stdout
        assert changed(before, fleet.pids()) == sorted(["chain_stage@w2", *members_of("twin_stage")])
        first.kill()
    finally:
        first.close()
        mend(fleet, "chain_stage@w2")
    fleet.all_stream("chain_stage")
    # Its last step goes on to its end on that host, where nobody is left to hear of it.
    claim = "~postgres/.elephaas/*-5432.json"
    fleet.wait_on("w2", f"! grep -q '\"closed\": null' {claim}")
    before = fleet.pids()
    ended = fleet.play("restart", *command)
    assert ended.returncode == 0, ended.stdout
    assert changed(before, fleet.pids()) == sorted(members_of("chain_stage") + members_of("twin_stage"))
    assert fleet.open_operations() == []


def test_an_open_failover_comes_first(fleet: BulkFleet) -> None:
    begun = fleet.module(
        "registry_operation", state="begun", herd="twin", environment="stage", verb="failover", plan_id="p0000aaaa",
        from_server="e2", to_server="w2", operator="ada",
    )  # fmt: skip
    before = fleet.pids()
    finish = {"herd": "twin", "environment": "stage", "token": begun["operation"]["token"], "state": "finished"}
    fleet.module("registry_operation", **finish, outcome="incomplete")
    try:
        for verb in ("restart", "stop", "reload"):
            refused = fleet.do(verb, "twin_stage")
            assert refused.returncode != 0
            assert "OPERATION_OPEN twin_stage" in refused.stdout, refused.stdout
        assert fleet.pids() == before
    finally:
        fleet.module("registry_operation", **finish, outcome="aborted")
    fleet.done("reload", "twin_stage")


def test_on_the_oldest_core(fleet: BulkFleet) -> None:
    path = f"PATH={ROOT / '.venv-oldest' / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin"
    before = fleet.pids()
    rehearsed = fleet.play("restart", "--limit", "safe_prod", "--check", env=[path])
    assert rehearsed.returncode == 0, rehearsed.stdout
    assert fleet.pids() == before
    done = fleet.play("restart", "--limit", "safe_prod", "-e", f"confirm={plan_id(rehearsed)}", env=[path])
    assert done.returncode == 0, done.stdout
    assert changed(before, fleet.pids()) == members_of("safe_prod")
    # And a failure is one there too.
    break_it(fleet, "safe_prod@pw", "start")
    identifier = plan_id(fleet.play("restart", "--limit", "safe_prod", "--check", env=[path]))
    before = fleet.pids()
    failed = fleet.play("restart", "--limit", "safe_prod", "-e", f"confirm={identifier}", env=[path])
    assert failed.returncode != 0
    assert 'could not access file "nowhere_to_be_found"' in failed.stdout
    assert changed(before, fleet.pids()) == ["safe_prod@pw"]
    mend(fleet, "safe_prod@pw")
    fleet.all_stream("safe_prod")


# -- from here on the fleet is not as it was -----------------------------------------------------------------------------


def test_a_diagnosis_disturbs_nothing(fleet: BulkFleet) -> None:
    """It costs the herd a replica."""
    names, guinea_pig = members_of("pair_stage"), "pair_stage@w2"
    for name in names:
        server = name.partition("@")[2]
        fleet.execute(server, "install", "-d", "-o", "postgres", "-g", "postgres", "/srv/pair_archive")
        fleet.sql(name, "ALTER SYSTEM SET archive_mode = on")
        fleet.sql(name, "ALTER SYSTEM SET archive_command = 'cp %p /srv/pair_archive/%f'")
        fleet.sql(name, "SELECT pg_reload_conf()")
    fleet.done("restart", "pair_stage", "-e", "only_pending=true")
    fleet.all_stream("pair_stage")
    address = fleet.dig("pair.stage.example.com")
    before = fleet.pids()
    done = fleet.done("promote", guinea_pig)
    assert "LEAVES_HERD" in done.stdout
    assert fleet.pids() == before
    assert fleet.sql(guinea_pig, "SELECT pg_is_in_recovery()") == "f"
    fleet.sql(guinea_pig, "CREATE TABLE diagnosis AS SELECT 1; SELECT pg_switch_wal()")
    fleet.sql(names[0], "CREATE TABLE work AS SELECT 1; SELECT pg_switch_wal()")
    # The herd archives as ever, and of the new timeline nothing is kept.
    fleet.wait_on("e1", "ls /srv/pair_archive | grep -q ^00000001")
    until(
        lambda: int(fleet.sql(guinea_pig, "SELECT archived_count FROM pg_stat_archiver")) > 0,
        "its command was asked to archive",
    )
    kept = fleet.execute("w2", "ls", "/srv/pair_archive").stdout.split()
    assert not [name for name in kept if not name.startswith("00000001")], kept
    # The herd keeps its primary, its lead and its name.
    shown = fleet.run("ansible-inventory", "--list").stdout
    variables = yaml.safe_load(shown)["_meta"]["hostvars"]
    assert {name: variables[name]["elephaas_role"] for name in names} == {
        names[0]: "primary", names[1]: "replica", guinea_pig: "detached",
    }  # fmt: skip
    assert names[0] in yaml.safe_load(shown)["leads"]["hosts"]
    assert fleet.dig("pair.stage.example.com") == address
    status = fleet.play("status", "--limit", "pair_stage")
    assert status.returncode == 0, status.stdout
    assert "SPLIT_BRAIN" not in status.stdout
    again = fleet.play("promote", "--limit", guinea_pig)
    assert again.returncode == 0, again.stdout
    assert fleet.pids() == before
    rehearsed = fleet.play("failover", "--limit", "pair_stage", "--check")
    assert rehearsed.returncode == 0, rehearsed.stdout
    assert "pair_stage: pair_stage@e1 -> pair_stage@w1" in rehearsed.stdout
    # It can be stopped and started as the writable server that it is.
    fleet.done("stop", guinea_pig)
    fleet.done("start", guinea_pig)
    assert fleet.sql(guinea_pig, "SELECT pg_is_in_recovery()") == "f"


def test_without_the_registry(fleet: BulkFleet) -> None:
    """A restart after a failover that the registry has not heard of does not wipe out the proof of it."""
    fleet.run("ansible-inventory", "--list")  # keeps the snapshot
    fleet("registry", "stop")
    try:
        before = fleet.pids()
        refused = fleet.do("restart", "twin_stage")
        assert refused.returncode != 0
        assert "REGISTRY_LOST twin_stage" in refused.stdout
        assert fleet.pids() == before
        fleet.fail_over("twin_stage", "-e", "without_registry=true")
        before = fleet.pids()
        fleet.done("restart", "twin_stage", "-e", "without_registry=true")
        assert changed(before, fleet.pids()) == members_of("twin_stage")
        assert fleet.sql("twin_stage@w2", "SELECT pg_is_in_recovery()") == "f"
    finally:
        fleet("registry", "start")
    assert fleet.history("twin_stage")[0]["verb"] != "failover"
    status = fleet.play("status", "--limit", "twin_stage")
    assert status.returncode == 0, status.stdout
    assert "twin_stage was failed over from e2 to w2" in status.stdout
    newest = fleet.history("twin_stage")[0]
    assert (newest["verb"], newest["to_server"], newest["without_registry"]) == ("failover", "w2", True)


def test_an_old_primary_is_not_started_beside_the_new_one(fleet: BulkFleet) -> None:
    """Its site was away; somebody else was promoted meanwhile, by hand; now everything is started."""
    old, new, bystander = "chain_stage@e1", "chain_stage@w1", "safe_prod@pw"
    fleet.done("stop", bystander)
    fleet.pg_ctl_of(old, "stop", "-m", "fast")
    fleet.pg_ctl_of(new, "promote")
    before = fleet.pids()
    ended = fleet.do("start", None)
    assert ended.returncode != 0
    assert f"SECOND_PRIMARY {old}" in ended.stdout
    after = fleet.pids()
    assert after[old] == ""
    assert changed(before, after) == [bystander], "the other herds go on"
    # Both are down: the timeline tells.
    fleet.pg_ctl_of(new, "stop", "-m", "fast")
    ended = fleet.do("start", old)
    assert ended.returncode != 0
    assert "newer timeline" in ended.stdout
    assert fleet.pids([old])[old] == ""
    assert sorted(before) == EVERYTHING
