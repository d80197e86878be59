"""Files and folders that hold no market data are refused with the place and the cure."""

import gzip
import pickle
from pathlib import Path

import pytest

from backtest.base.errors import BacktestError, DataError, ParameterError
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


def test_a_packed_csv_is_refused(tmp_path):
    (tmp_path / "bars.csv").write_bytes(gzip.compress(good()["bars"].to_csv().encode()))
    with pytest.raises(DataError, match=r"a file named \.csv must be one"):
        Market.load(tmp_path)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".feather"])
def test_an_empty_file_is_refused(tmp_path, suffix):
    (tmp_path / f"bars{suffix}").touch()
    with pytest.raises(DataError, match="its content is empty"):
        Market.load(tmp_path)


@pytest.mark.parametrize("suffix", [".parquet", ".feather"])
def test_text_that_is_not_utf_8_is_refused(tmp_path, suffix):
    """Times as text, one of which has a damaged byte."""
    bars = good()["bars"].rename_axis("time").reset_index()
    bars["time"] = bars["time"].astype(str)
    path = tmp_path / f"bars{suffix}"
    if suffix == ".feather":
        bars.to_feather(path, compression="uncompressed")
    else:
        bars.to_parquet(path, compression="none", use_dictionary=False)
    stamp = bars["time"][1].encode()
    path.write_bytes(path.read_bytes().replace(stamp, b"\xff" + stamp[1:]))
    with pytest.raises(DataError, match=r"got one that is not: .*UTF8"):
        Market.load(path)


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


def test_a_csv_without_a_name_for_its_times_is_refused_with_the_cure(tmp_path):
    good()["bars"].to_csv(tmp_path / "bars.csv")
    with pytest.raises(DataError, match="one column of times is needed") as refused:
        Market.load(tmp_path)
    assert "index_label='time'" in refused.value.cure


def test_the_first_bad_cell_of_a_csv_is_named(tmp_path):
    frames = good()
    cell("bars", "close", 6, "n.a.")(frames)
    with pytest.raises(DataError) as refused:
        Market.load(written(tmp_path, frames))
    assert refused.value.problem == "close must be numbers, got 'n.a.' in 1 of 72 cells"
    assert refused.value.where == "bars.csv, line 8"


def test_a_missing_path_is_refused_with_the_nearest_name(tmp_path):
    written(tmp_path)
    with pytest.raises(DataError, match=r"did you mean 'bars\.csv'") as refused:
        Market.load(tmp_path / "bar.csv")
    assert "searched from" in refused.value.where


def test_a_folder_without_bars_is_refused_with_what_it_holds(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"a folder must hold bars, found notes\.txt") as refused:
        Market.load(tmp_path)
    assert "name the files bars.*" in refused.value.cure


def test_funding_alone_is_no_market(tmp_path):
    written(tmp_path)
    with pytest.raises(DataError, match=r"there are no bars, found funding\.csv"):
        Market.load(tmp_path / "funding.csv")


def test_two_files_of_bars_are_refused(tmp_path):
    written(tmp_path)
    good()["bars"].to_parquet(tmp_path / "bars.parquet")
    with pytest.raises(DataError, match=r"one file of bars is needed, found bars\.csv and"):
        Market.load(tmp_path)


def test_a_folder_beside_a_file_is_refused(tmp_path):
    written(tmp_path)
    with pytest.raises(DataError, match="one folder or several files are loaded, got 2 paths"):
        Market.load(tmp_path, tmp_path / "bars.csv")


def test_no_path_is_refused():
    with pytest.raises(ParameterError, match="load needs a path"):
        Market.load()


@pytest.mark.parametrize(("text", "rule"), [
    ("{", "market.json must be JSON"),
    ("[]", "market.json must be an object"),
    ('{"instrment": "X"}', "'instrment' in market.json must be one of .* mean 'instrument'"),
    ('{"synthetic": "no"}', "'synthetic' in market.json must be a bool, got 'no'"),
])  # fmt: skip
def test_a_card_that_cannot_be_read_is_refused(tmp_path, text, rule):
    written(tmp_path)
    (tmp_path / "market.json").write_text(text)
    with pytest.raises(DataError, match=rule) as refused:
        Market.load(tmp_path)
    assert "market.json" in refused.value.where


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


def test_every_refusal_survives_a_process_pool():
    frames = good()
    frames["bars"].iloc[2, 3] = -1.0
    with pytest.raises(BacktestError) as refused:
        load(frames)
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)
