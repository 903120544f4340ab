# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module elephaas.herd.instance."""

from __future__ import annotations

DOCUMENTATION = r"""
module: instance
short_description: Start or stop one PostgreSQL instance
version_added: 1.0.0
author: The elephaas.herd authors (@elephaas)
description:
  - Brings an instance into the wanted state, and sees it there.
  - Stopped means that its postmaster process is gone. A control file that says "shut down" does not count,
    because a postmaster can live on after that, waiting for the sender to a replica that hangs.
  - A replica whose signal file is missing is not started, because it would come up writable beside its primary.
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
    choices: [started, stopped]
    required: true
  mode:
    description: How to stop. See C(pg_ctl).
    type: str
    choices: [fast, smart, immediate]
    default: fast
  timeout:
    description: How long starting or stopping may take, in seconds.
    type: int
    default: 60
  log_file:
    description:
      - Where C(pg_ctl) sends what the server prints before, or without, its own logging.
      - If not set, a file in C(.elephaas) in the home directory of O(os_user). Not used with V(pg_ctlcluster).
    type: path
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
notes:
  - Stopping needs O(token) unless the instance is certainly a replica.
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
  returned: when something was started or stopped
  type: dict
  sample: {stop_requested: 1767225600.1, stopped: 1767225600.4}
evidence:
  description: When it failed, what was seen. C(log_tail) holds what the server has logged since it was started.
  returned: failure
  type: dict
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.control import refuse_writable_start, start, stop
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.module import (
    RELEASE_OPTIONS,
    instance_argument_spec,
    run_verb,
)
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.probe import observe, require_identity
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.target import Target
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.token import TokenStore
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.verb import finish, look_and_guard, require_token


def work(target: Target, params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """The module's work, as the instance's account."""
    facts, store = look_and_guard(target)
    runs = facts["status"] != "stopped"
    if params["state"] == "stopped":
        times, did = _stopped(target, params, check_mode, facts, store) if runs else ({}, [])
    elif facts["status"] == "stopping":
        raise OperatorError(
            "STILL_STOPPING",
            f"{target.label} is shutting down (process {facts['postmaster_pid']}) and cannot be started yet.",
            "Stop it with state=stopped, which waits for the end, and start it then.",
        )
    elif not runs:
        times, did = _started(target, params, check_mode, facts, store)
    else:
        facts, times, did = _ready(target, facts), {}, []
    released = finish(target, store, params, check_mode)
    result: dict[str, Any] = {"changed": bool(did) or released, "did": did}
    if times:
        result["times"] = times
        facts = observe(target)
        require_identity(facts, target)
    result["instance"] = facts
    return result


def _stopped(
    target: Target, params: dict[str, Any], check_mode: bool, facts: dict[str, Any], store: TokenStore
) -> tuple[dict[str, float], list[str]]:
    # Whatever could be writable counts: starting up, hanging, or just not telling.
    harmless = facts["role"] == "replica" and not facts["writable"]
    if not harmless:
        require_token(store, target, check_mode)
    did = [f"stopped ({params['mode']}) the {facts['role']}, process {facts['postmaster_pid']}"]
    return ({}, did) if check_mode else (stop(target, params["mode"], facts["postmaster_pid"]), did)


def _started(
    target: Target, params: dict[str, Any], check_mode: bool, facts: dict[str, Any], store: TokenStore
) -> tuple[dict[str, float], list[str]]:
    refuse_writable_start(facts)
    if target.token is not None:
        # The undo of a failover: an operation that was overtaken must not start a primary beside the new one.
        require_token(store, target, check_mode)
    did = [f"started it as a {facts['role']}"]
    if check_mode:
        return {}, did
    if not params["log_file"]:
        store.prepare()
    return start(target, params["log_file"] or store.server_log), did


def _ready(target: Target, facts: dict[str, Any]) -> dict[str, Any]:
    """Somebody else has started it a moment ago: started means that it accepts connections."""
    deadline = time.monotonic() + target.timeout
    while facts["status"] == "starting":
        if time.monotonic() > deadline:
            raise OperatorError(
                "START_TIMEOUT",
                f"{target.label} was started and does not accept connections after {target.timeout:g} s.",
                "See its log: it may be replaying WAL after a crash.",
                {"sql_error": facts["sql_error"]},
            )
        time.sleep(0.2)
        facts = observe(target)
        require_identity(facts, target)
    return facts


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        instance_argument_spec(
            timeout=60,
            with_token=True,
            state={"type": "str", "choices": ["started", "stopped"], "required": True},
            mode={"type": "str", "choices": ["fast", "smart", "immediate"], "default": "fast"},
            log_file={"type": "path"},
            **RELEASE_OPTIONS,
        ),
        supports_check_mode=True,
    )
    run_verb(module, work)


if __name__ == "__main__":
    main()
