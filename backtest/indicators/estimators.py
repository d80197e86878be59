"""Volatility, annualized, from closed bars only.

Variances add up over time. So the annual volatility is that of one bar times the root of the number
of bars per year (:func:`backtest.indicators.bars_per_year`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np

from backtest import _compile, core
from backtest.core.code_names import pd
from backtest.core.one_thread import one_thread
from backtest.core.units import DAY, YEAR_DAYS
from backtest.indicators import kernels
from backtest.indicators import returns as r
from backtest.indicators.returns import OneOrMany
from backtest.market import SESSIONS, Market, bars_per_year

WEIGHTED_ESTIMATORS = ("ewma", "parkinson", "garman-klass", "yang-zhang")
RANGE_ESTIMATORS = WEIGHTED_ESTIMATORS[1:]
VOLATILITY_ESTIMATORS = (*WEIGHTED_ESTIMATORS, "garch", "har")

YEAR = "365D"
"""The most that ranges are calibrated on."""

Estimator: TypeAlias = Callable[[Market, core.FloatArray], core.FloatArray]


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
    half_lives = np.array(r.list_lanes("half_life", half_life), dtype=np.float64)
    names, half_lives, _ = np.broadcast_arrays(names, half_lives, market.close[0])
    r.find_decay(half_lives)  # also those of models that ignore it are checked
    columns, chosen = np.empty((market.n_bars, len(names))), dict.fromkeys(names.tolist())
    for name in chosen:
        lanes = np.flatnonzero(names == name)
        estimate = ESTIMATES[core.Choice(*ESTIMATES).check("estimator", name)]
        found = estimate(market, half_lives[lanes])
        if calibrate:
            found = found * measure_range_ratio(market, name, half_lives[lanes])
        if len(chosen) == 1:  # to write all columns by their numbers is slow
            columns = found
        else:
            columns[:, lanes] = found
    return r.shape_as(columns, estimator, half_life, market.close[0])


def measure_range_ratio(market: Market, name: str, half_lives: core.FloatArray) -> core.FloatArray:
    """Return the realized volatility over that of a range so far, (n_bars, k).

    Of at most the last 365 days; NaN until a half-life of bars is known, 1 where no range moved.
    """
    if name not in RANGE_ESTIMATORS:
        raise core.ParameterError(
            f"calibrate is of ranges, {', '.join(RANGE_ESTIMATORS)}, and must be left out for "
            f"{name!r}"
        )
    returns = r.log_returns(market)
    squares = np.atleast_2d(returns.T).T ** 2
    columns = []
    for half_life in half_lives.tolist():
        variance = np.atleast_2d(find_range_variance(market, name, half_life).T).T
        known = np.where(np.isnan(squares), np.nan, variance)
        realized, ranged = (
            pd.DataFrame(each, core.utc_index(market.time))
            .rolling(YEAR, min_periods=max(math.ceil(half_life), 2))
            .mean()
            .to_numpy()
            for each in (squares, known)
        )
        still = np.where(np.isnan(ranged), np.nan, 1.0)
        columns.append(np.sqrt(np.divide(realized, ranged, out=still, where=ranged > 0.0)))
    return np.concatenate(columns, axis=1)


def find_range_variance(market: Market, name: str, half_life: float) -> core.FloatArray:
    """Return the variance of each bar by its range; in markets of sessions all are Yang-Zhang's."""
    if name == "yang-zhang" or market.sessions:
        decay = float(r.find_decay(half_life)[0])
        return mix_yang_zhang(find_yang_zhang_parts(market), decay)
    return parkinson_variance(market) if name == "parkinson" else garman_klass_variance(market)


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
    columns = ewma_deviation(r.log_returns(market), half_life, bars_per_year(market))
    return r.shape_as(columns, half_life, market.close[0])


def ewma_deviation(
    returns: core.FloatArray, half_life: OneOrMany, scale: float | core.FloatArray
) -> core.FloatArray:
    """Return roots of weighted means of squares, (n_bars, k); the first return does not count.

    ``returns`` has shape (n_bars,), or (n_bars, k) of paths.
    """
    scales = np.array(np.broadcast_to(scale, len(returns)))
    squares = np.atleast_2d(returns.T).T ** 2
    out = np.empty((len(squares), max(np.size(half_life), squares.shape[1])))
    out[:1] = np.nan
    weighted_root(squares[1:], half_life, scales[1:], out[1:])
    return out


def weighted_root(
    squares: core.FloatArray,
    half_life: OneOrMany,
    scale: core.FloatArray,
    out: core.FloatArray | None = None,
) -> core.FloatArray:
    """Return roots of weighted means times ``scale`` (n_bars,), of shape (n_bars, k).

    They are written into ``out`` if it is given; NaN until as many squares as the half-life.
    ``squares`` has shape (n_bars,) or (n_bars, k).
    """
    squares = np.ascontiguousarray(np.atleast_2d(squares.T).T)
    k = max(np.size(half_life), squares.shape[1])
    out = np.empty((len(squares), k)) if out is None else out
    decay = np.array(np.broadcast_to(r.find_decay(half_life), k))
    needed = np.array(np.broadcast_to(r.count_needed(half_life), k))
    kept = np.zeros((2, k))
    _compile.compile_module(kernels).ewma_lanes(squares, decay, needed, scale, kept, out)
    return np.sqrt(out, out=out)


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
    r.check_lanes("target", target, low=0.0, open_low=True)
    r.check_lanes("gain", gain, low=0.0, high=1.0)
    r.check_lanes("power", power)
    if np.shape(sigma)[:1] != (market.n_bars,):
        raise core.ParameterError(
            f"sigma must have one number per bar, {market.n_bars}, got an array of shape "
            f"{np.shape(sigma)}"
        )
    forecasts = np.asarray(sigma, dtype=np.float64).reshape(market.n_bars, -1)
    lanes = r.broadcast(target, power, gain, half_life, forecasts[0], market.close[0])
    targets, powers, gains, half_lives, _, _ = lanes
    shape = (market.n_bars, len(targets))
    returns = r.log_returns(market).reshape(market.n_bars, -1)
    factor = np.empty(shape)
    _compile.compile_module(kernels).feedback_lanes(
        np.ascontiguousarray(returns),
        np.ascontiguousarray(np.broadcast_to(forecasts, shape)),
        targets,
        powers,
        gains,
        r.find_decay(half_lives),
        r.count_needed(half_lives),
        np.array(np.broadcast_to(bars_per_year(market), market.n_bars)),
        factor,
    )
    of_lanes = (target, gain, half_life, power, np.asarray(sigma)[0], market.close[0])
    return r.shape_as(factor, *of_lanes)


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
    _, deviation = roll_moments(r.log_returns(market), r.read_windows(window))
    root = np.sqrt(np.reshape(bars_per_year(market), (-1, 1)))
    return r.shape_as(np.asarray(deviation * root), window)


def roll_moments(
    values: core.FloatArray, windows: core.IntArray
) -> tuple[core.FloatArray, core.FloatArray]:
    """Return means and deviations (ddof 1) of the last values, of shape (n_bars, k) each."""
    mean, deviation = np.empty((2, len(values), len(windows)))
    series = pd.Series(values)
    for j, window in enumerate(windows.tolist()):
        rolling = series.rolling(window)
        mean[:, j], deviation[:, j] = rolling.mean(), rolling.std()
    return mean, deviation


MAX_PRODUCTS = 1_000_000
"""Products of returns held at once: 8 MB."""
MAX_HALVINGS = 200.0
"""How many half-lives a block has: its weights grow by 2^200 at most, far below the largest."""


class Covariances(NamedTuple):
    """Covariances (k, n, n) at the wanted bars ``first`` and later, counted among the wanted."""

    first: int
    values: core.FloatArray


def walk_covariances(
    returns: core.FloatArray, half_life: float, wanted: core.IntArray
) -> Iterator[Covariances]:
    """Yield the covariances of returns (n_bars, n) at the ``wanted`` bars, which rise, in order.

    Exponentially weighted means of products, about zero; NaN before the first bar at which all
    returns are known, and bars at which one is not known only age the others. Memory is bounded
    by a block of bars, whatever their number.
    """
    n_bars, n = returns.shape
    decay = 0.5 ** (1.0 / half_life)
    block = max(1, min(MAX_PRODUCTS // n**2, int(MAX_HALVINGS * half_life)))
    total = np.zeros((n, n))
    weight = 0.0

    for start in range(0, n_bars, block):
        rows = returns[start : start + block]
        is_known: core.BoolArray = np.all(np.isfinite(rows), axis=1)
        rows = np.where(is_known[:, None], rows, 0.0)

        # Weights relative to the last bar before the block: they grow, and ``age`` scales back.
        age = decay ** np.arange(1.0, len(rows) + 1.0)
        growth = is_known / age
        weights = age * (weight + np.cumsum(growth))
        products = (growth[:, None] * rows)[:, :, None] * rows[:, None, :]
        sums = np.cumsum(products, axis=0)

        first, last = np.searchsorted(wanted, (start, start + len(rows)))
        picked = wanted[first:last] - start
        if len(picked):
            weighted = age[picked, None, None] * (total + sums[picked])
            with np.errstate(invalid="ignore"):
                yield Covariances(int(first), weighted / weights[picked, None, None])

        total = age[-1] * (total + sums[-1])
        weight = float(weights[-1])


@core.checked
def implied_volatility(market: Market) -> core.FloatArray:
    """Return the column ``implied_volatility`` of a market, of shape (n_bars,).

    Per sqrt(year), as a fraction; NaN where it is unknown. Raises DataError if there is no such
    column, or a value is negative or over 10 (in percent).
    """
    name, most = "implied_volatility", 10.0
    if name not in market.columns:
        raise core.DataError(
            f"market must have a column {name!r}, has {', '.join(market.columns) or 'none'}; "
            f"market.with_columns({name}="
            "dvol.shift(1).reindex(market.times, method='ffill') / 100) adds it"
        )
    column = market.columns[name]
    wrong = np.flatnonzero((column < 0.0) | (column > most))
    if wrong.size:
        raise core.DataError(
            f"{name} must be a fraction per sqrt(year), from 0 to {most:g}, got "
            f"{column[wrong[0]]:g} at {core.format_time(int(market.time[wrong[0]]))} UTC, "
            f"{wrong.size} of {market.n_bars} bars; divide per cent by 100"
        )
    return column


def parkinson_variance(market: Market) -> core.FloatArray:
    return np.asarray(np.log(market.high / market.low) ** 2 / (4.0 * math.log(2.0)))


def garman_klass_variance(market: Market) -> core.FloatArray:
    width, move = np.log(market.high / market.low), np.log(market.close / market.open)
    return np.asarray(0.5 * width**2 - (2.0 * math.log(2.0) - 1.0) * move**2)


YangZhangParts: TypeAlias = tuple[core.FloatArray, core.FloatArray, core.FloatArray]
"""Squares of the gap before a bar and of its move, and the variance inside it, of one shape."""


def find_yang_zhang_parts(market: Market) -> YangZhangParts:
    gap = np.log(market.open / np.concatenate([market.open[:1], market.close[:-1]]))
    up, down, move = (np.log(x / market.open) for x in (market.high, market.low, market.close))
    return gap**2, move**2, up * (up - move) + down * (down - move)


def mix_yang_zhang(parts: YangZhangParts, decay: float) -> core.FloatArray:
    gap, move, inside = parts
    k = 0.34 * decay / (1.34 * decay + 1.0)
    return np.asarray(gap + k * move + (1.0 - k) * inside)


def yang_zhang_volatility(market: Market, half_lives: core.FloatArray) -> core.FloatArray:
    parts, decay = find_yang_zhang_parts(market), r.find_decay(half_lives)
    bars = np.atleast_1d(half_lives)
    scale = np.array(np.broadcast_to(bars_per_year(market), market.n_bars))
    columns = np.empty((market.n_bars, len(decay)))
    for j, w in enumerate(decay):
        variance = mix_yang_zhang(parts, float(w))
        columns[:, j] = weighted_root(variance, bars[j : j + 1], scale)[:, 0]
    return columns


FIRST_RETURNS = 1000
"""Returns of the first fit: fewer do not determine the persistence."""
SCALE = 10.0
"""Standard deviation to which returns are scaled for a fit; the optimizer works best there."""
BACKCAST = 75
"""Returns whose weighted mean square stands in for the past before the first return."""
MAX_KEPT = 10_000
"""Fits kept in memory; each is three numbers."""


class GarchFit(NamedTuple):
    """Parameters of h_{t+1} = omega + alpha e_t^2 + beta h_t; ``omega`` is a variance per bar."""

    omega: float
    alpha: float
    beta: float


@core.checked
def garch_volatility(
    market: Market, *, first: int = FIRST_RETURNS, growth: float = 0.1
) -> core.FloatArray:
    """Return the volatility that a GARCH(1,1) forecasts for the next bar.

    Only closes count. ``first``: returns in the first fit, at least 100. ``growth``: growth of the
    number of returns from one fit to the next, over 0 and up to 10: with 0.1, fits are at bars
    1000, 1100, 1210 and so on, counted from the start of the market. The result (n_bars,) is per
    sqrt(year); NaN until the first fit, after ``first`` returns.

    Notes
    -----
    sigma_t^2 = A h_{t+1}, h_{t+1} = omega + alpha r_t^2 + beta h_t, r the log returns with mean 0,
    A the bars per year. Parameters by maximum likelihood with normal innovations (``arch``) on all
    returns up to the bar of the fit. If the optimizer does not converge, the last ones stay in
    force. Source: Bollerslev (1986), Generalized Autoregressive Conditional Heteroskedasticity,
    J. Econometrics 31(3).
    """
    first = core.Whole(100).check("first", first)
    core.check_range("growth", growth, low=0.0, high=10.0, open_low=True)
    returns = r.log_returns(market)
    squares, variance = returns**2, np.full(market.n_bars, np.nan)
    bars, backcast = [], find_backcast(squares[1:])
    while first < market.n_bars:
        bars.append(first)
        first += max(1, int(growth * first))
    spans = pairwise([*bars, market.n_bars])
    for fit, (bar, stop) in zip(_fit_all(returns, bars), spans, strict=True):
        if fit is not None:
            weights = np.array([fit.omega, fit.alpha, fit.beta])
            _compile.compile_module(kernels).filter_variance(
                squares[:stop], weights, backcast, bar, variance[:stop]
            )
    return np.sqrt(variance * bars_per_year(market))


def find_backcast(squares: core.FloatArray) -> float:
    weights = 0.94 ** np.arange(min(BACKCAST, len(squares)))
    return float(np.sum(squares[: len(weights)] * (weights / sum(weights))))


_kept: dict[bytes, GarchFit | None] = {}


def _fit_all(returns: core.FloatArray, bars: list[int]) -> Iterator[GarchFit | None]:
    digest, seen, last = hashlib.blake2b(), 1, None
    for bar in bars:
        digest.update(returns[seen : bar + 1].tobytes())
        seen = bar + 1
        key = digest.copy().digest()
        if key not in _kept:
            if len(_kept) >= MAX_KEPT:
                _kept.clear()
            _kept[key] = fit_garch(returns[1:seen])
        last = _kept.get(key) or last
        yield last


def fit_garch(returns: core.FloatArray) -> GarchFit | None:
    """Fit a GARCH(1,1) to returns of shape (n,) with mean 0; None if it does not converge."""
    deviation = float(np.std(returns))
    if not deviation > 0.0:
        return None
    scale = SCALE / deviation
    model = core.arch.arch_model(returns * scale, mean="Zero", vol="GARCH", rescale=False)
    with one_thread(), np.errstate(all="ignore"):  # it may try parameters without a likelihood
        result = model.fit(disp="off", show_warning=False)
    omega, alpha, beta = (float(each) for each in result.params)
    fit = GarchFit(omega / scale**2, alpha, beta)
    is_good = result.convergence_flag == 0 and bool(np.isfinite(fit).all())
    return fit if is_good else None


FIRST_DAYS = 100
"""Days of the first fit of a heterogeneous autoregression."""
WITHOUT_PAUSE, WITH_SESSIONS = (1, 7, 30), (1, 5, 22)
"""Days in a day, a week, and a month of a market that never closes, and of one with sessions."""


@core.checked
def har_volatility(market: Market, *, first: int = FIRST_DAYS) -> core.FloatArray:
    """Return the volatility that the heterogeneous autoregression forecasts for the next day.

    Bars must be shorter than a day. ``first``: days in the first fit, at least 10.
    Of shape (n_bars,), per sqrt(year), from the end of a day until the end of the next; NaN until
    the first fit, after ``first`` + 30 whole days (22 in a market with sessions).

    Notes
    -----
    sigma^2 = D (b_0 + b_d RV_d + b_w RV_w + b_m RV_m): RV_d the sum of the squared log returns of a
    UTC day, RV_w and RV_m its means over the last 7 and 30 days (5 and 22 in a market with
    sessions), D the days in a year (365, or 252); b by least squares, every day anew, on all days
    that were followed by another. The move from the previous close counts toward the day. The first
    day does not count, since it may have begun before the market. Least squares may give negative
    forecasts, so a forecast is clipped to the range of past realised variances. Source: Corsi
    (2009), A Simple Approximate Long-Memory Model of Realized Volatility, J. Financial Econometrics
    7(2).
    """
    first = core.Whole(10).check("first", first)
    if market.interval >= DAY:
        raise core.DataError(
            "har_volatility needs bars shorter than a day, got bars of "
            f"{core.format_duration(market.interval)}"
        )
    day = market.time // DAY
    number = np.cumsum(np.diff(day, prepend=day[0]) != 0)
    is_over = (market.time + market.interval) // DAY > day
    squares = r.log_returns(market) ** 2
    squares[0] = 0.0
    sums = np.bincount(number, weights=squares).astype(np.float64, copy=False)
    whole = sums[1 : int(number[-1] + is_over[-1])]  # realised variances of whole days
    lengths = WITH_SESSIONS if market.sessions else WITHOUT_PAUSE
    forecasts = np.append(np.nan, forecast_har(whole, lengths, first))
    found: core.FloatArray = forecasts[np.maximum(number - 1 + is_over, 0)]
    return np.sqrt(found * (SESSIONS if market.sessions else YEAR_DAYS))


def forecast_har(
    variance: core.FloatArray, lengths: tuple[int, ...], first: int
) -> core.FloatArray:
    """Return the forecast at the end of each day for the next, (n_days,), given their variances."""
    forecasts, month = np.full(len(variance), np.nan), max(lengths)
    start = month - 1 + first
    if len(variance) <= start:
        return forecasts
    whole = len(variance) - month + 1
    windows = [  # each is summed anew: a running sum would carry the errors of all days before
        sum(variance[month - 1 - back :][:whole] for back in range(length)) / length
        for length in lengths
    ]
    inputs = np.column_stack([np.ones(whole), *windows])
    fits = fit_expanding(inputs[:-1], variance[month:], first)
    predicted = np.sum(fits * inputs[first:], axis=1)
    low, high = np.minimum.accumulate(variance), np.maximum.accumulate(variance)
    forecasts[start:] = np.minimum(np.maximum(predicted, low[start:]), high[start:])
    return forecasts


def fit_expanding(inputs: core.FloatArray, outputs: core.FloatArray, first: int) -> core.FloatArray:
    """Return the least squares coefficients of the ``first`` rows, of one row more, ... of all.

    Of shape (n - first + 1, k) for ``inputs`` (n, k) and ``outputs`` (n,).
    """
    scale = np.append(1.0, np.full(inputs.shape[1] - 1, inputs[0, 1] or 1.0))
    scaled = inputs / scale
    squares = np.cumsum(scaled[:, :, np.newaxis] * scaled[:, np.newaxis, :], axis=0)[first - 1 :]
    products = np.cumsum(scaled * outputs[:, np.newaxis], axis=0)[first - 1 :]
    with one_thread():
        inverses = np.linalg.pinv(squares, rcond=1e-12, hermitian=True)
    fits = np.sum(inverses * products[:, np.newaxis, :], axis=2)
    return np.asarray(fits / scale)


def _average(variance: Callable[[Market], core.FloatArray]) -> Estimator:
    def estimate(market: Market, half_lives: core.FloatArray) -> core.FloatArray:
        if market.sessions:
            return yang_zhang_volatility(market, half_lives)
        scale = np.array(np.broadcast_to(bars_per_year(market), market.n_bars))
        return weighted_root(variance(market), half_lives, scale)

    return estimate


def _repeat(forecast: Callable[[Market], core.FloatArray]) -> Estimator:
    return lambda market, half_lives: np.repeat(
        forecast(market)[:, np.newaxis], len(half_lives), axis=1
    )


ESTIMATES: dict[str, Estimator] = {
    "ewma": ewma_volatility,
    "parkinson": _average(parkinson_variance),
    "garman-klass": _average(garman_klass_variance),
    "yang-zhang": yang_zhang_volatility,
    "garch": _repeat(garch_volatility),
    "har": _repeat(har_volatility),
}
