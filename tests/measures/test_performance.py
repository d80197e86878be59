"""Measures of the shape of returns: against other packages, closed forms, and at their edges.

The expected numbers of ``RETURNS`` come from quantstats 0.0.86 and statsmodels 0.15.0, on the same
two series.
"""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from backtest import ParameterError
from backtest.measures import calibration, certainty_equivalent, fit_market, sharpe_error
from backtest.measures.luck import probability_of_skill

K = np.arange(60)
MARKET = np.round(0.02 * np.sin(1.7 * K) + 0.013 * np.cos(0.9 * K * K) + 0.001, 6)
RETURNS = np.round(1.6 * MARKET + 0.008 * np.sin(3.1 * K + 0.5) - 0.0007, 6)
NOTHING, FLAT = np.empty(0), np.full(10, 0.01)


def is_(value, rel=1e-9):
    return pytest.approx(value, rel=rel)


def test_alpha_beta_and_their_errors_are_those_of_statsmodels():
    fit = fit_market(RETURNS, MARKET, 365.0)
    # statsmodels, least squares with HAC errors of 3 lags, no small-sample correction
    assert fit.alpha == is_(-0.0006067779531068146 * 365)
    assert fit.beta == is_(1.5836893408407389)
    assert fit.alpha_error == is_(0.00010353934821946438 * 365)
    assert fit.beta_error == is_(0.023331161962673132)


def test_the_error_of_the_sharpe_ratio_is_that_of_lo_for_normal_returns():
    returns = 0.05 + np.random.default_rng(1).standard_normal(200_000)
    sharpe = np.mean(returns) / np.std(returns, ddof=1)
    lo = math.sqrt((1 + sharpe**2 / 2) / (len(returns) - 1) * 365)
    assert sharpe_error(returns, 365.0) == is_(lo, rel=1e-3)


def test_the_probability_of_skill_is_the_normal_quantile_of_sharpe_over_its_error():
    sharpe = np.mean(RETURNS) / np.std(RETURNS, ddof=1) * math.sqrt(365)
    score = sharpe / sharpe_error(RETURNS, 365.0)
    assert probability_of_skill(RETURNS) == is_(0.5 * math.erfc(-score / math.sqrt(2)))
    # quantstats.stats.probabilistic_sharpe_ratio takes moments corrected for bias
    assert probability_of_skill(RETURNS) == is_(0.4198839324084561, rel=1e-5)


@pytest.mark.parametrize("aversion", [0.0, 0.5, 1.0, 3.0, 10.0])
def test_the_certainty_equivalent_of_lognormal_growth_is_its_closed_form(aversion):
    # E[exp(x (1 - g))]^(1 / (1 - g)) = exp(mu + (1 - g) sigma² / 2) for x ~ N(mu, sigma²)
    mu, sigma = 0.001, 0.02
    x = np.random.default_rng(2).standard_normal(200_000)
    x = mu + sigma * (x - np.mean(x)) / np.std(x)
    expected = math.expm1(365 * (mu + (1 - aversion) * sigma**2 / 2))
    assert certainty_equivalent(np.expm1(x), 365.0, aversion) == is_(expected, rel=2e-2)


def test_what_is_undefined_is_nan():
    assert math.isnan(probability_of_skill(NOTHING))
    assert math.isnan(probability_of_skill(FLAT))
    assert math.isnan(sharpe_error(RETURNS[:1], 365.0))
    assert math.isnan(sharpe_error(FLAT, 365.0))
    assert math.isnan(certainty_equivalent(NOTHING, 365.0))
    assert all(map(math.isnan, fit_market(RETURNS[:2], MARKET[:2], 365.0)))
    assert all(map(math.isnan, fit_market(RETURNS[:10], FLAT, 365.0)))


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
