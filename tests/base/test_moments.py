"""The one reader of times: every unit, zone and spelling, or one sentence."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.core import parse_json, read_stamps, to_nanoseconds
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
    assert read_stamps(pd.Series([given, given]), name="x").tolist() == [NOON, NOON]
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
        assert pd.Timestamp(int(read_stamps(pd.Index([number]), name="x")[0])).year == year
    with pytest.raises(bt.DataError, match=r"one unit, got 1712145600 and 1712145600000 \(x, row"):
        read_stamps(pd.Index([NOON // 10**9, NOON // 10**6]), name="x")


def test_stamps_without_a_zone_need_one():
    naive = pd.Series(["2024-04-03 12:00"])
    for stamps in (naive, pd.DatetimeIndex(naive)):
        with pytest.raises(bt.DataError, match=r"frame.tz_localize\('UTC'\)"):
            read_stamps(stamps, name="x")
        with pytest.raises(bt.DataError, match="timezone='UTC' reads them as UTC"):
            read_stamps(stamps, name="x", is_file=True)
        assert read_stamps(stamps, name="x", timezone="Etc/GMT-2")[0] == NOON - 7_200 * 10**9
    with pytest.raises(bt.DataError, match=r"got '2024-03-31 02:30' in 1 .*where clocks"):
        read_stamps(pd.Series(["2024-03-31 02:30"]), name="x", timezone="Europe/Berlin")
    with pytest.raises(bt.ParameterError, match="name of a zone"):
        read_stamps(naive, name="x", timezone="Mars")


def test_our_own_files_are_utc_and_have_each_name_once():
    """A series of TOML or JSON: whole numbers have their unit, texts without a zone are UTC."""
    for time in ("2024-04-03 12:00", "2024-04-03T12:00Z", NOON // 10**6):
        assert read_plain({"time": [time], "value": [1.0]}).index[0].value == NOON
    for time in (NOON // 10**6, str(NOON // 10**9)):
        assert bt.AccountSnapshot(equity=1.0, time=time).time == "2024-04-03T12:00:00+00:00"
    with pytest.raises(bt.ParameterError, match="time: must be a time such as"):
        bt.AccountSnapshot(equity=1.0, time="03/04/2024")
    assert to_nanoseconds("2024-04-03") == to_nanoseconds("2024-04-03 00:00") < NOON
    assert pd.Timestamp(to_nanoseconds("2024")) == pd.Timestamp("2024-01-01")
    with pytest.raises(bt.DataError, match="each name may be given once, got 'a' twice"):
        parse_json(b'{"b": {"a": 1, "a": 2}}', "x.json")
