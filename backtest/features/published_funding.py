"""Next funding rate as published by the venue."""

from __future__ import annotations

import numpy as np

from backtest.base import FloatArray, checked
from backtest.market import Market


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
