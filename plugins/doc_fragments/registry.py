# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to reach the registry, said once for every module and the inventory plugin."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  dsn:
    description:
      - libpq connection string of the registry, such as V(host=db1,db2 dbname=admin user=elephaas) or V(postgresql://elephaas@db1,db2/admin).
      - The single options below win over what it says.
      - Taken from the environment variable E(ELEPHAAS_REGISTRY_DSN) when not given.
    type: str
  host:
    description:
      - Hosts of the registry, or directories of its Unix socket. They are tried in turn; what writes takes the one that accepts writes.
      - What is given nowhere is left to libpq and its own environment variables such as E(PGHOST).
    type: list
    elements: str
  port:
    description: Ports of the registry, one for all hosts or one for each.
    type: list
    elements: int
  dbname:
    description: Database that holds the registry. V(admin) when neither this, O(dsn) nor E(PGDATABASE) names one.
    type: str
  user:
    description: User to connect as. It needs one of the group roles C(elephaas_reader), C(elephaas_reporter) or C(elephaas_operator).
    type: str
  password:
    description: Password of O(user). Prefer O(passfile).
    type: str
  passfile:
    description: Password file in the format of C(.pgpass), readable by its owner only.
    type: path
  sslmode:
    description: How far TLS is required, as libpq understands it.
    type: str
    choices: [disable, allow, prefer, require, verify-ca, verify-full]
  connect_timeout:
    description: Seconds to wait for each host.
    type: int
    default: 5
  schema:
    description:
      - Schema of the registry's tables.
      - Taken from the environment variable E(ELEPHAAS_REGISTRY_SCHEMA) when not given.
    type: str
    default: utility
requirements:
  - psycopg2 2.8 or newer, for the Python that runs Ansible on the controller
"""
