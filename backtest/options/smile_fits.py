"""Fits of smiles to the bids and asks of a snapshot: the quotes used, SVI by expiry, and SSVI."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from backtest.core import FloatArray
from backtest.core.code_names import pd
from backtest.options.smiles import SVI, build_ssvi, measure_density, shape_smile

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
