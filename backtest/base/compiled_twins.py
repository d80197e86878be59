"""Twins: copies of functions with other globals, from which compiled and array code is made."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import os
import types
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any


def choose_number(condition: Any, yes: Any, no: Any) -> Any:
    return yes if condition else no


def make_twin(
    function: types.FunctionType, names: dict[str, Any], path: Path
) -> types.FunctionType:
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
    for name, value in vars(module).items():
        is_own = isinstance(value, types.FunctionType) and value.__module__ == module.__name__
        if is_own and name not in left_out and not name.startswith("_"):
            yield name, value


def bind_functions(module: types.ModuleType, **names: Any) -> dict[str, Any]:
    bound = {**vars(module), **names}
    for name, function in find_own_functions(module, names):
        bound[name] = make_twin(function, bound, Path(function.__code__.co_filename))
    return bound


def find_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return str(importlib.import_module(name).__version__)


@functools.cache
def describe_target() -> tuple[str, ...]:
    from llvmlite import binding  # noqa: PLC0415 - only needed where code runs

    versions = [find_version(name) for name in ("numba", "llvmlite", "numpy")]
    chosen = [os.environ.get(f"NUMBA_CPU_{word}", "") for word in ("NAME", "FEATURES")]
    features = binding.get_host_cpu_features().flatten()
    host = (binding.get_process_triple(), binding.get_host_cpu_name(), features)
    here, switch = Path(__file__), os.environ.get("BACKTEST_FAST_LINK", "")
    names = ("rule_passes", "compiler", "fast_link")
    own = [here.with_name(f"{name}.py").read_text("utf-8") for name in names]
    return (*versions, *chosen, *map(str, host), switch, *own)
