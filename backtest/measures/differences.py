"""Differences between accounts: paired bootstrap, the best of many, corrections for many tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from backtest.base import (
    FloatArray,
    IntArray,
    check_lengths,
    checked,
    find_block_length,
)
from backtest.measures.performance import LEAST_DEVIATION

TAIL = 0.95
"""The level of the expected shortfall."""


class Sampled(NamedTuple):
    """Returns of k accounts over the same n sampling periods."""

    returns: FloatArray
    """Simple returns of shape (k, n), above -1."""
    free: FloatArray
    """The simple risk-free return of each period, of shape (n,)."""
    per_year: float
    """Samples per year of the span, which annualizes a mean."""
    periods: float
    """Samples per calendar year, whose root annualizes a deviation."""


class StatisticInfluence(NamedTuple):
    value: FloatArray
    """Of shape (k,)."""
    influence: FloatArray
    """Of shape (k, n), with mean 0."""


class Statistic(NamedTuple):
    """Measure as a statistic of a series, with the factor that annualizes it."""

    read: Callable[[Sampled], FloatArray]
    estimate: Callable[[FloatArray], StatisticInfluence]
    scale: Callable[[Sampled], float]
    is_risk: bool = False


def estimate_mean(x: FloatArray) -> StatisticInfluence:
    """Return the means of series of shape (k, n)."""
    value = np.mean(x, axis=1)
    return StatisticInfluence(value, x - value[:, None])


def estimate_sharpe(x: FloatArray) -> StatisticInfluence:
    deviation = np.std(x, axis=1, ddof=1)
    known = np.where(deviation >= LEAST_DEVIATION, deviation, np.nan)
    ratio = np.mean(x, axis=1) / known
    z = standardise(x, known)
    return StatisticInfluence(ratio, z - 0.5 * ratio[:, None] * (z * z - 1.0))


def estimate_deviation(x: FloatArray) -> StatisticInfluence:
    deviation = np.std(x, axis=1, ddof=1)
    z = standardise(x, np.maximum(deviation, LEAST_DEVIATION))
    return StatisticInfluence(deviation, 0.5 * deviation[:, None] * (z * z - 1.0))


def estimate_shortfall(x: FloatArray) -> StatisticInfluence:
    """Return the mean of the losses at or beyond their quantile, positive = loss."""
    losses, n = -x, x.shape[1]
    place = math.ceil(TAIL * (n - 1))
    quantile = np.partition(losses, place, axis=1)[:, place, None]
    beyond = losses >= quantile
    m = np.sum(beyond, axis=1)
    value = np.sum(np.where(beyond, losses, 0.0), axis=1) / m
    over = np.maximum(losses - quantile, 0.0) * (n / m)[:, None]
    return StatisticInfluence(value, quantile + over - value[:, None])


def standardise(x: FloatArray, deviation: FloatArray) -> FloatArray:
    n = x.shape[1]
    whole = deviation * math.sqrt((n - 1) / n)
    return np.asarray((x - np.mean(x, axis=1)[:, None]) / whole[:, None])


def measure_activity(x: FloatArray) -> FloatArray:
    """Return the absolute standardized values of series of shape (k, n); 0 without deviation."""
    deviation = np.std(x, axis=1, ddof=1)
    return np.abs(standardise(x, np.maximum(deviation, LEAST_DEVIATION)))


STATISTICS = {
    "log_growth": Statistic(
        lambda sampled: np.log1p(sampled.returns), estimate_mean, lambda sampled: sampled.per_year
    ),
    "sharpe": Statistic(
        lambda sampled: sampled.returns - sampled.free,
        estimate_sharpe,
        lambda sampled: math.sqrt(sampled.periods),
    ),
    "volatility": Statistic(
        lambda sampled: sampled.returns,
        estimate_deviation,
        lambda sampled: math.sqrt(sampled.periods),
        is_risk=True,
    ),
    "es_95": Statistic(
        lambda sampled: sampled.returns, estimate_shortfall, lambda _: 1.0, is_risk=True
    ),
}


# ----- differences of pairs -----

ROUNDING = 1e-12
"""Largest error of a history that is rounding, as a share of the largest influence."""


class Differences(NamedTuple):
    """Differences of p pairs with intervals and p-values; arrays of shape (p,)."""

    difference: FloatArray
    low: FloatArray
    high: FloatArray
    p_value: FloatArray
    """Of the hypothesis of no difference; 1 if two accounts are identical. The interval excludes 0
    exactly if the p-value is at most 1 - confidence."""
    block: int
    """Mean length of the blocks, in samples."""


@checked
def compare_pairs(
    sampled: Sampled,
    pairs: IntArray,
    measure: str,
    *,
    confidence: float,
    draws: int,
    rng: np.random.Generator,
    block: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Differences:
    """Return the differences of a measure between pairs of accounts, with intervals and p-values.

    ``sampled`` are returns of accounts that were not ruined, ``pairs`` (p, 2) two accounts each:
    the difference is the first less the second. ``measure`` is one of :data:`STATISTICS`;
    ``confidence`` is at most 1 - 1 / (draws + 1); ``draws`` are resampled histories; ``block`` is
    their mean length of blocks in samples, :func:`choose_block` by default. NaN if the measure of
    one account does not exist; the interval is infinite if too few histories have a difference.

    Notes
    -----
    Stationary bootstrap (Politis and Romano 1994, J. American Statistical Association 89(428)), all
    accounts resampled together. Symmetric studentized intervals, d ± c s, and p-values, as in
    Ledoit and Wolf (2008, J. Empirical Finance 15(5)) for Sharpe ratios: c is the quantile of |d* -
    d| / s*, and p the share of those at or over |d| / s, with d itself counted as one. s is the
    error of the mean influence under this bootstrap (:func:`resampling_error`), s* that of the sums
    over the blocks of a history. Volatility persists for longer than a block. So for measures of
    risk s has several values, each with a weight (:func:`estimate_errors`), p is the weighted mean
    of their p-values, and the interval contains every difference from d whose p exceeds 1 -
    confidence.
    """
    statistic, scale = STATISTICS[measure], STATISTICS[measure].scale(sampled)
    series = statistic.read(sampled)
    whole = statistic.estimate(series)
    gap = pair_differences(whole.value, pairs)
    influence = pair_differences(whole.influence, pairs)
    length = choose_block(influence) if block is None else block
    errors = difference_errors(influence, series, pairs, length, is_risk=statistic.is_risk)
    rounding = ROUNDING * np.max(np.abs(influence), axis=1)
    ratios = np.empty((draws, len(pairs)))
    for row, (chosen, starts) in enumerate(draw_histories(series.shape[1], length, draws, rng)):
        drawn = statistic.estimate(np.take(series, chosen, axis=1))
        sums = pair_differences(np.add.reduceat(drawn.influence, starts, axis=1), pairs)
        spread = np.sqrt(np.sum(sums**2, axis=1)) / series.shape[1]
        spread[spread <= rounding] = 0.0  # a history of equal differences has no error
        ratios[row] = studentize(pair_differences(drawn.value, pairs) - gap, spread)
        if progress is not None:
            progress(row + 1)
    half, p_value = compute_intervals(gap, errors, ratios, confidence)
    return Differences(scale * gap, scale * (gap - half), scale * (gap + half), p_value, length)


def pair_differences(values: FloatArray, pairs: IntArray) -> FloatArray:
    return np.asarray(values[pairs[:, 0]] - values[pairs[:, 1]])


def studentize(gap: FloatArray, error: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(gap == 0.0, 0.0, np.abs(gap) / error)
    return np.where(np.isnan(ratio), np.inf, ratio)


def difference_errors(
    influence: FloatArray, series: FloatArray, pairs: IntArray, block: int, *, is_risk: bool
) -> Errors:
    """Return the standard errors of differences, given their influence of shape (p, n)."""
    if is_risk:
        activity = measure_activity(series)
        return estimate_errors(influence, activity[pairs[:, 0]] + activity[pairs[:, 1]])
    error = resampling_error(influence, block)[:, None]
    return Errors(error, np.ones_like(error))


def compute_intervals(
    gap: FloatArray, errors: Errors, ratios: FloatArray, confidence: float
) -> tuple[FloatArray, FloatArray]:
    """Return the half widths of intervals and the p-values, from ratios of shape (draws, p)."""
    ratios, level = np.sort(ratios, axis=0), 1.0 - confidence + 1e-12
    half, p_value = np.full(len(gap), np.nan), np.full(len(gap), np.nan)
    for row in np.flatnonzero(~np.isnan(gap)):
        mine = ratios[:, row], errors.error[row], errors.weight[row]
        half[row] = find_half_width(*mine, level)
        p_value[row] = find_p_value(gap[row], *mine)
    return half, p_value


def find_p_value(gap: float, ratios: FloatArray, error: FloatArray, weight: FloatArray) -> float:
    found = studentize(np.full(len(error), gap), error)
    beyond = len(ratios) - np.searchsorted(ratios, found, side="left")
    return min(1.0, (1.0 + float(np.sum(weight * beyond))) / (len(ratios) + 1.0))


def find_half_width(
    ratios: FloatArray, error: FloatArray, weight: FloatArray, level: float
) -> float:
    if not error.any():
        return 0.0
    finite = ratios[np.isfinite(ratios)]
    low, high = 0.0, float(2.0 * (np.max(finite, initial=0.0) + 1.0) * np.max(error))
    if find_p_value(high, ratios, error, weight) > level:
        return math.inf
    while low < (middle := 0.5 * (low + high)) < high:
        if find_p_value(middle, ratios, error, weight) > level:
            low = middle
        else:
            high = middle
    return low


def draw_histories(
    n: int, block: int, draws: int, rng: np.random.Generator
) -> Iterator[tuple[IntArray, IntArray]]:
    from arch.bootstrap import StationaryBootstrap  # noqa: PLC0415 - it takes a second to import

    for drawn, _ in StationaryBootstrap(block, np.arange(n), seed=rng).bootstrap(draws):
        chosen = np.asarray(drawn[0], dtype=np.int64)
        follows = chosen[1:] == (chosen[:-1] + 1) % n
        yield chosen, np.flatnonzero(np.concatenate(([True], ~follows)))


LEAST_FOR_BLOCKS = 8
"""Samples below which the optimal length of blocks is not defined."""


def choose_block(influence: FloatArray) -> int:
    """Return the mean length of blocks for series of shape (p, n), in samples.

    The median of their optimal lengths (Politis and White 2004, Econometric Reviews 23(1), as
    corrected in 2009), at least n^(1/3).
    """
    least: float = influence.shape[1] ** (1.0 / 3.0)
    moving = influence[np.ptp(influence, axis=1) > 0.0]  # NaN is not over 0 either
    if not len(moving) or influence.shape[1] < LEAST_FOR_BLOCKS:
        return math.ceil(least)
    asked = [find_block_length(series) for series in moving]
    return math.ceil(max(least, float(np.median(np.nan_to_num(asked)))))


def resampling_error(influence: FloatArray, block: int) -> FloatArray:
    """Return the standard error of the mean of series of shape (p, n) under this bootstrap.

    Notes
    -----
    n s^2 = g_0 + 2 sum of w_i g_i, g_i the autocovariance at lag i, w_i = (1 - i/n) q^i +
    (i/n) q^(n - i), q = 1 - 1 / block (Politis and Romano 1994, lemma 1).
    """
    n = influence.shape[1]
    lag, q = np.arange(1, n), 1.0 - 1.0 / block
    weight = (1.0 - lag / n) * q**lag + lag / n * q ** (n - lag)
    error = np.empty(len(influence))
    for row, series in enumerate(influence):
        spectrum = np.fft.rfft(series - np.mean(series), 2 * n)
        covariance = np.fft.irfft(spectrum.real**2 + spectrum.imag**2, 2 * n)[:n] / n
        error[row] = math.sqrt(max(0.0, covariance[0] + 2.0 * (weight @ covariance[1:])) / n)
    return error


@checked
def holm(p_values: FloatArray) -> FloatArray:
    """Return p-values of shape (m,), corrected for their number. NaN means no test, and stays.

    Notes
    -----
    The i-th smallest of m is multiplied by m - i + 1, and is at least the one before and at most 1.
    This controls the probability of any false rejection. Source: Holm (1979), Scandinavian
    J. Statistics 6(2).

    Examples
    --------
    >>> holm(np.array([0.01, 0.04, np.nan, 0.03])).tolist()
    [0.03, 0.06, nan, 0.06]
    """
    check_lengths(p_values=p_values)
    p_values = np.asarray(p_values)
    order = np.argsort(p_values, kind="stable")[: np.count_nonzero(~np.isnan(p_values))]
    steps = np.arange(len(order), 0, -1)
    corrected = np.full(len(p_values), np.nan)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p_values[order] * steps))
    return corrected


CALM = 0.75
"""Prior probability that a series does not persist."""
SHORTEST = 0.5
"""Least autocorrelation of a persistent series from one sample to the next."""
SPEEDS, SHARES = 16, 10
"""Sizes of the grid: speeds of decay, and shares of the variance that persist."""
LEAST_SHARE = 0.02
CHUNK = 4_096
"""Frequencies evaluated at a time, which bounds the memory."""


class Errors(NamedTuple):
    """Possible standard errors of p means, with their probabilities; arrays of shape (p, g)."""

    error: FloatArray
    weight: FloatArray


class Spectra(NamedTuple):
    decay: FloatArray
    """Autocorrelation of the persistent part from one sample to the next, of shape (g,)."""
    share: FloatArray
    """Of the variance that is persistent, of shape (g,)."""
    inflation: FloatArray
    """Variance of a mean of n samples over that of independent ones, of shape (g,)."""


def estimate_errors(influence: FloatArray, activity: FloatArray) -> Errors:
    """Return the possible standard errors of means of series (p, n), weighted by the data.

    Notes
    -----
    A series is noise plus a first-order autoregression: its autocorrelation at lag k >= 1 is
    share decay^k, as for squared GARCH(1, 1) returns. The likelihood of each spectrum is
    Whittle's (Gaussian, in the frequency domain), with estimated level. The activity weights
    the decay, the influence weights its share. The longest decay time is n samples. Source of
    the likelihood: Whittle (1953), Estimation and Information in Stationary Time Series, Arkiv
    foer Matematik 2(5).
    """
    spectra = make_spectra(influence.shape[1])
    moves = np.ptp(influence, axis=1) > 0.0
    error = np.zeros((len(influence), len(spectra.decay)))
    weight = np.zeros_like(error)
    weight[:, 0] = 1.0
    if moves.any():
        seen, _ = measure_likelihood(activity[moves], spectra)
        likelihood, level = measure_likelihood(influence[moves], spectra)
        error[moves] = np.sqrt(level * spectra.inflation / influence.shape[1])
        weight[moves] = normalize_weights(likelihood + np.log(decay_weights(seen)))
    return Errors(error, weight)


def make_spectra(n: int) -> Spectra:
    decays = 1.0 - np.geomspace(1.0 - SHORTEST, 1.0 / n, SPEEDS)
    shares = np.geomspace(LEAST_SHARE, 1.0, SHARES)
    decay = np.append(SHORTEST, np.tile(decays, SHARES))
    share = np.append(0.0, np.repeat(shares, SPEEDS))
    away = 1.0 - decay
    persistent = (1.0 + decay) / away - 2.0 * decay * (1.0 - decay**n) / (n * away**2)
    return Spectra(decay, share, 1.0 - share + share * persistent)


def measure_likelihood(series: FloatArray, spectra: Spectra) -> tuple[FloatArray, FloatArray]:
    """Return the log-likelihoods of spectra and the variances under them, of shape (p, g)."""
    n = series.shape[1]
    transform = np.fft.rfft(series - np.mean(series, axis=1)[:, None], axis=1)[:, 1 : n // 2 + 1]
    power = (transform.real**2 + transform.imag**2) / n
    total = np.zeros((len(series), len(spectra.decay)))
    logs = np.zeros(len(spectra.decay))
    for part, density in split_densities(n, spectra):
        total += np.einsum("pm,mg->pg", power[:, part], 1.0 / density)  # single-threaded: same bits
        logs += np.sum(np.log(density), axis=0)
    level = np.maximum(total / power.shape[1], np.finfo(np.float64).tiny)
    return -power.shape[1] * np.log(level) - logs, level


def split_densities(n: int, spectra: Spectra) -> Iterator[tuple[slice, FloatArray]]:
    """Yield slices of frequencies with the spectral densities there, of shape (m, g)."""
    for first in range(0, n // 2, CHUNK):
        part = slice(first, min(first + CHUNK, n // 2))
        cosine = np.cos(2.0 * math.pi / n * np.arange(part.start + 1, part.stop + 1))[:, None]
        decay, share = spectra.decay, spectra.share
        persistent = (1.0 - decay**2) / (1.0 - 2.0 * decay * cosine + decay**2)
        yield part, 1.0 - share + share * persistent


def decay_weights(likelihood: FloatArray) -> FloatArray:
    """Return the weights of spectra by the decay that the activity shows, of shape (p, g)."""
    size = SPEEDS * SHARES
    prior = np.append(math.log(CALM), np.full(size, math.log((1.0 - CALM) / size)))
    found = normalize_weights(likelihood + prior)
    by_decay = np.sum(found[:, 1:].reshape(-1, SHARES, SPEEDS), axis=1) / SHARES
    weights = np.hstack([found[:, :1], np.tile(by_decay, (1, SHARES))])
    return np.asarray(np.maximum(weights, np.finfo(np.float64).tiny))


def normalize_weights(log_weights: FloatArray) -> FloatArray:
    weights = np.exp(log_weights - np.max(log_weights, axis=1)[:, None])
    return np.asarray(weights / np.sum(weights, axis=1)[:, None])


# ----- the best of many -----
