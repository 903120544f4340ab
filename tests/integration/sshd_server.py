# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An sshd of our own on loopback, for tests of the way in."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path


def make_key(path: Path) -> str:
    """A new key pair; its public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


@contextlib.contextmanager
def running_sshd(place: Path) -> Iterator[int]:
    """An sshd that takes the key place/key; its port.

    In the folder: key and other_key; known and changed, which are known_hosts with its host key and with another.
    """
    program = shutil.which("sshd") or "/usr/sbin/sshd"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    host_key = make_key(place / "host_key")
    other_key = make_key(place / "other_key")
    (place / "allowed").write_text(make_key(place / "key") + "\n")
    (place / "known").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    (place / "changed").write_text(f"[127.0.0.1]:{port} {other_key}\n")
    (place / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {place}/host_key\nAuthorizedKeysFile {place}/allowed\n"
        "StrictModes no\nUsePAM no\nPidFile none\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd of root drops its rights
    server = subprocess.Popen([program, "-D", "-f", str(place / "sshd_config")], stderr=subprocess.DEVNULL)
    try:
        for _attempt in range(100):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait()
