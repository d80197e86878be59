"""Use of leverage: time at each level, returns that followed, and recovery after drawdowns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import FloatArray, IntArray, check_lengths, check_shape, checked
from backtest.base.units import DAY, TOLERANCE, YEAR_DAYS
from backtest.measures.history import find_falls
from backtest.measures.performance import LEAST_DEVIATION

if TYPE_CHECKING:
    import numpy.typing as npt

LEVELS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0)
"""Bounds of the table of time by leverage, in turns of wealth; one more row is above the last."""

BACK = 1.0 - 1e-6
"""Leverage is back at this fraction of its former level, so that rounding does not matter."""


@dataclass(frozen=True, eq=False, repr=False)
class LeverageProfile:
    """How leverage was used over a run.

    Leverage is the absolute leverage held over each bar, as a multiple of wealth, from the second
    bar of the account until its ruin. Returns are those of 1x in the direction of the signal.

    Attributes
    ----------
    mean, median : float
        Of leverage over bars.
    skew : float
        Third standardized moment of leverage: positive if it is mostly low and rarely high; NaN if
        it never changes.
    time_at : DataFrame
        See :func:`time_by_leverage`.
    next_by_leverage : DataFrame
        See :func:`group_by_leverage`.
    return_correlation, return_correlation_error : float
        Of leverage with the return of the period that follows, and its standard error.
    volatility_correlation, volatility_correlation_error : float
        Of leverage with the volatility realised in the period that follows.
    releveraging : DataFrame
        One row per drawdown: ``peak``, ``trough`` and ``recovery`` (the closes, NaT without one),
        ``depth``, ``leverage_before`` (the median before the peak), ``leverage_low``,
        ``days_back`` from the trough until leverage is back at that median, ``half_life_days``
        until it is halfway back; NaN if never.
    days_back, half_life_days : float
        Medians of those columns; infinite if most never came back, NaN without a drawdown.
    """

    mean: float
    median: float
    skew: float
    time_at: pd.DataFrame
    next_by_leverage: pd.DataFrame
    return_correlation: float
    return_correlation_error: float
    volatility_correlation: float
    volatility_correlation_error: float
    releveraging: pd.DataFrame
    days_back: float
    half_life_days: float

    def __repr__(self) -> str:
        return f"<LeverageProfile: mean {self.mean:.2f}, skew {self.skew:.2f}>"

    def __str__(self) -> str:
        lines = [
            f"leverage: mean {self.mean:.2f}, median {self.median:.2f}, skew {self.skew:.2f}",
            "correlation of leverage with what follows (standard error):",
            f"  return      {self.return_correlation:+.3f} ({self.return_correlation_error:.3f})",
            f"  volatility  {self.volatility_correlation:+.3f} "
            f"({self.volatility_correlation_error:.3f})",
            f"back after drawdowns, of which there were {len(self.releveraging)} (medians):",
            f"  half the way in {self.half_life_days:.1f} days, whole in {self.days_back:.1f}",
            "time spent at each leverage:",
        ]
        shares = self.time_at["share"].to_numpy()
        levels = ["none", *map(str, self.time_at.index[1:])]
        rows = (f"  {level:16}{s:8.1%}" for level, s in zip(levels, shares, strict=True))
        return "\n".join([*lines, *rows])


class DrawdownEpisode(NamedTuple):
    peak: int
    trough: int
    recovery: int
    depth: float
    before: float
    low: float
    back: float
    half: float


def skewness(values: FloatArray) -> float:
    if len(values) == 0:
        return math.nan
    step = values - np.mean(values)
    deviation = float(np.sqrt(np.mean(np.square(step))))
    if deviation < LEAST_DEVIATION:
        return math.nan
    return float(np.mean((step / deviation) ** 3))


def time_by_leverage(leverage: FloatArray, days: float) -> pd.DataFrame:
    bounds = np.array([-math.inf, *LEVELS, math.inf])
    row = np.searchsorted(bounds[1:-1], leverage, side="left")
    count = np.bincount(row, minlength=len(bounds) - 1)
    kept = slice(0, int(row.max(initial=0)) + 1)
    index = pd.IntervalIndex.from_breaks(bounds, name="leverage")[kept]
    share = count / max(len(leverage), 1)
    columns = {"bars": count[kept], "days": share[kept] * days, "share": share[kept]}
    return pd.DataFrame(columns, index=index)


def pair_with_next(
    leverage: FloatArray, move: FloatArray, horizon: int, bars_per_year: float
) -> pd.DataFrame:
    """Return leverage at the start of each period, with the return and volatility within it.

    ``leverage`` (n_bars,) is held over each bar and decided before it; ``move`` (n_bars,) is the
    simple return of 1x. A period has ``horizon`` bars. Periods do not overlap, and an incomplete
    last one is left out. Columns ``leverage`` (of the first bar), ``next_return`` (compounded) and
    ``next_volatility`` (root mean square return, annualized).
    """
    n = len(move) // horizon
    inside = move[: n * horizon].reshape(n, horizon)
    return pd.DataFrame(
        {
            "leverage": leverage[: n * horizon : horizon],
            "next_return": np.prod(1.0 + inside, axis=1) - 1.0,
            "next_volatility": np.sqrt(np.mean(np.square(inside), axis=1) * bars_per_year),
        }
    )


def group_by_leverage(ahead: pd.DataFrame, groups: int) -> pd.DataFrame:
    edges = np.unique(ahead["leverage"].quantile(np.arange(1, groups) / groups))
    group = np.searchsorted(edges, ahead["leverage"].to_numpy(), side="left")
    parts = ahead.groupby(pd.Series(group, index=ahead.index, name="group"))
    returns = parts["next_return"]
    table = pd.DataFrame(
        {
            "leverage": parts["leverage"].mean(),
            "periods": returns.size(),
            "next_return": returns.mean(),
            "next_return_error": returns.std(ddof=1) / np.sqrt(returns.size()),
            "next_volatility": np.sqrt((ahead["next_volatility"] ** 2).groupby(group).mean()),
        }
    )
    return table.set_axis(pd.RangeIndex(1, len(table) + 1, name="group"))


def correlate(x: FloatArray, y: FloatArray) -> tuple[float, float]:
    """Return the correlation of two series and its standard error; NaN if one is constant.

    Notes
    -----
    ``(1 - rho^2) sqrt((1 + 2 sum_k (1 - k / n) rho_x(k) rho_y(k)) / n)`` over lags k up to
    2 sqrt(n): two persistent series contain fewer than n independent observations. Source:
    Bartlett (1935), Some Aspects of the Time-Correlation Problem, J. Royal Statistical Society 98.
    """
    n = len(x)
    if n < 3 or min(np.std(x), np.std(y)) < LEAST_DEVIATION:
        return math.nan, math.nan
    x, y = (x - np.mean(x)) / np.std(x), (y - np.mean(y)) / np.std(y)
    rho = float(np.mean(x * y))
    lags = np.arange(1, min(int(2.0 * math.sqrt(n)), n - 1) + 1)
    both = [float(np.sum(x[k:] * x[:-k]) * np.sum(y[k:] * y[:-k])) / n**2 for k in lags]
    inflation = max(1.0 + 2.0 * float(np.sum((1.0 - lags / n) * both)), 1.0)
    return rho, (1.0 - rho * rho) * math.sqrt(inflation / n)


def find_episodes(
    leverage: FloatArray, unit: FloatArray, first_peak: float, depth: float, window: int
) -> list[DrawdownEpisode]:
    peak = np.maximum.accumulate(np.maximum(unit, first_peak))
    fall = 1.0 - unit / peak
    return [
        _build_episode(leverage, fall, start, stop, window)
        for start, stop in np.transpose(find_falls(fall)).tolist()
        if fall[start:stop].max() >= depth
    ]


def _build_episode(
    leverage: FloatArray, fall: FloatArray, start: int, stop: int, window: int
) -> DrawdownEpisode:
    under = fall[start:stop]
    trough = start + int(np.argmax(under >= under.max() * (1.0 - TOLERANCE)))
    held = leverage[max(start - window, 0) : start]
    before = float(np.median(held)) if len(held) else math.nan
    later = leverage[trough + 1 :]
    low = float(np.min(leverage[start : trough + 2]))
    return DrawdownEpisode(
        peak=start - 1,
        trough=trough,
        recovery=stop if stop < len(fall) else -1,
        depth=float(fall[trough]),
        before=before,
        low=low,
        back=_bars_until(later, before),
        half=_bars_until(later, low + 0.5 * (before - low)),
    )


def _bars_until(leverage: FloatArray, level: float) -> float:
    reached = np.flatnonzero(leverage >= level * BACK)
    return float(reached[0]) if len(reached) else math.nan


def tabulate_episodes(episodes: list[DrawdownEpisode], closes: IntArray) -> pd.DataFrame:
    """Return episodes as a table of times and days; ``closes`` are the bars' ends in ns."""
    table = pd.DataFrame(episodes, columns=list(DrawdownEpisode._fields))
    acted = table["trough"].to_numpy(dtype=np.int64) + 1
    days = {
        name: _time_at(closes, acted + table.pop(column)) - _time_at(closes, acted)
        for name, column in (("days_back", "back"), ("half_life_days", "half"))
    }
    for name in ("peak", "trough", "recovery"):
        row = table[name].to_numpy(dtype=np.int64)
        stamps = np.where(row >= 0, closes[np.maximum(row, 0)], pd.NaT.value)
        table[name] = pd.DatetimeIndex(stamps.view("datetime64[ns]"), tz="UTC")
    renamed = table.rename(columns={"before": "leverage_before", "low": "leverage_low"})
    return renamed.assign(**days)


def _time_at(closes: IntArray, row: npt.ArrayLike) -> FloatArray:
    rows = np.asarray(row, dtype=np.float64)
    days: FloatArray = np.interp(rows, np.arange(len(closes)), (closes - closes[0]) / DAY)
    return days


@checked
def profile_leverage(
    leverage: FloatArray,
    move: FloatArray,
    unit: FloatArray,
    closes: IntArray,
    *,
    first_peak: float,
    horizon: int,
    groups: int,
    depth: float,
    window: int,
) -> LeverageProfile:
    """Return how leverage was used.

    Parameters
    ----------
    leverage, move, unit : array of shape (n_bars,)
        Absolute leverage held over each bar, return of 1x over it, unit value at its close.
    closes : array of shape (n_bars,)
        Ends of the bars, in ns.
    first_peak : float
        The highest unit value before the first bar.
    horizon, groups : int
        Bars of a period; number of quantile groups of leverage.
    depth, window : float, int
        Least drawdown to count, and the bars up to its peak whose median leverage is the former
        level.
    """
    check_shape("closes", closes, (-1,), where="profile_leverage")
    check_lengths(closes=closes, leverage=leverage, move=move, unit=unit, where="profile_leverage")
    days = (closes[-1] - closes[0]) / DAY * len(closes) / max(len(closes) - 1, 1)
    bars_per_year = len(closes) / max(days, LEAST_DEVIATION) * YEAR_DAYS
    ahead = pair_with_next(leverage, move, horizon, bars_per_year)
    used, returns, volatility = (column for _, column in ahead.items())
    rho_return, error_return = correlate(used.to_numpy(), returns.to_numpy())
    rho_volatility, error_volatility = correlate(used.to_numpy(), volatility.to_numpy())
    table = tabulate_episodes(find_episodes(leverage, unit, first_peak, depth, window), closes)
    medians = {
        name: float(table[name].fillna(math.inf).median())
        for name in ("days_back", "half_life_days")
    }
    return LeverageProfile(
        mean=float(np.mean(leverage)),
        median=float(np.median(leverage)),
        skew=skewness(leverage),
        time_at=time_by_leverage(leverage, days),
        next_by_leverage=group_by_leverage(ahead, groups),
        return_correlation=rho_return,
        return_correlation_error=error_return,
        volatility_correlation=rho_volatility,
        volatility_correlation_error=error_volatility,
        releveraging=table,
        **medians,
    )
