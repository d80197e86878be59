"""Fits of SVI smiles to bids and asks, without butterfly arbitrage."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import least_squares

from backtest.base import FloatArray
from backtest.options.quotes import Quotes
from backtest.options.svi import SSVI, SVI

LEAST_DENSITY = 1e-7
"""Smallest g(k) of a fit: over 0 by more than what lies between two points of the examination."""
STEEPEST = 1.99
"""Largest slope of a wing: total variance grows at most as 2 |k| (Lee 2004)."""


def fit_svi(quotes: Quotes) -> SVI:
    """Return the raw SVI smile nearest to some quotes that has no butterfly arbitrage.

    The start is the best of a grid over m and sigma, where the other three parameters are linear
    (Zeliade 2009). Least squares of volatility against the middle, in units of half the widened
    spread, with a penalty for negative densities that grows. A smile that keeps some is moved
    towards a repair, and if that is not enough, replaced by an SSVI smile, which has none.
    """
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
    softened = soften(build(found), quotes.years)
    return softened if is_sound(softened) else fit_ssvi([quotes])[0].raw


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


def soften(smile: SVI, years: float) -> SVI:
    """Return the nearest smile without arbitrage towards the repair of Gatheral and Jacquier.

    The repair keeps v, psi and p, with c = p + 2 psi and v_tilde = 4 v p c / (p + c)^2 (2014,
    section 5.1); both move there by the smallest share that removes the arbitrage.
    """
    wings = smile.to_jump_wings(years)
    c = wings["p"] + 2.0 * wings["psi"]
    least = 4.0 * wings["v"] * wings["p"] * c / (wings["p"] + c) ** 2
    low, high = 0.0, 1.0
    for _ in range(40):
        share = 0.5 * (low + high)
        moved = move_wings(wings, c, least, share, years)
        low, high = (low, share) if is_sound(moved) else (share, high)
    return move_wings(wings, c, least, high, years)


def move_wings(wings: dict[str, float], c: float, least: float, share: float, years: float) -> SVI:
    moved = dict(wings)
    moved["c"] += share * (c - wings["c"])
    moved["v_tilde"] += share * (least - wings["v_tilde"])
    return SVI.from_jump_wings(**moved, years=years)


def fit_ssvi(expiries: list[Quotes]) -> list[SSVI]:
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
