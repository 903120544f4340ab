# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action plugin that runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bulk_plan_info
author:
  - the elephaas.herd authors (@elephaas)
version_added: 1.0.0
short_description: Decide what a bulk verb does to each selected herd
description:
  - Looks at all members of the herds of the given instances, in one fan-out as M(elephaas.herd.instances_info) does, and
    decides for each herd what O(verb) does to the given ones, in which order, and whether it may.
  - V(start) takes upstreams first. What runs is left alone. What would come up writable beside another primary, or after
    a failover that it missed, is refused; so is the restart of such a one. Timelines are compared by their histories.
  - V(stop) takes the primary first, whose shutdown waits until its streaming replicas have received everything.
  - V(restart) takes the replicas first, from the far end of a cascade, and the primary last. Where a setting that a standby
    must have at least as high as its primary was lowered, the primary goes first; where no order works, it is refused. What
    does not run stays so.
  - V(reload) is refused where the configuration files have errors.
  - V(promote) takes one replica out of its herd, for a diagnosis. To move a herd's primary use the failover.
  - V(demote) makes a former primary, or a member that was promoted beside it, a replica of the herd's live primary. It is
    refused for the only member that accepts writes, and where nothing shows that the other one took over. One that holds
    what its primary does not have stays stopped, and can only come up read-only from then on.
  - The plan is taken to the hosts by M(elephaas.herd.bulk_run). Run this once for the play (C(run_once)).
options:
  verb:
    description: What to do.
    type: str
    choices: [start, stop, restart, reload, promote, demote]
    required: true
  instances:
    description: Names of instances in the inventory. By default all hosts of the play.
    type: list
    elements: str
  mode:
    description: How to stop, also for a restart. See C(pg_ctl).
    type: str
    choices: [fast, smart, immediate]
    default: fast
  only_pending:
    description: Restart only instances of which a changed setting waits for a restart (C(pg_settings.pending_restart)).
    type: bool
    default: false
  accept:
    description: Codes of acceptable refusals (V(BACKUP_RUNNING), V(NO_ANSWER)) to go on in spite of, separated by commas.
    type: str
    default: ''
  max_failures:
    description: The same as of M(elephaas.herd.bulk_run); only looked at, so that a wrong value is refused here.
    type: str
    default: ''
  without_registry:
    description: Go without the registry. The claims on the hosts then keep two runs apart, and nothing is put on record.
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
  - module: elephaas.herd.bulk_run
  - module: elephaas.herd.gate
"""

EXAMPLES = r"""
- name: Decide in which order everything is restarted
  elephaas.herd.bulk_plan_info:
    verb: restart
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
      description: V(go), V(done) (nothing has to be done) or V(refuse).
      type: str
    steps:
      description:
        - What happens to whom. Each step has the instance's C(name), the C(state) of M(elephaas.herd.instance) that it is
          brought to (or V(detached), or V(demoted)), its C(role), the C(turn) (all of one turn happen at once, and the next turn only
          after all of it went well), what its host must still see (C(expect)), C(why), and of a demotion whom it follows
          (C(follows)).
      type: list
      elements: dict
    skipped:
      description: Selected instances to which nothing has to be done, with the reason of each.
      type: dict
    left:
      description: Selected instances to which nothing can be done now, with the reason of each.
      type: dict
    asks:
      description: Somebody has to agree at the gate, because the environment is protected or a warning calls for it.
      type: bool
    verdicts:
      description: What was found, each with C(code), C(level), C(subject), C(reason) and C(next_step).
      type: list
      elements: dict
    decisions:
      description: What the plan id is made from.
      type: dict
"""
