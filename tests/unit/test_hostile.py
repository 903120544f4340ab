# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hostile text at every door that needs no server: it is refused in words, or it stays what it is.

What a real registry, real playbooks and real connections make of it is in tests/integration/test_hostile_rows.py.
"""

from __future__ import annotations

import copy
import itertools
import os
import pwd
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dns.message
import dns.name
import dns.rrset
import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from ansible_collections.elephaas.herd.plugins.module_utils.decide import names, text
from ansible_collections.elephaas.herd.plugins.module_utils.decide.candidate import Wishes
from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.fleet import parse_fleet
from ansible_collections.elephaas.herd.plugins.module_utils.decide.herd import Herd, Operation
from ansible_collections.elephaas.herd.plugins.module_utils.decide.plan import plan_failover
from ansible_collections.elephaas.herd.plugins.module_utils.decide.status import herd_status
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.conninfo import format_conninfo, parse_conninfo
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.module import instance_argument_spec, run_verb
from ansible_collections.elephaas.herd.plugins.module_utils.postgres.probe import observe
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.change import Wish, decide, update_message
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.names import parse_name
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.options import Options, make_key, parse_keys
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.repoint import Updater
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.zone import Reading
from ansible_collections.elephaas.herd.plugins.plugin_utils.inventory import build
from ansible_collections.elephaas.herd.plugins.plugin_utils.trust import Marker
from ansible_collections.elephaas.herd.tests.hostile import NOT_IN_POSTGRESQL, SAFE_HOST, SAFE_USER, seeds, texts

from .decide.herds import dns as probed
from .decide.herds import healthy
from .inventory.documents import document, instance, operation, server

ROWS = 10_000
ZONE = dns.name.from_text("example.com.")


@pytest.fixture(name="canary")
def fixture_canary(tmp_path: Path) -> Iterator[Path]:
    """The file that every text would create if something ran it."""
    path = tmp_path / "CANARY"
    yield path
    assert not path.exists(), "something ran a text"


# -- the fleet file ----------------------------------------------------------------------------------------------------

FLEET: dict[str, Any] = {
    "environments": {"prod": {}},
    "datacenters": {"chicago": {"networks": ["10.10.0.0/16"]}},
    "servers": {"chi-db1": {"environment": "prod"}, "nyc-db1": {"environment": "prod"}},
    "herds": [
        {
            "name": "trading",
            "environment": "prod",
            "pgdata": "/srv/trading",
            "members": [{"server": "chi-db1"}, {"server": "nyc-db1"}],
        }
    ],
}


def _fits_a_name(value: Any) -> None:
    assert names.name_problem(value) is None


def _fits_dns(value: Any) -> None:
    # A single label belongs to the option zone.
    parse_name(value, ZONE)


def _fits_an_account(value: Any) -> None:
    assert SAFE_USER.fullmatch(value)


def _fits_an_address(value: Any) -> None:
    assert SAFE_HOST.fullmatch(value)


def _fits_a_path(value: Any) -> None:
    assert value.startswith("/")
    assert value.isprintable() or not any(ord(char) < 32 or ord(char) == 127 for char in value)
    assert len(value.encode()) < 1024  # MAXPGPATH of PostgreSQL


def _fits_a_column(value: Any) -> None:
    assert "\x00" not in value
    value.encode()


def _fits_a_number(value: Any) -> None:
    assert isinstance(value, int)


def _fits_a_role(value: Any) -> None:
    assert 0 < len(value.encode()) <= 63


def _is_one_of(*allowed: Any) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        assert value in allowed

    return check


# Where a text goes in a fleet file, and what everything that is accepted there must be.
FIELDS: list[tuple[tuple[Any, ...], Callable[[Any], None]]] = [
    (("environments", "prod", "protected"), _is_one_of(True, False)),
    (("environments", "prod", "description"), _fits_a_column),
    (("datacenters", "chicago", "description"), _fits_a_column),
    (("datacenters", "chicago", "networks"), _is_one_of()),
    (("datacenters", "chicago", "networks", 0), _fits_a_column),
    (("servers", "chi-db1", "environment"), _is_one_of("prod")),
    (("servers", "chi-db1", "datacenter"), _is_one_of("chicago")),
    (("servers", "chi-db1", "address"), _fits_an_address),
    (("servers", "chi-db1", "ssh_user"), _fits_an_account),
    (("servers", "chi-db1", "ssh_port"), _fits_a_number),
    (("servers", "chi-db1", "dns_name"), _fits_dns),
    (("herds", 0, "name"), _fits_a_name),
    (("herds", 0, "environment"), _is_one_of("prod")),
    (("herds", 0, "port"), _fits_a_number),
    (("herds", 0, "pgdata"), _fits_a_path),
    (("herds", 0, "vhost"), _fits_dns),
    (("herds", 0, "description"), _fits_a_column),
    (("herds", 0, "os_user"), _fits_an_account),
    (("herds", 0, "control"), _is_one_of("auto", "pg_ctl", "pg_ctlcluster")),
    (("herds", 0, "replication_user"), _fits_a_role),
    (("herds", 0, "base_name"), _fits_a_name),
    (("herds", 0, "members", 1, "server"), _is_one_of("nyc-db1")),
    (("herds", 0, "members", 1, "role"), _is_one_of("primary", "replica", "detached", "superseded")),
    (("herds", 0, "members", 1, "upstream"), _is_one_of("chi-db1")),
    (("herds", 0, "members", 1, "port"), _fits_a_number),
    (("herds", 0, "members", 1, "pgdata"), _fits_a_path),
    (("herds", 0, "members", 1, "priority"), _fits_a_number),
]


def _at(tree: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        tree = tree[step]
    return tree


def test_a_fleet_file_refuses_by_name_or_keeps_what_it_says(canary: Path) -> None:
    accepted = refused = 0
    for number, value in enumerate(itertools.islice(texts(canary), ROWS)):
        # Every text by itself meets every field in turn, and the seeds are no multiple of the fields.
        path, fits = FIELDS[(number + number // 150) % len(FIELDS)]
        accepted, refused = _try_field(path, fits, value, accepted, refused)
    assert accepted > 500
    assert refused > 5000


@pytest.mark.parametrize(("path", "fits"), FIELDS)
def test_every_field_of_a_fleet_file_meets_every_text(path: Any, fits: Any, canary: Path) -> None:
    for value in (*seeds(canary), *NOT_IN_POSTGRESQL):
        _try_field(path, fits, value, 0, 0)


def _try_field(path: Any, fits: Any, value: str, accepted: int, refused: int) -> tuple[int, int]:
    wanted = copy.deepcopy(FLEET)
    _at(wanted, path[:-1])[path[-1]] = value
    try:
        found = parse_fleet(wanted)
    except OperatorError as error:
        assert error.code == "FLEET_INVALID"
        field = path[-1] if isinstance(path[-1], str) else path[-2]
        assert field in error.reason, (path, value, error.reason)
        return accepted, refused + 1
    fits(_at(found, path))
    return accepted + 1, refused


@pytest.mark.parametrize("section", ["environments", "datacenters", "servers"])
def test_names_of_a_fleet_file(section: str, canary: Path) -> None:
    for value in (*seeds(canary), *NOT_IN_POSTGRESQL):
        wanted = copy.deepcopy(FLEET)
        wanted[section][value] = {"environment": "prod"} if section == "servers" else {}
        try:
            found = parse_fleet(wanted)
        except OperatorError as error:
            assert error.code == "FLEET_INVALID"
            continue
        _fits_a_name(value)
        assert value in found[section]
        if section == "servers":
            assert names.reserved_problem(value) is None


# -- the inventory -----------------------------------------------------------------------------------------------------

FREE = ("datacenter", "dns_name", "role", "pgdata", "version", "vhost", "os_user", "control", "replication_user",
        "base_name", "hold_reason", "hold_by", "hold_since", "system_identifier", "last_seen", "upstream_server")  # fmt: skip
NAMES = ("herd", "environment", "server", "address", "ssh_user")


HOST_NAME = re.compile(rf"{names.NAME_PATTERN}(@{names.NAME_PATTERN})?")


def test_rows_of_the_registry_hide_no_other_row(canary: Path) -> None:
    """Each row has hostile text wherever it may have any; every other one also where it must not."""
    source = texts(canary)
    good = [instance("trading", "chi-db1", "primary"), instance("trading", "nyc-db1")]
    rows, servers, operations = [], [], []
    for number in range(ROWS // 3):
        odd = {name: next(source) for name in FREE}
        if number % 2:
            odd[NAMES[number // 2 % len(NAMES)]] = next(source)
        rows.append({**instance(f"h{number}", f"s{number}", "primary"), **odd})
        servers.append(server(f"s{number}", **{name: next(source) for name in ("datacenter", "dns_name")}))
        operations.append(
            {**operation(f"h{number}", next(source), next(source), next(source)), "operator": next(source)}
        )
    clean = build(document([server("chi-db1"), server("nyc-db1")], good))
    model = build(document([server("chi-db1"), server("nyc-db1"), *servers], [*good, *rows], operations))
    for host in clean.hosts:
        assert model.hosts[host] == clean.hosts[host]
    for host, variables in model.hosts.items():
        assert SAFE_HOST.fullmatch(variables["ansible_host"]), host
        assert SAFE_USER.fullmatch(variables["ansible_user"]), host
        assert HOST_NAME.fullmatch(host), host
    for number in range(0, ROWS // 3, 2):
        variables = model.hosts[f"h{number}_prod@s{number}"]
        assert [variables[f"elephaas_{name}"] for name in FREE if name != "upstream_server"] == [
            rows[number][name] for name in FREE if name != "upstream_server"
        ]
    for line in model.warnings:
        assert line.isprintable(), line
        assert len(line) < 1000


def test_nothing_is_templated(canary: Path) -> None:
    """Every text, by this ansible-core, by itself and within what a row may be part of."""
    mark = Marker()
    templar = Templar(loader=DataLoader(), variables={})
    for value in itertools.islice(texts(canary), 2000):
        marked = mark.data({"a": [value], "b": value})
        templar.available_variables = {"row": marked}
        assert templar.template(marked) == {"a": [value], "b": value}
        assert templar.template(marked["b"]) == value


# -- DNS ---------------------------------------------------------------------------------------------------------------

LETTERS = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_")


def test_no_name_reaches_a_dns_server_that_is_none(canary: Path) -> None:
    """The server's sockets are there and stay silent: what is refused is refused before a question."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, socket.socket() as streams:
        datagrams.bind(("127.0.0.1", 0))
        port = datagrams.getsockname()[1]
        streams.bind(("127.0.0.1", port))
        streams.listen()
        updater = Updater(Options(servers=("127.0.0.1",), port=port, timeout=0.05))
        refused = 0
        for value in itertools.islice(texts(canary), ROWS):
            try:
                name = parse_name(value)
            except OperatorError:
                with pytest.raises(OperatorError) as caught:
                    updater.prepare(value, "10.0.0.1")
                assert caught.value.code == "DNS_NAME_INVALID"
                refused += 1
            else:
                assert all(LETTERS.issuperset(label) for label in name.labels), value
        assert refused > 5000
        for listener in (datagrams, streams):
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.recvfrom(1) if listener is datagrams else listener.accept()


@pytest.mark.parametrize("kind", ["auto", "CNAME", "A", "AAAA"])
def test_no_value_gets_into_an_update_that_is_none(kind: str, canary: Path) -> None:
    name = dns.name.from_text("trading.example.com.")
    there = Reading("ns1", "127.0.0.1", (dns.rrset.from_text(name, 60, "IN", "A", "10.0.0.1"),))
    key = make_key("k", None, "c2VjcmV0", "the test")
    for value in itertools.islice(texts(canary), 2000):
        for wish in (Wish(value, type=kind, allow_type_change=True), Wish("10.0.0.2", expected=[value])):
            try:
                change = decide(name, ZONE, there, wish)
            except OperatorError as error:
                assert error.code.startswith("DNS_"), value
                continue
            dns.message.from_wire(update_message(change, key).to_wire(), keyring=key.tsig(), ignore_trailing=False)
            target = getattr(change.after[0], "target", None)
            assert target is None or all(LETTERS.issuperset(label) for label in target.labels), value


def test_keys_and_key_files(canary: Path, tmp_path: Path) -> None:
    file = tmp_path / "key"
    for value in (*seeds(canary), *NOT_IN_POSTGRESQL):
        for options in (
            {"key_file": value},
            {"key_name": value, "key_secret": "c2VjcmV0"},
            {"key_name": "k", "key_secret": value},
            {"key_name": "k", "key_secret": "c2VjcmV0", "key_algorithm": value},
            {"zone": value},
        ):
            try:
                found = Options.from_params({"server": ["127.0.0.1"], **options})
                Updater(found).prepare("-", "10.0.0.1")
            except OperatorError as error:
                assert error.code.startswith("DNS_"), (options, error)
        file.write_text(value, encoding="utf-8", errors="surrogatepass")
        try:
            parse_keys(value, "a file")
        except OperatorError as error:
            assert error.code == "DNS_KEY_INVALID"


# -- decisions and screens ---------------------------------------------------------------------------------------------


def _odd_herd(source: Iterator[str]) -> Herd:
    """A herd of which the registry and the hosts say something hostile wherever they may say any text."""
    odd = healthy(
        vhost=next(source),
        hold_reason=next(source),
        hold_by=next(source),
        hold_since=next(source),
        held=next(source),
        registry_error=next(source),
        dns=probed(next(source), reason=next(source), error=next(source), record=next(source)),
        missing=(next(source),),
        operation=Operation(
            next(source), next(source), 1, next(source), next(source), next(source), next(source), 0.0, next(source)
        ),
    )
    members = []
    for one in odd.members:
        facts = copy.deepcopy(one.facts)
        assert facts is not None
        for fact in ("version", "binary_version", "identity_problem", "sql_error", "system_identifier"):
            facts[fact] = next(source)
        facts["control"]["state"] = next(source)
        facts["config_errors"] = [next(source)]
        facts["settings"]["recovery_target_timeline"] = next(source)
        facts["replicas"] = [{"application_name": next(source), "client_addr": next(source), "state": next(source)}]
        facts["operation"] = {"token": 1, "closed": None, "lease_until": 0.0, "operation": {"operator": next(source)}}
        if facts["upstream"]:
            facts["upstream"].update(host=next(source), user=next(source), slot=next(source), status=next(source))
        changes: dict[str, Any] = {
            name: next(source) for name in ("datacenter", "address", "dns_name", "role", "replication_user")
        }
        members.append(replace(one, facts=facts, **changes))
    # One of them did not answer, and says why.
    members[-1] = replace(members[-1], reachable=False, facts=None, error=next(source))
    return replace(odd, members=tuple(members))


def test_what_is_shown_does_not_drive_the_terminal(canary: Path) -> None:
    source = texts(canary)
    for _count in range(150):
        herd = _odd_herd(source)
        plan = plan_failover(herd, Wishes())
        outcome = {"herd": herd.name, "outcome": next(source), "gap_s": 1.0, "reason": next(source)}
        lines = [*text.all_plans([plan], "p1"), *text.outcome_lines([outcome])]
        shown = herd_status(herd, True, 1024)
        lines += text.verdict_lines(shown["problems"])
        lines += text.table(("INSTANCE", "WHAT"), [(row["instance"], row) for row in shown["members"]])
        for line in lines:
            assert line.isprintable(), line


# -- modules -----------------------------------------------------------------------------------------------------------

ACCOUNT = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


class _Done(Exception):
    """A module has come to its end."""


class _Module:
    """What run_verb needs of AnsibleModule, in this process."""

    check_mode = True

    def __init__(self, **params: Any) -> None:
        base = {"data_directory": "/nowhere/at/all", "port": 5432, "os_user": ACCOUNT, "timeout": 5}
        arguments = {**base, **params}
        found = ArgumentSpecValidator(instance_argument_spec(5)).validate(arguments)
        assert not found.error_messages
        self.params = found.validated_parameters
        self.result: dict[str, Any] = {}

    def fail_json(self, **result: Any) -> None:
        self.result = {"failed": True, **result}
        raise _Done

    def exit_json(self, **result: Any) -> None:
        self.result = result
        raise _Done


@pytest.mark.parametrize(
    "option", ["data_directory", "os_user", "bin_directory", "socket_directory", "system_identifier"]
)
def test_options_of_the_host_s_modules(option: str, canary: Path) -> None:
    for value in (*seeds(canary), *NOT_IN_POSTGRESQL):
        module = _Module(**{option: value})
        with pytest.raises(_Done):
            run_verb(module, lambda target, _params, _check_mode: {"instance": observe(target)})
        if module.result.get("failed"):
            assert module.result["code"].isupper(), (value, module.result)
        elif option == "data_directory":
            assert module.result["instance"]["data_directory"] == os.path.normpath(value)


def test_connection_strings(canary: Path) -> None:
    """libpq reads back what was meant, and one keyword never becomes two."""
    for value in itertools.islice(texts(canary), 2000):
        parts = {"host": value, "user": value, "application_name": value}
        assert parse_conninfo(format_conninfo(parts)) == parts
