"""Give a market another future after a bar, or none, to test for lookahead."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from backtest.market import Market, Markets, as_markets
from backtest.market.markets import as_given


def rewrite_future(market: Market | Markets, t: int, rng: np.random.Generator) -> Market | Markets:
    """Return a market or panel with random bars after bar t of its clock.

    An instrument that is listed after bar t keeps its first bar.
    """
    markets = as_markets(market)
    changed = {
        name: rewrite_after(markets[name], max(0, t - int(first)), rng)
        for name, (first, stop) in zip(markets.names, markets.spans, strict=True)
        if t + 1 < stop
    }
    rewritten: Market | Markets = as_given(markets.with_markets(changed), market)
    return rewritten


def make_futures(market: Market, t: int, rng: np.random.Generator) -> Iterator[tuple[str, Market]]:
    """Yield the market cut after bar t, and with random bars after it."""
    yield "when the market ends with bar", market.prefix(t + 1)
    yield "when other bars follow bar", rewrite_after(market, t, rng)


def rewrite_after(market: Market, t: int, rng: np.random.Generator) -> Market:
    """Return the market with random prices, volumes, funding and columns after bar t."""
    n = market.n_bars - t - 1
    closes = market.close[t] * np.exp(np.cumsum(rng.normal(0.0, 0.02, n)))
    opens = np.concatenate([market.close[t : t + 1], closes[:-1]])
    wick = 1.0 + np.abs(rng.normal(0.0, 0.01, (2, n)))
    basis = 1.0 + rng.normal(0.0, 1e-3) if market.has_mark else 1.0
    prices = {
        "open": opens,
        "high": np.maximum(opens, closes) * wick[0],
        "low": np.minimum(opens, closes) / wick[1],
        "close": closes,
    }
    marks = {f"mark_{name}": values * basis for name, values in prices.items()}
    later = {**prices, **marks, "volume": market.volume[t + 1 :] * rng.uniform(0.5, 2.0, n)}
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(market, name)[: t + 1], values])
        for name, values in later.items()
    }
    follows = market.funding_time >= market.time[t] + market.interval
    rates = np.where(follows, rng.normal(0.0, 1e-3, len(follows)), market.funding_rate)
    columns = {
        name: np.concatenate([column[: t + 1], rng.permutation(column[t + 1 :]) + 1.0])
        for name, column in market.columns.items()
    }
    return dataclasses.replace(
        market,
        funding_rate=rates,
        funding_mark=np.where(follows, np.nan, market.funding_mark),
        funding_predicted=np.where(
            follows & ~np.isnan(market.funding_predicted), rates[::-1], market.funding_predicted
        ),
        columns=columns,
        source=f"{market.source}, made anew after bar {t}",
        **arrays,
    )
