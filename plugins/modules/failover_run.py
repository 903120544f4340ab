# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action plugin that runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: failover_run
author:
  - the elephaas.herd authors (@elephaas)
version_added: 1.0.0
short_description: Carry out the failover of one herd, or some parts of it
description:
  - Conducts the herd of the current host, its lead, by the plan that M(elephaas.herd.failover_plan_info) made and M(elephaas.herd.gate)
    let pass. Parts that no hook runs between are best done by one task, which connects to each host once.
  - V(lock) takes the herd's lease, claims every member on its host, and decides once more. A plan that has changed is not carried out.
  - V(switch) arms, stops and promotes, and leads the vhost to the new primary. What fails before the promotion is undone.
  - V(vhost) leads the vhost there where V(switch) was told not to.
  - V(settle) sees every other member stream on the new timeline, and puts the end on record.
  - V(give_up) closes an operation that the play cannot go on with, such as after a hook that failed.
options:
  parts:
    description: What to do, in this order.
    type: list
    elements: str
    choices: [lock, switch, vhost, settle, give_up]
    required: true
  plan:
    description: The plan of this herd, from RV(elephaas.herd.failover_plan_info#module:plans). Needed for the part V(lock).
    type: dict
  plan_id:
    description: The id that was agreed to, from RV(elephaas.herd.gate#module:plan_id). Needed for the part V(lock).
    type: str
    default: ''
  operation:
    description: RV(operation) of the task before. Needed where the first part is not V(lock).
    type: dict
  update_dns:
    description: Whether the part V(switch) leads the vhost to the new primary at once.
    type: bool
    default: true
  fenced:
    description: Whether a hook of this run has fenced the lost primary.
    type: bool
    default: false
  trouble:
    description: What went wrong before, and keeps the failover from being over. For the part V(settle).
    type: list
    elements: str
    default: []
  reason:
    description: Why the play cannot go on. For the part V(give_up).
    type: str
    default: ''
  operator:
    description: Who acts, for the history. If empty, the user of AWX, else the account that runs Ansible.
    type: str
    default: ''
  lease_s:
    description: For how long the herd stays locked after the last sign of life, in seconds. Longer than any single step, and than any hook.
    type: int
    default: 180
  stop_timeout:
    description: How long the old primary may take to stop, in seconds.
    type: int
    default: 60
  deadline:
    description: After how many seconds the candidate gives up waiting for the old primary's last record.
    type: int
    default: 90
  follow_timeout:
    description: How long each other member may take until it is seen streaming from the new primary, in seconds.
    type: int
    default: 60
extends_documentation_fragment:
  - elephaas.herd.failover
  - elephaas.herd.attributes
  - elephaas.herd.attributes.controller
attributes:
  check_mode:
    support: none
    details: A rehearsal ends with the plan.
  diff_mode:
    support: none
seealso:
  - module: elephaas.herd.failover_plan_info
"""

EXAMPLES = r"""
- name: Fail the herd over
  elephaas.herd.failover_run:
    parts: [lock, switch, settle]
    plan: "{{ failover_plans.plans[elephaas_herd_group] }}"
    plan_id: "{{ failover_gate.plan_id }}"
  register: failover_settled
"""

RETURN = r"""
operation:
  description:
    - What the next part has to know, with C(token), C(plan) as decided under the lock, C(waiter), the record of the promotion as
      M(elephaas.herd.promote) has it, C(timeline) of the new primary, C(dns_trouble), and C(phases), each with its time in seconds since 1970.
  type: dict
  returned: success
ended:
  description: How the herd was left, with C(outcome) and C(reason).
  type: dict
  returned: after the part V(settle), and on failure
  sample: {outcome: done, reason: trading_prod@chi-db1 -> trading_prod@nyc-db1}
"""
