"""Names of a package that are imported at their first use, and functions of a wing above."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from opcode import opmap
from types import CodeType, ModuleType
from typing import Any


class Door(ModuleType):
    _places: dict[str, str]

    def __getattr__(self, name: str) -> Any:
        module = self.__dict__["_places"].get(name)
        if module is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if module == self.__name__:
            return importlib.import_module(f"{module}.{name}")
        found = getattr(__import__(module, fromlist=(name,)), name)
        self.__dict__[name] = found
        return found

    def __setattr__(self, name: str, value: object) -> None:
        is_module = isinstance(value, ModuleType)
        if not is_module or self._places.get(name, self.__name__) == self.__name__:
            super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        return importlib.import_module, (self.__name__,)

    def __dir__(self) -> Iterable[str]:
        return sorted({*self.__dict__, *self.__dict__.get("__all__", self._places)})


def open_door(package: str, modules: Sequence[str] = ()) -> None:
    places = dict(find_imports(sys._getframe(1).f_code))
    places |= dict.fromkeys(modules, package)
    door = sys.modules[package]
    door.__dict__["_places"] = places
    door.__class__ = Door


def find_imports(code: CodeType) -> Iterator[tuple[str, str]]:
    module, high = "", 0
    for operation, low in zip(code.co_code[::2], code.co_code[1::2], strict=True):
        index = high | low
        high = index << 8 if operation == opmap["EXTENDED_ARG"] else 0
        if operation == opmap["IMPORT_NAME"]:
            module = code.co_names[index]
        elif operation == opmap["IMPORT_FROM"] and "." in module:
            yield code.co_names[index], module


def call_later(module: str, name: str) -> Callable[..., Any]:
    def call(*given: Any, **named: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*given, **named)

    call.__doc__ = f"Call ``{module}.{name}``, which is imported then."
    return call
