# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs on a host when the controller speaks to several of its instances at once. Private to the collection.

The counterpart of plugin_utils/remote.py, which brings it here. One run of Python for all instances of a host costs
a fraction of a module run for each.
"""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.account import owner_of, run_as
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.probe import observe
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.target import Target, check_options, target_from


def _look(target: Target, params: dict[str, Any]) -> dict[str, Any]:
    if not params.get("readiness"):
        return {"instance": observe(target)}
    from ansible_collections.elephaas.herd.plugins.module_utils.postgres.readiness import observe_readiness

    return {"instance": observe_readiness(target)}


def _step(target: Target, params: dict[str, Any]) -> dict[str, Any]:
    # Compiled on the host in each run: a look does not pay for what only a step needs.
    from ansible_collections.elephaas.herd.plugins.module_utils.postgres.step import take_step

    return take_step(target, params)


def _verb(name: str) -> Callable[[Target, dict[str, Any]], dict[str, Any]]:
    def work(target: Target, params: dict[str, Any]) -> dict[str, Any]:
        from ansible_collections.elephaas.herd.plugins.module_utils.postgres import verbs

        result: dict[str, Any] = getattr(verbs, name)(target, params, params["check_mode"])
        return result

    return work


#: What can be asked for; each takes the instance and the job's parameters, and runs as the instance's account. The
#: verbs take the parameters of the module of that name, all of them, and check_mode.
JOBS: dict[str, Callable[[Target, dict[str, Any]], dict[str, Any]]] = {
    "look": _look,
    "step": _step,
    **{name: _verb(name) for name in ("instance", "follow", "promote", "operation_token")},
}


def run_jobs(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Do one job after the other; nothing that one of them meets keeps the next from being done.

    A job: {"job": one of JOBS, "params": {...}}; params hold what names the instance (see target_from) and more.
    An answer, in the same order: {"result": {...}} or {"error": an OperatorError as a result}.
    """
    return [_run(job) for job in jobs]


def _run(job: dict[str, Any]) -> dict[str, Any]:
    params = job["params"]
    try:
        check_options(params)
        os_user = params.get("os_user") or owner_of(params["data_directory"])
        target = target_from(params, os_user)
        return {"result": run_as(os_user, lambda: JOBS[job["job"]](target, params))}
    except OperatorError as error:
        return {"error": error.as_result()}
    except Exception as error:  # noqa: BLE001 - shown to the operator, beside the other instances' answers
        import traceback  # slow to import, and hardly ever needed

        unexpected = OperatorError(
            "INTERNAL_ERROR",
            f"Unexpected {type(error).__name__}: {error}",
            evidence={"traceback": traceback.format_exc()},
        )
        return {"error": unexpected.as_result()}
