"""Bad market data are refused with the rule, the value, the place and the cure; all at once."""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from backtest.base.errors import BacktestError, DataError, ParameterError
from backtest.market.market import Market

DAYS = 3
Frames = dict[str, pd.DataFrame]


def hourly(hours: int = 24 * DAYS, start: str = "2023-01-01", zone: str | None = "UTC"):
    return pd.date_range(start, periods=hours, freq="h", tz=zone)


def good() -> Frames:
    """Three days of hourly bars, mark bars and 8-hour funding, without a defect."""
    index = hourly()
    last = pd.DataFrame(
        {"open": 100.0, "high": 102.0, "low": 99.0, "close": 101.0, "volume": 5.0}, index=index
    )
    stamps = pd.date_range("2023-01-01", periods=3 * DAYS, freq="8h", tz="UTC")
    return {
        "bars": last,
        "mark": last[["open", "high", "low", "close"]].copy(),
        "funding": pd.DataFrame({"rate": 1e-4}, index=stamps),
    }


def load(frames: Frames, **arguments: object) -> Market:
    bars = frames.pop("bars")
    return Market.from_frames(bars, **frames, **arguments)


class Case(NamedTuple):
    """How the good frames are spoilt, and what the message must then say."""

    name: str
    spoil: Callable[[Frames], object]
    rule: str
    value: str
    place: str
    cure: str


def cell(frame: str, column: str, row: int, value: object) -> Callable[[Frames], None]:
    def spoil(frames: Frames) -> None:
        if isinstance(value, str):
            frames[frame][column] = frames[frame][column].astype(object)
        frames[frame].iloc[row, frames[frame].columns.get_loc(column)] = value

    return spoil


def replace(frame: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Frames], None]:
    def spoil(frames: Frames) -> None:
        frames[frame] = change(frames[frame])

    return spoil


def reindexed(stamps: Callable[[pd.DatetimeIndex], object]) -> Callable[[Frames], None]:
    return replace("bars", lambda f: f.set_axis(pd.Index(stamps(f.index), name="time")))


def without(*rows: int) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: frame.drop(frame.index[list(rows)])


def swapped(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.iloc[[0, 1, 3, 2, *range(4, len(frame))]]


def doubled(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.iloc[[0, 1, 2, 2, *range(3, len(frame))]]


def shifted(row: int, by: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        stamps = frame.index.to_series().reset_index(drop=True)
        stamps.iloc[row] += pd.Timedelta(by)
        return frame.set_axis(pd.DatetimeIndex(stamps))

    return change


def coarse_mark(frames: Frames) -> None:
    frames["mark"] = frames["mark"].iloc[::8]


def fine_mark(frames: Frames) -> None:
    frames["mark"] = frames["mark"].resample("30min").ffill()


CASES = [
    Case(
        "unsorted bars",
        replace("bars", swapped),
        "bars must be in order of time",
        "1 of 72 came before",
        "bars, first at 2023-01-01 02:00 UTC",
        "sort_index()",
    ),
    Case(
        "duplicate bars",
        replace("bars", doubled),
        "bars must have each time once",
        "1 of 73 are duplicates",
        "bars, first at 2023-01-01 02:00 UTC",
        "index.duplicated()",
    ),
    Case(
        "missing bars",
        replace("bars", without(10, 11, 40)),
        "bars must follow each other every 1h",
        "3 missing in 2 gaps",
        "first gap from 2023-01-01 10:00 to 2023-01-01 12:00 UTC",
        "between=('2023-01-02 17:00', '2023-01-04')",
    ),
    Case(
        "a bar off the grid",
        replace("bars", shifted(5, "7min")),
        "bars must open 1h apart",
        "1 of 72 open at other times",
        "first at 2023-01-01 05:07 UTC",
        "give interval if",
    ),
    Case(
        "a NaN price",
        cell("bars", "close", 4, np.nan),
        "close must be positive and finite",
        "was nan in 1 of 72 bars",
        "bars, first at 2023-01-01 04:00 UTC",
        "download",
    ),
    Case(
        "an infinite price",
        cell("bars", "high", 4, np.inf),
        "high must be positive and finite",
        "was inf in 1 of 72 bars",
        "bars, first at 2023-01-01 04:00 UTC",
        "download",
    ),
    Case(
        "a price of zero",
        cell("bars", "low", 3, 0.0),
        "low must be positive and finite",
        "was 0.0 in 1 of 72 bars",
        "bars, first at 2023-01-01 03:00 UTC",
        "download",
    ),
    Case(
        "a negative mark price",
        cell("mark", "low", 3, -1.0),
        "mark low must be positive and finite",
        "was -1.0 in 1 of 72 bars",
        "mark, first at 2023-01-01 03:00 UTC",
        "mark_gaps='last'",
    ),
    Case(
        "a high under the close",
        cell("bars", "high", 7, 100.5),
        "high must be at least open and close",
        "was 100.5 under 101.0 in 1 of 72 bars",
        "bars, first at 2023-01-01 07:00 UTC",
        "hides liquidations",
    ),
    Case(
        "a low over the open",
        cell("bars", "low", 7, 100.5),
        "low must be at most open and close",
        "was 100.5 over 100.0 in 1 of 72 bars",
        "bars, first at 2023-01-01 07:00 UTC",
        "download",
    ),
    Case(
        "a mark high under its close",
        cell("mark", "high", 7, 100.5),
        "mark high must be at least open and close",
        "was 100.5 under 101.0",
        "mark, first at 2023-01-01 07:00 UTC",
        "download",
    ),
    Case(
        "a negative volume",
        cell("bars", "volume", 9, -2.0),
        "volume must not be negative or NaN",
        "was -2.0 in 1 of 72 bars",
        "bars, first at 2023-01-01 09:00 UTC",
        "download",
    ),
    Case(
        "a NaN volume",
        cell("bars", "volume", 9, np.nan),
        "volume must not be negative or NaN",
        "was nan in 1 of 72 bars",
        "bars, first at 2023-01-01 09:00 UTC",
        "fillna(0.0)",
    ),
    Case(
        "a mark that begins late",
        replace("mark", lambda f: f.iloc[6:]),
        "mark bars must cover the bars",
        "6 of 72 bars lie outside",
        "mark, 2023-01-01 06:00 to 2023-01-04 UTC; bars 2023-01-01 to 2023-01-04 UTC",
        "between=('2023-01-01 06:00', '2023-01-04')",
    ),
    Case(
        "a mark of another year",
        replace("mark", lambda f: f.shift(365, freq="D")),
        "mark bars must cover the bars",
        "72 of 72 bars lie outside",
        "mark, 2024-01-01 to 2024-01-04 UTC",
        "no bar has all of them: load files that overlap, or leave mark out",
    ),
    Case(
        "mark bars missing inside",
        replace("mark", without(20, 30, 31)),
        "every bar must have a mark bar",
        "3 of 72 bars have none",
        "mark, first at 2023-01-01 20:00 UTC",
        "mark_gaps='last'",
    ),
    Case(
        "longer mark bars",
        coarse_mark,
        "mark bars must open with the bars and be as long",
        "mark bars are 8h apart, bars 1h",
        "mark, first at 2023-01-01 UTC",
        "give mark bars of 1h",
    ),
    Case(
        "shorter mark bars",
        fine_mark,
        "mark bars must open with the bars and be as long",
        "mark bars are 30m apart, bars 1h",
        "mark, first at 2023-01-01 00:30 UTC",
        "give mark bars of 1h",
    ),
    Case(
        "funding that begins late",
        replace("funding", lambda f: f.iloc[3:]),
        "funding must cover the bars, one settlement each 8h",
        "run from 2023-01-02 to 2023-01-03 16:00",
        "funding; bars 2023-01-01 to 2023-01-04 UTC",
        "between=('2023-01-01 16:00', '2023-01-04')",
    ),
    Case(
        "funding that ends early",
        replace("funding", lambda f: f.iloc[:-2]),
        "funding must cover the bars",
        "run from 2023-01-01 to 2023-01-03",
        "funding; bars 2023-01-01 to 2023-01-04 UTC",
        "between=('2023-01-01', '2023-01-03 08:00')",
    ),
    Case(
        "a missing settlement",
        replace("funding", without(4)),
        "settlements must follow each other every 8h",
        "1 missing in 1 gap",
        "funding, first gap from 2023-01-02 to 2023-01-02 16:00 UTC",
        "funding_gaps='zero'",
    ),
    Case(
        "the same settlement twice",
        replace("funding", doubled),
        "funding stamps must have each time once",
        "1 of 10 are duplicates",
        "funding, first at 2023-01-01 16:00 UTC",
        "duplicated()",
    ),
    Case(
        "the same settlement from two sources, 7 ms apart",
        replace("funding", lambda f: pd.concat([f, f.shift(1, freq="7ms")]).sort_index()),
        "each settlement must occur once",
        "9 pairs are under 1m apart, the first by 7 ms",
        "funding, first at 2023-01-01 UTC",
        "keep one stamp of each pair",
    ),
    Case(
        "unsorted funding",
        replace("funding", swapped),
        "funding stamps must be in order",
        "1 of 9 came before",
        "funding, first at 2023-01-01 16:00 UTC",
        "sort_index()",
    ),
    Case(
        "a funding rate in percent",
        cell("funding", "rate", 1, 0.25),
        "funding rates must lie within +10% and -10%",
        "was 0.25 in 1 of 9 settlements",
        "funding, first at 2023-01-01 08:00 UTC",
        "0.0001 is 0.01 %",
    ),
    Case(
        "a NaN funding rate",
        cell("funding", "rate", 1, np.nan),
        "funding rates must lie within",
        "was nan in 1 of 9 settlements",
        "funding, first at 2023-01-01 08:00 UTC",
        "drop rows with unknown rates",
    ),
    Case(
        "a settlement price of zero",
        replace("funding", lambda f: f.assign(mark=0.0)),
        "the mark of a settlement must be positive",
        "was 0.0 in 9 of 9",
        "funding, first at 2023-01-01 UTC",
        "write NaN",
    ),
    Case(
        "no rows",
        replace("bars", lambda f: f.iloc[:0]),
        "data must have rows",
        "found none",
        "where: bars",
        "give data, or leave it out",
    ),
    Case(
        "one bar and no interval",
        replace("bars", lambda f: f.iloc[:1]),
        "the length of a bar must be known",
        "all bars open at one time",
        "where: bars",
        "interval='1h'",
    ),
    Case(
        "bars of half a second",
        lambda f: f.update(
            bars=f["bars"].set_axis(pd.date_range("2023", periods=72, freq="500ms", tz="UTC"))
        ),
        "the length of a bar must be known, in whole seconds",
        "0.5s apart",
        "where: bars",
        "interval='1h'",
    ),
    Case(
        "a misspelt column",
        replace("bars", lambda f: f.rename(columns={"close": "Close"})),
        "a column 'close' is needed",
        "found Close; did you mean 'Close'?",
        "where: bars",
        "rename a column to 'close', in small letters",
    ),
    Case(
        "funding under the name of the venue's field",
        replace("funding", lambda f: f.rename(columns={"rate": "fundingRate"})),
        "a column 'rate' is needed",
        "did you mean 'fundingRate'?",
        "where: funding",
        "rename",
    ),
    Case(
        "a column of funding that means nothing",
        replace("funding", lambda f: f.assign(makr=100.0)),
        "columns must be rate and mark",
        "found 'makr'; did you mean 'mark'?",
        "where: funding",
        "rename it or drop it",
    ),
    Case(
        "one column twice",
        replace("bars", lambda f: f.rename(columns={"volume": "close"})),
        "column names must be unique",
        "'close' is twice",
        "where: bars",
        "drop one",
    ),
    Case(
        "columns without names",
        replace("bars", lambda f: f.assign(x=1.0).rename(columns={"x": 0})),
        "column names must be text",
        "found 0",
        "where: bars",
        "rename the columns",
    ),
    Case(
        "text among prices",
        cell("bars", "close", 6, "n/a?"),
        "close must be numbers",
        "was 'n/a?' in 1 of 72 cells",
        "bars, row 6",
        "correct the cell",
    ),
    Case(
        "numbers written as text",
        replace("bars", lambda f: f.assign(open=f["open"].astype(str))),
        "open must be numbers",
        "was '100.0', numbers written as text",
        "bars, row 0",
        "frame['open'].astype(float)",
    ),
    Case(
        "a further column of text",
        replace("bars", lambda f: f.assign(symbol="BTC")),
        "symbol must be numbers",
        "was 'BTC' in 72 of 72 cells",
        "bars, row 0",
        "drop the column",
    ),
    Case(
        "a further column of dates",
        replace("bars", lambda f: f.assign(close_time=f.index)),
        "close_time must be numbers",
        "found datetime64",
        "bars, row 0",
        "drop the column",
    ),
    Case(
        "no times",
        replace("bars", lambda f: f.reset_index(drop=True)),
        "one column of times is needed",
        "found none among the columns open, high, low, close, volume",
        "where: bars",
        "index the frame by time",
    ),
    Case(
        "two columns of times",
        replace("bars", lambda f: f.reset_index(names="time").assign(date=1)),
        "one column of times is needed",
        "found time and date",
        "where: bars",
        "drop all but one",
    ),
    Case(
        "naive stamps",
        replace("bars", lambda f: f.tz_localize(None)),
        "stamps must have a time zone",
        "was 2023-01-01 00:00:00",
        "bars, row 0",
        "timezone='UTC'",
    ),
    Case(
        "naive texts",
        reindexed(lambda t: t.strftime("%Y-%m-%d %H:%M:%S")),
        "stamps must have a time zone",
        "was 2023-01-01 00:00:00",
        "bars, row 0",
        "timezone='UTC'",
    ),
    Case(
        "texts in two zones",
        reindexed(lambda t: [*t[:3].strftime("%FT%TZ"), *t[3:].strftime("%FT%T+01:00")]),
        "stamps must all be in one zone",
        "were '2023-01-01T00:00:00Z' and '2023-01-01T03:00:00+01:00'",
        "bars, row 3",
        "write them all in UTC",
    ),
    Case(
        "stamps with and without a zone",
        reindexed(lambda t: [*t[:3].astype(object), *t[3:].tz_localize(None).astype(object)]),
        "stamps must all be in one zone",
        "were '2023-01-01 00:00:00+00:00' and '2023-01-01 03:00:00'",
        "bars, row 3",
        "write them all in UTC",
    ),
    Case(
        "an unreadable stamp",
        reindexed(lambda t: ["yesterday", *t[1:].strftime("%FT%TZ")]),
        "every row needs a readable time",
        "was 'yesterday' in 1 row",
        "bars, row 0",
        "2021-05-19T12:00Z",
    ),
    Case(
        "a stamp that is no time",
        reindexed(lambda t: pd.DatetimeIndex([*t[:2], pd.NaT, *t[3:]])),
        "every row needs a readable time",
        "was NaT in 1 row",
        "bars, row 2",
        "drop the row",
    ),
    Case(
        "an epoch left out",
        reindexed(lambda t: [np.nan, *(t[1:].as_unit("s").asi8)]),
        "every row needs a readable time",
        "was empty in 1 row",
        "bars, row 0",
        "drop the row",
    ),
    Case(
        "days as whole numbers",
        reindexed(lambda t: 20230101 + np.arange(len(t))),
        "whole numbers as stamps must be epochs",
        "was 20230101",
        "bars, row 0",
        "2021-05-19T12:00Z",
    ),
    Case(
        "epochs of two units",
        reindexed(lambda t: [int(x.timestamp()) * (1000 if i < 5 else 10**6)
                             for i, x in enumerate(t)]),
        "epochs must all be in one unit",
        "were 1672531200000 and 1672549200000000",
        "bars, row 5",
        "from ms to us",
    ),
]  # fmt: skip


def test_the_frames_that_cases_spoil_are_good():
    market = load(good())
    assert market.n_bars == 72
    assert market.has_mark
    assert market.funding_time.size == 9
    assert dict(market.filled) == {}


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_defect_is_named_with_its_value_place_and_cure(case: Case):
    frames = good()
    case.spoil(frames)
    with pytest.raises(DataError) as refused:
        load(frames)
    message = str(refused.value)
    for part in (case.rule, case.value, case.place, case.cure):
        assert part in message, message


def test_all_defects_are_listed_in_one_error_with_their_own_place_and_cure():
    frames = good()
    for name in ("a NaN price", "a negative volume", "a mark that begins late",
                 "a missing settlement", "a funding rate in percent"):  # fmt: skip
        next(case for case in CASES if case.name == name).spoil(frames)
    with pytest.raises(DataError) as refused:
        load(frames)
    error = refused.value
    assert error.problem.startswith("market data has 5 defects\n  1. close must be positive")
    assert "\n  5. " in error.problem
    assert error.problem.count("\n     where: ") == 5
    assert error.problem.count("\n     cure:  ") == 5
    assert error.where == "the frames given"
    assert error.cure == "correct each of the defects listed above"
    assert max(map(len, error.problem.splitlines())) < 200


def test_a_frame_without_usable_times_does_not_hide_the_defects_of_the_others():
    frames = good()
    frames["bars"] = frames["bars"].tz_localize(None)
    frames["mark"].iloc[3, 0] = np.nan
    frames["funding"].iloc[1, 0] = 0.5
    with pytest.raises(DataError, match="3 defects") as refused:
        load(frames)
    assert "stamps must have a time zone" in str(refused.value)
    assert "mark open must be positive" in str(refused.value)
    assert "funding rates must lie within" in str(refused.value)


def test_a_bad_column_does_not_hide_the_defects_of_the_other_columns():
    frames = good()
    cell("bars", "open", 2, "-")(frames)
    cell("bars", "close", 5, -3.0)(frames)
    with pytest.raises(DataError, match="2 defects") as refused:
        load(frames)
    assert "open must be numbers, was '-'" in str(refused.value)
    assert "close must be positive and finite, was -3.0" in str(refused.value)


def test_the_span_in_the_cure_of_uncovered_bars_is_accepted():
    frames = good()
    frames["mark"] = frames["mark"].iloc[6:]
    frames["funding"] = frames["funding"].iloc[3:]
    with pytest.raises(DataError) as refused:
        load(dict(frames))
    span = ("2023-01-01 16:00", "2023-01-04")
    assert str(refused.value).count(f"between={span}") == 2
    market = load(dict(frames), between=span)
    assert market.n_bars == 56
    assert dict(market.filled) == {}


def test_what_is_filled_by_choice_does_not_shorten_the_span_in_the_cure():
    frames = good()
    frames["mark"] = frames["mark"].iloc[30:]
    frames["funding"] = frames["funding"].iloc[3:]
    with pytest.raises(DataError) as refused:
        load(dict(frames), mark_gaps="last")
    assert "between=('2023-01-01 16:00', '2023-01-04')" in refused.value.cure
    with pytest.raises(DataError) as refused:
        load(dict(frames), funding_gaps="zero")
    assert "between=('2023-01-02 06:00', '2023-01-04')" in refused.value.cure


def test_the_stretch_in_the_cure_of_missing_bars_is_accepted():
    frames = good()
    frames["bars"] = frames["bars"].drop(frames["bars"].index[[10, 11, 40]])
    assert load(frames, between=("2023-01-02 17:00", "2023-01-04")).n_bars == 31


def test_a_defect_outside_the_span_asked_for_does_not_count():
    frames = good()
    frames["bars"].iloc[2, 3] = np.nan
    frames["mark"].iloc[3, 1] = -1.0
    frames["funding"].iloc[0, 0] = np.nan
    assert load(frames, between=("2023-01-02", None)).n_bars == 48


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        (
            "a bar off the grid",  # which leaves a hole, and has no mark bar of its own
            [
                "bars must open 1h apart",
                "bars must follow each other",
                "every bar must have a mark",
            ],
        ),
        (
            "the same settlement from two sources, 7 ms apart",
            ["each settlement must occur once"],
        ),
        ("the same settlement twice", ["funding stamps must have each time once"]),
        ("missing bars", ["bars must follow each other"]),
        ("shorter mark bars", ["mark bars must open with the bars"]),
        ("longer mark bars", ["mark bars must open with the bars"]),
        ("unsorted bars", ["bars must be in order of time"]),
    ],
)
def test_one_fault_is_not_reported_as_others(name, rules):
    frames = good()
    next(case for case in CASES if case.name == name).spoil(frames)
    with pytest.raises(DataError) as refused:
        load(frames)
    assert str(refused.value).count("where:") == len(rules) + (len(rules) > 1)
    for rule in rules:
        assert rule in str(refused.value)


def test_bars_that_are_not_as_long_as_said_are_refused_once():
    with pytest.raises(DataError) as refused:
        load(good(), interval="5m")
    assert refused.value.problem == ("bars must open 5m apart, as given, they open 1h apart")
    assert "interval='1h'" in refused.value.cure


@pytest.mark.parametrize(
    ("arguments", "rule", "cure"),
    [
        ({"mark_gaps": "lst"}, "mark_gaps must be 'last' or None, was 'lst'; did you", "'last'"),
        ({"funding_gaps": True}, "funding_gaps must be 'zero' or None, was True", "'zero'"),
        ({"timezone": "Mars"}, "timezone must be the name of a zone, was 'Mars'", "'UTC'"),
        ({"interval": "1x"}, "a duration is a positive whole number", "'1h'"),
        ({"between": "2023"}, "between must be a pair of times, was '2023'", "between=("),
        ({"between": ("soon", None)}, "a time must be readable, was 'soon'", "2021-05-19"),
        (
            {"between": ("2022-12-31", None)},
            "a span must lie inside the bars and hold one, was 2022-12-31 to 2023-01-04",
            "between=('2023-01-01', '2023-01-04')",
        ),
        (
            {"between": ("2023-01-02", "2023-01-02")},
            "a span must lie inside the bars and hold one",
            "between=('2023-01-01', '2023-01-04')",
        ),
    ],
)
def test_an_argument_that_means_nothing_is_refused(arguments, rule, cure):
    with pytest.raises(ParameterError) as refused:
        load(good(), **arguments)
    assert rule in refused.value.problem
    assert cure in refused.value.cure


@pytest.mark.parametrize("name", ["bars", "mark", "funding"])
def test_what_is_no_frame_is_refused(name):
    with pytest.raises(DataError, match=f"{name} must be a pandas DataFrame, was list"):
        load({**good(), name: [[1, 2]]})


def test_local_times_that_a_clock_change_skips_are_refused():
    frames = {"bars": good()["bars"].set_axis(hourly(start="2023-03-25", zone=None))}
    with pytest.raises(DataError) as refused:
        load(frames, timezone="Europe/Berlin")
    assert "stamps must be moments" in str(refused.value)
    assert "write the stamps in UTC" in str(refused.value)


# files and folders


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
    with pytest.raises(DataError, match=r"a file must end in \.parquet, .*, was \.pkl"):
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
    with pytest.raises(DataError, match=r"a file must be whole and readable, was not: .*UTF8"):
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
    assert refused.value.problem == "close must be numbers, was 'n.a.' in 1 of 72 cells"
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
    with pytest.raises(
        DataError, match=r"one file of bars is needed, found bars\.csv and bars\.parq"
    ):
        Market.load(tmp_path)


def test_a_folder_beside_a_file_is_refused(tmp_path):
    written(tmp_path)
    with pytest.raises(DataError, match="one folder or several files are loaded, were 2 paths"):
        Market.load(tmp_path, tmp_path / "bars.csv")


def test_no_path_is_refused():
    with pytest.raises(ParameterError, match="load needs a path"):
        Market.load()


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("{", "market.json must be JSON"),
        ("[]", "market.json must be an object"),
        ('{"instrment": "X"}', "'instrment' in market.json must be one of .* mean 'instrument'"),
        ('{"synthetic": "no"}', "'synthetic' in market.json must be a bool, was 'no'"),
    ],
)
def test_a_card_that_cannot_be_read_is_refused(tmp_path, text, rule):
    written(tmp_path)
    (tmp_path / "market.json").write_text(text)
    with pytest.raises(DataError, match=rule) as refused:
        Market.load(tmp_path)
    assert "market.json" in refused.value.where


def test_another_instrument_than_the_folders_is_refused(tmp_path):
    written(tmp_path)
    (tmp_path / "market.json").write_text('{"instrument": "BTCUSDT"}')
    with pytest.raises(DataError, match="instrument must be the folder's, was 'ETHUSDT'"):
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
