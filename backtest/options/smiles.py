"""Smiles: total variance by log-moneyness, as raw SVI and SSVI parametrize it.

``w(k) = a + b (rho (k - m) + sqrt((k - m)^2 + sigma^2))`` with ``k = ln(K / F)`` and
``w = volatility^2 years``. Sources: Gatheral (2004); Gatheral and Jacquier (2014), Arbitrage-free
SVI volatility surfaces, Quantitative Finance 14(1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from backtest.core import FloatArray, ParameterError, check_range

Number = float | FloatArray
FARTHEST_K = 1.5
"""Size of the log-moneyness up to which the density of a smile is examined."""
VERTEX_GRID = np.sinh(np.linspace(-5.0, 5.0, 401))
"""Further points, in widths of the smile from its vertex."""
ZOOMS = 3
LOWEST = 3
ZOOM_POINTS = 41
"""How often the lowest points are looked at more closely, how many, and the points between."""
GRID = np.unique(
    np.concatenate(
        [
            np.linspace(-FARTHEST_K, FARTHEST_K, 1201),
            np.sinh(np.linspace(-6.0, 6.0, 401)) / 135.0,
        ]
    )
)
"""Log-moneyness at which it is examined, dense near the forward."""
MIN_SOUND = -1e-9
"""Smallest g(k) of a smile without butterfly arbitrage: 0 but for rounding."""


class Smile(NamedTuple):
    """Total variance of a smile, with its first and second derivative by log-moneyness."""

    total: FloatArray
    slope: FloatArray
    bend: FloatArray


def shape_smile(
    a: Number,
    b: Number,
    rho: Number,
    m: Number,
    sigma: Number,
    k: Number,
) -> Smile:
    """Return total variance and its derivatives by k; the parameters broadcast with k."""
    x = np.asarray(k, dtype=np.float64) - m
    root = np.sqrt(x * x + np.square(sigma))
    total = a + b * (rho * x + root)
    slope = b * (rho + x / root)
    bend = b * np.square(sigma) / root**3
    return Smile(total, slope, bend)


def measure_density(k: Number, smile: Smile) -> FloatArray:
    """Return Durrleman's g(k), as :meth:`SVI.density` has it; NaN or infinite without variance."""
    w, slope, bend = smile
    with np.errstate(divide="ignore", invalid="ignore"):
        first = 1.0 - np.asarray(k) * slope / (2.0 * w)
        second = 0.25 * slope**2 * (1.0 / w + 0.25)
        return np.asarray(first * first - second + 0.5 * bend)


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

        # Total variance at its minimum, 0 but for rounding.
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
        # Points crowd at the vertex, where a narrow smile bends.
        near_vertex = self.m + self.sigma * VERTEX_GRID
        is_inside = np.abs(near_vertex) <= FARTHEST_K
        k = np.sort(np.concatenate([GRID, near_vertex[is_inside]]))
        density = self.density(k)

        # Zoom in on the lowest points, between their neighbors: a dip may lie between two.
        for _ in range(ZOOMS):
            lowest = np.argsort(density)[:LOWEST]
            low = k[np.maximum(lowest - 1, 0)]
            high = k[np.minimum(lowest + 1, k.size - 1)]
            k = np.sort(np.linspace(low, high, ZOOM_POINTS).ravel())
            density = self.density(k)
        return float(np.min(density))


def build_ssvi(x: FloatArray) -> list[SVI]:
    """Return the smiles of SSVI parameters in raw SVI parameters, one an expiry.

    ``x`` is rho, share, gamma, and the log of the rise of theta to each expiry. ``share`` (0 to 1)
    is eta as a part of its largest value without arbitrage, and theta, the total variance at the
    money, is the sum of the rises up to an expiry. Source: Gatheral and Jacquier (2014),
    Arbitrage-free SVI volatility surfaces, Quantitative Finance 14(1), section 4.
    """
    rho, share, gamma = x[:3].tolist()
    eta = 2.0 * share / (1.0 + abs(rho))
    root = math.sqrt(1.0 - rho**2)

    rises = np.exp(x[3:])
    smiles = []
    for theta in np.cumsum(rises).tolist():
        phi = eta / (theta**gamma * (1.0 + theta) ** (1.0 - gamma))
        smile = SVI(
            a=0.5 * theta * (1.0 - rho**2),
            b=0.5 * theta * phi,
            rho=rho,
            m=-rho / phi,
            sigma=root / phi,
        )
        smiles.append(smile)
    return smiles
