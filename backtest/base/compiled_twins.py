"""Twins: copies of functions with other globals, from which compiled and array code is made.

The rules and the estimators are ordinary Python functions. A compiled twin calls other compiled
twins instead of the plain functions. An array twin calls numpy functions instead of branching. So
each formula is written once.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import os
import types
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np


def count_all_brackets(rules: Any, notional: Any) -> int:  # noqa: ARG001 - as the scalar one
    """Return the number of all brackets, for code that chooses in each of them."""
    return len(rules.floors)


ON_ARRAYS = {
    "choose": np.where,
    "is_any": np.any,
    "min": np.minimum,
    "max": np.maximum,
    "count_brackets": count_all_brackets,
}
"""The functions that array twins call instead of the scalar ones of these names."""


def make_twin(
    function: types.FunctionType, names: dict[str, Any], path: Path
) -> types.FunctionType:
    """Return a copy of a function with other globals and another file name."""
    code = function.__code__.replace(co_filename=str(path))
    copy = types.FunctionType(
        code, names, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__qualname__ = function.__qualname__
    copy.__module__ = names["__name__"]
    return copy


def find_own_functions(
    module: types.ModuleType, left_out: Collection[str] = ()
) -> Iterator[tuple[str, types.FunctionType]]:
    """Yield the public functions a module defines, by name, except those left out."""
    for name, value in vars(module).items():
        is_own = isinstance(value, types.FunctionType) and value.__module__ == module.__name__
        if is_own and name not in left_out and not name.startswith("_"):
            yield name, value


def bind_functions(module: types.ModuleType, **names: Any) -> dict[str, Any]:
    """Return the names of a module whose functions call other functions by some of their names.

    So a loop runs as plain Python around what it leaves open.
    """
    bound = {**vars(module), **names}
    for name, function in find_own_functions(module, names):
        bound[name] = make_twin(function, bound, Path(function.__code__.co_filename))
    return bound


def make_array_twins(*modules: types.ModuleType) -> Any:
    """Return a namespace of some modules in which every function takes arrays."""
    names: dict[str, Any] = {"__name__": __name__}
    for module in modules:
        names |= {k: v for k, v in vars(module).items() if not k.startswith("__")}
    for module in modules:
        for name, function in find_own_functions(module):
            names[name] = make_twin(function, names, Path(function.__code__.co_filename))
    names |= ON_ARRAYS
    return types.SimpleNamespace(**names)


def find_version(name: str) -> str:
    """Return the version of a package; import it only if it has no metadata."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return str(importlib.import_module(name).__version__)


@functools.cache
def describe_target() -> tuple[str, ...]:
    """Return what compiled code depends on besides its source: compiler, passes and processor."""
    from llvmlite import binding  # noqa: PLC0415 - only needed where code runs

    versions = [find_version(name) for name in ("numba", "llvmlite", "numpy")]
    chosen = [os.environ.get(f"NUMBA_CPU_{word}", "") for word in ("NAME", "FEATURES")]
    features = binding.get_host_cpu_features().flatten()
    host = (binding.get_process_triple(), binding.get_host_cpu_name(), features)
    passes = Path(__file__).with_name("rule_passes.py").read_text(encoding="utf-8")
    return (*versions, *chosen, *map(str, host), passes)
