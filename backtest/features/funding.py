"""Funding rates: their mean per year, and the next rate as published."""

from __future__ import annotations

import numpy as np

from backtest.base import FloatArray, checked
from backtest.base.units import DAY, YEAR_DAYS
from backtest.features.returns import OneOrMany, find_decay, find_known_bars, shape_as
from backtest.market import Market


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
    from scipy.signal import lfilter  # noqa: PLC0415 - takes a while to load

    known, n = find_known_bars(market)[1:], market.n_bars
    years = np.diff(market.funding_time) / (YEAR_DAYS * DAY)
    sums = [np.bincount(known, each, minlength=n)[:n] for each in (market.funding_rate[1:], years)]
    rows = np.arange(n)
    last = np.maximum.accumulate(np.where(np.isin(rows, known), rows, -1))
    columns = []
    for decay in find_decay(half_life).tolist():
        paid, time = (lfilter([1.0], [1.0, -decay], each) for each in sums)
        with np.errstate(invalid="ignore", divide="ignore"):
            columns.append(np.append(paid / time, np.nan)[last])
    return shape_as(np.stack(columns, axis=1), half_life)


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
    belongs in a column of the bars.

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
