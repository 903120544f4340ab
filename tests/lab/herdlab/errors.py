# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's one error type."""

from __future__ import annotations


class LabError(Exception):
    """Something a person can act on; printed as one line, without a traceback."""
