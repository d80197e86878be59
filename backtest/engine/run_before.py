"""What a run knows at the close before its first bar."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from backtest.engine.run_data import Before
from backtest.features.liquidation_forecast import NO_BARS_SEEN, forecast_volatility

if TYPE_CHECKING:
    from backtest.base.units import FloatArray
    from backtest.engine.run_record import RunRecord
    from backtest.features.liquidation_forecast import VolatilityState
    from backtest.market import Markets


def find_before(resume: RunRecord | None, markets: Markets, first: int) -> Before:
    """Return what was known before bar ``first``: by an earlier run, or of the markets alone."""
    n = len(markets)
    if resume is None:
        trails = tuple(start_trail(markets, i, first) for i in range(n))
        return Before(np.full(n, np.nan), np.zeros(n), np.zeros(n), trails)
    return Before(
        mark=resume.marks[-1],
        signal=find_signals(resume),
        unrealized=resume.last_unrealized,
        trails=resume.last_trails,
    )


def find_signals(result: RunRecord) -> FloatArray:
    """Return the signals at the last close of a run, of shape (n,)."""
    return np.atleast_1d(np.array(result.state.signal, dtype=np.float64))


def start_trail(markets: Markets, i: int, first: int) -> VolatilityState:
    """Return the state of the volatility forecast of an instrument after the bars before a run."""
    market = markets[markets.names[i]]
    seen = max(min(first, int(markets.spans[i, 1])) - int(markets.spans[i, 0]), 0)
    return forecast_volatility(
        NO_BARS_SEEN,
        market.time[:seen],
        market.close[:seen],
        market.interval,
        is_session=market.sessions,
    )[1]
