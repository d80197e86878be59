"""Kernels of arrays: compiled, or in plain Python where compiling would take longer."""

from __future__ import annotations

import functools
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from backtest.base.argument_types import name_types, outline_argument, rebuild_argument
from backtest.base.compile_choice import (
    REQUESTS,
    KernelOrder,
    is_plain_sooner,
    write_marks,
)
from backtest.base.kernel_compiler import write_copy

COMPILE_SECONDS = 2.0
"""Seconds to compile one kernel."""


@functools.cache
def compile_module(module: ModuleType) -> Any:
    return SimpleNamespace(**{name: Kernel(module, name) for name in module.KERNELS})


class Kernel:
    def __init__(self, module: ModuleType, name: str) -> None:
        self.module = module
        self.name = name
        self.ready: set[str] = set()

    def __call__(self, *arguments: Any) -> None:
        outlined = tuple(map(outline_argument, arguments))
        key = name_types(*outlined)
        is_plain = key not in self.ready and self.is_plain(key, outlined, arguments[-1].size)
        if not (is_plain and self.is_done_plainly(arguments)):
            self.compiled(*arguments)
            self.note(key)

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
        from backtest.base.kernel_compiler import compile_kernels  # noqa: PLC0415 - loads numba

        return getattr(compile_kernels(self.module), self.name)

    def is_plain(self, key: str, outlined: tuple[Any, ...], n_items: int) -> bool:
        cost = getattr(self.module, "PLAIN_SECONDS", {}).get(self.name)
        if cost is None or self.mark(key).exists():
            return False
        name = f"{self.module.__name__}.{self.name} {key}"
        if not is_plain_sooner(name, cost * n_items, COMPILE_SECONDS):
            return False
        REQUESTS.kernels[name] = KernelOrder(self.module.__name__, self.name, outlined)
        return True

    def mark(self, key: str) -> Path:
        return write_copy(self.module).parent / f"{self.name}.{key}.ready"

    def note(self, key: str) -> None:
        if key not in self.ready:
            write_marks((self.mark(key),))
            self.ready.add(key)

    def compile_for(self, outlined: tuple[Any, ...]) -> None:
        from numba.core.typing.typeof import Purpose, typeof  # noqa: PLC0415

        given = map(rebuild_argument, outlined)
        self.compiled.compile(tuple(typeof(each, Purpose.argument) for each in given))  # type: ignore[no-untyped-call] # numba's
        self.note(name_types(*outlined))
