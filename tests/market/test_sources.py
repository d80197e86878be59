"""Files and folders of every supported layout give the same market; real data load as they are."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest import DataError, Market
from backtest.core import read_stamps
from tests.kit import check_refused
from tests.layouts import MARKET, own_files, write_freqtrade_feather

SAMPLE = Market.sample(bars=24 * 10)
PLAIN = Market.from_frames(SAMPLE.bars(), funding=SAMPLE.funding(), mark=SAMPLE.mark())


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    frame.to_csv(path.with_suffix(".csv"), index_label="time")


# the project's own layout


def test_files_given_one_by_one_are_told_apart_by_their_names(tmp_path):
    names = {"bars": "prices-2023", "mark": "btc_mark_1h", "funding": "Funding.history"}
    frames = {"bars": SAMPLE.bars(), "mark": SAMPLE.mark(), "funding": SAMPLE.funding()}
    for name, frame in frames.items():
        frame.to_csv(tmp_path / f"{names[name]}.csv", index_label="time")

    paths = [tmp_path / f"{name}.csv" for name in names.values()]
    assert Market.load(*paths) == PLAIN
    assert Market.load(*reversed(paths)) == PLAIN
    assert not Market.load(paths[0]).has_mark


def test_a_column_of_a_csv_that_is_empty_is_nan_and_not_text(tmp_path):
    SAMPLE.bars().assign(iv=np.nan).to_csv(tmp_path / "bars.csv", index_label="time")
    assert np.isnan(Market.load(tmp_path).columns["iv"]).all()


def test_a_folder_says_what_its_market_is(tmp_path):
    SAMPLE.bars().to_csv(tmp_path / "bars.csv", index_label="time")
    card = {"instrument": "X", "interval": "1h", "synthetic": True, "sessions": True}
    (tmp_path / "market.json").write_text(json.dumps(card))

    market = Market.load(tmp_path)
    assert market.instrument == "X"
    assert market.synthetic
    assert market.sessions
    assert Market.load(tmp_path, instrument="X") == market


# save and load


def test_a_save_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    check_refused(lambda: SAMPLE.save(tmp_path / "market"), "No space left", DataError)
    assert list(tmp_path.iterdir()) == []


# freqtrade's layout


def test_the_lengths_in_the_names_of_freqtrades_files_count(tmp_path):
    write_freqtrade_feather(tmp_path)
    pair = tmp_path / "BTC_USDT_USDT"
    Path(f"{pair}-1h-mark.feather").rename(f"{pair}-8h-mark.feather")

    market = Market.load(tmp_path)
    assert not market.has_mark
    assert market.filled["mark"] == "not used: mark bars are 8h, bars 1h"

    Path(f"{pair}-1h-futures.feather").rename(f"{pair}-4h-futures.feather")
    check_refused(lambda: Market.load(tmp_path), "bars must open 4h apart", DataError)


# times as a function


@settings(max_examples=100)
@given(
    st.lists(st.integers(200_000_000, 4_000_000_000), min_size=1, max_size=20),
    st.sampled_from([(1, "s"), (10**3, "ms"), (10**6, "us"), (10**9, "ns")]),
)
def test_an_epoch_is_read_in_its_own_unit(seconds, unit):
    factor, _ = unit
    epochs = pd.Index([second * factor for second in seconds])

    read = read_stamps(epochs, name="x")

    assert isinstance(read, np.ndarray)
    assert read.tolist() == [second * 10**9 for second in seconds]


# real data


def test_real_hours_with_mark_and_funding_load_for_the_span_all_three_cover(real):
    with pytest.raises(DataError, match="2 defects") as refused:
        Market.load(real / "btc-usdm-1h")

    message = str(refused.value)
    assert "mark bars must cover the bars, 2538 of 37807 bars lie outside them" in message
    assert "settlements run from 2019-09-10 08:00 to 2023-12-31 16:00 UTC" in message
    assert message.count("since='2019-12-23 11:00', until='2024-01-01'") == 2

    market = Market.load(real / "btc-usdm-1h", since="2019-12-23 11:00", until="2024-01-01")
    assert market.n_bars == 35_269
    assert market.has_mark
    assert market.instrument == "BTCUSDT"
    assert dict(market.filled) == {}

    assert eval(repr(market), {"Market": Market}) == market
    assert market.resample("1d").n_bars == 1469


def test_files_of_two_names_are_not_joined_into_one_market(tmp_path):
    bars = SAMPLE.bars()
    for name, part in {"btc-1": bars[:99], "btc-2": bars[99:], "eth": bars[99:]}.items():
        write_csv(part, tmp_path / name)

    assert Market.load(tmp_path / "btc-1.csv", tmp_path / "btc-2.csv").n_bars == SAMPLE.n_bars
    with pytest.raises(DataError, match="one file of bars is needed"):
        Market.load(tmp_path / "btc-1.csv", tmp_path / "eth.csv")


def test_a_file_from_new_to_old_is_read_from_its_end_and_any_other_order_is_refused(tmp_path):
    """As the documentation of the repair says: nothing is guessed of rows that are mixed up."""
    newest_first = own_files(tmp_path, bars=lambda frame: frame[::-1])
    market = Market.load(*newest_first, instrument="BTCUSDT")
    assert market == MARKET
    assert "sort" not in market.filled

    mixed = own_files(tmp_path, bars=lambda frame: frame[::-1].iloc[[1, 0, *range(2, 96)]])
    with pytest.raises(DataError, match="bars must be in order of time"):
        Market.load(*mixed)
    assert "sort" in Market.load(*mixed, repair="sort").filled
    page = (Path(__file__).parents[2] / "docs" / "quality.md").read_text(encoding="utf-8")
    assert "from new to old" in page
