"""Risk of an account with several positions on paths: against one position, and against runs."""

import numpy as np
import pytest

import backtest as bt
from backtest import paths as models
from backtest.strategies import VolTarget
from tests.risk.accounts import Hold, free_account, free_venue

NAMES = ("A", "B")
GBM = models.GBM(volatility=1.2)


def sample(seed: int = 0) -> bt.Market:
    return bt.Market.sample(bars=120, seed=seed)


@pytest.mark.parametrize("terms", [
    {"fill": "same_close", "equity_stop": 0.1},
    *(pytest.param(each, marks=pytest.mark.slow) for each in ({}, {"fill": "next_close"})),
])  # fmt: skip
def test_a_path_is_bit_for_bit_the_run_on_it(terms):
    market = bt.Markets({"A": sample(), "B": sample(1)})
    paths = bt.simulate_paths(market, models.Stationary(block=24.0), paths=3, horizon="1d", seed=1)
    for policy in (Hold(8.0), {"A": Hold(5.0), "B": VolTarget(target=2.0, half_life=12.0)}):
        account = free_account(**terms)
        given = {"venue": free_venue(), "account": account, "compile": False}
        found = bt.liquidation_risk(paths, policy, **given, signal={"A": 0.6, "B": -0.4})
        lives = next(found.runner.run_chunks())
        for i in range(3):
            whole = found.run(i)
            assert lives.wealth[i, -1] == whole.metrics["final_equity"]
            assert np.array_equal(lives.wealth[i], whole.bars["equity"].to_numpy()[1:])
            dead = whole.events["kind"].eq("liquidation").sum()
            assert lives.liquidations[i].sum() == dead


@pytest.mark.parametrize(("policy", "terms"), [
    (Hold(6.0), {}),
    (VolTarget(target=2.0, half_life=12.0), {"fill": "next_close"}),
    (VolTarget(target=2.0, half_life=12.0), {"fill": "same_close", "equity_stop": 0.2}),
])  # fmt: skip
def test_a_portfolio_goes_on_from_where_it_stands(policy, terms):
    history = bt.Markets({"A": sample(), "B": sample(1)})
    given = {
        "venue": free_venue(),
        "account": free_account(reserve=100.0, margin_call=0.9, top_up_to=0.5, **terms),
    }
    before = bt.run(history, policy, **given, signal={"A": 0.7, "B": -0.3}, compile=False)
    paths = bt.simulate_paths(history, models.Stationary(block=6.0), paths=2, horizon="1d")
    risk = bt.liquidation_risk(paths, policy, **{**given, "account": before}, compile=False)
    lives = next(risk.runner.run_chunks())
    for i in range(2):
        joined = paths.join_history(paths[i], 10**6)
        whole = bt.run(joined, policy, **given, signal={"A": 0.7, "B": -0.3}, compile=False)
        bars = whole.bars.iloc[-24:]
        assert np.allclose(lives.wealth[i], bars["equity"] + bars["reserve"], rtol=1e-12)


def ended() -> bt.Result:
    market = bt.Markets({"A": sample().prefix(100), "B": sample(1).prefix(100)})
    return bt.run(market, Hold(2.0), venue=free_venue(), account=free_account(), compile=False)


@pytest.mark.parametrize(("settings", "error", "words"), [
    ({"signal": {"A": 0.5}}, bt.ParameterError, "signal must name each of A, B"),
    ({"account": 5}, bt.ParameterError, "account must be"),
    ({"account": ended()}, bt.DataError, "must begin where the result ended"),
    ({"policy": {"A": Hold(1.0)}}, bt.ParameterError, "none for B"),
    ({"venue": {"A": free_venue()}}, bt.ParameterError, "none for B"),
])  # fmt: skip
def test_bad_arguments_are_refused(settings, error, words):
    market = bt.Markets({"A": sample(), "B": sample(1)})
    given = {
        "paths": bt.simulate_paths(market, GBM, paths=2, horizon="2h"), "policy": Hold(2.0),
        "venue": free_venue(), "account": free_account(), "compile": False, **settings,
    }  # fmt: skip
    with pytest.raises(error, match=words):
        bt.liquidation_risk(given.pop("paths"), given.pop("policy"), **given)
