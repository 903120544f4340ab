# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules for one record of the registry each have in common."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  state:
    description:
      - With V(present), the record is there, with what is given here. A field that is not given stays as it is (a new record gets its default),
        and an empty text clears a field that may be empty.
      - With V(absent), the record is not there. See O(cascade).
    type: str
    choices: [present, absent]
    default: present
  cascade:
    description:
      - With O(state=absent), also remove what can not be without the record, and let go what refers to it. Without this, a record that others depend
        on is refused, and the error lists all of them.
      - RV(removed) and RV(affected) name them, in check mode the very same ones as in the real run. Either all of it is done or nothing.
    type: bool
    default: false
notes:
  - The registry is all that is changed. No server, PostgreSQL or DNS is touched. The history of operations
    (RV(elephaas.herd.registry_info#module:operations)) outlives what it is about.
  - Needs the group role C(elephaas_operator) in the registry.
"""

    FORCE = r"""
options:
  force:
    description:
      - Also remove what is recorded as online, remove or rename what an open operation is about (a run that is under way loses it), and
        record another role for a member of a herd that was seen running.
    type: bool
    default: false
"""
