# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a host is connected to, from its variables: the same way a task on it would take. Private to the collection."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import os
import typing as t
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ansible import constants as C
from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import become_loader, connection_loader

from ansible_collections.elephaas.herd.plugins.plugin_utils.action import plain

HOST_UNREACHABLE = "HOST_UNREACHABLE"
HOST_KEY_REFUSED = "HOST_KEY_REFUSED"
AUTH_REFUSED = "AUTH_REFUSED"

# Texts of OpenSSH's client, which it never translates.
_HOST_KEY_TEXTS = ("Host key verification failed", "HOST IDENTIFICATION HAS CHANGED", "host key is known for")
_AUTH_TEXTS = ("Permission denied (", "Too many authentication failures", "No supported authentication methods")
_SSH_PREFIX = "Failed to connect to the host via ssh:"


@dataclass(frozen=True)
class Target:
    """How one host is connected to.

    plugin: name of the connection plugin. options: the host's variables that the plugin reads, already templated.
    task_keys: the task's own settings (remote_user, port …), which count where the variables say nothing.
    python: what is looked for as the host's Python.
    become: name of the become plugin, empty for none; become_options: the host's variables that it reads.
    """

    plugin: str
    options: dict[str, t.Any]
    task_keys: dict[str, t.Any]
    python: str = "python3"
    become: str = ""
    become_options: dict[str, t.Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Equal for targets that lead to the same account of the same host."""
        options = dict(self.options)
        if options.get("ansible_host") or options.get("ansible_ssh_host"):
            # The plugin falls back to it, and has no need to.
            options.pop("inventory_hostname", None)
        return json.dumps(
            [self.plugin, self.python, options, self.become, self.become_options], sort_keys=True, default=repr
        )


def target_of(variables: Mapping[str, t.Any], task: t.Any, play_context: PlayContext) -> Target:
    """The settings that this task would use, were it delegated to the host with these variables."""
    plugin = str(variables.get("ansible_connection", task.connection or C.DEFAULT_TRANSPORT))
    if plugin == "smart":  # before ansible-core 2.17: ssh wherever ssh can multiplex, that is everywhere by now
        plugin = "ssh"
    task_keys = task.dump_attrs()
    # Not the connection's: a limit for the task, and attempts of the task.
    for name in ("timeout", "retries"):
        task_keys.pop(name, None)
    if play_context.password:
        task_keys["password"] = play_context.password
    if play_context.become_pass:
        task_keys["become_pass"] = play_context.become_pass
    python = str(variables.get("ansible_python_interpreter") or "auto")
    become = ""
    if boolean(variables.get("ansible_become", bool(task.become)), strict=False):
        become = str(variables.get("ansible_become_method") or task.become_method or C.DEFAULT_BECOME_METHOD)
    return Target(
        plugin,
        _read_by("connection", plugin, variables),
        task_keys,
        "python3" if python.startswith("auto") else python,
        become,
        _read_by("become", become, variables) if become else {},
    )


def _read_by(kind: str, plugin: str, variables: Mapping[str, t.Any]) -> dict[str, t.Any]:
    return {name: plain(variables[name]) for name in _variables_of(kind, plugin) if name in variables}


@functools.cache
def _variables_of(kind: str, plugin: str) -> list[str]:
    # Only of a plugin that was loaded does ansible-core know which variables it reads.
    {"connection": connection_loader, "become": become_loader}[kind].get(plugin, class_only=True)
    return list(C.config.get_plugin_vars(kind, plugin))


def own_play_context(play_context: PlayContext) -> PlayContext:
    """One that no plugin can change for the rest of the run, and that holds nothing of the current host."""
    own = copy.copy(play_context)
    own.become = False
    return own


def open_connection(target: Target, play_context: PlayContext, timeout_s: float) -> t.Any:
    """A connection plugin, ready for exec_command. Raises AnsibleError."""
    connection = connection_loader.get(
        target.plugin, play_context, new_stdin=None, ansible_playbook_pid=str(os.getppid())
    )
    if connection is None:
        raise AnsibleError(f"there is no connection plugin {target.plugin}")
    become = None
    if target.become:
        become = become_loader.get(target.become)
        if become is None:
            raise AnsibleError(f"there is no become plugin {target.become}")
        if not become.pipelining:
            # It would wait for a terminal's prompt until the time is up, and say something about that.
            raise AnsibleError(f"become method {target.become} does not pass standard input on; use sudo, or none")
        become.set_options(task_keys=target.task_keys, var_options=target.become_options)
    connection.set_become_plugin(become)
    connection.set_options(task_keys=target.task_keys, var_options=target.options)
    for option, value in (("timeout", max(1, round(timeout_s))), ("reconnection_retries", 0)):
        if option in C.config.get_configuration_definitions("connection", connection._load_name):
            connection.set_option(option, value)
    return connection


def load_plugins(targets: Iterable[Target], play_context: PlayContext) -> None:
    """Load here what open_connection needs, for children that are forked afterwards.

    Each of them would load it anew, which takes longer than the connection itself. Connects to nothing.
    """
    for target in {(target.plugin, target.become): target for target in targets}.values():
        # Whatever is wrong is met again by the child, and becomes the answer for its host.
        with contextlib.suppress(Exception):
            open_connection(target, play_context, 1)


def classify(message: str, authentication: bool = False) -> tuple[str, str]:
    """The code for a connection plugin's error, and its last line in words."""
    text = message.partition(_SSH_PREFIX)[2] if _SSH_PREFIX in message else message
    said = last_line(text) or "it cannot be reached"
    if any(part in text for part in _HOST_KEY_TEXTS):
        return HOST_KEY_REFUSED, f"its host key is unknown or has changed: {said}"
    if authentication or any(part in text for part in _AUTH_TEXTS):
        return AUTH_REFUSED, f"it does not accept our key or password: {said}"
    return HOST_UNREACHABLE, said


def last_line(text: str) -> str:
    """The last line that holds something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def as_text(value: t.Any) -> str:
    """What a connection plugin returned, which is bytes with some plugins and text with others."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
