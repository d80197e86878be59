"""Coverage tests against published figures, counts by hand, and their own limits."""

import math

import numpy as np
import pytest
from scipy import stats

from backtest import ParameterError
from backtest.measures.value_at_risk_tests import (
    conditional_coverage,
    count_transitions,
    independence,
    unconditional_coverage,
)


def hits_of(n: int, x: int) -> np.ndarray:
    """Return n observations with x violations, spread out."""
    hits = np.zeros(n, dtype=bool)
    hits[(np.arange(x) * n) // max(x, 1)] = True
    return hits


def chain_of(n00: int, n01: int, n10: int, n11: int) -> np.ndarray:
    """Return a series with these transitions, n01 = n10, that begins and ends without violation."""
    runs = [[1] * (1 + (n11 if k == 0 else 0)) for k in range(n01)]
    gaps = [[0]] * (n01 - 1) + [[0] * (1 + n00 - (n01 - n10))]
    series = [0]
    for run, gap in zip(runs, gaps, strict=True):
        series += run + gap
    return np.array(series)


KUPIEC = [
    (0.99, 255, 0, 7),
    (0.99, 510, 1, 11),
    (0.99, 1000, 4, 17),
    (0.975, 255, 2, 12),
    (0.975, 510, 6, 21),
    (0.975, 1000, 15, 36),
    (0.95, 255, 6, 21),
    (0.95, 510, 16, 36),
    (0.95, 1000, 37, 65),
    (0.90, 255, 16, 36),
    (0.90, 510, 38, 65),
    (0.90, 1000, 81, 120),
]
"""Level, days, and the numbers of failures between which a model stands at 95 % confidence:
Kupiec (1995), as in Jorion (2007), Value at Risk, chapter 6. For 255 days at 99 % they give no
lower end; the ratio of no failure is 5.13 there, and would refuse it."""


@pytest.mark.parametrize(("level", "days", "low", "high"), KUPIEC)
def test_kupiec_stands_in_the_regions_of_his_table(level: float, days: int, low: int, high: int):
    for failures in range(low + 1, high):
        assert unconditional_coverage(hits_of(days, failures), level).p_value > 0.05
    assert unconditional_coverage(hits_of(days, high), level).p_value < 0.05
    if low > 0:
        assert unconditional_coverage(hits_of(days, low), level).p_value < 0.05


def test_all_three_give_the_figures_of_the_risk_management_toolbox():
    """MathWorks, Risk Management Toolbox, help page of varbacktest.cc: 57 violations in 1043 days
    at 95 %, N00 932, N01 53, N10 53, N11 4."""
    hits = chain_of(932, 53, 53, 4)
    assert count_transitions(hits) == (932, 53, 53, 4)
    assert len(hits) == 1043
    assert hits.sum() == 57
    found = [
        *unconditional_coverage(hits, 0.95),
        *independence(hits),
        *conditional_coverage(hits, 0.95),
    ]
    published = [0.46147, 0.49694, 0.25866, 0.61104, 0.72013, 0.69763]
    np.testing.assert_allclose(found, published, atol=5e-6)


def test_kupiec_by_hand():
    """2 of 4 at 0.75: L_0 = 0.75^2 0.25^2, L_1 = 0.5^4, 2 ln(16 * 9 / 256 ...) = 4 ln(4/3)."""
    found = unconditional_coverage([True, False, False, True], 0.75)
    assert found.statistic == pytest.approx(4.0 * math.log(4.0 / 3.0), rel=1e-14)
    assert found.p_value == pytest.approx(stats.chi2.sf(found.statistic, 1), rel=1e-12)


def test_independence_by_hand():
    """0 0 1 1 1 0: n00 1, n01 1, n10 1, n11 2; q01 1/2, q11 2/3, q 3/5 of five transitions.

    ln L_1 = 2 ln(1/2) + 2 ln(2/3) + ln(1/3), ln L_0 = 2 ln(2/5) + 3 ln(3/5).
    """
    found = independence([0, 0, 1, 1, 1, 0])
    apart = 2 * math.log(1 / 2) + 2 * math.log(2 / 3) + math.log(1 / 3)
    alike = 2 * math.log(2 / 5) + 3 * math.log(3 / 5)
    assert found.statistic == pytest.approx(2.0 * (apart - alike), rel=1e-12)


def test_conditional_coverage_is_the_sum_with_two_degrees_of_freedom():
    rng = np.random.default_rng(1)
    hits = rng.random(500) < 0.07
    whole = conditional_coverage(hits, 0.95)
    parts = unconditional_coverage(hits, 0.95).statistic + independence(hits).statistic
    assert whole.statistic == pytest.approx(parts, rel=1e-14)
    assert whole.p_value == pytest.approx(stats.chi2.sf(parts, 2), rel=1e-12)


def test_no_violation_is_judged_by_its_own_probability():
    """L_0 = 0.99^n, L_1 = 1: at 99 % two years without any are too good."""
    found = unconditional_coverage(np.zeros(500), 0.99)
    assert found.statistic == pytest.approx(-1000 * math.log(0.99), rel=1e-12)
    assert found.p_value < 0.01
    assert independence(np.zeros(500)) == (0.0, 1.0)
    assert conditional_coverage(np.zeros(500), 0.99).statistic == found.statistic


def test_violations_without_end_are_judged_too():
    found = unconditional_coverage(np.ones(10), 0.95)
    assert found.statistic == pytest.approx(-20 * math.log(0.05), rel=1e-12)
    assert independence(np.ones(10)) == (0.0, 1.0)


@pytest.mark.parametrize("place", [0, 250, 499])
def test_a_single_violation_says_next_to_nothing_of_clusters(place: int):
    """One follows none of 499: the ratio is that of 1/500 against 1/499, or nothing."""
    hits = np.arange(500) == place
    assert independence(hits).p_value > 0.9


def test_a_frequency_that_is_the_level_exactly_has_no_ratio():
    found = unconditional_coverage(hits_of(1000, 50), 0.95)
    assert found.statistic == pytest.approx(0.0, abs=1e-12)
    assert found.p_value == pytest.approx(1.0, abs=1e-6)


def test_clusters_fail_independence_and_pass_the_count():
    hits = np.zeros(1000, dtype=bool)
    hits[400:450] = True
    assert unconditional_coverage(hits, 0.95).p_value == pytest.approx(1.0, abs=1e-6)
    assert independence(hits).p_value < 1e-12
    assert conditional_coverage(hits, 0.95).p_value < 1e-12


def test_a_right_model_is_refused_as_often_as_the_level_of_the_test():
    """2,000 series of 1,000 with a fifth of violations, at which the limit is reached (40 pairs):
    5 % of refusals within three standard errors of 0.49 %."""
    rng = np.random.default_rng(2)
    series = rng.random((2000, 1000)) < 0.2
    for test in (
        lambda hits: unconditional_coverage(hits, 0.8),
        independence,
        lambda hits: conditional_coverage(hits, 0.8),
    ):
        share = np.mean([test(hits).p_value < 0.05 for hits in series])
        assert share == pytest.approx(0.05, abs=3 * 0.0049)


@pytest.mark.parametrize("bad", [[0.5, 1.0], [math.nan, 0.0], [[0, 1], [1, 0]], []])
def test_what_is_no_series_of_violations_is_refused(bad: list):
    for test in (lambda: unconditional_coverage(bad, 0.95), lambda: independence(bad)):
        with pytest.raises(ParameterError, match="violations must be"):
            test()


def test_one_observation_has_no_transition():
    with pytest.raises(ParameterError, match="at least 2"):
        independence([1])


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, math.nan])
def test_a_level_is_a_probability(level: float):
    with pytest.raises(ParameterError, match="level must be"):
        unconditional_coverage([0, 1], level)
