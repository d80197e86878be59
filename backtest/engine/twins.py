"""Copies of modules in which names stand for other functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from backtest.base import find_own_functions, make_twin


class Mirror(ModuleType):
    """A module with what ``find`` gives for the name and the value of its functions."""

    def __init__(self, module: ModuleType, find: Callable[[str, FunctionType], Any]) -> None:
        super().__init__(module.__name__)
        self._module, self._find = module, find

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        if isinstance(value, FunctionType):
            value = self._find(name, value)
        setattr(self, name, value)
        return value


def mirror_modules(
    space: Mapping[str, Any], find: Callable[[str, FunctionType], Any]
) -> dict[str, Any]:
    return {
        name: Mirror(value, find)
        for name, value in space.items()
        if isinstance(value, ModuleType) and value.__name__.startswith("backtest.")
    }


def bind_functions(module: ModuleType, **names: Any) -> dict[str, Any]:
    bound = {**vars(module), **names}
    bound |= mirror_modules(bound, names.get)
    for name, function in find_own_functions(module, names):
        bound[name] = make_twin(function, bound, Path(function.__code__.co_filename))
    return bound
