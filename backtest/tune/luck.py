"""Measure how much of the best result is luck, and warn of edges and spikes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.base import BacktestError, FloatArray
from backtest.engine import count_periods
from backtest.measures import (
    choose_block,
    deflated_sharpe,
    deflated_sharpe_of_returns,
    draw_histories,
    estimate_moments,
    expected_max_sharpe,
    probability_of_backtest_overfitting,
    simulate_luck,
)
from backtest.measures.performance import LEAST_DEVIATION
from backtest.sweep import take_sets
from backtest.tune.journal import Batch
from backtest.tune.looks import OtherTrials
from backtest.tune.trials import find_distinct, is_feasible, spread_sample

if TYPE_CHECKING:
    from backtest.sweep import Dimension, Evaluator, Pooling, Sets, Space

SAMPLE = 128
"""Sets in the sample whose returns are compared."""
SPLITS = 10
"""Blocks of time for the probability of overfitting, which gives 252 splits into halves."""
EDGE = 0.01
"""A parameter is on the edge if it is within this share of its range from an end."""
SPIKE = 0.2
"""A score is a spike if it exceeds the median of its neighbors by more than this share of itself,
or of the interquartile range of all scores, whichever is larger."""


class Verdict(NamedTuple):
    trials: int
    other_trials: int
    effective_trials: float = math.nan
    sharpe: float = math.nan
    lucky_sharpe: float = math.nan
    deflated_sharpe: float = math.nan
    overfitting: float = math.nan
    score: float = math.nan
    robust_score: float = math.nan
    plateau: float = math.nan
    kept: float = math.nan
    plain_score: float = math.nan
    plain_plateau: float = math.nan
    holdout_score: float = math.nan
    looks: int = 0
    other_policies: tuple[str, ...] = ()


class Luck(NamedTuple):
    effective_trials: float
    lucky_sharpe: float
    deflated_sharpe: float
    overfitting: float
    sharpe: float


UNKNOWN = Luck(math.nan, math.nan, math.nan, math.nan, math.nan)


def measure_luck(
    evaluator: Evaluator,
    space: Space,
    trials: Batch,
    best: int,
    others: OtherTrials,
    seed: int,
) -> Luck:
    places = find_distinct(trials.sets)
    kept = places[is_feasible(trials)[places]]
    sample = spread_sample(space, trials.sets, kept, SAMPLE, np.random.default_rng([seed, 2]))
    sample = np.append(sample[sample != best], best)
    chosen = take_sets(trials.sets, sample)
    unknown = UNKNOWN._replace(sharpe=float(trials.metrics["sharpe"][best]))
    if evaluator.pool is not None and not evaluator.pool.is_mean:
        return measure_drawn_luck(evaluator, evaluator.pool, chosen, unknown, seed)
    rows = evaluator.evaluate(chosen, returns=True)
    if not rows.done.all():
        raise KeyboardInterrupt
    if rows.returns is None or len(rows.returns) < 4:
        return unknown
    periods = count_periods(evaluator.calendar, evaluator.sampling, evaluator.market)
    scale = math.sqrt(periods)
    sharpes = np.nan_to_num(trials.metrics["sharpe"][sample])
    if evaluator.pool is not None:
        sharpes = find_sharpes(rows.returns) * scale
        unknown = unknown._replace(sharpe=float(sharpes[-1]))
    own_sharpe = unknown.sharpe
    n_sets = max(len(places), len(sample))
    try:
        if len(sample) == 1:  # its returns show no correlation
            count = float(n_sets + others.n_sets)
            alone, lucky = deflate_alone(rows.returns[:, -1], count)
            return Luck(count, lucky * scale, alone, math.nan, own_sharpe)
        found = simulate_luck(rows.returns, n_trials=n_sets)
        std = found.find_deviation(len(rows.returns), periods)
        count = found.n * (1.0 + others.n_sets / n_sets)
        deflated = deflate(sharpes[-1] / scale, rows.returns[:, -1], count, std / scale)
        lucky, pbo = expected_max_sharpe(count, std), find_overfitting(rows.returns)
        return Luck(count, lucky, deflated, pbo, own_sharpe)
    except BacktestError:  # returns that are not finite
        return unknown


def deflate_alone(returns: FloatArray, trials: float) -> tuple[float, float]:
    """Return the deflated Sharpe ratio of one account after some trials, and the Sharpe of luck.

    Without the other trials' returns, their Sharpe ratios scatter as those of noise.
    """
    if len(returns) < 2:
        return 0.5, 0.0
    std = math.sqrt(1.0 / (len(returns) - 1))
    alone = deflated_sharpe_of_returns(returns, n_trials=trials, std=std if trials > 1.0 else 0.0)
    return alone, expected_max_sharpe(trials, std)


def measure_drawn_luck(
    evaluator: Evaluator, pool: Pooling, chosen: Sets, unknown: Luck, seed: int
) -> Luck:
    returns = evaluator.sample_returns(chosen)
    if returns.shape[1] < 4:
        return unknown
    pbo = find_overfitting(returns.mean(axis=0))
    chance = find_chance(returns, pool, seed)
    return unknown._replace(deflated_sharpe=chance, overfitting=pbo)


def deflate(sharpe: float, returns: FloatArray, count: float, std: float) -> float:
    moments = estimate_moments(returns)
    return deflated_sharpe(
        sharpe,
        moments.n,
        skew=moments.skew,
        kurtosis=moments.kurtosis,
        n_trials=count,
        std=std,
    )


def find_overfitting(returns: FloatArray) -> float:
    if returns.shape[1] < 2:
        return math.nan
    splits = min(SPLITS, len(returns) // 4 * 2)
    return probability_of_backtest_overfitting(returns, n_splits=splits).pbo


def is_spike(score: float, plateau: float, scores: FloatArray) -> bool:
    if not len(scores) or math.isnan(score) or math.isnan(plateau):
        return False
    low, high = np.quantile(scores, [0.25, 0.75], method="nearest")
    return bool(score - plateau > SPIKE * max(abs(score), high - low))


def warn_of_edges(space: Space, values: Mapping[str, Any]) -> Iterator[str]:
    for each in space.dimensions:
        if each.options or not is_used(space, each, values):
            continue
        value = values[each.name]
        place = float(each.encode(np.array([value]))[0])
        for side, bound, distance in (("lower", each.low, place), ("upper", each.high, 1 - place)):
            is_there = value == bound if each.kind == "int" else distance <= EDGE
            is_natural = bound == 0.0 and not each.log
            if is_there and not is_natural:
                yield (
                    f"{each.name} = {value:.4g} lies on the {side} edge of its range, "
                    f"{each.low:g} to {each.high:g}: widen it, better values may lie beyond"
                )


def is_used(space: Space, dimension: Dimension, values: Mapping[str, Any]) -> bool:
    sets = {name: np.array([value], dtype=object) for name, value in values.items()}
    return bool(space.find_active(sets, dimension)[0])


HISTORIES = 1_000
"""Resampled histories of a verdict."""


def find_sharpes(returns: FloatArray) -> FloatArray:
    mean, deviation = returns.mean(axis=-2), returns.std(axis=-2, ddof=1)
    moves = deviation >= LEAST_DEVIATION
    return np.where(moves, mean / np.where(moves, deviation, 1.0), 0.0)


def find_chance(returns: FloatArray, pooling: Pooling, seed: int) -> float:
    """Return the probability that the best of some sets is truly better than luck.

    Parameters
    ----------
    returns : array of shape (n_markets, n_days, n_sets)
        Returns on the days that all markets have; the set that was chosen is the last.
    pooling : Pooling
        How Sharpe ratios of several markets become one.
    seed : int
        Seed of the draws.

    Notes
    -----
    1 - p of a reality check: the means of all sets are taken out in each market, the same days are
    drawn in all markets by the stationary bootstrap, and p is how often the best pooled Sharpe
    ratio of a draw reaches that of the chosen set. Source: White (2000), A Reality Check for Data
    Snooping, Econometrica 68(5).
    """
    found = pooling.join("sharpe", find_sharpes(returns))[-1]
    still = returns - returns.mean(axis=1, keepdims=True)
    n = returns.shape[1]
    block = choose_block(returns.mean(axis=0).T)
    draws = draw_histories(n, block, HISTORIES, np.random.default_rng([seed, 3]))
    best = [pooling.join("sharpe", find_sharpes(still[:, days])).max() for days, _ in draws]
    return float(np.mean(np.array(best) < found))
