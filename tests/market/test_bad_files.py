"""Files and folders that hold no market data are refused with what they hold and where."""

import pickle
from pathlib import Path

import pytest

from backtest.base.errors import DataError
from backtest.market.market import Market
from tests.kit import check_refused
from tests.market.good_frames import Frames, cell, good, load


def write(folder: Path, frames: Frames | None = None) -> Path:
    for name, frame in (frames or good()).items():
        frame.to_csv(folder / f"{name}.csv", index_label="time")
    return folder


def rename(folder: Path) -> None:
    (write(folder) / "bars.csv").rename(folder / "bars.parquet")


def write_cell(folder: Path) -> None:
    frames = good()
    cell("bars", "close", 6, "n.a.")(frames)
    write(folder, frames)


def write_twice(folder: Path) -> None:
    good()["bars"].to_parquet(write(folder) / "bars.parquet")


@pytest.mark.parametrize(("make", "words"), [
    (rename, "a file must be whole and readable"),
    (write_cell, "close must be numbers, got 'n.a.' in 1 of 72 cells (bars.csv, row 6)"),
    (lambda at: (at / "notes.txt").touch(), "there must be bars, found notes.txt"),
    (write_twice, "one file of bars is needed, found bars.csv and"),
    (lambda at: (write(at) / "market.json").write_text('{"interva": 1}'), "did you mean 'interval"),
    (lambda at: (write(at) / "market.json").write_text('{"sessions": 1}'), "must be a bool"),
])  # fmt: skip
def test_a_bad_folder_is_refused(tmp_path, make, words):
    make(tmp_path)
    check_refused(lambda: Market.load(tmp_path), words, DataError)


def test_a_pickle_is_never_opened(tmp_path):
    (tmp_path / "bars.pkl").write_bytes(pickle.dumps(good()["bars"]))
    check_refused(lambda: Market.load(tmp_path / "bars.pkl"), "got .pkl", DataError)


def test_a_file_cut_short_is_refused_and_does_not_hide_the_others(tmp_path):
    frames = good()
    frames["funding"].iloc[1, 0] = 0.5
    write(tmp_path, frames)
    frames["bars"].to_parquet(tmp_path / "bars.parquet")
    content = (tmp_path / "bars.parquet").read_bytes()
    (tmp_path / "bars.parquet").write_bytes(content[: len(content) // 2])
    (tmp_path / "bars.csv").unlink()
    with pytest.raises(DataError, match="2 defects") as refused:
        Market.load(tmp_path)
    assert "a file must be whole and readable" in str(refused.value)
    assert "bars.parquet" in str(refused.value)
    assert "funding.csv, first at 2023-01-01 08:00 UTC" in str(refused.value)


def test_another_instrument_than_the_folders_is_refused(tmp_path):
    (write(tmp_path) / "market.json").write_text('{"instrument": "BTCUSDT"}')
    check_refused(
        lambda: Market.load(tmp_path, instrument="ETHUSDT"), "the folder's, got 'ETHUSDT'"
    )


def test_a_folder_in_use_is_not_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    check_refused(lambda: load(good()).save(tmp_path), "this one is in use", DataError)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
