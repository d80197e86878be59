"""Funding rates: their mean per year, and the next rate by the venue's formula."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import numpy as np

from backtest.base import (
    Choice,
    DataError,
    FloatArray,
    check_range,
    checked,
    compile_module,
    did_you_mean,
)
from backtest.base.units import DAY, YEAR_DAYS
from backtest.features import carry_kernels
from backtest.features.close_volatility import find_decay, read_half_lives
from backtest.features.lane_parameters import shape_as
from backtest.features.returns import OneOrMany, find_known_bars
from backtest.market import Market
from backtest.venue import funding

Weights: TypeAlias = Literal["linear", "equal"]

YEAR = YEAR_DAYS * DAY
"""A year in ns; funding is paid around the clock."""


@checked
def funding_forecast(market: Market, half_life: OneOrMany) -> FloatArray:
    """Return the exponentially weighted mean of the funding rates settled so far, per year.

    Parameters
    ----------
    market : Market
        Its settlements and closes.
    half_life : float, or FloatArray of shape (k,)
        Bars after which a settlement weighs half as much, over 0.

    Returns
    -------
    FloatArray of shape (n_bars,), or (n_bars, k)
        Fraction of the notional per year of 365 days, positive: longs pay. NaN until two
        settlements are known; constant from one settlement to the next.

    Notes
    -----
    f_t = sum_i w^(t - b_i) r_i / sum_i w^(t - b_i) y_i with w = 2^(-1/half_life): r_i the rate of
    settlement i, y_i the years since the settlement before it, b_i the bar at whose close it is
    known, the first that closes after its stamp. So periods of different length count by their
    length, and the first settlement only starts the clock. This is the estimator of the rate of a
    renewal-reward process, reward per time, with exponential weights.
    """
    decay = find_decay(read_half_lives(half_life))
    known = find_known_bars(market)
    years = np.diff(market.funding_time) / YEAR
    state = np.zeros((3, len(decay)))
    state[2] = math.nan
    out = np.empty((market.n_bars, len(decay)))
    compile_module(carry_kernels).forecast_lanes(
        market.funding_rate[1:], years, known[1:].astype(np.int64), decay, state, out
    )
    return shape_as(out, half_life)


@checked
def predicted_funding(
    market: Market,
    column: str = "premium",
    *,
    weights: Weights = "linear",
    interest: float = 1e-4,
    clamp: float = 5e-4,
    cap: float = math.inf,
) -> FloatArray:
    """Return the rate of the next settlement if the premium stays at its average so far.

    Parameters
    ----------
    market : Market
        Market with settlements, and a column with the premium index at each close, a fraction.
    column : str
        The name of that column.
    weights : str
        ``"linear"``: the i-th premium since the last settlement has weight i (Binance, Bybit);
        ``"equal"``: all weights are equal (BitMEX, Hyperliquid).
    interest, clamp, cap : float
        The venue's terms, as in :func:`backtest.funding.rate`.

    Returns
    -------
    FloatArray of shape (n_bars,)
        Fraction of the notional for the period, positive: longs pay. NaN if a premium of the period
        is NaN, and before the first settlement.

    Raises
    ------
    DataError
        If the market has no such column.
    ParameterError
        If the weights are neither of the two, or a number is out of range.

    Notes
    -----
    :func:`backtest.funding.rate` of ``P_t = sum_i i p_i / sum_i i`` over the closes since the last
    settlement. A premium at the close at which a settlement is stamped belongs to that settlement,
    also if its stamp is up to a quarter of a bar early. Then the value is the rate that is being
    settled. With one premium per bar rather than per minute, the result is an approximation.
    """
    Choice("linear", "equal").check("weights", weights)
    for name, value in (("interest", interest), ("clamp", clamp), ("cap", cap)):
        check_range(name, value, low=-1.0 if name == "interest" else 0.0)
    premium = read_column(market, column)
    closes = market.time + market.interval
    period = np.searchsorted(market.funding_time, closes - market.interval // 4, side="left")
    average = np.empty(market.n_bars)
    compile_module(carry_kernels).average_lanes(
        premium, period.astype(np.int64), weights == "linear", average
    )
    average[period == 0] = math.nan
    rate: FloatArray = funding.rate(average, interest, clamp, cap)
    return rate


def read_column(market: Market, column: str) -> FloatArray:
    """Return a column of the market, which must have one of that name."""
    if column not in market.columns:
        raise DataError(
            f"market must have a column {column!r}, has {', '.join(market.columns) or 'none'}"
            + did_you_mean(column, market.columns)
        )
    return market.columns[column]
