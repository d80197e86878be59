"""Value at risk and expected shortfall of a position of 1x over the next bars.

Losses are positive, as a fraction of the notional, net of funding, for the side held at each close:
long, or short if ``market.signal`` is negative. The horizon is in bars. No model forecasts the mean
of the next returns: over hours its estimate is noise compared with a tail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from backtest.base import FloatArray, ParameterError, checked, compile_module, did_you_mean
from backtest.features import tail_kernels
from backtest.features.close_volatility import find_decay
from backtest.features.lane_parameters import shape_as
from backtest.features.returns import OneOrMany, long_returns
from backtest.features.rolling_lanes import ewma_deviation, prepare_windows
from backtest.features.tail_models import (
    TailParameters,
    check_windows,
    find_normal,
    find_side,
    held_returns,
    read_tail_parameters,
    roll_tails,
    scale_to_forecast,
)
from backtest.market import Market


class Tail(NamedTuple):
    """Possible losses of 1x, as fractions of the notional; negative if even the tail gains.

    Arrays of shape (n_bars,), or (n_bars, k) for k values of a parameter; NaN until warm.
    """

    value_at_risk: FloatArray
    expected_shortfall: FloatArray


@checked
def normal_tail(
    market: Market, half_life: OneOrMany, level: OneOrMany, horizon: OneOrMany = 1
) -> Tail:
    """Return the tail of normal returns with the current volatility.

    Parameters
    ----------
    market : Market
        Its closes, funding and signal.
    half_life : float, or FloatArray of shape (k,)
        Bars after which a return weighs half as much in the volatility.
    level : float, or FloatArray of shape (k,)
        Confidence, over 0.5 and below 1.
    horizon : int, or array of shape (k,)
        Bars ahead, at least 1.

    Returns
    -------
    Tail
        NaN until two returns are known.

    Raises
    ------
    ParameterError
        If a parameter is out of its range.

    Notes
    -----
    VaR = z sigma sqrt(h) and ES = phi(z) / (1 - level) sigma sqrt(h), with z the normal quantile of
    the level, h the horizon and sigma^2 the exponentially weighted mean of squares of the returns
    by bar. Source: J.P. Morgan/Reuters (1996), RiskMetrics Technical Document, section 5; McNeil,
    Frey and Embrechts (2015), Quantitative Risk Management, examples 2.11 and 2.14.
    """
    lanes = read_tail_parameters(level, horizon, half_life=half_life)
    return shape_tail(_find_normal_tails(market, lanes), half_life, level, horizon)


@checked
def cornish_fisher_tail(
    market: Market, window: OneOrMany, level: OneOrMany, horizon: OneOrMany = 1
) -> Tail:
    """Return the modified value at risk and shortfall: normal, corrected by two more moments.

    Parameters
    ----------
    market : Market
        Its closes, funding and signal.
    window : int, or array of shape (k,)
        Returns for the moments, at least 2.
    level, horizon
        As in :func:`normal_tail`.

    Returns
    -------
    Tail
        NaN until ``window`` returns are known; 0 while the price is constant.

    Raises
    ------
    ParameterError
        If a parameter is out of its range.

    Notes
    -----
    VaR = sigma sqrt(h) q(z) with
    q(z) = z + (z^2 - 1) S / 6 + (z^3 - 3z) K / 24 - (2z^3 - 5z) S^2 / 36, and ES the mean of q
    beyond z, sigma sqrt(h) phi(z) / (1 - level) (1 + z S / 6 + (z^2 - 1) K / 24 - (2z^2 - 1)
    S^2 / 36). sigma, skewness S and excess kurtosis K are moments of the window (divided by its
    size), S that of the losses. Cumulants of independent returns add up: over h bars S falls to
    S / sqrt(h), K to K / h.

    q rises with the level only for some S and K: |S| up to 2.49 and, for S = 0, K from 0 to 8.
    Beyond, as in most windows with a crash, the formula would give less risk at a higher level, or
    a gain. Then S, and after it K, is moved to the nearest value for which q rises. S and K are not
    the moments of the distribution that q describes, which has fatter tails. With Student's t with
    4 degrees of freedom, 0.6 % of losses exceed the VaR at 99 %, and at 95 % the correct share.
    Over many bars both effects vanish.

    Sources: Favre and Galeano (2002), Mean-Modified Value-at-Risk Optimization with Hedge Funds,
    J. Alternative Investments 5(2); Maillard (2018), A User's Guide to the Cornish Fisher
    Expansion, SSRN 1997178, for the domain and the shortfall.
    """
    lanes = read_tail_parameters(level, horizon, window=window)
    return shape_tail(_find_cornish_fisher_tails(market, lanes), window, level, horizon)


@checked
def historical_tail(
    market: Market, window: OneOrMany, level: OneOrMany, horizon: OneOrMany = 1
) -> Tail:
    """Return the historical tail: the largest of the past losses over as many bars.

    Parameters
    ----------
    market : Market
        Its closes, funding and signal.
    window : int, or array of shape (k,)
        Number of losses, at least 1 / (1 - level) - 1: fewer have no such quantile.
    level, horizon
        As in :func:`normal_tail`.

    Returns
    -------
    Tail
        NaN until ``window`` losses are known, which takes ``window + horizon`` bars.

    Raises
    ------
    ParameterError
        If a parameter is out of its range, or the window too short for the level.

    Notes
    -----
    Losses are over h bars, one ending at each close. They overlap, so a window contains about
    window / h independent ones. Nothing is scaled by the root of time, which would assume that the
    tail of a day has the shape of the tail of an hour.

    VaR is the loss of rank (n + 1) (1 - level) from the largest of n, with linear interpolation
    (numpy's ``weibull``). For exchangeable losses the next one exceeds it with probability
    1 - level, exactly at whole ranks. The measure ``var_95`` of a run describes a sample rather
    than a forecast, and uses ``higher``. ES is the mean of the n (1 - level) largest losses, the
    last of which counts by the remaining fraction. Sources: Hyndman and Fan (1996), Sample
    Quantiles in Statistical Packages, American Statistician 50(4), definition 6; Acerbi and Tasche
    (2002), On the Coherence of Expected Shortfall, J. Banking and Finance 26(7), definition 2.6.
    """
    lanes = read_tail_parameters(level, horizon, window=window)
    check_windows(lanes)
    return shape_tail(_find_historical_tails(market, lanes), window, level, horizon)


@checked
def filtered_historical_tail(
    market: Market,
    window: OneOrMany,
    half_life: OneOrMany,
    level: OneOrMany,
    horizon: OneOrMany = 1,
) -> Tail:
    """Return the historical tail, with each loss scaled to the current volatility.

    Parameters
    ----------
    market : Market
        Its closes, funding and signal.
    window : int, or array of shape (k,)
        Number of losses, as in :func:`historical_tail`.
    half_life, level, horizon
        As in :func:`normal_tail`.

    Returns
    -------
    Tail
        NaN until ``window`` losses are known after a volatility.

    Raises
    ------
    ParameterError
        If a parameter is out of its range, or the window too short for the level.

    Notes
    -----
    Quantile and mean as in :func:`historical_tail`, of losses R_s / (sigma_{s-h} sqrt(h)), times
    sigma_t sqrt(h). R_s is the loss over the h bars up to bar s, sigma_{s-h} the volatility
    forecast before them, exponentially weighted as in :func:`normal_tail`. That forecast is the
    same for all later bars, so the root of h is part of it, not an assumption about the tail.
    Losses after a forecast of 0 do not count. Sources: Hull and White (1998), Incorporating
    Volatility Updating into the Historical Simulation Method for Value-at-Risk, J. Risk 1(1);
    Barone-Adesi, Giannopoulos and Vosper (1999), VaR without Correlations for Portfolios of
    Derivative Securities, J. Futures Markets 19(5).
    """
    lanes = read_tail_parameters(level, horizon, window=window, half_life=half_life)
    check_windows(lanes)
    tails = _find_filtered_tails(market, lanes)
    return shape_tail(tails, window, half_life, level, horizon)


def _find_normal_tails(market: Market, lanes: TailParameters) -> Tail:
    deviation = _forecast_deviation(market, lanes)
    z, weight = find_normal(lanes.level)
    return Tail(deviation * z, deviation * weight)


def _find_cornish_fisher_tails(market: Market, lanes: TailParameters) -> Tail:
    returns = long_returns(market)
    sums, tiles = prepare_windows(returns, len(lanes.window))
    powers = np.empty((4, len(returns)))
    value, shortfall = np.empty((2, len(returns), len(lanes.window)))
    compiled = compile_module(tail_kernels)
    compiled.add_up_powers(returns, powers)
    z, weight = find_normal(lanes.level)
    windows, side = lanes.window.astype(np.int64), find_side(market)
    compiled.cornish_fisher_lanes(
        sums, powers, windows, lanes.horizon, z, weight, side, tiles, value, shortfall
    )
    return Tail(value, shortfall)


def _find_historical_tails(market: Market, lanes: TailParameters) -> Tail:
    return Tail(*roll_tails(_hold_returns(market, lanes), lanes, find_side(market)))


def _find_filtered_tails(market: Market, lanes: TailParameters) -> Tail:
    sigma = _forecast_deviation(market, lanes)
    samples = [
        scale_to_forecast(earned, sigma[:, j], int(lanes.horizon[j]))
        for j, earned in enumerate(_hold_returns(market, lanes))
    ]
    value, shortfall = roll_tails(samples, lanes, find_side(market))
    return Tail(value * sigma, shortfall * sigma)


def _forecast_deviation(market: Market, lanes: TailParameters) -> FloatArray:
    """Return the deviation of the return over each horizon, of shape (n_bars, k)."""
    deviation = ewma_deviation(long_returns(market), find_decay(lanes.half_life), 1.0)
    deviation *= np.sqrt(lanes.horizon)
    return deviation


def _hold_returns(market: Market, lanes: TailParameters) -> list[FloatArray]:
    """Return the returns over each horizon, arrays of shape (n_bars,)."""
    horizons = [int(bars) for bars in lanes.horizon]
    earned = {h: held_returns(market, h) for h in horizons}
    return [earned[h] for h in horizons]


class TailModel(NamedTuple):
    find: Callable[[Market, TailParameters], Tail]
    has_ranks: bool = False


MODELS = {
    "normal": TailModel(_find_normal_tails),
    "cornish-fisher": TailModel(_find_cornish_fisher_tails),
    "historical": TailModel(_find_historical_tails, has_ranks=True),
    "filtered-historical": TailModel(_find_filtered_tails, has_ranks=True),
}

TAIL_MODELS = tuple(MODELS)


@checked
def tail_losses(
    market: Market,
    model: str | Sequence[str],
    *,
    level: OneOrMany,
    horizon: OneOrMany,
    window: OneOrMany,
    half_life: OneOrMany,
) -> Tail:
    """Return the tail that a model forecasts at each close.

    Parameters
    ----------
    market : Market
        Its closes, funding and signal.
    model : str, or k of them
        One of ``TAIL_MODELS``.
    level, horizon, window, half_life
        Parameters of the models; each model uses only its own.

    Returns
    -------
    Tail
        NaN until warm.

    Raises
    ------
    ParameterError
        If there is no such model, or a parameter of it is out of its range.
    """
    names = np.atleast_1d(np.asarray(model, dtype=object))
    lanes = read_tail_parameters(level, horizon, window=window, half_life=half_life)
    k = np.broadcast(names, lanes.level).size
    names = np.broadcast_to(names, k)
    keys = list(
        zip(names.tolist(), *(np.broadcast_to(each, k).tolist() for each in lanes), strict=True)
    )
    distinct = list(dict.fromkeys(keys))
    value, shortfall = np.empty((2, market.n_bars, len(distinct)))
    for name in dict.fromkeys(names.tolist()):
        known = find_model(name)
        some = [j for j, each in enumerate(distinct) if each[0] == name]
        own = TailParameters(*np.array([distinct[j][1:] for j in some]).T)
        if known.has_ranks:
            check_windows(own)
        value[:, some], shortfall[:, some] = known.find(market, own)
    found = Tail(value, shortfall)
    if len(distinct) < k:
        places = [distinct.index(each) for each in keys]
        found = Tail(value[:, places], shortfall[:, places])
    is_many = np.zeros(k) if np.ndim(model) else 0.0
    return shape_tail(found, is_many, level, horizon, window, half_life)


def find_model(name: object) -> TailModel:
    if name not in MODELS:
        raise ParameterError(
            f"model must be one of {', '.join(MODELS)}, got {name!r}"
            + did_you_mean(str(name), MODELS)
        )
    return MODELS[str(name)]


def shape_tail(tail: Tail, *parameters: OneOrMany) -> Tail:
    """Return both as columns (n_bars, k), or (n_bars,) if every parameter is one value."""
    return Tail(*(shape_as(each, *parameters) for each in tail))
