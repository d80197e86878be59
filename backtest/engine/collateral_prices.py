"""The prices of an account's collateral on the clock of its markets."""

from __future__ import annotations

from typing import Any

import numpy as np

from backtest.account import Account
from backtest.base import DataError, IntArray, format_time
from backtest.market import Market, Markets
from backtest.venue import Collateral

ASSET = (
    "open", "high", "low", "close", "mark_open", "mark_high", "mark_low", "mark_close",
)  # fmt: skip


def read_assets(markets: Markets, account: Account) -> dict[str, Any]:
    """Return the prices of the collateral on the clock, each of shape (C, n_bars)."""
    found = {f"asset_{name}": np.empty((len(account.collateral), markets.n_bars)) for name in ASSET}
    for c, asset in enumerate(account.collateral):
        prices: Any = find_prices(asset, markets)
        is_market = isinstance(prices, Market)
        rows = find_rows(prices, markets, f"collateral {asset.name!r}") if is_market else None
        for name in ASSET:
            found[f"asset_{name}"][c] = prices if rows is None else getattr(prices, name)[rows]
    return found


def find_prices(asset: Collateral, markets: Markets) -> Market | float:
    prices = asset.prices
    if isinstance(prices, str) and prices in markets:
        return markets[prices]
    if isinstance(prices, Market | float):
        return prices
    raise DataError(
        f"prices of collateral {asset.name!r} must be a Market, a number or one of "
        f"{', '.join(markets)}, got {prices!r:.60}"
    )


def find_rows(prices: Market, markets: Markets, what: str) -> IntArray:
    rows = np.searchsorted(prices.time, markets.time)
    inside = np.minimum(rows, prices.n_bars - 1)
    missing = np.flatnonzero(prices.time[inside] != markets.time)
    if len(missing):
        at = format_time(int(markets.time[missing[0]]))
        raise DataError(
            f"{what} must have a price in every bar of the markets, got none in {len(missing):,} "
            f"of {markets.n_bars:,}, first at {at} UTC"
        )
    return rows.astype(np.int64)
