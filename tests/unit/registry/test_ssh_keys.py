# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which public keys a person is told to install: those that ssh would come with."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader

from ansible_collections.elephaas.herd.plugins.plugin_utils.connect import Target
from ansible_collections.elephaas.herd.plugins.plugin_utils.ssh_check import Login
from ansible_collections.elephaas.herd.plugins.plugin_utils.ssh_keys import SshSettings, ssh_settings


def make_key(path: Path, passphrase: str = "") -> str:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", path.name, "-f", str(path)], check=True
    )
    return path.with_suffix(".pub").read_text().strip()


def settings(place: Path, config: str, agent: str = "none", **options: str) -> SshSettings:
    (place / "config").write_text(f"IdentityAgent {agent}\n" + config)
    connection_loader.get("ssh", class_only=True)
    target = Target("ssh", {"ansible_ssh_common_args": f"-F {place}/config", **options}, {})
    return ssh_settings(target, PlayContext(), Login("192.0.2.1", 2222, "postgres"))


def test_keys_come_in_the_order_in_which_ssh_tries_them(tmp_path: Path) -> None:
    one, two = make_key(tmp_path / "one"), make_key(tmp_path / "two")
    found = settings(
        tmp_path,
        f"IdentityFile {tmp_path}/two\nUserKnownHostsFile {tmp_path}/known\n",
        ansible_ssh_private_key_file=str(tmp_path / "one"),
    )
    assert found == SshSettings([one, two], f"{tmp_path}/known")


def test_a_public_half_is_made_from_the_key_where_that_asks_nobody(tmp_path: Path) -> None:
    bare, locked = make_key(tmp_path / "bare"), make_key(tmp_path / "locked", "secret words")
    (tmp_path / "bare.pub").unlink()
    (tmp_path / "locked.pub").unlink()
    found = settings(tmp_path, f"IdentityFile {tmp_path}/locked\nIdentityFile {tmp_path}/bare\n")
    assert [line.split()[1] for line in found.public_keys] == [bare.split()[1]]
    assert locked.split()[1] not in str(found)


def test_what_is_no_public_key_is_not_shown(tmp_path: Path) -> None:
    make_key(tmp_path / "key")
    (tmp_path / "key.pub").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n")
    assert settings(tmp_path, f"IdentityFile {tmp_path}/key\n").public_keys == []


def test_the_agents_keys_count_unless_ssh_is_told_not_to(tmp_path: Path) -> None:
    held = make_key(tmp_path / "held")
    socket = str(tmp_path / "agent")
    # It goes to the background once it listens.
    said = subprocess.run(["ssh-agent", "-s", "-a", socket], check=True, capture_output=True, text=True).stdout
    try:
        subprocess.run(
            ["ssh-add", "-q", str(tmp_path / "held")], env={**os.environ, "SSH_AUTH_SOCK": socket}, check=True
        )
        config = f"IdentityFile {tmp_path}/none\n"
        assert settings(tmp_path, config, agent=socket).public_keys == [held]
        assert settings(tmp_path, config + "IdentitiesOnly yes\n", agent=socket).public_keys == []
        assert settings(tmp_path, config).public_keys == []
    finally:
        os.kill(int(said.partition("SSH_AGENT_PID=")[2].partition(";")[0]), signal.SIGTERM)
