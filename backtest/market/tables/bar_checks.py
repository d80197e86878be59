"""The rules that bars and mark bars must keep, checked on arrays, all at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from backtest.base.units import DAY, FloatArray, IntArray, format_duration, format_time
from backtest.market.tables.defects import Defect
from backtest.market.tables.frames import PRICES, TimedTable, distinct, is_increasing

BoolArray = npt.NDArray[np.bool_]

_MONDAY = 4 * DAY  # 1970-01-05; the epoch was a Thursday


def grid_origin(length: int) -> int:
    """Return a time at which bars of ``length`` ns begin: weeks begin on Monday."""
    return _MONDAY if length % (7 * DAY) == 0 else 0


def spacing(time: IntArray) -> int | None:
    """Return the commonest positive gap between sorted times in ns, the smallest of equals.

    None where there are not two different times.
    """
    gaps = np.diff(time)
    if gaps.size and gaps[0] > 0 and (gaps == gaps[0]).all():
        return int(gaps[0])
    gaps, counts = np.unique(gaps[gaps > 0], return_counts=True)
    return int(gaps[counts.argmax()]) if gaps.size else None


def order_defects(table: TimedTable, noun: str) -> Iterator[Defect]:
    """Yield what is wrong with the order of times: not sorted, the same time twice."""
    time = table.time
    if is_increasing(time):
        return
    backwards = np.flatnonzero(np.diff(time) < 0)
    if backwards.size:
        yield Defect(
            f"{noun} must be in order of time",
            f"{backwards.size} of {time.size} came before the one above",
            _place(table, backwards[0] + 1),
            "sort them: frame.sort_index()",
        )
    ordered = np.sort(time)
    twice = np.flatnonzero(np.diff(ordered) == 0)
    if twice.size:
        yield Defect(
            f"{noun} must have each time once",
            f"{twice.size} of {time.size} are duplicates",
            f"{table.name}, first at {format_time(int(ordered[twice[0]]))} UTC",
            "keep one of each: frame[~frame.index.duplicated()]",
        )


def spacing_defects(table: TimedTable, interval: int, *, sessions: bool) -> Iterator[Defect]:
    """Yield what is wrong with the distance between bars: missing, or off the grid."""
    time = distinct(table.time)
    odd = _too_near(time, interval) if sessions else _off_grid(time, interval)
    if odd.any():
        yield Defect(
            f"bars must open {'at least ' * sessions}{format_duration(interval)} apart",
            f"{np.count_nonzero(odd)} of {time.size} open at other times",
            f"{table.name}, first at {format_time(int(time[odd][0]))} UTC",
            "give interval= if the bars are of another length; otherwise download them again",
        )
    regular = time[~odd]
    holes = np.flatnonzero(np.diff(regular) > interval)
    if holes.size and not sessions:
        yield _missing_bars(table, regular, holes, interval)


def _too_near(time: IntArray, interval: int) -> BoolArray:
    return np.concatenate([[False], np.diff(time) < interval])


def _off_grid(time: IntArray, interval: int) -> BoolArray:
    """Return which times are not a whole number of intervals from most of the others."""
    if (np.diff(time) == interval).all():
        return np.zeros(time.size, dtype=np.bool_)
    phases, counts = np.unique(time % interval, return_counts=True)
    return np.asarray(time % interval != phases[counts.argmax()])


def price_defects(table: TimedTable, noun: str) -> Iterator[Defect]:
    """Yield what is wrong with prices: NaN, infinite, not positive, high or low inside the bar."""
    valid = {}
    for name in PRICES:
        if name in table.columns:
            values = table.columns[name]
            valid[name] = (values > 0) & (values < np.inf)
            cure = "download those bars again, or cut them off with between="
            if noun:
                cure += ", or drop them and give mark_gaps='last'"
            rule = f"{noun}{name} must be positive and finite"
            yield from _value_defects(table, values, ~valid[name], rule, cure)
    if len(valid) == len(PRICES):
        sound = np.logical_and.reduce(list(valid.values()))
        yield from _range_defects(table, noun, sound)


def volume_defects(table: TimedTable) -> Iterator[Defect]:
    """Yield what is wrong with volume: NaN, negative, infinite."""
    if "volume" not in table.columns:
        return
    volume = table.columns["volume"]
    bad = ~((volume >= 0) & (volume < np.inf))
    cure = (
        "fill it: bars['volume'].fillna(0.0), or drop the column: volume is then zero"
        if np.isnan(volume).any()
        else "download those bars again, or drop the column"
    )
    yield from _value_defects(table, volume, bad, "volume must not be negative or NaN", cure)


def rate_defects(table: TimedTable, largest: float) -> Iterator[Defect]:
    """Yield what is wrong with funding rates and the prices they settled on."""
    rate = table.columns.get("rate")
    if rate is not None:
        rule = f"funding rates must lie within {largest:+.0%} and {-largest:+.0%} per settlement"
        cure = "give fractions: 0.0001 is 0.01 %; a rate that is not known is a row to drop"
        bad = ~(np.abs(rate) <= largest)
        yield from _value_defects(table, rate, bad, rule, cure, noun="settlements")
    predicted = table.columns.get("predicted")
    if predicted is not None:
        rule = f"predicted rates must lie within {largest:+.0%} and {-largest:+.0%}, or be NaN"
        bad = ~(np.isnan(predicted) | (np.abs(predicted) <= largest))
        cure = "give fractions: 0.0001 is 0.01 %; write NaN where none was published"
        yield from _value_defects(table, predicted, bad, rule, cure, noun="settlements")
    mark = table.columns.get("mark")
    if mark is not None:
        rule = "the mark of a settlement must be positive, or NaN where it is not known"
        bad = ~(np.isnan(mark) | ((mark > 0) & (mark < np.inf)))
        cure = "write NaN where the price is not known"
        yield from _value_defects(table, mark, bad, rule, cure, noun="settlements")


def _value_defects(
    table: TimedTable, values: FloatArray, bad: BoolArray, rule: str, cure: str, noun: str = "bars"
) -> Iterator[Defect]:
    rows = np.flatnonzero(bad)
    if rows.size:
        found = f"was {values[rows[0]]} in {rows.size} of {values.size} {noun}"
        yield Defect(rule, found, _place(table, rows[0]), cure)


def _range_defects(table: TimedTable, noun: str, sound: BoolArray) -> Iterator[Defect]:
    opens, highs, lows, closes = (table.columns[name] for name in PRICES)
    cure = "download those bars again: a range that excludes its own prices hides liquidations"
    above = np.flatnonzero(sound & (highs < np.maximum(opens, closes)))
    if above.size:
        row = above[0]
        found = f"was {highs[row]} under {max(opens[row], closes[row])}"
        yield Defect(
            f"{noun}high must be at least open and close",
            f"{found} in {above.size} of {highs.size} bars",
            _place(table, row),
            cure,
        )
    below = np.flatnonzero(sound & (lows > np.minimum(opens, closes)))
    if below.size:
        row = below[0]
        found = f"was {lows[row]} over {min(opens[row], closes[row])}"
        yield Defect(
            f"{noun}low must be at most open and close",
            f"{found} in {below.size} of {lows.size} bars",
            _place(table, row),
            cure,
        )


def _missing_bars(table: TimedTable, time: IntArray, holes: IntArray, interval: int) -> Defect:
    missing = int((np.diff(time)[holes] // interval - 1).sum())
    first, until = int(time[holes[0]]) + interval, int(time[holes[0] + 1])
    edges = np.concatenate([[0], holes + 1, [time.size]])
    longest = int(np.diff(edges).argmax())
    whole = time[edges[longest] : edges[longest + 1]]
    return Defect(
        f"bars must follow each other every {format_duration(interval)}",
        f"{missing} missing in {holes.size} gap{'s' if holes.size > 1 else ''}",
        f"{table.name}, first gap from {format_time(first)} to {format_time(until)} UTC",
        f"download them; or take the longest whole stretch, "
        f"{span_text(int(whole[0]), int(whole[-1]) + interval)}; "
        "or give sessions=True if the market was closed then",
    )


def span_text(start: int, end: int) -> str:
    """Return a span of time as the argument that cuts it out, ``between=('…', '…')``."""
    return f"between=('{format_time(start)}', '{format_time(end)}')"


def _place(table: TimedTable, row: int | np.int64) -> str:
    return f"{table.name}, first at {format_time(int(table.time[row]))} UTC"
