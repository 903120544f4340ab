# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes this checkout importable as the collection elephaas.herd, whichever ansible-core runs the tests."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COLLECTIONS = ROOT / ".build" / "collections"


def _link_checkout() -> None:
    """Ansible only finds a collection below a path that ends in ansible_collections/<namespace>/<name>."""
    link = COLLECTIONS / "ansible_collections" / "elephaas" / "herd"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(os.path.relpath(ROOT, link.parent))


def _load_collection() -> None:
    # Also for the ansible commands that tests start. It is read once, when ansible is imported.
    os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(COLLECTIONS)
    from ansible.plugins.loader import init_plugin_loader

    init_plugin_loader([str(COLLECTIONS)])


def _set_up_hypothesis() -> None:
    # Examples that it found lie with everything else that is built. It reads this when it is imported.
    os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(ROOT / ".build" / "hypothesis"))
    from hypothesis import HealthCheck, settings

    # How long an example takes says how busy the machine is, not whether the code is right.
    settings.register_profile("elephaas", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("elephaas")


_link_checkout()
_load_collection()
_set_up_hypothesis()
