# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of a lab: Ansible's configuration, inventories, keys, and how a command runs there."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from . import dns, hosts, kernel, registry
from .plan import Plan, expose_collection
from .programs import path_of, run
from .state import CHECKOUT, State
from .supervisor import RUN

# Short on purpose: a Unix socket's path has at most 107 bytes, and a checkout's path may be long.
SOCKETS = RUN / "ssh"
_ANSIBLE_CFG = """\
[defaults]
home = {folder}/ansible
collections_path = {folder}/collections
inventory = {folder}/herds.yml
local_tmp = {folder}/ansible/tmp
forks = 20
timeout = 5
host_key_checking = true
private_key_file = {folder}/id_ed25519
interpreter_python = /usr/bin/python3
retry_files_enabled = false
nocows = true

[inventory]
enable_plugins = auto, yaml
unparsed_is_failed = true
any_unparsed_is_failed = true
host_pattern_mismatch = error

[connection]
pipelining = true

[ssh_connection]
pipelining = true
ssh_args = -F {folder}/ssh_config
control_path_dir = {sockets}
control_path = %(directory)s/%%C
"""
# A file of its own, so that neither the machine's nor the operator's ssh configuration has a say.
_SSH_CONFIG = """\
UserKnownHostsFile "{folder}/known_hosts"
GlobalKnownHostsFile /dev/null
StrictHostKeyChecking yes
IdentityFile "{folder}/id_ed25519"
IdentitiesOnly yes
BatchMode yes
ConnectTimeout 5
# A shared connection to a server that lost its power would swallow every later command, and wait for ever.
ServerAliveInterval 3
ServerAliveCountMax 2
ControlMaster auto
ControlPersist 60s
ControlPath {sockets}/%C
"""


def write_keys(state: State) -> str:
    """Make the operator's ssh key and the DNS keys; returns the public half of the former."""
    key = state.controller / "id_ed25519"
    run([path_of("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "operator", "-f", str(key)])
    dns.write_keys(state.controller)
    return key.with_suffix(".pub").read_text(encoding="utf-8")


def write(state: State, plan: Plan, passwords: dict[str, str]) -> None:
    """Write everything a command of the operator needs, owned by the operator (who called the lab, maybe by sudo)."""
    folder = state.controller
    collection = folder / "collections" / "ansible_collections" / "elephaas"
    collection.mkdir(parents=True)
    (collection / "herd").symlink_to(CHECKOUT)
    (folder / "ansible").mkdir()
    (folder / "ansible.cfg").write_text(_ANSIBLE_CFG.format(folder=folder, sockets=SOCKETS), encoding="utf-8")
    (folder / "ssh_config").write_text(_SSH_CONFIG.format(folder=folder, sockets=SOCKETS), encoding="utf-8")
    (folder / "known_hosts").write_text(hosts.known_hosts(state, plan), encoding="utf-8")
    (folder / "resolv.conf").write_text(hosts.resolver(plan), encoding="utf-8")
    (folder / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n", encoding="utf-8")
    snapshot = {"plugin": "elephaas.herd.herds", "snapshot_path": str(folder / "snapshot.json")}
    (folder / "herds.yml").write_text(yaml.safe_dump(snapshot, sort_keys=False), encoding="utf-8")
    (folder / "static.yml").write_text(yaml.safe_dump(static_inventory(plan), sort_keys=False), encoding="utf-8")
    pgpass = folder / "pgpass"
    pgpass.touch(mode=0o600)
    pgpass.write_text(
        f"{plan.registry}:5432:*:{registry.OPERATOR}:{passwords['registry']}\n*:*:app:app:{passwords['app']}\n",
        encoding="utf-8",
    )
    SOCKETS.mkdir(mode=0o700)
    uid, gid = operator()
    for path in (folder, SOCKETS, *folder.rglob("*")):
        if not path.is_symlink():
            os.chown(path, uid, gid)
    folder.chmod(0o700)
    for name in ("resolv.conf", "hosts"):
        hosts.bind_file(str(folder / name), f"/etc/{name}")


def operator() -> tuple[int, int]:
    """User and group id of the person at the keyboard: who called sudo, else ourselves."""
    if os.getuid() == 0 and os.environ.get("SUDO_UID", "").isdigit():
        return int(os.environ["SUDO_UID"]), int(os.environ.get("SUDO_GID", os.environ["SUDO_UID"]))
    return os.getuid(), os.getgid()


def environment(state: State, plan: Plan) -> dict[str, str]:
    """The caller's environment with the lab's in it; PATH and a virtual environment stay the caller's."""
    folder = state.controller
    result = dict(os.environ)
    path = result.get("PATH", "").split(":")
    # Last the lab's own environment: a newcomer who has not activated it finds ansible-playbook all the same.
    own = (str(Path(sys.executable).parent), "/usr/sbin", "/sbin", "/usr/bin", "/bin")
    path += [directory for directory in own if directory not in path]
    result.update(
        {
            "PATH": ":".join(path),
            "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
            "ELEPHAAS_LAB_STATE": str(state.root),
            "ELEPHAAS_REGISTRY_DSN": registry.dsn(plan),
            "PGPASSFILE": str(folder / "pgpass"),
            "ELEPHAAS_DNS_SERVER": plan.dns[0],
            "ELEPHAAS_DNS_KEY_FILE": str(folder / "tsig.key"),
            "PAGER": "cat",
        }
    )
    return result


def execute(state: State, plan: Plan, argv: Sequence[str]) -> int:
    """Become a command of the operator; to be called in a child that is in the lab's namespaces already."""
    settings = environment(state, plan)
    uid, gid = operator()
    if uid != os.getuid():
        import pwd

        account = pwd.getpwuid(uid)
        os.initgroups(account.pw_name, gid)
        os.setgid(gid)
        os.setuid(uid)
        settings.update({"HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name})
    try:
        os.execvpe(argv[0], list(argv), settings)
    except FileNotFoundError:
        print(f"lab: {argv[0]}: no such command")
        return 127
    except PermissionError:
        print(f"lab: {argv[0]}: not executable")
        return 126


def run_logged(pid: int, state: State, plan: Plan, argv: Sequence[str], log: Path) -> int:
    """Run a command of the operator on the controller's side of the lab, into a file; returns its exit status."""

    def work() -> int:
        with log.open("wb") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        return execute(state, plan, argv)

    return kernel.run_in(pid, work)


def static_inventory(plan: Plan) -> dict[str, Any]:
    """The fleet as a plain YAML inventory: the same hosts, groups and variables as the inventory plugin gives."""
    expose_collection()
    from ansible_collections.elephaas.herd.plugins.module_utils.decide import names

    found: dict[str, dict[str, Any]] = {"instances": {}, "servers": {}}

    def put(group: str, host: str) -> None:
        found.setdefault(group, {})[host] = {}

    variables: dict[str, dict[str, Any]] = {}
    for name, server in plan.fleet["servers"].items():
        variables[name] = _connection(name, server) | {"elephaas_kind": "server"}
        put("servers", name)
    for herd in plan.fleet["herds"]:
        group = names.herd_group(herd["name"], herd["environment"])
        servers = [member["server"] for member in herd["members"]]
        members = {server: names.instance_name(herd["name"], herd["environment"], server) for server in servers}
        for member in herd["members"]:
            host = members[member["server"]]
            server = plan.fleet["servers"][member["server"]]
            role = member["role"]
            variables[host] = _connection(member["server"], server) | {
                "elephaas_kind": "instance",
                "elephaas_herd": herd["name"],
                "elephaas_environment": herd["environment"],
                "elephaas_protected": plan.fleet["environments"][herd["environment"]]["protected"],
                "elephaas_role": role,
                "elephaas_upstream": members.get(member["upstream"]),
                "elephaas_port": member["port"],
                "elephaas_pgdata": member["pgdata"],
                "elephaas_version": None,
                "elephaas_vhost": herd["vhost"],
                "elephaas_lag_bytes": None,
                "elephaas_is_online": None,
                "elephaas_last_seen": None,
                "elephaas_system_identifier": None,
                "elephaas_timeline": None,
                "elephaas_os_user": herd["os_user"],
                "elephaas_control": herd["control"],
                "elephaas_replication_user": herd["replication_user"],
                "elephaas_priority": member["priority"],
                "elephaas_base_name": herd["base_name"],
                "elephaas_hold_reason": None,
                "elephaas_hold_by": None,
                "elephaas_hold_since": None,
                "elephaas_herd_group": group,
                "elephaas_members": sorted(members.values()),
                "elephaas_operation": None,
                "elephaas_last_failover": None,
            }
            put("instances", host)
            put(group, host)
            put(names.server_group(member["server"]), host)
            if role in ("primary", "replica"):
                put("primaries" if role == "primary" else "replicas", host)
            if role == "primary":
                put("leads", host)
                if len(members) > 1:
                    put("dr_pairs", host)
    for host, values in variables.items():
        put(names.environment_group(values["elephaas_environment"]), host)
        if values["elephaas_datacenter"]:
            put(names.datacenter_group(values["elephaas_datacenter"]), host)
    return {
        "all": {
            "vars": {"elephaas_inventory_source": "registry", "elephaas_inventory_read_at": None},
            "hosts": variables,
            "children": {group: {"hosts": members} for group, members in found.items()},
        }
    }


def _connection(name: str, server: dict[str, Any]) -> dict[str, Any]:
    return {
        "ansible_host": server["address"] or name,
        "ansible_port": server["ssh_port"],
        "ansible_user": server["ssh_user"],
        "ansible_host_key_checking": True,
        "ansible_ssh_pipelining": True,
        "elephaas_environment": server["environment"],
        "elephaas_datacenter": server["datacenter"],
        "elephaas_server": name,
        "elephaas_address": server["address"] or name,
        "elephaas_dns_name": server["dns_name"],
    }
