# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may know whom.

========================  ==================================================================
room                      may import
========================  ==================================================================
module_utils/decide       the standard library, decide
module_utils/postgres     the standard library, decide, postgres
module_utils (the rest)   the standard library, ansible.module_utils, module_utils
modules                   the standard library, ansible.module_utils, module_utils
plugin_utils              the standard library, ansible, module_utils, plugin_utils, and guarded third parties
every other plugin        the standard library, ansible, module_utils, plugin_utils
========================  ==================================================================

Nothing points back: neither to a plugin nor to a room further up. Roles use modules of this collection and of
ansible.builtin, playbooks use roles and such modules, all by their full names.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = "ansible_collections.elephaas.herd"

DECIDE = f"{COLLECTION}.plugins.module_utils.decide"
POSTGRES = f"{COLLECTION}.plugins.module_utils.postgres"
MODULE_UTILS = f"{COLLECTION}.plugins.module_utils"
PLUGIN_UTILS = f"{COLLECTION}.plugins.plugin_utils"

# On the controller, PyYAML is there wherever ansible-core is.
ANSIBLE = ("ansible", "yaml")

# The first room whose folder holds a file decides.
ROOMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("plugins/module_utils/decide", (DECIDE,)),
    ("plugins/module_utils/postgres", (DECIDE, POSTGRES)),
    ("plugins/module_utils", ("ansible.module_utils", MODULE_UTILS)),
    ("plugins/modules", ("ansible.module_utils", MODULE_UTILS)),
    ("plugins/plugin_utils", (*ANSIBLE, MODULE_UTILS, PLUGIN_UTILS)),
    ("plugins", (*ANSIBLE, MODULE_UTILS, PLUGIN_UTILS)),
)
THIRD_PARTY_ROOM = "plugins/plugin_utils"
# psycopg2, dnspython (which is imported as dns), netaddr: what meta/ee-requirements.txt brings.
THIRD_PARTIES = ("psycopg2", "dns", "netaddr")
# Where a task's own name ends and its keywords begin.
TASK_KEYWORDS = frozenset(
    "action any_errors_fatal args async become become_exe become_flags become_method become_user changed_when"
    " check_mode collections connection debugger delay delegate_facts delegate_to diff environment failed_when"
    " ignore_errors ignore_unreachable listen local_action loop loop_control module_defaults name no_log notify poll"
    " port register remote_user retries run_once tags throttle timeout until vars when".split()
)
BLOCKS = ("block", "rescue", "always")
PLAY_SECTIONS = ("pre_tasks", "tasks", "post_tasks", "handlers")


def within(name: str, prefixes: tuple[str, ...]) -> bool:
    """Whether the dotted name is one of the prefixes, or below one."""
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def imported_names(path: Path, root: Path) -> Iterator[tuple[int, str, bool]]:
    """Every import of a file: its line, the absolute dotted name, and whether a missing module would be survived."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    guarded: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Try) and any(catches_import_error(handler) for handler in node.handlers):
            guarded.update(inner for statement in node.body for inner in ast.walk(statement))
        # Type checkers read these; Python does not.
        if isinstance(node, ast.If) and ast.unparse(node.test) in (
            "TYPE_CHECKING",
            "typing.TYPE_CHECKING",
            "t.TYPE_CHECKING",
        ):
            guarded.update(inner for statement in node.body for inner in ast.walk(statement))
    package = ".".join((COLLECTION, *path.relative_to(root).parent.parts))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, node in guarded
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            for alias in node.names:
                # `from package import module` reaches the module, `from module import name` does not go further.
                yield node.lineno, f"{base}.{alias.name}" if is_package(base, root) else base, node in guarded


def catches_import_error(handler: ast.ExceptHandler) -> bool:
    """Whether an except clause survives a missing module."""
    caught = ast.unparse(handler.type) if handler.type else "ImportError"
    return "ImportError" in caught or "ModuleNotFoundError" in caught


def is_package(name: str, root: Path) -> bool:
    """Whether a dotted name of this collection is a folder."""
    return name.startswith(COLLECTION) and root.joinpath(*name.split(".")[3:]).is_dir()


def import_offences(root: Path) -> list[str]:
    """What breaks the table above in the tree below root, one line each."""
    offences = []
    for path in sorted((root / "plugins").rglob("*.py")):
        relative = path.relative_to(root).as_posix()
        room, allowed = next((room, allowed) for room, allowed in ROOMS if relative.startswith(room + "/"))
        for line, name, guarded in imported_names(path, root):
            if name.split(".")[0] in sys.stdlib_module_names or within(name, allowed):
                continue
            if room == THIRD_PARTY_ROOM and within(name, THIRD_PARTIES):
                if not guarded:
                    offences.append(f"{relative}:{line}: {name} has to be imported inside try … except ImportError")
                continue
            offences.append(f"{relative}:{line}: {room} may not import {name}")
    return offences


def tasks_of(content: object) -> Iterator[dict[str, object]]:
    """Every task of a playbook or a task file, those inside blocks included."""
    for item in content if isinstance(content, list) else []:
        if not isinstance(item, dict):
            continue
        sections = [key for key in (*BLOCKS, *PLAY_SECTIONS) if key in item]
        for section in sections:
            yield from tasks_of(item[section])
        if not sections and "hosts" not in item:
            yield item


def name_offences(root: Path) -> list[str]:
    """Modules, roles and playbooks that are not named in full, or that belong to somebody else."""
    offences = []
    modules = {path.stem for path in root.glob("plugins/modules/*.py")}
    files = [*root.glob("playbooks/*.yml"), *root.glob("roles/*/tasks/**/*.yml"), *root.glob("roles/*/handlers/*.yml")]
    for path in sorted(files):
        relative = path.relative_to(root).as_posix()
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or []
        for play in content:
            for role in play.get("roles", []):
                name = role.get("role", role.get("name")) if isinstance(role, dict) else role
                if not str(name).startswith("elephaas.herd."):
                    offences.append(f"{relative}: role {name} is not named as elephaas.herd.…")
        for task in tasks_of(content):
            for key in task:
                if key in TASK_KEYWORDS or key.startswith("with_"):
                    continue
                if not key.startswith(("ansible.builtin.", "elephaas.herd.")):
                    offences.append(f"{relative}: {key} is neither of ansible.builtin nor of this collection")
                elif key.startswith("elephaas.herd.") and key.split(".", 2)[2] not in modules:
                    offences.append(f"{relative}: {key} is no module of this collection")
    return offences


def test_imports_keep_to_their_room() -> None:
    assert import_offences(ROOT) == []


def test_roles_and_playbooks_use_full_names() -> None:
    assert name_offences(ROOT) == []


@pytest.mark.parametrize(
    ("file", "source", "offence"),
    [
        ("module_utils/decide/a.py", "import ansible.module_utils.basic", "ansible.module_utils.basic"),
        ("module_utils/decide/a.py", f"from {POSTGRES} import psql", f"{POSTGRES}"),
        ("module_utils/decide/a.py", "from ..postgres import psql", f"{POSTGRES}"),
        ("module_utils/decide/a.py", "def late():\n    import psycopg2", "psycopg2"),
        (
            "module_utils/postgres/a.py",
            "from ansible.module_utils.basic import AnsibleModule",
            "ansible.module_utils.basic",
        ),
        ("module_utils/postgres/a.py", f"from {PLUGIN_UTILS} import registry", f"{PLUGIN_UTILS}"),
        ("modules/a.py", f"from {PLUGIN_UTILS}.dns import probe", f"{PLUGIN_UTILS}.dns"),
        ("modules/a.py", "from ansible.plugins.loader import module_loader", "ansible.plugins.loader"),
        ("modules/a.py", "try:\n    import psycopg2\nexcept ImportError:\n    psycopg2 = None", "psycopg2"),
        ("plugin_utils/a.py", "import psycopg2", "inside try"),
        ("plugin_utils/a.py", "try:\n    import dns.query\nexcept ValueError:\n    pass", "inside try"),
        ("plugin_utils/a.py", f"from {COLLECTION}.plugins.action.gate import ActionModule", "plugins.action.gate"),
        ("plugin_utils/a.py", "try:\n    import requests\nexcept ImportError:\n    pass", "requests"),
        ("action/a.py", "try:\n    import psycopg2\nexcept ImportError:\n    pass", "psycopg2"),
        ("inventory/a.py", f"from {COLLECTION}.plugins.modules import instance", "plugins.modules"),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, file: str, source: str, offence: str) -> None:
    path = tmp_path / "plugins" / file
    path.parent.mkdir(parents=True)
    path.write_text(source + "\n", encoding="utf-8")
    offences = import_offences(tmp_path)
    assert len(offences) == 1
    assert offence in offences[0]


def test_a_right_import_is_not_an_offence(tmp_path: Path) -> None:
    right = {
        "module_utils/decide/a.py": f"import json\nfrom {DECIDE}.errors import OperatorError\nfrom .lsn import x",
        "module_utils/postgres/a.py": f"import subprocess\nfrom {DECIDE} import lsn\nfrom . import psql",
        "modules/a.py": f"from ansible.module_utils.basic import AnsibleModule\nfrom {POSTGRES}.psql import query",
        "plugin_utils/a.py": "try:\n    import dns.query\nexcept ImportError:\n    dns = None",
        "action/a.py": f"from ansible.plugins.action import ActionBase\nfrom {PLUGIN_UTILS} import dns",
    }
    for file, source in right.items():
        path = tmp_path / "plugins" / file
        path.parent.mkdir(parents=True)
        path.write_text(source + "\n", encoding="utf-8")
    assert import_offences(tmp_path) == []


@pytest.mark.parametrize(
    ("file", "source", "offence"),
    [
        ("roles/r/tasks/main.yml", "- name: A\n  command: id\n", "command"),
        ("roles/r/tasks/main.yml", "- block:\n    - community.general.ping:\n", "community.general.ping"),
        ("roles/r/tasks/more/a.yml", "- elephaas.herd.no_such_module:\n  when: true\n", "no_such_module"),
        ("playbooks/p.yml", "- hosts: all\n  roles: [failover]\n", "failover"),
        ("playbooks/p.yml", "- hosts: all\n  tasks:\n    - rescue:\n        - shell: id\n", "shell"),
    ],
)
def test_a_wrong_name_is_found(tmp_path: Path, file: str, source: str, offence: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(source, encoding="utf-8")
    offences = name_offences(tmp_path)
    assert len(offences) == 1
    assert offence in offences[0]
