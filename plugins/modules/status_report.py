# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action plugin that runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: status_report
author:
  - the elephaas.herd authors (@elephaas)
version_added: 1.0.0
short_description: Show the fleet at a glance
description:
  - Prints one table of all observed instances, grouped by herd, with the herds that have problems first and their problems above it.
options:
  observations:
    description: What was seen, made by P(elephaas.herd.observation#filter).
    type: list
    elements: dict
    required: true
  reconciled:
    description: What the check-in has put right in the record, its RV(elephaas.herd.registry_checkin#module:reconciled); shown.
    type: list
    elements: dict
    default: []
  record_error:
    description: Why nothing could be put on record; shown. Empty when it could.
    type: str
    default: ''
  max_lag:
    description: A replica that is further behind is a problem, in bytes.
    type: int
    default: 16777216
  format:
    description: What to print.
    type: str
    choices: [table, json]
    default: table
  output_file:
    description: Also write the status to this file as JSON, readable by its owner only. Empty for none.
    type: str
    default: ''
extends_documentation_fragment:
  - elephaas.herd.attributes
  - elephaas.herd.attributes.controller
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Show the fleet
  elephaas.herd.status_report:
    observations: "{{ ansible_play_hosts_all | map('extract', hostvars) | map('elephaas.herd.observation', 'look', {}) }}"
  run_once: true
"""

RETURN = r"""
herds:
  description:
    - One entry per herd with C(herd), C(environment), C(vhost), C(primary), C(level), C(problems) and C(members).
    - C(level) is V(ok), V(warn) or V(refuse). A member has its C(role), C(state), C(timeline), C(lag_bytes), C(upstream), C(version)
      and more.
  type: list
  elements: dict
  returned: always
healthy:
  description: Whether no herd has a problem or a warning.
  type: bool
  returned: always
"""
