# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether we get into a server before it is recorded, and what to do when not. Private to the collection."""

from __future__ import annotations

import shlex
import typing as t
from dataclasses import dataclass

from ansible import constants as C
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import connection_loader

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.connect import (
    AUTH_REFUSED,
    HOST_KEY_REFUSED,
    Target,
    own_play_context,
    target_of,
)
from ansible_collections.elephaas.herd.plugins.plugin_utils.reach import LOGIN_REFUSED, reach
from ansible_collections.elephaas.herd.plugins.plugin_utils.ssh_keys import SshSettings, ssh_settings

NO_PYTHON = "NO_PYTHON"

# Options of a connection plugin that say where it leads: the record says that.
_WHERE = ("host", "port", "remote_user")


@dataclass(frozen=True)
class Login:
    """Where and as whom ssh goes."""

    address: str
    port: int
    user: str

    def __str__(self) -> str:
        return f"{self.user}@{self.address}, port {self.port}"


def check_login(login: Login, server: str, timeout_s: float, action: ActionBase, task_vars: dict[str, t.Any]) -> None:
    """Log in, run a command, look for Python. Raises OperatorError with one of reach.py's codes, or NO_PYTHON.

    The error says which public keys we would come with and where they belong.
    """
    target = _target(login, server, action, task_vars)
    play_context = own_play_context(action._play_context)
    answer = reach({server: target}, play_context, timeout_s)[server]
    if answer.reachable and answer.python:
        return
    if answer.reachable:
        raise OperatorError(
            NO_PYTHON,
            f"Server {server} ({login}) has no {target.python}.",
            "Install python3 (3.8 or newer) there, or give check_ssh=false.",
        )
    settings = ssh_settings(target, play_context, login)
    raise OperatorError(
        str(answer.code),
        f"Server {server} ({login}) can not be logged in to: {answer.error}.",
        _next_step(answer.code, login, settings),
        {"public_keys": settings.public_keys, "authorized_keys": _authorized_keys(login), "ssh": str(login)},
    )


def _target(login: Login, server: str, action: ActionBase, task_vars: dict[str, t.Any]) -> Target:
    """How a task on the server would connect: by its own variables, else by those of this play."""
    hostvars = task_vars["hostvars"]
    variables: t.Mapping[str, t.Any] = task_vars
    if server in hostvars:
        variables = hostvars[server]
    plugin = str(variables.get("ansible_connection") or C.DEFAULT_TRANSPORT)
    if plugin in ("local", "smart"):  # the controller's own; and before ansible-core 2.17, what ends as ssh
        plugin = "ssh"
    # Its options are only known once it is loaded.
    connection_loader.get(plugin, class_only=True)
    definitions = C.config.get_configuration_definitions("connection", plugin)
    where = {entry["name"] for option in _WHERE for entry in definitions.get(option, {}).get("vars", ())}
    names = set(C.config.get_plugin_vars("connection", plugin)) - where - {"inventory_hostname"}
    found = {name: action._templar.template(variables[name]) for name in names if name in variables}
    if server in hostvars and "ansible_python_interpreter" in variables:
        found["ansible_python_interpreter"] = variables["ansible_python_interpreter"]
    # What the inventory says for every server.
    found.setdefault("ansible_host_key_checking", True)
    found.update(
        ansible_connection=plugin,
        ansible_host=login.address,
        ansible_port=login.port,
        ansible_user=login.user,
        ansible_become=False,
    )
    return target_of(found, action._task, action._play_context)


def _authorized_keys(login: Login) -> str:
    return f"~{login.user}/.ssh/authorized_keys on {login.address}"


def _next_step(code: str | None, login: Login, settings: SshSettings) -> str:
    if settings.public_keys:
        keys = f"append one of these public keys to {_authorized_keys(login)}: {' | '.join(settings.public_keys)}"
    else:
        keys = f"make a key (ssh-keygen -t ed25519) and append its public half to {_authorized_keys(login)}"
    if code in (AUTH_REFUSED, LOGIN_REFUSED):
        return f"{keys[0].upper()}{keys[1:]}. Then run again, or give check_ssh=false to record it all the same."
    if code == HOST_KEY_REFUSED:
        scan = f"ssh-keyscan -p {login.port} -t ed25519 {shlex.quote(login.address)}"
        known = shlex.quote(settings.known_hosts)
        return (
            "Compare the fingerprint that the server's own console shows (ssh-keygen -lf"
            f" /etc/ssh/ssh_host_ed25519_key.pub) with the one seen from here ({scan} | ssh-keygen -lf -). Only when"
            f" they are the same, trust it: {scan} >> {known}. If it had another key before, take that away first"
            f" (ssh-keygen -R {shlex.quote(_known_name(login))} -f {known}). If the login is refused then, {keys}."
        )
    return (
        f"Check address, port and firewall, and that sshd runs there. When it answers, {keys}."
        " To record it all the same, give check_ssh=false."
    )


def _known_name(login: Login) -> str:
    """How known_hosts calls a host: with its port, where that is not ssh's own."""
    return login.address if login.port == 22 else f"[{login.address}]:{login.port}"
