"""Compiler of kernels: functions of arrays; each compiles once per machine."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

from backtest.base import cache_folder
from backtest.base.code_identity import hash_texts
from backtest.base.compiled_twins import describe_target, find_own_functions, make_twin

OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True, "_nrt": False}


@functools.cache
def compile_kernels(module: ModuleType) -> Any:
    names: dict[str, Any] = dict(vars(module))
    for other in helpers_of(module):
        names |= compile_helpers(other)
    compiled = compile_functions(module, names, write_copy(module), module.KERNELS)
    return SimpleNamespace(**{name: compiled[name] for name in module.KERNELS})


@functools.cache
def compile_helpers(module: ModuleType) -> dict[str, Any]:
    names: dict[str, Any] = dict(vars(module))
    imported: dict[str, Any] = {}
    for other in helpers_of(module):
        imported |= compile_helpers(other)
    return imported | compile_functions(module, names | imported, write_copy(module), ())


def compile_functions(
    module: ModuleType, names: dict[str, Any], path: Path, kernels: tuple[str, ...]
) -> dict[str, Any]:
    from backtest.base.compiled_files import jit  # noqa: PLC0415 - loads numba

    found = {}
    for name, function in find_own_functions(module):
        is_kernel = name in kernels
        options = {**OPTIONS, "cache": is_kernel, "forceinline": not is_kernel}
        names[name] = found[name] = jit(make_twin(function, names, path), **options)
    return found


@functools.cache
def write_copy(module: ModuleType) -> Path:
    sources = list_sources(module)
    texts = [Path(str(each.__file__)).read_text(encoding="utf-8") for each in sources]
    mark = hash_texts(*texts, *describe_target())
    name = Path(str(module.__file__)).name
    return cache_folder.write_once(
        cache_folder.find_cache_folder() / f"kernels-{mark}" / name, texts[0]
    )


def list_sources(module: ModuleType) -> list[ModuleType]:
    found = [module]
    for other in found:
        found += [each for each in helpers_of(other) if each not in found]
    return found


def helpers_of(module: ModuleType) -> list[ModuleType]:
    functions = [value for value in vars(module).values() if isinstance(value, FunctionType)]
    names = {each.__module__ for each in functions if each.__module__ != module.__name__}
    names = {name for name in names if name.startswith("backtest.")}  # not typing.NamedTuple
    return [sys.modules[name] for name in sorted(names)]
