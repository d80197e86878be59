"""Compiler of kernels: functions of arrays that several wings use; each compiles once per machine.

As in :mod:`backtest.engine.compile.loop_compiler`, numba's cache refers to a copy of the source in
the cache folder. So results can be cached even if the folder of the package is read-only.
"""

from __future__ import annotations

import functools
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from backtest.base.compiled_files import jit
from backtest.base.compiled_twins import find_own_functions, make_twin
from backtest.base.kernel_sources import helpers_of, write_copy

OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True, "_nrt": False}
"""Options of numba: kernels allocate nothing and follow IEEE 754 strictly."""


@functools.cache
def compile_kernels(module: ModuleType) -> Any:
    """Return the compiled kernels of a module as attributes.

    The tuple ``KERNELS`` of the module names the functions that are called from outside. Each is
    compiled at its first call, and loaded from the cache in later processes. All other functions,
    also those imported from other kernel modules, are inlined.
    """
    names: dict[str, Any] = dict(vars(module))
    for other in helpers_of(module):
        names |= compile_helpers(other)
    compiled = compile_functions(module, names, write_copy(module), module.KERNELS)
    return SimpleNamespace(**{name: compiled[name] for name in module.KERNELS})


@functools.cache
def compile_helpers(module: ModuleType) -> dict[str, Any]:
    """Return the functions of a module and those that it imports, compiled to be inlined."""
    names: dict[str, Any] = dict(vars(module))
    imported: dict[str, Any] = {}
    for other in helpers_of(module):
        imported |= compile_helpers(other)
    return imported | compile_functions(module, names | imported, write_copy(module), ())


def compile_functions(
    module: ModuleType, names: dict[str, Any], path: Path, kernels: tuple[str, ...]
) -> dict[str, Any]:
    """Return the functions that a module defines, compiled: kernels cached, the others inlined."""
    found = {}
    for name, function in find_own_functions(module):
        is_kernel = name in kernels
        options = {**OPTIONS, "cache": is_kernel, "forceinline": not is_kernel}
        names[name] = found[name] = jit(make_twin(function, names, path), **options)
    return found
