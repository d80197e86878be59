"""Kills, many processes at once, folders that may not be written, clocks that jump."""

import multiprocessing
import os
import random
import shutil
import time
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
            found = list_results(store, use_index=False)
            assert {each.name for each in found if not each.trouble} <= {source.name}
            assert not verify_folder(result.save(store)).faults
        assert {*ends[:-1]} == {-9}
        assert len(ends) > 4


def work_on(source: Path, store: Path, seed: int) -> None:
    """Save, list, verify and prune in one store, over and over."""
    order = random.Random(seed)
    result = bt.Result.load(source)
    for _ in range(8):
        match order.choice(("save", "save", "list", "prune", "verify")):
            case "save":
                result.save(store)
            case "list":
                assert all(each.kind in ("run", "leftover") for each in list_results(store))
            case "prune":
                delete_chosen(store, choose_deletions(store, Filter(), with_damaged=True).to_delete)
            case "verify":
                for each in list_results(store):
                    verify_folder(store / each.name)


@pytest.mark.slow
def test_eight_processes_at_once_leave_a_whole_store(tmp_path):
    """All write the same result, so that they meet at one name."""
    source = live().save(tmp_path / "source")
    store = tmp_path / "store"
    store.mkdir()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["backtest", "pyarrow.parquet", "backtest.store"])
    crew = [context.Process(target=work_on, args=(source, store, seed)) for seed in range(8)]
    for each in crew:
        each.start()
    for each in crew:
        each.join()
    assert [each.exitcode for each in crew] == [0] * 8
    path = bt.Result.load(source).save(store)
    assert not verify_folder(path).faults
    assert [each.name for each in list_results(store) if not each.trouble] == [source.name]


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


@pytest.mark.parametrize("years", [-60, -10, 10, 200])
def test_a_clock_that_jumps_changes_no_result_and_deletes_nothing_new(tmp_path, monkeypatch, years):
    before = live().save(tmp_path / "before")
    now = time.time_ns() + years * 365 * 86_400 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: now)
    monkeypatch.setattr(time, "time", lambda: now / 1e9)
    path = live().save(tmp_path / "store")
    for name in ("manifest.json", "bars.parquet", "metrics.json"):
        assert (path / name).read_bytes() == (before / name).read_bytes()
    (draft := tmp_path / "store" / ".saving-x").mkdir()
    os.utime(draft, ns=(now, now))
    entries = list_results(tmp_path / "store")
    assert [each.trouble == "" for each in entries] == [False, True]
    assert entries[1].seconds >= 0.0
    assert not verify_folder(path).faults
    to_delete = choose_deletions(tmp_path / "store", Filter(before=0), with_damaged=True).to_delete
    assert delete_chosen(tmp_path / "store", to_delete) == ([], [".saving-x"])
    again = list_results(tmp_path / "store")
    assert [each.name for each in again] == [each.name for each in entries]
