# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What things of the fleet may be called, and what they are called in the inventory. Private to the collection.

Hosts and groups share one set of names in Ansible: a group and a host of the same name, or two groups that
become the same after sanitising, make a run act on something else than was meant, or on nothing (exit 0).
So every name that the inventory will use has one owner, and the registry refuses a second one. The SQL function
C(ele_group_name) and the table C(ele_inventory_name) of the registry hold the same rules for rows typed by hand.
"""

from __future__ import annotations

import re
from typing import Iterable

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError

# Three names of this length, an underscore and an at sign make 191 characters: an inventory host name still fits
# in a file name (255), which is what host_vars and fact caches need.
MAX_NAME_LENGTH = 63

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
NAME_RULE = f"letters, digits, '_', '.', '-', starting with a letter or a digit, at most {MAX_NAME_LENGTH} characters"

# Groups that the inventory always has, and the names that Ansible takes for the controller itself.
FIXED_GROUPS = frozenset(
    {
        "all",
        "ungrouped",
        "primaries",
        "replicas",
        "online",
        "offline",
        "instances",
        "servers",
        "leads",
        "former_leads",
        "dr_pairs",
        "localhost",
        "127.0.0.1",
    }
)

ENVIRONMENT_PREFIX = "env_"
DATACENTER_PREFIX = "dc_"
SERVER_PREFIX = "server_"
VERSION_PREFIX = "pg_"

_NAME = re.compile(NAME_PATTERN + r"\Z")
_NOT_IN_GROUP = re.compile(r"[^A-Za-z0-9_]")
# pg_15 is a group of a major version; pg_accounts_prod is a fine group of a herd.
_RESERVED_PREFIX = re.compile(r"(?:env_|dc_|server_|pg_[0-9])")


def name_problem(value: object) -> str | None:
    """Why this can not be the name of an environment, data center, server or herd; None when it can."""
    if not isinstance(value, str):
        return f"must be text, not {type(value).__name__} (quote it); allowed: {NAME_RULE}"
    if len(value) > MAX_NAME_LENGTH:
        return f"is {len(value)} characters long; allowed: {NAME_RULE}"
    if not _NAME.match(value):
        return f"is not a name; allowed: {NAME_RULE}"
    return None


def check_name(kind: str, value: object) -> str:
    """The name itself, or OperatorError NAME_INVALID naming kind, value and what is allowed."""
    problem = name_problem(value)
    if problem:
        raise OperatorError("NAME_INVALID", f"{kind} {value!r} {problem}.", evidence={"kind": kind, "value": value})
    return str(value)


def group_name(*parts: str) -> str:
    """The group of these parts joined by '_': what Ansible does not allow in a group becomes '_'.

    A leading digit gets a '_' in front: Ansible warns about groups that are no identifiers.
    """
    name = _NOT_IN_GROUP.sub("_", "_".join(parts))
    return "_" + name if name[:1].isdigit() else name


def herd_group(herd: str, environment: str) -> str:
    """The group that holds a herd's instances, such as trading_prod."""
    return group_name(herd, environment)


def environment_group(environment: str) -> str:
    """The group of an environment, such as env_prod."""
    return group_name(ENVIRONMENT_PREFIX + environment)


def datacenter_group(datacenter: str) -> str:
    """The group of a data center, such as dc_chicago."""
    return group_name(DATACENTER_PREFIX + datacenter)


def server_group(server: str) -> str:
    """The group of the instances on a server, such as server_chi_db1."""
    return group_name(SERVER_PREFIX + server)


def herd_name(herd: str, environment: str) -> str:
    """The name of a herd for people and in instance names: raw, such as Order-Book_prod."""
    return f"{herd}_{environment}"


def instance_name(herd: str, environment: str, server: str) -> str:
    """The inventory host of an instance, such as Order-Book_prod@chi-db1. No group can have it: groups hold no '@'."""
    return f"{herd_name(herd, environment)}@{server}"


def reserved_problem(name: str) -> str | None:
    """Why a server's host name or a herd's group can not be this; None when it can."""
    if name in FIXED_GROUPS:
        return f"{name!r} is a fixed name of the inventory"
    match = _RESERVED_PREFIX.match(name)
    if match:
        return f"{name!r} starts with {match.group()!r}, which the inventory uses for groups of its own"
    return None


def inventory_names(
    environments: Iterable[str],
    datacenters: Iterable[str],
    servers: Iterable[str],
    herds: Iterable[tuple[str, str]],
) -> tuple[dict[str, str], list[str]]:
    """Who owns which name of the inventory, and every problem found on the way.

    herds: pairs of herd and environment. Returns ({inventory name: owner in words}, [problem in words]).
    """
    claims: list[tuple[str, str, bool]] = []
    claims.extend((environment_group(name), f"environment {name}", False) for name in environments)
    claims.extend((datacenter_group(name), f"data center {name}", False) for name in datacenters)
    for name in servers:
        claims.append((name, f"server {name}", True))
        claims.append((server_group(name), f"server {name}", False))
    claims.extend((herd_group(*pair), f"herd {pair[0]} of environment {pair[1]}", True) for pair in herds)

    owners: dict[str, str] = {}
    problems: list[str] = []
    for name, owner, free in claims:
        problem = reserved_problem(name) if free else None
        if problem:
            problems.append(f"{owner}: {problem}; choose another name")
        elif name in owners:
            problems.append(f"{owner}: its inventory name {name!r} is already that of {owners[name]}; rename one")
        else:
            owners[name] = owner
    return owners, problems
