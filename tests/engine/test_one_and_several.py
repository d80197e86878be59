"""One instrument given as a market, and as markets of it, has the same numbers everywhere."""

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.engine import count_periods
from backtest.engine.account_loop import live
from backtest.engine.policy_contract import check_policy
from backtest.engine.portfolio_setup import set_up
from backtest.engine.run_result import finish
from backtest.regress import take_baseline
from backtest.regress.trace import name_field
from backtest.strategies import VolTarget
from backtest.sweep.cluster.remote_evaluator import ClusterEvaluator
from backtest.sweep.set_evaluator import Evaluator
from tests.comparing import compare_policies
from tests.portfolio.portfolio_helpers import Hold, make_market, make_venue, simulate_pair
from tests.sweep.sweeps import Here

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

N_BARS = 300
BARS = {
    "cross_validate": 420, "walk_forward": 240, "max_leverage": 110, "sensitivity": 24,
}  # fmt: skip
"""The bars of calls that need more than the others, or must have less."""
FEW = 72
WILD = bt.Markets(
    {name: simulate_pair(420, seed)["AAA"] for seed, name in enumerate(("AAA", "BBB"))},
    currency="USDT",
)
"""Two instruments with funding, both listed all the time."""
VENUE = make_venue(taker=5e-4, slippage=2e-4, liquidation_fee=0.005)
ACCOUNT = bt.Account(capital=1_000.0)
PLAIN: dict[str, Any] = {"venue": VENUE, "account": ACCOUNT, "compile": False}
TERMS: dict[str, Any] = {**PLAIN, "sampling": "6h"}
SEARCH: dict[str, Any] = {
    "space": {"level": (0.1, 2.0)}, "robust": False, "sampler": "sobol", "trials": 4, "threads": 1,
}  # fmt: skip
SPREAD = VENUE.override({"slippage.impact": 0.5})


def read_table(table: pd.DataFrame | pd.Series) -> dict[str, Any]:
    """Return the numeric columns of a table by name."""
    frame = table.reset_index(drop=True) if isinstance(table, pd.DataFrame) else table.to_frame()
    return {str(name): frame[name].to_numpy() for name in frame.select_dtypes("number")}


def draw(market: Any) -> Any:
    """Return a few continuations of half a day."""
    return bt.simulate_paths(market, bt.paths.GBM(volatility=2.0), paths=20, horizon="6h", seed=1)


def call_run(market: Any) -> Any:
    run = bt.run(market, Hold(3.0), **TERMS)
    return {**run.metrics, "equity": run.bars["equity"], "returns": run.returns}


def call_sweep(market: Any) -> Any:
    return read_table(bt.sweep(market, Hold, {"level": [0.5, 3.0, 18.0]}, **TERMS).table)


def call_tune(market: Any) -> Any:
    study = bt.tune(market, Hold, **TERMS, **SEARCH)
    return {**study.best, **study.best_values, "held": study.outcome.holdout["sharpe"]}


def call_compare(market: Any) -> Any:
    done = compare_policies(market, {"a": Hold(1.0), "b": Hold(2.0)}, **TERMS, draws=99)
    return {**read_table(done.table), **read_table(done.pairs)}


def call_walk_forward(market: Any) -> Any:
    walk = bt.walk_forward(market, Hold, **TERMS, **SEARCH, train="9d", test="1d")
    return {**read_table(walk.folds), **walk.result.metrics}


def call_cross_validate(market: Any) -> Any:
    done = bt.cross_validate(
        market, Hold, **TERMS, space=SEARCH["space"], trials=4, groups=2, test_groups=1, embargo=0
    )
    return {**read_table(done.sets), **read_table(done.matrix)}


def call_simulate_paths(market: Any) -> Any:
    path = draw(market)[3]
    each = path if isinstance(path, bt.Market) else path["AAA"]
    return {"close": each.close, "funding": each.funding_rate}


def call_liquidation_risk(market: Any) -> Any:
    found = bt.liquidation_risk(draw(market), Hold(15.0), **PLAIN, method="plain")
    return {**read_table(found.table), **read_table(found.fan)}


def call_max_leverage(market: Any) -> Any:
    found = bt.max_leverage(
        market, **PLAIN, probability=0.6, horizon="3h", models=["gbm"], paths=34
    )
    return read_table(found.table)


def call_stress(market: Any) -> Any:
    fall = bt.Scenario("fall", price=-0.04, over="2h")
    found = bt.stress(bt.run(market, Hold(5.0), **TERMS), [fall], ladder={"price": (-0.2, 0.2, 3)})
    return {**read_table(found.table), **read_table(found.ladder)}


def call_sensitivity(market: Any) -> Any:
    found = bt.sensitivity(market, Hold(2.0), **TERMS, factors=["fees", "funding"])
    return read_table(found.table)


def call_capacity(market: Any) -> Any:
    terms = {**TERMS, "venue": SPREAD}
    return read_table(bt.capacity(market, Hold(2.0), **terms, capitals=[1e3, 1e6]).table)


def call_regress(market: Any) -> Any:
    taken = take_baseline(bt.run(market, Hold(3.0), **TERMS), "calm")
    return {name_field(name): values for name, values in taken.trace.columns.items()}


def call_report(market: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        page = bt.run(market, Hold(3.0), **TERMS).report(Path(folder) / "page.json")
        found: dict[str, Any] = json.loads(page.read_text(encoding="utf-8"))["metrics"]
    return found


def call_check(market: Any) -> Any:
    return {each.name: float(each.passed) for each in check_policy(Hold, market, accounts=())}


def call_cascade(market: Any) -> Any:
    first = market if isinstance(market, bt.Market) else market.select("AAA")
    crowd = bt.Crowd.from_leverage(open_interest=1e6, accounts=50, entries=first, lookback="2d")
    return {"entry": crowd.entry, "quantity": crowd.quantity, "price": crowd.price}


def call_cluster(market: Any) -> Any:
    pytest.importorskip("distributed")
    sent = ClusterEvaluator(Evaluator(market, Hold(1.0), **TERMS), Here())
    return sent.evaluate({"level": np.array([0.5, 3.0])}).metrics


CALLS: dict[str, Callable[[Any], Mapping[str, Any]]] = {
    name.removeprefix("call_"): call for name, call in list(globals().items())
    if name.startswith("call_")
}  # fmt: skip
SLOW_ONE = {"cluster"}
SLOW_TWO = {*SLOW_ONE, "cross_validate", "max_leverage", "sensitivity", "walk_forward"}


def list_calls(slow: set[str]) -> list[Any]:
    """Return the calls by name, with their marks."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in CALLS]


def cut(name: str) -> bt.Markets:
    """Return the two markets, as long as a call needs."""
    return WILD.prefix(BARS.get(name, FEW))


@pytest.mark.parametrize("name", list_calls(SLOW_ONE))
def test_a_market_and_markets_of_it_have_the_same_numbers(name):
    market = cut(name)["AAA"]
    one, several = CALLS[name](market), CALLS[name](bt.Markets({"AAA": market}, currency="USDT"))
    assert [*one] == [*several]
    for each, value in one.items():
        np.testing.assert_array_equal(np.asarray(several[each]), np.asarray(value), each)


@pytest.mark.parametrize("name", list_calls(SLOW_TWO))
def test_two_markets_are_taken(name):
    assert CALLS[name](cut(name))


WAVE = np.where(np.arange(FEW) % 20 < 10, 0.7, -0.3)
LONE = WILD["AAA"].prefix(FEW)
USD = bt.Collateral("USD", 50.0, prices=1.0, rate=1.0)
SHARED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "overlay": ({"overlay": Hold(0.5)}, {}),
    "series": ({"overlay": Hold(0.5), "signal": pd.Series(WAVE, LONE.times)},
               {"signal": pd.DataFrame({"market": WAVE}, LONE.times)}),
    "array": ({"overlay": Hold(0.5), "signal": WAVE}, {"signal": WAVE[:, None]}),
    "array, plain": ({"signal": WAVE}, {"signal": WAVE[:, None]}),
    "number": ({"overlay": Hold(0.5), "signal": -0.5}, {"signal": {"market": -0.5}}),
    "rule": ({"overlay": Hold(0.5), "signal": "breakout:12"}, {}),
    "weights": ({"signal": {"market": -0.5}}, {}),
    "gross": ({"account": bt.Account(capital=1_000.0, max_gross_leverage=2.0)}, {}),
    "table": ({"account": bt.Account(capital=1_000.0, band={"market": 0.1})}, {}),
    "collateral": ({"account": bt.Account(collateral=[USD], negative_limit=9.0)}, {}),
}  # fmt: skip
"""What only accounts of several have, for a market, and what differs for markets of it."""


@pytest.mark.parametrize("label", SHARED)
def test_a_market_takes_what_its_markets_take(label):
    given, other = SHARED[label]
    one = bt.run(LONE, Hold(3.0), **{**TERMS, **given})
    several = bt.run(bt.Markets({"market": LONE}), Hold(3.0), **{**TERMS, **given, **other})
    np.testing.assert_array_equal(one.record.values, several.record.values)
    if label == "overlay":
        sets = {"level": [0.5, 3.0]}
        rows = [bt.sweep(each, Hold, sets, **TERMS, **given).table
                for each in (LONE, bt.Markets({"market": LONE}))]  # fmt: skip
        pd.testing.assert_frame_equal(*rows, check_exact=True)


# ------------------------------------------------------------------------------------ both loops


def run_several(markets: bt.Markets, policy: bt.Policy, **terms: Any) -> Any:
    """Run the loop of several positions, whatever the number of instruments."""
    given: dict[str, Any] = {"signal": None, **terms}
    periods = count_periods("365", "6h", markets)
    setup = set_up(
        markets, policy, overlay=None, sampling="6h", periods=periods, start=None, **given
    )
    outcome = live(setup, is_compiled=False, progress=None)
    return finish(setup, outcome, calendar="365")


LIQUID = make_venue(taker=5e-4, slippage=2e-4, liquidation_fee=0.005, maintenance_rate=0.02)
ISOLATED = {"margin": "isolated", "venue_leverage": 12.0}
EXITS = {"stop_loss": 0.03, "take_profit": 0.05, "trailing_stop": 0.04}
CALLED = {"margin_call": 0.3, "reserve": 400.0, "top_up_to": 0.2}
EXACT, LAST_PLACES = 0.0, 1e-12
BY_BENCHMARK = ("alpha", "alpha_error", "beta", "beta_error")
"""Measures whose benchmark is the index of what is traded, which rounds once more than a price."""


class Seeing(bt.Policy):
    """Hold less, the nearer what the account says of its margin comes to a liquidation."""

    def leverage(self, bar, account):
        """Return up to 8, less with the maintenance margin and near the liquidation price."""
        if account.position == 0.0:
            return 4.0
        distance = abs(account.liquidation_price / bar.mark - 1.0)
        return 8.0 * distance / (1.0 + account.margin_ratio + account.maintenance / account.equity)


CASES: dict[str, tuple[bt.Policy, dict[str, Any], float]] = {
    "cross volatility target": (VolTarget(target=2.0), {}, EXACT),
    "cross 20x, liquidated": (Hold(19.0), {}, EXACT),
    "isolated with stops": (Hold(5.0), {**ISOLATED, **EXITS}, LAST_PLACES),
    "isolated, liquidated": (Hold(11.0), ISOLATED, LAST_PLACES),
    "margin calls and a reserve": (Hold(12.0), CALLED, EXACT),
    "cross, reading its margin": (Seeing(), {}, LAST_PLACES),
    "isolated, reading its margin": (Seeing(), ISOLATED, 1e-9),
}
"""A policy, terms of the account, and how far apart the two loops are in equity and measures.

An isolated margin is added to and taken off the wallet in another order, so the last places differ.
"""
EXPECTED = {"stops": "trailing_stop", "liquidated": "liquidation", "calls": "margin_call"}
"""An event that must happen in the cases whose names have the word."""


def compare_results(one: Any, several: Any, tolerance: float) -> None:
    """Compare equity, and all measures of a run of one position."""
    pairs = {"equity": (one.bars["equity"], several.bars["equity"])}
    pairs |= {name: (value, several.metrics[name]) for name, value in one.metrics.items()}
    for name, (value, other) in pairs.items():
        loose = LAST_PLACES if name in BY_BENCHMARK else tolerance
        np.testing.assert_allclose(
            np.asarray(other), np.asarray(value), rtol=loose, atol=0.0, err_msg=name
        )


@pytest.mark.parametrize("label", CASES)
def test_both_loops_agree_on_one_instrument(label):
    policy, more, tolerance = CASES[label]
    terms = {"venue": LIQUID, "account": bt.Account(capital=1_000.0, **more)}
    market = WILD["AAA"].prefix(N_BARS)
    one = bt.run(market, policy, **terms, sampling="6h", compile=False)
    several = run_several(bt.Markets({"AAA": market}, currency="USDT"), policy, **terms)
    compare_results(one, several, tolerance)
    happened = {*one.events["kind"]}
    assert {kind for word, kind in EXPECTED.items() if word in label} <= happened


@pytest.mark.parametrize("label", CASES)
def test_an_instrument_of_no_weight_changes_nothing(label):
    policy, more, tolerance = CASES[label]
    terms = {"venue": LIQUID, "account": bt.Account(capital=1_000.0, **more)}
    market = WILD["AAA"].prefix(N_BARS)
    one = bt.run(market, policy, **terms, sampling="6h", compile=False)
    still = make_market([(50.0,) * 4] * N_BARS)
    pair = bt.Markets({"AAA": market, "ZZZ": still}, currency="USDT")
    several = run_several(pair, policy, **terms, signal={"AAA": 1.0, "ZZZ": 0.0})
    compare_results(one, several, tolerance)
