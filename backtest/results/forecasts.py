"""How probability forecasts compare with what happened."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from backtest import core
from backtest.results.performance import check_lengths


@dataclass(frozen=True)
class Calibration:
    """How probability forecasts compare with what happened.

    ``count`` pairs are known; ``forecast`` and ``frequency`` are the mean forecast and the share of
    outcomes that are 1. ``brier`` is the mean of (forecast - outcome)^2, ``base_brier`` what it
    would be had every forecast been the frequency. ``kupiec`` is the likelihood ratio that the
    frequency is the mean forecast, ``christoffersen`` that outcomes do not depend on the one
    before; their p-values are the probabilities of larger ones.
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


@core.checked
def calibration(forecast: npt.ArrayLike, outcome: npt.ArrayLike) -> Calibration:
    """Compare probability forecasts with what happened.

    ``forecast`` (n,) are probabilities in order of time: for the violations of a value at risk at a
    confidence of 0.95, all are 0.05. ``outcome`` (n,) is 1 or True where it happened, else 0 or
    False. Pairs in which either is NaN do not count; two must be known.

    Notes
    -----
    Kupiec: -2 ln[(1 - p)^(n - x) p^x] + 2 ln[(1 - q)^(n - x) q^x] with p the mean forecast, x
    events in n pairs and q = x / n. If forecasts differ, the number of events varies less than it
    assumes, so it rejects too seldom. Source: Kupiec (1995), Techniques for Verifying the Accuracy
    of Risk Measurement Models, J. Derivatives 3(2).

    Christoffersen: -2 ln[(1 - q)^(n00 + n10) q^(n01 + n11)] + 2 ln[(1 - q0)^n00 q0^n01 (1 - q1)^n10
    q1^n11], n_ij how often outcome j followed i, q0 = n01 / (n00 + n01), q1 = n11 / (n10 + n11) and
    q = (n01 + n11) / (n - 1). It is for forecasts that are all the same and horizons that do not
    overlap. Source: Christoffersen (1998), Evaluating Interval Forecasts, International Economic
    Review 39(4). Both are chi-squared with one degree of freedom, their sum with two.

    Examples
    --------
    >>> found = calibration([0.25, 0.25, 0.25, 0.25], [True, False, False, True])
    >>> found.frequency, found.brier, round(found.kupiec, 4)
    (0.5, 0.3125, 1.1507)
    """
    forecasts = np.asarray(forecast, np.float64)
    outcomes = np.asarray(outcome, np.float64)
    check_lengths(forecast=forecasts, outcome=outcomes)
    is_known = ~np.isnan(forecasts) & ~np.isnan(outcomes)
    p = forecasts[is_known]
    came = outcomes[is_known]
    n = len(p)
    if n < 2:
        raise core.ParameterError(
            f"calibration needs at least 2 forecasts with a known outcome, got {n}"
        )
    check_values("forecast", p, (p >= 0.0) & (p <= 1.0), "probabilities from 0 to 1")
    check_values("outcome", came, (came == 0.0) | (came == 1.0), "0 or 1")

    happened = came.astype(np.int64)
    events = int(np.count_nonzero(happened))
    mean = float(np.mean(p))
    frequency = events / n

    # Kupiec: whether events are as frequent as forecast.
    as_they_came = log_likelihood(n - events, events)
    as_forecast = log_likelihood(n - events, events, mean)
    kupiec = as_they_came - as_forecast

    # Christoffersen: whether they follow each other; n_ij is how often j followed i.
    transitions = 2 * happened[:-1] + happened[1:]
    n00, n01, n10, n11 = np.bincount(transitions, minlength=4).tolist()
    dependent = log_likelihood(n00, n01) + log_likelihood(n10, n11)
    independent = log_likelihood(n00 + n10, n01 + n11)
    clusters = dependent - independent
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


def check_values(
    name: str,
    values: core.FloatArray,
    is_right: core.BoolArray,
    rule: str,
) -> None:
    """Raise ParameterError for the values that are not right, with the first of them."""
    wrong = values[~is_right]
    if len(wrong):
        raise core.ParameterError(
            f"{name} must be {rule}, got {wrong[0]:g} in {len(wrong)} of {len(values)}; "
            "NaN where it is not known"
        )


def find_p_value(log_ratio: float) -> float:
    """Return the probability of a larger likelihood ratio, chi-squared with 1 degree of freedom."""
    return math.erfc(math.sqrt(max(log_ratio, 0.0)))


def log_likelihood(
    misses: int,
    hits: int,
    probability: float | None = None,
) -> float:
    """Return ln[(1 - q)^misses q^hits], by default for the most likely q; 0 ln 0 = 0."""
    q = probability
    if q is None:
        q = hits / max(misses + hits, 1)
    of_misses = core.sp.special.xlog1py(misses, -q)
    of_hits = core.sp.special.xlogy(hits, q)
    return float(of_misses + of_hits)
