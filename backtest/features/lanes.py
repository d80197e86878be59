"""Parameters of estimators: single values, or arrays with one value per lane."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

from backtest.base import FloatArray, IntArray, Range, check_broadcast, check_range, check_shape

OneOrMany: TypeAlias = float | FloatArray
"""Parameter of an estimator: one value, or an array of shape (k,)."""

MOST_BARS = 2.0**26
"""Longest window, 127 years of minutes."""


def broadcast(*values: OneOrMany) -> list[FloatArray]:
    """Return parameters as arrays of one shape (k,); a single value applies to every lane."""
    named: dict[str, Any] = {f"array_{k}": each for k, each in enumerate(values)}
    check_broadcast(**named)
    arrays = [np.array(value, dtype=np.float64, ndmin=1) for value in values]
    return [np.array(array) for array in np.broadcast_arrays(*arrays)]


def shape_as(columns: FloatArray, *values: Any) -> FloatArray:
    """Return columns (n_bars, k), or the only one (n_bars,) if every parameter is one value."""
    return columns if any(np.ndim(value) for value in values) else columns[:, 0]


def list_lanes(name: str, value: Any) -> list[Any]:
    """Return one value, or an array of shape (k,), as a list of Python objects."""
    if np.ndim(value):
        check_shape(name, value, (-1,))
    found: list[Any] = np.atleast_1d(np.asarray(value, dtype=object)).tolist()
    return found


def check_lanes(
    name: str,
    value: OneOrMany,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
) -> None:
    for each in list_lanes(name, value):
        check_range(name, each, low=low, high=high, open_low=open_low, open_high=open_high)


def check_bars(name: str, value: OneOrMany, *, low: float = 1.0, or_infinite: bool = False) -> None:
    for each in list_lanes(name, value):
        if not (or_infinite and each == math.inf):
            Range(low, MOST_BARS, "bars").check(name, each, whole=True)


def read_windows(window: OneOrMany) -> IntArray:
    check_bars("window", window, low=2.0)
    return np.atleast_1d(window).astype(np.int64)


def find_decay(half_life: OneOrMany) -> FloatArray:
    """Return the weight of a bar relative to the next one, 2^(-1 / half_life), of shape (k,)."""
    check_lanes("half_life", half_life, low=0.0, open_low=True)
    return np.array([0.5 ** (1.0 / float(bars)) for bars in list_lanes("half_life", half_life)])
