# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module elephaas.herd.instance."""

from __future__ import annotations

DOCUMENTATION = r"""
module: instance
short_description: Start, stop, restart or reload one PostgreSQL instance
version_added: 1.0.0
author: The elephaas.herd authors (@elephaas)
description:
  - Brings an instance into the wanted state, and sees it there.
  - Stopped means that its postmaster process is gone. A control file that says "shut down" does not count,
    because a postmaster can live on after that, waiting for the sender to a replica that hangs.
  - A replica whose signal file is missing is not started, because it would come up writable beside its primary. Nor is, without
    O(token), an instance that would come up writable although this host's own record says that a failover took the primary away from it.
    This module sees no other member; the playbook C(elephaas.herd.start) does.
  - Restarted means stopped and started, and then that everybody streams again who streamed before, that is the instance
    itself if it is a replica, and its own replicas. An instance that does not run is started.
  - Before it is restarted or reloaded, its configuration files are read as the server would read them. One that has
    errors, or settings with which a replica would not start beside its primary, is refused while all is still well.
  - Reloaded means that the server has read its configuration files again. It always counts as a change.
extends_documentation_fragment:
  - elephaas.herd.instance
  - elephaas.herd.instance.token
  - elephaas.herd.instance.release
  - elephaas.herd.attributes
  - elephaas.herd.attributes.host
options:
  state:
    description: The wanted state.
    type: str
    choices: [started, stopped, restarted, reloaded]
    required: true
  mode:
    description: How to stop, also for a restart. See C(pg_ctl).
    type: str
    choices: [fast, smart, immediate]
    default: fast
  timeout:
    description: How long each of starting, stopping, reloading and streaming again may take, in seconds.
    type: int
    default: 60
  log_file:
    description:
      - Where C(pg_ctl) sends what the server prints before, or without, its own logging.
      - If not set, a file in C(.elephaas) in the home directory of O(os_user). Not used with V(pg_ctlcluster).
    type: path
  wait_streaming:
    description:
      - With O(state=restarted), wait until replication to and from the instance is as it was.
      - A replica whose upstream was away tries again every C(wal_retrieve_retry_interval), by default 5 seconds.
    type: bool
    default: true
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
notes:
  - Stopping and restarting need O(token) unless the instance is certainly a replica.
seealso:
  - module: elephaas.herd.instance_info
  - module: elephaas.herd.operation_token
"""

EXAMPLES = r"""
- name: Stop a replica
  elephaas.herd.instance:
    data_directory: /var/lib/postgresql/15/trading
    port: 5432
    state: stopped

- name: Start it again
  elephaas.herd.instance:
    data_directory: /var/lib/postgresql/15/trading
    port: 5432
    state: started
    timeout: 120

- name: Restart a replica, and see it stream again
  elephaas.herd.instance:
    data_directory: /var/lib/postgresql/15/trading
    port: 5432
    state: restarted
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
times:
  description: When it was asked for and when it was seen, in seconds since 1970.
  returned: when something was done
  type: dict
  sample: {stop_requested: 1767225600.1, stopped: 1767225600.4}
evidence:
  description: When it failed, what was seen. C(log_tail) holds what the server has logged since it was started.
  returned: failure
  type: dict
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
            state={"type": "str", "choices": ["started", "stopped", "restarted", "reloaded"], "required": True},
            mode={"type": "str", "choices": ["fast", "smart", "immediate"], "default": "fast"},
            log_file={"type": "path"},
            wait_streaming={"type": "bool", "default": True},
            **RELEASE_OPTIONS,
        ),
        supports_check_mode=True,
    )
    run_verb(module, verbs.instance)


if __name__ == "__main__":
    main()
