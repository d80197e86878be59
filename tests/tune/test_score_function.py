"""The function for other optimizers returns what a search writes down of the same sets."""

import math

import numpy as np
import pytest

import backtest as bt
from backtest.strategies import Constant, VolTarget

MARKET = bt.Market.sample(bars=24 * 60)
TERMS = {"venue": bt.Venue.preset("binance-usdm", "BTCUSDT"), "account": bt.Account(),
         "compile": False}  # fmt: skip
SEARCH = {"trials": 6, "sampler": "sobol", "robust": False, "seed": 1}


def rescore(score, table, names):
    return [score({name: row[name] for name in names}) for row in table.to_dict("records")]


def test_scores_are_those_of_a_search():
    given = {**TERMS, "objective": {"cagr": 1.0, "max_drawdown": -0.5}, "holdout": "20d",
             "fix": {"estimator": "ewma", "power": 1.0}}  # fmt: skip
    space = {"target": (0.1, 1.0), "half_life": (24, 480)}
    table = bt.tune(MARKET, VolTarget, **given, **SEARCH, space=space).table
    score = bt.objective(MARKET, VolTarget, **given)
    assert rescore(score, table, space) == table["score"].tolist()


def test_scores_of_a_varied_rule_are_those_of_a_search():
    given = {**TERMS, "signal": "breakout", "holdout": None}
    space = {"leverage": (0.5, 2.0), "signal.window": (10, 90)}
    table = bt.tune(MARKET, Constant, **given, **SEARCH, space=space).table
    score = bt.objective(MARKET, Constant, **given)
    assert rescore(score, table, space) == table["score"].tolist()


def test_scores_of_separate_accounts_are_those_of_a_search():
    markets = {name: bt.Market.sample(bars=24 * 40, seed=k) for k, name in enumerate("AB")}
    given = {**TERMS, "accounts": "separate", "pool": "worst"}
    space = {"target": (0.1, 1.0)}
    table = bt.tune(markets, VolTarget, **given, **SEARCH, space=space).table
    score = bt.objective(markets, VolTarget, **given)
    assert rescore(score, table, space) == table["score"].tolist()


def test_a_broken_constraint_and_ruin_are_minus_infinity():
    score = bt.objective(MARKET, Constant, **TERMS, constraints={"max_drawdown": "<= 0.01"})
    assert score({"leverage": 3.0}) == -math.inf
    account = bt.Account(max_leverage=100)
    steep = bt.objective(MARKET, Constant, **{**TERMS, "account": account})
    assert steep({"leverage": 50.0}) == -math.inf


def test_what_is_not_defined_is_nan():
    score = bt.objective(MARKET, Constant, **TERMS)
    assert math.isnan(score({"leverage": 0.0}))
    assert np.isfinite(score({"leverage": 1.0}))


@pytest.mark.parametrize(("given", "values", "problem"), [
    ({}, {"leverage": -1.0}, "leverage"),
    ({}, {"lever": 1.0}, "leverage"),
    ({}, 1.0, "mapping"),
    ({"objective": ["sharpe", "cagr"]}, {}, "objective must be a measure"),
])  # fmt: skip
def test_what_cannot_be_is_refused(given, values, problem):
    with pytest.raises(bt.ParameterError, match=problem):
        bt.objective(MARKET, Constant, **TERMS, **given)(values)
