"""Volatility, annualized, from closed bars only.

Variances add up over time. So the annual volatility is that of one bar times the root of the number
of bars per year (:func:`backtest.indicators.bars_per_year`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from backtest import _compile, core
from backtest.indicators import kernels, lanes
from backtest.indicators import returns as r
from backtest.indicators.averages import ewma_deviation, roll_moments
from backtest.indicators.fitted_models import garch_volatility, har_volatility
from backtest.indicators.lanes import OneOrMany
from backtest.indicators.ranges import (
    RANGE_ESTIMATORS,
    Estimator,
    average_ranges,
    garman_klass_variance,
    measure_range_ratio,
    parkinson_variance,
    yang_zhang_volatility,
)
from backtest.market import Market, bars_per_year

WEIGHTED_ESTIMATORS = ("ewma", *RANGE_ESTIMATORS)
VOLATILITY_ESTIMATORS = (*WEIGHTED_ESTIMATORS, "garch", "har")
MAX_IMPLIED = 10.0
"""Largest implied volatility per sqrt(year): above it the column is in percent."""


@core.checked
def volatility(
    market: Market,
    estimator: str | Sequence[str] = "ewma",
    half_life: OneOrMany = 72.0,
    *,
    calibrate: bool = False,
) -> core.FloatArray:
    """Return the volatility that an estimator forecasts at each close.

    ``estimator``: ``"ewma"``, ``"parkinson"``, ``"garman-klass"``, ``"yang-zhang"``; ``"garch"``
    and ``"har"``, which ignore the half-life. ``half_life``: bars after which a bar weighs half as
    much, over 0. ``calibrate``: whether ranges are scaled to the realized volatility. Per
    sqrt(year); NaN until ceil(half_life) bars are known, at least 2, or a model is fitted.

    Notes
    -----
    sigma_t^2 = A sum_i w^i v_{t-i} / sum_i w^i with w = 2^(-1/half_life), A the bars per year and v
    the variance of one bar: the squared close-to-close log return (``"ewma"``);
    ``ln(H / L)^2 / (4 ln 2)`` (``"parkinson"``), which without drift has 1/4.9 of the variance of
    squared returns; or ``1/2 ln(H / L)^2 - (2 ln 2 - 1) ln(C / O)^2`` (``"garman-klass"``), 1/7.4.
    Ranges do not see moves from one bar's close to the next open, 0.79 to 0.83 of the volatility of
    stocks by day: in markets of sessions both are ``"yang-zhang"``, ``o^2 + k c^2 + (1 - k) s``
    with o the log of open over last close, c = ln(C / O), s = ln(H / O) ln(H / C) + ln(L / O)
    ln(L / C), k = 0.34 / (1.34 + 1 / w), where 1 / w is (n + 1) / (n - 1) of n bars that weigh
    alike, and means of 0. Sources: Yang and Zhang (2000), Drift-Independent Volatility Estimation
    Based on High, Low, Open, and Close Prices, the same Journal 73(3); Parkinson (1980), The
    Extreme Value Method for Estimating the Variance of the Rate of Return, Journal of Business
    53(1); Garman and Klass (1980), On the Estimation of Security Price Volatilities from Historical
    Data, the same issue. See :func:`garch_volatility` and :func:`har_volatility` for the others.

    Ranges hold for a price that moves in small steps. Trades jump between bid and ask, so hourly
    ranges of BTC, ETH and LTC of 2020 to 2023 forecast 1.10 to 1.33 times the volatility that came
    (``"parkinson"`` 1.10 to 1.21, ``"garman-klass"`` 1.14 to 1.28, ``"yang-zhang"`` 1.15 to 1.33),
    more on smaller coins; calibrated 0.94 to 1.01 times. ``calibrate`` multiplies a variance by the
    mean square of close-to-close returns over the mean variance of the range, both of the bars
    there are, at most those of the last 365 days: causal, and NaN for fewer bars than the
    half-life.
    """
    names = np.atleast_1d(np.asarray(estimator, dtype=object))
    half_lives = np.array(lanes.list_lanes("half_life", half_life), dtype=np.float64)
    names, half_lives, _ = np.broadcast_arrays(names, half_lives, market.close[0])
    lanes.find_decay(half_lives)  # also those of models that ignore it are checked

    # One call for all columns of an estimator.
    columns = np.empty((market.n_bars, len(names)))
    different = dict.fromkeys(names.tolist())
    for name in different:
        of_name = np.flatnonzero(names == name)
        half_lives_of_name = half_lives[of_name]
        core.Choice(*ESTIMATES).check("estimator", name)
        estimates = ESTIMATES[name](market, half_lives_of_name)
        if calibrate:
            ratio = measure_range_ratio(market, name, half_lives_of_name)
            estimates = estimates * ratio

        # To write all columns by their numbers is slow.
        if len(different) == 1:
            columns = estimates
        else:
            columns[:, of_name] = estimates
    return lanes.shape_as(columns, estimator, half_life, market.close[0])


@core.checked
def ewma_volatility(market: Market, half_life: OneOrMany) -> core.FloatArray:
    """Return the exponentially weighted volatility of close-to-close log returns.

    Only closes count. ``half_life``: bars after which a return weighs half as much, over 0. Per
    sqrt(year); NaN until ceil(half_life) returns are known, at least 2.

    Notes
    -----
    sigma_t^2 = A sum_i w^i r_{t-i}^2 / sum_i w^i with w = 2^(-1/half_life), r the log returns up to
    bar t, A the bars per year. The mean is taken as 0. Source: J.P. Morgan/Reuters (1996),
    RiskMetrics Technical Document, section 5.2; the weights are divided by their sum, so that the
    first returns do not count for more.
    """
    returns = r.log_returns(market)
    columns = ewma_deviation(returns, half_life, bars_per_year(market))
    return lanes.shape_as(columns, half_life, market.close[0])


@core.checked
def volatility_feedback(
    market: Market,
    sigma: core.FloatArray,
    target: OneOrMany,
    gain: OneOrMany,
    half_life: OneOrMany,
    power: OneOrMany = 1.0,
) -> core.FloatArray:
    """Return the factor by which a volatility target corrects its forecast for its own error.

    ``sigma``: the volatility forecast at each close, per sqrt(year), (n_bars,) or (n_bars, k).
    ``target``: per sqrt(year), over 0. ``gain``: per bar, from 0 (the factor stays 1) to 1.
    ``half_life``: bars, over 0, of the volatility that came. ``power``: that of target / sigma.
    From 0.5 to 2, 1 until a half-life of bars has been held; only closes count.

    Notes
    -----
    kappa_t = clip(kappa_{t-1} (1 + gain (1 - s_t / target)), 0.5, 2): s_t is the exponentially
    weighted volatility of L_{t-1} r_t, r the log returns and L_t = (kappa_t target / sigma_t)^power
    the leverage decided at each close. Bars after a sigma that is unknown or 0 do not count. No
    account is read: what limits, bands and fills change is not seen. Source: Devanathan et al.
    (2026), arXiv 2603.01298, for feedback from the volatility that came.

    Examples
    --------
    >>> market = Market.sample(bars=500)
    >>> sigma = ewma_volatility(market, 24.0)
    >>> factor = volatility_feedback(market, sigma, target=0.4, gain=0.05, half_life=24.0)
    >>> float(factor[40]), bool(0.5 <= factor[-1] <= 2.0)
    (1.0, True)
    """
    lanes.check_lanes("target", target, low=0.0, open_low=True)
    lanes.check_lanes("gain", gain, low=0.0, high=1.0)
    lanes.check_lanes("power", power)
    n_bars = market.n_bars
    if np.shape(sigma)[:1] != (n_bars,):
        raise core.ParameterError(
            f"sigma must have one number per bar, {n_bars}, got an array of shape {np.shape(sigma)}"
        )

    forecasts = np.asarray(sigma, dtype=np.float64).reshape(n_bars, -1)
    targets, powers, gains, half_lives, _, _ = lanes.broadcast(
        target,
        power,
        gain,
        half_life,
        forecasts[0],
        market.close[0],
    )

    # (n_bars, n_lanes): the kernel takes rows that lie one after the other in memory.
    shape = (n_bars, len(targets))
    returns = r.log_returns(market).reshape(n_bars, -1)
    factor = np.empty(shape)
    _compile.compile_module(kernels).feedback_lanes(
        np.ascontiguousarray(returns),
        np.ascontiguousarray(np.broadcast_to(forecasts, shape)),
        np.stack([targets, powers, gains, lanes.find_decay(half_lives)]),
        lanes.count_needed(half_lives),
        np.array(np.broadcast_to(bars_per_year(market), n_bars)),
        factor,
    )
    first_sigma = np.asarray(sigma)[0]
    return lanes.shape_as(factor, target, gain, half_life, power, first_sigma, market.close[0])


@core.checked
def close_to_close_volatility(market: Market, window: OneOrMany) -> core.FloatArray:
    """Return the sample standard deviation of the last ``window`` log returns.

    Only closes count. ``window``: returns, at least 2. Per sqrt(year); NaN until
    ``window`` returns are known.

    Notes
    -----
    sigma_t^2 = A sum_i (r_{t-i} - mean)^2 / (window - 1), A the bars per year. Source: Hull,
    Options, Futures, and Other Derivatives, "Estimating volatility from historical data".
    """
    windows = lanes.read_windows(window)
    _, deviation = roll_moments(r.log_returns(market), windows)
    per_year = np.reshape(bars_per_year(market), (-1, 1))
    root = np.sqrt(per_year)
    return lanes.shape_as(np.asarray(deviation * root), window)


@core.checked
def implied_volatility(market: Market) -> core.FloatArray:
    """Return the column ``implied_volatility`` of a market, of shape (n_bars,).

    Per sqrt(year), as a fraction; NaN where it is unknown. Raises DataError if there is no such
    column, or a value is negative or over 10 (in percent).
    """
    name = "implied_volatility"
    if name not in market.columns:
        raise core.DataError(
            f"market must have a column {name!r}, has {', '.join(market.columns) or 'none'}; "
            f"market.with_columns({name}="
            "dvol.shift(1).reindex(market.times, method='ffill') / 100) adds it"
        )

    column = market.columns[name]
    bad_bars = np.flatnonzero((column < 0.0) | (column > MAX_IMPLIED))
    if bad_bars.size:
        first = bad_bars[0]
        time = core.format_time(int(market.time[first]))
        raise core.DataError(
            f"{name} must be a fraction per sqrt(year), from 0 to {MAX_IMPLIED:g}, got "
            f"{column[first]:g} at {time} UTC, "
            f"{bad_bars.size} of {market.n_bars} bars; divide per cent by 100"
        )
    return column


def repeat_for_lanes(forecast: Callable[[Market], core.FloatArray]) -> Estimator:
    """Return the estimator of a model that ignores the half-life: one column for all lanes."""

    def estimate(market: Market, half_lives: core.FloatArray) -> core.FloatArray:
        return np.repeat(forecast(market)[:, np.newaxis], len(half_lives), axis=1)

    return estimate


ESTIMATES: dict[str, Estimator] = {
    "ewma": ewma_volatility,
    "parkinson": average_ranges(parkinson_variance),
    "garman-klass": average_ranges(garman_klass_variance),
    "yang-zhang": yang_zhang_volatility,
    "garch": repeat_for_lanes(garch_volatility),
    "har": repeat_for_lanes(har_volatility),
}
