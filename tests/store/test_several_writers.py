"""Several writers, kills and full disks leave whole results or none."""

import multiprocessing
import os
import shutil
from pathlib import Path

import pytest

from backtest.base import atomic_files
from backtest.base.atomic_files import LOCK, hold_lock_file
from backtest.base.errors import DataError
from backtest.store import (
    Filter,
    choose_deletions,
    delete_chosen,
    list_results,
    prune,
    read_entry,
    verify_folder,
)
from backtest.store.folders import load_saved
from tests.kit import every_nth
from tests.store.stores import YEARS


def save_the_same(source: Path, store: Path, times: int) -> None:
    """Save one result over and over under its own name."""
    found = load_saved(source)
    for _ in range(times):
        found.save(store)


@pytest.fixture(scope="module")
def processes():
    """Return a way to start processes that have loaded everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["backtest", "pyarrow.parquet", "backtest.store"])
    return context


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "can_exchange"), [("run", True), ("run", False), ("sweep", True), ("comparison", True)]
)
def test_two_writers_of_one_result_and_a_reader_never_meet_half_of_it(
    made, processes, tmp_path, monkeypatch, kind, can_exchange
):
    """Without an exchange of folders there is a moment without any: the reader then sees none."""
    source = next(made / e.name for e in list_results(made) if e.kind == kind)
    shutil.copytree(source, tmp_path / source.name)
    target = save_the_same if can_exchange else save_slowly
    writers = [processes.Process(target=target, args=(source, tmp_path, 15)) for _ in range(2)]
    for each in writers:
        each.start()
    seen = []
    while any(each.is_alive() for each in writers):
        entry = next((e for e in list_results(tmp_path) if e.name == source.name), None)
        seen.append(entry is not None and not entry.trouble)
    for each in writers:
        each.join()
        assert each.exitcode == 0
    assert all(seen) or not can_exchange
    assert not verify_folder(tmp_path / source.name).faults
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == [source.name]


def save_slowly(source: Path, store: Path, times: int) -> None:
    """Save as on a system that cannot exchange two folders at once."""
    atomic_files.exchange_folders = lambda one, other: False
    save_the_same(source, store, times)


def test_a_draft_that_is_being_written_is_told_from_one_that_was_left(tmp_path, monkeypatch):
    monkeypatch.setattr(prune, "QUIET", YEARS)
    draft = tmp_path / ".saving-x"
    draft.mkdir()
    assert "was left" in read_entry(draft).trouble
    with hold_lock_file(draft / LOCK):
        assert read_entry(draft).is_busy
        assert choose_deletions(tmp_path, Filter(), with_damaged=True).to_delete == []
    to_delete = choose_deletions(tmp_path, Filter(), with_damaged=True).to_delete
    assert len(to_delete) == 1
    assert delete_chosen(tmp_path, to_delete) == (
        [],
        [".saving-x"],
    )  # empty: it may have begun just now
    os.utime(draft, ns=(0, 0))
    assert delete_chosen(tmp_path, to_delete) == ([".saving-x"], [])


@pytest.mark.parametrize("kind", ["run", "sweep", "comparison"])
@pytest.mark.parametrize(
    "broken", ["pyarrow.parquet.write_table", "pathlib.Path.write_text", "os.fsync"]
)
@pytest.mark.parametrize("is_there", every_nth([True, False], 4))
def test_a_full_disk_leaves_the_store_as_it_was(
    made, tmp_path, monkeypatch, kind, broken, is_there
):
    """Whichever write finds no space: no folder that was not there, and the old one whole."""
    source = next(made / e.name for e in list_results(made) if e.kind == kind)
    found, store = load_saved(source), tmp_path / "store"
    if is_there:
        found.save(store)
    before = repr(list_results(store))

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(broken, refuse)
        with pytest.raises(DataError, match="No space left") as caught:
            found.save(store)
    assert source.name in str(caught.value)
    assert repr(list_results(store)) == before
    assert found.save(store).is_dir()


# ------------------------------------------- what other processes do between two system calls
