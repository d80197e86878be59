"""Locks of folders that are written: one writer, and onlookers that stop nobody."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import threading
import time
from contextlib import contextmanager

import pytest

from backtest.base import result_folders
from backtest.base.errors import DataError
from backtest.base.result_folders import held, is_held, take_hold
from backtest.tune.study_folder import LOCK, hold_lock

LOOKS = 300


@contextmanager
def locked(path, how):
    """Hold a lock of some kind through another opening of the same file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
        yield handle
    finally:
        os.close(handle)


def look_again_and_again(path, stop) -> None:
    """Look whether a file is held, as fast as that goes."""
    while not stop.is_set():
        is_held(path)


def test_a_study_begins_while_another_process_looks_at_its_lock(tmp_path):
    """With a lock that onlookers take for a moment, one beginning in three would be refused."""
    with hold_lock(tmp_path):
        pass
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    onlookers = [
        context.Process(target=look_again_and_again, args=(tmp_path / LOCK, stop)) for _ in range(2)
    ]
    for each in onlookers:
        each.start()
    try:
        for _ in range(LOOKS):
            with hold_lock(tmp_path):
                assert is_held(tmp_path / LOCK)
    finally:
        stop.set()
        for each in onlookers:
            each.join()


def test_who_only_looks_is_waited_for(tmp_path):
    with locked(tmp_path, fcntl.LOCK_SH) as looking:
        timer = threading.Timer(0.05, fcntl.flock, (looking, fcntl.LOCK_UN))
        began = time.monotonic()
        timer.start()
        with held(tmp_path):
            assert time.monotonic() - began >= 0.04
            assert is_held(tmp_path)
        timer.join()


def test_who_looks_for_ever_is_not_waited_for_so_long(tmp_path, monkeypatch):
    monkeypatch.setattr(result_folders, "LONGEST_LOOK", 0.02)
    with (
        locked(tmp_path, fcntl.LOCK_SH),
        locked(tmp_path, fcntl.LOCK_SH) as other,
        pytest.raises(BlockingIOError),
    ):
        take_hold(other)


def test_a_second_holder_is_refused_at_once(tmp_path):
    with hold_lock(tmp_path):
        began = time.monotonic()
        with pytest.raises(DataError, match=f"process {os.getpid()} is at it"):
            hold_lock(tmp_path).__enter__()
        assert time.monotonic() - began < 1.0
    assert not is_held(tmp_path / LOCK)
