"""Files and folders that hold no market data are refused with the place and the cure."""

import pickle
from pathlib import Path

import pytest

from backtest.base.errors import DataError
from backtest.market.market import Market
from tests.market.good_frames import Frames, cell, good, load


def written(folder: Path, frames: Frames | None = None) -> Path:
    for name, frame in (frames or good()).items():
        frame.to_csv(folder / f"{name}.csv", index_label="time")
    return folder


@pytest.mark.parametrize("suffix", [".parquet", ".feather"])
def test_a_csv_under_another_name_is_refused(tmp_path, suffix):
    written(tmp_path)
    (tmp_path / "bars.csv").rename(tmp_path / f"bars{suffix}")
    with pytest.raises(DataError) as refused:
        Market.load(tmp_path)
    assert f"a file named {suffix} must be one, its content is .csv" in str(refused.value)
    assert f"bars{suffix}" in refused.value.where
    assert "rename it to bars.csv" in refused.value.cure


def test_a_pickle_is_never_opened(tmp_path):
    (tmp_path / "bars.parquet").write_bytes(pickle.dumps(good()["bars"]))
    with pytest.raises(DataError, match="its content is neither table nor text"):
        Market.load(tmp_path)
    (tmp_path / "bars.pkl").write_bytes(pickle.dumps(good()["bars"]))
    with pytest.raises(DataError, match=r"a file must end in \.parquet, .*, got \.pkl"):
        Market.load(tmp_path / "bars.pkl")


def test_a_file_cut_short_is_refused_and_does_not_hide_the_others(tmp_path):
    frames = good()
    frames["funding"].iloc[1, 0] = 0.5
    written(tmp_path, frames)
    frames["bars"].to_parquet(tmp_path / "bars.parquet")
    content = (tmp_path / "bars.parquet").read_bytes()
    (tmp_path / "bars.parquet").write_bytes(content[: len(content) // 2])
    (tmp_path / "bars.csv").unlink()
    with pytest.raises(DataError, match="2 defects") as refused:
        Market.load(tmp_path)
    assert "a file must be whole and readable" in str(refused.value)
    assert "bars.parquet" in str(refused.value)
    assert "funding.csv, first at 2023-01-01 08:00 UTC" in str(refused.value)


def test_the_first_bad_cell_of_a_csv_is_named(tmp_path):
    frames = good()
    cell("bars", "close", 6, "n.a.")(frames)
    with pytest.raises(DataError) as refused:
        Market.load(written(tmp_path, frames))
    assert refused.value.problem == "close must be numbers, got 'n.a.' in 1 of 72 cells"
    assert refused.value.where == "bars.csv, line 8"


def test_a_folder_without_bars_is_refused_with_what_it_holds(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"a folder must hold bars, found notes\.txt") as refused:
        Market.load(tmp_path)
    assert "name the files bars.*" in refused.value.cure


def test_two_files_of_bars_are_refused(tmp_path):
    written(tmp_path)
    good()["bars"].to_parquet(tmp_path / "bars.parquet")
    with pytest.raises(DataError, match=r"one file of bars is needed, found bars\.csv and"):
        Market.load(tmp_path)


def test_another_instrument_than_the_folders_is_refused(tmp_path):
    written(tmp_path)
    (tmp_path / "market.json").write_text('{"instrument": "BTCUSDT"}')
    with pytest.raises(DataError, match="instrument must be the folder's, got 'ETHUSDT'"):
        Market.load(tmp_path, instrument="ETHUSDT")


def test_a_folder_in_use_is_not_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="this one is in use") as refused:
        load(good()).save(tmp_path)
    assert "choose another name" in refused.value.cure
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
