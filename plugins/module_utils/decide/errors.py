# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one error type that a person is meant to read. Private to the collection."""

from __future__ import annotations

from typing import Any


class OperatorError(Exception):
    """Something was refused or failed, in words that an operator can act on.

    code: stable, UPPER_SNAKE, for scripts and documentation.
    reason: what is wrong, naming the thing (instance, record, file).
    next_step: what a person can do about it; may be empty.
    evidence: plain data (JSON types) that led to this; never holds a secret.
    """

    def __init__(self, code: str, reason: str, next_step: str = "", evidence: dict[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.next_step = next_step
        self.evidence: dict[str, Any] = dict(evidence or {})

    def as_result(self) -> dict[str, Any]:
        """The keys of a failed Ansible result: msg, code, reason, next_step, evidence."""
        message = f"{self.reason} [{self.code}]"
        if self.next_step:
            message = f"{message} Next: {self.next_step}"
        return {
            "msg": message,
            "code": self.code,
            "reason": self.reason,
            "next_step": self.next_step,
            "evidence": self.evidence,
        }
