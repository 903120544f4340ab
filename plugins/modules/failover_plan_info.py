# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action plugin that runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: failover_plan_info
author:
  - the elephaas.herd authors (@elephaas)
version_added: 1.0.0
short_description: Decide the failover of herds, and change nothing
description:
  - Looks at all members of the herds of the given leads, at their vhosts at the name servers, and at the registry, and decides
    what a failover would do to each herd.
  - It also has the name server try an update that changes nothing, which proves key and policy, and has each member connect to the
    candidate as the replica that it would be.
  - Every check is a pure function of these facts; see the page about checks in the documentation of the collection.
  - A herd whose primary accepts writes gets a plan without loss. One that has no primary gets a plan by which the most advanced
    replica takes over, if it is proven or stated that the old primary is dead.
options:
  leads:
    description: Inventory names of the leads. If not set, the current host.
    type: list
    elements: str
  confirm:
    description: The plan id that the operator gave, so that a finished run is recognised.
    type: str
    default: ''
  hooks:
    description: Hooks of this run, by the point at which they run. Each is the absolute path of a file of tasks, or the name of a role, and
      has to be there.
    type: dict
    default: {}
extends_documentation_fragment:
  - elephaas.herd.failover
  - elephaas.herd.attributes
  - elephaas.herd.attributes.controller
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
seealso:
  - module: elephaas.herd.gate
  - module: elephaas.herd.failover_run
"""

EXAMPLES = r"""
- name: Decide who would take over
  elephaas.herd.failover_plan_info:
    leads: "{{ ansible_play_hosts }}"
    wishes:
      leave: chicago
  run_once: true
  register: failover_plans
"""

RETURN = r"""
plans:
  description: What would happen, by the group of each herd.
  type: dict
  returned: success
  contains:
    herd:
      description: Group of the herd.
      type: str
    lead:
      description: The host under which the herd was selected.
      type: str
    outcome:
      description: V(go), V(refuse) or V(done).
      type: str
    stage:
      description: How far a failover has come, V(switch), V(takeover), V(restore), V(promote), V(finish), V(done) or V(stuck).
      type: str
    unplanned:
      description: Whether the old primary is lost.
      type: bool
    source:
      description: The old primary, an inventory name.
      type: str
    target:
      description: The new primary, an inventory name; null when there is no fit candidate.
      type: str
    target_why:
      description: Why that one.
      type: str
    runners_up:
      description: Why each other replica is not the candidate.
      type: list
      elements: dict
    proof:
      description: Of an unplanned failover, what proves that the old primary takes no writes, V(stopped), V(fence) or V(statement); empty
        for nothing.
      type: str
    loss:
      description: Of an unplanned failover, what is lost, with C(size) in bytes (null for unknown), C(exact), C(as_of) and C(text).
      type: dict
    dns:
      description: What changes in DNS, with C(record), C(type), C(from), C(to) and C(ttl) in seconds; null when nothing does.
      type: dict
    moves:
      description: What happens to each member, with C(name), C(action) and C(upstream).
      type: list
      elements: dict
    slots:
      description: Physical replication slots that the new primary needs before it is promoted.
      type: list
      elements: str
    way_back:
      description: Members that tried to connect to the candidate as its replicas would and were refused, with C(code) and C(reason).
      type: dict
    verdicts:
      description: What the checks found, refusals first, each with C(code), C(level), C(subject), C(reason) and C(next_step).
      type: list
      elements: dict
    roles:
      description: What is to be recorded when the plan is done, by server name.
      type: dict
    decisions:
      description: The part of the plan that its id covers.
      type: dict
"""
