# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The snapshot is private, whole, and read only when nobody else could have written it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.elephaas.herd.plugins.plugin_utils import snapshot

from .documents import trading


def test_round_trip_is_private(tmp_path: Path) -> None:
    path = tmp_path / "new" / "place" / "snapshot.json"
    os.umask(0)  # whatever the user's umask
    snapshot.save(path, trading())
    snapshot.save(path, trading())
    os.umask(0o022)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["snapshot.json"]
    found = snapshot.load(path)
    assert found.document == trading()
    assert found.age_s(found.saved_at + 90) == 90
    assert found.age_s(found.saved_at - 90) == 0


def test_a_failed_save_leaves_the_former(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.json"
    snapshot.save(path, trading())
    with pytest.raises(snapshot.SnapshotError, match="could not be kept"):
        snapshot.save(path, {"bad": object()})
    assert snapshot.load(path).document == trading()
    assert [entry.name for entry in tmp_path.iterdir()] == ["snapshot.json"]


def test_no_place_for_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(snapshot.SnapshotError, match="could not be kept"):
        snapshot.save(tmp_path / "file" / "snapshot.json", trading())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o666])
def test_others_may_not_even_read(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "snapshot.json"
    snapshot.save(path, trading())
    path.chmod(mode)
    with pytest.raises(snapshot.SnapshotError, match="chmod 600"):
        snapshot.load(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.json"
    snapshot.save(path, trading())
    os.chown(path, 65534, -1)
    with pytest.raises(snapshot.SnapshotError, match="belongs to user id 65534"):
        snapshot.load(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "damaged"),
        (b'{"kind": "elephaas.herd inven', "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"[]", "is not an inventory snapshot"),
        (b'{"kind": "something else"}', "is not an inventory snapshot"),
        (b'{"kind": "elephaas.herd inventory snapshot", "format": 99}', "format 99"),
        (b'{"kind": "elephaas.herd inventory snapshot", "format": 1, "saved_at": "x", "document": {}}', "damaged"),
        (b'{"kind": "elephaas.herd inventory snapshot", "format": 1, "saved_at": 1, "document": []}', "damaged"),
    ],
)
def test_damaged_or_foreign(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "snapshot.json"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(snapshot.SnapshotError, match=words):
        snapshot.load(path)


def test_neither_a_link_nor_a_pipe_nor_nothing(tmp_path: Path) -> None:
    snapshot.save(tmp_path / "real", trading())
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("link", "pipe", "nothing", "."):
        with pytest.raises(snapshot.SnapshotError):
            snapshot.load(tmp_path / name)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("host=a dbname=x password=secret", "host=a dbname=x password='an \\'other'"),
        ("postgresql://u:secret@a,b/x?sslmode=require", "postgresql://u:other@a,b/x?sslmode=require"),
        ("postgresql://u@a/x?password=1", "postgresql://u@a/x?password=2"),
    ],
)
def test_a_password_does_not_name_the_file(one: str, other: str) -> None:
    paths = {snapshot.default_path("/h", {"dsn": dsn, "password": dsn}, {"PGPASSWORD": dsn}) for dsn in (one, other)}
    assert len(paths) == 1


def test_each_registry_has_its_own_file() -> None:
    wanted: list[tuple[dict[str, Any], dict[str, str]]] = [
        ({}, {}),
        ({"dsn": "host=a"}, {}),
        ({"dsn": "host=b"}, {}),
        ({"dsn": "postgresql://a/x"}, {}),
        ({"dsn": "postgresql://b/x"}, {}),
        ({"host": ["a"]}, {}),
        ({"host": ["a"], "schema": "other"}, {}),
        ({}, {"PGHOST": "a"}),
        ({}, {"PGSERVICE": "a"}),
    ]
    paths = {snapshot.default_path("/h", options, environ) for options, environ in wanted}
    assert len(paths) == len(wanted)
    assert all(path.parent == Path("/h/elephaas") for path in paths)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 seconds"), (119.9, "119 seconds"), (7199, "119 minutes"), (7200, "2 hours"), (1e6, "11 days")],
)
def test_age_in_words(seconds: float, words: str) -> None:
    assert snapshot.describe_age(seconds) == words


def test_content_is_json_of_a_known_kind(tmp_path: Path) -> None:
    snapshot.save(tmp_path / "s", trading())
    assert set(json.loads((tmp_path / "s").read_text())) == {"kind", "format", "saved_at", "document"}
