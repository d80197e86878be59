"""Schedules of re-tuning are compared over the same bars, with the tests of comparisons."""

import math

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.measures.paired_bootstrap import holm
from backtest.tune.holdout import LOOKS
from backtest.tune.other_trials import TRIED
from backtest.validation.schedule_search import plan_schedules, schedules
from backtest.validation.schedules import Schedules
from tests.validation.worlds import PLAIN, Lever, Stop, make_market, read_all

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # test spans under 200 bars
MARKET = make_market(140)
SMALL = {"train": ("60d", "all"), "test": ("40d",), "trials": 4, "robust": False,
         "sampler": "sobol", "draws": 199}  # fmt: skip


@pytest.fixture(scope="module")
def found():
    return schedules(MARKET, Lever, **PLAIN, **SMALL)


def test_every_schedule_is_tested_over_the_same_bars():
    planned = plan_schedules(MARKET, ["60d", "90d", "all"], ["20d", "45d"])
    assert len(planned) == 7
    assert {each.spans[0].test for each in planned} == {90 * 4}
    assert {each.spans[-1].stop for each in planned} == {MARKET.n_bars}
    trained = {each.name: each.spans[1].train_stop - each.spans[1].train for each in planned[1:]}
    assert trained["20d on 60d"] == 60 * 4
    assert trained["20d on all"] == 110 * 4
    assert [len(each.spans) for each in planned] == [1, 3, 2, 3, 2, 3, 2]


def test_a_schedule_grows_as_the_walk_with_its_folds(found):
    walk = bt.walk_forward(
        MARKET, Lever, **PLAIN, train="60d", test="40d", trials=4, robust=False, sampler="sobol"
    )
    row = found.table.loc["40d on 60d"]
    assert row["sharpe"] == walk.result.metrics["sharpe"]
    days = (MARKET.end - MARKET.start) / 86_400e9 - 60
    growth = math.log1p(walk.result.metrics["total_return"]) * 365 / days
    assert row["log_growth"] == pytest.approx(growth)
    never = found.table.loc["never"]
    assert never["sharpe"] == walk.fixed.metrics["sharpe"]
    assert row["difference"] == pytest.approx(row["log_growth"] - never["log_growth"])


def test_p_values_are_corrected_for_the_number_of_schedules(found):
    tested = found.table[found.table["basis"] == "test"]
    assert tested["p_holm"].to_numpy() == pytest.approx(holm(tested["p_value"].to_numpy()))
    assert (found.table["low"] <= found.table["difference"]).loc[tested.index].all()
    assert found.table.loc["never", "basis"] == "baseline"
    assert 1.0 <= found.figures["effective_trials"] <= 3.0


def test_the_summary_begins_with_the_verdict(found):
    assert found.summary().startswith("Verdict")
    assert found.verdict in " ".join(found.summary().split())


@pytest.mark.slow
def test_schedules_killed_at_any_moment_end_at_the_same_bytes(tmp_path, found):
    schedules(MARKET, Lever, **PLAIN, **SMALL, store=tmp_path / "whole")
    for kill in range(3):
        left = kill + 1

        def count(done, total):
            nonlocal left
            left -= 1
            if left < 0:
                raise Stop

        with pytest.raises(Stop):
            schedules(MARKET, Lever, **PLAIN, **SMALL, store=tmp_path / "cut", resume=kill > 0,
                      progress=count)  # fmt: skip
    schedules(MARKET, Lever, **PLAIN, **SMALL, store=tmp_path / "cut", resume=True)
    assert read_all(tmp_path / "cut") == read_all(tmp_path / "whole")
    folder = next(each for each in (tmp_path / "cut").iterdir() if each.name not in (LOOKS, TRIED))
    loaded = Schedules.load(folder)
    pd.testing.assert_frame_equal(loaded.table, found.table)
    assert loaded.summary() == found.summary()
    assert np.array_equal(loaded.returns.to_numpy(), found.returns.to_numpy())


@pytest.mark.parametrize(("given", "match"), [
    ({"train": ()}, "length of train"),
    ({"test": ("all",)}, "a duration is"),
    ({"test": (math.nan,)}, "test must be"),
    ({"baseline": "40d on 30d"}, "baseline must be"),
    ({"draws": 5}, "draws"),
    ({"train": ("400d",)}, "leave bars to test on"),
    ({"test": ("4d",)}, "20 bars"),
    ({"resume": True}, "must have a store"),
])  # fmt: skip
def test_arguments_that_cannot_be_are_refused(given, match):
    with pytest.raises(bt.ParameterError, match=match):
        schedules(MARKET, Lever, **PLAIN, **{**SMALL, **given})


def test_more_than_forty_schedules_are_refused():
    lengths = [f"{days}d" for days in range(5, 46)]
    assert len(plan_schedules(MARKET, ["60d"], lengths[:40])) == 1 + 40  # and never
    with pytest.raises(bt.ParameterError, match=r"at most 40 schedules can be .* got 41"):
        plan_schedules(MARKET, ["60d"], lengths)
