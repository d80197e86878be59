"""The one reader of times: every unit, zone and spelling, or one sentence."""

import re

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.core import as_dates, by_dates, parse_json, read_stamps, to_nanoseconds
from backtest.core.values import read_plain

NOON = pd.Timestamp("2024-04-03T12:00", tz="UTC").value
READ = [
    *(NOON // factor for factor in (10**9, 10**6, 10**3, 1)),
    f"{NOON // 10**6}", f"{NOON // 10**9}.0", float(NOON // 10**9),
    "2024-04-03T12:00Z", "2024-04-03 12:00:00+00:00", "2024-04-03 14:00+02", "2024/04/03 12:00 UTC",
    "2024.04.03 12:00:00.000 GMT", "20240403T1200Z", "2024-4-3 07:00-0500", " 2024-04-03T12:00z ",
    pd.Timestamp(NOON, tz="UTC"), pd.Timestamp(NOON, tz="UTC").to_pydatetime(),
]  # fmt: skip
REFUSED = [
    20240403, 202404031200, 20240403120000, 20240403120000000, "202404031200", 197606011200,
    94_694_399, 99_999_999_999, 4_133_980_800, -1, 2**63, 10**30, 1.5e9 + 0.5, np.nan, None, True,
    "03/04/2024 12:00Z", "03.04.2024", "24-04-03 12:00:00", "now", "2024-13-03", "3000-01-01Z",
    "1600-01-01T00:00Z", "yesterday",
]  # fmt: skip


@pytest.mark.parametrize("given", READ, ids=repr)
def test_every_unit_and_spelling_is_the_same_moment(given):
    series = pd.Series([given, given])
    assert read_stamps(series, name="x").tolist() == [NOON, NOON]

    if not isinstance(given, float):
        assert to_nanoseconds(given) == NOON


@pytest.mark.parametrize("given", REFUSED, ids=repr)
def test_what_is_no_moment_is_refused_with_its_value_and_row(given):
    with pytest.raises(bt.DataError, match=r"readable time, got .*\(x, row 1\).* write it as"):
        read_stamps(pd.Series(["2024-04-03T12:00Z", given], dtype=object), name="x")

    with pytest.raises(bt.DataError, match=r"readable time, got .*\(x, row 0\).* write it as"):
        read_stamps(pd.Series([given]), name="x")

    if given != "2024-13-03" or given is None:
        with pytest.raises(bt.ParameterError, match="--from must be a time such as"):
            to_nanoseconds(given, "--from")


def test_bounds_of_units_and_years():
    """1e11 is the first number of ms, 1973-03-03; 1973 begins at 94,694,400 s."""
    for number, year in ((10**11, 1973), (94_694_400, 1973), (4_133_980_799, 2100)):
        (stamp,) = read_stamps(pd.Index([number]), name="x").tolist()
        assert pd.Timestamp(stamp).year == year

    with pytest.raises(bt.DataError, match=r"one unit, got 1712145600 and 1712145600000 \(x, row"):
        read_stamps(pd.Index([NOON // 10**9, NOON // 10**6]), name="x")


def test_stamps_without_a_zone_need_one():
    naive = pd.Series(["2024-04-03 12:00"])
    for stamps in (naive, pd.DatetimeIndex(naive)):
        with pytest.raises(bt.DataError, match=r"frame.tz_localize\('UTC'\)"):
            read_stamps(stamps, name="x")
        with pytest.raises(bt.DataError, match="timezone='UTC' reads them as UTC"):
            read_stamps(stamps, name="x", is_file=True)

        in_zone = read_stamps(stamps, name="x", timezone="Etc/GMT-2")
        assert in_zone[0] == NOON - 7_200 * 10**9  # two hours east of UTC

    with pytest.raises(bt.DataError, match=r"got '2024-03-31 02:30' in 1 .*where clocks"):
        read_stamps(pd.Series(["2024-03-31 02:30"]), name="x", timezone="Europe/Berlin")
    with pytest.raises(bt.ParameterError, match="name of a zone"):
        read_stamps(naive, name="x", timezone="Mars")


def test_our_own_files_are_utc_and_have_each_name_once():
    """A series of TOML or JSON: whole numbers have their unit, texts without a zone are UTC."""
    for time in ("2024-04-03 12:00", "2024-04-03T12:00Z", NOON // 10**6):
        series = read_plain({"time": [time], "value": [1.0]})
        assert series.index[0].value == NOON

    for time in (NOON // 10**6, str(NOON // 10**9)):
        assert bt.AccountSnapshot(equity=1.0, time=time).time == "2024-04-03T12:00:00+00:00"
    with pytest.raises(bt.ParameterError, match="time: must be a time such as"):
        bt.AccountSnapshot(equity=1.0, time="03/04/2024")

    assert to_nanoseconds("2024-04-03") == to_nanoseconds("2024-04-03 00:00")
    assert to_nanoseconds("2024-04-03") < NOON
    assert pd.Timestamp(to_nanoseconds("2024")) == pd.Timestamp("2024-01-01")

    with pytest.raises(bt.DataError, match="each name may be given once, got 'a' twice"):
        parse_json(b'{"b": {"a": 1, "a": 2}}', "x.json")


HOUR_OF_2024 = pd.date_range("2024-03-01", periods=48, freq="h", tz="UTC").as_unit("s").asi8
FOREIGN = {
    "ticks of .NET": (
        lambda s: s * 10**7 + 621_355_968_000_000_000,
        lambda time: time // 10 - 62_135_596_800_000_000,
    ),
    "FILETIME of Windows": (
        lambda s: s * 10**7 + 116_444_736_000_000_000,
        lambda time: time // 10 - 11_644_473_600_000_000,
    ),
    "days of Excel": (
        lambda s: s / 86_400 + 25_569,
        lambda time: ((time - 25_569) * 86_400).round(),
    ),
}
"""Clocks of other programs from s since 1970, and the formula that their refusal names."""


@pytest.mark.parametrize("clock", FOREIGN)
@pytest.mark.parametrize("seconds", [60, 300, 3600, 86_400, 7919], ids=str)
@pytest.mark.parametrize("kind", [None, str, object])
def test_the_clock_of_another_program_is_refused_by_its_name(clock, seconds, kind):
    """Its cure is tried: 2024-03-01 comes back as it was. 7,919 s are no usual bar."""
    write, cure = FOREIGN[clock]
    moments = 1_709_251_200 + seconds * np.arange(40)
    stamps = pd.Series(write(moments))
    given = stamps if kind is None else stamps.astype(kind)

    said = rf"epochs since 1970 .*\(x, row 0\), which are {clock}"
    with pytest.raises(bt.DataError, match=said):
        read_stamps(given, name="x")

    assert np.array_equal(read_stamps(cure(stamps), name="x"), moments * 10**9)


@pytest.mark.parametrize("write", [
    lambda ticks: ticks.astype("float64"), lambda ticks: ticks.map("{:.5E}".format),
    lambda ticks: ticks.map("{:.17e}".format), lambda ticks: ticks.map("{:.1f}".format),
    lambda ticks: ticks.map("{:.5E}".format).astype("float64"),
])  # fmt: skip
@pytest.mark.parametrize("seconds", [60, 3600, 86_400], ids=str)
def test_ticks_as_floats_are_refused_by_their_name(write, seconds):
    """A spreadsheet writes 638,448,480,000,000,000 as 6.38448E+17, the same in many rows."""
    seconds_since_1970 = 1_709_251_200 + seconds * np.arange(40)
    ticks = pd.Series(seconds_since_1970 * 10**7 + 621_355_968_000_000_000)

    with pytest.raises(bt.DataError, match=r"\(x, row 0\), which are ticks of .NET"):
        read_stamps(write(ticks), name="x")


def test_days_of_excel_name_both_of_its_date_systems():
    """2024-03-01 is day 45,352 since 1899-12-30 and 43,890 since 1904-01-01."""
    with pytest.raises(bt.DataError, match=r"24_107 in a workbook of the date system 1904") as told:
        read_stamps(pd.Series([43_890.0, 43_890.5]), name="x")
    assert "25_569" in str(told.value)

    stamps = read_stamps(pd.Series((43_890.0 - 24_107) * 86_400), name="x")
    assert pd.Timestamp(stamps[0]) == pd.Timestamp("2024-03-01")


def test_one_moment_of_another_clock_is_refused_too():
    """Midnight of 2024-03-01 in ticks of .NET, which is a whole minute of 1990 in ns."""
    with pytest.raises(bt.DataError, match=r"which are ticks of .NET"):
        read_stamps(pd.Index([638_448_480_000_000_000]), name="x")

    with pytest.raises(bt.ParameterError, match="--from must be a time such as"):
        to_nanoseconds(638_448_480_000_000_000, "--from")


def test_a_stamp_of_ns_in_1974_or_1990_is_what_it_says_where_it_is_a_whole_minute():
    for year in ("1974-02-01", "1990-06-01"):
        for freq in ("min", "5min", "h", "D"):
            times = pd.date_range(year, periods=90, freq=freq, tz="UTC")
            stamps = times.as_unit("ns").asi8
            assert np.array_equal(read_stamps(pd.Index(stamps), name="x"), stamps)


@pytest.mark.parametrize("seconds", [60, 180, 3600, 7200, 14_400, 21_600, 28_800, 43_200, 86_400])
def test_stamps_before_1995_a_hundredth_of_a_bar_apart_are_said_to_be_ticks(seconds):
    """From 1980, which no known clock of ticks shows: one hour is 36 s."""
    ticks = pd.Index(320_000_000 * 10**9 + seconds * 10**7 * np.arange(50))

    said = rf"bars of {seconds / 100:g} s in 1980: .* ticks of 100"
    with pytest.raises(bt.DataError, match=said):
        read_stamps(ticks, name="x")

    later = ticks + 480_000_000 * 10**9
    assert np.array_equal(read_stamps(later, name="x"), later)


@pytest.mark.parametrize(
    "odd", ["Total", "", "NaN.", "1.7095932E+12", "2024-03-04T23:00:00Z", None]
)
@pytest.mark.parametrize("row", [0, 5, 47])
def test_the_odd_stamp_among_epochs_is_the_one_that_is_named(odd, row):
    stamps = pd.Series(HOUR_OF_2024 * 1000).astype(object)
    said = rf"got '{re.escape(odd or '')}' in 1 row \(x, row {row}\)"

    for texts in (stamps, stamps.astype(str)):
        texts[row] = odd
        with pytest.raises(bt.DataError, match=said):
            read_stamps(texts, name="x")


def test_the_odd_unit_among_epochs_is_the_one_that_is_named():
    for row in (0, 30):
        stamps = HOUR_OF_2024 * 1000
        stamps[row] //= 1000

        with pytest.raises(bt.DataError, match=rf"and {stamps[row]} \(x, row {row}\)"):
            read_stamps(pd.Index(stamps), name="x")


def test_an_index_of_pyarrows_or_pythons_times_is_times():
    times = pd.date_range("2024-03-01", periods=3, freq="h", tz="UTC")
    arrow = pd.Index(times.astype("timestamp[ms, tz=UTC][pyarrow]"), name="time")
    plain = pd.Index(list(times.to_pydatetime()), dtype=object, name="time")

    for index in (arrow, plain, times):
        series = by_dates(pd.Series(1.0, index=index))
        assert isinstance(series.index, pd.DatetimeIndex)
        assert series.index.equals(times)
        assert series.index.name == index.name

    for other in (pd.RangeIndex(3), pd.Index(["a", "b", "c"])):
        assert as_dates(other) is other

    assert by_dates([1, 2]) == [1, 2]


def test_a_byte_order_mark_is_no_letter_of_a_text():
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert parse_json('{"ü": 1}'.encode(encoding), "x.json") == {"ü": 1}

    with pytest.raises(bt.DataError, match=r"x.json: must be JSON"):
        parse_json(b"\xff\xfe\x00", "x.json")
