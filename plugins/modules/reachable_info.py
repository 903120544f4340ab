# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action plugin that runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: reachable_info
author:
  - the elephaas.herd authors (@elephaas)
version_added: 1.0.0
short_description: See which hosts answer, all at once
description:
  - Logs in to all given hosts at the same time and sees as whom, and whether there is a Python for modules. A site that
    does not answer costs one timeout for all its hosts, where a task would pay one for every host.
  - Uses the connection settings of each host from the inventory (connection plugin, address, port, user, keys, jump
    hosts). Instances on the same server are asked once.
  - Opens the multiplexed ssh connections that later tasks use.
  - A host that does not answer is a result, not an error. Run it once for the play (C(run_once)).
options:
  hosts:
    description:
      - Names of inventory hosts, inside or outside of the limit.
      - By default all members of the herds of which the play has a host.
    type: list
    elements: str
  timeout:
    description:
      - How long to wait for a connection, in seconds. A host that has not answered two seconds later is given up, whatever
        it is that hangs.
    type: float
    default: 5.0
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
    details: Uses the connection settings of the given hosts, not of the host that the task runs for.
seealso:
  - plugin: elephaas.herd.selected
    plugin_type: lookup
"""

EXAMPLES = r"""
- name: See which members of the selected herds answer
  elephaas.herd.reachable_info:
  run_once: true
  register: reach

- name: Look at those that do
  elephaas.herd.instance_info:
    data_directory: "{{ hostvars[item].elephaas_pgdata }}"
    port: "{{ hostvars[item].elephaas_port }}"
  delegate_to: "{{ item }}"
  loop: "{{ elephaas_members | intersect(reach.reachable) }}"
  ignore_unreachable: true
"""

RETURN = r"""
hosts:
  description: What became of each host, by name.
  type: dict
  returned: success
  contains:
    reachable:
      description: Whether we could log in and run a command.
      type: bool
    error:
      description: Why not, in one line. Where ssh said something, it is its last line. Empty when reachable.
      type: str
    code:
      description:
        - The kind of error, null when reachable.
        - V(HOST_UNREACHABLE), no connection within the time.
        - V(HOST_KEY_REFUSED), its ssh host key is unknown or has changed.
        - V(AUTH_REFUSED), it does not accept our key or password.
        - V(LOGIN_REFUSED), the session ended before it answered, for example because the account has no shell.
        - V(NOT_IN_INVENTORY), there is no host of this name.
      type: str
    seconds:
      description: How long it took.
      type: float
    user:
      description: As whom we are logged in.
      type: str
    python:
      description: Path of the Python that modules would use (C(ansible_python_interpreter), else C(python3)), if it is there.
      type: str
  sample:
    trading_prod@chi-db1:
      reachable: true
      error: ""
      code: null
      seconds: 0.21
      user: postgres
      python: /usr/bin/python3
reachable:
  description: Names of the hosts that answered, in the order asked for.
  type: list
  elements: str
  returned: success
  sample: [trading_prod@chi-db1]
errors:
  description: The others, with the error of each.
  type: dict
  returned: success
  sample: {trading_prod@nyc-db1: 'ssh: connect to host 10.20.0.11 port 22: Connection timed out'}
"""
