"""Volatility of GARCH models: refitted at certain bars on all past returns, filtered in between."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from backtest.base import FloatArray, Whole, check_range, checked, compile_module
from backtest.features import garch_kernels
from backtest.features.returns import bars_per_year, log_returns
from backtest.market import Market

FIRST = 1000
"""Returns of the first fit: fewer do not determine the persistence."""
GROWTH = 0.1
"""Growth of the number of returns from one fit to the next."""
LEAST = 100
"""Fewest returns allowed for a fit."""
SCALE = 10.0
"""Standard deviation to which returns are scaled for a fit; the optimizer works best there."""
BACKCAST = 75
"""Returns whose weighted mean square stands in for the past before the first return."""
MOST_KEPT = 10_000
"""Fits kept in memory; each is four numbers."""


class GarchFit(NamedTuple):
    """Parameters of h_{t+1} = omega + (alpha + gamma [e_t < 0]) e_t^2 + beta h_t, e_t the returns.

    ``omega`` is a variance per bar; ``gamma`` is 0 in GARCH.
    """

    omega: float
    alpha: float
    gamma: float
    beta: float


@checked
def garch_volatility(market: Market, *, first: int = FIRST, growth: float = GROWTH) -> FloatArray:
    """Return the volatility that a GARCH(1,1) forecasts for the next bar.

    Parameters
    ----------
    market : Market
        Only its closes count.
    first : int
        Returns in the first fit, at least 100.
    growth : float
        Growth of the number of returns from one fit to the next, over 0 and up to 10: with 0.1,
        fits are at bars 1000, 1100, 1210 and so on, counted from the start of the market. All fits
        together cost as much as one with (1 + growth) / growth times the returns.

    Returns
    -------
    FloatArray of shape (n_bars,)
        Per sqrt(year); NaN until the first fit.

    Raises
    ------
    ParameterError
        If ``first`` or ``growth`` is out of range.

    Notes
    -----
    sigma_t^2 = A h_{t+1}, h_{t+1} = omega + alpha r_t^2 + beta h_t, r the log returns with mean 0,
    A the bars per year. Parameters by maximum likelihood with normal innovations (``arch``) on all
    returns up to the bar of the fit. If the optimizer does not converge, the last ones stay in
    force. Fits are cached in the process by the content of their returns. Source: Bollerslev
    (1986), Generalized Autoregressive Conditional Heteroskedasticity, J. Econometrics 31(3).
    """
    return _forecast_volatility(market, first, growth, is_asymmetric=False)


@checked
def gjr_volatility(market: Market, *, first: int = FIRST, growth: float = GROWTH) -> FloatArray:
    """Return the volatility that a GJR-GARCH(1,1) forecasts for the next bar.

    Falls and rises may have different weights. Parameters and returns are those of
    :func:`garch_volatility`.

    Notes
    -----
    sigma_t^2 = A h_{t+1}, h_{t+1} = omega + (alpha + gamma [r_t < 0]) r_t^2 + beta h_t; all else is
    the same. Source: Glosten, Jagannathan and Runkle (1993), On the Relation between the Expected
    Value and the Volatility of the Nominal Excess Return on Stocks, J. Finance 48(5).
    """
    return _forecast_volatility(market, first, growth, is_asymmetric=True)


def _forecast_volatility(
    market: Market, first: int, growth: float, *, is_asymmetric: bool
) -> FloatArray:
    first = Whole(LEAST).check("first", first)
    check_range("growth", growth, low=0.0, high=10.0, open_low=True)
    returns = log_returns(market)
    squares, falls = returns**2, (returns < 0.0).astype(np.float64)
    variance = np.full(market.n_bars, np.nan)
    bars = [*find_fit_bars(market.n_bars, first, growth), market.n_bars]
    backcast = find_backcast(squares[1:])
    fits = fit_all(returns, bars[:-1], is_asymmetric)
    for fit, (bar, stop) in zip(fits, pairwise(bars), strict=True):
        if fit is not None:
            compile_module(garch_kernels).filter_variance(
                squares[:stop], falls[:stop], np.array(fit), backcast, bar, variance[:stop]
            )
    return np.sqrt(variance * bars_per_year(market))


def find_fit_bars(n_bars: int, first: int, growth: float) -> list[int]:
    bars = []
    while first < n_bars:
        bars.append(first)
        first += max(1, int(growth * first))
    return bars


def find_backcast(squares: FloatArray) -> float:
    weights = 0.94 ** np.arange(min(BACKCAST, len(squares)))
    return float(np.sum(squares[: len(weights)] * (weights / sum(weights))))


def fit_all(returns: FloatArray, bars: list[int], is_asymmetric: bool) -> Iterator[GarchFit | None]:
    digest = hashlib.blake2b(bytes([is_asymmetric]))
    seen, last = 1, None
    for bar in bars:
        digest.update(returns[seen : bar + 1].tobytes())
        seen = bar + 1
        last = fit_once(digest.copy().digest(), returns[1:seen], is_asymmetric) or last
        yield last


_kept: OrderedDict[bytes, GarchFit | None] = OrderedDict()
_lock = threading.Lock()


def fit_once(key: bytes, returns: FloatArray, is_asymmetric: bool) -> GarchFit | None:
    with _lock:
        if key not in _kept:
            _kept[key] = fit_garch(returns, is_asymmetric=is_asymmetric)
            while len(_kept) > MOST_KEPT:
                _kept.popitem(last=False)
        return _kept[key]


def fit_garch(returns: FloatArray, *, is_asymmetric: bool = False) -> GarchFit | None:
    """Fit a GARCH(1,1) or GJR-GARCH(1,1) to returns of shape (n,) with mean 0."""
    from arch import arch_model  # noqa: PLC0415 - takes a second to import

    deviation = float(np.std(returns))
    if not deviation > 0.0:
        return None
    scale = SCALE / deviation
    order = int(is_asymmetric)
    model = arch_model(returns * scale, mean="Zero", vol="GARCH", o=order, rescale=False)
    with np.errstate(all="ignore"):  # the optimizer may try parameters without a likelihood
        found = model.fit(disp="off", show_warning=False)
    omega, alpha, *gamma, beta = (float(each) for each in found.params)
    fit = GarchFit(omega / scale**2, alpha, gamma[0] if gamma else 0.0, beta)
    is_good = found.convergence_flag == 0 and bool(np.isfinite(fit).all())
    return fit if is_good else None
