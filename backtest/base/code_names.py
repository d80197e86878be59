"""What the code of a function names, and hashes and versions of code."""

from __future__ import annotations

import builtins
import functools
import hashlib
import importlib.metadata
import types
from collections.abc import Iterator
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
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
