"""The length of blocks for a bootstrap of a series whose values depend on those before."""

from __future__ import annotations

import math

import numpy as np

from backtest.base.units import FloatArray


def find_block_length(series: FloatArray) -> float:
    """Return the best mean length of blocks for a stationary bootstrap of the mean of a series.

    Parameters
    ----------
    series : FloatArray of shape (n,)
        At least 8 values; it is NaN if they do not vary.

    Notes
    -----
    b = (2 G^2 n / D)^(1/3), G = sum_k w_k |k| R_k, D = 2 (sum_k w_k R_k)^2, R_k the autocovariance
    at lag k, w_k = min(1, 2 (1 - |k| / M)), at most
    min(3 sqrt(n), n / 3). M is twice the first lag after which max(5, log10 n) autocorrelations in
    a row are below 2 sqrt(log10 n / n). Source: Politis and White (2004), Automatic Block-Length
    Selection for the Dependent Bootstrap, Econometric Reviews 23(1), with the correction of Patton,
    Politis and White (2009).
    """
    n = len(series)
    in_a_row = max(5, int(math.log10(n)))
    most = math.ceil(math.sqrt(n)) + in_a_row
    covariances, correlations = measure_lags(series - series.mean(), most)
    is_small = correlations < 2.0 * math.sqrt(math.log10(n) / n)
    starts = (k for k in range(most - in_a_row + 1) if is_small[k : k + in_a_row].all())
    last = min(2 * max(next(starts, most), 1), most)
    moment, total = 0.0, covariances[0]
    for lag in range(1, last + 1):
        weight = min(1.0, 2.0 * (1.0 - lag / last))
        moment += 2.0 * weight * lag * covariances[lag]
        total += 2.0 * weight * covariances[lag]
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = 2.0 * total**2
        length = (2.0 * moment**2 / spread) ** (1.0 / 3.0) * n ** (1.0 / 3.0)
    return float(min(length, math.ceil(min(3.0 * math.sqrt(n), n / 3.0))))


def measure_lags(deviations: FloatArray, most: int) -> tuple[FloatArray, FloatArray]:
    n = len(deviations)
    covariances, correlations = np.zeros((2, most + 1))
    for lag in range(most + 1):
        later, earlier = deviations[lag + 1 :], deviations[: -(lag + 1)]
        product = deviations[lag:] @ deviations[: n - lag]
        covariances[lag] = product / n
        with np.errstate(divide="ignore", invalid="ignore"):
            correlations[lag] = np.abs(product) / np.sqrt((later @ later) * (earlier @ earlier))
    return covariances, correlations
