# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One DNS message to one address and its answer, and what an answer's code means.

Private to the collection; controller only. UDP first, TCP where UDP gives no whole answer. The one thing to know after
a failure is whether the server *may have seen* the message: see NoAnswer.
"""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.library import dns

# What fits a datagram on every path (DNS flag day 2020); longer messages go over TCP at once.
DATAGRAM_BYTES = 1232
# The part of the time-out that UDP may use before TCP is tried: a lost datagram must not cost all of it.
UDP_SHARE = 1 / 3


class NoAnswer(Exception):
    """The server gave no usable answer. `delivered` tells whether it may have seen (and acted on) the message."""

    def __init__(self, reason: str, delivered: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.delivered = delivered


@dataclass(frozen=True)
class Address:
    """One address of a DNS server, and the name it is known by."""

    host: str
    ip: str
    port: int

    def __str__(self) -> str:
        where = self.ip if self.host == self.ip else f"{self.host} ({self.ip})"
        return where if self.port == 53 else f"{where} port {self.port}"


def ask(message: dns.message.Message, to: Address, timeout: float) -> dns.message.Message:
    """The answer to a question, by UDP and then TCP, within `timeout` seconds. For messages that change nothing.

    Raises NoAnswer; OperatorError as `parse`.
    """
    deadline = time.monotonic() + timeout
    try:
        answer = exchange(message, to, timeout * UDP_SHARE, tcp=len(message.to_wire()) > DATAGRAM_BYTES)
        if not answer.flags & dns.flags.TC:
            return answer
    except NoAnswer:
        pass  # a firewall may let only TCP through
    return exchange(message, to, max(deadline - time.monotonic(), 0.05), tcp=True)


def exchange(message: dns.message.Message, to: Address, timeout: float, tcp: bool) -> dns.message.Message:
    """Send once, by one protocol, and wait up to `timeout` seconds for the answer that belongs to it.

    Raises NoAnswer; OperatorError DNS_KEY_REFUSED, DNS_CLOCK_SKEW or DNS_ANSWER_UNTRUSTED for a signed message whose
    answer does not prove itself (RFC 8945 section 5.3).
    """
    wire = message.to_wire()
    deadline = time.monotonic() + timeout
    delivered = False
    family = socket.AF_INET6 if ":" in to.ip else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as sock:
            sock.settimeout(timeout)
            # A connected datagram socket hears of a closed port at once, and only hears the peer it asked.
            sock.connect((to.ip, to.port))
            if tcp:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            delivered = True
            sock.sendall(struct.pack("!H", len(wire)) + wire if tcp else wire)
            while True:
                reply = _receive_stream(sock, deadline) if tcp else _receive_datagram(sock, deadline)
                if len(reply) >= 12 and reply[:2] == wire[:2] and reply[2] & 0x80:
                    return parse(message, reply, to)
    except ConnectionRefusedError as error:
        raise NoAnswer(f"{to}: connection refused", delivered=False) from error
    except TimeoutError as error:
        raise NoAnswer(f"{to}: no answer in {timeout:.1f} s", delivered=delivered) from error
    except OSError as error:
        raise NoAnswer(f"{to}: {error.strerror or error}", delivered=delivered) from error


def _remaining(sock: socket.socket, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    sock.settimeout(left)


def _receive_datagram(sock: socket.socket, deadline: float) -> bytes:
    _remaining(sock, deadline)
    return sock.recv(65535)


def _receive_stream(sock: socket.socket, deadline: float) -> bytes:
    """One message with its two bytes of length (RFC 7766 section 8)."""
    (length,) = struct.unpack("!H", _receive_exactly(sock, 2, deadline))
    return _receive_exactly(sock, length, deadline)


def _receive_exactly(sock: socket.socket, size: int, deadline: float) -> bytes:
    data = b""
    while len(data) < size:
        _remaining(sock, deadline)
        chunk = sock.recv(size - len(data))
        if not chunk:
            raise ConnectionResetError(104, "the server closed the connection")
        data += chunk
    return data


def parse(message: dns.message.Message, reply: bytes, to: Address) -> dns.message.Message:
    """The reply to `message`, its signature verified where the message was signed.

    An *error* without a signature is passed on (a server that does not know the key cannot sign); a success is not.
    """
    signed = message.had_tsig
    try:
        if not signed:
            return dns.message.from_wire(reply, ignore_trailing=True)
        answer = dns.message.from_wire(reply, keyring=message.keyring, request_mac=message.mac)
    except dns.tsig.PeerBadTime as error:
        raise clock_skew(to) from error
    except dns.tsig.BadTime as error:
        raise clock_skew(to) from error
    except (dns.tsig.PeerBadKey, dns.tsig.PeerBadSignature, dns.tsig.PeerBadTruncation) as error:
        raise key_refused(to, _PEER.get(type(error).__name__, "it does not accept the signature")) from error
    except dns.exception.DNSException as error:
        code = reply[3] & 0x0F
        if signed and code != dns.rcode.NOERROR:
            raise rcode_error(code, to) from error
        raise untrusted(to, str(error) or type(error).__name__) from error
    if not answer.had_tsig:
        code = answer.rcode()
        if code != dns.rcode.NOERROR:
            raise rcode_error(code, to)
        raise untrusted(to, "it is not signed")
    return answer


_PEER = {
    "PeerBadKey": "it does not know the key (BADKEY)",
    "PeerBadSignature": "the signature is wrong: another secret or algorithm under the same key name (BADSIG)",
    "PeerBadTruncation": "the signature is too short for it (BADTRUNC)",
}


def key_refused(to: Address, why: str) -> OperatorError:
    """DNS_KEY_REFUSED: one clear error for REFUSED, NOTAUTH, BADKEY and BADSIG (servers differ in which they send)."""
    return OperatorError(
        "DNS_KEY_REFUSED",
        f"the DNS server {to} does not accept our update: {why}",
        "check key name, algorithm and secret, that the zone's update policy grants this key this name and type, that "
        "the zone is not frozen, and that this server is the zone's primary (or forwards updates to it)",
        {"server": str(to)},
    )


def clock_skew(to: Address) -> OperatorError:
    """DNS_CLOCK_SKEW: the signature's time is outside the window that both sides allow (RFC 8945 section 5.2.3)."""
    return OperatorError(
        "DNS_CLOCK_SKEW",
        f"the clocks of this controller and of the DNS server {to} differ too much for a signed update (BADTIME)",
        "set the clocks (NTP) on both; 300 seconds are allowed",
        {"server": str(to), "controller_time": time.time()},
    )


def untrusted(to: Address, why: str) -> OperatorError:
    """DNS_ANSWER_UNTRUSTED: something answered, but could not prove that it is the server that holds our key."""
    return OperatorError(
        "DNS_ANSWER_UNTRUSTED",
        f"the answer of the DNS server {to} cannot be trusted: {why}",
        "read the record before anything else: the update may have been applied. Then check that nothing between here "
        "and the server rewrites DNS",
        {"server": str(to)},
    )


def rcode_error(code: int, to: Address) -> OperatorError:
    """What a response code of an update means to an operator (RFC 2136 section 2.2, RFC 8945 section 5.2)."""
    name = dns.rcode.to_text(dns.rcode.Rcode.make(code))
    if name in ("REFUSED", "NOTAUTH"):
        return key_refused(to, f"it answers {name}")
    if name in ("NXRRSET", "YXRRSET", "NXDOMAIN", "YXDOMAIN"):
        return OperatorError(
            "DNS_RECORD_CHANGED",
            f"the record is no longer what it was when it was read; the DNS server {to} changed nothing ({name})",
            "look who changed it, then run again",
            {"server": str(to), "rcode": name},
        )
    error_code, meaning, next_step = _RCODES.get(
        name, ("DNS_SERVER_FAILED", "an answer that is not known here", "look into its log")
    )
    return OperatorError(
        error_code,
        f"the DNS server {to} answers {name}: {meaning}",
        next_step,
        {"server": str(to), "rcode": name},
    )


_RCODES = {
    "NOTZONE": (
        "DNS_NOT_IN_ZONE",
        "the name is not inside the zone of the update",
        "correct zone or record; leave zone out to have it found",
    ),
    "SERVFAIL": (
        "DNS_SERVER_FAILED",
        "it failed by itself",
        "look into its log: often it cannot write its journal, or its disk is full",
    ),
    "FORMERR": ("DNS_SERVER_FAILED", "it does not understand the update", "look into its log and its version"),
    "NOTIMP": ("DNS_SERVER_FAILED", "it does not support dynamic updates", "give the zone's primary as server"),
}
