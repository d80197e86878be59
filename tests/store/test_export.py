"""A result is handed on as an archive or a folder, and nothing leads out of it."""

import os
import shutil
import zipfile

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.base.errors import DataError, ParameterError
from backtest.store import export_result, read_entry, verify_folder
from tests.store.stores import folder_of, spoil


def test_an_archive_is_the_same_bytes_each_time_and_loads_again(store, tmp_path):
    folder = folder_of(store, "run")
    one = export_result(folder, tmp_path / "one.zip", with_csv=True)
    later = shutil.copytree(folder, tmp_path / "later" / folder.name)
    os.utime(later / "manifest.json", ns=(0, 0))
    two = export_result(later, tmp_path / "two.zip", with_csv=True)
    assert one.read_bytes() == two.read_bytes()
    with zipfile.ZipFile(one) as archive:
        archive.extractall(tmp_path / "out")
    assert not verify_folder(tmp_path / "out" / folder.name).faults
    loaded = bt.Result.load(tmp_path / "out" / folder.name)
    bars = pd.read_csv(tmp_path / "out" / f"{folder.name}-csv" / "bars.csv")
    np.testing.assert_array_equal(bars["equity"], loaded.bars["equity"])


@pytest.mark.parametrize("kind", ["run", "sweep", "comparison", "study"])
def test_an_exported_folder_verifies_and_has_the_files_of_the_result_only(store, tmp_path, kind):
    folder = folder_of(store, kind)
    out = export_result(folder, tmp_path / "shared")
    assert not verify_folder(out).faults
    assert repr(read_entry(out).metrics) == repr(read_entry(folder).metrics)
    with pytest.raises(ParameterError, match="must not exist yet"):
        export_result(folder, tmp_path / "shared")


def test_names_in_an_archive_are_safe_and_a_damaged_result_is_not_handed_on(store, tmp_path):
    folder = folder_of(store, "run")
    hostile = folder.rename(store / "..\u202e<script> \\evil")
    archive = export_result(hostile, tmp_path / "x.zip")
    with zipfile.ZipFile(archive) as found:
        for name in found.namelist():
            assert set(name) <= {*"abcdefghijklmnopqrstuvwxyz", *"./-"}
            assert not name.startswith((".", "/"))
            assert ".." not in name
    spoil(hostile / "bars.parquet", "flipped")
    with pytest.raises(DataError, match=r"bars\.parquet was changed"):
        export_result(hostile, tmp_path / "y.zip")
