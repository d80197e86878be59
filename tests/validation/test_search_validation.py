"""A search can end with a validation of it, and every look at a test span is counted."""

import pytest

import backtest as bt
from tests.validation.worlds import PLAIN, Lever, make_market

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
MARKET = make_market(130)
SMALL = {"trials": 4, "sampler": "sobol", "robust": False}


@pytest.mark.slow
def test_a_search_ends_with_a_walk_that_is_saved_beside_it(tmp_path):
    study = bt.tune(MARKET, Lever, **PLAIN, **SMALL, store=tmp_path, validate="walk-forward")
    alone = bt.walk_forward(MARKET, Lever, **PLAIN, **SMALL, train="65d", test="10d")
    luck = "deflated_sharpe"  # in the store, the sets of the search count too
    found, bare = study.validation.folds, alone.folds
    assert found.drop(columns=luck).equals(bare.drop(columns=luck))
    assert (found[luck] <= bare[luck]).all()
    assert list(tmp_path.glob("lever-walk-forward-*"))
    again = bt.tune(
        MARKET, Lever, **PLAIN, **SMALL, store=tmp_path, validate="walk-forward", resume=True
    )
    assert again.validation.folds.equals(found)
    assert bt.tune(MARKET, Lever, **PLAIN, **SMALL).validation is None


@pytest.mark.slow
def test_a_walk_counts_as_looks_at_the_holdout_of_a_later_search(tmp_path):
    """Folds of 30 days from day 60: those over days 97.5 to 130 are two of three."""
    walk = bt.walk_forward(MARKET, Lever, **PLAIN, **SMALL, train="60d", test="30d", store=tmp_path)
    assert len(walk.folds) == 3
    study = bt.tune(MARKET, Lever, **PLAIN, **SMALL, store=tmp_path)
    assert study.looks == 1 + 2


def test_an_impossible_validation_is_refused_before_the_search():
    with pytest.raises(bt.ParameterError, match="validate"):
        bt.tune(MARKET, Lever, **PLAIN, **SMALL, validate="guess")
    with pytest.raises(bt.ParameterError, match="200 bars"):
        bt.tune(MARKET, Lever, **PLAIN, **SMALL, validate="cross-validate")
