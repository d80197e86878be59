"""Calibration of probability forecasts: score, frequency and independence of the outcomes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from backtest.base import FloatArray, IntArray, ParameterError, check_lengths, checked


@dataclass(frozen=True)
class Calibration:
    """How probability forecasts compare with what happened.

    Attributes
    ----------
    count : int
        Pairs of a forecast and an outcome that are both known.
    forecast, frequency : float
        Mean forecast, and the share of outcomes that are 1.
    brier, base_brier : float
        Mean of (forecast - outcome)^2, and what it would be had every forecast been the frequency.
        Forecasts with the larger score are worth less than that one number.
    kupiec, kupiec_p : float
        Likelihood ratio that the frequency is the mean forecast, and the probability of a larger
        one if it is. A small probability is evidence against the forecasts.
    christoffersen, christoffersen_p : float
        The same for outcomes that do not depend on the one before. A small probability is evidence
        of clusters, or of gaps.
    """

    count: int
    forecast: float
    frequency: float
    brier: float
    base_brier: float
    kupiec: float
    kupiec_p: float
    christoffersen: float
    christoffersen_p: float


@checked
def calibration(forecast: npt.ArrayLike, outcome: npt.ArrayLike) -> Calibration:
    """Compare probability forecasts with what happened.

    Parameters
    ----------
    forecast : array of shape (n,)
        Probabilities from 0 to 1, in order of time. For the violations of a value at risk at a
        confidence of 0.95, all are 0.05.
    outcome : array of shape (n,)
        1 or True where it happened, else 0 or False. Pairs in which either is NaN do not count.

    Returns
    -------
    Calibration

    Raises
    ------
    ParameterError
        If fewer than 2 pairs are known, the lengths differ, a forecast is no probability, or an
        outcome is neither 0 nor 1.

    Notes
    -----
    Kupiec: -2 ln[(1 - p)^(n - x) p^x] + 2 ln[(1 - q)^(n - x) q^x] with p the mean forecast, x
    events in n pairs and q = x / n. It is exact in the limit if all forecasts are the same; if they
    differ, the number of events varies less than it assumes, so it rejects too seldom. Source:
    Kupiec (1995), Techniques for Verifying the Accuracy of Risk Measurement Models, J. Derivatives
    3(2).

    Christoffersen: -2 ln[(1 - q)^(n00 + n10) q^(n01 + n11)] + 2 ln[(1 - q0)^n00 q0^n01 (1 - q1)^n10
    q1^n11], n_ij how often outcome j followed i, q0 = n01 / (n00 + n01), q1 = n11 / (n10 + n11) and
    q = (n01 + n11) / (n - 1). It is for forecasts that are all the same: where they vary with the
    market, outcomes cluster with them. Forecasts whose horizons overlap cluster, too: take every
    h-th. Source: Christoffersen (1998), Evaluating Interval Forecasts, International Economic
    Review 39(4).

    Both are chi-squared with one degree of freedom; their sum, with two, tests both at once.

    Examples
    --------
    >>> found = calibration([0.25, 0.25, 0.25, 0.25], [True, False, False, True])
    >>> found.frequency, found.brier, round(found.kupiec, 4)
    (0.5, 0.3125, 1.1507)
    """
    p, happened = read_pairs(forecast, outcome)
    n, events = len(p), int(np.count_nonzero(happened))
    mean, frequency = float(np.mean(p)), events / n
    n00, n01, n10, n11 = np.bincount(2 * happened[:-1] + happened[1:], minlength=4).tolist()
    kupiec = log_likelihood(n - events, events) - log_likelihood(n - events, events, mean)
    apart = log_likelihood(n00, n01) + log_likelihood(n10, n11)
    clusters = apart - log_likelihood(n00 + n10, n01 + n11)
    return Calibration(
        count=n,
        forecast=mean,
        frequency=frequency,
        brier=float(np.mean((p - happened) ** 2)),
        base_brier=frequency * (1.0 - frequency),
        kupiec=max(2.0 * kupiec, 0.0),
        kupiec_p=find_p_value(kupiec),
        christoffersen=max(2.0 * clusters, 0.0),
        christoffersen_p=find_p_value(clusters),
    )


def read_pairs(forecast: npt.ArrayLike, outcome: npt.ArrayLike) -> tuple[FloatArray, IntArray]:
    p, happened = np.asarray(forecast, np.float64), np.asarray(outcome, np.float64)
    check_lengths(forecast=p, outcome=happened)
    is_known = ~np.isnan(p) & ~np.isnan(happened)
    p, happened = p[is_known], happened[is_known]
    if len(p) < 2:
        raise ParameterError(
            f"calibration needs at least 2 forecasts with a known outcome, got {len(p)}"
        )
    for name, values, is_right, rule in (
        ("forecast", p, (p >= 0.0) & (p <= 1.0), "probabilities from 0 to 1"),
        ("outcome", happened, (happened == 0.0) | (happened == 1.0), "0 or 1"),
    ):
        bad = values[~is_right]
        if len(bad):
            raise ParameterError(
                f"{name} must be {rule}, got {bad[0]:g} in {len(bad)} of {len(values)}; "
                "NaN where it is not known"
            )
    return p, happened.astype(np.int64)


def log_likelihood(misses: int, hits: int, probability: float | None = None) -> float:
    """Return ln[(1 - q)^misses q^hits], by default for the most likely q; 0 ln 0 = 0."""
    if probability is None:
        probability = hits / max(misses + hits, 1)
    if (misses and probability == 1.0) or (hits and probability == 0.0):
        return -math.inf
    missed = misses * math.log1p(-probability) if misses else 0.0
    return missed + (hits * math.log(probability) if hits else 0.0)


def find_p_value(log_ratio: float) -> float:
    """Return the probability of a larger ratio, chi-squared with one degree of freedom."""
    return math.erfc(math.sqrt(max(log_ratio, 0.0)))
