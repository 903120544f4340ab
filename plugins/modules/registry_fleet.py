# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action plugin that runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_fleet
author:
  - the elephaas.herd authors (@elephaas)
version_added: 1.0.0
short_description: Load a whole fleet file into the registry
description:
  - Makes the registry hold the environments, data centers, servers, herds and members of a fleet file, in one transaction.
  - Everything that is wrong with the file is reported at once, each with its place, its value and what is allowed.
  - A fleet file is complete in itself. What it mentions (an environment, a server) it also declares.
options:
  state:
    description:
      - With V(merged), what the file holds is added or changed, and everything else stays. The recorded roles and upstreams of
        a herd that was seen running or operated on stay too, because a file's order of members says who was to be primary
        on the day it was written; where the file says otherwise, that is a warning.
      - With V(overridden), the registry holds exactly the file afterwards, roles included. What is not in the file is removed.
    type: str
    choices: [merged, overridden]
    default: merged
  fleet:
    description: The fleet. Exactly one of this and O(fleet_file) is required.
    type: dict
    suboptions:
      environments:
        description: Name to C(protected) (boolean, V(false)) and C(description).
        type: dict
      datacenters:
        description: Name to C(networks) (list of CIDR networks) and C(description).
        type: dict
      servers:
        description:
          - Name to C(environment) (required), C(address), C(datacenter), C(ssh_port) (V(22)), C(ssh_user) (V(postgres)) and C(dns_name).
          - The data center follows from the address, by the most specific network, when it is not given.
        type: dict
      herds:
        description:
          - Each with C(name), C(environment), C(pgdata) (all required), C(port) (V(5432)), C(vhost), C(description),
            C(os_user) (V(postgres)), C(control) (V(auto), V(pg_ctl) or V(pg_ctlcluster)), C(replication_user), C(base_name) (the name for
            operating system tools, by default the name in lower case), and C(members).
          - Each member has a C(server), and may have C(role) (V(primary), V(replica), V(detached) or V(superseded)), C(upstream) (a server), C(pgdata),
            C(port) and C(priority) (V(0) to V(1000), V(0)).
          - The first member is the primary unless another one says so. The upstream of a replica is the primary unless it says otherwise.
        type: list
        elements: dict
  fleet_file:
    description: Path of a YAML file with the fleet; relative to the directory where Ansible was started, else to the playbook. May be vaulted.
    type: path
  force:
    description:
      - With O(state=overridden), also remove instances that are recorded as online, remove from herds with an open operation, and record other
        roles for herds that were seen running.
    type: bool
    default: false
extends_documentation_fragment:
  - elephaas.herd.registry
  - elephaas.herd.attributes
  - elephaas.herd.attributes.controller
attributes:
  check_mode:
    support: full
    details: Compares with what the registry holds, past pending migrations if there are any, and changes nothing.
  diff_mode:
    support: full
seealso:
  - module: elephaas.herd.registry_info
  - module: elephaas.herd.registry_schema
"""

EXAMPLES = r"""
- name: Load a fleet
  elephaas.herd.registry_fleet:
    fleet_file: fleet.yml

- name: Make the registry hold exactly this
  elephaas.herd.registry_fleet:
    state: overridden
    fleet:
      environments: {prod: {protected: true}}
      datacenters: {chicago: {networks: [10.10.0.0/16]}, newyork: {networks: [10.20.0.0/16]}}
      servers:
        chi-db1: {environment: prod, address: 10.10.0.11}
        nyc-db1: {environment: prod, address: 10.20.0.11}
      herds:
        - name: trading
          environment: prod
          pgdata: /var/lib/postgresql/15/trading
          vhost: trading-db.prod.example.com
          members:
            - {server: chi-db1}
            - {server: nyc-db1}
"""

RETURN = r"""
changes:
  description: What was changed, or would be in check mode. The diff shows the same.
  type: list
  elements: dict
  returned: success
  contains:
    action:
      description: V(add), V(change) or V(remove).
      type: str
    kind:
      description: V(environment), V(datacenter), V(server), V(herd) or V(instance).
      type: str
    name:
      description: Its name, such as V(trading_prod@chi-db1).
      type: str
    before:
      description: What was recorded; only the fields that differ when something is changed.
      type: dict
    after:
      description: What is recorded now; only the fields that differ when something is changed.
      type: dict
removed:
  description: What was removed, or would be in check mode.
  type: list
  elements: str
  returned: success
  sample: ['instance trading_prod@nyc-db2']
"""
