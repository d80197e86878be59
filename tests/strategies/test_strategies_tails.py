"""TailRisk: its formula, and whether the account loses more than its budget as often as it says."""

import math

import numpy as np
import pytest
from scipy import stats

import backtest as bt
from backtest.features import TAIL_MODELS, tail_losses
from backtest.measures import calibration
from backtest.strategies import TailRisk
from tests.kit import YEAR, every_nth, live, market_of, walk


@pytest.mark.parametrize("model", TAIL_MODELS)
@pytest.mark.parametrize("measure", every_nth(["VaR", "ES"], 2))
def test_tail_risk_is_its_formula(model: str, measure: str):
    market = bt.Market.sample(bars=1300)
    policy = TailRisk(
        measure=measure,
        model=model,
        level=0.975,
        horizon=8,
        window=1000,
        half_life=48.0,
        budget=0.1,
    )
    tail = tail_losses(market, model, level=0.975, horizon=8, window=1000, half_life=48.0)
    risk = tail.value_at_risk if measure == "VaR" else tail.expected_shortfall
    assert policy.observe(market)["risk"].tobytes() == risk.tobytes()
    target = live(market, policy, compile=False).bars["target"].to_numpy()
    np.testing.assert_allclose(target, np.minimum(0.1 / risk, 10.0), rtol=1e-14)


@pytest.mark.parametrize(("measure", "tail"), [("VaR", 2.3263478740408408), ("ES", 2.665214220345)])
def test_with_normal_returns_the_leverage_is_the_closed_form(measure: str, tail: float):
    """L = budget / (tail sigma sqrt(h / 8760)).

    One volatility of n = 2 half_life / ln 2 = 5,770 bars has a relative error of sqrt(1 / 2n) =
    0.93 %. Errors fade with tau = half_life / ln 2 = 2,885 bars: the mean over T = 20,000 has
    sqrt(2 tau / T (1 - tau / T)) = 0.50 of that. Its bias, 3 / 4n, is 0.013 %.
    """
    half_life, n = 2000.0, 20_000
    policy = TailRisk(
        measure=measure, model="normal", level=0.99, horizon=24, half_life=half_life, budget=0.1
    )
    assert stats.norm.pdf(stats.norm.ppf(0.99)) / 0.01 == pytest.approx(2.665214220345, rel=1e-12)
    risk = policy.observe(walk(n + 10_000, 0.0, 0.6, seed=21))["risk"][10_000:]
    expected = 0.1 / (tail * 0.6 * math.sqrt(24 / YEAR))
    tau = half_life / math.log(2.0)
    error = math.sqrt(1 / (4 * tau) * 2 * tau / n * (1 - tau / n))
    assert np.mean(0.1 / risk) == pytest.approx(expected, rel=3 * error)
    assert error < 0.005


@pytest.mark.slow
def test_the_account_loses_more_than_its_budget_as_often_as_the_level_says():
    """Volatility from 0.3 to 1.5 over months, returns of Student's t with 4 degrees, an hour ahead.

    5 % of hours lose more than 1 % of equity, spread evenly; under the normal model 4 %, as T4 has
    them beyond 1.645 deviations. There each hour's probability p, given the forecast, is that of a
    return under ln(1 - risk): the count has the mean sum p and, as hours do not depend on each
    other given it, the variance sum p (1 - p).
    """
    n = 20_000
    noise = np.random.default_rng(22).standard_t(4, n) / math.sqrt(2.0)
    sigma = 0.67 * np.exp(0.8 * np.sin(2 * np.pi * np.arange(n) / 8000)) / math.sqrt(YEAR)
    market = market_of(100.0 * np.exp(np.cumsum(sigma * noise)))
    settings = {"measure": "VaR", "level": 0.95, "horizon": 1, "budget": 0.01}
    settings |= {"half_life": 72.0, "window": 1000, "cap": 100.0}
    held = {}
    for model in ("filtered-historical", "normal"):
        policy = TailRisk(model=model, **settings)
        equity = live(market, policy).bars["equity"].to_numpy()[1100:]
        held[model] = -np.diff(equity) / equity[:-1] > 0.01
    stated = np.full(n - 1101, 0.05)
    good, poor = (calibration(stated, held[model]) for model in held)
    assert stats.chi2.sf(good.kupiec + good.christoffersen, 2) > 0.01
    assert poor.kupiec_p < 1e-6
    risk = policy.observe(market)["risk"][1100:-1]
    p = stats.t.cdf(np.log1p(-risk) / sigma[1101:] * math.sqrt(2.0), 4)
    error = math.sqrt(np.sum(p * (1.0 - p)))
    assert held["normal"].sum() == pytest.approx(p.sum(), abs=3 * error)
