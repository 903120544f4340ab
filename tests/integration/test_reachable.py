# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""reachable_info against a real sshd, and against hosts that do not answer."""

from __future__ import annotations

import getpass
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.elephaas.herd.tests.integration.sshd_server import running_sshd

COLLECTIONS = Path(__file__).resolve().parents[2] / ".build" / "collections"
SILENT = 20
TIMEOUT_S = 3

PLAYBOOK = """
- hosts: anchor
  gather_facts: false
  tasks:
    - elephaas.herd.reachable_info:
        timeout: {timeout}
      run_once: true
      register: first
    - elephaas.herd.reachable_info:
        hosts: [good, stranger]
      run_once: true
      register: second
    - ansible.builtin.copy:
        content: "{{{{ {{'first': first, 'second': second}} | to_json }}}}"
        dest: "{{{{ playbook_dir }}}}/seen.json"
"""


@pytest.fixture(name="sshd")
def fixture_sshd(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """The folder with an sshd's keys, and its port."""
    with running_sshd(tmp_path) as port:
        yield tmp_path, port


@pytest.fixture(name="silent")
def fixture_silent() -> Iterator[list[int]]:
    """Ports that accept and never say a word, as a frozen host does."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _number in range(SILENT)]
    yield [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()


def test_all_at_once(sshd: tuple[Path, int], silent: list[int]) -> None:
    place, port = sshd
    base = {
        "ansible_host": "127.0.0.1",
        "ansible_port": port,
        "ansible_user": getpass.getuser(),
        "ansible_host_key_checking": True,
        "ansible_ssh_private_key_file": str(place / "key"),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={place}/known",
        "ansible_python_interpreter": sys.executable,
    }
    hosts: dict[str, dict[str, Any]] = {
        "good": base,
        "same": base,
        "no_python": {**base, "ansible_python_interpreter": "/nowhere/python3"},
        "templated": {**base, "ansible_port": "{{ the_port }}", "the_port": port},
        "changed_key": {**base, "ansible_ssh_common_args": f"-o UserKnownHostsFile={place}/changed"},
        "unknown_key": {**base, "ansible_ssh_common_args": f"-o UserKnownHostsFile={place}/none"},
        "wrong_key": {
            **base,
            "ansible_ssh_private_key_file": str(place / "other_key"),
            "ansible_ssh_args": "-o IdentitiesOnly=yes",
        },
        "closed": {**base, "ansible_port": 1},
        "here": {"ansible_connection": "local"},
        "no_plugin": {**base, "ansible_connection": "no.such.plugin"},
        **{f"silent{number}": {**base, "ansible_port": silent[number]} for number in range(SILENT)},
    }
    anchor = {**hosts["here"], "ansible_python_interpreter": sys.executable, "elephaas_members": [*hosts, "absent"]}
    (place / "hosts.json").write_text(json.dumps({"all": {"hosts": {**hosts, "anchor": anchor}}}))
    (place / "play.yml").write_text(PLAYBOOK.format(timeout=TIMEOUT_S))
    (place / "ansible.cfg").write_text("")
    control = place / "cp"
    program = Path(sys.executable).with_name("ansible-playbook")
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(control),
        "ANSIBLE_CONFIG": str(place / "ansible.cfg"),
    }
    try:
        run = subprocess.run(
            [str(program), "-i", "hosts.json", "play.yml", "-vvv"],
            cwd=place, env=environment, text=True, capture_output=True, check=False, timeout=120,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout + run.stderr
        # A master is what makes the next task quick: it must outlive the question.
        masters = list(control.iterdir())
        assert masters
    finally:
        for master in control.glob("*"):
            subprocess.run(["ssh", "-O", "exit", "-S", str(master), "x"], check=False, stderr=subprocess.DEVNULL)
    seen = json.loads((place / "seen.json").read_text())
    first = seen["first"]
    assert first["reachable"] == ["good", "same", "no_python", "templated", "here"]
    codes = {name: answer["code"] for name, answer in first["hosts"].items() if answer["code"]}
    assert codes == {
        "changed_key": "HOST_KEY_REFUSED",
        "unknown_key": "HOST_KEY_REFUSED",
        "wrong_key": "AUTH_REFUSED",
        "closed": "HOST_UNREACHABLE",
        "no_plugin": "HOST_UNREACHABLE",
        "absent": "NOT_IN_INVENTORY",
        **{f"silent{number}": "HOST_UNREACHABLE" for number in range(SILENT)},
    }
    assert set(first["errors"]) == set(codes)
    assert "Permission denied" in first["errors"]["wrong_key"]
    assert "refused" in first["errors"]["closed"]
    assert first["hosts"]["good"]["user"] == getpass.getuser()
    assert first["hosts"]["good"]["python"] == sys.executable
    assert first["hosts"]["no_python"]["python"] is None
    assert first["hosts"]["same"] == first["hosts"]["good"]
    # One timeout for all twenty, not one for each.
    assert max(answer["seconds"] for answer in first["hosts"].values()) < 2 * TIMEOUT_S + 2
    assert seen["second"]["reachable"] == ["good"]
