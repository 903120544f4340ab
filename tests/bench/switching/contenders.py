# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who switches: what each needs beforehand, the command that is timed, and what it leaves to be done."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

from .herd import DATA, HERD, PORT, PROGRAMS, SERVERS, SIBLING, Herd

REPMGR_CONF = "/var/lib/postgresql/repmgr.conf"
# The whole floor.
SCRIPT = """\
set -eu
ssh -F {ssh_config} -l postgres {old} '{programs}/pg_ctl stop -D {data} -m fast -w -s'
ssh -F {ssh_config} -l postgres {new} '{programs}/pg_ctl promote -D {data} -w -s'
nsupdate -k {key} {update}
"""


class Contender:
    """One way to make *new* the primary in the place of *old*."""

    def __init__(self, herd: Herd) -> None:
        self._herd = herd

    def prepare(self, old: str, new: str) -> None:
        """What has to be there before; not timed."""

    def writers(self, old: str, new: str) -> list[str]:
        """Options for the writers; by default they go through the vhost."""
        return []

    def command(self, old: str, new: str) -> list[str]:
        """What is timed, on the controller's side."""
        raise NotImplementedError

    def finish(self, old: str, new: str) -> None:
        """What it leaves to be done; not timed."""


class Playbook(Contender):
    """Ours."""

    def prepare(self, old: str, new: str) -> None:
        """Have the registry know what the others did."""
        done = self._herd.lab.playbook("status")
        if f"{HERD}@{old}" not in self._herd.lab.run("ansible-inventory", "--graph", "primaries").stdout:
            sys.exit(f"the registry does not know the primary {old}:\n{done.stdout}")

    def command(self, old: str, new: str) -> list[str]:
        """What an operator types."""
        return [
            *("ansible-playbook", "elephaas.herd.failover", "--limit", HERD),
            *("-e", f"candidate={new}", "-e", "confirm=yes"),
        ]


class Script(Contender):
    """The floor."""

    def command(self, old: str, new: str) -> list[str]:
        """Stop, promote, DNS."""
        folder = self._herd.controller
        text = SCRIPT.format(
            ssh_config=folder / "ssh_config",
            old=SERVERS[old],
            new=SERVERS[new],
            programs=PROGRAMS,
            data=DATA,
            key=folder / "tsig.key",
            update=self._herd.update(new),
        )
        return ["bash", "-c", text]

    def finish(self, old: str, new: str) -> None:
        """Start the old primary as a replica."""
        self._herd.put(
            old, f"{DATA}/postgresql.auto.conf", f"primary_conninfo = 'host={SERVERS[new]} user=replicator'\n"
        )
        self._herd.put(old, f"{DATA}/standby.signal", "")
        self._herd.on(old, PROGRAMS / "pg_ctl", "start", "-D", DATA, "-w", "-s", "-l", "/dev/null")


class Repmgr(Contender):
    """The peer."""

    def __init__(self, herd: Herd) -> None:
        super().__init__(herd)
        self._ready = False

    def _repmgr(self, server: str, *words: str) -> None:
        self._herd.on(server, PROGRAMS / "repmgr", "-f", REPMGR_CONF, *words)

    def _install(self, primary: str) -> None:
        """Its configuration, its database, and ssh from each member to each, as it needs them."""
        key = self._herd.place / "members_key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, stdin=subprocess.DEVNULL)
        public = key.with_suffix(".pub").read_text(encoding="utf-8")
        known = (self._herd.controller / "known_hosts").read_text(encoding="utf-8")
        access = "".join(f"host all,replication repmgr {address}/32 trust\n" for address in SERVERS.values())
        for number, (server, address) in enumerate(SERVERS.items(), start=1):
            self._herd.put(server, "~postgres/.ssh/id_ed25519", key.read_text(encoding="utf-8"))
            self._herd.put(server, "~postgres/.ssh/known_hosts", known)
            self._herd.put(server, "/run/herdlab/authorized_keys", public, user="root")
            self._herd.put(server, f"{DATA}/pg_hba.conf", access)
            self._herd.sql(server, "SELECT pg_reload_conf()")
            settings = {
                "node_id": number,
                "node_name": server,
                "conninfo": f"host={address} port={PORT} user=repmgr dbname=repmgr connect_timeout=2",
                "data_directory": DATA,
                "pg_bindir": PROGRAMS,
                "replication_user": "repmgr",
            }
            text = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
            self._herd.put(server, REPMGR_CONF, text)
        self._herd.sql(primary, "CREATE ROLE repmgr SUPERUSER REPLICATION LOGIN; CREATE DATABASE repmgr OWNER repmgr")

    def prepare(self, old: str, new: str) -> None:
        """Have its records say what the others did."""
        if not self._ready:
            self._install(old)
            self._ready = True
        self._repmgr(old, "primary", "register", "--force")
        number = list(SERVERS).index(old) + 1
        for server in (new, SIBLING):
            self._herd.wait_for_replicas(old)
            self._repmgr(server, "standby", "register", "--force", f"--upstream-node-id={number}")
        self._herd.wait_for_replicas(old)

    def writers(self, old: str, new: str) -> list[str]:
        """Past DNS, which it leaves alone; the candidate first, which is where they are to find a primary."""
        return ["--servers", ",".join((new, old, SIBLING))]

    def command(self, old: str, new: str) -> list[str]:
        """On the candidate."""
        repmgr = f"{PROGRAMS}/repmgr -f {REPMGR_CONF} standby switchover --siblings-follow"
        return ["ssh", "-F", str(self._herd.controller / "ssh_config"), "-l", "postgres", SERVERS[new], repmgr]

    def finish(self, old: str, new: str) -> None:
        """The vhost."""
        self._herd.lead_vhost_to(new)


CONTENDERS: Mapping[str, type[Contender]] = {"playbook": Playbook, "script": Script, "repmgr": Repmgr}
