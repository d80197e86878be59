"""Smiles by SVI and SSVI, and surfaces of implied volatility by strike and expiry, through time.

``w(k) = a + b (rho (k - m) + sqrt((k - m)^2 + sigma^2))`` with ``k = ln(K / F)`` and
``w = volatility^2 years``. Sources: Gatheral (2004); Gatheral and Jacquier (2014), Arbitrage-free
SVI volatility surfaces, Quantitative Finance 14(1).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from backtest import _compile, core
from backtest.core import DataError, FloatArray, IntArray, ParameterError, check_range
from backtest.core.code_names import pd, sp
from backtest.core.fields import NOT_NEGATIVE, POSITIVE
from backtest.core.result_parts import Headline, Part
from backtest.core.units import DAY, YEAR_DAYS
from backtest.margin.functions import check_each
from backtest.market import Market
from backtest.options import chain as chains
from backtest.options import implied_kernels, pricing
from backtest.options.chain import Chain
from backtest.options.pricing import broadcast, price

Number = float | FloatArray
GRID = np.unique(
    np.concatenate([np.linspace(-1.5, 1.5, 1201), np.sinh(np.linspace(-6.0, 6.0, 401)) / 135.0])
)
MIN_SOUND = -1e-9
"""Smallest g(k) of a smile without butterfly arbitrage: 0 but for rounding."""


class Smile(NamedTuple):
    total: FloatArray
    slope: FloatArray
    bend: FloatArray


def shape_smile(a: Number, b: Number, rho: Number, m: Number, sigma: Number, k: Number) -> Smile:
    """Return total variance and its derivatives by k; the parameters broadcast with k."""
    x = np.asarray(k, dtype=np.float64) - m
    root = np.sqrt(x * x + np.square(sigma))
    slope, bend = b * (rho + x / root), b * np.square(sigma) / root**3
    return Smile(a + b * (rho * x + root), slope, bend)


def measure_density(k: Number, smile: Smile) -> FloatArray:
    w, slope, bend = smile
    with np.errstate(divide="ignore", invalid="ignore"):
        first = 1.0 - np.asarray(k) * slope / (2.0 * w)
        return np.asarray(first * first - 0.25 * slope**2 * (1.0 / w + 0.25) + 0.5 * bend)


@dataclass(frozen=True)
class SVI:
    """Raw SVI parameters of one expiry.

    Raises ParameterError if a parameter is out of range, or the total variance is negative
    somewhere.

    Parameters
    ----------
    a : float
        Level, in total variance; may be negative.
    b : float
        Slope of the wings, at least 0.
    rho : float
        Skew, between -1 and 1.
    m : float
        Log-moneyness of the vertex of the wings.
    sigma : float
        Curvature at the vertex, positive.

    Examples
    --------
    >>> vogt = SVI(a=-0.041, b=0.1331, rho=0.306, m=0.3586, sigma=0.4153)
    >>> round(float(vogt.total_variance(0.0)), 8), round(float(vogt.density(0.9)), 6)
    (0.01742625, -0.032685)
    """

    a: float
    b: float
    rho: float
    m: float
    sigma: float

    def __post_init__(self) -> None:
        for name in ("a", "m"):
            check_range(name, getattr(self, name))
        check_range("b", self.b, low=0.0)
        check_range("rho", self.rho, low=-1.0, high=1.0, open_low=True, open_high=True)
        check_range("sigma", self.sigma, low=0.0, open_low=True)
        least = self.a + self.b * self.sigma * math.sqrt(1.0 - self.rho**2)
        if least < -1e-12:
            raise ParameterError(
                f"total variance must not be negative, got {least:g} at its minimum; raise a, or b "
                "sigma"
            )

    def smile(self, k: Number) -> Smile:
        """Return total variance and its derivatives at log-moneyness k."""
        return shape_smile(self.a, self.b, self.rho, self.m, self.sigma, k)

    def total_variance(self, k: Number) -> FloatArray:
        """Return total variance, volatility^2 years, at log-moneyness k."""
        return self.smile(k).total

    def density(self, k: Number) -> FloatArray:
        """Return Durrleman's g(k); butterfly spreads cost less than nothing where it is negative.

        ``g = (1 - k w'/(2w))^2 - w'^2/4 (1/w + 1/4) + w''/2``; the density of the underlying at
        expiry is g times a positive factor.
        """
        return measure_density(k, self.smile(k))

    @property
    def least_density(self) -> float:
        """The smallest g(k) for |k| <= 1.5, the neighborhood of the vertex included."""
        near = self.m + self.sigma * np.sinh(np.linspace(-5.0, 5.0, 401))
        k = np.sort(np.concatenate([GRID, near[np.abs(near) <= 1.5]]))
        found = self.density(k)
        for _ in range(3):  # zoom in on the lowest points: a dip may lie between two
            lowest = np.argsort(found)[:3]
            low, high = k[np.maximum(lowest - 1, 0)], k[np.minimum(lowest + 1, k.size - 1)]
            k = np.sort(np.linspace(low, high, 41).ravel())
            found = self.density(k)
        return float(np.min(found))


WIDENING = 0.005
"""Volatility added to half the spread: differences within it weigh little."""
WIDTH = 2.5
"""Standard deviations of log-moneyness within which a fit is judged."""
MAX_BEYOND = 30.0
"""Largest logarithm of what the tolerance of a far quote is multiplied by."""
FEWEST = 5
"""Two-sided strikes that the fit of an expiry needs: as many as parameters."""


class Quotes(NamedTuple):
    k: FloatArray
    bid: FloatArray
    ask: FloatArray
    years: float

    @property
    def mid(self) -> FloatArray:
        return 0.5 * (self.bid + self.ask)

    @property
    def money(self) -> float:
        return float(self.mid[np.argmin(np.abs(self.k))])

    @property
    def width(self) -> float:
        return self.money * math.sqrt(self.years)

    @property
    def tolerance(self) -> FloatArray:
        z = self.k / self.width
        beyond = np.minimum(0.5 * np.maximum(z * z - WIDTH**2, 0.0), MAX_BEYOND)
        return (0.5 * (self.ask - self.bid) + WIDENING) * np.exp(beyond)


def is_out_of_the_money(rows: pd.DataFrame) -> pd.Series:
    return (rows["kind"] == "call") == (rows["k"] >= 0.0)


def choose_rows(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = rows.assign(k=np.log(rows["strike"] / rows["forward"]))
    tests = {
        "expired": ~(rows["years"] > 0.0),
        "no forward": rows["forward"].isna(),
        "duplicated": rows.duplicated(["expiry", "strike", "kind"]),
        "no bid": rows["bid"].isna(),
        "no ask": rows["ask"].isna(),
        "crossed": rows["bid"] > rows["ask"],
        "ask without a volatility": rows["ask_iv"].isna(),
    }
    reasons = np.select([*tests.values()], [*tests], "").astype(object)
    strikes = rows[(reasons == "") & rows["bid_iv"].notna()].groupby("expiry")["strike"].nunique()
    few = rows["expiry"].map(strikes).fillna(0) < FEWEST
    reasons[(reasons == "") & few] = f"fewer than {FEWEST} two-sided strikes"
    used = reasons == ""
    columns = ["expiry", "strike", "kind", "name"]
    left = rows.loc[~used, columns].assign(reason=reasons[~used].astype(str))
    return rows[used].reset_index(drop=True), left.reset_index(drop=True)


def collect_quotes(part: pd.DataFrame) -> Quotes:
    """Return the two-sided quotes of an expiry by strike, those out of the money first."""
    both = part[part["bid_iv"].notna()]
    ranked = both.assign(is_in=~is_out_of_the_money(both)).sort_values(["strike", "is_in"])
    best = ranked.drop_duplicates("strike")
    k, bid, ask = best[["k", "bid_iv", "ask_iv"]].to_numpy().T
    return Quotes(k, bid, ask, float(np.median(part["years"])))


def describe_fit(part: pd.DataFrame, smile: SVI) -> dict[str, object]:
    years = float(np.median(part["years"]))
    fitted = np.sqrt(smile.total_variance(part["k"].to_numpy()) / years)
    money = math.sqrt(float(smile.total_variance(0.0)))
    near = part["k"].abs() <= WIDTH * money
    low = part["bid_iv"].fillna(0.0) - WIDENING
    inside = (fitted >= low) & (fitted <= part["ask_iv"] + WIDENING)
    errors = (part["iv"].fillna(part["mark_iv"]) - fitted).abs()
    known = errors[near].dropna()
    return {
        "years": years,
        "forward": float(np.median(part["forward"])),
        **vars(smile),
        "quotes": int(near.sum()),
        "strikes": part["strike"][near].nunique(),
        "inside": float(inside[near].mean()) if near.any() else math.nan,
        "median_error": float(np.median(known)) if known.size else math.nan,
        "worst_error": float(known.max()) if known.size else math.nan,
        "least_density": smile.least_density,
    }


MIN_DENSITY = 1e-7
"""Smallest g(k) of a fit: over 0 by more than what lies between two points of the examination."""
STEEPEST = 1.99
"""Largest slope of a wing: total variance grows at most as 2 |k| (Lee 2004)."""


def fit_svi(quotes: Quotes) -> SVI:
    """Return the raw SVI smile nearest to some quotes that has no butterfly arbitrage.

    From the best of a grid over m and sigma, where the other parameters are linear (Zeliade 2009).
    """
    width = quotes.width
    low = np.array([0.0, 0.0, -0.999, -2.0 * width, 0.01 * width])
    high = np.array([20.0, 2.0, 0.999, 2.0 * width, 8.0 * width])
    found = np.clip(find_start(quotes), low + 1e-9, high - 1e-9)
    grid = np.concatenate([np.linspace(-1.5, 1.5, 121), width * np.linspace(-6.0, 6.0, 121)])
    scale = 1.0 / quotes.tolerance

    def compare(weight: float, points: FloatArray) -> FloatArray:
        """Return the misfits to quotes, to the steepest wing and to a density over 0, by point.

        The columns of ``points`` are the least total variance, b, rho, m and sigma.
        """
        least, b, rho, m, sigma = points.T[:, :, None]
        place = (least - b * sigma * np.sqrt(1.0 - rho * rho), b, rho, m, sigma)
        total = np.maximum(shape_smile(*place, quotes.k).total, 1e-12)
        steep = np.maximum(0.0, b * (1.0 + np.abs(rho)) - STEEPEST) * 1e3
        misfits = [(np.sqrt(total / quotes.years) - quotes.mid) * scale, steep]
        if weight:
            density = measure_density(grid, shape_smile(*place, grid))
            misfits.append(weight * np.minimum(density - 1e-6, 0.0))
        return np.concatenate(misfits, axis=1)

    for weight in (0.0, 1e2, 1e4, 1e6):
        found = minimize(partial(compare, weight), found, low, high)
        least, b, rho, m, sigma = found.tolist()
        smile = SVI(least - b * sigma * math.sqrt(1.0 - rho * rho), b, rho, m, sigma)
        if smile.least_density >= MIN_DENSITY:
            return smile
    return fit_ssvi([quotes])[0]


STEPS = 200
MIN_GAIN = 1e-8
"""Share of the sum of squares that a step must gain for another one to follow."""
SHIFT = 1.5e-8
"""Part of a parameter over which a slope is taken: the root of the smallest difference."""


def minimize(
    compute: Callable[[FloatArray], FloatArray], x: FloatArray, low: FloatArray, high: FloatArray
) -> FloatArray:
    """Return where the sum of squares within some bounds is least, from a point inside.

    ``compute`` returns a row of numbers for each row of parameters. Levenberg-Marquardt with
    projected steps; parameters that leave at a bound rest there. Source: Kanzow, Yamashita and
    Fukushima (2004), Levenberg-Marquardt methods with strong local convergence properties for
    solving nonlinear equations with convex constraints.
    """

    def look(x: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        """Return the sum of squares at a point, half its slopes, and their products."""
        shift = SHIFT * np.maximum(np.abs(x), 1e-4)
        values, *moved = compute(x + np.vstack([np.zeros(len(x)), np.diag(shift)]))
        slopes = (np.array(moved) - values) / shift[:, None]
        return float(values @ values), slopes @ values, slopes @ slopes.T

    damping, (cost, pull, curve) = 1e-3, look(x)
    for _ in range(STEPS):
        is_free = ~(((x <= low) & (pull > 0.0)) | ((x >= high) & (pull < 0.0)))
        own = curve[np.ix_(is_free, is_free)]
        size = np.diag(own) + 1e-12 * np.trace(own) + 1e-300
        step = np.zeros_like(x)
        step[is_free] = np.linalg.solve(own + np.diag(damping * size), -pull[is_free])
        tried = np.clip(x + step, low, high)
        found = look(tried)
        if found[0] < cost:
            is_last = cost - found[0] <= MIN_GAIN * found[0]
            x, damping, (cost, pull, curve) = tried, max(0.2 * damping, 1e-12), found
            if is_last:
                break
        elif damping > 1e8:
            break
        else:
            damping *= 4.0
    return x


def find_start(quotes: Quotes) -> FloatArray:
    """Return the best of a grid over m and sigma: the least total variance, b, rho, m, sigma."""
    width = quotes.width
    total = quotes.mid**2 * quotes.years
    weights = 1.0 / (2.0 * quotes.mid * quotes.years * quotes.tolerance)
    places, sizes = (-1.0, -0.5, -0.2, 0.0, 0.2, 0.5, 1.0), (0.1, 0.3, 0.6, 1.0, 2.0, 4.0)
    pairs = np.meshgrid(width * np.array(places), width * np.array(sizes), indexing="ij")
    m, sigma = (each.ravel() for each in pairs)
    y = quotes.k - m[:, None]
    root = np.sqrt(y * y + sigma[:, None] ** 2)
    terms = np.stack([np.ones_like(y), y, root], axis=2) * weights[:, None]
    a, skew, b = (np.linalg.pinv(terms) @ (total * weights)).T
    b = np.clip(b, 1e-6, 1.9)
    rho = np.clip(skew / b, -0.95, 0.95)
    flat = b * sigma * np.sqrt(1.0 - rho * rho)
    least = np.maximum(a + flat, 1e-9)
    fitted = (least - flat)[:, None] + b[:, None] * (rho[:, None] * y + root)
    best = np.argmin(np.sum(((fitted - total) * weights) ** 2, axis=1))
    return np.array([each[best] for each in (least, b, rho, m, sigma)])


def fit_ssvi(expiries: list[Quotes]) -> list[SVI]:
    """Return one SSVI smile for each expiry, of the same rho, eta and gamma, in raw parameters.

    ``w(k) = theta/2 (1 + rho phi k + sqrt((phi k + rho)^2 + 1 - rho^2))`` with
    ``phi = eta / (theta^gamma (1 + theta)^(1 - gamma))``. There is no arbitrage for
    ``eta (1 + |rho|) <= 2``, ``gamma <= 1/2`` and theta that rises with the time to expiry
    (Gatheral and Jacquier 2014, section 4).
    """
    atm = [each.money**2 * each.years for each in expiries]
    rises = np.maximum(np.diff([0.0, *atm]), 1e-8)
    start = np.array([-0.1, 0.5, 0.4, *np.log(rises)])
    low = np.array([-0.99, 1e-3, 1e-3, *[-25.0] * len(rises)])
    high = np.array([0.99, 1.0, 0.5, *[3.0] * len(rises)])

    def compare(points: FloatArray) -> FloatArray:
        """Return the misfits of all expiries, a row a point."""
        rows = []
        for smiles in map(build_ssvi, points):
            misfits = []
            for smile, each in zip(smiles, expiries, strict=True):
                fitted = np.sqrt(smile.total_variance(each.k) / each.years)
                misfits.append((fitted - each.mid) / each.tolerance)
            rows.append(np.concatenate(misfits))
        return np.array(rows)

    return build_ssvi(minimize(compare, start, low, high))


def build_ssvi(x: FloatArray) -> list[SVI]:
    rho, share, gamma = (float(each) for each in x[:3])
    eta, root = 2.0 * share / (1.0 + abs(rho)), math.sqrt(1.0 - rho**2)
    smiles = []
    for theta in np.cumsum(np.exp(x[3:])).tolist():
        phi = eta / (theta**gamma * (1.0 + theta) ** (1.0 - gamma))
        a, b = 0.5 * theta * (1.0 - rho**2), 0.5 * theta * phi
        smiles.append(SVI(a, b, rho, -rho / phi, root / phi))
    return smiles


"""Where the figures, tables and charts are declared."""
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
CROSSING_GRID = np.linspace(-1.5, 1.5, 601)
CROSSING_TOLERANCE = 1e-12


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
    def fit(cls, chain: Chain, model: Model = "svi", *, underlying: str | None = None) -> Surface:
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
        one = chain.only(underlying)
        rows, left_out = choose_rows(one.implied())
        if rows.empty:
            raise DataError(
                f"an expiry needs {FEWEST} strikes with bid and ask, got none that has in the "
                f"{len(one)} quotes of {one.source}; chain.inspect() shows why"
            )
        expiries = rows.groupby("expiry", sort=True)
        parts = [part for _, part in expiries]
        quotes = [*map(collect_quotes, parts)]
        smiles = tuple(map(fit_svi, quotes) if model == "svi" else fit_ssvi(quotes))
        fits = pd.DataFrame([*map(describe_fit, parts, smiles)])
        heads = expiries[["forward_source"]].first().reset_index()
        fits.insert(0, "expiry", heads["expiry"])
        fits.insert(3, "forward_source", heads["forward_source"])
        return cls._of_tables(one, model, fits, left_out, rows)

    @classmethod
    def _of_tables(
        cls, one: Chain, model: Model, fits: pd.DataFrame, left_out: pd.DataFrame,
        quotes: pd.DataFrame,
    ) -> Surface:  # fmt: skip
        smiles = (SVI(*row) for row in fits[["a", "b", "rho", "m", "sigma"]].to_numpy().tolist())
        return cls(
            one.times[0], one.underlyings[0], model, tuple(smiles), fits, left_out,
            float(one.table["index"].median()), one.settlement, quotes, one,
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
        """What the surface shows, in a sentence."""
        tenor = self.headline_tenor
        butterflies = int(self.arbitrage()["butterfly"].sum())
        skew = self.skew(tenor)
        sides = ("puts", "calls") if skew >= 0.0 else ("calls", "puts")
        expiries = core.count_nouns(len(self.fits), "expiry", "expiries")
        days = f"{YEAR_DAYS * tenor:.3g} days"
        return (
            f"At {days}: {100 * self.atm(tenor):.1f} % a year at the money, 25-delta {sides[0]} "
            f"{100 * abs(skew):.1f} points above {sides[1]}; butterfly arbitrage in {butterflies} "
            f"of {expiries}."
        )

    @property
    def details(self) -> str:
        """How well the fit meets the quotes, and what arbitrage is left between expiries."""
        quotes = core.count_nouns(int(self.fits["quotes"].sum()), "two-sided quote")
        return (
            f"{100 * self.inside:.1f} % of {quotes} within {WIDTH:g} standard deviations contain "
            f"the fit between bid and ask, widened by {100 * WIDENING:g} points. "
            f"{core.capitalize(describe_crossings(self.arbitrage()))}."
        )

    @property
    def inside(self) -> float:
        """The share of two-sided quotes near the money that contain the fit; NaN without any."""
        judged, total = self.fits[self.fits["quotes"] > 0], self.fits["quotes"].sum()
        return float((judged["inside"] * judged["quotes"]).sum() / total) if total else math.nan

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

    @cached_property
    def years(self) -> FloatArray:
        """Time to expiry of the fitted smiles, increasing."""
        return self.fits["years"].to_numpy(dtype=np.float64)

    @cached_property
    def _forwards(self) -> FloatArray:
        """The index, or the first forward without one, and then the forwards of the smiles."""
        forwards = self.fits["forward"].to_numpy(dtype=np.float64)
        return np.append(self.index if self.index > 0.0 else forwards[0], forwards)

    def _carry(self, years: FloatArray) -> FloatArray:
        """Return ln(F / index)."""
        carries, times = np.log(self._forwards / self._forwards[0]), np.append(0.0, self.years)
        after = carries[-1] * years / times[-1]
        return np.asarray(np.where(years > times[-1], after, np.interp(years, times, carries)))

    def forward(self, years: Number) -> Any:
        """Return the forward of times to expiry, of the same shape.

        ln(F / index) is linear in time from 0 over the expiries, and in proportion to it after.
        Raises ParameterError if years are negative or no numbers.
        """
        wanted = np.asarray(check_each("years", years, NOT_NEGATIVE))
        return core.float_if_single(self._forwards[0] * np.exp(self._carry(wanted)))

    def total_variance(self, k: Number, years: Number) -> Any:
        """Return volatility^2 years at log-moneyness ``k = ln(K / F)``, both broadcast.

        Raises ParameterError if a number is not finite, or years are negative.
        """
        ks, wanted = broadcast(
            check_each("k", k, core.Real()), check_each("years", years, NOT_NEGATIVE)
        )
        totals = np.empty(np.shape(ks))
        for each in np.unique(wanted):
            totals[wanted == each] = self._interpolate(ks[wanted == each], float(each))
        return core.float_if_single(totals)

    def _interpolate(self, k: FloatArray, years: float) -> FloatArray:
        """Return total variance at one time to expiry, from the two expiries around it."""
        times, smiles = self.years, self.smiles
        if years < times[0] or len(times) == 1:
            return np.asarray(smiles[0].total_variance(k) * years / times[0])
        if years > times[-1]:
            return np.asarray(smiles[-1].total_variance(k) * years / times[-1])
        after = min(max(int(np.searchsorted(times, years)), 1), len(times) - 1)
        low, high = (each.total_variance(k) for each in smiles[after - 1 : after + 1])
        share = (years - times[after - 1]) / (times[after] - times[after - 1])
        return np.asarray(low + share * (high - low))

    def volatility(self, strike: Number, years: Number) -> Any:
        """Return the implied volatility, per sqrt(year), of strikes and times to expiry.

        Raises ParameterError if a strike or a time is not positive.
        """
        strikes = check_each("strike", strike, POSITIVE)
        wanted = check_each("years", years, POSITIVE)
        strikes, wanted = broadcast(strikes, wanted)
        total = self.total_variance(np.log(strikes / self.forward(wanted)), wanted)
        return core.float_if_single(np.asarray(np.sqrt(total / wanted)))

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
        level = float(sp.special.ndtri(delta if delta > 0.0 else 1.0 + delta))

        def gap(k: float) -> float:
            root = math.sqrt(self.total_variance(k, years))
            return -k / root + 0.5 * root - level

        reach = 12.0 * self.atm(years) * math.sqrt(years)
        if not gap(-reach) > 0.0 > gap(reach):
            return math.nan
        k = sp.optimize.brentq(gap, -reach, reach, xtol=1e-12)
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
        # the kink at k = 0 is one of its knots
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
        falls = np.diff(totals, axis=0) < -CROSSING_TOLERANCE
        least = [smile.least_density for smile in self.smiles]
        crossed = [(math.nan, 0.0), *map(self._cross, range(1, len(self.smiles)))]
        shares, depths = map(list, zip(*crossed, strict=True))
        found: dict[str, Any] = {"expiry": self.fits["expiry"], "least_density": least}
        found |= {"butterfly": [each < MIN_SOUND for each in least]}
        found |= {"crossings": [0.0, *falls.mean(axis=1)], "quoted_crossings": shares}
        return pd.DataFrame({**found, "deepest_crossing": depths})

    def _cross(self, place: int) -> tuple[float, float]:
        ends = self.fits["expiry"]
        expiries, rows = self.quotes["expiry"], (place - 1, place)
        quoted = [self.quotes.loc[expiries == ends[row], "k"] for row in rows]
        low, high = max(each.min() for each in quoted), min(each.max() for each in quoted)
        if not low < high:
            return math.nan, 0.0
        k = np.linspace(low, high, CROSSING_GRID.size)
        before, own = (self.smiles[row].total_variance(k) for row in rows)
        is_under = own < before - CROSSING_TOLERANCE
        fall = np.sqrt(before / self.years[place]) - np.sqrt(own / self.years[place])
        return float(is_under.mean()), float(np.max(fall, where=is_under, initial=0.0))


def describe_crossings(arbitrage: pd.DataFrame) -> str:
    judged = arbitrage[arbitrage["quoted_crossings"].notna()]
    crossing = judged[judged["quoted_crossings"] > 0.0]
    pairs = core.count_nouns(len(judged), "pair") + " of expiries"
    if crossing.empty:
        return f"no calendar arbitrage between the strikes quoted in both of {pairs}"
    depth = 100 * float(crossing["deepest_crossing"].max())
    return (
        f"calendar arbitrage between the strikes quoted in both in {len(crossing)} of {pairs}, up "
        f"to {depth:.2g} points ({', '.join(f'{each:%Y-%m-%d}' for each in crossing['expiry'])})"
    )


def read_tenor(tenor: str | float) -> float:
    if isinstance(tenor, str):
        return core.parse_duration(tenor, "tenor") / (DAY * YEAR_DAYS)
    return float(check_each("tenor", tenor, POSITIVE))


COLUMNS: dict[str, Measure] = {"iv": "atm", "skew": "skew", "vix": "vix"}
MAX_AGE = 14 * DAY
"""Largest age of the last surface at the first bar of a market, in nanoseconds."""
YEAR = YEAR_DAYS * DAY
OF_SURFACE = ("fits", "left_out", "quotes")


def fit_snapshots(
    chain: Chain, model: Model, progress: core.Progress | None
) -> dict[str, pd.DataFrame]:
    """Return the tables of all surfaces of a chain by ``snapshot``, and the ``skipped`` ones."""
    fitted, skipped = dict[int, Surface](), []
    for k, time in enumerate(chain.times):
        try:
            fitted[k] = Surface.fit(chain.select(time=time), model)
        except DataError as error:
            skipped.append((time, str(error)))
        core.report_progress(progress, k + 1, len(chain.times))
    if not fitted:
        raise DataError(
            f"a snapshot must have a surface, got none in {chain.source}: {skipped[0][1]}; "
            "bt.Chain.load(path).inspect() shows why"
        )
    found = {"skipped": pd.DataFrame(skipped, columns=["time", "reason"])}
    for name in OF_SURFACE:
        tables = [getattr(surface, name).assign(snapshot=k) for k, surface in fitted.items()]
        found[name] = pd.concat(tables, ignore_index=True)
    return found


def hash_frame(frame: pd.DataFrame) -> str:
    rows = pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes()
    return hashlib.sha256(json.dumps([str(each) for each in frame]).encode() + rows).hexdigest()


@dataclass(frozen=True, eq=False, repr=False)
class Surfaces:
    """Surfaces of one underlying at increasing instants.

    Parameters
    ----------
    surfaces : tuple of Surface
        By time.
    skipped : DataFrame
        Snapshots that could not be fitted: ``time`` and ``reason``.
    """

    surfaces: tuple[Surface, ...]
    skipped: pd.DataFrame

    @classmethod
    @core.checked
    def load(
        cls,
        path: str | Path,
        *,
        underlying: str | None = None,
        model: Model = "svi",
        settlement: str | None = None,
        timezone: str | None = None,
        progress: core.Progress | None = None,
    ) -> Surfaces:
        """Fit a surface to each snapshot of a folder of chains, or of one file.

        Raises DataError if there is no file, a file is no chain, or no snapshot can be fitted;
        ParameterError if an underlying is needed.

        Parameters
        ----------
        path : str or Path
            A file that :meth:`Chain.load` reads, or a folder of them.
        underlying : str, optional
            Needed if the chains have several.
        model, settlement, timezone
            As in :meth:`Surface.fit` and :meth:`Chain.load`.
        progress : callable, optional
            Called with the number of snapshots done and their total.
        """
        chain = Chain.load(path, settlement=settlement, timezone=timezone)
        return cls.fit(chain, model, underlying=underlying, progress=progress)

    @classmethod
    @core.checked
    def fit(
        cls,
        chain: Chain,
        model: Model = "svi",
        *,
        underlying: str | None = None,
        progress: core.Progress | None = None,
    ) -> Surfaces:
        """Fit a surface to each snapshot of a chain; see :meth:`load`.

        Fits are kept in the cache folder, by a hash of the quotes, the model and the code.
        """
        chosen, cache = chain.select(underlying), _compile.find_lasting_folder()
        make = partial(fit_snapshots, chosen, model, progress)
        modules = (chains, pricing, core.black_kernels, implied_kernels)
        paths = (__file__, *(str(each.__file__) for each in modules))
        code = (Path(each).read_text(encoding="utf-8") for each in paths)
        versions = map(core.find_version, ("numpy", "pandas"))
        terms = (hash_frame(chosen.table), chosen.settlement, model)
        name = f"surfaces-{core.hash_texts(*terms, *versions, *code)}"
        tables = make() if cache is None else core.keep_tables(cache / name, make)
        parts = {each: tables[each].set_index("snapshot") for each in OF_SURFACE}
        surfaces, times = list[Surface](), list[Any](chosen.times)
        for k in parts["fits"].index.unique():
            own = {each: part.loc[k:k].reset_index(drop=True) for each, part in parts.items()}
            surfaces.append(Surface._of_tables(chosen.select(time=times[k]), model, **own))
        return cls(tuple(surfaces), tables["skipped"])

    def __repr__(self) -> str:
        first, last = self.surfaces[0], self.surfaces[-1]
        name = f"{first.underlying}, " if first.underlying else ""
        return (
            f"Surfaces({name}{len(self.surfaces)} snapshots, {first.time:%Y-%m-%d %H:%M} to "
            f"{last.time:%Y-%m-%d %H:%M}, {len(self.skipped)} skipped)"
        )

    def __len__(self) -> int:
        return len(self.surfaces)

    @property
    def times(self) -> pd.DatetimeIndex:
        """The instants, UTC."""
        return pd.DatetimeIndex([each.time for each in self.surfaces], name="time")

    def at(self, time: core.TimeLike) -> Surface:
        """Return the last surface stamped at or before a time; a DataError if there is none."""
        stamp = core.to_nanoseconds(time, "time")
        k = int(np.searchsorted(self._stamps, stamp, side="right")) - 1
        if k < 0:
            raise DataError(f"no surface is stamped at or before {time}, got {self!r}")
        return self.surfaces[k]

    @cached_property
    def _stamps(self) -> np.ndarray:
        return np.asarray(self.times.as_unit("ns").asi8)

    def locate(self, times: IntArray, side: Any = "right") -> IntArray:
        """Return the last surface stamped up to ("right") or before ("left") each time, or -1."""
        return np.asarray(np.searchsorted(self._stamps, times, side=side) - 1)

    def value(
        self, strike: float, expiry: int, times: IntArray, spots: FloatArray, rows: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return forward over spot, and volatility, of a contract at some times.

        ``rows`` number the surfaces in force.
        """
        left, (bases, volatilities) = (expiry - times) / YEAR, np.empty((2, len(times)))
        for row in np.unique(rows):
            surface = self.surfaces[row]
            tenor = (expiry - int(self._stamps[row])) / YEAR
            here = np.flatnonzero(rows == row)
            carry = float(surface._carry(np.float64(tenor)))
            bases[here] = np.exp(carry * left[here] / tenor)
            distance = np.log(strike / (spots[here] * bases[here]))
            volatilities[here] = np.sqrt(surface._interpolate(distance, tenor) / tenor)
        return bases, volatilities

    def find_ages(self, times: IntArray, rows: IntArray) -> FloatArray:
        """Return the days since the surfaces in force."""
        return np.asarray((times - self._stamps[np.maximum(rows, 0)]) / DAY)

    def is_flat_before(self, expiry: int, end: int) -> bool:
        """Return whether a surface before an expiry and ``end`` has no expiry as early as it."""
        return any(
            stamp < min(expiry, end) and expiry < each.fits["expiry"].iloc[0].value
            for stamp, each in zip(self._stamps.tolist(), self.surfaces, strict=True)
        )

    @property
    def content_hash(self) -> str:
        """A hash of times, smiles and forwards."""
        content = []
        for each in self.surfaces:
            forwards = each.fits[["expiry", "forward"]].astype(str).to_numpy().tolist()
            smiles = [[*vars(smile).values()] for smile in each.smiles]
            content.append([str(each.time), each.index, forwards, smiles])
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def atm(self, tenor: str | float) -> pd.Series:
        """Return the volatility at the forward of a tenor, by snapshot."""
        return self._series("atm", tenor)

    def skew(self, tenor: str | float) -> pd.Series:
        """Return the volatility of the 25-delta put less that of the call, by snapshot."""
        return self._series("skew", tenor)

    def vix(self, tenor: str | float) -> pd.Series:
        """Return the model-free volatility of a tenor, by snapshot."""
        return self._series("vix", tenor)

    def _series(self, name: Measure, tenor: str | float) -> pd.Series:
        values = [getattr(each, name)(tenor) for each in self.surfaces]
        return pd.Series(values, self.times, name=f"{name}_{tenor}")

    def attach(self, market: Market, tenors: Sequence[str] = ("30d",)) -> Market:
        """Return a market with columns of these surfaces, for policies to observe.

        Raises ParameterError if there is no tenor; DataError if no bar closes after a surface, or
        all close over 14 days after the last.

        Parameters
        ----------
        market : Market
            Bars of the underlying.
        tenors : sequence of str
            For example ``("7d", "30d")``.

        Returns
        -------
        Market
            With the columns ``iv_<tenor>``, ``skew_<tenor>`` and ``vix_<tenor>`` of each tenor,
            ``surface_age`` (days since the snapshot), and ``implied_volatility``, the model-free
            volatility of the first tenor, which policies read. The values of a bar are of the last
            snapshot stamped strictly before its close; NaN before the first, and skew and vix also
            where a tenor is over twice the last expiry.
        """
        if not tenors or isinstance(tenors, str):
            raise ParameterError(
                "tenors must be a sequence of durations such as ('30d',), got "
                f"{core.repr_given(tenors)}"
            )
        closes = market.time + market.interval
        row = self.locate(closes, "left")
        if row[-1] < 0 or closes[0] - self._stamps[-1] > MAX_AGE:
            raise DataError(
                f"bars must close after a surface and at most {MAX_AGE / DAY:g} days after the "
                f"last, got bars from {core.format_time(int(closes[0]))} to "
                f"{core.format_time(int(closes[-1]))} for {self!r}"
            )
        columns = {
            f"{name}_{tenor}": np.append(self._series(key, tenor), np.nan)[row]  # row -1: NaN
            for tenor in tenors
            for name, key in COLUMNS.items()
        }
        columns["surface_age"] = np.where(row >= 0, self.find_ages(closes, row), np.nan)
        columns["implied_volatility"] = columns[f"vix_{tenors[0]}"]
        return market.with_columns(**columns)
