# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Places to mount on that the machine does not have.

A fleet may keep its data in /data or /srv/pg, and the machine must not get such a directory. So where one is missing,
its parent is covered, in the lab's mount namespace only, by an empty directory in memory with everything that was
in the parent mounted back into it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from . import kernel
from .programs import path_of, run
from .supervisor import RUN


def ensure(directories: Iterable[str], files: Iterable[str]) -> None:
    """Make sure that these can be mounted on."""
    covered: set[Path] = set()
    wanted = [(Path(os.path.realpath(path)), True) for path in directories]
    wanted += [(Path(os.path.realpath(path)), False) for path in files]
    for place, is_directory in wanted:
        if place.exists():
            continue
        parent = place.parent
        while not parent.exists():
            parent = parent.parent
        if not any(parent == known or (known in parent.parents and _in_memory(parent)) for known in covered):
            _cover(parent)
            covered.add(parent)
        (place if is_directory else place.parent).mkdir(parents=True, exist_ok=True)
        if not is_directory:
            place.touch()


def _in_memory(path: Path) -> bool:
    """Whether a directory is one of ours already: it has no counterpart on a disk."""
    return os.major(path.stat().st_dev) == 0 and not os.path.ismount(path)


def _cover(directory: Path) -> None:
    if directory.is_relative_to("/run"):
        return
    there = directory.stat()
    stage = RUN / "covered" / (str(directory).strip("/").replace("/", "-") or "root")
    stage.mkdir(parents=True)
    kernel.tmpfs(str(stage), f"{there.st_mode & 0o7777:o}")
    os.chown(stage, there.st_uid, there.st_gid)
    for entry in directory.iterdir():
        copy = stage / entry.name
        if entry.is_symlink():
            copy.symlink_to(entry.readlink())
        elif entry.is_dir():
            copy.mkdir()
            kernel.mount(str(entry), str(copy), flags=kernel.BIND | kernel.RECURSIVE)
        else:
            copy.touch()
            kernel.mount(str(entry), str(copy), flags=kernel.BIND)
    if directory == Path("/"):
        # The root itself can not be mounted over: its users, ourselves and the supervisor, are moved.
        os.chdir(stage)
        run([path_of("pivot_root"), ".", "."])
        kernel.unmount_later(".")
        os.chdir("/")
    else:
        kernel.mount(str(stage), str(directory), flags=kernel.BIND | kernel.RECURSIVE)
