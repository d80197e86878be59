"""Pickle a policy's formula for another process on the same machine."""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

from backtest.base import find_references
from backtest.engine.compile.recipe import Recipe

OURS = "backtest"


def pack_rule(recipe: Recipe) -> bytes:
    value = (recipe.rule, recipe.memory)
    parts = [*find_parts(recipe.rule, set()), *filter(None, [recipe.memory])]
    modules = {str(each.__module__) for each in parts}
    foreign = sorted(name for name in modules if name.partition(".")[0] != OURS)
    if not foreign:
        try:
            return pickle.dumps(((), value))
        except (pickle.PicklingError, AttributeError):  # a combinator's, which is generated
            pass
    return pickle.dumps((foreign, pack_by_value(value, foreign)))


def pack_by_value(value: object, foreign: list[str]) -> bytes:
    cloudpickle: Any = import_module("numba.cloudpickle")  # only for the user's code
    known = cloudpickle.list_registry_pickle_by_value()
    added = [sys.modules[name] for name in foreign if name in sys.modules and name not in known]
    for module in added:
        cloudpickle.register_pickle_by_value(module)
    try:
        packed: bytes = cloudpickle.dumps(value)
    finally:
        for module in added:
            cloudpickle.unregister_pickle_by_value(module)
    return packed


def find_parts(function: Any, seen: set[int]) -> Iterator[Any]:
    if id(function) in seen:
        return
    seen.add(id(function))
    yield function
    for value in find_references(function).values():
        if isinstance(value, types.FunctionType):
            yield from find_parts(value, seen)
        elif isinstance(value, type):
            yield value


def unpack_rule(content: bytes) -> Any:
    foreign, value = pickle.loads(content)
    if not isinstance(value, bytes):
        return value
    for name in foreign:
        sys.modules.setdefault(name, ModuleType(name))
    rule, memory = pickle.loads(value)
    for each in (memory, *find_parts(rule, set())):
        if isinstance(each, type) and each.__module__ in foreign:
            setattr(sys.modules[each.__module__], each.__name__, each)
    return rule, memory
