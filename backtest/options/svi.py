"""Raw SVI and SSVI: total implied variance by log-moneyness, and fits to bids and asks.

``w(k) = a + b (rho (k - m) + sqrt((k - m)^2 + sigma^2))`` with ``k = ln(K / F)`` and
``w = volatility^2 years``. Sources: Gatheral (2004); Gatheral and Jacquier (2014), Arbitrage-free
SVI volatility surfaces, Quantitative Finance 14(1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from backtest.base import FloatArray, ParameterError, check_range

Number = float | FloatArray
GRID = np.unique(
    np.concatenate([np.linspace(-1.5, 1.5, 1201), np.sinh(np.linspace(-6.0, 6.0, 401)) / 135.0])
)
LEAST_SOUND = -1e-9
"""Smallest g(k) of a smile without butterfly arbitrage: 0 but for rounding."""


class Smile(NamedTuple):
    """Total variance and its first two derivatives by log-moneyness, of one shape."""

    total: FloatArray
    slope: FloatArray
    bend: FloatArray


@dataclass(frozen=True)
class SVI:
    """Raw SVI parameters of one expiry.

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

    Raises
    ------
    ParameterError
        If a parameter is out of range, or the total variance is negative somewhere.

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

    @classmethod
    def from_jump_wings(
        cls, v: float, psi: float, p: float, c: float, v_tilde: float, years: float
    ) -> SVI:
        """Return the raw parameters of a smile in jump-wings form.

        Parameters
        ----------
        v, v_tilde : float
            Variance per year at the money and at its minimum.
        psi : float
            Skew at the money.
        p, c : float
            Slopes of the put and the call wing.
        years : float
            Time to expiry.

        Raises
        ------
        ParameterError
            If they are no smile.
        """
        total = v * years
        b = 0.5 * math.sqrt(total) * (c + p)
        rho = 1.0 - p * math.sqrt(total) / b
        beta = rho - 2.0 * psi * math.sqrt(total) / b
        if not abs(beta) <= 1.0:
            raise ParameterError(
                f"psi must be between the slopes of the wings, -p / 2 and c / 2, got {psi:g}"
            )
        root = math.sqrt(1.0 - rho**2)
        if beta == 0.0:
            ratio, m = 0.0, 0.0
        else:
            alpha = math.copysign(math.sqrt(1.0 / beta**2 - 1.0), beta)
            drop = -rho + math.copysign(math.sqrt(1.0 + alpha**2), alpha) - alpha * root
            ratio, m = alpha, (v - v_tilde) * years / (b * drop)
        sigma = ratio * m if m else (v - v_tilde) * years / (b * (1.0 - root))
        a = v_tilde * years - b * sigma * root
        return cls(a, b, rho, m, sigma)

    def smile(self, k: Number) -> Smile:
        """Return total variance and its derivatives at log-moneyness k."""
        x = np.asarray(k, dtype=np.float64) - self.m
        root = np.sqrt(x * x + self.sigma**2)
        return Smile(
            self.a + self.b * (self.rho * x + root),
            self.b * (self.rho + x / root),
            self.b * self.sigma**2 / root**3,
        )

    def total_variance(self, k: Number) -> FloatArray:
        """Return total variance, volatility^2 years, at log-moneyness k."""
        return self.smile(k).total

    def density(self, k: Number) -> FloatArray:
        """Return g(k); butterfly spreads cost less than nothing where it is negative."""
        return find_density(self.smile(k), k)

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


@dataclass(frozen=True)
class SSVI:
    """Smile of one expiry of an SSVI surface.

    ``w(k) = theta/2 (1 + rho phi k + sqrt((phi k + rho)^2 + 1 - rho^2))`` with
    ``phi = eta / (theta^gamma (1 + theta)^(1 - gamma))``. There is no arbitrage for
    ``eta (1 + |rho|) <= 2``, ``gamma <= 1/2`` and theta that rises with the time to expiry
    (Gatheral and Jacquier 2014, section 4).
    """

    theta: float
    rho: float
    eta: float
    gamma: float

    @property
    def raw(self) -> SVI:
        """The same smile in raw SVI parameters."""
        phi = self.eta / (self.theta**self.gamma * (1.0 + self.theta) ** (1.0 - self.gamma))
        root = math.sqrt(1.0 - self.rho**2)
        return SVI(
            a=0.5 * self.theta * (1.0 - self.rho**2),
            b=0.5 * self.theta * phi,
            rho=self.rho,
            m=-self.rho / phi,
            sigma=root / phi,
        )


def find_density(smile: Smile, k: Number) -> FloatArray:
    """Return Durrleman's g(k) of a smile.

    ``g = (1 - k w'/(2w))^2 - w'^2/4 (1/w + 1/4) + w''/2``; the density of the underlying at expiry
    is g times a positive factor.
    """
    w, slope, bend = smile
    with np.errstate(divide="ignore", invalid="ignore"):
        first = 1.0 - np.asarray(k) * slope / (2.0 * w)
        return first * first - 0.25 * slope**2 * (1.0 / w + 0.25) + 0.5 * bend


WIDENING = 0.005
"""Volatility added to half the spread: differences within it weigh little."""
WIDTH = 2.5
"""Standard deviations of log-moneyness within which a fit is judged."""
MOST_BEYOND = 30.0
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
        beyond = np.minimum(0.5 * np.maximum(z * z - WIDTH**2, 0.0), MOST_BEYOND)
        return (0.5 * (self.ask - self.bid) + WIDENING) * np.exp(beyond)


def is_out_of_the_money(rows: pd.DataFrame) -> pd.Series:
    return (rows["kind"] == "call") == (rows["k"] >= 0.0)


def choose_rows(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = rows.assign(k=np.log(rows["strike"] / rows["forward"]))
    keys = ["expiry", "strike", "kind"]
    reasons = pd.Series("", rows.index)
    for reason, bad in (
        ("expired", ~(rows["years"] > 0.0)),
        ("no forward", rows["forward"].isna()),
        ("duplicated", rows.duplicated(keys)),
        ("no bid", rows["bid"].isna()),
        ("no ask", rows["ask"].isna()),
        ("crossed", rows["bid"] > rows["ask"]),
        ("ask without a volatility", rows["ask_iv"].isna()),
    ):
        reasons = reasons.where((reasons != "") | ~bad, reason)
    inverted = (reasons == "") & rows["bid_iv"].notna()
    strikes = rows[inverted].groupby("expiry")["strike"].nunique()
    few = rows["expiry"].map(strikes).fillna(0) < FEWEST
    reasons = reasons.where((reasons != "") | ~few, f"fewer than {FEWEST} two-sided strikes")
    used = reasons == ""
    columns = ["expiry", "strike", "kind", "name"]
    left = rows.loc[~used, columns].assign(reason=reasons[~used])
    return rows[used].reset_index(drop=True), left.reset_index(drop=True)


def collect_quotes(part: pd.DataFrame) -> Quotes:
    is_out = is_out_of_the_money(part)
    both = part["bid_iv"].notna()
    ranked = part[both].assign(rank=~is_out[both]).sort_values(["strike", "rank"], kind="stable")
    best = ranked.drop_duplicates("strike")
    k, bid, ask = (best[name].to_numpy(dtype=np.float64) for name in ("k", "bid_iv", "ask_iv"))
    return Quotes(k, bid, ask, float(part["years"].median()))


def describe_fit(part: pd.DataFrame, smile: SVI) -> dict[str, object]:
    years = float(part["years"].median())
    fitted = np.sqrt(smile.total_variance(part["k"].to_numpy()) / years)
    money = math.sqrt(float(smile.total_variance(0.0)))
    near = (part["k"].abs() <= WIDTH * money).to_numpy()
    low = part["bid_iv"].fillna(0.0).to_numpy() - WIDENING
    inside = (fitted >= low) & (fitted <= part["ask_iv"].to_numpy() + WIDENING)
    marks = part["iv"].fillna(part["mark_iv"]).to_numpy()
    errors = np.abs(fitted - marks)[near]
    known = errors[~np.isnan(errors)]
    return {
        "expiry": part["expiry"].iloc[0],
        "years": years,
        "forward": float(part["forward"].median()),
        "forward_source": part["forward_source"].iloc[0],
        "a": smile.a,
        "b": smile.b,
        "rho": smile.rho,
        "m": smile.m,
        "sigma": smile.sigma,
        "quotes": int(near.sum()),
        "strikes": int(part.loc[near, "strike"].nunique()),
        "inside": float(inside[near].mean()) if near.any() else math.nan,
        "median_error": float(np.median(known)) if known.size else math.nan,
        "worst_error": float(known.max()) if known.size else math.nan,
        "least_density": smile.least_density,
    }


# ------------------------------------------------------------------------------------------- fits

LEAST_DENSITY = 1e-7
"""Smallest g(k) of a fit: over 0 by more than what lies between two points of the examination."""
STEEPEST = 1.99
"""Largest slope of a wing: total variance grows at most as 2 |k| (Lee 2004)."""


def fit_svi(quotes: Quotes) -> SVI:
    """Return the raw SVI smile nearest to some quotes that has no butterfly arbitrage.

    The start is the best of a grid over m and sigma, where the other three parameters are linear
    (Zeliade 2009). Least squares of volatility against the middle, in units of half the widened
    spread, with a penalty for negative densities that grows. A smile that keeps some
    is replaced by an SSVI smile, which has none.
    """
    from scipy.optimize import least_squares  # noqa: PLC0415 - takes 0.3 s

    bounds = find_bounds(quotes)
    start = np.clip(find_start(quotes), bounds[0] + 1e-9, bounds[1] - 1e-9)
    grid = penalty_grid(quotes)
    found = start
    for weight in (0.0, 1e2, 1e4, 1e6):
        solved = least_squares(
            residuals, found, bounds=bounds, args=(quotes, grid, weight), x_scale="jac",
            max_nfev=200,
        )  # fmt: skip
        found = solved.x
        smile = build(found)
        if is_sound(smile):
            return smile
    return fit_ssvi([quotes])[0].raw


def find_bounds(quotes: Quotes) -> tuple[FloatArray, FloatArray]:
    width = quotes.width
    low = np.array([0.0, 0.0, -0.999, -2.0 * width, 0.01 * width])
    return low, np.array([20.0, 2.0, 0.999, 2.0 * width, 8.0 * width])


def build(x: FloatArray) -> SVI:
    least, b, rho, m, sigma = (float(each) for each in x)
    return SVI(least - b * sigma * math.sqrt(1.0 - rho * rho), b, rho, m, sigma)


def residuals(x: FloatArray, quotes: Quotes, grid: FloatArray, weight: float) -> FloatArray:
    smile = build(x)
    total = np.maximum(smile.total_variance(quotes.k), 1e-12)
    misfit = (np.sqrt(total / quotes.years) - quotes.mid) / quotes.tolerance
    steep = max(0.0, smile.b * (1.0 + abs(smile.rho)) - STEEPEST) * 1e3
    if not weight:
        return np.append(misfit, steep)
    lacking = np.minimum(smile.density(grid) - 1e-6, 0.0)
    return np.concatenate([misfit, [steep], weight * lacking])


def penalty_grid(quotes: Quotes) -> FloatArray:
    width = quotes.width
    return np.concatenate([np.linspace(-1.5, 1.5, 121), width * np.linspace(-6.0, 6.0, 121)])


def find_start(quotes: Quotes) -> FloatArray:
    width = quotes.width
    total = quotes.mid**2 * quotes.years
    weights = 1.0 / (2.0 * quotes.mid * quotes.years * quotes.tolerance)
    best, best_cost = np.array([total.min(), 0.1, 0.0, 0.0, width]), math.inf
    for m in width * np.array([-1.0, -0.5, -0.2, 0.0, 0.2, 0.5, 1.0]):
        for sigma in width * np.array([0.1, 0.3, 0.6, 1.0, 2.0, 4.0]):
            found = solve_linear(quotes.k, total, weights, float(m), float(sigma))
            smile = build(found)
            cost = float(np.sum(((smile.total_variance(quotes.k) - total) * weights) ** 2))
            if cost < best_cost:
                best, best_cost = found, cost
    return best


def solve_linear(
    k: FloatArray, total: FloatArray, weights: FloatArray, m: float, sigma: float
) -> FloatArray:
    x = k - m
    terms = np.stack([np.ones_like(x), x, np.sqrt(x * x + sigma * sigma)], axis=1)
    a, skew, b = np.linalg.lstsq(terms * weights[:, None], total * weights, rcond=None)[0]
    b = min(max(b, 1e-6), 1.9)
    rho = min(max(skew / b, -0.95), 0.95)
    least = max(a + b * sigma * math.sqrt(1.0 - rho * rho), 1e-9)
    return np.array([least, b, rho, m, sigma])


def is_sound(smile: SVI) -> bool:
    return smile.least_density >= LEAST_DENSITY


def fit_ssvi(expiries: list[Quotes]) -> list[SSVI]:
    from scipy.optimize import least_squares  # noqa: PLC0415 - as above

    atm = [each.money**2 * each.years for each in expiries]
    rises = np.maximum(np.diff([0.0, *atm]), 1e-8)
    start = np.array([-0.1, 0.5, 0.4, *np.log(rises)])
    low = [-0.99, 1e-3, 1e-3, *[-25.0] * len(rises)]
    high = [0.99, 1.0, 0.5, *[3.0] * len(rises)]
    solved = least_squares(ssvi_residuals, start, bounds=(low, high), args=(expiries,))
    return build_ssvi(solved.x)


def build_ssvi(x: FloatArray) -> list[SSVI]:
    rho, share, gamma = (float(each) for each in x[:3])
    eta = 2.0 * share / (1.0 + abs(rho))
    return [SSVI(float(theta), rho, eta, gamma) for theta in np.cumsum(np.exp(x[3:]))]


def ssvi_residuals(x: FloatArray, expiries: list[Quotes]) -> FloatArray:
    parts = []
    for smile, quotes in zip(build_ssvi(x), expiries, strict=True):
        total = smile.raw.total_variance(quotes.k)
        parts.append((np.sqrt(total / quotes.years) - quotes.mid) / quotes.tolerance)
    return np.concatenate(parts)
