"""Volatility estimators by name, so that a policy can have one as a parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from backtest.base import FloatArray, ParameterError, checked, did_you_mean
from backtest.features.attached_volatility import REALISED, implied_volatility, read_volatility
from backtest.features.close_volatility import ewma_volatility, find_decay, read_half_lives
from backtest.features.garch import garch_volatility, gjr_volatility
from backtest.features.har import har_volatility
from backtest.features.lane_parameters import shape_as
from backtest.features.range_lanes import weighted_root, weighted_yang_zhang
from backtest.features.range_volatility import (
    garman_klass_variance,
    parkinson_variance,
    rogers_satchell_variance,
    yang_zhang_parts,
)
from backtest.features.returns import OneOrMany, bars_per_year
from backtest.market import Market

WEIGHTED_ESTIMATORS = ("ewma", "parkinson", "garman-klass", "rogers-satchell", "yang-zhang")

VOLATILITY_ESTIMATORS = (*WEIGHTED_ESTIMATORS, "garch", "gjr", "har")

Estimator: TypeAlias = Callable[[Market, FloatArray], FloatArray]


@checked
def volatility(
    market: Market, estimator: str | Sequence[str] = "ewma", half_life: OneOrMany = 72.0
) -> FloatArray:
    """Return the volatility that an estimator forecasts at each close.

    Parameters
    ----------
    market : Market
        Its bars.
    estimator : str, or k of them
        ``"ewma"``, ``"parkinson"``, ``"garman-klass"``, ``"rogers-satchell"``, ``"yang-zhang"``;
        ``"garch"``, ``"gjr"`` and ``"har"``, which ignore the half-life; ``"realised"`` and
        ``"implied"``, which need a column of the market; the second ignores the half-life.
    half_life : float, or FloatArray of shape (k,)
        Bars after which a bar weighs half as much, over 0.

    Returns
    -------
    FloatArray of shape (n_bars,), or (n_bars, k)
        Per sqrt(year); NaN until two bars are known, or a model is fitted.

    Raises
    ------
    ParameterError
        If there is no such estimator, or a half-life is not over 0.
    DataError
        If the market lacks the column, or its bars are too long (``"har"``).

    Notes
    -----
    sigma_t^2 = A sum_i w^i v_{t-i} / sum_i w^i with w = 2^(-1/half_life), A the bars per year and
    v the variance of one bar: the squared close-to-close log return (``"ewma"``), or that of
    Parkinson (1980), of Garman and Klass (1980), of Rogers and Satchell (1991); see the functions
    with a window. ``"realised"`` averages the known squares of the column ``realised_volatility``.
    Yang and Zhang (2000) is used with weighted variances in place of sample variances,
    sum_i w^i (x_i - mean)^2 / (W - W_2 / W) with W = sum_i w^i and W_2 = sum_i w^2i, and with
    n = W^2 / W_2, the equivalent number of equal weights.

    See :func:`garch_volatility`, :func:`gjr_volatility`, :func:`har_volatility` and
    :func:`implied_volatility` for the others.
    """
    names = np.atleast_1d(np.asarray(estimator, dtype=object))
    half_lives = np.array(read_half_lives(half_life))
    names, half_lives = np.broadcast_arrays(names, half_lives)
    if len(set(names.tolist())) == 1:
        columns = _find_estimator(names[0])(market, np.array(half_lives))
        return shape_as(columns, estimator, half_life)
    columns = np.empty((market.n_bars, len(names)))
    for name in dict.fromkeys(names.tolist()):
        lanes = np.flatnonzero(names == name)
        columns[:, lanes] = _find_estimator(name)(market, half_lives[lanes])
    return shape_as(columns, estimator, half_life)


def _find_estimator(name: object) -> Estimator:
    if name not in ESTIMATES:
        raise ParameterError(
            f"estimator must be one of {', '.join(ESTIMATES)}, got {name!r}"
            + did_you_mean(str(name), ESTIMATES)
        )
    return ESTIMATES[str(name)]


def _average_variances(variance: Callable[[Market], FloatArray]) -> Estimator:
    return lambda market, half_lives: weighted_root(
        variance(market), find_decay(half_lives), bars_per_year(market)
    )


def _average_yang_zhang(market: Market, half_lives: FloatArray) -> FloatArray:
    parts = yang_zhang_parts(market)
    return weighted_yang_zhang(parts, find_decay(half_lives), bars_per_year(market))


def _average_realised(market: Market, half_lives: FloatArray) -> FloatArray:
    return weighted_root(read_volatility(market, REALISED) ** 2, find_decay(half_lives), 1.0)


def _repeat_for_lanes(forecast: Callable[[Market], FloatArray]) -> Estimator:
    return lambda market, half_lives: np.repeat(
        forecast(market)[:, np.newaxis], len(half_lives), axis=1
    )


ESTIMATES: dict[str, Estimator] = {
    "ewma": ewma_volatility,
    "parkinson": _average_variances(parkinson_variance),
    "garman-klass": _average_variances(garman_klass_variance),
    "rogers-satchell": _average_variances(rogers_satchell_variance),
    "yang-zhang": _average_yang_zhang,
    "garch": _repeat_for_lanes(garch_volatility),
    "gjr": _repeat_for_lanes(gjr_volatility),
    "har": _repeat_for_lanes(har_volatility),
    "realised": _average_realised,
    "implied": _repeat_for_lanes(implied_volatility),
}
