# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WAL records that an instance holds, read with pg_waldump. Private to the collection."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from ansible_collections.elephaas.herd.plugins.module_utils.decide.lsn import (
    format_lsn,
    parse_lsn,
    record_end,
    segment_file_name,
)
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.command import run

_RECORD = re.compile(
    r"^rmgr: (?P<manager>\S+)\s+len \(rec/tot\):\s*\d+/\s*(?P<total>\d+), tx:\s*\d+, "
    r"lsn: (?P<lsn>[0-9A-Fa-f]+/[0-9A-Fa-f]+), prev [0-9A-Fa-f]+/[0-9A-Fa-f]+, desc: (?P<what>.*)$"
)
# src/backend/access/rmgrdesc/xlogdesc.c
_SHUTDOWN = re.compile(
    r"\ACHECKPOINT_SHUTDOWN redo (?P<redo>[0-9A-Fa-f]+/[0-9A-Fa-f]+); tli (?P<tli>\d+); prev tli (?P<prev>\d+);"
)


# What pg_waldump --stats=record prints of a kind of record: its name, and how many there are.
_COUNTED = re.compile(r"^(?P<kind>\S+)\s+(?P<count>\d+)\s", re.MULTILINE)


class Written(NamedTuple):
    """How many records an instance has written, and how many of them are commits."""

    records: int
    commits: int


class Record(NamedTuple):
    """One WAL record. start and total_length in bytes; description as pg_waldump prints it."""

    manager: str
    start: int
    total_length: int
    description: str


def parse_records(text: str) -> list[Record]:
    """The records in pg_waldump's output, in its order."""
    matches = (_RECORD.match(line) for line in text.splitlines())
    return [
        Record(found.group("manager"), parse_lsn(found.group("lsn")), int(found.group("total")), found.group("what"))
        for found in matches
        if found
    ]


def read_last_record(
    pg_waldump: str, data_directory: str, timeline: int, start: str, replayed: int, segment_size: int, timeout: float
) -> tuple[Record | None, str]:
    """The last whole, valid record at or after position `start` on that timeline, or None; and how pg_waldump ended.

    pg_waldump ends, with words and a status that is not 0, at the first record that is incomplete or whose checksum
    is wrong, as recovery does. A start inside a record is moved forward to the next one.
    replayed, segment_size: bytes. It reads to the end of the segment that holds the last replayed byte.
    """
    # Named, the first file tells pg_waldump how large segments are. Otherwise it asks whichever file it comes across
    # first in pg_wal, and one that the receiver has made ready but not written to is all zeros: an error.
    first = parse_lsn(start)
    files = [segment_file_name(timeline, position, segment_size) for position in (first, max(first, replayed - 1))]
    done = run([pg_waldump, "-p", os.path.join(data_directory, "pg_wal"), "-s", start, *files], timeout)
    records = parse_records(done.stdout)
    return (records[-1] if records else None), done.stderr.strip()[-300:]


def parse_written(text: str) -> Written | None:
    """The output of pg_waldump --stats=record; None when it holds no statistics."""
    counts = {found.group("kind"): int(found.group("count")) for found in _COUNTED.finditer(text)}
    if "Total" not in counts:
        return None
    commits = sum(counts.get(f"Transaction/COMMIT{kind}", 0) for kind in ("", "_PREPARED"))
    return Written(counts["Total"], commits)


def written_since(
    pg_waldump: str, data_directory: str, timeline: int, start: int, segment_size: int, timeout: float
) -> Written | None:
    """What there is on that timeline from a position on which a record may begin; None when that cannot be told.

    start, segment_size: bytes. As in recovery, the first record that is incomplete or broken is the end.
    """
    directory = os.path.join(data_directory, "pg_wal")
    first = last = segment_file_name(timeline, start, segment_size)
    position = start + segment_size
    # Files that were made ready for later hold older records, at which pg_waldump ends.
    while os.path.exists(os.path.join(directory, segment_file_name(timeline, position, segment_size))):
        last = segment_file_name(timeline, position, segment_size)
        position += segment_size
    if not os.path.exists(os.path.join(directory, first)):
        return None
    begin = format_lsn(start)
    done = run([pg_waldump, "-p", directory, "-s", begin, "--stats=record", first, last], timeout)
    if done.timed_out:
        return None
    if "could not find a valid record after" in done.stderr:
        return Written(0, 0)
    return parse_written(done.stdout)


def shutdown_problem(
    record: Record | None, timeline: int, armed_lsn: str, replayed: int, segment_size: int, page_size: int
) -> str | None:
    """Why this last record does not prove that everything of the old primary is here; None when it does.

    record: the last record held. armed_lsn: a position that the old primary had reached when it could, from then
    on, only restart read-only. replayed: pg_last_wal_replay_lsn() in bytes. Sizes in bytes.
    """
    if record is None:
        return "there is no record after the position at which it was armed"
    if record.manager != "XLOG" or not record.description.startswith("CHECKPOINT_SHUTDOWN "):
        return f"the last record is {record.manager} {record.description.split(' ')[0]}, not a shutdown checkpoint"
    found = _SHUTDOWN.match(record.description)
    if not found or int(found.group("tli")) != timeline or int(found.group("prev")) != timeline:
        # The checkpoint that ends a recovery is of the same kind and names two timelines.
        return f"the shutdown checkpoint is not one of timeline {timeline}"
    if parse_lsn(found.group("redo")) != record.start:
        # A real shutdown checkpoint is its own redo point: nothing was written while it ran.
        return "the checkpoint has a redo position before itself"
    if record.start < parse_lsn(armed_lsn):
        # Left over from an earlier, long past shutdown: the old primary has written since.
        return f"the shutdown checkpoint is older than {armed_lsn}, where the old primary was when it was armed"
    if record_end(record.start, record.total_length, segment_size, page_size) != replayed:
        return "the shutdown checkpoint is not the last thing that was replayed"
    return None
