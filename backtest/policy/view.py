"""The account as a policy sees it."""

from __future__ import annotations

from typing import NamedTuple

from backtest.venue.requirement import MarginRules


class AccountView(NamedTuple):
    """The account at a bar's close, as a policy sees it.

    Money in the settlement currency; ``leverage`` and ``position`` (contracts) signed;
    ``peak_equity`` and ``drawdown`` free of flows; ``entry`` and ``liquidation_price`` are prices,
    NaN without a position; ``days`` since the start; ``venue`` serves :mod:`backtest.venue.margin`.
    """

    equity: float
    peak_equity: float
    drawdown: float
    leverage: float
    position: float
    entry: float
    wallet: float
    reserve: float
    maintenance: float
    margin_ratio: float
    liquidation_price: float
    bars_since_liquidation: float
    bars_since_stop: float
    days: float
    venue: MarginRules
