"""Validations whose process is killed: they go on to the same bytes, and the store knows them."""

import os
import signal
from pathlib import Path

import pytest

import backtest as bt
from backtest.store import (
    Filter,
    choose_deletions,
    delete_chosen,
    list_results,
    load_saved,
    verify_folder,
)
from backtest.tune import UNFINISHED
from backtest.validation.walk_forward import walk_forward
from tests.kills import NEVER, die_at
from tests.validation.worlds import PLAIN, Lever, make_market, read_all

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
MARKET = make_market(90)  # two folds
SMALL = {"trials": 4, "robust": False, "sampler": "sobol", "train": "50d", "test": "20d"}
SPACE = {"space": {"size": (0.5, 2.0)}, "fix": {"window": 5}}


def walk(store: Path, **more):
    return walk_forward(MARKET, Lever, **PLAIN, **SMALL, **SPACE, store=store, **more)


def kill_this_process(done, total):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def begun(tmp_path):
    """Return the store of a walk that was killed after its first batch."""
    store = tmp_path / "killed"
    assert die_at(NEVER, lambda: walk(store, progress=kill_this_process)) == -signal.SIGKILL
    return store


@pytest.mark.slow
def test_a_walk_killed_after_a_batch_ends_at_the_same_bytes(begun, tmp_path):
    made = walk(tmp_path / "whole")
    walk(begun, resume=True)
    assert read_all(begun) == read_all(tmp_path / "whole")
    given_back = walk(begun, resume=True, progress=kill_this_process)
    assert given_back.summary() == made.summary()
    assert read_all(begun) == read_all(tmp_path / "whole")


def test_an_unfinished_walk_is_listed_and_pruned_only_when_asked(begun):
    entry = next(each for each in list_results(begun) if each.kind == "walk-forward")
    assert (entry.name[:12], entry.policy, entry.instrument) == (UNFINISHED, "Lever", "RANDOM")
    assert (entry.note, entry.is_finished, entry.trouble) == ("in fold 1 of 2", False, "")
    assert not verify_folder(begun / entry.name).faults
    with pytest.raises(bt.DataError, match=r"must be finished .* resume=True"):
        load_saved(begun / entry.name)
    assert not choose_deletions(begun, Filter())[0]
    (begun / "notes").mkdir()
    (begun / "notes" / "mine.txt").touch()
    chosen, _ = choose_deletions(begun, None, with_unfinished=True)
    assert delete_chosen(begun, chosen) == ([entry.name], [])
    assert {each.name for each in begun.iterdir() if each.is_dir()} == {"notes"}
