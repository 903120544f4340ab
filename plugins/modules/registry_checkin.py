# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action plugin that runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_checkin
author:
  - the elephaas.herd authors (@elephaas)
version_added: 1.0.0
short_description: Record what was seen of herds, and reconcile what was done without the registry
description:
  - Records for each instance whether it is online, its version, system identifier, timeline, position, lag and upstream.
  - When exactly one member is writable, every other one that was reached is a replica, and the registry has another primary on
    record, the roles are recorded anew, with a C(failover) operation marked C(without_registry). That needs the recorded primary to be seen
    as a replica, or a record on the members' hosts of an operation that was finished; while an operation is open, it needs that record.
  - Everything else that does not fit is a mismatch, reported as a warning and never resolved silently.
options:
  observations:
    description: What was seen, one entry for each instance. Entries of one herd belong into one task, for roles are judged on the whole herd.
    type: list
    elements: dict
    required: true
    suboptions:
      herd:
        description: Name of the herd.
        type: str
        required: true
      environment:
        description: Environment of the herd.
        type: str
        required: true
      name:
        description: Inventory name of the instance. Not used here; it lets the same observation serve M(elephaas.herd.status_report).
        type: str
      server:
        description: Server of the instance.
        type: str
        required: true
      reachable:
        description: Whether its host was reached.
        type: bool
        required: true
      facts:
        description: The RV(elephaas.herd.instance_info#module:instance) of that instance.
        type: dict
      error:
        description: Why there are no facts.
        type: str
  operator:
    description: Who looked. By default the user of AWX, or the account that runs Ansible.
    type: str
extends_documentation_fragment:
  - elephaas.herd.registry
  - elephaas.herd.attributes
  - elephaas.herd.attributes.controller
attributes:
  check_mode:
    support: full
    details: Asks the registry in a transaction that is undone.
  diff_mode:
    support: full
seealso:
  - module: elephaas.herd.registry_operation
"""

EXAMPLES = r"""
- name: Record what was seen
  elephaas.herd.registry_checkin:
    observations:
      - herd: trading
        environment: prod
        server: chi-db1
        reachable: true
        facts: "{{ hostvars['trading_prod@chi-db1'].look.instance }}"
      - herd: trading
        environment: prod
        server: nyc-db1
        reachable: false
        error: No route to host
"""

RETURN = r"""
differences:
  description: What is recorded otherwise now. Positions, lag and the time of last sight are recorded too, but are no differences.
  type: list
  elements: dict
  returned: success
  contains:
    instance:
      description: Inventory name of the instance.
      type: str
    field:
      description: What differs, such as V(is_online) or V(role).
      type: str
    before:
      description: What was recorded.
      type: raw
    after:
      description: What is recorded now.
      type: raw
reconciled:
  description: Failovers that were recorded afterwards, each with C(herd), C(from_server), C(to_server), C(operation_id), C(plan_id) and C(roles).
  type: list
  elements: dict
  returned: success
mismatches:
  description:
    - What contradicts the record and stays as it is, each with C(herd), C(instance) (or none), C(code) and C(reason).
    - Codes are V(OTHER_PRIMARY), V(SPLIT_BRAIN), V(NO_PRIMARY), V(SYSTEM_IDENTIFIER), V(IDENTITY), V(INSTANCE_UNKNOWN), V(HERD_UNKNOWN), V(ROLES_REFUSED),
      and those of the registry's errors.
  type: list
  elements: dict
  returned: success
"""
