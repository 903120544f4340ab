# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print docs/failover-checks.md from the table of checks that the code runs. The collection must be importable."""

from __future__ import annotations

from ansible_collections.elephaas.herd.plugins.module_utils.decide.candidate import REQUIREMENTS
from ansible_collections.elephaas.herd.plugins.module_utils.decide.checks import CHECKS

_HEAD = """# What a failover checks

Made from the table in `plugins/module_utils/decide/checks.py` by `script/docs`; do not edit it here.

Every row is a pure function of facts. The rehearsal (`--check`), the plan, and the second look under the lock run the same
rows. A finding of level *refuse* stops its herd and no other; *warn* is shown. *acceptable* means that an operator may go on in
spite of it with `-e accept=CODE`; what was accepted is part of the plan id. Titles in quotation marks are sections of PostgreSQL's
documentation; ✱ marks what was seen in an experiment.
"""

_CANDIDATES = """## Why a replica is no candidate

The plan shows, beside each replica that is not the candidate, the first of these that does not hold, in this order. Where
none is fit, the herd is refused with NO_CANDIDATE.

"""


def page() -> str:
    """The whole page as Markdown."""
    lines = [_HEAD]
    for check in CHECKS:
        level = f"{check.level}, acceptable" if check.acceptable else check.level
        lines.append(
            f"## {check.code}\n\n{check.title}.\n\n"
            f"- level: {level}\n- asked while: {', '.join(check.stages)}\n- reads: {check.reads}\n- why: {check.why}\n"
            f"- next step: {check.next_step}\n"
        )
    lines.append(_CANDIDATES + "\n".join(f"- {code}: {wanted}" for code, wanted in REQUIREMENTS.items()) + "\n")
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(), end="")
