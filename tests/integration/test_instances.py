# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One look at many instances, over connections of every kind, with hosts and servers that have every kind of trouble."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .moving_fleet import FLEET, MovingFleet, herd_of, shared_fleet

PLAYBOOK = """
- hosts: "solo_prod@e1"
  gather_facts: false
  tasks:
    - elephaas.herd.instances_info:
        instances: {instances}
        timeout: 3
        look_timeout: 4
      register: look
    - ansible.builtin.copy:
        content: "{{{{ look | to_json }}}}"
        dest: "{{{{ playbook_dir }}}}/seen.json"
      delegate_to: localhost
"""
ON_E1 = [
    f"{herd['name']}_{herd['environment']}@e1"
    for herd in FLEET["herds"]
    if "e1" in [member["server"] for member in herd["members"]]
]


@pytest.fixture(scope="module")
def fleet(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> MovingFleet:
    return shared_fleet(pytestconfig, tmp_path_factory)


class Look:
    """A look at instances whose host variables can be changed for it."""

    def __init__(self, fleet: MovingFleet, folder: Path) -> None:
        self._fleet = fleet
        self._folder = folder

    def __call__(
        self, *instances: str, variables: dict[str, dict[str, Any]] | None = None
    ) -> dict[str, dict[str, Any]]:
        """The observations by name. variables: of hosts, over those of the inventory."""
        (self._folder / "host_vars").mkdir(exist_ok=True)
        for name, own in (variables or {}).items():
            (self._folder / "host_vars" / f"{name}.json").write_text(json.dumps(own), encoding="utf-8")
        playbook = self._folder / "look.yml"
        playbook.write_text(PLAYBOOK.format(instances=json.dumps(list(instances))), encoding="utf-8")
        done = self._fleet.run("ansible-playbook", str(playbook), check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        seen = json.loads((self._folder / "seen.json").read_text(encoding="utf-8"))
        assert seen["changed"] is False
        assert [one["name"] for one in seen["observations"]] == list(instances), "in the order asked for"
        return {one["name"]: one for one in seen["observations"]}


@pytest.fixture
def look(fleet: MovingFleet, tmp_path: Path) -> Look:
    return Look(fleet, tmp_path)


def test_many_instances_of_one_server(fleet: MovingFleet, look: Look) -> None:
    assert len(ON_E1) > 5
    seen = look(*reversed(ON_E1), "small_stage@se")
    for name, one in seen.items():
        herd = herd_of(name.partition("@")[0])
        assert one["reachable"] is True
        assert one["error"] == ""
        assert (one["herd"], one["environment"]) == (herd["name"], herd["environment"])
        assert one["server"] == name.partition("@")[2]
        facts = one["facts"]
        assert (facts["port"], facts["data_directory"]) == (herd["port"], herd["pgdata"])
        assert facts["status"] == "running"
        assert facts["system_identifier"] == fleet.sql(name, "SELECT system_identifier FROM pg_control_system()")


def test_connections_that_do_not_come_about(fleet: MovingFleet, look: Look, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    wrong = (fleet.state / "controller" / "id_ed25519.pub").read_text(encoding="utf-8").split()[1]
    known.write_text(f"{FLEET['servers']['e2']['address']} ssh-ed25519 {wrong}\n", encoding="utf-8")
    own_connection = "-o ControlPath=none"
    troubles: dict[str, tuple[dict[str, Any], str]] = {
        "main_prod@e2": (
            {"ansible_ssh_common_args": f"-o UserKnownHostsFile={known} {own_connection}"},
            "its host key is unknown or has changed",
        ),
        # Nobody has this address.
        "main_prod@w1": ({"ansible_host": "10.40.0.250"}, ""),
        "main_prod@w2": ({"ansible_python_interpreter": "/opt/no/python3"}, "did not run there"),
        "fine_prod@w1": (
            {"ansible_ssh_private_key_file": "/dev/null", "ansible_ssh_common_args": f"{own_connection} -F /dev/null"},
            "",
        ),
        "small_stage@se": (
            {"ansible_become": True, "ansible_become_method": "su", "ansible_become_user": "postgres"},
            "become method su does not pass standard input on",
        ),
        "behind_prod@w1": (
            {"ansible_become": True, "ansible_become_user": "postgres", "ansible_become_exe": "/opt/no/sudo"},
            "did not run there",
        ),
        "small_stage@sw": ({"ansible_become": True, "ansible_become_method": "of_no_plugin"}, "no become plugin"),
        "paused_prod@w1": ({"ansible_connection": "of_no_plugin"}, "of_no_plugin"),
    }
    began = time.monotonic()
    seen = look(
        *troubles, "main_prod@e1", "never_prod@e1", variables={name: own for name, (own, _text) in troubles.items()}
    )
    assert time.monotonic() - began < 60
    for name, (_own, text) in troubles.items():
        assert seen[name]["reachable"] is False, name
        assert seen[name]["facts"] is None
        assert seen[name]["error"], name
        assert text in seen[name]["error"]
        assert seen[name]["server"] == name.partition("@")[2]
    assert "not in the inventory" in seen["never_prod@e1"]["error"]
    assert seen["main_prod@e1"]["facts"]["status"] == "running"


@pytest.fixture
def becoming(fleet: MovingFleet) -> Iterator[dict[str, Any]]:
    """Host variables to become who owns the instances of a server, by a sudo of our own: not every machine has one."""
    fleet.execute("e1", "sh", "-c", """echo 'shift; user=$1; shift; exec runuser -u "$user" -- "$@"' > /tmp/as""")
    yield {
        "ansible_user": "root", "ansible_become": True, "ansible_become_method": "sudo",
        "ansible_become_user": "postgres",
        "ansible_become_exe": "PATH=/usr/sbin:$PATH sh /tmp/as", "ansible_become_flags": "",
    }  # fmt: skip
    fleet.execute("e1", "rm", "/tmp/as")


def test_as_another_account(look: Look, becoming: dict[str, Any]) -> None:
    """Become who owns the instance; the same host is asked without that for the others."""
    seen = look("main_prod@e1", "fine_prod@e1", variables={"main_prod@e1": becoming})
    assert [one["error"] for one in seen.values()] == ["", ""]
    assert [one["facts"]["status"] for one in seen.values()] == ["running", "running"]


@pytest.fixture
def noisy(fleet: MovingFleet) -> Iterator[str]:
    """A server whose login shell talks, also in words that look like an answer."""
    said = 'echo welcome; echo "elephaas.herd answers:[{}]"; echo warning >&2'
    fleet.execute("sw", "sh", "-c", f"echo '{said}' > /root/.bashrc")
    yield "small_stage@sw"
    fleet.execute("sw", "rm", "/root/.bashrc")


def test_a_login_shell_that_talks(fleet: MovingFleet, look: Look, noisy: str) -> None:
    heard = fleet.run("ssh", "-F", str(fleet.state / "controller" / "ssh_config"), "root@10.40.0.21", "true").stdout
    assert "welcome" in heard
    seen = look(noisy, variables={noisy: {"ansible_user": "root"}})
    assert seen[noisy]["error"] == ""
    assert seen[noisy]["facts"]["status"] == "running"


@pytest.fixture
def frozen(fleet: MovingFleet) -> Iterator[str]:
    """An instance whose server does not react, beside others on the same host."""
    pid = fleet.execute("e1", "head", "-n", "1", "/srv/solo/postmaster.pid").stdout.strip()
    fleet.execute("e1", "kill", "-STOP", pid)
    yield "solo_prod@e1"
    fleet.execute("e1", "kill", "-CONT", pid)


def test_a_server_that_hangs(look: Look, frozen: str) -> None:
    seen = look(frozen, "main_prod@e1", "small_stage@se")
    assert seen[frozen]["reachable"] is True
    facts = seen[frozen]["facts"]
    assert facts["status"] == "running"
    assert facts["sql_error"]
    # It could write once it goes on: a server that hangs must not look like one that cannot.
    assert (facts["role"], facts["writable"]) == ("primary", True)
    for name in ("main_prod@e1", "small_stage@se"):
        assert seen[name]["facts"]["sql_error"] is None


@pytest.fixture
def humble(fleet: MovingFleet) -> Iterator[str]:
    """An instance whose owner's account is no superuser in it."""
    name = "solo_prod@e1"
    if int(fleet.sql(name, "SHOW server_version_num")) >= 160000:
        pytest.skip("from PostgreSQL 16 on the first account always is")
    fleet.sql(name, "CREATE ROLE boss SUPERUSER; GRANT boss TO postgres; ALTER ROLE postgres NOSUPERUSER")
    yield name
    fleet.sql(name, "SET ROLE boss; ALTER ROLE postgres SUPERUSER; RESET ROLE; DROP ROLE boss")


def test_an_account_that_may_not_see_everything(look: Look, humble: str) -> None:
    facts = look(humble)[humble]["facts"]
    assert facts["superuser"] is False
    assert facts["sql_error"] is None
    assert (facts["status"], facts["role"], facts["writable"]) == ("running", "primary", True)
    assert facts["config_errors"] == []
    assert facts["next_start"] == {}
    assert any("not a superuser" in warning for warning in facts["warnings"])
