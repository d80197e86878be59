"""Measures of performance and risk, as pure functions of arrays."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np

from backtest import core
from backtest.core.code_names import pd
from backtest.core.units import DAY, TOLERANCE

LEAST_DEVIATION = 1e-12
"""A standard deviation below this counts as 0: the ratio is NaN, never infinite."""
RISK_AVERSION = 3.0
"""Relative risk aversion of the measure ``certainty_equivalent``."""


@core.checked
def compound_growth(growth: float, years: float) -> float:
    """Return the annual rate of a total growth factor over some years.

    Examples
    --------
    >>> round(compound_growth(1.21, 2.0), 12)
    0.1
    """
    return find_growth_rate(growth, years)


def find_growth_rate(growth: float, years: float) -> float:
    """Return the growth per year of a factor over some years, -1 if nothing is left."""
    if growth <= 0.0:
        return -1.0
    exponent = math.log(growth) / years
    if exponent >= 700.0:  # e^710 is beyond a float
        return math.inf
    return math.expm1(exponent)


def annualize_ratios(
    mean: Any,
    deviation: Any,
    periods: float,
) -> core.FloatArray:
    """Return mean over deviation, annualized; NaN if the deviation is below 1e-12."""
    known = np.where(deviation >= LEAST_DEVIATION, deviation, np.nan)
    return np.asarray(mean / known * math.sqrt(periods))


@core.checked
def max_drawdown(equity: core.FloatArray) -> float:
    """Return the deepest fall from a running peak, as a fraction of the peak.

    ``equity`` (n_bars,) are positive account values at bar closes; falls inside a bar are missed.
    NaN without a close. max over t of 1 - E_t / max_{s <= t} E_s.

    Examples
    --------
    >>> max_drawdown(np.array([1.0, 2.0, 1.5, 3.0]))
    0.25
    """
    if not np.size(equity):
        return math.nan
    peak = np.maximum.accumulate(equity)
    return float(np.max(1.0 - equity / peak))


@core.checked
def value_at_risk(returns: core.FloatArray, level: float) -> float:
    """Return the historical value at risk: the loss at a quantile, positive = loss.

    ``returns`` (n,) are simple returns, ``level`` is the confidence, for example 0.95. NaN without
    returns. ``quantile(losses, level, method="higher")``.

    Examples
    --------
    >>> value_at_risk(np.array([-0.04, -0.01, 0.02, 0.03]), 0.75)
    0.04
    """
    core.Range(0, 1).check("level", level)
    if len(returns) == 0:
        return math.nan
    return float(np.quantile(-returns, level, method="higher"))


@core.checked
def expected_shortfall(returns: core.FloatArray, level: float) -> float:
    """Return the mean of the losses at or beyond the value at risk, positive = loss.

    Examples
    --------
    >>> expected_shortfall(np.array([-0.04, -0.02, 0.02, 0.03]), 0.6)
    0.03
    """
    if len(returns) == 0:
        return math.nan
    losses = -returns
    quantile = value_at_risk(returns, level)
    return float(np.mean(losses[losses >= quantile]))


@core.checked
def certainty_equivalent(
    returns: core.FloatArray,
    periods: float,
    risk_aversion: float = RISK_AVERSION,
) -> float:
    """Return the sure growth per year that an investor would take in exchange for the returns.

    ``returns`` (n,) are simple returns per sampling period, ``periods`` of them a year;
    ``risk_aversion`` is relative: 0 counts the mean, 1 the growth of the logarithm. -1 if a return
    loses everything and the risk aversion is 1 or more; NaN without returns, or if one is NaN.

    Notes
    -----
    (mean (1 + r)^(1 - g))^(periods / (1 - g)) - 1 for a risk aversion g, exp(periods · mean
    ln(1 + r)) - 1 for g = 1: constant relative risk aversion, returns reinvested.

    Examples
    --------
    >>> round(certainty_equivalent(np.array([0.01] * 12), 1.0), 12)
    0.01
    >>> round(certainty_equivalent(np.array([0.5, -0.4]), 1.0, 1.0), 12)
    -0.051316701949
    """
    if len(returns) == 0 or np.isnan(returns).any():
        return math.nan

    growth = np.maximum(1.0 + returns, 0.0)
    power = 1.0 - risk_aversion
    period = 1.0 / periods  # in years
    with np.errstate(divide="ignore"):
        if power == 0.0:
            geometric_mean = float(np.exp(np.mean(np.log(growth))))
            return compound_growth(geometric_mean, period)
        utility = float(np.mean(growth**power))

    if utility <= 0.0:
        return -1.0
    return compound_growth(utility ** (1.0 / power), period)


def sampled_returns(
    unit: core.FloatArray,
    ends_sample: core.FloatArray,
    first_unit: float | core.FloatArray,
) -> core.FloatArray:
    """Return the simple returns between sample ends, of shape (n_samples,), from the start on.

    ``unit`` (n_bars,) is the unit value at closes, ``first_unit`` the one before the first bar;
    of several accounts (n_bars, n) and (n,).
    ``ends_sample`` (n_bars,) is 1 at the last bar of each sampling period.
    """
    start: core.FloatArray = np.broadcast_to(first_unit, (1, *unit.shape[1:]))
    ends = np.concatenate((start, unit[ends_sample != 0.0]))
    return divide(ends[1:], ends[:-1], empty=1.0) - 1.0


def divide(
    over: Any,
    under: core.FloatArray,
    empty: float = 0.0,
) -> core.FloatArray:
    """Return quotients; ``empty`` where the divisor is not over 0."""
    quotients: core.FloatArray = np.full(np.broadcast(over, under).shape, empty)
    np.divide(over, under, out=quotients, where=under > 0.0)
    return quotients


def calendar_returns(
    opens: core.IntArray,
    unit: core.FloatArray,
    first_unit: float,
    period: Literal["D", "M"],
) -> core.FloatArray:
    """Return the simple return of every calendar day or month (UTC) that has a bar, in order.

    A bar belongs to the period in which it opens (ns); the first and the last may be partial.
    """
    edges = opens[[0, -1]].astype("datetime64[ns]")
    first, last = edges.astype(f"datetime64[{period}]")
    later_periods = np.arange(first + 1, last + 1)
    later_starts = later_periods.astype("datetime64[ns]").astype(np.int64)

    # A period ends with the last bar before a later one. One without a bar ends nothing: the bar
    # before it ended the period before already.
    last_bars = np.searchsorted(opens, later_starts) - 1
    is_end = np.zeros(len(opens))
    is_end[last_bars] = 1.0
    is_end[-1] = 1.0
    return sampled_returns(unit, is_end, first_unit)


def measure_shape(returns: core.FloatArray) -> tuple[float, float]:
    """Return skewness and excess kurtosis without bias; NaN for fewer than 4 or equal returns."""
    n = len(returns)
    if n < 4:
        return math.nan, math.nan
    deviation = float(np.std(returns))
    if deviation < LEAST_DEVIATION:
        return math.nan, math.nan

    scaled = (returns - np.mean(returns)) / deviation
    skewness = float(np.mean(scaled**3))
    excess = float(np.mean(scaled**4)) - 3.0

    # Each has its correction for the bias of n returns.
    corrected_skewness = skewness * math.sqrt(n * (n - 1)) / (n - 2)
    corrected_excess = ((n + 1) * excess + 6.0) * (n - 1) / ((n - 2) * (n - 3))
    return corrected_skewness, corrected_excess


def gain_over_loss(returns: core.FloatArray) -> float:
    """Return the sum of gains over that of losses; NaN without a loss."""
    lost = -float(np.minimum(returns, 0.0).sum())
    if lost <= 0.0:
        return math.nan
    gained = float(np.maximum(returns, 0.0).sum())
    return gained / lost


def tail_ratio(returns: core.FloatArray) -> float:
    """Return the size of the 95 % quantile over that of the 5 % quantile; NaN if that is 0."""
    if len(returns) == 0:
        return math.nan
    low, high = np.abs(np.quantile(returns, (0.05, 0.95)))
    if low <= 0.0:
        return math.nan
    return float(high / low)


class MarketFit(NamedTuple):
    """Alpha per year and beta of returns against a market, with their standard errors."""

    alpha: float
    beta: float
    alpha_error: float
    beta_error: float


@core.checked
def fit_market(
    excess: core.FloatArray,
    market: core.FloatArray,
    periods: float,
) -> MarketFit:
    """Return alpha and beta of an account against its unlevered market, with HAC standard errors.

    ``excess`` and ``market`` (n,) are simple returns over the same sampling periods, in excess of
    the risk-free rate; alpha is per year of ``periods``. NaN for fewer than 3 returns, or if the
    standard deviation of the market is below 1e-12.

    Notes
    -----
    Least squares. The errors allow for heteroscedastic and autocorrelated residuals: Newey and West
    (1987), A Simple, Positive Semi-Definite, Heteroskedasticity and Autocorrelation Consistent
    Covariance Matrix, Econometrica 55(3), with the weights of Bartlett, no correction for small
    samples, and floor(4 (n / 100)^(2/9)) lags, the rule of thumb of Newey and West (1994),
    Automatic Lag Selection in Covariance Matrix Estimation, Review of Economic Studies 61(4).

    Examples
    --------
    >>> market = np.array([0.01, -0.02, 0.03, 0.0])
    >>> round(fit_market(2.0 * market + 0.001, market, 365.0).beta, 12)
    2.0
    """
    check_lengths(excess=excess, market=market)
    excess = np.asarray(excess)
    market = np.asarray(market)
    n = len(market)
    if n < 3 or not np.std(market, ddof=1) >= LEAST_DEVIATION:
        return MarketFit(math.nan, math.nan, math.nan, math.nan)

    # Least squares.
    table = np.column_stack([np.ones(n), market])
    inverse = np.linalg.inv(table.T @ table)
    coefficients = inverse @ (table.T @ excess)

    # The covariance of the scores, with Bartlett's weights of their lags.
    usual_lags = int(4.0 * (n / 100.0) ** (2.0 / 9.0))
    lags = min(usual_lags, n - 1)
    residuals = excess - table @ coefficients
    scores = table * residuals[:, None]
    total: core.FloatArray = scores.T @ scores
    for k in range(1, lags + 1):
        shifted = scores[k:].T @ scores[:-k]
        weight = 1.0 - k / (lags + 1.0)
        total = total + weight * (shifted + shifted.T)
    variances = np.diag(inverse @ total @ inverse)
    errors = np.sqrt(np.maximum(variances, 0.0))

    alpha, beta = coefficients.tolist()
    alpha_error, beta_error = errors.tolist()
    return MarketFit(
        alpha=alpha * periods,
        beta=beta,
        alpha_error=alpha_error * periods,
        beta_error=beta_error,
    )


@core.checked
def monthly_returns(
    time: core.IntArray,
    unit: core.FloatArray,
    first_unit: float,
) -> pd.DataFrame:
    """Return the simple return of every calendar month (UTC) and year.

    ``time`` (n_bars,) holds open times in ns; a bar belongs to the month in which it opens.
    ``unit`` (n_bars,) is the unit value at closes, ``first_unit`` the one before. Indexed by year,
    columns 1 to 12 and ``"year"``; NaN without bars, or if the unit value before was 0. Months
    compound to their year.
    """
    core.check_shape("time", time, (-1,))
    check_lengths(time=time, unit=unit)
    values = pd.Series(unit)
    index = core.utc_index(time)
    year = index.year.astype(np.int64)

    def change(periods: Any) -> pd.Series:
        """Return the return of each period from the end of the one before."""
        ends = values.groupby(periods).last()
        before = ends.shift(fill_value=first_unit)
        return ends / before.where(before > 0.0) - 1.0

    years = pd.RangeIndex(year[0], year[-1] + 1, name="year")
    by_month = change([year, index.month]).unstack()
    table = by_month.reindex(years, columns=range(1, 13)).rename_axis(columns=None)
    return table.assign(year=change(year))


@core.checked
def worst_drawdowns(
    unit: core.FloatArray,
    closes: core.IntArray,
    *,
    start: int,
    first_peak: float,
    count: int,
) -> pd.DataFrame:
    """Return the deepest drawdowns at bar closes, the deepest first, at most ``count``.

    ``unit`` and ``closes`` (n_bars,) are the unit value at each close, and the closes in ns;
    ``start`` is the time of a peak before the first bar, ``first_peak`` the highest unit value
    before it. Columns: ``depth``; ``peak``, ``trough`` and ``recovery`` (NaT without one);
    ``days_down`` from peak to trough; ``days_under_water`` from peak to recovery, or to the end.
    """
    check_lengths(unit=unit, closes=closes)
    running_peak = np.maximum.accumulate(np.maximum(unit, first_peak))
    fall = 1.0 - unit / running_peak

    # A drawdown is a stretch of bars below the peak. With a bar at the peak before the first and
    # after the last, each even change begins a drawdown, and the odd one after it ends it.
    is_down = np.concatenate([[0], fall > TOLERANCE, [0]])
    changes = np.flatnonzero(np.diff(is_down))

    # Of the maxima between changes, the even ones are those of drawdowns.
    depth = np.maximum.reduceat(np.append(fall, 0.0), changes)[::2]
    deepest = np.argsort(-depth, kind="stable")[:count]
    begins, ends = changes.reshape(-1, 2)[deepest].T
    lows = []
    for begin, end in zip(begins, ends, strict=True):
        lows.append(begin + np.argmax(fall[begin:end]))
    troughs = np.array(lows, dtype=np.int64)

    # The first time is that of the start, so the close of bar t is at t + 1. A peak is the close
    # before a drawdown begins.
    times = np.concatenate([[start], closes])
    peak = times[begins]
    trough = times[troughs + 1]

    # One that lasts to the last bar ends there, and has no recovery.
    end = times[np.minimum(ends + 1, len(closes))]
    recovery = np.where(ends < len(closes), end, pd.NaT.value)
    return pd.DataFrame(
        {
            "depth": fall[troughs],
            "peak": core.utc_index(peak),
            "trough": core.utc_index(trough),
            "recovery": core.utc_index(recovery),
            "days_down": (trough - peak) / DAY,
            "days_under_water": (end - peak) / DAY,
        }
    )


LEAST_VARIANCE = 1e-24
"""A variance of the portfolio under which it counts as none."""


def risk_shares(weights: core.FloatArray, covariance: core.FloatArray) -> core.FloatArray:
    """Return the share of each position in the variance of the portfolio, of the weights' shape."""
    marginal = np.einsum("...ij,...j->...i", covariance, weights)
    parts = weights * marginal
    total = parts.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total > LEAST_VARIANCE, parts / total, np.nan)


def diversification_ratio(weights: core.FloatArray, covariance: core.FloatArray) -> core.FloatArray:
    """Return the weighted mean volatility over that of the portfolio.

    Source: Choueifaty and Coignard (2008), Toward Maximum Diversification, J. Portfolio Management
    35(1).
    """
    deviations = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
    alone = np.sum(np.abs(weights) * deviations, axis=-1)
    variance = np.einsum("...i,...ij,...j->...", weights, covariance, weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(variance > LEAST_VARIANCE, alone / np.sqrt(variance), np.nan)
    return np.asarray(ratio)


def check_lengths(**arrays: Any) -> None:
    """Raise ParameterError unless all arrays have the shape (n,) of the first."""
    first = next(iter(arrays.values()))
    n = len(first) if np.ndim(first) else -1
    for name, values in arrays.items():
        core.check_shape(name, values, (n,))
