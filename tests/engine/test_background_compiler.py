"""The process that compiles in the background: when there is one, and that it ends."""

import fcntl
import os
import pickle
import sys
import tempfile

import pytest

from backtest.engine.compile import background_compiler


@pytest.fixture
def office(monkeypatch, tmp_path):
    """Return what was told and the locks of the children that would have been started."""
    told, started = [], []
    monkeypatch.setenv("BACKTEST_COMPILE", "auto")
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("BACKTEST_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(background_compiler, "BACKGROUND", background_compiler.CompilerProcess())
    monkeypatch.setattr(background_compiler.BACKGROUND, "notify", told.append)
    monkeypatch.setattr(
        background_compiler, "start_child", lambda *order: started.append(os.dup(order[-1]))
    )
    yield told, started
    for handle in started:
        os.close(handle)


def test_two_at_once_start_one_child(office):
    told, started = office
    background_compiler.start_compiling((), None)
    background_compiler.start_compiling((), None)
    assert len(started) == 1
    assert told == [background_compiler.NOTE]


def test_a_closed_stderr_is_not_replaced_by_stdout(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    background_compiler.write_note("not compiled yet")
    monkeypatch.undo()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("number", [0, 1, 2])
def test_what_the_child_is_given_has_no_number_of_its_own_streams(number, monkeypatch):
    moved = []
    monkeypatch.setattr(fcntl, "fcntl", lambda handle, _, least: moved.append(handle) or least)
    monkeypatch.setattr(os, "close", moved.append)
    assert background_compiler.avoid_standard_streams(number) == 3
    assert moved == [number, number]
    assert background_compiler.avoid_standard_streams(3) == 3


@pytest.mark.parametrize(("name", "value"), [("CI", "true"), ("BACKTEST_COMPILE", "no")])
def test_there_is_no_child_where_it_is_not_wanted(office, monkeypatch, name, value):
    told, started = office
    monkeypatch.setenv(name, value)
    background_compiler.start_compiling((), None)
    assert (told, started) == ([], [])


def test_there_is_no_child_without_a_folder(office, monkeypatch):
    told, started = office
    monkeypatch.setattr(background_compiler, "find_lasting_folder", lambda: None)
    background_compiler.start_compiling((), None)
    assert (told, started) == ([], [])


def test_a_child_that_cannot_be_started_is_no_error(office, monkeypatch):
    def refuse(*_):
        raise OSError("no processes")

    told, _ = office
    monkeypatch.setattr(background_compiler, "start_child", refuse)
    background_compiler.start_compiling((), None)
    assert told == []


SLEEPER = """
import os, pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
from backtest.engine.compile import background_compiler as background
background.exit_with_parent(int(sys.argv[1]), 0.0)
"""


@pytest.fixture
def child(monkeypatch):
    """Start a real child that waits for the end of this process; return it with its pipe."""
    started = []

    def start():
        reading, writing = os.pipe()
        with tempfile.TemporaryFile() as order:
            order.write(pickle.dumps(sys.path))
            order.seek(0)
            process = background_compiler.open_child(order, (reading, reading))
        os.close(reading)
        monkeypatch.setattr(
            background_compiler.BACKGROUND, "child", background_compiler.Child(process, writing)
        )
        started.append(process)
        return process

    monkeypatch.setattr(background_compiler, "CHILD", SLEEPER)
    yield start
    for process in started:
        process.kill()
        process.wait()


def test_an_interrupt_ends_the_child_at_once(child):
    process = child()
    with pytest.raises(KeyboardInterrupt), background_compiler.ended_by_interrupts():
        raise KeyboardInterrupt
    assert process.returncode == -9
    assert background_compiler.BACKGROUND.child is None


@pytest.mark.slow
def test_the_child_of_a_killed_program_ends(child):
    """Its pipe closes without a word."""
    process = child()
    os.close(background_compiler.BACKGROUND.child.pipe)
    assert process.wait(timeout=60) == 1


@pytest.mark.slow
def test_the_child_stays_for_a_while_after_the_end(child):
    process = child()
    background_compiler.release_child()
    process.returncode = None
    assert process.wait(timeout=60) == 1  # its time was up: none was given


def test_a_program_that_an_interrupt_ended_keeps_no_child(child, monkeypatch):
    process = child()
    monkeypatch.setattr(sys, "last_type", KeyboardInterrupt, raising=False)
    background_compiler.release_child()
    assert process.returncode == -9


def test_what_a_killed_writer_left_is_removed(tmp_path):
    for name, age in (
        (".new-old", 2 * background_compiler.STALE),
        (".new-now", 0.0),
        ("kept", 1e6),
    ):
        path = tmp_path / name
        path.touch()
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    background_compiler.remove_stale(tmp_path)
    assert {each.name for each in tmp_path.iterdir()} == {".new-now", "kept"}
