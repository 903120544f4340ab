# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action plugin that runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: switch_dns_plan_info
author:
  - the elephaas.herd authors (@elephaas)
version_added: 1.0.0
short_description: Compare the DNS names of herds with their live primaries
description:
  - Looks at all members of the herds of the given instances, in one fan-out as M(elephaas.herd.instances_info) does, and at
    what every authoritative name server says of each herd's DNS name (C(vhost)); decides for each herd whether the name has to
    be changed, and whether it may.
  - The primary is the one member that accepts writes, whatever is on record. With none or several of them, one of another
    system identifier, a replica on a newer timeline, or a failover that is not finished, the herd is refused.
  - A member that cannot be looked at may accept writes as well. The herd is refused with V(MEMBER_UNREACHABLE), which can be
    accepted.
  - A record keeps its type. The update server is asked by an update that changes nothing whether it would take ours.
  - The plan is carried out by M(elephaas.herd.switch_dns_run). Run this once for the play (C(run_once)).
options:
  instances:
    description: Names of instances in the inventory; their herds are meant. By default all hosts of the play.
    type: list
    elements: str
  ttl:
    description: The TTL that the records are to have from now on, in seconds. Left as it is without it.
    type: int
  accept:
    description: Codes of acceptable refusals (V(MEMBER_UNREACHABLE)) to go on in spite of, separated by commas.
    type: str
    default: ''
  without_registry:
    description: Go without the registry. What the hosts remember then tells whether somebody acts on the herd.
    type: bool
    default: false
  timeout:
    description: How long to wait for a connection to a host, in seconds.
    type: float
    default: 5.0
  look_timeout:
    description: How long to wait for the answer of one PostgreSQL server, in seconds.
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
    support: full
    details: Does the same, it changes nothing.
  diff_mode:
    support: none
  connection:
    support: full
    details: Uses the connection settings of the given instances, not of the host that the task runs for.
seealso:
  - module: elephaas.herd.switch_dns_run
  - module: elephaas.herd.dns_repoint
  - module: elephaas.herd.gate
"""

EXAMPLES = r"""
- name: Compare the DNS names with the live primaries
  elephaas.herd.switch_dns_plan_info:
  run_once: true
  register: decided

- name: Show it and ask
  elephaas.herd.gate:
    plans: "{{ decided.plans.values() }}"
    confirm: "{{ confirm | default('') }}"
  run_once: true
  register: gate
"""

RETURN = r"""
plans:
  description: The plan of each herd, by the name of its group.
  type: dict
  returned: success
  contains:
    outcome:
      description: V(go), V(done) (the name leads to the primary) or V(refuse).
      type: str
    primary:
      description: The one member that accepts writes. Null when it is not one, or when the herd has no DNS name.
      type: str
    dns:
      description:
        - C(record), C(type), what it C(holds) (a list) and what it C(should_hold), its C(ttl) and the one it gets (C(ttl_to)),
          whether the value (C(moves)) or the TTL (C(retimes)) is to be changed, and C(servers), what each authoritative server
          says. Null for a herd without a DNS name.
      type: dict
    asks:
      description: Somebody has to agree at the gate, because something is to be changed.
      type: bool
    verdicts:
      description: What was found, each with C(code), C(level), C(subject), C(reason) and C(next_step).
      type: list
      elements: dict
    decisions:
      description: What the plan id is made from.
      type: dict
"""
