"""Single trades to bars; a stretch without trades has no bar."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from backtest.base.units import format_duration, format_time
from backtest.market.tables.bar_checks import grid_origin, order_defects
from backtest.market.tables.bar_groups import BarGroups
from backtest.market.tables.defects import Defect
from backtest.market.tables.frames import PRICES, TimedTable

WHOLE = 60
"""A bar at either end is complete if its first (last) trade is within this part of its end."""


def make_bars(
    trades: TimedTable, length: int | None
) -> tuple[TimedTable | None, list[Defect], dict[str, str]]:
    """Return the bars of ``length`` ns that trades make, the defects of the trades, and a note.

    ``trades`` has ``price`` and optionally ``size``, in order of time; times may repeat. A bar at
    either end is dropped, and noted, unless the trades fill it: unless its first (last) trade is
    within a 60th of the bar from its open (close).
    """
    defects = [*_trade_defects(trades, length)]
    if defects or length is None:
        return None, defects, {}
    price = trades.columns["price"]
    bucket = (trades.time - grid_origin(length)) // length
    first = np.flatnonzero(np.diff(bucket, prepend=bucket[0] - 1))
    groups = BarGroups(bucket[first] * length + grid_origin(length), first)
    columns = dict(zip(PRICES, groups.ohlc(price, price, price, price), strict=True))
    columns["volume"] = groups.total(trades.columns.get("size", np.zeros(price.size)))
    bars = TimedTable(trades.name, groups.time, columns)
    late = int(trades.time[0] - bars.time[0]) > length // WHOLE
    early = int(bars.time[-1] + length - trades.time[-1]) > length // WHOLE
    kept = bars.rows(slice(int(late), bars.time.size - int(early)))
    text = f"{int(late)} bar at the start and {int(early)} at the end dropped: not filled by trades"
    if not kept.time.size:
        return None, [_none_complete(trades, length)], {}
    return kept, [], {"trades": text} if late or early else {}


def _trade_defects(trades: TimedTable, length: int | None) -> Iterator[Defect]:
    if length is None:
        found = f"found {trades.time.size} trades"
        cure = "give the length of the bars: --resample 1h"
        yield Defect("trades must be made into bars", found, trades.name, cure)
        return
    yield from (each for each in order_defects(trades, "trades") if "order" in each.rule)
    price, size = trades.columns["price"], trades.columns.get("size", np.zeros(0))
    for name, values, is_valid, rule in (
        ("price", price, price > 0.0, "positive"),
        ("size", size, size >= 0.0, "zero or more"),
    ):
        rows = np.flatnonzero(~(is_valid & (values < np.inf)))
        if rows.size:
            found = f"got {values[rows[0]]} in {rows.size} of {values.size} trades"
            where = f"{trades.name}, first at {format_time(int(trades.time[rows[0]]))} UTC"
            cure = "download those trades again"
            yield Defect(f"{name} must be {rule} and finite", found, where, cure)


def _none_complete(trades: TimedTable, length: int) -> Defect:
    return Defect(
        f"trades must fill at least one bar of {format_duration(length)}",
        f"found {trades.time.size} trades from {format_time(int(trades.time[0]))} to "
        f"{format_time(int(trades.time[-1]))} UTC",
        trades.name,
        "choose shorter bars, or give more trades",
    )
