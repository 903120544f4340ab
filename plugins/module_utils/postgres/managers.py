# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who else acts on an instance: failover managers, and what starts it by itself. Private to the collection.

Two that decide about one herd end in two primaries. A manager is tied to an instance by the data directory that its
command line, its environment or its configuration names; where none of them can be read, it is only seen on the host.
"""

from __future__ import annotations

import os
import re
from typing import Any, Mapping, Sequence

from ansible_collections.elephaas.herd.plugins.module_utils.postgres.command import run

#: Programs that promote, restart or demote by themselves. The last ones keep their configuration where only root reads.
MANAGERS = ("patroni", "repmgrd", "pg_autoctl", "stolon-keeper", "pacemakerd", "corosync", "heartbeat")

# Left in the data directory by Patroni, and written anew by it for as long as it manages the instance.
_PATRONI_FILE = "patroni.dynamic.json"
_REPMGR_FILES = ("/etc/repmgr.conf", "/etc/repmgr/repmgr.conf")
# Patroni's YAML says data_dir: …, repmgr's file says data_directory = '…'.
_DIRECTORY = re.compile(r"^[ \t]*data_dir(?:ectory)?[ \t]*[:=][ \t]*['\"]?([^'\"#\n]+)", re.MULTILINE)
_LARGEST_FILE = 1024 * 1024
_UNIT = re.compile(r"/([^/\n]+\.service)$", re.MULTILINE)
_SYSTEMCTL_S = 3.0


def find_managers(data_directory: str) -> list[dict[str, Any]]:
    """Managers of this data directory, and those of which nobody can tell what they manage.

    Each: name, pid (None: only its file is there), certain (it is this instance's), evidence (in words).
    """
    found = []
    if os.path.exists(os.path.join(data_directory, _PATRONI_FILE)):
        found.append(_manager("patroni", None, True, f"{_PATRONI_FILE} is in its data directory"))
    for pid in sorted(int(name) for name in _listed("/proc") if name.isdigit()):
        argv = _words(f"/proc/{pid}/cmdline")
        program = _program(argv)
        if program is None:
            continue
        named = _directories(program, argv, _environment(pid))
        if any(os.path.realpath(path) == os.path.realpath(data_directory) for path in named):
            found.append(_manager(program, pid, True, f"process {pid} ({program}) is configured for it"))
        elif not named:
            found.append(_manager(program, pid, False, f"process {pid} ({program}) runs on its host"))
    return found


def find_autostart(debian_cluster: Sequence[str] | None, postmaster_pid: int | None) -> list[str]:
    """What would start the instance without being asked, in words."""
    found = []
    if debian_cluster:
        path = f"/etc/postgresql/{debian_cluster[0]}/{debian_cluster[1]}/start.conf"
        words = [line.split("#")[0].strip() for line in _text(path).splitlines()]
        # What pg_ctlcluster takes it for when the file is missing or empty.
        if (next((word for word in words if word), "auto")) == "auto":
            found.append(f"{path} says auto")
    if postmaster_pid:
        units = _UNIT.findall(_text(f"/proc/{postmaster_pid}/cgroup"))
        found += _started_by(units[0], postmaster_pid) if units else []
    return found


def _started_by(unit: str, postmaster_pid: int) -> list[str]:
    argv = ["systemctl", "show", unit, "-p", "MainPID", "-p", "Restart", "-p", "UnitFileState"]
    try:
        done = run(argv, _SYSTEMCTL_S)
    except OSError:
        return []
    shown = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    # Started by hand, it is in the unit of whatever it was started from, which is none of its own.
    if shown.get("MainPID") != str(postmaster_pid):
        return []
    found = []
    if shown.get("UnitFileState", "").startswith("enabled"):
        found.append(f"{unit} is enabled at boot")
    if shown.get("Restart", "no") not in ("", "no"):
        found.append(f"{unit} has Restart={shown['Restart']}")
    return found


def _manager(name: str, pid: int | None, certain: bool, evidence: str) -> dict[str, Any]:
    return {"name": name, "pid": pid, "certain": certain, "evidence": evidence}


def _program(argv: Sequence[str]) -> str | None:
    """Which of MANAGERS this command line runs: directly, or as a script of a Python that it names first."""
    names = [os.path.basename(word) for word in argv]
    if names and names[0].startswith("python"):
        names = [name for name, word in zip(names[1:], argv[1:]) if not word.startswith("-")]
    return names[0] if names and names[0] in MANAGERS else None


def _directories(program: str, argv: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The data directories that it says it manages; none when it does not say, or may not be asked."""
    if program == "patroni":
        files = [word for word in argv[1:] if word.endswith((".yml", ".yaml"))]
        said = [environment.get("PATRONI_POSTGRESQL_DATA_DIR")]
    elif program == "repmgrd":
        given = _option(argv, "-f", "--config-file")
        files, said = [given] if given else list(_REPMGR_FILES), []
    elif program == "pg_autoctl":
        files, said = [], [_option(argv, "-D", "--pgdata") or environment.get("PGDATA")]
    elif program == "stolon-keeper":
        above = _option(argv, "--data-dir") or environment.get("STKEEPER_DATA_DIR")
        files, said = [], [os.path.join(above, "postgres") if above else None]
    else:
        return []
    named = [found.strip() for path in files for found in _DIRECTORY.findall(_text(path))]
    return [path for path in named + [path for path in said if path] if path.startswith("/")]


def _option(argv: Sequence[str], *names: str) -> str | None:
    for place, word in enumerate(argv):
        if word in names and place + 1 < len(argv):
            return argv[place + 1]
        name, equals, value = word.partition("=")
        if equals and name in names:
            return value
    return None


def _environment(pid: int) -> dict[str, str]:
    # That of another account's process cannot be read: it then says nothing.
    return {word.partition("=")[0]: word.partition("=")[2] for word in _words(f"/proc/{pid}/environ")}


def _words(path: str) -> list[str]:
    return [word for word in _text(path).split("\0") if word]


def _listed(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(_LARGEST_FILE)
    except OSError:
        return ""
