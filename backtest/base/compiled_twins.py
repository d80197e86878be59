"""Copies of functions that look up other names: what compiled code and array code are made of.

The rules and the estimators are ordinary Python functions. A twin is the same code with other
globals: compiled twins find each other in place of the plain functions, array twins find numpy's
functions in place of branches. So each formula is written once.
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

ON_ARRAYS = {"choose": np.where, "is_any": np.any, "min": np.minimum, "max": np.maximum}
"""What array twins call in place of the scalar functions of these names."""


def make_twin(
    function: types.FunctionType, names: dict[str, Any], path: Path
) -> types.FunctionType:
    """Return a copy of a function that looks up other names and stands in another file."""
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
    """Yield the functions a module defines by name, without private ones and those left out."""
    for name, value in vars(module).items():
        is_own = isinstance(value, types.FunctionType) and value.__module__ == module.__name__
        if is_own and name not in left_out and not name.startswith("_"):
            yield name, value


def make_array_twins(*modules: types.ModuleType) -> Any:
    """Return the functions of some modules as attributes, with twins that take arrays."""
    names: dict[str, Any] = {"__name__": __name__}
    for module in modules:
        names |= {k: v for k, v in vars(module).items() if not k.startswith("__")}
    for module in modules:
        for name, function in find_own_functions(module):
            names[name] = make_twin(function, names, Path(function.__code__.co_filename))
    names |= ON_ARRAYS
    return types.SimpleNamespace(**names)


def find_version(name: str) -> str:
    """Return the version of a package, without importing it where it is installed as usual."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return str(importlib.import_module(name).__version__)


@functools.cache
def describe_target() -> tuple[str, ...]:
    """Return what compiled code depends on besides its source: the compiler and the processor."""
    from llvmlite import binding  # noqa: PLC0415 - not needed by what does not run

    versions = [find_version(name) for name in ("numba", "llvmlite", "numpy")]
    chosen = [os.environ.get(f"NUMBA_CPU_{word}", "") for word in ("NAME", "FEATURES")]
    features = binding.get_host_cpu_features().flatten()
    host = (binding.get_process_triple(), binding.get_host_cpu_name(), features)
    return (*versions, *chosen, *map(str, host))
