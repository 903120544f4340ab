# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fleets for the tests: each is brought up once and shared by what only looks; what changes things brings up its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.elephaas.herd.tests.integration.lab_client import FLEETS, Lab


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
