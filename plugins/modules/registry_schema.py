# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action plugin that runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_schema
author:
  - the elephaas.herd authors (@elephaas)
version_added: 1.0.0
short_description: Bring the registry to the layout of this collection
description:
  - Applies the numbered migrations that the registry lacks, each in a transaction of its own, under an advisory lock.
    An interrupted run leaves whole migrations only; a second run at the same time waits, and finds nothing to do.
  - A registry of ElepHaaS 1.x is recognised by its tables and brought over with its data.
  - A registry that a newer version of this collection has migrated is refused, as is one whose applied migrations differ.
  - Creates the group roles C(elephaas_reader), C(elephaas_reporter), C(elephaas_operator) and C(util_exec) where they are missing and the
    user may, and grants them their rights on the schema.
  - The database itself has to exist.
extends_documentation_fragment:
  - elephaas.herd.registry
  - elephaas.herd.attributes
  - elephaas.herd.attributes.controller
attributes:
  check_mode:
    support: full
    details: Lists what is pending, and changes nothing. Works also when the schema does not exist yet.
  diff_mode:
    support: full
seealso:
  - module: elephaas.herd.registry_fleet
"""

EXAMPLES = r"""
- name: Show which migrations are pending
  elephaas.herd.registry_schema:
    dsn: host=registry.example.com dbname=admin user=dba
  check_mode: true
  register: registry_layout

- name: Bring the registry to the layout of this collection
  elephaas.herd.registry_schema:
    host: [registry1.example.com, registry2.example.com]
    user: dba
    passfile: ~/.pgpass
"""

RETURN = r"""
layout:
  description: What was found, V(none), V(1.x) (a registry of ElepHaaS 1.x) or V(ours).
  type: str
  returned: success
  sample: ours
applied:
  description: Migrations that were there before.
  type: list
  elements: str
  returned: success
  sample: ['0001_elephaas_1']
pending:
  description: Migrations that were missing.
  type: list
  elements: str
  returned: success
  sample: ['0002_environments_and_servers']
now_applied:
  description: Migrations that this run applied; empty in check mode.
  type: list
  elements: str
  returned: success
  sample: ['0002_environments_and_servers']
roles:
  description: Per group role V(ready), V(granted) (by this run), V(to grant) (check mode) or V(missing).
  type: dict
  returned: success
  sample: {elephaas_reader: ready, elephaas_reporter: ready, elephaas_operator: ready, util_exec: ready}
"""
