"""The weights of several instruments vary beside the policy, and rows are runs bit for bit."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import Constant
from backtest.sweep.portfolios.rule_portfolios import RulePortfolios
from backtest.sweep.set_evaluator import Evaluator
from backtest.weights import WeightRule
from tests.portfolio.portfolio_helpers import Hold, make_venue, simulate_pair

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
MARKETS = simulate_pair(60)
TERMS = {"venue": make_venue(taker=0.001), "account": bt.Account(capital=1_000.0)}
SETS = {
    "level": np.array([1.0, 2.0, 1.0]),
    "allocate.rule": np.array(["equal", "inverse-volatility", "inverse-volatility"], dtype=object),
    "allocate.half_life": np.array([168.0, 4.0, 9.0]),
}


def check_rows(rows, evaluator: Evaluator, **part) -> None:
    """Compare rows with the runs of weights that functions compute."""
    halves = {4.0: None, 9.0: None}
    for half_life in halves:
        halves[half_life] = bt.allocate.inverse_volatility(MARKETS, half_life=half_life, every=6)
    weights = [bt.allocate.equal(MARKETS), halves[4.0], halves[9.0]]
    assert rows.errors == ["", "", ""]
    for k, frame in enumerate(weights):
        alone = Evaluator(MARKETS, Hold, **TERMS, sampling="4h", signal=frame, compile=False)
        result = alone.replay({"level": SETS["level"][k]}, **part)
        for name, column in rows.metrics.items():
            np.testing.assert_equal(column[k], result.metrics[name], err_msg=f"{k} {name}")


def test_rows_of_varied_weights_are_runs_of_these_weights():
    own = Evaluator(MARKETS, Hold, **TERMS, sampling="4h", signal=WeightRule(every=6), threads=2)
    runner = own._runner()
    assert isinstance(runner, RulePortfolios)
    runner.is_compiled = False
    part = {"first": 20, "stop": 56}
    check_rows(own.evaluate(SETS, **part), own, **part)
    assert len(runner._runners) == 3
    again = own.evaluate(SETS, **part)
    own.compile, own.plain_because = False, "compile=False"
    plain = own.evaluate(SETS, **part)
    for name, column in again.metrics.items():
        assert column.tobytes() == plain.metrics[name].tobytes(), name


def test_an_allocation_is_the_weights_of_its_function():
    for rule, more in (("equal-risk", {}), ("minimum-variance", {"long_only": True})):
        function = getattr(bt.allocate, rule.replace("-", "_"))
        wanted = function(MARKETS, half_life=10.0, every=6, **more)
        found = WeightRule(rule, half_life=10.0, every=6, **more)
        pd.testing.assert_frame_equal(found.weigh(MARKETS), wanted, check_exact=True)
    assert WeightRule("equal", half_life=9.0).text() == "equal"
    assert WeightRule(memory="window").list_used() == ("rule", "memory", "window", "every")
    text = bt.run(MARKETS, Hold(), **TERMS, signal=found, compile=False).manifest["signal"]
    assert text.startswith("minimum-variance(half_life=10, every=6, long_only=true) sha")


def test_an_allocation_refuses_one_market():
    with pytest.raises(bt.ParameterError, match="weights to several markets"):
        bt.run(MARKETS["AAA"], Hold(), **TERMS, signal=WeightRule("equal"))


@pytest.mark.parametrize(("signal", "name", "message"), [
    (None, "allocate.window", "allocate.window needs an allocation"),
    ("breakout", "allocate.window", "nothing named 'allocate.window'"),
    (WeightRule(), "allocate.windw", "did you mean 'allocate.window'"),
    (WeightRule(), "allocate.half_life", "half_life must be 0.5 to"),
])  # fmt: skip
def test_a_wrong_name_or_value_is_one_clear_error(signal, name, message):
    with pytest.raises(bt.ParameterError, match=message):
        bt.sweep(MARKETS, Hold, {name: [0, 5]}, signal=signal, **TERMS)


def test_a_parameter_that_matters_nowhere_is_refused():
    space = {"level": (0.5, 1.0), "allocate.window": (5, 50)}
    with pytest.raises(bt.ParameterError, match=r"allocate.window .* only where allocate.memory"):
        bt.tune(MARKETS, Hold, space=space, signal=WeightRule(), trials=4, **TERMS)


@pytest.mark.slow
def test_a_search_varies_the_weights_and_its_best_runs_again(tmp_path):
    space = {
        "leverage": (0.2, 1.0),
        "allocate.rule": ["equal", "equal-risk", "hierarchical"],
        "allocate.half_life": (3.0, 20.0),
    }
    arguments = {"space": space, "signal": WeightRule(every=6), "trials": 8, "sampler": "random"}
    terms = {**TERMS, "sampling": "4h", "compile": False, "robust": False}
    study = bt.tune(MARKETS, Constant, store=tmp_path, **arguments, **terms)
    best, values = study.best_signal, study.best_values
    assert (best.rule, best.half_life) == (values["allocate.rule"], values["allocate.half_life"])
    alone = bt.run(
        MARKETS.prefix(45), study.best_policy, signal=best, compile=False, sampling="4h", **TERMS
    )
    assert alone.metrics["sharpe"] == study.best["sharpe"]
    again = bt.Study.load(study.folder, market=MARKETS, policy=Constant, signal=arguments["signal"])
    assert again.best_signal == best
    assert study.report(tmp_path / "page.html").read_text().count("allocate.rule") > 0
