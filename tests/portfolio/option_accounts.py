"""Accounts with options whose market data are given as arrays, run in plain Python."""

from typing import Any

import numpy as np
import pandas as pd

import backtest as bt
from backtest.account.records import OptionFeed, make_option_feed
from backtest.engine import batch, inputs
from backtest.engine.run_closes import measure_closes
from backtest.engine.run_setup import set_up
from tests.kit import Once, make_venue

HOUR_YEARS = 1.0 / (365.0 * 24.0)
STANDARD = bt.Standard(initial=0.15, least=0.1, maintenance=0.075)
FREE = {"rates": 0.0, "fee_rates": 0.0, "delivery_rates": 0.0, "ticks": 0.0, "fee_caps": np.inf}
FREE |= {"delivery_caps": np.inf, "half_spreads": 0.0, "are_listed": 1, "bases_open": 1.0}
FREE |= {"bases_close": 1.0}


def make_feed(
    contracts: list[dict[str, Any]], n_bars: int, *, volatility: float = 0.6, **more: Any
) -> OptionFeed:
    """Return the feed of contracts at one volatility, which are sold and bought at the mark.

    A contract has sign, strike, the hour of its expiry, and targets by bar.
    """
    hours = np.arange(n_bars)
    feed = make_option_feed(len(contracts), n_bars)
    feed.pairs[:] = np.arange(len(contracts))
    for k, each in enumerate(contracts):
        hour = each["expiry"]
        feed.signs[k], feed.strikes[k], feed.sizes[k] = each["sign"], each["strike"], 1.0
        feed.expiries[k] = int(2 * hour)
        feed.expiry_bars[k] = int(hour) if hour < n_bars else -1
        feed.are_inside[k] = 0 if hour == int(hour) else 1
        feed.expiry_spots[k] = each.get("spot", np.nan)
        feed.years_open[:, k] = np.maximum(hour - hours, 0.0) * HOUR_YEARS
        feed.years_close[:, k] = np.maximum(hour - hours - 1.0, 0.0) * HOUR_YEARS
        for bar, quantity in each.get("targets", {}).items():
            feed.targets[bar, k] = quantity
    feed.expiries[:] = np.unique(feed.expiries, return_inverse=True)[1]
    given = FREE | {"volatilities_open": volatility, "volatilities_close": volatility} | more
    for name, value in given.items():
        getattr(feed, name)[:] = value
    return feed


def make_rows(rows: Any) -> bt.Market:
    """Return an hourly market of rows (open, high, low, close)."""
    index = pd.date_range("2024-01-01", periods=len(rows), freq="1h", tz="UTC")
    bars = pd.DataFrame(rows, columns=["open", "high", "low", "close"], index=index, dtype=float)
    bars["volume"] = 1e6
    return bt.Market.from_frames(bars)


def run_options(
    rows: Any,
    feed: OptionFeed,
    *,
    rule: Any = STANDARD,
    level: float = 0.0,
    capital: float = 1000.0,
    venue: dict[str, Any] | None = None,
    kind: str = "linear",
    partial: str = "",
    compiled: bool = False,
    **account: Any,
) -> Any:
    """Return the outcome of an account that holds the options of a feed on its only instrument.

    ``level`` is the leverage of the instrument, decided at the first close.
    """
    given = make_venue(**(venue or {})).override({"contract.kind": kind})
    if partial:
        steps = {"mode": "partial", "step": 0.5, "full_below": 1.0, "order": partial}
        given = given.override({f"liquidation.{name}": value for name, value in steps.items()})
    kept = inputs.read_option_feed
    inputs.read_option_feed = lambda *_: feed
    try:
        setup = set_up(
            bt.Markets({"BTC": make_rows(rows)}),
            Once(level=level),
            venue=given,
            account=bt.Account(capital=capital, requirement=rule, **account),
            signal=None,
            overlay=None,
            sampling="1h",
            start=None,
        )
        out = batch.run_account(setup, is_compiled=compiled, progress=None)
        closes = measure_closes(setup, out, slice(None), is_whole=True)
        return out._replace(record=out.record._replace(closes=closes))
    finally:
        inputs.read_option_feed = kept


def list_events(out: Any, kind: int) -> list[list[float]]:
    """Return bar, value, quantity, fee and owner of the events of a kind."""
    return [row[[0, 2, 3, 5, 8]].tolist() for row in out.entries if row[1] == kind]
