"""What tables of a market look like, by stated rules; nothing here changes or refuses data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from backtest.base.units import HOUR, MINUTE, FloatArray, IntArray, format_duration, format_time
from backtest.market.tables.align import FundingEvents, cut_funding, span_of
from backtest.market.tables.bar_checks import BoolArray
from backtest.market.tables.frames import PRICES, TimedTable, in_order
from backtest.market.tables.settlements import JITTER, cadence, missing_settlements, settled_once

MOST_MOVES = 20.0
"""Typical moves beyond which a price is an outlier."""

WINDOW = 201
"""Bars around one, whose median move is the typical one."""

SMALLEST_MOVE = 1e-4
WICK = 0.01
"""How far beyond the mark's range a wick of the last price is worth counting, a fraction."""

LISTED = 10
"""How many places of a kind are listed."""

OUTLIER_RULE = (
    f"a close over {MOST_MOVES:g} typical moves from the median of the three closes before and "
    "from that of the three after, or a high or low as far beyond its own open and close and its "
    f"neighbours; typical is the median |log return| of the {WINDOW} bars around, at least 1 bp"
)
WICK_RULE = f"last high or low over {WICK:.0%} beyond that of the mark"
STALE_RULE = "a mark that repeats its last close in all four prices while the last price moved"


@dataclass(frozen=True)
class Count:
    """How many rows, as a share of all, the longest run of them, and the first."""

    count: int
    share: float
    longest: int
    first: str | None


@dataclass(frozen=True)
class Stretch:
    """A stretch of time in which rows are missing, and how many."""

    start: str
    end: str
    missing: int


@dataclass(frozen=True)
class Gaps:
    """How many gaps there are, what they lack, and the first of them."""

    count: int
    missing: int
    longest: int
    first: tuple[Stretch, ...]


@dataclass(frozen=True)
class Outlier:
    """A price far from its neighbours: by how much (a fraction), in typical moves."""

    time: str
    price: str
    distance: float
    moves: float


@dataclass(frozen=True)
class Outliers:
    """How many there are by a rule, and the furthest."""

    rule: str
    count: int
    furthest: tuple[Outlier, ...]


@dataclass(frozen=True)
class Cadence:
    """A stretch of settlements that follow each other evenly."""

    every: str
    start: str
    end: str
    settlements: int


def count_rows(mask: BoolArray, time: IntArray) -> Count:
    """Return how many rows a mask holds, and where; ``time`` of the same shape."""
    rows = np.flatnonzero(mask)
    if not rows.size:
        return Count(0, 0.0, 0, None)
    breaks = np.flatnonzero(np.diff(rows) > 1)
    edges = np.concatenate([[-1], breaks, [rows.size - 1]])
    return Count(
        int(rows.size),
        float(rows.size / mask.size),
        int(np.diff(edges).max()),
        format_time(int(time[rows[0]])),
    )


def find_gaps(time: IntArray, interval: int) -> Gaps:
    """Return where bars are missing among increasing times; off-grid bars count as they lie."""
    steps = np.diff(time)
    rows = np.flatnonzero(steps > interval)
    missing = np.maximum(np.ceil(steps[rows] / interval).astype(np.int64) - 1, 1)
    first = tuple(
        Stretch(format_time(int(time[r]) + interval), format_time(int(time[r + 1])), int(m))
        for r, m in zip(rows[:LISTED], missing[:LISTED], strict=True)
    )
    return Gaps(int(rows.size), int(missing.sum()), int(missing.max(initial=0)), first)


def count_duplicates(table: TimedTable) -> tuple[int, int]:
    """Return how many rows repeat a time, and how many of those differ from the row they repeat."""
    order = np.argsort(table.time, kind="stable")
    again = np.flatnonzero(np.diff(table.time[order]) == 0) + 1
    differs = np.zeros(again.size, dtype=np.bool_)
    for values in table.columns.values():
        mine, other = values[order[again]], values[order[again - 1]]
        differs |= ~((mine == other) | (np.isnan(mine) & np.isnan(other)))
    return int(again.size), int(differs.sum())


def find_bad_prices(table: TimedTable) -> tuple[BoolArray, BoolArray]:
    """Return which bars have a price that is none, and which a range without its own prices."""
    prices = [table.columns[name] for name in PRICES if name in table.columns]
    bad = ~np.logical_and.reduce([(p > 0) & (p < np.inf) for p in prices])
    if len(prices) < len(PRICES):
        return bad, np.zeros_like(bad)
    opens, highs, lows, closes = prices
    odd = (highs < np.maximum(opens, closes)) | (lows > np.minimum(opens, closes))
    return bad, odd & ~bad


def find_flat(table: TimedTable) -> BoolArray:
    """Return which bars have one price only."""
    high, low = table.columns.get("high"), table.columns.get("low")
    if high is None or low is None:
        return np.zeros(table.time.size, dtype=np.bool_)
    return np.asarray(high == low)


def find_outliers(table: TimedTable) -> Outliers:
    """Return prices far from their neighbours, by :data:`OUTLIER_RULE`; the rows are in order."""
    if not {*PRICES} <= {*table.columns} or table.time.size < 7:
        return Outliers(OUTLIER_RULE, 0, ())
    opens, highs, lows, closes = (_log_of(table.columns[name]) for name in PRICES)
    typical = _typical_moves(closes)
    top, bottom = np.maximum(opens, closes), np.minimum(opens, closes)
    offsets = {
        "close": _from_neighbours(closes),
        "high": np.fmax(highs - np.maximum(top, _beside(highs, np.maximum)), 0.0),
        "low": np.fmin(lows - np.minimum(bottom, _beside(lows, np.minimum)), 0.0),
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
    """Return log prices, NaN where a price is none."""
    is_price = (prices > 0.0) & (prices < np.inf)
    return np.asarray(np.log(np.where(is_price, prices, np.nan)))


def _typical_moves(log_closes: FloatArray) -> FloatArray:
    moves = pd.Series(np.abs(np.diff(log_closes, prepend=np.nan)))
    rolled = moves.rolling(WINDOW, center=True, min_periods=1).median()
    return np.asarray(np.maximum(rolled.to_numpy(dtype=np.float64), SMALLEST_MOVE))


def _from_neighbours(x: FloatArray) -> FloatArray:
    """Return the way from the nearer of the medians of three before and three after."""
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


def _beside(x: FloatArray, choose: np.ufunc) -> FloatArray:
    """Return the larger (or smaller) of the neighbours; NaN at the ends."""
    sides = np.full(x.size, np.nan)
    sides[1:-1] = choose(x[:-2], x[2:])
    return sides


def find_wicks(bars: TimedTable, mark: TimedTable, rows: IntArray) -> FloatArray:
    """Return how far each bar's range reaches beyond its mark bar's, as a fraction, at least 0.

    ``rows`` are those of the bars, one for each mark bar.
    """
    above = _log_of(bars.columns["high"][rows]) - _log_of(mark.columns["high"])
    below = _log_of(mark.columns["low"]) - _log_of(bars.columns["low"][rows])
    return np.fmax(np.fmax(np.expm1(above), -np.expm1(-below)), 0.0)


def find_stale(bars: TimedTable, mark: TimedTable, rows: IntArray) -> BoolArray:
    """Return which mark bars repeat the last while the last price moved."""
    before = np.concatenate([[np.nan], mark.columns["close"][:-1]])
    same = np.logical_and.reduce([mark.columns[name] == before for name in PRICES])
    closes = bars.columns["close"][rows]
    moved = closes != np.concatenate([closes[:1], closes[:-1]])
    return np.asarray(same & moved)


# ----------------------------------------------------------------------------------- settlements


def list_cadences(time: IntArray) -> tuple[Cadence, ...]:
    """Return the stretches of even settlements, a missing one being no change; times in order."""
    once = settled_once(time)
    gaps = (np.diff(once) + MINUTE // 2) // MINUTE * MINUTE
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
            format_time(nearest_minute(once[rows[low]])),
            format_time(nearest_minute(once[rows[high - 1] + 1])),
            int(high - low),
        )
        for low, high in pairwise(starts.tolist())
    )


def nearest_minute(time: int | np.int64) -> int:
    """Return a stamp without the milliseconds that it is off, ns."""
    return (int(time) + MINUTE // 2) // MINUTE * MINUTE


def find_missing(funding: TimedTable) -> Gaps:
    """Return the settlements that are missing between those that are there; times in order."""
    once = settled_once(funding.time)
    holes = missing_settlements(once, int(once[0]), int(once[-1]) + 1)
    first = tuple(
        Stretch(format_time(nearest_minute(h.start)), format_time(nearest_minute(h.end)), h.missing)
        for h in holes[:LISTED]
    )
    lacking = [hole.missing for hole in holes]
    return Gaps(len(holes), sum(lacking), max(lacking, default=0), first)


def measure_offsets(time: IntArray) -> tuple[float, BoolArray]:
    """Return the furthest stamp from its boundary in seconds, and which are over a minute off.

    The boundary is the nearest whole hour, or whole cadence where that is shorter.
    """
    step = min(cadence(time), HOUR)
    offset = (time + step // 2) % step - step // 2
    return float(np.abs(offset).max() / 1e9), np.asarray(np.abs(offset) > JITTER)


def cover_bars(bars: TimedTable, funding: TimedTable, interval: int) -> tuple[float, int]:
    """Return the share of the bars' span that settlements cover, and the most in one bar."""
    span = span_of(bars, interval)
    events: FundingEvents = cut_funding(in_order(funding), span, interval)
    covered = events.covered
    share = max(covered.end - covered.start, 0) / (span.end - span.start)
    rows = np.searchsorted(bars.time, events.table.time + min(MINUTE, interval // 4), side="right")
    most = int(np.bincount(rows).max()) if rows.size else 0
    return float(min(share, 1.0)), most
