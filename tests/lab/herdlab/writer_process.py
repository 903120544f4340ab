# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The application of a herd: commits numbered rows through the herd's vhost and notes what was acknowledged.

It looks the vhost up at each reconnect, itself, and keeps an answer for at most --dns-cache seconds and never longer
than its TTL: so the gap it sees is the servers' own. Given --server addresses, it looks for the one of them that
accepts writes instead, as libpq does with several hosts and target_session_attrs. Its records, one a line:

    connection ID MONOTONIC ADDRESS TIMELINE     a connection to a server that accepts writes
    ack N MONOTONIC WALL ID                      row N was committed over that connection
    stop MONOTONIC                               asked to end
"""

from __future__ import annotations

import argparse
import itertools
import select
import signal
import sys
import threading
import time
from typing import IO, Any

import dns.exception
import dns.resolver
import psycopg2
import psycopg2.extensions

# Client-side, for every step of a connection and every statement: a frozen server never answers, nor times out.
PATIENCE = 1.0
RETRY = 0.02
CREATE = (
    "CREATE TABLE IF NOT EXISTS lab_writes (run text, n bigint, at timestamptz DEFAULT now(), PRIMARY KEY (run, n))"
)
_WHERE = """
    SELECT pg_is_in_recovery(), host(inet_server_addr()),
        CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END
"""


def wait(connection: Any) -> None:
    """psycopg2's wait callback, with patience."""
    deadline = time.monotonic() + PATIENCE
    while True:
        state = connection.poll()
        if state == psycopg2.extensions.POLL_OK:
            return
        left = max(0.0, deadline - time.monotonic())
        reading = [connection] if state == psycopg2.extensions.POLL_READ else []
        writing = [connection] if state == psycopg2.extensions.POLL_WRITE else []
        if not any(select.select(reading, writing, [], left)):
            raise psycopg2.OperationalError(f"no answer within {PATIENCE:g} s")


class Lookup:
    """The vhost's address, asked of the lab's DNS; an answer is kept for a moment, never longer than its TTL."""

    def __init__(self, name: str, servers: list[str], cache: float) -> None:
        self._name = name
        self._cache = cache
        self._resolver = dns.resolver.Resolver(configure=False)
        self._resolver.nameservers = servers
        self._resolver.timeout = 0.5
        self._resolver.lifetime = 1.0
        self._answer = ("", 0.0)
        self._lock = threading.Lock()

    def open(self, **parameters: Any) -> Any:
        """A connection to where the vhost leads; raises psycopg2.Error or dns.exception.DNSException."""
        return psycopg2.connect(host=self._name, hostaddr=self.address(), **parameters)

    def address(self) -> str:
        """One address; raises dns.exception.DNSException."""
        with self._lock:
            address, until = self._answer
            if time.monotonic() < until:
                return address
            try:
                answer = self._resolver.resolve(self._name, "A")
            except dns.resolver.NoAnswer:
                answer = self._resolver.resolve(self._name, "AAAA")
            address = answer[0].to_text()
            self._answer = (address, time.monotonic() + min(self._cache, answer.chaining_result.minimum_ttl))
            return address


class Search:
    """Whichever of some servers accepts writes, in that order; libpq does the looking.

    One connection at a time looks, and after a miss none does for a moment: all of them at once would take the
    processors away from the very servers that are being looked at.
    """

    def __init__(self, servers: list[str]) -> None:
        self._servers = ",".join(servers)
        self._turn = threading.Lock()

    def open(self, **parameters: Any) -> Any:
        """A connection; raises psycopg2.Error."""
        with self._turn:
            try:
                return psycopg2.connect(host=self._servers, target_session_attrs="read-write", **parameters)
            except psycopg2.Error:
                time.sleep(RETRY / 4)
                raise


class Writer:
    """Several connections, one sequence of numbers, one record."""

    def __init__(self, arguments: argparse.Namespace, record: IO[str]) -> None:
        self._arguments = arguments
        self._record = record
        self._way: Lookup | Search = (
            Search(arguments.server)
            if arguments.server
            else Lookup(arguments.vhost, arguments.dns, arguments.dns_cache)
        )
        self._numbers = itertools.count(1)
        self._connections = itertools.count(1)
        self._lock = threading.Lock()
        self._complaint = ""
        self.ending = threading.Event()

    def note(self, *fields: object) -> None:
        """Append to the record, at once: what was acknowledged must be on record whatever happens next."""
        with self._lock:
            self._record.write(" ".join(str(field) for field in fields) + "\n")
            self._record.flush()

    def _complain(self, error: Exception) -> None:
        text = str(error).strip().replace("\n", "; ")
        if text != self._complaint:
            self._complaint = text
            print(f"{time.time():.3f} {text}", flush=True)

    def connect(self) -> tuple[Any, int] | None:
        """A connection to a server that accepts writes, and its number in the record; None when there is none now."""
        connection = None
        try:
            connection = self._way.open(
                port=self._arguments.port,
                dbname="app",
                user="app",
                application_name="lab-writer",
                connect_timeout=2,
                tcp_user_timeout=int(PATIENCE * 1000),
            )
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(_WHERE)
                ((in_recovery, address, timeline),) = cursor.fetchall()
                if in_recovery:
                    raise psycopg2.OperationalError(f"{address} is a replica")
        except (psycopg2.Error, dns.exception.DNSException) as error:
            self._complain(error)
            if connection is not None:
                connection.close()
            return None
        number = next(self._connections)
        self.note("connection", number, f"{time.monotonic():.6f}", address, timeline)
        return connection, number

    def work(self, delay: float) -> None:
        """Commit row after row until the end, over one connection at a time."""
        pause = self._arguments.connections / self._arguments.rate
        due = time.monotonic() + delay
        found = None
        while not self.ending.is_set():
            if found is None:
                found = self.connect()
                if found is None:
                    self.ending.wait(RETRY)
                    continue
            connection, number = found
            try:
                row = next(self._numbers)
                with connection.cursor() as cursor:
                    cursor.execute("INSERT INTO lab_writes (run, n) VALUES (%s, %s)", (self._arguments.run, row))
            except psycopg2.Error as error:
                # Whether it was committed is unknown: the number is not acknowledged and never used again.
                self._complain(error)
                connection.close()
                found = None
                continue
            self.note("ack", row, f"{time.monotonic():.6f}", f"{time.time():.6f}", number)
            due = max(due + pause, time.monotonic())
            self.ending.wait(max(0.0, due - time.monotonic()))

    def create_table(self) -> None:
        """Wait for a server that accepts writes, and make the table there."""
        while not self.ending.is_set():
            found = self.connect()
            if found is not None:
                with found[0].cursor() as cursor:
                    cursor.execute(CREATE)
                found[0].close()
                return
            self.ending.wait(RETRY)


def main(argv: list[str]) -> int:
    """Write until SIGTERM, or for as long as was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--record", required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--vhost", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--dns", action="append", required=True)
    parser.add_argument("--dns-cache", type=float, required=True)
    parser.add_argument("--server", action="append")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--connections", type=int, required=True)
    arguments = parser.parse_args(argv)
    psycopg2.extensions.set_wait_callback(wait)
    with open(arguments.record, "w", encoding="utf-8") as record:
        writer = Writer(arguments, record)
        signal.signal(signal.SIGTERM, lambda *_: writer.ending.set())
        if arguments.seconds:
            limit = threading.Timer(arguments.seconds, writer.ending.set)
            limit.daemon = True
            limit.start()
        writer.create_table()
        # Spread evenly, so that the time between two commits is the rate's, whatever the number of connections.
        threads = [
            threading.Thread(target=writer.work, args=(number / arguments.rate,))
            for number in range(arguments.connections)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        writer.note("stop", f"{time.monotonic():.6f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
