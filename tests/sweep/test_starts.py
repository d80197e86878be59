"""A start in the middle: bars before it warm the columns of each set, as those of its run."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.results.measure_table import PATH
from backtest.strategies import Constant, VolTarget
from tests.kit import ask_test, check_refused, free_venue, slow
from tests.sweep.sweeps import LEAN, are_equal

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
MARKET = bt.Market.sample(bars=260)
OTHER = bt.Market.sample(bars=260, seed=3)
START = MARKET.times[87]  # inside a day
SETS = {"target": [0.3, 0.9], "half_life": [20.0, 60.0]}
"""Of the second half-life, the first column known is at bar 60."""
TERMS = {"venue": LEAN, "account": bt.Account(), "start": START}


def assert_rows_are_runs(found: bt.Sweep, market, policy: type[bt.Policy], **terms) -> None:
    """Compare each row of a sweep with the run of its set from the same start."""
    names = found.parameters
    for _, row in found.table.iterrows():
        result = bt.run(market, policy(**{name: row[name] for name in names}), **terms)
        capital = terms["account"].capital
        for name in found.metrics:
            alone = result.metrics[name]
            assert are_equal(name, row[name], alone, capital), (name, row[name], alone)


@pytest.mark.parametrize("compiled", [
    False, pytest.param("now", marks=[pytest.mark.slow, pytest.mark.compiled])
])  # fmt: skip
@pytest.mark.parametrize("kind", ["one market", "a rule", "longer bars", "two markets"])
def test_a_row_from_a_start_is_the_run_from_that_start(kind, compiled):
    market = MARKET
    terms = dict(TERMS)
    if kind == "a rule":
        terms["signal"] = "breakout:24"
    if kind == "longer bars":
        terms["decision_interval"] = "4h"
    if kind == "two markets":
        market = bt.Markets({"BTC": MARKET, "ETH": OTHER.slice(40, 260)})

    found = ask_test("sweep", market, VolTarget, SETS, compile=bool(compiled), **terms)
    assert_rows_are_runs(found, market, VolTarget, compile=compiled, **terms)


def test_the_first_bar_after_a_start_is_warm():
    """VolTarget knows its volatility at the start: it fills at the second bar, as the run does."""
    found = bt.Backtest(MARKET, **TERMS).sweep(VolTarget, SETS, compile=False)

    assert (found.table["fills"] > 0).all()
    assert found.replay(3).fills["time"].iloc[0] == MARKET.times[88]
    assert found.manifest["data"]["start"] == "2023-01-04 15:00"
    assert found.manifest["data"]["bars"] == 260 - 87


def test_a_row_run_again_is_the_run_to_its_id():
    found = bt.Backtest(MARKET, **TERMS).sweep(VolTarget, SETS, compile=False)
    alone = bt.run(MARKET, VolTarget(target=0.9, half_life=60.0), compile=False, **TERMS)
    assert found.replay(3).manifest["id"] == alone.manifest["id"]

    detail = found.detail(3).iloc[0]
    for name in PATH:
        assert are_equal(name, detail[name], alone.metrics[name], 10_000.0)


def test_separate_accounts_begin_at_the_start_and_ended_markets_are_left_out():
    markets = {"BTC": MARKET, "ETH": OTHER.slice(40, 260), "OLD": OTHER.slice(0, 88)}
    found = bt.Backtest(markets, **TERMS).sweep(VolTarget, SETS, accounts="separate", compile=False)
    for name in ("BTC", "ETH"):
        own = bt.Backtest(markets[name], **TERMS).sweep(VolTarget, SETS, compile=False).table
        assert found.table[f"sharpe {name}"].tolist() == own["sharpe"].tolist()
    assert "sharpe OLD" not in found.table  # one bar is left of it


def test_weeks_of_sessions_are_counted_from_the_start():
    """300 weekly bars; every second one is missing before bar 150: periods a year differ."""
    close = 100.0 * np.exp(np.cumsum(np.random.default_rng(0).normal(0.0, 0.02, 450)))
    kept = np.concatenate((np.arange(0, 300, 2), np.arange(300, 450)))
    times = pd.date_range("2000-01-03", periods=450, freq="7D", tz="UTC")[kept]
    bars = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), close[kept]), times)
    market = bt.Market.from_frames(bars, interval="7d", sessions=True)

    terms = {"venue": free_venue(), "account": bt.Account(), "calendar": "252"}
    terms["start"] = market.times[150]

    found = ask_test("sweep", market, Constant, {"leverage": [0.5, 1.0]}, compile=False, **terms)
    assert_rows_are_runs(found, market, Constant, compile=False, **terms)


def test_flows_are_those_from_the_start_on():
    flows = pd.Series([500.0, 700.0], index=MARKET.times[[130, 180]])
    terms = {**TERMS, "account": bt.Account(flows=flows)}
    found = ask_test("sweep", MARKET, VolTarget, SETS, compile=False, **terms)
    assert (found.table["flows"] == 1200.0).all()
    assert_rows_are_runs(found, MARKET, VolTarget, compile=False, **terms)

    early = bt.Account(flows=pd.Series([500.0], index=MARKET.times[[20]]))
    test = bt.Backtest(MARKET, **{**TERMS, "account": early})

    for method, given in ((test.run, (VolTarget(),)), (test.sweep, (VolTarget, SETS))):
        with pytest.raises(bt.ParameterError, match="flows must not lie before the first bar"):
            method(*given, compile=False)


@pytest.mark.parametrize("kind", ["array", *slow(["series", "of the bars from there"])])
def test_a_signal_may_be_unknown_before_the_start(kind):
    values = np.where(np.arange(260) < 87, np.nan, 0.5)
    if kind == "series":
        signal: Any = pd.Series(values, MARKET.times).dropna()
    elif kind == "array":
        signal = values
    else:
        signal = values[87:]

    terms = {**TERMS, "signal": signal}
    found = ask_test("sweep", MARKET, VolTarget, SETS, compile=False, **terms)
    assert_rows_are_runs(found, MARKET, VolTarget, compile=False, **terms)

    if kind == "series":
        many = {"A": MARKET, "B": OTHER}
        apart = ask_test(
            "sweep", many, VolTarget, SETS, accounts="separate", compile=False, **terms
        )
        assert apart.table["sharpe A"].tolist() == found.table["sharpe"].tolist()

        sets = {"trials": 4, "robust": False, "sampler": "sobol", "compile": False}
        study = ask_test("tune", MARKET, VolTarget, **sets, **terms)
        seen = MARKET.prefix(study.task.split)
        known = {**terms, "signal": terms["signal"][: seen.times[-1]]}
        alone = bt.run(seen, study.best_policy, compile=False, **known)
        assert study.verdict.score == alone.metrics["sharpe"]


def test_a_start_that_leaves_one_bar_is_refused():
    terms = {**TERMS, "start": MARKET.times[-1], "compile": False}
    said = "a run needs at least 2 bars, for the first never trades, got 1 from start"
    check_refused(
        lambda: ask_test("sweep", MARKET, VolTarget, SETS, **terms), said, bt.ParameterError
    )
    check_refused(lambda: bt.folds(MARKET, start=MARKET.times[-1]), said, bt.ParameterError)


@pytest.mark.slow
def test_steps_of_parameters_count_years_from_the_start():
    """Growth per year of the policy as given is that of its run."""
    found = bt.Backtest(MARKET, **TERMS).sensitivity(
        VolTarget(target=0.9), parameters=True, compile=False
    )

    result = bt.run(MARKET, VolTarget(target=0.9), compile=False, **TERMS)
    years = (260 - 87) / (365.0 * 24.0)
    growth = math.log1p(result.metrics["total_return"]) / years
    assert math.isclose(found.base, growth, rel_tol=1e-12)
