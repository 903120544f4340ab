# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that a run leaves for people and programs. Private to the collection."""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError


def write_private_json(path: str, document: Any) -> None:
    """Write a JSON file that only its owner can read, whole or not at all. Raises OperatorError OUTPUT_FILE."""
    target = os.path.abspath(os.path.expanduser(path))
    try:
        descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(target), prefix=".elephaas-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                json.dump(document, stream, indent=2, sort_keys=True)
                stream.write("\n")
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise OperatorError(
            "OUTPUT_FILE",
            f"Cannot write {path}: {error.strerror}.",
            "Name a file in a directory that you can write to.",
        ) from error
