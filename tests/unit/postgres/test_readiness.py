# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who else acts on an instance, and what of it is found in files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.elephaas.herd.plugins.module_utils.postgres import managers, readiness

WAIT = "read line"


@contextmanager
def running(*argv: str, executable: str = "/bin/sh", **environment: str) -> Iterator[int]:
    """A process that shows this command line, until the end of the block; its process id."""
    with subprocess.Popen(
        argv,
        executable=executable,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], **environment},
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.stdin.close()


def seen(pid: int, data_directory: Path) -> list[dict[str, Any]]:
    """What is found of one process, beside whatever else this machine runs."""
    return [one for one in managers.find_managers(str(data_directory)) if one["pid"] == pid]


# A shell takes what follows -c's script as its arguments: the rest of a manager's own command line can stand there.
SHELL = ("-c", f"echo up; {WAIT}", "sh")


@pytest.mark.parametrize(
    ("program", "options", "environment"),
    [
        ("pg_autoctl", ("run", "--pgdata", "{here}"), {}),
        ("/usr/bin/pg_autoctl", ("run", "--pgdata={here}"), {}),
        ("pg_autoctl", ("run",), {"PGDATA": "{here}"}),
        ("stolon-keeper", ("--data-dir", "{above}"), {}),
        ("stolon-keeper", (), {"STKEEPER_DATA_DIR": "{above}"}),
        ("repmgrd", ("-f", "{above}/repmgr.conf"), {}),
        ("repmgrd", ("--config-file={above}/repmgr.conf", "--daemonize"), {}),
        ("patroni", ("{above}/patroni.yml",), {}),
        ("patroni", ("/nowhere.yml",), {"PATRONI_POSTGRESQL_DATA_DIR": "{here}"}),
    ],
)
def test_a_manager_is_tied_to_what_it_is_configured_for(
    tmp_path: Path, program: str, options: tuple[str, ...], environment: dict[str, str]
) -> None:
    here, other = tmp_path / "postgres", tmp_path / "other"
    here.mkdir()
    other.mkdir()
    (tmp_path / "link").symlink_to(here)
    (tmp_path / "repmgr.conf").write_text(f"node_id=1\n#data_directory='/no'\ndata_directory = '{here}' # mine\n")
    (tmp_path / "patroni.yml").write_text(f"scope: x\npostgresql:\n  listen: '*:5432'\n  data_dir: {here}\n")
    places = {"here": str(here), "above": str(tmp_path)}
    argv = [option.format(**places) for option in options]
    said = {name: value.format(**places) for name, value in environment.items()}
    with running(program, *SHELL, *argv, **said) as pid:
        for directory in (here, tmp_path / "link"):
            (found,) = seen(pid, directory)
            assert (found["name"], found["certain"]) == (os.path.basename(program), True)
            assert str(pid) in found["evidence"]
        # Configured for another one: nobody's business here.
        assert seen(pid, other) == []


@pytest.mark.parametrize(
    "argv", [("pacemakerd",), ("/usr/sbin/corosync",), ("repmgrd", "-f", "/nowhere"), ("patroni", "/nowhere.yml")]
)
def test_what_does_not_tell_is_seen_and_not_certain(tmp_path: Path, argv: tuple[str, ...]) -> None:
    with running(argv[0], *SHELL, *argv[1:]) as pid:
        (found,) = seen(pid, tmp_path)
        assert (found["name"], found["certain"]) == (os.path.basename(argv[0]), False)


def test_a_script_of_python_is_known_by_its_own_name(tmp_path: Path) -> None:
    script = tmp_path / "patroni"
    script.write_text("import sys; print('up', flush=True); sys.stdin.readline()")
    (tmp_path / "a.yml").write_text(f'  data_dir: "{tmp_path}"\n')
    with running("python3", "-I", str(script), str(tmp_path / "a.yml"), executable=sys.executable) as pid:
        assert [one["certain"] for one in seen(pid, tmp_path)] == [True]


@pytest.mark.parametrize("argv", [("vi", "/etc/patroni"), ("tail", "-f", "/var/log/repmgrd"), ("patronictl",)])
def test_who_merely_speaks_of_a_manager_is_none(tmp_path: Path, argv: tuple[str, ...]) -> None:
    with running(argv[0], *SHELL, *argv[1:]) as pid:
        assert seen(pid, tmp_path) == []


def test_what_patroni_leaves_behind(tmp_path: Path) -> None:
    assert not [one for one in managers.find_managers(str(tmp_path)) if one["certain"]]
    (tmp_path / "patroni.dynamic.json").touch()
    (found,) = [one for one in managers.find_managers(str(tmp_path)) if one["certain"]]
    assert found["pid"] is None and "patroni.dynamic.json" in found["evidence"]


@pytest.mark.parametrize(
    ("shown", "found"),
    [
        ("MainPID={pid}\nRestart=no\nUnitFileState=disabled", []),
        ("MainPID={pid}\nRestart=on-failure\nUnitFileState=static", ["pg.service has Restart=on-failure"]),
        (
            "MainPID={pid}\nRestart=always\nUnitFileState=enabled-runtime",
            ["pg.service is enabled at boot", "pg.service has Restart=always"],
        ),
        # The unit of an sshd from which somebody started it by hand.
        ("MainPID=1\nRestart=always\nUnitFileState=enabled", []),
        ("", []),
    ],
)
def test_a_unit_starts_it_when_it_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: str, found: list[str]
) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f"#!/bin/sh\n[ \"$2\" = pg.service ] && cat <<'END'\n{shown.format(pid=4711)}\nEND\n")
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    texts = {"/proc/4711/cgroup": "0::/system.slice/system-pg.slice/pg.service\n"}
    monkeypatch.setattr(managers, "_text", lambda path: texts.get(path, ""))
    assert managers.find_autostart(None, 4711) == found
    assert managers.find_autostart(None, None) == []


@pytest.mark.parametrize(
    ("text", "starts"), [("auto\n", True), ("# comment\nmanual # why\n", False), ("disabled", False), ("", True)]
)
def test_debians_start_conf(monkeypatch: pytest.MonkeyPatch, text: str, starts: bool) -> None:
    monkeypatch.setattr(managers, "_text", lambda path: text)
    found = managers.find_autostart(["15", "main"], None)
    assert found == (["/etc/postgresql/15/main/start.conf says auto"] if starts else [])


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"primary_conninfo": "host=a application_name=chi-db1", "cluster_name": "15/main"}, "chi-db1"),
        ({"primary_conninfo": "host=a", "cluster_name": "15/main"}, "15/main"),
        ({"primary_conninfo": "", "cluster_name": ""}, "walreceiver"),
        # A form that is not taken apart: it may name anything.
        ({"primary_conninfo": "postgresql://a/?application_name=x", "cluster_name": "15/main"}, None),
    ],
)
def test_the_name_it_streams_under(settings: dict[str, str], name: str | None) -> None:
    assert readiness.standby_name(settings) == name


def preload(folder: Path, loaded: str, in_files: str | None = None, path: str = "$libdir") -> dict[str, Any] | None:
    settings = {"shared_preload_libraries": loaded, "dynamic_library_path": path}
    return readiness._preload(
        {"settings": settings, "library_directory": str(folder), "preload_in_files": in_files},
        str(folder.parent),
    )


def test_libraries_are_looked_for_as_the_server_does(tmp_path: Path) -> None:
    for name in ("lib/here.so", "more/there.so", "lib/plugins/deep.so", "lib/odd"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    library = tmp_path / "lib"
    assert preload(library, "") == {"libraries": [], "missing": []}
    everything = f'here, "$libdir/plugins/deep",odd, there, {tmp_path}/more/there.so'
    found = preload(library, everything)
    assert found is not None and found["missing"] == ["there"]
    found = preload(library, everything, path=f"$libdir:{tmp_path}/more")
    assert found is not None and found["missing"] == [] and len(found["libraries"]) == 5
    # The server works in its data directory.
    assert preload(library, "more/there") == {"libraries": ["more/there"], "missing": []}
    # What the next start loads counts, not what runs.
    assert preload(library, "gone", in_files="here") == {"libraries": ["here"], "missing": []}
    assert preload(library, "gone") == {"libraries": ["gone"], "missing": ["gone"]}


def test_unlogged_relations_are_counted_in_all_databases_and_tablespaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = tmp_path / "pg_tblspc" / "16400" / "PG_15_202209061" / "5"
    for folder in (tmp_path / "base" / "1", tmp_path / "base" / "5", space):
        folder.mkdir(parents=True)
    for path in (tmp_path / "base" / "5" / "16385", space / "16390"):
        path.write_bytes(b"x" * 100)
        (path.parent / f"{path.name}_init").touch()
    # No init forks: a free space map, and a file that somebody left there.
    for name in ("1259_fsm", "notes_init"):
        (tmp_path / "base" / "1" / name).touch()
    assert readiness._unlogged(str(tmp_path)) == {"relations": 2, "bytes": 200, "complete": True}
    monkeypatch.setattr(readiness, "_WALK_S", -1.0)
    assert readiness._unlogged(str(tmp_path))["complete"] is False


def test_what_waits_for_the_archiver(tmp_path: Path) -> None:
    assert readiness._archive_ready(str(tmp_path)) is None
    status = tmp_path / "pg_wal" / "archive_status"
    status.mkdir(parents=True)
    for name in ("000000010000000000000001.done", "000000010000000000000002.ready", "00000002.history.ready"):
        (status / name).touch()
    assert readiness._archive_ready(str(tmp_path)) == 2
