# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action plugin that runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: status_report
author:
  - the elephaas.herd authors (@elephaas)
version_added: 1.0.0
short_description: Show the fleet at a glance
description:
  - Prints one table of the observed instances that the filters take, with the problems of their herds above it, the worst first.
  - A herd of which an instance is shown is shown with all its problems. How many herds with problems the filters hide is told.
  - Filters ask about what was seen, and about what is on record where it could not be seen. An instance whose host does not answer
    counts as not online, whatever is on record.
  - Nothing matches the filters is an answer, which says what each filter left, and no failure.
options:
  observations:
    description: What was seen, made by M(elephaas.herd.instances_info).
    type: list
    elements: dict
    required: true
  considered:
    description:
      - Inventory names of all instances that the filters choose from, for telling how many there were. Those of them that are not in
        O(observations) were not looked at, since the record alone rules them out (see P(elephaas.herd.matching#lookup)).
      - By default those in O(observations).
    type: list
    elements: str
  filters:
    description:
      - What to show. What several filters ask for must all be true; of several values of one filter, one is enough.
      - A list may also be a string with commas. An empty string or list counts as not given.
      - What is not known (the version of an instance that nobody has seen) meets no filter.
    type: dict
    default: {}
    suboptions:
      environments:
        description: Only instances of herds in these environments.
        type: list
        elements: str
      datacenters:
        description: Only instances in these data centers.
        type: list
        elements: str
      herds:
        description: Only these herds. A name means the herds of this name in all environments, C(name_environment) the one in it.
        type: list
        elements: str
      roles:
        description:
          - Only instances of these roles.
          - V(primary) and V(replica) are what was seen. V(detached) and V(superseded) are what is on record; an instance that has such
            a role on record counts as both.
        type: list
        elements: str
        choices: [primary, replica, detached, superseded]
      versions:
        description: Only instances of these versions of PostgreSQL. V(15) is every 15.x, V(15.8) only that one. Quote them in YAML.
        type: list
        elements: str
      version_below:
        description: Only instances of a version below this one. V(15.8) is below V(15.10), which is below V(16). Quote it in YAML.
        type: str
      lag_above:
        description:
          - Only instances that have more than this still to replay, in bytes or with a unit such as V(64MB) or V(1GiB).
          - 1 kB is 1024 bytes, as in PostgreSQL.
        type: str
      online:
        description: Only instances that are online (V(true)) or not (V(false)).
        type: bool
      offline:
        description: With V(true) the same as O(filters.online=false).
        type: bool
      without_dr_pair:
        description:
          - With V(true) only herds that do not have members in two data centers, by the record of all their members. These have the
            warning C(NO_DR_PAIR).
          - Herds of which this inventory does not hold all members are left out, for nobody knows.
        type: bool
      unassigned:
        description:
          - With V(true) only instances of the environment C(unassigned), to which belongs what had no environment in version 1.x, and
            those on servers without a data center.
          - Without a limit RV(servers) holds the servers that nobody has given a place or anything to host.
        type: bool
  reconciled:
    description: What the check-in has put right in the record, its RV(elephaas.herd.registry_checkin#module:reconciled); shown.
    type: list
    elements: dict
    default: []
  record_error:
    description: Why nothing could be put on record; shown. Empty when it could.
    type: str
    default: ''
  max_lag:
    description: A replica that is further behind is a problem, in bytes or with a unit such as V(64MB).
    type: str
    default: 16MB
  sort:
    description:
      - What the rows are sorted by, with a leading C(-) the other way round. V(problem) puts the worst herds first.
      - Rows that are equal stand by herd, a primary before its replicas. What is not known comes last.
      - The problems stand above the table, the worst first, whatever it is sorted by.
    type: str
    choices:
      - problem
      - -problem
      - herd
      - -herd
      - environment
      - -environment
      - datacenter
      - -datacenter
      - version
      - -version
      - lag
      - -lag
    default: problem
  format:
    description: What to print. V(wide) is the table with more columns, V(json) is everything.
    type: str
    choices: [table, wide, json]
    default: table
  output_file:
    description: Also write what O(format=json) prints to this file, readable by its owner only. Empty for none.
    type: str
    default: ''
extends_documentation_fragment:
  - elephaas.herd.attributes
  - elephaas.herd.attributes.controller
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
seealso:
  - module: elephaas.herd.instances_info
  - plugin: elephaas.herd.matching
    plugin_type: lookup
"""

EXAMPLES = r"""
- name: Look at every selected instance
  elephaas.herd.instances_info:
  run_once: true
  register: look

- name: Show the fleet
  elephaas.herd.status_report:
    observations: "{{ look.observations }}"
  run_once: true

- name: Show the replicas that are far behind or too old, the one that is furthest behind first
  elephaas.herd.status_report:
    observations: "{{ look.observations }}"
    filters:
      roles: replica
      lag_above: 64MB
      version_below: "15.8"
    sort: -lag
    format: wide
  run_once: true
"""

RETURN = r"""
herds:
  description: One entry per herd of which an instance is shown, in the order of the table. With V(json), printed as C(herds).
  type: list
  elements: dict
  returned: success
  contains:
    herd:
      description: The name of the herd with its environment, as its group in the inventory is called.
      type: str
    environment:
      description: Its environment.
      type: str
    protected:
      description: Whether the environment is protected.
      type: bool
    vhost:
      description: The DNS name that applications use, or null.
      type: str
    hold_reason:
      description: Why the herd is on hold, or null.
      type: str
    hold_by:
      description: Who put it on hold, or null.
      type: str
    hold_since:
      description: When that was, in UTC, or null.
      type: str
    whole:
      description: All its members were looked at. Otherwise nothing is said about what the others might be.
      type: bool
    primary:
      description: Inventory name of the one member that accepts writes; null when there is none or more than one.
      type: str
    level:
      description: V(ok), V(warn) or V(refuse), the worst of its problems.
      type: str
    problems:
      description:
        - What is the matter, the worst first, each with C(code), C(level), C(subject) (the herd or an instance), C(reason),
          C(next_step) and C(acceptable).
      type: list
      elements: dict
    members:
      description: The instances that are shown.
      type: list
      elements: dict
      contains:
        instance:
          description: Inventory name.
          type: str
        server:
          description: Name of its server.
          type: str
        datacenter:
          description: Data center of its server, or null.
          type: str
        address:
          description: How its server is reached.
          type: str
        port:
          description: Port of PostgreSQL.
          type: int
        data_directory:
          description: Its data directory.
          type: str
        recorded_role:
          description: V(primary), V(replica), V(detached) or V(superseded), by the record before this look.
          type: str
        role:
          description: V(primary) or V(replica) as seen, null when it was not.
          type: str
        state:
          description: V(unreachable), V(not answering), V(writable), of a replica the state of its WAL receiver, or what else it does.
          type: str
        online:
          description: It runs, answers, and is the instance that is meant. Null when its host does not answer.
          type: bool
        version:
          description: Version of PostgreSQL as seen, or null.
          type: str
        recorded_version:
          description: The same by the record before this look.
          type: str
        timeline:
          description: Its timeline as seen, or null.
          type: int
        system_identifier:
          description: As seen, or else as recorded.
          type: str
        lag_bytes:
          description: What a replica has still to replay, from the position of the primary if that was seen; null when unknown.
          type: int
        recorded_lag_bytes:
          description: The same by the record before this look.
          type: int
        upstream:
          description: The instance that it streams from, or host and port when that is none of the herd; null when none.
          type: str
        clients:
          description: Client connections; null when it did not answer, as the next ones.
          type: int
        replicas:
          description: Connected replicas.
          type: int
        slots:
          description: Replication slots.
          type: int
        inactive_slots:
          description: Those of them that nobody uses.
          type: int
        pending_restart:
          description: Settings that wait for a restart.
          type: list
          elements: str
        config_errors:
          description: What is wrong in its configuration files.
          type: list
          elements: str
        started:
          description: When it was started, ISO 8601 in UTC.
          type: str
        last_seen:
          description: When it answered last, ISO 8601 in UTC. Null when it never did.
          type: str
        reachable:
          description: Whether its host answered.
          type: bool
selection:
  description: What the filters did. Printed as C(selection).
  type: dict
  returned: success
  contains:
    considered:
      description: How many instances there were.
      type: int
    shown:
      description: How many are shown.
      type: int
    hidden_problems:
      description: How many herds were looked at, have problems or warnings, and are not shown.
      type: int
    filters:
      description:
        - The filters in the order of their work, each with C(option), C(wanted), C(left) (how many of what the one before had left) and
          C(unknown) (how many it left out because it is not known).
      type: list
      elements: dict
servers:
  description:
    - With O(filters.unassigned=true) and without a limit, the servers without environment or data center, and those that host no
      instance. Each with C(server), C(environment), C(datacenter), C(address) and C(instances) (how many). Printed as C(servers).
  type: list
  elements: dict
  returned: success
healthy:
  description: Whether no herd that is shown has a problem or a warning.
  type: bool
  returned: success
"""
