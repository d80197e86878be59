"""The store: listed from its folders, filtered, ordered, found and compared."""

import shlex

import pytest

import backtest as bt
from backtest.base.provenance import read_provenance, recording_command
from backtest.base.saved_result import describe_origin
from backtest.store import (
    find_folder,
    read_bound,
    read_entry,
    read_time_or_age,
    sort_entries,
)
from backtest.store.listing import StoreEntry
from backtest.strategies import Constant
from backtest.tune import Study
from tests.kit import check_refused
from tests.store.stores import folder_of, live


@pytest.mark.slow
def test_measures_are_those_of_the_run_and_of_the_best_set_and_policy(store):
    run, sweep = folder_of(store, "run"), folder_of(store, "sweep")
    assert read_entry(run).metrics["sharpe"] == bt.Result.load(run).metrics["sharpe"]
    assert read_entry(sweep).metrics["sharpe"] == bt.Sweep.load(sweep).table["sharpe"].max()
    study = folder_of(store, "study")
    assert read_entry(study).metrics["sharpe"] == Study.load(study).best["sharpe"]
    found = bt.Comparison.load(folder_of(store, "comparison"))
    best = found.table.loc[found.order[0], "sharpe"]
    assert read_entry(folder_of(store, "comparison")).metrics["sharpe"] == best


def entry(name="a", **facts) -> StoreEntry:
    return StoreEntry(name, **{"kind": "run", **facts})


def test_a_ruined_account_is_never_among_the_best():
    """Its Sharpe ratio is of the returns before: one that doubled and was lost stood on top."""
    entries = [
        entry(
            "lost", metrics={"sharpe": 9.0, "max_drawdown": 0.1, "mean_leverage": 1, "ruined": 1}
        ),
        entry("poor", metrics={"sharpe": -1.0, "max_drawdown": 0.9, "mean_leverage": 2}),
        entry(
            "good", metrics={"sharpe": 2.0, "max_drawdown": 0.2, "mean_leverage": 3, "ruined": 0}
        ),
    ]

    def names(by, **order):
        return [each.name for each in sort_entries(entries, by, **order)]

    assert names("sharpe") == ["good", "poor", "lost"]
    assert names("max_drawdown") == ["good", "poor", "lost"]
    assert names("sharpe", is_reversed=True) == ["lost", "poor", "good"]
    assert names("max_drawdown", is_reversed=True) == ["lost", "poor", "good"]
    assert names("mean_leverage") == ["good", "poor", "lost"]


def test_a_result_is_found_by_name_id_and_beginning_and_a_damaged_one_too(store):
    folder = folder_of(store, "sweep")
    identity = folder.name.rpartition("-")[2]
    for name in (folder.name, identity, identity[:6], "sweep", str(folder)):
        assert find_folder(name, store) == folder
    (folder / "manifest.json").unlink()
    assert find_folder(identity[:6], store) == folder


@pytest.mark.parametrize(("call", "words"), [
    (lambda _: read_bound("sharpe"), "'sharpe'"),
    (lambda _: read_bound("sharpe=>1"), "'sharpe=>1'"),
    (lambda _: read_bound("sharpe>nan"), "'sharpe>nan'"),
    (lambda _: read_bound("shrpe>1"), "did you mean 'sharpe'"),
    (lambda _: read_time_or_age("soon", 0, where="since"), "since must be a time"),
    (lambda store: find_folder("nothing", store), "no saved result is called 'nothing'"),
    (lambda store: find_folder("../made", store), "made"),
    (lambda _: bt.compare(
        {"a": live(Constant(leverage=1.0)), "b": live(Constant(leverage=1.0), capital=500.0)}),
     "'b' differs from a in account.capital"),
    (lambda _: bt.compare({"a": live(Constant(leverage=1.0))}), "results must be two or more"),
])  # fmt: skip
def test_bad_input_is_refused(call, words, store):
    check_refused(lambda: call(store), words)


@pytest.mark.slow
def test_the_command_that_made_a_result_is_kept_with_it(tmp_path):
    folder = live(Constant(leverage=1.0)).save(tmp_path)
    identity = folder.name[-16:]
    assert not read_provenance(folder, identity).argv
    with recording_command(["backtest", "run", "--policy", "it's mine.py:A"]):
        live(Constant(leverage=1.0)).save(tmp_path)
    making = read_provenance(folder, identity)
    assert shlex.split(describe_origin({}, making).command) == list(making.argv)
    assert "it's mine.py:A" in describe_origin({}, making).remarks[0]
    assert read_provenance(bt.Result.load(folder).save(tmp_path / "b"), identity) == making
