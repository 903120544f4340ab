# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where things are on this host: programs, configuration, sockets, Debian's cluster names.

Private to the collection.
"""

from __future__ import annotations

import glob
import os
from typing import NamedTuple

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.pidfile import Postmaster
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.settings import Unreadable, read_settings
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.target import Target

PROGRAMS = ("psql", "pg_ctl", "pg_controldata", "pg_waldump")

# Debian and Ubuntu, the PostgreSQL project's RPMs, and a build from source.
_BIN_DIRECTORIES = ("/usr/lib/postgresql/{major}/bin", "/usr/pgsql-{major}/bin", "/usr/local/pgsql/bin")
# Debian's and upstream's built-in unix_socket_directories.
_SOCKET_DIRECTORIES = ("/var/run/postgresql", "/tmp")  # noqa: S108


class Layout(NamedTuple):
    """What was found. `debian_cluster`: (version, name) of postgresql-common, when it manages this directory."""

    bin_directory: str
    config_file: str
    debian_cluster: tuple[str, str] | None
    control_method: str
    socket_directory: str | None
    major: int

    def program(self, name: str) -> str:
        """Absolute path of one of PostgreSQL's programs, of the instance's own version."""
        return os.path.join(self.bin_directory, name)


def find_layout(target: Target, postmaster: Postmaster | None) -> Layout:
    """Look it all up. Raises OperatorError NO_DATA_DIRECTORY, NO_PROGRAMS."""
    major = _major(target.data_directory)
    debian = _debian_cluster(target.data_directory)
    config_file = os.path.join(target.data_directory, "postgresql.conf")
    if debian:
        config_file = f"/etc/postgresql/{debian[0]}/{debian[1]}/postgresql.conf"
    method = target.control
    if method == "auto":
        method = "pg_ctlcluster" if debian and _on_path("pg_ctlcluster") else "pg_ctl"
    elif method == "pg_ctlcluster" and not debian:
        raise OperatorError(
            "NO_DEBIAN_CLUSTER",
            f"control=pg_ctlcluster, but no configuration in /etc/postgresql names {target.data_directory}.",
            "Use control=auto or control=pg_ctl.",
        )
    return Layout(
        bin_directory=_bin_directory(target, postmaster, major),
        config_file=config_file,
        debian_cluster=debian,
        control_method=method,
        socket_directory=_socket_directory(target, postmaster, config_file),
        major=major,
    )


def _major(data_directory: str) -> int:
    path = os.path.join(data_directory, "PG_VERSION")
    try:
        with open(path, encoding="ascii") as stream:
            return int(stream.read().strip())
    except (OSError, ValueError) as error:
        raise OperatorError(
            "NO_DATA_DIRECTORY",
            f"{data_directory} is not a PostgreSQL data directory: {path} cannot be read.",
            "Check data_directory, and that os_user may read it.",
        ) from error


def _debian_cluster(data_directory: str) -> tuple[str, str] | None:
    for config in sorted(glob.glob("/etc/postgresql/*/*/postgresql.conf")):
        parts = config.split("/")
        try:
            with open(config, encoding="utf-8", errors="surrogateescape") as stream:
                candidates = [line for line in stream if line.lstrip().startswith("data_directory")]
        except OSError:
            continue
        for line in candidates:
            value = line.partition("=")[2].partition("#")[0].strip().strip("'").replace("''", "'")
            if value and os.path.realpath(value) == os.path.realpath(data_directory):
                return parts[3], parts[4]
    return None


def _bin_directory(target: Target, postmaster: Postmaster | None, major: int) -> str:
    if target.bin_directory:
        candidates = [target.bin_directory]
    else:
        candidates = [pattern.format(major=major) for pattern in _BIN_DIRECTORIES]
        if postmaster:
            try:
                # The programs that belong to the server that runs; a package upgrade leaves " (deleted)" behind.
                running = os.readlink(f"/proc/{postmaster.pid}/exe").split(" (deleted)")[0]
                candidates.insert(0, os.path.dirname(running))
            except OSError:
                pass
    for candidate in candidates:
        if os.access(os.path.join(candidate, "pg_controldata"), os.X_OK):
            return candidate
    if not target.bin_directory:
        on_path = _on_path("pg_controldata")
        if on_path:
            return os.path.dirname(os.path.realpath(on_path))
    raise OperatorError(
        "NO_PROGRAMS",
        f"No pg_controldata for PostgreSQL {major} in: {', '.join(candidates)}.",
        "Install PostgreSQL's server programs, or set bin_directory.",
    )


def _on_path(program: str) -> str | None:
    import shutil  # slow to import, and hardly ever needed

    return shutil.which(program)


def _socket_directory(target: Target, postmaster: Postmaster | None, config_file: str) -> str | None:
    if target.socket_directory:
        return target.socket_directory
    if postmaster and postmaster.socket_directory:
        return postmaster.socket_directory
    try:
        configured = read_settings(config_file, target.data_directory)["unix_socket_directories"]
    except Unreadable:
        configured = None
    candidates = (
        [item.strip().strip('"') for item in configured.split(",")] if configured else list(_SOCKET_DIRECTORIES)
    )
    return next((item for item in candidates if item and os.path.isdir(item)), None)
