"""``assert_policy``: bounds on the measures of a result."""

import math

import numpy as np
import pytest

from backtest.regress import assert_policy, compare_baselines, take_baseline
from tests.markets import bars_market
from tests.refusals import check_refused
from tests.regress.baselines import run


@pytest.fixture(scope="module")
def result():
    return run()


def test_bounds_that_hold_are_true(result):
    metrics = result.metrics
    expected = assert_policy(result)
    assert expected.sharpe >= metrics["sharpe"]
    assert expected.sharpe <= metrics["sharpe"] + 1
    assert 0.0 <= expected.max_drawdown < 1.0
    assert expected.fees > 0
    assert expected.liquidations == 0
    assert expected.sharpe != 99
    assert expected.final_equity == pytest.approx(metrics["final_equity"])
    assert expected.sharpe >= assert_policy(result).sharpe


@pytest.mark.parametrize("check", [
    lambda x: x.max_drawdown <= 0.0,
    lambda x: x.max_drawdown < 0.0,
    lambda x: x.sharpe > 1e9,
    lambda x: x.liquidations == 7,
    lambda x: x.liquidations != 0,
    lambda x: x.ruin_time >= 0,  # NaN holds nothing
    lambda x: x.ruin_time != 0,
    lambda x: x.sharpe >= assert_policy(run(leverage=0.0)).final_equity,
])  # fmt: skip
def test_each_comparison_raises_where_it_does_not_hold(check, result):
    with pytest.raises(AssertionError, match=r"must be .*got"):
        check(assert_policy(result))


NAN = math.nan


@pytest.mark.parametrize(("call", "words"), [
    (lambda result: assert_policy(result).sharp, "did you mean 'sharpe'"),
    (lambda result: assert_policy(result).sharpe >= "1", "sharpe must be compared with a number"),
    (lambda result: assert_policy(result).sharpe >= NAN, "sharpe must be compared"),
    (lambda result: bool(assert_policy(result).sharpe), "compared with a bound"),
    (lambda result: assert_policy({"sharpe": 1.0}), "takes a result"),
])  # fmt: skip
def test_bad_input_is_refused(call, words, result):
    check_refused(lambda: call(result), words)


def test_bars_of_a_year_are_compared_where_the_data_have_no_funding():
    quiet = bars_market(np.full(48, 100.0), np.full(48, 100.0))
    one = take_baseline(run(data=quiet), "quiet")
    assert compare_baselines(one, take_baseline(run(data=quiet), "quiet")).exit_code == 0
