"""Names of a package that are imported at their first use, and functions of a wing above."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from opcode import opmap
from types import CodeType, ModuleType
from typing import Any


class Door(ModuleType):
    """A package whose names are imported at their first use.

    A function hides the submodule of its name, which an import would put in its place.
    """

    _places: dict[str, str]
    """The module of each name."""

    def __getattr__(self, name: str) -> Any:
        """Import a name, and keep it."""
        module = self.__dict__["_places"].get(name)
        if module is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if module == self.__name__:
            return importlib.import_module(f"{module}.{name}")
        found = getattr(__import__(module, fromlist=(name,)), name)
        self.__dict__[name] = found
        return found

    def __setattr__(self, name: str, value: object) -> None:
        """Set a name; leave out a submodule that has the name of a function."""
        is_module = isinstance(value, ModuleType)
        if not is_module or self._places.get(name, self.__name__) == self.__name__:
            super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        """Pickle by name, as modules in the code of a user's policy are."""
        return importlib.import_module, (self.__name__,)

    def __dir__(self) -> Iterable[str]:
        """Return the public names, imported or not."""
        return sorted({*self.__dict__, *self.__dict__.get("__all__", self._places)})


def open_door(package: str, modules: Sequence[str] = ()) -> None:
    """Import what a package imports under ``TYPE_CHECKING`` at the first use of each name.

    Call it in the ``__init__`` of the package, after the imports. They are not read again: the
    bytecode of the ``__init__`` names them, those under ``TYPE_CHECKING`` too. Folders in the
    package that are imported too are given by name.
    """
    places = dict(find_imports(sys._getframe(1).f_code))
    places |= dict.fromkeys(modules, package)
    door = sys.modules[package]
    door.__dict__["_places"] = places
    door.__class__ = Door


def find_imports(code: CodeType) -> Iterator[tuple[str, str]]:
    """Yield the names that code imports of submodules, and the module of each."""
    module, high = "", 0
    for operation, low in zip(code.co_code[::2], code.co_code[1::2], strict=True):
        index = high | low
        high = index << 8 if operation == opmap["EXTENDED_ARG"] else 0
        if operation == opmap["IMPORT_NAME"]:
            module = code.co_names[index]
        elif operation == opmap["IMPORT_FROM"] and "." in module:
            yield code.co_names[index], module


def call_later(module: str, name: str) -> Callable[..., Any]:
    """Return a function that imports a function of a wing above, and calls it.

    As an attribute of a class it is a method.
    """

    def call(*given: Any, **named: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*given, **named)

    return call
