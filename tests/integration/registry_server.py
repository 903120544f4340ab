# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real PostgreSQL server for one registry or many, which tests and measurements start and stop."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import connect


def server_program(name: str) -> str:
    """The path of one of the newest PostgreSQL's own programs."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4]))
    program = str(found[-1]) if found else shutil.which(name)
    assert program, f"{name} is not installed"
    return program


class Server:
    """A throw-away cluster, reached through its socket directory only."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self._count = itertools.count()

    def run(self, *argv: str) -> None:
        """Run a program as the account that owns the cluster."""
        subprocess.run(
            argv,
            check=True,
            user=self.user if os.geteuid() == 0 else None,
            cwd="/",
            stdout=subprocess.DEVNULL,
            timeout=60,
        )

    def start(self) -> None:
        """Make the cluster and start it."""
        if os.geteuid() == 0:
            shutil.chown(self.directory, self.user)
        data, log = str(self.directory / "data"), str(self.directory / "log")
        self.run(server_program("initdb"), "-N", "-A", "trust", "-U", "postgres", "-D", data)
        options = f"-k {self.directory} -p 5432 -c listen_addresses='' -c fsync=off -c shared_buffers=16MB"
        self.run(server_program("pg_ctl"), "-w", "-D", data, "-l", log, "-o", options, "start")

    def stop(self) -> None:
        """Stop it as a power cut would."""
        self.run(server_program("pg_ctl"), "-w", "-m", "immediate", "-D", str(self.directory / "data"), "stop")

    def options(self, database: str = "postgres", user: str = "postgres") -> dict[str, Any]:
        """The registry options that lead to one of its databases."""
        return {"host": [str(self.directory)], "port": [5432], "user": user, "dbname": database}

    def sql(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run SQL as the superuser; the rows of the last statement."""
        connection = connect(self.options(database))
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def new_database(self, template: str = "template1") -> str:
        """The name of a new database, a copy of that one."""
        name = f"registry{next(self._count)}"
        self.sql(f'CREATE DATABASE {name} TEMPLATE "{template}"')
        return name


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    """A server that is up inside the block, and gone with all its files after it."""
    # Short: a socket's path may have 107 bytes only.
    directory = Path(tempfile.mkdtemp(prefix="registry"))
    server = Server(directory)
    try:
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory)
