# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action plugin that runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gate
author:
  - the elephaas.herd authors (@elephaas)
version_added: 1.0.0
short_description: Show the plan for all selected herds and ask once
description:
  - Prints the plans of all selected herds, the refused ones first, and their common id as C(plan id), a V(p) and eight hex digits.
  - Lets the run pass when O(confirm) is that id, or V(yes) where no herd of a protected environment has a plan, or when a person at a
    terminal types either. Everywhere else it fails, and says with which id to run it again.
  - Where no plan asks for it (a reload outside protected environments, for example), nobody has to agree.
  - The id covers decisions (who is promoted, what DNS changes, what happens to whom), never positions, so it stays the same from one
    look to the next unless the situation calls for another plan.
  - In check mode it prints and lets nothing pass.
options:
  plans:
    description:
      - The plan of every selected herd, from RV(elephaas.herd.failover_plan_info#module:plans) or
        RV(elephaas.herd.bulk_plan_info#module:plans).
    type: list
    elements: dict
    required: true
  confirm:
    description: The plan id from a rehearsal, or V(yes). Empty means that a person is asked.
    type: str
    default: ''
  seconds:
    description: How long to wait for the answer of a person, in seconds. No answer is a refusal.
    type: int
    default: 300
extends_documentation_fragment:
  - elephaas.herd.attributes
  - elephaas.herd.attributes.controller
attributes:
  check_mode:
    support: full
    details: Prints the plan and lets nothing pass.
  diff_mode:
    support: none
notes:
  - Nobody is asked under AWX, Tower or ansible-runner, which offer a terminal at which nobody sits.
"""

EXAMPLES = r"""
- name: Show what is going to happen, and ask
  elephaas.herd.gate:
    plans: "{{ ansible_play_hosts | map('extract', hostvars, ['failover_decided', 'plan']) | list }}"
    confirm: "{{ confirm | default('') }}"
  run_once: true
  register: failover_gate
"""

RETURN = r"""
plan_id:
  description: The id over the decisions for all herds.
  type: str
  returned: always
  sample: p3f09ac12
proceed:
  description: Whether the run may act.
  type: bool
  returned: success
reason:
  description: Why it may, or why there is nothing to do.
  type: str
  returned: success
"""
