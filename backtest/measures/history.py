"""Tables of an account over time: months, drawdowns, rolling measures, shares of the risk."""

from __future__ import annotations

import numpy as np
import pandas as pd

from backtest.base import (
    FloatArray,
    IntArray,
    check_lengths,
    check_shape,
    checked,
    utc_index,
)
from backtest.base.units import DAY, TOLERANCE

YEAR = "year"


@checked
def monthly_returns(time: IntArray, unit: FloatArray, first_unit: float) -> pd.DataFrame:
    """Return the simple return of every calendar month (UTC) and year.

    ``time`` (n_bars,) holds open times in ns; a bar belongs to the month in which it opens.
    ``unit`` (n_bars,) is the unit value at closes, ``first_unit`` the one before. Indexed by year,
    columns 1 to 12 and ``"year"``; NaN without bars, or if the unit value before was 0. Months
    compound to their year.
    """
    check_shape("time", time, (-1,))
    check_lengths(time=time, unit=unit)
    index = utc_index(time)
    month = np.asarray(index.year * 12 + index.month - 1)
    last = np.append(np.flatnonzero(np.diff(month)), len(month) - 1)
    months, ends = month[last], unit[last]
    years = months // 12
    table = pd.DataFrame(
        np.nan, index=pd.RangeIndex(years[0], years[-1] + 1), columns=[*range(1, 13), YEAR]
    )
    for year, name, change in zip(years, months % 12 + 1, change_of(ends, first_unit), strict=True):
        table.loc[year, name] = change
    closing = np.append(np.flatnonzero(np.diff(years)), len(years) - 1)
    table.loc[years[closing], YEAR] = change_of(ends[closing], first_unit)
    return table.rename_axis("year")


def change_of(values: FloatArray, first: float) -> FloatArray:
    before = np.concatenate([[first], values[:-1]])
    growth: FloatArray = np.divide(
        values, before, out=np.full(len(values), np.nan), where=before > 0.0
    )
    return growth - 1.0


@checked
def worst_drawdowns(
    unit: FloatArray, closes: IntArray, *, start: int, first_peak: float, count: int
) -> pd.DataFrame:
    """Return the deepest drawdowns at bar closes, the deepest first, at most ``count``.

    ``unit`` and ``closes`` (n_bars,) are the unit value at each close, and the closes in ns;
    ``start`` is the time of a peak before the first bar, ``first_peak`` the highest unit value
    before it. Columns: ``depth``; ``peak``, ``trough`` and ``recovery`` (NaT without one);
    ``days_down`` from peak to trough; ``days_under_water`` from peak to recovery, or to the end.
    """
    check_lengths(unit=unit, closes=closes)
    fall = 1.0 - unit / np.maximum.accumulate(np.maximum(unit, first_peak))
    begins, ends = find_falls(fall)
    if not len(begins):
        return tabulate_falls(fall, begins, begins, begins, closes, start)
    depth = np.maximum.reduceat(np.append(fall, 0.0), np.ravel([begins, ends], order="F"))[::2]
    chosen = np.argsort(-depth, kind="stable")[:count]
    begins, ends = begins[chosen], ends[chosen]
    troughs = [int(b + np.argmax(fall[b:e])) for b, e in zip(begins, ends, strict=True)]
    return tabulate_falls(fall, begins, np.array(troughs, dtype=np.int64), ends, closes, start)


def find_falls(fall: FloatArray) -> tuple[IntArray, IntArray]:
    steps = np.diff(np.concatenate([[0], (fall > TOLERANCE).astype(np.int8), [0]]))
    return np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)


def tabulate_falls(
    fall: FloatArray,
    begins: IntArray,
    troughs: IntArray,
    ends: IntArray,
    closes: IntArray,
    start: int,
) -> pd.DataFrame:
    times = np.concatenate([[start], closes])
    peak, trough, end = times[begins], times[troughs + 1], times[np.minimum(ends + 1, len(closes))]
    is_over = ends < len(closes)
    return pd.DataFrame(
        {
            "depth": fall[troughs],
            "peak": utc_index(peak),
            "trough": utc_index(trough),
            "recovery": utc_index(np.where(is_over, end, pd.NaT.value)),
            "days_down": (trough - peak) / DAY,
            "days_under_water": (end - peak) / DAY,
        }
    )


# ----- risk by instrument -----

LEAST_VARIANCE = 1e-24
"""A variance of the portfolio under which it counts as none."""


def average_covariances(
    returns: FloatArray, half_life: float, rows: IntArray | slice = slice(None)
) -> FloatArray:
    """Return exponentially weighted covariances of returns, of shape (n_rows, n, n).

    ``returns`` (n_bars, n) are per bar, NaN counts as 0; ``half_life`` is in bars; ``rows`` are the
    bars whose covariances are wanted.
    """
    known = np.ascontiguousarray(np.nan_to_num(returns, nan=0.0).T)
    n = len(known)
    found = np.empty((len(np.arange(len(returns))[rows]), n, n))
    for i in range(n):
        for j in range(i + 1):
            product = pd.Series(known[i] * known[j])
            values = product.ewm(halflife=half_life, adjust=True).mean().to_numpy()[rows]
            found[:, i, j] = found[:, j, i] = values
    return found


def risk_shares(weights: FloatArray, covariance: FloatArray) -> FloatArray:
    """Return the share of each position in the variance of the portfolio, of the weights' shape."""
    marginal = np.einsum("...ij,...j->...i", covariance, weights)
    parts = weights * marginal
    total = parts.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total > LEAST_VARIANCE, parts / total, np.nan)


def diversification_ratio(weights: FloatArray, covariance: FloatArray) -> FloatArray:
    """Return the weighted mean volatility over that of the portfolio.

    Source: Choueifaty and Coignard (2008), Toward Maximum Diversification, J. Portfolio Management
    35(1).
    """
    alone = np.sum(np.abs(weights) * np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1)), axis=-1)
    variance = np.einsum("...i,...ij,...j->...", weights, covariance, weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(variance > LEAST_VARIANCE, alone / np.sqrt(variance), np.nan)
    return np.asarray(found)
