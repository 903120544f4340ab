# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real PostgreSQL clusters on the lab's hosts.

Each herd is one initdb (so it has its own system identifier); its replicas are cold copies of it with standby.signal.
fsync stays on: the lab measures how long a shutdown and a promotion take, and those wait for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from . import accounts, hosts
from .errors import LabError
from .plan import Host, Instance, Plan
from .programs import path_of, postgres, run
from .state import State

_SETTINGS = """
# The lab's settings
listen_addresses = '*'
port = {port}
max_connections = 40
shared_buffers = 16MB
max_wal_senders = 12
max_replication_slots = 12
wal_level = replica
wal_log_hints = on
wal_keep_size = 128MB
max_slot_wal_keep_size = 1GB
hot_standby = on
# Replicas start together with their primary: without this they would wait 5 s before they try again.
wal_retrieve_retry_interval = 200ms
# New WAL files as holes: saves writing 16 MB per instance, and changes nothing else.
wal_init_zero = off
huge_pages = off
log_connections = off
log_line_prefix = '%m [%p] %q%u@%d '
"""
_COLLECTOR = """\
logging_collector = on
log_directory = '/var/log/postgresql'
log_filename = '{name}.log'
log_rotation_age = 0
log_rotation_size = 0
"""


def create_herd(state: State, plan: Plan, members: list[Instance], passwords: dict[str, str]) -> None:
    """Initialise a herd's primary and copy it to its replicas; nothing is started."""
    primary = next(member for member in members if member.primary)
    for member in members:
        _make_parents(state, plan.host(member.server), member)
    machines = [plan.host(member.server) for member in members]
    addresses = [address for host in machines for address in (host.address, host.second) if address]
    clients = "\n".join(
        f"host replication {_quote(primary.replication_user)} {address}/{128 if ':' in address else 32} scram-sha-256"
        for address in addresses
    )
    initialise(
        state,
        plan.host(primary.server),
        primary.pgdata,
        primary.os_user,
        _SETTINGS.format(port=primary.port) + ("" if primary.debian else _COLLECTOR.format(name=primary.herd_key)),
        f"{clients}\nhost all app 0.0.0.0/0 scram-sha-256\nhost all app ::/0 scram-sha-256\n",
        [
            f"CREATE ROLE {_quote(primary.replication_user)} LOGIN REPLICATION PASSWORD '{passwords['replication']}'",
            f"CREATE ROLE app LOGIN PASSWORD '{passwords['app']}'",
            "CREATE DATABASE app OWNER app",
        ],
    )
    source = hosts.storage(state, primary.server, primary.pgdata)
    for member in members:
        target = hosts.storage(state, member.server, member.pgdata)
        if member is not primary:
            target.mkdir(exist_ok=True)
            run(["cp", "-a", "--sparse=always", "--reflink=auto", f"{source}/.", str(target)])
            _make_replica(target, member, plan)
    for member in members:
        if member.debian:
            _to_debian_layout(state, member)


def _make_parents(state: State, host: Host, instance: Instance) -> None:
    """The way to the data directory, owned owned so that the instance's account may rename it."""
    uid, gid, _home = accounts.identity(state, instance.os_user)
    for own in {instance.pgdata, str(Path(instance.pgdata).parent)} & set(host.private):
        os.chown(hosts.storage(state, host.name, own), uid, gid)
    missing = []
    parent = hosts.storage(state, host.name, instance.pgdata).parent
    while not parent.exists():
        missing.append(parent)
        parent = parent.parent
    for directory in reversed(missing):
        # Another herd with a member on this host may be making it at this moment.
        directory.mkdir(exist_ok=True)
        os.chown(directory, uid, gid)


def initialise(
    state: State, host: Host, pgdata: str, os_user: str, settings: str, clients: str, statements: Iterable[str]
) -> None:
    """initdb, settings, then statements in single-user mode (where a password travels by standard input only).

    The settings come before the first start: the control file keeps those it ran with, and a replica whose
    max_connections is lower than what is noted there refuses to start.
    """
    programs = postgres()[1]
    hosts.execute(
        host,
        [
            str(programs / "initdb"),
            *("-D", pgdata, "-U", os_user, "--no-sync", "--data-checksums", "--no-locale", "-E", "UTF8"),
            *("--auth-local=peer", "--auth-host=scram-sha-256", "--no-instructions"),
        ],
        os_user,
    )
    data = hosts.storage(state, host.name, pgdata)
    for name, text in (("postgresql.conf", settings), ("pg_hba.conf", clients)):
        with (data / name).open("a", encoding="utf-8") as file:
            file.write(text)
    hosts.execute(
        host,
        [str(programs / "postgres"), "--single", "-D", pgdata, "-F", "-c", "log_min_messages=fatal", "postgres"],
        os_user,
        "".join(f"{statement}\n" for statement in statements),
    )


def _make_replica(data: Path, member: Instance, plan: Plan) -> None:
    upstream = next(other for other in plan.members(member.herd_key) if other.server == member.upstream)
    owner = data.stat()
    (data / "standby.signal").touch(mode=0o600)
    os.chown(data / "standby.signal", owner.st_uid, owner.st_gid)
    # As pg_basebackup -R leaves it; the password is in the account's .pgpass.
    conninfo = f"host={upstream.address} port={upstream.port} user={_conninfo(member.replication_user)}"
    conninfo += f" application_name={_conninfo(member.server)}"
    with (data / "postgresql.auto.conf").open("a", encoding="utf-8") as file:
        file.write("primary_conninfo = '" + conninfo.replace("'", "''") + "'\n")
    if member.port != next(other for other in plan.members(member.herd_key) if other.primary).port:
        with (data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(f"port = {member.port}\n")


def _to_debian_layout(state: State, instance: Instance) -> None:
    """Move the configuration to /etc/postgresql/<version>/<name>, as pg_createcluster has it."""
    version, _programs = postgres()
    config = f"/etc/postgresql/{version}/{instance.base_name}"
    folder = hosts.storage(state, instance.server, config)
    data = hosts.storage(state, instance.server, instance.pgdata)
    uid, gid, _home = accounts.identity(state, instance.os_user)
    for directory in (folder.parent, folder):
        directory.mkdir(exist_ok=True)
        os.chown(directory, uid, gid)
    for name in ("postgresql.conf", "pg_hba.conf", "pg_ident.conf"):
        run(["mv", str(data / name), str(folder / name)])
    own = {
        "start.conf": "auto\n",
        "pg_ctl.conf": "pg_ctl_options = ''\n",
        "environment": "",
    }
    for name, text in own.items():
        (folder / name).write_text(text, encoding="utf-8")
        os.chown(folder / name, uid, gid)
    with (folder / "postgresql.conf").open("a", encoding="utf-8") as file:
        file.write(
            f"data_directory = '{instance.pgdata}'\n"
            f"hba_file = '{config}/pg_hba.conf'\n"
            f"ident_file = '{config}/pg_ident.conf'\n"
            f"external_pid_file = '/var/run/postgresql/{version}-{instance.base_name}.pid'\n"
            f"cluster_name = '{version}/{instance.base_name}'\n"
        )


def write_passwords(state: State, plan: Plan, password: str) -> None:
    """The replication password in .pgpass of every account that owns an instance, on every host."""
    for server, os_user in sorted({(instance.server, instance.os_user) for instance in plan.instances}):
        uid, gid, home = accounts.identity(state, os_user)
        path = hosts.storage(state, server, home) / ".pgpass"
        users = sorted({instance.replication_user for instance in plan.on(server)})
        path.touch(mode=0o600)
        escaped = [user.replace("\\", "\\\\").replace(":", "\\:") for user in users]
        path.write_text("".join(f"*:*:*:{user}:{password}\n" for user in escaped), encoding="utf-8")
        os.chown(path, uid, gid)


def start(plan: Plan, instance: Instance) -> None:
    """Start an instance as its own kind of control does, and wait until it accepts connections."""
    host = plan.host(instance.server)
    version, _programs = postgres()
    if instance.debian:
        hosts.execute(host, [path_of("pg_ctlcluster"), version, instance.base_name, "start"], instance.os_user)
    else:
        log = f"/var/log/postgresql/{instance.herd_key}-start.log"
        start_plain(host, instance.pgdata, instance.os_user, log)


def start_plain(host: Host, pgdata: str, os_user: str, log: str) -> None:
    """Start a cluster with pg_ctl."""
    argv = [str(postgres()[1] / "pg_ctl"), "-D", pgdata, "-s", "-w", "-t", "60", "-l", log, "start"]
    hosts.execute(host, argv, os_user)


def query(plan: Plan, instance: Instance, sql: str, database: str = "postgres") -> str:
    """Run SQL on an instance, over its own socket as its owner; plain unaligned output."""
    return hosts.execute(plan.host(instance.server), psql(instance.port, database), instance.os_user, sql)


def answers(plan: Plan, instance: Instance, timeout: float = 10.0) -> bool:
    """Whether an instance takes queries, soon. pg_ctl waits for less: a replica that has only begun its recovery."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            query(plan, instance, "SELECT 1")
        except LabError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        else:
            return True


def psql(port: int, database: str) -> list[str]:
    """The lab's way to call psql: SQL from standard input, nothing read from the account's files."""
    program = str(postgres()[1] / "psql")
    return [program, "-XAtq", "-P", "pager=off", "-v", "ON_ERROR_STOP=1", "-p", str(port), "-d", database, "-f", "-"]


def wait_until_streaming(plan: Plan, timeout: float = 60.0) -> None:
    """Wait until every replica of the fleet streams."""
    expected: dict[str, set[str]] = {}
    for instance in plan.instances:
        if instance.upstream:
            expected.setdefault(f"{instance.herd_key}@{instance.upstream}", set()).add(instance.server)
    deadline = time.monotonic() + timeout
    for name, replicas in expected.items():
        while True:
            found = query(
                plan,
                plan.instance(name),
                "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'",
            ).split("\n")
            missing = replicas - set(found)
            if not missing:
                break
            if time.monotonic() > deadline:
                raise LabError(f"no streaming after {timeout:g} s: from {name} to {', '.join(sorted(missing))}")
            time.sleep(0.1)


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _conninfo(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
