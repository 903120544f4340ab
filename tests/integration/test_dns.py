# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The DNS part against real BIND servers: what it reads, changes, refuses, and what it makes of a bad network."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.prepared import Prepared
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.repoint import Updater
from ansible_collections.elephaas.herd.tests.integration.dns_bind import (
    NOBODY,
    PRIMARY,
    RELAY,
    SECONDARY,
    SECRETS,
    Bind,
    Relay,
)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bind]:
    bind = Bind(tmp_path_factory.mktemp("bind"))
    try:
        bind.start("primary")
        bind.start("secondary")
        yield bind
    finally:
        bind.stop()


@pytest.fixture
def bind(servers: Bind) -> Bind:
    """The servers with their records as in the zone file."""
    for zone in ("herd.test", "slow.test", "dead.test"):
        servers.admin_set(zone, "alias", "CNAME", f"db1.{zone}.")
    servers.admin_set("herd.test", "plain", "A", "10.10.0.11")
    servers.admin_set("herd.test", "six", "AAAA", "fd00::11")
    servers.admin_set("herd.test", "many", "A", "10.10.0.11", "10.20.0.11")
    servers.admin_set("herd.test", "noted", "A", "10.10.0.11")
    servers.admin_set("herd.test", "only", "CNAME", "db1.herd.test.")
    servers.admin_set("herd.test", "fresh", "A")
    return servers


@pytest.fixture
def relay(bind: Bind) -> Iterator[Relay]:
    relay = Relay(bind.port)
    yield relay
    relay.close()


def through(bind: Bind, *servers: str, **more: Any) -> Updater:
    return Updater.from_params(bind.params(server=list(servers), **more))


def code_of(call: Any, *args: Any, **kwargs: Any) -> OperatorError:
    with pytest.raises(OperatorError) as caught:
        call(*args, **kwargs)
    for secret in SECRETS.values():
        assert secret not in repr(caught.value.as_result())
    return caught.value


@pytest.mark.parametrize(
    ("label", "rdtype", "value", "wire"),
    [
        ("alias", "CNAME", "DB2.herd.test", "db2.herd.test."),
        ("plain", "A", "10.20.0.11", "10.20.0.11"),
        ("six", "AAAA", "FD00:0:0::22", "fd00::22"),
    ],
)
def test_repoints_and_second_run_changes_nothing(bind: Bind, label: str, rdtype: str, value: str, wire: str) -> None:
    updater = Updater.from_params(bind.params())
    result = updater.repoint(f"{label}.herd.test.", value)
    assert result["changed"] is True
    assert result["type"] == rdtype
    assert result["after"]["ttl"] == result["before"]["ttl"] == 30
    assert {each["server"] for each in result["servers"]} == {"ns1.herd.test", "ns2.herd.test"}
    for address in (PRIMARY, SECONDARY):
        assert bind.values(f"{label}.herd.test", rdtype, address) == [wire]
    assert result["diff"]["after"] == f"{label}.herd.test. 30 IN {rdtype} {wire}\n"
    serial = bind.serial()
    again = updater.repoint(f"{label}.HERD.test", value, expected=result["before"]["values"])
    assert again["changed"] is False
    assert again["diff"]["before"] == again["diff"]["after"]
    assert bind.serial() == serial


def test_keeps_or_sets_the_ttl(bind: Bind) -> None:
    updater = Updater.from_params(bind.params(zone="herd.test"))
    assert updater.repoint("alias", "db1", ttl=5)["changed"] is True
    assert updater.repoint("alias", "db2")["after"]["ttl"] == 5
    assert updater.repoint("alias", "db2", ttl=5)["changed"] is False


def test_single_label_names_belong_to_the_zone(bind: Bind) -> None:
    assert code_of(Updater.from_params(bind.params()).prepare, "alias", "db2.herd.test").code == "DNS_NAME_INVALID"
    zoned = Updater.from_params(bind.params(zone="Herd.Test."))
    assert zoned.prepare("alias", "db2").result()["after"]["values"] == ["db2.herd.test"]
    assert code_of(zoned.prepare, "alias.slow.test", "db2").code == "DNS_NOT_IN_ZONE"
    parent = Updater.from_params(bind.params(zone="test"))
    assert code_of(parent.prepare, "alias.herd.test", "db2.herd.test").code == "DNS_NOT_IN_ZONE"


def test_alias_to_another_zone_is_followed_by_name_only(bind: Bind) -> None:
    result = Updater.from_params(bind.params()).prepare("remote.herd.test", "db9.elsewhere.example").result()
    assert result["before"]["values"] == ["db1.elsewhere.example"]


@pytest.mark.parametrize(
    ("record", "value", "wish", "code"),
    [
        ("mixed.herd.test", "10.20.0.11", {}, "DNS_RECORD_MIXED"),
        ("many.herd.test", "10.20.0.11", {}, "DNS_RECORD_MULTIPLE"),
        ("plain.herd.test", "db2.herd.test", {}, "DNS_TYPE_CHANGE"),
        ("alias.herd.test", "10.20.0.11", {}, "DNS_TYPE_CHANGE"),
        ("alias.herd.test", "10.20.0.11", {"type": "CNAME"}, "DNS_VALUE_INVALID"),
        ("fresh.herd.test", "db2.herd.test", {}, "DNS_RECORD_ABSENT"),
        ("fresh.herd.test", "db2.herd.test", {"expected": "db1.herd.test"}, "DNS_RECORD_ABSENT"),
        ("alias.herd.test", "db2.herd.test", {"expected": "absent"}, "DNS_RECORD_CHANGED"),
        ("alias.herd.test", "db2.herd.test", {"expected": "db3.herd.test"}, "DNS_RECORD_CHANGED"),
        ("alias.herd.test", "alias.herd.test", {}, "DNS_VALUE_INVALID"),
        ("herd.test", "db1.herd.test", {"expected": "absent"}, "DNS_VALUE_INVALID"),
        ("alias.herd.test", "gone.herd.test", {}, "DNS_TARGET_ABSENT"),
        ("x.away.herd.test", "db1.herd.test", {"expected": "absent"}, "DNS_NOT_AUTHORITATIVE"),
        ("db.unknown.example", "db1.herd.test", {}, "DNS_NOT_AUTHORITATIVE"),
    ],
)
def test_refuses(bind: Bind, record: str, value: str, wish: dict[str, Any], code: str) -> None:
    before = bind.content()
    assert code_of(Updater.from_params(bind.params()).repoint, record, value, **wish).code == code
    assert bind.content() == before


def test_makes_an_absent_record_when_expected(bind: Bind) -> None:
    updater = Updater.from_params(bind.params())
    prepared = updater.prepare("fresh.herd.test", "db1.herd.test", expected="absent")
    before = bind.content()
    prepared.rehearse()
    assert bind.content() == before
    assert prepared.send() is True
    assert bind.values("fresh.herd.test", "CNAME") == ["db1.herd.test."]
    late = code_of(updater.repoint, "fresh.herd.test", "db2.herd.test", expected="absent")
    assert late.code == "DNS_RECORD_CHANGED"


def test_changes_type_and_drops_all_values_when_asked(bind: Bind) -> None:
    updater = Updater.from_params(bind.params())
    updater.repoint("plain.herd.test", "db2.herd.test", allow_type_change=True)
    assert bind.values("plain.herd.test", "A") == ["db2.herd.test."]
    updater.repoint("many.herd.test", "10.30.0.11", expected=["10.20.0.11", "10.10.0.11"], allow_multiple=True)
    assert bind.values("many.herd.test", "A") == ["10.30.0.11"]


def test_a_change_to_cname_beside_other_data_leaves_the_address_there(bind: Bind) -> None:
    error = code_of(
        Updater.from_params(bind.params()).repoint, "noted.herd.test", "db2.herd.test", allow_type_change=True
    )
    assert error.code == "DNS_RECORD_CHANGED"
    assert "beside" in error.reason
    assert bind.values("noted.herd.test", "A") == ["10.10.0.11"]


def test_an_answer_from_a_wildcard_is_not_taken_for_a_record(bind: Bind) -> None:
    error = code_of(Updater.from_params(bind.params()).repoint, "x.wild.herd.test", "db2.herd.test")
    assert error.code == "DNS_RECORD_CHANGED"
    assert "wildcard" in error.reason


@pytest.mark.parametrize(
    ("record", "value", "wish"),
    [
        ("alias.herd.test", "db2.herd.test", {}),
        ("plain.herd.test", "10.20.0.11", {}),
        ("six.herd.test", "fd00::22", {}),
        ("plain.herd.test", "db2.herd.test", {"allow_type_change": True}),
        ("many.herd.test", "10.20.0.11", {"allow_multiple": True}),
        ("fresh.herd.test", "10.20.0.11", {"expected": "absent"}),
    ],
)
def test_rehearsal_leaves_zone_and_serial_alone(bind: Bind, record: str, value: str, wish: dict[str, Any]) -> None:
    before, serial = bind.content(), bind.serial()
    updater = Updater.from_params(bind.params())
    updater.prepare(record, value, **wish).rehearse()
    facts = updater.probe(record, value, **wish)
    assert (facts["key_ok"], facts["error"]) == (True, None)
    assert bind.serial() == serial
    assert bind.content() == before


@pytest.mark.parametrize(
    ("record", "params"),
    [
        ("alias.herd.test", {"key_secret": SECRETS["stranger"]}),
        ("alias.herd.test", {"key_name": "stranger", "key_secret": SECRETS["stranger"]}),
        ("alias.herd.test", {"key_name": "narrow", "key_secret": SECRETS["narrow"]}),
        ("alias.herd.test", {"key_algorithm": "hmac-sha512"}),
    ],
    ids=["wrong secret", "unknown key", "no permission for the name", "wrong algorithm"],
)
def test_rehearsal_and_update_both_fail_with_a_bad_key(bind: Bind, record: str, params: dict[str, Any]) -> None:
    before, serial = bind.content(), bind.serial()
    updater = Updater.from_params(bind.params(**params))
    prepared = updater.prepare(record, "db2.herd.test")
    assert code_of(prepared.rehearse).code == "DNS_KEY_REFUSED"
    assert code_of(prepared.send).code == "DNS_KEY_REFUSED"
    facts = updater.probe(record, "db2.herd.test")
    assert (facts["key_ok"], facts["error"]) == (False, "DNS_KEY_REFUSED")
    assert facts["values"] == ["db1.herd.test"]
    assert (bind.serial(), bind.content()) == (serial, before)


def test_rehearsal_proves_the_permission_for_the_wanted_type(bind: Bind) -> None:
    updater = Updater.from_params(bind.params("narrow"))
    updater.prepare("only.herd.test", "db2.herd.test").rehearse()
    other_type = updater.prepare("only.herd.test", "10.20.0.11", allow_type_change=True)
    assert code_of(other_type.rehearse).code == "DNS_KEY_REFUSED"
    assert code_of(other_type.send).code == "DNS_KEY_REFUSED"


def test_without_a_key_nothing_is_sent(bind: Bind) -> None:
    updater = Updater.from_params(bind.params(key_name=None, key_secret=None))
    assert code_of(updater.repoint, "alias.herd.test", "db2.herd.test").code == "DNS_KEY_MISSING"
    assert updater.probe("alias.herd.test")["error"] == "DNS_KEY_MISSING"


def test_clock_skew_is_named(bind: Bind, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = Updater.from_params(bind.params()).prepare("alias.herd.test", "db2.herd.test")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 4000)
    assert code_of(prepared.rehearse).code == "DNS_CLOCK_SKEW"
    assert code_of(prepared.send).code == "DNS_CLOCK_SKEW"


def test_rehearsal_and_update_see_a_change_after_the_reading(bind: Bind) -> None:
    prepared = Updater.from_params(bind.params()).prepare("alias.herd.test", "db2.herd.test")
    bind.admin_set("herd.test", "alias", "CNAME", "db3.herd.test.")
    for call in (prepared.rehearse, prepared.send):
        error = code_of(call)
        assert error.code == "DNS_RECORD_CHANGED"
        assert error.evidence["found"]["values"] == ["db3.herd.test"]
        assert "db3.herd.test" in error.reason
    assert bind.values("alias.herd.test", "CNAME") == ["db3.herd.test."]


def test_same_change_by_somebody_else_is_no_error(bind: Bind) -> None:
    prepared = Updater.from_params(bind.params()).prepare("alias.herd.test", "db2.herd.test")
    bind.admin_set("herd.test", "alias", "CNAME", "db2.herd.test.")
    assert prepared.send() is False
    assert "somebody else" in prepared.result()["notes"][0]


def send_at_once(prepared: Prepared, barrier: threading.Barrier) -> bool | OperatorError:
    barrier.wait()
    try:
        return prepared.send()
    except OperatorError as error:
        return error


def test_of_two_updates_at_once_one_wins(bind: Bind) -> None:
    for _round in range(10):
        bind.admin_set("herd.test", "alias", "CNAME", "db1.herd.test.")
        updater = Updater.from_params(bind.params())
        prepared = {value: updater.prepare("alias.herd.test", f"{value}.herd.test") for value in ("db2", "db3")}
        barrier = threading.Barrier(2)
        with ThreadPoolExecutor(2) as pool:
            running = {value: pool.submit(send_at_once, each, barrier) for value, each in prepared.items()}
        outcome = {value: each.result() for value, each in running.items()}
        winners = [value for value, result in outcome.items() if result is True]
        losers = [result for result in outcome.values() if isinstance(result, OperatorError)]
        assert len(winners) == 1
        assert [error.code for error in losers] == ["DNS_RECORD_CHANGED"]
        assert losers[0].evidence["found"]["values"] == [f"{winners[0]}.herd.test"]
        assert bind.values("alias.herd.test", "CNAME") == [f"{winners[0]}.herd.test."]


def test_a_secondary_that_is_behind_is_named(bind: Bind) -> None:
    updater = Updater.from_params(bind.params())
    error = code_of(updater.repoint, "alias.slow.test", "db2.slow.test", wait_s=0.3)
    assert error.code == "DNS_READBACK"
    assert error.evidence["applied"] is True
    assert error.evidence["behind"] == ["ns2.slow.test"]
    assert bind.values("alias.slow.test", "CNAME") == ["db2.slow.test."]


def test_a_secondary_that_catches_up_is_waited_for(bind: Bind) -> None:
    started = time.monotonic()
    result = Updater.from_params(bind.params()).repoint("alias.herd.test", "db3.herd.test", wait_s=15)
    assert all(each["values"] == ["db3.herd.test"] for each in result["servers"])
    assert time.monotonic() - started < 15


def test_a_dead_secondary_warns_or_fails_as_asked(bind: Bind) -> None:
    updater = Updater.from_params(bind.params())
    result = updater.repoint("alias.dead.test", "db2.dead.test")
    assert result["changed"] is True
    assert result["unreachable"] == ["ns3.dead.test"]
    assert any("ns3.dead.test" in warning for warning in result["warnings"])
    error = code_of(updater.repoint, "alias.dead.test", "db2.dead.test", require_all=True)
    assert error.code == "DNS_READBACK"
    assert error.evidence["unreachable"] == ["ns3.dead.test"]


def test_configured_servers_take_the_place_of_the_zones_own(bind: Bind) -> None:
    updater = Updater.from_params(bind.params(authoritative=[PRIMARY]))
    result = updater.repoint("alias.dead.test", "db3.dead.test", require_all=True)
    assert [each["server"] for each in result["servers"]] == [PRIMARY]
    lost = Updater.from_params(bind.params(authoritative=["no-such-host.invalid"], timeout=0.5))
    result = lost.repoint("alias.dead.test", "db2.dead.test")
    assert result["unreachable"] == ["no-such-host.invalid"]


def test_no_server_answers(bind: Bind) -> None:
    started = time.monotonic()
    error = code_of(through(bind, NOBODY).repoint, "alias.herd.test", "db2.herd.test")
    assert error.code == "DNS_UNREACHABLE"
    assert error.evidence["may_have_been_applied"] is False
    assert time.monotonic() - started < 1
    facts = through(bind, NOBODY).probe("alias.herd.test")
    assert (facts["error"], facts["key_ok"]) == ("DNS_UNREACHABLE", False)


def test_the_next_server_is_tried_when_one_is_silent(bind: Bind, relay: Relay) -> None:
    relay.lose = lambda kind, _protocol, _update: kind == "request"
    result = through(bind, RELAY, PRIMARY).repoint("alias.herd.test", "db2.herd.test")
    assert result["update_server"] == PRIMARY
    assert result["changed"] is True


def test_a_secondary_refuses_the_update_clearly(bind: Bind) -> None:
    bind.settle()
    error = code_of(through(bind, SECONDARY).repoint, "alias.herd.test", "db2.herd.test")
    assert error.code == "DNS_KEY_REFUSED"
    assert "primary" in error.next_step


def test_lost_request_is_repeated_by_tcp(bind: Bind, relay: Relay) -> None:
    relay.lose = lambda kind, protocol, update: kind == "request" and protocol == "udp" and update
    result = through(bind, RELAY).repoint("alias.herd.test", "db2.herd.test")
    assert result["changed"] is True
    assert [protocol for protocol, update in relay.seen if update] == ["udp", "tcp"]


def test_lost_answer_is_found_by_reading_and_not_sent_again(bind: Bind, relay: Relay) -> None:
    relay.lose = lambda kind, protocol, update: kind == "reply" and protocol == "udp" and update
    serial = bind.serial()
    result = through(bind, RELAY).repoint("alias.herd.test", "db2.herd.test")
    assert result["changed"] is True
    assert "was lost" in result["notes"][0]
    assert [protocol for protocol, update in relay.seen if update] == ["udp"]
    assert bind.serial() == serial + 1


def test_every_answer_lost_is_still_found_by_reading(bind: Bind, relay: Relay) -> None:
    # The request of UDP and the answer of TCP are lost: the update arrived with the very last message.
    relay.lose = lambda kind, protocol, update: update and kind == ("request" if protocol == "udp" else "reply")
    result = through(bind, RELAY).repoint("alias.herd.test", "db2.herd.test")
    assert result["changed"] is True
    assert bind.values("alias.herd.test", "CNAME") == ["db2.herd.test."]


def test_somebody_elses_change_after_a_lost_answer(bind: Bind, relay: Relay) -> None:
    prepared = through(bind, RELAY).prepare("alias.herd.test", "db2.herd.test")

    def lose(kind: str, _protocol: str, update: bool) -> bool:
        if update and kind == "request":
            bind.admin_set("herd.test", "alias", "CNAME", "db3.herd.test.")
        return update and kind == "request"

    relay.lose = lose
    error = code_of(prepared.send)
    assert error.code == "DNS_RECORD_CHANGED"
    assert error.evidence["found"]["values"] == ["db3.herd.test"]


def test_an_unclear_end_says_so(bind: Bind, relay: Relay) -> None:
    prepared = through(bind, RELAY, timeout=0.6).prepare("alias.herd.test", "db2.herd.test")
    # The update gets through, nothing ever comes back, not even to questions.
    relay.lose = lambda kind, _protocol, update: kind == "reply" or not update
    error = code_of(prepared.send)
    assert error.code == "DNS_UNREACHABLE"
    assert error.evidence["may_have_been_applied"] is True
    relay.lose = lambda _kind, _protocol, _update: False
    assert through(bind, RELAY).repoint("alias.herd.test", "db2.herd.test")["changed"] is False


def test_lost_answer_and_a_second_server_that_has_it(bind: Bind, relay: Relay) -> None:
    prepared = through(bind, RELAY, PRIMARY, timeout=0.6).prepare("alias.herd.test", "db2.herd.test")
    relay.lose = lambda kind, _protocol, update: kind == "reply" or not update
    serial = bind.serial()
    assert prepared.send() is True
    assert prepared.result()["update_server"] == PRIMARY
    assert bind.serial() == serial + 1


def test_an_unsigned_success_is_not_believed(bind: Bind, relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = through(bind, RELAY).prepare("alias.herd.test", "db2.herd.test")

    def forge(_protocol: str, request: bytes) -> bytes:
        return request[:2] + b"\xa8\x00" + bytes(8)

    monkeypatch.setattr(relay, "_through", forge)
    assert code_of(prepared.send).code == "DNS_ANSWER_UNTRUSTED"
    assert bind.values("alias.herd.test", "CNAME") == ["db1.herd.test."]


def test_a_cut_answer_is_asked_again_by_tcp(bind: Bind, relay: Relay) -> None:
    relay.cut = True
    assert through(bind, RELAY).repoint("alias.herd.test", "db2.herd.test")["changed"] is True
    assert {protocol for protocol, update in relay.seen if not update} == {"udp", "tcp"}


def test_answers_and_updates_too_large_for_a_datagram(bind: Bind) -> None:
    values = [f"10.99.0.{number}" for number in range(1, 96)]
    bind.admin_set("herd.test", "crowd", "A", *values)
    updater = Updater.from_params(bind.params())
    facts = updater.probe("crowd.herd.test")
    assert (len(facts["values"]), facts["key_ok"]) == (95, True)
    result = updater.repoint("crowd.herd.test", "10.30.0.11", allow_multiple=True)
    assert result["after"]["values"] == ["10.30.0.11"]
    assert bind.values("crowd.herd.test", "A", SECONDARY) == ["10.30.0.11"]


def test_probe_shows_all_servers(bind: Bind, tmp_path: Path) -> None:
    path = tmp_path / "operator.key"
    path.write_text(f'key "operator" {{ algorithm hmac-sha256; secret "{SECRETS["operator"]}"; }};\n')
    path.chmod(0o600)
    updater = Updater.from_params(bind.params(key_name=None, key_secret=None, key_file=str(path)))
    facts = updater.probe("alias.herd.test", "db2.herd.test", expected="db1.herd.test")
    assert facts["error"] is None
    assert facts["zone"] == "herd.test"
    assert [each["server"] for each in facts["servers"]] == ["ns1.herd.test", "ns2.herd.test"]
    assert (facts["type"], facts["values"], facts["ttl"]) == ("CNAME", ["db1.herd.test"], 30)
    assert updater.probe("alias.herd.test", "db2.herd.test", expected="db3.herd.test")["error"] == "DNS_RECORD_CHANGED"
