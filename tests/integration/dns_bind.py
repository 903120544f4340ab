# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real BIND primary and secondary on loopback addresses and one high port, as whoever runs the tests.

And a relay that stands in front of the primary and loses chosen messages: the faults are the network's, the servers
stay real.
"""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.tsig
import dns.tsigkeyring
import dns.update
import dns.zone

# BIND listens on addresses that an interface has, and one port serves all servers of a zone: the loopback has two.
PRIMARY, SECONDARY, NOBODY, RELAY = "127.0.0.1", "::1", "127.0.0.3", "127.0.0.9"
SECRETS = {
    "operator": "b3BlcmF0b3ItMDEyMzQ1Njc4OWFiY2RlZg==",
    "narrow": "bmFycm93LTAxMjM0NTY3ODlhYmNkZWYwMQ==",
    "admin": "YWRtaW4tMDEyMzQ1Njc4OWFiY2RlZjAxMg==",
    "stranger": "c3RyYW5nZXItMDEyMzQ1Njc4OWFiY2RlZg==",
}
_GRANTED = ("operator", "narrow", "admin")
_ZONES = ("herd.test", "slow.test", "dead.test")
_ZONE_FILE = """$TTL 300
@ IN SOA ns1 hostmaster 1 3600 3600 604800 5
@ IN NS ns1
@ IN NS {second}
ns1 IN A {primary}
ns2 IN AAAA {secondary}
ns3 IN A {nobody}
db1 IN A 10.10.0.11
db2 IN A 10.20.0.11
db3 IN A 10.30.0.11
db1 IN AAAA fd00::11
alias 30 IN CNAME db1
plain 30 IN A 10.10.0.11
six 30 IN AAAA fd00::11
many 30 IN A 10.10.0.11
many 30 IN A 10.20.0.11
mixed 30 IN A 10.10.0.11
mixed 30 IN AAAA fd00::11
noted 30 IN A 10.10.0.11
noted 30 IN TXT "not ours"
only 30 IN CNAME db1
remote 30 IN CNAME db1.elsewhere.example.
*.wild 30 IN CNAME db1
away IN NS ns.elsewhere.example.
"""
_NAMED_CONF = """
options {{
  directory "{directory}"; listen-on port {port} {{ {v4}; }}; listen-on-v6 port {port} {{ {v6}; }};
  pid-file none; session-keyfile none; recursion no; dnssec-validation no; empty-zones-enable no;
  notify explicit; notify-delay 0; allow-transfer {{ any; }}; allow-notify {{ localhost; }};
  max-refresh-time 3600; min-refresh-time 3600; minimal-responses yes;
}};
controls {{ }};
{body}
"""


def free_port() -> int:
    """A port that is free for UDP and TCP on every address used here."""
    for _attempt in range(50):
        port = random.randrange(20000, 32000)
        with contextlib.ExitStack() as stack:
            try:
                for address in (PRIMARY, SECONDARY, NOBODY, RELAY):
                    family = socket.AF_INET6 if ":" in address else socket.AF_INET
                    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                        sock = stack.enter_context(socket.socket(family, kind))
                        sock.bind((address, port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no port is free on {PRIMARY}, {SECONDARY}, {NOBODY} and {RELAY}; the loopback needs IPv6")


class Bind:
    """The pair of servers. `zones` are herd.test (normal), slow.test (no NOTIFY) and dead.test (a dead secondary)."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        keys = "".join(f'key "{name}" {{ algorithm hmac-sha256; secret "{SECRETS[name]}"; }};\n' for name in _GRANTED)
        policy = (
            "grant operator zonesub CNAME A AAAA; grant narrow name only.herd.test. CNAME; grant admin zonesub ANY;"
        )
        primary, secondary = keys, ""
        for zone in _ZONES:
            second = "ns3" if zone == "dead.test" else "ns2"
            notify = "no" if zone == "slow.test" else f"explicit; also-notify {{ {SECONDARY} port {self.port}; }}"
            primary += (
                f'zone "{zone}" {{ type primary; file "{zone}.db"; notify {notify}; update-policy {{ {policy} }}; }};\n'
            )
            secondary += (
                f'zone "{zone}" {{ type secondary; file "{zone}.copy"; '
                f"primaries port {self.port} {{ {PRIMARY}; }}; }};\n"
            )
            self._write(
                "primary",
                f"{zone}.db",
                _ZONE_FILE.format(second=second, primary=PRIMARY, secondary=SECONDARY, nobody=NOBODY),
            )
        for role, v4, v6, body in (("primary", PRIMARY, "none", primary), ("secondary", "none", SECONDARY, secondary)):
            conf = _NAMED_CONF.format(
                directory=directory / role, port=self.port, v4=v4, v6=v6, primary=PRIMARY, body=body
            )
            self._write(role, "named.conf", conf)

    def _write(self, role: str, name: str, text: str) -> None:
        path = self.directory / role / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def start(self, role: str) -> None:
        folder = self.directory / role
        with (folder / "named.log").open("ab") as log:
            self.processes[role] = subprocess.Popen(
                ["named", "-g", "-n", "1", "-c", str(folder / "named.conf")], stdout=log, stderr=log
            )
        address = PRIMARY if role == "primary" else SECONDARY
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(dns.exception.DNSException, OSError):
                if all(self.serial(zone, address) for zone in _ZONES):
                    return
            time.sleep(0.05)
        raise RuntimeError((folder / "named.log").read_text())

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(10)

    def serial(self, zone: str = "herd.test", address: str = PRIMARY) -> int:
        answer = dns.query.udp(dns.message.make_query(zone, "SOA"), address, timeout=1, port=self.port)
        return int(answer.answer[0][0].serial) if answer.answer else 0

    def settle(self, zone: str = "herd.test") -> None:
        """Return when the secondary has caught up."""
        deadline = time.monotonic() + 20
        while self.serial(zone, SECONDARY) != self.serial(zone):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def content(self, zone: str = "herd.test") -> str:
        """The whole zone as text, by zone transfer."""
        return dns.zone.from_xfr(dns.query.xfr(PRIMARY, zone, port=self.port)).to_text(sorted=True)

    def values(self, name: str, rdtype: str, address: str = PRIMARY) -> list[str]:
        answer = dns.query.udp(dns.message.make_query(name, rdtype), address, timeout=1, port=self.port)
        return sorted(rdata.to_text() for rrset in answer.answer if str(rrset.name) == f"{name}." for rdata in rrset)

    def admin_set(self, zone: str, label: str, rdtype: str, *values: str, ttl: int = 30) -> None:
        """Change a record behind everybody's back; without values it is removed. All its address types go first."""
        key = dns.tsigkeyring.from_text({"admin": SECRETS["admin"]})
        update = dns.update.UpdateMessage(zone, keyring=key, keyalgorithm=dns.tsig.HMAC_SHA256)
        for old in ("CNAME", "A", "AAAA"):
            update.delete(label, old)
        for value in values:
            update.add(label, ttl, rdtype, value)
        answer = dns.query.tcp(update, PRIMARY, timeout=5, port=self.port)
        assert answer.rcode() == dns.rcode.NOERROR

    def params(self, key: str = "operator", **more: Any) -> dict[str, Any]:
        """Module parameters that reach the primary with that key."""
        params = {
            "server": [PRIMARY],
            "port": self.port,
            "key_name": key,
            "key_secret": SECRETS[key],
            "timeout": 1.5,
        }
        return {**params, **more}


class Relay:
    """Stands at its own address, same port, in front of the primary. `lose(kind, protocol, update) -> bool` decides,
    with kind "request" or "reply", which messages are lost on the way. `cut` answers UDP questions with TC only."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.lose: Any = lambda _kind, _protocol, _update: False
        self.cut = False
        self.seen: list[tuple[str, bool]] = []
        self._stopped = threading.Event()
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind((RELAY, port))
        self._tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._tcp.bind((RELAY, port))
        self._tcp.listen(20)
        for sock in (self._udp, self._tcp):
            sock.settimeout(0.1)
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._serve_udp, self._serve_tcp)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(5)
        self._udp.close()
        self._tcp.close()

    def _through(self, protocol: str, request: bytes) -> bytes | None:
        update = (request[2] >> 3) & 0x0F == 5
        self.seen.append((protocol, update))
        if self.lose("request", protocol, update):
            return None
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(5)
            sock.connect((PRIMARY, self.port))
            sock.sendall(len(request).to_bytes(2, "big") + request)
            stream = sock.makefile("rb")
            reply = stream.read(int.from_bytes(stream.read(2), "big"))
        if self.lose("reply", protocol, update):
            return None
        if self.cut and protocol == "udp" and not update:
            # The header with TC set, and the question.
            end = request.index(b"\0", 12) + 5
            return request[:2] + bytes([reply[2] | 0x02, reply[3]]) + b"\0\1" + bytes(6) + request[12:end]
        return reply

    def _serve_udp(self) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(TimeoutError):
                request, peer = self._udp.recvfrom(65535)
                reply = self._through("udp", request)
                if reply is not None:
                    self._udp.sendto(reply, peer)

    def _serve_tcp(self) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(TimeoutError, ConnectionError):
                connection, _peer = self._tcp.accept()
                threading.Thread(target=self._serve_connection, args=(connection,), daemon=True).start()

    def _serve_connection(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(TimeoutError, ConnectionError):
            connection.settimeout(5)
            stream = connection.makefile("rb")
            size = stream.read(2)
            if len(size) < 2:
                return
            reply = self._through("tcp", stream.read(int.from_bytes(size, "big")))
            if reply is None:
                self._stopped.wait(3)  # silence, not a reset
            else:
                connection.sendall(len(reply).to_bytes(2, "big") + reply)
