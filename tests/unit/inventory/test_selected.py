# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A play over selected hosts acts on exactly these, or ends with an error a person can use. Runs ansible-playbook."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

INVENTORY = """
all:
  children:
    leads: {hosts: {"trading_prod@chi-db1": {}, "Order-Book_prod@nyc-db1": {}}}
    former_leads: {hosts: {"books_prod@lon-db1": {}}}
    trading_prod: {hosts: {"trading_prod@chi-db1": {}, "trading_prod@nyc-db1": {}}}
    dc_chi: {hosts: {"trading_prod@chi-db1": {}}}
    dc_nyc: {hosts: {"trading_prod@nyc-db1": {}, "Order-Book_prod@nyc-db1": {}}}
    dc_lon: {hosts: {"books_prod@lon-db1": {}, "spare@lon-db2": {}}}
"""

PLAYBOOK = """
- name: Act on herds
  hosts: "{{ query('elephaas.herd.selected', 'leads', 'former_leads') }}"
  gather_facts: false
  tasks:
    - name: Say who
      ansible.builtin.debug:
        msg: "acts on {{ inventory_hostname }}"
"""


def play(folder: Path, *arguments: str, inventory: str = INVENTORY) -> tuple[int, str]:
    """Run the playbook with core's own, lenient defaults; return exit status and all output on one line."""
    (folder / "hosts.yml").write_text(inventory)
    (folder / "play.yml").write_text(PLAYBOOK)
    (folder / "ansible.cfg").write_text("")
    program = Path(sys.executable).with_name("ansible-playbook")
    environment = {**os.environ, "ANSIBLE_CONFIG": str(folder / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    run = subprocess.run(
        [str(program), "-i", "hosts.yml", "play.yml", *arguments],
        cwd=folder,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )
    return run.returncode, " ".join((run.stdout + run.stderr).split())


@pytest.mark.parametrize(
    ("limit", "acted"),
    [
        (None, {"trading_prod@chi-db1", "Order-Book_prod@nyc-db1", "books_prod@lon-db1"}),
        ("dc_chi", {"trading_prod@chi-db1"}),
        ("dc_nyc", {"Order-Book_prod@nyc-db1"}),
        ("trading_prod", {"trading_prod@chi-db1"}),
        ("dc_lon", {"books_prod@lon-db1"}),
        ("all:!dc_chi:!dc_lon", {"Order-Book_prod@nyc-db1"}),
    ],
)
def test_limit_selects_the_leads_inside_it(tmp_path: Path, limit: str | None, acted: set[str]) -> None:
    status, output = play(tmp_path, *(["--limit", limit] if limit else []))
    assert status == 0, output
    assert {word.strip('"') for word in output.split() if "@" in word and word.endswith('"')} == acted


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("trading_prod@nyc-db1", "belongs to herds led by trading_prod@chi-db1"),
        ("spare@lon-db2", "selects no lead"),
        ("dc_typo", "no hosts to target"),
    ],
)
def test_limit_without_a_lead_is_an_error(tmp_path: Path, limit: str, said: str) -> None:
    status, output = play(tmp_path, "--limit", limit)
    assert status != 0
    assert said in output
    assert "TASK" not in output


@pytest.mark.parametrize(
    ("inventory", "said"),
    [
        ("all: {hosts: {}}", "The inventory has no hosts"),
        ("{{{ broken", "The inventory has no hosts"),
        ("all: {hosts: {web1: {}}}", "no host in group leads or former_leads"),
    ],
)
def test_inventory_without_herds_is_an_error(tmp_path: Path, inventory: str, said: str) -> None:
    status, output = play(tmp_path, inventory=inventory)
    assert status != 0
    assert said in output


def test_syntax_check_needs_no_inventory(tmp_path: Path) -> None:
    status, output = play(tmp_path, "--syntax-check", inventory="all: {hosts: {}}")
    assert status == 0, output
