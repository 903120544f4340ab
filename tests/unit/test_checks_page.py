# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page about the checks says what the code does."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_about_checks_is_the_table_of_checks() -> None:
    made = runpy.run_path(str(ROOT / "script" / "lib" / "checks_page.py"))["page"]()
    assert (ROOT / "docs" / "failover-checks.md").read_text(encoding="utf-8") == made, "run script/docs"
