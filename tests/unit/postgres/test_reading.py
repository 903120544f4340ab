# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read from files and from PostgreSQL's programs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.lsn import parse_lsn, record_end
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.controldata import (
    control_timeline,
    parse_controldata,
)
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.history import (
    parse_history,
    read_history,
    replayed_timeline,
)
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.pidfile import (
    find_postmaster,
    is_postmaster_of,
    socket_holder,
    start_time,
)
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.settings import (
    Unreadable,
    convert,
    read_settings,
)
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.standby import edit_auto_conf
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.walrecord import (
    Record,
    Written,
    parse_records,
    parse_written,
    shutdown_problem,
)

CONTROL = """pg_control version number:            1300
Catalog version number:               202209061
Database system identifier:           7642011472967116994
Database cluster state:               in production
pg_control last modified:             Wed May 20 16:27:30 2026
Latest checkpoint location:           0/1500718
Latest checkpoint's REDO location:    0/15006E0
Latest checkpoint's TimeLineID:       1
Latest checkpoint's PrevTimeLineID:   1
Minimum recovery ending location:     0/3000060
Min recovery ending loc's timeline:   2
wal_level setting:                    replica
wal_log_hints setting:                off
max_connections setting:              100
max_prepared_xacts setting:           3
max_locks_per_xact setting:           64
WAL block size:                       8192
Bytes per WAL segment:                16777216
Data page checksum version:           1
"""


def test_control_file() -> None:
    control = parse_controldata(CONTROL)
    assert control["state"] == "in production"
    assert control["system_identifier"] == "7642011472967116994"
    assert control["checkpoint_lsn"] == "0/1500718"
    assert control["max_prepared_transactions"] == 3
    assert control["wal_segment_size"] == 16777216
    assert control["data_checksums"] is True
    assert control["wal_log_hints"] is False
    assert control_timeline(control) == 2, "right after a promotion only the minimum recovery point knows"


def test_control_file_without_what_matters() -> None:
    with pytest.raises(OperatorError) as caught:
        parse_controldata(CONTROL.replace("Database cluster state", "Zustand"))
    assert caught.value.code == "CONTROL_FILE_UNREADABLE"


def test_history(tmp_path: Path) -> None:
    text = "1\t0/3000060\tno recovery target specified\n\n# a comment\n2\tA/BC\tbefore 2020-01-01\n"
    expected = [{"timeline": 1, "switch_lsn": "0/3000060"}, {"timeline": 2, "switch_lsn": "A/BC"}]
    assert parse_history(text) == expected
    (tmp_path / "pg_wal").mkdir()
    (tmp_path / "pg_wal" / "0000000B.history").write_text(text)
    assert read_history(str(tmp_path), 11) == expected
    assert read_history(str(tmp_path), 1) == []
    assert read_history(str(tmp_path), 3) is None


def test_timeline_of_what_was_replayed(tmp_path: Path) -> None:
    wal = tmp_path / "pg_wal"
    assert replayed_timeline(str(tmp_path), 0x1C00F48, 16 << 20) == 0
    wal.mkdir()
    for name in (
        "000000020000000000000001",
        "000000030000000000000001",
        "000000030000000000000002",
        "00000004.history",
    ):
        (wal / name).touch()
    assert replayed_timeline(str(tmp_path), 0x1C00F48, 16 << 20) == 3
    (wal / "0000000400000000000000FF").touch()
    assert replayed_timeline(str(tmp_path), 0x1C00F48, 16 << 20) == 3
    # The end of a segment is in it, although the position is the next one's first.
    (wal / "000000050000000000000002").touch()
    assert replayed_timeline(str(tmp_path), 2 * (16 << 20), 16 << 20) == 3
    assert replayed_timeline(str(tmp_path), 2 * (16 << 20) + 1, 16 << 20) == 5


def line(lsn: str, length: int, manager: str, what: str) -> str:
    return f"rmgr: {manager:<11} len (rec/tot): {length:6}/{length:6}, tx: {0:10}, lsn: {lsn}, prev 0/02000110, desc: {what}"


SHUTDOWN = "CHECKPOINT_SHUTDOWN redo 0/3000028; tli 2; prev tli 2; fpw true; xid 0:750; oid 1; shutdown"


def test_records() -> None:
    text = "first record is after 0/3000000, at 0/3000028, skipping over 40 bytes\n" + line(
        "0/03000028", 114, "XLOG", SHUTDOWN
    )
    (record,) = parse_records(text)
    assert record == Record("XLOG", parse_lsn("0/3000028"), 114, SHUTDOWN)


GOOD = Record("XLOG", parse_lsn("0/3000028"), 114, SHUTDOWN)
END = record_end(GOOD.start, GOOD.total_length, 16777216)


def problem(
    record: Record | None = GOOD, timeline: int = 2, armed: str = "0/3000028", replayed: int = END
) -> str | None:
    return shutdown_problem(record, timeline, armed, replayed, 16777216, 8192)


STATISTICS = """\
WAL statistics between 0/1500718 and 0/1500790:
Type                                           N      (%)          Record size      (%)
----                                           -      ---          -----------      ---
XLOG/CHECKPOINT_SHUTDOWN                       3 (  0.01)                  342 (  0.01)
Transaction/COMMIT                           721 (  3.00)               197064 (  5.82)
Transaction/COMMIT_PREPARED                    2 (  0.01)                   90 (  0.00)
Transaction/ABORT                              4 (  0.01)                   90 (  0.00)
Heap/INSERT+INIT                             153 (  0.64)               190751 (  5.64)
                                        --------                      --------
Total                                      24016                       3386062 [65.21%]
"""


def test_what_was_written() -> None:
    assert parse_written(STATISTICS) == Written(24016, 723)
    assert parse_written("first record is after 0/1500718\n") is None


def test_a_setting_that_is_taken_out() -> None:
    text = "port = 1\narchive_command = '/bin/true'\narchive_library = ''\narchive_mode = on\n"
    assert edit_auto_conf(text, {"archive_command": "cp %p", "archive_library": None}) == (
        "port = 1\narchive_mode = on\narchive_command = 'cp %p'\n"
    )


def test_the_proof() -> None:
    assert problem() is None
    assert problem(armed="0/2FFFFF0") is None


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"record": None}, "no record"),
        ({"record": GOOD._replace(manager="Heap")}, "not a shutdown checkpoint"),
        ({"record": GOOD._replace(description=SHUTDOWN.replace("SHUTDOWN", "ONLINE"))}, "not a shutdown checkpoint"),
        ({"timeline": 1}, "not one of timeline 1"),
        ({"record": GOOD._replace(description=SHUTDOWN.replace("prev tli 2", "prev tli 1"))}, "not one of timeline"),
        ({"record": GOOD._replace(description=SHUTDOWN.replace("0/3000028", "0/2000028"))}, "redo position"),
        ({"armed": "0/3000029"}, "older than"),
        ({"replayed": END - 8}, "not the last"),
        ({"replayed": END + 8}, "not the last"),
    ],
)
def test_everything_else_proves_nothing(wrong: dict[str, object], says: str) -> None:
    assert says in (problem(**wrong) or "")  # type: ignore[arg-type]


def test_configuration_files(tmp_path: Path) -> None:
    main = tmp_path / "postgresql.conf"
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "b.conf").write_text("max_connections = 30\n")
    (tmp_path / "conf.d" / "a.conf").write_text("max_connections 20\nhot_standby = off\n")
    (tmp_path / "conf.d" / "ignored.txt").write_text("max_connections = 99 99\n")
    (tmp_path / "extra.conf").write_text("Max_WAL_Senders = 7 # comment\n")
    main.write_text(
        "# a comment\n\nport = 5433\t# another\nlisten_addresses = '*'\nmax_connections = 10\n"
        "include 'extra.conf'\ninclude_if_exists = 'nowhere.conf'\ninclude_dir = 'conf.d'\n"
        "recovery_min_apply_delay = 5min\nsynchronous_standby_names = 'FIRST 1 (\"a\", ''b'')'\n"
        "max_slot_wal_keep_size = 2GB\nmy.setting = 'x#y'\n"
    )
    settings = read_settings(str(main), str(data))
    assert settings["port"] == 5433
    assert settings["max_connections"] == 30
    assert settings["max_wal_senders"] == 7
    assert settings["hot_standby"] is False
    assert settings["recovery_min_apply_delay"] == 300000
    assert settings["max_slot_wal_keep_size"] == 2048
    assert settings["synchronous_standby_names"] == "FIRST 1 (\"a\", 'b')"
    assert settings["max_worker_processes"] == 8, "the default of PostgreSQL"
    (data / "postgresql.auto.conf").write_text("max_connections = '40'\n")
    assert read_settings(str(main), str(data))["max_connections"] == 40


@pytest.mark.parametrize(
    "text", ["include 'nowhere.conf'\n", "what is this\n", "port = 'unfinished\n", "include 'x.conf'\n"]
)
def test_an_unclear_configuration_is_unknown_not_guessed(tmp_path: Path, text: str) -> None:
    main = tmp_path / "x.conf"
    main.write_text(text)
    with pytest.raises(Unreadable):
        read_settings(str(main), str(tmp_path))


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("hot_standby", "tr", True),
        ("hot_standby", "OFF", False),
        ("hot_standby", "maybe", None),
        ("max_connections", "many", None),
        ("max_connections", "5 MB", None),
        ("recovery_min_apply_delay", "1.5 s", 1500),
        ("wal_level", "logical", "logical"),
    ],
)
def test_values(name: str, text: str, value: object) -> None:
    assert convert(name, text) == value


def test_a_pid_alone_is_no_postmaster(tmp_path: Path) -> None:
    """A living process of the right id that works elsewhere: what a reboot leaves behind."""
    pid_file = tmp_path / "postmaster.pid"
    assert find_postmaster(str(tmp_path)) is None
    pid_file.write_text(f"{os.getpid()}\n{tmp_path}\n1\n5432\n/tmp\nlocalhost\n1 1\nready   \n")
    assert find_postmaster(str(tmp_path)) is None
    pid_file.write_text("not a number\n")
    assert find_postmaster(str(tmp_path)) is None


def test_a_process_that_works_there_under_the_right_name_is_one(tmp_path: Path) -> None:
    program = tmp_path / "postgres"
    program.symlink_to(sys.executable)
    sleeper = subprocess.Popen([program, "-c", "import time; time.sleep(60)"], cwd=tmp_path)
    try:
        assert is_postmaster_of(sleeper.pid, str(tmp_path))
        assert not is_postmaster_of(sleeper.pid, str(tmp_path.parent))
        assert start_time(sleeper.pid).isdigit()
        (tmp_path / "postmaster.pid").write_text(f"{sleeper.pid}\n{tmp_path}\n1\n5432\n/run/x\n*\n1 1\nstandby \n")
        found = find_postmaster(str(tmp_path))
        assert found
        assert (found.pid, found.port, found.socket_directory, found.status) == (sleeper.pid, 5432, "/run/x", "standby")
        (tmp_path / ".s.PGSQL.5432.lock").write_text(f"{sleeper.pid}\n/some/where\n")
        assert socket_holder(str(tmp_path), 5432) == (sleeper.pid, "/some/where")
    finally:
        sleeper.kill()
    # Not reaped yet: a zombie holds its id, and nothing else.
    assert not is_postmaster_of(sleeper.pid, str(tmp_path)) or sleeper.wait()
    sleeper.wait()
    assert find_postmaster(str(tmp_path)) is None
    assert socket_holder(str(tmp_path), 5432) is None
