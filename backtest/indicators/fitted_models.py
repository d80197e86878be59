"""Volatility by models that are fitted to the past: GARCH, and the heterogeneous autoregression."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from backtest import _compile, core
from backtest.core.one_thread import one_thread
from backtest.core.units import DAY, YEAR_DAYS
from backtest.indicators import kernels
from backtest.indicators import returns as r
from backtest.market import SESSIONS, Market, bars_per_year

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
    market: Market,
    *,
    first: int = FIRST_RETURNS,
    growth: float = 0.1,
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
    fit_bars = list_fit_bars(market.n_bars, first, growth)

    # The variances of a fit are filtered from the first return on, and written from its bar to
    # the bar of the next fit.
    returns = r.log_returns(market)
    squares = returns**2
    backcast = find_backcast(squares[1:])
    variance = np.full(market.n_bars, np.nan)
    filter_variance = _compile.compile_module(kernels).filter_variance
    spans = pairwise([*fit_bars, market.n_bars])
    for fit, (bar, stop) in zip(fit_all(returns, fit_bars), spans, strict=True):
        if fit is None:
            continue
        parameters = np.array([fit.omega, fit.alpha, fit.beta])
        filter_variance(squares[:stop], parameters, backcast, bar, variance[:stop])
    return np.sqrt(variance * bars_per_year(market))


def list_fit_bars(n_bars: int, first: int, growth: float) -> list[int]:
    """Return the bars of fits: ``first``, and each later one by ``growth`` farther than before."""
    bars = []
    bar = first
    while bar < n_bars:
        bars.append(bar)
        bar += max(1, int(growth * bar))
    return bars


def find_backcast(squares: core.FloatArray) -> float:
    """Return the weighted mean of the first squares, which stands in for the past before them."""
    n = min(BACKCAST, len(squares))
    weights = 0.94 ** np.arange(n)
    shares = weights / sum(weights)
    return float(np.sum(squares[:n] * shares))


_fits: dict[bytes, GarchFit | None] = {}


def fit_all(returns: core.FloatArray, bars: list[int]) -> Iterator[GarchFit | None]:
    """Yield the fit in force at each bar, that of the returns up to it; None before the first.

    Fits are kept by a hash of the returns, which grows from one bar to the next.
    """
    digest = hashlib.blake2b()
    last: GarchFit | None = None
    stop = 1
    for bar in bars:
        new_returns = returns[stop : bar + 1]
        digest.update(new_returns.tobytes())
        stop = bar + 1
        key = digest.copy().digest()

        if key not in _fits:
            if len(_fits) >= MAX_KEPT:
                _fits.clear()
            _fits[key] = fit_garch(returns[1:stop])

        # Where a fit fails, the one before stays.
        last = _fits.get(key) or last
        yield last


def fit_garch(returns: core.FloatArray) -> GarchFit | None:
    """Fit a GARCH(1,1) to returns of shape (n,) with mean 0; None if it does not converge."""
    deviation = float(np.std(returns))
    if not deviation > 0.0:
        return None

    # Scaled to a deviation of SCALE, at which the optimizer works best.
    scale = SCALE / deviation
    model = core.arch.arch_model(returns * scale, mean="Zero", vol="GARCH", rescale=False)
    with one_thread(), np.errstate(all="ignore"):  # it may try parameters without a likelihood
        result = model.fit(disp="off", show_warning=False)

    # omega is a variance, so it is scaled back; the other two are shares.
    omega, alpha, beta = map(float, result.params)
    fit = GarchFit(omega / scale**2, alpha, beta)
    if result.convergence_flag != 0 or not np.isfinite(fit).all():
        return None
    return fit


FIRST_DAYS = 100
"""Days of the first fit of a heterogeneous autoregression."""
MOST_FORECASTS = 64
"""Histories whose forecasts are kept: 8 bytes a day of each."""
WITHOUT_PAUSE = (1, 7, 30)
WITH_SESSIONS = (1, 5, 22)
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

    # The UTC days of the market, numbered from 0, and whether a bar ends its day.
    day = market.time // DAY
    begins = np.diff(day, prepend=day[0]) != 0
    day_number = np.cumsum(begins)
    is_over = (market.time + market.interval) // DAY > day

    # Realized variances of whole days: the first may have begun before, the last may go on.
    squares = r.log_returns(market) ** 2
    squares[0] = 0.0
    sums = np.bincount(day_number, weights=squares)
    stop = int(day_number[-1] + is_over[-1])
    whole_days = sums.astype(np.float64, copy=False)[1:stop]
    lengths = WITH_SESSIONS if market.sessions else WITHOUT_PAUSE

    # The forecast in force at a bar is that of the last day that is over.
    forecasts = forecast_har_once(whole_days, lengths, first)
    forecasts = np.append(np.nan, forecasts)
    last_over = np.maximum(day_number - 1 + is_over, 0)
    daily: core.FloatArray = forecasts[last_over]
    days_per_year = SESSIONS if market.sessions else YEAR_DAYS
    return np.sqrt(daily * days_per_year)


_forecasts: dict[tuple[bytes, tuple[int, ...], int], core.FloatArray] = {}
"""Forecasts of histories, which sets of a search ask for again and again."""


def forecast_har_once(
    variance: core.FloatArray,
    lengths: tuple[int, ...],
    first: int,
) -> core.FloatArray:
    """Return :func:`forecast_har`, which depends on nothing but these arguments, once."""
    digest = hashlib.blake2b(variance.tobytes()).digest()
    key = (digest, lengths, first)
    known = _forecasts.get(key)
    if known is not None:
        return known

    if len(_forecasts) >= MOST_FORECASTS:
        _forecasts.clear()
    forecasts = forecast_har(variance, lengths, first)
    _forecasts[key] = forecasts
    return forecasts


def forecast_har(
    variance: core.FloatArray,
    lengths: tuple[int, ...],
    first: int,
) -> core.FloatArray:
    """Return the forecast at the end of each day for the next, (n_days,), given their variances.

    ``lengths`` are the days of the means that the forecast uses, the day itself and longer ones.
    ``first`` is the number of days in the first fit: NaN before it.
    """
    forecasts = np.full(len(variance), np.nan)
    month = max(lengths)
    start = month - 1 + first
    if len(variance) <= start:
        return forecasts

    # The means of the last days, a row for each day from the first that has a month behind it. Each
    # window is summed anew: a running sum would carry the errors of all days before.
    n_rows = len(variance) - month + 1
    windows = []
    for length in lengths:
        days_before = range(length)
        sums = sum(variance[month - 1 - back :][:n_rows] for back in days_before)
        windows.append(sums / length)

    # The row of a day is fitted to the variance of the next one.
    constant = np.ones(n_rows)
    inputs = np.column_stack([constant, *windows])
    fits = fit_expanding(inputs[:-1], variance[month:], first)
    predicted = np.sum(fits * inputs[first:], axis=1)

    # Least squares may forecast what never was, negative variances too.
    low = np.minimum.accumulate(variance)[start:]
    high = np.maximum.accumulate(variance)[start:]
    raised = np.maximum(predicted, low)
    forecasts[start:] = np.minimum(raised, high)
    return forecasts


def fit_expanding(
    inputs: core.FloatArray,
    outputs: core.FloatArray,
    first: int,
) -> core.FloatArray:
    """Return the least squares coefficients of the ``first`` rows, of one row more, ... of all.

    Of shape (n - first + 1, k) for ``inputs`` (n, k) and ``outputs`` (n,).
    """
    # Scaled by the first variance, so that the constant and the others are of one size.
    n_others = inputs.shape[1] - 1
    unit = inputs[0, 1] or 1.0
    scale = np.append(1.0, np.full(n_others, unit))
    scaled = inputs / scale

    # X'X and X'y of the rows so far, for each number of rows.
    row_squares = scaled[:, :, np.newaxis] * scaled[:, np.newaxis, :]
    row_products = scaled * outputs[:, np.newaxis]
    squares = np.cumsum(row_squares, axis=0)[first - 1 :]
    products = np.cumsum(row_products, axis=0)[first - 1 :]

    # The inverse of a matrix without full rank is that on the space that the rows span: eigenvalues
    # under 1e-12 of the largest count as 0.
    with one_thread():
        inverses = np.linalg.pinv(squares, rcond=1e-12, hermitian=True)
    fits = np.sum(inverses * products[:, np.newaxis, :], axis=2)
    return np.asarray(fits / scale)
