# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs that the lab runs: where they are, and which Debian package a missing one comes from."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .errors import LabError

# Root's usual directories: a caller's PATH often lacks the sbin ones.
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PACKAGES = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "pivot_root": "util-linux",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "named": "bind9",
    "dig": "bind9-dnsutils",
    "rsync": "rsync",
}


def require(debian_layout: bool) -> None:
    """Refuse to start on a machine that lacks something, naming every package at once."""
    missing = {package for program, package in _PACKAGES.items() if not shutil.which(program, path=SEARCH)}
    if not _postgres_directories():
        missing.add("postgresql")
    if debian_layout and not shutil.which("pg_ctlcluster", path=SEARCH):
        missing.add("postgresql-common")
    if missing:
        raise LabError(f"these Debian packages are missing: {' '.join(sorted(missing))} (apt-get install them)")


def path_of(program: str) -> str:
    """The absolute path of a program."""
    found = shutil.which(program, path=SEARCH)
    if found is None:
        raise LabError(f"{program} is missing; it is in the Debian package {_PACKAGES.get(program, program)}")
    return found


def _postgres_directories() -> list[Path]:
    found = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()]
    return sorted(found, key=lambda path: float(path.parent.name))


def postgres() -> tuple[str, Path]:
    """Major version and program directory of the newest PostgreSQL on this machine."""
    found = _postgres_directories()
    if not found:
        raise LabError("PostgreSQL is missing; it is in the Debian package postgresql")
    return found[-1].parent.name, found[-1]


def run(argv: Sequence[str], text: str = "", timeout: float = 120.0) -> str:
    """Run a program to its end and return what it printed; a failure becomes an error with what it said."""
    try:
        done = subprocess.run(
            argv, input=text, capture_output=True, text=True, timeout=timeout, check=False, errors="replace"
        )
    except FileNotFoundError:
        raise LabError(f"{argv[0]} is missing") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"no end after {timeout:g} s: {' '.join(argv)}") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise LabError(f"{' '.join(argv)} failed ({done.returncode}): {said}")
    return done.stdout
