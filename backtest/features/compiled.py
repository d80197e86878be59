"""The estimators' arithmetic, compiled once per machine.

As :mod:`backtest.compiler` does it for the rules: what numba keeps refers to a copy of the source
in the cache folder, so that it can be kept where the package itself cannot be written to.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite
import numba
import numpy as np

from backtest import cache
from backtest.compiler import digest, own_functions, processor, twin
from backtest.features import kernels
from backtest.units import FloatArray, IntArray

OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True, "_nrt": False}
"""Nothing is allocated; strict IEEE."""


class Kernels(NamedTuple):
    """Compiled functions of :mod:`backtest.features.kernels`; each compiles when first called."""

    ewma_lanes: Callable[..., None]
    add_up: Callable[..., None]
    deviation_lanes: Callable[..., None]
    sharpe_lanes: Callable[..., None]


@functools.cache
def compile_kernels() -> Kernels:
    """Return the compiled kernels; in a second process they load."""
    text = Path(str(kernels.__file__)).read_text(encoding="utf-8")
    mark = digest(text, numba.__version__, llvmlite.__version__, processor())
    path = cache.find_cache_folder() / f"features-{mark}" / "kernels.py"
    cache.write_once(path, text)
    names: dict[str, Any] = dict(vars(kernels))
    for name, function in own_functions(kernels):
        is_kernel = name in Kernels._fields
        options = {**OPTIONS, "cache": is_kernel, "forceinline": not is_kernel}
        names[name] = numba.njit(**options)(twin(function, names, path))
    return Kernels(*(names[name] for name in Kernels._fields))


def ewma_deviation(returns: FloatArray, decay: FloatArray, scale: float | FloatArray) -> FloatArray:
    """Return roots of weighted means of squares, of shape (n_bars, k) for k decays.

    See :func:`backtest.features.kernels.ewma_lanes`; ``scale`` is one number, or one per bar.
    """
    out = np.empty((len(returns), len(decay)))
    state = np.zeros((3, len(decay)))
    compile_kernels().ewma_lanes(returns**2, decay, by_bar(scale, len(out)), state, out)
    return out


def rolling_deviation(
    returns: FloatArray, windows: IntArray, root: float | FloatArray
) -> FloatArray:
    """Return standard deviations of shape (n_bars, k) for k windows.

    See :func:`backtest.features.kernels.deviation_lanes`; ``root`` is one number, or one per bar.
    """
    out = np.empty((len(returns), len(windows)))
    sums, tiles = prepare(returns, len(windows))
    compile_kernels().deviation_lanes(sums, windows, by_bar(root, len(out)), tiles, out)
    return out


def rolling_ratio(
    returns: FloatArray, windows: IntArray, root: float | FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return Sharpe ratios and their errors, of shape (n_bars, k) each for k windows.

    See :func:`backtest.features.kernels.sharpe_lanes`; ``root`` is one number, or one per bar.
    """
    ratio, error = np.empty((2, len(returns), len(windows)))
    sums, tiles = prepare(returns, len(windows))
    compile_kernels().sharpe_lanes(sums, windows, by_bar(root, len(ratio)), tiles, ratio, error)
    return ratio, error


def prepare(returns: FloatArray, lanes: int) -> tuple[FloatArray, FloatArray]:
    """Return the running sums of returns, and room for a block of bars."""
    sums = np.empty((5, len(returns)))
    compile_kernels().add_up(returns, sums)
    return sums, np.empty((2, lanes, kernels.BLOCK))


def by_bar(value: float | FloatArray, n_bars: int) -> FloatArray:
    """Return a number, or one per bar, as an array of shape (n_bars,)."""
    return np.array(np.broadcast_to(value, n_bars))
