"""The identity of a function: its code and everything it refers to, as text."""

from __future__ import annotations

import builtins
import functools
import hashlib
import inspect
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

KNOWN_MODULES = frozenset({"math", "numpy", "backtest"})
CONSTANTS = (bool, int, float, str, type(None), types.BuiltinFunctionType, np.ufunc, np.generic)


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


class CodeText(NamedTuple):
    text: str
    names: frozenset[str] = frozenset()
    is_complete: bool = True


def describe_function(function: Any, seen: dict[int, int], *, by_source: bool = True) -> CodeText:
    """Return what a function is: its code, and all that it refers to.

    ``by_source`` names functions of this package by their files, so that the formula of a shipped
    policy has one name in all versions of Python; else all code is bytecode.
    """
    if function.__globals__.get("__name__") == "backtest.core.checked_calls":
        function = inspect.unwrap(function)  # how arguments are checked changes no result
    if id(function) in seen:
        return CodeText(f"again {seen[id(function)]}")
    seen[id(function)] = len(seen)
    texts, names, is_complete = [], set(find_code_names(function.__code__)), True
    is_named = by_source and is_shipped(function)
    code = name_source(function) if is_named else describe_bytecode(function.__code__)
    texts += [str(function.__module__), code]
    texts.append(repr(function.__defaults__))
    for name, value in sorted(find_references(function).items()):
        found = describe_value(value, seen, by_source=by_source)
        texts.append(f"{name}={found.text}")
        names |= found.names
        is_complete &= found.is_complete
    return CodeText("\n".join(texts), frozenset(names), is_complete)


def is_shipped(function: types.FunctionType) -> bool:
    name = str(function.__module__)
    file = getattr(sys.modules.get(name), "__file__", None)
    return name.startswith("backtest.") and function.__code__.co_filename == file


def name_source(function: types.FunctionType) -> str:
    return f"{function.__qualname__} of {hash_file(function.__code__.co_filename)}"


@functools.cache
def hash_file(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def join_texts(one: CodeText, other: CodeText) -> CodeText:
    text = f"{one.text}\n{other.text}"
    return CodeText(text, one.names | other.names, one.is_complete and other.is_complete)


def describe_value(value: Any, seen: dict[int, int], *, by_source: bool = True) -> CodeText:
    is_plain = isinstance(value, tuple) and all(isinstance(x, (int, float, str)) for x in value)
    if is_plain or isinstance(value, CONSTANTS):
        return CodeText(repr(value))
    if isinstance(value, types.ModuleType):
        is_known = value.__name__.partition(".")[0] in KNOWN_MODULES
        text = f"{value.__name__} {getattr(value, '__version__', '')}"
        return CodeText(text, is_complete=is_known)
    if isinstance(value, types.FunctionType):
        if has_compiled_versions(value):
            return CodeText(f"{value.__module__}.{value.__qualname__}")
        return describe_function(value, seen, by_source=by_source)
    if isinstance(value, type) and hasattr(value, "_fields"):
        place = f"{value.__module__}.{value.__qualname__}"  # compiled code refers to it there
        return CodeText(f"{place}{value._fields}")
    return CodeText(repr(type(value)), is_complete=False)


def has_compiled_versions(function: types.FunctionType) -> bool:
    """Return whether compiled code has other functions in place of those of its module."""
    return hasattr(sys.modules.get(str(function.__module__)), "HAS_COMPILED_VERSIONS")


def name_callable(function: Any) -> str:
    name = getattr(function, "__name__", type(function).__name__)
    return f"{name} sha256:{hashlib.sha256(describe_callable(function).encode()).hexdigest()}"


def describe_callable(function: Any) -> str:
    if isinstance(function, types.FunctionType):
        text = describe_function(function, {}, by_source=False).text
        return "\n".join([text, *describe_tables(function, set())])
    if isinstance(function, functools.partial):
        bound = sorted(function.keywords.items())
        return f"{describe_callable(function.func)} {function.args!r} {bound!r}"
    rule: Any = type(function).__call__
    kept = sorted(getattr(function, "__dict__", {}).items())
    is_plain = isinstance(rule, types.FunctionType)
    return f"{describe_callable(rule)} {kept!r}" if is_plain else repr(type(function))


def describe_tables(function: types.FunctionType, seen: set[int]) -> Iterator[str]:
    seen.add(id(function))
    for name, value in sorted(find_references(function).items()):
        if isinstance(value, (dict, list)):
            yield f"{name}={write_table(value)}"
        if isinstance(value, types.FunctionType) and id(value) not in seen:
            yield from describe_tables(value, seen)


def write_table(value: Any) -> str:
    if isinstance(value, dict):
        pairs = (f"{key!r}: {write_table(each)}" for key, each in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(write_table, value))}]"
    return repr(value if isinstance(value, CONSTANTS) else type(value))
