# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that every verb on a managed host shares."""

from __future__ import annotations


class ModuleDocFragment:
    """Used as elephaas.herd.instance, elephaas.herd.instance.token and elephaas.herd.instance.release."""

    DOCUMENTATION = r"""
options:
  data_directory:
    description:
      - Absolute path of the instance's data directory.
    type: str
    required: true
  port:
    description:
      - TCP port (and socket number) of the instance.
      - What answers there must have O(data_directory) as its data directory.
    type: int
    required: true
  os_user:
    description:
      - Operating system account that the instance belongs to.
      - The module must run as this account or as root; as root it drops to this account before it does anything.
      - If not set, the owner of O(data_directory).
    type: str
  bin_directory:
    description:
      - Directory of PostgreSQL's programs.
      - If not set, the directory of the running server, then the usual places for the version in O(data_directory).
    type: str
  socket_directory:
    description:
      - Directory of the instance's Unix socket.
      - If not set, what the running server says, then its configuration.
    type: str
  control:
    description:
      - How the instance is started and stopped.
      - V(auto) uses V(pg_ctlcluster) if a configuration below C(/etc/postgresql) names O(data_directory), else V(pg_ctl).
      - Both are run as O(os_user). A service manager is not told, so an instance that systemd is to supervise is started by systemd.
    type: str
    choices: [auto, pg_ctl, pg_ctlcluster]
    default: auto
  system_identifier:
    description:
      - The system identifier that the instance must have. Another one is refused.
      - Quote it, so that it stays text.
    type: str
requirements:
  - Python 3.8 or newer on the managed host
  - PostgreSQL 13 or newer, with C(psql), C(pg_ctl), C(pg_controldata) and C(pg_waldump)
notes:
  - SQL goes through C(psql) over the local socket as O(os_user), which should be a superuser by peer authentication.
"""

    TOKEN = r"""
options:
  token:
    description:
      - The operation's token, as claimed on this host with M(elephaas.herd.operation_token).
      - What can do harm is refused without it, and its use renews the lease.
    type: int
"""

    RELEASE = r"""
options:
  release:
    description: Close the operation of O(token) on this host when all went well.
    type: bool
    default: false
  release_outcome:
    description: How the operation is closed.
    type: str
    choices: [done, aborted]
    default: done
"""
