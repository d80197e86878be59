"""Columns are known where paths and scenarios begin, and where starts of history are counted."""

from dataclasses import replace
from typing import Annotated

import numpy as np
import pytest

import backtest as bt
from backtest.engine.conditions import plain
from backtest.risk import warm_up
from backtest.risk.funded import simulate_apart
from backtest.risk.path_runner import PathsRunner
from backtest.risk.stressed_account import StressedAccount
from backtest.strategies import Constant, VolTarget
from tests.kit import check_refused, free_venue

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
HOURS = bt.Market.sample(bars=200)
DAYS = bt.Market.sample(bars=24 * 400).resample("1d")
TERMS = {"venue": free_venue(), "account": bt.Account()}


class Late(bt.Policy):
    """Hold 1 once ``window`` bars are known; from bar ``gone`` on the column is NaN again."""

    window: Annotated[int, bt.Range(0, 10_000, "bars")] = 15
    gone: Annotated[int, bt.Range(0, 100_000, "bars")] = 100_000

    def observe(self, market):
        bars = np.arange(market.n_bars)
        return {"seen": np.where((bars >= self.window) & (bars < self.gone), 1.0, np.nan)}

    def leverage(self, bar, account):
        return bar.seen


@pytest.fixture
def _short(monkeypatch):
    monkeypatch.setattr(warm_up, "LEAST_BARS", 20)


def run_paths(market, policy, *, horizon="5h", **changes):
    test = bt.Backtest(market, **{**TERMS, **changes})
    paths = bt.simulate_paths(plain(test).market, "gbm", paths=3, horizon=horizon, seed=1)
    return PathsRunner(paths, policy, test, compile=False)


def decide_first(runner):
    """Return the leverage decided at the first bar of a path, the last one of history."""
    return runner.run_path(0).of_positions("target")[0, 0]


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize(("window", "front"), [
    (5, 20),  # the least: 3 x 5 are fewer
    (15, 45),  # three times the first bar at which the column is known
    (90, 199),  # 3 x 90 are more than history has before its last bar
])  # fmt: skip
def test_the_bars_in_front_of_a_path_follow_from_the_first_known_bar(window, front):
    runner = run_paths(HOURS, Late(window=window))
    assert runner.warm_up.known == window
    assert runner.seen.n_bars == front + 1 + 5  # the last bar of history, and five hours
    if window < front:  # the column of the path itself is known at its first bar
        assert decide_first(runner) == 1.0


@pytest.mark.usefixtures("_short")
def test_policies_on_longer_bars_count_the_bars_of_the_account():
    """Their eleventh bar of 4 h closes with bar 43 of the account: 3 x 43 in front."""
    runner = run_paths(HOURS, Late(window=10), decision_interval="4h")
    assert runner.warm_up.known == 43
    assert runner.seen.n_bars == 3 * 43 + 1 + 5


@pytest.mark.usefixtures("_short")
def test_a_margin_rule_has_all_days_in_front():
    venue = free_venue().override(margin=bt.margin_rules.Volatility())
    assert run_paths(HOURS, Late(window=5), venue=venue).seen.n_bars == 200 + 5


@pytest.mark.usefixtures("_short")
def test_the_bars_in_front_of_a_scenario_are_as_many():
    for window, front in ((5, 20), (15, 45), (90, 200)):
        result = bt.run(HOURS, Late(window=window), compile=False, **TERMS)
        assert StressedAccount(result, result.venues).history.n_bars == front


@pytest.mark.usefixtures("_short")
def test_an_instrument_listed_late_needs_the_bars_since_its_listing():
    """Known 15 bars after bar 150: the front is 3 x 15 bars, and a start counts from 165 on."""
    markets = bt.Markets({"A": HOURS, "B": bt.Market.sample(bars=200, seed=2).slice(150, 200)})
    result = bt.run(markets, Late(), signal={"A": 0.5, "B": 0.5}, compile=False, **TERMS)
    found = warm_up.measure_warm_up(result.setup.observed, result.markets)
    assert (found.known, found.needed) == (165, 15)
    assert StressedAccount(result, result.venues).history.n_bars == 45


def test_a_scenario_has_the_volatility_of_the_whole_run(monkeypatch):
    """Its bars do not change with the bars in front: those of the last 30 days count."""
    result = bt.run(bt.Market.sample(bars=24 * 40), Constant(2.0), compile=False, **TERMS)
    shock = bt.Scenario("fall", price=-0.2, over="1d", shape="bridge")
    found = []
    for least in (10_000, 30):
        monkeypatch.setattr(warm_up, "LEAST_BARS", least)
        found.append(bt.stress(result, shock).table["distance"].iloc[0])
    assert found[0] == found[1]


def test_a_column_that_is_unknown_where_paths_begin_is_refused():
    said = "columns must be known where paths begin: 'seen' of Late(window=200, gone=100000) has"
    check_refused(lambda: run_paths(HOURS, Late(window=200)), said, bt.DataError)
    days = bt.Market.sample(bars=24 * 100)
    policy = VolTarget(estimator="har")
    calls = (
        lambda: bt.Backtest(days, **TERMS).liquidation_risk(policy, compile=False),
        lambda: bt.Backtest(days, **TERMS).passing_probability(policy, compile=False),
    )
    for call in calls:
        check_refused(call, "where paths begin: 'sigma' of VolTarget(", bt.DataError)
        check_refused(call, "no value in the 2,400 bars up to", bt.DataError)


def test_har_on_five_months_of_hours_is_known_on_paths():
    """It needs 131 days and had 2,000 hours: nothing was held, and 0 % liquidated."""
    market = bt.Market.sample(bars=24 * 150)
    runner = run_paths(market, VolTarget(estimator="har"))
    assert 2_000 < runner.warm_up.known < market.n_bars
    assert runner.seen.n_bars == market.n_bars + 5
    whole = bt.indicators.har_volatility(market)
    assert decide_first(runner) == pytest.approx(0.4 / whole[-1], rel=1e-9)


def test_a_column_that_was_known_once_is_no_error():
    runner = run_paths(HOURS, Late(window=15, gone=150))
    assert np.isnan(decide_first(runner))


def test_starts_of_history_before_the_policy_is_warm_are_not_counted():
    """Of 400 days, accounts begin at the opens of days 1 to 399; warm at the close of day 50."""
    assert len(run_paths(DAYS, Late(window=0), horizon="5d").find_past(5).times) == 399
    late = run_paths(DAYS, Late(window=50), horizon="5d")
    assert late.find_past(5).times[0] == DAYS.time[51]
    assert len(late.find_past(5).times) == 349
    late = replace(late, has_extremes=True)
    since = [day for *_, days, _ in simulate_apart(late, 5, "UTC") for day in days[:1]]
    assert since[0] == DAYS.time[51] // (24 * 3_600_000_000_000)
