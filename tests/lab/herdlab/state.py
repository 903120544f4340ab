# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one folder that holds everything of a lab: state, keys, data directories, logs."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import LabError

CHECKOUT = Path(__file__).resolve().parents[3]
MARK = ".herdlab"
LOGS = "log"
# ioctl_iflags(2), for a 64 bit machine.
_GET_FLAGS = 0x80086601
_SET_FLAGS = 0x40086602
_TOP_DIRECTORY = 0x00020000


class State:
    """Paths inside a lab's state folder (ELEPHAAS_LAB_STATE, or .lab at the checkout's root)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.logs = root / LOGS
        self.accounts = root / "accounts"
        self._hosts = root / "hosts"
        self._generation = root / "generation"
        self.plan = root / "plan.json"
        self.controller = root / "controller"
        self.writers = root / "writers"

    def host(self, name: str) -> Path:
        """The folder with a host's private files."""
        return self._hosts / f"{name}~{self._generation.read_text(encoding='utf-8')}"

    def _new_generation(self) -> None:
        """Give the hosts' folders names that no lab had before, which puts them elsewhere on the disk.

        ext4 without a journal, which virtual machines have at times, does not use a file's inode again for a minute
        or more, and looks past each of those one by one: building where thousands of files were just removed took
        five times as long. It spreads what stands in a folder with this flag (chattr(1), T) over the disk, by name.
        Other file systems refuse the flag, and need none.
        """
        self._generation.write_text(secrets.token_hex(8), encoding="utf-8")
        self._hosts.mkdir()
        descriptor = os.open(self._hosts, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with suppress(OSError):
                flags = struct.unpack("i", fcntl.ioctl(descriptor, _GET_FLAGS, struct.pack("i", 0)))[0]
                fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("i", flags | _TOP_DIRECTORY))
        finally:
            os.close(descriptor)

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
        for folder in (self.logs, self.accounts, self.controller, self.writers):
            folder.mkdir(exist_ok=True)
        self._new_generation()

    def clear(self) -> None:
        """Remove what a lab left, but for its logs, which tell what happened."""
        if not (self.root / MARK).exists():
            return
        # Several at a time: on a disk that is told of each freed block, removing is mostly waiting.
        if self._hosts.exists():
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(shutil.rmtree, self._hosts.iterdir()))
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
