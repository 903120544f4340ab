# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs on real clusters: a switch loses nothing, and whatever goes wrong leaves one writable primary or none."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.elephaas.herd.tests.integration.pg_clusters import Cluster, Clusters, Writer, wait_until


@pytest.fixture
def herd() -> Iterator[Clusters]:
    """A primary "a" with the replicas "b" and "c"."""
    clusters = Clusters(replicas=2)
    try:
        yield clusters
    finally:
        clusters.close()


@pytest.fixture
def pair() -> Iterator[Clusters]:
    """A primary "a" with the replica "b"."""
    clusters = Clusters(replicas=1)
    try:
        yield clusters
    finally:
        clusters.close()


def arm(old: Cluster, new: Cluster, token: int, deadline_s: int = 30, **more: Any) -> dict[str, Any]:
    """Prepare the old primary and arm the waiter of the new one."""
    ready = old.ok("follow", state="prepared", token=token, upstream_host="127.0.0.1", upstream_port=new.port)
    return new.ok(
        "promote", state="armed", token=token, deadline_s=deadline_s, armed_lsn=ready["armed_lsn"], **more
    )


def switch(clusters: Clusters, old: Cluster, new: Cluster, settle: bool = True) -> dict[str, Any]:
    """A whole planned switch. Returns what promote said, with the gap by this machine's clock as `gap`."""
    token = clusters.claim()
    arm(old, new, token)
    stopped = old.ok("instance", state="stopped", token=token)
    seen = new.ok("promote", state="promoted", token=token, checkpoint=True)
    seen["gap"] = seen["waiter"]["times"]["writable"] - stopped["times"]["stop_requested"]
    if settle:
        for member in clusters.members:
            if member is not new:
                follow(member, new, token, expected_timeline=seen["instance"]["timeline"], release=True)
        new.ok("operation_token", state="released", token=token)
    return seen


def follow(member: Cluster, upstream: Cluster, token: int, **more: Any) -> dict[str, Any]:
    return member.ok("follow", token=token, upstream_host="127.0.0.1", upstream_port=upstream.port, **more)


def in_recovery(member: Cluster) -> bool:
    return member.sql("SELECT pg_is_in_recovery()") == "t"


def test_switches_back_and_forth_lose_nothing(herd: Clusters) -> None:
    """Under load that crosses pages and segments, the proof is found each time, and each row acknowledged is there."""
    a, b, _c = herd.members
    writers = [Writer(herd, "small"), Writer(herd, "large", filler=400)]
    gaps = []
    old, new = a, b
    try:
        for _round in range(10):
            time.sleep(0.5)
            seen = switch(herd, old, new)
            gaps.append(seen["gap"])
            evidence = seen["waiter"]["evidence"]
            assert evidence["record"].startswith("XLOG CHECKPOINT_SHUTDOWN")
            assert evidence["record_end"] == evidence["replayed_lsn"] == evidence["received_lsn"]
            assert evidence["timeline_new"] == evidence["timeline_old"] + 1 == seen["instance"]["timeline"]
            assert not in_recovery(new)
            assert in_recovery(old)
            old, new = new, old
    finally:
        for writer in writers:
            writer.stop()
    print("gaps, stop requested to writable:", " ".join(f"{gap:.3f}" for gap in gaps))
    print("longest gap of the writers:", max(writer.longest_gap for writer in writers))
    for writer in writers:
        assert len(writer.acknowledged) > 100
        assert writer.lost(old) == set()
    assert {m.facts()["timeline"] for m in herd.members} == {11}
