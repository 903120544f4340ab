# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module elephaas.herd.follow."""

from __future__ import annotations

DOCUMENTATION = r"""
module: follow
short_description: Point an instance at an upstream
version_added: 1.0.0
author: The elephaas.herd authors (@elephaas)
description:
  - Makes an instance a replica of an upstream, and sees it stream from there.
  - O(state=prepared) makes sure that the next start of a running primary is the start of a replica of the upstream. It keeps running
    as a primary, but any restart from then on, by anyone, comes up read-only. The connection to the upstream is tried first.
  - Other connection settings that the instance has (C(passfile), C(sslmode) ...) are kept.
extends_documentation_fragment:
  - elephaas.herd.instance
  - elephaas.herd.instance.token
  - elephaas.herd.instance.release
  - elephaas.herd.attributes
  - elephaas.herd.attributes.host
options:
  state:
    description:
      - V(following) starts or reloads it, and waits until it streams from the upstream.
      - V(prepared) writes signal file and settings only, of a running primary or of a stopped instance.
      - V(absent) takes V(prepared) back, as long as the instance has not been restarted since.
      - V(isolated) clears C(primary_conninfo) of a running replica, and waits until nothing is received or replayed any more, so
        that the replicas of a lost primary can be compared. The settings are kept beside the operation's token, for V(following).
      - V(held) writes C(standby.signal) into a stopped instance, whose next start is read-only then. For a lost primary.
    type: str
    choices: [following, prepared, absent, isolated, held]
    default: following
  upstream_host:
    description: Host name or address of the upstream's own server. Needed for O(state=following) and O(state=prepared).
    type: str
  upstream_port:
    description: Port of the upstream.
    type: int
    default: 5432
  upstream_user:
    description: Replication user. If not set, the present one.
    type: str
  slot:
    description: Replication slot on the upstream. If not set, the present setting stays; an empty string takes it away.
    type: str
  drop_slots:
    description:
      - Physical replication slots of its own to drop once it streams, where nobody uses them. A former primary would otherwise keep
        WAL for replicas that have left it, until its disk is full.
    type: list
    elements: str
    default: []
  application_name:
    description: Name under which it connects. If not set, the present one.
    type: str
  expected_timeline:
    description: The timeline that it must be seen streaming on. If not set, any.
    type: int
  wait_s:
    description: How long to wait until it streams, in seconds.
    type: int
    default: 60
  timeout:
    description: How long each single step (an answer, a start, a checkpoint) may take, in seconds.
    type: int
    default: 60
attributes:
  check_mode:
    support: full
    details: In check mode the connection to the upstream is tried too. Without O(token) it is a rehearsal that needs no claim.
  diff_mode:
    support: full
seealso:
  - module: elephaas.herd.promote
  - module: elephaas.herd.operation_token
"""

EXAMPLES = r"""
- name: From here on this primary can only restart read-only
  elephaas.herd.follow:
    data_directory: /var/lib/postgresql/15/trading
    port: 5432
    token: 42
    state: prepared
    upstream_host: nyc-db1
    upstream_user: replicator
  register: prepared

- name: A sibling follows the new primary, and is seen on its timeline
  elephaas.herd.follow:
    data_directory: /var/lib/postgresql/15/trading
    port: 5432
    token: 42
    upstream_host: nyc-db1
    expected_timeline: 2
    release: true
"""

RETURN = r"""
instance:
  description: The facts afterwards (in check mode, now), as from M(elephaas.herd.instance_info).
  returned: success
  type: dict
did:
  description: What was done and why, in words.
  returned: success
  type: list
  elements: str
upstream:
  description: What the upstream said on a replication connection, C(system_identifier), C(timeline) and C(position).
  returned: when O(state=prepared)
  type: dict
armed_lsn:
  description:
    - A WAL position that the instance had reached once its next start could only be read-only. For O(ignore:armed_lsn) of
      M(elephaas.herd.promote). Of an instance that was shut down as a primary, the position of its shutdown checkpoint;
      null of any other stopped one.
  returned: when O(state=prepared) and not in check mode
  type: str
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
            timeout=60,
            with_token=True,
            state={
                "type": "str",
                "choices": ["following", "prepared", "absent", "isolated", "held"],
                "default": "following",
            },
            upstream_host={"type": "str"},
            upstream_port={"type": "int", "default": 5432},
            upstream_user={"type": "str"},
            slot={"type": "str"},
            application_name={"type": "str"},
            drop_slots={"type": "list", "elements": "str", "default": []},
            expected_timeline={"type": "int"},
            wait_s={"type": "int", "default": 60},
            **RELEASE_OPTIONS,
        ),
        required_if=[("state", "following", ["upstream_host"]), ("state", "prepared", ["upstream_host"])],
        supports_check_mode=True,
    )
    run_verb(module, verbs.follow)


if __name__ == "__main__":
    main()
