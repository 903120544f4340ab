# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action plugin that runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: instances_info
author:
  - the elephaas.herd authors (@elephaas)
version_added: 1.0.0
short_description: Look at many instances at once
description:
  - Returns the facts of M(elephaas.herd.instance_info) for many instances, asked at the same time from the controller,
    with one login and one run of Python for all instances of a server. For a hundred instances this takes seconds,
    where a task that runs on each of them takes many times as long.
  - Uses the connection and become settings of each host from the inventory, and from the task. Host keys are checked as
    for any other task. Nothing is written on the hosts.
  - An instance that could not be looked at is a result, not an error. Run it once for the play (C(run_once)).
options:
  instances:
    description:
      - Names of instances in the inventory of plugin P(elephaas.herd.herds#inventory), inside or outside of the limit.
      - By default all hosts of the play.
    type: list
    elements: str
  timeout:
    description: How long to wait for a connection to a host, in seconds.
    type: float
    default: 5.0
  look_timeout:
    description: How long to wait for the answer of one PostgreSQL server, in seconds.
    type: float
    default: 10.0
  readiness:
    description: See O(elephaas.herd.instance_info#module:readiness).
    type: bool
    default: false
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
requirements:
  - a connection plugin that can send standard input to a command, such as P(ansible.builtin.ssh#connection); where it
    becomes another user, without a terminal (C(requiretty) of sudo must be off)
  - Python 3.8 or newer and PostgreSQL 13 or newer with its own programs on the hosts
seealso:
  - module: elephaas.herd.instance_info
  - module: elephaas.herd.reachable_info
"""

EXAMPLES = r"""
- name: Look at every selected instance
  elephaas.herd.instances_info:
  run_once: true
  register: look

- name: Put on record what was seen
  elephaas.herd.registry_checkin:
    observations: "{{ look.observations }}"
  run_once: true
"""

RETURN = r"""
observations:
  description: What was seen of each instance, in the order asked for.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: The instance, by its inventory name.
      type: str
    herd:
      description: The name of its herd.
      type: str
    environment:
      description: The environment of its herd.
      type: str
    server:
      description: The server it is on.
      type: str
    reachable:
      description: Whether its host could be asked.
      type: bool
    facts:
      description: RV(elephaas.herd.instance_info#module:instance), null when it could not be looked at.
      type: dict
    error:
      description: Why it could not be looked at, in one line. Empty when it was.
      type: str
"""
