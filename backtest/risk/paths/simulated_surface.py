"""Implied volatility on simulated paths: a smile of one shape over the variance of the path."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from backtest.base import (
    Choice,
    Duration,
    Either,
    Flag,
    FloatArray,
    IntArray,
    Number,
    ParameterError,
    Phrase,
    Value,
    did_you_mean,
    parse_duration,
    repr_plain,
)
from backtest.base.units import DAY, YEAR_DAYS
from backtest.market import Market
from backtest.options import MovingSurfaces, SmileShape, weigh_squares
from backtest.risk.paths.path_model import MOST_RETURNS, count_per_year

VOLATILITY = Number(0.0, 10.0, open_low=True)
BTC_SHAPE = SmileShape()
SPEED = Number(0.0, 1000.0, open_low=True)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SimulatedSurface(Value):
    """Implied volatility on simulated paths: realized volatility times a ratio, with a fixed smile.

    The variance of a path is the exponentially weighted mean v of its squared log returns from
    close to close, per year, known at each close:
    ``v_t = 2^(-dt / half_life) v_(t-1) + (1 - 2^(-dt / half_life)) r_t^2 / dt``. It begins at that
    of history. The volatility at the forward is ``ratio sqrt(v)`` for all expiries, that of a
    strike is ``ratio sqrt(v)`` times the shape at ln(K/F) in standard deviations to expiry (sticky
    moneyness), and the forward of T years is ``S exp(carry T)``.

    Options are bought half of ``spread`` above these volatilities and sold half of it below. A
    spread of 0 is refused, because a result at middle prices understates the cost of protection.

    Parameters
    ----------
    ratio : float
        Implied over realized volatility at the forward. 1: options are priced at the variance of
        the path. It has no default, because it decides whether protection pays: begin with 1.1,
        and see how the answer changes from 0.9 to 1.5.
    half_life : str
        Time in which the weight of a squared return halves.
    is_constant : bool
        Whether the variance stays at that of the start.
    volatility : float, optional
        Realized volatility at the start, per sqrt(year). None: measured on history.
    shape : SmileShape
        By default the mean of 97 daily chains of BTC at Deribit, 2025-12-26 to 2026-03-31, at 30
        days.
    carry : float
        ln(F/S) per year.
    spread : float
        From bid to ask in implied volatility; 0.014 is 1.4 points, near 8 % of the middle price of
        a put of 30 to 45 days with a delta of -0.1.
    strike_step : float
        Distance of listed strikes as a share of the price at the start, rounded to 1, 2 or 5 times
        a power of ten.
    expiries : str
        At 08:00 UTC of all Fridays (``"weekly"``), or of the last one of each month
        (``"monthly"``).
    """

    _needed: ClassVar[Mapping[str, tuple[str, str]]] = {
        "ratio": (
            "implied over realized volatility decides whether protection pays, so that no value "
            "is right for all",
            "begin with ratio=1.1, and see how the answer changes from ratio=0.9 to ratio=1.5",
        )
    }

    ratio: Annotated[float, Number(0.1, 10.0)]
    half_life: Annotated[str, Duration()] = "10d"
    is_constant: Annotated[bool, Flag()] = False
    volatility: Annotated[float | None, VOLATILITY] = None
    shape: SmileShape = BTC_SHAPE
    carry: Annotated[float, Number(-1.0, 1.0)] = 0.0
    spread: Annotated[float, Number(0.0, 1.0, open_low=True)] = 0.014
    strike_step: Annotated[float, Number(0.0, 0.5, open_low=True)] = 0.01
    expiries: Annotated[str, Choice("weekly", "monthly")] = "weekly"

    @property
    def half_lives(self) -> tuple[str, str]:
        """The half-lives of the two variances; the second serves two factors."""
        return self.half_life, self.half_life

    @property
    def speeds(self) -> tuple[float, float]:
        """The speeds of :class:`backtest.options.MovingSurfaces`, per year."""
        return 1.0, 1.0

    def find_levels(self, variances: FloatArray, long_run: float) -> FloatArray:  # noqa: ARG002 - of two factors
        """Return the levels of :class:`backtest.options.MovingSurfaces` from variances (n, 2)."""
        levels = np.zeros((len(variances), 3))
        levels[:, 0] = self.ratio**2 * variances[:, 0]
        return levels

    def find_step(self, price: float) -> float:
        """Return the distance of listed strikes at a price of the start."""
        wanted = self.strike_step * price
        power = 10.0 ** math.floor(math.log10(wanted))
        return min((1.0, 2.0, 5.0, 10.0), key=lambda each: abs(math.log(each * power / wanted))) * (
            power
        )

    def list_expiries(self, start: int, end: int) -> IntArray:
        """Return the expiries after ``start`` up to ``end``, UTC ns: Fridays at 08:00."""
        first = (start - FRIDAY) // WEEK + 1
        fridays = FRIDAY + WEEK * np.arange(first, (end - FRIDAY) // WEEK + 1)
        if self.expiries == "weekly":
            return np.asarray(fridays)
        months = fridays.astype("datetime64[ns]").astype("datetime64[M]")
        later = (fridays + WEEK).astype("datetime64[ns]").astype("datetime64[M]")
        return np.asarray(fridays[months != later])


WEEK = 7 * DAY
FRIDAY = DAY + DAY // 3
"""1970-01-02 08:00, a Friday."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TwoFactorSurface(SimulatedSurface):
    """Implied volatility in two factors: a short variance that reverts to a slow one.

    v is the variance of :class:`SimulatedSurface` with its ``half_life``, m the same with
    ``slow_half_life``, theta the square of ``long_run``. Expected variances follow
    ``dv = reversion (m - v) dt`` and ``dm = slow_reversion (theta - m) dt``. The implied variance
    at the forward is ``ratio^2`` times the mean of v up to expiry T:
    ``theta + (v - theta) A(k T) + (m - theta) k / (k - l) (A(l T) - A(k T))``, with
    ``A(x) = (1 - exp(-x)) / x``, k and l the two reversions. Short expiries move with v, long ones
    with m and theta. Source: Egloff, Leippold and Wu (2010), The Term Structure of Variance Swap
    Rates and Optimal Variance Swap Investments, J. Financial and Quantitative Analysis 45(5), for
    the equations.

    Parameters
    ----------
    slow_half_life : str
        Time in which the weight of a squared return in m halves.
    reversion, slow_reversion : float
        Per year; 12 is a half-life of 21 days. The first is the larger.
    long_run : float, optional
        Realized volatility to which m reverts, per sqrt(year). None: that of history.
    """

    half_life: Annotated[str, Duration()] = "5d"
    slow_half_life: Annotated[str, Duration()] = "60d"
    reversion: Annotated[float, SPEED] = 12.0
    slow_reversion: Annotated[float, SPEED] = 1.5
    long_run: Annotated[float | None, VOLATILITY] = None

    def _check_rules(self) -> None:
        if not self.reversion > self.slow_reversion:
            raise ParameterError(
                f"reversion must be faster than slow_reversion, got {self.reversion:g} and "
                f"{self.slow_reversion:g} per year",
                where="TwoFactorSurface",
                cure="give reversion=12.0, slow_reversion=1.5",
            )

    @property
    def half_lives(self) -> tuple[str, str]:
        """The half-lives of the two variances."""
        return self.half_life, self.slow_half_life

    @property
    def speeds(self) -> tuple[float, float]:
        """The two reversions, per year."""
        return self.reversion, self.slow_reversion

    def find_levels(self, variances: FloatArray, long_run: float) -> FloatArray:
        """Return the levels of :class:`backtest.options.MovingSurfaces` from variances (n, 2)."""
        theta = long_run if self.long_run is None else self.long_run**2
        share = self.reversion / (self.reversion - self.slow_reversion)
        slow = share * (variances[:, 1] - theta)
        fast = variances[:, 0] - theta - slow
        return np.asarray(self.ratio**2 * np.stack([np.full(len(slow), theta), fast, slow], axis=1))


@dataclass(frozen=True, eq=False)
class SurfaceMaker:
    """What makes the surfaces of the paths of one instrument.

    Parameters
    ----------
    surface : SimulatedSurface
        The model.
    start : FloatArray of shape (2,)
        The variances at the last close of history, per year.
    keeps : FloatArray of shape (2,)
        Weight of the variance of the bar before.
    long_run, per_year, step : float
        Variance of history, bars per year, and the distance of strikes.
    """

    surface: SimulatedSurface
    start: FloatArray
    keeps: FloatArray
    long_run: float
    per_year: float
    step: float

    @classmethod
    def of(cls, surface: SimulatedSurface, history: Market) -> SurfaceMaker:
        per_year, closes = count_per_year(history), history.close[-MOST_RETURNS:]
        bar = YEAR_DAYS * DAY / per_year
        lives = np.array([parse_duration(x, where="half_life") for x in surface.half_lives])
        keeps = 0.5 ** (bar / lives)
        long_run = per_year * float(np.mean(np.diff(np.log(closes)) ** 2))
        start = weigh_squares(closes, np.full(2, long_run), keeps, per_year)[-1]
        if surface.volatility is not None:
            start[:] = surface.volatility**2
        keeps = np.ones(2) if surface.is_constant else keeps
        step = surface.find_step(float(history.close[-1]))
        return cls(surface, start, keeps, long_run, per_year, step)

    def make(self, stamps: IntArray, closes: FloatArray) -> MovingSurfaces:
        own = self.surface
        variances = weigh_squares(closes, self.start, self.keeps, self.per_year)
        levels = own.find_levels(variances, self.long_run)
        return MovingSurfaces(stamps, levels, own.speeds, own.shape, own.carry)


def read_surfaces(given: Any, names: tuple[str, ...], *, where: str) -> dict[str, SimulatedSurface]:
    if given is None:
        return {}
    found = dict(given) if isinstance(given, Mapping) else dict.fromkeys(names, given)
    unknown = next((name for name in found if name not in names), None)
    problem = ""
    if unknown is not None:
        problem = f"surfaces has a model for {unknown!r}, but the paths are of {', '.join(names)}"
        problem += did_you_mean(unknown, names)
    elif len(found) > 1:
        problem = f"paths list options on one instrument, got surfaces of {', '.join(found)}"
    if problem:
        of, typed = names[0], "fields without a name: --surfaces ratio=1.1, or [paths.surfaces]"
        if len(names) > 1:
            of = f"one of {', '.join(names)}"
            typed = f"fields of {of} alone: --surfaces {names[0]}.ratio=1.1, or in a file "
            typed += f"[paths.surfaces.{names[0]}]"
        raise ParameterError(
            problem,
            where=where,
            cure=Phrase(
                "give {}",
                Either(f"a mapping of {of} to bt.paths.SimulatedSurface(...)", typed),
            ),
        )
    for each in found.values():
        if not isinstance(each, SimulatedSurface):
            raise ParameterError(
                f"options on simulated paths need a model of their volatility, got "
                f"{repr_plain(each):.60}",
                where=where,
                cure="give bt.paths.SimulatedSurface(ratio=1.1)",
            )
    return found
