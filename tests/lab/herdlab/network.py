# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's network: one bridge, and per host a network namespace with one interface on it.

Every address is a single one (/32, /128) with the whole world on its link, so any fleet's addresses work as written,
whatever their networks, without a router. Everything here is inside the lab's own network namespace.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .plan import Host, Plan
from .programs import path_of, run

BRIDGE = "lab0"


def namespace(host: Host) -> Path:
    """Where iproute2 keeps a host's network namespace."""
    return Path("/run/netns", host.name)


def create(plan: Plan) -> None:
    """The bridge, with the controller's addresses, and the network of every host."""
    lines = [
        "link set lo up",
        f"link add name {BRIDGE} type bridge mcast_snooping 0",
        f"link set {BRIDGE} address 02:4c:42:ff:ff:01 up",
        f"address add {plan.controller}/32 dev {BRIDGE}",
        f"route add default dev {BRIDGE} src {plan.controller}",
        f"address add {plan.controller6}/128 dev {BRIDGE} nodad",
    ]
    _batch(lines)
    run([path_of("ip"), "-6", "route", "add", "default", "dev", BRIDGE])
    attach(plan.hosts)


def attach(hosts: Iterable[Host]) -> None:
    """Give hosts a network, as at power-on."""
    hosts = list(hosts)
    lines = []
    for host in hosts:
        # A fixed hardware address: after a power cycle the others' neighbour caches still hold the old one.
        mac = f"02:4c:42:00:{host.number >> 8:02x}:{host.number & 255:02x}"
        lines += [
            f"netns add {host.name}",
            f"link add name {_port(host)} type veth peer name eth0 address {mac} netns {host.name}",
            f"link set {_port(host)} addrgenmode none master {BRIDGE} up",
        ]
    _batch(lines)
    for host in hosts:
        _batch(["link set lo up", "link set eth0 addrgenmode none up"], "-netns", host.name)
        for address in (host.address, host.second):
            if address:
                family, length = ("-6", "128 nodad") if ":" in address else ("-4", "32")
                inside = [f"address add {address}/{length} dev eth0", "route add default dev eth0"]
                _batch(inside, "-netns", host.name, family)


def cut(host: Host) -> None:
    """Take a host's cable out: its own interface stays up, nothing gets through."""
    run([path_of("ip"), "link", "set", _port(host), "nomaster"])


def join(host: Host) -> None:
    """Put a host's cable back."""
    run([path_of("ip"), "link", "set", _port(host), "master", BRIDGE])


def is_cut(host: Host) -> bool:
    """Whether a host's cable is out."""
    return "master" not in run([path_of("ip"), "-o", "link", "show", _port(host)])


def silence(host: Host) -> None:
    """First half of a power-off: nothing leaves the host any more, not even the farewells of its dying sockets."""
    run([path_of("ip"), "link", "set", _port(host), "down"])


def detach(host: Host) -> None:
    """Second half of a power-off: forget the host's network with every connection it had."""
    # The interface by name: the kernel takes its time to clear away a namespace, and what is in it.
    _batch([f"link delete {_port(host)}", f"netns delete {host.name}"])


def _port(host: Host) -> str:
    return f"port{host.number}"


def _batch(lines: list[str], *options: str) -> None:
    run([path_of("ip"), *options, "-batch", "-"], "\n".join(lines) + "\n")
