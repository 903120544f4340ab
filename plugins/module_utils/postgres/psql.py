# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SQL through psql over the local socket, for machines: one-shot, or one session kept open.

Private to the collection.
"""

from __future__ import annotations

import os
import select
import subprocess
import time

from ansible_collections.elephaas.herd.plugins.module_utils.postgres.command import clean_environment, run

# A line that no statement of ours prints; it ends each answer of a session.
_END = "=elephaas=end=of=answer="
DATABASE = "postgres"


class SqlError(Exception):
    """The server (or psql) refused; the text is its message. `timed_out`: no answer within the time."""

    def __init__(self, message: str, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class Address:
    """How to reach one server over its local socket."""

    def __init__(self, psql: str, socket_directory: str, port: int, application: str = "elephaas") -> None:
        self.psql = psql
        self.socket_directory = socket_directory
        self.port = port
        self.application = application

    def argv(self) -> list[str]:
        """psql without start-up file, machine-readable, ending at the first error; SQL comes on standard input."""
        return [
            self.psql, "-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-P", "pager=off", "-P", "null=",
            "-h", self.socket_directory, "-p", str(self.port), "-d", DATABASE,
        ]  # fmt: skip

    def environment(self, timeout: float) -> dict[str, str]:
        """libpq's settings for a call that must end within `timeout` seconds."""
        return {
            "PGAPPNAME": self.application,
            "PGCLIENTENCODING": "UTF8",
            "PGCONNECT_TIMEOUT": str(max(2, int(timeout))),
            # A second line of defence: a server that answers at all also ends what we no longer wait for.
            "PGOPTIONS": f"-c statement_timeout={int(timeout * 1000)} -c lock_timeout={int(timeout * 1000)}",
        }


def literal(value: str) -> str:
    """A string constant for SQL, whatever the server's standard_conforming_strings says ("String Constants")."""
    return " E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def query(address: Address, sql: str, timeout: float) -> str:
    """Run `sql` (one or more statements, each ended by ;) and return what it prints. Raises SqlError.

    The time limit is the client's: a server that is frozen, or that waits for a synchronous standby, does not
    end a statement at statement_timeout.
    """
    try:
        done = run(address.argv(), timeout + 0.5, address.environment(timeout), sql)
    except OSError as error:
        raise SqlError(f"{address.psql} cannot be run: {error.strerror}") from error
    if done.timed_out:
        raise SqlError(f"no answer from the server within {timeout:g} s", timed_out=True)
    if done.status != 0:
        raise SqlError(_message(done.stderr))
    return done.stdout.strip("\n")


def begin(address: Address, sql: str, limit_s: float = 3600.0) -> None:
    """Start `sql` and do not wait for its end, which is of no consequence. It outlives the caller. Raises SqlError.

    limit_s: after that the server gives it up.
    """
    try:
        process = subprocess.Popen(
            address.argv(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=clean_environment(address.environment(limit_s)),
            # The end of our connection must not reach it.
            start_new_session=True,
        )
        if process.stdin:
            with process.stdin as pipe:
                pipe.write(sql.encode("utf-8"))
    except OSError as error:
        raise SqlError(f"{address.psql} cannot be run: {error.strerror}") from error


def _message(stderr: str) -> str:
    text = " ".join(line.strip() for line in stderr.splitlines() if line.strip())
    return text.replace("psql: error: ", "").replace("psql:<stdin>:", "line ") or "psql ended without a message"


class Session:
    """One psql that stays open: a question costs no process and no connection. Not safe for threads.

    Any error ends it (ON_ERROR_STOP): the caller opens a new one. Imports nothing after construction.
    """

    def __init__(self, address: Address, timeout: float) -> None:
        environment = clean_environment(address.environment(timeout))
        # No statement_timeout: each question brings its own limit. Notices would mix with the answers.
        environment["PGOPTIONS"] = "-c client_min_messages=error"
        try:
            self._process = subprocess.Popen(
                address.argv(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                env=environment, cwd="/", bufsize=0,
            )  # fmt: skip
        except OSError as error:
            raise SqlError(f"{address.psql} cannot be run: {error.strerror}") from error
        self._input = self._process.stdin.fileno() if self._process.stdin else -1
        self._output = self._process.stdout.fileno() if self._process.stdout else -1
        try:
            self.ask("SELECT 1;", timeout)
        except SqlError:
            self.close()
            raise

    def ask(self, sql: str, timeout: float) -> str:
        """Run `sql`; return what it prints. Raises SqlError; the session is then closed."""
        deadline = time.monotonic() + timeout
        try:
            os.write(self._input, f"{sql}\n\\echo {_END}\n".encode())
        except OSError:
            # psql has gone; why stands in what it printed before.
            pass
        received = b""
        marker = _END.encode() + b"\n"
        while not received.endswith(marker):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._output], [], [], left)[0]:
                self.close()
                raise SqlError(f"no answer from the server within {timeout:g} s", timed_out=True)
            piece = os.read(self._output, 65536)
            if not piece:
                self.close()
                raise SqlError(_message(received.decode("utf-8", "replace")))
            received += piece
        return received[: -len(marker)].decode("utf-8", "replace").strip("\n")

    def close(self) -> None:
        """End psql, and with it the server's backend."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()
