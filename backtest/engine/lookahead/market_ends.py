"""Choose where to cut a market in the search for lookahead, and give it other futures."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import cycle
from typing import Any, Literal, TypeAlias

import numpy as np

from backtest.base import BoolArray, FloatArray, IntArray
from backtest.base.units import DAY
from backtest.market import Market, Markets, as_given, as_markets, compute_once

CutKind: TypeAlias = Literal["any", "move", "change", "day"]

ORDER: tuple[CutKind, ...] = ("any", "move", "change", "day", "any", "change", "move", "any")
NEAR = 256
"""Cuts that are searched for one of a kind close by."""
SOME = 4096
"""Rows that the median of a column is taken of."""
LARGEST = 64
"""Number of the largest moves that are kept."""


class CutPlaces:
    def __init__(self, market: Market | Markets, columns: Mapping[str, FloatArray]) -> None:
        if isinstance(market, Market):
            self.close, digest = market.close, bytes.fromhex(market.close_hash)
            find = partial(find_largest_moves, self.close)
            self._largest = compute_once(market, "largest moves", find)
        else:
            self.close = follow_largest_moves(market)
            self._largest = find_largest_moves(self.close)
            digest = hashlib.sha256(self.close.data).digest()
        self.rng = np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))
        self.market = market
        self.columns = columns
        self.names = cycle(columns)
        self.kinds = cycle(ORDER)
        self._changes: dict[str, IntArray] = {}

    def draw(self, low: int, high: int) -> int:
        if high <= low:
            return low
        cuts = np.arange(low, min(high, low + NEAR) + 1)
        found = self._find(next(self.kinds), cuts)
        return self._choose(found if len(found) else cuts)

    def draw_anywhere(self, low: int, high: int, kind: CutKind) -> int:
        if kind == "move":
            inside = (self._largest >= low) & (self._largest <= high)
            if inside.any():
                place = int(inside.argmax())
                cut = int(self._largest[place])
                self._largest = np.delete(self._largest, place)
                return cut
        if kind == "change":
            changes = self._list_changes(next(self.names), low, high)
            if len(changes):
                return self._choose(changes)
        cut = int(self.rng.integers(low, high + 1))
        return min(high, self.draw(cut, min(high, cut + NEAR))) if kind == "day" else cut

    def _find(self, kind: CutKind, cuts: IntArray) -> IntArray:
        inner = cuts[(cuts > 1) & (cuts < self.market.n_bars)]
        if kind == "any" or len(inner) == 0:
            return cuts
        if kind == "move":
            close = self.close
            moves = np.abs(close[inner] / close[inner - 1] - 1.0)
            is_largest: BoolArray = moves == moves.max()
            return np.extract(is_largest, inner)
        if kind == "day":
            time = self.market.time
            is_first: BoolArray = time[inner] // DAY != time[inner - 1] // DAY
            return np.extract(is_first, inner)
        return self._list_changes(next(self.names), inner[0], inner[-1])

    def _choose(self, cuts: IntArray) -> int:
        return int(cuts[self.rng.integers(len(cuts))])  # that of rng.choice, and quicker

    def _list_changes(self, name: str, low: int, high: int) -> IntArray:
        if name not in self._changes:
            column = self.columns[name]
            now, before = column[1:], column[:-1]
            some = column[:: max(1, len(column) // SOME)]
            usual = np.median(some[~np.isnan(some)]) if not np.isnan(some).all() else 0.0
            is_change = (now != before) & (now != usual) & ~np.isnan(now)
            self._changes[name] = np.flatnonzero(is_change) + 2
        found = self._changes[name]
        return found[found.searchsorted(low) : found.searchsorted(high, "right")]


def follow_largest_moves(markets: Markets) -> FloatArray:
    """Return a price that moves as the instrument that moves most, of shape (n_bars,)."""
    moves = np.zeros(markets.n_bars)
    for market, (first, stop) in zip(markets.values(), markets.spans, strict=True):
        changes = np.abs(np.diff(np.log(market.close)))
        moves[first + 1 : stop] = np.maximum(moves[first + 1 : stop], changes)
    turns = np.where(np.arange(markets.n_bars) % 2 == 0, -1.0, 1.0)
    return np.exp(np.cumsum(moves * turns))


def find_largest_moves(close: FloatArray) -> IntArray:
    if len(close) < 3:
        return np.empty(0, dtype=np.int64)
    moves = np.abs(close[2:] / close[1:-1] - 1.0)
    some = np.argpartition(-moves, min(LARGEST, len(moves) - 1))[:LARGEST]
    order = some[np.argsort(-moves[some], kind="stable")]
    found: IntArray = order.astype(np.int64) + 2
    return found


def rewrite_future(market: Market | Markets, t: int, rng: np.random.Generator) -> Market | Markets:
    markets = as_markets(market)
    changed = {
        name: rewrite_after(markets[name], max(0, t - int(first)), rng)
        for name, (first, stop) in zip(markets.names, markets.spans, strict=True)
        if t + 1 < stop
    }
    rewritten: Market | Markets = as_given(markets.with_markets(changed), market)
    return rewritten


def make_futures(market: Market, t: int, rng: np.random.Generator) -> Iterator[tuple[str, Market]]:
    yield "when the market ends with bar", market.prefix(t + 1)
    yield "when other bars follow bar", rewrite_after(market, t, rng)


def rewrite_after(market: Market, t: int, rng: np.random.Generator) -> Market:
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
