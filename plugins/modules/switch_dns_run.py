# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action plugin that runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: switch_dns_run
author:
  - the elephaas.herd authors (@elephaas)
version_added: 1.0.0
short_description: Make the DNS name of a herd lead to its live primary
description:
  - Takes the herd's lease in the registry, so that no failover is under way meanwhile, looks and decides once more, and sends one
    signed update with what the plan has shown as its prerequisite. Then reads the name back from every authoritative server. The
    herd is that of the host the task runs for.
  - Where the plan would be another one by now, nothing is done.
options:
  plan:
    description: The plan of this herd, from RV(elephaas.herd.switch_dns_plan_info#module:plans).
    type: dict
    required: true
  plan_id:
    description: The id that was agreed to, from RV(elephaas.herd.gate#module:plan_id).
    type: str
    required: true
  operator:
    description: Who acts, for the history. If empty, the user of AWX, else the account that runs Ansible.
    type: str
    default: ''
  without_registry:
    description: Go without the registry, as the plan was made. The update's prerequisite then is what keeps two runs apart.
    type: bool
    default: false
  lease_s:
    description: For how long the herd stays locked after the last sign of life, in seconds.
    type: int
    default: 300
  timeout:
    description: How long to wait for a connection to a host, in seconds.
    type: float
    default: 5.0
  look_timeout:
    description: How long to wait for the answer of one PostgreSQL server, in seconds.
    type: float
    default: 10.0
  wait_s:
    description: How long to wait for all authoritative servers to answer what was written, in seconds.
    type: float
    default: 10.0
  dns:
    description: How to reach the DNS update server; the options of M(elephaas.herd.dns_repoint).
    type: dict
  registry:
    description: How to reach the registry; the options of M(elephaas.herd.registry_info).
    type: dict
extends_documentation_fragment:
  - elephaas.herd.attributes
  - elephaas.herd.attributes.controller
attributes:
  check_mode:
    support: none
    details: The plan is the rehearsal. The task is skipped.
  diff_mode:
    support: none
  connection:
    support: full
    details: Uses the connection settings of the herd's instances, not of the host that the task runs for.
seealso:
  - module: elephaas.herd.switch_dns_plan_info
  - module: elephaas.herd.bulk_report
"""

EXAMPLES = r"""
- name: Carry out the plan of this herd
  elephaas.herd.switch_dns_run:
    plan: "{{ decided.plans[elephaas_herd_group] }}"
    plan_id: "{{ gate.plan_id }}"
  when: gate.proceed
  register: ran
  ignore_errors: true
"""

RETURN = r"""
did:
  description: What was done to the name, in words. Empty where it was as it should be.
  type: dict
  returned: when the herd was begun
  sample: {trading-db.prod.example.com: ['10.10.0.11 -> 10.20.0.11; resolvers may answer the old value until 2026-01-31 09:13:04 UTC']}
note:
  description: The same with warnings, such as a name server that does not answer, as one text.
  type: str
  returned: when the herd was begun
failures:
  description: What went wrong, with C(name), C(code) and C(msg).
  type: list
  elements: dict
  returned: when the herd was begun
seconds:
  description: How long it took.
  type: float
  returned: when the herd was begun
unrecorded:
  description: Why the end could not be put on record. Empty when it was.
  type: str
  returned: when the herd was begun
dns:
  description: What M(elephaas.herd.dns_repoint) returns for such a change.
  type: dict
  returned: when something was to be changed
"""
