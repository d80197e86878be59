"""Measures of the path and the certainty equivalent as objectives and constraints."""

import numpy as np
import pytest

import backtest as bt
from backtest.measures.measure_table import PATH
from backtest.measures.ranking import read_constraints, read_objective
from backtest.strategies import Constant
from backtest.tune.search import choose_metrics
from backtest.tune.trials import Goal

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
LEVERAGES = [0.5, 1.0, 2.0]


@pytest.fixture(scope="module")
def full():
    market = bt.Market.sample(bars=24 * 60)
    return bt.sweep(market, Constant, {"leverage": LEVERAGES}, venue=VENUE, account=bt.Account(),
                    full=True, compile=False)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", [*PATH, "certainty_equivalent", "carry_decay", "leverage_decay"])
def test_a_full_sweep_ranks_by_every_measure(full, name):
    values = full.table[name].to_numpy()
    best = full.rank(name)[0]
    scores = read_objective(name).score({name: values})
    if not np.isnan(scores).all():
        assert scores[best] == np.nanmax(scores)
    bound = float(np.nan_to_num(np.nanmedian(values)) if not np.isnan(values).all() else 0.0)
    violation = read_constraints({name: f"<= {bound!r}"})[-1].violation({name: values})
    assert (violation > 0.0).tolist() == (~(values <= bound)).tolist()


@pytest.mark.parametrize("name", PATH)
def test_a_search_refuses_measures_of_the_path(name):
    goal = Goal((read_objective("sharpe"),), read_constraints({name: "<= 1"}))
    with pytest.raises(bt.ParameterError, match=name):
        choose_metrics("sharpe", goal)


@pytest.mark.parametrize("accounts", ["shared", "separate"])
def test_a_search_has_the_certainty_equivalent_of_any_risk_aversion(accounts):
    """Of aversion 10: that of the returns of each run; of several accounts, the mean of theirs."""
    market = bt.Market.sample(bars=24 * 20)
    several = bt.Markets({"A": market, "B": market.slice(0, 400)})
    name = "certainty_equivalent_10"
    study = bt.tune(several if accounts == "separate" else market, Constant, objective=name,
                    space={"leverage": (0.1, 1.5)}, venue=VENUE, account=bt.Account(),
                    trials=4, holdout=None, seed=0, compile=False, accounts=accounts)  # fmt: skip
    row = study.table[study.table["stage"] == "search"].iloc[0]
    markets = [market] if accounts == "shared" else several.values()
    policy = Constant(leverage=row["leverage"])
    runs = [
        bt.run(each, policy, venue=VENUE, account=bt.Account(), compile=False) for each in markets
    ]
    wanted = [bt.measures.certainty_equivalent(run.returns.to_numpy(), 365.0, 10.0) for run in runs]
    assert row["score"] == pytest.approx(np.mean(wanted), rel=1e-12)
    assert row["score"] < row["certainty_equivalent"]


def test_a_sweep_says_that_a_risk_aversion_needs_a_search(full):
    with pytest.raises(bt.ParameterError, match="was not measured"):
        full.rank("certainty_equivalent_5")
