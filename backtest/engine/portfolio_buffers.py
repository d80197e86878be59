"""The empty arrays in which the loop of several positions works: quotes, scratch, ledger, log."""

from __future__ import annotations

from typing import Any

import numpy as np

from backtest.account import EventLog, MarketBar, Scratch
from backtest.account.order_cuts import CAUSES, N_STEPS, N_SUMS
from backtest.account.portfolio_ledger import N_TERMS, WIDTH
from backtest.account.portfolio_records import MARKET_BAR
from backtest.base import FloatArray
from backtest.engine.collateral_prices import ASSET


def new_quotes(n: int, assets: int) -> MarketBar:
    flags: dict[str, Any] = {"is_listed": np.zeros(n, np.int64), "is_last": np.zeros(n, np.int64)}
    own: dict[str, Any] = {name: np.full(n, np.nan) for name in MARKET_BAR}
    prices: dict[str, Any] = {f"asset_{name}": np.zeros(assets) for name in (*ASSET, "fill")}
    return MarketBar(**own, **flags, **prices)


NO_CUTS = np.zeros((0, len(CAUSES), N_SUMS))
"""In a loop that does not count what limits take."""


def new_scratch(n: int, assets: int, cuts: FloatArray = NO_CUTS) -> Scratch:
    sizes = {
        "price": assets,
        "price_end": assets,
        "kept_assets": assets,
        "shares": n + assets,
    }
    found: dict[str, Any] = {name: np.zeros(sizes.get(name, n)) for name in Scratch._fields}
    orders: dict[str, Any] = {
        "kind": np.zeros(n, np.int64),
        "ordered": np.full(n, np.nan),
        "steps": np.full((n, N_STEPS), np.nan),
        "cuts": cuts,
    }
    return Scratch(**{**found, **orders})


def new_cuts(n: int) -> FloatArray:
    return np.zeros((n + 1, len(CAUSES), N_SUMS))


def new_ledger_array(n: int) -> FloatArray:
    return np.zeros((N_TERMS, n + 1))


def new_event_log(capacity: int) -> EventLog:
    return EventLog(True, np.empty((capacity, WIDTH)), np.zeros(1, np.int64))
