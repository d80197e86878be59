"""The weights of a covariance matrix have the closed forms of their papers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from backtest.base.errors import ParameterError
from backtest.weights import formulas


def make_covariance(volatilities: list[float], correlation: float) -> np.ndarray:
    sigma = np.array(volatilities)
    rho = np.full((len(sigma), len(sigma)), correlation)
    np.fill_diagonal(rho, 1.0)
    return (rho * np.outer(sigma, sigma))[None]


def draw_covariance(seed: int, n: int) -> np.ndarray:
    returns = np.random.default_rng(seed).normal(size=(4 * n, n)) * np.linspace(0.5, 2.0, n)
    returns += np.random.default_rng(seed + 1).normal(size=(4 * n, 1))
    return (returns.T @ returns / len(returns))[None]


RANDOM = st.builds(draw_covariance, st.integers(0, 1000), st.integers(2, 8))


def test_inverse_volatility_of_two():
    weights = formulas.inverse_volatility_weights(make_covariance([0.2, 0.6], 0.9))
    np.testing.assert_allclose(weights, [[0.75, 0.25]], rtol=1e-15)  # 1/0.2 to 1/0.6


@pytest.mark.parametrize("correlation", [-0.5, 0.0, 0.9])
def test_equal_risk_of_two_is_inverse_volatility_at_any_correlation(correlation):
    weights = formulas.equal_risk_weights(make_covariance([0.2, 0.6], correlation))
    np.testing.assert_allclose(weights, [[0.75, 0.25]], rtol=1e-12)


def test_equal_risk_of_one_correlation_is_inverse_volatility():
    # Maillard, Roncalli and Teiletche (2010), section 2.3: with one correlation for all pairs the
    # weights are those of inverse volatility.
    covariance = make_covariance([0.1, 0.2, 0.3, 0.4], 0.3)
    ours = formulas.equal_risk_weights(covariance)
    np.testing.assert_allclose(ours, formulas.inverse_volatility_weights(covariance), rtol=1e-12)


@given(RANDOM)
@settings(max_examples=30)
def test_contributions_to_risk_are_equal(covariance):
    (weights,) = formulas.equal_risk_weights(covariance)
    shares = weights * (covariance[0] @ weights)
    np.testing.assert_allclose(shares / shares.sum(), 1.0 / len(weights), rtol=1e-9)
    assert (weights > 0.0).all()
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-14)


def test_minimum_variance_of_two():
    # w = (s2^2 - r s1 s2) / (s1^2 + s2^2 - 2 r s1 s2) = (.36 - .03) / (.04 + .36 - .06) = 33/34
    weights = formulas.minimum_variance_weights(make_covariance([0.2, 0.6], 0.25))
    np.testing.assert_allclose(weights, [[33 / 34, 1 / 34]], rtol=1e-12)
    # with r = .9: (.36 - .108) / (.4 - .216) = .252 / .184: over 1, and the other short
    covariance = make_covariance([0.2, 0.6], 0.9)
    weights = formulas.minimum_variance_weights(covariance)
    np.testing.assert_allclose(weights, [[0.252 / 0.184, -0.068 / 0.184]], rtol=1e-12)
    long = formulas.minimum_variance_weights(covariance, long_only=True)
    np.testing.assert_allclose(long, [[1.0, 0.0]], atol=1e-15)


@given(RANDOM)
@settings(max_examples=30)
def test_minimum_variance_is_the_inverse_times_ones(covariance):
    (weights,) = formulas.minimum_variance_weights(covariance)
    plain = np.linalg.inv(covariance[0]).sum(axis=1)
    np.testing.assert_allclose(weights, plain / plain.sum(), rtol=1e-8, atol=1e-12)


@given(RANDOM)
@settings(max_examples=10)
def test_long_weights_of_least_variance_are_those_of_an_optimizer(covariance):
    (weights,) = formulas.minimum_variance_weights(covariance, long_only=True)
    n = len(weights)
    found = minimize(
        lambda w: w @ covariance[0] @ w,
        np.full(n, 1 / n),
        jac=lambda w: 2.0 * covariance[0] @ w,
        bounds=[(0.0, 1.0)] * n,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert (weights >= 0.0).all()
    assert weights @ covariance[0] @ weights <= found.fun * (1.0 + 1e-9)


def test_a_singular_matrix_has_no_weights_of_least_variance():
    with pytest.raises(ParameterError, match="covariance matrix of returns is singular"):
        formulas.minimum_variance_weights(make_covariance([0.2, 0.2], 1.0))


def test_hierarchical_weights_by_hand():
    # Two pairs of correlation .9, none between them, volatilities 1, 1 and 2, 2. The tree keeps
    # the pairs, so the first halving is between them. A pair has variance (1 + .9) / 2 = .95 times
    # its own: .95 and 3.8, shares .8 and .2; inside a pair the halves are alike.
    rho = np.array([[1, 0, 0.9, 0], [0, 1, 0, 0.9], [0.9, 0, 1, 0], [0, 0.9, 0, 1]])
    sigma = np.array([1.0, 2.0, 1.0, 2.0])
    weights = formulas.hierarchical_weights((rho * np.outer(sigma, sigma))[None])
    np.testing.assert_allclose(weights, [[0.4, 0.1, 0.4, 0.1]], rtol=1e-14)


def test_hierarchical_weights_without_correlation_are_by_inverse_variance():
    weights = formulas.hierarchical_weights(make_covariance([1.0, 2.0, 4.0, 5.0], 0.0))
    inverse = 1.0 / np.array([1.0, 4.0, 16.0, 25.0])
    np.testing.assert_allclose(weights[0], inverse / inverse.sum(), rtol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("linkage", ["single", "complete", "average", "ward"])
def test_hierarchical_weights_are_those_of_skfolio(linkage):
    optimization = pytest.importorskip("skfolio.optimization", reason="skfolio is not installed")
    cluster = pytest.importorskip("skfolio.cluster")
    distance = pytest.importorskip("skfolio.distance")
    seriation = pytest.importorskip("skfolio.seriation")
    rng = np.random.default_rng(3)
    returns = rng.normal(size=(500, 7)) @ rng.normal(size=(7, 7)) * 0.01
    covariance = np.cov(returns.T)
    tree = cluster.HierarchicalClustering(linkage_method=cluster.LinkageMethod(linkage))
    order = seriation.HierarchicalSeriation(
        hierarchical_clustering_estimator=tree, optimal_ordering=False
    )
    model = optimization.HierarchicalRiskParity(
        distance_estimator=distance.PearsonDistance(), seriation_estimator=order
    ).fit(returns)
    ours = formulas.hierarchical_weights(covariance[None], linkage=linkage)[0]
    np.testing.assert_allclose(ours, model.weights_, rtol=1e-9)
