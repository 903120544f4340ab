# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user gets: the collection built, installed from its tarball, and run from there on a small fleet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = "elephaas.herd"
LAB = ROOT / "tests" / "lab" / "lab"
FLEET = """\
environments: {test: {}}
datacenters: {chicago: {networks: [10.10.0.0/16]}}
servers:
  chi-db1: {environment: test, address: 10.10.0.11}
  chi-db2: {environment: test, address: 10.10.0.12}
herds:
  - name: trading
    environment: test
    pgdata: /var/lib/postgresql/15/trading
    members: [{server: chi-db1}, {server: chi-db2}]
"""


def program(name: str) -> str:
    """A program of the environment that runs the tests."""
    return str(Path(sys.executable).parent / name)


def run(arguments: list[str], *, cwd: Path, **environment: str) -> str:
    """Run a program away from the checkout and return what it prints; its whole output stands in a failure."""
    done = subprocess.run(
        arguments, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tarball")
    run([program("ansible-galaxy"), "collection", "build", "--output-path", str(folder), str(ROOT)], cwd=folder)
    (built,) = folder.glob("elephaas-herd-*.tar.gz")
    return built


@pytest.fixture(scope="session")
def installed(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder below which the collection has been installed."""
    folder = tmp_path_factory.mktemp("installed")
    install = ["collection", "install", "--offline", "--collections-path", str(folder), str(tarball)]
    # The checkout is on the path otherwise, and there is nothing to install any more.
    run([program("ansible-galaxy"), *install], cwd=folder, ANSIBLE_COLLECTIONS_PATH=str(folder))
    return folder


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A lab of its own, so that one that a person keeps up stays as it is."""
    folder = tmp_path_factory.mktemp("lab")
    fleet = folder / "fleet.yml"
    fleet.write_text(FLEET, encoding="utf-8")
    state = folder / "state"
    try:
        run([str(LAB), "up", str(fleet)], cwd=folder, ELEPHAAS_LAB_STATE=str(state))
        yield state
    finally:
        run([str(LAB), "down"], cwd=folder, ELEPHAAS_LAB_STATE=str(state))


def test_tarball_holds_what_is_public_and_nothing_else(tarball: Path) -> None:
    with tarfile.open(tarball) as archive:
        held = {member.name for member in archive.getmembers() if member.isfile()}
    tracked = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT).split("\0")
    assert held - {"MANIFEST.json", "FILES.json"} <= set(tracked)
    assert not [name for name in held if name.startswith(("script/", "tests/unit", "tests/lab", "tests/integration"))]
    needed = [name for name in tracked if name.startswith(("plugins/", "roles/", "playbooks/", "meta/"))]
    assert {name for name in needed if (ROOT / name).exists()} <= held


def test_installed_collection_is_what_was_built(installed: Path) -> None:
    verify = ["collection", "verify", "--offline", "--collections-path", str(installed), COLLECTION]
    run([program("ansible-galaxy"), *verify], cwd=installed, ANSIBLE_COLLECTIONS_PATH=str(installed))


def test_every_part_is_found_by_its_full_name(installed: Path) -> None:
    environment = {"ANSIBLE_COLLECTIONS_PATH": str(installed)}
    found = json.loads(
        run(
            [program("ansible-doc"), "--metadata-dump", "--no-fail-on-errors", COLLECTION], cwd=installed, **environment
        )
    )["all"]
    for kind, folder in (("module", "modules"), ("inventory", "inventory"), ("lookup", "lookup")):
        names = {path.stem for path in (ROOT / "plugins" / folder).glob("*.py") if path.stem != "__init__"}
        assert {f"{COLLECTION}.{name}" for name in names} == set(found[kind])
        assert not [name for name, described in found[kind].items() if "error" in described]
    roles = json.loads(run([program("ansible-doc"), "-t", "role", "--json", "--list"], cwd=installed, **environment))
    assert {f"{COLLECTION}.{path.name}" for path in (ROOT / "roles").iterdir()} <= set(roles)


def test_requirements_of_an_execution_environment_are_there(installed: Path) -> None:
    folder = installed / "ansible_collections" / "elephaas" / "herd"
    described = yaml.safe_load((folder / "meta" / "execution-environment.yml").read_text(encoding="utf-8"))
    for file in described["dependencies"].values():
        assert (folder / file).read_text(encoding="utf-8").strip()


def test_playbooks_run_from_the_installed_collection(installed: Path, lab: Path) -> None:
    def in_lab(*arguments: str) -> str:
        environment = {"ELEPHAAS_LAB_STATE": str(lab), "ANSIBLE_COLLECTIONS_PATH": str(installed)}
        return run([str(LAB), "run", "--", *arguments], cwd=installed, **environment)

    listed = json.loads(in_lab(program("ansible-galaxy"), "collection", "list", "--format", "json"))
    assert COLLECTION in listed[str(installed / "ansible_collections")]
    inventory = json.loads(in_lab(program("ansible-inventory"), "--list"))
    assert set(inventory["trading_test"]["hosts"]) == {"trading_test@chi-db1", "trading_test@chi-db2"}
    result = installed / "status.json"
    in_lab(program("ansible-playbook"), f"{COLLECTION}.status", "-e", f"output_file={result}")
    assert "trading" in result.read_text(encoding="utf-8")
    plan = in_lab(program("ansible-playbook"), f"{COLLECTION}.failover", "--limit", "dc_chicago", "--check")
    assert "plan id: p" in plan
