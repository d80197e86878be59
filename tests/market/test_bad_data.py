"""Bad market data are refused with the rule, the value and the place; all at once."""

import numpy as np
import pandas as pd
import pytest

from backtest.base.errors import DataError
from tests.kit import check_refused
from tests.market.good_frames import (
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
        "stretch, between=('2023-01-02 17:00', '2023-01-04')"),
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
        "2023-01-04 UTC); cut the bars to what is covered, between=('2023-01-01 06:00'"),
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
    "percent": (cell("funding", "rate", 1, 0.25), "funding rates must lie within +10% and -10% "
        "per settlement (0.0001 is 0.01 %), got 0.25 in 1 of 9 settlements"),
    "free mark": (replace("funding", lambda f: f.assign(mark=0.0)), "got 0.0 in 9 of 9"),
    "one bar": (replace("bars", lambda f: f.iloc[:1]), "length of a bar must be known"),
    "column": (replace("bars", lambda f: f.rename(columns={"close": "Close"})),
        "a column 'close' is needed, found Close; is it 'Close'? (bars)"),
    "unknown column": (replace("funding", lambda f: f.assign(makr=100.0)),
        "columns must be rate and mark and predicted, found 'makr'; did you mean 'mark'?"),
    "column twice": (replace("bars", lambda f: f.rename(columns={"volume": "close"})), "is twice"),
    "text": (cell("bars", "close", 6, "n/a?"),
        "close must be numbers, got 'n/a?' in 1 of 72 cells (bars, row 6)"),
    "dates": (replace("bars", lambda f: f.assign(close_time=f.index)), "close_time must be"),
    "no times": (replace("bars", lambda f: f.reset_index(drop=True)),
        "one column of times is needed, found none among the columns open, high, low, close"),
    "naive": (replace("bars", lambda f: f.tz_localize(None)),
        "stamps must have a time zone, got 2023-01-01 00:00:00 (bars, row 0); timezone='UTC'"),
    "two zones": (reindexed(lambda t: [*t[:3].strftime("%FT%TZ"), *t[3:].strftime("%FT%T")]),
        "stamps must all have a zone or none, were '2023-01-01T00:00:00Z' and '2023-01-01T03"),
    "unreadable": (reindexed(lambda t: ["yesterday", *t[1:].strftime("%FT%TZ")]),
        "every row needs a readable time, got 'yesterday' in 1 row (bars, row 0)"),
    "days": (reindexed(lambda t: 20230101 + np.arange(len(t))), "got 20230101 in 72 rows"),
    "two units": (reindexed(
        lambda t: [int(x.timestamp()) * (1000 if i < 5 else 10**6) for i, x in enumerate(t)]
    ), "epochs must all be in one unit, were 1672531200000 and 1672549200000000 (bars, row 5)"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_data_are_refused(case):
    spoil, words = BAD[case]
    frames = good()
    spoil(frames)
    check_refused(lambda: load(frames), words, DataError)


def test_all_defects_are_listed_in_one_error():
    frames = good()
    for name in ("NaN", "volume", "late mark", "settlement", "percent"):
        BAD[name][0](frames)
    with pytest.raises(DataError) as refused:
        load(frames)
    first, *listed = str(refused.value).splitlines()
    assert first == "market data has 5 defects (the frames given)"
    assert listed[0].startswith("  1. close must be positive")
    assert len(listed) == 5


def test_the_span_that_an_error_names_is_accepted():
    frames = good()
    frames["mark"] = frames["mark"].iloc[6:]
    frames["funding"] = frames["funding"].iloc[3:]
    span = ("2023-01-01 16:00", "2023-01-04")
    with pytest.raises(DataError) as refused:
        load(dict(frames))
    assert str(refused.value).count(f"between={span}") == 2
    check_refused(lambda: load(dict(frames), mark_gaps="last"), f"between={span}")
    later = "between=('2023-01-01 06:00', '2023-01-04')"
    check_refused(lambda: load(dict(frames), funding_gaps="zero"), later)
    market = load(dict(frames), between=span)
    assert market.n_bars == 56
    assert dict(market.filled) == {}
    frames = good()
    frames["bars"] = frames["bars"].drop(frames["bars"].index[[10, 11, 40]])
    assert load(frames, between=("2023-01-02 17:00", "2023-01-04")).n_bars == 31


def test_a_defect_outside_the_span_asked_for_does_not_count():
    frames = good()
    frames["bars"].iloc[2, 3] = np.nan
    frames["mark"].iloc[3, 1] = -1.0
    frames["funding"].iloc[0, 0] = np.nan
    assert load(frames, between=("2023-01-02", None)).n_bars == 48


def test_local_times_that_a_clock_change_skips_are_refused():
    frames = {"bars": good()["bars"].set_axis(hourly(start="2023-03-25", zone=None))}
    check_refused(lambda: load(frames, timezone="Europe/Berlin"), "stamps must be moments")
