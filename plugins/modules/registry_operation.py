# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action plugin that runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_operation
author:
  - the elephaas.herd authors (@elephaas)
version_added: 1.0.0
short_description: Lease, token and history of an operation on a herd
description:
  - There is one operation on a herd at a time. V(begun) takes its lease and gives it a token that is higher than any before;
    V(phase) records how far it got and renews the lease; V(finished) closes it.
  - A live lease is refused, naming the operator and the time. One that has run out, or whose run is proven dead on this very
    controller, is taken over.
  - An operation that was left open is resumed under a new token when O(verb), O(plan_id), O(from_server) and O(to_server) are the same;
    otherwise it is closed as V(superseded).
  - The run that lost its lease finds its token refused from then on.
options:
  state:
    description: What to record.
    type: str
    choices: [begun, phase, finished]
    required: true
  herd:
    description: Name of the herd.
    type: str
    required: true
  environment:
    description: Environment of the herd.
    type: str
    required: true
  verb:
    description: What is done to the herd, such as V(failover). Required with O(state=begun).
    type: str
  plan_id:
    description: Id of the plan that is carried out.
    type: str
  from_server:
    description: Server of the old primary.
    type: str
  to_server:
    description: Server of the new primary.
    type: str
  operator:
    description: Who acts. By default the user of AWX, or the account that runs Ansible.
    type: str
  plan:
    description: The whole plan, kept with the operation.
    type: dict
  lease_s:
    description: Seconds until the lease ends by itself. It has to be longer than the longest phase.
    type: int
    default: 120
  token_floor:
    description: The new token is higher than this, for members' hosts that hold tokens which the registry does not know.
    type: int
    default: 0
  token:
    description: The operation's token. Required with O(state=phase) and O(state=finished).
    type: int
  phase:
    description: Name of the phase that was reached. Required with O(state=phase).
    type: str
  detail:
    description: Anything worth keeping with the phase or the outcome.
    type: dict
  outcome:
    description:
      - How it ended. Required with O(state=finished).
      - V(done) of a C(failover) also records the new roles, in the same transaction.
      - V(incomplete) gives up the lease; the same command resumes the operation.
    type: str
    choices: [done, failed, aborted, incomplete, refused]
  roles:
    description:
      - Server to C(role) and C(upstream_server), for members whose recorded role or upstream moves with a done failover.
      - The new primary, and the old one as its replica, are known from the operation.
    type: dict
extends_documentation_fragment:
  - elephaas.herd.registry
  - elephaas.herd.attributes
  - elephaas.herd.attributes.controller
attributes:
  check_mode:
    support: full
    details: Says what would be recorded, and fails where the real run would, such as at a live lease.
  diff_mode:
    support: none
seealso:
  - module: elephaas.herd.registry_checkin
"""

EXAMPLES = r"""
- name: Take the lease
  elephaas.herd.registry_operation:
    state: begun
    herd: trading
    environment: prod
    verb: failover
    plan_id: p1234abcd
    from_server: chi-db1
    to_server: nyc-db1
  register: lease

- name: Record how far it got
  elephaas.herd.registry_operation:
    state: phase
    herd: trading
    environment: prod
    token: "{{ lease.operation.token }}"
    phase: promoted

- name: Close it, and record the new roles
  elephaas.herd.registry_operation:
    state: finished
    herd: trading
    environment: prod
    token: "{{ lease.operation.token }}"
    outcome: done
    roles:
      nyc-db2: {role: replica, upstream_server: nyc-db1}
"""

RETURN = r"""
operation:
  description: The operation as it is recorded now, or as it would be in check mode.
  type: dict
  returned: success
  contains:
    operation_id:
      description: Its number in the history; none in check mode when it would be a new one.
      type: int
    token:
      description: Its token, to be given to every verb that can do harm.
      type: int
    state:
      description: V(open), V(incomplete), V(done), V(aborted), V(refused) or V(superseded).
      type: str
    resumed:
      description: Whether it was left open before and is resumed.
      type: bool
    phases:
      description: The phases so far, each with C(name), C(at) and C(detail).
      type: list
      elements: dict
    lease_until:
      description: When the lease ends by itself, in UTC.
      type: str
resumed:
  description: Whether an operation that was left open is resumed.
  type: bool
  returned: with O(state=begun)
took_over:
  description: The operation that was open before, as it was.
  type: dict
  returned: with O(state=begun)
role_changes:
  description: Roles and upstreams that were recorded anew, each with C(server), C(field), C(before) and C(after).
  type: list
  elements: dict
  returned: with O(state=finished)
"""
