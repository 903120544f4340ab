# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plugin in the ansible-core that runs the tests, fed by a snapshot of a registry that is not there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible.vars.manager import VariableManager
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.elephaas.herd.plugins.plugin_utils import snapshot

from .documents import document, instance, operation, server, trading

# Were any of these ever taken for a template, its value would change.
BAIT = [
    "{{ 7 * 191 }}",
    "{{ lookup('ansible.builtin.pipe', 'echo 1337') }}",
    "{% set x = 1 %}1337",
    "{# comment #}",
    "{{ undefined_thing.at.all }}",
    "{{",
    "#jinja2: variable_start_string:'[[', variable_end_string:']]'\n[[ 7 * 191 ]]",
    "#jinja2: block_start_string:'[%', block_end_string:'%]'\n[% if true %]1337[% endif %]",
    "{'__ansible_unsafe': 'x'}",
    "!unsafe x",
    "$ANSIBLE_VAULT;1.1;AES256\n6162",
    "line\nbreak",
    "quote\"and'quote",
    "$(id)",
    "\u202eünï",
    "",
    "x" * 5000,
    "yes",
    "0123",
    "null",
]


@pytest.fixture(name="place")
def fixture_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an inventory file of a registry that does not exist."""
    for name in [name for name in os.environ if name.startswith(("PG", "ELEPHAAS"))]:
        monkeypatch.delenv(name)
    (tmp_path / "ansible.cfg").write_text("")
    monkeypatch.setenv("ANSIBLE_CONFIG", str(tmp_path / "ansible.cfg"))
    configure(tmp_path)
    return tmp_path


def configure(place: Path, **options: Any) -> None:
    """Write herds.yml (JSON is YAML)."""
    base = {"plugin": "elephaas.herd.herds", "host": [str(place / "nowhere")], "snapshot_path": str(place / "snapshot")}
    (place / "herds.yml").write_text(json.dumps({**base, **options}))


def read(place: Path, content: dict[str, Any], source: str = "herds.yml") -> tuple[InventoryManager, VariableManager]:
    """Ansible's own managers over that inventory."""
    snapshot.save(place / "snapshot", content)
    loader = DataLoader()
    inventory = InventoryManager(loader=loader, sources=[str(place / source)])
    return inventory, VariableManager(loader=loader, inventory=inventory)


def seen(managers: tuple[InventoryManager, VariableManager], host: str) -> dict[str, Any]:
    """The variables of a host, as a task would see them: templated."""
    inventory, variables = managers
    raw = variables.get_vars(host=inventory.get_host(host), include_hostvars=False)
    templar = Templar(loader=DataLoader(), variables=raw)
    return {name: templar.template(value) for name, value in raw.items() if name.startswith("elephaas_")}


def command(place: Path, *arguments: str) -> str:
    """Output of ansible-inventory, in a process of its own."""
    program = Path(sys.executable).with_name("ansible-inventory")
    run = subprocess.run([str(program), *arguments], cwd=place, text=True, capture_output=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_hosts_groups_and_variables(place: Path) -> None:
    managers = read(place, trading(operation("trading", "done", "nyc-db2", "chi-db1")))
    inventory = managers[0]
    assert {host.name for host in inventory.get_hosts("leads")} == {"trading_prod@chi-db1"}
    assert {host.name for host in inventory.get_hosts("former_leads")} == {"trading_prod@nyc-db2"}
    assert {host.name for host in inventory.get_hosts("dc_nyc:&replicas")} == {
        "trading_prod@nyc-db1",
        "trading_prod@nyc-db2",
    }
    values = seen(managers, "trading_prod@nyc-db1")
    assert values["elephaas_members"] == [f"trading_prod@{name}" for name in ("chi-db1", "nyc-db1", "nyc-db2")]
    assert values["elephaas_last_failover"]["to"] == "trading_prod@chi-db1"
    assert values["elephaas_inventory_source"] == "snapshot"
    raw = managers[1].get_vars(host=inventory.get_host("trading_prod@nyc-db1"), include_hostvars=False)
    assert raw["ansible_ssh_pipelining"] is True
    assert raw["ansible_host_key_checking"] is True
    assert raw["ansible_port"] == 22


FREE_TEXTS = (
    "vhost",
    "pgdata",
    "hold_reason",
    "hold_by",
    "version",
    "os_user",
    "dns_name",
    "replication_user",
    "base_name",
)


def hostile(*texts: str) -> dict[str, Any]:
    """A herd for each text, which it has wherever the registry might hold any."""
    names = [f"h{number}" for number in range(len(texts))]
    rows = [
        instance(name, "chi-db1", "primary", **dict.fromkeys(FREE_TEXTS, text))
        for name, text in zip(names, texts, strict=True)
    ]
    records = [
        operation(name, "open", "chi-db1", None, plan_id=text, operator=text)
        for name, text in zip(names, texts, strict=True)
    ]
    return document([server("chi-db1", dns_name=texts[0])], rows, records)


def assert_inert(managers: tuple[InventoryManager, VariableManager], *texts: str) -> None:
    for number, text in enumerate(texts):
        values = seen(managers, f"h{number}_prod@chi-db1")
        assert {values[f"elephaas_{name}"] for name in FREE_TEXTS} == {text}
        assert values["elephaas_operation"]["operator"] == text
        assert values["elephaas_operation"]["plan_id"] == text


@given(text=st.text(alphabet=st.sampled_from("{}%#[]()'\"\n jina2:x7*|$-é"), max_size=60))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_of_the_registry_is_templated(place: Path, text: str) -> None:
    assert_inert(read(place, hostile(text)), text)


def test_no_bait_is_taken(place: Path) -> None:
    assert_inert(read(place, hostile(*BAIT)), *BAIT)


@pytest.mark.parametrize("extra", [[], ["--export"]])
def test_nor_through_an_inventory_script(place: Path, extra: list[str]) -> None:
    """As AWX does it: the output of --list, printed by a script, is the inventory of the job."""
    snapshot.save(place / "snapshot", hostile(*BAIT))
    (place / "list.json").write_text(command(place, "-i", "herds.yml", "--list", *extra))
    (place / "script").write_text(f"#!{sys.executable}\nprint(open({str(place / 'list.json')!r}).read())\n")
    (place / "script").chmod(0o700)
    managers = read(place, hostile(*BAIT), "script")
    assert_inert(managers, *BAIT)
    assert len(managers[0].get_hosts("leads")) == len(BAIT)


def test_list_holds_plain_strings(place: Path) -> None:
    snapshot.save(place / "snapshot", trading())
    output = command(place, "-i", "herds.yml", "--list")
    assert "__ansible" not in output
    variables = json.loads(output)["_meta"]["hostvars"]["trading_prod@chi-db1"]
    assert variables["elephaas_vhost"] == "trading.example.com"
    assert variables["elephaas_members"][0] == "trading_prod@chi-db1"


def test_graph_and_host(place: Path) -> None:
    snapshot.save(place / "snapshot", trading())
    assert "--trading_prod@chi-db1" in command(place, "-i", "herds.yml", "--graph", "leads")
    variables = json.loads(command(place, "-i", "herds.yml", "--host", "trading_prod@nyc-db1"))
    assert variables["elephaas_role"] == "replica"


def test_ten_thousand_hostile_rows_do_not_hide_the_good_one(place: Path) -> None:
    rows = [instance("trading", "chi-db1", "primary")]
    for number in range(10_000):
        bait = BAIT[number % len(BAIT)]
        column = ("address", "ssh_user", "server", "herd", "vhost", "datacenter", "version", "role")[number % 8]
        rows.append({**instance(f"h{number}", "nyc-db1", "primary"), column: bait})
    inventory, _variables = managers = read(place, document([server("chi-db1")], rows))
    assert seen(managers, "trading_prod@chi-db1")["elephaas_vhost"] == "trading.example.com"
    assert inventory.get_host("chi-db1") is not None
    assert len(inventory.get_hosts("leads")) > 4000


def test_constructed(place: Path) -> None:
    configure(
        place,
        compose={"site": "elephaas_datacenter | upper", "broken": "no_such_thing.at.all"},
        groups={"first": "elephaas_role == 'primary'"},
        keyed_groups=[
            {"key": "elephaas_os_user", "prefix": "as"},
            {"key": "elephaas_base_name", "parent_group": "by_name"},
        ],
        strict=False,
        leading_separator=False,
    )
    inventory, variables = read(place, trading())
    assert {host.name for host in inventory.get_hosts("first")} == {"trading_prod@chi-db1"}
    assert len(inventory.get_hosts("as_postgres")) == 3
    assert len(inventory.get_hosts("trading:&by_name")) == 3
    values = variables.get_vars(host=inventory.get_host("nyc-db1"))
    assert values["site"] == "NYC"
    assert "broken" not in values
    # What an inventory script prints for AWX is what it says.
    assert "__ansible" not in command(place, "-i", "herds.yml", "--list")


def test_a_broken_expression_is_an_error_where_strict(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(place, compose={"broken": "no_such_thing.at.all"}, strict=True)
    snapshot.save(place / "snapshot", trading())
    assert "Could not set broken for host" in said(place, monkeypatch)


def test_constructed_with_extra_variables(place: Path) -> None:
    """They win over the host's variables where that is asked for."""
    snapshot.save(place / "snapshot", trading())
    for use, site in ((True, "moon"), (False, "chi")):
        configure(place, compose={"site": "elephaas_datacenter"}, use_extra_vars=use)
        shown = command(place, "-i", "herds.yml", "--host", "chi-db1", "-e", "elephaas_datacenter=moon")
        assert json.loads(shown)["site"] == site


def test_constructed_from_hostile_rows(place: Path) -> None:
    """No expression of the user's makes a template of what a row holds, and no row names itself into a group of ours."""
    texts = [*BAIT, "leads", "primaries", "env_prod", "chi-db1", "localhost", "True", "[1, {}]", "{'a': {}}", ","]
    configure(
        place,
        compose={
            "same": "elephaas_vhost",
            "joined": "elephaas_vhost ~ elephaas_vhost",
            "brace": "'{' ~ '{ 7 * 191 }}'",
        },
        groups={"odd": "elephaas_vhost != 'x'"},
        keyed_groups=[
            {"key": "elephaas_vhost", "separator": ""},
            {"key": "elephaas_vhost", "prefix": "v", "parent_group": "replicas"},
            {"key": "elephaas_vhost.split(',')", "separator": ""},
        ],
        leading_separator=False,
    )
    managers = read(place, hostile(*texts))
    inventory, variables = managers
    assert_inert(managers, *texts)
    assert {host.name for host in inventory.get_hosts("leads")} == {f"h{n}_prod@chi-db1" for n in range(len(texts))}
    assert {host.name for host in inventory.get_hosts("primaries")} == {f"h{n}_prod@chi-db1" for n in range(len(texts))}
    assert inventory.get_hosts("replicas") == []
    own = {"all", "ungrouped", "chi_db1"}
    assert all(re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", group) for group in set(inventory.groups) - own)
    assert "chi-db1" not in inventory.groups and "localhost" not in inventory.groups
    for number, text in enumerate(texts):
        values = variables.get_vars(host=inventory.get_host(f"h{number}_prod@chi-db1"))
        templar = Templar(loader=DataLoader(), variables=values)
        assert templar.template(values["brace"]) == "{{ 7 * 191 }}"
        # ansible-core 2.16 reads some texts as lists and booleans; that is all that happens to them.
        for name, made in (("same", text), ("joined", text + text)):
            if isinstance(values.get(name), str):
                assert templar.template(values[name]) == made


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (
            {"datacenters": ["nyc"], "versions": ["15"], "roles": ["replica"], "online": True},
            {"nyc-db1", "nyc-db2", "trading_prod@nyc-db1", "trading_prod@nyc-db2"},
        ),
        ({"environments": "prod", "version_below": "15.2"}, set()),
        ({"version_below": "15.20", "datacenters": "chi"}, {"chi-db1", "trading_prod@chi-db1"}),
        ({"lag_above": "1kB"}, {"nyc-db2", "trading_prod@nyc-db2"}),
        ({"offline": True}, {"nyc-db1", "trading_prod@nyc-db1"}),
        ({"without_dr_pair": True}, set()),
        ({"unassigned": True}, set()),
    ],
)
def test_filters_as_options(place: Path, options: dict[str, Any], names: set[str]) -> None:
    configure(place, **options)
    content = trading()
    content["instances"][1].update(is_online=options.get("online", False))
    content["instances"][2].update(lag_bytes=4096)
    inventory, _variables = read(place, content)
    assert {host.name for host in inventory.get_hosts()} == names


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"version_below": "abc"}, "a version number such as"),
        ({"versions": ["15", "abc"]}, "a version number such as"),
        ({"lag_above": "many"}, "64MB"),
        ({"roles": ["leader"]}, "superseded"),
        ({"online": True, "offline": True}, "not both online and offline"),
    ],
)
def test_a_senseless_filter_is_an_error(
    place: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], words: str
) -> None:
    configure(place, **options)
    snapshot.save(place / "snapshot", trading())
    assert words in said(place, monkeypatch)


def test_templated_option(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE_IT_IS", str(place / "snapshot"))
    configure(place, snapshot_path="{{ lookup('ansible.builtin.env', 'WHERE_IT_IS') }}")
    assert read(place, trading())[0].get_host("trading_prod@chi-db1")


def test_group_vars_win_over_the_plugin_for_connections(place: Path) -> None:
    (place / "group_vars").mkdir()
    (place / "group_vars" / "dc_nyc.yml").write_text("ansible_ssh_pipelining: false\n")
    inventory, variables = read(place, trading())
    assert variables.get_vars(host=inventory.get_host("trading_prod@nyc-db1"))["ansible_ssh_pipelining"] is False
    assert variables.get_vars(host=inventory.get_host("trading_prod@chi-db1"))["ansible_ssh_pipelining"] is True


@pytest.mark.parametrize("name", ["herds.yaml", "prod.herds.yml", "prod.herds.yaml"])
def test_file_names(place: Path, name: str) -> None:
    (place / "herds.yml").rename(place / name)
    assert read(place, trading(), name)[0].get_host("chi-db1")


def said(place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The error of an inventory that cannot be read."""
    monkeypatch.setenv("ANSIBLE_INVENTORY_UNPARSED_FAILED", "true")
    program = Path(sys.executable).with_name("ansible-inventory")
    arguments = [str(program), "-i", "herds.yml", "--list"]
    run = subprocess.run(arguments, cwd=place, text=True, capture_output=True, check=False)
    assert run.returncode != 0
    return " ".join(run.stderr.split())


def test_neither_registry_nor_snapshot(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = said(place, monkeypatch)
    assert "REGISTRY_UNREACHABLE" in words
    assert "there is no inventory snapshot" in words


def test_snapshot_switched_off(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot.save(place / "snapshot", trading())
    configure(place, snapshot=False)
    assert "option snapshot is off" in said(place, monkeypatch)


def test_snapshot_of_another_format(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot.save(place / "snapshot", {**trading(), "format": 99})
    assert "not an inventory document of format 1" in said(place, monkeypatch)


def test_old_snapshot_is_called_old(place: Path) -> None:
    snapshot.save(place / "snapshot", trading())
    kept = json.loads((place / "snapshot").read_text())
    kept["saved_at"] -= 3 * 86400
    (place / "snapshot").write_text(json.dumps(kept))
    program = Path(sys.executable).with_name("ansible-inventory")
    arguments = [str(program), "-i", "herds.yml", "--list"]
    run = subprocess.run(arguments, cwd=place, text=True, capture_output=True, check=False)
    words = " ".join(run.stderr.split())
    assert run.returncode == 0
    assert "THE REGISTRY CANNOT BE READ" in words
    assert "snapshot of 3 days ago, which is OLD" in words
    assert "without_registry=true" in words
