"""Kernels of arrays: compiled, or in plain Python where compiling would take longer."""

from __future__ import annotations

import functools
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from backtest.base.compile_choice import is_plain_sooner, name_types, write_mark
from backtest.base.kernel_compiler import write_copy


@functools.cache
def compile_module(module: ModuleType) -> Any:
    return SimpleNamespace(**{name: Kernel(module, name) for name in module.KERNELS})


class Kernel:
    def __init__(self, module: ModuleType, name: str) -> None:
        self.module = module
        self.name = name
        self.ready: set[Path] = set()

    def __call__(self, *arguments: Any) -> None:
        mark = write_copy(self.module).parent / f"{self.name}.{name_types(*arguments)}.ready"
        is_plain = mark not in self.ready and self.is_plain(mark, arguments[-1].size)
        if not (is_plain and self.is_done_plainly(arguments)):
            self.compiled(*arguments)
            write_mark(mark)
            self.ready.add(mark)

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

    def is_plain(self, mark: Path, n_items: int) -> bool:
        cost = getattr(self.module, "PLAIN_SECONDS", {}).get(self.name)
        return cost is not None and is_plain_sooner(mark, cost * n_items)
