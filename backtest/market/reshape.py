"""A part of a market, and a market of longer bars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from backtest.base.units import FloatArray
from backtest.market.tables.bar_groups import BarGroups, group_bars, group_sessions
from backtest.market.tables.dividends import DIVIDEND
from backtest.market.tables.frames import PRICES
from backtest.market.tables.market_data import MarketData

MARK_PRICES = tuple(f"mark_{name}" for name in PRICES)


def cut_fields(
    data: MarketData, rows: slice, *, funding_from: int, end: int | None = None
) -> dict[str, Any]:
    """Return the fields of a market of some bars, at least one, and of the funding of their time.

    Settlements stamped from ``funding_from`` up to but not including ``end`` (UTC ns, by default
    the last close) are kept.
    """
    if end is None:
        end = int(data.time[rows][-1]) + data.interval
    low, high = np.searchsorted(data.funding_time, [funding_from, end])
    settled = slice(int(low), int(high))
    fields = data.fields()
    for name, value in fields.items():
        if isinstance(value, np.ndarray):
            fields[name] = value[settled if name.startswith("funding_") else rows]
    fields["columns"] = {name: values[rows] for name, values in data.columns.items()}
    return fields


def resample_data(data: MarketData, length: int) -> MarketData:
    """Return a market of bars of ``length`` ns, aligned to UTC, with the same funding.

    Raises ParameterError if length is not a multiple of the interval, or no group of bars is
    complete; in a market with sessions, if a bar reaches from one group into the next.
    """
    find = group_sessions if data.sessions else group_bars
    groups = find(data.time, data.interval, length)
    lead = int(groups.time[0]) - data.interval // 4
    end = int(groups.time[-1]) + length
    fields = cut_fields(data, slice(groups.first, groups.stop), funding_from=lead, end=end)
    last = groups.ohlc(*(fields[name] for name in PRICES))
    mark = groups.ohlc(*(fields[name] for name in MARK_PRICES)) if data.has_mark else last
    note = _describe_resampling(groups, fields["columns"])
    fields |= {
        **dict(zip(PRICES, last, strict=True)),
        **dict(zip(MARK_PRICES, mark, strict=True)),
        "interval": length,
        "time": groups.time,
        "volume": groups.total(fields["volume"]),
        "columns": {
            name: _combine(groups, name, values) for name, values in fields["columns"].items()
        },
        "filled": {**data.filled, **note},
    }
    return MarketData(**fields)


def _describe_resampling(groups: BarGroups, columns: Mapping[str, FloatArray]) -> dict[str, str]:
    """Return a note of the bars that were dropped, and of dividends that no open follows."""
    notes = [groups.note] if groups.note else []
    if DIVIDEND in columns and split_dividends(groups, columns[DIVIDEND])[1][-1] > 0.0:
        notes.append("dividends inside the last bar dropped, as no open follows them")
    return {"resample": "; ".join(notes)} if notes else {}


def _combine(groups: BarGroups, name: str, values: FloatArray) -> FloatArray:
    """Return the last value of each group; of dividends those due at its open."""
    if name != DIVIDEND:
        return groups.last(values)
    at_open, later = split_dividends(groups, values)
    due: FloatArray = at_open + np.append(0.0, later[:-1])
    return due


def split_dividends(groups: BarGroups, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the dividends of the first bar of each group, and the sum of those of its other bars.

    A longer bar is held from its open on, so the others are due at the open of the next one.
    """
    paid = np.nan_to_num(values)
    later = paid.copy()
    later[groups.starts] = 0.0
    return paid[groups.starts], groups.total(later)
