"""Arrays of several markets on one clock: prices by instrument and bar, funding in time order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from backtest.base import FloatArray, IntArray
from backtest.market.tables.market_data import MarketData
from backtest.market.tables.settlements import JITTER, place_on_bars, read_settlements


class Panel(NamedTuple):
    """Prices of shape (n_instruments, n_bars), NaN outside the spans, and funding by settlement.

    The arrays of funding have shape (n_events,). They are in the order of the stamps, equal stamps
    in the order of the instruments. ``funding_is_open`` is 1 for a settlement paid at the open of
    its bar, 0 for one inside it; ``funding_price`` is the price that the venue settled on, NaN if
    unknown; ``funding_time`` is the stamp in ns.
    """

    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    mark_open: FloatArray
    mark_high: FloatArray
    mark_low: FloatArray
    mark_close: FloatArray
    volume: FloatArray
    funding_time: IntArray
    funding_bar: IntArray
    funding_is_open: IntArray
    funding_instrument: IntArray
    funding_price: FloatArray
    funding_rate: FloatArray


PRICES = Panel._fields[:9]
"""The fields of shape (n_instruments, n_bars)."""


def make_panel(
    markets: Sequence[MarketData], spans: IntArray, n_bars: int, jitter: int = JITTER
) -> Panel:
    """Return the arrays of the markets on a clock of ``n_bars``.

    ``spans``, of shape (n_instruments, 2), holds the first and one past the last bar of each on
    the clock. ``jitter`` (ns) is how far from an open a settlement still belongs to it. Without
    mark prices, the marks are the arrays of the last prices.
    """
    prices: dict[str, Any] = {}
    has_mark = any(market.has_mark for market in markets)
    for name in PRICES:
        last = name.removeprefix("mark_")
        is_shared = last != name and not has_mark
        prices[name] = prices[last] if is_shared else _align(markets, spans, n_bars, name)
    return Panel(**prices, **_place_funding(markets, spans, jitter))


def _align(markets: Sequence[MarketData], spans: IntArray, n_bars: int, name: str) -> FloatArray:
    # by bar in memory, as the loop over bars reads them
    values = np.full((n_bars, len(markets)), np.nan).T
    for row, (first, stop), market in zip(values, spans, markets, strict=True):
        row[first:stop] = getattr(market, name)
    return values


def _place_funding(markets: Sequence[MarketData], spans: IntArray, jitter: int) -> dict[str, Any]:
    parts = [
        _place_events(market, instrument, int(first), jitter)
        for instrument, (market, (first, _)) in enumerate(zip(markets, spans, strict=True))
    ]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(joined["funding_time"], kind="stable")
    return {name: values[order] for name, values in joined.items()}


def _place_events(market: MarketData, instrument: int, first: int, jitter: int) -> dict[str, Any]:
    settled = read_settlements(market)
    bar, is_open = place_on_bars(settled.time, market.time, market.interval, jitter)
    kept = (bar >= 0) & (bar < market.n_bars)
    return {
        "funding_time": settled.time[kept],
        "funding_bar": bar[kept].astype(np.int64) + first,
        "funding_is_open": is_open[kept].astype(np.int64),
        "funding_instrument": np.full(int(kept.sum()), instrument, dtype=np.int64),
        "funding_price": settled.price[kept],
        "funding_rate": settled.rate[kept],
    }
