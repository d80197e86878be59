"""Findings about market data, each by a stated rule; nothing here changes or refuses data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from backtest.base import BoolArray, FloatArray, IntArray, format_duration, format_time
from backtest.base.units import HOUR, MINUTE
from backtest.market.tables.align import FundingEvents, select_funding, span_of
from backtest.market.tables.bar_checks import is_price
from backtest.market.tables.settlements import (
    JITTER,
    cadence,
    missing_settlements,
    nearest_minute,
    settled_once,
)
from backtest.market.tables.timed_table import PRICES, TimedTable, equal_or_nan, in_order

MOST_MOVES = 20.0
"""The distance, in typical moves, beyond which a price is an outlier."""

WINDOW = 201
"""The number of bars around a bar whose median move is the typical move."""

SMALLEST_MOVE = 1e-4
WICK = 0.01
"""The distance beyond the mark's range from which a wick is counted, as a fraction."""

LISTED = 10
"""How many findings of a kind are listed."""

OUTLIER_RULE = (
    f"a close over {MOST_MOVES:g} typical moves from the median of the three closes before and "
    "from that of the three after, or a high or low as far beyond its own open and close and its "
    f"neighbors; typical is the median |log return| of the {WINDOW} bars around, at least 1 bp"
)
WICK_RULE = f"last high or low over {WICK:.0%} beyond that of the mark"
STALE_RULE = "a mark that repeats its last close in all four prices while the last price moved"


@dataclass(frozen=True)
class Count:
    count: int
    share: float
    longest: int
    first: str | None
    last: str | None


@dataclass(frozen=True)
class MissingRows:
    start: str
    end: str
    missing: int


@dataclass(frozen=True)
class Gaps:
    count: int
    missing: int
    longest: int
    first: tuple[MissingRows, ...]


@dataclass(frozen=True)
class Outlier:
    """A price far from its neighbors; the distance as a fraction, and in typical moves."""

    time: str
    price: str
    distance: float
    moves: float


@dataclass(frozen=True)
class Outliers:
    rule: str
    count: int
    furthest: tuple[Outlier, ...]


@dataclass(frozen=True)
class Cadence:
    every: str
    start: str
    end: str
    settlements: int


def count_rows(mask: BoolArray, time: IntArray) -> Count:
    """Count the rows that a mask selects; ``time`` has the same shape."""
    rows = np.flatnonzero(mask)
    if not rows.size:
        return Count(0, 0.0, 0, None, None)
    breaks = np.flatnonzero(np.diff(rows) > 1)
    edges = np.concatenate([[-1], breaks, [rows.size - 1]])
    return Count(
        int(rows.size),
        float(rows.size / mask.size),
        int(np.diff(edges).max()),
        format_time(int(time[rows[0]])),
        format_time(int(time[rows[-1]])),
    )


def find_gaps(time: IntArray, interval: int) -> Gaps:
    steps = np.diff(time)
    rows = np.flatnonzero(steps > interval)
    missing = np.maximum(np.ceil(steps[rows] / interval).astype(np.int64) - 1, 1)
    first = tuple(
        MissingRows(format_time(int(time[r]) + interval), format_time(int(time[r + 1])), int(m))
        for r, m in zip(rows[:LISTED], missing[:LISTED], strict=True)
    )
    return Gaps(int(rows.size), int(missing.sum()), int(missing.max(initial=0)), first)


def count_duplicates(table: TimedTable) -> tuple[int, int]:
    order = np.argsort(table.time, kind="stable")
    again = np.flatnonzero(np.diff(table.time[order]) == 0) + 1
    differs = np.zeros(again.size, dtype=np.bool_)
    for values in table.columns.values():
        differs |= ~equal_or_nan(values[order[again]], values[order[again - 1]])
    return int(again.size), int(differs.sum())


def find_bad_prices(table: TimedTable) -> tuple[BoolArray, BoolArray]:
    prices = [table.columns[name] for name in PRICES if name in table.columns]
    bad = ~np.logical_and.reduce([is_price(values) for values in prices])
    if len(prices) < len(PRICES):
        return bad, np.zeros_like(bad)
    opens, highs, lows, closes = prices
    odd = (highs < np.maximum(opens, closes)) | (lows > np.minimum(opens, closes))
    return bad, odd & ~bad


def find_flat(table: TimedTable) -> BoolArray:
    high, low = table.columns.get("high"), table.columns.get("low")
    if high is None or low is None:
        return np.zeros(table.time.size, dtype=np.bool_)
    return np.asarray(high == low)


def find_outliers(table: TimedTable) -> Outliers:
    if not {*PRICES} <= {*table.columns} or table.time.size < 7:
        return Outliers(OUTLIER_RULE, 0, ())
    opens, highs, lows, closes = (_log_of(table.columns[name]) for name in PRICES)
    typical = _typical_moves(closes)
    top, bottom = np.maximum(opens, closes), np.minimum(opens, closes)
    offsets = {
        "close": _from_neighbors(closes),
        "high": np.fmax(highs - np.maximum(top, _neighbor(highs, np.maximum)), 0.0),
        "low": np.fmin(lows - np.minimum(bottom, _neighbor(lows, np.minimum)), 0.0),
    }
    found = [
        (float(abs(offset[row]) / typical[row]), name, int(row), float(offset[row]))
        for name, offset in offsets.items()
        for row in np.flatnonzero(np.abs(offset) > MOST_MOVES * typical)
    ]
    furthest = tuple(
        Outlier(format_time(int(table.time[row])), name, abs(math.expm1(offset)), moves)
        for moves, name, row, offset in sorted(found, reverse=True)[:LISTED]
    )
    return Outliers(OUTLIER_RULE, len(found), furthest)


def _log_of(prices: FloatArray) -> FloatArray:
    return np.asarray(np.log(np.where(is_price(prices), prices, np.nan)))


def _typical_moves(log_closes: FloatArray) -> FloatArray:
    moves = pd.Series(np.abs(np.diff(log_closes, prepend=np.nan)))
    rolled = moves.rolling(WINDOW, center=True, min_periods=1).median()
    return np.asarray(np.maximum(rolled.to_numpy(dtype=np.float64), SMALLEST_MOVE))


def _from_neighbors(x: FloatArray) -> FloatArray:
    far = np.full(x.size, np.nan)
    before = _middle(x[:-6], x[1:-5], x[2:-4])
    after = _middle(x[4:-2], x[5:-1], x[6:])
    since, until = x[3:-3] - before, x[3:-3] - after
    is_nearer = (np.abs(since) <= np.abs(until)) | np.isnan(since)  # NaN where either is
    far[3:-3] = np.where(is_nearer, since, until)
    return far


def _middle(a: FloatArray, b: FloatArray, c: FloatArray) -> FloatArray:
    middle: FloatArray = np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))
    return middle


def _neighbor(x: FloatArray, choose: np.ufunc) -> FloatArray:
    sides = np.full(x.size, np.nan)
    sides[1:-1] = choose(x[:-2], x[2:])
    return sides


def find_wicks(bars: TimedTable, mark: TimedTable, rows: IntArray) -> FloatArray:
    """Return how far each bar's range exceeds its mark bar's, as a fraction, at least 0."""
    above = _log_of(bars.columns["high"][rows]) - _log_of(mark.columns["high"])
    below = _log_of(mark.columns["low"]) - _log_of(bars.columns["low"][rows])
    return np.fmax(np.fmax(np.expm1(above), -np.expm1(-below)), 0.0)


def find_stale(bars: TimedTable, mark: TimedTable, rows: IntArray) -> BoolArray:
    before = np.concatenate([[np.nan], mark.columns["close"][:-1]])
    same = np.logical_and.reduce([mark.columns[name] == before for name in PRICES])
    closes = bars.columns["close"][rows]
    moved = closes != np.concatenate([closes[:1], closes[:-1]])
    return np.asarray(same & moved)


# ----------------------------------------------------------------------------------- settlements


def list_cadences(time: IntArray) -> tuple[Cadence, ...]:
    once = settled_once(time)
    gaps = nearest_minute(np.diff(once))
    if not gaps.size:
        return ()
    holes = {hole.start for hole in missing_settlements(once, int(once[0]), int(once[-1]) + 1)}
    whole = np.array([int(start) not in holes for start in once[:-1]])
    rows = np.flatnonzero(whole)
    if not rows.size:
        return ()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(gaps[rows])) + 1, [rows.size]])
    return tuple(
        Cadence(
            format_duration(int(gaps[rows[low]])),
            format_time(int(nearest_minute(once[rows[low]]))),
            format_time(int(nearest_minute(once[rows[high - 1] + 1]))),
            int(high - low),
        )
        for low, high in pairwise(starts.tolist())
    )


def find_missing(funding: TimedTable) -> Gaps:
    once = settled_once(funding.time)
    holes = missing_settlements(once, int(once[0]), int(once[-1]) + 1)
    first = tuple(
        MissingRows(
            format_time(nearest_minute(h.start)), format_time(nearest_minute(h.end)), h.missing
        )
        for h in holes[:LISTED]
    )
    lacking = [hole.missing for hole in holes]
    return Gaps(len(holes), sum(lacking), max(lacking, default=0), first)


def measure_offsets(time: IntArray) -> tuple[float, BoolArray]:
    step = min(cadence(time), HOUR)
    offset = (time + step // 2) % step - step // 2
    return float(np.abs(offset).max() / 1e9), np.asarray(np.abs(offset) > JITTER)


def cover_bars(bars: TimedTable, funding: TimedTable, interval: int) -> tuple[float, int]:
    span = span_of(bars, interval)
    events: FundingEvents = select_funding(in_order(funding), span, interval)
    covered = events.covered
    share = max(covered.end - covered.start, 0) / (span.end - span.start)
    rows = np.searchsorted(bars.time, events.table.time + min(MINUTE, interval // 4), side="right")
    most = int(np.bincount(rows).max()) if rows.size else 0
    return float(min(share, 1.0)), most
