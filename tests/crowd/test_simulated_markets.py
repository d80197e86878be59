"""Markets of agents: the facts of Thurner, Farmer and Geanakoplos, and the leverage cycle."""

import math
from dataclasses import replace

import numpy as np
import pytest

import backtest as bt
from backtest.crowd import bank_fund_kernels, value_fund_kernels
from backtest.crowd.bank_fund_stability import (
    find_critical_leverage,
    find_fixed_point,
    list_cycle_terms,
    measure_growth,
)
from backtest.crowd.simulated_market import (
    correlate_with_next,
    estimate_hill,
    find_price_facts,
    measure_kurtosis,
)

SEEDS = range(3)
STEPS = 50_000


@pytest.fixture(scope="module")
def facts() -> dict[float, list[dict[str, float]]]:
    """Return the facts of the market of value funds by leverage cap, one per seed."""
    return {
        cap: [
            bt.simulate_market(bt.agents.Thurner(cap=cap), steps=STEPS, seed=seed).facts()
            for seed in SEEDS
        ]
        for cap in (0.0, 1.0, 2.0, 5.0, 10.0, 15.0)
    }


def mean_of(facts, cap: float, name: str) -> float:
    return float(np.mean([each[name] for each in facts[cap]]))


@pytest.mark.slow
def test_without_funds_returns_are_normal(facts):
    for each in facts[0.0]:
        assert each["std"] == pytest.approx(0.035, rel=0.02)
        assert each["kurtosis"] == pytest.approx(3.0, abs=0.1)
        assert abs(each["acf_abs_1"]) < 0.02
        assert each["margin_calls"] == 0.0


@pytest.mark.slow
def test_leverage_makes_returns_calmer_and_fatter(facts):
    calm = [mean_of(facts, cap, "std") for cap in (0.0, 1.0, 2.0)]
    assert calm == sorted(calm, reverse=True)
    assert mean_of(facts, 10.0, "std") < 0.9 * calm[0]
    tails = [mean_of(facts, cap, "hill") for cap in (0.0, 1.0, 2.0, 5.0, 10.0)]
    assert tails == sorted(tails, reverse=True)
    assert tails[-1] == pytest.approx(2.5, abs=0.3)
    clusters = [mean_of(facts, cap, "acf_abs_1") for cap in (0.0, 1.0, 2.0, 5.0)]
    assert clusters == sorted(clusters)
    for cap in (5.0, 10.0, 15.0):
        assert all(each["kurtosis"] > 5.0 for each in facts[cap])


def test_the_effect_saturates_at_high_caps(facts):
    for name, slack in (("hill", 0.25), ("acf_abs_1", 0.04)):
        assert mean_of(facts, 10.0, name) == pytest.approx(mean_of(facts, 15.0, name), abs=slack)


def test_a_cap_of_one_makes_no_margin_calls_and_higher_ones_do(facts):
    assert all(each["margin_calls"] == 0.0 for each in facts[1.0])
    assert all(each["margin_calls"] > 100.0 for each in facts[10.0])
    assert all(each["deaths"] > 0.0 for each in facts[10.0])


def test_no_fund_is_over_its_cap_after_it_traded():
    sim = bt.simulate_market(bt.agents.Thurner(cap=4.0, flow=0.0), steps=3_000, seed=1)
    leverage = sim.leverage.to_numpy()
    assert np.nanmax(leverage) <= 4.0 * (1.0 + 1e-9)
    assert np.nanmin(leverage) >= 0.0


def demand(price, money: float, beta, cap, state):
    """Return the demand of all at prices, from the model's definition."""
    total = money / price
    for h, each in enumerate(beta):
        wealth = state[value_fund_kernels.CASH, h] + state[value_fund_kernels.HELD, h] * price
        total = total + np.minimum(each * np.maximum(1.0 - price, 0.0), cap) * (
            np.maximum(wealth, 0.0) / price
        )
    return total


def test_the_clearing_price_is_the_root_nearest_to_the_last_price():
    """Held to a fine grid of excess demand, with states in which several prices clear."""
    several = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        beta = np.linspace(5.0, 50.0, 6)
        state = np.zeros((5, 6))
        price_before, cap = rng.uniform(0.7, 1.1), rng.uniform(1.0, 15.0)
        wealth = rng.uniform(1.0, 40.0, 6)
        held = np.minimum(beta * max(1.0 - price_before, 0.0), cap) * wealth / price_before
        state[value_fund_kernels.HELD] = held
        state[value_fund_kernels.CASH] = wealth - held * price_before
        money = 1_000.0 * price_before - np.sum(held) * price_before
        money *= math.exp(0.05 * rng.standard_normal())
        edges = np.zeros(13)
        n = value_fund_kernels.sort_edges(beta, cap, 1.0, state, edges)
        found, roots = value_fund_kernels.find_clearing_price(
            money, price_before, beta, cap, 1.0, 1_000.0, state, edges, n
        )
        assert demand(found, money, beta, cap, state) == pytest.approx(1_000.0, rel=1e-9)
        grid = np.geomspace(0.05, 3.0, 4_000)
        sign = np.sign(demand(grid, money, beta, cap, state) - 1_000.0)
        crossings = np.flatnonzero(sign[1:] != sign[:-1])
        assert roots >= len(crossings)
        nearest = min(np.abs(grid[crossings] - price_before))
        assert abs(found - price_before) <= nearest + 0.002
        several += roots > 1
    assert several > 10


@pytest.mark.parametrize("agents", [bt.agents.Thurner(cap=8.0), bt.agents.LeverageCycle()])
def test_plain_and_compiled_are_the_same_bits_whatever_the_threads(agents, monkeypatch):
    compiled = bt.simulate_market(agents, steps=400, seed=3)
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    plain = bt.simulate_market(agents, steps=400, seed=3, compile=False)
    assert compiled.market.close.tobytes() == plain.market.close.tobytes()
    assert compiled.manifest["id"] == plain.manifest["id"]
    assert compiled.market.close.tobytes() != (
        bt.simulate_market(agents, steps=400, seed=4).market.close.tobytes()
    )


def test_a_simulated_market_is_a_market():
    sim = bt.simulate_market(bt.agents.Thurner(cap=10), steps=300, seed=0)
    market = sim.market
    assert market.synthetic
    assert market.n_bars == 300
    assert (market.open[1:] == market.close[:-1]).all()
    assert set(sim.facts()) >= {"std", "kurtosis", "hill", "acf_abs_1", "margin_calls", "deaths"}
    assert len(sim.leverage) == 300


def small_bank(**changes: float) -> bt.agents.LeverageCycle:
    """Return a small bank without noise."""
    return bt.agents.LeverageCycle(**{"equity": 0.01, "alpha": 0.01, "noise": False, **changes})


def test_a_small_bank_comes_back_to_its_fixed_point():
    sim = bt.simulate_market(small_bank(), steps=3_000)
    assert sim.market.close[-1] == pytest.approx(25.0, abs=1e-6)
    assert sim.leverage["bank"].iloc[-1] == pytest.approx(10.0, rel=1e-4)  # 0.01 / sqrt(1e-6)


def test_nothing_moves_at_the_fixed_point():
    agents = small_bank(equity=1.0)
    state = find_fixed_point(agents)
    after = state.copy()
    assert bank_fund_kernels.step_cycle(list_cycle_terms(agents), after, 0.0)
    np.testing.assert_allclose(after, state, atol=1e-12)


def test_bank_and_fund_own_the_whole_asset_and_money_is_conserved():
    """One step by the definitions of the paper: demand at the new price equals the supply of 1."""
    agents = small_bank(equity=1.0)
    terms, state = list_cycle_terms(agents), find_fixed_point(agents)
    state[bank_fund_kernels.PRICE] = 25.3
    state[bank_fund_kernels.RISK] = 1e-4
    price, n, debt, weight = 25.3, state[3], state[4], state[1]
    assets = n * price / 0.3
    equity = assets - debt
    borrowed = 0.1 * 10.0 * (0.01 * (1e-4 + 1e-6) ** -0.5 * equity - assets)
    paid = 0.1 * 10.0 * (1.0 - equity)
    after = state.copy()
    assert bank_fund_kernels.step_cycle(terms, after, 0.0)
    new_price, new_weight = after[2], weight + weight / price * 0.1 * 0.1 * (25.0 - price)
    bank = 0.3 * (n * new_price + 0.7 * assets + paid + borrowed)
    fund_cash = (1.0 - weight) * (1.0 - n) * price / weight - paid
    fund = new_weight * ((1.0 - n) * new_price + fund_cash)
    assert bank + fund == pytest.approx(new_price, rel=1e-12)
    assert after[3] == pytest.approx(bank / new_price)
    assert after[4] == pytest.approx(debt + borrowed)


def find_period(leverage: np.ndarray, years: float) -> float:
    """Return the mean years between falls of the leverage under 0.6 of its median."""
    is_low = leverage < 0.6 * np.median(leverage)
    return years / max(1, int(np.sum(is_low[1:] & ~is_low[:-1])))


def test_a_large_bank_cycles_every_10_to_15_years():
    periods = [
        find_period(
            bt.simulate_market(bt.agents.LeverageCycle(), steps=2_100, seed=seed)
            .leverage["bank"].to_numpy(), 210.0,
        )
        for seed in range(5)
    ]  # fmt: skip
    assert 9.0 <= np.mean(periods) <= 15.0


def test_prices_rise_slowly_and_fall_fast_without_noise():
    sim = bt.simulate_market(bt.agents.LeverageCycle(noise=False), steps=2_100)
    step = np.diff(np.log(sim.market.close[1_000:]))
    assert np.std(step) > 1e-3  # it cycles
    assert -np.min(step) > 2.0 * np.max(step)
    assert np.mean(step > 0.0) > 0.55


def test_far_over_the_critical_leverage_nothing_is_sound():
    with pytest.raises(bt.ParameterError, match="must be positive, and shares below 1"):
        bt.simulate_market(small_bank(equity=2.27, alpha=0.015), steps=2_000)
    with pytest.raises(bt.ParameterError, match="less than all"):
        bt.simulate_market(small_bank(equity=2.27, alpha=0.075), steps=2_000)


def test_the_critical_leverage_falls_as_the_bank_grows():
    found = [find_critical_leverage(small_bank(equity=size)) for size in (0.1, 0.5, 1.0, 2.27, 5.0)]
    assert found == sorted(found, reverse=True)
    for size, critical in zip((0.1, 2.27), (found[0], found[3]), strict=True):
        agents = small_bank(equity=size)
        over = replace(agents, alpha=1.05 * critical * 1e-3)
        under = replace(agents, alpha=0.6 * critical * 1e-3)
        assert measure_growth(over) > 1.0 > measure_growth(under)
        assert follow_deviation(over) > 1.0 > follow_deviation(under)


def follow_deviation(agents: bt.agents.LeverageCycle) -> float:
    """Return how much a tiny deviation of the price has grown after 400 steps."""
    terms, state = list_cycle_terms(agents), find_fixed_point(agents)
    state[bank_fund_kernels.PRICE] += 1e-6
    farthest = 0.0
    for step in range(400):
        assert bank_fund_kernels.step_cycle(terms, state, 0.0)
        if step >= 300:
            farthest = max(farthest, abs(state[bank_fund_kernels.PRICE] - 25.0))
    return farthest / 1e-6


def test_slow_adjustment_raises_the_critical_leverage():
    fast, slow = (find_critical_leverage(small_bank(equity=1.0, theta=x)) for x in (9.5, 2.0))
    assert slow > fast


def test_facts_of_known_distributions():
    rng = np.random.default_rng(0)
    assert measure_kurtosis(np.array([-1.0, 1.0, -1.0, 1.0])) == 1.0
    assert measure_kurtosis(rng.standard_normal(200_000)) == pytest.approx(3.0, abs=0.05)
    pareto = rng.random(200_000) ** (-1.0 / 2.5)
    assert estimate_hill(pareto) == pytest.approx(2.5, rel=0.03)
    noise = rng.standard_normal(100_000)
    series = np.empty_like(noise)
    series[0] = noise[0]
    for t in range(1, len(noise)):
        series[t] = 0.4 * series[t - 1] + noise[t]
    assert correlate_with_next(series) == pytest.approx(0.4, abs=0.01)
    flat = find_price_facts(np.full(200, 5.0))
    assert flat["std"] == 0.0
    assert math.isnan(flat["kurtosis"])


@pytest.mark.parametrize("make", [
    lambda: bt.agents.Thurner(cap=-1.0),
    lambda: bt.agents.Thurner(cap=math.nan),
    lambda: bt.agents.Thurner(funds=0),
    lambda: bt.agents.Thurner(rho=1.0),
    lambda: bt.agents.LeverageCycle(a_1=0.2),
    lambda: bt.agents.LeverageCycle(equity=math.nan),
    lambda: bt.agents.Policies({}),
    lambda: bt.agents.Policies({"hold": 1.0}),
    lambda: bt.simulate_market("thurner"),
    lambda: bt.simulate_market(bt.agents.Thurner(), steps=10),
    lambda: bt.simulate_market(bt.agents.Thurner(), steps=math.nan),
    lambda: bt.simulate_market(bt.agents.Thurner(), seed=-1),
    lambda: bt.simulate_market(bt.agents.Thurner(interval="4w"), steps=9_000),
])  # fmt: skip
def test_bad_agents_and_arguments_are_refused(make):
    with pytest.raises(bt.ParameterError) as caught:
        make()
    assert "cure" in str(caught.value)
