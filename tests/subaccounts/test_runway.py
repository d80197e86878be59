"""Spending from an account: amounts and failures by hand, and a runway with a known truth."""

import math

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import Constant
from backtest.subaccounts.runway import find_bars, spend
from tests.markets import free_venue, walk

NOT_RUINED = np.zeros((3, 1), dtype=bool)
TERMS = {"venue": free_venue(), "account": bt.Account(capital=1000.0), "compile": False}


def column(*values: float) -> np.ndarray:
    return np.array(values)[:, None]


def test_a_share_of_the_wealth_is_spent_by_hand():
    """1,000 doubles, stays, halves; 10 % each: 2,000 - 200, 1,800 - 180, 810 - 81."""
    found = spend(column(2000.0, 2000.0, 1000.0), NOT_RUINED, 1000.0, bt.Spending(0.1))
    assert found.wealth[:, 0].tolist() == pytest.approx([1800.0, 1620.0, 729.0])
    assert found.paid[:, 0].tolist() == pytest.approx([200.0, 180.0, 81.0])
    assert found.failed.tolist() == [3]


def test_a_fixed_amount_fails_when_it_is_more_than_what_is_left():
    """400 each time from 1,000: 600, 200, and then 200 is less than 400."""
    rule = bt.Spending(0.4, of="start")
    found = spend(column(1000.0, 1000.0, 1000.0), NOT_RUINED, 1000.0, rule)
    assert found.wealth[:, 0].tolist() == [600.0, 200.0, 0.0]
    assert found.paid[:, 0].tolist() == [400.0, 400.0, 0.0]
    assert found.failed.tolist() == [2]


def test_least_and_most_bound_the_amount_and_a_ruined_account_pays_nothing():
    rule = bt.Spending(0.1, least=150.0, most=160.0)
    found = spend(column(1000.0, 2000.0, 2000.0), NOT_RUINED, 1000.0, rule)
    assert found.paid[:, 0].tolist() == [150.0, 160.0, 154.0]
    ruined = column(0.0, 1.0, 1.0) > 0.0
    found = spend(column(1000.0, 500.0, 500.0), ruined, 1000.0, rule)
    assert (found.failed[0], found.paid[1:].sum()) == (1, 0.0)


def test_paths_without_moves_fail_when_the_money_is_gone_by_hand():
    """An account that holds cash: 30 % of the start every day lasts three days of five."""
    paths = bt.simulate_paths(walk(200, 0.0, 0.5, seed=1), "gbm", paths=40, horizon="5d", seed=2)
    rule = bt.Spending(0.3, every="1d", of="start")
    found = bt.runway(paths, Constant(0.0), rule, **TERMS)
    assert found.table.index.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert found.table["p_failure"].tolist() == [0.0, 0.0, 0.0, 1.0, 1.0]
    assert found.table["wealth_50"].tolist() == pytest.approx([700.0, 400.0, 100.0, 0.0, 0.0])
    assert found.table["spent"].iloc[-1] == pytest.approx(900.0)
    assert (found.p_failure, found.runway_days) == (1.0, 4.0)
    assert found.table["p_failure_high"].iloc[0] == pytest.approx(1 - 0.025 ** (1 / 40))


def test_spending_in_proportion_is_what_an_account_with_flows_does():
    """Without lots and costs: the same withdrawals as flows of the run of one path."""
    paths = bt.simulate_paths(walk(200, 0.0, 0.5, seed=1), "gbm", paths=2, horizon="4d", seed=3)
    rule = bt.Spending(0.1, every="1d", of="start")
    found = bt.runway(paths, Constant(1.5), rule, **TERMS)
    path = paths[0]
    opens = path.index[1:][23::24] + pd.Timedelta("1h")  # the opens after the closes
    ends = []
    for i in range(2):
        flows = pd.Series(-100.0, index=opens[:-1])
        account = bt.Account(capital=1000.0, flows=flows)
        run = bt.run(paths[i], Constant(1.5), **TERMS | {"account": account})
        ends.append(run.metrics["final_equity"] - 100.0)
    assert found.table["wealth_50"].iloc[-1] == pytest.approx(np.mean(ends), rel=1e-3)


def test_several_instruments_on_one_account_by_hand():
    pair = {"A": walk(200, 0.0, 0.5, seed=1), "B": walk(200, 0.0, 0.5, seed=2)}
    markets = bt.Markets(pair, currency="USD")
    paths = bt.simulate_paths(markets, "gbm", paths=4, horizon="4d", seed=2)
    rule = bt.Spending(0.3, every="1d", of="start")
    found = bt.runway(paths, Constant(0.0), rule, **TERMS)
    assert found.table["wealth_50"].tolist() == pytest.approx([700.0, 400.0, 100.0, 0.0])


def test_the_last_spending_is_at_the_end_of_the_horizon():
    paths = bt.simulate_paths(walk(200, 0.0, 0.5, seed=1), "gbm", paths=2, horizon="180d")
    assert find_bars(paths, bt.Spending(0.1)).tolist() == [720 * k - 1 for k in range(1, 7)]


@pytest.mark.parametrize(("change", "message"), [
    ({"spending": 0.1}, "spending must be a Spending, got 0.1"),
    ({"spending": bt.Spending(0.1, every="9d")}, "every must lie between a bar and the length"),
    ({"confidence": 1.0}, "confidence must be"),
])  # fmt: skip
def test_a_wrong_argument_is_one_clear_error(change, message):
    paths = bt.simulate_paths(walk(200, 0.0, 0.5, seed=1), "gbm", paths=4, horizon="2d")
    given = {"spending": bt.Spending(0.1, every="1d"), **TERMS, **change}
    with pytest.raises(bt.ParameterError, match=message):
        bt.runway(paths, Constant(1.0), given.pop("spending"), **given)


def test_it_is_saved_with_its_numbers(tmp_path):
    paths = bt.simulate_paths(walk(200, 0.0, 0.5, seed=1), "gbm", paths=4, horizon="2d")
    found = bt.runway(paths, Constant(0.0), bt.Spending(0.1, every="1d"), **TERMS)
    again = bt.Runway.load(found.save(tmp_path))
    assert again.summary() == found.summary()
    assert (again.p_failure, math.isnan(again.runway_days)) == (0.0, True)
