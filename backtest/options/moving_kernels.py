"""Kernels of surfaces that move with the price: variances by bar, and volatilities of contracts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backtest.base import scalar_greeks, scalar_price

if TYPE_CHECKING:
    from backtest.base import FloatArray, IntArray

KERNELS = ("fill_variances", "fill_smiles", "fill_quotes")
SMALL = 1e-9
"""Below it (1 - exp(-x)) / x is 1 to the last bit but a few."""


def fill_variances(closes: FloatArray, keeps: FloatArray, per_year: float, out: FloatArray) -> None:
    """Write exponentially weighted means of squared log returns, per year, to ``out`` (n, 2)."""
    for t in range(1, len(closes)):
        move = math.log(closes[t] / closes[t - 1])
        square = move * move * per_year
        for j in range(2):
            out[t, j] = keeps[j] * out[t - 1, j] + (1.0 - keeps[j]) * square


def mean_decay(x: float) -> float:
    """Return (1 - exp(-x)) / x, the mean of exp(-y) for y from 0 to x."""
    return -math.expm1(-x) / x if x > SMALL else 1.0


def find_atm(levels: FloatArray, speeds: FloatArray, row: int, years: float) -> float:
    variance = levels[row, 0]
    variance += levels[row, 1] * mean_decay(speeds[0] * years)
    variance += levels[row, 2] * mean_decay(speeds[1] * years)
    return math.sqrt(max(variance, 0.0))


def fill_smiles(
    levels: FloatArray,
    speeds: FloatArray,
    shape: FloatArray,
    carry: float,
    rows: IntArray,
    strikes: FloatArray,
    spots: FloatArray,
    years: FloatArray,
    out: FloatArray,
) -> None:
    """Write forward over spot, and volatility, of n contracts to ``out`` (2, n).

    ``levels`` (m, 3) and ``speeds`` (2,) are those of :func:`find_atm`, ``rows`` the surfaces in
    force, ``shape`` the raw SVI numbers of the square of the smile over that at the forward, by
    ln(K/F) in standard deviations to expiry.
    """
    a, b, rho, m, sigma = shape
    for i in range(len(rows)):
        basis = math.exp(carry * years[i])
        atm = find_atm(levels, speeds, rows[i], years[i])
        width = atm * math.sqrt(years[i])
        ratio = 1.0
        if width > 0.0:
            away = math.log(strikes[i] / (spots[i] * basis)) / width - m
            ratio = a + b * (rho * away + math.sqrt(away * away + sigma * sigma))
        out[0, i] = basis
        out[1, i] = atm * math.sqrt(max(ratio, 0.0))


def fill_quotes(
    signs: FloatArray,
    forwards: FloatArray,
    strikes: FloatArray,
    years: FloatArray,
    volatilities: FloatArray,
    halves: FloatArray,
    ticks: FloatArray,
    is_coin: bool,
    out: FloatArray,
) -> None:
    for i in range(len(signs)):
        place = (signs[i], forwards[i], strikes[i], years[i])
        mark = scalar_price(*place, volatilities[i], 0.0, is_coin)
        out[0, i] = mark
        for j in range(2):
            side = 2.0 * j - 1.0
            moved = max(volatilities[i] + side * halves[i], 0.0)
            away = side * (scalar_price(*place, moved, 0.0, is_coin) - mark)
            out[1 + j, i] = max(mark + side * max(away, ticks[i]), 0.0)
        out[3, i] = scalar_greeks(*place, volatilities[i], 0.0, False).delta
