"""Repairs of market data: each is requested by name and leaves a note; none is a default."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from backtest.base import IntArray, ParameterError, did_you_mean, format_time
from backtest.base.units import MINUTE
from backtest.market.tables import PRICES, TimedTable, equal_or_nan, is_increasing


class Repair(NamedTuple):
    name: str
    way: str = ""

    def __str__(self) -> str:
        return f"{self.name}={self.way}" if self.way else self.name


class RepairKind(NamedTuple):
    ways: tuple[str, ...]
    text: str


KINDS: Mapping[str, RepairKind] = {
    "sort": RepairKind(("",), "sort rows by time"),
    "drop-duplicates": RepairKind(
        ("", "first", "last"),
        "keep one of equal rows; with =first or =last also of rows that differ",
    ),
    "settle-once": RepairKind(
        ("",), "keep the first of settlements under a minute apart at one rate"
    ),
    "zero-opens": RepairKind(
        ("previous-close",), "set an open of 0 to the close of the bar before it"
    ),
    "widen-range": RepairKind(("",), "widen high and low to include open and close"),
    "volume-gaps": RepairKind(("zero",), "treat missing volume as zero"),
    "bar-gaps": RepairKind(("flat",), "fill missing bars with the last close and no volume"),
    "mark-gaps": RepairKind(("last",), "use last prices for bars without a mark bar"),
    "funding-gaps": RepairKind(("zero",), "treat missing settlements as no payment"),
}

FILLING = frozenset({"zero_opens", "volume_gaps", "bar_gaps", "mark_gaps", "funding_gaps"})

MOST_FLAT = 10_000_000
"""The largest number of bars that is filled in."""


def split_notes(notes: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    filled = {name: how for name, how in notes.items() if name in FILLING}
    return filled, {name: how for name, how in notes.items() if name not in FILLING}


def parse_repairs(texts: Sequence[str]) -> tuple[Repair, ...]:
    repairs: list[Repair] = []
    for word in (word.strip() for text in texts for word in text.split(",")):
        name, _, way = word.partition("=")
        kind = KINDS.get(name)
        if kind is None or way not in kind.ways or name in {repair.name for repair in repairs}:
            known = [str(Repair(each, way)) for each, found in KINDS.items() for way in found.ways]
            near = did_you_mean(name, KINDS) if kind is None else ""
            raise ParameterError(
                f"a repair must be a known one, once each, got {word!r}{near}; there are "
                f"{', '.join(known)}"
            )
        repairs.append(Repair(name, way))
    return tuple(sorted(repairs, key=lambda repair: [*KINDS].index(repair.name)))


def apply_repairs(
    table: TimedTable,
    role: str,
    repairs: Sequence[Repair],
    interval: int | None,
    notes: dict[str, str],
) -> TimedTable:
    """Return a table after the repairs of its role, and note in ``notes`` what each changed.

    ``role`` is bars, mark or funding; ``interval`` is the length of a bar in ns, None if unknown.
    The key of a note is the repair's name with underscores.
    """
    for repair in repairs:
        apply = _REPAIRS.get((repair.name, role))
        if apply is None:
            continue
        before = table
        table, rows, times = apply(table, repair.way, interval)
        if rows:
            first = format_time(int(times[0]))
            note = f"{rows} of {before.time.size} in {role}, first at {first} UTC"
            key = repair.name.replace("-", "_")
            note = f"{repair.way}: {note}" if repair.way else note
            notes[key] = f"{notes[key]}; {note}" if key in notes else note
    return table


Repaired: TypeAlias = tuple[TimedTable, int, IntArray]


def _sort(table: TimedTable, _way: str, _interval: int | None) -> Repaired:
    moved = np.flatnonzero(np.diff(table.time) < 0)
    if not moved.size:
        return table, 0, table.time
    return table.rows(np.argsort(table.time, kind="stable")), moved.size, table.time[moved + 1]


def drop_duplicates(table: TimedTable, way: str, _interval: int | None) -> Repaired:
    if is_increasing(table.time):
        return table, 0, table.time
    order = np.argsort(table.time, kind="stable")
    time = table.time[order]
    again = np.concatenate([[False], time[1:] == time[:-1]])
    if way == "last":
        dropped = order[np.concatenate([again[1:], [False]])]
    elif way == "first":
        dropped = order[again]
    else:
        for values in table.columns.values():
            again[1:] &= equal_or_nan(values[order][1:], values[order][:-1])
        dropped = order[again]
    kept = np.setdiff1d(np.arange(time.size), dropped)
    return table.rows(kept), dropped.size, np.sort(table.time[dropped])


def _settle_once(table: TimedTable, _way: str, _interval: int | None) -> Repaired:
    rate = table.columns.get("rate")
    if rate is None or not is_increasing(table.time):
        return table, 0, table.time
    near = np.concatenate([[False], (np.diff(table.time) < MINUTE) & (rate[1:] == rate[:-1])])
    return table.rows(np.flatnonzero(~near)), int(near.sum()), table.time[near]


def _widen_range(table: TimedTable, _way: str, _interval: int | None) -> Repaired:
    if not table.has_prices:
        return table, 0, table.time
    opens, highs, lows, closes = (table.columns[name] for name in PRICES)
    high, low = np.maximum(highs, np.maximum(opens, closes)), np.minimum(lows, opens)
    low = np.minimum(low, closes)
    changed = (high > highs) | (low < lows)  # NaN is not a change: it stays a defect
    high, low = np.where(changed, high, highs), np.where(changed, low, lows)
    mended = table.with_columns(high=high, low=low)
    return mended, int(changed.sum()), table.time[changed]


def _fill_opens(table: TimedTable, _way: str, _interval: int | None) -> Repaired:
    if not {"open", "close"} <= {*table.columns} or not is_increasing(table.time):
        return table, 0, table.time
    opens, before = table.columns["open"], np.roll(table.columns["close"], 1)
    empty = opens == 0.0
    empty[:1] = False
    mended = table.with_columns(open=np.where(empty, before, opens))
    return mended, int(empty.sum()), table.time[empty]


def _fill_volume(table: TimedTable, _way: str, _interval: int | None) -> Repaired:
    volume = table.columns.get("volume")
    if volume is None:
        return table, 0, table.time
    empty = np.isnan(volume)
    mended = table.with_columns(volume=np.where(empty, 0.0, volume))
    return mended, int(empty.sum()), table.time[empty]


def _fill_bars(table: TimedTable, _way: str, interval: int | None) -> Repaired:
    if interval is None or "close" not in table.columns or not is_increasing(table.time):
        return table, 0, table.time
    gaps = np.diff(table.time)
    if (gaps % interval).any() or int((gaps // interval - 1).sum()) > MOST_FLAT:
        return table, 0, table.time
    time = np.arange(table.time[0], table.time[-1] + interval, interval)
    row = np.searchsorted(table.time, time, side="right") - 1
    is_new = table.time[row] != time
    flat = table.columns["close"][row]
    columns = {
        name: np.where(is_new, flat if name in PRICES else np.nan, values[row])
        for name, values in table.columns.items()
    }
    if "volume" in columns:
        columns["volume"] = np.where(is_new, 0.0, columns["volume"])
    return TimedTable(table.name, time, columns), int(is_new.sum()), time[is_new]


_REPAIRS: Mapping[tuple[str, str], Callable[[TimedTable, str, int | None], Repaired]] = {
    **{("sort", role): _sort for role in ("bars", "mark", "funding")},
    **{("drop-duplicates", role): drop_duplicates for role in ("bars", "mark", "funding")},
    ("settle-once", "funding"): _settle_once,
    ("zero-opens", "bars"): _fill_opens,
    ("widen-range", "bars"): _widen_range,
    ("widen-range", "mark"): _widen_range,
    ("volume-gaps", "bars"): _fill_volume,
    ("bar-gaps", "bars"): _fill_bars,
}
