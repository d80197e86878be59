"""Policies that choose an estimator of volatility, or take it from the options market."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

import backtest as bt
from backtest.features import (
    VOLATILITY_ESTIMATORS,
    ewma_volatility,
    volatility,
)
from backtest.strategies import ImpliedVolTarget, VolTarget
from tests.kit import live


def test_vol_target_keeps_its_order_of_parameters_and_its_default_bits():
    assert VolTarget(0.5, 24.0, 2.0) == VolTarget(target=0.5, half_life=24.0, power=2.0)
    assert VolTarget().estimator == "ewma"
    market = bt.Market.sample(bars=300)
    sigma = VolTarget().observe(market)["sigma"]
    assert sigma.tobytes() == ewma_volatility(market, 72.0).tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("estimator", VOLATILITY_ESTIMATORS)
def test_vol_target_takes_the_estimator_it_is_told(estimator: str):
    """131 days, so that the slowest, the autoregression of days, is known at the end."""
    market = bt.Market.sample(bars=131 * 24 + 10)
    policy = VolTarget(target=0.5, half_life=24.0, estimator=estimator)
    sigma = volatility(market, estimator, 24.0)
    target = live(market, policy, compile=False).bars["target"].to_numpy()
    np.testing.assert_allclose(target, 0.5 / sigma, rtol=1e-14)
    assert np.isfinite(target[-1])


def decide(policy: ImpliedVolTarget, implied: float) -> float:
    """Return the leverage at one bar."""
    return policy.leverage(SimpleNamespace(implied=implied), None)


def test_implied_vol_target_is_its_formula():
    assert decide(ImpliedVolTarget(target=0.4), 0.8) == pytest.approx(0.5, rel=1e-15)
    assert decide(ImpliedVolTarget(target=0.4, power=2.0), 0.8) == pytest.approx(0.25, rel=1e-15)
    # an implied variance of 1, of which 0.36 is the premium: 0.8 is expected
    assert decide(ImpliedVolTarget(target=0.4, haircut=0.36), 1.0) == pytest.approx(0.5, rel=1e-15)
    assert math.isnan(decide(ImpliedVolTarget(), math.nan))
