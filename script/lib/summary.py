# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Add up several runs of pytest: one line for each, then one in pytest's own form for all of them.

Takes the folder with the runs' JUnit files and the names of the runs. Exits non-zero when a test failed, when there was
none, or when a run left no file.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

KINDS = ("failed", "passed", "skipped", "error")


def counts(suite: ElementTree.Element) -> Counter[str]:
    """Tests of one run by outcome. A test whose teardown breaks counts twice in JUnit's `tests`, once as an error."""
    found = Counter(
        failed=int(suite.get("failures", 0)), error=int(suite.get("errors", 0)), skipped=int(suite.get("skipped", 0))
    )
    found["passed"] = int(suite.get("tests", 0)) - sum(found.values())
    return found


def in_words(found: Counter[str], seconds: float) -> str:
    """Counts as pytest writes them."""
    words = ", ".join(f"{found[kind]} {kind}" for kind in KINDS if found[kind]) or "no tests ran"
    return f"{words} in {seconds:.2f}s"


folder, *names = sys.argv[1:]
total: Counter[str] = Counter()
total_seconds = 0.0
for name in names:
    path = Path(folder, f"{name}.xml")
    if not path.exists():
        print(f"{name}: pytest did not get to its end")
        total["error"] += 1
        continue
    for suite in ElementTree.parse(path).getroot().iter("testsuite"):  # noqa: S314  written by our own pytest
        found, seconds = counts(suite), float(suite.get("time", 0))
        print(f"{name}: {in_words(found, seconds)}")
        total += found
        total_seconds += seconds
print(f" {in_words(total, total_seconds)} ".center(100, "="))
sys.exit(bool(total["failed"] or total["error"] or not total["passed"]))
