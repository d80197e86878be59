"""Weights from the covariances of returns."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias, get_args

import numpy as np
import pandas as pd

from backtest.base import Choice, FloatArray, ParameterError, Range, compile_module, format_time
from backtest.engine import compute_frame
from backtest.engine.lookahead.causality_checker import USUAL
from backtest.market import Markets, require_panel
from backtest.weights import covariance_kernels, formulas
from backtest.weights.refits import Segment, hold_weights, list_segments

HALF_LIFE = 168.0
"""The default of ``half_life``: a week of hours."""
_FAR = 60.0
"""Half-lives after which a return counts for nothing: 2^-60 is below rounding."""

Solve: TypeAlias = Callable[[FloatArray], FloatArray]
"""Returns weights, of shape (k, n), of covariances, of shape (k, n, n)."""


class Memory(NamedTuple):
    half_life: float | None
    window: int | None

    @property
    def known(self) -> int:
        return self.window or max(2, math.ceil(self.half_life or 0.0))


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
        Bars after which a return weighs half as much in the covariances; 168 without a window.
    window : int, optional
        Instead of a half-life: the covariances are those of the last ``window`` returns, shrunk by
        the method of Ledoit and Wolf.
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
    memory = read_memory(half_life, window, every, "inverse_volatility")
    return _compute(markets, memory, every, formulas.inverse_volatility_weights)


def equal_risk(
    markets: Markets,
    *,
    half_life: float | None = None,
    window: int | None = None,
    every: int = 24,
) -> pd.DataFrame:
    """Return the long weights whose contributions to the variance are equal (risk parity).

    Parameters, shape, errors and schedule as in :func:`inverse_volatility`. See
    :func:`backtest.weights.formulas.equal_risk_weights`.
    """
    memory = read_memory(half_life, window, every, "equal_risk")
    return _compute(markets, memory, every, formulas.equal_risk_weights)


def minimum_variance(
    markets: Markets,
    *,
    half_life: float | None = None,
    window: int | None = None,
    every: int = 24,
    long_only: bool = False,
) -> pd.DataFrame:
    """Return the weights of least variance; without ``long_only``, some may be negative.

    Where returns are much alike, long weights over 1 stand against short ones, and what moves them
    apart can ruin an account: those of BTC, ETH and LTC did within a day of 2020-03-12. Other
    parameters, shape, errors and schedule as in :func:`inverse_volatility`; also raises
    ParameterError if some instruments move alike. See
    :func:`backtest.weights.formulas.minimum_variance_weights`.
    """
    memory = read_memory(half_life, window, every, "minimum_variance")
    solve = partial(formulas.minimum_variance_weights, long_only=long_only)
    return _compute(markets, memory, every, solve)


def hierarchical(
    markets: Markets,
    *,
    half_life: float | None = None,
    window: int | None = None,
    every: int = 24,
    linkage: formulas.Linkage = "single",
) -> pd.DataFrame:
    """Return the weights of hierarchical risk parity.

    ``linkage`` is "single", "complete", "average" or "ward". Other parameters, shape, errors and
    schedule as in :func:`inverse_volatility`. See
    :func:`backtest.weights.formulas.hierarchical_weights`.
    """
    memory = read_memory(half_life, window, every, "hierarchical")
    Choice(*get_args(formulas.Linkage)).check("linkage", linkage, where="bt.allocate.hierarchical")
    return _compute(markets, memory, every, partial(formulas.hierarchical_weights, linkage=linkage))


def read_memory(half_life: Any, window: Any, every: Any, name: str) -> Memory:
    where = f"bt.allocate.{name}"
    Range(1, math.inf, "bars").check("every", every, where=where, whole=True)
    if half_life is not None and window is not None:
        raise ParameterError(
            f"give either half_life or window, got {half_life!r} and {window!r}",
            where=where,
            cure="give half_life for decaying weights, or window for shrunk covariances",
        )
    if window is not None:
        Range(2, math.inf, "bars").check("window", window, where=where, whole=True)
        return Memory(None, int(window))
    half_life = HALF_LIFE if half_life is None else half_life
    Range(0.5, 1e9, "bars").check("half_life", half_life, where=where)
    return Memory(float(half_life), None)


def _compute(markets: Markets, memory: Memory, every: int, solve: Solve) -> pd.DataFrame:
    require_panel(markets, where="bt.allocate, markets")

    def allocate(seen: Markets) -> FloatArray:
        return weigh_by_covariance(seen, memory, every, solve)

    return compute_frame(markets, allocate, plan=USUAL)


def weigh_by_covariance(markets: Markets, memory: Memory, every: int, solve: Solve) -> FloatArray:
    """Return the weights that ``solve`` finds every few bars, (n_bars, n_instruments)."""
    returns = find_returns(markets)

    def solve_segment(segment: Segment) -> FloatArray:
        covariances = estimate(returns[:, segment.members], segment, memory)
        _check_moves(covariances, segment, markets)
        return solve(covariances)

    return hold_weights(markets, list_segments(markets, memory.known, every), solve_segment)


def find_returns(markets: Markets) -> FloatArray:
    """Return log returns of closes, of shape (n_bars, n_instruments), NaN outside the spans."""
    returns = np.full((markets.n_bars, len(markets)), np.nan)
    for row, (market, (first, stop)) in enumerate(
        zip(markets.values(), markets.spans, strict=True)
    ):
        returns[first + 1 : stop, row] = np.diff(np.log(market.close))
    return returns


def estimate(returns: FloatArray, segment: Segment, memory: Memory) -> FloatArray:
    """Return the covariances at each fit of a segment, of shape (n_fits, n, n)."""
    if memory.window is not None:
        return np.stack([_shrink(returns[t + 1 - memory.window : t + 1]) for t in segment.bars])
    half_life = memory.half_life or HALF_LIFE
    n = returns.shape[1]
    first = max(segment.first, int(segment.bars[0]) - math.ceil(_FAR * half_life))
    out = np.empty((len(segment.bars), n, n))
    decay, sums = 2.0 ** (-1.0 / half_life), np.zeros((n, n))
    compile_module(covariance_kernels).ewma_covariances(
        np.ascontiguousarray(returns), first, decay, segment.bars, sums, out
    )
    return out


def _shrink(returns: FloatArray) -> FloatArray:
    from sklearn.covariance import ledoit_wolf  # noqa: PLC0415 - takes a second to load

    return np.asarray(ledoit_wolf(returns, assume_centered=True)[0])


def _check_moves(covariances: FloatArray, segment: Segment, markets: Markets) -> None:
    variances = np.diagonal(covariances, axis1=1, axis2=2)
    still = np.argwhere(~(variances > 0.0))
    if len(still):
        fit, member = (int(each) for each in still[0])
        name = markets.names[int(segment.members[member])]
        raise ParameterError(
            f"the price of {name!r} has not moved, so its risk is unknown",
            where=f"bt.allocate, up to {format_time(int(markets.time[segment.bars[fit]]))} UTC",
            cure="leave it out, or give a longer half_life or window",
        )
