# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real, temporary PostgreSQL clusters on loopback, and the modules run against them as Ansible would run them."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

COLLECTIONS = Path(__file__).resolve().parents[2] / ".build" / "collections"
ACCOUNT = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
HOME = pwd.getpwnam(ACCOUNT).pw_dir

# A module's own main(), with its arguments on standard input: what Ansible does, without a second per call.
_RUNNER = """
import importlib, sys
from ansible.module_utils import basic
basic._ANSIBLE_ARGS = sys.stdin.buffer.read()
if hasattr(basic, "_ANSIBLE_PROFILE"):
    basic._ANSIBLE_PROFILE = "legacy"
importlib.import_module("ansible_collections.elephaas.herd.plugins.modules." + sys.argv[1]).main()
"""


def newest_bin_directory() -> str:
    """Where PostgreSQL's programs are on this machine."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb") + glob.glob("/usr/pgsql-*/bin/initdb"))
    path = found[-1] if found else shutil.which("initdb")
    assert path, "no PostgreSQL server programs on this machine"
    return os.path.dirname(path)


BIN = newest_bin_directory()


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def as_account(argv: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a program as the account that owns the clusters."""
    if os.geteuid() == 0:
        argv = ["setpriv", f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}", "--init-groups", "--", *argv]
    environment = {"PATH": os.environ["PATH"], "HOME": HOME, "LC_ALL": "C"}
    return subprocess.run(argv, capture_output=True, text=True, env=environment, cwd="/", check=False, **more)


def call(module: str, check_mode: bool = False, within: Sequence[str] = (), **arguments: Any) -> dict[str, Any]:
    """Run a module; its result, with `failed` set in any case."""
    wire = {
        **{name: value for name, value in arguments.items() if value is not None},
        "_ansible_check_mode": check_mode,
        "_ansible_diff": False,
        "_ansible_remote_tmp": tempfile.gettempdir(),
        "_ansible_keep_remote_files": False,
    }
    done = subprocess.run(
        [*within, sys.executable, "-c", _RUNNER, module],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": wire}),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
        cwd="/",
        check=False,
    )
    try:
        result = json.loads(done.stdout)
    except ValueError as error:
        raise AssertionError(f"{module} printed no result:\n{done.stdout}\n{done.stderr}") from error
    result.setdefault("failed", False)
    return result


class Within(list[str]):
    """A command prefix that enters a namespace; holder: the process that keeps it."""

    holder: int


@contextlib.contextmanager
def private_mounts(*paths: str) -> Iterator[Within]:
    """An empty directory of our own on each of these paths, for commands with the prefix that this gives."""
    mounts = "; ".join(f"mount -t tmpfs tmpfs {path} && chmod 1777 {path}" for path in paths)
    script = f"set -e; {mounts}; echo ready; exec sleep 600"
    holder = subprocess.Popen(["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout
        assert holder.stdout.readline() == "ready\n"
        within = Within(["nsenter", "--mount", "--target", str(holder.pid), "--"])
        within.holder = holder.pid
        yield within
    finally:
        for name in os.listdir("/proc"):
            # Its servers go first: they hold the mounts.
            if name.isdigit() and int(name) not in (holder.pid, os.getpid()):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{name}/ns/mnt") == os.readlink(f"/proc/{holder.pid}/ns/mnt"):
                        os.kill(int(name), signal.SIGKILL)
        holder.kill()
        holder.wait()


class Cluster:
    """One instance."""

    def __init__(self, root: Path, name: str) -> None:
        self.name = name
        self.data = root / name
        self.sockets = root / "sockets"
        self.port = free_port()
        self.log = root / f"{name}.log"

    def verb(self, module: str, check_mode: bool = False, **arguments: Any) -> dict[str, Any]:
        """Run a module on this instance."""
        return call(module, check_mode, data_directory=str(self.data), port=self.port, **arguments)

    def ok(self, module: str, check_mode: bool = False, **arguments: Any) -> dict[str, Any]:
        """Run a module that must not fail."""
        result = self.verb(module, check_mode, **arguments)
        assert not result["failed"], result
        return result

    def refused(self, code: str, module: str, check_mode: bool = False, **arguments: Any) -> dict[str, Any]:
        """Run a module that must fail with this code."""
        result = self.verb(module, check_mode, **arguments)
        assert result["failed"], result
        assert result.get("code") == code, result
        return result

    def facts(self) -> dict[str, Any]:
        """What instance_info says."""
        return self.ok("instance_info")["instance"]

    def sql(self, statement: str, timeout: float = 20) -> str:
        """Run SQL as the superuser, past everything that is tested."""
        done = as_account(
            [f"{BIN}/psql", "-X", "-A", "-t", "-q", "-h", str(self.sockets), "-p", str(self.port), "-d", "postgres",
             "-v", "ON_ERROR_STOP=1", "-c", statement], timeout=timeout,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def control(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run pg_ctl, past everything that is tested."""
        return as_account([f"{BIN}/pg_ctl", "-D", str(self.data), "-w", "-l", str(self.log), *arguments])

    def started(self) -> None:
        """Start it by hand."""
        done = self.control("start")
        assert done.returncode == 0, done.stdout + self.log.read_text()

    def postmaster(self) -> int | None:
        """Its postmaster's process id, if there is one."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split()[0])
            os.kill(pid, 0)
        except (OSError, ValueError):
            return None
        return pid

    def child(self, what: str) -> int:
        """Process id of the first process of this instance whose title holds `what`."""
        for pid in self.processes():
            if what in _title(pid):
                return pid
        raise AssertionError(f"{self.name} has no {what}")

    def freeze(self, what: str) -> int:
        """Stop a process where it is (the postmaster: ""), as a hanging machine would; its id."""
        pid = self.child(what) if what else self.postmaster()
        assert pid
        os.kill(pid, signal.SIGSTOP)
        return pid

    def thaw(self, pid: int) -> None:
        """Let it go on."""
        os.kill(pid, signal.SIGCONT)

    def kill(self, what: str = "") -> None:
        """Kill the postmaster, or one of its children, without a warning; returns once all is over."""
        pid = self.child(what) if what else self.postmaster()
        assert pid
        os.kill(pid, signal.SIGKILL)
        if not what:
            wait_until(lambda: not self.processes() and not self.postmaster(), f"everything of {self.name} is gone")

    def processes(self) -> list[int]:
        """Every process that works in the data directory."""
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    if os.path.samefile(f"/proc/{name}/cwd", self.data):
                        found.append(int(name))
                except OSError:
                    continue
        return found

    def snapshot(self) -> dict[str, Any]:
        """Everything on disk that a check must leave alone: files, configuration, control file, token store."""
        return {
            "files": sorted(
                str(path.relative_to(self.data))
                for path in self.data.rglob("*")
                if not any(part in path.parts for part in ("pg_stat_tmp", "pg_stat", "base", "pg_wal"))
            ),
            "auto": (self.data / "postgresql.auto.conf").read_text(),
            "control": [
                line
                for line in as_account([f"{BIN}/pg_controldata", "-D", str(self.data)]).stdout.splitlines()
                if "last modified" not in line
            ],
            "store": {
                path: Path(path).read_text() for path in sorted(glob.glob(f"{HOME}/.elephaas/*-{self.port}.*"))
            },
            "pid": self.postmaster(),
        }  # fmt: skip


class Clusters:
    """A primary and its replicas, and everything that has to go afterwards."""

    def __init__(self, replicas: int = 2) -> None:
        # Not below a directory that only root can enter.
        self.root = Path(tempfile.mkdtemp(prefix="herd test's "))
        os.chmod(self.root, 0o755)
        if os.geteuid() == 0:
            shutil.chown(self.root, ACCOUNT)
        (self.root / "sockets").mkdir()
        if os.geteuid() == 0:
            shutil.chown(self.root / "sockets", ACCOUNT)
        self.token = int(time.time())
        self.a = Cluster(self.root, "a")
        self.members = [self.a, *(Cluster(self.root, name) for name in "bcd"[:replicas])]
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        done = as_account([f"{BIN}/initdb", "-N", "-A", "trust", "-D", str(self.a.data)])
        assert done.returncode == 0, done.stderr
        for member in self.members:
            if member is not self.a:
                as_account(["cp", "-a", str(self.a.data), str(member.data)])
            with open(member.data / "postgresql.conf", "a", encoding="utf-8") as stream:
                stream.write(
                    f"port = {member.port}\nlisten_addresses = '127.0.0.1'\nshared_buffers = 16MB\n"
                    f"unix_socket_directories = '{str(member.sockets).replace(chr(39), chr(39) * 2)}'\n"
                    "wal_retrieve_retry_interval = 200ms\nwal_log_hints = on\nwal_keep_size = 1GB\n"
                    # With archiving a shutdown switches to a new segment right before its checkpoint.
                    "archive_mode = on\narchive_command = '/bin/true'\n"
                    f"cluster_name = '{member.name}'\nfsync = off\nlog_min_messages = info\n"
                )
            if member is not self.a:
                (member.data / "standby.signal").touch()
                shutil.chown(member.data / "standby.signal", ACCOUNT)
                with open(member.data / "postgresql.auto.conf", "a", encoding="utf-8") as stream:
                    stream.write(
                        f"primary_conninfo = 'host=127.0.0.1 port={self.a.port} application_name={member.name}'\n"
                    )
        for member in self.members:
            member.started()
        for member in self.members[1:]:
            wait_until(lambda m=member: m.facts()["upstream"]["status"] == "streaming", f"{member.name} streams")

    def next_token(self) -> int:
        """A token greater than all before."""
        self.token += 1
        return self.token

    def claim(self, members: list[Cluster] | None = None, plan: str = "p1") -> int:
        """Claim members for a new operation."""
        token = self.next_token()
        for member in members or self.members:
            member.ok("operation_token", state="claimed", token=token, operation={"plan_id": plan, "operator": "test"})
        return token

    def close(self) -> None:
        """Stop every process that is left, by its id, and remove every file."""
        for member in self.members:
            pid = member.postmaster()
            for process in member.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGCONT)
            if pid:
                member.control("stop", "-m", "immediate", "-t", "10")
            for path in glob.glob(f"{HOME}/.elephaas/*-{member.port}.*"):
                if path.endswith("waiter.json"):
                    record = json.loads(Path(path).read_text())
                    if record.get("pid") and "python" in _title(record["pid"]):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(record["pid"], signal.SIGKILL)
                os.unlink(path)
        shutil.rmtree(self.root, ignore_errors=True)


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode()
    except OSError:
        return ""


def wait_until(condition: Any, what: str, seconds: float = 20) -> None:
    """Wait for a condition that must come true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except (AssertionError, KeyError, TypeError):
            pass
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what}")


class Writer:
    """Commits numbered rows on whichever member accepts them, and remembers what was acknowledged."""

    def __init__(self, clusters: Clusters, table: str = "acknowledged", filler: int = 0) -> None:
        self.clusters = clusters
        self.table = table
        self.filler = filler
        self.acknowledged: list[int] = []
        self.longest_gap = 0.0
        self._stop = threading.Event()
        clusters_primary(clusters).sql(
            f"CREATE TABLE {table} (n bigint PRIMARY KEY, filler text);"
            f"CREATE VIEW {table}_numbers AS (SELECT n FROM {table})"
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        number, last = 0, time.monotonic()
        while not self._stop.is_set():
            for member in self.clusters.members:
                psql = self._open(member)
                try:
                    while not self._stop.is_set():
                        number += 1
                        psql.stdin.write(
                            f"INSERT INTO {self.table} SELECT {number}, repeat(md5(random()::text), {self.filler});"
                            f"\n\\echo {number}\n"
                        )
                        psql.stdin.flush()
                        if psql.stdout.readline().strip() != str(number):
                            break
                        self.acknowledged.append(number)
                        self.longest_gap = max(self.longest_gap, time.monotonic() - last)
                        last = time.monotonic()
                except OSError:
                    pass
                finally:
                    psql.kill()
                    psql.communicate()

    def _open(self, member: Cluster) -> Any:
        argv = [f"{BIN}/psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-h", str(member.sockets),
                "-p", str(member.port), "-U", ACCOUNT, "-d", "postgres"]  # fmt: skip
        return subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": HOME}, cwd="/",
        )  # fmt: skip

    def stop(self) -> None:
        """End writing."""
        self._stop.set()
        self._thread.join()

    def lost(self, member: Cluster) -> set[int]:
        """Acknowledged rows that are not on that member."""
        there = {int(line) for line in member.sql(f"TABLE {self.table}_numbers").split()}
        return set(self.acknowledged) - there


def first_wal_position(data: Path) -> str:
    """Where the oldest segment in pg_wal begins, as an LSN (16 MB segments)."""
    name = min(path.name for path in (data / "pg_wal").iterdir() if len(path.name) == 24)
    return f"{int(name[8:16], 16):X}/{int(name[16:], 16) * 16 * 1024 * 1024:X}"


def clusters_primary(clusters: Clusters) -> Cluster:
    """The member that accepts writes."""
    for member in clusters.members:
        if member.postmaster() and member.sql("SELECT pg_is_in_recovery()") == "f":
            return member
    raise AssertionError("no primary")
