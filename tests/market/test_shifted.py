"""Marks and settlements that are stamped some hours off the bars are noticed, others never."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.cli import main
from backtest.market.shifted import FIT
from backtest.market.tables import PRICES

SAMPLE = bt.Market.sample(bars=24 * 60)
BARS = SAMPLE.bars()
MARKS = SAMPLE.mark()
REFUSED = "mark prices must move with last prices"


def overlap(hours: float, bars: pd.DataFrame = BARS, mark: pd.DataFrame = MARKS):
    """Return bars and marks that are stamped some hours late, cut to the time of both."""
    mark = mark.shift(1, freq=pd.Timedelta(hours=hours))
    both = bars.index.intersection(mark.index)
    return bars.loc[both], mark.loc[both]


def refuse(text: str, bars: pd.DataFrame, mark: pd.DataFrame, **terms: object) -> str:
    """Check that marks are refused with a text; return the whole of the error."""
    with pytest.raises(bt.DataError, match=REFUSED) as caught:
        bt.Market.from_frames(bars, mark=mark, **terms)
    error = str(caught.value)
    assert text in error
    return error


def walk(n_bars: int, freq: str, seed: int = 0, noise: float = 0.0):
    """Return flat bars that follow a random walk, and marks with noise beside them."""
    rng = np.random.default_rng(seed)
    index = pd.date_range("2020-01-01", periods=n_bars, freq=freq, tz="UTC")
    closes = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 1e-3, n_bars)))
    marks = closes * np.exp(rng.normal(0.0, noise * 1e-3, n_bars))
    bars = pd.DataFrame(dict.fromkeys(PRICES, closes), index=index)
    return bars, pd.DataFrame(dict.fromkeys(PRICES, marks), index=index)


@pytest.mark.parametrize(("hours", "side"), [
    (1, "late"), (5, "late"), (26, "late"), (-1, "early"), (-8, "early"), (-26, "early"),
])  # fmt: skip
def test_marks_some_hours_off_are_refused_and_the_cure_is_right(hours, side):
    bars, mark = overlap(hours)
    text = refuse(f"marks are stamped {abs(hours)}h {side}", bars, mark)
    cure = re.search(r"mark\.index .= pd\.Timedelta\('\w+'\)", text)
    assert cure is not None
    names = {"mark": mark.copy(), "pd": pd}
    exec(cure[0], names)
    corrected = names["mark"]
    both = bars.index.intersection(corrected.index)
    bt.Market.from_frames(bars.loc[both], mark=corrected.loc[both])


@pytest.mark.parametrize("freq", ["1min", "5min", "15min"])
def test_short_bars_with_noisy_marks_are_compared_too(freq):
    bars, mark = walk(6_000, freq, noise=0.3)
    bt.Market.from_frames(bars, mark=mark)
    refuse("stamped 5h late", *overlap(5, bars, mark))


def test_days_that_are_stamped_at_their_ends_are_refused():
    bars, mark = walk(300, "D", noise=0.1)
    refuse("both must be stamped with the open", *overlap(24, bars, mark))


@pytest.mark.parametrize("part", ["bars", "mark"])
def test_local_times_beside_utc_are_read_by_the_zone_that_is_named(tmp_path, capsys, part):
    mark = MARKS.copy()
    bars = BARS.copy()
    local = {"bars": bars, "mark": mark}[part]
    zone = {"bars": "America/Lima", "mark": "Asia/Karachi"}[part]  # 5 hours off, all year
    local.index = local.index.tz_convert(zone).tz_localize(None)
    bars.to_csv(tmp_path / "b.csv", index_label="time")
    mark.to_csv(tmp_path / "m.csv", index_label="time")

    words = ["data", "import", str(tmp_path / "b.csv"), "--mark", str(tmp_path / "m.csv")]
    span = ["--from", "2023-01-02", "--to", "2023-02-20"]
    out = ["--out", str(tmp_path / "out")]
    assert main([*words, *span, *out, "--timezone", "UTC"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert REFUSED in error
    assert re.search("(subtract|add) 5h (from|to) the times in the file of marks", error)
    named = re.search(rf"--timezone (\S+) if the {part}s? alone", error)
    assert named is not None, error
    assert main([*words, *span, *out, "--timezone", named[1]]) == 0
    assert bt.Market.load(tmp_path / "out").n_bars == 49 * 24


def test_local_times_with_summer_time_are_refused_by_their_parts():
    bars, mark = walk(24 * 360, "h", noise=0.1)
    local = bars.copy()
    local.index = local.index.tz_convert("America/New_York").tz_localize(None)
    local = local[~local.index.duplicated()].tz_localize("UTC").asfreq("h", method="ffill")
    both = local.index.intersection(mark.index)
    refuse("marks are stamped 4h late", local.loc[both], mark.loc[both])


def test_a_saved_market_and_a_report_show_it(tmp_path):
    bars, mark = overlap(5)
    bars.to_parquet(tmp_path / "bars.parquet")
    mark.to_parquet(tmp_path / "mark.parquet")
    with pytest.raises(bt.DataError, match=REFUSED):
        bt.Market.load(tmp_path)
    report = bt.quality(tmp_path)
    assert report.find("mark", "stamped at other times").level == "error"
    assert any(REFUSED in defect for defect in report.defects)


def jump_late() -> tuple[pd.DataFrame, pd.DataFrame]:
    """A halted market whose one jump reaches the marks an hour later."""
    bars, mark = walk(300, "h")
    bars[:] = 100.0
    mark[:] = 100.0
    bars.iloc[150:] = 120.0
    mark.iloc[151:] = 120.0
    return bars, mark


def constant(n_bars: int = 300) -> tuple[pd.DataFrame, pd.DataFrame]:
    bars, mark = walk(n_bars, "h")
    mark[:] = 100.0
    return bars, mark


def periodic() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Prices that repeat each day fit at many lags: they show nothing."""
    bars, _ = walk(480, "h")
    angle = np.arange(480) * np.pi / 6.0
    wave = pd.DataFrame(dict.fromkeys(PRICES, 100.0 + np.sin(angle)), index=bars.index)
    behind = pd.DataFrame(dict.fromkeys(PRICES, 100.0 + np.cos(angle)), index=bars.index)
    return wave, behind


def thin() -> tuple[pd.DataFrame, pd.DataFrame]:
    """A last price that trades every 8 hours beside a mark that moves each hour."""
    bars, mark = walk(2_000, "h")
    hours = np.arange(2_000)
    bars = bars.iloc[hours // 8 * 8].set_axis(bars.index)
    return bars, mark


LEGITIMATE = {
    "marks that are the bars": lambda: (BARS, BARS[list(PRICES)]),
    "few bars": lambda: overlap(5, *walk(90, "h")),
    "constant marks": constant,
    "both constant": lambda: (constant()[1], constant()[1]),
    "one late jump": jump_late,
    "prices that repeat": periodic,
    "a thin market": thin,
    "marks of noise": lambda: walk(2_000, "h", noise=5.0),
    "marks of noise, minutes": lambda: walk(20_000, "min", noise=5.0),
    "weeks": lambda: walk(200, "7D", noise=5.0),
    "marks smoothed over 12 hours": lambda: (
        walk(2_000, "h")[0], walk(2_000, "h")[1].rolling(12, min_periods=1).mean()
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LEGITIMATE)
def test_other_differences_are_no_shift(case):
    bars, mark = LEGITIMATE[case]()
    bt.Market.from_frames(bars, mark=mark)


@pytest.mark.parametrize("seed", range(20))
def test_unrelated_marks_and_gaps_are_no_shift(seed):
    bars, _ = walk(600, "h", seed=seed)
    _, mark = walk(600, "h", seed=seed + 100)
    bt.Market.from_frames(bars, mark=mark)

    kept = np.random.default_rng(seed).random(600) < 0.7
    bars, mark = walk(600, "h", seed=seed, noise=0.1)
    bt.Market.from_frames(bars, mark=mark[kept], mark_gaps="last")


def test_gaps_of_marks_do_not_hide_a_shift():
    bars, mark = overlap(5)
    kept = np.random.default_rng(0).random(len(mark)) < 0.95
    kept[[0, -1]] = True
    refuse("marks are stamped 5h late", bars, mark[kept], mark_gaps="last")


def test_real_markets_fit_at_once_and_at_no_other_time(real):
    for folder in ("btc-usdm-1h", "perps-1h", "perps-1h-2026"):
        for path in sorted((real / folder).glob("*-1h-futures.feather")):
            frames = []
            for kind in ("futures", "mark"):
                name = path.name.replace("futures", kind)
                frame = pd.read_feather(path.with_name(name)).set_index("date")
                frame.index = pd.DatetimeIndex(frame.index).as_unit("ns")
                frames.append(frame[list(PRICES)])
            bars, mark = overlap(0, *frames)
            bt.Market.from_frames(bars, mark=mark)
            error = refuse("stamped 5h late", *overlap(5, *frames))
            found = re.search(r"times and (\S+) with", error)
            assert found is not None
            assert float(found[1]) > FIT


def settle(first: str, freq: str, n_stamps: int = 30) -> bt.Market:
    stamps = pd.date_range(f"2023-01-01 {first}", periods=n_stamps, freq=freq, tz="UTC")
    funding = pd.DataFrame({"rate": 1e-4}, index=stamps)
    bars = BARS[(BARS.index >= stamps[0]) & (BARS.index < stamps[-1])]
    return bt.Market.from_frames(bars, funding=funding)


@pytest.mark.parametrize(("first", "freq", "hours"), [
    ("05:00", "8h", "05:00, 13:00, 21:00"), ("01:00", "8h", "01:00, 09:00, 17:00"),
    ("02:00", "4h", "02:00, 06:00, 10:00, 14:00, 18:00, 22:00"),
])  # fmt: skip
def test_settlements_at_hours_of_no_venue_are_named(tmp_path, first, freq, hours):
    market = settle(first, freq)
    market.save(tmp_path / "market")
    with pytest.warns(UserWarning, match=f"settlements are at {hours} UTC, venues settle each"):
        bt.Market.load(tmp_path / "market")
    finding = bt.quality(market).find("funding", "at hours of no venue")
    assert finding.level == "doubt"
    assert hours in finding.places[0]


@pytest.mark.parametrize(("first", "freq"), [
    ("00:00", "8h"), ("04:00", "8h"), ("00:00", "4h"), ("03:00", "1h"), ("05:00", "24h"),
    ("08:00:00.013", "8h"),
])  # fmt: skip
def test_settlements_of_venues_raise_no_warning(tmp_path, first, freq):
    settle(first, freq).save(tmp_path / "market")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        market = bt.Market.load(tmp_path / "market")
    assert not bt.quality(market).find("funding", "at hours of no venue").count
