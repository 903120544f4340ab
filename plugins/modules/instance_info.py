# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module elephaas.herd.instance_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: instance_info
short_description: Look at one PostgreSQL instance
version_added: 1.0.0
author: The elephaas.herd authors (@elephaas)
description:
  - Returns in one probe everything that decisions about an instance are made from.
  - Works on running, starting, hanging, stopped and absent instances. A server that does not answer is a fact, not a failure.
  - Changes nothing.
extends_documentation_fragment:
  - elephaas.herd.instance
  - elephaas.herd.attributes
  - elephaas.herd.attributes.host
options:
  timeout:
    description: How long to wait for an answer from the server, in seconds.
    type: int
    default: 10
  readiness:
    description:
      - Also look for what a failover wants to know, see RV(instance.readiness).
      - This costs a second query, and up to two seconds in a data directory of very many files.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
seealso:
  - module: elephaas.herd.instance
"""

EXAMPLES = r"""
- name: Look at an instance
  elephaas.herd.instance_info:
    data_directory: /var/lib/postgresql/15/trading
    port: 5432
  register: look

- name: Stop here unless it is a replica that streams
  ansible.builtin.assert:
    that:
      - look.instance.role == 'replica'
      - look.instance.upstream.status == 'streaming'
"""

RETURN = r"""
instance:
  description: The facts.
  returned: success
  type: dict
  contains:
    status:
      description: V(running), V(starting), V(stopping), V(stopped) or V(absent) (no data directory, or an empty one).
      type: str
    os_user:
      description: The account that the instance belongs to.
      type: str
    data_directory:
      description: As given.
      type: str
    port:
      description: As given.
      type: int
    bin_directory:
      description: Where its programs are.
      type: str
    socket_directory:
      description: Where its socket is; null if unknown.
      type: str
    control_method:
      description: V(pg_ctl) or V(pg_ctlcluster).
      type: str
    debian_cluster:
      description: Version and name of Debian's cluster, or null.
      type: list
      elements: str
    postmaster_pid:
      description: Process id of the live postmaster of this data directory, or null.
      type: int
    identity_problem:
      description: Why what was found is not the instance that was meant, or null.
      type: str
    sql_error:
      description: Why the live server did not answer, or null.
      type: str
    role:
      description:
        - V(primary) or V(replica).
        - Of a running server, whether it is in recovery. Of a stopped one, what its signal files and control file say.
      type: str
    signal_files:
      description: Which of C(standby.signal) and C(recovery.signal) exist.
      type: list
      elements: str
    writable:
      description: It runs and is not in recovery. A live server that does not answer counts as writable if its control file says so.
      type: bool
    default_read_only:
      description: The setting C(default_transaction_read_only).
      type: bool
    version:
      description: Version of the running server.
      type: str
    version_num:
      description: The same as PostgreSQL's number.
      type: int
    major:
      description: Major version of the data directory.
      type: int
    binary_version:
      description: Version of the programs on disk.
      type: str
    system_identifier:
      description: System identifier.
      type: str
    timeline:
      description: Current timeline.
      type: int
    timeline_history:
      description: The ancestors of the current timeline, oldest first, each with C(timeline) and C(switch_lsn).
      type: list
      elements: dict
    positions:
      description:
        - C(current) (primary), C(received) and C(replayed) (replica) WAL positions, C(replay_delay_s),
          C(replay_lag_bytes) and C(observed_at) (seconds since 1970).
      type: dict
    replay_paused:
      description: Replay is paused; null on a primary.
      type: bool
    replication_user:
      description: The user in C(primary_conninfo), of a primary too; null when there is none.
      type: str
    upstream:
      description:
        - What a replica follows. C(host), C(port), C(user), C(slot), C(application_name), C(conninfo) (without secrets),
          C(password_inline); and of the WAL receiver C(status) (null if there is none), C(receiver_timeline),
          C(latest_end_lsn), C(last_message_age_s), C(connected_host), C(connected_port).
      type: dict
    replicas:
      description: Connected replicas (C(pg_stat_replication)).
      type: list
      elements: dict
    clients:
      description: Number of client connections other than our own.
      type: int
    slots:
      description:
        - Replication slots, each with C(name), C(type), C(active), C(restart_lsn), C(wal_status), C(temporary); from
          PostgreSQL 17 on C(failover) and C(synced), from 16 or 17 on C(invalid) (why it can no longer be used).
      type: list
      elements: dict
    settings:
      description:
        - Settings that matter for replication, as numbers, booleans and text. C(recovery_min_apply_delay) in milliseconds,
          C(max_slot_wal_keep_size) in MB, C(wal_segment_size) in bytes, C(archive_command_set) instead of the command.
        - Of a stopped instance as its files say; null if unknown.
      type: dict
    control:
      description: The control file, C(state) as PostgreSQL prints it.
      type: dict
    disk:
      description: C(free_bytes) and C(total_bytes) of the data directory's file system.
      type: dict
    base_backup_running:
      description: A base backup is being taken from it.
      type: bool
    started_at:
      description: When the running server was started, in seconds since 1970.
      type: float
    pending_restart:
      description: Settings that were changed in the configuration files and wait for a restart.
      type: list
      elements: str
    config_errors:
      description:
        - What is wrong in the configuration files of a running server and in its C(pg_hba.conf), one line each.
        - Empty too when O(os_user) is no superuser there.
      type: list
      elements: str
    next_start:
      description:
        - What the running server would have after a restart for the settings that must not be lower on a replica than on
          its primary (C(max_connections) and so on). Empty when O(os_user) is no superuser there.
      type: dict
    programs:
      description: Paths of C(psql), C(pg_ctl), C(pg_controldata), C(pg_waldump); null if missing.
      type: dict
    operation:
      description: The operation that has claimed it last, with C(token), C(operation), C(closed), C(lease_until), C(claimed_at); or null.
      type: dict
    waiter:
      description: The last wait-then-promote process, see M(elephaas.herd.promote); or null.
      type: dict
    readiness:
      description:
        - With O(readiness), what a failover wants to know beside all that; null otherwise. What could not be found out
          is null.
      type: dict
      contains:
        managers:
          description:
            - Failover managers that run on the host or have left a trace in the data directory, each with C(name), C(pid),
              C(certain) (it is configured for this instance) and C(evidence).
            - Those that are configured for another instance are left out.
          type: list
          elements: dict
        autostart:
          description: What starts the instance without being asked, in words. Debian's C(start.conf), a systemd unit.
          type: list
          elements: str
        glibc:
          description: Version of the host's C library, which orders text where a database's provider is C(libc).
          type: str
        icu:
          description: The version of ICU's collations.
          type: str
        databases:
          description:
            - Databases with C(name), C(locale), C(provider) (C(c) libc, C(i) ICU, C(b) builtin), and from PostgreSQL 15 on
              the collation version that was C(recorded) and the C(actual) one.
          type: list
          elements: dict
        archive_ready:
          description: Number of WAL files that wait to be archived.
          type: int
        archiver:
          description: C(failing), C(failed_count), C(last_failed_wal), C(last_failed_age_s) of C(pg_stat_archiver).
          type: dict
        unlogged:
          description:
            - Of a primary the number of unlogged C(relations) (tables, indexes, sequences) in all databases, their C(bytes)
              (of the first gigabyte of each), and whether the count is C(complete).
          type: dict
        transactions:
          description: The five oldest open transactions with C(pid), C(user), C(application_name), C(state), C(age_s).
          type: list
          elements: dict
        prepared:
          description: C(count) of prepared transactions, and age of the oldest as C(oldest_s).
          type: dict
        backup_sessions:
          description: Names of clients that are taking a backup without a walsender.
          type: list
          elements: str
        preload:
          description:
            - C(libraries) that the next start loads (C(shared_preload_libraries)), and those of them that are C(missing) on
              disk. Null when O(os_user) is no superuser there.
          type: dict
        standby_name:
          description: The application name under which it streams from its upstream, or would as a replica.
          type: str
        full_page_writes:
          description: The setting C(full_page_writes).
          type: bool
        sql_error:
          description: Why the server did not answer this, or null.
          type: str
    warnings:
      description: What a person should know.
      type: list
      elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.elephaas.herd.plugins.module_utils.postgres.module import instance_argument_spec, run_verb
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.probe import observe
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.readiness import observe_readiness
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.target import Target


def look(target: Target, params: dict[str, Any], _check_mode: bool) -> dict[str, Any]:
    """The module's work, as the instance's account."""
    facts = observe_readiness(target) if params["readiness"] else observe(target)
    return {"changed": False, "instance": facts}


def main() -> None:
    """Entry point."""
    spec = instance_argument_spec(timeout=10, readiness={"type": "bool", "default": False})
    run_verb(AnsibleModule(spec, supports_check_mode=True), look)


if __name__ == "__main__":
    main()
