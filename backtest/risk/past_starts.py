"""Accounts that began on past days: how many were lost, and whether the market is calm today."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backtest import core
from backtest.core.units import DAY
from backtest.indicators import ewma_volatility, log_returns
from backtest.market import Market
from backtest.risk.path_drift import count_per_year
from backtest.risk.path_models import HALF_LIFE

PAST = ("history", "history_starts", "history_apart", "history_high", "history_worst_year")
YEAR = 365 * DAY
CALM = 0.75
"""Volatility of today over that of the last 365 days, under which a market is calm. There paths
forecast .147 and .188 came on unseen markets, since calm ends without a warning; the larger of
the paths' share and history's frequency was right within its error. On BTC, ETH and LTC of 2021 to
2023, years that calmed down, it was too high (docs/forecasts.md)."""
ONE_SIDED = 0.95
"""Confidence of the largest probability that starts apart leave possible."""


class PastStarts(NamedTuple):
    """Accounts that began at the days' first opens of history, ``times`` (n_starts,) in ns.

    ``firsts`` are their bars up to the first liquidation, ``losses`` up to the first liquidation or
    ruin, ``room`` the bars until the data end.
    """

    times: core.IntArray
    firsts: core.IntArray
    losses: core.IntArray
    room: core.IntArray
    has_marks: bool

    def summarize(self, bars: int, horizon: int) -> dict[str, float]:
        """Return the share lost within some bars, of those with so many, and the worst year.

        ``horizon`` is their time in ns: starts that lie so far apart have no bar in common. As many
        independent starts bound the probability from above.
        """
        is_whole = self.room >= bars
        times = self.times[is_whole]
        is_lost = self.losses[is_whole] < bars
        if len(times) == 0:
            return dict.fromkeys(PAST, math.nan)

        share = float(np.mean(is_lost))
        span = int(times[-1] - times[0] + DAY)
        apart = max(span // horizon, 1)
        _, high = bound_apart(share, apart)
        yearly = find_yearly_shares(times, is_lost)
        return {
            "history": share,
            "history_starts": len(times),
            "history_apart": apart,
            "history_high": high,
            "history_worst_year": max([share, *yearly]),
        }


def find_yearly_shares(times: core.IntArray, is_lost: core.BoolArray) -> core.FloatArray:
    """Return the share of accounts that are lost, for each year of starts.

    Accounts start at ``times`` (n,), in ns and a day apart, and ``is_lost`` (n,) says which are
    lost. A year is the 365 days from a start on; those that end after the last start are left out.
    """
    # The first start after each year.
    ends = np.searchsorted(times, times + YEAR)
    last_end = times[-1] + DAY
    is_full = times + YEAR <= last_end

    # Counts in a year are differences of those so far.
    lost_before = np.concatenate([[0], np.cumsum(is_lost)])
    n_lost = lost_before[ends] - lost_before[:-1]
    n_starts = ends - np.arange(len(ends))
    shares = n_lost[is_full] / n_starts[is_full]
    return np.asarray(shares)


def measure_calm(history: Market) -> float:
    """Return the volatility of the last days over that of the last 365; NaN under a year of data.

    That of the last days has the half-life of the model ``Filtered``.
    """
    if history.end - history.time[0] < YEAR:
        return math.nan

    half_life = max(HALF_LIFE * DAY / history.interval, 1.0)
    volatility = ewma_volatility(history, half_life)
    today = float(volatility[-1])

    is_recent = history.time[1:] >= history.end - YEAR
    returns = log_returns(history)[1:]
    variance = float(np.mean(returns[is_recent] ** 2))
    if not variance > 0.0:
        return math.nan
    yearly_variance = variance * count_per_year(history)
    return today / math.sqrt(yearly_variance)


def bound_apart(share: float, apart: int) -> tuple[int, float]:
    """Return how many starts apart a share is, and the largest probability that they leave.

    That is the upper end of the one-sided 95 % interval of Clopper and Pearson.
    """
    hits = round(share * apart)
    if hits >= apart:
        return hits, 1.0
    misses = apart - hits
    high = core.sp.special.betaincinv(hits + 1, misses, ONE_SIDED)
    return hits, float(high)


def format_bound(chance: float) -> str:
    """Format a largest probability with two digits: the third is below what starts show."""
    return f"{100.0 * chance:.2g} %"


def describe_apart(hits: int, apart: int, high: float) -> str:
    return f"{hits:,} of {apart:,} apart: at most {format_bound(high)}"
