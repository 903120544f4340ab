# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs PostgreSQL's own programs: an argument list, a clean environment, a time limit. Private to the collection."""

from __future__ import annotations

import os
import subprocess
from typing import Mapping, NamedTuple, Sequence


class Completed(NamedTuple):
    """What a program left: exit status (None: it was killed at the time limit), and its output as text."""

    status: int | None
    stdout: str
    stderr: str

    @property
    def timed_out(self) -> bool:
        """The program did not end within its time and was killed."""
        return self.status is None


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The caller's environment without anything that changes what PostgreSQL's programs do or print.

    Every PG* variable goes (libpq, "Environment Variables"), so do pagers (a pager waits for a key for ever)
    and the locale (messages are matched and shown in English).
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PG", "PSQL", "LC_", "ANSIBLE_")) and name not in ("LANG", "LANGUAGE", "PAGER")
    }
    environment["LC_ALL"] = "C"
    environment.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
    environment.update(extra or {})
    return environment


def run(
    argv: Sequence[str],
    timeout: float,
    environment: Mapping[str, str] | None = None,
    standard_input: str = "",
    directory: str | None = None,
) -> Completed:
    """Run argv for at most `timeout` seconds; never raises for what the program does.

    environment: variables added to a clean environment.
    Raises OSError when the program cannot be started at all.
    """
    process = subprocess.Popen(
        list(argv),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(environment),
        cwd=directory,
    )
    try:
        out, err = process.communicate(standard_input.encode("utf-8", "surrogateescape"), timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        # Reap it, but do not wait for the pipes: a grandchild may hold them open.
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    pass
        return Completed(None, "", f"{os.path.basename(argv[0])} did not end within {timeout:g} s")
    return Completed(process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))
