# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The vhost's part of a failover: ready before anything stops, sent in one go, seen afterwards. Private; controller only.

Trouble with it is noted and not raised: whatever DNS says, the other members must not be left on the old timeline.
"""

from __future__ import annotations

import typing as t

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.prepared import Prepared
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.repoint import Updater
from ansible_collections.elephaas.herd.plugins.plugin_utils.failover.operation import Operation


class Vhost:
    """Leads the vhost of an operation's herd to its new primary. updater: makes what speaks with the name servers."""

    def __init__(self, updater: t.Callable[[], Updater], operation: Operation) -> None:
        self._updater = updater
        self._operation = operation
        self._prepared: Prepared | None = None

    def prepare(self) -> None:
        """Everything but the sending: afterwards that is one datagram."""
        change = self._operation.plan["dns"]
        if not change:
            return
        try:
            self._prepared = self._updater().prepare(
                change["record"], change["to"], type=change["type"], expected=change["from"]
            )
        except Exception as error:  # noqa: BLE001 - foreseen or not, it must not stop what comes after it
            self._note(error)

    def send(self) -> None:
        """Send it, if it was prepared."""
        if self._prepared is None:
            return
        try:
            self._prepared.send()
            self._operation.reached("dns")
        except Exception as error:  # noqa: BLE001 - foreseen or not, it must not stop what comes after it
            self._note(error)

    def see(self) -> None:
        """What every authoritative server says now; one that is behind gets a moment to catch up."""
        if self._operation.dns_trouble:
            return
        self.prepare()
        try:
            if self._prepared is not None:
                self._prepared.read_back()
        except Exception as error:  # noqa: BLE001 - foreseen or not, it must not stop what comes after it
            self._note(error)

    def _note(self, error: Exception) -> None:
        said = (error.reason, error.code) if isinstance(error, OperatorError) else (str(error), type(error).__name__)
        self._operation.dns_trouble = f"{said[0]} [{said[1]}]"
