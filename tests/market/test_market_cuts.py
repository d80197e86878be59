"""Prefixes, spans and resampled bars of a market."""

import dataclasses
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.base.errors import ParameterError
from backtest.base.units import HOUR
from backtest.market.market import Market
from tests.kit import check_refused
from tests.market.small_markets import SAMPLE, four_bars
from tests.peeks import MARKET


def test_a_prefix_holds_nothing_stamped_at_or_after_its_end():
    for n in (1, 7, 8, 9, 480):
        part = SAMPLE.prefix(n)
        assert part.n_bars == n
        assert part.close.tolist() == SAMPLE.close[:n].tolist()
        assert (part.funding_time < part.end).all()
        assert part.funding_time.size == 1 + (n - 1) // 8
    jittered = dataclasses.replace(SAMPLE, funding_time=SAMPLE.funding_time - 2_000_000)
    assert jittered.prefix(8).funding_time.size == 2  # stamped 2 ms before the close of bar 8


def test_between_takes_the_opens_from_start_to_before_end():
    part = SAMPLE.between("2023-01-02", pd.Timestamp("2023-01-03T00:30", tz="UTC"))
    assert part.n_bars == 25
    assert part.times[0] == pd.Timestamp("2023-01-02", tz="UTC")
    assert part.times[-1] == pd.Timestamp("2023-01-03", tz="UTC")
    assert part.funding_time.size == 4
    assert SAMPLE.between() == SAMPLE
    assert SAMPLE.between("2023-01-02").end == SAMPLE.end
    tokyo = pd.Timestamp("2023-01-02T09:00", tz="Asia/Tokyo")
    assert SAMPLE.between(tokyo) == SAMPLE.between("2023-01-02")


def test_between_keeps_an_event_stamped_just_before_its_first_open_and_drops_the_next_ones():
    for milliseconds in (-5, 0, 5):
        jitter = milliseconds * 1_000_000
        market = dataclasses.replace(SAMPLE, funding_time=SAMPLE.funding_time + jitter)
        part = market.between("2023-01-02", "2023-01-02 08:00")
        own = pd.Timestamp("2023-01-02").value + jitter
        following = [pd.Timestamp("2023-01-02 08:00").value - 5_000_000] * (milliseconds < 0)
        assert part.funding_time.tolist() == [own, *following]


@settings(max_examples=30)
@given(st.lists(st.integers(1, 479), max_size=4, unique=True), st.integers(-20, 20))
def test_the_parts_of_a_market_hold_all_its_bars_and_settlements(cuts, milliseconds):
    stamped = SAMPLE.funding_time + milliseconds * 1_000_000
    market = dataclasses.replace(SAMPLE, funding_time=stamped)
    times = [pd.Timestamp(market.start + hour * HOUR) for hour in [0, *sorted(cuts), 480]]
    parts = [market.between(a, b) for a, b in pairwise(times)]
    assert np.concatenate([part.close for part in parts]).tolist() == market.close.tolist()
    settled = np.unique(np.concatenate([part.funding_time for part in parts]))
    assert settled.tolist() == stamped.tolist()


def test_resampling_takes_first_highest_lowest_last_and_the_sum():
    market = Market.from_frames(four_bars(x=[1.0, 2.0, 3.0, np.nan]), mark=four_bars() * 2)
    longer = market.resample("2h")
    assert longer.interval == 2 * HOUR
    assert longer.time.tolist() == market.time[::2].tolist()
    assert longer.open.tolist() == [100.0, 103.0]
    assert longer.high.tolist() == [105.0, 105.0]
    assert longer.low.tolist() == [98.0, 99.0]
    assert longer.close.tolist() == [103.0, 101.0]
    assert longer.volume.tolist() == [3.0, 7.0]
    assert longer.mark_open.tolist() == [200.0, 206.0]
    assert longer.mark_high.tolist() == [210.0, 210.0]
    assert longer.mark_low.tolist() == [196.0, 198.0]
    assert longer.mark_close.tolist() == [206.0, 202.0]
    assert longer.columns["x"][0] == 2.0
    assert np.isnan(longer.columns["x"][1])
    assert longer.end == market.end
    assert "resample" not in longer.filled


def test_resampling_drops_partial_groups_at_the_ends_and_notes_it():
    part = SAMPLE.between("2023-01-01 21:00", "2023-01-04 02:00")
    days = part.resample("1d")
    assert [str(t.date()) for t in days.times] == ["2023-01-02", "2023-01-03"]
    assert days.filled["resample"] == (
        "3 bars before the first whole group and 2 after the last dropped"
    )
    whole = SAMPLE.resample("1d").between("2023-01-02", "2023-01-04")
    assert days == whole


@settings(max_examples=40)
@given(st.sampled_from(["1h", "2h", "4h", "8h", "12h", "1d"]), st.integers(-20, 20))
def test_resampling_keeps_every_settlement_and_all_volume(interval, milliseconds):
    stamped = SAMPLE.funding_time + milliseconds * 1_000_000
    market = dataclasses.replace(SAMPLE, funding_time=stamped).between("2023-01-06", "2023-01-21")
    longer = market.resample(interval)
    assert longer.funding_rate.sum() == market.funding_rate.sum()
    assert longer.funding_time.tolist() == market.funding_time.tolist()
    assert longer.volume.sum() == pytest.approx(market.volume.sum(), rel=1e-12)
    assert longer.high.max() == market.high.max()
    assert longer.mark_low.min() == market.mark_low.min()
    assert longer.start == market.start
    assert longer.end == market.end


@pytest.mark.parametrize(("first", "stop"), [(0, 1), (0, 9), (3, 20), (100, 101), (7, 3000)])
def test_a_slice_is_the_rows_and_the_funding_before_its_end(first: int, stop: int):
    part = MARKET.slice(first, stop)
    for name in ("time", "close", "mark_low", "volume", "signal"):
        assert np.array_equal(getattr(part, name), getattr(MARKET, name)[first:stop])
    assert np.array_equal(part.columns["late"], MARKET.columns["late"][first:stop], equal_nan=True)
    low = part.start - part.interval // 4
    inside = (MARKET.funding_time >= (low if first else 0)) & (MARKET.funding_time < part.end)
    assert np.array_equal(part.funding_time, MARKET.funding_time[inside])
    if first == 0:
        assert part == MARKET.prefix(stop)


OFF = Market.from_frames(four_bars().shift(30, freq="min"))
SPAN = "a span must lie inside the market, 2023-01-01 to 2023-01-21, and hold a bar, got "


@pytest.mark.parametrize(("cut", "words"), [
    (lambda: SAMPLE.prefix(0), "n must be 1 to 480"),
    (lambda: MARKET.slice(-1, 3), "first must be"),
    (lambda: MARKET.slice(3, 3), "stop must be"),
    (lambda: SAMPLE.between("2022-12-31"), f"{SPAN}2022-12-31 to 2023-01-21"),
    (lambda: SAMPLE.between("2023-01-05 00:10", "2023-01-05 00:50"), SPAN),
    (lambda: SAMPLE.resample("90m"), "bars must become a multiple of 1h, got 90m"),
    (lambda: SAMPLE.resample("30d"), "at least one whole group of 720 bars is needed"),
    (lambda: OFF.resample("2h"), "bars must open on multiples of 1h in UTC"),
])  # fmt: skip
def test_a_cut_that_cannot_be_made_is_refused(cut, words):
    check_refused(cut, words, ParameterError)
