"""Equal weights, and weights by the volatilities of returns."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import FloatArray, ParameterError, Range, Whole, format_time
from backtest.engine import compute_signal
from backtest.market import Markets, read_weights, require_panel, weights_to_frame
from backtest.weights.refits import Segment, hold_weights, list_segments

HALF_LIFE = 168.0
"""The default of ``half_life``: a week of hours."""
_FAR = 60.0
"""Half-lives after which a return counts for nothing: 2^-60 is below rounding."""


class Memory(NamedTuple):
    half_life: float | None
    window: int | None

    @property
    def known(self) -> int:
        return self.window or max(2, math.ceil(self.half_life or 0.0))


def equal(markets: Markets) -> pd.DataFrame:
    """Return 1/n in each of the n instruments that can be traded: the signal of a run without one.

    An instrument can be traded from its first bar, and not in the last one before it is delisted.

    Returns
    -------
    DataFrame of shape (n_bars, n_instruments)

    Examples
    --------
    >>> import backtest as bt
    >>> whole = bt.Market.sample(bars=4)
    >>> equal(bt.Markets({"A": whole, "B": whole.slice(2, 4)}))["A"].tolist()
    [1.0, 1.0, 0.5, 0.5]
    """
    require_panel(markets)
    return weights_to_frame(read_weights(None, markets), markets)


def inverse_volatility(
    markets: Markets,
    *,
    half_life: float | None = None,
    window: int | None = None,
    every: int = 24,
) -> pd.DataFrame:
    """Return weights in proportion to the inverse of volatility.

    Parameters
    ----------
    markets : Markets
        Only their closes count.
    half_life : float, optional
        Bars after which a return weighs half as much in the variances; 168 without a window.
    window : int, optional
        Instead of a half-life: the variances are those of the last ``window`` returns, of the
        covariance matrix shrunk by the method of Ledoit and Wolf.
    every : int
        Bars between new weights.

    Returns
    -------
    DataFrame of shape (n_bars, n_instruments)
        Adding up to 1 among the instruments with returns of a half-life or a window, 0 before.

    Raises
    ------
    ParameterError
        If a parameter is out of range, both memories are given, or a price does not move.

    Notes
    -----
    Returns are logarithmic, their means are taken as 0. Weights are made at closes that are a
    multiple of ``every`` bars since 1970, and where the set of instruments changes. They are held
    as shares of equity in between. Source of the shrinkage: Ledoit and Wolf (2004), A
    Well-Conditioned Estimator for Large-Dimensional Covariance Matrices, J. Multivariate Analysis
    88(2), by scikit-learn.
    """
    memory = read_memory(half_life, window, every)
    require_panel(markets)

    def allocate(seen: Markets) -> FloatArray:
        returns = find_returns(seen)

        def solve(segment: Segment) -> FloatArray:
            variances = estimate(returns[:, segment.members], segment, memory)
            _check_moves(variances, segment, seen)
            inverse = 1.0 / np.sqrt(variances)
            return np.asarray(inverse / inverse.sum(axis=1, keepdims=True))

        return hold_weights(seen, list_segments(seen, memory.known, every), solve)

    found: pd.DataFrame = compute_signal(markets, allocate)
    return found


def read_memory(half_life: Any, window: Any, every: Any) -> Memory:
    Whole(1).check("every", every)
    if half_life is not None and window is not None:
        raise ParameterError(
            f"half_life and window exclude each other, got {half_life!r} and {window!r}"
        )
    if window is not None:
        return Memory(None, Whole(2).check("window", window))
    half_life = HALF_LIFE if half_life is None else half_life
    Range(0.5, 1e9, "bars").check("half_life", half_life)
    return Memory(float(half_life), None)


def find_returns(markets: Markets) -> FloatArray:
    """Return log returns of closes, of shape (n_bars, n_instruments), NaN outside the spans."""
    returns = np.full((markets.n_bars, len(markets)), np.nan)
    for row, (market, (first, stop)) in enumerate(
        zip(markets.values(), markets.spans, strict=True)
    ):
        returns[first + 1 : stop, row] = np.diff(np.log(market.close))
    return returns


def estimate(returns: FloatArray, segment: Segment, memory: Memory) -> FloatArray:
    """Return the variances at each fit of a segment, of shape (n_fits, n)."""
    if memory.window is not None:
        return np.stack([_shrink(returns[t + 1 - memory.window : t + 1]) for t in segment.bars])
    from scipy.signal import lfilter  # noqa: PLC0415 - takes a while to load

    half_life = memory.half_life or HALF_LIFE
    first = max(segment.first, int(segment.bars[0]) - math.ceil(_FAR * half_life))
    squares = returns[first : segment.bars[-1] + 1] ** 2
    recursion = [1.0], [1.0, -(2.0 ** (-1.0 / half_life))]
    sums = lfilter(*recursion, squares, axis=0)
    weights = lfilter(*recursion, np.ones((len(squares), 1)), axis=0)
    return np.asarray((sums / weights)[segment.bars - first])


def _shrink(returns: FloatArray) -> FloatArray:
    from sklearn.covariance import ledoit_wolf  # noqa: PLC0415 - takes a second to load

    return np.asarray(np.diagonal(ledoit_wolf(returns, assume_centered=True)[0]))


def _check_moves(variances: FloatArray, segment: Segment, markets: Markets) -> None:
    still = np.argwhere(~(variances > 0.0))
    if len(still):
        fit, member = (int(each) for each in still[0])
        name = markets.names[int(segment.members[member])]
        until = format_time(int(markets.time[segment.bars[fit]]))
        raise ParameterError(
            f"the price of {name!r} must move, it has not up to {until} UTC; give a longer "
            "half_life or window"
        )
