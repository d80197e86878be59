"""Policies that choose an estimator of volatility, or take it from the options market."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

import backtest as bt
from backtest.features import (
    VOLATILITY_ESTIMATORS,
    close_to_close_volatility,
    ewma_volatility,
    volatility,
)
from backtest.strategies import ImpliedVolTarget, VolTarget
from tests.features.test_volatility import simulate
from tests.markets import YEAR, live, walk


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "efficiency"),
    [("parkinson", 4.9), ("garman-klass", 7.4)],
)
def test_vol_target_meets_its_target_with_ranges_and_moves_less(estimator: str, efficiency: float):
    """The volatility of 8000 bars has a standard error of 0.8 %.

    The leverage moves with the root of the estimate's variance, which is that of closes over the
    published efficiency. Estimates fade with tau = half_life / ln 2 = 289 bars: the deviation of
    T = 7000 has the relative error sqrt(tau / 2T) = 14 %, the ratio of two at most sqrt 2 of it.
    """
    market, _ = simulate(n=8000, seed=7)
    policy = VolTarget(target=0.4, half_life=200.0, estimator=estimator)
    result = live(market, policy, sampling="1h", compile=False)
    assert result.metrics["volatility"] == pytest.approx(0.4, rel=3 * 0.008)
    ewma = live(market, VolTarget(target=0.4, half_life=200.0), compile=False)
    chosen, plain = (each.bars["target"].to_numpy()[1000:] for each in (result, ewma))
    error = math.sqrt(200.0 / math.log(2.0) / len(plain))
    ratio = chosen.std() / plain.std()
    assert ratio == pytest.approx(1.0 / math.sqrt(efficiency), rel=3 * error)
    assert ratio < 1.0


def decide(policy: ImpliedVolTarget, implied: float) -> float:
    """Return the leverage at one bar."""
    return policy.leverage(SimpleNamespace(implied=implied), None)


def test_implied_vol_target_is_its_formula():
    assert decide(ImpliedVolTarget(target=0.4), 0.8) == pytest.approx(0.5, rel=1e-15)
    assert decide(ImpliedVolTarget(target=0.4, power=2.0), 0.8) == pytest.approx(0.25, rel=1e-15)
    # an implied variance of 1, of which 0.36 is the premium: 0.8 is expected
    assert decide(ImpliedVolTarget(target=0.4, haircut=0.36), 1.0) == pytest.approx(0.5, rel=1e-15)
    assert math.isnan(decide(ImpliedVolTarget(), math.nan))


@pytest.mark.slow
def test_implied_vol_target_meets_its_target_where_options_are_right_but_for_the_premium():
    """A true volatility that moves between 0.3 and 1.5, implied variances 1 / 0.8 of it.

    The monthly volatility of 720 hours has a standard error of 2.6 % by itself; 27 months.
    """
    n = 20_000
    sigma = 0.67 * np.exp(0.8 * np.sin(2 * np.pi * np.arange(n) / 8000))
    market = walk(n, 0.0, sigma, seed=8)
    told = np.append(sigma[1:], sigma[-1]) / math.sqrt(0.8)
    policy = ImpliedVolTarget(target=0.4, haircut=0.2)
    result = live(
        market.with_columns(implied_volatility=told), policy, sampling="1h", compile=False
    )
    returns = result.returns.to_numpy()[720:]
    months = returns[: len(returns) // 720 * 720].reshape(-1, 720).std(axis=1) * math.sqrt(YEAR)
    assert months.mean() == pytest.approx(0.4, rel=3 * 0.026 / math.sqrt(len(months)))
    assert months.max() < 0.4 * (1 + 3.2 * 0.026)
    assert months.min() > 0.4 * (1 - 3.2 * 0.026)
    plain = close_to_close_volatility(market, 720)[720:]
    assert plain.max() > 4 * plain.min()
