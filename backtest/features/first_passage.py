"""First passage: the probability that a price touches a level within a horizon.

The logarithm of the price is modeled as a Brownian motion, ``ln P_t = ln P_0 + drift t + sigma
W_t``, observed continuously. Distances are logarithms of price ratios, sigma and drift are annual,
horizons are in years. Numbers and arrays broadcast as in numpy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from backtest.base import FloatArray, ParameterError, checked, float_if_single
from backtest.features.estimators import volatility
from backtest.features.lane_parameters import MOST_BARS, broadcast, check_lanes
from backtest.features.returns import OneOrMany, bars_per_year
from backtest.market import Market

NODES = 160
"""Points at which the distribution of ln V is summed, for a relative error of 1e-9."""
REACH = 80.0
"""Twice the exponent at which the density of ln V is cut off, below 1e-17 of its peak."""


@checked
def liquidation_probability(
    leverage: OneOrMany,
    sigma: OneOrMany,
    horizon: OneOrMany,
    maintenance: OneOrMany,
    *,
    drift: OneOrMany = 0.0,
    amount: OneOrMany = 0.0,
    is_inverse: bool = False,
    degrees_of_freedom: OneOrMany = math.inf,
) -> Any:
    """Return the probability that a position is liquidated within a horizon.

    Parameters
    ----------
    leverage : float or array
        Notional over the collateral of the position, negative for a short.
    sigma : float or array
        Volatility, per sqrt(year).
    horizon : float or array
        In years.
    maintenance : float or array
        Maintenance margin rate, at least 0 and below 1: the requirement is ``maintenance N -
        amount``.
    drift : float or array
        Of the logarithm of the price, per year: ``mu - sigma^2 / 2`` for a price that grows by mu.
    amount : float or array
        Maintenance amount of the bracket, as a fraction of the collateral.
    is_inverse : bool
        Whether profits are paid in the coin.
    degrees_of_freedom : float or array
        Of Student's t, over 2; infinite for the normal distribution.

    Returns
    -------
    float or array
        0 without a position or if no price liquidates, 1 if the requirement already fails, NaN if
        an argument is NaN.

    Raises
    ------
    ParameterError
        If an argument is no number or infinite, the rate is not in [0, 1), the amount, sigma or
        the horizon negative, or there are 2 degrees of freedom or fewer.

    Notes
    -----
    With L = leverage, r = maintenance, c = amount, the price at which ``1 + L (x - 1) = r |L| x -
    c`` is x times the current price, with x = ``(L - 1 - c) / (L - r |L|)``. For an inverse
    contract, whose value is minus one over the price, x is the inverse of that with -L in place of
    L. The result is :func:`touch_probability` of ln x. If a table has several brackets, take ln x
    from ``bt.margin.liquidation_price``.

    Examples
    --------
    At 10x with 0.5 % maintenance the price may fall by 9.5 %.

    >>> round(liquidation_probability(10.0, 0.8, 1 / 365, 0.005), 4)
    0.0166
    """
    _check_each("leverage", leverage, np.isinf, "finite")
    _check_each("maintenance", maintenance, _is_no_rate, "at least 0 and below 1")
    _check_each("amount", amount, _is_negative, "at least 0 and finite")
    turns, rate, kept = np.broadcast_arrays(*map(_as_floats, (leverage, maintenance, amount)))
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = _find_distance(-turns if is_inverse else turns, rate, kept)
    signed = -distance if is_inverse else distance
    return _touch(signed, sigma, horizon, drift, degrees_of_freedom)


def _find_distance(turns: FloatArray, rate: FloatArray, amount: FloatArray) -> FloatArray:
    ratio = (turns - 1.0 - amount) / (turns - rate * np.abs(turns))
    is_failing = np.where(turns > 0.0, ratio >= 1.0, (ratio <= 1.0) & (turns < 0.0))
    distance = np.log(np.where(ratio > 0.0, ratio, np.nan))
    known = np.where(ratio <= 0.0, -np.inf, distance)
    return np.asarray(np.where(turns == 0.0, np.inf, np.where(is_failing, 0.0, known)))


@checked
def touch_probability(
    distance: OneOrMany,
    sigma: OneOrMany,
    horizon: OneOrMany,
    drift: OneOrMany = 0.0,
    *,
    degrees_of_freedom: OneOrMany = math.inf,
) -> Any:
    """Return the probability that a price touches a level within a horizon.

    Parameters
    ----------
    distance : float or array
        ln(level / price): negative for a level below, as the liquidation price of a long is.
    sigma : float or array
        Volatility, per sqrt(year).
    horizon : float or array
        In years.
    drift : float or array
        Of the logarithm of the price, per year: ``mu - sigma^2 / 2`` for a price that grows by mu.
    degrees_of_freedom : float or array
        Of Student's t, over 2; infinite for the normal distribution. They depend on the horizon:
        hourly prices of BTC, ETH and LTC in 2020 and 2021 are fit by 4 for a day, 8 for 7 days and
        12 for 30. With 4, forecasts of 7 days are too low.

    Returns
    -------
    float or array
        In [0, 1]; 1 at distance 0, NaN if an argument is NaN.

    Raises
    ------
    ParameterError
        If an argument is no number, sigma, the horizon or the drift infinite, sigma or the horizon
        negative, or there are 2 degrees of freedom or fewer.

    Notes
    -----
    With a = abs(distance), s = sigma sqrt(horizon) and v the drift over the horizon away from the
    level: ``Phi((-a - v) / s) + exp(-2 v a / s^2) Phi((-a + v) / s)``. Without drift that is ``2
    Phi(-a / s)``, with Student's t in place of Phi for fat tails. With both drift and fat tails,
    the normal probability is averaged over V by the trapezoidal rule in ln V. Source: Harrison
    (1985), Brownian Motion and Stochastic Flow Systems, section 1.8. A price that is observed only
    m times touches less often, as if the level were farther away by ``0.5826 sigma sqrt(horizon /
    m)``. Source: Broadie, Glasserman and Kou (1997), A continuity correction for discrete barrier
    options, Mathematical Finance 7(4).
    """
    return _touch(distance, sigma, horizon, drift, degrees_of_freedom)


@checked
def touch_distance(
    probability: OneOrMany,
    sigma: OneOrMany,
    horizon: OneOrMany,
    *,
    degrees_of_freedom: OneOrMany = math.inf,
) -> Any:
    """Return the distance of a level that is touched with a given probability.

    Parameters
    ----------
    probability : float or array
        In [0, 1].
    sigma, horizon, degrees_of_freedom : float or array
        As in :func:`touch_probability`.

    Returns
    -------
    float or array
        abs(ln(level / price)), the same above and below, because the price has no drift.

    Raises
    ------
    ParameterError
        If a probability is outside [0, 1], and as in :func:`touch_probability`.

    Notes
    -----
    -s Phi^-1(probability / 2) with s = sigma sqrt(horizon), the inverse of ``2 Phi(-a / s)``.

    Examples
    --------
    >>> distance = touch_distance(0.01, 0.8, 1 / 365)
    >>> round(distance, 4), round(touch_probability(-distance, 0.8, 1 / 365), 12)
    (0.1079, 0.01)
    """
    check_lanes("probability", probability, low=0.0, high=1.0)
    spread = _find_spread(sigma, horizon)
    factor = _find_factor(_as_floats(probability), degrees_of_freedom)
    with np.errstate(invalid="ignore"):
        return float_if_single(np.asarray(spread * factor))


@checked
def forecast_reach(
    market: Market,
    probability: OneOrMany,
    horizon: OneOrMany,
    estimator: str | Sequence[str] = "ewma",
    half_life: OneOrMany = 72.0,
    degrees_of_freedom: OneOrMany = math.inf,
) -> FloatArray:
    """Return the distance that the price reaches with a given probability in the next bars.

    Parameters
    ----------
    market : Market
        Its bars, for the volatility.
    probability : float, or array of shape (k,)
        In [0, 1].
    horizon : float, or array of shape (k,)
        Bars, over 0.
    estimator, half_life
        As in :func:`backtest.features.volatility`.
    degrees_of_freedom : float, or array of shape (k,)
        Of Student's t, over 2; infinite for the normal distribution.

    Returns
    -------
    FloatArray of shape (n_bars,), or (n_bars, k)
        A logarithm of a price ratio, in either direction; NaN until the volatility is known.

    Raises
    ------
    ParameterError
        If a parameter is out of range.

    Notes
    -----
    :func:`touch_distance` of the volatility forecast at each close, without drift.
    """
    check_lanes("probability", probability, low=0.0, high=1.0)
    check_lanes("horizon", horizon, low=0.0, high=MOST_BARS, open_low=True)
    chances, bars, degrees = broadcast(probability, horizon, degrees_of_freedom)
    factor = _find_factor(chances, degrees) * np.sqrt(bars)
    sigma = volatility(market, estimator, half_life)
    per_bar = sigma.reshape(market.n_bars, -1).T / np.sqrt(bars_per_year(market))
    with np.errstate(invalid="ignore"):
        columns = np.ascontiguousarray(per_bar.T * factor)
    given = (probability, horizon, degrees_of_freedom)
    is_single = sigma.ndim == 1 and not any(np.ndim(value) for value in given)
    return columns[:, 0] if is_single else columns


# ------------------------------------------------------------------------------- the arithmetic


def _touch(
    distance: OneOrMany, sigma: OneOrMany, horizon: OneOrMany, drift: OneOrMany, degrees: OneOrMany
) -> Any:
    _check_each("distance", distance, _accept_all, "a number")
    _check_each("drift", drift, np.isinf, "finite")
    spread = _find_spread(sigma, horizon)
    freedom = _check_degrees(degrees)
    with np.errstate(all="ignore"):
        moved = _as_floats(drift) * _as_floats(horizon)
        far, away, s = np.broadcast_arrays(_as_floats(distance), moved, spread)
        away = np.where(far < 0.0, away, -away)
        found = _touch_any(freedom, np.abs(far), away, s)
        found = np.where(np.isnan(far) | np.isnan(away) | np.isnan(s), np.nan, found)
    return float_if_single(np.minimum(found, 1.0))


def _touch_any(freedom: FloatArray, a: FloatArray, away: FloatArray, s: FloatArray) -> FloatArray:
    if np.isinf(freedom).all():
        return np.broadcast_to(_touch_normal(a, away, s), np.broadcast(freedom, a).shape)
    finite = np.where(np.isinf(freedom), 1e6, freedom)
    fat = (
        _touch_averaged(finite, a, away, s) if np.any(away != 0.0) else _touch_student(finite, a, s)
    )
    if not np.isinf(freedom).any():
        return fat
    return np.where(np.isinf(freedom), _touch_normal(a, away, s), fat)


def _touch_normal(a: FloatArray, away: FloatArray, s: FloatArray) -> FloatArray:
    """Return Phi((-a - v) / s) + exp(-2 v a / s^2) Phi((-a + v) / s).

    Computed as ``(erfc(z1) + exp(-z1^2) erfcx(z2)) / 2``, which is accurate in the tails, where z2
    is positive. The product with erfc would multiply a huge number by a tiny one there.
    """
    if not np.any(away != 0.0):
        return np.where(a == 0.0, 1.0, _erfc(a / (s * math.sqrt(2.0))))
    from scipy.special import erfc, erfcx  # noqa: PLC0415 - slow to load, seldom needed

    first, second = (a + away) / (s * math.sqrt(2.0)), (a - away) / (s * math.sqrt(2.0))
    near = np.exp(-first * first) * erfcx(np.maximum(second, 0.0))
    beyond = np.exp(-2.0 * away * a / (s * s)) * erfc(np.minimum(second, 0.0))
    found = 0.5 * (erfc(first) + np.where(second >= 0.0, near, beyond))
    certain = (a == 0.0) | ((s == 0.0) & (a + away <= 0.0))
    return np.where(certain, 1.0, np.where(s == 0.0, 0.0, found))


def _touch_student(freedom: FloatArray, a: FloatArray, s: FloatArray) -> FloatArray:
    """Return 2 T(-a / s), T of unit variance: the probability without drift.

    For four degrees of freedom this is ``(1 - c)^2 (1 + c / 2)``, c = z / sqrt(2 + z^2), z = a / s.
    """
    if np.all(freedom == 4.0):
        z = a / s
        root = np.sqrt(2.0 + z * z)
        found = np.square(2.0 / (root * (root + z))) * (1.0 + 0.5 * z / root)
        return np.where(a == 0.0, 1.0, np.where(np.isinf(z), 0.0, found))
    from scipy.special import stdtr  # noqa: PLC0415 - slow to load, seldom needed

    found = 2.0 * stdtr(freedom, -a / s * np.sqrt(freedom / (freedom - 2.0)))
    return np.where(a == 0.0, 1.0, found)


def _touch_averaged(
    freedom: FloatArray, a: FloatArray, away: FloatArray, s: FloatArray
) -> FloatArray:
    """Return the mean of the normal probability over V, by the trapezoidal rule in ln V.

    ``Y = (nu - 2) / (2 V)`` is gamma distributed with shape nu / 2. So ln Y has the density
    ``exp(shape t - e^t) / Gamma(shape)``, which falls off faster than exponentially on one side.
    """
    shape = 0.5 * freedom
    width = np.sqrt(REACH / shape)
    low, high = np.log(shape) - width - 0.5 * REACH / shape, np.log(shape) + width
    total, weights = np.zeros(()), np.zeros(())
    for j in range(NODES):
        t = low + (high - low) * (j / (NODES - 1))
        weight = np.exp(shape * (t - np.log(shape) + 1.0) - np.exp(t))
        spread = s * np.sqrt((shape - 1.0) * np.exp(-t))
        total = total + weight * _touch_normal(*np.broadcast_arrays(a, away, spread))
        weights = weights + weight
    return total / weights


def _find_factor(probability: FloatArray, degrees: OneOrMany) -> FloatArray:
    chances, freedom = np.broadcast_arrays(probability, _check_degrees(degrees))
    rows = zip(chances.ravel().tolist(), freedom.ravel().tolist(), strict=True)
    return np.array([_find_quantile(*row) for row in rows]).reshape(chances.shape)


def _find_quantile(probability: float, freedom: float) -> float:
    if probability in (0.0, 1.0):
        return 0.0 if probability == 1.0 else math.inf
    if math.isinf(freedom):
        return -NormalDist().inv_cdf(0.5 * probability)
    from scipy.special import stdtrit  # noqa: PLC0415 - slow to load, seldom needed

    return -float(stdtrit(freedom, 0.5 * probability)) * math.sqrt((freedom - 2.0) / freedom)


def _find_spread(sigma: OneOrMany, horizon: OneOrMany) -> FloatArray:
    for name, value in (("sigma", sigma), ("horizon", horizon)):
        _check_each(name, value, _is_negative, "at least 0 and finite")
    return np.asarray(_as_floats(sigma) * np.sqrt(_as_floats(horizon)))


def _check_degrees(degrees: OneOrMany) -> FloatArray:
    _check_each("degrees_of_freedom", degrees, lambda numbers: ~(numbers > 2.0), "over 2")
    return _as_floats(degrees)


def _accept_all(numbers: FloatArray) -> Any:
    return np.zeros(numbers.shape, dtype=np.bool_)


def _is_negative(numbers: FloatArray) -> Any:
    return (numbers < 0.0) | np.isinf(numbers)


def _is_no_rate(numbers: FloatArray) -> Any:
    return (numbers < 0.0) | (numbers >= 1.0)


def _check_each(
    name: str, value: OneOrMany, is_bad: Callable[[FloatArray], Any], rule: str
) -> None:
    given = np.asarray(value)
    if given.dtype.kind not in "iuf":
        raise ParameterError(f"{name} must be numbers, got {value!r}")
    numbers = np.atleast_1d(_as_floats(given))
    bad = numbers[is_bad(numbers)]
    if bad.size:
        raise ParameterError(f"{name} must be {rule}, got {float(bad[0])!r}")


def _erfc(values: FloatArray) -> FloatArray:
    return np.array([math.erfc(x) for x in values.ravel().tolist()]).reshape(values.shape)


def _as_floats(values: OneOrMany) -> FloatArray:
    return np.asarray(values, dtype=np.float64)
