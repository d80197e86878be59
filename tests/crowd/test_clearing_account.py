"""An account of one's own among the agents of a simulated market."""

import math

import numpy as np
import pytest

import backtest as bt
from backtest.crowd import value_fund_kernels as kernels
from backtest.strategies import Constant
from tests.markets import free_venue

FUNDS = bt.agents.Thurner(cap=5, funds=3)


def among(agents=FUNDS, **given):
    terms = {"steps": 120, "policy": Constant(leverage=2.0), "compile": False, "seed": 3} | given
    return bt.simulate_market(agents, **terms)


def next_close(capital: float) -> bt.Account:
    return bt.Account(capital=capital, fill="next_close")


@pytest.mark.parametrize(
    ("agents", "capital"), [(FUNDS, 30.0), (bt.agents.LeverageCycle(), 0.05)], ids=["funds", "bank"]
)
def test_a_run_in_the_market_made_is_the_account_that_made_it(agents, capital):
    policy, account, venue = Constant(leverage=2.0), next_close(capital), free_venue()
    made = among(agents, account=account, venue=venue)
    result = bt.run(made.market, policy, venue=venue, account=account, compile=False)
    np.testing.assert_array_equal(made.leverage[repr(policy)], result.bars["leverage"])
    alone = bt.simulate_market(agents, steps=120, seed=3, compile=False)
    moved = made.market.close / alone.market.close - 1.0
    assert 1e-4 < np.max(np.abs(moved)) < 0.2
    assert moved[1] > 0.0  # it buys at the second price, which is higher for it


def test_noise_funds_and_account_hold_all_shares():
    noise = np.random.default_rng(0).standard_normal(50)
    held = np.linspace(-5.0, 20.0, 50)
    terms = np.array([1.0, 1_000.0, 0.99, 0.035, 2.0, 0.1, 0.15, 0.005, 0.1, 100.0])
    state, price = np.zeros((5, 2)), np.zeros(50)
    kernels.trade_funds(noise, np.array([5.0, 50.0]), 10.0, terms, state, np.zeros(5),
                        np.zeros(4, np.int64), np.zeros(50), np.zeros((50, 2)), price,
                        held)  # fmt: skip
    mean = money = math.log(1_000.0)
    for shock in noise:
        money = 0.99 * money + 0.035 * shock + 0.01 * mean
    shares = math.exp(money) / price[-1] + np.sum(state[kernels.HELD]) + held[-1]
    assert shares == pytest.approx(1_000.0, rel=1e-12)


@pytest.mark.parametrize(("given", "message"), [
    ({"account": bt.Account(capital=2.0)}, "fill='next_close', got 'next_open'"),
    ({"agents": bt.agents.Policies({Constant(): 0.5})}, "joins Thurner or LeverageCycle"),
    ({"policy": None, "account": next_close(2.0)}, "account is that of the account of policy="),
    (
        {"venue": free_venue().override(contract={"kind": "inverse"})},
        "trades linear contracts, got 'inverse'",
    ),
    ({"account": next_close(1_000.0)}, "do not converge"),
])  # fmt: skip
def test_what_an_account_among_agents_cannot_be_is_refused(given, message):
    with pytest.raises(bt.ParameterError, match=message):
        among(**given)
