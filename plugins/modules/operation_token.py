# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module elephaas.herd.operation_token."""

from __future__ import annotations

DOCUMENTATION = r"""
module: operation_token
short_description: Claim an instance for one operation, or close the claim
version_added: 1.0.0
author: The elephaas.herd authors (@elephaas)
description:
  - Mirrors an operation's token on the host of the instance, so that only that operation can do harm there, also when the
    registry cannot be reached.
  - Tokens only grow. A run that was overtaken by another one finds its token refused.
  - Claiming also returns the facts of the instance, so that a plan can be checked again under the claim.
extends_documentation_fragment:
  - elephaas.herd.instance
  - elephaas.herd.attributes
  - elephaas.herd.attributes.host
options:
  state:
    description: V(claimed) opens, V(released) closes the operation on this host.
    type: str
    choices: [claimed, released]
    required: true
  token:
    description: The operation's token, a number that grows from operation to operation.
    type: int
    required: true
  operation:
    description:
      - What the operation is, kept with the token. V(plan_id) tells a repeated claim from another one;
        C(verb), C(operator), C(from), C(to) and C(herd) are shown to others.
    type: dict
    default: {}
  lease_s:
    description: For how long the claim stands without being renewed, in seconds. Each changing verb renews it.
    type: int
    default: 120
  authority:
    description:
      - Who hands out tokens. The V(registry) hands them out in order, so that a greater token is always right.
      - With V(host) the open claim of another operation is refused until its lease has run out.
    type: str
    choices: [registry, host]
    default: registry
  takeover:
    description: With O(authority=host), take over an open claim whose lease still runs.
    type: bool
    default: false
  outcome:
    description: How the operation ended, for O(state=released).
    type: str
    choices: [done, aborted]
    default: done
  timeout:
    description: How long to wait for an answer from the server, in seconds.
    type: int
    default: 10
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
seealso:
  - module: elephaas.herd.promote
  - module: elephaas.herd.follow
  - module: elephaas.herd.instance
"""

EXAMPLES = r"""
- name: Claim an instance
  elephaas.herd.operation_token:
    data_directory: /var/lib/postgresql/15/trading
    port: 5432
    state: claimed
    token: 42
    operation:
      verb: failover
      plan_id: p0a1b2c3d
      operator: ann

- name: Close the operation there
  elephaas.herd.operation_token:
    data_directory: /var/lib/postgresql/15/trading
    port: 5432
    state: released
    token: 42
    outcome: done
"""

RETURN = r"""
operation:
  description: The record on this host, with C(token), C(operation), C(closed), C(lease_until) and C(claimed_at); null if there is none.
  returned: success
  type: dict
instance:
  description: The facts, as from M(elephaas.herd.instance_info).
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.elephaas.herd.plugins.module_utils.postgres import verbs
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.module import instance_argument_spec, run_verb


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        instance_argument_spec(
            timeout=10,
            state={"type": "str", "choices": ["claimed", "released"], "required": True},
            token={"type": "int", "required": True, "no_log": False},
            operation={"type": "dict", "default": {}},
            lease_s={"type": "int", "default": 120},
            authority={"type": "str", "choices": ["registry", "host"], "default": "registry"},
            takeover={"type": "bool", "default": False},
            outcome={"type": "str", "choices": ["done", "aborted"], "default": "done"},
        ),
        supports_check_mode=True,
    )
    run_verb(module, verbs.operation_token)


if __name__ == "__main__":
    main()
