# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private account files: the machine's own accounts, plus those that a host of the lab needs, with sshd let in.

The machine's /etc/passwd, /etc/group and /etc/shadow are only read.
"""

from __future__ import annotations

from pathlib import Path

from .state import State

FILES = ("passwd", "group", "shadow")
# Accounts of the Debian packages, in case the lab's copy is made before a package added its own.
_SYSTEM = {"postgres": "/var/lib/postgresql", "bind": "/var/cache/bind", "sshd": "/run/sshd"}
_FIRST_FREE_ID = 61000


def write(state: State, ssh_users: set[str], owners: set[str]) -> None:
    """Write the files for accounts that are reached by ssh and for those that own a PostgreSQL."""
    passwd = _read("passwd")
    group = _read("group")
    shadow = _read("shadow")
    logins = {"root"} | ssh_users | owners
    for number, name in enumerate(sorted(logins | set(_SYSTEM)), start=_FIRST_FREE_ID):
        if name not in passwd:
            home = _SYSTEM.get(name, f"/home/{name}")
            shell = "/bin/bash" if name in logins else "/usr/sbin/nologin"
            passwd[name] = [name, "x", str(number), str(number), "", home, shell]
            group.setdefault(name, [name, "x", str(number), ""])
        if name not in shadow:
            shadow[name] = [name, "*", "19000", "0", "99999", "7", "", "", ""]
        if name in logins:
            # sshd refuses a locked account ("!") even with a key, when it does not use PAM.
            shadow[name][1] = "*"
            if passwd[name][6].endswith(("nologin", "false")):
                passwd[name][6] = "/bin/bash"
    # Debian's directories for sockets and logs are the group's, so that clusters of other accounts work as well.
    members = {name for name in group["postgres"][3].split(",") if name} | (owners - {"postgres"})
    group["postgres"][3] = ",".join(sorted(members))
    for file, entries in (("passwd", passwd), ("group", group), ("shadow", shadow)):
        path = state.accounts / file
        path.touch(mode=0o600)
        path.write_text("".join(":".join(fields) + "\n" for fields in entries.values()), encoding="utf-8")
        path.chmod(0o640 if file == "shadow" else 0o644)


def _read(file: str) -> dict[str, list[str]]:
    entries = {}
    for line in Path("/etc", file).read_text(encoding="utf-8").splitlines():
        fields = line.split(":")
        if fields[0]:
            entries[fields[0]] = fields
    return entries


def identity(state: State, name: str) -> tuple[int, int, str]:
    """User id, group id and home directory of an account in the lab."""
    for line in (state.accounts / "passwd").read_text(encoding="utf-8").splitlines():
        fields = line.split(":")
        if fields[0] == name:
            return int(fields[2]), int(fields[3]), fields[5]
    raise KeyError(name)
