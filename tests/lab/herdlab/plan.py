# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a lab is to build, computed from a fleet file: hosts with addresses, instances, DNS records.

Private to the lab. The fleet file itself is read by the collection's own parser, so that the lab and the product
can not disagree about what a fleet file means.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from .errors import LabError
from .state import CHECKOUT

# Networks for documentation (RFC 5737) and for bench tests (RFC 2544): no real fleet file uses them.
_OWN_NETWORKS = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
_SPARE_NETWORK = "198.18.0.0/15"
OWN_ZONE = "lab"


@dataclasses.dataclass
class Host:
    """A machine of the lab: one of the fleet's servers, or one that serves the lab (DNS, registry)."""

    name: str
    number: int
    address: str
    ssh_port: int = 22
    ssh_user: str = "root"
    # An address of the other family, where a fleet has both: IPv4 and IPv6 servers must reach each other.
    second: str | None = None
    infrastructure: bool = False
    # Absolute directories that this host has for itself, beside the usual ones.
    private: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Instance:
    """One PostgreSQL of the lab."""

    herd: str
    environment: str
    server: str
    address: str
    primary: bool
    upstream: str | None
    port: int
    pgdata: str
    os_user: str
    debian: bool
    base_name: str
    replication_user: str

    @property
    def herd_key(self) -> str:
        """Herd and environment, as in an inventory name."""
        return f"{self.herd}_{self.environment}"

    @property
    def name(self) -> str:
        """The inventory name."""
        return f"{self.herd_key}@{self.server}"


@dataclasses.dataclass
class Plan:
    """Everything that up builds and that later commands look up."""

    fleet: dict[str, Any]
    controller: str
    controller6: str
    dns: list[str]
    registry: str
    hosts: list[Host]
    instances: list[Instance]
    # Name of a zone -> records as (name, type, value).
    zones: dict[str, list[tuple[str, str, str]]]

    def host(self, name: str) -> Host:
        """A host by name."""
        for host in self.hosts:
            if host.name == name:
                return host
        servers = ", ".join(host.name for host in self.hosts if not host.infrastructure)
        raise LabError(f"no server {name!r} in this lab; there are: {servers}")

    def instance(self, name: str) -> Instance:
        """An instance by its inventory name."""
        for instance in self.instances:
            if instance.name == name:
                return instance
        raise LabError(f"no instance {name!r} in this lab; there are: {', '.join(i.name for i in self.instances)}")

    def on(self, server: str) -> list[Instance]:
        """The instances of one server."""
        return [instance for instance in self.instances if instance.server == server]

    def members(self, herd_key: str) -> list[Instance]:
        """The instances of one herd."""
        return [instance for instance in self.instances if instance.herd_key == herd_key]

    def herd(self, name: str) -> dict[str, Any]:
        """A herd of the fleet by <herd>_<environment>, or by its name alone where that is unique."""
        exact = [herd for herd in self.fleet["herds"] if f"{herd['name']}_{herd['environment']}" == name]
        found = exact or [herd for herd in self.fleet["herds"] if herd["name"] == name]
        if len(found) == 1:
            return dict(found[0])
        names = ", ".join(f"{herd['name']}_{herd['environment']}" for herd in found or self.fleet["herds"])
        raise LabError(f"{'more than one' if found else 'no'} herd {name!r} in this lab; there are: {names}")

    def save(self, path: Path) -> None:
        """Keep the plan for later commands."""
        path.write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Plan:
        """The plan that up kept."""
        data = json.loads(path.read_text(encoding="utf-8"))
        data["hosts"] = [Host(**host) for host in data["hosts"]]
        data["instances"] = [Instance(**instance) for instance in data["instances"]]
        return cls(**data)


def read_fleet(path: Path) -> dict[str, Any]:
    """A fleet file as the collection's parser gives it, everything filled in."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LabError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LabError(f"{path} is not YAML: {error}") from None
    expose_collection()
    from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
    from ansible_collections.elephaas.herd.plugins.module_utils.decide.fleet import parse_fleet

    try:
        return dict(parse_fleet(document))
    except OperatorError as error:
        problems = error.evidence.get("problems") or [error.reason]
        raise LabError("\n  ".join([f"{path} is not a valid fleet:", *problems])) from None


def expose_collection() -> None:
    """Make elephaas.herd importable from this checkout without ansible-core and without an installed collection."""
    for name in ("ansible_collections", "ansible_collections.elephaas", "ansible_collections.elephaas.herd"):
        if name not in sys.modules:
            package = ModuleType(name)
            package.__path__ = [str(CHECKOUT)] if name.endswith(".herd") else []
            sys.modules[name] = package


def make_plan(fleet: dict[str, Any]) -> Plan:
    """Give every server an address and every thing its place."""
    taken = {address for server in fleet["servers"].values() if (address := _ip(server["address"]))}
    own = _own_addresses(taken)
    controller, dns1, dns2, registry = (str(address) for address in itertools.islice(own, 4))
    addresses = dict(_server_addresses(fleet, taken))
    hosts = [
        Host(name, number, address, infrastructure=True)
        for number, (name, address) in enumerate(
            (("lab-dns1", dns1), ("lab-dns2", dns2), ("lab-registry", registry)), start=1
        )
    ]
    for name, server in fleet["servers"].items():
        if any(host.name == name for host in hosts):
            raise LabError(f"servers.{name}: the lab has a host of that name itself; choose another")
        hosts.append(Host(name, len(hosts) + 1, addresses[name], server["ssh_port"], server["ssh_user"]))
    instances = [
        Instance(
            herd=herd["name"],
            environment=herd["environment"],
            server=member["server"],
            # What members connect to, the same as the inventory says: a name is resolved by the lab's DNS.
            address=fleet["servers"][member["server"]]["address"] or member["server"],
            primary=member["role"] == "primary",
            # A member recorded as detached or superseded starts its life in the lab as a replica.
            upstream=member["upstream"] or (None if member["role"] == "primary" else _primary(herd)),
            port=member["port"],
            pgdata=member["pgdata"],
            os_user=herd["os_user"],
            debian=herd["control"] == "pg_ctlcluster",
            base_name=herd["base_name"],
            replication_user=herd["replication_user"] or "replicator",
        )
        for herd in fleet["herds"]
        for member in herd["members"]
    ]
    plan = Plan(fleet, controller, "2001:db8:1ab::1", [dns1, dns2], registry, hosts, instances, {})
    for host in hosts:
        host.private = sorted({_private_top(instance.pgdata) for instance in plan.on(host.name)})
    plan.zones = _zones(plan, addresses)
    if len({":" in host.address for host in hosts if not host.infrastructure}) > 1:
        spare = (str(address) for address in ipaddress.ip_network(_SPARE_NETWORK).hosts())
        used = {str(address) for address in taken} | set(addresses.values())
        for host in hosts:
            if ":" in host.address:
                host.second = next(address for address in spare if address not in used)
            else:
                host.second = f"{plan.controller6[:-1]}{host.number:x}:1"
    return plan


def _primary(herd: dict[str, Any]) -> str:
    return str(next(member["server"] for member in herd["members"] if member["role"] == "primary"))


def _ip(text: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text or "")
    except ValueError:
        return None


def _own_addresses(taken: set[Any]) -> Iterator[Any]:
    for text in _OWN_NETWORKS:
        network = ipaddress.ip_network(text)
        if not any(address in network for address in taken):
            return iter(network.hosts())
    raise LabError(f"the fleet uses all of {', '.join(_OWN_NETWORKS)}; the lab needs one of them for itself")


def _server_addresses(fleet: dict[str, Any], taken: set[Any]) -> Iterator[tuple[str, str]]:
    """Server names and addresses: as written, else the next free one of the data center, else of a spare network."""
    used = set(taken)
    free: dict[str, Iterator[Any]] = {}
    owners: dict[Any, str] = {}
    for name, server in fleet["servers"].items():
        address = _ip(server["address"])
        if address is not None:
            if address in owners:
                raise LabError(f"servers.{name}.address: {address} is already that of server {owners[address]}")
            owners[address] = name
            yield name, str(address)
            continue
        networks = fleet["datacenters"].get(server["datacenter"] or "", {}).get("networks") or [_SPARE_NETWORK]
        pool = free.setdefault(networks[0], iter(ipaddress.ip_network(networks[0]).hosts()))
        found = next((candidate for candidate in pool if candidate not in used), None)
        if found is None:
            raise LabError(f"servers.{name}: no free address left in {networks[0]}")
        used.add(found)
        yield name, str(found)


# Directories of the machine itself that a host must keep: a data directory below one of them gets its own first
# directory under it; elsewhere (/srv, /data, /opt …) the host has the whole first directory for itself.
_KEPT = ("/", "/etc", "/usr", "/usr/lib", "/usr/local", "/var", "/var/lib", "/home")
_IMPOSSIBLE = ("/bin", "/boot", "/dev", "/lib", "/proc", "/run", "/sbin", "/sys", "/tmp", "/var/run", "/var/tmp")


def _private_top(pgdata: str) -> str:
    path = Path(pgdata)
    if any(path == Path(bad) or Path(bad) in path.parents for bad in _IMPOSSIBLE) or pgdata in _KEPT:
        raise LabError(f"the lab can not have a data directory at {pgdata}; use /var/lib, /srv, /data, /home …")
    top = path
    while str(top.parent) not in _KEPT:
        top = top.parent
    return str(top)


def _zones(plan: Plan, addresses: dict[str, str]) -> dict[str, list[tuple[str, str, str]]]:
    """Zones for the fleet's names: everything after a name's first label, or the name itself if it has only one."""
    fleet = plan.fleet
    wanted: dict[str, tuple[str, str]] = {}
    for name, server in fleet["servers"].items():
        for alias in (server["dns_name"], server["address"]):
            if alias and _ip(alias) is None:
                wanted[_dns(alias)] = _address_record(addresses[name])
    for herd in fleet["herds"]:
        if herd["vhost"] and herd["members"]:
            server = fleet["servers"][_primary(herd)]
            target = server["dns_name"]
            record = ("CNAME", _dns(target) + ".") if target else _address_record(addresses[_primary(herd)])
            wanted.setdefault(_dns(herd["vhost"]), record)
    zones: dict[str, list[tuple[str, str, str]]] = {OWN_ZONE: []}
    for name in wanted:
        zones.setdefault(name.partition(".")[2] or name, [])
    for name, (kind, value) in wanted.items():
        if name in zones and kind == "CNAME":
            # RFC 1034 3.6.2: the top of a zone has other records, so it can not be a CNAME.
            raise LabError(f"the vhost {name} is the top of a zone and cannot be a CNAME; take dns_name off its server")
        zones[name if name in zones else name.partition(".")[2]].append((name, kind, value))
    for host in plan.hosts:
        kind, value = _address_record(host.address)
        zones[OWN_ZONE].append((f"{_dns(host.name)}.{OWN_ZONE}", kind, value))
        reverse = ipaddress.ip_address(host.address).reverse_pointer
        zones.setdefault(reverse.partition(".")[2], []).append((reverse, "PTR", f"{_dns(host.name)}.{OWN_ZONE}."))
    return zones


def _dns(name: str) -> str:
    return name.rstrip(".").lower()


def _address_record(address: str) -> tuple[str, str]:
    return ("AAAA" if ":" in address else "A", address)
