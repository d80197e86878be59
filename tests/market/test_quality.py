"""The quality report counts every defect, repairs none, and says what data are fit for."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.base.units import HOUR
from backtest.market.quality import list_cadences
from backtest.market.rules import MOST_MOVES, measure_outliers
from backtest.market.tables import TimedTable
from tests.layouts import MARKET, own_files
from tests.market.good_frames import without

SAMPLE = bt.Market.sample(bars=24 * 30)


def spoilt(folder: Path, kind: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> bt.Quality:
    """Return the report on four days of files, one of them spoilt."""
    paths = own_files(folder)
    frames = {"bars": MARKET.bars(), "mark": MARKET.mark(), "funding": MARKET.funding()[["rate"]]}
    change(frames[kind]).to_csv(folder / f"{kind}.csv", index_label="time")
    before = {path: path.read_bytes() for path in paths}
    report = bt.quality(paths)
    assert {path: path.read_bytes() for path in paths} == before
    return report


def with_cells(
    column: str, rows: list[int], value: float
) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        changed = frame.copy()
        changed.iloc[rows, changed.columns.get_loc(column)] = value
        return changed

    return change


def test_several_markets_are_reported_one_by_one_and_together():
    whole, late = (
        bt.Market.sample(bars=480),
        bt.Market.sample(bars=480, seed=1).between("2023-01-11"),
    )
    report = bt.quality(bt.Markets({"A": whole, "B": late}, currency="USDT"))
    assert report.reports["A"].to_dict() == bt.quality(whole).to_dict()
    assert report.fit_for("liquidation") == "yes"
    assert report.common_bars == late.n_bars
    assert report.to_dict()["panel"]["instruments"][1]["bars"] == late.n_bars
    assert not report.refused


def test_sound_data_are_fit_for_what_their_length_allows():
    report = bt.quality(SAMPLE)
    bars = {"rows": 720, "from": "2023-01-01", "to": "2023-01-31", "every": "1h"}
    assert report.facts["bars"] == bars
    assert report.findings == ()
    assert report.facts["mark"]["coverage"] == report.facts["funding"]["coverage"] == 1.0
    assert report.facts["funding"]["every"] == ["8h from 2023-01-01"]
    assert {each.use: each.fit for each in report.verdicts} == {
        "loading": "yes", "liquidation": "yes", "funding": "yes", "minutes": "no",
    }  # fmt: skip
    assert report.defects == ()


def test_a_market_and_the_folder_it_was_saved_to_have_the_same_report(tmp_path: Path):
    folder = SAMPLE.save(tmp_path / "market")
    of_files, of_market = bt.quality(folder), bt.quality(SAMPLE)
    assert dataclasses.replace(of_files, source="") == dataclasses.replace(of_market, source="")


def test_gaps_are_counted_and_placed_and_the_longest_known(tmp_path: Path):
    report = spoilt(tmp_path, "bars", without(10, 11, 40))
    gaps = report.find("bars", "missing")
    assert (len(gaps.places), gaps.count, gaps.longest) == (2, 3, 2)
    assert gaps.places[0] == "2023-01-01 10:00 to 2023-01-01 12:00: 2"
    assert report.fit_for("liquidation") == "no"
    assert "bars: 3 missing, up to 2 in a row" in report.verdicts[1].reasons


def test_closed_markets_have_no_gaps(tmp_path: Path):
    own_files(tmp_path, ("bars",))
    MARKET.bars().drop(MARKET.times[5:9]).to_csv(tmp_path / "bars.csv", index_label="time")
    assert bt.quality(tmp_path).find("bars", "missing").count == 4
    assert bt.quality(tmp_path, sessions=True).find("bars", "missing").count == 0


def test_duplicates_that_differ_are_told_from_those_that_do_not(tmp_path: Path):
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        twice = frame.iloc[[0, 1, 1, 2, 2, *range(3, 96)]].copy()
        twice.iloc[4, 0] += 0.1
        return twice

    report = spoilt(tmp_path, "bars", change)
    assert report.find("bars", "repeated times").places == ("1 of 2 with other values",)
    assert report.facts["bars"]["rows"] == 98
    assert report.fit_for("liquidation") == "no"


def test_disorder_is_counted(tmp_path: Path):
    report = spoilt(tmp_path, "bars", lambda f: f.iloc[[0, 2, 1, *range(3, 96)]])
    assert report.find("bars", "out of order").count == 1
    assert report.find("bars", "missing").count == 0


def test_bars_off_the_boundary_are_counted(tmp_path: Path):
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        times = frame.index.to_series().reset_index(drop=True)
        times.iloc[7] += pd.Timedelta("7min")
        return frame.set_axis(pd.DatetimeIndex(times))

    report = spoilt(tmp_path, "bars", change)
    off = report.find("bars", "off the grid")
    assert (off.count, off.first, off.last) == (1, "2023-01-01 07:07", "2023-01-01 07:07")


@pytest.mark.parametrize("value", [np.nan, 0.0, -3.0, np.inf])
def test_prices_that_are_none_are_counted(tmp_path: Path, value: float):
    report = spoilt(tmp_path, "bars", with_cells("close", [3, 4, 9], value))
    found = report.find("bars", "impossible prices")
    assert (found.count, found.longest) == (3, 2)
    assert report.find("bars", "impossible ranges").count == 0
    assert report.fit_for("loading") == report.fit_for("liquidation") == "no"


def test_ranges_that_exclude_their_own_prices_are_counted(tmp_path: Path):
    report = spoilt(tmp_path, "bars", with_cells("low", [3], 1e6))
    assert report.find("bars", "impossible ranges").count == 1


def test_bars_without_volume_and_flat_bars_are_counted(tmp_path: Path):
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        quiet = frame.copy()
        quiet.iloc[20:30, :4] = 30_000.0
        quiet.iloc[20:30, 4] = 0.0
        return quiet

    report = spoilt(tmp_path, "bars", change)
    quiet = report.find("bars", "without volume")
    assert quiet.count == quiet.longest == 10
    assert report.find("bars", "flat").count == 10
    assert quiet.share == pytest.approx(10 / 96)
    assert any("without volume" in reason for reason in report.verdicts[3].reasons)


def walk(n: int = 2000, seed: int = 3) -> TimedTable:
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 1e-3, n)))
    opens = np.concatenate([close[:1], close[:-1]])
    prices = {"open": opens, "high": np.maximum(opens, close), "low": np.minimum(opens, close)}
    return TimedTable("walk", np.arange(n) * HOUR, {**prices, "close": close})


def test_a_walk_has_no_outliers_and_a_crash_that_stays_is_none():
    table = walk()
    assert not measure_outliers(table)
    for name in ("close", "high", "low"):
        table.columns[name][1000:] *= 0.7
    table.columns["open"][1001:] *= 0.7
    table.columns["high"][1000] = table.columns["open"][1000]
    assert not measure_outliers(table)


@pytest.mark.parametrize(("name", "factor"), [("close", 1.05), ("high", 1.05), ("low", 0.95)])
def test_a_single_print_far_from_its_neighbors_is_an_outlier(name, factor):
    table = walk()
    table.columns[name][1000] *= factor
    (found,) = measure_outliers(table)
    assert (found.price, found.time) == (name, 1000 * HOUR)
    assert found.distance == pytest.approx(0.05, abs=0.01)
    assert found.moves > MOST_MOVES


def test_wicks_of_the_last_price_beyond_the_mark_are_counted(tmp_path: Path):
    low = float(MARKET.mark_low[50])
    report = spoilt(tmp_path, "bars", with_cells("low", [50, 60], low * 0.9))
    wicks = report.find("mark", "wicks")
    assert (wicks.count, wicks.first, wicks.last) == (2, "2023-01-03 02:00", "2023-01-03 12:00")
    beyond = 1.0 - 0.9 * low / max(low, MARKET.mark_low[60])
    assert report.facts["mark"]["longest wick"] == pytest.approx(beyond, rel=1e-6)


def test_a_stale_mark_is_found_with_the_length_of_its_run(tmp_path: Path):
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        stale = frame.copy()
        stale.iloc[31:36] = frame["close"].iloc[30]
        return stale

    report = spoilt(tmp_path, "mark", change)
    stale = report.find("mark", "stale")
    assert stale.count == stale.longest == 5
    assert report.fit_for("liquidation") == "with care"
    assert "mark: 5 stale, up to 5 in a row" in report.verdicts[1].reasons


def test_what_was_filled_by_choice_stays_a_doubt():
    market = bt.Market.from_frames(
        MARKET.bars(), funding=MARKET.funding(), mark=MARKET.mark()[6:], mark_gaps="last"
    )
    report = bt.quality(market)
    assert report.fit_for("liquidation") == "with care"
    assert report.verdicts[1].reasons[-1].startswith("mark_gaps filled, last: 6 of 96 bars")


def test_changes_of_cadence_are_listed_and_are_no_gaps():
    """8 h, then 4 h, then 1 h."""
    hours = np.cumsum([0, *[8] * 6, *[4] * 6, *[1] * 24])
    found = list_cadences(hours * HOUR + 7_000_000)
    assert found == ["8h from 1970-01-01", "4h from 1970-01-03", "1h from 1970-01-04"]


def test_missing_settlements_are_counted_by_the_cadence_around_them(tmp_path: Path):
    """Two of 8 hours; among hours, three of one hour, although 8 h is the usual distance."""
    report = spoilt(tmp_path, "funding", without(4, 5))
    gaps = report.find("funding", "missing")
    assert (len(gaps.places), gaps.count) == (1, 2)
    assert report.fit_for("funding") == "no"
    hours = [*range(0, 400, 8), *range(400, 410), *range(413, 430)]
    stamps = pd.DatetimeIndex(pd.to_datetime(np.array(hours) * HOUR, utc=True))
    funding = pd.DataFrame({"rate": 1e-4}, index=stamps)
    funding.to_csv(tmp_path / "funding.csv", index_label="time")
    alone = bt.quality(tmp_path / "funding.csv")
    assert alone.find("funding", "missing").count == 3
    assert "bars" not in alone.facts
    assert alone.fit_for("loading") == "no"


def test_stamps_off_the_boundary_and_settled_twice_are_found(tmp_path: Path):
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        return pd.concat([frame, frame.iloc[2:3].shift(1, freq="7ms")]).sort_index()

    report = spoilt(tmp_path, "funding", change)
    assert report.find("funding", "settled twice").count == 1
    assert report.facts["funding"]["furthest stamp"] == pytest.approx(0.007)
    late = spoilt(tmp_path, "funding", lambda f: f.shift(1, freq="5min"))
    assert late.find("funding", "off the hour").count == 12


def test_rates_that_no_venue_takes_and_rates_at_a_cap_are_counted(tmp_path: Path):
    report = spoilt(tmp_path, "funding", with_cells("rate", [1, 2], 0.3))
    assert report.find("funding", "not believable").count == 2
    assert report.fit_for("funding") == "no"
    capped = spoilt(tmp_path, "funding", with_cells("rate", [1, 2, 7], -0.0075))
    assert capped.facts["funding"]["at the largest size"] == 3
    assert capped.facts["funding"]["lowest"] == -0.0075


def test_naive_stamps_are_read_as_utc_for_the_report_and_it_says_so(tmp_path: Path):
    MARKET.bars().tz_localize(None).to_csv(tmp_path / "bars.csv", index_label="time")
    report = bt.quality(tmp_path)
    assert report.facts["bars"]["rows"] == 96
    assert "read as UTC for this report" in report.notes[0]
    assert report.fit_for("loading") == "no"
    assert bt.quality(tmp_path, timezone="UTC").notes == ()


def test_files_that_cannot_be_read_at_all_still_give_a_report(tmp_path: Path):
    (tmp_path / "bars.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "funding.csv").write_text("time,rate\n2023-01-01T00:00Z,x\n")
    report = bt.quality(tmp_path)
    assert report.facts == {}
    assert len(report.defects) == 2
    assert {each.fit for each in report.verdicts} == {"no"}


@pytest.mark.parametrize("columns", [["open"], ["open", "close"], ["volume"], ["high", "low"]])
def test_bars_that_lack_columns_are_measured_by_what_they_have(tmp_path: Path, columns):
    report = spoilt(tmp_path, "bars", lambda f: f[columns])
    assert report.facts["bars"]["rows"] == 96
    assert report.fit_for("loading") == "no"


def test_files_with_other_names_are_measured_when_the_names_are_said(tmp_path: Path):
    MARKET.bars().rename(columns={"open": "o"}).to_csv(tmp_path / "x.csv", index_label="at")
    assert "bars" not in bt.quality(tmp_path / "x.csv").facts
    columns = {"time": "at", "open": "o", "high": "high", "low": "low", "close": 4}
    assert bt.quality(tmp_path / "x.csv", columns=columns).fit_for("loading") == "yes"


def test_what_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(bt.DataError, match="a path must exist"):
        bt.quality(tmp_path / "absent")
    with pytest.raises(bt.ParameterError, match="quality needs a path"):
        bt.quality([])


def test_real_hours_show_their_famous_wick_and_what_they_lack(real: Path):
    """26 July 2021, 01:00: the last price reached 48,168 while the mark stayed near 39,500."""
    report = bt.quality(real / "btc-usdm-1h")
    outliers = report.find("bars", "outliers")
    assert outliers.places[0].startswith("2021-07-26 01:00: high")
    assert outliers.count < 20
    assert report.facts["mark"]["coverage"] == pytest.approx(35_269 / 37_807)
    assert report.facts["mark"]["longest wick"] > 0.2
    assert report.facts["funding"]["every"][0].startswith("8h")
    assert report.fit_for("liquidation") == "with care"
