"""The rules for times, prices, volume and funding rates, checked on whole arrays."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from backtest.base import BoolArray, FloatArray, IntArray, format_duration, format_time
from backtest.base.units import DAY
from backtest.market.tables.defects import Defect, locate_rows
from backtest.market.tables.timed_table import PRICES, TimedTable, distinct, is_increasing

DOWNLOAD = "download those bars again"
_MONDAY = 4 * DAY  # 1970-01-05; the epoch was a Thursday


def grid_origin(length: int) -> int:
    """Return a time at which bars of ``length`` ns begin: weeks begin on Monday."""
    return _MONDAY if length % (7 * DAY) == 0 else 0


def spacing(time: IntArray) -> int | None:
    """Return the most common positive gap between sorted times in ns, the smallest of equals."""
    gaps = np.diff(time)
    if gaps.size and gaps[0] > 0 and (gaps == gaps[0]).all():
        return int(gaps[0])
    gaps, counts = np.unique(gaps[gaps > 0], return_counts=True)
    return int(gaps[counts.argmax()]) if gaps.size else None


def order_defects(table: TimedTable, noun: str) -> Iterator[Defect]:
    time = table.time
    if is_increasing(time):
        return
    backwards = np.flatnonzero(np.diff(time) < 0)
    if backwards.size:
        yield Defect(
            f"{noun} must be in order of time, {backwards.size} of {time.size} came before the one "
            f"above ({locate_rows(table.name, time[backwards + 1])}); frame.sort_index(), or "
            "repair='sort'"
        )
    ordered = np.sort(time)
    twice = np.flatnonzero(np.diff(ordered) == 0)
    if twice.size:
        yield Defect(
            f"{noun} must have each time once, {twice.size} of {time.size} are duplicates "
            f"({locate_rows(table.name, ordered[twice])}); frame[~frame.index.duplicated()], or "
            "repair='drop-duplicates' (=first or =last where they differ)"
        )


def spacing_defects(table: TimedTable, interval: int, *, sessions: bool) -> Iterator[Defect]:
    time = distinct(table.time)
    near = np.diff(time, prepend=time[0] - interval) < interval
    odd = near if sessions else _off_grid(time, interval)
    if odd.any():
        yield Defect(
            f"bars must open {'at least ' * sessions}{format_duration(interval)} apart, "
            f"{np.count_nonzero(odd)} of {time.size} open at other times "
            f"({locate_rows(table.name, time[odd])}); give interval= if they are of another length"
        )
    regular = time[~odd]
    holes = np.flatnonzero(np.diff(regular) > interval)
    if holes.size and not sessions:
        yield _missing_bars(table, regular, holes, interval)


def _off_grid(time: IntArray, interval: int) -> BoolArray:
    if (np.diff(time) == interval).all():
        return np.zeros(time.size, dtype=np.bool_)
    phases, counts = np.unique(time % interval, return_counts=True)
    return np.asarray(time % interval != phases[counts.argmax()])


def price_defects(table: TimedTable, noun: str) -> Iterator[Defect]:
    cure = f"; {DOWNLOAD}, or cut them off with between="
    if noun:
        cure += ", or drop them and give mark_gaps='last'"
    valid = {}
    for name in PRICES:
        if name in table.columns:
            values = table.columns[name]
            valid[name] = is_price(values)
            rule = f"{noun}{name} must be positive and finite"
            yield from _value_defects(table, values, ~valid[name], rule, cure)
    if len(valid) == len(PRICES):
        sound = np.logical_and.reduce(list(valid.values()))
        yield from _range_defects(table, noun, sound)


def is_price(values: FloatArray) -> BoolArray:
    return np.asarray((values > 0) & (values < np.inf))


def volume_defects(table: TimedTable) -> Iterator[Defect]:
    if "volume" not in table.columns:
        return
    volume = table.columns["volume"]
    bad = ~((volume >= 0) & (volume < np.inf))
    cure = f"; {DOWNLOAD}"
    if np.isnan(volume).any():
        cure = "; bars['volume'].fillna(0.0), or repair='volume-gaps=zero'"
    cure += ", or drop the column"
    yield from _value_defects(table, volume, bad, "volume must not be negative or NaN", cure)


def rate_defects(table: TimedTable, largest: float) -> Iterator[Defect]:
    within = f"must lie within {largest:+.0%} and {-largest:+.0%}"
    rules = {
        "rate": f"funding rates {within} per settlement (0.0001 is 0.01 %)",
        "predicted": f"predicted rates {within} (0.0001 is 0.01 %), or be NaN",
        "mark": "the mark of a settlement must be positive, or NaN if unknown",
    }
    for name, rule in rules.items():
        values = table.columns.get(name)
        if values is not None:
            valid = is_price(values) if name == "mark" else np.abs(values) <= largest
            bad = ~(valid | (np.isnan(values) & (name != "rate")))
            yield from _value_defects(table, values, bad, rule, noun="settlements")


def _value_defects(
    table: TimedTable,
    values: FloatArray,
    bad: BoolArray,
    rule: str,
    cure: str = "",
    noun: str = "bars",
) -> Iterator[Defect]:
    rows = np.flatnonzero(bad)
    if rows.size:
        place = locate_rows(table.name, table.time[rows])
        yield Defect(
            f"{rule}, got {values[rows[0]]} in {rows.size} of {values.size} {noun} ({place}){cure}"
        )


def _range_defects(table: TimedTable, noun: str, sound: BoolArray) -> Iterator[Defect]:
    opens, highs, lows, closes = (table.columns[name] for name in PRICES)
    top, bottom = np.maximum(opens, closes), np.minimum(opens, closes)
    for name, least, values, bound, is_out, side in (
        ("high", "least", highs, top, highs < top, "under"),
        ("low", "most", lows, bottom, lows > bottom, "over"),
    ):
        rows = np.flatnonzero(sound & is_out)
        if rows.size:
            row = rows[0]
            yield Defect(
                f"{noun}{name} must be at {least} open and close, got {values[row]} {side} "
                f"{bound[row]} in {rows.size} of {values.size} bars "
                f"({locate_rows(table.name, table.time[rows])}); {DOWNLOAD}: a range that excludes "
                "its own prices hides liquidations"
            )


def _missing_bars(table: TimedTable, time: IntArray, holes: IntArray, interval: int) -> Defect:
    missing = int((np.diff(time)[holes] // interval - 1).sum())
    first, until = int(time[holes[0]]) + interval, int(time[holes[0] + 1])
    begin, end = int(time[holes[-1]]) + interval, int(time[holes[-1] + 1])
    last = f", last from {format_time(begin)} to {format_time(end)}" if holes.size > 1 else ""
    whole = max(np.split(time, holes + 1), key=len)
    gaps = f"{holes.size} gap{'s' if holes.size > 1 else ''}"
    span = name_span(int(whole[0]), int(whole[-1]) + interval)
    return Defect(
        f"bars must follow each other every {format_duration(interval)}, {missing} missing in "
        f"{gaps} ({table.name}, first gap from {format_time(first)} to {format_time(until)}{last} "
        f"UTC); download them, or take the longest whole stretch, {span}, or give sessions=True if "
        "the market was closed then"
    )


def name_span(start: int, end: int) -> str:
    return f"between={(format_time(start), format_time(end))}"
