"""Volatility of finer bars, and of the options market: by hand, and known from its close on."""

import math

import numpy as np
import pandas as pd
import pytest

from backtest import Market
from backtest.features import log_returns, realised_volatility, volatility
from tests.features.test_features import sessions_market
from tests.features.test_volatility import YEAR


@pytest.fixture(scope="module")
def minutes() -> Market:
    return Market.sample(bars=60 * 24 * 4, interval="1m")


def test_realised_volatility_adds_up_squares(minutes: Market):
    hours = minutes.resample("1h")
    found = realised_volatility(hours, minutes)
    squares = log_returns(minutes) ** 2
    expected = np.sqrt(YEAR * squares.reshape(-1, 60).sum(axis=1))
    np.testing.assert_allclose(found, expected, rtol=1e-12)  # the first is NaN: no close before it
    assert np.isnan(found[0])
    assert np.isfinite(found[1:]).all()


def test_realised_volatility_knows_the_past_only(minutes: Market):
    hours = minutes.resample("1h")
    whole = realised_volatility(hours, minutes)
    for n in (1, 2, 50, 95):
        part = realised_volatility(hours.prefix(n), minutes.prefix(60 * n))
        assert part.tobytes() == whole[:n].tobytes()
        assert realised_volatility(hours.prefix(n), minutes).tobytes() == whole[:n].tobytes()


def test_a_bar_that_is_not_covered_is_not_known(minutes: Market):
    """From 12:20 on the second day to 06:10 on the third: hours 37 to 53 are whole."""
    hours = minutes.resample("1h")
    part = minutes.between("2023-01-02 12:20", "2023-01-03 06:10")
    found = realised_volatility(hours, part)
    known = np.flatnonzero(np.isfinite(found))
    assert list(known) == list(range(38, 54))  # the close before hour 37 is of hour 36, in part
    whole = realised_volatility(hours, minutes)
    assert (found[known] == whole[known]).all()


def test_finer_bars_before_the_market_tell_the_close_before_its_first_bar(minutes: Market):
    hours = minutes.resample("1h").between("2023-01-02")
    assert np.isfinite(realised_volatility(hours, minutes)).all()


def test_a_missing_finer_bar_leaves_its_bar_and_the_next_unknown(minutes: Market):
    hours = minutes.resample("1h")
    holes = Market.from_frames(minutes.bars().drop(minutes.times[60 * 5 + 7]), sessions=True)
    found = realised_volatility(hours, holes)
    assert list(np.flatnonzero(np.isnan(found))) == [0, 5, 6]


def test_a_night_counts_to_the_bar_after_it():
    finer = sessions_market(days=12, per_day=7)
    days = finer.bars().groupby(finer.times.floor("D"))
    bars = days.agg({"open": "first", "high": "max", "low": "min", "close": "last"})
    daily = Market.from_frames(bars, sessions=True)
    squares = (log_returns(finer) ** 2).reshape(12, 7).sum(axis=1)
    np.testing.assert_allclose(realised_volatility(daily, finer), np.sqrt(252.0 * squares))
    some = Market.from_frames(
        finer.bars().iloc[[*range(28), *range(31, 35), *range(38, 84)]], sessions=True
    )
    found = realised_volatility(daily, some)
    assert np.isfinite(found[4])  # 4 of 7
    assert np.isfinite(found[6:]).all()
    few = Market.from_frames(finer.bars().iloc[[*range(28), *range(32, 84)]], sessions=True)
    assert list(np.flatnonzero(np.isnan(realised_volatility(daily, few)))) == [0, 4, 5]


def test_realised_volatility_of_a_random_walk_is_found():
    """1440 squared minutes a day, 8 days: a relative standard error of sqrt(2 / 11520) / 2."""
    rng = np.random.default_rng(0)
    path = np.exp(np.cumsum(rng.normal(0.0, 0.6 / math.sqrt(525_600), 1440 * 9)))
    index = pd.date_range("2024-01-01", periods=len(path), freq="1min", tz="UTC")
    bars = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), path), index=index)
    finer = Market.from_frames(bars)
    found = realised_volatility(finer.resample("1d"), finer)
    mean = math.sqrt(np.mean(found[1:] ** 2))
    assert mean == pytest.approx(0.6, rel=3 * math.sqrt(2 / 11_520) / 2)


def test_attached_realised_volatility_is_averaged_where_it_is_known(minutes: Market):
    hours = minutes.resample("1h")
    part = minutes.between("2023-01-01", "2023-01-03 06:10")
    column = realised_volatility(hours, part)
    attached = hours.with_columns(realised_volatility=column)
    found = volatility(attached, "realised", np.array([5.0, 20.0]))
    for k, half_life in enumerate((5.0, 20.0)):
        squares = pd.Series(column**2)
        expected = squares.ewm(halflife=half_life, min_periods=2, ignore_na=True).mean()
        np.testing.assert_allclose(found[:, k], np.sqrt(expected), rtol=1e-12)
    assert (found[54:] == found[53]).all()
