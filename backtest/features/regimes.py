"""Two hidden regimes, calm and stress: the probability that a market is in each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backtest.base import FloatArray, checked, compile_module
from backtest.features import regime_kernels
from backtest.features.close_volatility import find_decay
from backtest.features.lane_parameters import broadcast, check_lanes, shape_as
from backtest.features.returns import OneOrMany, bars_per_year, log_returns
from backtest.market import Market


class Regimes(NamedTuple):
    """Probabilities of stress by bar: for the bar that closes, and for the next.

    Arrays of shape (n_bars,), or (n_bars, k) for k sets of parameters; NaN until warm.
    """

    filtered: FloatArray
    predicted: FloatArray


class RegimeVolatility(NamedTuple):
    """Learned volatilities of two regimes by bar, per sqrt(year).

    Arrays of shape (n_bars,), or (n_bars, k) for k sets of parameters; NaN until warm.
    """

    calm: FloatArray
    stress: FloatArray


@checked
def regime_probabilities(
    market: Market,
    calm_volatility: OneOrMany,
    stress_volatility: OneOrMany,
    calm_bars: OneOrMany,
    stress_bars: OneOrMany,
    calm_drift: OneOrMany = 0.0,
    stress_drift: OneOrMany = 0.0,
) -> Regimes:
    """Return the probabilities of two regimes whose parameters are known.

    Parameters
    ----------
    market : Market
        Only its closes count.
    calm_volatility, stress_volatility : float, or FloatArray of shape (k,)
        Per sqrt(year), over 0.
    calm_bars, stress_bars : float, or FloatArray of shape (k,)
        Mean length of a stay in each state, bars, over 1.
    calm_drift, stress_drift : float, or FloatArray of shape (k,)
        Mean log return per year.

    Returns
    -------
    Regimes
        NaN until one return is known.

    Notes
    -----
    r_t ~ N(mu_s / A, sigma_s^2 / A) in state s, A the bars per year; a stay ends after a bar with
    probability 1 / bars. From the stationary probabilities on,
    ``P(s | r_1..r_t) ~ p(r_t | s) P(s | r_1..r_{t-1})``, and one bar ahead
    ``P(stress) (1 - 1 / stress_bars) + P(calm) / calm_bars``. Source: Hamilton (1989), A New
    Approach to the Economic Analysis of Nonstationary Time Series and the Business Cycle,
    Econometrica 57(2).
    """
    given = (calm_volatility, stress_volatility, calm_bars, stress_bars, calm_drift, stress_drift)
    check_lanes("calm_volatility", calm_volatility, low=0.0, open_low=True)
    check_lanes("stress_volatility", stress_volatility, low=0.0, open_low=True)
    check_lanes("calm_drift", calm_drift)
    check_lanes("stress_drift", stress_drift)
    calm, stress, stay, stay_stress, drift, stress_drift_ = broadcast(*given)
    leave = leaving_probabilities(stay, stay_stress)
    years = np.array(np.broadcast_to(1.0 / np.asarray(bars_per_year(market)), market.n_bars))
    out = np.empty((market.n_bars, len(calm)))
    states = np.stack([drift, calm**2]), np.stack([stress_drift_, stress**2])
    at_first = leave[0] / (leave[0] + leave[1])
    kernels = compile_module(regime_kernels)
    kernels.filter_lanes(log_returns(market), years, *states, leave, at_first, out)
    return Regimes(shape_as(out, *given), shape_as(predict_next(out, leave), *given))


@checked
def learned_regimes(
    market: Market, half_life: OneOrMany, calm_bars: OneOrMany, stress_bars: OneOrMany
) -> Regimes:
    """Return the probabilities of two regimes whose volatilities are learned bar by bar.

    Parameters
    ----------
    market : Market
        Only its closes count.
    half_life : float, or FloatArray of shape (k,)
        Bars after which a return weighs half as much in what is learned, over 0.
    calm_bars, stress_bars : float, or FloatArray of shape (k,)
        Mean length of a stay in each state, bars, over 1.

    Returns
    -------
    Regimes
        NaN until 100 returns are known.

    Notes
    -----
    Returns as in :func:`regime_probabilities`, with means of 0: over single bars they are
    negligible. Each bar is one step of the online EM algorithm: the probabilities by Hamilton's
    filter with the variances learned so far, then ``S_t = (1 - g_t) E[S_{t-1}] + g_t (1{s}, 1{s}
    r_t^2)`` for both states s, the expectation over paths that lead to each state now, and
    ``sigma_s^2 = S_t(s, r^2) / S_t(s)``. The step is ``g_t = max(min(2 / t, 1 / 20), 1 - 2^(-1 /
    half_life))``, t the number of known returns. At first the weight of returns grows in proportion
    to t, because early ones were assigned to states by guesses. The transitions are not learned:
    with fat tails the likelihood prefers regimes of a bar or two.

    The variances start at half and four times the mean square of the first 20 returns. Stress has
    at least twice the variance of calm. Without this, both states would become identical in a
    market with one regime, and never separate again. Source: Hamilton (1989); Cappe (2011), Online
    EM Algorithm for Hidden Markov Models, J. Computational and Graphical Statistics 20(3), section
    2.
    """
    given = (half_life, calm_bars, stress_bars)
    filtered, _, leave = learn_variances(market, *given, rows=0)
    return Regimes(shape_as(filtered, *given), shape_as(predict_next(filtered, leave), *given))


@checked
def learned_volatility(
    market: Market, half_life: OneOrMany, calm_bars: OneOrMany, stress_bars: OneOrMany
) -> RegimeVolatility:
    """Return the volatilities that :func:`learned_regimes` has learned by each close.

    Parameters are those of :func:`learned_regimes`.

    Returns
    -------
    RegimeVolatility
        Per sqrt(year); NaN until 100 returns are known.
    """
    given = (half_life, calm_bars, stress_bars)
    _, found, _ = learn_variances(market, *given, rows=market.n_bars)
    found *= np.reshape(bars_per_year(market), (-1, 1))
    return RegimeVolatility(*(shape_as(each, *given) for each in np.sqrt(found, out=found)))


def learn_variances(
    market: Market, half_life: OneOrMany, calm_bars: OneOrMany, stress_bars: OneOrMany, *, rows: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Learn both variances; return filtered probabilities, variances, leaving probabilities.

    Shapes (n_bars, k), (2, rows, k), and (2, k). With 0 ``rows`` variances are not kept.
    """
    check_lanes("half_life", half_life, low=0.0, open_low=True)
    half_lives, *stays = broadcast(half_life, calm_bars, stress_bars)
    leave = leaving_probabilities(*stays)
    k = len(half_lives)
    forget = 1.0 - find_decay(half_lives)
    filtered, variances = np.empty((market.n_bars, k)), np.empty((2, rows, k))
    state = np.empty((regime_kernels.SLOTS, k))
    squares = log_returns(market) ** 2
    kernels = compile_module(regime_kernels)
    kernels.learn_lanes(squares, forget, leave, state, filtered, *variances)
    return filtered, variances, leave


def leaving_probabilities(calm_bars: FloatArray, stress_bars: FloatArray) -> FloatArray:
    """Return the probabilities of leaving calm and stress after a bar, of shape (2, k)."""
    check_lanes("calm_bars", calm_bars, low=1.0, open_low=True)
    check_lanes("stress_bars", stress_bars, low=1.0, open_low=True)
    return 1.0 / np.stack([calm_bars, stress_bars])


def predict_next(filtered: FloatArray, leave: FloatArray) -> FloatArray:
    """Return the probabilities of stress one bar ahead, of shape (n_bars, k)."""
    ahead: FloatArray = filtered * (1.0 - leave[0] - leave[1])
    ahead += leave[0]
    return ahead
