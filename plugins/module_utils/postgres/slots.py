# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Physical replication slots of an instance, made and dropped by name. Private to the collection."""

from __future__ import annotations

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.psql import Address, SqlError, literal, query

_ANSWER_S = 5.0


def create_slots(address: Address, names: list[str], ours: list[str]) -> list[str]:
    """Create the slots that are missing; those of `names` that we have created, now or (`ours`) before.

    Raises OperatorError SLOT_CONFLICT; what this call has created is dropped again then.
    """
    created = [name for name in ours if name in names]
    for name in names:
        try:
            kind = query(address, f"SELECT slot_type {_named(name)};", _ANSWER_S)
            if kind not in ("", "physical"):
                raise OperatorError(
                    "SLOT_CONFLICT", f"There is a {kind} replication slot {name} already.", "Rename it."
                )
            if not kind:
                # Reserved at once: WAL that a sibling still needs is kept from now on, not from its first connection.
                query(address, f"SELECT pg_create_physical_replication_slot({literal(name)}, true);", _ANSWER_S)
                created.append(name)
        except (SqlError, OperatorError) as error:
            drop_unused_slots(address, created)
            if isinstance(error, OperatorError):
                raise
            raise OperatorError(
                "SLOT_CONFLICT",
                f"The replication slot {name} cannot be created on the candidate: {error}.",
                "See max_replication_slots and the slots that exist.",
            ) from error
    return created


def drop_unused_slots(address: Address, names: list[str]) -> list[str]:
    """Drop those of these physical slots that nobody uses; the names that were dropped.

    A forgotten slot keeps WAL, on a replica too, until the disk is full. One in use is left to whoever uses it.
    """
    dropped = []
    for name in names:
        unused = f"{_named(name)} AND slot_type = 'physical' AND NOT active"
        try:
            if query(address, f"SELECT slot_name, pg_drop_replication_slot(slot_name) {unused};", _ANSWER_S):
                dropped.append(name)
        except SqlError:
            # Taken into use between the two: not unused.
            continue
    return dropped


def _named(name: str) -> str:
    return f"FROM pg_replication_slots WHERE slot_name ={literal(name)}"
