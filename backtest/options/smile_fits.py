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
    """Two-sided quotes of an expiry: log-moneyness k, and volatilities of bid and ask."""

    k: FloatArray
    bid: FloatArray
    ask: FloatArray
    years: float

    @property
    def mid(self) -> FloatArray:
        """The volatility in the middle of bid and ask."""
        return 0.5 * (self.bid + self.ask)

    @property
    def at_money(self) -> float:
        """The volatility of the quote nearest to the forward."""
        nearest = np.argmin(np.abs(self.k))
        return float(self.mid[nearest])

    @property
    def deviation(self) -> float:
        """The standard deviation of log-moneyness at expiry."""
        return self.at_money * math.sqrt(self.years)

    @property
    def tolerance(self) -> FloatArray:
        """The volatility by which a fit may miss each quote: beyond WIDTH, ever more."""
        # z is log-moneyness in deviations. Vega falls with exp(-z^2 / 2), and so does the weight of
        # a quote beyond WIDTH.
        z = self.k / self.deviation
        squares_beyond = np.maximum(z * z - WIDTH**2, 0.0)
        beyond = np.minimum(0.5 * squares_beyond, MAX_BEYOND)
        half_spread = 0.5 * (self.ask - self.bid)
        return (half_spread + WIDENING) * np.exp(beyond)


def is_out_of_the_money(rows: pd.DataFrame) -> pd.Series:
    """Return which rows are calls above the forward, or puts below it."""
    is_call = rows["kind"] == "call"
    is_above = rows["k"] >= 0.0
    return is_call == is_above


def choose_rows(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows that a fit uses, with ``k``, and those left out, each with its ``reason``."""
    moneyness = rows["strike"] / rows["forward"]
    rows = rows.assign(k=np.log(moneyness))
    tests = {
        "expired": ~(rows["years"] > 0.0),
        "no forward": rows["forward"].isna(),
        "duplicated": rows.duplicated(["expiry", "strike", "kind"]),
        "no bid": rows["bid"].isna(),
        "no ask": rows["ask"].isna(),
        "crossed": rows["bid"] > rows["ask"],
        "ask without a volatility": rows["ask_iv"].isna(),
    }
    reasons = np.select([*tests.values()], [*tests], "")
    reasons = reasons.astype(object)

    # Good quotes of an expiry that has too few of them are left out together.
    has_bid = rows["bid_iv"].notna()
    two_sided = rows[(reasons == "") & has_bid]
    strikes_of_expiry = two_sided.groupby("expiry")["strike"].nunique()
    n_strikes = rows["expiry"].map(strikes_of_expiry).fillna(0)
    are_few = n_strikes < FEWEST
    reasons[(reasons == "") & are_few] = f"fewer than {FEWEST} two-sided strikes"

    is_used = reasons == ""
    columns = ["expiry", "strike", "kind", "name"]
    used = rows[is_used].reset_index(drop=True)
    left_out = rows.loc[~is_used, columns]
    left_out = left_out.assign(reason=reasons[~is_used].astype(str))
    return used, left_out.reset_index(drop=True)


def collect_quotes(part: pd.DataFrame) -> Quotes:
    """Return the two-sided quotes of an expiry, one a strike: that out of the money, if any.

    ``part`` are rows of one expiry as :func:`choose_rows` returns them.
    """
    two_sided = part[part["bid_iv"].notna()]

    # False comes before True, so the quote out of the money is the first of its strike.
    is_in = ~is_out_of_the_money(two_sided)
    ranked = two_sided.assign(is_in=is_in).sort_values(["strike", "is_in"])
    best = ranked.drop_duplicates("strike")

    k, bid, ask = best[["k", "bid_iv", "ask_iv"]].to_numpy().T
    years = float(np.median(part["years"]))
    return Quotes(k, bid, ask, years)


def describe_fit(part: pd.DataFrame, smile: SVI) -> dict[str, object]:
    """Return the row of an expiry in ``Surface.fits``: its smile, and how well it meets quotes.

    Quotes count that lie within WIDTH standard deviations of the forward.
    """
    years = float(np.median(part["years"]))
    variance = smile.total_variance(part["k"].to_numpy())
    fitted = np.sqrt(variance / years)
    deviation = math.sqrt(float(smile.total_variance(0.0)))
    is_near = part["k"].abs() <= WIDTH * deviation

    # The share of quotes whose bid and ask have the smile between them. A bid that implies no
    # volatility is under every smile.
    low = part["bid_iv"].fillna(0.0) - WIDENING
    high = part["ask_iv"] + WIDENING
    is_inside = (fitted >= low) & (fitted <= high)
    inside = math.nan
    if is_near.any():
        inside = float(is_inside[is_near].mean())

    # Distances to the marks, in volatility.
    marks = part["iv"].fillna(part["mark_iv"])
    misfits = (marks - fitted).abs()
    errors = misfits[is_near].dropna()
    median_error = math.nan
    worst_error = math.nan
    if errors.size:
        median_error = float(np.median(errors))
        worst_error = float(errors.max())

    return {
        "years": years,
        "forward": float(np.median(part["forward"])),
        **vars(smile),
        "quotes": int(is_near.sum()),
        "strikes": part["strike"][is_near].nunique(),
        "inside": inside,
        "median_error": median_error,
        "worst_error": worst_error,
        "least_density": smile.least_density,
    }


MIN_DENSITY = 1e-7
"""Smallest g(k) of a fit: over 0 by more than what lies between two points of the examination."""
STEEPEST = 1.99
"""Largest slope of a wing: total variance grows at most as 2 |k| (Lee 2004)."""


class SviMisfits:
    """What a smile misses at some points, to be made small in squares.

    A point is the least total variance, b, rho, m and sigma: the least variance in the place of a,
    so that bounds alone keep variance positive.
    """

    def __init__(self, quotes: Quotes) -> None:
        deviation = quotes.deviation
        self.quotes = quotes
        self.scale = 1.0 / quotes.tolerance

        # Log-moneyness at which the density is examined, dense near the forward.
        wings = np.linspace(-1.5, 1.5, 121)
        center = deviation * np.linspace(-6.0, 6.0, 121)
        self.grid = np.concatenate([wings, center])

        # Bounds of a point.
        self.low = np.array(
            [
                0.0,
                0.0,
                -0.999,
                -2.0 * deviation,
                0.01 * deviation,
            ]
        )
        self.high = np.array(
            [
                20.0,
                2.0,
                0.999,
                2.0 * deviation,
                8.0 * deviation,
            ]
        )

    def measure(self, density_weight: float, points: FloatArray) -> FloatArray:
        """Return the misfits of some points, a row of them for each; their squares are summed.

        ``points`` (n, 5) are as the class says. A row has the misfit to each quote, in tolerances,
        then a penalty for too steep a wing and, unless ``density_weight`` is 0, one for a negative
        density at each place of the grid.
        """
        # A parameter is a column (n, 1): it broadcasts with quotes and grid, which are rows.
        least, b, rho, m, sigma = points.T[:, :, None]
        least_less_a = b * sigma * np.sqrt(1.0 - rho * rho)
        a = least - least_less_a

        # Rounding may leave a variance of 0 below 0.
        at_quotes = shape_smile(a, b, rho, m, sigma, self.quotes.k)
        variance = np.maximum(at_quotes.total, 1e-12)
        volatility = np.sqrt(variance / self.quotes.years)
        to_quotes = (volatility - self.quotes.mid) * self.scale

        # A penalty: the wing is steeper than a smile without arbitrage allows.
        steepness = b * (1.0 + np.abs(rho))
        excess = np.maximum(0.0, steepness - STEEPEST)
        too_steep = excess * 1e3
        if not density_weight:
            return np.concatenate([to_quotes, too_steep], axis=1)

        # Another: the density is not over 0 somewhere on the grid. It must be over by a little, so
        # that it stays so between two places.
        on_grid = shape_smile(a, b, rho, m, sigma, self.grid)
        density = measure_density(self.grid, on_grid)
        shortfall = np.minimum(density - 1e-6, 0.0)
        below_0 = density_weight * shortfall
        return np.concatenate([to_quotes, too_steep, below_0], axis=1)

    def minimize(self, density_weight: float, point: FloatArray) -> FloatArray:
        """Return the best point within the bounds, from a point inside."""
        measure = partial(self.measure, density_weight)
        return minimize(measure, point, self.low, self.high)


DENSITY_WEIGHTS = (0.0, 1e2, 1e4, 1e6)
"""Weights of a density under 0, tried in turn until the fit has no butterfly arbitrage."""


def fit_svi(quotes: Quotes) -> SVI:
    """Return the raw SVI smile nearest to some quotes that has no butterfly arbitrage.

    From the best of a grid over m and sigma, where the other parameters are linear (Zeliade 2009).
    A fit that has arbitrage is fitted further, with ever larger penalties for it.
    """
    misfits = SviMisfits(quotes)

    # The search needs a start inside the bounds: a parameter at a bound may rest there.
    lowest = misfits.low + 1e-9
    highest = misfits.high - 1e-9
    point = np.clip(find_start(quotes), lowest, highest)
    for weight in DENSITY_WEIGHTS:
        point = misfits.minimize(weight, point)
        least, b, rho, m, sigma = point.tolist()
        a = least - b * sigma * math.sqrt(1.0 - rho * rho)
        smile = SVI(a, b, rho, m, sigma)
        if smile.least_density >= MIN_DENSITY:
            return smile

    # SSVI has no arbitrage whatever its parameters.
    return fit_ssvi([quotes])[0]


STEPS = 200
"""Most steps of a fit."""
MAX_DAMPING = 1e8
"""Damping after which no step is small enough to gain anything."""
MIN_GAIN = 1e-8
"""Share of the sum of squares that a step must gain for another one to follow."""
SHIFT = 1.5e-8
"""Part of a parameter over which a slope is taken: the root of the smallest difference."""


class Trial(NamedTuple):
    """A sum of squares at a point, and what the next step needs to know.

    Of misfits r with slopes J by parameter, ``cost`` is r'r, ``half_gradient`` (n,) is J'r, and
    ``normal_matrix`` (n, n) is J'J, half the curvature of the cost where misfits are linear.
    """

    cost: float
    half_gradient: FloatArray
    normal_matrix: FloatArray


def minimize(
    compute: Callable[[FloatArray], FloatArray],
    x: FloatArray,
    low: FloatArray,
    high: FloatArray,
) -> FloatArray:
    """Return where the sum of squares within some bounds is least, from a point inside.

    ``compute`` returns a row of numbers for each row of parameters. Levenberg-Marquardt with
    projected steps; parameters that leave at a bound rest there. Source: Kanzow, Yamashita and
    Fukushima (2004), Levenberg-Marquardt methods with strong local convergence properties for
    solving nonlinear equations with convex constraints.
    """
    damping = 1e-3
    best = try_point(compute, x)
    for _ in range(STEPS):
        step = find_damped_step(best, damping, x, low, high)
        new = np.clip(x + step, low, high)
        trial = try_point(compute, new)

        # A better point is taken, and the next step is bolder; a worse one makes it shorter.
        if trial.cost < best.cost:
            is_last = best.cost - trial.cost <= MIN_GAIN * trial.cost
            x = new
            best = trial
            damping = max(0.2 * damping, 1e-12)
            if is_last:
                break
        elif damping > MAX_DAMPING:
            break
        else:
            damping *= 4.0
    return x


def try_point(compute: Callable[[FloatArray], FloatArray], x: FloatArray) -> Trial:
    """Return the sum of squares at a point, and its slopes by differences of SHIFT.

    ``compute`` is called once, for the point and for one more point a parameter, in which that
    parameter alone is shifted.
    """
    n = len(x)
    shift = SHIFT * np.maximum(np.abs(x), 1e-4)
    shifts = np.vstack([np.zeros(n), np.diag(shift)])
    misfits, *shifted_misfits = compute(x + shifts)
    differences = np.array(shifted_misfits) - misfits

    # A row of slopes a parameter.
    slopes = differences / shift[:, None]
    return Trial(
        cost=float(misfits @ misfits),
        half_gradient=slopes @ misfits,
        normal_matrix=slopes @ slopes.T,
    )


def find_damped_step(
    trial: Trial,
    damping: float,
    x: FloatArray,
    low: FloatArray,
    high: FloatArray,
) -> FloatArray:
    """Return a step of Levenberg and Marquardt; 0 for parameters that would leave at a bound.

    The step solves (J'J + damping D) step = -J'r, where D is the diagonal of J'J: without damping
    it is that of Gauss and Newton, with much of it a short one downhill.
    """
    # Downhill is against the gradient.
    leaves_low = (x <= low) & (trial.half_gradient > 0.0)
    leaves_high = (x >= high) & (trial.half_gradient < 0.0)
    is_free = ~(leaves_low | leaves_high)
    matrix = trial.normal_matrix[np.ix_(is_free, is_free)]
    gradient = trial.half_gradient[is_free]

    # A little more than the diagonal, so that it is positive for a parameter without effect, and
    # the equations have a solution.
    diagonal = np.diag(matrix) + 1e-12 * np.trace(matrix) + 1e-300
    damped = matrix + np.diag(damping * diagonal)
    step = np.zeros_like(x)
    step[is_free] = np.linalg.solve(damped, -gradient)
    return step


START_PLACES = np.array((-1.0, -0.5, -0.2, 0.0, 0.2, 0.5, 1.0))
START_SIZES = np.array((0.1, 0.3, 0.6, 1.0, 2.0, 4.0))
"""The grid of m and of sigma from which a fit starts, in standard deviations."""


def find_start(quotes: Quotes) -> FloatArray:
    """Return the best of a grid over m and sigma: the least total variance, b, rho, m, sigma.

    At each point of the grid the other three are those of least squares. Misfits of total variance
    are weighed so that they are those of volatility, in tolerances of the quotes.
    """
    # Points of the grid, (n_points,): m and sigma as multiples of the deviation at the money.
    deviation = quotes.deviation
    places = deviation * START_PLACES
    sizes = deviation * START_SIZES
    grid = np.meshgrid(places, sizes, indexing="ij")
    m, sigma = (axis.ravel() for axis in grid)

    # The slope of total variance by volatility, 2 volatility years, turns the misfits of one into
    # those of the other.
    total = quotes.mid**2 * quotes.years
    weights = 1.0 / (2.0 * quotes.mid * quotes.years * quotes.tolerance)

    # At fixed m and sigma, total variance is linear in a, in b rho and in b:
    # a + b rho y + b sqrt(y^2 + sigma^2) with y = k - m. Arrays are (n_points, n_quotes).
    y = quotes.k - m[:, None]
    root = np.sqrt(y * y + sigma[:, None] ** 2)
    terms = np.stack([np.ones_like(y), y, root], axis=2)
    weighted_terms = terms * weights[:, None]
    weighted_total = total * weights
    solutions = np.linalg.pinv(weighted_terms) @ weighted_total
    a, b_rho, b = solutions.T

    # The solution may leave the bounds, so it is moved inside. a follows from the least total
    # variance, ``a + b sigma sqrt(1 - rho^2)``, which must be positive.
    b = np.clip(b, 1e-6, 1.9)
    rho = np.clip(b_rho / b, -0.95, 0.95)
    least_less_a = b * sigma * np.sqrt(1.0 - rho * rho)
    least = np.maximum(a + least_less_a, 1e-9)
    a = least - least_less_a

    # Only then the best is chosen.
    shape = rho[:, None] * y + root
    fitted = a[:, None] + b[:, None] * shape
    misfits = (fitted - total) * weights
    squares = np.sum(misfits**2, axis=1)
    best = np.argmin(squares)
    axes = (least, b, rho, m, sigma)
    return np.array([axis[best] for axis in axes])


def fit_ssvi(expiries: list[Quotes]) -> list[SVI]:
    """Return one SSVI smile for each expiry, of the same rho, eta and gamma, in raw parameters.

    ``w(k) = theta/2 (1 + rho phi k + sqrt((phi k + rho)^2 + 1 - rho^2))`` with
    ``phi = eta / (theta^gamma (1 + theta)^(1 - gamma))``. There is no arbitrage for
    ``eta (1 + |rho|) <= 2``, ``gamma <= 1/2`` and theta that rises with the time to expiry
    (Gatheral and Jacquier 2014, section 4).
    """
    # theta, total variance at the money, by its rises: each is positive, and so theta rises.
    at_money = [quotes.at_money**2 * quotes.years for quotes in expiries]
    rises = np.maximum(np.diff([0.0, *at_money]), 1e-8)
    n_expiries = len(expiries)

    # A point is rho, eta as a share of its largest, gamma, and the logs of the rises.
    start = np.array([-0.1, 0.5, 0.4, *np.log(rises)])
    low = np.array([-0.99, 1e-3, 1e-3, *[-25.0] * n_expiries])
    high = np.array([0.99, 1.0, 0.5, *[3.0] * n_expiries])

    def measure_misfits(points: FloatArray) -> FloatArray:
        """Return the misfits of all expiries, a row a point."""
        return np.array([measure_ssvi(expiries, point) for point in points])

    return build_ssvi(minimize(measure_misfits, start, low, high))


def measure_ssvi(expiries: list[Quotes], point: FloatArray) -> FloatArray:
    """Return what the smiles of one point miss of the quotes, in tolerances, by expiry."""
    misfits = []
    smiles = build_ssvi(point)
    for smile, quotes in zip(smiles, expiries, strict=True):
        variance = smile.total_variance(quotes.k)
        fitted = np.sqrt(variance / quotes.years)
        misfits.append((fitted - quotes.mid) / quotes.tolerance)
    return np.concatenate(misfits)
