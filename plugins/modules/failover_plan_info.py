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
short_description: Decide a failover of one herd, and change nothing
description:
  - Decides from live facts what a planned failover of the herd of the current host would do. The current host is the herd's lead.
  - Reads the variables of the herd's members, the facts given in O(observations) and O(looks), the vhost at the name servers, and whether another run holds
    the herd in the registry. It also has the name server try an update that changes nothing, which proves key and policy.
  - Every check is a pure function of these facts; see the page about checks in the documentation of the collection.
  - Called again under the lock with O(confirmed), it says in RV(changed_decisions) what it would now decide otherwise.
options:
  observations:
    description: What was seen of the members; RV(elephaas.herd.instances_info#module:observations).
    type: list
    elements: dict
    default: []
  looks:
    description:
      - The C(results) of a task that ran M(elephaas.herd.operation_token) over members, with the inventory name of the member
        as its loop variable. They are newer than O(observations).
    type: list
    elements: dict
    default: []
  plan:
    description: A plan made before. Nothing is decided anew; the outcome of O(rehearsal) is added to it.
    type: dict
  rehearsal:
    description: Result of M(elephaas.herd.follow) in check mode, in which the old primary tried its way back.
    type: dict
    default: {}
  confirmed:
    description: The plan that was agreed to.
    type: dict
  token:
    description: Token of this run's own operation, so that the run is not refused because of itself.
    type: int
  confirm:
    description: The plan id that the operator gave, so that a finished run is recognised.
    type: str
    default: ''
  candidate:
    description: Inventory name or server name of the replica to promote. Empty means that the best one is chosen.
    type: str
    default: ''
  leave:
    description: A data center whose members must not be promoted.
    type: str
    default: ''
  prefer:
    description: A data center whose members go first.
    type: str
    default: ''
  accept:
    description: Codes of acceptable refusals to go on in spite of, separated by commas. They become part of the plan id.
    type: str
    default: ''
  dns_mode:
    description: V(skip) leaves DNS alone.
    type: str
    choices: [update, skip]
    default: update
  without_registry:
    description: Do not ask the registry. Other runs are then seen by the claims on the members' hosts alone.
    type: bool
    default: false
  takeover:
    description: Only without the registry; ignore claims on the members' hosts whose lease has not run out yet.
    type: bool
    default: false
  max_receive_lag:
    description: How far behind in receiving WAL the candidate may be, in bytes.
    type: int
    default: 16777216
  max_replay_lag:
    description: How far behind in replaying WAL the candidate may be, in bytes.
    type: int
    default: 16777216
  min_free:
    description: How much must be free where the candidate's data directory is, in bytes.
    type: int
    default: 268435456
  max_ttl:
    description: A longer TTL of the vhost is shown as a warning, in seconds.
    type: int
    default: 60
  dns:
    description: Where to send DNS updates and how to sign them; the options of M(elephaas.herd.dns_repoint).
    type: dict
  registry:
    description: How to reach the registry; the options of M(elephaas.herd.registry_info).
    type: dict
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
- name: Decide who would take over
  elephaas.herd.failover_plan_info:
    observations: "{{ look.observations }}"
    leave: chicago
  register: failover_decided
"""

RETURN = r"""
plan:
  description: What would happen.
  type: dict
  returned: success
  contains:
    herd:
      description: Group of the herd.
      type: str
    outcome:
      description: V(go), V(refuse) or V(done).
      type: str
    stage:
      description: How far a failover has come, V(switch), V(promote), V(finish), V(done) or V(stuck).
      type: str
    source:
      description: The old primary, an inventory name.
      type: str
    target:
      description: The new primary, an inventory name; null when there is no fit candidate.
      type: str
    runners_up:
      description: Why each other replica is not the candidate.
      type: list
      elements: dict
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
    verdicts:
      description: What the checks found, refusals first, each with C(code), C(level), C(subject), C(reason) and C(next_step).
      type: list
      elements: dict
    decisions:
      description: The part of the plan that its id covers.
      type: dict
changed_decisions:
  description: What is now decided otherwise than in O(confirmed), in words.
  type: list
  elements: str
  returned: when a plan was decided
new_primary:
  description: How the others connect to the candidate, with C(host), C(port) and C(user).
  type: dict
  returned: when there is a candidate
system_identifier:
  description: Of the herd, as its candidate's control file has it.
  type: str
  returned: when there is a candidate
timeline:
  description: The timeline that the candidate is on.
  type: int
  returned: when there is a candidate
roles:
  description: What to record when the plan is done, by server name.
  type: dict
  returned: success
"""
