# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action plugin that runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_datacenter
author:
  - the elephaas.herd authors (@elephaas)
version_added: 1.0.0
short_description: Have a data center in the registry
description:
  - Adds, changes, renames or removes one data center.
  - A server whose data center follows from its address goes on following, when networks come, change or go. RV(affected) names it.
options:
  name:
    description: Its name. Letters, digits, V(_), V(.) and V(-), starting with a letter or a digit, at most 63 characters.
    type: str
    required: true
  new_name:
    description:
      - Its name from now on. Its group in the inventory is called by it too.
      - Nothing changes when O(name) is gone and O(new_name) is there.
    type: str
  networks:
    description:
      - Its networks, such as V(10.10.0.0/16). A server belongs to the data center with the most specific network that holds its address, unless
        it is given one.
      - An empty list takes all of them away.
    type: list
    elements: str
  description:
    description: For people.
    type: str
extends_documentation_fragment:
  - elephaas.herd.record
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
  - module: elephaas.herd.registry_server
  - module: elephaas.herd.registry_fleet
"""

EXAMPLES = r"""
- name: Have a data center
  elephaas.herd.registry_datacenter:
    name: chicago
    networks: [10.10.0.0/16, 'fd00:10::/32']

- name: Remove one, its servers then have none
  elephaas.herd.registry_datacenter:
    name: newyork
    state: absent
    cascade: true
"""

RETURN = r"""
record:
  description: The record as it is afterwards, null when it is not there.
  type: dict
  returned: success
  sample: {name: chicago, networks: [10.10.0.0/16], description: null}
removed:
  description: What was removed, or would be in check mode, the record itself included.
  type: list
  elements: str
  returned: success
  sample: ['datacenter newyork']
affected:
  description: What changed along with it, or got another name, in words.
  type: list
  elements: str
  returned: success
  sample: ['server nyc-db1: datacenter newyork becomes none']
changes:
  description: All that was changed, each with C(action) (V(add), V(change), V(remove) or V(rename)), C(kind), C(name), C(before) and C(after).
  type: list
  elements: dict
  returned: success
"""
