"""A part of a market, and a market of longer bars."""

from __future__ import annotations

from typing import Any

import numpy as np

from backtest.market.tables.bar_groups import group_bars, group_sessions
from backtest.market.tables.market_data import MarketData


def cut_data(
    data: MarketData, rows: slice, *, funding_from: int, end: int | None = None
) -> MarketData:
    """Return some bars of a market, at least one, and the funding of their time.

    Settlements stamped from ``funding_from`` up to but not including ``end`` (UTC ns, by default
    the last close) are kept.
    """
    if end is None:
        end = int(data.time[rows][-1]) + data.interval
    low, high = np.searchsorted(data.funding_time, [funding_from, end])
    settled = slice(int(low), int(high))
    changed: dict[str, Any] = {
        name: value[settled if name.startswith("funding_") else rows]
        for name, value in data.fields().items()
        if isinstance(value, np.ndarray)
    }
    columns = {name: values[rows] for name, values in data.columns.items()}
    return MarketData(**{**data.fields(), **changed, "columns": columns})


def resample_data(data: MarketData, length: int) -> MarketData:
    """Return a market of bars of ``length`` ns, aligned to UTC, with the same funding.

    Raises ParameterError if length is not a multiple of the interval, or no group of bars is
    complete; in a market with sessions, if a bar reaches from one group into the next.
    """
    find = group_sessions if data.sessions else group_bars
    groups = find(data.time, data.interval, length)
    lead = int(groups.time[0]) - data.interval // 4
    end = int(groups.time[-1]) + length
    kept = cut_data(data, slice(groups.first, groups.stop), funding_from=lead, end=end)
    last = groups.ohlc(kept.open, kept.high, kept.low, kept.close)
    mark = last
    if data.has_mark:
        mark = groups.ohlc(kept.mark_open, kept.mark_high, kept.mark_low, kept.mark_close)
    note = {"resample": groups.note} if groups.note else {}
    changed: dict[str, Any] = {
        **dict(zip(("open", "high", "low", "close"), last, strict=True)),
        **dict(zip(("mark_open", "mark_high", "mark_low", "mark_close"), mark, strict=True)),
        "interval": length,
        "time": groups.time,
        "volume": groups.total(kept.volume),
        "columns": {name: groups.last(values) for name, values in kept.columns.items()},
        "filled": {**data.filled, **note},
    }
    return MarketData(**{**kept.fields(), **changed})
