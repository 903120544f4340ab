# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action plugin that runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_server
author:
  - the elephaas.herd authors (@elephaas)
version_added: 1.0.0
short_description: Have a server in the registry
description:
  - Adds, changes, renames or removes one server.
  - Before a new one is recorded, or another way to reach one, it is logged in to over ssh from here, and a Python is looked for.
    When that fails, nothing is recorded, and the error says why, which public key to install, and where.
  - With a server go all instances on it. What streamed from them then has no upstream.
options:
  name:
    description: Its name. Letters, digits, V(_), V(.) and V(-), starting with a letter or a digit, at most 63 characters.
    type: str
    required: true
  new_name:
    description:
      - Its name from now on. Its instances in the inventory are called by it too, and the history of operations names it so.
      - Nothing changes when O(name) is gone and O(new_name) is there.
    type: str
  environment:
    description: Its environment, which has to be there. A new server needs one.
    type: str
  address:
    description:
      - Address or DNS name that ssh and other members connect to. Its name when there is none.
      - When it changes, the data center follows from it, if a network holds it.
    type: str
  datacenter:
    description: Its data center, which has to be there. Follows from O(address) when not given, or when empty.
    type: str
  ssh_port:
    description: Port of its sshd. V(22) for a new one.
    type: int
  ssh_user:
    description: Account to log in to. V(postgres) for a new one.
    type: str
  dns_name:
    description: Its own name in DNS, which a vhost can be an alias of.
    type: str
  check_ssh:
    description:
      - Log in to a server that is new, or has another address, port or user, before it is recorded. In check mode too.
      - Uses the variables of a host of this name when the inventory has one, else the connection variables of this play
        (keys, jump hosts, C(ansible_ssh_common_args)), but for address, port and user, which are the record's.
    type: bool
    default: true
  ssh_timeout:
    description: Seconds to wait for the connection.
    type: float
    default: 10.0
extends_documentation_fragment:
  - elephaas.herd.record
  - elephaas.herd.record.force
  - elephaas.herd.registry
  - elephaas.herd.attributes
  - elephaas.herd.attributes.controller
attributes:
  check_mode:
    support: full
    details: Decides by the same rules on the same records, and changes nothing. It logs in as well.
  diff_mode:
    support: full
  connection:
    support: partial
    details: O(check_ssh) uses the connection settings of the given server, not of the host that the task runs for.
seealso:
  - module: elephaas.herd.registry_datacenter
  - module: elephaas.herd.registry_instance
  - module: elephaas.herd.reachable_info
"""

EXAMPLES = r"""
- name: Have a server, in the data center that its address tells
  elephaas.herd.registry_server:
    name: chi-db1
    environment: prod
    address: 10.10.0.11

- name: Record one that is not installed yet
  elephaas.herd.registry_server:
    name: chi-db2
    environment: prod
    address: 10.10.0.12
    check_ssh: false

- name: Reach it through a jump host, which its DNS name is not known to
  elephaas.herd.registry_server:
    name: nyc-db1
    environment: prod
    address: 10.20.0.11
    dns_name: ""
  vars:
    ansible_ssh_common_args: -o ProxyJump=gate.example.com

- name: Give it another name
  elephaas.herd.registry_server:
    name: nyc-db1
    new_name: nyc-db7

- name: Remove a server and all instances on it
  elephaas.herd.registry_server:
    name: nyc-db7
    state: absent
    cascade: true
"""

RETURN = r"""
record:
  description: The record as it is afterwards, null when it is not there.
  type: dict
  returned: success
  sample: {name: chi-db1, environment: prod, address: 10.10.0.11, datacenter: chicago, ssh_port: 22, ssh_user: postgres, dns_name: null}
removed:
  description: What was removed, or would be in check mode, the record itself included.
  type: list
  elements: str
  returned: success
  sample: ['instance trading_prod@nyc-db7', 'server nyc-db7']
affected:
  description: What changed along with it, or got another name, in words.
  type: list
  elements: str
  returned: success
  sample: ['instance trading_prod@nyc-db2: upstream nyc-db7 becomes none']
changes:
  description: All that was changed, each with C(action) (V(add), V(change), V(remove) or V(rename)), C(kind), C(name), C(before) and C(after).
  type: list
  elements: dict
  returned: success
"""
