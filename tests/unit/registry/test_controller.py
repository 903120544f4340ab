# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What needs no server: connection parameters, the base of controller actions, holders, migrations on disk."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.action import ControllerAction, plain
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry import holder, schema
from ansible_collections.elephaas.herd.plugins.plugin_utils.registry.connection import connection_parameters


@pytest.fixture(autouse=True)
def no_libpq_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)


def test_single_options_win_over_the_dsn() -> None:
    found = connection_parameters({"dsn": "host=a,b dbname=x user=u", "dbname": "y", "port": [1, 2]})
    assert (found["host"], found["port"], found["dbname"], found["user"]) == ("a,b", "1,2", "y", "u")


def test_the_database_is_admin_unless_something_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert connection_parameters({})["dbname"] == "admin"
    assert connection_parameters({"dsn": "dbname=x"})["dbname"] == "x"
    monkeypatch.setenv("PGDATABASE", "other")
    assert "dbname" not in connection_parameters({})


def test_writers_of_several_hosts_take_the_one_that_accepts_writes() -> None:
    assert connection_parameters({"host": ["a", "b"]}, writing=True)["target_session_attrs"] == "read-write"
    assert "target_session_attrs" not in connection_parameters({"host": ["a"]}, writing=True)
    assert "target_session_attrs" not in connection_parameters({"host": ["a", "b"]})


def test_a_dsn_that_can_not_be_read_is_not_shown() -> None:
    with pytest.raises(OperatorError) as caught:
        connection_parameters({"dsn": "host=a password='hunter2"})
    assert caught.value.code == "REGISTRY_BAD_DSN"
    assert "hunter2" not in str(caught.value.as_result())


class Example(ControllerAction):
    ARGUMENT_SPEC = {"password": {"no_log": True}, "count": {"type": "int"}}

    def work(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        return {"params": params, "check": self.check_mode}


@pytest.fixture()
def example() -> Iterator[Example]:
    task = SimpleNamespace(
        args={"password": "hunter2", "count": "5"}, check_mode=True, diff=False, async_val=0, environment=None
    )
    connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=None), has_pipelining=False)
    action = Example(task, connection, SimpleNamespace(), None, None, None)
    yield action


def test_no_secret_leaves_a_result(example: Example) -> None:
    result = example.run(None, {})
    assert result["params"] == {"password": "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER", "count": 5}
    assert result["check"] is True


@pytest.mark.parametrize(
    "error", [OperatorError("SOME_CODE", "tried hunter2", "not hunter2", {"tried": ["hunter2"]}), ValueError("hunter2")]
)
def test_no_secret_leaves_an_error(example: Example, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        raise error

    monkeypatch.setattr(example, "work", work)
    result = example.run(None, {})
    assert result["failed"] is True
    assert result["code"] in ("SOME_CODE", "INTERNAL_ERROR")
    assert "hunter2" not in str(result)


def test_wrong_arguments_are_an_error_of_the_task(example: Example) -> None:
    example._task.args = {"count": "many", "colour": "red"}
    result = example.run(None, {})
    assert (result["failed"], result["code"]) == (True, "BAD_ARGUMENTS")
    assert "colour" in result["msg"]


def test_plain_drops_every_subclass() -> None:
    class Marked(str):
        def itself(self) -> str:
            return self

        __str__ = itself

    class Number(int):
        pass

    class Fraction(float):
        pass

    found = plain({Marked("a"): (Marked("b"), Number(1), None, True, Fraction(0.5))})
    assert found == {"a": ["b", 1, None, True, 0.5]}
    assert [type(item) for item in (next(iter(found)), *found["a"])] == [str, str, int, type(None), bool, float]


def test_a_process_is_dead_only_when_that_is_certain() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        alive = holder.this_holder(child.pid)
        assert not holder.proven_dead(alive)
        assert holder.same_process(alive, holder.this_holder(child.pid))
        assert holder.proven_dead({**alive, "start": "1"})  # its number was given to another process
        assert not holder.proven_dead({**alive, "start": "1", "place": "elsewhere"})
    finally:
        child.kill()
        child.wait()
    assert holder.proven_dead(alive)
    assert not holder.proven_dead({**alive, "place": "elsewhere"})
    assert not holder.proven_dead({})
    assert not holder.same_process({}, {})


def test_migrations_are_numbered_without_a_gap() -> None:
    found = schema.load_migrations()
    assert [item.number for item in found] == list(range(1, len(found) + 1))
    assert len({item.checksum for item in found}) == len(found)
    # The registry's schema has any name: nothing in a migration may say it.
    assert not [item.title for item in found if "utility." in item.text]
