"""A sweep of several positions: its rows are runs, bit for bit, without a record of each."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import VolTarget
from backtest.sweep.set_evaluator import Evaluator
from tests.agreement import Scripted, Swinging, trust_data
from tests.cases import make_portfolio_case
from tests.kit import make_venue, simulate_pair
from tests.sweep.sweeps import are_equal

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
MARKETS = simulate_pair(40)
PATHS = {"intrabar": "worst"}
FLOWS = pd.Series([500.0, -300.0], index=MARKETS.times[[5, 20]])
SCENARIOS = bt.ScenarioMargin(moves={"AAA": [(-0.1, 1.0), (0.1, 1.0)], "BBB": [(-0.2, 0.9)]})
ACCOUNTS = {
    "cross": {"band": 0.2},
    "isolated": {"margin": "isolated", "venue_leverage": 10.0, "stop_loss": 0.05, **PATHS},
    "mixed": {"margin": {"AAA": "isolated", "BBB": "cross"}, "venue_leverage": 8.0, "ruin_at": 0.3},
    "called": {"margin_call": 0.4, "reserve": 500.0, "top_up_to": 0.3, "max_gross_leverage": 6.0},
    "flows": {"flows": FLOWS, "after_liquidation": "halt"},
    "scenarios": {"requirement": SCENARIOS, "band": 0.1, "trailing_stop": 0.1},
}


def sweep_plainly(sets: dict[str, Any], evaluator: Evaluator, **wanted: Any) -> Any:
    """Return the rows of sets, in plain Python."""
    return evaluator.evaluate({k: np.array(v) for k, v in sets.items()}, returns=True, **wanted)


def require_runs(rows: Any, evaluator: Evaluator, sets: dict[str, Any], **wanted: Any) -> None:
    """Compare every measure of every row, and its returns, with the run of its set."""
    for k in range(len(rows.done)):
        result = evaluator.replay({name: values[k] for name, values in sets.items()}, **wanted)
        for name, column in rows.metrics.items():
            given = column[k], result.metrics[name]
            assert are_equal(name, *given, evaluator.base.account.capital), (k, name, *given)
        np.testing.assert_allclose(rows.returns[:, k], result.returns, rtol=1e-9, atol=1e-12)
    assert not any(rows.errors)


@pytest.mark.parametrize("kind", ACCOUNTS)
def test_rows_are_runs(kind):
    rng = np.random.default_rng([*kind.encode()])
    sets = {
        "target": rng.uniform(0.2, 2.0, 6),
        "half_life": np.array([3.0, 3.0, 8.0, 8.0, 20.0, 3.0]),
        "account.max_leverage": rng.uniform(2.0, 8.0, 6),
        "venue.fees.taker": rng.uniform(0.0, 1e-3, 6),
    }
    evaluator = Evaluator(
        MARKETS, VolTarget, venue=make_venue(), sampling="4h",
        account=bt.Account(capital=1_000.0, **ACCOUNTS[kind]),
        signal={"AAA": 1.0, "BBB": -0.8} if kind != "mixed" else None,
        overlay=VolTarget(half_life=5) if kind == "cross" else None,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = sweep_plainly(sets, evaluator)
        evaluator.compile = False  # the runs
        require_runs(rows, evaluator, sets)


def test_rows_of_one_instrument_given_as_several_are_runs():
    alone = bt.Markets({"AAA": MARKETS["AAA"]}, currency="USDT")
    flows = pd.Series([-1e6], index=MARKETS.times[[20]])  # as much as the rules of one allow
    account = bt.Account(capital=1_000.0, flows=flows, max_leverage=5.0)
    sets = {"target": np.array([0.5, 2.0])}
    policy = VolTarget(half_life=4)
    evaluator = Evaluator(alone, policy, venue=make_venue(), account=account, sampling="4h")
    rows = sweep_plainly(sets, evaluator)
    evaluator.compile = False
    require_runs(rows, evaluator, sets)


@pytest.mark.slow
def test_compiled_rows_of_random_accounts_are_runs(monkeypatch):
    monkeypatch.setenv("BACKTEST_COMPILE", "now")
    trust_data(monkeypatch)
    compared = 0
    for seed in range(120):
        case = make_portfolio_case(seed)
        if len(case.tapes) == 1:
            continue
        overlay = case.overlay and Swinging(
            level=case.overlay.level, hours=case.overlay.every / 3_600_000_000_000
        )
        sets = {"account.band": np.array([0.0, 0.3]), "account.capital": np.array([9e3, 4e4])}
        evaluator = Evaluator(policy=Scripted(), overlay=overlay, **case.for_engine(bt))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows = evaluator.evaluate(sets, returns=True)
            require_runs(rows, evaluator, sets)
        compared += len(rows.done)
    assert compared > 60
