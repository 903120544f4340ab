# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab itself: it makes fleets real, tells the truth about lost commits, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ansible_collections.elephaas.herd.tests.integration.lab_client import FLEETS, PROGRAM, Lab

STREAMING = "SELECT string_agg(application_name, ',' ORDER BY 1) FROM pg_stat_replication WHERE state = 'streaming'"
ONE_SERVER = """
environments: {test: {}}
servers: {only-1: {environment: test}}
herds:
  - {name: one, environment: test, pgdata: /var/lib/postgresql/one, vhost: one.example.com, members: [{server: only-1}]}
"""


@pytest.fixture
def one_server(tmp_path: Path) -> Path:
    """The smallest fleet: one server without an address of its own, one instance."""
    path = tmp_path / "one.yml"
    path.write_text(ONE_SERVER, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The fleet that nobody tuned for."""
    lab = Lab(tmp_path_factory.mktemp("odd"))
    try:
        lab.up(FLEETS / "odd.yml")
        yield lab
    finally:
        lab.down()


# -- what shows on the machine ----------------------------------------------------------------------------------------


def network() -> set[str]:
    """Interfaces, addresses, routes, named namespaces, as the machine has them."""
    found = set()
    for what in (("-o", "link"), ("-o", "address"), ("route", "show", "table", "all"), ("netns", "list")):
        done = subprocess.run(["ip", *what], check=True, capture_output=True, text=True)
        # The rest of a line counts down lifetimes.
        found |= {" ".join((what[0], *line.split()[:4])) for line in done.stdout.splitlines()}
    return found


def files() -> set[str]:
    """Mounts, the machine's top and configuration folders, and its account files with their contents."""
    found = {line.split(" ", 3)[3] for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()}
    for folder in ("/", "/etc", "/etc/postgresql", "/srv", "/home", "/root", "/run", "/var/lib"):
        found |= {f"{folder}/{name}" for name in os.listdir(folder)} if os.path.isdir(folder) else set()
    for name in ("/etc/passwd", "/etc/group", "/etc/shadow", "/etc/resolv.conf", "/etc/hosts"):
        with suppress(FileNotFoundError):
            found.add(name + Path(name).read_text(encoding="utf-8"))
    return found


def supervisor(state: Path) -> int:
    """The process id of a lab's first process."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if entry.name.isdigit() and words[-2:-1] == [os.fsencode(state)] and b"supervisor" in words[-3]:
                return int(entry.name)
    raise AssertionError(f"no lab is up in {state}")


def processes(first: int) -> set[tuple[int, str]]:
    """A lab's first process and all that descend from it: process id and start time."""
    parents: dict[int, int] = {}
    started: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            pid = int(entry.name)
            words = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            parents[pid], started[pid] = int(words[1]), words[19]
    found = {first}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {(pid, started[pid]) for pid in found}


def survivors(those: set[tuple[int, str]]) -> set[tuple[int, str]]:
    """Which of these processes live."""
    found = set()
    for pid, start in those:
        with suppress(OSError):
            words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            if words[0] != "Z" and words[19] == start:
                found.add((pid, start))
    return found


def test_up_shows_nowhere_and_down_leaves_nothing(fresh_lab: Callable[..., Lab]) -> None:
    before = network(), files()
    lab = fresh_lab(FLEETS / "odd.yml", "--no-load")
    assert lab.execute("far-db1", "touch", "/root/left", "/tmp/left", "/srv/pg/left").returncode == 0
    assert lab.execute("far-db1", "touch", "/usr/left", check=False).returncode != 0
    while_up = network(), files()
    started = processes(supervisor(lab.state))
    assert len(started) > 50
    assert while_up[0] == before[0]
    assert while_up[1] == before[1]
    lab.down()
    assert (network(), files()) == before
    assert not survivors(started)
    assert sorted(entry.name for entry in lab.state.iterdir()) == [".herdlab", "log"]


def test_killing_the_lab_ends_everything_and_up_works_again(fresh_lab: Callable[..., Lab], one_server: Path) -> None:
    lab = fresh_lab(one_server, "--no-load")
    started = processes(supervisor(lab.state))
    assert len(started) > 10
    os.kill(supervisor(lab.state), signal.SIGKILL)
    wait_until(lambda: not survivors(started))
    assert "no lab is up" in lab("status", check=False).stderr
    lab.up(one_server, "--no-load")
    assert lab.sql("one_test@only-1", "SELECT 1") == "1"


def test_up_clears_away_what_a_killed_up_left(tmp_path: Path, one_server: Path, fresh_lab: Callable[..., Lab]) -> None:
    environment = {**os.environ, "ELEPHAAS_LAB_STATE": str(tmp_path / "lab")}
    with subprocess.Popen(
        [PROGRAM, "up", "--no-load", one_server],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as half:
        assert half.stdout is not None
        assert any("hosts are up" in line for line in half.stdout)
        os.killpg(half.pid, signal.SIGKILL)
    left = processes(supervisor(tmp_path / "lab"))
    assert len(left) > 4
    lab = fresh_lab(one_server, "--no-load")
    assert not survivors(left)
    assert lab.sql("one_test@only-1", "SELECT 1") == "1"


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, one_server: Path) -> None:
    lab = Lab(tmp_path)
    done = lab("up", str(one_server), check=False)
    assert done.returncode == 1
    assert "is not empty and not a lab's" in done.stderr
    assert one_server.exists()


# -- fleets are real --------------------------------------------------------------------------------------------------


def test_every_replica_of_the_demo_streams(lab: Lab) -> None:
    assert lab.sql("trading_prod@chi-db1", STREAMING) == "chi-db2,nyc-db1"
    assert lab.sql("settlement_prod@chi-db3", STREAMING) == "nyc-db3"
    assert lab.sql("research_stage@nyc-db4", STREAMING) == "chi-db4"
    identifiers = {
        lab.sql(name, "SELECT system_identifier FROM pg_control_system()")
        for name in (
            "trading_prod@chi-db1",
            "trading_prod@nyc-db1",
            "settlement_prod@chi-db3",
            "research_stage@nyc-db4",
        )
    }
    assert len(identifiers) == 3


def test_dns_has_aliases_and_addresses_on_both_servers(lab: Lab) -> None:
    for server in (1, 2):
        assert lab.dig("trading-db.prod.example.com", server=server) == ["10.10.0.11"]
        assert lab.dig("settlement-db.prod.example.com", "CNAME", server) == ["chi-db3.prod.example.com."]
        assert lab.dig("settlement-db.prod.example.com", server=server) == ["chi-db3.prod.example.com.", "10.10.0.13"]
        names = lab.dig("prod.example.com", "NS", server)
        assert len(names) == 2
        assert all(lab.dig(name, server=server) for name in names)
    assert lab.dig("11.0.10.10.in-addr.arpa", "PTR") == ["chi-db1.lab."]
    assert lab.dig("www.example.org") == []


def test_run_passes_input_output_directory_environment_and_status(lab: Lab, tmp_path: Path) -> None:
    script = 'read -r line; echo "$line $(pwd) $MARK"; exit 7'
    environment = {**os.environ, "MARK": "from outside"}
    done = lab.run("sh", "-c", script, check=False, input="a line\n", cwd=tmp_path, env=environment)
    assert (done.returncode, done.stdout) == (7, f"a line {tmp_path} from outside\n")
    assert lab.run("no-such-command", check=False).returncode == 127


def test_run_reaches_the_registry_by_a_password_file_only(lab: Lab) -> None:
    seen = lab.run("sh", "-c", 'psql -XAtc "SELECT current_user" "$ELEPHAAS_REGISTRY_DSN"; env')
    assert seen.stdout.startswith("herd_operator\n")
    password = (lab.state / "controller" / "pgpass").read_text(encoding="utf-8").split()[0].rpartition(":")[2]
    assert len(password) > 10
    assert password not in seen.stdout
    assert (lab.state / "controller" / "pgpass").stat().st_mode & 0o077 == 0
    assert (lab.state / "controller" / "tsig.key").stat().st_mode & 0o077 == 0


def test_up_ends_with_the_fleet_in_the_registry(lab: Lab) -> None:
    listed = lab.run("ansible-inventory", "--graph", "instances").stdout
    assert "trading_prod@nyc-db1" in listed
    assert lab.run("ansible", "instances", "-m", "ansible.builtin.ping").stdout.count("SUCCESS") == 7


def test_odd_fleet_streams(odd: Lab) -> None:
    assert odd.sql("Order-Book_prod@Big-Box.1", STREAMING) == "chi-db2"
    # the cascade
    assert odd.sql("Order-Book_prod@chi-db2", STREAMING) == "far-db1"
    # two herds on one server, the second in Debian's layout, where the machine's own tools see it
    assert odd.sql("ledger_prod@Big-Box.1", STREAMING) == "far-db1"
    assert "/etc/postgresql/" in odd.sql("ledger_prod@Big-Box.1", "SHOW config_file")
    assert "online" in odd.execute("Big-Box.1", "pg_lsclusters", "-h").stdout
    # the same name in another environment is another herd; IPv4 and IPv6 members reach each other
    assert odd.sql("Order-Book_stage@stage-a", STREAMING) == "stage-b"
    identity = "SELECT system_identifier FROM pg_control_system()"
    assert odd.sql("Order-Book_stage@stage-a", identity) != odd.sql("Order-Book_prod@Big-Box.1", identity)
    # one member, another account, a data directory that the machine has no place for
    assert odd.sql("solo_prod@lonely", "SELECT current_user || current_setting('data_directory')") == "solopg/pgdata"
    assert odd.run("ansible", "all", "-m", "ansible.builtin.ping").stdout.count("SUCCESS") == 14


def test_a_bad_fleet_names_the_place(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yml"
    bad.write_text(ONE_SERVER.replace("server: only-1", "server: other"), encoding="utf-8")
    done = Lab(tmp_path / "lab")("up", str(bad), check=False)
    assert done.returncode == 1
    assert "herds[0] (one).members[0].server" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_long_path_is_no_obstacle(tmp_path: Path, one_server: Path) -> None:
    lab = Lab(tmp_path / ("a-very-long-folder-name-" * 5) / ("and-another-one-" * 6))
    try:
        lab.up(one_server)
        assert lab.run("ansible", "instances", "-m", "ansible.builtin.ping").stdout.count("SUCCESS") == 1
        lab("writer", "start", "one")
        assert lab.report("one").lost == 0
    finally:
        lab.down()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can pretend to have come through sudo")
def test_commands_run_as_who_called_sudo(one_server: Path) -> None:
    # Not below pytest's own folder, which nobody else may enter.
    folder = Path(tempfile.mkdtemp(prefix="lab-"))
    folder.chmod(0o755)
    lab = Lab(folder / "state")
    environment = {**os.environ, "SUDO_UID": "65534", "SUDO_GID": "65534"}
    # A virtual environment below root's home is out of their reach.
    environment["PATH"] = "/usr/bin:/bin"
    try:
        lab("up", "--no-load", str(one_server), env=environment)
        script = 'id -u; ssh -F "$ELEPHAAS_LAB_STATE/controller/ssh_config" postgres@only-1 id -un'
        assert lab.run("sh", "-c", script, env=environment, cwd="/").stdout.split() == ["65534", "postgres"]
    finally:
        lab.down()
        shutil.rmtree(folder)


# -- failures are real ------------------------------------------------------------------------------------------------


def test_power_off_and_on(lab: Lab) -> None:
    lab.execute("nyc-db1", "touch", "/tmp/volatile", "/root/kept")
    booted = lab.sql("trading_prod@nyc-db1", "SELECT pg_postmaster_start_time()")
    lab("poweroff", "nyc-db1")
    # A connection of its own: Ansible's shared ones may still be there.
    alone = ["-o", "ConnectTimeout=2", "-o", "ControlPath=none", "-F", f"{lab.state}/controller/ssh_config"]
    done = lab.run("ssh", *alone, "postgres@10.20.0.11", "true", check=False)
    assert done.returncode == 255
    assert "refused" not in done.stderr
    assert "powered off" in lab("sql", "trading_prod@nyc-db1", "SELECT 1", check=False).stderr
    lab("poweron", "nyc-db1")
    assert lab.execute("nyc-db1", "ls", "/tmp").stdout == ""
    assert "kept" in lab.execute("nyc-db1", "ls", "/root").stdout
    assert lab.sql("trading_prod@nyc-db1", "SELECT pg_postmaster_start_time()") > booted
    wait_until(lambda: "streaming" in lab.sql("trading_prod@nyc-db1", "SELECT status FROM pg_stat_wal_receiver"))


def test_partition_and_heal(lab: Lab) -> None:
    reach = ["psql", "-XAtc", "SELECT 1", "host=10.10.0.12 dbname=app user=app connect_timeout=2"]
    assert lab.run(*reach).stdout == "1\n"
    lab("partition", "chi-db2")
    try:
        assert "cut off" in lab("status").stdout
        assert lab.run(*reach, check=False).returncode == 2
        # it lives on, behind the cut
        assert lab.sql("trading_prod@chi-db2", "SELECT pg_is_in_recovery()") == "t"
    finally:
        lab("heal", "chi-db2")
    assert lab.run(*reach).stdout == "1\n"


def test_registry_and_dns_stop_and_start(lab: Lab) -> None:
    ask = ["sh", "-c", 'psql -XAtc "SELECT 1" "$ELEPHAAS_REGISTRY_DSN"']
    lab("registry", "stop")
    try:
        assert "refused" in lab.run(*ask, check=False).stderr
    finally:
        lab("registry", "start")
    assert lab.run(*ask).stdout == "1\n"
    lab("dns", "stop", "--server", "2")
    try:
        assert lab.dig("trading-db.prod.example.com") == ["10.10.0.11"]
        assert "does not answer" in lab("dig", "--server", "2", "trading-db.prod.example.com", check=False).stderr
    finally:
        lab("dns", "start", "--server", "2")
    wait_until(lambda: lab.dig("trading-db.prod.example.com", server=2) == ["10.10.0.11"])


# -- writers tell the truth -------------------------------------------------------------------------------------------


def test_writer_counts_a_row_that_is_gone(lab: Lab) -> None:
    lab("writer", "start", "research_stage")
    time.sleep(1)
    during = lab.report("research")
    lab("writer", "stop", "research")
    whole = lab.report("research")
    assert (during.lost, during.status, whole.lost, whole.status) == (0, 0, 0, 0)
    assert 0 < during.acknowledged <= whole.acknowledged
    assert whole.longest_gap_s > 0
    assert lab.sql("research_stage@nyc-db4", "SELECT count(*) FROM lab_writes", "app") == str(whole.acknowledged)
    lab.sql("research_stage@nyc-db4", "DELETE FROM lab_writes WHERE n = 3", "app")
    robbed = lab.report("research")
    assert (robbed.acknowledged, robbed.lost, robbed.status) == (whole.acknowledged, 1, 3)


def test_writer_finds_the_primary_among_servers_and_ends_by_itself(lab: Lab) -> None:
    """The replica is asked first, and the vhost leads nowhere."""
    lead(lab, "research-db.stage.example.com", "10.20.0.99")
    try:
        lab("writer", "start", "research", "--servers", "chi-db4,nyc-db4", "--seconds", "2")
        time.sleep(3)
    finally:
        lead(lab, "research-db.stage.example.com", "10.20.0.14")
    assert "no writer of research_stage runs" in lab("writer", "stop", "research", check=False).stderr
    found = lab.report("research")
    assert (found.acknowledged > 20, found.lost, found.status) == (True, 0, 0)


def test_writer_sees_an_outage(lab: Lab) -> None:
    lab("writer", "start", "settlement")
    try:
        before = lab.report("settlement")
        lab("partition", "chi-db3")
        time.sleep(2)
        lab("heal", "chi-db3")
        wait_until(lambda: lab.report("settlement").acknowledged > before.acknowledged + 20)
    finally:
        lab("writer", "stop", "settlement")
    after = lab.report("settlement")
    assert after.lost == 0
    assert after.longest_gap_s > 1.5


def test_writer_catches_an_old_primary_that_still_takes_writes(odd: Lab) -> None:
    """A replica is promoted behind the old primary's back, DNS moves, one connection moves, the other does not."""
    odd("writer", "start", "ledger", "--rate", "20")
    odd.sql("ledger_prod@far-db1", "SELECT pg_promote()")
    lead(odd, "ledger.prod.example.com", "172.31.7.11")
    odd.sql(
        "ledger_prod@Big-Box.1",
        "SELECT pg_terminate_backend(min(pid)) FROM pg_stat_activity WHERE application_name = 'lab-writer'",
    )
    time.sleep(1)
    odd("writer", "stop", "ledger")
    assert odd.report("ledger").lost > 0
    done = odd("writer", "report", "ledger", check=False)
    assert done.returncode == 3
    assert "acknowledged by an old primary" in done.stderr


def lead(lab: Lab, vhost: str, address: str) -> None:
    """Change DNS by hand."""
    server = lab.run("sh", "-c", 'echo "$ELEPHAAS_DNS_SERVER"').stdout.strip()
    change = f"server {server}\nupdate delete {vhost} A\nupdate add {vhost} 10 A {address}\nsend\n"
    lab.run("nsupdate", "-k", str(lab.state / "controller" / "tsig.key"), input=change)


def wait_until(condition: Callable[[], bool], timeout: float = 20.0) -> None:
    """Wait for something that takes a moment."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} s"
        time.sleep(0.2)
