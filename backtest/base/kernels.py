"""Kernels: functions of arrays, compiled once per machine, or in plain Python where it is sooner.

``KERNELS`` of a module names them, ``PLAIN_SECONDS`` their cost in plain Python per item.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from backtest.base import cache_folder
from backtest.base.code_identity import hash_texts
from backtest.base.compile_choice import describe_type, is_plain_sooner, write_mark
from backtest.base.compiled_twins import describe_target, find_own_functions, make_twin

OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True, "_nrt": False}


@functools.cache
def compile_module(module: ModuleType) -> Any:
    return SimpleNamespace(**{name: Kernel(module, name) for name in module.KERNELS})


class Kernel:
    def __init__(self, module: ModuleType, name: str) -> None:
        self.module = module
        self.name = name
        self.ready: set[tuple[str, ...]] = set()

    def __call__(self, *arguments: Any) -> None:
        types = tuple(map(describe_type, arguments))
        if types in self.ready:
            self.compiled(*arguments)
            return
        mark = write_copy(self.module).parent / f"{self.name}.{hash_texts(*types)}.ready"
        if not (self.is_plain(mark, arguments[-1].size) and self.is_done_plainly(arguments)):
            self.compiled(*arguments)
            write_mark(mark)
            self.ready.add(types)

    def is_done_plainly(self, arguments: tuple[Any, ...]) -> bool:
        arrays = [each for each in arguments if isinstance(each, np.ndarray)]
        before = [each.copy() for each in arrays]
        try:
            with np.errstate(all="ignore"):
                getattr(self.module, self.name)(*arguments)
        except (ArithmeticError, ValueError):
            for array, content in zip(arrays, before, strict=True):
                if array.flags.writeable:
                    array[...] = content
            return False
        return True

    @functools.cached_property
    def compiled(self) -> Any:
        return getattr(compile_kernels(self.module), self.name)

    def is_plain(self, mark: Path, n_items: int) -> bool:
        cost = getattr(self.module, "PLAIN_SECONDS", {}).get(self.name)
        return cost is not None and is_plain_sooner(mark, cost * n_items)


@functools.cache
def compile_kernels(module: ModuleType) -> Any:
    found = compile_functions(module, module.KERNELS)
    return SimpleNamespace(**{name: found[name] for name in module.KERNELS})


@functools.cache
def compile_helpers(module: ModuleType) -> dict[str, Any]:
    return compile_functions(module, ())


def compile_functions(module: ModuleType, kernels: tuple[str, ...]) -> dict[str, Any]:
    from backtest.base.compiler import jit  # noqa: PLC0415 - loads numba

    found: dict[str, Any] = {}
    for other in helpers_of(module):
        found |= compile_helpers(other)
    names, path = {**vars(module), **found}, write_copy(module)
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
