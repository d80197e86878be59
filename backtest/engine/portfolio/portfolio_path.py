"""The path of an account with several positions, from its record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from backtest.base.units import BoolArray, FloatArray
from backtest.engine.portfolio.portfolio_tables import column, field, measure_profits
from backtest.measures.margin_use import count_available, divide_by_equity, margin_used
from backtest.measures.path_measures import AccountPath

if TYPE_CHECKING:
    from backtest.engine.portfolio.portfolio_record import PortfolioRecord


def read_book_path(result: PortfolioRecord, notionals: FloatArray) -> AccountPath:
    """Return the path of an account; ``notionals`` are the signed ones, of shape (n_bars, n)."""
    equity, initial = column(result.record, "equity"), column(result.record, "initial")
    return AccountPath(
        unit=column(result.record, "unit"),
        equity=equity,
        initial=initial,
        available=find_available(result, initial),
        used=margin_used(initial, equity),
        leverage=divide_by_equity(notionals.sum(axis=1), equity),
        moves=result.market_returns,
    )


def find_available(result: PortfolioRecord, initial: FloatArray) -> FloatArray:
    """Return the money for new orders at each close: that of the pool, without its margin.

    With isolated positions only, the pool is the wallet.
    """
    own = find_isolated(result)
    margin = field(result.positions_record, "margin")[:, own].sum(axis=1)
    venues = [result.venues[name] for name in result.names]
    shares = np.array([venue.profit_share() for venue in venues])
    profits = np.maximum(measure_profits(result.positions_record, result.marks, venues), 0.0)
    uncounted = np.where(own, 0.0, (1.0 - shares) * profits).sum(axis=1)
    return count_available(column(result.record, "backing"), initial - margin, uncounted)


def find_isolated(result: PortfolioRecord) -> BoolArray:
    """Return which positions have a margin of their own."""
    modes = [result.account.for_instrument(name).margin for name in result.names]
    return np.array([mode == "isolated" for mode in modes])
