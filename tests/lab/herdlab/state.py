# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one folder that holds everything of a lab: state, keys, data directories, logs."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import LabError

CHECKOUT = Path(__file__).resolve().parents[3]
MARK = ".herdlab"
LOGS = "log"


class State:
    """Paths inside a lab's state folder (ELEPHAAS_LAB_STATE, or .lab at the checkout's root)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.logs = root / LOGS
        self.accounts = root / "accounts"
        self.hosts = root / "hosts"
        self.plan = root / "plan.json"
        self.controller = root / "controller"
        self.writers = root / "writers"

    @classmethod
    def from_environment(cls) -> State:
        """The state folder that the caller chose, as an absolute path without symbolic links."""
        return cls(Path(os.environ.get("ELEPHAAS_LAB_STATE") or CHECKOUT / ".lab").resolve())

    def create(self) -> None:
        """Make the folder, empty but for old logs; refuses a folder that holds something else."""
        if self.root.exists() and any(self.root.iterdir()) and not (self.root / MARK).exists():
            raise LabError(f"{self.root} is not empty and not a lab's: choose another folder in ELEPHAAS_LAB_STATE")
        self.root.mkdir(parents=True, exist_ok=True)
        # Others may pass (PostgreSQL's own accounts reach their files through mounts, the operator the controller's).
        self.root.chmod(0o755)
        (self.root / MARK).touch()
        self.clear()
        for folder in (self.logs, self.accounts, self.hosts, self.controller, self.writers):
            folder.mkdir(exist_ok=True)

    def clear(self) -> None:
        """Remove what a lab left, but for its logs, which tell what happened."""
        if not (self.root / MARK).exists():
            return
        for entry in self.root.iterdir():
            if entry.name in (MARK, LOGS):
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One up or down at a time."""
        self.root.mkdir(parents=True, exist_ok=True)
        # The lock is on the folder itself: a lock file would be one more thing to leave behind.
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LabError(f"another up or down works on {self.root} right now") from None
            yield
        finally:
            os.close(descriptor)
