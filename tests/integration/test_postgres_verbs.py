# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs on real clusters: a switch loses nothing, and whatever goes wrong leaves one writable primary or none."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Member
from ansible_collections.elephaas.herd.plugins.module_utils.decide.lsn import parse_lsn, record_end
from ansible_collections.elephaas.herd.plugins.module_utils.decide.takeover import progress
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.walrecord import parse_records
from ansible_collections.elephaas.herd.tests.integration import pg_clusters
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
    return new.ok("promote", state="armed", token=token, deadline_s=deadline_s, armed_lsn=ready["armed_lsn"], **more)


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
    for member in herd.members:
        # PostgreSQL's default. A promotion whose wake-up is lost takes that long: about every third one.
        member.sql("ALTER SYSTEM SET wal_retrieve_retry_interval = '5s'")
        member.sql("SELECT pg_reload_conf()")
    writers = [Writer(herd, "small"), Writer(herd, "large", filler=400)]
    gaps = []
    old, new = a, b
    try:
        for _round in range(6):
            time.sleep(0.5)
            seen = switch(herd, old, new)
            gaps.append(seen["gap"])
            times = seen["waiter"]["times"]
            assert times["recovery_ended"] - times["promote_called"] < 4
            assert not (new.data / "promote").exists()
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
    print("gaps, stop requested to writable:", " ".join(f"{gap:.3f}" for gap in gaps))  # noqa: T201
    print("longest gap of the writers:", max(writer.longest_gap for writer in writers))  # noqa: T201
    for writer in writers:
        assert len(writer.acknowledged) > 100
        assert writer.lost(old) == set()
    assert {m.facts()["timeline"] for m in herd.members} == {1 + len(gaps)}


def test_without_the_last_record_the_waiter_expires(pair: Clusters) -> None:
    a, b = pair.members
    token = pair.claim()
    arm(a, b, token, deadline_s=5, slots=["sibling_1"])
    assert b.facts()["slots"][0]["name"] == "sibling_1"
    failed = b.refused("WAITER_EXPIRED", "promote", state="promoted", token=token)
    assert failed["evidence"]["waiter"]["state"] == "expired"
    assert in_recovery(b)
    assert b.facts()["slots"] == [], "a slot that nobody will use would keep WAL for ever"


def test_a_primary_that_was_stopped_immediately_proves_nothing(pair: Clusters) -> None:
    a, b = pair.members
    a.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    token = pair.claim()
    arm(a, b, token, deadline_s=2)
    a.ok("instance", state="stopped", mode="immediate", token=token)
    failed = b.refused("PROOF_FAILED", "promote", state="promoted", token=token)
    assert "shutdown checkpoint" in failed["reason"] or "no record" in failed["reason"]
    assert in_recovery(b)


def test_disarmed_before_the_stop_it_stays_a_replica(pair: Clusters) -> None:
    a, b = pair.members
    token = pair.claim()
    waiter = arm(a, b, token, slots=["sibling_1"])["waiter"]
    assert waiter["state"] == "waiting"
    assert b.ok("promote", state="disarmed", token=token)["changed"]
    assert not b.ok("promote", state="disarmed", token=token)["changed"]
    a.ok("instance", state="stopped", token=token)
    time.sleep(1)
    assert in_recovery(b)
    assert b.facts()["slots"] == []
    b.refused("WAITER_FAILED", "promote", state="promoted", token=token)
    # The way back: the signal file goes, and the old primary accepts writes again.
    assert a.ok("follow", state="absent", token=token)["changed"]
    assert a.ok("instance", state="started")["instance"]["writable"]
    a.sql("CREATE TABLE back (n int)")


def test_of_disarming_and_promoting_exactly_one_happens(pair: Clusters) -> None:
    outcomes: list[str] = []
    old, new = pair.members
    # None: one after the other, in each order. A number: module start-up and stop take about the same time, and
    # the delay (s) moves one across the other.
    for delay in (None, 0.1, 0.2, 0.3, 0.4, None):
        token = pair.claim()
        arm(old, new, token)
        disarming: dict[str, Any] = {}
        stop = threading.Thread(target=old.control, args=("stop", "-m", "fast"))
        disarm = threading.Thread(
            target=lambda: disarming.update(new.verb("promote", state="disarmed", token=token))  # noqa: B023
        )
        first, second = (stop, disarm) if outcomes and delay is None else (disarm, stop)
        first.start()
        if delay is None:
            first.join()
            wait_until(lambda: new.facts()["waiter"]["state"] in ("promoted", "disarmed"), "it is decided")  # noqa: B023
        else:
            time.sleep(delay)
        second.start()
        disarm.join()
        stop.join()
        if disarming["failed"]:
            assert disarming["code"] == "ALREADY_PROMOTED", disarming
            assert new.ok("promote", state="promoted", token=token)["waiter"]["state"] == "promoted"
            outcomes.append("promoted")
            follow(old, new, token, release=True)
            old, new = new, old
        else:
            time.sleep(0.5)
            assert in_recovery(new)
            assert new.facts()["waiter"]["state"] == "disarmed"
            outcomes.append("disarmed")
            old.ok("follow", state="absent", token=token)
            old.ok("instance", state="started")
            wait_until(lambda: new.facts()["upstream"]["status"] == "streaming", "it streams again")  # noqa: B023
    print("outcomes:", " ".join(outcomes))  # noqa: T201
    assert outcomes[0] == "disarmed"
    assert outcomes[-1] == "promoted"


def test_armed_after_the_stop_it_needs_to_know_which_shutdown(pair: Clusters) -> None:
    """A run that resumes finds the primary stopped: the record is there already, and its position must be given."""
    a, b = pair.members
    token = pair.claim()
    a.ok("follow", state="prepared", token=token, upstream_host="127.0.0.1", upstream_port=b.port)
    a.ok("instance", state="stopped", token=token)
    control = a.facts()["control"]
    assert control["state"] == "shut down"
    b.refused("ARMED_LSN_NEEDED", "promote", state="armed", token=token)
    b.ok("promote", state="armed", token=token, armed_lsn="0/FF000000", deadline_s=1)
    refused = b.refused("PROOF_FAILED", "promote", state="promoted", token=token)
    assert "no record" in refused["reason"]
    ready = a.ok("follow", state="prepared", token=token, upstream_host="127.0.0.1", upstream_port=b.port)
    assert ready["armed_lsn"] == control["checkpoint_lsn"]
    assert not ready["changed"]
    b.ok("promote", state="armed", token=token, armed_lsn=ready["armed_lsn"], deadline_s=10)
    seen = b.ok("promote", state="promoted", token=token)
    assert seen["waiter"]["evidence"]["record_lsn"] == control["checkpoint_lsn"]
    assert seen["instance"]["writable"]


def test_a_later_run_of_the_same_plan_inherits_the_armed_position(pair: Clusters) -> None:
    a, b = pair.members
    token = pair.claim(plan="same")
    lsn = arm(a, b, token, deadline_s=1)["waiter"]["armed_lsn"]
    b.refused("WAITER_EXPIRED", "promote", state="promoted", token=token)
    a.ok("instance", state="stopped", token=token)
    again = pair.claim(members=[b], plan="same")
    assert b.ok("promote", state="armed", token=again, deadline_s=10)["waiter"]["armed_lsn"] == lsn
    assert b.ok("promote", state="promoted", token=again)["instance"]["writable"]


def test_a_newer_operation_ends_the_waiter_of_an_older_one(pair: Clusters) -> None:
    a, b = pair.members
    token = pair.claim(plan="first")
    arm(a, b, token)
    pair.claim(members=[b], plan="second")
    a.ok("instance", state="stopped", token=token)
    wait_until(lambda: b.facts()["waiter"]["state"] == "failed", "the old waiter finds its token spent")
    assert in_recovery(b)


def test_a_waiter_that_was_killed_is_noticed_and_can_be_armed_again(pair: Clusters) -> None:
    a, b = pair.members
    token = pair.claim()
    waiter = arm(a, b, token)["waiter"]
    os.kill(waiter["pid"], signal.SIGKILL)
    a.ok("instance", state="stopped", token=token)
    b.refused("WAITER_DIED", "promote", state="promoted", token=token)
    assert in_recovery(b)
    assert b.ok("promote", state="armed", token=token)["waiter"]["pid"] != waiter["pid"]
    assert b.ok("promote", state="promoted", token=token)["waiter"]["state"] == "promoted"


def test_without_a_proof_it_is_promoted_at_once_and_only_once(pair: Clusters) -> None:
    a, b = pair.members
    b.refused("TOKEN_MISSING", "promote", proof="none")
    token = pair.claim()
    arm(a, b, token)
    seen = b.ok("promote", proof="none", token=token)
    assert seen["changed"]
    assert seen["instance"]["writable"]
    assert seen["instance"]["timeline"] == 2
    # Its waiter is called off, and in its place stands who asked for the promotion.
    assert (seen["waiter"]["state"], seen["waiter"]["pid"]) == ("promoted", None)
    assert not b.ok("promote", proof="none", token=token)["changed"]
    b.refused("ALREADY_PROMOTED", "promote", state="armed", token=token)
    b.refused("ALREADY_PROMOTED", "promote", state="disarmed", token=token)


def test_killed_after_arming_it_comes_up_read_only(pair: Clusters) -> None:
    a, b = pair.members
    token = pair.claim()
    arm(a, b, token, deadline_s=2)
    a.kill()
    a.started()
    assert in_recovery(a)
    assert in_recovery(b)
    b.refused("PROOF_FAILED", "promote", state="promoted", token=token)
    a.refused("IS_REPLICA", "follow", state="absent", token=token)
    a.ok("instance", state="stopped")
    a.refused("STARTS_WRITABLE", "follow", state="absent", token=token)


def test_a_backend_crash_after_arming_leaves_nothing_writable_behind(pair: Clusters) -> None:
    """The postmaster restarts its children by itself: it must find the signal file, and the waiter no proof."""
    a, b = pair.members
    token = pair.claim()
    arm(a, b, token, deadline_s=5)
    a.kill("checkpointer")
    wait_until(lambda: in_recovery(a), "the old primary is read-only")
    b.refused("PROOF_FAILED", "promote", state="promoted", token=token)
    assert in_recovery(b)


def test_while_a_sibling_hangs_the_primary_is_not_stopped(herd: Clusters) -> None:
    a, b, c = herd.members
    token = herd.claim()
    arm(a, b, token, deadline_s=60)
    hung = c.freeze("walreceiver")
    a.sql("CREATE TABLE t AS SELECT generate_series(1, 100000) AS n")
    refused = a.refused("STOP_TIMEOUT", "instance", state="stopped", token=token, timeout=3)
    assert any("walsender" in process["title"] for process in refused["evidence"]["processes"])
    deadline = time.monotonic() + 30
    while (facts := a.facts())["control"]["state"] != "shut down" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert facts["status"] == "stopping"
    assert facts["postmaster_pid"]
    # What pg_controldata says by then (seen): its word alone is no proof that nobody is left.
    assert facts["control"]["state"] == "shut down"
    a.refused("STILL_STOPPING", "instance", state="started", token=token)
    c.thaw(hung)
    a.ok("instance", state="stopped", token=token)
    assert b.ok("promote", state="promoted", token=token)["instance"]["writable"]


def test_nothing_waits_for_a_synchronous_replica_that_is_not_there(pair: Clusters) -> None:
    """A write that does is not ended by statement_timeout (seen), so no verb may depend on one."""
    a, b = pair.members
    b.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    b.sql("SELECT pg_reload_conf()")
    switch(pair, a, b)
    write = ["-d", "dbname=postgres options='-c statement_timeout=500'", "-c", "CREATE TABLE waits (n int)"]
    with pytest.raises(subprocess.TimeoutExpired):
        pg_clusters.as_account(
            [f"{pg_clusters.BIN}/psql", "-X", "-h", str(b.sockets), "-p", str(b.port), *write], timeout=2
        )
    waiting = b.sql(
        "SELECT extract(epoch FROM now() - query_start) > 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    )
    assert waiting == "t"
    assert b.facts()["writable"]
    assert b.ok("instance", state="reloaded")["instance"]["status"] == "running"


def test_after_a_restart_a_replica_says_it_has_received_less_than_it_replayed(pair: Clusters) -> None:
    """It starts again at the beginning of a segment (seen): how far it is, is the larger of both."""
    a, b = pair.members
    a.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    a.control("stop", "-m", "immediate")
    before = b.facts()
    b.control("restart")
    wait_until(lambda: b.facts()["positions"]["received"], "it has asked for WAL")
    after = b.facts()
    received, replayed = (parse_lsn(after["positions"][key]) for key in ("received", "replayed"))
    assert received < replayed
    assert received % (16 * 1024 * 1024) == 0
    one, other = (progress(Member("b", "b", facts=facts)) for facts in (before, after))
    assert one == other == (1, replayed)


def test_tokens(pair: Clusters) -> None:
    a, _b = pair.members
    a.refused("TOKEN_MISSING", "instance", state="stopped")
    a.refused("TOKEN_MISSING", "instance", state="stopped", token=5)
    a.refused("TOKEN_MISSING", "instance", True, state="stopped", token=5)
    told: dict[str, Any] = {"state": "claimed", "operation": {"plan_id": "p1", "operator": "ann", "verb": "failover"}}
    assert a.ok("operation_token", token=10, **told)["changed"]
    assert not a.ok("operation_token", token=10, **told)["changed"]
    assert a.facts()["operation"]["operation"]["operator"] == "ann"
    a.refused("TOKEN_STALE", "operation_token", token=9, **told)
    other: dict[str, Any] = {**told, "operation": {"plan_id": "p2", "operator": "bob", "verb": "failover"}}
    a.refused("TOKEN_STALE", "operation_token", token=10, **other)
    a.refused("TOKEN_STALE", "instance", state="stopped", token=9)
    restart: dict[str, Any] = {**told, "operation": {"plan_id": "p3", "operator": "bob", "verb": "restart"}}
    a.refused("OPERATION_OPEN", "operation_token", token=11, **restart)
    held = a.refused("OPERATION_HELD", "operation_token", token=11, authority="host", **other)
    assert "ann" in held["reason"]
    assert a.ok("operation_token", token=11, authority="host", takeover=True, **other)["changed"]
    a.refused("TOKEN_STALE", "instance", state="stopped", token=10)
    assert a.ok("operation_token", state="released", token=11, outcome="aborted")["changed"]
    assert not a.ok("operation_token", state="released", token=11, outcome="aborted")["changed"]
    a.refused("TOKEN_CLOSED", "instance", state="stopped", token=11)
    a.refused("TOKEN_CLOSED", "operation_token", token=11, **other)
    assert a.ok("operation_token", token=12, authority="host", **told)["changed"]
    # With a token a start counts as part of the operation: the undo of one that was overtaken.
    a.control("stop")
    a.refused("TOKEN_STALE", "instance", state="started", token=11)
    assert not a.postmaster()


def test_another_instance_is_not_touched(pair: Clusters) -> None:
    a, b = pair.members
    b.refused("WRONG_SYSTEM_IDENTIFIER", "instance", state="stopped", system_identifier="7000000000000000000")
    right, b.port = b.port, a.port
    assert "port" in b.facts()["identity_problem"]
    b.refused("WRONG_INSTANCE", "instance", state="stopped")
    b.port = right
    assert b.postmaster()
    # Not running, and its port is served by another one.
    b.ok("instance", state="stopped")
    b.port = a.port
    assert str(a.data) in b.facts()["identity_problem"] or "configured" in b.facts()["identity_problem"]
    b.refused("WRONG_INSTANCE", "instance", state="started")
    b.port = right


def test_a_stopped_instance_tells_what_it_was(pair: Clusters) -> None:
    a, b = pair.members
    live = b.facts()
    assert b.ok("instance", state="stopped")["changed"]
    assert not b.ok("instance", state="stopped")["changed"]
    facts = b.facts()
    assert facts["status"] == "stopped"
    assert facts["role"] == "replica"
    assert facts["control"]["state"] == "shut down in recovery"
    assert facts["upstream"]["port"] == a.port
    assert facts["upstream"]["status"] is None
    for key in ("system_identifier", "timeline", "timeline_history", "bin_directory", "socket_directory"):
        assert facts[key] == live[key], key
    known = {key: value for key, value in live["settings"].items() if key not in ("config_file", "hba_file")}
    assert {key: facts["settings"][key] for key in known} == known
    (b.data / "standby.signal").unlink()
    refused = b.refused("STARTS_WRITABLE", "instance", state="started")
    assert "writable" in refused["reason"]
    b.refused("STARTS_WRITABLE", "instance", True, state="started")
    token = pair.claim()
    follow(b, a, token, expected_timeline=1)
    assert (b.data / "standby.signal").exists()


def test_a_primary_that_a_failover_took_away_is_not_started_by_itself(pair: Clusters) -> None:
    """No other member is looked at here; what is known is this host's own record."""
    a, b = pair.members
    here = socket.gethostname()
    told: dict[str, Any] = {
        "state": "claimed",
        "operation": {"verb": "failover", "from": f"trading_prod@{here}", "to": "trading_prod@elsewhere"},
    }
    assert a.ok("operation_token", token=10, **told)["changed"]
    a.ok("instance", state="stopped", token=10)
    # Not done yet, it is still the herd's primary.
    assert a.ok("instance", True, state="started")["changed"]
    a.ok("operation_token", state="released", token=10, outcome="done")
    for check_mode in (True, False):
        for state in ("started", "restarted"):
            refused = a.refused("SUPERSEDED", "instance", check_mode, state=state)
            assert "trading_prod@elsewhere" in refused["reason"]
    assert a.facts()["status"] == "stopped"
    # As a replica it is started by anybody, and so is the other one, that was one all along.
    (a.data / "standby.signal").touch()
    assert a.ok("instance", True, state="started")["changed"]
    (a.data / "standby.signal").unlink()
    b.ok("instance", state="stopped")
    assert b.ok("instance", state="started")["changed"]
    # An operation has looked at all of them.
    assert a.ok("operation_token", token=11, operation={"verb": "start"}, state="claimed")["changed"]
    assert a.ok("instance", state="started", token=11)["changed"]


def test_no_shell_reads_the_data_directory(pair: Clusters) -> None:
    """pg_ctl itself hands the path to a shell between double quotes."""
    _a, b = pair.members
    b.ok("instance", state="stopped")
    odd = b.data.with_name('b `id` "x"')
    b.data.rename(odd)
    b.data = odd
    assert b.ok("instance", state="started")["instance"]["status"] == "running"
    assert b.ok("instance", state="stopped")["changed"]
    assert b.facts()["control"]["state"] == "shut down in recovery"


def test_a_failed_start_shows_the_log(pair: Clusters) -> None:
    _a, b = pair.members
    b.ok("instance", state="stopped")
    with open(b.data / "postgresql.conf", "a", encoding="utf-8") as stream:
        stream.write("max_connections = 5\nmax_wal_senders = 10\n")
    failed = b.refused("START_FAILED", "instance", state="started")
    assert any("max_wal_senders" in line or "max_connections" in line for line in failed["evidence"]["log_tail"])


def test_check_mode_looks_at_everything_and_changes_nothing(pair: Clusters) -> None:
    a, b = pair.members
    token = pair.claim()
    place = {"upstream_host": "127.0.0.1", "upstream_port": b.port}
    before = [member.snapshot() for member in pair.members]
    assert a.ok("follow", True, state="prepared", **place)["changed"]
    assert a.ok("follow", True, state="prepared", token=token, **place)["upstream"]["timeline"] == 1
    a.refused("UPSTREAM_UNREACHABLE", "follow", True, state="prepared", upstream_host="127.0.0.1", upstream_port=1)
    a.refused("FOLLOWS_ITSELF", "follow", True, state="prepared", upstream_host="127.0.0.1", upstream_port=a.port)
    a.refused("IS_PRIMARY", "follow", True, token=token, **place)
    assert b.ok("promote", True, state="armed", token=token, slots=["x"])["changed"]
    b.refused("WRONG_TIMELINE", "promote", True, state="armed", token=token, expect_timeline=7)
    b.refused("NOT_ARMED", "promote", True, state="promoted", token=token)
    b.refused("WRONG_TIMELINE", "promote", True, state="promoted", proof="none", token=token, expect_timeline=7)
    assert b.ok("promote", True, state="promoted", proof="none", token=token)["changed"]
    assert not b.ok("promote", True, state="disarmed", token=token)["changed"]
    a.refused("ALREADY_PROMOTED", "promote", True, state="disarmed", token=token)
    assert a.ok("instance", True, state="stopped", token=token)["changed"]
    assert not a.ok("instance", True, state="started")["changed"]
    assert a.ok("operation_token", True, state="claimed", token=token + 5)["changed"]
    assert a.ok("operation_token", True, state="released", token=token)["changed"]
    assert [member.snapshot() for member in pair.members] == before


def test_following_is_idempotent_and_refuses_what_is_wrong(herd: Clusters) -> None:
    a, b, c = herd.members
    token = herd.claim()
    assert not follow(c, a, token, expected_timeline=1)["changed"]
    assert follow(c, b, token, expected_timeline=1)["changed"]
    assert c.facts()["upstream"]["connected_port"] == b.port
    assert not follow(c, b, token)["changed"]
    assert c.facts()["upstream"]["application_name"] == "c", "other connection settings are kept"
    c.refused("FOLLOWS_ITSELF", "follow", token=token, upstream_host="localhost", upstream_port=c.port)
    failed = c.refused("NOT_STREAMING", "follow", token=token, upstream_host="127.0.0.1", upstream_port=1, wait_s=1)
    assert failed["evidence"]["upstream"]["port"] == 1
    assert failed["evidence"]["upstream"]["status"] is None
    c.sql("SELECT pg_create_physical_replication_slot('left_over', true)")
    assert follow(c, a, token, drop_slots=["left_over"])["changed"]
    assert c.facts()["slots"] == []
    assert not follow(c, a, token, drop_slots=["left_over"])["changed"]


def test_another_cluster_is_no_upstream(pair: Clusters) -> None:
    a = pair.a
    others = Clusters(replicas=0)
    try:
        token = pair.claim()
        a.refused(
            "UPSTREAM_OTHER_CLUSTER", "follow", state="prepared", token=token,
            upstream_host="127.0.0.1", upstream_port=others.a.port,
        )  # fmt: skip
        assert not (a.data / "standby.signal").exists()
    finally:
        others.close()


def test_a_password_is_used_kept_and_never_shown(pair: Clusters) -> None:
    a, b = pair.members
    a.sql("CREATE ROLE rep LOGIN REPLICATION PASSWORD 'se''cret word'")
    b.sql(
        r"ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port="
        + str(a.port)
        + r" user=rep password=''se\''cret word'' application_name=b'"
    )
    for member in pair.members:
        hba = member.data / "pg_hba.conf"
        hba.write_text("local all all trust\nhost replication rep 127.0.0.1/32 scram-sha-256\n")
        member.control("reload")
    token = pair.claim()
    shown = follow(b, a, token)
    facts = b.facts()
    assert facts["upstream"]["password_inline"] is True
    assert facts["upstream"]["user"] == "rep"
    refused = a.refused(
        "UPSTREAM_AUTH", "follow", state="prepared", token=token, upstream_host="127.0.0.1", upstream_port=b.port,
        upstream_user="rep",
    )  # fmt: skip
    rehearsed = b.verb("follow", True, token=token, upstream_host="127.0.0.1", upstream_port=a.port, slot="x")
    assert not rehearsed["failed"], rehearsed
    assert "cret word" not in str([shown, facts, refused, rehearsed])


def test_a_hung_server_is_a_fact(pair: Clusters) -> None:
    a = pair.a
    pid = a.freeze("")
    try:
        started = time.monotonic()
        facts = a.ok("instance_info", timeout=2)["instance"]
        assert time.monotonic() - started < 8
        assert facts["sql_error"]
        assert facts["writable"], "what could write must not look as if it could not"
        a.refused("TOKEN_MISSING", "instance", state="stopped", timeout=2)
    finally:
        a.thaw(pid)


def test_absent_and_unreadable(pair: Clusters) -> None:
    b = pair.members[1]
    nowhere = Cluster(pair.root, "nowhere")
    assert nowhere.verb("instance_info", os_user=b.facts()["os_user"])["instance"]["status"] == "absent"
    nowhere.refused("NO_DATA_DIRECTORY", "instance_info")
    nowhere.refused("NO_DATA_DIRECTORY", "instance", state="started", os_user=b.facts()["os_user"])


@pytest.mark.parametrize("pipelining", ["True", "False"])
def test_through_ansible_the_waiter_outlives_its_task(pair: Clusters, pipelining: str) -> None:
    """The archive that the waiter's code came from is removed when the task ends, and nothing waits for the waiter."""
    a, b = pair.members
    token = pair.claim()
    ready = a.ok("follow", state="prepared", token=token, upstream_host="127.0.0.1", upstream_port=b.port)
    command = [
        str(Path(sys.executable).parent / "ansible"), "localhost", "-c", "local", "-m", "elephaas.herd.promote",
        "-e", f"ansible_python_interpreter={sys.executable}", "-e", f"ansible_pipelining={pipelining}",
        "-a", json.dumps({
            "data_directory": str(b.data), "port": b.port, "state": "armed", "token": token, "deadline_s": 60,
            "armed_lsn": ready["armed_lsn"], "slots": ["sibling_1"],
        }),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        environment = {**os.environ, "ANSIBLE_REMOTE_TMP": scratch, "ANSIBLE_LOCAL_TEMP": scratch}
        environment["ANSIBLE_NOCOLOR"] = "1"
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, env=environment)
        assert "CHANGED" in done.stdout, done.stdout + done.stderr
        assert not [path for path in Path(scratch).rglob("*") if path.is_file()], "something was left behind"
    waiter = b.facts()["waiter"]
    assert waiter["state"] == "waiting"
    process = Path(f"/proc/{waiter['pid']}")
    assert process.stat().st_uid == (b.data).stat().st_uid
    assert os.getsid(waiter["pid"]) != os.getsid(0)
    opened = {os.readlink(link) for link in (process / "fd").iterdir()}
    assert not [name for name in opened if "ansible" in name.lower()], opened
    a.ok("instance", state="stopped", token=token)
    assert b.ok("promote", state="promoted", token=token)["waiter"]["state"] == "promoted"
    assert not process.exists() or "zombie" in (process / "status").read_text()


def test_the_end_of_every_record_is_where_the_server_says(pair: Clusters) -> None:
    """decide.lsn.record_end on real WAL: records across pages and segments end where the next one begins."""
    a = pair.a
    a.sql("CREATE TABLE t (n int, filler text)")
    for size in (1, 30, 500, 3000):
        a.sql(
            "INSERT INTO t SELECT n, (SELECT string_agg(md5((n * i)::text), '') "
            f"FROM generate_series(1, {size}) i) FROM generate_series(1, {60000 // size // 10}) n"
        )
        a.sql("SELECT pg_switch_wal()")
    a.sql("CHECKPOINT")
    end = a.sql("SELECT pg_current_wal_flush_lsn()")
    start = pg_clusters.first_wal_position(a.data)
    done = pg_clusters.as_account(
        [f"{pg_clusters.BIN}/pg_waldump", "-p", str(a.data / "pg_wal"), "-t", "1", "-s", start, "-e", end]
    )
    records = parse_records(done.stdout)
    assert len(records) > 10000
    segment, page = 16 * 1024 * 1024, 8192
    crossed = 0
    for record, following in itertools.pairwise(records):
        behind = record_end(record.start, record.total_length, segment, page)
        if record.description.strip() == "SWITCH":
            continue
        if behind % page == 0:
            # The next record begins behind the header of the page.
            behind += 40 if behind % segment == 0 else 24
        assert behind == following.start, (record, following)
        crossed += record.start // page != behind // page
    assert crossed > 100


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("pg_createcluster"), reason="needs root and Debian's wrappers"
)
def test_debian_clusters_are_controlled_by_their_wrapper() -> None:
    """On mounts of its own, so that no cluster appears in this machine's configuration."""
    with pg_clusters.private_mounts(
        "/etc/postgresql", "/var/lib/postgresql", "/var/log/postgresql", "/var/run"
    ) as within:
        port = pg_clusters.free_port()
        version = pg_clusters.BIN.split("/")[-2]
        made = subprocess.run(
            [*within, "pg_createcluster", "-u", pg_clusters.ACCOUNT, "-p", str(port), version, "odd", "--", "-N"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        data = f"/var/lib/postgresql/{version}/odd"

        def verb(module: str, **arguments: Any) -> dict[str, Any]:
            result = pg_clusters.call(module, within=within, data_directory=data, port=port, **arguments)
            assert not result["failed"], result
            return result

        facts = verb("instance_info")["instance"]
        assert facts["status"] == "stopped"
        assert facts["debian_cluster"] == [version, "odd"]
        assert facts["control_method"] == "pg_ctlcluster"
        assert facts["settings"]["port"] == port, "read from below /etc"
        started = verb("instance", state="started")
        assert started["changed"]
        assert started["instance"]["writable"]
        assert started["instance"]["settings"]["config_file"] == f"/etc/postgresql/{version}/odd/postgresql.conf"
        assert not verb("instance", state="started")["changed"]
        token = {"token": 1, "state": "claimed", "operation": {"plan_id": "p1"}}
        verb("operation_token", **token)
        assert verb("instance", state="stopped", token=1)["instance"]["status"] == "stopped"
        assert not verb("instance", state="stopped")["changed"]
        # The same by pg_ctl, which does not find the configuration beside the data.
        assert verb("instance", state="started", control="pg_ctl")["instance"]["writable"]
        assert verb("instance", state="stopped", control="pg_ctl", token=1)["instance"]["status"] == "stopped"
        with open(f"/proc/{within.holder}/root/etc/postgresql/{version}/odd/postgresql.conf", "a") as stream:
            stream.write("max_connections = none\n")
        failed = pg_clusters.call("instance", within=within, data_directory=data, port=port, state="started")
        assert failed["code"] == "START_FAILED"
        assert any("max_connections" in text for text in failed["evidence"]["log_tail"]), failed
