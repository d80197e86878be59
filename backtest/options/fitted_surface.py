"""The surface of implied volatility of one snapshot, by strike and time to expiry."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from backtest import core
from backtest.core import DataError, FloatArray, check_range
from backtest.core.code_names import pd, sp
from backtest.core.fields import NOT_NEGATIVE, POSITIVE
from backtest.core.result_parts import Headline, Part
from backtest.core.units import DAY, YEAR_DAYS
from backtest.margin.functions import check_each
from backtest.options.chain import Chain
from backtest.options.pricing import broadcast, price
from backtest.options.smile_fits import (
    FEWEST,
    WIDENING,
    WIDTH,
    choose_rows,
    collect_quotes,
    describe_fit,
    fit_ssvi,
    fit_svi,
)
from backtest.options.smiles import MIN_SOUND, SVI

Number = float | FloatArray
Model = Literal["svi", "ssvi"]
Measure = Literal["atm", "skew", "vix"]
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
FARTHEST_STRIKE = 12.0
"""Standard deviations of log-moneyness beyond which no strike is looked at: it has no price."""
CROSSING_GRID = np.linspace(-1.5, 1.5, 601)
"""Log-moneyness at which two expiries are compared."""
CROSSING_TOLERANCE = 1e-12
"""Fall of total variance that is rounding."""


@dataclass(frozen=True, eq=False, repr=False)
class Surface(core.Reportable):
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
    chain : Chain
        The snapshot; ``chain.inspect()`` finds its defects.
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
    chain: Chain

    kind = "surface"
    call = "bt.Surface.fit"

    def plot(self) -> Any:
        """Return the volatilities of the surface as a Plotly figure."""
        from backtest.report.surface_parts import draw_map  # noqa: PLC0415 - only when it is shown

        return self._draw(draw_map(self))

    def list_numbers(self) -> list[Headline]:
        """Return the headline numbers, the most important first."""
        from backtest.report.surface_parts import list_numbers  # noqa: PLC0415 - only when it is shown

        return list_numbers(self)

    def list_parts(self) -> list[Part]:
        """Return the sections of the page, before those on data and assumptions."""
        from backtest.report.surface_parts import list_parts  # noqa: PLC0415 - only when it is shown

        return list_parts(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the surface as data for JSON."""
        from backtest.report.surface_parts import collect  # noqa: PLC0415 - only when it is shown

        return collect(self)

    @property
    def about(self) -> str:
        """What the surface was fitted to, in a sentence."""
        from backtest.report.surface_parts import describe_quotes  # noqa: PLC0415 - only when it is shown

        return describe_quotes(self)

    @classmethod
    @core.checked
    def fit(
        cls,
        chain: Chain,
        model: Model = "svi",
        *,
        underlying: str | None = None,
    ) -> Surface:
        """Fit a surface to bids and asks.

        Raises ParameterError if the model is unknown, or the chain has several underlyings or
        snapshots; DataError if no expiry has enough quotes.

        Parameters
        ----------
        chain : Chain
            Quotes of one snapshot.
        model : "svi" or "ssvi"
            "svi": each expiry on its own, five parameters, no butterfly arbitrage. "ssvi": three
            parameters for all and one per expiry, no arbitrage of either kind.
        underlying : str, optional
            Needed if the chain has several.
        """
        snapshot = chain.only(underlying)
        rows, left_out = choose_rows(snapshot.implied())
        if rows.empty:
            raise DataError(
                f"an expiry needs {FEWEST} strikes with bid and ask, got none that has in the "
                f"{len(snapshot)} quotes of {snapshot.source}; chain.inspect() shows why"
            )

        # A smile for each expiry: by itself, or all of them at once.
        expiries = rows.groupby("expiry", sort=True)
        rows_by_expiry = [part for _, part in expiries]
        quotes = [collect_quotes(part) for part in rows_by_expiry]
        if model == "svi":
            smiles = [fit_svi(quotes_of_one) for quotes_of_one in quotes]
        else:
            smiles = fit_ssvi(quotes)

        # A row an expiry: when it is, its smile, and where its forward is from.
        fits = pd.DataFrame([*map(describe_fit, rows_by_expiry, smiles)])
        heads = expiries[["forward_source"]].first().reset_index()
        fits.insert(0, "expiry", heads["expiry"])
        fits.insert(3, "forward_source", heads["forward_source"])
        return cls._from_tables(snapshot, model, fits=fits, left_out=left_out, quotes=rows)

    @classmethod
    def _from_tables(
        cls,
        snapshot: Chain,
        model: Model,
        *,
        fits: pd.DataFrame,
        left_out: pd.DataFrame,
        quotes: pd.DataFrame,
    ) -> Surface:
        """Return a surface whose smiles are the parameters in the rows of ``fits``."""
        parameters = fits[["a", "b", "rho", "m", "sigma"]].to_numpy().tolist()
        return cls(
            time=snapshot.times[0],
            underlying=snapshot.underlyings[0],
            model=model,
            smiles=tuple(SVI(*row) for row in parameters),
            fits=fits,
            left_out=left_out,
            index=float(snapshot.table["index"].median()),
            settlement=snapshot.settlement,
            quotes=quotes,
            chain=snapshot,
        )

    def __repr__(self) -> str:
        name = f"{self.underlying} " if self.underlying else ""
        return (
            f"Surface({name}{self.time:%Y-%m-%d %H:%M}, {self.model}, {len(self.fits)} expiries, "
            f"{core.format_percent(self.inside, 1)} of quotes inside)"
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
        """What the surface shows, in a sentence."""
        tenor = self.headline_tenor
        days = f"{YEAR_DAYS * tenor:.3g} days"
        at_money = 100 * self.atm(tenor)
        skew = self.skew(tenor)
        points = 100 * abs(skew)
        dearer = "puts" if skew >= 0.0 else "calls"
        cheaper = "calls" if skew >= 0.0 else "puts"

        butterflies = int(self.arbitrage()["butterfly"].sum())
        expiries = core.count_nouns(len(self.fits), "expiry", "expiries")
        return (
            f"At {days}: {at_money:.1f} % a year at the money, 25-delta {dearer} "
            f"{points:.1f} points above {cheaper}; butterfly arbitrage in {butterflies} "
            f"of {expiries}."
        )

    @property
    def details(self) -> str:
        """How well the fit meets the quotes, and what arbitrage is left between expiries."""
        quotes = core.count_nouns(int(self.fits["quotes"].sum()), "two-sided quote")
        crossings = core.capitalize(describe_crossings(self.arbitrage()))
        return (
            f"{100 * self.inside:.1f} % of {quotes} within {WIDTH:g} standard deviations contain "
            f"the fit between bid and ask, widened by {100 * WIDENING:g} points. {crossings}."
        )

    @property
    def inside(self) -> float:
        """The share of two-sided quotes near the money that contain the fit; NaN without any."""
        total = self.fits["quotes"].sum()
        if not total:
            return math.nan
        judged = self.fits[self.fits["quotes"] > 0]
        return float((judged["inside"] * judged["quotes"]).sum() / total)

    @property
    def manifest(self) -> dict[str, str]:
        """The id: a surface is not saved."""
        return {"id": self.identity}

    @property
    def identity(self) -> str:
        """A hash of the quotes and the model."""
        columns = ["expiry", "strike", "kind", "bid", "ask", "forward"]
        hashes = pd.util.hash_pandas_object(self.quotes[columns], index=False)
        rows = hashes.to_numpy().tobytes()
        name = f"{self.time} {self.model}".encode()
        return hashlib.sha256(rows + name).hexdigest()[:16]

    @cached_property
    def years(self) -> FloatArray:
        """Time to expiry of the fitted smiles, increasing."""
        return self.fits["years"].to_numpy(dtype=np.float64)

    @cached_property
    def _forwards(self) -> FloatArray:
        """The index, or the first forward without one, and then the forwards of the smiles."""
        forwards = self.fits["forward"].to_numpy(dtype=np.float64)
        first = self.index if self.index > 0.0 else forwards[0]
        return np.append(first, forwards)

    def _find_carry(self, years: FloatArray) -> FloatArray:
        """Return ln(F / index): linear between expiries, in proportion to time after the last."""
        carries = np.log(self._forwards / self._forwards[0])
        times = np.append(0.0, self.years)
        between = np.interp(years, times, carries)
        after = carries[-1] * years / times[-1]
        return np.asarray(np.where(years > times[-1], after, between))

    def forward(self, years: Number) -> Any:
        """Return the forward of times to expiry, of the same shape.

        ln(F / index) is linear in time from 0 over the expiries, and in proportion to it after.
        Raises ParameterError if years are negative or no numbers.
        """
        times = np.asarray(check_each("years", years, NOT_NEGATIVE))
        return core.float_if_single(self._forwards[0] * np.exp(self._find_carry(times)))

    def total_variance(self, k: Number, years: Number) -> Any:
        """Return volatility^2 years at log-moneyness ``k = ln(K / F)``, both broadcast.

        Raises ParameterError if a number is not finite, or years are negative.
        """
        distances = check_each("k", k, core.Real())
        times = check_each("years", years, NOT_NEGATIVE)
        distances, times = broadcast(distances, times)

        totals = np.empty(np.shape(distances))
        for time in np.unique(times):
            here = times == time
            totals[here] = self._interpolate(distances[here], float(time))
        return core.float_if_single(totals)

    def _interpolate(self, k: FloatArray, years: float) -> FloatArray:
        """Return total variance (volatility^2 years) at one time to expiry, for each k.

        Between two expiries it is linear in time. Before the first expiry and after the last, it is
        that of the expiry in proportion to time. ``k`` is log-moneyness.
        """
        times = self.years
        last = len(times) - 1
        if years < times[0] or last == 0:
            return self._extrapolate(k, years, expiry=0)
        if years > times[last]:
            return self._extrapolate(k, years, expiry=last)

        # The two expiries around the time. At an expiry itself, it is the later of the two; at the
        # first one it is the earlier, as there is none before it.
        after = int(np.searchsorted(times, years))
        after = min(max(after, 1), last)
        before = after - 1
        total_before = self.smiles[before].total_variance(k)
        total_after = self.smiles[after].total_variance(k)
        gap = times[after] - times[before]
        share = (years - times[before]) / gap
        rise = total_after - total_before
        return np.asarray(total_before + share * rise)

    def _extrapolate(
        self,
        k: FloatArray,
        years: float,
        *,
        expiry: int,
    ) -> FloatArray:
        """Return total variance at a time beyond an expiry, at the volatility of that expiry."""
        total = self.smiles[expiry].total_variance(k)
        return np.asarray(total * years / self.years[expiry])

    def volatility(self, strike: Number, years: Number) -> Any:
        """Return the implied volatility, per sqrt(year), of strikes and times to expiry.

        Raises ParameterError if a strike or a time is not positive.
        """
        strikes = check_each("strike", strike, POSITIVE)
        times = check_each("years", years, POSITIVE)
        strikes, times = broadcast(strikes, times)
        total = self.total_variance(np.log(strikes / self.forward(times)), times)
        return core.float_if_single(np.asarray(np.sqrt(total / times)))

    def atm(self, tenor: str | float) -> float:
        """Return the volatility at the forward for a tenor such as ``"30d"``, or in years."""
        years = read_tenor(tenor)
        return math.sqrt(self.total_variance(0.0, years) / years)

    @property
    def longest_tenor(self) -> float:
        """The years for which there are skew and model-free volatility: twice the last expiry."""
        return FARTHEST * float(self.years[-1])

    def skew(self, tenor: str | float, delta: float = 0.25) -> float:
        """Return the volatility of the put less that of the call of one delta (undiscounted).

        NaN beyond :attr:`longest_tenor`. Raises ParameterError if delta is not between 0 and 0.5.
        """
        years = read_tenor(tenor)
        check_range("delta", delta, low=0.0, high=0.5, open_low=True, open_high=True)
        if years > self.longest_tenor:
            return math.nan
        return self._at_delta(-delta, years) - self._at_delta(delta, years)

    def _at_delta(self, delta: float, years: float) -> float:
        """Return the volatility of the call of a delta, of the put if negative; NaN if none has it.

        A call of delta D has ``d1 = -k / s + s / 2`` at the D quantile of the normal distribution,
        with s the root of total variance.
        """
        probability = delta if delta > 0.0 else 1.0 + delta
        level = float(sp.special.ndtri(probability))

        def compute_gap(k: float) -> float:
            """Return d1 less the quantile: positive far below the forward, negative far above."""
            root = math.sqrt(self.total_variance(k, years))
            return -k / root + 0.5 * root - level

        # Where both ends have one sign, no strike between them has the delta.
        farthest = FARTHEST_STRIKE * self.atm(years) * math.sqrt(years)
        if not compute_gap(-farthest) > 0.0 > compute_gap(farthest):
            return math.nan
        k = sp.optimize.brentq(compute_gap, -farthest, farthest, xtol=1e-12)
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

        # In units of the forward, with K = exp(k) and dK / K^2 = exp(-k) dk.
        farthest = FARTHEST_STRIKE * (self.atm(years) * math.sqrt(years))
        k = np.linspace(-farthest, farthest, 4001)
        total = self.total_variance(k, years)
        volatility = np.sqrt(total / years)
        kinds = np.where(k < 0.0, "put", "call")
        prices = price(kinds, 1.0, np.exp(k), years, volatility)
        values = prices * np.exp(-k)

        # The kink at k = 0 is one of the knots of the rule.
        integral = float(sp.integrate.simpson(values, dx=k[1] - k[0]))
        return math.sqrt(2.0 / years * integral)

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
        is_under = np.diff(totals, axis=0) < -CROSSING_TOLERANCE
        least = [smile.least_density for smile in self.smiles]

        # The first expiry has none before it.
        shares = [math.nan]
        depths = [0.0]
        for number in range(1, len(self.smiles)):
            share, depth = self._measure_crossing(number)
            shares.append(share)
            depths.append(depth)

        return pd.DataFrame(
            {
                "expiry": self.fits["expiry"],
                "least_density": least,
                "butterfly": [density < MIN_SOUND for density in least],
                "crossings": [0.0, *is_under.mean(axis=1)],
                "quoted_crossings": shares,
                "deepest_crossing": depths,
            }
        )

    def _measure_crossing(self, number: int) -> tuple[float, float]:
        """Return ``(share, fall)`` of where an expiry has less total variance than the one before.

        Only strikes between those quoted in both count. ``share`` is the part of them where it is
        so, NaN if there are no such strikes. ``fall`` is the most by which volatility, at the later
        expiry, is under what it would be without a fall of total variance; 0 where it never is.
        """
        earlier = self._list_quoted(number - 1)
        later = self._list_quoted(number)
        low = max(earlier.min(), later.min())
        high = min(earlier.max(), later.max())
        if not low < high:
            return math.nan, 0.0

        k = np.linspace(low, high, CROSSING_GRID.size)
        total_before = self.smiles[number - 1].total_variance(k)
        total = self.smiles[number].total_variance(k)
        is_under = total < total_before - CROSSING_TOLERANCE
        share = float(is_under.mean())

        years = self.years[number]
        least_volatility = np.sqrt(total_before / years)
        fall = least_volatility - np.sqrt(total / years)
        return share, float(np.max(fall, where=is_under, initial=0.0))

    def _list_quoted(self, number: int) -> pd.Series:
        """Return the log-moneyness of the quotes of an expiry, by its number."""
        expiry = self.fits["expiry"][number]
        quoted: pd.Series = self.quotes.loc[self.quotes["expiry"] == expiry, "k"]
        return quoted


def describe_crossings(arbitrage: pd.DataFrame) -> str:
    """Return a clause on calendar arbitrage where the quotes of two expiries overlap."""
    judged = arbitrage[arbitrage["quoted_crossings"].notna()]
    crossing = judged[judged["quoted_crossings"] > 0.0]
    pairs = f"{core.count_nouns(len(judged), 'pair')} of expiries"
    if crossing.empty:
        return f"no calendar arbitrage between the strikes quoted in both of {pairs}"

    depth = 100 * float(crossing["deepest_crossing"].max())
    days = ", ".join(f"{expiry:%Y-%m-%d}" for expiry in crossing["expiry"])
    return (
        f"calendar arbitrage between the strikes quoted in both in {len(crossing)} of {pairs}, up "
        f"to {depth:.2g} points ({days})"
    )


def read_tenor(tenor: str | float) -> float:
    """Return the years of a duration such as ``"30d"``, or checked years."""
    if isinstance(tenor, str):
        return core.parse_duration(tenor, "tenor") / (DAY * YEAR_DAYS)
    return float(check_each("tenor", tenor, POSITIVE))
