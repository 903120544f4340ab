# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action plugin that runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_instance
author:
  - the elephaas.herd authors (@elephaas)
version_added: 1.0.0
short_description: Have a member of a herd in the registry
description:
  - Adds, changes or removes one instance, the member that a herd has on a server.
  - An instance is named by its herd and its server, and has no other name. One on another server is another instance, so add that and remove this.
  - To move a primary, use the playbook C(elephaas.herd.failover). What is recorded here is what the registry says, not what PostgreSQL does.
options:
  environment:
    description: Environment of its herd.
    type: str
    required: true
  herd:
    description: Name of its herd, which has to be there.
    type: str
    required: true
  server:
    description: The server that it is on, which has to be there.
    type: str
    required: true
  role:
    description:
      - Its recorded role. The first member of a herd is V(primary), others are V(replica), unless this says otherwise.
      - A herd has one primary at most.
    type: str
    choices: [primary, replica, detached, superseded]
  upstream:
    description: The server whose instance it streams from. The primary, when it becomes a replica and this is not given.
    type: str
  db_port:
    description: Its port, where it differs from the herd's. Give the herd's port to follow that again.
    type: int
  pgdata:
    description: Its data directory, where it differs from the herd's. Empty to follow that again.
    type: str
  priority:
    description: Who is preferred when a new primary is chosen among equals, V(0) to V(1000), the highest first. V(0) for a new one.
    type: int
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
  - module: elephaas.herd.registry_herd
  - module: elephaas.herd.registry_server
"""

EXAMPLES = r"""
- name: Have a primary
  elephaas.herd.registry_instance:
    environment: prod
    herd: trading
    server: chi-db1

- name: Have a replica of it, with a directory of its own
  elephaas.herd.registry_instance:
    environment: prod
    herd: trading
    server: nyc-db1
    pgdata: /srv/trading

- name: Have one that streams from that replica
  elephaas.herd.registry_instance:
    environment: prod
    herd: trading
    server: nyc-db2
    upstream: nyc-db1

- name: Remove a member, and let those that streamed from it go
  elephaas.herd.registry_instance:
    environment: prod
    herd: trading
    server: nyc-db1
    state: absent
    cascade: true
"""

RETURN = r"""
record:
  description: The record as it is afterwards, null when it is not there.
  type: dict
  returned: success
  sample: {environment: prod, herd: trading, server: nyc-db2, role: replica, upstream: nyc-db1, port: 5432, pgdata: /srv/trading, priority: 0}
removed:
  description: What was removed, or would be in check mode, the record itself included.
  type: list
  elements: str
  returned: success
  sample: ['instance trading_prod@nyc-db1']
affected:
  description: What changed along with it, or got another name, in words.
  type: list
  elements: str
  returned: success
  sample: ['instance trading_prod@nyc-db2: upstream nyc-db1 becomes none']
changes:
  description: All that was changed, each with C(action) (V(add), V(change), V(remove) or V(rename)), C(kind), C(name), C(before) and C(after).
  type: list
  elements: dict
  returned: success
"""
