# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action plugin that runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_environment
author:
  - the elephaas.herd authors (@elephaas)
version_added: 1.0.0
short_description: Have an environment in the registry
description:
  - Adds, changes, renames or removes one environment, such as C(prod).
  - With an environment go its herds with their instances, and its servers with all instances on them, also those of other environments' herds.
options:
  name:
    description: Its name. Letters, digits, V(_), V(.) and V(-), starting with a letter or a digit, at most 63 characters.
    type: str
    required: true
  new_name:
    description:
      - Its name from now on. Its herds, their groups and their instances in the inventory are called by it too, and their history is found under it.
      - Nothing changes when O(name) is gone and O(new_name) is there.
    type: str
  protected:
    description: Whether what can do harm in it needs the id of a plan that was shown, not just a yes. V(false) in a new one.
    type: bool
  description:
    description: For people.
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
  - module: elephaas.herd.registry_fleet
  - module: elephaas.herd.registry_info
"""

EXAMPLES = r"""
- name: Have a protected environment
  elephaas.herd.registry_environment:
    name: prod
    protected: true

- name: Call it live from now on
  elephaas.herd.registry_environment:
    name: prod
    new_name: live

- name: See what would go with an environment
  elephaas.herd.registry_environment:
    name: stage
    state: absent
    cascade: true
  check_mode: true
  register: rehearsed

- name: Remove it with everything in it
  elephaas.herd.registry_environment:
    name: stage
    state: absent
    cascade: true
"""

RETURN = r"""
record:
  description: The record as it is afterwards, null when it is not there.
  type: dict
  returned: success
  sample: {name: prod, protected: true, description: null}
removed:
  description: What was removed, or would be in check mode, the record itself included.
  type: list
  elements: str
  returned: success
  sample: ['instance trading_stage@nyc-db1', 'herd trading_stage', 'environment stage']
affected:
  description: What changed along with it, or got another name, in words.
  type: list
  elements: str
  returned: success
  sample: ['herd trading_prod becomes trading_live']
changes:
  description: All that was changed, each with C(action) (V(add), V(change), V(remove) or V(rename)), C(kind), C(name), C(before) and C(after).
  type: list
  elements: dict
  returned: success
"""
