"""Parameters of indicators: one value, or one a lane, read and checked."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from backtest import core

OneOrMany: TypeAlias = float | core.FloatArray
"""Parameter of an estimator: one value, or an array of shape (k,)."""
MAX_BARS = 2.0**26
"""Longest window, 127 years of minutes."""


def broadcast(*values: OneOrMany) -> list[core.FloatArray]:
    """Return parameters as arrays of one shape (k,); a single value applies to every lane."""
    named: dict[str, Any] = {}
    for number, value in enumerate(values):
        named[f"array_{number}"] = value
    core.check_broadcast(**named)
    arrays = [np.array(value, dtype=np.float64, ndmin=1) for value in values]
    return [np.array(array) for array in np.broadcast_arrays(*arrays)]


def shape_as(columns: core.FloatArray, *values: Any) -> core.FloatArray:
    """Return columns (n_bars, k), or the only one (n_bars,) if every parameter is one value."""
    has_lanes = any(np.ndim(value) for value in values)
    if has_lanes:
        return columns
    return columns[:, 0]


def count_shared(values: core.FloatArray) -> int:
    """Return how many first rows of (n_bars, k) values are the same in all lanes.

    Paths that are observed together have one history in front.
    """
    is_same = (values == values[:, :1]).all(axis=1)
    if is_same.all():
        return len(values)
    return int(is_same.argmin())


def list_lanes(name: str, value: Any) -> list[Any]:
    """Return one value, or an array of shape (k,), as a list of Python objects."""
    if np.ndim(value):
        core.check_shape(name, value, (-1,))
    objects = np.asarray(value, dtype=object)
    items: list[Any] = np.atleast_1d(objects).tolist()
    return items


def check_lanes(name: str, value: OneOrMany, **bounds: Any) -> None:
    """Require that each lane lies within bounds, as :func:`backtest.core.check_range` has them."""
    # Paths that are observed together repeat one value many times: they are looked at at once.
    is_row = isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype == np.float64
    if is_row:
        declared = core.Real(**bounds, may_be_infinite=True)
        if declared.admits(np.asarray(value)).all():
            return

    # One of them is refused by its own message, or they are few.
    for number in list_lanes(name, value):
        core.check_range(name, number, **bounds)


def check_bars(name: str, value: OneOrMany, *, low: float = 1.0) -> None:
    """Require that each lane is a whole number of bars, at least ``low``."""
    allowed = core.Range(low, MAX_BARS, "bars")
    for bars in list_lanes(name, value):
        allowed.check(name, bars, whole=True)


def read_windows(window: OneOrMany) -> core.IntArray:
    """Return checked windows of at least two bars, (k,)."""
    check_bars("window", window, low=2.0)
    return np.atleast_1d(window).astype(np.int64)


def find_decay(half_life: OneOrMany) -> core.FloatArray:
    """Return the weight of a bar relative to the next one, 2^(-1 / half_life), of shape (k,)."""
    check_lanes("half_life", half_life, low=0.0, open_low=True)
    half_lives = list_lanes("half_life", half_life)
    return np.array([0.5 ** (1.0 / float(bars)) for bars in half_lives])


FOREVER = 2.0**62
"""Bars that no market has."""


def count_needed(half_life: OneOrMany) -> core.IntArray:
    """Return the returns from which on an estimate is known, (k,): a half-life of them, at least 2.

    After fewer, the weights of what came before them would be more than half of the whole. An
    infinite half-life weighs all alike, so it needs only two.
    """
    check_lanes("half_life", half_life, low=0.0, open_low=True)
    bars = np.array(list_lanes("half_life", half_life), dtype=np.float64)
    bars[np.isinf(bars)] = 2.0
    whole_bars = np.ceil(bars)
    return np.clip(whole_bars, 2.0, FOREVER).astype(np.int64)
