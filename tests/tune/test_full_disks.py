"""A disk that refuses costs a study nothing that was stored."""

import errno
import os
import re

import pytest

from backtest.base.atomic_files import DRAFT_FILE
from backtest.base.errors import DataError
from tests.tune.test_study_storage import find_folder, is_same
from tests.tuning import seek

pytestmark = pytest.mark.usefixtures("made_up")


def fail_after(monkeypatch, n: int, code: int) -> None:
    """Let the disk refuse every write from the n-th on."""
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
    folder = find_folder(tmp_path / "full")
    assert not list((tmp_path / "full").rglob(f"{DRAFT_FILE}*"))
    assert is_same(whole, seek(store=tmp_path / "full", resume=folder is not None))


def test_a_store_that_cannot_be_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    for store in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(DataError, match=r"cannot write the study: .*; a file is in the way"):
            seek(store=store)
