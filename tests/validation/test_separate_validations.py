"""Validations of separate accounts: searched pooled, traded in each market by themselves."""

from typing import Annotated

import numpy as np
import pytest

import backtest as bt
from backtest.store import choose_deletions, delete_chosen, verify_folder
from backtest.store.listing import Filter
from tests.kit import make_venue, simulate_pair
from tests.refusals import check_refused
from tests.validation.test_several_markets import SMALL
from tests.validation.worlds import Lever

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
MARKETS = simulate_pair(480)  # hours; BBB is listed at bar 48, and delisted at bar 432
ONE = MARKETS["AAA"]
COPIES = {"A": ONE, "B": ONE}
TERMS = {
    "venue": make_venue(),
    "account": bt.Account(capital=1_000.0),
    "sampling": "6h",
    "compile": False,
    "accounts": "separate",
}
SHARED = {**TERMS, "accounts": "shared"}
SPANS = {"walk_forward": {"train": "10d", "test": "5d"}}
GROUPS = {"groups": 2, "test_groups": 1, "embargo": 0, "trials": 4, "seed": 1}


@pytest.fixture(scope="module")
def walk():
    return bt.walk_forward(MARKETS, Lever, **TERMS, **SMALL, markets_left_out=4)


@pytest.mark.slow
def test_a_walk_of_copies_is_the_walk_of_one_market():
    one = bt.walk_forward(ONE, Lever, **SHARED, **SMALL)
    two = bt.walk_forward(COPIES, Lever, **TERMS, **SMALL)
    assert two.folds["size"].tolist() == one.folds["size"].tolist()
    names = ("in_sample", "out_of_sample", "rank", "deflated_sharpe")
    for name in names:
        np.testing.assert_allclose(two.folds[name], one.folds[name], rtol=1e-9)
    for name in ("growth_in_sample", "growth_out_of_sample", "sharpe", "deflated_sharpe"):
        assert two.figures[name] == pytest.approx(one.figures[name], rel=1e-9)
    assert two.figures["trades"] == [2 * n for n in one.figures["trades"]]
    for each in two.result.results.values():
        assert np.array_equal(each.record.values, one.result.record.values, equal_nan=True)


@pytest.mark.slow
def test_a_saved_walk_comes_back_with_all_its_accounts(walk, tmp_path):
    folder = walk.save(tmp_path)
    verify_folder(folder)
    loaded = bt.WalkForward.load(folder)
    assert loaded.summary() == walk.summary()
    np.testing.assert_equal(loaded.result.metrics, walk.result.metrics)
    assert "one in each of 2 markets" in " ".join(loaded.summary().split())
    page = loaded.report(tmp_path / "walk.html").read_text()
    assert "4 markets were left out after being seen" in page
    delete_chosen(tmp_path, choose_deletions(tmp_path, Filter()).to_delete)
    assert not folder.exists()


@pytest.mark.slow
def test_a_median_is_judged_by_a_bootstrap():
    found = bt.walk_forward(MARKETS, Lever, **TERMS, **SMALL, pool="median")
    assert "bootstrap probability of the median Sharpe ratio" in " ".join(found.summary().split())
    assert 0.0 <= found.deflated_sharpe <= 1.0


class Follow(Lever):
    """The same over fewer bars: sets that differ, so that trials can be lucky."""

    size: Annotated[float, bt.Range(0.1, 2.0)] = 1.0
    window: Annotated[int, bt.Range(1, 24)] = 3


def measure_sharpe(measures):
    """Return the Sharpe ratio, as an objective that runs of each segment are scored by."""
    return measures["sharpe"]


@pytest.mark.slow
def test_other_validations_of_copies_are_those_of_one_market():
    terms = {**GROUPS, "objective": measure_sharpe}
    one = bt.cross_validate(ONE, Follow, **SHARED, **terms)
    two = bt.cross_validate(COPIES, Follow, **TERMS, **terms)
    np.testing.assert_allclose(two.splits["out_of_sample"], one.splits["out_of_sample"], rtol=1e-9)
    assert two.deflated_sharpe == pytest.approx(one.deflated_sharpe, rel=1e-9)


@pytest.mark.parametrize(("call", "more", "problem"), [
    ("walk_forward", {"account": bt.Account(max_gross_leverage=2.0)}, "max_gross_leverage needs"),
    ("cross_validate", {}, "markets of one span, got BBB from"),
])  # fmt: skip
def test_what_validations_of_separate_accounts_do_not_take(call, more, problem):
    given = {**TERMS, "market": MARKETS, "trials": 4, **more}
    validate = getattr(bt, call)
    check_refused(
        lambda: validate(given.pop("market"), Lever, **given, **SPANS.get(call, {})), problem
    )
