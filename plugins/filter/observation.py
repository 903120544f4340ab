# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was seen of an instance, from the variables of its host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def observation(variables: Mapping[str, Any], register: str, dead: Mapping[str, str]) -> dict[str, Any]:
    """One observation for registry_checkin and status_report.

    variables: hostvars of the instance. register: name under which its look was registered.
    dead: reasons, by inventory name, of hosts that were found not to answer.
    """
    name = variables["inventory_hostname"]
    look = variables.get(register) or {}
    facts = look.get("instance")
    return {
        "name": name,
        "herd": variables["elephaas_herd"],
        "environment": variables["elephaas_environment"],
        "server": variables["elephaas_server"],
        "reachable": facts is not None,
        "facts": facts,
        "error": "" if facts is not None else dead.get(name) or look.get("msg") or "it was not looked at",
    }


class FilterModule:
    """Filters of the collection that read host variables."""

    def filters(self) -> dict[str, Any]:
        return {"observation": observation}
