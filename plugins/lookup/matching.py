# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which instances a look is worth, by what is on record."""

from __future__ import annotations

DOCUMENTATION = r"""
name: matching
author:
  - the elephaas.herd authors (@elephaas)
version_added: 1.0.0
short_description: Instances that filters do not rule out before anybody looks
description:
  - Returns those of the given instances whose herd has an instance that may meet the filters. What the record alone
    answers (environment, data center, herd, DR pair, unassigned) is answered here, so that no host is looked at in
    vain. Herds stay whole, so that no filter hides what is wrong in another part of them. Whether an instance has
    the role, version, lag or state that is asked for turns out only when it is looked at, by
    M(elephaas.herd.status_report).
  - A filter that makes no sense, or that names what is not in the inventory, is an error that says what is allowed.
    That nothing matches is no error; the list is empty then.
options:
  _terms:
    description: Instances, by their inventory names, or lists of them.
    type: list
    elements: str
    required: true
  filters:
    description: The same filters as O(elephaas.herd.status_report#module:filters).
    type: dict
    default: {}
seealso:
  - module: elephaas.herd.status_report
  - plugin: elephaas.herd.herds
    plugin_type: inventory
"""

EXAMPLES = r"""
- name: Look at production in Chicago, and at nothing else
  elephaas.herd.instances_info:
    instances: "{{ query('elephaas.herd.matching', ansible_play_hosts_all,
      filters={'environments': 'prod', 'datacenters': 'chicago'}) }}"
  run_once: true
"""

RETURN = r"""
_raw:
  description: Names of instances, in the order given.
  type: list
  elements: str
"""

import typing as t

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.filters import parse_filters
from ansible_collections.elephaas.herd.plugins.plugin_utils.action import plain
from ansible_collections.elephaas.herd.plugins.plugin_utils.recorded import Inventory, check_names, worth_a_look


class LookupModule(LookupBase):
    """Entry point for Ansible."""

    def run(self, terms: list[t.Any], variables: dict[str, t.Any] | None = None, **kwargs: t.Any) -> list[str]:
        """Return instance names, or raise AnsibleLookupError."""
        self.set_options(var_options=variables, direct=kwargs)
        names = [str(name) for term in terms for name in (term if isinstance(term, list) else [term])]
        known = variables or {}
        try:
            filters = parse_filters(plain(self.get_option("filters")))
            inventory = Inventory(known.get("hostvars", {}), known.get("groups", {}))
            check_names(inventory, filters)
            return worth_a_look(inventory, names, filters)
        except OperatorError as error:
            raise AnsibleLookupError(error.as_result()["msg"]) from error
