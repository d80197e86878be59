"""Parameters of estimators: one value each, or arrays that belong together lane by lane."""

from __future__ import annotations

import math

import numpy as np

from backtest.base.ranges import check_number, check_range
from backtest.base.units import FloatArray
from backtest.features.returns import OneOrMany

MOST_BARS = 2.0**26
"""Of a window: the kernels take products with it for exact (see :mod:`backtest.features.rolling_kernels`).
127 years of minutes."""


def broadcast(*values: OneOrMany) -> list[FloatArray]:
    """Return parameters as arrays of one shape (k,): a single value belongs to every lane."""
    arrays = [np.atleast_1d(np.asarray(value, dtype=np.float64)) for value in values]
    return [np.array(array) for array in np.broadcast_arrays(*arrays)]


def shape_as(columns: FloatArray, *values: OneOrMany) -> FloatArray:
    """Return columns of shape (n_bars, k), or (n_bars,) where each parameter was one value."""
    return columns if any(np.ndim(value) for value in values) else columns[:, 0]


def check_lanes(
    name: str,
    value: OneOrMany,
    *,
    where: str,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
) -> None:
    """Refuse a parameter of which a value is out of range.

    Raises
    ------
    ParameterError
        Naming the parameter and the first such value.
    """
    for each in np.atleast_1d(np.asarray(value, dtype=object)):
        check_range(name, each, where=where, low=low, high=high, open_low=open_low)


def check_bars(
    name: str, value: OneOrMany, *, where: str, low: float = 1.0, or_infinite: bool = False
) -> None:
    """Refuse a parameter of which a value is no whole number of bars from ``low`` to 2^26.

    Raises
    ------
    ParameterError
        Naming the parameter and the first such value.
    """
    for each in np.atleast_1d(np.asarray(value, dtype=object)):
        if not (or_infinite and each == math.inf):
            check_range(name, each, where=where, low=low, high=MOST_BARS)
            check_number(name, each, where=where, whole=True)
