"""The facts of a price series by which simulated markets are compared with real ones."""

from __future__ import annotations

import math

import numpy as np

from backtest.base import FloatArray, ParameterError

TAIL = 0.05
"""The share of losses that the tail exponent is estimated from."""
LEAST = 100


def find_price_facts(price: FloatArray, value: float = math.inf) -> dict[str, float]:
    """Return the facts of the log returns of a price series of shape (n,).

    Parameters
    ----------
    price : FloatArray of shape (n,)
        Positive prices.
    value : float
        The tail exponent ``hill`` is that of steps that begin under this price. In a market of
        value funds these are the steps in which funds hold anything.

    Returns
    -------
    dict of str to float
        ``std`` per step; ``kurtosis`` (3 for a normal distribution); ``hill``, the tail exponent of
        the largest 5 % of losses; ``acf_abs_1``, the autocorrelation of absolute returns at lag 1;
        ``hill_all``, the tail exponent of all steps.

    Raises
    ------
    ParameterError
        If there are fewer than 100 prices.
    """
    if len(price) < LEAST:
        raise ParameterError(
            f"facts need {LEAST} prices or more, got {len(price)}",
            where="market facts",
            cure="simulate more steps",
        )
    step = np.diff(np.log(price))
    return {
        "std": float(np.std(step, ddof=1)),
        "kurtosis": measure_kurtosis(step),
        "hill": estimate_hill(-step[price[:-1] < value]),
        "acf_abs_1": correlate_with_next(np.abs(step)),
        "hill_all": estimate_hill(-step),
    }


def measure_kurtosis(values: FloatArray) -> float:
    """Return the fourth moment over the square of the second; NaN if nothing varies."""
    off = values - np.mean(values)
    variance = float(np.mean(off**2))
    return float(np.mean(off**4)) / variance**2 if variance > 0.0 else math.nan


def estimate_hill(losses: FloatArray, share: float = TAIL) -> float:
    """Return Hill's estimate of the tail exponent from the largest share of positive losses.

    ``1 / mean(log(x_i / x_k))`` over the k largest. Source: Hill (1975), A Simple General Approach
    to Inference about the Tail of a Distribution, Annals of Statistics 3(5).
    """
    ordered = np.sort(losses[losses > 0.0])[::-1]
    k = int(share * len(ordered))
    if k < 2 or ordered[0] == ordered[k]:
        return math.nan
    return float(1.0 / np.mean(np.log(ordered[:k] / ordered[k])))


def correlate_with_next(values: FloatArray) -> float:
    """Return the autocorrelation at lag 1; NaN if nothing varies."""
    off = values - np.mean(values)
    variance = float(np.sum(off**2))
    return float(np.sum(off[1:] * off[:-1])) / variance if variance > 0.0 else math.nan


def measure_skew(values: FloatArray) -> float:
    """Return the third standardized moment; NaN if nothing varies."""
    known = values[np.isfinite(values)]
    if len(known) < 3:
        return math.nan
    off = known - np.mean(known)
    spread = float(np.mean(off**2))
    return float(np.mean(off**3)) / spread**1.5 if spread > 0.0 else math.nan
