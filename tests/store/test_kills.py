"""Kills, several writers and full disks leave whole results or none."""

import multiprocessing
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import backtest as bt
from backtest import DataError, results
from backtest.core import to_plain
from backtest.core.atomic_files import DRAFT_FILE, LOCK, hold_lock_file
from backtest.strategies import Constant
from tests.kills import clear_leftovers, count_steps, die_at
from tests.kit import ask_test, slow
from tests.store.conftest import SEARCH, SPANS
from tests.validation.worlds import TERMS, Lever, make_market, read_all

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def is_there(store: Path, kind: str) -> bool:
    """Return whether a validation was begun or finished; to resume any other is an error."""
    return any(folder.is_dir() for folder in store.glob(f"*-{kind}-*"))


def walk(store: Path) -> object:
    resume = is_there(store, "walk-forward")
    return ask_test(
        "walk_forward", make_market(90), Lever, **SEARCH, **SPANS, store=store, resume=resume
    )


def search(store: Path) -> object:
    is_begun = any(store.glob("*-study-*/manifest.json"))
    how = {"sampler": "sobol", "robust": False}
    return ask_test("tune", make_market(60), Lever, **SEARCH, **how, store=store, resume=is_begun)


def save(store: Path) -> object:
    return bt.run(make_market(20), Constant(2.0), **TERMS).save(store)


WORKS = (walk, search, save)


def read_found(store: Path) -> dict[str, object]:
    """Return the files of a store; of a study what it found, as its files hold seconds too. A draft
    of a record of looks may stay after a kill: nothing reads it."""
    files = read_all(store).items()
    found: dict[str, object] = {name: data for name, data in files if DRAFT_FILE not in name}

    for manifest in store.glob("[!.]*-study-*/manifest.json"):
        folder = manifest.parent
        study = bt.Study.load(folder)
        outcome = study.outcome.to_dict()
        found = {name: data for name, data in found.items() if folder.name not in name}
        found[folder.name] = (study.table.to_csv(), to_plain(outcome), study.manifest)
    return found


def kill_and_do_again(
    work: Callable[[Path], object], folder: Path, kills: int, rng: np.random.Generator
) -> None:
    steps = count_steps(lambda: work(folder / "whole"))
    whole = read_found(folder / "whole")

    done = 0
    while done < kills:
        store = folder / str(done)
        for _ in range(min(3, kills - done)):
            ended = die_at(int(rng.integers(steps)), lambda store=store: work(store))
            assert ended in (0, -signal.SIGKILL)
            done += ended != 0
            entries = results.list_results(store)
            assert not [entry for entry in entries if entry.trouble and entry.id]

        work(store)
        clear_leftovers(store)
        assert not [entry for entry in results.list_results(store) if entry.trouble]
        for result in store.iterdir():
            if result.is_dir():
                assert not results.verify_folder(result).faults
        assert read_found(store) == whole


@pytest.mark.slow
@pytest.mark.parametrize("work", WORKS)
def test_killed_twelve_times_it_ends_at_the_same_bytes(tmp_path, work):
    kill_and_do_again(work, tmp_path, 12, np.random.default_rng(5))


def save_the_same(source: Path, store: Path, times: int) -> None:
    found = results.load_saved(source)
    for _ in range(times):
        found.save(store)


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["backtest", "pyarrow.parquet", "backtest.results"])
    return context


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["run", "sweep", "comparison"])
def test_two_writers_and_a_reader_never_meet_half_a_result(made, processes, tmp_path, kind):
    """Between two renames there is a moment without any: the reader then sees none."""
    source = find_result(made, kind)
    shutil.copytree(source, tmp_path / source.name)
    told = (source, tmp_path, 8)
    writers = [processes.Process(target=save_the_same, args=told) for _ in range(2)]

    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        results.list_results(tmp_path)  # it raises nothing
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0

    assert not results.verify_folder(tmp_path / source.name).faults
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [source.name]


def find_result(store: Path, kind: str) -> Path:
    entry = next(entry for entry in results.list_results(store) if entry.kind == kind)
    return store / entry.name


def test_a_draft_that_is_being_written_is_told_from_one_that_was_left(tmp_path):
    draft = tmp_path / ".saving-x"
    draft.mkdir()

    assert "was left" in results.read_entry(draft).trouble
    with hold_lock_file(draft / LOCK):
        assert results.read_entry(draft).is_busy
        assert results.choose_deletions(tmp_path, results.Filter(), with_damaged=True) == ([], [])

    chosen, _ = results.choose_deletions(tmp_path, results.Filter(), with_damaged=True)
    with hold_lock_file(draft / LOCK):
        assert results.delete_chosen(tmp_path, chosen) == ([], [".saving-x"])
    assert results.delete_chosen(tmp_path, chosen) == ([".saving-x"], [])


@pytest.mark.parametrize("kind", ["run", "sweep", "comparison"])
@pytest.mark.parametrize(
    "broken", ["backtest.core.code_names.pq.write_table", "pathlib.Path.write_text", "os.fsync"]
)
@pytest.mark.parametrize("is_there", [True, *slow([False])])
def test_a_full_disk_leaves_a_store_as_it_was(made, tmp_path, monkeypatch, kind, broken, is_there):
    """Whichever write finds no space: no folder that was not there, and the old one whole."""
    source = find_result(made, kind)
    found = results.load_saved(source)
    store = tmp_path / "store"
    if is_there:
        found.save(store)
    before = repr(results.list_results(store))

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(broken, refuse)
        with pytest.raises(DataError, match="No space left") as caught:
            found.save(store)

    assert source.name in str(caught.value)
    assert repr(results.list_results(store)) == before
    assert found.save(store).is_dir()
