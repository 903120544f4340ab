# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action plugin that runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_hold
author:
  - the elephaas.herd authors (@elephaas)
version_added: 1.0.0
short_description: Put herds on hold, or take the hold off
description:
  - While a herd is on hold, everything that would change it is refused, with the reason, who put it on hold, and since when.
    That is each bulk verb, a failover, a switch of its DNS name, and changes of the record that move or remove it.
    What was seen is still put on record.
  - A run that has begun goes on; the next one is refused, also the one that would finish a failover. The result names an operation
    that is open.
  - The hold is kept in the registry, and so in the inventory and its snapshot. It also counts for a run without the registry, but
    can neither be made nor taken off then.
  - All herds are done in one transaction, and one that is refused keeps no other from its hold. The task then fails.
  - Both are kept in the history, as operations C(hold) and C(release).
options:
  state:
    description: Whether the herds are on hold.
    type: str
    choices: [held, released]
    default: held
  herds:
    description: The herds. By default those of all hosts in the play.
    type: list
    elements: dict
    suboptions:
      herd:
        description: Name of the herd.
        type: str
        required: true
      environment:
        description: Environment of the herd.
        type: str
        required: true
  reason:
    description: Why nobody may act on them, on one line. Required with O(state=held).
    type: str
    default: ''
  replace:
    description:
      - Put this reason in the place of another one. Without it a herd that is on hold for another reason is refused, so that nobody's
        hold ends because of somebody else's. The old reason stays in the history.
    type: bool
    default: false
  operator:
    description: Who says so. If empty, the user of AWX, or the account that runs Ansible.
    type: str
    default: ''
extends_documentation_fragment:
  - elephaas.herd.registry
  - elephaas.herd.attributes
  - elephaas.herd.attributes.controller
attributes:
  check_mode:
    support: full
    details: Says what would be held or released, and fails where the real run would.
  diff_mode:
    support: full
    details: Shows the reasons before and after.
seealso:
  - module: elephaas.herd.registry_operation
"""

EXAMPLES = r"""
- name: Put the herds of all hosts in the play on hold
  elephaas.herd.registry_hold:
    state: held
    reason: the storage of this site is being replaced until Friday
  run_once: true

- name: Take the hold off one herd
  elephaas.herd.registry_hold:
    state: released
    herds:
      - {herd: trading, environment: prod}
"""

RETURN = r"""
herds:
  description: One entry per herd.
  type: list
  elements: dict
  returned: when the registry was asked
  contains:
    name:
      description: Name and environment of the herd, such as V(trading_prod).
      type: str
    herd:
      description: Its name.
      type: str
    environment:
      description: Its environment.
      type: str
    outcome:
      description: V(held), V(replaced), V(released), V(unchanged) or V(refused).
      type: str
    hold:
      description: The hold as it is now, or would be in check mode, with C(reason), C(by) and C(since) (in UTC). Null for none.
      type: dict
    before:
      description: The hold as it was. Null for none.
      type: dict
    operation:
      description: The operation on the herd that is not finished, with C(verb), C(operator), C(started), C(state) and C(plan_id). Null for none.
      type: dict
    code:
      description: Why it was refused, V(HERD_ON_HOLD) or V(HERD_UNKNOWN).
      type: str
    error:
      description: The same in words.
      type: str
"""
