"""Kills, many processes at once, folders that may not be written, clocks that jump."""

import os
import shutil
from pathlib import Path

import pytest

import backtest as bt
from backtest.base.cache_folder import find_cache_folder
from backtest.base.errors import DataError
from backtest.regress import find_baselines, load_baseline, save_baseline, take_baseline
from backtest.store import choose_deletions, delete_chosen, list_results, verify_folder
from backtest.store.listing import Filter
from backtest.strategies import Constant
from tests.commands import call
from tests.kills import die_at

SAID = ("--instrument", "BTCUSDT")
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


@pytest.mark.slow
@pytest.mark.parametrize("results", ["taken", "taken/below", "/proc/results"])
def test_results_that_cannot_be_written_are_said_and_the_numbers_are_told(
    tmp_path, monkeypatch, capsys, results
):
    """A file stands where a folder is wanted; and a system that no user writes to."""
    monkeypatch.chdir(tmp_path)
    Path("taken").write_text("mine")
    bt.Market.sample(bars=48).bars().to_csv("bars.csv", index_label="time")
    code, out, err = call(
        capsys, "run", "--no-compile", "--data", "bars.csv", *SAID, "--results", results
    )
    assert code == 2
    assert "max drawdown" in out.lower() or "drawdown" in out.lower()
    assert err.count("error: ") == 1
    assert "cannot write the" in err
    assert Path("taken").read_text() == "mine"
    for words in (("list",), ("verify",), ("prune", "--damaged", "--yes")):
        assert call(capsys, "results", *words, "--results", results)[0] in (0, 2)


def test_a_home_that_cannot_be_written_moves_the_cache_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "home").write_text("a file")
    monkeypatch.delenv("BACKTEST_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = find_cache_folder()
    assert os.access(folder, os.W_OK)
    assert not folder.is_relative_to(tmp_path)
