"""The read-only view of the account that a policy gets."""

from __future__ import annotations

from typing import NamedTuple

from backtest.margin import MarginRules


class AccountView(NamedTuple):
    """The account at a bar's close, as a policy sees it.

    Money is in the settlement currency. ``leverage`` and ``position`` (contracts) are signed.
    ``peak_equity`` and ``drawdown`` exclude flows. ``entry`` and ``liquidation_price`` are prices,
    NaN without a position. ``days`` counts from the start. ``venue`` is the argument of the
    functions in :mod:`backtest.margin.functions`.

    ``gross_leverage`` and ``net_leverage`` are of all positions of the account: the sum of the
    notionals, and the signed sum, over its equity. With one position they are ``|leverage|`` and
    ``leverage``.
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
    gross_leverage: float
    net_leverage: float
    venue: MarginRules
