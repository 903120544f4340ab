# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module elephaas.herd.promote."""

from __future__ import annotations

DOCUMENTATION = r"""
module: promote
short_description: Promote a replica, once it is proven that it holds everything
version_added: 1.0.0
author: The elephaas.herd authors (@elephaas)
description:
  - O(state=armed) starts a process on the host of the replica, the waiter, which waits for the last record of the old primary
    (the whole shutdown checkpoint) and then promotes at once, without a round trip of the controller.
  - O(state=promoted) waits for what the waiter does, and returns it.
  - O(state=disarmed) makes sure that the waiter will never promote.
  - The old primary must be prepared with M(elephaas.herd.follow) before the waiter is armed, and stopped after.
extends_documentation_fragment:
  - elephaas.herd.instance
  - elephaas.herd.instance.token
  - elephaas.herd.instance.release
  - elephaas.herd.attributes
  - elephaas.herd.attributes.host
options:
  state:
    description: What is wanted.
    type: str
    choices: [promoted, armed, disarmed]
    default: promoted
  proof:
    description:
      - What allows the promotion.
      - V(shutdown_checkpoint) is the whole shutdown checkpoint record of the old primary, as the last record that the replica
        holds. Nothing can be lost then.
      - V(none) promotes without a proof, with O(state=promoted) only.
    type: str
    choices: [none, shutdown_checkpoint]
    default: shutdown_checkpoint
  expect_timeline:
    description: The timeline that the replica must be on. If not set, the one that it is on.
    type: int
  armed_lsn:
    description:
      - A WAL position that the old primary had reached when it could only restart read-only any more, as RV(ignore:armed_lsn)
        of M(elephaas.herd.follow) with O(ignore:state=prepared). A shutdown checkpoint before it proves nothing.
      - If not set, the one of an earlier waiter of the same plan that was not disarmed; else what the replica has received,
        if it streams. A replica that does not stream is refused then.
    type: str
  deadline_s:
    description: After how many seconds the waiter gives up.
    type: int
    default: 120
  slots:
    description: Physical replication slots to create on the replica, for those that will stream from it, before it waits.
    type: list
    elements: str
    default: []
  checkpoint:
    description: Run C(CHECKPOINT) after the promotion. It may take minutes, and counts against O(timeout).
    type: bool
    default: false
  checkpoint_wait:
    description: Whether to wait for the end of that C(CHECKPOINT); otherwise it is only begun.
    type: bool
    default: true
  timeout:
    description: How long to wait for the outcome, and for the checkpoint, in seconds.
    type: int
    default: 120
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
notes:
  - The waiter is a process of O(os_user) of its own session. A host that ends all processes of an account when it logs out
    (C(KillUserProcesses) of systemd-logind) needs lingering for that account, unless Ansible connects as root.
seealso:
  - module: elephaas.herd.follow
  - module: elephaas.herd.operation_token
"""

EXAMPLES = r"""
- name: Let the candidate wait for the last record
  elephaas.herd.promote:
    data_directory: /var/lib/postgresql/15/trading
    port: 5432
    token: 42
    state: armed
    armed_lsn: "{{ prepared.armed_lsn }}"
    slots: [nyc_db2]
    deadline_s: 60

# Here the old primary is stopped, on its own host.

- name: See it promoted and writable
  elephaas.herd.promote:
    data_directory: /var/lib/postgresql/15/trading
    port: 5432
    token: 42
    state: promoted
    timeout: 60

- name: Or call it off
  elephaas.herd.promote:
    data_directory: /var/lib/postgresql/15/trading
    port: 5432
    token: 42
    state: disarmed
"""

RETURN = r"""
waiter:
  description:
    - The waiter's record. C(state) is V(arming), V(waiting), V(promoting), V(promoted), V(expired), V(disarmed), V(superseded)
      or V(failed) with C(error).
    - C(evidence) holds C(record), C(record_lsn), C(record_end), C(received_lsn), C(replayed_lsn), C(timeline_old) and
      C(timeline_new), or why the last record seen was C(refused).
    - C(times) holds C(armed), C(receiver_gone), C(record_read), C(promote_called), C(recovery_ended) and C(writable), in seconds
      since 1970. C(seconds_without_primary) lies between C(receiver_gone) and C(writable).
  returned: success, null if there never was one
  type: dict
instance:
  description: The facts afterwards, as from M(elephaas.herd.instance_info).
  returned: success
  type: dict
did:
  description: What was done and why, in words.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.elephaas.herd.plugins.module_utils.postgres import verbs
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.module import (
    RELEASE_OPTIONS,
    instance_argument_spec,
    run_verb,
)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        instance_argument_spec(
            timeout=120,
            with_token=True,
            state={"type": "str", "choices": ["promoted", "armed", "disarmed"], "default": "promoted"},
            proof={"type": "str", "choices": ["none", "shutdown_checkpoint"], "default": "shutdown_checkpoint"},
            expect_timeline={"type": "int"},
            armed_lsn={"type": "str"},
            deadline_s={"type": "int", "default": 120},
            slots={"type": "list", "elements": "str", "default": []},
            checkpoint={"type": "bool", "default": False},
            checkpoint_wait={"type": "bool", "default": True},
            **RELEASE_OPTIONS,
        ),
        supports_check_mode=True,
    )
    run_verb(module, verbs.promote)


if __name__ == "__main__":
    main()
