"""Tests that violations of a value at risk have the right frequency, and are independent."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from backtest.base import BoolArray, ParameterError, check_range, checked


class LikelihoodRatio(NamedTuple):
    """Likelihood ratio -2 ln(L_0 / L_1), and the probability of a larger one under hypothesis 0."""

    statistic: float
    p_value: float


class Transitions(NamedTuple):
    n00: int
    n01: int
    n10: int
    n11: int


@checked
def unconditional_coverage(violations: npt.ArrayLike, level: float) -> LikelihoodRatio:
    """Test that violations have the frequency 1 - level: Kupiec's proportion of failures.

    Parameters
    ----------
    violations : array of shape (n,)
        True, or 1, where the loss was over the value at risk; in order of time.
    level : float
        Confidence of the value at risk, over 0 and below 1.

    Returns
    -------
    LikelihoodRatio
        Small p-values are evidence against the model: too many violations, or too few. Without any
        violation the statistic is -2 n ln(level).

    Raises
    ------
    ParameterError
        If there are no observations, or values that are neither 0 nor 1.

    Notes
    -----
    -2 ln[(1 - p)^(n - x) p^x] + 2 ln[(1 - x/n)^(n - x) (x/n)^x] with p = 1 - level and x
    violations; chi-squared with one degree of freedom. Source: Kupiec (1995), Techniques for
    Verifying the Accuracy of Risk Measurement Models, J. Derivatives 3(2).

    Examples
    --------
    >>> round(unconditional_coverage([1] * 57 + [0] * 986, 0.95).statistic, 5)
    0.46147
    """
    hits = read_violations(violations, "unconditional_coverage", least=1)
    where = "unconditional_coverage"
    check_range("level", level, where=where, low=0.0, high=1.0, open_low=True, open_high=True)
    x, n = int(np.count_nonzero(hits)), len(hits)
    statistic = 2.0 * (log_likelihood(n - x, x) - log_likelihood(n - x, x, 1.0 - level))
    return chi_squared_test(statistic, degrees=1)


@checked
def independence(violations: npt.ArrayLike) -> LikelihoodRatio:
    """Test that violations are independent of the previous bar's: Christoffersen's test.

    Parameters
    ----------
    violations : array of shape (n,)
        As :func:`unconditional_coverage` takes them, at least 2.

    Returns
    -------
    LikelihoodRatio
        Small p-values are evidence of clusters, or of gaps. Without a violation that follows or
        precedes another observation the statistic is 0 with a p-value of 1.

    Raises
    ------
    ParameterError
        If there are fewer than 2 observations, or values that are neither 0 nor 1.

    Notes
    -----
    Against a Markov chain of first order: -2 ln[(1 - q)^(n00 + n10) q^(n01 + n11)] + 2 ln[
    (1 - q01)^n00 q01^n01 (1 - q11)^n10 q11^n11], n_ij how often j followed i, q01 = n01 / (n00 +
    n01), q11 = n11 / (n10 + n11) and q = (n01 + n11) / (n - 1); chi-squared with one degree of
    freedom. Clusters that skip a bar are not detected. Source: Christoffersen (1998), Evaluating
    Interval Forecasts, International Economic Review 39(4).
    """
    n00, n01, n10, n11 = count_transitions(violations)
    apart = log_likelihood(n00, n01) + log_likelihood(n10, n11)
    return chi_squared_test(2.0 * (apart - log_likelihood(n00 + n10, n01 + n11)), degrees=1)


@checked
def conditional_coverage(violations: npt.ArrayLike, level: float) -> LikelihoodRatio:
    """Test the frequency and the independence of violations jointly.

    Parameters and errors are those of :func:`unconditional_coverage`, with at least 2
    observations.

    Notes
    -----
    The sum of the two statistics, chi-squared with two degrees of freedom. Source: Christoffersen
    (1998), Evaluating Interval Forecasts, International Economic Review 39(4).
    """
    together = independence(violations).statistic
    return chi_squared_test(
        unconditional_coverage(violations, level).statistic + together, degrees=2
    )


def count_transitions(violations: npt.ArrayLike) -> Transitions:
    hits = read_violations(violations, "independence", least=2)
    pairs = 2 * hits[:-1].astype(np.int64) + hits[1:]
    return Transitions(*np.bincount(pairs, minlength=4).tolist())


def log_likelihood(misses: int, hits: int, probability: float | None = None) -> float:
    """Return ln[(1 - q)^misses q^hits], by default for the most likely q; 0 ln 0 = 0."""
    total = misses + hits
    if probability is None:
        probability = hits / total if total else 0.0
    missed = misses * math.log1p(-probability) if misses else 0.0
    return missed + (hits * math.log(probability) if hits else 0.0)


def chi_squared_test(statistic: float, *, degrees: int) -> LikelihoodRatio:
    x = max(0.0, statistic)
    p_value = math.erfc(math.sqrt(0.5 * x)) if degrees == 1 else math.exp(-0.5 * x)
    return LikelihoodRatio(x, p_value)


def read_violations(violations: npt.ArrayLike, where: str, *, least: int) -> BoolArray:
    """Return violations as booleans of shape (n,), checked to be at least ``least``."""
    values = np.asarray(violations)
    if values.ndim != 1 or len(values) < least:
        raise ParameterError(
            f"violations must be an array of shape (n,), n at least {least}, got shape "
            f"{values.shape}",
            where=where,
            cure="give one value for each loss: loss > value_at_risk",
        )
    bad = np.flatnonzero((values != 0) & (values != 1))
    if len(bad):
        raise ParameterError(
            f"violations must be True or False, got {values[bad[0]]!r} in {len(bad)} of "
            f"{len(values)}",
            where=f"{where}, first at {bad[0]}",
            cure="give loss > value_at_risk, and leave out bars where one is not known",
        )
    return values.astype(np.bool_)
