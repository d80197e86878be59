"""Names of a package that are imported at their first use, and functions of a wing above."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def import_at_first_use(
    package: str, names: Mapping[str, Sequence[str]]
) -> Callable[[str], object]:
    """Return the ``__getattr__`` of a package whose names are imported at their first use.

    Parameters
    ----------
    package : str
        Full name of the package.
    names : mapping of str to sequence of str
        The names by the module that has them; those of the package itself are modules.
    """
    places = {name: module for module, each in names.items() for name in each}

    def get_name(name: str) -> object:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if places[name] == package:
            return importlib.import_module(f"{package}.{name}")
        return getattr(importlib.import_module(places[name]), name)

    return get_name


def call_later(module: str, name: str) -> Callable[..., Any]:
    """Return a function that imports a function of a wing above, and calls it.

    As an attribute of a class it is a method.
    """

    def call(*given: Any, **named: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*given, **named)

    return call
