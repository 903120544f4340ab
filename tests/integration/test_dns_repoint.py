# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module dns_repoint as a task, run by ansible-playbook, against real BIND servers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.elephaas.herd.plugins.module_utils.decide import fleet as fleets
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry import operations, schema
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import connect
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.fleet import load_fleet
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.holder import this_holder
from ansible_collections.elephaas.herd.tests.integration.dns_bind import PRIMARY, SECONDARY, SECRETS, Bind
from ansible_collections.elephaas.herd.tests.integration.registry_client import FLEET
from ansible_collections.elephaas.herd.tests.integration.registry_server import Server

PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - name: Repoint
      elephaas.herd.dns_repoint: "{{ arguments }}"
      register: repointed
      ignore_errors: true
      vars:
        # A Python that does not exist: the work is done by the one that runs Ansible.
        ansible_python_interpreter: /nonexistent/python
    - name: Keep
      ansible.builtin.copy:
        content: "{{ repointed | to_json }}"
        dest: "{{ result_file }}"
        mode: "0600"
      vars:
        ansible_python_interpreter: "{{ ansible_playbook_python }}"
      check_mode: false
      diff: false
"""


@pytest.fixture(scope="module")
def bind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bind]:
    bind = Bind(tmp_path_factory.mktemp("bind"))
    try:
        bind.start("primary")
        bind.start("secondary")
        yield bind
    finally:
        bind.stop()


class Player:
    """Runs one task and gives its result, after a look for secrets in everything that was printed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = ""

    def run(self, arguments: dict[str, Any], *options: str, **environment: str) -> dict[str, Any]:
        result_file = self.folder / "result.json"
        result_file.unlink(missing_ok=True)
        (self.folder / "play.yml").write_text(PLAY)
        variables = self.folder / "vars.json"
        variables.write_text(json.dumps({"arguments": arguments, "result_file": str(result_file)}))
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", "-c", "local", "-vvvv"]
        done = subprocess.run(
            [*command, "-e", f"@{variables}", *options, str(self.folder / "play.yml")],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "false", **environment},
        )
        self.output = done.stdout + done.stderr
        assert done.returncode == 0, self.output
        kept = result_file.read_text()
        for name, secret in SECRETS.items():
            assert secret not in self.output, f"the secret of {name} was printed"
            assert secret not in kept
        result: dict[str, Any] = json.loads(kept)
        return result


@pytest.fixture
def player(tmp_path: Path) -> Player:
    return Player(tmp_path)


def test_task_rehearses_repoints_and_is_idempotent(bind: Bind, player: Player) -> None:
    bind.admin_set("herd.test", "alias", "CNAME", "db1.herd.test.")
    arguments = bind.params(record="alias.herd.test", value="db2.herd.test", expected="db1.herd.test")
    before, serial = bind.content(), bind.serial()
    rehearsed = player.run(arguments, "--check", "--diff")
    assert rehearsed["changed"] is True
    assert rehearsed["diff"]["before"] == "alias.herd.test. 30 IN CNAME db1.herd.test.\n"
    assert rehearsed["diff"]["after"] == "alias.herd.test. 30 IN CNAME db2.herd.test.\n"
    assert "+alias.herd.test. 30 IN CNAME db2.herd.test." in player.output
    assert (bind.content(), bind.serial()) == (before, serial)

    done = player.run(arguments)
    assert (done["changed"], done["failed"]) == (True, False)
    assert "diff" not in done
    for address in (PRIMARY, SECONDARY):
        assert bind.values("alias.herd.test", "CNAME", address) == ["db2.herd.test."]

    again = player.run(arguments)
    assert again["changed"] is False
    assert player.run(arguments, "--check")["changed"] is False


@pytest.mark.parametrize("options", [[], ["--check"]], ids=["run", "check"])
@pytest.mark.parametrize(
    ("record", "change", "code"),
    [
        ("alias", {"key_secret": SECRETS["stranger"]}, "DNS_KEY_REFUSED"),
        ("alias", {"key_name": "narrow", "key_secret": SECRETS["narrow"]}, "DNS_KEY_REFUSED"),
        ("alias", {"expected": "db3.herd.test"}, "DNS_RECORD_CHANGED"),
    ],
    ids=["wrong key", "key without permission", "changed record"],
)
def test_check_mode_fails_where_the_run_fails(
    bind: Bind, player: Player, record: str, change: dict[str, Any], code: str, options: list[str]
) -> None:
    bind.admin_set("herd.test", "alias", "CNAME", "db1.herd.test.")
    serial = bind.serial()
    result = player.run({**bind.params(record=f"{record}.herd.test", value="db2.herd.test"), **change}, *options)
    assert (result["failed"], result["code"]) == (True, code)
    assert result["next_step"]
    assert bind.serial() == serial


def test_key_from_the_environment_stays_unseen(bind: Bind, player: Player) -> None:
    bind.admin_set("herd.test", "alias", "CNAME", "db1.herd.test.")
    environment = {
        "ELEPHAAS_DNS_SERVER": f"127.0.0.3,{PRIMARY}",
        "ELEPHAAS_DNS_KEY_NAME": "operator",
        "ELEPHAAS_DNS_KEY_ALGORITHM": "hmac-sha256",
        "ELEPHAAS_DNS_KEY_SECRET": SECRETS["operator"],
    }
    arguments = {"record": "alias.herd.test", "value": "db2.herd.test", "port": bind.port}
    result = player.run(arguments, **environment)
    assert result["changed"] is True
    assert result["update_server"] == PRIMARY
    # A key whose secret is no base64 must not come out with the error.
    broken = player.run(arguments, **{**environment, "ELEPHAAS_DNS_KEY_SECRET": "not*base64*at*all"})
    assert broken["code"] == "DNS_KEY_INVALID"
    assert "not*base64" not in player.output


def test_key_from_a_file_stays_unseen(bind: Bind, player: Player, tmp_path: Path) -> None:
    bind.admin_set("herd.test", "alias", "CNAME", "db1.herd.test.")
    path = tmp_path / "herd.key"
    path.write_text(f'key "operator" {{ algorithm hmac-sha256; secret "{SECRETS["operator"]}"; }};\n')
    path.chmod(0o644)
    arguments = {"server": PRIMARY, "port": bind.port, "key_file": str(path), "value": "db2.herd.test"}
    result = player.run({**arguments, "record": "alias.herd.test"})
    assert result["changed"] is True
    assert any("can be read by everybody" in warning for warning in result["warnings"])
    path.write_text(f'key "operator" {{ algorithm hmac-sha256; secret "{SECRETS["operator"]}"; ')
    assert player.run({**arguments, "record": "alias.herd.test"})["code"] == "DNS_KEY_INVALID"


def test_a_change_that_is_not_everywhere_is_told_as_changed(bind: Bind, player: Player) -> None:
    bind.admin_set("slow.test", "alias", "CNAME", "db1.slow.test.")
    bind.admin_set("slow.test", "alias", "CNAME", "db3.slow.test.")
    result = player.run(bind.params(record="alias.slow.test", value="db2.slow.test", wait_s=0.2))
    assert (result["failed"], result["code"], result["changed"]) == (True, "DNS_READBACK", True)
    assert [each["server"] for each in result["servers"]] == ["ns1.slow.test", "ns2.slow.test"]


def test_the_vhost_of_a_herd_needs_its_operation(bind: Bind, player: Player) -> None:
    bind.admin_set("herd.test", "alias", "CNAME", "db1.herd.test.")
    arguments = bind.params(record="alias.herd.test", value="db2.herd.test", herd="trading", environment="prod")
    assert player.run(arguments)["code"] == "TOKEN_MISSING"
    # No registry answers there, and nothing says that it is lost.
    password = "registry-pass-0123"
    nowhere = {"registry": {"dsn": f"host=127.0.0.3 port=1 user=me password={password} connect_timeout=2"}}
    refused = player.run({**arguments, "token": 7, **nowhere})
    assert refused["code"] == "REGISTRY_UNREACHABLE"
    assert password not in player.output + json.dumps(refused)
    assert player.run({**arguments, "token": 7, "registry": {"hots": "x"}})["code"] == "BAD_ARGUMENTS"
    assert bind.values("alias.herd.test", "CNAME") == ["db1.herd.test."]
    lost = player.run({**arguments, "token": 7, "without_registry": True})
    assert lost["changed"] is True
    assert "not checked" in lost["notes"][0]
    # A run that holds the herd on its members' hosts may say that the registry counts no more.
    meanwhile = player.run({**arguments, "token": 7, **nowhere, "value": "db1.herd.test", "registry_may_be_lost": True})
    assert meanwhile["changed"] is True and "not checked" in meanwhile["notes"][0]
    assert password not in player.output + json.dumps(meanwhile)


@pytest.fixture
def registry() -> Iterator[Server]:
    """A registry that holds the herd trading_prod."""
    directory = Path(tempfile.mkdtemp(prefix="registry"))  # short, for the socket's path
    server = Server(directory)
    try:
        server.start()
        try:
            connection = connect(server.options())
            schema.apply_migrations(connection, "utility")
            load_fleet(connection, "utility", fleets.parse_fleet(FLEET), "merged")
            connection.close()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory)


def test_only_the_current_operation_of_the_herd_may_repoint(bind: Bind, player: Player, registry: Server) -> None:
    bind.admin_set("herd.test", "alias", "CNAME", "db1.herd.test.")
    connection = connect(registry.options())
    herd = {"herd": "trading", "environment": "prod"}
    request = {
        **herd,
        "verb": "failover",
        "plan_id": "p00000001",
        "operator": "ann",
        "holder": this_holder(os.getpid()),
    }
    request |= {"from_server": "chi-db1", "to_server": "nyc-db1"}
    stale, current = (operations.begin(connection, "utility", request)["operation"]["token"] for _twice in range(2))
    arguments = bind.params(record="alias.herd.test", value="db2.herd.test", registry=registry.options(), **herd)
    for options in ([], ["--check"]):
        assert player.run({**arguments, "token": stale}, *options)["code"] == "TOKEN_STALE"
    assert bind.values("alias.herd.test", "CNAME") == ["db1.herd.test."]
    assert player.run({**arguments, "token": current})["changed"] is True
    operations.finish(connection, "utility", {**herd, "token": current, "outcome": "aborted"})
    assert player.run({**arguments, "token": current})["code"] == "OPERATION_CLOSED"
    connection.close()
