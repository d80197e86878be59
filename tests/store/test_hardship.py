"""Kills, many processes at once, folders that may not be written, clocks that jump."""

import shutil

import pytest

import backtest as bt
from backtest.base.errors import DataError
from backtest.regress import find_baselines, load_baseline, save_baseline, take_baseline
from backtest.store import choose_deletions, delete_chosen, list_results, verify_folder
from backtest.store.listing import Filter
from backtest.strategies import Constant
from tests.kills import die_at

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")


def live(leverage=1.0):
    market = bt.Market.sample(bars=48)
    terms = {"venue": VENUE, "account": bt.Account(), "compile": False}
    return bt.run(market, Constant(leverage=leverage), **terms)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_record_that_is_killed_at_any_step_leaves_no_baseline_or_a_whole_one(tmp_path):
    baseline = take_baseline(live(), "calm")
    ends = []
    while not ends or ends[-1] != 0:
        folder = tmp_path / f"at-{len(ends)}"
        ends.append(die_at(len(ends), lambda folder=folder: save_baseline(baseline, folder)))
        try:
            assert not load_baseline(find_baselines([folder])[0]).is_other_than(baseline)
        except DataError as error:
            assert "there is no baseline" in str(error)  # noqa: PT017 - either is right
        path = save_baseline(baseline, folder)
        assert not load_baseline(path).is_other_than(baseline)
    assert len(ends) > 4
    assert {*ends[:-1]} == {-9}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_save_and_a_prune_that_are_killed_at_any_step_leave_a_store_that_works(tmp_path):
    result, store = live(), tmp_path / "store"
    source = result.save(tmp_path / "source")

    def prune():
        delete_chosen(store, choose_deletions(store, Filter()).to_delete)

    for work in (lambda: result.save(store), prune):
        ends = []
        while not ends or ends[-1] != 0:
            shutil.rmtree(store, ignore_errors=True)
            if work is prune:
                shutil.copytree(source.parent, store)
            ends.append(die_at(len(ends), work))
            found = list_results(store)
            assert {each.name for each in found if not each.trouble} <= {source.name}
            assert not verify_folder(result.save(store)).faults
        assert {*ends[:-1]} == {-9}
        assert len(ends) > 4
