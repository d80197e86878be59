"""Marks of another contract and rates in per cent are refused; real extremes are not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import DataError, Market
from backtest.market.rules import (
    FURTHEST_MARK,
    HIGHEST_RATE,
)
from tests.kit import check_refused

REAL = Path(__file__).parents[3] / "shared" / "data"
SAMPLE = Market.sample(bars=600)


def build(mark: float | np.ndarray = 1.0, rate: object = None, market: Market = SAMPLE) -> Market:
    """Return a market again with marks times a factor and other rates."""
    marks, funding = market.mark(), market.funding()
    assert marks is not None
    assert funding is not None
    if rate is not None:
        funding["rate"] = rate
    factor = np.reshape(np.broadcast_to(mark, len(marks)), (-1, 1))
    return Market.from_frames(market.bars(), mark=marks * factor, funding=funding)


MARKS = "mark prices must stay within 20% of last prices, were "
RATES = "funding rates must be fractions per settlement, 0.0001 is 0.01 %: their median was "
LATE = np.where(np.arange(4000) < 2900, 1.0, 10.0)


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
        rates = pd.Series(0.01 * hours / 8, stamps)
        for between in (None, ("2023-01-02", "2023-01-05")):
            with pytest.raises(DataError, match="fractions per settlement"):
                Market.from_frames(SAMPLE.bars(), funding=rates, between=between)


def test_marks_away_in_a_crash_are_taken():
    """40 % off for a day, 10 % for a week, 5 % for good."""
    off = np.ones(600)
    off[100:124], off[200:368] = 0.6, 1.1
    assert build(off).has_mark
    assert build(1.05).has_mark


def test_rates_of_a_squeeze_are_taken():
    """3 % at each settlement of a week, 0.75 % at each of twelve days, 0.3 % throughout."""
    for count, rate in ((21, -0.03), (36, 0.0075), (75, 0.003)):
        rates = np.where(np.arange(75) < count, rate, 1e-4)
        assert len(build(rate=rates).funding_rate) == 75


def write(folder: Path, *, mark: float, rate: float) -> Path:
    """Write a market whose marks and rates are times a factor, past the checks."""
    SAMPLE.save(folder)
    marks = pd.read_parquet(folder / "mark.parquet")
    prices = ["open", "high", "low", "close"]
    marks[prices] *= mark
    marks.to_parquet(folder / "mark.parquet")
    funding = pd.read_parquet(folder / "funding.parquet")
    funding["rate"] *= rate
    funding.to_parquet(folder / "funding.parquet")
    return folder


def test_the_report_names_both_and_judges_by_them(tmp_path):
    folder = write(tmp_path / "bad", mark=2.0, rate=100.0)
    report = bt.quality(folder)
    assert all(report.find(each, "on another scale").count for each in ("mark", "funding"))
    marks, rates = report.defects
    assert marks.startswith(MARKS)
    assert rates.startswith(RATES)


def test_a_short_file_and_a_small_distance_are_doubts(tmp_path):
    (away,) = bt.quality(build(1.03)).find("mark", "away from last prices").places
    assert away.startswith("1.03 times the last price at the median")
    (high,) = (
        bt.quality(build(rate=0.01, market=Market.sample(bars=168))).find("funding", "high").places
    )
    assert high.endswith("in per cent?")


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize(
    ("folder", "name"), [("btc-usdm-1h", "BTC"), ("perps-1h", "ETH"), ("perps-1h", "LTC")]
)
def test_no_stretch_of_real_data_comes_near_the_limits(folder, name):
    """Every day of marks, and every 20 days of rates, is a tenth and a third of what is refused."""
    market = Market.load(
        REAL / folder, instrument=f"{name}USDT", interval="1h", mark_gaps="last",
        funding_gaps="zero",
    )  # fmt: skip
    away = pd.Series(np.abs(np.log(market.mark_close / market.close))).rolling(24).median()
    assert away.max() < FURTHEST_MARK / 10
    size = pd.Series(np.abs(market.funding_rate)).rolling(60).median()
    assert size.max() < HIGHEST_RATE / 3
