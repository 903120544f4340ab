# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action plugin that runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bulk_run
author:
  - the elephaas.herd authors (@elephaas)
version_added: 1.0.0
short_description: Carry out a bulk plan on one herd
description:
  - Takes the herd's lease in the registry, brings one instance after the other to the state that the plan says, and
    records what became of it. The herd is that of the host the task runs for, whichever of its members that is.
  - Under the lease the herd is looked at and decided once more, in any case for a start, a promotion and a demotion, and
    otherwise if the plan is older than 30 seconds. Where the plan would be another one by now, or would have to be agreed to, nothing is
    done.
  - Each step is one run on the instance's host. It sees first that the instance is still as it was when the plan was made,
    claims the instance for this operation, acts, sees the result, and gives the claim back.
  - The first step that fails ends the herd's plan. The result then holds the end of that PostgreSQL's log.
  - A run that dies leaves at most one turn of each herd begun, and the same command starts afresh from what it finds.
options:
  plan:
    description: The plan of this herd, from RV(elephaas.herd.bulk_plan_info#module:plans).
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
    description: Go without the registry, as the plan was made.
    type: bool
    default: false
  takeover:
    description: Without the registry, take over a claim on a host before its lease has run out.
    type: bool
    default: false
  lease_s:
    description: For how long the herd stays locked after the last sign of life, in seconds. Longer than any single step.
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
  step_timeout:
    description: How long each of stopping, starting and streaming again may take for one instance, in seconds.
    type: int
    default: 60
  max_failures:
    description:
      - How many herds may fail (V(2), or V(10%) of those in the play) before no further one is begun. V(0) begins no other
        after the first failure. Herds that are already being worked on go on. Empty for no limit.
    type: str
    default: ''
  earlier:
    description: Name of the variable that this task registers, to count the failures so far for O(max_failures).
    type: str
    default: ''
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
    details: Uses the connection settings of the instances in the plan, not of the host that the task runs for.
seealso:
  - module: elephaas.herd.bulk_plan_info
  - module: elephaas.herd.bulk_report
"""

EXAMPLES = r"""
- name: Carry out the plan of this herd
  elephaas.herd.bulk_run:
    plan: "{{ decided.plans[elephaas_herd_group] }}"
    plan_id: "{{ gate.plan_id }}"
    max_failures: 10%
    earlier: ran
  when: gate.proceed
  register: ran
  ignore_errors: true
"""

RETURN = r"""
did:
  description: What was done to each instance, in words. Empty where it was as it should be.
  type: dict
  returned: when the herd was begun
  sample: {trading_prod@nyc-db1: ['restarted (fast) the replica, process 1201']}
left:
  description:
    - What is not as it was wished, by instance, each with C(code) and C(reason). After a demotion V(DIVERGED), for an instance that
      holds what its primary does not have, with C(since) (the position at which they part), C(bytes) of WAL and C(commits) past that,
      null where they are not known.
  type: dict
  returned: when the herd was begun
failures:
  description: Each failed step, with C(name), C(code), C(msg) and C(log_tail), the last lines that the server has logged.
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
"""
