"""Checks of scale: mark prices of another contract, funding rates in per cent."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from backtest.base import BoolArray, FloatArray, IntArray, format_time
from backtest.base.units import DAY, HOUR
from backtest.market.tables.bar_checks import is_price
from backtest.market.tables.defects import Defect
from backtest.market.tables.settlements import cadence
from backtest.market.tables.timed_table import TimedTable

FURTHEST_MARK = 0.20
"""How far marks may be from last prices at the median of a stretch, as a fraction. On hourly BTC,
ETH and LTC perpetuals of 2019 to 2023 the largest median of 48 bars is 0.2 %."""

STRETCH = 1000
"""Bars in a stretch."""

FEWEST = 24
"""The fewest bars with marks that are checked: fewer may all lie in one crash."""

HIGHEST_RATE = 0.005
"""The largest median size of funding rates per 8 hours over 20 days, as a fraction: 548 % a year.
On the same perpetuals the largest is 0.16 %, in the spring of 2021."""

PERIOD = 20 * DAY
"""The time over which the median of rates is taken: a squeeze ends sooner."""

ONE_SIDED = 0.75
"""The share of a stretch's rates with the same sign from which the stretch is checked. Markets lean
to one side for weeks; rates generated as noise around 0 do not, whatever their size."""

_USUAL = 8 * HOUR


class Scale(NamedTuple):
    value: float
    first: int
    rows: int
    is_long: bool


def compare_prices(last: FloatArray, other: FloatArray) -> Scale | None:
    rows = np.flatnonzero(is_price(last) & is_price(other))
    if not rows.size:
        return None
    ratio = np.log(other[rows]) - np.log(last[rows])
    found = _furthest(ratio, np.arange(rows.size) // STRETCH, max(rows.size // STRETCH, 1))
    is_long = rows.size >= FEWEST
    return Scale(math.exp(found.value), int(rows[found.first]), found.rows, is_long)


def measure_rates(time: IntArray, rate: FloatArray) -> Scale | None:
    """Return the size of the median rate per 8 hours, in the 20 days in which it is largest.

    ``time`` holds increasing stamps (UTC ns), ``rate`` fractions per settlement; rates that are not
    finite are left out. None if there is no rate; not long enough if the rates span less than 20
    days. Stretches in which fewer than ``ONE_SIDED`` of the rates have the same sign count as 0.
    """
    rows = np.flatnonzero(np.isfinite(rate))
    if not rows.size:
        return None
    every = cadence(time)
    since = time[rows] - time[rows[0]]
    periods = int((since[-1] + every) // PERIOD)
    scaled = rate[rows] * (_USUAL / every)
    found = _furthest(scaled, since // PERIOD, max(periods, 1), one_sided=ONE_SIDED)
    return found._replace(value=abs(found.value), first=int(rows[found.first]), is_long=periods > 0)


def _furthest(
    values: FloatArray, group: IntArray, n_groups: int, *, one_sided: float = 0.0
) -> Scale:
    group = np.minimum(group, n_groups - 1)
    edges = np.searchsorted(group, np.arange(n_groups + 1))
    best = Scale(0.0, 0, len(values), is_long=True)
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        median = float(np.median(values[low:high])) if high > low else 0.0
        share = float(np.mean(values[low:high] * median > 0.0)) if median else 0.0
        if abs(median) > abs(best.value) and share >= one_sided:
            best = Scale(median, low, high - low, is_long=True)
    return best


def distance(ratio: float) -> float:
    """Return how far a ratio of prices is from 1, as a fraction of the lower one."""
    return max(ratio, 1.0 / ratio) - 1.0


def mark_scale_defects(bars: TimedTable, present: BoolArray, mark: TimedTable) -> Iterator[Defect]:
    """Yield a defect if mark prices are on another scale than last prices.

    ``mark`` holds the mark bars of the bars that are ``present``, of shape (n_bars,).
    """
    found = compare_prices(bars.columns["close"][present], mark.columns["close"])
    if found is None or not found.is_long or distance(found.value) <= FURTHEST_MARK:
        return
    yield Defect(
        f"mark prices must stay within {FURTHEST_MARK:.0%} of last prices, were {found.value:.4g} "
        f"times the last price at the median of {found.rows} bars ({mark.name}, from "
        f"{format_time(int(mark.time[found.first]))} UTC): of another instrument, currency or "
        "scale?"
    )


def rate_scale_defects(funding: TimedTable) -> Iterator[Defect]:
    """Yield a defect if rates are not fractions per settlement; the stamps are in order."""
    rate = funding.columns.get("rate")
    found = None if rate is None else measure_rates(funding.time, rate)
    if found is None or not found.is_long or found.value < HIGHEST_RATE:
        return
    yield Defect(
        "funding rates must be fractions per settlement, 0.0001 is 0.01 %: their median was "
        f"{found.value:.3g} in size per 8 hours in {found.rows} settlements, "
        f"{found.value * 365 * DAY / _USUAL:.0%} a year ({funding.name}, from "
        f"{format_time(int(funding.time[found.first]))} UTC); divide by 100 if they are in per "
        "cent, by the settlements of a year if they are annual"
    )
