# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fleets and registries for the tests: each is brought up once and shared by what only looks; what changes things has its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.elephaas.herd.plugins.module_utils.decide import fleet as fleets
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry import schema
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import connect
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.fleet import load_fleet
from ansible_collections.elephaas.herd.tests.integration.lab_client import FLEETS, Lab
from ansible_collections.elephaas.herd.tests.integration.registry_client import FLEET
from ansible_collections.elephaas.herd.tests.integration.registry_server import Server, running_server


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The demo fleet, up and in the registry. Whoever changes its roles brings them back or uses fresh_lab."""
    lab = Lab(tmp_path_factory.mktemp("lab"))
    try:
        lab.up(FLEETS / "demo.yml")
        yield lab
    finally:
        lab.down()


@pytest.fixture
def fresh_lab(tmp_path: Path) -> Iterator[Callable[..., Lab]]:
    """Brings up a fleet for one test alone: fresh_lab(fleet file, arguments of up …)."""
    lab = Lab(tmp_path / "lab")

    def bring_up(fleet: Path, *arguments: str) -> Lab:
        lab.up(fleet, *arguments)
        return lab

    try:
        yield bring_up
    finally:
        lab.down()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server for registries, one database each."""
    with running_server() as found:
        yield found


@pytest.fixture(scope="session")
def template(server: Server) -> str:
    """A database with a registry that holds FLEET."""
    name = server.new_database()
    connection = connect(server.options(name))
    schema.apply_migrations(connection, "utility")
    load_fleet(connection, "utility", fleets.parse_fleet(FLEET), "merged")
    connection.close()
    return name


@pytest.fixture()
def database(server: Server, template: str) -> str:
    """A copy of template for one test alone."""
    return server.new_database(template)


@pytest.fixture()
def registry(server: Server, database: str) -> Iterator[Any]:
    """A connection to it."""
    connection = connect(server.options(database))
    yield connection
    connection.close()


@pytest.fixture()
def empty(server: Server) -> Iterator[Any]:
    """A connection to a database without anything in it."""
    connection = connect(server.options(server.new_database()))
    yield connection
    connection.close()
