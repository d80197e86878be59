"""Markets that close: longer bars of them, and how many of those make a year."""

import math

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import Market, ParameterError
from backtest.base.units import DAY
from backtest.strategies import Constant

VENUE = bt.Venue.simple(
    taker=0.0, slippage=0.0, maintenance_rate=0.005, max_leverage=10, liquidation_fee=0.0
)
OHLC = {"open": "first", "high": "max", "low": "min", "close": "last"}
ALIKE = {"check_freq": False, "check_names": False, "check_index_type": False}
HOLIDAYS = ("2015-01-19", "2015-04-03", "2015-05-25", "2015-09-07", "2016-01-18")


def frame_of(index: pd.DatetimeIndex, seed: int = 3) -> pd.DataFrame:
    """Return bars of a random walk at some opens, with volume and a column of their own."""
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, len(index))))
    opens = np.append(100.0, close[:-1]) * np.exp(rng.normal(0.0, 0.002, len(index)))
    high, low = np.maximum(opens, close) * 1.003, np.minimum(opens, close) * 0.996
    bars = {"open": opens, "high": high, "low": low, "close": close}
    volume = rng.integers(1, 99, len(index)).astype(float)
    return pd.DataFrame({**bars, "volume": volume, "own": close * 2.0}, index)


def days(n: int = 500, start: str = "2015-01-05") -> pd.DataFrame:
    """Return daily bars of weekdays without some holidays."""
    index = pd.bdate_range(start, periods=n, tz="UTC")
    return frame_of(index[~index.isin(pd.DatetimeIndex(HOLIDAYS, tz="UTC"))])


def hours(n: int = 30) -> pd.DataFrame:
    """Return seven hours a day of New York's sessions: from 14:30 UTC, in summer from 13:30."""
    opens = [
        (pd.Timestamp(f"{day:%Y-%m-%d} 09:30", tz="America/New_York") + pd.Timedelta(hours=k))
        for day in pd.bdate_range("2015-02-16", periods=n)
        for k in range(6)
    ]
    return frame_of(pd.DatetimeIndex(opens).tz_convert("UTC"))


def run(market: Market, leverage: float = 1.0) -> bt.Result:
    return bt.run(
        market, Constant(leverage), venue=VENUE, account=bt.Account(), calendar="252", compile=False
    )


def test_weeks_of_sessions_are_those_of_pandas():
    frame = days()
    market = Market.from_frames(frame, mark=frame * 1.001, sessions=True)
    rule = {**OHLC, "volume": "sum", "own": "last"}
    expected = frame.resample("W-MON", closed="left", label="left").agg(rule)
    weeks = market.resample("1w")
    kept = expected[expected.index.isin(weeks.times)]
    pd.testing.assert_frame_equal(weeks.bars(), kept, **ALIKE)
    marks = kept[list(OHLC)] * 1.001
    pd.testing.assert_frame_equal(weeks.mark(), marks, **ALIKE)
    assert len(weeks) in (len(expected) - 1, len(expected))
    assert (weeks.interval, weeks.sessions, weeks.has_mark) == (7 * DAY, True, True)
    assert set(np.diff(weeks.time)) == {7 * DAY}
    assert weeks == market.resample("7d")


def test_a_first_and_a_last_week_that_are_not_whole_are_left_out_and_noted():
    """From a Wednesday to a Thursday."""
    market = Market.from_frames(days().iloc[2:23], sessions=True)
    weeks = market.resample("1w")
    assert weeks.times[0] == pd.Timestamp("2015-01-12", tz="UTC")
    assert weeks.times[-1] == pd.Timestamp("2015-01-26", tz="UTC")
    assert weeks.filled["resample"] == (
        "3 bars before the first whole group and 4 after the last dropped"
    )
    whole = Market.from_frames(days(15), sessions=True).resample("1w")
    assert "resample" not in whole.filled


def test_days_of_hours_are_stamped_at_midnight_also_where_summer_time_begins():
    frame = hours()
    market = Market.from_frames(frame, sessions=True)
    daily = market.resample("1d")
    rule = {**OHLC, "volume": "sum", "own": "last"}
    expected = frame.groupby(frame.index.floor("D")).agg(rule)
    pd.testing.assert_frame_equal(daily.bars(), expected, **ALIKE)
    assert daily.interval == DAY
    assert run(daily).span.periods == 252.0
    late = Market.from_frames(frame.iloc[2:-1], sessions=True).resample("1d")
    assert late.n_bars == daily.n_bars - 2
    assert late.filled["resample"] == (
        "4 bars before the first whole group and 5 after the last dropped"
    )


@pytest.mark.parametrize(("frame", "interval", "rule"), [
    (days(20), "12h", "bars must become longer than 1d, got 12h"),
    (days(4), "1w", "at least one whole group of bars is needed, found none in 4 bars"),
    (days(20).shift(9, freq="h"), "1d", "a bar must not reach from one 1d of UTC time into"),
])  # fmt: skip
def test_resampling_sessions_refuses_what_cannot_be_whole(frame, interval, rule):
    with pytest.raises(ParameterError, match=rule):
        Market.from_frames(frame, sessions=True).resample(interval)


def shapes() -> dict[str, tuple[pd.DataFrame, float]]:
    """Return bars longer than a day, and how many of them a year has."""
    weeks = pd.date_range("2005-01-03", periods=300, freq="7D", tz="UTC")
    shifted = weeks.where(np.arange(300) % 9 != 3, weeks + pd.Timedelta(days=1))
    months = pd.date_range("1995-01-01", periods=240, freq="MS", tz="UTC")
    quarters = pd.date_range("1980-01-01", periods=120, freq="QS", tz="UTC")
    return {
        "weeks": (frame_of(weeks), 365 / 7),
        "weeks after holidays": (frame_of(shifted), 365 / 7),
        "months": (frame_of(months), 12.0),
        "quarters": (frame_of(quarters), 4.0),
    }


@pytest.mark.parametrize("name", shapes())
def test_bars_longer_than_a_day_are_scaled_by_calendar_time(name):
    """Not by sessions: 252 / 7 weeks and 252 / 28 months a year are wrong."""
    frame, expected = shapes()[name]
    result = run(Market.from_frames(frame, sessions=True))
    assert result.span.periods == pytest.approx(expected, rel=2e-3)
    returns, root = result.returns, math.sqrt(result.span.periods)
    assert result.metrics["volatility"] == pytest.approx(returns.std() * root, rel=1e-12)
    assert result.metrics["sharpe"] == pytest.approx(
        returns.mean() / returns.std() * root, rel=1e-12
    )
