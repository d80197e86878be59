"""How much of a Sharpe ratio, or of the best of several trials, may be chance.

Every Sharpe ratio here but that of :func:`sharpe_error` is per observation, not annualized: the
annual one divided by the square root of the observations per year. Returns whose deviation is below
1e-12 have a Sharpe ratio of 0, with the skewness and kurtosis of a normal distribution.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from backtest import core
from backtest.core.code_names import sp
from backtest.core.one_thread import one_thread
from backtest.core.units import TOLERANCE
from backtest.results.performance import LEAST_DEVIATION

EULER_MASCHERONI = 0.5772156649015329


class SharpeMoments(NamedTuple):
    """Sharpe ratio of a series of returns, and the moments that its standard error needs."""

    sharpe: float
    """Mean over standard deviation (ddof 1), per observation."""
    n: int
    """Observations."""
    skew: float
    """Third standardized moment."""
    kurtosis: float
    """Fourth standardized moment: 3 for a normal distribution, not 0."""


@core.checked
def estimate_moments(returns: core.FloatArray) -> SharpeMoments:
    """Return the Sharpe ratio of finite excess returns (n,), two or more, and their moments.

    Examples
    --------
    >>> round(estimate_moments(np.array([0.01, 0.03, 0.01, 0.03])).kurtosis, 12)
    1.0
    """
    column = check_returns(np.asarray(returns)[..., None], samples=2)[:, 0]
    n = len(column)
    centered = column - np.mean(column)
    variance = float(np.mean(centered**2))
    deviation = math.sqrt(variance * n / (n - 1))
    if deviation < LEAST_DEVIATION:
        return SharpeMoments(0.0, n, 0.0, 3.0)
    scaled = centered / math.sqrt(variance)
    skew, kurtosis = float(np.mean(scaled**3)), float(np.mean(scaled**4))
    return SharpeMoments(float(np.mean(column)) / deviation, n, skew, kurtosis)


@core.checked
def probabilistic_sharpe(
    sharpe: float, n: float, *, skew: float = 0.0, kurtosis: float = 3.0, benchmark: float = 0.0
) -> float:
    """Return the probability that the true Sharpe ratio is above a benchmark.

    ``sharpe`` and ``benchmark`` are per observation, of ``n`` independent observations, at least 2
    (:func:`effective_observations`); ``skew`` and ``kurtosis`` the third and fourth standardized
    moments, 0 and 3 for a normal distribution. If the estimate has no error (returns of two values
    only), the result is 0, 1/2 or 1.

    Notes
    -----
    Phi((S - S*) sqrt(n - 1) / sqrt(1 - g3 S + (g4 - 1) / 4 S^2)). Source: Bailey and Lopez de Prado
    (2012), The Sharpe Ratio Efficient Frontier, Journal of Risk 15(2), eq. 9.

    Examples
    --------
    >>> round(probabilistic_sharpe(0.036 / 0.079, 24, skew=-2.448, kurtosis=10.164), 3)
    0.913
    """
    core.check_range("n", n, low=2.0, open_high=True)
    excess = check_finite("sharpe", sharpe) - check_finite("benchmark", benchmark)
    error = math.sqrt(estimation_variance(sharpe, skew, kurtosis) / (n - 1))
    if error == 0.0:
        return 0.5 + 0.5 * float(np.sign(excess))
    return 0.5 * math.erfc(-excess / error / math.sqrt(2.0))


@core.checked
def expected_max_sharpe(n_trials: float, std: float) -> float:
    """Return the Sharpe ratio expected of the best of several trials without skill.

    ``n_trials`` are independent (see :func:`effective_trials`), at least 1; ``std`` is the standard
    deviation of their Sharpe ratios, per observation.

    Notes
    -----
    SR0 = std ((1 - g) Z(1 - 1/N) + g Z(1 - 1/(N e))), g the Euler-Mascheroni constant, Z the normal
    quantile; 0 where that is below 0, between 1 and 1.3 trials. Source: Bailey and Lopez de Prado
    (2014), The Deflated Sharpe Ratio, J. Portfolio Management 40(5).

    Examples
    --------
    >>> round(expected_max_sharpe(100, (0.5 / 250) ** 0.5), 4)
    0.1132
    """
    core.check_range("n_trials", n_trials, low=1.0, high=1e300)
    core.check_range("std", std, low=0.0, open_high=True)
    if n_trials == 1.0:
        return 0.0
    quantile = NormalDist().inv_cdf
    # Z(1 - p) = -Z(p): exact also where 1 - p is rounded to 1
    upper, outer = -quantile(1.0 / n_trials), -quantile(1.0 / (n_trials * math.e))
    return max(0.0, std * ((1.0 - EULER_MASCHERONI) * upper + EULER_MASCHERONI * outer))


@core.checked
def deflated_sharpe(
    sharpe: float,
    n: float,
    *,
    skew: float = 0.0,
    kurtosis: float = 3.0,
    n_trials: float,
    std: float,
) -> float:
    """Return the probability that the best of several trials has skill, beyond chance.

    The probabilistic Sharpe ratio against :func:`expected_max_sharpe`, with their parameters.
    Source: Bailey and Lopez de Prado (2014), The Deflated Sharpe Ratio, J. Portfolio Management
    40(5).

    Examples
    --------
    >>> year = 250
    >>> moments = {"skew": -3.0, "kurtosis": 10.0}
    >>> std = (0.5 / year) ** 0.5
    >>> round(deflated_sharpe(2.5 / year**0.5, 5 * year, **moments, n_trials=100, std=std), 4)
    0.9004
    """
    benchmark = expected_max_sharpe(n_trials, std)
    return probabilistic_sharpe(sharpe, n, skew=skew, kurtosis=kurtosis, benchmark=benchmark)


@core.checked
def deflated_sharpe_of_returns(returns: core.FloatArray, *, n_trials: float, std: float) -> float:
    """Return :func:`deflated_sharpe` of a series of returns of shape (n,).

    ``std`` is per observation of the same length as these. Constant returns give 1/2 for one trial,
    and less for more.
    """
    return deflated_sharpe(**estimate_moments(returns)._asdict(), n_trials=n_trials, std=std)


def estimation_variance(sharpe: float, skew: float, kurtosis: float) -> float:
    least = 1.0 + check_finite("skew", skew) ** 2
    if check_finite("kurtosis", kurtosis) < least * (1.0 - 1e-9):
        raise core.ParameterError(
            f"kurtosis must be at least 1 + skew^2 = {least:g}, got {kurtosis!r}; "
            "add 3 to an excess kurtosis"
        )
    return max(0.0, 1.0 - skew * sharpe + 0.25 * (kurtosis - 1.0) * sharpe**2)


def check_finite(name: str, value: float) -> float:
    return core.check_range(name, value, open_low=True, open_high=True)


def check_returns(returns: npt.ArrayLike, *, samples: int, trials: int = 1) -> core.FloatArray:
    """Return a table of shape (n_samples, n_trials), checked to be large enough and finite."""
    table = np.asarray(returns, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] < samples or table.shape[1] < trials:
        raise core.ParameterError(
            f"returns must be of shape (n_samples, n_trials) with at least {samples} samples and "
            f"{trials} trials, got shape {table.shape}"
        )
    bad = np.flatnonzero(~np.isfinite(table).all(axis=0))
    if len(bad):
        raise core.ParameterError(
            f"returns must be finite, are not in {len(bad)} of {table.shape[1]} trials, first in "
            f"column {bad[0]}; leave failed trials out"
        )
    return table


@core.checked
def sharpe_error(excess: core.FloatArray, periods: float, *, n: float | None = None) -> float:
    """Return the standard error of the annual Sharpe ratio.

    ``excess`` (n,) are simple returns per sampling period in excess of the risk-free rate,
    ``periods`` sampling periods per year; ``n`` is how many independent ones they are worth, all of
    them by default. The measure of a run has that of :func:`effective_observations`. NaN if there
    is no Sharpe ratio: fewer than 2 returns, or a deviation below 1e-12.

    Notes
    -----
    sqrt((1 - g3 S + (g4 - 1) / 4 · S²) / (n - 1)) · sqrt(periods), with S the Sharpe ratio per
    sampling period, g3 the skewness m3 / m2^1.5 and g4 the kurtosis m4 / m2² (3 for a normal
    distribution). Sources: Mertens (2002), Comments on Variance of the IID estimator in Lo (2002);
    Lo (2002), The Statistics of Sharpe Ratios, Financial Analysts Journal 58(4), for normal
    returns.

    Examples
    --------
    >>> round(sharpe_error(np.array([0.01, -0.01] * 50), 365.0), 12)
    1.920122049993
    """
    core.check_range("periods", periods, low=0.0)
    if not has_spread(excess):
        return math.nan
    found = estimate_moments(excess)
    count = found.n if n is None else core.check_range("n", n, low=2.0, open_high=True)
    variance = estimation_variance(found.sharpe, found.skew, found.kurtosis)
    return math.sqrt(variance / (count - 1) * periods)


@core.checked
def effective_observations(returns: core.FloatArray) -> float:
    """Return how many independent returns some autocorrelated ones of shape (n,) are worth.

    From 2 to n: n over Lo's factor where that is above 1. Negative autocorrelation is not credited,
    which a few dozen returns show by chance. Fewer than 2 returns, or constant ones, count as n.

    Notes
    -----
    The factor is 1 + 2 sum of w_k r_k, r_k the autocorrelation at lag k: the ratio by which the
    variance of a mean exceeds that of independent returns. Source: Lo (2002), The Statistics of
    Sharpe Ratios, Financial Analysts Journal 58(4). Lags m = floor(1.3 n^(1/2)) with Bartlett's
    weights w_k = 1 - k / (m + 1), as Lazarus, Lewis, Stock and Watson (2018), HAR Inference,
    J. Business and Economic Statistics 36(4), recommend; times 1 + (m + 1) / n, for the
    autocorrelations are of deviations from the sample's own mean.

    Of 2,000 draws of 250, 500 and 1,000 days, 95 % intervals by ``sharpe_error`` held the true
    ratio in 96.0, 96.4 and 96.7 % (independent), 96.4, 96.5 and 96.7 % (GARCH), 94.5, 95.4 and
    95.4 % (AR .15; 91 to 93 % with n), and 93.4, 94.9 and 95.0 % (ARMA .5, -.3; 86 to 87 % with n).

    Examples
    --------
    >>> effective_observations(np.array([0.01, -0.01] * 50))
    100.0
    """
    n = len(returns)
    if not has_spread(returns):
        return float(n)
    centered = np.asarray(returns) - np.mean(returns)
    lags = min(int(1.3 * math.sqrt(n)), n - 1)
    sums = [float(centered[k:] @ centered[:-k]) for k in range(1, lags + 1)]
    weights = 1.0 - np.arange(1, lags + 1) / (lags + 1.0)
    factor = 1.0 + 2.0 * float(weights @ np.array(sums)) / float(centered @ centered)
    return max(2.0, n / max(1.0, factor * (1.0 + (lags + 1.0) / n)))


def probability_of_skill(excess: core.FloatArray) -> float:
    """Return the probability that the true Sharpe ratio of excess returns (n,) is above 0.

    They count as :func:`effective_observations`.
    """
    if not has_spread(excess):
        return math.nan
    moments = {**estimate_moments(excess)._asdict(), "n": effective_observations(excess)}
    return probabilistic_sharpe(**moments)


def has_spread(returns: core.FloatArray) -> bool:
    return len(returns) > 1 and bool(np.std(returns, ddof=1) >= LEAST_DEVIATION)


DRAWS = 10_000
"""Simulated Sharpe ratios of each trial."""
MOST_TRIALS = 512
"""Trials that are simulated; of more, a random sample."""
FIGURES = 4
"""Significant digits of what was simulated, fewer than rounding errors of a machine can reach."""


class TrialLuck(NamedTuple):
    """How many independent trials some are worth, and what their best shows without skill.

    ``deviation`` is that of their Sharpe ratios without skill, in standard errors of one ratio:
    ``expected_max_sharpe(n, deviation)`` is the expected highest, in the same unit.
    """

    n: float
    deviation: float

    def find_deviation(self, n_returns: int, periods: float = 1.0) -> float:
        return self.deviation * math.sqrt(periods / (n_returns - 1))


@core.checked
def effective_trials(returns: core.FloatArray, *, n_trials: int | None = None) -> float:
    """Return the number of independent trials equivalent to several correlated trials.

    ``returns`` (n_samples, k) are finite simple returns of k trials over the same samples;
    ``n_trials`` is how many there were; these are a sample of them. The result is from 1
    (identical columns) to ``n_trials`` (uncorrelated ones), to four digits.

    Notes
    -----
    Without skill, estimated Sharpe ratios are normal with the correlations of the returns (Jobson
    and Korkie 1981, J. Finance 36(4)). The result is the number of independent normals whose
    expected highest is the mean of the highest of these in 10,000 draws: trials that share most of
    their returns, as where only a scale varies, are hardly more than one. Halves of the trials show
    how it grows with their count: n ~ k^b, b from 0 (more trials are copies) to 1 (each is new);
    trials beyond the k given count by this power. Constant trials count as identical, and as
    uncorrelated with others.

    Examples
    --------
    >>> effective_trials(np.array([[0.1, 0.1, 0.1], [0.2, 0.2, 0.2]]))
    1.0
    """
    return simulate_luck(returns, n_trials=n_trials).n


def simulate_luck(returns: core.FloatArray, *, n_trials: int | None = None) -> TrialLuck:
    table = check_returns(returns, samples=2)
    k = table.shape[1]
    total = k if n_trials is None else n_trials
    core.check_range("n_trials", total, low=k, open_high=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(k)[:MOST_TRIALS]
    with one_thread():
        draws = rng.standard_normal((DRAWS, len(order))) @ find_root(table[:, order])
    n, highest = match_draws(draws)
    half = len(order) // 2
    expected = expected_max_sharpe(n, 1.0)  # 0 up to 1.26 trials
    if not half or expected == 0.0:
        return TrialLuck(round_figures(n), 1.0)
    fewer = 0.5 * (match_draws(draws[:, :half])[0] + match_draws(draws[:, half : 2 * half])[0])
    power = min(1.0, max(0.0, math.log(n / fewer) / math.log(len(order) / half)))
    grown = min(float(total), n * (total / len(order)) ** power)
    return TrialLuck(round_figures(grown), round_figures(highest / expected))


def find_root(table: core.FloatArray) -> core.FloatArray:
    centered = table - np.mean(table, axis=0)
    moves = np.std(table, axis=0) >= LEAST_DEVIATION
    norms = np.sqrt(np.sum(centered**2, axis=0))
    units = np.where(moves, centered / np.where(moves, norms, 1.0), 0.0)
    values, vectors = np.linalg.eigh(units.T @ units + np.outer(~moves, ~moves))
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)


def match_draws(draws: core.FloatArray) -> tuple[float, float]:
    """Return how many normals have the mean maximum of the draws, and this maximum."""
    most = draws.shape[1]
    highest = float(np.mean(np.max(draws, axis=1) - np.mean(draws, axis=1)))  # copies: exactly 0
    x, step = np.linspace(0.0, 9.0, 1_801, retstep=True)
    above, below = sp.special.ndtr(x), sp.special.ndtr(-x)

    def lack(log: float) -> float:
        values = 1.0 - above ** math.exp(log) - below ** math.exp(log)
        return float(step * (np.sum(values) - 0.5 * values[0])) - highest

    end = math.log(most)
    if lack(end) <= 0.0:
        return float(most), highest
    return math.exp(sp.optimize.brentq(lack, 0.0, end, xtol=1e-13)), highest


def round_figures(value: float) -> float:
    return float(f"{value:.{FIGURES}g}")


MOST_SPLITS = 20
"""20 blocks have 184,756 halves. 22 would have 705,432, without a better estimate."""
LEAST_VARIANCE = 1e-13
"""A variance below this share of the mean square is a rounding error of a constant."""
CHUNK = 1 << 14
"""Values per array while halves are compared, to fit in a processor's cache."""

Figure = Literal["sharpe", "mean"]


class Overfitting(NamedTuple):
    """Result of combinatorially symmetric cross-validation."""

    pbo: float
    """Share of halves whose best trial is no better than the median in the other half."""
    logits: core.FloatArray
    """Of shape (C(n_splits, n_splits / 2),): ln(w / (1 - w)), w the relative rank of the best
    trial of a half in the other half."""


@core.checked
def probability_of_backtest_overfitting(
    returns: core.FloatArray, *, n_splits: int = 16, metric: Figure = "sharpe"
) -> Overfitting:
    """Return how often the best trial of one half of the samples is no good in the other half.

    ``returns`` (n_samples, n_trials) are finite, of 2 trials or more; ``n_splits`` blocks of
    consecutive samples, even, from 2 to 20; ``metric`` ranks the trials in both halves. A logit of
    0 (the median) counts as overfit; equal figures share their mean rank, so identical trials are
    overfit with certainty: choosing among them has no value.

    Notes
    -----
    Combinatorially symmetric cross-validation: each choice of S/2 of the S blocks is in sample
    once, and the rest out of sample; w = rank / (n_trials + 1). Source: Bailey, Borwein, Lopez de
    Prado and Zhu (2017), The Probability of Backtest Overfitting, J. Computational Finance 20(4).

    Examples
    --------
    >>> skilled = np.array([[0.3, 0.1], [0.4, 0.2], [0.3, 0.2], [0.4, 0.1]])
    >>> probability_of_backtest_overfitting(skilled, n_splits=4, metric="mean").pbo
    0.0
    """
    splits: int = core.ANY_NUMBER.check("n_splits", n_splits, whole=True)
    if splits % 2 or not 2 <= splits <= MOST_SPLITS:
        raise core.ParameterError(
            f"n_splits must be even and from 2 to {MOST_SPLITS}, got {n_splits!r}"
        )
    core.Choice(*get_args(Figure)).check("metric", metric)
    table = check_returns(returns, samples=max(4, splits), trials=2)
    rank = np.concatenate([*rank_winners(table, splits, metric)])
    share = rank / (table.shape[1] + 1)
    logits = np.log(share / (1.0 - share))
    return Overfitting(float(np.mean(logits <= 0.0)), logits)


def rank_winners(table: core.FloatArray, splits: int, metric: Figure) -> Iterator[core.FloatArray]:
    """Yield the ranks of the best trials of some halves in the other half, of shape (m,).

    Rank 1 is the worst; trials that differ by less than 1e-12 of the figure share a rank. Of equals
    in sample the first is the best.
    """
    starts = [block[0] for block in np.array_split(np.arange(len(table)), splits)]
    sizes, level = np.diff(starts, append=len(table)).astype(np.float64), np.mean(table, axis=0)
    sums = np.add.reduceat(table - level, starts)
    squares = np.add.reduceat((table - level) ** 2, starts)

    def judge(mask: core.FloatArray) -> core.FloatArray:
        n, gained, squared = (mask @ sizes)[:, None], mask @ sums, mask @ squares
        mean = gained / n
        if metric == "mean":
            return np.asarray(mean + level)
        spread = squared - mean * gained
        known = spread > np.maximum(LEAST_VARIANCE * squared, LEAST_DEVIATION**2 * (n - 1.0))
        deviation = np.sqrt(np.where(known, spread, 1.0) / (n - 1.0))
        return np.where(known, (mean + level) / deviation, 0.0)

    halves = itertools.combinations(range(1, splits), splits // 2 - 1)
    while part := list(itertools.islice(halves, max(1, CHUNK // table.shape[1]))):
        mask = np.zeros((len(part), splits))  # 1 in half the blocks, the first among them
        mask[:, 0] = 1.0
        np.put_along_axis(mask, np.array(part, dtype=np.int64), 1.0, axis=1)
        both = judge(mask), judge(1.0 - mask)
        for inside, outside in (both, both[::-1]):
            best = np.argmax(inside, axis=1)[:, None]
            figure = np.take_along_axis(outside, best, axis=1)
            margin = TOLERANCE * np.abs(figure)
            worse = np.count_nonzero(outside < figure - margin, axis=1)
            better = np.count_nonzero(outside > figure + margin, axis=1)
            yield 0.5 * (table.shape[1] + 1 + worse - better)
