"""Kernels of the estimators: compiled, or in plain Python where compiling would take longer."""

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
from backtest.base.units import FloatArray, IntArray
from backtest.features import range_kernels, rolling_kernels
from backtest.features.kernel_sources import write_copy

PLAIN_SECONDS = {
    (rolling_kernels.__name__, "add_up"): 1e-6,
    (rolling_kernels.__name__, "deviation_lanes"): 4e-6,
    (rolling_kernels.__name__, "ewma_lanes"): 3e-6,
    (rolling_kernels.__name__, "sharpe_lanes"): 5e-6,
    (range_kernels.__name__, "add_up_all"): 1e-6,
    (range_kernels.__name__, "mean_lanes"): 4e-6,
    (range_kernels.__name__, "skipping_ewma_lanes"): 4e-6,
    (range_kernels.__name__, "yang_zhang_lanes"): 2e-5,
    ("backtest.options.black_kernels", "fill_prices"): 1e-5,
    ("backtest.options.black_kernels", "fill_greeks"): 2e-6,
    ("backtest.options.implied_kernels", "fill_volatilities"): 6e-5,
}
"""Seconds per item of the last argument in plain Python. Other kernels are always compiled."""
COMPILE_SECONDS = 2.0
"""Seconds to compile one kernel."""


@functools.cache
def compile_module(module: ModuleType) -> Any:
    """Return the kernels that the tuple ``KERNELS`` of a module names, as attributes."""
    return SimpleNamespace(**{name: Kernel(module, name) for name in module.KERNELS})


class Kernel:
    """Kernel of a module: compiled, or in plain Python the first time if that is faster."""

    def __init__(self, module: ModuleType, name: str) -> None:
        self.module = module
        self.name = name
        self.ready: set[str] = set()

    def __call__(self, *arguments: Any) -> None:
        """Call the function of this name, compiled or plain."""
        outlined = tuple(map(outline_argument, arguments))
        key = name_types(*outlined)
        is_plain = key not in self.ready and self.is_plain(key, outlined, arguments[-1].size)
        if not (is_plain and self.is_done_plainly(arguments)):
            self.compiled(*arguments)
            self.note(key)

    def is_done_plainly(self, arguments: tuple[Any, ...]) -> bool:
        """Run it in plain Python; undo it if that raises where compiled code would not."""
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
        """The compiled function."""
        from backtest.features.kernel_compiler import (  # noqa: PLC0415 - loads numba
            compile_kernels,
        )

        return getattr(compile_kernels(self.module), self.name)

    def is_plain(self, key: str, outlined: tuple[Any, ...], n_items: int) -> bool:
        """Return whether plain Python is faster for this many items of the last argument."""
        cost = PLAIN_SECONDS.get((self.module.__name__, self.name))
        if cost is None or self.mark(key).exists():
            return False
        name = f"{self.module.__name__}.{self.name} {key}"
        if not is_plain_sooner(name, cost * n_items, COMPILE_SECONDS):
            return False
        REQUESTS.kernels[name] = KernelOrder(self.module.__name__, self.name, outlined)
        return True

    def mark(self, key: str) -> Path:
        """Return the file that exists once the kernel is compiled for these types."""
        return write_copy(self.module).parent / f"{self.name}.{key}.ready"

    def note(self, key: str) -> None:
        """Record that it is compiled for these types."""
        if key not in self.ready:
            write_marks((self.mark(key),))
            self.ready.add(key)

    def compile_for(self, outlined: tuple[Any, ...]) -> None:
        """Compile it for arguments of these types, without calling it."""
        from numba.core.typing.typeof import Purpose, typeof  # noqa: PLC0415

        given = map(rebuild_argument, outlined)
        self.compiled.compile(tuple(typeof(each, Purpose.argument) for each in given))  # type: ignore[no-untyped-call] # numba's
        self.note(name_types(*outlined))


def ewma_deviation(returns: FloatArray, decay: FloatArray, scale: float | FloatArray) -> FloatArray:
    """Return roots of weighted means of squares, of shape (n_bars, k) for k decays.

    See :func:`backtest.features.rolling_kernels.ewma_lanes`; ``scale`` is one number, or one per
    bar.
    """
    out = np.empty((len(returns), len(decay)))
    state = np.zeros((3, len(decay)))
    compile_module(rolling_kernels).ewma_lanes(
        returns**2, decay, broadcast_to_bars(scale, len(out)), state, out
    )
    return out


def rolling_deviation(
    returns: FloatArray, windows: IntArray, root: float | FloatArray
) -> FloatArray:
    """Return standard deviations of shape (n_bars, k) for k windows.

    See :func:`backtest.features.rolling_kernels.deviation_lanes`; ``root`` is one number, or one
    per bar.
    """
    out = np.empty((len(returns), len(windows)))
    sums, tiles = prepare_windows(returns, len(windows))
    compile_module(rolling_kernels).deviation_lanes(
        sums, windows, broadcast_to_bars(root, len(out)), tiles, out
    )
    return out


def rolling_ratio(
    returns: FloatArray, windows: IntArray, root: float | FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return Sharpe ratios and their errors, of shape (n_bars, k) each for k windows.

    See :func:`backtest.features.rolling_kernels.sharpe_lanes`; ``root`` is one number, or one per
    bar.
    """
    ratio, error = np.empty((2, len(returns), len(windows)))
    sums, tiles = prepare_windows(returns, len(windows))
    compile_module(rolling_kernels).sharpe_lanes(
        sums, windows, broadcast_to_bars(root, len(ratio)), tiles, ratio, error
    )
    return ratio, error


def prepare_windows(returns: FloatArray, lanes: int) -> tuple[FloatArray, FloatArray]:
    """Return the running sums of returns, and scratch space for a tile of bars."""
    sums = np.empty((5, len(returns)))
    compile_module(rolling_kernels).add_up(returns, sums)
    return sums, np.empty((2, lanes, rolling_kernels.BLOCK))


def broadcast_to_bars(value: float | FloatArray, n_bars: int) -> FloatArray:
    """Return a number, or one per bar, as an array of shape (n_bars,)."""
    return np.array(np.broadcast_to(value, n_bars))
