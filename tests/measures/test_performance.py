"""Measures of the shape of returns: against other packages, closed forms, and at their edges.

The expected numbers of ``RETURNS`` come from quantstats 0.0.86 and statsmodels 0.15.0, on the same
two series.
"""

import math

import numpy as np
import pytest

from backtest.measures import certainty_equivalent, fit_market, sharpe_error
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
