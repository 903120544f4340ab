# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet in the registry as Ansible's inventory."""

from __future__ import annotations

DOCUMENTATION = r"""
name: herds
author:
  - the elephaas.herd authors (@elephaas)
version_added: 1.0.0
short_description: Fleet of PostgreSQL herds, read from the registry
description:
  - Reads servers, herds and instances from the registry (a PostgreSQL database) and makes hosts, groups and variables
    of them, in one round trip.
  - An instance is a host C(<herd>_<environment>@<server>), such as C(trading_prod@chi-db1). A server is a host of its
    own name, in group C(servers).
  - Groups are C(<herd>_<environment>) per herd, C(env_<environment>), C(dc_<datacenter>), C(server_<server>),
    C(pg_<major version>), C(primaries), C(replicas), C(online), C(offline), C(instances), C(servers), C(leads),
    C(former_leads) and C(dr_pairs). In names of groups, what is neither letter nor digit becomes an underscore. The
    C(env_), C(dc_) and C(server_) groups hold servers and instances.
  - The group C(leads) holds exactly one instance of each herd. It stands for the herd in plays that act on whole
    herds, such as a failover. It is the recorded primary; while an operation is open or incomplete, the instance it
    moves away from; and where none or two primaries are recorded, always the same member. C(dr_pairs) holds the leads
    of herds with at least two members. C(former_leads) holds the instances that a finished failover, the last one of
    their herd, has moved away from.
  - All that comes from the registry is data and never a template, whatever a row holds. A row that cannot be a host
    safely (an address that would be an option of ssh, for example) is left out with a warning; the others are not
    affected.
  - When the registry cannot be reached, the snapshot of the last good reading is used, with a warning.
  - The name of the file must be V(herds.yml), V(herds.yaml), or end in V(.herds.yml) or V(.herds.yaml).
options:
  plugin:
    description: The name of this plugin.
    type: str
    required: true
    choices: [elephaas.herd.herds]
  dsn:
    description:
      - The registry as a libpq connection string (keywords or URI), with several hosts if there are standbys.
      - Single options win over it. What is given nowhere is taken from libpq's own environment (E(PGHOST),
        E(PGPASSWORD) and so on), service and password files.
    type: str
    env:
      - name: ELEPHAAS_REGISTRY_DSN
  schema:
    description: The schema of the registry.
    type: str
    default: utility
    env:
      - name: ELEPHAAS_REGISTRY_SCHEMA
  environments:
    description: Only servers and instances of these environments.
    type: list
    elements: str
    default: []
  datacenters:
    description: Only servers and instances in these data centers.
    type: list
    elements: str
    default: []
  herds:
    description:
      - Only instances of these herds, and the servers they are on.
      - A name (V(trading)) means the herds of this name in all environments, V(trading_prod) the one in C(prod).
    type: list
    elements: str
    default: []
  roles:
    description: Only instances that have one of these roles on record, and the servers they are on.
    type: list
    elements: str
    choices: [primary, replica, detached, superseded]
    default: []
  versions:
    description:
      - Only instances of these versions of PostgreSQL, and the servers they are on.
      - A major version (V(15)) or a full one (V(15.8)). Quote them in YAML, where 15.10 without quotes is 15.1.
    type: list
    elements: str
    default: []
  version_below:
    description:
      - Only instances of a version below this one, and the servers they are on. Numbers are compared as numbers, so
        V(15.8) is below V(15.10), which is below V(16). Quote it in YAML.
    type: str
  lag_above:
    description:
      - Only instances that were further behind than this when somebody looked last, and the servers they are on.
      - In bytes, or with a unit such as V(64MB) or V(1GiB). 1 kB is 1024 bytes, as in PostgreSQL.
    type: str
  online:
    description:
      - Only instances that were seen online (V(true)) or offline (V(false)) when somebody looked last, and the
        servers they are on. Those that nobody has looked at yet, or whose host did not answer, are neither.
    type: bool
  offline:
    description: With V(true) the same as O(online=false).
    type: bool
    default: false
  without_dr_pair:
    description:
      - Only instances of herds that do not outlive the loss of a data center, and the servers they are on. These are
        the herds that do not have members in two data centers, which P(elephaas.herd.status#role) shows as
        C(NO_DR_PAIR). A herd of one member is always among them. So is a herd that has two members in one data center,
        though its lead is in C(dr_pairs).
      - Goes by all members of the herd, whatever the other filters say.
    type: bool
    default: false
  unassigned:
    description:
      - Only what nobody has given a place yet. That is instances and servers of the environment C(unassigned), to which
        everything belongs that had no environment in version 1.x or was added by its reporter, those on servers without
        a data center, and servers that host no instance.
    type: bool
    default: false
  snapshot:
    description:
      - Keep a snapshot of what was read, and use it when the registry cannot be reached.
      - It is always the whole fleet, whatever the filters say.
    type: bool
    default: true
    env:
      - name: ELEPHAAS_SNAPSHOT
  snapshot_path:
    description:
      - The file of the snapshot. It must belong to the user who runs Ansible and be readable by nobody else.
      - The default is a file per registry in C(elephaas) below Ansible's home (usually C(~/.ansible)).
      - In a container that does not outlive the run, name a file on a volume that does.
    type: path
    env:
      - name: ELEPHAAS_SNAPSHOT_PATH
  snapshot_max_age:
    description: A snapshot that is used and older than this (in seconds) is called old in the warning.
    type: int
    default: 86400
    env:
      - name: ELEPHAAS_SNAPSHOT_MAX_AGE
extends_documentation_fragment:
  - elephaas.herd.registry
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
notes:
  - What several filters ask for must all be true; of several values of one filter, one is enough. What is not known (the
    version of an instance that nobody has looked at) meets no filter. A name that the registry does not know is warned
    about.
  - A filter changes what can be acted on, not what a herd is. The variable C(elephaas_members) always names all
    members of the herd, and a herd whose lead is filtered out has no lead. Playbooks that act on whole herds refuse a
    herd of which a member is not in the inventory, so do not use a filtered inventory for them.
  - Where the schema of the registry is missing or old, the inventory is empty, with a warning, so that the playbook
    C(elephaas.herd.registry_load) can be run with it.
  - With O(cache=true), Ansible's inventory cache may show an older fleet. Operations look at the servers themselves
    and refuse what does not agree.
  - What O(compose) makes is data, never a template, as are the values it is made from. In the names of groups that
    O(groups) and O(keyed_groups) make, what is neither letter nor digit becomes an underscore, and a name that the
    inventory has for a host or a group of its own gets an underscore behind it. So no row can name itself into C(leads).
  - O(compose), O(groups) and O(keyed_groups) cost about 0.3 ms for each expression and host. The groups above are
    made without them.
  - Variables for connections that this plugin does not set (C(ansible_ssh_private_key_file),
    C(ansible_ssh_common_args) for a jump host) belong into C(group_vars), as do other values for
    C(ansible_ssh_pipelining) and C(ansible_host_key_checking), which are on by the groups C(instances) and
    C(servers).
seealso:
  - plugin: elephaas.herd.selected
    plugin_type: lookup
"""

EXAMPLES = r"""
# herds.yml: the registry is named by environment variables (ELEPHAAS_REGISTRY_DSN, or PGHOST and so on)
plugin: elephaas.herd.herds

---
# a registry with a standby: whichever accepts connections is asked
plugin: elephaas.herd.herds
dsn: host=registry-a.example.com,registry-b.example.com dbname=admin user=elephaas_reader
password: "{{ lookup('ansible.builtin.env', 'REGISTRY_PASSWORD') }}"

---
# prod.herds.yml: the production herds of one site, with groups of one's own
plugin: elephaas.herd.herds
host: registry.example.com
environments: [prod]
datacenters: [chicago]
groups:
  lagging: (elephaas_lag_bytes or 0) > 100 * 1024 * 1024
keyed_groups:
  - key: elephaas_os_user
    prefix: os_user
compose:
  site: elephaas_datacenter | upper

# What became of it, and what is known of an instance:
#   ansible-inventory --graph leads
#   ansible-inventory --host trading_prod@chi-db1
"""

import hashlib
import json
import os
import time
import typing as t
from pathlib import Path

from ansible import constants as C
from ansible.errors import AnsibleError, AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable

from ansible_collections.elephaas.herd.plugins.module_utils.decide import names
from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.filters import Filters, parse_filters
from ansible_collections.elephaas.herd.plugins.plugin_utils import snapshot
from ansible_collections.elephaas.herd.plugins.plugin_utils.action import plain
from ansible_collections.elephaas.herd.plugins.plugin_utils.inventory import DocumentError, Model, build
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import REGISTRY_ARGUMENT_SPEC, connect
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.inventory import read_inventory
from ansible_collections.elephaas.herd.plugins.plugin_utils.trust import Marker

NOT_SET_UP = ("REGISTRY_DATABASE_MISSING", "REGISTRY_SCHEMA_MISSING", "REGISTRY_SCHEMA_OLD")
"""Errors of a registry that answers, but is not set up (yet)."""

CONSTRUCTED = ("compose", "groups", "keyed_groups")
"""Options of ansible.builtin.constructed that hold expressions, evaluated for each host."""

FILTERS = (
    "environments", "datacenters", "herds", "roles", "versions", "version_below", "lag_above", "online", "offline",
    "without_dr_pair", "unassigned",
)  # fmt: skip
"""Options that say what is wanted; they mean what they mean to the role elephaas.herd.status."""

FILE_NAMES = ("herds.yml", "herds.yaml")


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """Entry point for Ansible."""

    NAME = "elephaas.herd.herds"

    def verify_file(self, path: str) -> bool:
        """Whether the file has one of our names."""
        name = os.path.basename(path)
        ours = name in FILE_NAMES or name.endswith(tuple(f".{ending}" for ending in FILE_NAMES))
        return ours and super().verify_file(path)

    def parse(self, inventory: t.Any, loader: t.Any, path: str, cache: bool = True) -> None:
        """Fill the inventory. Raises AnsibleParserError when there is neither a registry nor a snapshot."""
        super().parse(inventory, loader, path, cache)
        self._resolve_options(self._read_config_data(path))
        connection_options = {name: self.get_option(name) for name in REGISTRY_ARGUMENT_SPEC}
        document, source = self._document(path, cache, connection_options)
        if document is None:
            model = Model()
        else:
            try:
                model = build(document, self._filters())
            except DocumentError as error:
                raise AnsibleParserError(f"What the {source} holds cannot be read: {error}") from error
        for warning in model.warnings:
            self.display.warning(warning)
        self._fill(model, source)

    def _resolve_options(self, config: dict[str, t.Any]) -> None:
        """Options may be templates in the file (lookups, extra variables), but for those that are templates per host.

        Before they get their types: a path would be made absolute, braces and all.
        """
        self.templar.available_variables = self._vars
        resolved = {
            name: value if name in CONSTRUCTED else self.templar.template(value) for name, value in config.items()
        }
        self.set_options(direct=resolved, var_options=self._vars)

    def _filters(self) -> Filters:
        try:
            return parse_filters({name: self.get_option(name) for name in FILTERS})
        except OperatorError as error:
            raise AnsibleParserError(error.as_result()["msg"]) from error

    def _document(
        self, path: str, cache: bool, connection_options: dict[str, t.Any]
    ) -> tuple[dict[str, t.Any] | None, str]:
        """The document and where it is from; None where the registry is not set up."""
        self.load_cache_plugin()
        # Core's key covers the path only: another registry in the same file must not be answered from the cache.
        public = {name: value for name, value in connection_options.items() if name != "password"}
        key = self.get_cache_key(path) + hashlib.sha256(json.dumps(public, default=str).encode()).hexdigest()[:16]
        if cache and self.get_option("cache"):
            try:
                return self._cache[key], "registry"
            except KeyError:
                pass  # expired, or never read
        document, source = self._read(connection_options)
        if self.get_option("cache") and source == "registry" and document is not None:
            self._cache[key] = document
        return document, source

    def _read(self, connection_options: dict[str, t.Any]) -> tuple[dict[str, t.Any] | None, str]:
        kept = self._snapshot_path(connection_options) if self.get_option("snapshot") else None
        try:
            connection = connect(connection_options)
            try:
                document = read_inventory(connection, connection_options["schema"])
            finally:
                connection.close()
        except OperatorError as error:
            if error.code in NOT_SET_UP:
                self.display.warning(
                    f"The inventory is empty: {error.as_result()['msg']} Set the registry up with the playbook "
                    "elephaas.herd.registry_load (or the module elephaas.herd.registry_schema)."
                )
                return None, "registry"
            return self._fall_back(kept, error), "snapshot"
        # A registry that lost its content must not take the snapshot along.
        if kept and document["instances"]:
            try:
                snapshot.save(kept, document)
            except snapshot.SnapshotError as error:
                self.display.warning(f"Should the registry be lost, there will be no inventory: {error}")
        return document, "registry"

    def _snapshot_path(self, connection_options: dict[str, t.Any]) -> Path:
        path = self.get_option("snapshot_path")
        return Path(path) if path else snapshot.default_path(C.ANSIBLE_HOME, connection_options, os.environ)

    def _fall_back(self, kept: Path | None, error: OperatorError) -> dict[str, t.Any]:
        reason = f"{error.reason} [{error.code}]"
        if kept is None:
            raise AnsibleParserError(f"{reason} The option snapshot is off, so there is no inventory.") from error
        try:
            found = snapshot.load(kept)
        except snapshot.SnapshotError as problem:
            raise AnsibleParserError(f"{reason} Nor is there a snapshot to go on with: {problem}.") from error
        age = found.age_s(time.time())
        old = ", which is OLD" if age > self.get_option("snapshot_max_age") else ""
        self.display.warning(
            f"THE REGISTRY CANNOT BE READ. {reason} This inventory is a snapshot of {snapshot.describe_age(age)} "
            f"ago{old} ({kept}). Servers and roles may have changed since; operations look at the servers themselves. "
            "What needs the registry refuses; a failover can go on with -e without_registry=true."
        )
        return found.document

    def _fill(self, model: Model, source: str) -> None:
        inventory = self.inventory
        for group in model.groups:
            inventory.add_group(group)
        model.group_variables.setdefault("all", {})["elephaas_inventory_source"] = Marker().text(source)
        for group, variables in model.group_variables.items():
            for name, value in variables.items():
                inventory.set_variable(group, name, value)
        for host, variables in model.hosts.items():
            # Not set_variable: from ansible-core 2.19 on it copies and tags every value once more; for 10,000 hosts
            # that costs more than all the rest of this plugin. These are plain JSON values, already marked as data.
            inventory.get_host(inventory.add_host(host)).vars.update(variables)
        for group, hosts in model.groups.items():
            for host in hosts:
                inventory.add_child(group, host)
        self._construct(model)

    def _construct(self, model: Model) -> None:
        compose, groups, keyed = (self.get_option(name) for name in CONSTRUCTED)
        if not (compose or groups or keyed):
            return
        strict = self.get_option("strict")
        mark = Marker()
        own = _OwnNames(model)
        unfit: dict[str, str] = {}
        # Core's helpers name every group that they make through this attribute.
        self._sanitize_group_name = own.safe
        for name in model.hosts:
            host = self.inventory.get_host(name)
            variables = host.get_vars()
            self._set_composite_vars(compose, variables, name, strict=strict)
            for composed in compose or ():
                if composed in host.vars:
                    # It was made from what the registry holds, so it is data as well: an expression can put two harmless
                    # texts together to a template, and it takes the mark of a text away.
                    host.vars[composed] = mark.data(plain(host.vars[composed]))
            self._add_host_to_composed_groups(groups, variables, name, strict=strict)
            for entry in keyed or ():
                try:
                    self._add_host_to_keyed_groups([entry], variables, name, strict=strict)
                except AnsibleError as error:
                    if strict:
                        raise
                    # Core raises where a value can be no name, whatever strict says: ansible-core 2.16 reads the text
                    # `True` as a boolean. A row must not take the inventory of all others away.
                    unfit.setdefault(str(error), name)
        for reason, first in unfit.items():
            self.display.warning(f"A group of keyed_groups is not made for some hosts, the first is {first}: {reason}")
        for taken in sorted(own.refused):
            self.display.warning(
                f"The group {taken!r} of a user's expression is called {own.safe(taken)!r}: the inventory has a group or a "
                "host of that name, and what is in it comes from the registry alone."
            )


class _OwnNames:
    """Names for groups of the user's expressions, which may be made from any text that the registry holds.

    Ansible templates the names of groups where a play shows them, and a row that could name a group could put its host
    into `leads` or `env_prod`. So these names hold letters, digits and underscores, and are none of the inventory's own.
    """

    def __init__(self, model: Model) -> None:
        # Every host is in `all` anyway, and none stays in `ungrouped`.
        self._taken = {*names.FIXED_GROUPS, *model.groups, *model.hosts} - {"all", "ungrouped"}
        self.refused: set[str] = set()

    def safe(self, name: str, *_arguments: t.Any, **_options: t.Any) -> str:
        """The name that the group gets. Takes the arguments of ansible.inventory.group.to_safe_group_name."""
        cleaned = names.group_name(name) or "_"
        if cleaned in self._taken:
            self.refused.add(cleaned)
            return f"{cleaned}_"
        return cleaned
