"""Bounds that cannot bind, bounds in another unit, and objectives that are undefined."""

import math
from typing import Annotated

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.results import find_far_bounds, read_constraints
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
            assert math.isnan(metrics[name]) or low <= metrics[name] <= high, name


def test_a_bound_is_checked_in_python_in_files_and_as_a_flag(capsys, tmp_path):
    bad, said = {"max_drawdown": "<= 40"}, "'<= 0.4' for example"
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
        assert (code, said in err) == (2, True)


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
])  # fmt: skip
def test_a_rate_that_likely_is_a_percentage_is_a_warning(changes, words):
    test = TEST.replace(venue=bt.Venue.preset("binance-usdm", "BTCUSDT").override(changes))
    with pytest.warns(UserWarning, match=words):
        test.run(Constant(leverage=0.5), compile=False)
