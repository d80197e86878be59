"""The lock between processes: one holder, and askers that refuse nobody."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from backtest.base import atomic_files
from backtest.base.atomic_files import LOCK, LockHeldError, hold_lock_file, is_lock_held
from backtest.base.errors import DataError
from backtest.tune.journal import hold_lock

ASKED = 300


def ask_again_and_again(path, stop) -> None:
    """Ask whether a file is held, as fast as that goes."""
    while not stop.is_set():
        is_lock_held(path)


@pytest.mark.slow
def test_a_study_begins_while_other_processes_ask_for_its_lock(tmp_path):
    """Askers take the lock for an instant: one beginning in three would be refused at once."""
    with hold_lock(tmp_path):
        pass
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    askers = [
        context.Process(target=ask_again_and_again, args=(tmp_path / LOCK, stop)) for _ in range(2)
    ]
    for each in askers:
        each.start()
    try:
        for _ in range(ASKED):
            with hold_lock(tmp_path):
                assert is_lock_held(tmp_path / LOCK)
    finally:
        stop.set()
        for each in askers:
            each.join()


def test_a_second_holder_is_refused_with_the_number_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic_files, "PATIENCE", 0.0)
    with hold_lock(tmp_path):
        with pytest.raises(DataError, match=rf"process \({os.getpid()}\) is already"):
            hold_lock(tmp_path).__enter__()
        with pytest.raises(LockHeldError, match=str(os.getpid())):
            hold_lock_file(tmp_path / LOCK).__enter__()
    assert not is_lock_held(tmp_path / LOCK)
    with hold_lock(tmp_path):
        assert is_lock_held(tmp_path / LOCK)


@pytest.mark.slow
def test_a_process_that_dies_lets_go(tmp_path):
    code = "import os\nfrom pathlib import Path\n"
    code += "from backtest.base.atomic_files import hold_lock_file\n"
    code += f"hold_lock_file(Path({str(tmp_path / LOCK)!r})).__enter__()\nos._exit(0)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / LOCK).read_text().strip().isdigit()
    assert not is_lock_held(tmp_path / LOCK)


def test_a_lock_file_that_its_holder_deletes_is_made_again(tmp_path, monkeypatch):
    """A fetch deletes its lock when it is done, while the next one may have opened it already."""
    path, real = tmp_path / "work" / LOCK, atomic_files.lock_handle

    def delete(handle, patience=None):
        monkeypatch.setattr(atomic_files, "lock_handle", real)
        path.unlink()
        path.parent.rmdir()
        return real(handle, patience)

    monkeypatch.setattr(atomic_files, "lock_handle", delete)
    with hold_lock_file(path):
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_folder_that_is_deleted_while_it_is_made_is_made_again(tmp_path, monkeypatch):
    """Between the refusal of mkdir and the look at what is there, its last holder deleted it."""
    real = Path.mkdir

    def refuse(path, *words, **named):
        monkeypatch.setattr(Path, "mkdir", real)
        raise FileExistsError(17, "File exists", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with hold_lock_file(tmp_path / "work" / LOCK):
        assert is_lock_held(tmp_path / "work" / LOCK)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError):
        hold_lock_file(tmp_path / "file" / LOCK).__enter__()


@pytest.mark.slow
def test_the_package_imports_without_the_modules_of_unix():
    code = "import sys\nfor name in ('fcntl', 'resource', 'pwd', 'grp', 'termios'):\n"
    code += "    sys.modules[name] = None\nimport backtest\n"
    code += "import backtest.store"
    subprocess.run([sys.executable, "-c", code], check=True)
