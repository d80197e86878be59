"""What the venue itself says of the next settlement."""

from __future__ import annotations

import numpy as np

from backtest.base.units import FloatArray
from backtest.market.market import Market


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
    The ``predicted`` of the last settlement stamped before the close, as ``bar.funding`` is the
    ``rate`` of that one. A row of funding is known from its stamp on, all of it: what the venue
    says of the settlement at 16:00 stands beside that of 08:00. A prediction that moves between
    settlements belongs into a column of the bars; :func:`predicted_funding` makes one of a premium.

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
