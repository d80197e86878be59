"""TailRisk: its formula, and whether the account loses more than its budget as often as it says."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

import backtest as bt
from backtest.features import TAIL_MODELS, tail_losses
from backtest.measures.coverage import conditional_coverage, unconditional_coverage
from strategies import TailRisk
from tests.markets import YEAR, live, market_of, walk


def decide(policy: TailRisk, risk: float) -> float:
    """Return the leverage at one bar."""
    return policy.leverage(SimpleNamespace(risk=np.float64(risk)), None)


@pytest.mark.parametrize("model", TAIL_MODELS)
@pytest.mark.parametrize("measure", ["VaR", "ES"])
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
    """L = budget / (tail sigma sqrt(h / 8760)); the volatility of n = 2 half_life / ln 2 = 5,770
    bars has an error of sqrt(1 / 2n) = 0.93 %, the mean over 20,000 bars of less than half that."""
    policy = TailRisk(
        measure=measure, model="normal", level=0.99, horizon=24, half_life=2000.0, budget=0.1
    )
    assert stats.norm.pdf(stats.norm.ppf(0.99)) / 0.01 == pytest.approx(2.665214220345, rel=1e-12)
    risk = policy.observe(walk(30_000, 0.0, 0.6, seed=21))["risk"][10_000:]
    expected = 0.1 / (tail * 0.6 * math.sqrt(24 / YEAR))
    assert np.mean(0.1 / risk) == pytest.approx(expected, rel=0.012)


def test_the_account_loses_more_than_its_budget_as_often_as_the_level_says():
    """Volatility from 0.3 to 1.5 over months, returns of Student's t with 4 degrees, an hour ahead:
    5 % of hours lose more than 1 % of equity, spread evenly; under the normal model 4 %."""
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
    assert conditional_coverage(held["filtered-historical"], 0.95).p_value > 0.01
    assert unconditional_coverage(held["normal"], 0.95).p_value < 1e-6
    assert held["normal"].mean() == pytest.approx(0.04, abs=0.006)


def test_a_short_position_is_sized_by_the_losses_of_a_short_one():
    """Returns that leap up by 3 % and drift down: the short's tail is the longer one."""
    rng = np.random.default_rng(23)
    steps = np.where(rng.random(3000) < 0.03, 0.03, -0.0009) + 0.001 * rng.standard_normal(3000)
    market = market_of(100.0 * np.exp(np.cumsum(steps)))
    policy = TailRisk(model="historical", window=1000, horizon=1, budget=0.02)
    targets = [
        live(market, policy, signal=side, compile=False).bars["target"].to_numpy()[1100:]
        for side in (1.0, -1.0)
    ]
    assert (targets[1] < 0.3 * targets[0]).all()


def test_tail_risk_is_capped_where_even_the_tail_gains_and_waits_until_it_is_warm():
    policy = TailRisk(budget=0.1, cap=4.0)
    assert decide(policy, 0.05) == 2.0
    assert decide(policy, 0.001) == decide(policy, 0.0) == decide(policy, -0.01) == 4.0
    assert math.isnan(decide(policy, math.nan))
    market = bt.Market.sample(bars=1100)
    bars = live(market, TailRisk(model="historical", window=1000), compile=False).bars
    assert bars["target"].isna().sum() == 1000 + 24 - 1
    assert (bars["position"].to_numpy()[:1024] == 0.0).all()


def test_a_sweep_of_words_and_numbers_is_its_runs():
    market = bt.Market.sample(bars=1400)
    space = {"model": list(TAIL_MODELS), "measure": ["VaR", "ES"], "level": [0.95, 0.99]}
    terms = {"venue": bt.Venue.preset("binance-usdm", "BTCUSDT"), "account": bt.Account()}
    table = bt.sweep(market, TailRisk(window=1000), space, **terms).table
    for row in table.iloc[[0, 5, 10, 15]].to_dict("records"):
        settings = {name: row[name] for name in space}
        result = bt.run(market, TailRisk(window=1000, **settings), **terms)
        assert result.metrics["total_return"] == row["total_return"]
        assert result.metrics["turnover"] == row["turnover"]
