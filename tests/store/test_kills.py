"""Work that is killed at steps drawn from a seed: done again, it ends at the same bytes."""

import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import backtest as bt
from backtest.base.atomic_files import DRAFT_FILE
from backtest.base.json_values import to_plain
from backtest.store import list_results, verify_folder
from backtest.strategies import Constant
from tests.kills import clear_leftovers, count_steps, die_at
from tests.validation.worlds import PLAIN, Lever, make_market, read_all

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
SEARCH = {**PLAIN, "space": {"size": (0.5, 2.0)}, "fix": {"window": 5}, "trials": 4}
SPANS = {"train": "50d", "test": "20d", "sampler": "sobol", "robust": False}
KILLS = 60


def is_there(store: Path, kind: str) -> bool:
    """Return whether a validation was begun or finished; to resume any other is an error."""
    return any(each.is_dir() for each in store.glob(f"*-{kind}-*"))


def walk(store: Path) -> object:
    resume = is_there(store, "walk-forward")
    return bt.walk_forward(make_market(90), Lever, **SEARCH, **SPANS, store=store, resume=resume)


def cross(store: Path) -> object:
    groups = {"groups": 2, "test_groups": 1, "embargo": 0}
    how = {"store": store, "resume": is_there(store, "cross-validation")}
    return bt.cross_validate(make_market(110), Lever, **SEARCH, **groups, **how)


def search(store: Path) -> object:
    is_begun = any(store.glob("*-study-*/manifest.json"))
    how = {"sampler": "sobol", "robust": False}
    return bt.tune(make_market(60), Lever, **SEARCH, **how, store=store, resume=is_begun)


def save(store: Path) -> object:
    return bt.run(make_market(20), Constant(2.0), **PLAIN).save(store)


WORKS = (walk, cross, search, save)


def read_found(store: Path) -> dict[str, object]:
    """Return the files of a store; of a study what it found, as its files hold seconds too.

    A draft of a record of looks may stay after a kill: nothing reads it.
    """
    files = read_all(store).items()
    found: dict[str, object] = {name: data for name, data in files if DRAFT_FILE not in name}
    for each in store.glob("[!.]*-study-*/manifest.json"):
        study = bt.Study.load(each.parent)
        outcome = study.outcome.to_dict()
        found = {name: data for name, data in found.items() if each.parent.name not in name}
        found[each.parent.name] = (study.table.to_csv(), to_plain(outcome), study.manifest)
    return found


def kill_and_do_again(
    work: Callable[[Path], object], folder: Path, kills: int, rng: np.random.Generator
) -> None:
    """Kill work so many times, up to three times in a store, and compare what it ends at."""
    steps = count_steps(lambda: work(folder / "whole"))
    whole, done = read_found(folder / "whole"), 0
    while done < kills:
        store = folder / str(done)
        for _ in range(min(3, kills - done)):
            ended = die_at(int(rng.integers(steps)), lambda store=store: work(store))
            assert ended in (0, -signal.SIGKILL)
            done += ended != 0
            assert not [each for each in list_results(store) if each.trouble and each.id]
        work(store)
        clear_leftovers(store)
        assert not [each for each in list_results(store) if each.trouble]
        assert not any(verify_folder(each).faults for each in store.iterdir() if each.is_dir())
        assert read_found(store) == whole


@pytest.mark.slow
@pytest.mark.parametrize("work", WORKS)
def test_killed_twelve_times_it_ends_at_the_same_bytes(tmp_path, work):
    kill_and_do_again(work, tmp_path, KILLS // len(WORKS), np.random.default_rng(5))
