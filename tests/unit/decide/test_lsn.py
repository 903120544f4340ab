# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WAL positions, as numbers, as text and as file names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.elephaas.herd.plugins.module_utils.decide import lsn
from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError


@given(st.integers(0, 2**64 - 1))
def test_a_position_survives_being_printed(position: int) -> None:
    assert lsn.parse_lsn(lsn.format_lsn(position)) == position


@pytest.mark.parametrize("text", ["", "0", "0/", "/0", "0/123456789", "0/XYZ", "0/1\n", " 0/1"])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(OperatorError) as caught:
        lsn.parse_lsn(text)
    assert caught.value.code == "BAD_LSN"


@pytest.mark.parametrize(
    ("start", "length", "end"),
    [
        (0x3000028, 114, 0x30000A0),  # a shutdown checkpoint record right behind the header of a segment
        (0x3001FE8, 24, 0x3002000),  # ends with its page: nothing is skipped
        (0x3001FE8, 30, 0x3002020),  # six bytes on the next page, behind its header of 24
        (0x3FFFFF0, 20, 0x4000030),  # the first page of a segment has a header of 40
    ],
)
def test_a_record_ends_behind_page_headers(start: int, length: int, end: int) -> None:
    assert lsn.record_end(start, length, 16 * 1024**2) == end


def test_a_wal_file_is_named_as_postgresql_names_it() -> None:
    assert lsn.segment_file_name(3, 0x1DA4898, 16 * 1024**2) == "000000030000000000000001"
    assert lsn.segment_file_name(1, 0x1_FF00_0000, 16 * 1024**2) == "0000000100000001000000FF"
    assert lsn.segment_file_name(0x1A, 0x2_4000_0000, 1024**3) == "0000001A0000000200000001"
