# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action plugin that runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_info
author:
  - the elephaas.herd authors (@elephaas)
version_added: 1.0.0
short_description: Read the registry, also as a fleet file
description:
  - Returns what the registry knows, flat and as a fleet file. Loading that fleet with M(elephaas.herd.registry_fleet) changes nothing.
options:
  environments:
    description: Only these environments. Empty means all.
    type: list
    elements: str
    default: []
  herds:
    description: Only these herds, by name (V(trading)) or with their environment (V(trading_prod)). Empty means all.
    type: list
    elements: str
    default: []
  history:
    description: How many operations to return, the newest first.
    type: int
    default: 20
extends_documentation_fragment:
  - elephaas.herd.registry
  - elephaas.herd.attributes
  - elephaas.herd.attributes.controller
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
seealso:
  - module: elephaas.herd.registry_fleet
"""

EXAMPLES = r"""
- name: Read the registry
  elephaas.herd.registry_info:
    environments: [prod]
  register: registry

- name: Keep it as a fleet file
  ansible.builtin.copy:
    content: "{{ registry.fleet | to_nice_yaml }}"
    dest: fleet.yml
    mode: "0644"
  delegate_to: localhost
"""

RETURN = r"""
layout:
  description: The registry's C(schema), C(layout), and C(applied) and C(pending) migrations.
  type: dict
  returned: success
environments:
  description: Environments, each with C(name), C(protected) and C(description).
  type: list
  elements: dict
  returned: success
datacenters:
  description: Data centers, each with C(name), C(networks) and C(description).
  type: list
  elements: dict
  returned: success
servers:
  description: Servers, each with C(server), C(environment), C(datacenter), C(address), C(ssh_port), C(ssh_user) and C(dns_name).
  type: list
  elements: dict
  returned: success
herds:
  description: Herds with everything filled in, their inventory C(group), and C(members) (server names).
  type: list
  elements: dict
  returned: success
instances:
  description: Instances with C(role), C(upstream_server), C(port), C(pgdata), C(version), C(is_online), C(lag_bytes) and all else that is recorded.
  type: list
  elements: dict
  returned: success
operations:
  description: The newest operations first, each with C(state), C(token), C(operator), C(plan), C(phases) and C(detail).
  type: list
  elements: dict
  returned: success
fleet:
  description: The fleet in the form of a fleet file, without what is the default.
  type: dict
  returned: success
"""
