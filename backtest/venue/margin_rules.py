"""Margin by rule: requirements that follow the market, in place of fixed rates per notional.

A rule gives m, the maintenance margin per unit of notional, at the close of each UTC day. The
multiplier of the venue's margin table is clip(m / rate, floor, cap), where the rate is the
maintenance rate of the lowest bracket in force; initial margin moves by the same ratio. What is
computed at a close is in force from the first open ``notice`` later, rises and falls alike; until m
is known the multiplier is ``floor``. A rise of the initial margin reduces no position: maintenance
calls or liquidates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from statistics import NormalDist
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import numpy as np

from backtest import core
from backtest.core import FloatArray, IntArray, Real, Value
from backtest.core.code_names import pd
from backtest.core.fields import NOT_NEGATIVE, OVER_ZERO, POSITIVE, SHARE
from backtest.core.units import DAY, HOUR
from backtest.market import Market, find_column

YEAR = 365
"""Days in a year of returns; a market of sessions has fewer, and the window holds more years."""
IN_FORCE, ANNOUNCED = "margin_multiplier", "announced_multiplier"
"""Columns that policies see at a venue with a rule, of the bar and known at its close."""


class DailyCloses(NamedTuple):
    """The UTC days of a market or of paths: when they are over (ns, (n_days,)) and log returns.

    A day whose last bars are missing is over at midnight. ``returns`` are of mark closes, (n_days,)
    or (n_days, n_paths), the first NaN. ``market`` is None for paths, which have no columns;
    ``rows`` (n_days,) are the bars that close the days.
    """

    time: IntArray
    rows: IntArray
    returns: FloatArray
    market: Market | None = None


def find_day_ends(time: IntArray, interval: int) -> tuple[IntArray, IntArray]:
    """Return the bars that close UTC days, and when these are over in ns, (n_days,) each.

    The last bar is one only if the bars reach the end of its day.
    """
    midnight = (time // DAY + 1) * DAY
    is_last = np.append(midnight[1:] > midnight[:-1], time[-1] + interval >= midnight[-1])
    rows = np.flatnonzero(is_last)
    return rows, np.maximum(time + interval, midnight)[rows]


def read_days(market: Market) -> DailyCloses:
    rows, ends = find_day_ends(market.time, market.interval)
    returns = np.full(len(rows), np.nan)
    returns[1:] = np.diff(np.log(market.mark_close[rows]))
    return DailyCloses(ends, rows, returns, market)


class DynamicMargin(Value, kw_only=True):
    """Base class of the rules.

    Parameters
    ----------
    floor, cap : float
        The least and the largest multiplier of the margin table.
    notice : str, optional
        Time between a day's close and the open from which its margin is in force, ``"1d"``.
        Default: none; the next open.
    """

    floor: Annotated[float, POSITIVE] = 1.0
    cap: Annotated[float, OVER_ZERO] = math.inf
    notice: Annotated[str | None, core.Duration()] = None

    is_of_volatility: ClassVar[bool] = False

    def faults(self) -> core.Faults:
        if self.cap < self.floor:
            yield "cap", f"must be at least floor, {self.floor:g}"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, where: str = "") -> Self:
        if cls is not DynamicMargin:
            return super().from_dict(data, where=where)
        kind: Any = find_kind(data)
        rule: Self = kind.from_dict(data, where=where)
        return rule

    def compute_levels(self, days: DailyCloses) -> FloatArray:
        """Return the margin per notional, m, at each day's close; NaN while it is not known.

        Of the shape of the returns: (n_days,), or (n_days, n_paths) of simulated paths.
        """
        raise NotImplementedError

    def find_factors(self, returns: FloatArray) -> FloatArray:
        """Return m per unit of daily volatility at each day's close, of the shape of returns."""
        raise NotImplementedError

    def scale_hours(self, time: IntArray) -> FloatArray:
        """Return the factor of m at times, (n,), which is known in advance."""
        return np.ones(len(time))

    def multiply(self, market: Market, rates: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the multipliers in force in each bar, and announced at its close, (n_bars,) each.

        ``rates`` are the maintenance rates of the lowest bracket in each bar.
        """
        days = read_days(market)
        levels = self.compute_levels(days)
        in_force = self.place(levels, days.time + self.delay, market.time, rates)
        announced = self.place(levels, days.time, market.time + market.interval, rates)
        return in_force, announced

    @property
    def delay(self) -> int:
        """Time from a day's close until its margin is in force, in ns."""
        if self.notice is None:
            return 0
        return core.parse_duration(self.notice)

    def place(
        self, levels: FloatArray, known: IntArray, time: IntArray, rates: FloatArray
    ) -> FloatArray:
        """Return the multipliers at times, (n, ...), of levels (n_days, ...) that are known then.

        ``rates`` (n,) are the maintenance rates of the lowest bracket.
        """
        newest = find_newest_levels(levels, known, time)
        scales = self.scale_hours(time) / rates
        # Transposed, so that the scale of a time holds for all paths.
        multipliers = (newest.T * scales).T
        clipped = np.clip(multipliers, self.floor, self.cap)
        return np.where(np.isnan(multipliers), self.floor, clipped)


def find_kind(data: Mapping[str, Any]) -> type[DynamicMargin]:
    """Return the rule that stored data are of, by a field that it alone has."""
    if isinstance(data, Mapping):
        for name, kind in KINDS.items():
            if name in data:
                return kind
    return Volatility


def find_newest_levels(levels: FloatArray, known: IntArray, time: IntArray) -> FloatArray:
    """Return the newest level known at each time, (n, ...); NaN before the first."""
    unknown = np.full((1, *levels.shape[1:]), np.nan)
    return np.concatenate([unknown, levels])[np.searchsorted(known, time, side="right")]


class Volatility(DynamicMargin):
    """m = q s sqrt(days): a quantile of the loss over some days.

    s is the volatility of daily log returns of the mark, with exponential weights. q is the
    quantile of a normal variable, or of all past returns over the volatility known before each,
    the larger side.

    Parameters
    ----------
    lambda_ : float
        Weight of a day over that of the next one.
    quantile : float
        The share of losses that the margin covers.
    days : float
        Days that a position needs to be closed.
    shape : str
        ``"empirical"`` or ``"normal"``, whose tails are too thin for coins.

    Examples
    --------
    >>> Volatility(quantile=0.995, floor=1.0, cap=10.0).override(lambda_=0.94).lambda_
    0.94
    """

    lambda_: Annotated[float, core.Range(0.5, 0.99999, "per day")] = 0.97
    quantile: Annotated[float, core.Range(0.5, 0.99999)] = 0.99
    days: Annotated[float, core.Range(0.01, 365.0, "days", log=True)] = 2.0
    shape: Annotated[str, core.Choice("empirical", "normal")] = "empirical"

    is_of_volatility: ClassVar[bool] = True

    def compute_levels(self, days: DailyCloses) -> FloatArray:
        """Return the margin per notional at each day's close; the first return makes it known."""
        return self.find_factors(days.returns) * self.compute_volatility(days.returns)

    def compute_volatility(self, returns: FloatArray) -> FloatArray:
        """Return the root of the weighted mean square of the returns so far, per day."""
        mean = pd.DataFrame(returns**2).ewm(alpha=1.0 - self.lambda_).mean()
        return np.asarray(np.sqrt(mean.to_numpy())).reshape(returns.shape)

    def find_factors(self, returns: FloatArray) -> FloatArray:
        """Return m per unit of daily volatility: a quantile of returns over volatility, scaled.

        The scale is sqrt(days), the time that a position takes to close. The quantile is that of
        the normal distribution, or the larger of both tails of all returns so far.
        """
        root = math.sqrt(self.days)
        if self.shape == "normal":
            return np.full(returns.shape, root * NormalDist().inv_cdf(self.quantile))

        # Each return over the volatility known before it; NaN where that is 0 or not known.
        volatility_before = self.compute_volatility(returns)[:-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = returns[1:] / volatility_before
        ratios = np.where(np.isfinite(ratios), ratios, np.nan)

        low = compute_expanding_quantile(ratios, 1.0 - self.quantile)
        high = compute_expanding_quantile(ratios, self.quantile)
        factors = np.full(returns.shape, np.nan)
        factors[1:] = root * np.maximum(-low, high)
        return factors


def compute_expanding_quantile(values: FloatArray, share: float) -> FloatArray:
    """Return at each day the quantile of the values up to it: (n_days,) or (n_days, n_paths).

    ``share`` is that of the quantile, 0.99 for example. NaN does not count. Simulated paths begin
    with the history that they have in common, so that is sorted once for all of them.
    """
    paths = values
    if values.ndim == 1:
        paths = values[:, None]
    n_common = count_common_days(paths)

    # A NaN after the history (a path without a volatility) would shift the ranks: rare, and slow.
    if np.isnan(paths[n_common:]).any():
        slow = pd.DataFrame(paths).expanding().quantile(share).to_numpy()
        return np.asarray(slow).reshape(values.shape)

    # Days of the history: one quantile for all paths.
    quantiles = np.empty_like(paths)
    history = paths[:n_common, 0]
    quantiles_of_history = pd.Series(history).expanding().quantile(share).to_numpy()
    quantiles[:n_common] = quantiles_of_history[:, None]

    # Days after it: the history with what each path has had since.
    sorted_history = np.sort(history[~np.isnan(history)])
    for day in range(n_common, len(paths)):
        since = paths[n_common : day + 1]
        quantiles[day] = find_joint_quantile(sorted_history, since, share)
    return quantiles.reshape(values.shape)


def count_common_days(paths: FloatArray) -> int:
    """Return on how many first days all paths, of shape (n_days, n_paths), have the same value."""
    first_path = paths[:, :1]
    is_same = (paths == first_path) | (np.isnan(paths) & np.isnan(first_path))
    is_common = is_same.all(axis=1)
    if is_common.all():
        return len(paths)
    return int(np.argmin(is_common))


def find_joint_quantile(sorted_history: FloatArray, since: FloatArray, share: float) -> FloatArray:
    """Return the quantile of a history and what came after it, of each path: (n_paths,).

    ``since`` has shape (n_days, n_paths). The quantile interpolates between the two values around
    its place, as NumPy's does.
    """
    n_since = len(since)
    place = share * (len(sorted_history) + n_since - 1)
    rank = math.floor(place)

    # New values can only push those of the history up, each by one place. So of the history only
    # those up to n_since places below the rank, and the one above it, may be the answer.
    lowest = max(rank - n_since, 0)
    near = sorted_history[lowest : rank + 2]
    near_of_paths = np.broadcast_to(near[:, None], (len(near), since.shape[1]))

    # ``lowest`` values of the history are left out, so places are counted from there.
    merged = np.sort(np.concatenate([near_of_paths, since]), axis=0)
    below = merged[rank - lowest]
    above = merged[min(rank + 1 - lowest, len(merged) - 1)]
    return np.asarray(below + (place - rank) * (above - below))


class OpenInterestTier(Value):
    """The margin per notional from an open interest on, in the unit of its column."""

    open_interest: Annotated[float, NOT_NEGATIVE]
    margin: Annotated[float, SHARE]


class OpenInterest(DynamicMargin):
    """m by the tier of the market's open interest.

    An open interest that is missing (NaN) is the last known one, as a venue keeps a tier until it
    knows better. Raises DataError if it is not known at the first day's close.

    Parameters
    ----------
    column : str
        A column of the market with the open interest at each close.
    tiers : sequence of OpenInterestTier
        The margin per notional from an open interest on, the lowest first.
    """

    column: Annotated[str, core.Text()]
    tiers: Annotated[Sequence[OpenInterestTier], core.AS_TUPLE]

    def faults(self) -> core.Faults:
        yield from super().faults()
        lows = [tier.open_interest for tier in self.tiers]
        if not lows or lows != sorted(set(lows)):
            yield "tiers", "must have one or more tiers of rising open_interest"

    def compute_levels(self, days: DailyCloses) -> FloatArray:
        """Return the margin per notional of the tier of open interest at each day's close.

        NaN below the lowest tier. Open interest that is missing is the last one known. Raises
        DataError if none is known at the first close.
        """
        if days.market is None:
            raise core.ParameterError(
                f"margin.column must be left out on simulated paths, which have no columns, got "
                f"{self.column!r}"
            )
        column = find_column(days.market, self.column, "margin.column")
        values = pd.Series(column).ffill().to_numpy()
        if np.isnan(values[days.rows[:1]]).any():
            known_from = days.market.end
            times = days.market.time[~np.isnan(values)]
            if len(times):
                known_from = times[0]
            raise core.DataError(
                f"the open interest in {self.column!r} must be known from the first day's close "
                f"on, got NaN until {core.format_time(int(known_from))}; fill it in, or begin the "
                "market there"
            )

        lows = []
        margins = [np.nan]
        for tier in self.tiers:
            lows.append(tier.open_interest)
            margins.append(tier.margin)
        tier_of_day = np.searchsorted(lows, values[days.rows], side="right")
        return np.array(margins)[tier_of_day]


class Rule(core.Declaration):
    def read(self, value: Any) -> Any:
        rule = value
        if isinstance(value, Mapping):
            rule = DynamicMargin.from_dict(value)
        if type(rule) not in KINDS.values():
            raise core.Fault("must be a rule of bt.margin_rules, such as Volatility()")
        return rule


class Wrapper(DynamicMargin):
    """Base of the rules that change another one; ``floor``, ``cap`` and ``notice`` are its own."""

    rule: Annotated[DynamicMargin, Rule()]

    needs_volatility: ClassVar[bool] = False

    @property
    def is_of_volatility(self) -> bool:  # type: ignore[override]
        return self.rule.is_of_volatility

    def faults(self) -> core.Faults:
        yield from super().faults()
        for field in fields(DynamicMargin):
            if getattr(self.rule, field.name) != field.default:
                yield f"rule.{field.name}", "must be given to the outermost rule"
        if self.needs_volatility and not self.rule.is_of_volatility:
            yield "rule", "must be of volatility, such as Volatility()"

    def compute_levels(self, days: DailyCloses) -> FloatArray:
        return self.rule.compute_levels(days)

    def find_factors(self, returns: FloatArray) -> FloatArray:
        return self.rule.find_factors(returns)

    def scale_hours(self, time: IntArray) -> FloatArray:
        return self.rule.scale_hours(time)


class Hours(Wrapper):
    """A margin that is higher at weekends and at night.

    Parameters
    ----------
    rule : DynamicMargin
        The rule whose m is multiplied.
    weekend, night : float
        The factors on Saturday and Sunday, and at night; the larger one where both apply.
    evening, morning : float
        The hours in UTC at which the night begins and ends.
    """

    weekend: Annotated[float, POSITIVE] = 1.5
    night: Annotated[float, POSITIVE] = 1.0
    evening: Annotated[float, Real(0, 24)] = 22.0
    morning: Annotated[float, Real(0, 24)] = 6.0

    def scale_hours(self, time: IntArray) -> FloatArray:
        """Return the factor on margin of each time, ns: at night and at weekends it is higher.

        The larger of the two counts where both hold, times the factor of the rule inside.
        """
        hours = time % DAY / HOUR
        is_weekend = (time // DAY + FIRST_WEEKDAY) % 7 >= SATURDAY

        # A night that ends in the morning of the next day has two parts of a day.
        is_evening = hours >= self.evening
        is_morning = hours < self.morning
        is_night = is_evening & is_morning
        if self.evening > self.morning:
            is_night = is_evening | is_morning

        by_day = np.where(is_weekend, self.weekend, 1.0)
        by_hour = np.where(is_night, self.night, 1.0)
        return self.rule.scale_hours(time) * np.maximum(by_day, by_hour)


FIRST_WEEKDAY, SATURDAY = 3, 5
"""Weekdays from Monday, 0: of 1970-01-01, where times begin, and of the first day of a weekend."""


class Buffer(Wrapper):
    """c = min(max(c of yesterday, m), (1 + share) m): a buffer that is used as margins rise.

    Source: Delegated Regulation (EU) 153/2013, Art. 28(1)(a): a buffer of at least 25 % of the
    margin, which may be exhausted when margins rise significantly.
    """

    share: Annotated[float, core.Range(0.0, 10.0)] = 0.25

    def compute_levels(self, days: DailyCloses) -> FloatArray:
        """Return the margin with its buffer, c, at each day's close; the first is m.

        As the margin m falls, c falls with it only down to (1 + share) m; as m rises, the buffer of
        yesterday is used before c rises.
        """
        levels = self.rule.compute_levels(days)
        buffered = np.empty_like(levels)
        yesterday = np.zeros(levels.shape[1:])
        for t, level in enumerate(levels):
            buffered[t] = np.minimum(np.maximum(yesterday, level), (1.0 + self.share) * level)
            # A level that is not known yet holds nothing up.
            yesterday = np.nan_to_num(buffered[t])
        return buffered


class Stressed(Wrapper):
    """(1 - weight) m + weight m of the worst window so far: the same quantile of its volatility.

    Source: Delegated Regulation (EU) 153/2013, Art. 28(1)(b): a weight of at least 25 % of stressed
    observations.

    Parameters
    ----------
    window : int
        Daily returns in the worst window; a shorter history has what there is, from two on.
    """

    weight: Annotated[float, SHARE] = 0.25
    window: Annotated[int, core.Whole(2)] = 30

    needs_volatility: ClassVar[bool] = True

    def compute_levels(self, days: DailyCloses) -> FloatArray:
        levels = self.rule.compute_levels(days)
        spread = measure_window(days.returns, self.window)
        worst = np.fmax.accumulate(spread) * self.find_factors(days.returns)
        worst = np.where(np.isnan(worst), levels, worst)
        return (1.0 - self.weight) * levels + self.weight * worst


class Floor(Wrapper):
    """The larger of m, and the same quantile of the volatility of the last years.

    Source: Delegated Regulation (EU) 153/2013, Art. 28(1)(c): a floor from the volatility of ten
    years of history. A shorter history has what there is; :meth:`count_years` says how much.
    """

    years: Annotated[float, core.Range(0.1, 100.0, "years")] = 10.0

    needs_volatility: ClassVar[bool] = True

    def compute_levels(self, days: DailyCloses) -> FloatArray:
        spread = measure_window(days.returns, max(round(self.years * YEAR), 2))
        return np.fmax(self.rule.compute_levels(days), spread * self.find_factors(days.returns))

    def count_years(self, market: Market) -> float:
        """Return the years of history that the floor rests on at the end of a market."""
        n_days = len(read_days(market).time)
        if n_days == 0:
            return 0.0
        return min(self.years, (n_days - 1) / YEAR)


def measure_window(returns: FloatArray, window: int) -> FloatArray:
    """Return the root of the mean square of the last returns at each day; NaN under two."""
    mean = pd.DataFrame(returns**2).rolling(window, min_periods=2).mean()
    return np.asarray(np.sqrt(mean.to_numpy().clip(min=0.0))).reshape(returns.shape)


KINDS: Mapping[str, type[DynamicMargin]] = {
    "lambda_": Volatility,
    "tiers": OpenInterest,
    "weekend": Hours,
    "share": Buffer,
    "weight": Stressed,
    "years": Floor,
}
"""The rules by a field that each alone has."""


__all__ = [
    "Buffer",
    "DynamicMargin",
    "Floor",
    "Hours",
    "OpenInterest",
    "OpenInterestTier",
    "Stressed",
    "Volatility",
]


def __dir__() -> list[str]:
    return __all__
