# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which instance is meant: the options that every host verb shares, as one value. Private to the collection."""

from __future__ import annotations

import os
import pwd
from typing import Any, Mapping, NamedTuple

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.words import CONTROL_CHARACTERS, quoted

_TEXTS = ("data_directory", "os_user", "bin_directory", "socket_directory", "system_identifier")


class Target(NamedTuple):
    """One instance, as the caller describes it. Paths absolute; timeout in seconds; None: find out."""

    data_directory: str
    port: int
    os_user: str
    bin_directory: str | None
    socket_directory: str | None
    control: str
    system_identifier: str | None
    token: int | None
    timeout: float

    @property
    def home(self) -> str:
        """Home directory of os_user, by the account database (not by HOME, which a caller can set)."""
        return pwd.getpwnam(self.os_user).pw_dir

    @property
    def label(self) -> str:
        """How messages name the instance."""
        return f"the instance in {self.data_directory} (port {self.port})"


def check_options(params: Mapping[str, Any]) -> None:
    """Refuse what can name no instance, before anything is asked about it. Raises OperatorError BAD_OPTION."""
    for option in _TEXTS:
        if CONTROL_CHARACTERS.search(params.get(option) or ""):
            raise OperatorError("BAD_OPTION", f"{option} must not hold control characters: {quoted(params[option])}.")
    if not params["data_directory"].startswith("/"):
        raise OperatorError("BAD_OPTION", f"data_directory must be absolute, not {quoted(params['data_directory'])}.")
    if not 1 <= params["port"] <= 65535:
        raise OperatorError("BAD_OPTION", f"port must be 1 to 65535, not {params['port']}.")


def target_from(params: Mapping[str, Any], os_user: str) -> Target:
    """Module parameters -> Target."""
    return Target(
        data_directory=os.path.normpath(params["data_directory"]),
        port=params["port"],
        os_user=os_user,
        bin_directory=params.get("bin_directory"),
        socket_directory=params.get("socket_directory"),
        control=params.get("control") or "auto",
        system_identifier=params.get("system_identifier"),
        token=params.get("token"),
        timeout=float(params["timeout"]),
    )
