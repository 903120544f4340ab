# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action plugin that runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: failover_report
author:
  - the elephaas.herd authors (@elephaas)
version_added: 1.0.0
short_description: Show how each herd of a failover ended
description:
  - Prints one line per herd, what needs attention first.
  - Reads the facts that the role P(elephaas.herd.failover#role) leaves on the leads.
options:
  hosts:
    description: Inventory names of the leads of the run.
    type: list
    elements: str
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
  elephaas.herd.failover_report:
    hosts: "{{ ansible_play_hosts_all }}"
    output_file: /tmp/failover.json
  run_once: true
"""

RETURN = r"""
outcomes:
  description:
    - One entry per herd with C(herd), C(outcome), C(reason), C(plan_id) and C(gap_s), the seconds without a writable primary.
    - RV(ignore:outcome) is V(done), V(already done), V(rehearsed), V(refused), V(aborted) (nothing has changed) or V(incomplete).
  type: list
  elements: dict
  returned: success
unfinished:
  description: The herds that are not done; empty when the run may end green.
  type: list
  elements: str
  returned: success
"""
