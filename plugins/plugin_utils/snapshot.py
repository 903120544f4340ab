# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The last good inventory document, kept where a lost registry cannot take it along. Private to the collection.

One file, readable by its owner only, replaced as a whole. It decides which servers a later run connects to and as
whom, so a file that somebody else could have written is not read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import tempfile
import time
import typing as t
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

KIND = "elephaas.herd inventory snapshot"
FORMAT = 1

# Options and libpq variables that say which registry is meant. A password never takes part, not even hashed.
_IDENTITY_OPTIONS = ("dsn", "host", "port", "dbname", "schema")
_IDENTITY_VARIABLES = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGSERVICE")
_KEYWORD_PASSWORD = re.compile(r"(?i)\b(password|sslpassword)\s*=\s*('(?:[^'\\]|\\.)*'|\S+)")


class SnapshotError(Exception):
    """The snapshot cannot be kept or read; the text says why and never holds a secret."""


@dataclass(frozen=True)
class Snapshot:
    """A kept document and when it was saved (seconds since the epoch)."""

    document: dict[str, t.Any]
    saved_at: float

    def age_s(self, now: float) -> float:
        """Age in seconds; never negative, also when a clock was set back."""
        return max(0.0, now - self.saved_at)


def describe_age(seconds: float) -> str:
    """An age for people: `42 seconds`, `3 hours`, `2 days`."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}s"
    return f"{int(seconds)} seconds"


def default_path(home: str, options: t.Mapping[str, t.Any], environ: t.Mapping[str, str]) -> Path:
    """Where the snapshot of this registry is kept: below *home* (Ansible's), one file per registry."""
    identity = {name: str(options[name]) for name in _IDENTITY_OPTIONS if options.get(name)}
    identity.update({name: environ[name] for name in _IDENTITY_VARIABLES if environ.get(name)})
    if "dsn" in identity:
        identity["dsn"] = _without_password(identity["dsn"])
    text = json.dumps(identity, sort_keys=True)
    return Path(home) / "elephaas" / f"inventory-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def _without_password(dsn: str) -> str:
    """The connection string (libpq's URI or keyword form) without what is secret in it."""
    if "://" not in dsn:
        return _KEYWORD_PASSWORD.sub("", dsn)
    scheme, _separator, rest = dsn.partition("://")
    place, question, query = rest.partition("?")
    account, at, hosts = place.rpartition("@")
    pairs = urllib.parse.parse_qsl(query, keep_blank_values=True)
    public = urllib.parse.urlencode([pair for pair in pairs if "password" not in pair[0].lower()])
    return f"{scheme}://{account.partition(':')[0]}{at}{hosts}{question}{public}"


def save(path: Path, document: t.Mapping[str, t.Any]) -> None:
    """Keep this document. Raises SnapshotError; the former file is then still whole."""
    content = {"kind": KIND, "format": FORMAT, "saved_at": time.time(), "document": document}
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # mkstemp makes it 0600 from the start: there is no moment at which others could open it.
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(json.dumps(content, separators=(",", ":")))
                file.flush()
                # Without this a power cut may leave the new name with no content.
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except (OSError, TypeError, ValueError) as error:
        raise SnapshotError(f"the inventory snapshot {path} could not be kept: {error}") from error


def load(path: Path) -> Snapshot:
    """Read the kept document. Raises SnapshotError saying why there is none that may be used."""
    try:
        # Not through a link, and not waiting for a pipe: what was checked must be what is read.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise SnapshotError(f"there is no inventory snapshot at {path}") from None
    except OSError as error:
        raise SnapshotError(f"the inventory snapshot {path} cannot be opened: {error.strerror}") from error
    problem = _problem_of(os.fstat(handle))
    if problem:
        os.close(handle)
        raise SnapshotError(f"the inventory snapshot {path} is not used: {problem}")
    with os.fdopen(handle, "rb") as file:
        try:
            content = json.loads(file.read())
        except ValueError as error:
            raise SnapshotError(f"the inventory snapshot {path} is damaged: {error}") from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise SnapshotError(f"{path} is not an inventory snapshot")
    if content.get("format") != FORMAT:
        raise SnapshotError(
            f"the inventory snapshot {path} has format {content.get('format')!r}, but this version reads {FORMAT}"
        )
    document, saved_at = content.get("document"), content.get("saved_at")
    if not isinstance(document, dict) or isinstance(saved_at, bool) or not isinstance(saved_at, (int, float)):
        raise SnapshotError(f"the inventory snapshot {path} is damaged: it holds no document or no time")
    return Snapshot(document, float(saved_at))


def _problem_of(status: os.stat_result) -> str | None:
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    if status.st_uid != os.geteuid():
        return f"it belongs to user id {status.st_uid}, not to the one who runs this ({os.geteuid()})"
    if status.st_mode & 0o077:
        return f"others may use it (mode {stat.S_IMODE(status.st_mode):04o}); allow its owner only (chmod 600)"
    return None
