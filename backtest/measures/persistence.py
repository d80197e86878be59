"""Standard errors of means of series with long persistence, such as squared returns.

If volatility persists for months, a year has few independent observations. A block of days does not
capture this, so the error of the mean is estimated from the spectrum of the whole series.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from backtest.base import FloatArray

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
    """Sums to 1 over the g errors of a mean."""


class Spectra(NamedTuple):
    """Grid of g spectra of series of n samples; the first is that of independent samples."""

    decay: FloatArray
    """Autocorrelation of the persistent part from one sample to the next, of shape (g,)."""
    share: FloatArray
    """Of the variance that is persistent, of shape (g,)."""
    inflation: FloatArray
    """Variance of a mean of n samples over that of independent ones, of shape (g,)."""


def estimate_errors(influence: FloatArray, activity: FloatArray) -> Errors:
    """Return the possible standard errors of means of series (p, n), weighted by the data.

    ``influence`` (p, n) holds the series; constant ones have error 0. ``activity`` (p, n), sums of
    absolute standardized returns, shows how long volatility persists. It does so more clearly than
    the influence on an expected shortfall, to which few samples contribute.

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
    """Return the grid for series of n samples.

    Decay times are spaced evenly in their logarithm, from that of 1/2 to n samples, as are shares.
    """
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
    """Return the weights of spectra by the decay that the activity shows, of shape (p, g).

    All shares are equally probable.
    """
    size = SPEEDS * SHARES
    prior = np.append(math.log(CALM), np.full(size, math.log((1.0 - CALM) / size)))
    found = normalize_weights(likelihood + prior)
    by_decay = np.sum(found[:, 1:].reshape(-1, SHARES, SPEEDS), axis=1) / SHARES
    weights = np.hstack([found[:, :1], np.tile(by_decay, (1, SHARES))])
    return np.asarray(np.maximum(weights, np.finfo(np.float64).tiny))


def normalize_weights(log_weights: FloatArray) -> FloatArray:
    """Return weights that sum to 1 along the second axis, given their logarithms."""
    weights = np.exp(log_weights - np.max(log_weights, axis=1)[:, None])
    return np.asarray(weights / np.sum(weights, axis=1)[:, None])
