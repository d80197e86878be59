"""Raw SVI and SSVI: total implied variance as a function of log-moneyness.

``w(k) = a + b (rho (k - m) + sqrt((k - m)^2 + sigma^2))`` with ``k = ln(K / F)`` and
``w = volatility^2 years``. Sources: Gatheral (2004); Gatheral and Jacquier (2014), Arbitrage-free
SVI volatility surfaces, Quantitative Finance 14(1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

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

    def to_jump_wings(self, years: float) -> dict[str, float]:
        """Return v, psi, p, c and v_tilde; see :meth:`from_jump_wings`."""
        root = math.sqrt(self.m**2 + self.sigma**2)
        total = self.a + self.b * (root - self.rho * self.m)
        scale = self.b / math.sqrt(total)
        least = self.a + self.b * self.sigma * math.sqrt(1.0 - self.rho**2)
        return {
            "v": total / years,
            "psi": 0.5 * scale * (self.rho - self.m / root),
            "p": scale * (1.0 - self.rho),
            "c": scale * (1.0 + self.rho),
            "v_tilde": least / years,
        }

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
