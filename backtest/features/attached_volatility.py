"""Volatilities that are columns of the market, attached by the user."""

from __future__ import annotations

import numpy as np

from backtest.base import DataError, FloatArray, checked, format_time
from backtest.market import Market

IMPLIED = "implied_volatility"
REALISED = "realised_volatility"
MOST = 10.0
"""Largest plausible volatility: a larger number is in percent."""

SOURCES = {
    IMPLIED: "dvol.reindex(market.times, method='ffill') / 100",
    REALISED: "features.realised_volatility(market, finer)",
}


@checked
def implied_volatility(market: Market) -> FloatArray:
    """Return the column ``implied_volatility`` of a market.

    Returns
    -------
    FloatArray of shape (n_bars,)
        Per sqrt(year), as a fraction; NaN where it is unknown.

    Raises
    ------
    DataError
        If there is no such column, or a value is negative or over 10 (in percent).
    """
    return read_volatility(market, IMPLIED)


def read_volatility(market: Market, name: str) -> FloatArray:
    """Return a column of volatilities per sqrt(year), checked to be fractions."""
    if name not in market.columns:
        raise DataError(
            f"market must have a column {name!r}, has {', '.join(market.columns) or 'none'}; "
            f"market.with_columns({name}={SOURCES[name]}) adds it"
        )
    column = market.columns[name]
    wrong = np.flatnonzero((column < 0.0) | (column > MOST))
    if wrong.size:
        raise DataError(
            f"{name} must be a fraction per sqrt(year), from 0 to {MOST:g}, got "
            f"{column[wrong[0]]:g} at {format_time(int(market.time[wrong[0]]))} UTC, {wrong.size} "
            f"of {market.n_bars} bars; divide per cent by 100"
        )
    return column
