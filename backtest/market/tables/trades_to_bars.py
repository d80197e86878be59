"""Single trades to bars; nothing is made up where nobody traded."""

from __future__ import annotations

import numpy as np

from backtest.base.units import FloatArray, format_duration, format_time
from backtest.market.tables.bar_checks import grid_origin, order_defects
from backtest.market.tables.defects import Defect
from backtest.market.tables.frames import TimedTable

WHOLE = 60
"""A bar at either end counts as whole where its first or last trade is within this part of it."""


def make_bars(
    trades: TimedTable, length: int | None
) -> tuple[TimedTable | None, list[Defect], dict[str, str]]:
    """Return open, high, low, close and volume of trades, by bars of ``length`` ns of UTC.

    Parameters
    ----------
    trades : TimedTable of n rows
        ``price`` and optionally ``size``, in order of time; several may have the same time.
    length : int or None
        Of a bar, ns.

    Returns
    -------
    TimedTable or None
        The bars in which somebody traded.
    list of Defect
        What is wrong with the trades.
    dict of str
        A note where a bar at either end was dropped because the trades do not fill it: its first
        (last) trade is further than a 60th of the bar from its open (close).
    """
    defects = _check(trades, length)
    if defects or length is None:
        return None, defects, {}
    price = trades.columns["price"]
    size = trades.columns.get("size", np.zeros(price.size))
    bucket = (trades.time - grid_origin(length)) // length
    first = np.flatnonzero(np.diff(bucket, prepend=bucket[0] - 1))
    last = np.append(first[1:], price.size) - 1
    bars = TimedTable(
        trades.name,
        bucket[first] * length + grid_origin(length),
        {
            "open": price[first],
            "high": np.maximum.reduceat(price, first),
            "low": np.minimum.reduceat(price, first),
            "close": price[last],
            "volume": np.add.reduceat(size, first),
        },
    )
    late = int(trades.time[0] - bars.time[0]) > length // WHOLE
    early = int(bars.time[-1] + length - trades.time[-1]) > length // WHOLE
    kept = bars.rows(slice(int(late), bars.time.size - int(early)))
    text = f"{int(late)} bar at the start and {int(early)} at the end dropped: not filled by trades"
    if not kept.time.size:
        return None, [_none_whole(trades, length)], {}
    return kept, [], {"trades": text} if late or early else {}


def _check(trades: TimedTable, length: int | None) -> list[Defect]:
    if length is None:
        return [
            Defect("trades must be made into bars", f"found {trades.time.size} trades",
                   trades.name, "say how long the bars are: --resample 1h"),
        ]  # fmt: skip
    disorder = [each for each in order_defects(trades, "trades") if "order" in each.rule]
    return [
        *disorder,
        *_check_values(trades, "price", trades.columns["price"], low=0.0, is_open=True),
        *_check_values(trades, "size", trades.columns.get("size"), low=0.0, is_open=False),
    ]


def _check_values(
    trades: TimedTable, name: str, values: FloatArray | None, *, low: float, is_open: bool
) -> list[Defect]:
    if values is None:
        return []
    good = ((values > low) if is_open else (values >= low)) & (values < np.inf)
    rows = np.flatnonzero(~good)
    if not rows.size:
        return []
    found = f"was {values[rows[0]]} in {rows.size} of {values.size} trades"
    rule = f"{name} must be {'positive' if is_open else 'zero or more'} and finite"
    where = f"{trades.name}, first at {format_time(int(trades.time[rows[0]]))} UTC"
    return [Defect(rule, found, where, "download those trades again")]


def _none_whole(trades: TimedTable, length: int) -> Defect:
    return Defect(
        f"trades must fill at least one bar of {format_duration(length)}",
        f"found {trades.time.size} trades from {format_time(int(trades.time[0]))} to "
        f"{format_time(int(trades.time[-1]))} UTC",
        trades.name,
        "choose shorter bars, or give more trades",
    )
