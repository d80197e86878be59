"""Sets that studies and validations tried on the same bars count as trials of each other."""

import pandas as pd
import pytest

import backtest as bt
from backtest.tune.looks import OtherTrials, find_other_trials, pool_deviation
from backtest.tune.search import describe_market
from backtest.validation.cross_validate import CrossValidation
from backtest.validation.validation import name_result
from backtest.validation.walk_forward import WalkForward
from tests.validation.worlds import PLAIN, Lever, make_market

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # short test spans
MARKET = make_market(210)  # 840 bars of 6 h
FOUR = {"space": {"window": [1, 5, 12, 30]}, "fix": {"size": 1.0}, "trials": 32}
LEAN = {"robust": False, "sampler": "grid", **FOUR}
SPANS = {"train": "90d", "test": "60d"}  # two folds


class Other(Lever):
    """Another policy with the same parameters."""


def walk(policy=Lever, store=None, **given):
    return bt.walk_forward(MARKET, policy, **PLAIN, **{**LEAN, **SPANS, **given}, store=store)


def cross(policy=Lever, store=None, **given):
    asked = {"groups": 4, "test_groups": 2, **FOUR, **given}
    return bt.cross_validate(MARKET, policy, **PLAIN, **asked, store=store)


def tune(policy=Lever, store=None, market=MARKET, **given):
    asked = {"holdout": None, **LEAN, **given}
    return bt.tune(market, policy, **PLAIN, **asked, store=store)


def count(store, market=MARKET, identity="none"):
    data = describe_market(market)
    return find_other_trials(store, {"id": identity, "data": data, "searched": data["end"]})


@pytest.mark.slow
def test_sets_of_all_validations_count_once_each(tmp_path):
    cross(store=tmp_path)
    assert count(tmp_path).n_sets == 4
    cross(store=tmp_path)  # the same validation again
    assert count(tmp_path).n_sets == 4
    walk(Other, store=tmp_path, test="119d")
    found = count(tmp_path)
    assert (found.n_sets, found.policies) == (8, ("Lever", "Other"))
    assert found.n_alike == 4  # the fold trains on 90 of 210 days


@pytest.mark.slow
def test_sets_of_searches_count_in_later_validations_which_say_so(tmp_path):
    tune(Other, store=tmp_path)
    made, alone = cross(store=tmp_path), cross()
    assert (made.figures["other_trials"], made.figures["other_policies"]) == (4, ["Other"])
    assert made.figures["effective_trials"] > alone.figures["effective_trials"]
    assert made.deflated_sharpe < alone.deflated_sharpe
    words = "4 sets that other searches of Other tried on some of the same bars count as"
    assert words in " ".join(made.summary().split())
    assert words not in " ".join(alone.summary().split())
    assert "other_trials" in CrossValidation.load(tmp_path / name_result(made.manifest)).figures

    walked, plain = walk(store=tmp_path), walk()  # the four of the study, four of the other kind
    assert walked.figures["other_trials"] == 4 + 4
    assert (walked.folds["deflated_sharpe"] < plain.folds["deflated_sharpe"]).all()
    rest = [name for name in plain.folds if name != "deflated_sharpe"]
    pd.testing.assert_frame_equal(walked.folds[rest], plain.folds[rest])
    assert "other searches of Lever, Other tried" in " ".join(walked.summary().split())
    assert WalkForward.load(tmp_path / name_result(walked.manifest)).figures["other_policies"] == [
        "Lever",
        "Other",
    ]


@pytest.mark.slow
def test_sharpe_ratios_of_shorter_spans_scatter_more_and_are_left_out(tmp_path):
    """Trains of 50 days count as trials of a search on 210 days, not in its deviation."""
    walk(store=tmp_path, train="50d", test="80d")
    found = count(tmp_path)
    assert (found.n_sets, found.n_alike, found.n_known) == (4, 0, 0)
    assert count(tmp_path, MARKET.prefix(100 * 4)).n_alike == 4
    assert pool_deviation(2.0**0.5, np_of(1.0, 3.0), 2, found) == pytest.approx(2.0**0.5)


def np_of(*values):
    return pd.Series(values).to_numpy()


def test_the_pooled_deviation_by_hand():
    """Own 1 and 3 (variance 2), others 0 and 4 (variance 4) of 6: 2/8 2 + 6/8 4 + 0 = 3.5."""
    others = OtherTrials(6, ("Other",), n_alike=6, n_known=2, mean=2.0, variance=4.0)
    assert pool_deviation(2.0**0.5, np_of(1.0, 3.0), 2, others) == pytest.approx(3.5**0.5)


@pytest.mark.slow
def test_a_walk_counts_as_looks_at_the_holdout_of_a_later_search(tmp_path):
    """Folds of 30 days from day 60: those over days 97.5 to 130 are two of three."""
    market, small = make_market(130), {"trials": 4, "sampler": "sobol", "robust": False}
    walk = bt.walk_forward(market, Lever, **PLAIN, **small, train="60d", test="30d", store=tmp_path)
    assert len(walk.folds) == 3
    study = bt.tune(market, Lever, **PLAIN, **small, store=tmp_path)
    assert study.looks == 1 + 2
