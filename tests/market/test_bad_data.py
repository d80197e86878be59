"""Bad market data are refused with the rule, the value and the place; all at once."""

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import DataError, Market
from tests.kit import check_refused
from tests.market.conftest import (
    Frames,
    cell,
    coarse_mark,
    doubled,
    good,
    hourly,
    load,
    reindexed,
    replace,
    shifted,
    swapped,
    without,
)

BAD = {
    "unsorted bars": (replace("bars", swapped), "bars must be in order of time, 1 of 72 came "
        "before the one above (bars, first at 2023-01-01 02:00 UTC)"),
    "duplicate bars": (replace("bars", doubled), "bars must have each time once, 1 of 73"),
    "missing bars": (replace("bars", without(10, 11, 40)), "bars must follow each other every 1h, "
        "3 missing in 2 gaps (bars, first gap from 2023-01-01 10:00 to 2023-01-01 12:00, last from "
        "2023-01-02 16:00 to 2023-01-02 17:00 UTC); download them, or take the longest whole "
        "stretch, since='2023-01-02 17:00', until='2023-01-04'"),
    "off the grid": (replace("bars", shifted(5, "7min")), "bars must open 1h apart, 1 of 72 open "
        "at other times (bars, first at 2023-01-01 05:07 UTC)"),
    "NaN": (cell("bars", "close", 4, np.nan), "close must be positive and finite, got nan in 1 of "
        "72 bars (bars, first at 2023-01-01 04:00 UTC)"),
    "mark": (cell("mark", "low", 3, -1.0), "mark low must be positive and finite, got -1.0"),
    "high": (cell("bars", "high", 7, 100.5), "high must be at least open and close, got 100.5 "
        "under 101.0 in 1 of 72 bars (bars, first at 2023-01-01 07:00 UTC)"),
    "volume": (cell("bars", "volume", 9, -2.0), "volume must not be negative or NaN, got -2.0"),
    "no volume": (cell("bars", "volume", 9, np.nan), "drop the column"),
    "late mark": (replace("mark", lambda f: f.iloc[6:]), "mark bars must cover the bars, 6 of 72 "
        "bars lie outside them (mark, 2023-01-01 06:00 to 2023-01-04 UTC; bars 2023-01-01 to "
        "2023-01-04 UTC); cut the bars to what is covered, since='2023-01-01 06:00'"),
    "other mark": (replace("mark", lambda f: f.shift(365, freq="D")), "no bar has all of them: "
        "load files that overlap, or leave one out"),
    "mark gap": (replace("mark", without(20, 30, 31)), "every bar must have a mark bar, 3 of 72 "
        "bars have none (mark, first at 2023-01-01 20:00, last at 2023-01-02 07:00 UTC)"),
    "long mark": (coarse_mark, "mark bars are 8h apart, bars 1h"),
    "late funding": (replace("funding", lambda f: f.iloc[3:]), "funding must cover the bars, one "
        "settlement each 8h, settlements run from 2023-01-02 to 2023-01-03 16:00"),
    "settlement": (replace("funding", without(4)), "settlements must follow each other every 8h, "
        "1 missing in 1 gap (funding, first gap from 2023-01-02 to 2023-01-02 16:00 UTC)"),
    "settled twice": (replace("funding", lambda f: pd.concat([f, f.shift(1, freq="7ms")])
        .sort_index()), "9 pairs are under 1m apart, the first by 7 ms (funding, first at"),
    "percent": (cell("funding", "rate", 1, 0.25), "funding rates must lie within +10 % and -10 % "
        "per settlement (0.0001 is 0.01 %), got 0.25 in 1 of 9 settlements"),
    "no rate": (cell("funding", "rate", 1, np.nan), "got nan in 1 of 9 settlements"),
    "free mark": (replace("funding", lambda f: f.assign(mark=0.0)), "got 0.0 in 9 of 9"),
    "one bar": (replace("bars", lambda f: f.iloc[:1]), "length of a bar must be known"),
    "column": (replace("bars", lambda f: f.rename(columns={"close": "closes"})),
        "a column 'close' is needed, found closes (did you mean 'closes'?) (bars)"),
    "column in two cases": (replace("bars", lambda f: f.assign(Close=1.0)),
        "one column may be 'close', whatever its case, found 'close' and 'Close' (bars)"),
    "unknown column": (replace("funding", lambda f: f.assign(makr=100.0)),
        "columns must be rate and mark, found 'makr' (did you mean 'mark'?)"),
    "column twice": (replace("bars", lambda f: f.rename(columns={"volume": "close"})), "is twice"),
    "text": (cell("bars", "close", 6, "n/a?"),
        "close must be numbers, got 'n/a?' in 1 of 72 cells (bars, row 6)"),
    "dates": (replace("bars", lambda f: f.assign(close_time=f.index)), "close_time must be"),
    "no times": (replace("bars", lambda f: f.reset_index(drop=True)),
        "one column of times is needed, found none among the columns open, high, low, close"),
    "two times": (replace("bars", lambda f: f.assign(date=1, time=2).reset_index(drop=True)),
        "found time and date (bars); join a day and its time of day in one column"),
    "tickers": (replace("bars", lambda f: pd.concat({"BTC-USD": f}, axis=1).swaplevel(axis=1)),
        "columns must have one name each, found ('open', 'BTC-USD') (bars); frame.xs('BTC-USD', "),
    "naive": (replace("bars", lambda f: f.tz_localize(None)),
        "stamps must have a time zone, got 2023-01-01 00:00:00 (bars, row 0); frame.tz_local"),
    "two zones": (reindexed(lambda t: [*t[:3].strftime("%FT%TZ"), *t[3:].strftime("%FT%T")]),
        "stamps must all have a zone or none, got '2023-01-01T00:00:00Z' and '2023-01-01T03"),
    "unreadable": (reindexed(lambda t: ["yesterday", *t[1:].strftime("%FT%TZ")]),
        "every row needs a readable time, got 'yesterday' in 1 row (bars, row 0)"),
    "days": (reindexed(lambda t: 20230101 + np.arange(len(t))), "got 20230101 in 72 rows"),
    "two units": (reindexed(
        lambda t: [int(x.timestamp()) * (1000 if i < 5 else 10**6) for i, x in enumerate(t)]
    ), "epochs must all be in one unit, got 1672531200000 and 1672549200000000 (bars, row 5)"),
}  # fmt: skip
SAMPLE = Market.sample(bars=600)
MARKS = "mark prices must stay within 20 % of last prices, got "
RATES = "funding rates must be fractions per settlement, 0.0001 is 0.01 %: their median was "
LATE = np.where(np.arange(4000) < 2900, 1.0, 10.0)


@pytest.mark.parametrize("case", BAD)
def test_bad_data_are_refused(case):
    spoil, words = BAD[case]
    frames = good()
    spoil(frames)

    check_refused(lambda: load(frames), words, DataError)


def test_all_defects_are_listed_in_one_error():
    frames = good()
    for name in ("NaN", "volume", "late mark", "settlement", "percent"):
        spoil, _words = BAD[name]
        spoil(frames)

    with pytest.raises(DataError) as refused:
        load(frames)

    first, *listed = str(refused.value).splitlines()
    assert first == "market data has 5 defects (the frames given)"
    assert listed[0].startswith("  1. close must be positive")
    assert len(listed) == 5


def test_the_span_that_an_error_names_is_accepted():
    # marks from 06:00, settlements from 00:00 + 3 x 8h, a day later: the later one is 16:00
    frames = good()
    frames["mark"] = frames["mark"].iloc[6:]
    frames["funding"] = frames["funding"].iloc[3:]
    span = "since='2023-01-01 16:00', until='2023-01-04'"

    with pytest.raises(DataError) as refused:
        load(dict(frames))
    assert str(refused.value).count(span) == 2

    # Settlements alone begin as late; marks alone begin at 06:00.
    check_refused(lambda: load(dict(frames), mark_gaps="last"), span)
    later = "since='2023-01-01 06:00', until='2023-01-04'"
    check_refused(lambda: load(dict(frames), funding_gaps="zero"), later)

    market = load(dict(frames), since="2023-01-01 16:00", until="2023-01-04")
    assert market.n_bars == 56  # of 72, the first 16 hours are cut
    assert dict(market.filled) == {}

    # without hours 10, 11 and 40 the longest whole stretch is 41 to 71
    holed = good()
    holed["bars"] = holed["bars"].drop(holed["bars"].index[[10, 11, 40]])
    assert load(holed, since="2023-01-02 17:00", until="2023-01-04").n_bars == 31


@pytest.mark.parametrize("until", ["2023-01-02", "2023-01-01 05:00"])
def test_a_span_that_ends_before_it_begins_is_said_to_be_one(until):
    words = f"in this order, got 2023-01-02 and {until}"
    check_refused(lambda: load(good(), since="2023-01-02", until=until), words)


def test_a_defect_outside_the_span_asked_for_does_not_count():
    frames = good()
    frames["bars"].iloc[2, 3] = np.nan
    frames["mark"].iloc[3, 1] = -1.0
    frames["funding"].iloc[0, 0] = np.nan

    assert load(frames, since="2023-01-02").n_bars == 48


def test_local_times_that_a_clock_change_skips_are_refused():
    local_hours = hourly(start="2023-03-25", zone=None)
    frames = {"bars": good()["bars"].set_axis(local_hours)}
    said = "where clocks change in Europe/Berlin"

    check_refused(lambda: load(frames, timezone="Europe/Berlin"), said)


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


def write_bytes(folder: Path, name: str, form: str) -> None:
    """Write the bars into a file whose name is not that of its format."""
    content = (write(folder) / "bars.csv").read_text(encoding="utf-8")
    (folder / "bars.csv").unlink()
    packed = gzip.compress(content.encode())
    (folder / name).write_bytes(packed if form == "packed" else content.encode(form))


@pytest.mark.parametrize(("make", "words"), [
    (rename, "a file must be whole and readable"),
    (write_cell, "close must be numbers, got 'n.a.' in 1 of 72 cells (bars.csv, row 6)"),
    (lambda at: (at / "notes.txt").touch(), "there must be bars, found notes.txt"),
    (write_twice, "one file of bars is needed, found bars.csv and"),
    (lambda at: (write(at) / "market.json").write_text('{"interva": 1}'), "did you mean 'interval"),
    (lambda at: (write(at) / "market.json").write_text('{"sessions": 1}'),
        "'sessions' in market.json must be true or false, got 1 ("),
    (lambda at: write_bytes(at, "bars.csv", "utf-16"), "written in UTF-16: save it in UTF-8"),
    (lambda at: write_bytes(at, "bars.csv", "packed"), "it is packed: call it .csv.gz"),
    (lambda at: write_bytes(at, "bars.csv.gz", "utf-8"), "if it is not packed, call it .csv"),
])  # fmt: skip
def test_a_bad_folder_is_refused(tmp_path, make, words):
    make(tmp_path)
    check_refused(lambda: Market.load(tmp_path), words, DataError)


def test_a_file_cut_short_is_refused_and_does_not_hide_the_others(tmp_path):
    frames = good()
    frames["funding"].iloc[1, 0] = 0.5
    write(tmp_path, frames)

    whole = tmp_path / "bars.parquet"
    frames["bars"].to_parquet(whole)
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) // 2])
    (tmp_path / "bars.csv").unlink()

    with pytest.raises(DataError, match="2 defects") as refused:
        Market.load(tmp_path)

    assert "a file must be whole and readable" in str(refused.value)
    assert "bars.parquet" in str(refused.value)
    assert "funding.csv, first at 2023-01-01 08:00 UTC" in str(refused.value)


def test_another_instrument_than_the_folders_is_refused(tmp_path):
    (write(tmp_path) / "market.json").write_text('{"instrument": "BTCUSDT"}')

    said = "the folder's, got 'ETHUSDT'"
    check_refused(lambda: Market.load(tmp_path, instrument="ETHUSDT"), said)


def build(mark: float | np.ndarray = 1.0, rate: object = None, market: Market = SAMPLE) -> Market:
    marks = market.mark()
    funding = market.funding()
    assert marks is not None
    assert funding is not None

    if rate is not None:
        funding["rate"] = rate

    factor = np.reshape(np.broadcast_to(mark, len(marks)), (-1, 1))
    return Market.from_frames(market.bars(), mark=marks * factor, funding=funding)


@pytest.mark.parametrize(("changes", "words"), [
    ({"mark": 2.0}, f"{MARKS}2 times the last price at the median of 600 bars"),
    ({"mark": 1.25}, f"{MARKS}1.25 times"),
    ({"mark": 0.79}, f"{MARKS}0.79 times"),
    ({"mark": LATE, "market": Market.sample(bars=4000)}, "1000 bars (mark, from 2023-05-06 UTC)"),
    ({"rate": 0.01}, f"{RATES}0.01 in size per 8 hours in 75"),
    ({"rate": -0.01}, RATES),
    ({"rate": 0.005}, f"{RATES}0.005"),
])  # fmt: skip
def test_another_scale_is_refused(changes, words):
    check_refused(lambda: build(**changes), words, DataError)


def test_rates_in_per_cent_are_refused_at_every_cadence_and_in_a_part():
    for hours in (1, 4, 8, 24):
        stamps = pd.date_range("2023-01-01", periods=24 * 25 // hours, freq=f"{hours}h", tz="UTC")
        rates = pd.Series(0.01 * hours / 8, stamps)  # 1 % per 8 hours

        for since, until in ((None, None), ("2023-01-02", "2023-01-05")):
            with pytest.raises(DataError, match="fractions per settlement"):
                Market.from_frames(SAMPLE.bars(), funding=rates, since=since, until=until)


def test_marks_away_in_a_crash_are_taken():
    """40 % off for a day, 10 % for a week, 5 % for good."""
    off = np.ones(600)
    off[100:124] = 0.6
    off[200:368] = 1.1

    assert build(off).has_mark
    assert build(1.05).has_mark


def test_rates_of_a_squeeze_are_taken():
    """10 % once, 3 % at each settlement of a week, 0.75 % of twelve days, 0.3 % throughout."""
    settlement = np.arange(75)
    for count, rate in ((1, -0.1), (21, -0.03), (36, 0.0075), (75, 0.003)):
        rates = np.where(settlement < count, rate, 1e-4)
        assert len(build(rate=rates).funding_rate) == 75


def test_the_report_names_both_and_judges_by_them(tmp_path):
    folder = SAMPLE.save(tmp_path / "bad")
    rescale(folder / "mark.parquet", ["open", "high", "low", "close"], factor=2.0)
    rescale(folder / "funding.parquet", ["rate"], factor=100.0)

    report = bt.quality(folder)

    assert all(report.find(kind, "on another scale").count for kind in ("mark", "funding"))
    marks, rates = report.defects
    assert marks.startswith(MARKS)
    assert rates.startswith(RATES)


def rescale(path: Path, columns: list[str], factor: float) -> None:
    frame = pd.read_parquet(path)
    frame[columns] *= factor
    frame.to_parquet(path)


def test_a_short_file_and_a_small_distance_are_doubts(tmp_path):
    (away,) = bt.quality(build(1.03)).find("mark", "away from last prices").places
    assert away.startswith("1.03 times the last price at the median")

    month = bt.quality(build(rate=0.01, market=Market.sample(bars=168)))
    (high,) = month.find("funding", "high").places
    assert high.endswith("in per cent?")


def test_an_archive_that_finder_made_holds_one_table(tmp_path):
    """It has a hidden twin of each file."""
    content = (write(tmp_path) / "bars.csv").read_bytes()
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bars.csv", content)
        archive.writestr("__MACOSX/._bars.csv", b"of Finder")

    assert Market.load(path).n_bars == len(good()["bars"])


def test_the_columns_of_one_ticker_are_read_as_the_refusal_says():
    bars = pd.concat({"BTC-USD": good()["bars"]}, axis=1).swaplevel(axis=1)
    assert Market.from_frames(bars.xs("BTC-USD", axis=1, level=-1)).n_bars == len(bars)


def test_a_column_in_another_order_is_refused_with_the_order():
    values = pd.Series(np.arange(600.0), index=SAMPLE.times[::-1])
    check_refused(
        lambda: SAMPLE.with_columns(x=values),
        "x: must be in the order of the bars; x.sort_index() puts it there",
        DataError,
    )
    assert SAMPLE.with_columns(x=values.sort_index()).columns["x"][0] == 599.0
