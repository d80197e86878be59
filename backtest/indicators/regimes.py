"""Hidden regimes of calm and stress, learned bar by bar."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backtest._compile import compile_module
from backtest.core import FloatArray, checked
from backtest.indicators import kernels, lanes, returns
from backtest.indicators.lanes import OneOrMany
from backtest.market import Market


class Regimes(NamedTuple):
    """Probabilities of stress by bar: for the bar that closes, and for the next.

    Arrays of shape (n_bars,), or (n_bars, k) for k sets of parameters; NaN until warm.
    """

    filtered: FloatArray
    predicted: FloatArray


@checked
def learned_regimes(
    market: Market,
    half_life: OneOrMany,
    calm_bars: OneOrMany,
    stress_bars: OneOrMany,
) -> Regimes:
    """Return the probabilities of two regimes whose volatilities are learned bar by bar.

    Only closes count. ``half_life``: bars after which a return weighs half as much in what is
    learned, over 0. ``calm_bars`` and ``stress_bars``: mean length of a stay in each state, bars,
    over 1. NaN until ceil(half_life) returns are known, at least 100.

    Notes
    -----
    r_t ~ N(0, sigma_s^2) in state s: over single bars means are negligible. A stay ends after a bar
    with probability 1 / bars. Each bar is one step of the online EM algorithm: the probabilities by
    Hamilton's filter with the variances learned so far, then ``S_t = (1 - g_t) E[S_{t-1}] + g_t
    (1{s}, 1{s} r_t^2)`` for both states s, the expectation over paths that lead to each state now,
    and ``sigma_s^2 = S_t(s, r^2) / S_t(s)``. The step is ``g_t = max(min(2 / t, 1 / 20),
    1 - 2^(-1 / half_life))``, t the number of known returns. At first the weight of returns grows
    in proportion to t, because early ones were assigned to states by guesses. The transitions are
    not learned: with fat tails the likelihood prefers regimes of a bar or two.

    The variances start at half and four times the mean square of the first 20 returns. Stress has
    at least twice the variance of calm. Without this, both states would become identical in a
    market with one regime, and never separate again. Sources: Hamilton (1989), A New Approach to
    the Economic Analysis of Nonstationary Time Series and the Business Cycle, Econometrica 57(2);
    Cappe (2011), Online EM Algorithm for Hidden Markov Models, J. Computational and Graphical
    Statistics 20(3), section 2.
    """
    lanes.check_lanes("half_life", half_life, low=0.0, open_low=True)
    lanes.check_lanes("calm_bars", calm_bars, low=1.0, open_low=True)
    lanes.check_lanes("stress_bars", stress_bars, low=1.0, open_low=True)
    half_lives, *stays = lanes.broadcast(half_life, calm_bars, stress_bars)
    leave = 1.0 / np.stack(stays)
    k = len(half_lives)

    filtered = np.empty((market.n_bars, k))
    compile_module(kernels).learn_lanes(
        returns.log_returns(market) ** 2,
        1.0 - lanes.find_decay(half_lives),
        leave,
        np.maximum(lanes.count_needed(half_lives), kernels.WARM),
        np.empty((kernels.STRESS_IF_STRESS + 1, k)),
        filtered,
    )
    predicted = filtered * (1.0 - leave[0] - leave[1]) + leave[0]
    return Regimes(
        filtered=lanes.shape_as(filtered, half_life, calm_bars, stress_bars),
        predicted=lanes.shape_as(predicted, half_life, calm_bars, stress_bars),
    )
