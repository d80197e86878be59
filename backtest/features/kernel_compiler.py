"""The estimators' arithmetic, compiled once per machine.

As :mod:`backtest.engine.compile.loop_compiler` does it for the rules: what numba keeps refers to a
copy of the source in the cache folder, so that it can be kept where the package itself cannot be
written to.
"""

from __future__ import annotations

import functools
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from backtest.base.compiled_files import jit
from backtest.base.compiled_twins import find_own_functions, make_twin
from backtest.features.kernel_sources import helpers_of, write_copy

OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True, "_nrt": False}
"""Nothing is allocated; strict IEEE."""


@functools.cache
def compile_kernels(module: ModuleType) -> Any:
    """Return the compiled kernels of a module as attributes; in a second process they load.

    Its tuple ``KERNELS`` names the functions that are called from outside; each compiles when first
    called, the others become part of them. A module that imports functions of another module of
    kernels has them compiled with its own.
    """
    path = write_copy(module)
    names: dict[str, Any] = dict(vars(module))
    for other in helpers_of(module):
        names |= compile_functions(other, dict(vars(other)), write_copy(other), ())
    compiled = compile_functions(module, names, path, module.KERNELS)
    return SimpleNamespace(**{name: compiled[name] for name in module.KERNELS})


def compile_functions(
    module: ModuleType, names: dict[str, Any], path: Path, kernels: tuple[str, ...]
) -> dict[str, Any]:
    """Return the functions a module defines, compiled: the kernels kept, the others inlined."""
    found = {}
    for name, function in find_own_functions(module):
        is_kernel = name in kernels
        options = {**OPTIONS, "cache": is_kernel, "forceinline": not is_kernel}
        names[name] = found[name] = jit(make_twin(function, names, path), **options)
    return found
