# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documentation promises is what the code takes: options, examples, action groups, roles, playbooks."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.plugins.filter.core import to_bool
from ansible.plugins.loader import fragment_loader, module_loader
from ansible.utils.plugin_docs import get_docstring
from jinja2.nativetypes import NativeEnvironment

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = "elephaas.herd"
PACKAGE = "ansible_collections.elephaas.herd.plugins"


def plugins(kind: str) -> list[str]:
    """Names of the plugins of one kind."""
    return sorted(path.stem for path in (ROOT / "plugins" / kind).glob("*.py") if path.stem != "__init__")


MODULES = plugins("modules")
ACTIONS = plugins("action")
PLUGINS = [(kind, name) for kind in ("inventory", "lookup", "filter", "callback") for name in plugins(kind)]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
# What a documented option and an entry of an argument spec have in common, with what stands for "not said".
SPEC_KEYS: dict[str, Any] = {
    "type": "str",
    "elements": None,
    "choices": None,
    "default": None,
    "required": False,
    "aliases": [],
}


def documentation(name: str, kind: str = "module") -> tuple[dict[str, Any], str, Any]:
    """Documentation with its fragments merged in, examples as text, and return values."""
    folder = "modules" if kind == "module" else kind
    doc, examples, returns, _metadata = get_docstring(
        str(ROOT / "plugins" / folder / f"{name}.py"),
        fragment_loader,
        collection_name=COLLECTION,
        is_module=kind == "module",
        plugin_type=kind,
    )
    assert doc, f"{kind} {name} has no documentation"
    return doc, examples or "", returns


class SpecSeen(Exception):
    """Ends a module where it would begin to work."""

    def __init__(self, spec: dict[str, Any], arguments: dict[str, Any]) -> None:
        super().__init__("seen")
        self.spec = spec
        self.arguments = arguments


def argument_spec(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The argument spec that really checks a task's arguments: the action plugin's, or the module's own."""
    if name in ACTIONS:
        action = importlib.import_module(f"{PACKAGE}.action.{name}")
        return dict(action.ActionModule.ARGUMENT_SPEC)

    def stop(_self: object, argument_spec: dict[str, Any], **arguments: Any) -> None:
        raise SpecSeen(argument_spec, arguments)

    import ansible.module_utils.basic

    monkeypatch.setattr(ansible.module_utils.basic.AnsibleModule, "__init__", stop)
    module = importlib.import_module(f"{PACKAGE}.modules.{name}")
    with pytest.raises(SpecSeen) as seen:
        module.main()
    return seen.value.spec


def normalised(entry: dict[str, Any]) -> dict[str, Any]:
    """An option without what only one of the two sides says."""
    found = {key: entry.get(key, default) for key, default in SPEC_KEYS.items()}
    if found["choices"] is not None:
        found["choices"] = list(found["choices"])
    found["type"] = found["type"] or "str"
    return found


def differences(documented: dict[str, Any], spec: dict[str, Any], where: str = "") -> Iterator[str]:
    """What the documentation and the argument spec say differently."""
    for option in sorted({*documented, *spec}):
        if option not in spec:
            yield f"{where}{option} is documented and not taken"
        elif option not in documented:
            yield f"{where}{option} is taken and not documented"
        else:
            said, taken = normalised(documented[option]), normalised(spec[option])
            for key in SPEC_KEYS:
                if said[key] != taken[key]:
                    yield f"{where}{option}: {key} is documented as {said[key]!r} and taken as {taken[key]!r}"
            # A dictionary may be described and checked elsewhere, as a fleet is: then one side has no list of its keys.
            below = documented[option].get("suboptions"), spec[option].get("options")
            if all(below):
                yield from differences(*below, f"{where}{option}.")


def example_tasks(content: object) -> Iterator[dict[str, Any]]:
    """Every task in an example, which is a task list or a playbook."""
    assert isinstance(content, list), "an example is a list of tasks or of plays"
    for item in content:
        inner = [key for key in ("tasks", "pre_tasks", "post_tasks", "block", "rescue", "always") if key in item]
        for key in inner:
            yield from example_tasks(item[key])
        if not inner:
            yield item


def example_offences(examples: str, options_of: Any) -> list[str]:
    """Arguments in examples that their module does not have, or has to have and does not get."""
    offences = []
    for task in example_tasks(yaml.safe_load(examples)):
        for key, arguments in task.items():
            if not key.startswith(f"{COLLECTION}.") or not isinstance(arguments, (dict, type(None))):
                continue
            options = options_of(key.removeprefix(f"{COLLECTION}."))
            known = {*options, *(alias for option in options.values() for alias in option.get("aliases") or [])}
            given = set(arguments or {})
            offences += [f"{key} has no option {name}" for name in sorted(given - known)]
            for name, option in options.items():
                if option.get("required") and not given & {name, *(option.get("aliases") or [])}:
                    offences.append(f"{key} needs {name}")
                value = (arguments or {}).get(name)
                choices = option.get("choices")
                if choices and isinstance(value, str) and "{{" not in value and value not in choices:
                    offences.append(f"{key}: {name} cannot be {value}")
    return offences


def module_options(name: str) -> dict[str, Any]:
    """Documented options of a module of this collection."""
    assert name in MODULES, f"{COLLECTION}.{name} is no module of this collection"
    options: dict[str, Any] = documentation(name)[0].get("options") or {}
    return options


@pytest.mark.parametrize("name", MODULES)
def test_module_is_documented(name: str) -> None:
    doc, examples, returns = documentation(name)
    assert doc["module"] == name
    assert doc.get("version_added")
    assert {"check_mode", "diff_mode", "platform"} <= set(doc["attributes"])
    for attribute in ("check_mode", "diff_mode"):
        assert doc["attributes"][attribute].get("support"), f"{attribute} does not say what is supported"
    assert isinstance(returns, dict), "RETURN is empty"
    assert returns, "RETURN is empty"
    assert examples.strip(), "EXAMPLES is empty"


@pytest.mark.parametrize("name", MODULES)
def test_documented_options_are_those_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    doc = documentation(name)[0]
    assert list(differences(doc.get("options") or {}, argument_spec(name, monkeypatch))) == []


@pytest.mark.parametrize("name", MODULES)
def test_module_examples_can_be_run(name: str) -> None:
    examples = documentation(name)[1]
    assert f"{COLLECTION}.{name}:" in examples, "the examples do not show the module"
    assert example_offences(examples, module_options) == []


def test_a_wrong_example_is_found() -> None:
    options = {"state": {"choices": ["started"]}, "port": {"required": True}, "old": {"aliases": ["older"]}}
    example = "- hosts: all\n  tasks:\n    - elephaas.herd.instance: {state: running, older: 1, prot: 5432}\n"
    assert example_offences(example, lambda _name: options) == [
        "elephaas.herd.instance has no option prot",
        "elephaas.herd.instance: state cannot be running",
        "elephaas.herd.instance needs port",
    ]


def test_a_difference_is_found() -> None:
    documented = {"port": {"type": "int"}, "gone": {}, "deep": {"type": "dict", "suboptions": {"x": {"type": "int"}}}}
    spec = {
        "port": {"type": "str"},
        "new": {},
        "deep": {"type": "dict", "options": {"x": {"type": "int", "default": 1}}},
    }
    assert list(differences(documented, spec)) == [
        "deep.x: default is documented as None and taken as 1",
        "gone is documented and not taken",
        "new is taken and not documented",
        "port: type is documented as 'int' and taken as 'str'",
    ]


@pytest.mark.parametrize("name", ACTIONS)
def test_action_belongs_to_a_module_that_only_documents_it(name: str) -> None:
    assert name in MODULES, "an action plugin is documented by a module of its name"
    tree = ast.parse((ROOT / "plugins" / "modules" / f"{name}.py").read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)], (
        "work belongs in the action plugin"
    )


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_plugin_is_documented(kind: str, name: str) -> None:
    if kind == "filter" and (ROOT / "plugins" / kind / f"{name}.yml").exists():
        described = yaml.safe_load((ROOT / "plugins" / kind / f"{name}.yml").read_text(encoding="utf-8"))
        doc, examples = described["DOCUMENTATION"], described["EXAMPLES"]
    else:
        doc, examples, _returns = documentation(name, kind)
    assert doc.get("short_description")
    assert doc.get("version_added")
    assert examples
    if isinstance(examples, str):
        assert list(yaml.safe_load_all(examples)), "EXAMPLES is not YAML"


def action_groups() -> dict[str, list[Any]]:
    """The action groups as meta/runtime.yml has them."""
    runtime = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text(encoding="utf-8"))
    groups: dict[str, list[Any]] = runtime["action_groups"]
    return groups


def test_action_groups_list_every_module_once() -> None:
    groups = action_groups()
    metadata = [entry["metadata"] for entry in groups["all"] if isinstance(entry, dict)]
    extended = [group for entry in metadata for group in entry["extend_group"]]
    listed = [entry for group in ("all", *extended) for entry in groups[group] if isinstance(entry, str)]
    assert set(extended) == set(groups) - {"all"}
    assert sorted(listed) == MODULES


@pytest.mark.parametrize("group", ["registry", "dns", "instance"])
def test_modules_of_an_action_group_share_its_options(group: str) -> None:
    """module_defaults for a group reach every module in it, so each has to know the options of the group's fragment."""
    for name in action_groups()[group]:
        fragments = documentation(name)[0].get("extends_documentation_fragment") or raw_fragments(name)
        assert f"{COLLECTION}.{group}" in fragments, f"{name} does not extend {COLLECTION}.{group}"


def raw_fragments(name: str) -> list[str]:
    """Fragments that a module's documentation names, which merging takes away."""
    tree = ast.parse((ROOT / "plugins" / "modules" / f"{name}.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DOCUMENTATION":
            named = yaml.safe_load(ast.literal_eval(node.value)).get("extends_documentation_fragment", [])
            return [named] if isinstance(named, str) else list(named)
    return []


def rendered(default: object) -> object:
    """What a role's default is where nobody has set the shorter variable that it looks at."""
    if isinstance(default, str) and "{{" in default:
        environment = NativeEnvironment()
        environment.filters["bool"] = to_bool
        return environment.from_string(default).render()
    return default


@pytest.mark.parametrize("role", ROLES)
def test_role_says_what_it_is_and_takes(role: str) -> None:
    folder = ROOT / "roles" / role
    assert (folder / "README.md").read_text(encoding="utf-8").strip()
    assert (folder / "meta" / "main.yml").exists()
    entry_points = yaml.safe_load((folder / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))[
        "argument_specs"
    ]
    defaults: dict[str, Any] = {}
    if (folder / "defaults" / "main.yml").exists():
        defaults = yaml.safe_load((folder / "defaults" / "main.yml").read_text(encoding="utf-8")) or {}
    for entry_point, described in entry_points.items():
        task_file = folder / "tasks" / f"{entry_point}.yml"
        assert task_file.exists(), f"entry point {entry_point} has no task file"
        assert described.get("short_description")
        for option, spec in (described.get("options") or {}).items():
            assert spec.get("description"), f"{option} has no description"
            if "default" in spec:
                real = rendered(defaults.get(option))
                assert real == spec["default"], f"{option}: documented and real default differ"
    documented = {option for described in entry_points.values() for option in described.get("options") or {}}
    assert set(defaults) <= documented, "a default that no argument spec describes"


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_playbook_is_described(playbook: str) -> None:
    text = (ROOT / "playbooks" / f"{playbook}.yml").read_text(encoding="utf-8")
    assert any(line.startswith("# ") for line in text.splitlines()[:5]), (
        "the playbook does not begin with what it is for"
    )
    assert all(play.get("name") for play in yaml.safe_load(text)), "a play without a name"
    named = (ROOT / "README.md").read_text(encoding="utf-8")
    for document in (ROOT / "docs").rglob("*"):
        if document.suffix in (".md", ".rst"):
            named += document.read_text(encoding="utf-8")
    assert f"{COLLECTION}.{playbook}" in named, "neither the README nor docs/ speak of the playbook"


@pytest.mark.parametrize("name", MODULES)
def test_module_is_found_by_its_full_name(name: str) -> None:
    assert module_loader.find_plugin(f"{COLLECTION}.{name}")
