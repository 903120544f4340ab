# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The failover playbook on a real fleet: rehearsal, confirmation, the switch, the way back, who may not, secrets."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .moving_fleet import FLEET, MovingFleet, Run, plan_id, servers_of, shared_fleet


@pytest.fixture(scope="module")
def fleet(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MovingFleet]:
    """The shared fleet, with applications that write to both herds that move here."""
    fleet = shared_fleet(pytestconfig, tmp_path_factory)
    for herd in ("main_prod", "small_stage"):
        fleet("writer", "start", herd)
    yield fleet
    for herd in ("main_prod", "small_stage"):
        fleet("writer", "stop", herd)


def must_have_kept_everything(fleet: MovingFleet, herd: str) -> None:
    """Not one acknowledged commit is gone, and no old primary acknowledged one; the application goes on."""
    before = fleet.report(herd)
    assert (before.lost, before.status) == (0, 0)
    deadline = time.monotonic() + 20
    while fleet.report(herd).acknowledged <= before.acknowledged:
        assert time.monotonic() < deadline, "the application does not write any more"
        time.sleep(0.2)


def test_a_rehearsal_shows_the_plan_and_changes_nothing(fleet: MovingFleet) -> None:
    before = fleet.stillness("main_prod")
    first = fleet.play("failover", "--limit", "main_prod", "--check")
    second = fleet.play("failover", "--limit", "main_prod", "--check", "--diff")
    assert fleet.stillness("main_prod") == before
    assert first.returncode == second.returncode == 0, first.stdout
    assert plan_id(first) == plan_id(second)
    source = fleet.primary("main_prod")
    for line in (
        f"main_prod: main_prod@{source} -> main_prod@w1",
        "DNS main.prod.example.com A 10.30.0.11 -> 10.40.0.11, TTL 10 s",
        "main_prod@e1 is stopped and comes back as a replica",
        "main_prod@e2 follows the new primary (main_prod@w1)",
        "main_prod@w2 keeps its upstream, and is seen on the new timeline (main_prod@w1)",
        f"-e confirm={plan_id(first)}",
    ):
        assert line in first.stdout


def test_a_cascaded_replica_is_no_candidate(fleet: MovingFleet) -> None:
    """What it gets comes through another replica, so it cannot tell the old primary's last record from a break."""
    before = fleet.stillness("main_prod")
    assert fleet.members("main_prod")["w2"].upstream == "w1"
    assert fleet.primary("main_prod") == "e1"
    refused = fleet.play("failover", "--limit", "main_prod", "-e", "candidate=w2", "-e", "confirm=yes")
    assert refused.returncode != 0
    assert "REFUSE NO_CANDIDATE main_prod" in refused.stdout
    assert "main_prod@w2: it does not stream from the primary itself" in refused.stdout
    assert fleet.stillness("main_prod") == before


def test_the_confirmed_plan_is_what_happens(fleet: MovingFleet, tmp_path: Path) -> None:
    rehearsed = fleet.play("failover", "--limit", "main_prod", "--check")
    confirm = f"confirm={plan_id(rehearsed)}"
    file = tmp_path / "outcome.json"
    done = fleet.play("failover", "--limit", "main_prod", "-e", confirm, "-e", f"output_file={file}")
    assert done.returncode == 0, done.stdout
    fleet.must_be_settled("main_prod", "w1")
    members = fleet.members("main_prod")
    assert {server: members[server].upstream for server in ("e1", "e2", "w2")} == {"e1": "w1", "e2": "w1", "w2": "w1"}
    assert members["w1"].timeline == 2
    assert fleet.refuses_writes("main_prod@e1")
    must_have_kept_everything(fleet, "main_prod")
    (outcome,) = json.loads(file.read_text())["outcomes"]
    assert outcome["outcome"] == "done"
    assert 0 < outcome["gap_s"] < 60
    assert outcome["plan_id"] == plan_id(rehearsed)

    # The same command once more: nothing is left to do, and nothing is done.
    before = fleet.stillness("main_prod")
    again = fleet.play("failover", "--limit", "main_prod@e1", "-e", confirm)
    assert again.returncode == 0, again.stdout
    assert "main_prod: already done" in again.stdout
    assert fleet.stillness("main_prod") == before


def test_back_and_forth(fleet: MovingFleet) -> None:
    """Failing back is the same command, as often as one likes."""
    for _turn in range(2):
        target = {"e1": "w1", "w1": "e1"}[fleet.primary("main_prod")]
        fleet.fail_over("main_prod")
        fleet.must_be_settled("main_prod", target)
    must_have_kept_everything(fleet, "main_prod")


def test_without_the_right_confirmation_nothing_is_done(fleet: MovingFleet) -> None:
    before = fleet.stillness("main_prod")
    nobody = fleet.play("failover", "--limit", "main_prod")
    yes = fleet.play("failover", "--limit", "main_prod", "-e", "confirm=yes")
    wrong = fleet.play("failover", "--limit", "main_prod", "-e", "confirm=p00000000")
    assert fleet.stillness("main_prod") == before
    for refused, why in ((nobody, "nobody is there to be asked"), (yes, "protected"), (wrong, "p00000000 is another")):
        assert refused.returncode != 0
        assert "NOT_CONFIRMED" in refused.stdout or "Nothing was done" in refused.stdout
        assert why in refused.stdout


def test_a_plan_that_no_longer_fits_is_refused(fleet: MovingFleet) -> None:
    source = fleet.primary("main_prod")
    old = plan_id(fleet.play("failover", "--limit", "main_prod", "--check"))
    bystander = next(server for server in ("e2", "w2") if server != source)
    fleet.pg_ctl(f"main_prod@{bystander}", "stop", "-m", "fast")
    try:
        before = fleet.stillness("main_prod")
        refused = fleet.play("failover", "--limit", "main_prod", "-e", f"confirm={old}")
        assert fleet.stillness("main_prod") == before
    finally:
        fleet.pg_ctl(f"main_prod@{bystander}", "start")
    assert refused.returncode != 0
    assert f"{old} is another plan than the one above" in refused.stdout
    assert plan_id(refused) != old
    fleet.must_be_settled("main_prod", source)


def test_a_limit_that_selects_no_lead_is_an_error(fleet: MovingFleet, tmp_path: Path) -> None:
    broken = tmp_path / "herds.yml"
    broken.write_text("plugin: elephaas.herd.herds\nsnapshot_path: [this, is, no, path\n", encoding="utf-8")
    # One that has not just been the primary: under that one's name, the herd is found to be done.
    replica = next(server for server in ("e2", "w2") if server != fleet.primary("main_prod"))
    before = fleet.stillness("main_prod")
    for arguments, message in (
        (("--limit", f"main_prod@{replica}"), "selects no lead"),
        (("--limit", "mian_prod"), "mian_prod"),
        (("--limit", "main_prod:&env_stage"), "no hosts to target"),
        (("--limit", "main_prod:mian_prod"), "mian_prod"),
        (("-i", str(broken), "--limit", "main_prod"), str(broken)),
        (("-i", str(tmp_path / "missing.yml")), "missing.yml"),
    ):
        done = fleet.play("failover", *arguments, "-e", "confirm=yes")
        assert done.returncode != 0, (arguments, done.stdout)
        assert message in done.stdout, (arguments, done.stdout)
    assert fleet.stillness("main_prod") == before


def test_no_secret_is_shown_or_visible_while_it_runs(fleet: MovingFleet) -> None:
    """In an unprotected environment yes is enough; the most talkative run tells no secret, nor does any process."""
    controller = fleet.state / "controller"
    key = fleet.run("cat", str(controller / "tsig.key")).stdout
    passwords = [
        line.rpartition(":")[2] for line in fleet.run("cat", str(controller / "pgpass")).stdout.splitlines() if line
    ]
    primary = fleet.primary("small_stage")
    replica = next(server for server in servers_of("small_stage") if server != primary)
    # Where the lab keeps the password of replication: each member's own password file.
    files = fleet.execute(
        replica, "sh", "-c", "cat ~postgres/.pgpass /srv/small/*pass* 2>/dev/null; cat /srv/small/postgresql.auto.conf",
        check=False,
    ).stdout  # fmt: skip
    passwords += [line.rpartition(":")[2] for line in files.splitlines() if line.count(":") == 4]
    passwords += re.findall(r"password=''?([^' ]+)", files)
    secrets = {re.findall(r'secret "([^"]+)"', key)[0], *passwords}
    assert len(secrets) >= 4, "the key, the registry's password, the application's and that of replication"

    seen: set[str] = set()
    ended = threading.Event()

    def watch() -> None:
        # A server's processes are seen from the machine as well: it is below the lab's namespaces.
        while not ended.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
                except OSError:
                    continue
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        done = fleet.play("failover", "--limit", "small_stage", "-e", "confirm=yes", "-vvv")
    finally:
        ended.set()
        watcher.join()
    assert done.returncode == 0, done.stdout
    fleet.must_be_settled("small_stage", replica)
    # That it looked at the right things: it saw the play, and the servers that moved.
    assert any("elephaas.herd.failover" in line for line in seen)
    assert any("/srv/small" in line for line in seen)
    assert "TASK [elephaas.herd.failover" in done.stdout
    for secret in secrets:
        assert secret not in done.stdout
        assert not [line for line in seen if secret in line]


def test_two_operators_at_once(fleet: MovingFleet, tmp_path: Path) -> None:
    source = fleet.primary("small_stage")
    target = next(server for server in servers_of("small_stage") if server != source)
    timeline = fleet.members("small_stage")[source].timeline
    arguments = ("--limit", "small_stage", "-e", "confirm=yes", "-e")
    one = Run(fleet, "failover", (*arguments, "failover_operator=ada"), tmp_path / "ada.log")
    two = Run(fleet, "failover", (*arguments, "failover_operator=bob"), tmp_path / "bob.log")
    try:
        ended = {"ada": one.wait(), "bob": two.wait()}
    finally:
        one.close()
        two.close()
    acted = [name for name, run in ended.items() if re.search(r"^ *small_stage +done ", run.stdout, re.MULTILINE)]
    assert len(acted) == 1, ended
    (other,) = set(ended) - set(acted)
    if ended[other].returncode:
        # Refused by the other's name, or by a situation that was another when it looked again.
        assert re.search(rf"OPERATION_HELD|PLAN_CHANGED|runs a failover|{acted[0]}", ended[other].stdout)
    else:
        assert "already done" in ended[other].stdout
    assert ended[acted[0]].returncode == 0
    fleet.must_be_settled("small_stage", target)
    assert fleet.members("small_stage")[target].timeline == timeline + 1
    must_have_kept_everything(fleet, "small_stage")


def test_one_alias_leads_to_the_new_primary(fleet: MovingFleet) -> None:
    """The record stays what it is: an alias of the server's name, with its TTL."""
    primary = fleet.primary("small_stage")
    shown = fleet.run("dig", "+noall", "+answer", "@192.0.2.2", "small.stage.example.com", "CNAME").stdout.split()
    assert shown[1:] == ["10", "IN", "CNAME", f"{FLEET['servers'][primary]['dns_name']}."]
