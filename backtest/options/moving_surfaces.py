"""Surfaces that move with the price: a smile of one shape over a variance that a model gives."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Annotated, Any, Self

import numpy as np
import pandas as pd

from backtest.base import (
    FloatArray,
    IntArray,
    Number,
    ParameterError,
    Value,
    checked,
    compile_module,
    utc_index,
)
from backtest.base.units import DAY, YEAR_DAYS
from backtest.options import moving_kernels
from backtest.options.surface import read_tenor
from backtest.options.surfaces import Surfaces
from backtest.options.svi import SVI

YEAR = YEAR_DAYS * DAY
FIT_GRID = np.linspace(-3.0, 2.0, 51)


@dataclass(frozen=True, eq=False, repr=False)
class SmileShape(Value):
    """The shape of a smile: volatility over that at the forward, by standardized moneyness.

    With ``z = ln(K/F) / (atm sqrt(years))``, the square of the ratio is raw SVI in z,
    ``1 + b (rho (z - m) + sqrt((z - m)^2 + sigma^2)) - b (sqrt(m^2 + sigma^2) - rho m)``: 1 at the
    forward. Source: Gatheral and Jacquier (2014), Quantitative Finance 14(1), for raw SVI.

    Parameters
    ----------
    b : float
        Slope of the wings, at least 0; 0 is a flat smile.
    rho : float
        Skew, between -1 and 1; negative: puts are dearer.
    m : float
        Standard deviations at the vertex of the wings.
    sigma : float
        Curvature at the vertex, in standard deviations.
    """

    b: Annotated[float, Number(0.0, 2.0)] = 1.26
    rho: Annotated[float, Number(-0.999, 0.999)] = 0.07
    m: Annotated[float, Number(-5.0, 5.0)] = 1.1
    sigma: Annotated[float, Number(0.0, 10.0, open_low=True)] = 4.6

    def _check_rules(self) -> None:
        least = self.raw[0] + self.b * self.sigma * math.sqrt(1.0 - self.rho**2)
        if not least > 0.0:
            raise ParameterError(
                f"a smile must be positive everywhere, got a square of {least:.3g} at its minimum",
                where="SmileShape",
                cure="give a smaller b",
            )

    @property
    def raw(self) -> FloatArray:
        """The raw SVI numbers a, b, rho, m, sigma in standard deviations, (5,)."""
        at_forward = math.sqrt(self.m**2 + self.sigma**2) - self.rho * self.m
        return np.array([1.0 - self.b * at_forward, self.b, self.rho, self.m, self.sigma])

    def at(self, atm: float, years: float) -> SVI:
        """Return the smile in ln(K/F) at a volatility of the forward and a time to expiry."""
        width = atm * math.sqrt(years)
        a, b, rho, m, sigma = map(float, self.raw)
        return SVI(a * width**2, b * width, rho, m * width, sigma * width)

    @classmethod
    @checked
    def fit(cls, surfaces: Surfaces, tenor: str = "30d") -> Self:
        """Return the shape nearest to the mean smile of some surfaces at a tenor.

        The mean is that of (volatility over that at the forward)^2 from 3 standard deviations under
        the forward to 2 above it.
        """
        from scipy.optimize import least_squares  # noqa: PLC0415 - slow to load

        years, rows = read_tenor(tenor, "SmileShape.fit"), []
        for each in surfaces.surfaces:
            level = each.total_variance(0.0, years)
            rows.append(each.total_variance(FIT_GRID * math.sqrt(level), years) / level)
        mean = np.mean(rows, axis=0)

        def miss(x: FloatArray) -> FloatArray:
            away = FIT_GRID - x[2]
            wings = x[1] * away + np.sqrt(away**2 + x[3] ** 2)
            at_forward = math.sqrt(x[2] ** 2 + x[3] ** 2) - x[1] * x[2]
            return np.asarray(1.0 + x[0] * (wings - at_forward) - mean)

        limits = ([0.0, -0.99, -5.0, 0.01], [2.0, 0.99, 5.0, 10.0])
        found = least_squares(miss, [0.2, -0.2, 0.0, 1.0], bounds=limits).x
        return cls(**dict(zip(("b", "rho", "m", "sigma"), map(float, found), strict=True)))


@dataclass(frozen=True, eq=False, repr=False)
class MovingSurfaces:
    """Surfaces of one underlying at increasing instants, of one shape: sticky moneyness.

    The variance at the forward of T years is ``l0 + l1 A(k1 T) + l2 A(k2 T)`` with
    ``A(x) = (1 - exp(-x)) / x``: the mean over the time to expiry of a variance that reverts. The
    smile depends on ln(K/F) in standard deviations alone. :class:`backtest.paths.SimulatedSurface`
    makes them.

    Parameters
    ----------
    stamps : IntArray of shape (n,)
        The instants, UTC ns.
    levels : FloatArray of shape (n, 3)
        l0, l1 and l2, per year.
    speeds : tuple of float
        k1 and k2, per year.
    shape : SmileShape
        Of all smiles.
    carry : float
        ln(F/S) per year.
    """

    stamps: IntArray
    levels: FloatArray
    speeds: tuple[float, float]
    shape: SmileShape
    carry: float = 0.0

    def __repr__(self) -> str:
        times = self.times
        return (
            f"MovingSurfaces({len(times)} instants, {times[0]:%Y-%m-%d %H:%M} to "
            f"{times[-1]:%Y-%m-%d %H:%M})"
        )

    @property
    def times(self) -> pd.DatetimeIndex:
        """The instants, UTC."""
        return utc_index(self.stamps)

    def atm(self, tenor: str | float) -> pd.Series:
        """Return the volatility at the forward of a tenor, by instant."""
        years = np.full(len(self.stamps), read_tenor(tenor, "MovingSurfaces.atm"))
        ones, rows = np.ones(len(years)), np.arange(len(years))
        forwards = np.exp(self.carry * years)
        return pd.Series(self.evaluate(rows, forwards, ones, years)[1], self.times)

    def evaluate(
        self, rows: IntArray, strikes: FloatArray, spots: FloatArray, years: FloatArray
    ) -> FloatArray:
        """Return forward over spot, and volatility, of n contracts under some surfaces, (2, n)."""
        out = np.empty((2, len(rows)))
        compile_module(moving_kernels).fill_smiles(
            self.levels, np.array(self.speeds), self.shape.raw, float(self.carry), rows,
            strikes, spots, years, out,
        )  # fmt: skip
        return out

    def locate(self, times: IntArray, side: Any) -> IntArray:
        """Return the last surface stamped at or before ("right") or before ("left") each time.

        -1 before the first.
        """
        return np.asarray(np.searchsorted(self.stamps, times, side=side) - 1)

    def value(
        self, strike: float, expiry: int, times: IntArray, spots: FloatArray, rows: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return forward over spot, and volatility, of a contract at some times.

        ``rows`` number the surfaces in force.
        """
        strikes = np.full(len(times), float(strike))
        found = self.evaluate(rows, strikes, np.asarray(spots), (expiry - times) / YEAR)
        return found[0], found[1]

    def find_ages(self, times: IntArray, rows: IntArray) -> FloatArray:
        """Return the days since the surfaces in force."""
        return np.asarray((times - self.stamps[np.maximum(rows, 0)]) / DAY)

    def is_flat_before(self, *_: Any) -> bool:
        """Return False: these surfaces have a term structure from the first day on."""
        return False

    @property
    def content_hash(self) -> str:
        """A hash of instants, variances and shape."""
        content = self.stamps.tobytes() + self.levels.tobytes()
        content += f"{self.speeds} {self.shape!r} {self.carry}".encode()
        return hashlib.sha256(content).hexdigest()


def quote_contracts(
    signs: FloatArray,
    forwards: FloatArray,
    strikes: FloatArray,
    years: FloatArray,
    volatilities: FloatArray,
    halves: FloatArray,
    ticks: FloatArray,
    *,
    is_coin: bool,
) -> FloatArray:
    out = np.empty((4, len(signs)))
    compile_module(moving_kernels).fill_quotes(
        signs, forwards, strikes, years, volatilities, halves, ticks, is_coin, out
    )
    return out


def weigh_squares(
    closes: FloatArray, start: FloatArray, keeps: FloatArray, per_year: float
) -> FloatArray:
    """Return two exponentially weighted means of squared log returns at each close, (n, 2)."""
    out = np.empty((len(closes), 2))
    out[0] = start
    compile_module(moving_kernels).fill_variances(closes, keeps, float(per_year), out)
    return out
