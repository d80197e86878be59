"""Calibration against published figures, counts by hand, and its own limits."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from backtest import ParameterError
from backtest.measures import calibration


def hits_of(n: int, x: int) -> np.ndarray:
    """Return n observations with x violations, spread out."""
    hits = np.zeros(n, dtype=bool)
    hits[(np.arange(x) * n) // max(x, 1)] = True
    return hits


def judge(hits, probability: float):
    return calibration(np.full(len(hits), probability), hits)


KUPIEC = [
    (0.01, 255, 0, 7),
    (0.01, 510, 1, 11),
    (0.01, 1000, 4, 17),
    (0.025, 255, 2, 12),
    (0.025, 510, 6, 21),
    (0.025, 1000, 15, 36),
    (0.05, 255, 6, 21),
    (0.05, 510, 16, 36),
    (0.05, 1000, 37, 65),
    (0.10, 255, 16, 36),
    (0.10, 510, 38, 65),
    (0.10, 1000, 81, 120),
]
"""Probability, days, and the numbers of failures between which a model stands at 95 % confidence:
Kupiec (1995), as in Jorion (2007), Value at Risk, chapter 6. For 255 days at 1 % they give no lower
end; the ratio of no failure is 5.13 there, and would refuse it."""


@pytest.mark.parametrize(("probability", "days", "low", "high"), KUPIEC)
def test_kupiec_stands_in_the_regions_of_his_table(probability, days, low, high):
    for failures in range(low + 1, high):
        assert judge(hits_of(days, failures), probability).kupiec_p > 0.05
    assert judge(hits_of(days, high), probability).kupiec_p < 0.05
    if low > 0:
        assert judge(hits_of(days, low), probability).kupiec_p < 0.05


def test_both_tests_give_the_figures_of_the_risk_management_toolbox():
    """MathWorks, Risk Management Toolbox, help page of varbacktest.cc: 57 violations in 1043 days
    at 95 %, N00 932, N01 53, N10 53, N11 4; jointly 0.72013 with a p-value of 0.69763."""
    hits = [0] + [1] * 5 + [0, 1] * 52 + [0] * 933
    assert (len(hits), sum(hits)) == (1043, 57)
    found = judge(hits, 0.05)
    assert found.kupiec == pytest.approx(0.46147, abs=5e-6)
    assert found.kupiec_p == pytest.approx(0.49694, abs=5e-6)
    assert found.christoffersen == pytest.approx(0.25866, abs=5e-6)
    assert found.christoffersen_p == pytest.approx(0.61104, abs=5e-6)
    joint = stats.chi2.sf(found.kupiec + found.christoffersen, 2)
    assert joint == pytest.approx(0.69763, abs=5e-6)


def test_scores_by_hand():
    """Forecasts .1 .4 .4 .8 of 0 0 1 1: Brier (.01 + .16 + .36 + .04) / 4; of .5 always .25."""
    found = calibration([0.1, 0.4, 0.4, 0.8], [0, 0, 1, 1])
    assert (found.count, found.frequency, found.base_brier) == (4, 0.5, 0.25)
    assert found.forecast == pytest.approx(0.425, rel=1e-15)
    assert found.brier == pytest.approx(0.1425, rel=1e-15)
    # p = .425: L_0 = .575^2 .425^2, L_1 = .5^4
    assert found.kupiec == pytest.approx(4 * math.log(0.25 / (0.575 * 0.425)), rel=1e-12)
    assert found.kupiec_p == pytest.approx(stats.chi2.sf(found.kupiec, 1), rel=1e-12)


def test_independence_by_hand():
    """0 0 1 1 1 0: n00 1, n01 1, n10 1, n11 2; q0 1/2, q1 2/3, q 3/5 of five transitions.

    ln L_1 = 2 ln(1/2) + 2 ln(2/3) + ln(1/3), ln L_0 = 2 ln(2/5) + 3 ln(3/5).
    """
    found = judge([0, 0, 1, 1, 1, 0], 0.3)
    apart = 2 * math.log(1 / 2) + 2 * math.log(2 / 3) + math.log(1 / 3)
    alike = 2 * math.log(2 / 5) + 3 * math.log(3 / 5)
    assert found.christoffersen == pytest.approx(2.0 * (apart - alike), rel=1e-12)
    assert found.christoffersen_p == pytest.approx(stats.chi2.sf(found.christoffersen, 1))


def test_pairs_that_are_not_known_do_not_count():
    """What is left stands side by side: 1 0 1 1."""
    forecast = pd.Series([0.2, np.nan, 0.3, 0.4, 0.5, np.nan])
    outcome = np.array([1.0, 1.0, 0.0, 1.0, 1.0, np.nan])
    rest = calibration([0.2, 0.3, 0.4, 0.5], [True, False, True, True])
    assert calibration(forecast, outcome) == rest
    assert rest.count == 4


@pytest.mark.parametrize(("forecast", "outcome", "message"), [
    ([0.5, 0.5], [0.5, 1.0], "outcome must be 0 or 1, got 0.5 in 1 of 2"),
    ([0.5, 1.5], [0.0, 1.0], "forecast must be probabilities from 0 to 1, got 1.5"),
    ([0.5, 0.5, 0.5], [0, 1], "outcome must"),
    ([0.5, np.nan], [0, 1], "at least 2 forecasts with a known outcome, got 1"),
])  # fmt: skip
def test_what_is_no_forecast_with_an_outcome_is_refused(forecast, outcome, message):
    with pytest.raises(ParameterError, match=message):
        calibration(forecast, outcome)
