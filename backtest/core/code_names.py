"""What code names, and hashes and versions of code.

Also names of a package that are imported at their first use, and functions of a room above.
"""

from __future__ import annotations

import builtins
import functools
import hashlib
import importlib.metadata
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from opcode import opmap
from typing import Any


def describe_bytecode(code: types.CodeType) -> str:
    constants = list(map(describe_constant, code.co_consts))
    return repr((code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars))


def describe_constant(value: Any) -> str:
    if isinstance(value, types.CodeType):
        return describe_bytecode(value)
    return f"frozenset({sorted(map(repr, value))})" if isinstance(value, frozenset) else repr(value)


def find_code_names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for item in code.co_consts:
        if isinstance(item, types.CodeType):
            yield from find_code_names(item)


def find_references(function: Any) -> dict[str, Any]:
    scope = function.__globals__
    found = {name: scope[name] for name in find_code_names(function.__code__) if name in scope}
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    found |= {name: cell.cell_contents for name, cell in cells}
    return {name: value for name, value in found.items() if not is_builtin(name, value)}


def is_builtin(name: str, value: Any) -> bool:
    is_special = name.startswith("__") and hasattr(builtins, name)
    return is_special or value is getattr(builtins, name, is_builtin)


def hash_texts(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:20]


@functools.cache
def find_version(name: str) -> str:
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
    said = re.search(r"^Version: (\S+)", found.read_text("METADATA") or "", re.MULTILINE)
    return said[1] if said else found.version  # which parses all of the text: 10 ms


class Door(types.ModuleType):
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
        is_module = isinstance(value, types.ModuleType)
        if not is_module or self._places.get(name, self.__name__) == self.__name__:
            super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Callable[[str], types.ModuleType], tuple[str]]:
        return importlib.import_module, (self.__name__,)

    def __dir__(self) -> Iterable[str]:
        return sorted({*self.__dict__, *self.__dict__.get("__all__", self._places)})


def open_door(package: str, modules: Sequence[str] = ()) -> None:
    places = dict(find_imports(sys._getframe(1).f_code))
    places |= dict.fromkeys(modules, package)
    door = sys.modules[package]
    door.__dict__["_places"] = places
    door.__class__ = Door


def find_imports(code: types.CodeType) -> Iterator[tuple[str, str]]:
    module, high = "", 0
    for operation, low in zip(code.co_code[::2], code.co_code[1::2], strict=True):
        index = high | low
        high = index << 8 if operation == opmap["EXTENDED_ARG"] else 0
        if operation == opmap["IMPORT_NAME"]:
            module = code.co_names[index]
        elif operation == opmap["IMPORT_FROM"] and "." in module:
            yield code.co_names[index], module


HIGHER: dict[str, str] = {}
"""Modules of higher rooms that lower ones call, by their part; the package binds them."""


def bind_higher(modules: Mapping[str, str]) -> None:
    HIGHER.update(modules)


def call_later(part: str, name: str) -> Callable[..., Any]:
    """Return a function that calls ``name`` of the module bound as ``part``, imported then."""

    def call(*given: Any, **named: Any) -> Any:
        return getattr(importlib.import_module(HIGHER[part]), name)(*given, **named)

    call.__doc__ = f"Call ``{name}`` of the {part}, which is imported then."
    return call
