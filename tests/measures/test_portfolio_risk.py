"""The effective number of bets: closed forms, continuity, invariance."""

import numpy as np
import pytest

from backtest.measures.portfolio_risk import effective_bets, find_rotation


def covariance_of(deviation, correlation):
    """Return the covariances of equal correlations."""
    n = len(deviation)
    return np.outer(deviation, deviation) * np.where(np.eye(n) > 0.0, 1.0, correlation)


def draw_covariance(rng, n):
    returns = rng.standard_normal((n, 3 * n)) + 0.8 * rng.standard_normal(3 * n)
    return returns @ returns.T


@pytest.mark.parametrize("correlation", [-0.7, 0.0, 0.4, 0.95])
def test_bets_of_two_instruments_in_closed_form(correlation):
    """The root of [[1, r], [r, 1]] has h = (sqrt(1+r) + sqrt(1-r)) / 2 and k, their difference."""
    weights, deviation = np.array([0.5, -0.2]), np.array([0.1, 0.3])
    high, low = np.sqrt(1 + correlation), np.sqrt(1 - correlation)
    h, k = (high + low) / 2, (high - low) / 2
    y = weights * deviation
    parts = np.array([h * y[0] + k * y[1], k * y[0] + h * y[1]]) ** 2
    share = parts / parts.sum()
    found = effective_bets(weights, covariance_of(deviation, correlation))
    assert found == pytest.approx(np.exp(-np.sum(share * np.log(share))))


@pytest.mark.parametrize("n", [2, 3, 7])
def test_n_uncorrelated_equal_risks_are_n_bets_and_tiny_correlations_change_nothing(n):
    deviation = np.linspace(0.1, 0.4, n)
    for correlation in (0.0, 1e-12, 1e-9, -1e-9, 1e-6):
        found = effective_bets(1.0 / deviation, covariance_of(deviation, correlation))
        assert found == pytest.approx(n, abs=1e-5)
    assert effective_bets(np.eye(n)[0], covariance_of(deviation, 0.0)) == pytest.approx(1.0)


def test_bets_do_not_depend_on_units_order_or_leverage():
    rng = np.random.default_rng(4)
    covariance, weights = draw_covariance(rng, 5), rng.standard_normal(5)
    found = effective_bets(weights, covariance)
    unit, order = rng.uniform(0.1, 9.0, 5), rng.permutation(5)
    assert effective_bets(weights / unit, covariance * np.outer(unit, unit)) == pytest.approx(found)
    assert effective_bets(-3.0 * weights, covariance) == pytest.approx(found)
    shuffled = covariance[np.ix_(order, order)]
    assert effective_bets(weights[order], shuffled) == pytest.approx(found)
    stacked = effective_bets(np.stack([weights] * 3), np.stack([covariance] * 3))
    assert stacked == pytest.approx(np.full(3, found))


def test_the_rotation_is_that_of_the_least_tracking_error():
    """No other uncorrelated factors, with the best scales, track the returns better."""
    rng = np.random.default_rng(5)
    covariance = draw_covariance(rng, 4)
    scale = np.sqrt(np.diag(covariance))
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    root = (vectors * np.sqrt(values)) @ vectors.T
    best = find_rotation(root)
    assert best @ best.T == pytest.approx(np.eye(4))

    def explained(rotation):  # sum of squared correlations of factors and returns
        return np.sum(np.diag(rotation @ root) ** 2)

    for _ in range(200):
        turn = np.linalg.qr(np.eye(4) + 0.1 * rng.standard_normal((4, 4)))[0]
        turn *= np.sign(np.diag(turn))
        assert explained(turn @ best) <= explained(best) + 1e-12
