"""Wings import each other through their doors, the ``__init__`` of each."""

from __future__ import annotations

import ast
import importlib
import pickle
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import pytest

import backtest as bt
from tests.project.test_layers import MODULES, WINGS, find_wing

DOORS = [
    name
    for name, path in MODULES.items()
    if path.name == "__init__.py" and "\nopen_door(" in path.read_text(encoding="utf-8")
]

BY_FILE: tuple[str, ...] = ()
"""Names that two files of a wing have, so that imports name the file."""


def find_imports(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the modules and names of the imports in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield from ((str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def find_deep_imports() -> Iterator[str]:
    """Yield the imports of a wing from the files of another; constants come from their files."""
    for module, path in MODULES.items():
        for imported, name in find_imports(path):
            wing, is_named_there = find_wing(imported), name.isupper() or name in BY_FILE
            is_deep = imported.count(".") > 1 and wing in WINGS and wing != find_wing(module)
            if is_deep and not is_named_there:
                yield f"{module}: from {imported} import {name}"


def test_a_wing_imports_another_through_its_door():
    assert [*find_deep_imports()] == []


@pytest.mark.parametrize("name", DOORS)
def test_a_door_finds_each_name_in_the_file_that_it_declares(name):
    """The list in the code of the module is in the order of the imports."""
    door = importlib.import_module(name)
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n))
    declared = {
        alias.name: str(node.module)
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module != name
        for alias in node.names
    }
    assert declared
    assert {each: door._places[each] for each in declared} == declared
    assert all(hasattr(importlib.import_module(file), each) for each, file in declared.items())
    assert {*getattr(door, "__all__", ())} <= {*dir(door)}


def test_a_door_is_pickled_by_name():
    """The code of a user's policy refers to `bt`, and is sent to other processes."""
    assert pickle.loads(pickle.dumps([bt, bt.measures])) == [bt, bt.measures]


def test_a_function_hides_the_file_of_its_name():
    importlib.import_module("backtest.sweep.sweep")
    assert callable(bt.sweep)
    assert bt.sweep.__module__ == "backtest.sweep.sweep"
    with pytest.raises(AttributeError, match="module 'backtest' has no attribute 'swep'"):
        bt.swep  # noqa: B018


def test_a_door_is_pickled_by_its_name():
    """A policy of a script that names the package is sent to other processes."""
    assert pickle.loads(cloudpickle.dumps(bt)) is bt
