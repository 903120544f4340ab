# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts of the lab: each has its own network, name, processes, mounts and sshd, like a machine of its own.

A host's first process is its sshd, which also reaps what is orphaned; killing it is a power-off. Its root file
system is the machine's, read-only; what a server writes to (PostgreSQL's directories, homes, /run, /tmp) is its own.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from . import accounts, kernel, network
from .errors import LabError
from .plan import OWN_ZONE, Host, Plan
from .programs import path_of, run
from .state import State
from .supervisor import RUN

# Directories that every host has for itself, kept over a power-off.
PRIVATE = (
    "/etc/bind",
    "/etc/postgresql",
    "/home",
    "/root",
    "/var/cache/bind",
    "/var/lib/postgresql",
    "/var/log/postgresql",
)
# In memory, empty after every power-on.
_VOLATILE = {"/run": "0755", "/tmp": "1777", "/var/tmp": "1777", "/dev/shm": "1777"}
_ETC = (*accounts.FILES, "hosts", "hostname", "resolv.conf")
_OWNERS = {
    "/var/lib/postgresql": "postgres",
    "/etc/postgresql": "postgres",
    "/var/log/postgresql": "postgres",
    "/var/cache/bind": "bind",
}
# Like Debian's: other accounts' clusters, in the group postgres, write there too.
_SHARED = ("/etc/postgresql", "/var/log/postgresql")
_SSHD = """\
Port {port}
HostKey /run/herdlab/ssh_host_ed25519_key
AuthorizedKeysFile /run/herdlab/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PidFile none
PrintMotd no
MaxStartups 200
MaxSessions 100
AcceptEnv LANG LC_*
Subsystem sftp internal-sftp
"""


def storage(state: State, server: str, path: str) -> Path:
    """Where a host's private file is kept in the state folder."""
    return state.host(server) / "fs" / path.lstrip("/")


def resolver(plan: Plan) -> str:
    """resolv.conf of every host and of the controller: the lab's DNS, and nothing else."""
    servers = "".join(f"nameserver {address}\n" for address in plan.dns)
    return f"search {OWN_ZONE}\n{servers}options timeout:1 attempts:2\n"


def prepare(state: State, plan: Plan, public_key: str) -> None:
    """Write what the hosts boot with, and their host keys."""
    pids = RUN / "hosts"
    pids.mkdir()
    for host in plan.hosts:
        boot = state.host(host.name) / "boot"
        boot.mkdir(parents=True)
        (boot / "sshd_config").write_text(_SSHD.format(port=host.ssh_port), encoding="utf-8")
        (boot / "authorized_keys").write_text(public_key, encoding="utf-8")
        key = boot / "ssh_host_ed25519_key"
        run([path_of("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", host.name, "-f", str(key)])
        etc = state.host(host.name) / "etc"
        etc.mkdir()
        for file in accounts.FILES:
            (etc / file).symlink_to(os.path.relpath(state.accounts / file, etc))
        (etc / "hostname").write_text(f"{host.name}\n", encoding="utf-8")
        (etc / "hosts").write_text(
            f"127.0.0.1 localhost\n::1 localhost\n{host.address} {host.name}\n", encoding="utf-8"
        )
        (etc / "resolv.conf").write_text(resolver(plan), encoding="utf-8")
        for path in {*PRIVATE, *host.private}:
            directory = storage(state, host.name, path)
            directory.mkdir(parents=True, exist_ok=True)
            if path == "/root":
                directory.chmod(0o700)
            if path in _OWNERS:
                uid, gid, _home = accounts.identity(state, _OWNERS[path])
                os.chown(directory, uid, gid)
            if path in _SHARED:
                directory.chmod(0o3775)
        for name in {host.ssh_user, *(instance.os_user for instance in plan.on(host.name))}:
            uid, gid, home = accounts.identity(state, name)
            directory = storage(state, host.name, home)
            if not directory.exists():
                directory.mkdir(parents=True, mode=0o700)
                os.chown(directory, uid, gid)


def power_on(state: State, host: Host) -> None:
    """Start a host whose network is there; returns when it is set up and sshd is about to listen."""
    read, write = os.pipe()
    middle = os.fork()
    if middle == 0:
        os.close(read)
        kernel.leave(lambda: _boot(state, host, write))
    os.close(write)
    with os.fdopen(read) as report:
        # Ends when sshd has taken over (the descriptor closes on exec) or with what went wrong.
        words = report.read().split("\n", 1)
    os.waitpid(middle, 0)
    if len(words) != 2 or words[1]:
        raise LabError(f"server {host.name} did not start: {words[-1] or 'see ' + str(state.logs)}")
    (RUN / "hosts" / host.name).write_text(words[0], encoding="utf-8")


def _boot(state: State, host: Host, report: int) -> int:
    log = os.open(state.logs / f"{host.name}.sshd.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    wire = os.open(network.namespace(host), os.O_RDONLY)
    kernel.join(wire)
    kernel.unshare(kernel.NEW_MOUNT | kernel.NEW_HOSTNAME | kernel.NEW_IPC | kernel.NEW_PID)
    child = os.fork()
    if child:
        os.write(report, f"{child}\n".encode())
        return 0
    try:
        os.setsid()
        socket.sethostname(host.name)
        _mount_private(state, host)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sshd = path_of("sshd")
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        os.execve(sshd, [sshd, "-D", "-e", "-f", "/run/herdlab/sshd_config"], environment)
    except (OSError, LabError) as error:
        os.write(report, str(error).encode())
    return 1


def _mount_private(state: State, host: Host) -> None:
    machine = kernel.mounts()
    uid, gid, _home = accounts.identity(state, "postgres")
    # From here sources are relative: the state folder itself may lie below a directory that is about to be hidden.
    os.chdir(state.host(host.name))
    kernel.mount("proc", "/proc", "proc")
    own = sorted({*PRIVATE, *host.private})
    for path, mode in _VOLATILE.items():
        kernel.tmpfs(path, mode)
    for path in own:
        kernel.mount(f"fs{path}", path, flags=kernel.BIND)
    for file in _ETC:
        bind_file(f"etc/{file}", f"/etc/{file}")
    folders = {"/run/herdlab": 0o755, "/run/sshd": 0o755, "/run/named": 0o1777, "/run/lock": 0o1777}
    for folder, bits in folders.items():
        os.mkdir(folder)
        os.chmod(folder, bits)
    os.mkdir("/run/postgresql")
    os.chown("/run/postgresql", uid, gid)
    # As Debian has it: several clusters with different owners may share the socket directory.
    os.chmod("/run/postgresql", 0o2775)
    kernel.mount("boot", "/run/herdlab", flags=kernel.BIND)
    # What is left of the machine's own file system cannot be written to: a host leaves nothing on it.
    hidden = {"/dev", "/proc", "/sys", *_VOLATILE, *own, *(f"/etc/{file}" for file in _ETC)}
    for path, flags in machine:
        if not any(path == place or path.startswith(f"{place}/") for place in hidden):
            kernel.mount("none", path, flags=flags | kernel.REMOUNT | kernel.BIND | kernel.READ_ONLY)
    os.chdir("/")


def bind_file(source: str, target: str) -> None:
    """Put a private file in the place of the machine's; a link into /run (resolv.conf is one at times) is followed."""
    place = Path(os.path.realpath(target))
    if not place.exists() and place.is_relative_to("/run"):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    kernel.mount(source, str(place), flags=kernel.BIND)


def pid_of(host: Host) -> int | None:
    """Process id (in the lab) of a host's first process, None when it is powered off."""
    with suppress(OSError, ValueError):
        pid = int((RUN / "hosts" / host.name).read_text(encoding="utf-8"))
        if Path(f"/proc/{pid}/ns/pid").exists() and _is_alive(pid):
            return pid
    return None


def _is_alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    return False


def power_off(host: Host) -> None:
    """Cut a host's power: nothing is shut down, nobody is told."""
    pid = pid_of(host)
    if pid is None:
        raise LabError(f"server {host.name} is powered off already")
    network.silence(host)
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while _is_alive(pid):
        if time.monotonic() > deadline:
            raise LabError(f"server {host.name} (process {pid}) does not end")
        time.sleep(0.005)
    (RUN / "hosts" / host.name).unlink()
    network.detach(host)


def enter(host: Host, user: str | None = None) -> list[str]:
    """The beginning of a command line that runs something on a host, as root or with an account's own environment."""
    pid = pid_of(host)
    if pid is None:
        raise LabError(f"server {host.name} is powered off")
    argv = [path_of("nsenter"), "-t", str(pid), "-m", "-u", "-i", "-n", "-p", "--"]
    if user is not None:
        argv += [path_of("setpriv"), f"--reuid={user}", f"--regid={user}", "--init-groups", "--reset-env"]
    return argv


def execute(host: Host, argv: Sequence[str], user: str | None = None, text: str = "", timeout: float = 120.0) -> str:
    """Run a command on a host and return what it printed."""
    return run([*enter(host, user), *argv], text, timeout)


def attached(host: Host, argv: Sequence[str], user: str | None = None) -> int:
    """Run a command on a host with our own input and output; returns its exit status."""
    return subprocess.run([*enter(host, user), *argv], check=False).returncode


def known_hosts(state: State, plan: Plan) -> str:
    """A known_hosts file: every host by name and address."""
    lines = []
    for host in plan.hosts:
        key = (state.host(host.name) / "boot" / "ssh_host_ed25519_key.pub").read_text(encoding="utf-8")
        names = [host.name, host.address]
        server = plan.fleet["servers"].get(host.name, {})
        names += [name for name in (server.get("dns_name"), server.get("address")) if name and name not in names]
        if host.ssh_port != 22:
            names = [f"[{name}]:{host.ssh_port}" for name in names]
        lines.append(f"{','.join(names)} {' '.join(key.split()[:2])}\n")
    return "".join(lines)
