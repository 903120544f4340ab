# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which public keys ssh would offer, and where it keeps the keys of hosts, as ssh itself says. Private to the collection."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import typing as t
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ansible.errors import AnsibleError
from ansible.playbook.play_context import PlayContext

from ansible_collections.elephaas.herd.plugins.plugin_utils.connect import Target, open_connection

_PROGRAM_TIMEOUT_S = 5.0
_PUBLIC_KEY = re.compile(r"[a-z0-9@.-]+ [A-Za-z0-9+/=]+( [^\x00-\x1f\x7f]*)?\Z")


class _Login(t.Protocol):
    address: str
    port: int
    user: str


@dataclass(frozen=True)
class SshSettings:
    """public_keys: lines as authorized_keys takes them, the likeliest first. known_hosts: the file for hosts' keys."""

    public_keys: list[str] = field(default_factory=list)
    known_hosts: str = "~/.ssh/known_hosts"


def ssh_settings(target: Target, play_context: PlayContext, login: _Login) -> SshSettings:
    """What ssh would use to log in there; what can not be found out is left out. No secret is read or asked for."""
    said = _ask_ssh(target, play_context, login)
    keys: dict[str, str] = {}
    for path in said.get("identityfile", ()):
        for line in _of_file(os.path.expanduser(path)):
            keys.setdefault(" ".join(line.split()[:2]), line)
    if said.get("identitiesonly", ["no"])[-1] != "yes":
        for line in _of_agent(said.get("identityagent", [""])[-1]):
            keys.setdefault(" ".join(line.split()[:2]), line)
    files = said.get("userknownhostsfile", [""])[-1].split()
    return SshSettings(list(keys.values()), files[0] if files else SshSettings.known_hosts)


def _ask_ssh(target: Target, play_context: PlayContext, login: _Login) -> dict[str, list[str]]:
    """`ssh -G` with the arguments that Ansible would give it: option in lower case -> its values."""
    try:
        connection = open_connection(target, play_context, _PROGRAM_TIMEOUT_S)
    except AnsibleError:
        return {}

    def option(name: str) -> str:
        return str(connection.get_option(name) or "") if name in connection.get_options() else ""

    argv = [option("ssh_executable") or "ssh", "-G", "-p", str(login.port)]
    if option("private_key_file"):
        argv += ["-o", f'IdentityFile="{os.path.expanduser(option("private_key_file"))}"']
    for name in ("ssh_args", "ssh_common_args", "ssh_extra_args"):
        argv += shlex.split(option(name))
    found: dict[str, list[str]] = {}
    for line in _lines([*argv, f"{login.user}@{login.address}"]):
        name, _space, value = line.partition(" ")
        found.setdefault(name.lower(), []).append(value)
    return found


def _of_file(path: str) -> Iterator[str]:
    """The public half of a private key's file: beside it, else from itself where it has no passphrase."""
    try:
        lines = Path(path + ".pub").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = _lines(["ssh-keygen", "-y", "-P", "", "-f", path]) if os.path.isfile(path) else []
    yield from _public_keys(lines)


def _of_agent(socket: str) -> Iterator[str]:
    environment = dict(os.environ)
    if socket == "none":
        return
    if socket and socket != "SSH_AUTH_SOCK":
        environment["SSH_AUTH_SOCK"] = os.path.expanduser(socket)
    if environment.get("SSH_AUTH_SOCK"):
        yield from _public_keys(_lines(["ssh-add", "-L"], environment))


def _public_keys(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        if _PUBLIC_KEY.match(line.strip()):
            yield line.strip()


def _lines(argv: Sequence[str], environment: dict[str, str] | None = None) -> list[str]:
    """What a program of OpenSSH's prints; nothing when it fails or hangs."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=_PROGRAM_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.decode("utf-8", "replace").splitlines() if done.returncode == 0 else []
