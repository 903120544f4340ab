# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a module supports, said once and the same way by all of them."""

from __future__ import annotations


class ModuleDocFragment:
    # A module adds `support:` for check_mode and diff_mode, and one of the two platform fragments below.
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return the status that a run would have, without changing anything.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
"""

    # The module does its work on the controller, with the Python that runs Ansible; no connection is opened.
    CONTROLLER = r"""
options: {}
attributes:
  platform:
    description: Target OS/families that can be operated against.
    support: full
    platforms: posix
  action:
    description: Indicates this has a corresponding action plugin so some parts of the options can be executed on the controller.
    support: full
  connection:
    description: Uses the target's configured connection information to execute code on it.
    support: none
  bypass_host_loop:
    description: Runs once for the play instead of once for each host.
    support: none
"""

    # The module runs on the host that holds the instance, with nothing but Python and PostgreSQL's own programs.
    HOST = r"""
options: {}
attributes:
  platform:
    description: Target OS/families that can be operated against.
    support: full
    platforms: posix
"""
