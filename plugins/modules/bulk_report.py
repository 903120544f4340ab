# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action plugin that runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bulk_report
author:
  - the elephaas.herd authors (@elephaas)
version_added: 1.0.0
short_description: Show how each herd of a bulk operation ended
description:
  - Prints the failures, each with the end of that PostgreSQL's log, and then one table with a line for each herd, problems
    first.
  - Reports on M(elephaas.herd.switch_dns_run) as well; what it counts then are DNS names.
options:
  hosts:
    description: Inventory names of the hosts that M(elephaas.herd.bulk_run) ran for.
    type: list
    elements: str
    required: true
  plans:
    description: The plans, RV(elephaas.herd.bulk_plan_info#module:plans).
    type: dict
    required: true
  plan_id:
    description: Their common id.
    type: str
    required: true
  result_variable:
    description: Name of the variable that M(elephaas.herd.bulk_run) was registered as.
    type: str
    required: true
  output_file:
    description: Also write the outcomes to this file as JSON, readable by its owner only. Empty for none.
    type: str
    default: ''
extends_documentation_fragment:
  - elephaas.herd.attributes
  - elephaas.herd.attributes.controller
attributes:
  check_mode:
    support: full
    details: Reports what a rehearsal found.
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Show how each herd ended
  elephaas.herd.bulk_report:
    hosts: "{{ ansible_play_hosts_all }}"
    plans: "{{ decided.plans }}"
    plan_id: "{{ gate.plan_id }}"
    result_variable: ran
  run_once: true
"""

RETURN = r"""
outcomes:
  description:
    - One entry per herd with C(herd), C(verb), C(outcome), C(reason), C(plan_id), C(planned) and C(changed) (numbers of
      instances), C(seconds), C(did) and C(failures).
    - RV(ignore:outcome) is V(done), V(nothing to do), V(rehearsed), V(refused), V(not begun), V(incomplete) (an instance had
      to be left out, or the end is not on record) or V(failed).
  type: list
  elements: dict
  returned: success
unfinished:
  description: The herds that are not done; empty when the run may end green.
  type: list
  elements: str
  returned: success
"""
