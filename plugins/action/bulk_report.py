# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show how each herd of a bulk operation ended, and keep it in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ansible.utils.display import Display

from ansible_collections.elephaas.herd.plugins.module_utils.decide import text
from ansible_collections.elephaas.herd.plugins.module_utils.decide.plan import GO
from ansible_collections.elephaas.herd.plugins.module_utils.decide.stage import DONE
from ansible_collections.elephaas.herd.plugins.plugin_utils.action import ControllerAction, plain
from ansible_collections.elephaas.herd.plugins.plugin_utils.instances import Remembered
from ansible_collections.elephaas.herd.plugins.plugin_utils.output import write_private_json

#: Outcomes after which nobody has to do anything.
GOOD = ("done", "nothing to do", "rehearsed")


class ActionModule(ControllerAction):
    """The controller-side work of elephaas.herd.bulk_report."""

    ARGUMENT_SPEC = {
        "hosts": {"type": "list", "elements": "str", "required": True},
        "plans": {"type": "dict", "required": True},
        "plan_id": {"type": "str", "required": True},
        "result_variable": {"type": "str", "required": True},
        "output_file": {"type": "str", "default": ""},
    }

    def work(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """See the module's documentation."""
        hostvars = Remembered(task_vars["hostvars"])
        results = {
            str(hostvars[name]["elephaas_herd_group"]): hostvars[name].get(params["result_variable"])
            for name in params["hosts"]
        }
        outcomes = [
            {"plan_id": params["plan_id"], **_outcome(plan, results.get(herd), self.check_mode)}
            for herd, plan in params["plans"].items()
        ]
        Display().display("\n" + "\n".join(text.bulk_outcome_lines(outcomes)))
        if params["output_file"]:
            write_private_json(params["output_file"], {"outcomes": outcomes})
        unfinished = [row["herd"] for row in outcomes if row["outcome"] not in GOOD]
        return {"outcomes": json.loads(json.dumps(outcomes)), "unfinished": unfinished, "changed": False}


def _outcome(plan: Mapping[str, Any], result: Mapping[str, Any] | None, rehearsal: bool) -> dict[str, Any]:
    row = {
        "herd": plan["herd"],
        "verb": plan["verb"],
        "planned": len(plan["steps"]),
        "changed": 0,
        "seconds": None,
        "failures": [],
        "did": {},
        "left": {},
    }
    if plan["outcome"] == DONE:
        return {**row, "outcome": "nothing to do", "reason": "; ".join(sorted(set(plan["skipped"].values())))}
    if plan["outcome"] != GO:
        refused = sorted({verdict["code"] for verdict in plan["verdicts"] if verdict["level"] == "refuse"})
        return {**row, "outcome": "refused", "reason": ", ".join(refused)}
    if rehearsal:
        return {**row, "outcome": "rehearsed", "reason": "; ".join(f"{n}: {w}" for n, w in plan["left"].items())}
    if not result or result.get("skipped"):
        return {**row, "outcome": "not begun", "reason": "it was not confirmed, or the run ended before its turn"}
    did = plain(result.get("did") or {})
    row.update(
        did=did,
        changed=sum(1 for steps in did.values() if steps),
        seconds=result.get("seconds"),
        failures=plain(result.get("failures") or []),
        left=plain(result.get("left") or {}),
    )
    if not result.get("failed"):
        return {**row, "outcome": "done", "reason": str(result.get("note") or "") or _left(row["left"])}
    if result.get("code") == "NOT_BEGUN":
        return {**row, "outcome": "not begun", "reason": str(result.get("reason"))}
    if result.get("code"):
        return {**row, "outcome": "refused", "reason": str(result.get("msg"))}
    outcome = "failed" if row["failures"] else "incomplete"
    names = ", ".join(failure["name"] for failure in row["failures"])
    return {**row, "outcome": outcome, "reason": f"{names}: see above" if names else str(result.get("msg"))}


def _left(left: Mapping[str, Mapping[str, Any]]) -> str:
    """What is not as it was wished, and could not be without a loss."""
    codes = sorted({str(one["code"]).lower() for one in left.values()})
    return f"left: {', '.join(codes)}" if left else ""
