"""A study survives kill -9, full disks and damaged files, and is never mixed up with another."""

import errno
import os
import re
from pathlib import Path
from typing import Annotated

import pandas as pd
import pytest

import backtest as bt
from backtest.core import atomic_files
from backtest.core.atomic_files import DRAFT_FILE
from backtest.core.errors import DataError, ParameterError
from backtest.core.json_values import to_plain
from backtest.search import Study, samplers, trials
from backtest.search.samplers import make_sampler
from tests.kit import check_refused, slow
from tests.tuning import MARKET, Hills, Mixed, seek

pytestmark = pytest.mark.usefixtures("made_up")


def is_same(one: Study, other: Study) -> bool:
    """Tell whether two studies found the same, to the bit; pieces may be cut elsewhere."""
    pd.testing.assert_frame_equal(one.table, other.table)
    assert to_plain(one.outcome.to_dict()) == to_plain(other.outcome.to_dict())
    assert one.manifest == other.manifest
    return True


def test_a_finished_study_is_given_back_at_once_and_not_begun_again(tmp_path):
    first = seek(store=tmp_path)
    calls = []
    again = seek(store=tmp_path, resume=True, progress=calls.append)

    assert is_same(first, again)
    assert not calls

    words = f"{first.folder}: this study was already started; resume=True"
    check_refused(lambda: seek(store=tmp_path), words, ParameterError)


@pytest.mark.slow
def test_a_loaded_study_is_the_one_that_was_made(tmp_path):
    terms = {"space": {"x": (0.0, 10.0), "account.band": (0.0, 0.2)}, "fix": {"y": 20}}
    made = seek(store=tmp_path, **terms)
    loaded = Study.load(made.folder)

    assert is_same(made, loaded)
    assert loaded.summary() == made.summary()
    assert loaded.best_values == made.best_values

    with pytest.raises(ParameterError, match="resume=True returns the study with it"):
        _ = loaded.best_policy

    again = seek(store=tmp_path, resume=True, **terms)
    assert again.best_policy == made.best_policy
    assert again.best_account == made.best_account


@pytest.mark.parametrize("sampler", ["auto", "sobol", *slow(["gp"])])
def test_every_sampler_goes_on_as_if_nothing_had_been(tmp_path, monkeypatch, sampler):
    monkeypatch.setattr(samplers, "make_sampler", make_sampler)
    few = {"trials": 24 if sampler == "gp" else 80, "sampler": sampler, "robust": False}
    whole = seek(store=tmp_path / "whole", **few)

    def interrupt(progress):
        if progress.trials >= few["trials"] // 2:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="unfinished"):
        part = seek(store=tmp_path / "cut", progress=interrupt, **few)
    assert not part.complete
    assert is_same(whole, seek(store=tmp_path / "cut", resume=True, **few))


def make_other_hills() -> type[bt.Policy]:
    class Hills(bt.Policy):
        x: Annotated[float, bt.Range(0.0, 10.0)] = 5.0
        y: Annotated[float, bt.Range(1.0, 100.0, log=True)] = 10.0

        def leverage(self, bar, account):
            return self.x + 1.0

    Hills.__module__ = "tests.tuning"
    Hills.__qualname__ = "Hills"
    return Hills


def test_going_on_with_anything_else_is_refused(tmp_path):
    seek(store=tmp_path)
    for changes in (
        {"market": MARKET.prefix(900)}, {"policy": make_other_hills()}, {"policy": Hills(x=4.0)},
        {"seed": 1}, {"account": bt.Account(band=0.1)}, {"fix": {"y": 3.0}},
    ):  # fmt: skip
        words = "no study of Hills of these data, policy source and settings to resume"
        check_refused(lambda given=changes: seek(store=tmp_path, resume=True, **given), words)


def cut(store: Path, n: int = 14) -> Path:
    calls = iter(range(1, n + 1))

    def interrupt(progress):
        if next(calls) == n:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="unfinished"):
        folder = seek(store=store, progress=interrupt).folder

    assert len(list((folder / "trials").iterdir())) == n
    return folder


def test_two_processes_do_not_work_on_one_study(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic_files, "PATIENCE", 0.0)
    words = f"another process ({os.getpid()}) is already running"
    with trials.hold_lock(cut(tmp_path)):
        check_refused(lambda: seek(store=tmp_path, resume=True), words, DataError)

    assert seek(store=tmp_path, resume=True).complete  # a lock left behind is no obstacle


def test_a_truncated_batch_is_named_and_costs_only_itself(tmp_path):
    whole = seek()
    folder = cut(tmp_path)

    path = folder / "trials" / "000007.parquet"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    words = f"{path}: cannot read trials"
    check_refused(lambda: seek(store=tmp_path, resume=True), words, DataError)

    for later in sorted((folder / "trials").glob("*.parquet"))[7:]:
        later.unlink()
    pd.testing.assert_frame_equal(whole.table, seek(store=tmp_path, resume=True).table)


def test_a_sampler_that_has_changed_is_noticed(tmp_path, monkeypatch):
    cut(tmp_path)
    monkeypatch.setattr("tests.tuning.Drawn.batch", 30)

    with pytest.raises(DataError, match="does not hold the sets that the sampler proposes"):
        seek(store=tmp_path, resume=True)


def fail_after(monkeypatch, n: int, code: int) -> None:
    count = iter(range(10**9))
    sync = os.fsync

    def refuse(handle):
        if next(count) >= n:
            raise OSError(code, os.strerror(code))
        sync(handle)

    monkeypatch.setattr(os, "fsync", refuse)


@pytest.mark.slow
@pytest.mark.parametrize("n", [0, 9])
def test_a_full_disk_loses_no_finished_trial(tmp_path, monkeypatch, n):
    code = errno.ENOSPC
    whole = seek(store=tmp_path / "whole")
    with monkeypatch.context() as patch:
        fail_after(patch, n, code)
        with pytest.raises(DataError, match=f"{re.escape(os.strerror(code))}; resume=True"):
            seek(store=tmp_path / "full")

    assert not list((tmp_path / "full").rglob(f"{DRAFT_FILE}*"))
    assert is_same(whole, seek(store=tmp_path / "full", resume=n > 0))


def test_a_store_that_cannot_be_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    for store in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(DataError, match=r"cannot write the study: .*; a file is in the way"):
            seek(store=store)


def test_nothing_in_a_folder_is_code(tmp_path):
    seek(Mixed, store=tmp_path)
    kinds = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert kinds == {".json", ".jsonl", ".parquet"}
