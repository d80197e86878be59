"""What a function is made of: its code and all that it refers to, as text.

Two functions with the same text compute the same, so compiled code and stored results can be told
apart by it. Where something cannot be told (a module of the user's, an object), it says so.
"""

from __future__ import annotations

import builtins
import hashlib
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

KNOWN_MODULES = frozenset({"math", "numpy", "backtest"})
"""Modules whose attributes do not change under us: they belong to a version in the cache's name."""

OWN_VERSION = frozenset({"backtest.venue.margin"})
"""Modules of functions that compiled policies call by name, and that a version of the rules has."""


class CodeText(NamedTuple):
    """What a function is made of: a text of it and of all it refers to, and whether that is all."""

    text: str
    names: frozenset[str]
    is_complete: bool


def describe_function(function: Any, seen: dict[int, int]) -> CodeText:
    """Return the code of a function and of everything it refers to, as text.

    With the modules they stand in: what is compiled of them refers to them there.
    """
    if id(function) in seen:
        return CodeText(f"again {seen[id(function)]}", frozenset(), True)
    seen[id(function)] = len(seen)
    texts, names, is_complete = [], set(find_code_names(function.__code__)), True
    texts += [str(function.__module__), describe_bytecode(function.__code__)]
    texts.append(repr(function.__defaults__))
    for name, value in sorted(find_references(function).items()):
        found = describe_value(value, seen)
        texts.append(f"{name}={found.text}")
        names |= found.names
        is_complete &= found.is_complete
    return CodeText("\n".join(texts), frozenset(names), is_complete)


def describe_value(value: Any, seen: dict[int, int]) -> CodeText:
    """Return one referenced value as text; what cannot be told apart is incomplete."""
    nothing: frozenset[str] = frozenset()
    if isinstance(value, (bool, int, float, str, type(None))):
        return CodeText(repr(value), nothing, True)
    if isinstance(value, tuple) and all(isinstance(item, (int, float, str)) for item in value):
        return CodeText(repr(value), nothing, True)
    if isinstance(value, types.ModuleType):
        is_known = value.__name__.partition(".")[0] in KNOWN_MODULES
        return CodeText(f"{value.__name__} {getattr(value, '__version__', '')}", nothing, is_known)
    if isinstance(value, types.FunctionType):
        if value.__module__ in OWN_VERSION:
            return CodeText(f"{value.__module__}.{value.__qualname__}", nothing, True)
        return describe_function(value, seen)
    if isinstance(value, type) and hasattr(value, "_fields"):
        place = f"{value.__module__}.{value.__qualname__}"  # compiled code refers to it there
        return CodeText(f"{place}{value._fields}", nothing, True)
    if isinstance(value, (types.BuiltinFunctionType, np.ufunc)):
        return CodeText(repr(value), nothing, True)
    return CodeText(repr(type(value)), nothing, False)


def describe_bytecode(code: types.CodeType) -> str:
    """Return bytecode, constants and names of a code object as text, without its place."""
    constants = [
        describe_bytecode(item) if isinstance(item, types.CodeType) else repr(item)
        for item in code.co_consts
    ]
    return repr((code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars))


def find_code_names(code: types.CodeType) -> Iterator[str]:
    """Yield every name a code object refers to, those of inner functions included."""
    yield from code.co_names
    for item in code.co_consts:
        if isinstance(item, types.CodeType):
            yield from find_code_names(item)


def find_references(function: Any) -> dict[str, Any]:
    """Return the globals and closure values that a function's code names."""
    scope = function.__globals__
    found = {name: scope[name] for name in find_code_names(function.__code__) if name in scope}
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    found |= {name: cell.cell_contents for name, cell in cells}
    return {name: value for name, value in found.items() if not hasattr(builtins, name)}


def hash_texts(*texts: str) -> str:
    """Return a short name for some texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:20]
