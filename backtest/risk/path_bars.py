"""Bars of paths, and the markets that they are behind history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from backtest import core
from backtest.market import Market, trust_fields

PRICES = ("open", "high", "low", "close")
MARKS = tuple(f"mark_{name}" for name in PRICES)


class PathBars(NamedTuple):
    """The bars of some paths.

    ``prices`` and ``marks`` have the rows open, high, low, close and shape (4, n_paths, width);
    ``volume`` and ``rows``, of history, that resampled bars repeat (-1 for other models), have
    shape (n_paths, width), ``rates`` of funding (n_paths, n_stamps).
    """

    prices: core.FloatArray
    marks: core.FloatArray
    volume: core.FloatArray
    rows: core.IntArray
    rates: core.FloatArray

    @property
    def close(self) -> core.FloatArray:
        """The closes, (n_paths, width)."""
        return np.asarray(self.prices[3])

    def select(self, part: slice) -> PathBars:
        """Return the bars of some paths."""
        fields = [field[..., part, :] for field in self]
        return PathBars(*fields)  # type: ignore[arg-type] # by field


class PathMarkets(NamedTuple):
    """Some paths of an instrument; ``rows`` has the arrays of all, (k, n), by field."""

    first: Market
    rows: dict[str, core.FloatArray]

    @property
    def n_bars(self) -> int:
        return int(self.rows["close"].shape[1])

    def pick(self, k: int) -> Market:
        """Return path k as a market."""
        arrays = {name: rows[k] for name, rows in self.rows.items()}
        return trust_fields(vars(self.first) | arrays)

    def join(self) -> Market:
        """Return all paths as one market, with arrays of shape (n, k)."""
        arrays = {name: rows.T for name, rows in self.rows.items()}
        return trust_fields(vars(self.first) | arrays)


def append_bars(
    market: Market,
    prices: core.FloatArray,
    marks: core.FloatArray,
    ahead: Mapping[str, Any],
    **changes: Any,
) -> Market:
    """Return a market that goes on: prices and marks (4, n), and other arrays by field.

    Columns keep their last value; ``changes`` are other fields.
    """
    later = dict(zip(PRICES, prices, strict=True))
    later |= dict(zip(MARKS, marks, strict=True))
    n_settlements = len(ahead["funding_time"])
    later["funding_mark"] = np.full(n_settlements, np.nan)
    later |= ahead

    fields = market.fields() | {"synthetic": True}
    for name, values in later.items():
        fields[name] = np.concatenate([fields[name], values])

    columns = {}
    n_bars = prices.shape[1]
    for name, values in market.columns.items():
        last = np.full(n_bars, values[-1])
        columns[name] = np.append(values, last)
    fields["columns"] = columns
    return Market(**fields | changes)


def bound_extremes(prices: core.FloatArray) -> core.FloatArray:
    """Put the highs and lows of bars (4, ...) beyond their opens and closes, in place."""
    first, high, low, close = prices
    highest = np.maximum(first, close)
    lowest = np.minimum(first, close)
    np.maximum(high, highest, out=high)
    np.minimum(low, lowest, out=low)
    return prices
