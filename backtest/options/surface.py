"""Surface: implied volatility by strike and expiry at one instant."""

from __future__ import annotations

import functools
import hashlib
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from backtest.base import (
    DataError,
    FloatArray,
    ParameterError,
    Reportable,
    call_later,
    checked,
    count_nouns,
    float_if_single,
    parse_duration,
)
from backtest.base.units import DAY, YEAR_DAYS
from backtest.options.chain import Chain
from backtest.options.chain_inspection import Inspection
from backtest.options.fits import (
    FEWEST,
    WIDENING,
    WIDTH,
    Quotes,
    choose_rows,
    collect_quotes,
    describe_fit,
    fit_ssvi,
    fit_svi,
)
from backtest.options.option_terms import broadcast, check_positive, read_numbers
from backtest.options.pricing import price
from backtest.options.svi import LEAST_SOUND, SVI

DECLARED = "backtest.report.surface_parts"
"""Where the figures, tables and charts are declared."""
Model = Literal["svi", "ssvi"]
Measure = Literal["atm", "skew", "vix"]
Number = float | FloatArray
MODELS = ("svi", "ssvi")
FARTHEST = 2.0
"""Times to the last expiry up to which a smile is extrapolated in time."""
USUAL = 30.0 / YEAR_DAYS
"""Time to expiry of the headline figures, where it lies among the expiries."""
ASSUMPTIONS = (
    "Black-76 on the forward of the same expiry, without discounting; years have 365 days.",
    "Each smile is fitted to the volatilities of bids and asks out of the money, by least squares "
    "in units of half the spread plus half a volatility point. Quotes beyond 2.5 standard "
    "deviations weigh by their vega.",
    "Between expiries total variance is linear in time at constant log-moneyness; volatility is "
    "flat before the first expiry and after the last. Strikes far from the quotes are "
    "extrapolated.",
    "The size of quotes is not in the data.",
)
CROSSING_GRID = np.linspace(-1.5, 1.5, 601)
CROSSING_TOLERANCE = 1e-12


@dataclass(frozen=True, eq=False, repr=False)
class Surface(Reportable):
    """Implied volatility by strike and time to expiry, fitted to one snapshot of a chain.

    Between expiries total variance is linear in time at constant log-moneyness; outside them
    volatility is flat.

    Parameters
    ----------
    time : Timestamp
        The instant, UTC.
    underlying : str
        Its name in the chain.
    model : "svi" or "ssvi"
        Raw SVI by expiry, or SSVI across them.
    smiles : tuple of SVI
        Raw parameters, by expiry.
    fits : DataFrame
        A row per expiry: ``expiry``, ``years``, ``forward``, ``forward_source``, the parameters,
        ``quotes`` (two-sided, within 2.5 standard deviations), ``strikes``, ``inside`` (share of
        these quotes whose bid and ask, widened by half a volatility point, contain the fit),
        ``median_error`` and ``worst_error`` against the marks (in volatility), ``least_density``.
    left_out : DataFrame
        Rows of the chain that the fit did not use, with the reason.
    index : float
        Price of the underlying; NaN if the chain has none.
    settlement : str
        Of the chain.
    quotes : DataFrame
        The rows that the fit used, with their volatilities and log-moneyness ``k``.
    inspection : Inspection
        The defects of the chain.
    """

    time: pd.Timestamp
    underlying: str
    model: str
    smiles: tuple[SVI, ...]
    fits: pd.DataFrame
    left_out: pd.DataFrame
    index: float
    settlement: str
    quotes: pd.DataFrame
    inspection: Inspection

    kind = "surface"
    _draw = call_later("backtest.report", "draw_surface")
    list_numbers = call_later(DECLARED, "list_numbers")
    list_parts = call_later(DECLARED, "list_parts")
    to_dict = call_later(DECLARED, "collect")
    about = property(call_later(DECLARED, "describe_quotes"))

    @classmethod
    @checked
    def fit(cls, chain: Chain, model: Model = "svi", *, underlying: str | None = None) -> Surface:
        """Fit a surface to bids and asks.

        Parameters
        ----------
        chain : Chain
            Quotes of one snapshot.
        model : "svi" or "ssvi"
            "svi": each expiry on its own, five parameters, no butterfly arbitrage. "ssvi": three
            parameters for all and one per expiry, no arbitrage of either kind.
        underlying : str, optional
            Needed if the chain has several.

        Raises
        ------
        ParameterError
            If the model is unknown, or the chain has several underlyings or snapshots.
        DataError
            If no expiry has enough quotes.
        """
        one = chain.only(underlying)
        rows, left_out = choose_rows(one.implied())
        expiries = list(rows.groupby("expiry", sort=True))
        if not expiries:
            raise DataError(
                f"an expiry needs {FEWEST} strikes with bid and ask, got none that has in the "
                f"{len(one)} quotes of {one.source}; chain.inspect() shows why"
            )
        quotes = [collect_quotes(part) for _, part in expiries]
        smiles = fit_smiles(quotes, model)
        fits = pd.DataFrame(
            [describe_fit(part, smile) for (_, part), smile in zip(expiries, smiles, strict=True)]
        )
        return cls(
            one.times[0], one.underlyings[0], model, smiles, fits, left_out,
            float(one.table["index"].median()), one.settlement, rows,
            one.inspect(),
        )  # fmt: skip

    def __repr__(self) -> str:
        name = f"{self.underlying} " if self.underlying else ""
        return (
            f"Surface({name}{self.time:%Y-%m-%d %H:%M}, {self.model}, {len(self.fits)} expiries, "
            f"{self.inside:.1%} of quotes inside)"
        )

    @property
    def headline_tenor(self) -> float:
        """Years of the headline figures: 30 days, or the nearest expiry if they lie outside."""
        return float(np.clip(USUAL, self.years[0], self.years[-1]))

    @property
    def title(self) -> str:
        """The underlying."""
        return self.underlying or "options"

    @property
    def heading(self) -> str:
        """The title of the page."""
        return f"Implied volatility of {self.title}"

    def list_assumptions(self) -> tuple[str, ...]:
        """Return how the smiles are fitted and joined."""
        return ASSUMPTIONS

    @property
    def verdict(self) -> str:
        """What the surface shows, in one or two sentences."""
        tenor = self.headline_tenor
        arbitrage = self.arbitrage()
        butterflies = int(arbitrage["butterfly"].sum())
        skew = self.skew(tenor)
        sides = ("puts", "calls") if skew >= 0.0 else ("calls", "puts")
        expiries = count_nouns(len(self.fits), "expiry", "expiries")
        days = f"{YEAR_DAYS * tenor:.3g} days"
        return (
            f"At {days}: {100 * self.atm(tenor):.1f} % a year at the money, 25-delta {sides[0]} "
            f"{100 * abs(skew):.1f} points above {sides[1]}. {100 * self.inside:.1f} % of "
            f"{count_nouns(int(self.fits['quotes'].sum()), 'two-sided quote')} within "
            f"{WIDTH:g} standard deviations contain the fit between bid and ask, widened by "
            f"{100 * WIDENING:g} points; butterfly arbitrage in {butterflies} of {expiries}; "
            f"{describe_crossings(arbitrage)}."
        )

    @property
    def inside(self) -> float:
        """The share of two-sided quotes near the money that contain the fit; NaN without any."""
        judged = self.fits[self.fits["quotes"] > 0]
        if judged.empty:
            return math.nan
        return float(np.average(judged["inside"], weights=judged["quotes"]))

    @property
    def manifest(self) -> dict[str, str]:
        """The id: a surface is not saved."""
        return {"id": self.identity}

    @property
    def identity(self) -> str:
        """A hash of the quotes and the model."""
        columns = ["expiry", "strike", "kind", "bid", "ask", "forward"]
        rows = pd.util.hash_pandas_object(self.quotes[columns], index=False).to_numpy().tobytes()
        return hashlib.sha256(rows + f"{self.time} {self.model}".encode()).hexdigest()[:16]

    def plot(self) -> Any:
        """Return the surface as a Plotly figure: volatility by moneyness and time."""
        return self._draw()

    @property
    def years(self) -> FloatArray:
        """Time to expiry of the fitted smiles, increasing."""
        return self.fits["years"].to_numpy(dtype=np.float64)

    def forward(self, years: Number) -> Any:
        """Return the forward of times to expiry, of the same shape.

        ln(F / index) is linear in time from 0 over the expiries, and in proportion to it after.
        Raises ParameterError if years are negative or no numbers.
        """
        return float_if_single(self._find_forward(read_years(years)))

    def _find_forward(self, wanted: FloatArray) -> FloatArray:
        times, forwards = self.years, self.fits["forward"].to_numpy(dtype=np.float64)
        base = self.index if self.index > 0.0 else forwards[0]
        carry = np.log(forwards / base)
        inner = np.interp(wanted, np.append(0.0, times), np.append(0.0, carry))
        after = carry[-1] * wanted / times[-1]
        return np.asarray(base * np.exp(np.where(wanted > times[-1], after, inner)))

    def total_variance(self, k: Number, years: Number) -> Any:
        """Return volatility^2 years at log-moneyness ``k = ln(K / F)``, both broadcast.

        Raises ParameterError if a number is not finite, or years are negative.
        """
        given = broadcast(read_numbers("k", k), read_years(years))
        return float_if_single(self._find_total(*given))

    def _find_total(self, ks: FloatArray, wanted: FloatArray) -> FloatArray:
        times = self.years
        totals = np.stack([smile.total_variance(ks) for smile in self.smiles])
        if len(times) == 1:
            return np.asarray(totals[0] * wanted / times[0])
        after = np.clip(np.searchsorted(times, wanted), 1, len(times) - 1)
        low = np.take_along_axis(totals, (after - 1)[None], axis=0)[0]
        high = np.take_along_axis(totals, after[None], axis=0)[0]
        share = (wanted - times[after - 1]) / (times[after] - times[after - 1])
        inner = low + share * (high - low)
        first, last = totals[0] * wanted / times[0], totals[-1] * wanted / times[-1]
        outside = np.where(wanted < times[0], first, last)
        is_inner = (wanted >= times[0]) & (wanted <= times[-1])
        return np.asarray(np.where(is_inner, inner, outside), dtype=np.float64)

    def volatility(self, strike: Number, years: Number) -> Any:
        """Return the implied volatility, per sqrt(year), of strikes and times to expiry.

        Raises
        ------
        ParameterError
            If a strike or a time is not positive.
        """
        strikes = read_numbers("strike", strike)
        check_positive("strike", strikes)
        wanted = read_years(years, is_zero_allowed=False)
        strikes, wanted = broadcast(strikes, wanted)
        k = np.log(strikes / self._find_forward(wanted))
        return float_if_single(np.sqrt(self._find_total(k, wanted) / wanted))

    def atm(self, tenor: str | float) -> float:
        """Return the volatility at the forward for a tenor such as ``"30d"``, or in years.

        Flat before the first expiry and after the last.
        """
        years = read_tenor(tenor)
        return math.sqrt(self.total_variance(0.0, years) / years)

    @property
    def longest_tenor(self) -> float:
        """The years for which there is a skew and a model-free volatility: twice the last expiry.

        Beyond it the wings of the last smile, extrapolated in time, are no prices of anything.
        """
        return FARTHEST * float(self.years[-1])

    def skew(self, tenor: str | float, delta: float = 0.25) -> float:
        """Return the volatility of the put less that of the call of one delta (undiscounted).

        NaN beyond :attr:`longest_tenor`. Raises ParameterError if delta is not between 0 and 0.5.
        """
        years = read_tenor(tenor)
        if not 0.0 < delta < 0.5:
            raise ParameterError(f"delta must be between 0 and 0.5, got {delta!r}")
        if years > self.longest_tenor:
            return math.nan
        return self._at_delta(-delta, years) - self._at_delta(delta, years)

    def _at_delta(self, delta: float, years: float) -> float:
        from scipy.optimize import brentq  # noqa: PLC0415 - takes 0.2 s
        from scipy.special import ndtri  # noqa: PLC0415

        level = float(ndtri(delta if delta > 0.0 else 1.0 + delta))

        def gap(k: float) -> float:
            root = math.sqrt(self.total_variance(k, years))
            return -k / root + 0.5 * root - level

        reach = 12.0 * self.atm(years) * math.sqrt(years)
        if not gap(-reach) > 0.0 > gap(reach):
            return math.nan
        k = brentq(gap, -reach, reach, xtol=1e-12)
        return math.sqrt(self.total_variance(k, years) / years)

    def vix(self, tenor: str | float) -> float:
        """Return the model-free volatility of a tenor: the fair strike of a variance swap.

        NaN beyond :attr:`longest_tenor`.

        Notes
        -----
        The square root of ``2 / T`` times the integral of undiscounted prices out of the money over
        K^2, from all strikes of the smile. Source: Cboe (2019), VIX white paper; here the sum over
        quotes is an integral over the fit. Variance between expiries is linear in time.
        """
        years = read_tenor(tenor)
        if years > self.longest_tenor:
            return math.nan
        width = self.atm(years) * math.sqrt(years)
        k = np.linspace(-12.0 * width, 12.0 * width, 4001)
        volatility = np.sqrt(self.total_variance(k, years) / years)
        kinds = np.where(k < 0.0, "put", "call")
        values = price(kinds, 1.0, np.exp(k), years, volatility) * np.exp(-k)
        weights = np.full(k.size, 2.0)  # Simpson's rule; the kink at k = 0 is one of its knots
        weights[1::2], weights[0], weights[-1] = 4.0, 1.0, 1.0
        integral = float(values @ weights) * (k[1] - k[0]) / 3.0
        return math.sqrt(2.0 / years * integral)

    def measure(self, name: Measure, tenor: str | float) -> float:
        """Return :meth:`atm`, :meth:`skew` or :meth:`vix` of a tenor, computed once."""
        key = (name, tenor)
        if key not in self._measured:
            self._measured[key] = getattr(self, name)(tenor)
        return self._measured[key]

    @functools.cached_property
    def _measured(self) -> dict[tuple[str, str | float], float]:
        return {}

    def arbitrage(self) -> pd.DataFrame:
        """Return what could be earned without risk on the fit itself.

        Returns
        -------
        DataFrame
            A row per expiry: ``least_density`` (the smallest g(k), negative where butterflies cost
            less than nothing), ``butterfly`` (whether it is under -1e-9, beyond rounding),
            ``crossings`` (share of 601 points with |k| <= 1.5 where total variance is under that of
            the expiry before), ``quoted_crossings`` (the same between the strikes that are quoted
            in both expiries, NaN if there are none), ``deepest_crossing`` (there, the largest fall
            in volatility of the expiry).
        """
        totals = np.stack([smile.total_variance(CROSSING_GRID) for smile in self.smiles])
        falls = np.diff(totals, axis=0) < -CROSSING_TOLERANCE
        least = [smile.least_density for smile in self.smiles]
        crossed = [(math.nan, 0.0), *map(self._cross, range(1, len(self.smiles)))]
        return pd.DataFrame(
            {
                "expiry": self.fits["expiry"],
                "least_density": least,
                "butterfly": [each < LEAST_SOUND for each in least],
                "crossings": [0.0, *falls.mean(axis=1)],
                "quoted_crossings": [share for share, _ in crossed],
                "deepest_crossing": [depth for _, depth in crossed],
            }
        )

    def _cross(self, place: int) -> tuple[float, float]:
        """Return the share of points and the depth of crossings with the expiry before."""
        ends = self.fits["expiry"]
        quoted = [
            self.quotes.loc[self.quotes["expiry"] == ends[row], "k"] for row in (place - 1, place)
        ]
        low, high = max(each.min() for each in quoted), min(each.max() for each in quoted)
        if not low < high:
            return math.nan, 0.0
        k = np.linspace(low, high, CROSSING_GRID.size)
        before, own = (self.smiles[row].total_variance(k) for row in (place - 1, place))
        is_under = own < before - CROSSING_TOLERANCE
        fall = np.sqrt(before / self.years[place]) - np.sqrt(own / self.years[place])
        return float(is_under.mean()), float(np.max(fall, where=is_under, initial=0.0))


def describe_crossings(arbitrage: pd.DataFrame) -> str:
    """Say where total variance falls with time between strikes quoted in both expiries."""
    judged = arbitrage[arbitrage["quoted_crossings"].notna()]
    crossing = judged[judged["quoted_crossings"] > 0.0]
    pairs = count_nouns(len(judged), "pair") + " of expiries"
    if crossing.empty:
        return f"no calendar arbitrage between the strikes quoted in both of {pairs}"
    depth = 100 * float(crossing["deepest_crossing"].max())
    return (
        f"calendar arbitrage between the strikes quoted in both in {len(crossing)} of {pairs}, up "
        f"to {depth:.2g} points ({', '.join(f'{each:%Y-%m-%d}' for each in crossing['expiry'])})"
    )


def fit_smiles(quotes: list[Quotes], model: str) -> tuple[SVI, ...]:
    if model == "svi":
        return tuple(fit_svi(each) for each in quotes)
    return tuple(each.raw for each in fit_ssvi(quotes))


def read_years(years: object, *, is_zero_allowed: bool = True) -> FloatArray:
    wanted = read_numbers("years", years)
    check_positive("years", wanted, is_zero_allowed=is_zero_allowed)
    return wanted


def read_tenor(tenor: object) -> float:
    if isinstance(tenor, str):
        years = parse_duration(tenor, "tenor") / (DAY * YEAR_DAYS)
    else:
        years = float(read_numbers("tenor", tenor))
    if not years > 0.0:
        raise ParameterError(f"tenor must be positive, got {tenor!r}")
    return years
