"""Several writers, kills and full disks leave whole results or none."""

import multiprocessing
import os
import random
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest

from backtest.base import atomic_files, saved_result
from backtest.base.atomic_files import LOCK, hold_lock_file
from backtest.base.errors import DataError
from backtest.engine import result_files
from backtest.store import (
    Filter,
    choose_deletions,
    delete_chosen,
    export,
    list_results,
    listing,
    prune,
    read_entry,
    verify,
    verify_folder,
)
from backtest.store.entry import take_stamp
from backtest.store.find import load_saved
from backtest.store.kinds import hash_manifest
from backtest.store.listing import read_stable_entry
from backtest.strategies import Constant
from tests.fast_cases import every_nth
from tests.store.stores import YEARS, folder_of, live, settle


def save_again(source: Path, store: Path, times: int, log: Path) -> None:
    """Save a result of another capital each time, and note what is finished."""
    found = load_saved(source)
    for k in range(times):
        found.manifest["account"]["capital"] = 1e6 * os.getpid() + k
        found.manifest["id"] = hash_manifest(found.manifest, read_entry(source).kind)
        name = found.save(store).name
        with log.open("a") as file:
            file.write(f"{name}\n")


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


def test_the_same_experiment_is_the_same_folder_with_the_same_bytes(tmp_path):
    first = live(Constant(leverage=1.0)).save(tmp_path)
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    again = live(Constant(leverage=1.0)).save(tmp_path)
    assert first == again
    assert {path.name: path.read_bytes() for path in again.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == [first.name]


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


@pytest.mark.parametrize(("kind", "kills"), [
    ("run", 3),
    pytest.param("sweep", 4, marks=pytest.mark.slow),
    pytest.param("run", 200, marks=pytest.mark.slow),
])  # fmt: skip
def test_killed_writers_lose_nothing_finished_and_leave_nothing_that_could_be_taken_for_it(
    made, processes, tmp_path, monkeypatch, kind, kills
):
    """Writers, killed at random moments: what was finished verifies, drafts are told."""
    source = next(made / e.name for e in list_results(made) if e.kind == kind)
    store, log = tmp_path / "store", tmp_path / "log"
    store.mkdir()
    log.touch()
    moments = random.Random(1)
    done = 0
    while done < kills or (done < 50 * kills and not any(store.glob(".saving-*"))):
        done += 1  # go on until one was killed within a save
        child = processes.Process(target=save_again, args=(source, store, 1000, log))
        before = log.stat().st_size
        child.start()
        for _ in range(24_000):
            if log.stat().st_size > before:
                break
            time.sleep(0.005)
        time.sleep(0.1 * moments.random())
        child.kill()
        child.join()
    finished = set(log.read_text().split())
    checks = [verify_folder(folder) for folder in store.iterdir() if folder.is_dir()]
    assert len(finished) >= kills
    assert finished <= {each.name for each in checks if each.kind == kind}
    assert not any(each.faults for each in checks)
    assert {each.kind for each in checks} == {kind, "leftover"}
    entries = list_results(store, use_index=False)
    assert not any(each.is_busy for each in entries)
    assert finished <= {each.name for each in entries if not each.trouble}
    settle(monkeypatch)
    delete_chosen(store, choose_deletions(store, Filter(before=0), with_damaged=True).to_delete)
    assert {each.kind for each in list_results(store)} == {kind}


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
    before = repr(list_results(store, use_index=False))

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(broken, refuse)
        with pytest.raises(DataError, match="No space left") as caught:
            found.save(store)
    assert source.name in str(caught.value)
    assert repr(list_results(store, use_index=False)) == before
    assert found.save(store).is_dir()


def save_with_little_space(source: Path, store: Path, most: int) -> None:
    """Save where the system itself refuses files of more than so many bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    with pytest.raises(DataError, match="cannot write the "):
        load_saved(source).save(store)


@pytest.mark.parametrize("most", [0, 100, 1_000, 3_000, 20_000])
def test_wherever_the_space_ends_the_writer_is_told_and_nothing_is_left(
    made, processes, tmp_path, most
):
    source = next(made / e.name for e in list_results(made) if e.kind == "run")
    child = processes.Process(target=save_with_little_space, args=(source, tmp_path, most))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------- what other processes do between two system calls


def run_first(monkeypatch, owner, name, act) -> None:
    """Act before the first call of a function of a module."""
    real = getattr(owner, name)

    def call(*words, **named):
        monkeypatch.setattr(owner, name, real)
        act()
        return real(*words, **named)

    monkeypatch.setattr(owner, name, call)


def move_away_once(monkeypatch, owner, name, folder: Path) -> None:
    """Let a folder be missing during the first call of a function of a module."""
    real, aside = getattr(owner, name), folder.with_name("aside")

    def call(*words, **named):
        monkeypatch.setattr(owner, name, real)
        folder.rename(aside)
        try:
            return real(*words, **named)
        finally:
            aside.rename(folder)

    monkeypatch.setattr(owner, name, call)


@pytest.mark.parametrize("kind", ["run", "sweep", "study"])
def test_a_result_that_is_deleted_while_it_is_loaded_is_said(store, monkeypatch, kind):
    owner, name = {
        "run": (result_files.pq, "read_table"),
        "sweep": (saved_result.pq, "read_table"),
        "study": (saved_result.pq, "read_table"),
    }[kind]
    folder = folder_of(store, kind)
    run_first(monkeypatch, owner, name, lambda: shutil.rmtree(folder))
    with pytest.raises(DataError, match="cannot be read: ") as caught:
        load_saved(folder)
    assert str(folder) in str(caught.value)


def test_a_result_that_is_deleted_while_it_is_exported_is_said(store, monkeypatch, tmp_path):
    folder = folder_of(store, "run")
    files = [*export.list_files(folder)]
    monkeypatch.setattr(export, "list_files", lambda _: shutil.rmtree(folder) or files)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        export.export_result(folder, tmp_path / "out.zip")


def test_a_folder_that_is_replaced_while_it_is_verified_is_verified_again(store, monkeypatch):
    folder = folder_of(store, "run")
    move_away_once(monkeypatch, verify, "open_folder", folder)
    assert not verify_folder(folder).faults


def test_a_folder_that_is_replaced_while_it_is_listed_is_read_again(store, monkeypatch):
    folder = folder_of(store, "run")
    move_away_once(monkeypatch, listing, "try_stamp", folder)
    assert not read_stable_entry(folder).trouble
    move_away_once(monkeypatch, listing, "read_entry", folder)
    assert not read_stable_entry(folder).trouble


def test_a_draft_that_a_writer_empties_while_it_is_listed_has_a_stamp(tmp_path, monkeypatch):
    draft = tmp_path / ".saving-x"
    (draft / "run").mkdir(parents=True)
    real = os.scandir
    monkeypatch.setattr(
        "backtest.store.entry.os.scandir",
        lambda path: real(path if Path(path) == draft else tmp_path / "gone"),
    )
    assert [name for name, *_ in take_stamp(draft)] == ["run/"]


def test_prune_names_no_folder_that_another_process_deletes_meanwhile(store, monkeypatch):
    folder = folder_of(store, "run")
    run_first(monkeypatch, prune, "find_reason_to_keep", lambda: shutil.rmtree(folder))
    chosen = choose_deletions(store, Filter(kinds=("run",)))
    assert not [each for each in chosen.kept if each.name == folder.name]
