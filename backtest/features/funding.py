"""Funding rates: their mean per year, and the next rate, published or by the venue's formula."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd

from backtest.base import Choice, FloatArray, check_range, checked, compile_module
from backtest.base.units import DAY, YEAR_DAYS
from backtest.features import kernels
from backtest.features.returns import OneOrMany, find_decay, find_known_bars, shape_as
from backtest.market import Market
from backtest.venue import funding, read_column

Weights: TypeAlias = Literal["linear", "equal"]


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
    decay, known = find_decay(half_life), find_known_bars(market)
    years = np.diff(market.funding_time) / (YEAR_DAYS * DAY)
    state = np.zeros((3, len(decay)))
    state[2] = math.nan
    out = np.empty((market.n_bars, len(decay)))
    compile_module(kernels).forecast_lanes(
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
    premium = pd.Series(read_column(market, column))
    closes = market.time + market.interval
    period = np.searchsorted(market.funding_time, closes - market.interval // 4, side="left")
    weight = pd.Series(1.0, index=premium.index)
    if weights == "linear":
        weight = weight.groupby(period).cumsum()
    average = (weight * premium).groupby(period).cumsum() / weight.groupby(period).cumsum()
    is_lost = premium.isna().groupby(period).cummax() | (period == 0)
    mean = np.asarray(average.mask(is_lost), dtype=np.float64)
    rate: FloatArray = funding.rate(mean, interest, clamp, cap)
    return rate


@checked
def published_funding(market: Market) -> FloatArray:
    """Return the rate of the next settlement as the venue published it, at each close.

    Parameters
    ----------
    market : Market
        With a column ``predicted`` in its funding.

    Returns
    -------
    FloatArray of shape (n_bars,)
        Fraction of the notional for the next settlement, positive: longs pay. NaN before the
        first settlement is known, and where it was not published.

    Notes
    -----
    The ``predicted`` value of the last settlement stamped before the close; ``bar.funding`` is the
    ``rate`` of the same settlement. A row of funding is known from its stamp on: the prediction for
    the settlement at 16:00 is in the row of 08:00. A prediction that changes between settlements
    belongs in a column of the bars; :func:`predicted_funding` computes one from a premium.

    Examples
    --------
    >>> import pandas as pd
    >>> sample = Market.sample(bars=24)
    >>> funding = sample.funding().assign(predicted=[1e-4, 2e-4, 3e-4])
    >>> market = Market.from_frames(sample.bars(), funding=funding)
    >>> published_funding(market)[[0, 7, 8, 23]].tolist()
    [0.0001, 0.0001, 0.0002, 0.0003]
    """
    closes = market.time + market.interval
    last = np.searchsorted(market.funding_time, closes, side="left") - 1
    said = np.concatenate([[np.nan], market.funding_predicted])
    return np.asarray(said[last + 1])
