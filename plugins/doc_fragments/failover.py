# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What planning a failover and carrying it out are both told."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  wishes:
    description: What the operator asks for, and the bounds that hold.
    type: dict
    default: {}
    suboptions:
      candidate:
        description: Inventory name or server name of the replica to promote. Empty means that the best one is chosen.
        type: str
        default: ''
      leave:
        description: A data center whose members must not be promoted.
        type: str
        default: ''
      prefer:
        description: A data center whose members go first.
        type: str
        default: ''
      accept:
        description: Codes of acceptable refusals to go on in spite of, separated by commas. They become part of the plan id.
        type: str
        default: ''
      dns:
        description: V(skip) leaves DNS alone.
        type: str
        choices: [update, skip]
        default: update
      without_registry:
        description: Do not ask the registry. Other runs are then seen by the claims on the members' hosts alone.
        type: bool
        default: false
      takeover:
        description: Only without the registry; ignore claims on the members' hosts whose lease has not run out yet.
        type: bool
        default: false
      dead:
        description: A statement that the lost primary is dead, which goes on record. Only asked for where its host cannot be reached.
        type: str
        default: ''
      fence:
        description: The hook that fences a lost primary, an absolute path or a role's name. Empty for none.
        type: str
        default: ''
      max_receive_lag:
        description: How far behind in receiving WAL the candidate may be, in bytes.
        type: int
        default: 16777216
      max_replay_lag:
        description: How far behind in replaying WAL the candidate may be, in bytes.
        type: int
        default: 16777216
      max_loss:
        description: How much an unplanned failover may lose as far as is known, in bytes. Unknown is more than any bound.
        type: int
        default: 16777216
      min_free:
        description: How much must be free where the candidate's data directory is, in bytes.
        type: int
        default: 268435456
      max_ttl:
        description: A longer TTL of the vhost is shown as a warning, in seconds.
        type: int
        default: 60
      max_archive_backlog:
        description: How many WAL files may wait to be archived on the primary; its stop waits for them.
        type: int
        default: 16
      max_transaction_age:
        description: An older transaction on the primary is shown as a warning, in seconds.
        type: int
        default: 300
  timeout:
    description: How long to wait for a connection to a host, in seconds.
    type: float
    default: 5.0
  look_timeout:
    description: How long to wait for the answer of one PostgreSQL server, in seconds.
    type: float
    default: 10.0
  dns:
    description: Where to send DNS updates and how to sign them; the options of M(elephaas.herd.dns_repoint).
    type: dict
  registry:
    description: How to reach the registry; the options of M(elephaas.herd.registry_info).
    type: dict
"""
