"""The quality report counts what breaks each rule and repairs nothing."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.core.units import HOUR
from backtest.market.rule_subjects import Subject
from backtest.market.rules import find_outliers
from backtest.market.tables import TimedTable
from tests.kit import check_refused
from tests.layouts import MARKET, own_files
from tests.market.conftest import shifted, without

SAMPLE = bt.Market.sample(bars=24 * 30)
Change = Callable[[pd.DataFrame], pd.DataFrame]


def spoilt(folder: Path, kind: str, change: Change) -> bt.Quality:
    """Return the report on four days of files, one of them spoilt."""
    paths = own_files(folder, **{kind: change})
    before = {path: path.read_bytes() for path in paths}

    report = bt.quality(paths)

    assert {path: path.read_bytes() for path in paths} == before
    return report


def cells(column: str, rows: list[int], value: float) -> Change:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        changed = frame.copy()
        changed.iloc[rows, changed.columns.get_loc(column)] = value
        return changed

    return change


def stale(frame: pd.DataFrame) -> pd.DataFrame:
    changed = frame.copy()
    changed.iloc[31:36] = frame["close"].iloc[30]
    return changed


def doubled(frame: pd.DataFrame) -> pd.DataFrame:
    twice = frame.iloc[[0, 1, 1, 2, 2, *range(3, 96)]].copy()
    twice.iloc[4, 0] += 0.1
    return twice


def quiet(frame: pd.DataFrame) -> pd.DataFrame:
    changed = frame.copy()
    changed.iloc[20:30, :4] = 30_000.0
    changed.iloc[20:30, 4] = 0.0
    return changed


def settled_twice(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, frame.iloc[2:3].shift(1, freq="7ms")]).sort_index()


LOW = float(MARKET.mark_low[50])
FOUND = [
    # table, what spoils it, rule, count, longest, place
    ("bars", without(10, 11, 40), "missing", 3, 2, "2023-01-01 10:00 to 2023-01-01 12:00: 2"),
    ("bars", doubled, "repeated times", 2, 2, "1 of 2 with other values"),
    ("bars", lambda f: f.iloc[[0, 2, 1, *range(3, 96)]], "out of order", 1, 1, ""),
    ("bars", shifted(7, "7min"), "off the grid", 1, 1, ""),
    *(("bars", cells("close", [3, 4, 9], value), "impossible prices", 3, 2, "")
      for value in (np.nan, 0.0, -3.0, np.inf)),
    ("bars", cells("low", [3], 1e6), "impossible ranges", 1, 1, ""),
    ("bars", cells("volume", [3], -1.0), "impossible volume", 1, 1, ""),
    ("bars", quiet, "without volume", 10, 10, ""),
    ("bars", quiet, "flat", 10, 10, ""),
    ("mark", stale, "stale", 5, 5, ""),
    ("mark", lambda f: f[6:], "bars without a mark", 6, 6, ""),
    ("funding", without(4, 5), "missing", 2, 2, ""),
    ("funding", settled_twice, "settled twice", 1, 1, ""),
    ("funding", lambda f: f.shift(1, freq="5min"), "off the hour", 12, 12, ""),
    ("funding", cells("rate", [1, 2], 0.3), "not believable", 2, 2, ""),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "change", "rule", "count", "longest", "place"), FOUND)
def test_broken_rules_are_counted_and_placed(tmp_path, kind, change, rule, count, longest, place):
    report = spoilt(tmp_path, kind, change)

    finding = report.find(kind, rule)
    assert finding.count == count
    assert finding.longest == longest
    if place:
        assert place in finding.places

    has_errors = any(found.level == "error" for found in report.findings)
    assert bool(report.defects) == has_errors


def test_facts_of_a_table_are_those_of_its_file(tmp_path: Path):
    """Marks begin ten hours before the bars: they have ten rows more, from there on."""
    folder = SAMPLE.save(tmp_path / "market")
    bars = pd.read_parquet(folder / "bars.parquet")
    bars.iloc[10:].to_parquet(folder / "bars.parquet")

    facts = bt.quality(folder).facts
    assert (facts["bars"]["rows"], facts["bars"]["from"]) == (710, "2023-01-01 10:00")
    assert (facts["mark"]["rows"], facts["mark"]["from"]) == (720, "2023-01-01")
    assert facts["mark"]["coverage"] == 1.0


def test_sound_data_break_no_rule_in_files_as_in_a_market(tmp_path: Path):
    report = bt.quality(SAMPLE)

    bars = {"rows": 720, "from": "2023-01-01", "to": "2023-01-31", "every": "1h"}
    assert report.facts["bars"] == bars
    assert report.findings == ()
    assert report.defects == ()
    assert report.facts["mark"]["coverage"] == 1.0
    assert report.facts["funding"]["coverage"] == 1.0

    of_files = bt.quality(SAMPLE.save(tmp_path / "market"))
    assert dataclasses.replace(of_files, source="") == dataclasses.replace(report, source="")

    assert bt.quality(bt.Markets({"A": SAMPLE}))["A"].to_dict() == report.to_dict()
    assert report.to_frame().empty


def test_closed_markets_have_no_gaps(tmp_path: Path):
    bars = MARKET.bars().drop(MARKET.times[5:9])
    bars.to_csv(tmp_path / "bars.csv", index_label="time")

    assert bt.quality(tmp_path).find("bars", "missing").count == 4
    assert bt.quality(tmp_path, sessions=True).find("bars", "missing").count == 0


def walk(n: int = 2000, seed: int = 3) -> TimedTable:
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 1e-3, n)))
    opens = np.concatenate([close[:1], close[:-1]])
    prices = {"open": opens, "high": np.maximum(opens, close), "low": np.minimum(opens, close)}
    return TimedTable("walk", np.arange(n) * HOUR, {**prices, "close": close})


@pytest.mark.parametrize(("factor", "count"), [(1000.0, 1), (0.001, 1), (3.2, 1), (2.8, 0)])
def test_a_change_of_unit_is_a_doubt_at_its_bar(factor, count):
    """The unit of a price of 100 changes at bar 200; bar 400 stands alone, and is none."""
    bars = flat_bars()
    bars.iloc[200:, :4] *= factor
    bars.iloc[400, [1, 3]] *= 1000.0

    found = bt.quality(bt.Market.from_frames(bars)).find("bars", "change of unit")
    assert found.count == count
    if count:
        assert found.first == "2023-01-09 08:00"
        assert found.places == (f"2023-01-09 08:00: {factor:.4g} times",)
    else:
        assert found.first == ""
        assert found.places == ()


def test_real_markets_have_no_change_of_unit(real):
    names = [("btc-usdm-1h", "1h"), ("btc-usdm-1m", "1m"), ("xrp-usdm-freqtrade", "5m")]

    for name, interval in names:
        report = bt.quality(real / name, interval=interval)
        assert not report.find("bars", "change of unit").count

    for report in bt.quality(real / "perps-1h").values():
        assert not any(report.find(table, "change of unit").count for table in ("bars", "mark"))


def test_a_walk_has_no_outliers_and_a_crash_that_stays_is_none():
    table = walk()
    subject = Subject("bars", table, table, HOUR, sessions=False, bars=None)
    assert not find_outliers(subject)

    for name in ("close", "high", "low"):
        table.columns[name][1000:] *= 0.7
    table.columns["open"][1001:] *= 0.7
    table.columns["high"][1000] = table.columns["open"][1000]

    assert not find_outliers(subject)


@pytest.mark.parametrize(("name", "factor"), [("close", 1.05), ("high", 1.05), ("low", 0.95)])
def test_a_single_print_far_from_its_neighbors_is_an_outlier(name, factor):
    table = walk()
    table.columns[name][1000] *= factor

    (found,) = find_outliers(Subject("bars", table, table, HOUR, sessions=False, bars=None))
    assert found.time.tolist() == [1000 * HOUR]
    assert re.search(rf": {name} [45]\.\d % away, [2-9]\d\d? typical", *found.places)


@pytest.mark.parametrize("row", [0, 1, 2, -3, -2, -1])
@pytest.mark.parametrize("factor", [1.05, 0.95, 1000.0])
def test_a_print_at_either_end_is_judged_from_the_side_there_is(row, factor):
    table = walk()
    table.columns["close"][row] *= factor
    closes = table.columns["close"]
    table.columns["high"] = np.maximum(table.columns["high"], closes)
    table.columns["low"] = np.minimum(table.columns["low"], closes)

    (found,) = find_outliers(Subject("bars", table, table, HOUR, sessions=False, bars=None))
    assert found.time.tolist() == [table.time[row]]


@pytest.mark.parametrize(("row", "column", "factor"), [(0, "low", 0.9), (-1, "high", 1.1)])
def test_a_wick_at_either_end_is_judged_by_its_one_neighbor(row, column, factor):
    table = walk()
    table.columns[column][row] *= factor

    (found,) = find_outliers(Subject("bars", table, table, HOUR, sessions=False, bars=None))
    assert found.time.tolist() == [table.time[row]]


@pytest.mark.parametrize("first", [0, 300, -1])
@pytest.mark.parametrize("n_bars", [1, 2, 3, 12, 24])
@pytest.mark.parametrize("factor", [1000.0, 0.001, 3.2])
def test_a_run_of_up_to_24_bars_that_jumps_and_returns_is_a_stretch(first, n_bars, factor):
    """At the ends of the data it has one edge; a run of 1.9 times, or of 25 bars, is none."""
    begin = first if first >= 0 else 720 - n_bars
    bars = flat_bars()
    bars.iloc[begin : begin + n_bars, :4] *= factor

    found = bt.quality(bt.Market.from_frames(bars)).find("bars", "stretch")

    assert found.count == n_bars
    assert found.longest == n_bars
    assert found.level == "doubt"

    opened = f"{SAMPLE.times[begin]:%Y-%m-%d %H:%M}"
    last = f"{SAMPLE.times[begin + n_bars - 1]:%Y-%m-%d %H:%M}"
    noun = "bar" if n_bars == 1 else "bars"
    said = f"{opened} to {last}: {n_bars} {noun}, {factor:.4g} times"
    (place,) = found.places
    assert found.first == opened.removesuffix(" 00:00")
    assert place.replace(" 00:00", "") == said.replace(" 00:00", "")


def flat_bars(n: int = 720) -> pd.DataFrame:
    """Return hours whose four prices are 100."""
    bars = SAMPLE.bars().iloc[:n]
    bars[["open", "high", "low", "close"]] = 100.0
    return bars


def test_a_crash_a_long_stretch_and_a_change_of_unit_are_no_stretches():
    for factor, begin, stop in ((0.4, 300, 310), (1.9, 300, 310), (5.0, 300, 325), (5.0, 300, 720)):
        bars = flat_bars()
        bars.iloc[begin:stop, :4] *= factor
        assert not bt.quality(bt.Market.from_frames(bars)).find("bars", "stretch").count


@pytest.mark.parametrize(("begin", "stop"), [
    (393, 398), (2, 7), (1, 2), (398, 399), (3, 27), (375, 399), (376, 400), (0, 24), (20, 30),
])  # fmt: skip
@pytest.mark.parametrize("factor", [5.0, 0.2])
def test_a_stretch_near_an_end_is_the_odd_bars_not_the_sound_ones_beside_it(begin, stop, factor):
    bars = flat_bars(400)
    bars.iloc[begin:stop, :4] *= factor

    found = bt.quality(bt.Market.from_frames(bars)).find("bars", "stretch")

    first = f"{SAMPLE.times[begin]:%Y-%m-%d %H:%M}".removesuffix(" 00:00")
    assert found.count == stop - begin
    assert found.first == first
    assert f", {factor:.4g} times" in found.places[0]


def test_a_stretch_of_two_levels_is_one_and_a_fall_in_steps_is_none():
    """Bars 300 to 303 are 5 times, 304 to 309 25 times; a fall by 4, 4 and 4 does not return."""
    bars = flat_bars()
    bars.iloc[300:310, :4] *= 5.0
    bars.iloc[304:310, :4] *= 5.0

    found = bt.quality(bt.Market.from_frames(bars)).find("bars", "stretch")
    assert found.count == 10
    assert found.places[0].endswith(", 25 times")

    for fall, row in enumerate((300, 305, 315), start=1):
        bars.iloc[row:, :4] = 100.0 / 4.0**fall
    assert not bt.quality(bt.Market.from_frames(bars)).find("bars", "stretch").count


def test_the_shorter_of_two_parts_is_the_stretch():
    """Thirty bars, the last three 10 times the others."""
    bars = flat_bars(30)
    bars.iloc[27:, :4] *= 10.0

    found = bt.quality(bt.Market.from_frames(bars)).find("bars", "stretch")

    assert found.count == 3
    assert found.first == "2023-01-02 03:00"


@pytest.mark.parametrize("freq", ["h", "D"])
def test_seconds_since_2001_are_a_doubt(freq):
    """Read as seconds since 1970 they are of 1993, when every market closed."""
    times = pd.date_range("2024-03-01", periods=96, freq=freq, tz="UTC")
    bars = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), 100.0), times)
    assert not bt.quality(bt.Market.from_frames(bars)).find("bars", "seconds since 2001?").count

    bars.index = times - pd.Timedelta(seconds=978_307_200)
    found = bt.quality(bt.Market.from_frames(bars)).find("bars", "seconds since 2001?")
    assert found.count == 96
    assert "they begin at 2024-03-01 UTC: time + 978_307_200" in found.places[0]


@pytest.mark.slow
def test_real_markets_and_the_six_crashes_have_no_stretch_and_no_more_outliers(real):
    """What the rules found before they saw both ends: rows of bars and marks by market."""
    counts = {"btc-usdm-1h": (7, 4), "btc-usdm-1m": (0, 0), "ETHUSDT": (7, 4), "LTCUSDT": (3, 2)}
    reports = {
        "btc-usdm-1h": bt.quality(real / "btc-usdm-1h", interval="1h"),
        "btc-usdm-1m": bt.quality(real / "btc-usdm-1m", interval="1m"),
        **bt.quality(real / "perps-1h"),
    }
    for name, report in reports.items():
        outliers = tuple(report.find(table, "outliers").count for table in ("bars", "mark"))
        assert outliers == counts[name]
        assert not any(report.find(table, "stretch").count for table in ("bars", "mark"))
        assert not report.find("funding", "the rate in force, sampled?").count

    hours = pd.read_csv(real / "crashes" / "hours.csv")
    prices = ["open", "high", "low", "close"]
    found = 0
    for _, rows in hours.groupby(["episode", "coin"]):
        marks = rows[["time", *(f"mark_{name}" for name in prices)]]
        marks = marks.set_axis(["time", *prices], axis=1)

        report = bt.quality(bt.Market.from_frames(rows[["time", *prices]], mark=marks))

        assert not any(report.find(table, "stretch").count for table in ("bars", "mark"))
        found += sum(report.find(table, "outliers").count for table in ("bars", "mark"))
    assert found == 7


def test_wicks_of_the_last_price_beyond_the_mark_are_counted(tmp_path: Path):
    wicks = spoilt(tmp_path, "bars", cells("low", [50, 60], LOW * 0.9)).find("mark", "wicks")

    assert wicks.count == 2
    assert wicks.first == "2023-01-03 02:00"
    assert wicks.last == "2023-01-03 12:00"
    beyond = 1.0 - 0.9 * LOW / max(LOW, MARKET.mark_low[60])
    assert wicks.places == (f"the longest {100.0 * beyond:.2f} % beyond the mark",)


def test_missing_settlements_are_counted_by_the_cadence_around_them(tmp_path: Path):
    """Among hours, three of one hour, although 8 h is the usual distance."""
    hours = [*range(0, 400, 8), *range(400, 410), *range(413, 430)]
    stamps = pd.DatetimeIndex(pd.to_datetime(np.array(hours) * HOUR, utc=True))
    funding = pd.DataFrame({"rate": 1e-4}, index=stamps)
    funding.to_csv(tmp_path / "funding.csv", index_label="time")

    alone = bt.quality(tmp_path / "funding.csv")

    assert alone.find("funding", "missing").count == 3
    assert "bars" not in alone.facts
    assert alone.defects[0].startswith("a market needs bars")


def test_stamps_without_a_zone_are_a_defect_of_the_report(tmp_path: Path):
    MARKET.bars().tz_localize(None).to_csv(tmp_path / "bars.csv", index_label="time")
    assert "timezone='UTC' reads them as UTC" in bt.quality(tmp_path).defects[0]
    assert bt.quality(tmp_path, timezone="UTC").facts["bars"]["rows"] == 96


def test_files_that_cannot_be_read_at_all_still_give_a_report(tmp_path: Path):
    (tmp_path / "bars.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "funding.csv").write_text("time,rate\n2023-01-01T00:00Z,x\n")

    report = bt.quality(tmp_path)
    assert report.facts == {}
    assert len(report.defects) == 2


@pytest.mark.parametrize("columns", [["open"], ["volume"], ["high", "low"]])
def test_bars_that_lack_columns_are_measured_by_what_they_have(tmp_path: Path, columns):
    report = spoilt(tmp_path, "bars", lambda f: f[columns])

    assert report.facts["bars"]["rows"] == 96
    assert report.defects


def test_what_is_not_there_is_refused(tmp_path: Path):
    check_refused(lambda: bt.quality(tmp_path / "absent"), "a path must exist", bt.DataError)
    check_refused(lambda: bt.quality([]), "quality needs a path")


def test_real_hours_show_their_famous_wick_and_what_they_lack(real: Path):
    """26 July 2021, 01:00: the last price reached 48,168 while the mark stayed near 39,500."""
    report = bt.quality(real / "btc-usdm-1h")

    outliers = report.find("bars", "outliers")
    assert outliers.places[0].startswith("2021-07-26 01:00: high")
    assert outliers.count < 20

    assert report.facts["mark"]["coverage"] == pytest.approx(35_269 / 37_807)
    assert report.facts["funding"]["every"] == "8h"


def test_payments_without_a_usual_distance_are_every_so_many_days(tmp_path: Path):
    """Dividends on 15 March, 10 June, 7 September and 6 December: 87, 89 and 90 days apart."""
    bars = pd.DataFrame(
        {"open": 10.0, "high": 10.0, "low": 10.0, "close": 10.0},
        index=pd.date_range("2021-01-01", "2021-12-31", tz="UTC"),
    )
    days = pd.DatetimeIndex(["2021-03-15", "2021-06-10", "2021-09-07", "2021-12-06"], tz="UTC")
    paid = pd.DataFrame({"rate": -0.004, "mark": 10.0}, index=days)

    market = bt.Market.from_frames(bars, funding=paid, sessions=True, funding_gaps="zero")
    assert bt.quality(market).facts["funding"]["every"] == "87d to 90d"


def test_sessions_that_are_refused_by_hand_overrule_the_folder(tmp_path: Path):
    """The days of a week, Monday to Friday and the next Monday: a gap, unless the market closes."""
    bars = pd.DataFrame(
        {"open": 10.0, "high": 10.0, "low": 10.0, "close": 10.0},
        index=pd.bdate_range("2024-01-01", periods=6, tz="UTC"),
    )
    folder = bt.Market.from_frames(bars, sessions=True).save(tmp_path / "stock")
    assert bt.Market.load(folder).sessions
    assert bt.quality(folder).defects == ()

    gap = "must follow each other"
    check_refused(lambda: bt.Market.load(folder, sessions=False), gap, bt.DataError)
    check_refused(lambda: bt.Markets.load(folder, sessions=False), gap, bt.DataError)
    assert bt.quality(folder, sessions=False).defects

    daily = bars.set_axis(pd.date_range("2024-01-01", periods=6, tz="UTC"))
    folder = bt.Market.from_frames(daily, sessions=True).save(tmp_path / "coin")
    market = bt.Market.load(folder, sessions=False)
    assert not market.sessions
    assert eval(market.source, {"Market": bt.Market}) == market


def test_stamps_between_minutes_are_a_doubt():
    """The close time of Binance is the last millisecond of a bar, read as its open: a bar late."""
    market = bt.Market.sample(bars=48)
    bars = market.bars()[["open", "high", "low", "close", "volume"]]
    late = bars.set_axis(market.times + pd.Timedelta("59min 59.999s"))

    found = bt.quality(bt.Market.from_frames(late)).find("bars", "stamped at the close?")
    assert found.count == 48
    assert not bt.quality(bt.Market.from_frames(bars)).find("bars", "stamped at the close?").count

    # Bars of 10 s begin between minutes.
    short = bars.set_axis(pd.date_range("2023-01-01 00:00:10", periods=48, freq="10s", tz="UTC"))
    assert not bt.quality(bt.Market.from_frames(short)).find("bars", "stamped at the close?").count
