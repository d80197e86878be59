"""The estimators' arithmetic, compiled once per machine.

As :mod:`backtest.compiler` does it for the rules: what numba keeps refers to a copy of the source
in the cache folder, so that it can be kept where the package itself cannot be written to.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import llvmlite
import numba
import numpy as np

from backtest import cache
from backtest.compile_cache import jit
from backtest.compiler import digest, own_functions, processor, twin
from backtest.features import kernels
from backtest.units import FloatArray, IntArray

OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True, "_nrt": False}
"""Nothing is allocated; strict IEEE."""


@functools.cache
def compile_module(module: ModuleType) -> Any:
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


def write_copy(module: ModuleType) -> Path:
    """Return the copy of a module's source in the cache folder, beside what is compiled of it."""
    texts = [Path(str(each.__file__)).read_text(encoding="utf-8") for each in sources_of(module)]
    mark = digest(*texts, numba.__version__, llvmlite.__version__, processor())
    name = Path(str(module.__file__)).name
    return cache.write_once(cache.find_cache_folder() / f"features-{mark}" / name, texts[0])


def sources_of(module: ModuleType) -> list[ModuleType]:
    """Return a module of kernels and those it takes functions from."""
    return [module, *helpers_of(module)]


def helpers_of(module: ModuleType) -> list[ModuleType]:
    """Return the other modules whose functions a module of kernels imports, in order of name."""
    functions = [value for value in vars(module).values() if isinstance(value, FunctionType)]
    names = {each.__module__ for each in functions if each.__module__ != module.__name__}
    return [sys.modules[name] for name in sorted(names)]


def compile_functions(
    module: ModuleType, names: dict[str, Any], path: Path, kernels: tuple[str, ...]
) -> dict[str, Any]:
    """Return the functions a module defines, compiled: the kernels kept, the others inlined."""
    found = {}
    for name, function in own_functions(module):
        is_kernel = name in kernels
        options = {**OPTIONS, "cache": is_kernel, "forceinline": not is_kernel}
        names[name] = found[name] = jit(twin(function, names, path), **options)
    return found


def ewma_deviation(returns: FloatArray, decay: FloatArray, scale: float | FloatArray) -> FloatArray:
    """Return roots of weighted means of squares, of shape (n_bars, k) for k decays.

    See :func:`backtest.features.kernels.ewma_lanes`; ``scale`` is one number, or one per bar.
    """
    out = np.empty((len(returns), len(decay)))
    state = np.zeros((3, len(decay)))
    compile_module(kernels).ewma_lanes(returns**2, decay, by_bar(scale, len(out)), state, out)
    return out


def rolling_deviation(
    returns: FloatArray, windows: IntArray, root: float | FloatArray
) -> FloatArray:
    """Return standard deviations of shape (n_bars, k) for k windows.

    See :func:`backtest.features.kernels.deviation_lanes`; ``root`` is one number, or one per bar.
    """
    out = np.empty((len(returns), len(windows)))
    sums, tiles = prepare(returns, len(windows))
    compile_module(kernels).deviation_lanes(sums, windows, by_bar(root, len(out)), tiles, out)
    return out


def rolling_ratio(
    returns: FloatArray, windows: IntArray, root: float | FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return Sharpe ratios and their errors, of shape (n_bars, k) each for k windows.

    See :func:`backtest.features.kernels.sharpe_lanes`; ``root`` is one number, or one per bar.
    """
    ratio, error = np.empty((2, len(returns), len(windows)))
    sums, tiles = prepare(returns, len(windows))
    compile_module(kernels).sharpe_lanes(
        sums, windows, by_bar(root, len(ratio)), tiles, ratio, error
    )
    return ratio, error


def prepare(returns: FloatArray, lanes: int) -> tuple[FloatArray, FloatArray]:
    """Return the running sums of returns, and room for a block of bars."""
    sums = np.empty((5, len(returns)))
    compile_module(kernels).add_up(returns, sums)
    return sums, np.empty((2, lanes, kernels.BLOCK))


def by_bar(value: float | FloatArray, n_bars: int) -> FloatArray:
    """Return a number, or one per bar, as an array of shape (n_bars,)."""
    return np.array(np.broadcast_to(value, n_bars))
