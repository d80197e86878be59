"""Bounds that cannot bind, bounds in another unit, and objectives that are undefined."""

import math
from typing import Annotated

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.report.explored_sets import explore_sweep
from backtest.results import check_objective, find_far_bounds, read_constraints, read_objective
from backtest.results.measure_table import ABOUT
from backtest.strategies import Constant
from tests.kit import call, check_refused

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
TEST = bt.Backtest(
    bt.Market.sample(bars=24 * 20), venue="binance-usdm:BTCUSDT", account=bt.Account()
)


class Slow(bt.Policy):
    window: Annotated[float, bt.Range(24.0, 5000.0)] = 100.0

    def observe(self, market):
        """Return the mean of closes."""
        return {"mean": pd.Series(np.array(market.close)).rolling(int(self.window)).mean()}

    def leverage(self, bar, account):
        """Return 1 where the mean is known."""
        return math.nan if math.isnan(bar.mean) else 1.0


@pytest.mark.parametrize(("name", "bound", "words"), [
    ("max_drawdown", "<= 40", "lies in [0, 1]; fractions are not per cent, '<= 0.4'"),
    ("max_drawdown", "<= 1", "no value breaks"),
    ("max_drawdown", ">= 0", "no value breaks"),
    ("max_drawdown", "<= -0.4", "no value satisfies"),
    ("max_drawdown", "< 0", "no value satisfies"),
    ("max_drawdown", "> 1", "no value satisfies"),
    ("max_drawdown", "== 40", "'== 0.4'"),
    ("liquidations", ">= 0", "liquidations is 0 or more"),
    ("liquidations", "< 0", "no value satisfies"),
    ("ruined", "<= 1", "no value breaks"),
    ("peak_margin_ratio", "<= 50", "'<= 0.5'"),
    ("mean_margin_use", "<= 60", "'<= 0.6'"),
    ("total_return", ">= -1", "total_return is -1 or more"),
    ("volatility", ">= -1", "no value breaks"),
    ("probabilistic_sharpe", ">= 95", "'>= 0.95'"),
    ("es_95", "<= 5", "es_95 is at most 1"),
])  # fmt: skip
def test_a_bound_that_nothing_breaks_or_satisfies_is_an_error(name, bound, words):
    check_refused(lambda: read_constraints({name: bound}), words)


@pytest.mark.parametrize(("name", "bound"), [
    ("ruined", "== 0"), ("max_drawdown", "< 1"), ("max_drawdown", "<= 0"), ("liquidations", "== 0"),
    ("sharpe", ">= 1"), ("sharpe", "<= -5"), ("es_95", ">= -0.1"), ("fees", "<= 0"),
])  # fmt: skip
def test_a_bound_that_can_bind_is_accepted(name, bound):
    assert read_constraints({name: bound})[-1].name == name


def test_values_lie_in_the_domain_of_their_measure():
    for leverage in (0.5, 30.0, 100.0):
        metrics = TEST.run(Constant(leverage=leverage), compile=False).metrics
        for name, each in ABOUT.items():
            low, high = each.domain
            value = metrics[name]
            if not math.isnan(value):
                assert low <= value <= high, name


def test_a_bound_is_checked_in_python_in_files_and_as_a_flag(capsys, tmp_path):
    bad = {"max_drawdown": "<= 40"}
    said = "'<= 0.4' for example"
    space = {"leverage": (0.2, 0.9)}
    rows = TEST.sweep(Constant, {"leverage": [0.5, 1.0]}, compile=False)

    for refused in (
        lambda: TEST.tune(Constant, trials=4, space=space, constraints=bad),
        lambda: TEST.walk_forward(Constant, train="5d", test="5d", space=space, constraints=bad),
        lambda: TEST.objective(Constant, constraints=bad),
        lambda: rows.best("sharpe", bad),
    ):
        check_refused(refused, said)

    file = tmp_path / "bad.toml"
    file.write_text('[sweep]\nvalues.leverage = "1,2"\nconstraints.max_drawdown = "<= 40"\n')
    for arguments in (("sweep", file), ("tune", "--constraints", "max_drawdown<=40")):
        code, _, err = call(capsys, *arguments, "--policy", "constant", "--no-save")
        assert code == 2
        assert said in err


@pytest.mark.parametrize(("objective", "constraints", "words"), [
    ("ruined", {}, "ruined is the same in all: ruined == 0"),
    ("-ruined", {}, "ruined is the same in all"),
    ("ruin_time", {}, "ruin_time is not where ruined == 0"),
    ({"ruin_time": 1.0, "sharpe": 1.0}, {}, "ruin_time is not where ruined == 0"),
    ("liquidations", {"liquidations": "== 0"}, "is the same in all: liquidations == 0"),
    ("liquidations", {"liquidations": "<= 0"}, "is the same in all: liquidations <= 0"),
    ("time_to_first_liquidation", {"liquidations": "<= 0"}, "is not where liquidations <= 0"),
    ("fills", {"fills": "== 3"}, "is the same in all: fills == 3"),
    ({"ruined": -1.0, "fills": 1.0}, {"fills": "== 3"}, "ruined == 0 and fills == 3"),
    ("max_drawdown <= 0.4", {}, "constraints={'max_drawdown': '<= 0.4'} bounds one"),
    ("sharpe>=1", {}, "constraints={'sharpe': '>=1'} bounds one"),
])  # fmt: skip
def test_an_objective_that_constraints_fix_is_an_error(objective, constraints, words):
    rows = {"objective": objective, "constraints": constraints}
    check_refused(
        lambda: TEST.tune(Constant, trials=4, space={"leverage": (0.2, 1)}, **rows), words
    )


@pytest.mark.parametrize(("objective", "constraints"), [
    ("liquidations", {"liquidations": "<= 3"}), ({"ruined": -1.0, "sharpe": 1.0}, {}),
    ("time_to_first_liquidation", {}), ("sharpe", {"liquidations": "== 0"}),
])  # fmt: skip
def test_an_objective_that_may_differ_is_accepted(objective, constraints):
    check_objective(read_objective(objective), read_constraints(constraints))


def test_a_report_of_a_sweep_is_ranked_by_a_measure_turned_round():
    rows = TEST.sweep(Constant, {"leverage": [0.5, 1.0]}, compile=False)
    explored = explore_sweep(rows, "-max_drawdown")

    assert explored.name == "-max_drawdown"
    assert explored.values.tolist() == (-rows.metrics["max_drawdown"]).tolist()
    check_refused(lambda: explore_sweep(rows, "sharp"), "there is no measure 'sharp'")


def test_an_objective_is_checked_in_python_in_files_and_as_a_flag(capsys, tmp_path):
    said = "ruined is the same in all"
    space = {"leverage": (0.2, 0.9)}
    rows = TEST.sweep(Constant, {"leverage": [0.5, 1.0]}, compile=False)

    for refused in (
        lambda: TEST.walk_forward(Constant, train="5d", test="5d", space=space, objective="ruined"),
        lambda: TEST.objective(Constant, objective="ruined"),
        lambda: TEST.frontier(Constant, space=space, objectives=("cagr", "ruined")),
        lambda: rows.best("ruined"),
    ):
        check_refused(refused, said)

    file = tmp_path / "bad.toml"
    file.write_text('[sweep]\nvalues.leverage = "1,2"\nobjective = "ruined"\n')
    for arguments in (
        ("sweep", file),
        ("sweep", "--vary", "leverage=1,2", "--objective", "ruined"),
        ("tune", "--objective", "ruined"),
    ):
        code, _, err = call(capsys, *arguments, "--policy", "constant", "--no-save")
        assert code == 2
        assert said in err


@pytest.mark.parametrize(("promise", "words"), [
    (("fall", "max_drawdown", 25.0, 0.1), "max_drawdown from 0 to 1, got 25"),
    (("floor", "lowest_unit", -0.8, 0.1, "at least"), "lowest_unit from 0 to inf, got -0.8"),
    (("tail", "es_97.5", 5.0, 0.1), "es_97.5 from -inf to 1, got 5"),
    (("chance", "liquidations", 5.0, 0.1, "at most", 24.0), "liquidations from 0 to 1, got 5"),
])  # fmt: skip
def test_a_promise_that_no_value_has_is_an_error(promise, words):
    class Promising(Constant):
        def promises(self):
            """Return a promise in per cent."""
            return (promise,)

    check_refused(lambda: TEST.run(Promising(0.5), compile=False), words, bt.PolicyError)


@pytest.mark.slow
def test_a_bound_far_from_every_set_is_a_warning():
    """Turnovers of 15 to 28 a year are over 10 times from 1,000, and not from 100."""
    metrics = {"turnover": np.array([15.0, 28.0, math.nan]), "max_drawdown": np.array([0.001] * 3)}
    bounds = {"turnover": "<= 1000", "max_drawdown": "<= 0.4"}
    (text,) = find_far_bounds(read_constraints(bounds), metrics)
    assert "within a factor 10 of the bound turnover <= 1000: turnover was 15 to 28" in text
    assert not [*find_far_bounds(read_constraints({"turnover": "<= 100"}), metrics)]

    terms = {"trials": 4, "space": {"leverage": (0.2, 0.9)}, "compile": False}
    study = TEST.tune(Constant, constraints={"turnover": "<= 1e6"}, **terms)
    assert any("within a factor 10" in each for each in study.warnings)

    rows = TEST.sweep(Constant, {"leverage": [0.5, 1.0]}, compile=False)
    with pytest.warns(UserWarning, match="within a factor 10"):
        rows.best("sharpe", {"turnover": "<= 1e6"})


def test_an_objective_that_is_undefined_in_all_sets_says_why():
    """480 bars less a holdout of a quarter are 360, of a train span of 10 days 240."""
    terms = {"trials": 4, "compile": False}
    for refused, why in (
        (lambda: TEST.tune(Slow, space={"window": (2000.0, 4000.0)}, **terms).best_policy,
         "sharpe is undefined in all sets: of 3 sets 3 filled no order; no order was filled: not "
         "known at any of 360 closes: mean"),
        (lambda: TEST.walk_forward(
            Slow, train="10d", test="5d", space={"window": (1000.0, 1400.0)}, **terms),
         "not known at any of 240 closes: mean"),
        (lambda: TEST.tune(Constant, space={"leverage": (0.2, 0.5)},
                           objective="time_to_first_liquidation", **terms).best_policy,
         "NaN where there was none"),
    ):  # fmt: skip
        with pytest.raises(bt.ParameterError) as told:
            refused()
        assert why in str(told.value)
        assert "constraint" not in str(told.value)


@pytest.mark.parametrize(("changes", "words"), [
    ({"fees.taker": 0.04}, "fees.taker is 0.04, 4.00 % of the notional"),
    ({"borrow_rate": 5.0, "interest_on": "loan"}, "borrow_rate is 5, 500.00 % a year"),
    ({"fees.tiers": [{"volume": 1e6, "taker": 0.03, "maker": 0.0}]},
     "fees.tiers.0.taker is 0.03, 3.00 % of the notional"),
    ({"fees.taker": pd.Series([0.0004, 0.02], pd.to_datetime(["2020", "2023"], utc=True))},
     "fees.taker is 0.02, 2.00 % of the notional"),
    ({"option_costs": bt.OptionCosts(
        fee=0.03, fee_cap=0.125, delivery_fee=0.0, delivery_cap=0.125, tick=0.1)},
     "option_costs.fee is 0.03, 3.00 % of the notional"),
])  # fmt: skip
def test_a_rate_that_likely_is_a_percentage_is_a_warning(changes, words):
    test = TEST.replace(venue=bt.Venue.preset("binance-usdm", "BTCUSDT").override(changes))
    with pytest.warns(UserWarning, match=words):
        test.run(Constant(leverage=0.5), compile=False)


@pytest.mark.parametrize(("give", "words"), [
    (lambda: bt.Scenario("squeeze", funding=0.5), "funding is 0.5, 50.00 % of the notional at a"),
    (lambda: bt.OptionPosition("BTC-26JUN26-60000-P", 1.0, index=6e4, at="2026-01-01",
                               volatility=0.5, rate=5.0), "rate is 5, 500.00 % a year"),
    (lambda: bt.options.price("call", 100.0, 100.0, 0.5, 0.5, rate=4.0),
     "rate is 4, 400.00 % a year"),
    (lambda: bt.simulate_paths(TEST.market, paths=10, horizon="1d", drift=8.0), "drift is 8, 800"),
    (lambda: TEST.liquidation_risk(
        Constant(0.5), paths=bt.simulate_paths(TEST.market, "gbm", paths=20, horizon="1d"),
        default_rate=5.0, compile=False), "default_rate is 5, 500.00 % a year"),
])  # fmt: skip
def test_a_rate_of_a_call_that_likely_is_a_percentage_is_a_warning(give, words):
    with pytest.warns(bt.HighRateWarning, match=words):
        give()
