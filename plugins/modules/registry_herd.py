# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action plugin that runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_herd
author:
  - the elephaas.herd authors (@elephaas)
version_added: 1.0.0
short_description: Have a herd in the registry
description:
  - Adds, changes, renames, moves or removes one herd. A new one has no members yet, see M(elephaas.herd.registry_instance).
  - With a herd go its instances.
options:
  environment:
    description: The environment that it belongs to, which has to be there.
    type: str
    required: true
  name:
    description: Its name. Unique in its environment. Letters, digits, V(_), V(.) and V(-), starting with a letter or a digit, at most 63 characters.
    type: str
    required: true
  new_name:
    description:
      - Its name from now on. Its group and its instances in the inventory are called by it too, and its history is found under it. O(base_name) stays.
      - Nothing changes when O(name) is gone and O(new_name) is there.
    type: str
  new_environment:
    description: The environment that it belongs to from now on, which has to be there. Its members stay on their servers.
    type: str
  db_port:
    description: Port of its instances. V(5432) for a new one. Members without a port of their own move along.
    type: int
  pgdata:
    description: Data directory of its instances, an absolute path. A new herd needs one. Members without a directory of their own move along.
    type: str
  vhost:
    description: DNS name that applications use for its primary.
    type: str
  description:
    description: For people.
    type: str
  os_user:
    description: Account that owns its instances. V(postgres) for a new one.
    type: str
  control:
    description: How its instances are started and stopped, see O(elephaas.herd.instance#module:control). V(auto) for a new one.
    type: str
    choices: [auto, pg_ctl, pg_ctlcluster]
  replication_user:
    description: Role that its replicas connect as.
    type: str
  base_name:
    description: Its name for operating system tools. Its name in lower case, when it is new or when this is empty.
    type: str
extends_documentation_fragment:
  - elephaas.herd.record
  - elephaas.herd.record.force
  - elephaas.herd.registry
  - elephaas.herd.attributes
  - elephaas.herd.attributes.controller
attributes:
  check_mode:
    support: full
    details: Decides by the same rules on the same records, and changes nothing.
  diff_mode:
    support: full
seealso:
  - module: elephaas.herd.registry_instance
  - module: elephaas.herd.registry_environment
  - module: elephaas.herd.registry_fleet
"""

EXAMPLES = r"""
- name: Have a herd
  elephaas.herd.registry_herd:
    environment: prod
    name: trading
    pgdata: /var/lib/postgresql/15/trading
    vhost: trading-db.prod.example.com

- name: It has no DNS name any more
  elephaas.herd.registry_herd:
    environment: prod
    name: trading
    vhost: ""

- name: Move it to another environment, under another name
  elephaas.herd.registry_herd:
    environment: stage
    name: billing-next
    new_environment: prod
    new_name: billing

- name: Remove it with its members
  elephaas.herd.registry_herd:
    environment: prod
    name: trading
    state: absent
    cascade: true
"""

RETURN = r"""
record:
  description: The record as it is afterwards, null when it is not there.
  type: dict
  returned: success
  sample: {environment: prod, name: trading, port: 5432, pgdata: /var/lib/postgresql/15/trading, vhost: trading-db.prod.example.com, os_user: postgres}
removed:
  description: What was removed, or would be in check mode, the record itself included.
  type: list
  elements: str
  returned: success
  sample: ['instance trading_prod@chi-db1', 'herd trading_prod']
affected:
  description: What changed along with it, or got another name, in words.
  type: list
  elements: str
  returned: success
  sample: ['instance billing-next_stage@chi-db1 becomes billing_prod@chi-db1']
changes:
  description: All that was changed, each with C(action) (V(add), V(change), V(remove) or V(rename)), C(kind), C(name), C(before) and C(after).
  type: list
  elements: dict
  returned: success
"""
