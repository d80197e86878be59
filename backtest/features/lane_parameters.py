"""Parameters of estimators: single values, or arrays with one value per lane."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from backtest.base import FloatArray, Range, check_broadcast, check_range, check_shape
from backtest.features.returns import OneOrMany

MOST_BARS = 2.0**26
"""Longest window, 127 years of minutes. Up to it the products in
:mod:`backtest.features.rolling_kernels` are exact."""


def broadcast(*values: OneOrMany) -> list[FloatArray]:
    """Return parameters as arrays of one shape (k,); a single value applies to every lane."""
    named: dict[str, Any] = {f"array_{k}": each for k, each in enumerate(values)}
    check_broadcast(**named)
    arrays = [np.array(value, dtype=np.float64, ndmin=1) for value in values]
    if all(array.shape == arrays[0].shape for array in arrays):
        return arrays
    return [np.array(array) for array in np.broadcast_arrays(*arrays)]


def shape_as(columns: FloatArray, *values: Any) -> FloatArray:
    """Return columns (n_bars, k), or the only one (n_bars,) if every parameter is one value."""
    return columns if any(np.ndim(value) for value in values) else columns[:, 0]


def list_lanes(value: Any) -> list[Any]:
    """Return one value, or an array of shape (k,), as a list of Python objects."""
    found = np.asarray(value, dtype=object).tolist()
    return found if isinstance(found, list) else [found]


def list_row(name: str, value: Any) -> list[Any]:
    if np.ndim(value):
        check_shape(name, value, (-1,))
    return list_lanes(value)


def check_lanes(
    name: str,
    value: OneOrMany,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
) -> None:
    for each in list_row(name, value):
        check_range(name, each, low=low, high=high, open_low=open_low)


def check_bars(name: str, value: OneOrMany, *, low: float = 1.0, or_infinite: bool = False) -> None:
    for each in list_row(name, value):
        if not (or_infinite and each == math.inf):
            Range(low, MOST_BARS, "bars").check(name, each, whole=True)
