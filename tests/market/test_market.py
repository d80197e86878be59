"""A Market is immutable, cuts and lengthens without losing a settlement, and names itself."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import pickle
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.base.errors import DataError, ParameterError
from backtest.base.units import DAY, HOUR
from backtest.market import market as module
from backtest.market.market import Market
from backtest.market.synthetic import generate

ARRAYS = [
    "time", "open", "high", "low", "close", "volume", "mark_open", "mark_high", "mark_low",
    "mark_close", "funding_time", "funding_rate", "funding_mark",
]  # fmt: skip


def four_bars(**changes: object) -> pd.DataFrame:
    """Four hours from 2023-01-01; high and low two beyond open and close."""
    columns = {
        "open": [100.0, 101.0, 103.0, 102.0],
        "high": [103.0, 105.0, 105.0, 104.0],
        "low": [98.0, 99.0, 100.0, 99.0],
        "close": [101.0, 103.0, 102.0, 101.0],
        "volume": [1.0, 2.0, 3.0, 4.0],
    }
    index = pd.date_range("2023-01-01", periods=4, freq="h", tz="UTC")
    return pd.DataFrame(columns | changes, index=index)


def stamps(*texts: str) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(texts).tz_localize("UTC")


SAMPLE = Market.sample(bars=24 * 20)
WITH_COLUMN = Market.from_frames(
    SAMPLE.bars().assign(regime=np.arange(480.0)), funding=SAMPLE.funding(), mark=SAMPLE.mark()
)


def test_fields_hold_what_the_frames_hold():
    funding = pd.DataFrame(
        {"rate": [1e-4, 2e-4], "mark": [100.5, np.nan]}, index=stamps("2023-01-01", "2023-01-01 08")
    )
    market = Market.from_frames(four_bars(iv=[0.5, np.nan, 0.6, 0.7]), funding=funding)
    assert market.interval == HOUR
    assert market.n_bars == len(market) == 4
    assert market.start == pd.Timestamp("2023-01-01").value
    assert market.end == market.start + 4 * HOUR
    assert market.index.equals(four_bars().index)
    assert market.open.tolist() == [100.0, 101.0, 103.0, 102.0]
    assert market.volume.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert market.funding_time.tolist() == [market.start]  # the second event is after the end
    assert market.funding_rate.tolist() == [1e-4]
    assert market.funding_mark.tolist() == [100.5]
    assert market.columns["iv"].tolist()[2:] == [0.6, 0.7]
    assert not market.has_mark
    assert not market.synthetic
    assert dict(market.filled) == {}
    assert repr(market) == "<Market.from_frames: bars 1h, 4 from 2023-01-01>"


def test_without_a_mark_the_mark_is_the_last_price_and_the_market_says_so():
    market = Market.from_frames(four_bars())
    assert not market.has_mark
    assert market.mark() is None
    assert market.mark_low is market.low


def test_without_funding_nothing_is_settled_and_the_market_says_so():
    market = Market.from_frames(four_bars())
    assert market.funding() is None
    assert market.funding_time.size == market.funding_rate.size == market.funding_mark.size == 0
    assert market.filled["funding"] == "none given"


def test_a_series_of_rates_is_funding():
    rates = pd.Series([1e-4], index=stamps("2023-01-01"), name="anything")
    assert Market.from_frames(four_bars(), funding=rates).funding_rate.tolist() == [1e-4]


def test_without_volume_it_is_zero():
    market = Market.from_frames(four_bars().drop(columns="volume"))
    assert market.volume.tolist() == [0.0] * 4


def test_times_may_stand_in_a_column():
    for name in ("time", "date", "timestamp", "open_time", "datetime"):
        frame = four_bars().reset_index(names=name)
        assert Market.from_frames(frame) == Market.from_frames(four_bars())


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_epochs_of_any_unit_and_times_of_any_resolution_are_the_same_market(unit):
    frame = four_bars()
    whole = Market.from_frames(frame).content_hash
    resolved = frame.set_axis(frame.index.as_unit(unit))
    assert Market.from_frames(resolved).content_hash == whole
    epochs = frame.reset_index(drop=True).assign(time=frame.index.as_unit(unit).asi8)
    assert Market.from_frames(epochs).content_hash == whole
    texts = epochs.assign(time=epochs["time"].astype(str))
    assert Market.from_frames(texts).content_hash == whole
    if unit != "ns":  # a float holds no epoch in ns exactly
        floats = epochs.assign(time=epochs["time"].astype(float))
        assert Market.from_frames(floats).content_hash == whole


def test_stamps_of_another_zone_are_moved_to_utc_and_naive_ones_localised_when_asked():
    frame = four_bars()
    whole = Market.from_frames(frame)
    assert Market.from_frames(frame.tz_convert("Asia/Tokyo")) == whole
    assert Market.from_frames(frame.tz_localize(None), timezone="UTC") == whole
    tokyo = frame.tz_convert("Asia/Tokyo").tz_localize(None)
    assert Market.from_frames(tokyo, timezone="Asia/Tokyo") == whole
    texts = frame.set_axis(pd.Index(frame.index.strftime("%FT%TZ"), name="time"))
    assert Market.from_frames(texts) == whole


def test_funding_stamps_off_the_boundary_are_kept_as_they_are():
    index = stamps("2022-12-31 23:59:59.998", "2023-01-01 03:00:00.017")
    market = Market.from_frames(four_bars(), funding=pd.Series([1e-4, 2e-4], index=index))
    assert market.funding_time.tolist() == [t.value for t in index]


def test_the_market_is_frozen_and_shares_nothing_with_the_frames():
    frame = four_bars()
    market = Market.from_frames(frame)
    before = market.content_hash
    frame.iloc[:, :] = 1.0
    assert market.open[0] == 100.0
    for name in ARRAYS:
        array = getattr(market, name)
        assert array.flags.c_contiguous
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign"):
        market.open = market.close  # type: ignore[misc]
    with pytest.raises(TypeError, match="item assignment"):
        market.columns["x"] = market.close  # type: ignore[index]
    assert dataclasses.replace(market).content_hash == before


@pytest.mark.parametrize(
    "derived",
    [
        SAMPLE.resample("1d"),
        SAMPLE.between("2023-01-02", "2023-01-05"),
        SAMPLE.prefix(9),
        pickle.loads(pickle.dumps(SAMPLE)),
        Market.sample(bars=10, interval="1d"),
    ],
    ids=["resample", "between", "prefix", "pickle", "daily"],
)
def test_what_is_derived_is_frozen_too(derived):
    for name in ARRAYS:
        array = getattr(derived, name)
        assert array.flags.c_contiguous
        assert not array.flags.writeable


def test_a_constructor_copies_an_array_somebody_else_could_still_write_to():
    mine = SAMPLE.close.copy()
    market = dataclasses.replace(SAMPLE, close=mine)
    mine[:] = 0.0
    assert market.close[0] == SAMPLE.close[0]


def test_copies_through_pickle_are_equal_in_everything():
    market = WITH_COLUMN.between("2023-01-02", "2023-01-09")
    for again in (pickle.loads(pickle.dumps(market)), copy.deepcopy(market)):
        assert again == market
        assert hash(again) == hash(market)
        assert repr(again) == repr(market)
        assert again.columns.keys() == market.columns.keys()
    bare = Market.from_frames(four_bars())
    again = pickle.loads(pickle.dumps(bare))
    assert again.mark_open is again.open


@pytest.mark.parametrize("name", ARRAYS)
def test_the_content_hash_depends_on_every_array(name):
    values = getattr(SAMPLE, name).copy()
    values[-1] = values[-1] + 1 if name != "funding_mark" else 1.0
    assert dataclasses.replace(SAMPLE, **{name: values}).content_hash != SAMPLE.content_hash


@pytest.mark.parametrize(
    "change",
    [
        {"instrument": "X"},
        {"interval": 2 * HOUR},
        {"has_mark": False},
        {"synthetic": False},
        {"sessions": True},
        {"columns": {"x": SAMPLE.close}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_content_hash_depends_on_names_interval_and_flags(change):
    changed = dataclasses.replace(SAMPLE, **change)
    assert changed != SAMPLE
    assert changed.content_hash != SAMPLE.content_hash


def test_the_content_hash_does_not_depend_on_the_source_or_the_order_of_columns():
    assert dataclasses.replace(SAMPLE, source="elsewhere") == SAMPLE
    frame = four_bars()
    one = Market.from_frames(frame.assign(a=1.0, b=2.0))
    two = Market.from_frames(frame.assign(b=2.0, a=1.0))
    assert one.content_hash == two.content_hash
    renamed = Market.from_frames(frame.assign(a=2.0, b=1.0))
    assert renamed.content_hash != one.content_hash
    assert SAMPLE != "something else"


def test_minus_zero_and_the_kind_of_nan_do_not_show_in_the_hash():
    odd_nan = np.array([0xFFF8000000000001], dtype=np.uint64).view(np.float64)[0]
    one = Market.from_frames(four_bars(x=[0.0, np.nan, 1.0, 1.0]))
    two = Market.from_frames(four_bars(x=[-0.0, odd_nan, 1.0, 1.0]))
    assert one == two


@pytest.mark.parametrize(
    "market",
    [
        Market.sample(bars=30),
        Market.sample(bars=10, seed=3, interval="5m"),
        Market.sample(bars=48).resample("1d"),
        Market.sample(bars=48).between("2023-01-01 05:00", "2023-01-02").prefix(7),
    ],
    ids=repr,
)
def test_the_source_pastes_back(market):
    again = eval(repr(market), {"Market": Market})
    assert again == market
    assert repr(again) == repr(market)


# prefix, between, resample


def test_a_prefix_holds_nothing_stamped_at_or_after_its_end():
    for n in (1, 7, 8, 9, 480):
        part = SAMPLE.prefix(n)
        assert part.n_bars == n
        assert part.close.tolist() == SAMPLE.close[:n].tolist()
        assert (part.funding_time < part.end).all()
        assert part.funding_time.size == 1 + (n - 1) // 8
    jittered = dataclasses.replace(SAMPLE, funding_time=SAMPLE.funding_time - 2_000_000)
    assert jittered.prefix(8).funding_time.size == 2  # stamped 2 ms before the close of bar 8


@pytest.mark.parametrize("n", [0, -1, 481, 2.5, "3"])
def test_a_prefix_of_no_length_is_refused(n):
    with pytest.raises(ParameterError, match="n must be"):
        SAMPLE.prefix(n)


def test_between_takes_the_opens_from_start_to_before_end():
    part = SAMPLE.between("2023-01-02", pd.Timestamp("2023-01-03T00:30", tz="UTC"))
    assert part.n_bars == 25
    assert part.index[0] == pd.Timestamp("2023-01-02", tz="UTC")
    assert part.index[-1] == pd.Timestamp("2023-01-03", tz="UTC")
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


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2022-12-31", None),
        (None, "2023-01-21 00:01"),
        ("2023-01-05", "2023-01-05"),
        ("2023-01-05", "2023-01-04"),
        ("2023-01-05 00:10", "2023-01-05 00:50"),
    ],
)
def test_between_refuses_what_is_outside_or_empty(start, end):
    with pytest.raises(ParameterError, match="a span must lie inside the market") as refused:
        SAMPLE.between(start, end)
    assert refused.value.cure == "choose times from 2023-01-01 to 2023-01-21"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_between_of_between_is_between(data):
    hours = st.integers(0, 480)
    a, b, c, d = sorted(data.draw(st.lists(hours, min_size=4, max_size=4, unique=True)))
    jitter = data.draw(st.integers(-20, 20)) * 1_000_000
    market = dataclasses.replace(WITH_COLUMN, funding_time=WITH_COLUMN.funding_time + jitter)
    a, b, c, d = (pd.Timestamp(market.start + hour * HOUR) for hour in (a, b, c, d))
    assert market.between(a, d).between(b, c) == market.between(b, c)


@settings(max_examples=30, deadline=None)
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
    assert [str(t.date()) for t in days.index] == ["2023-01-02", "2023-01-03"]
    assert days.filled["resample"] == (
        "3 bars before the first whole group and 2 after the last dropped"
    )
    whole = SAMPLE.resample("1d").between("2023-01-02", "2023-01-04")
    assert days == whole


def test_weeks_begin_on_monday():
    assert SAMPLE.resample("1w").index[0] == pd.Timestamp("2023-01-02", tz="UTC")
    assert SAMPLE.resample("1w").index[0].day_name() == "Monday"


@settings(max_examples=40, deadline=None)
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


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([("2h", "8h"), ("4h", "1d"), ("8h", "2d"), ("1d", "1w")]))
def test_resampling_in_two_steps_is_resampling_in_one(steps):
    first, second = steps
    two, one = SAMPLE.resample(first).resample(second), SAMPLE.resample(second)
    for name in ARRAYS:
        if name not in ("volume", "funding_mark"):
            assert getattr(two, name).tolist() == getattr(one, name).tolist()
    assert two.volume == pytest.approx(one.volume, rel=1e-12)


@pytest.mark.parametrize(
    ("interval", "rule"),
    [
        ("30m", "bars must become a multiple of 1h, was 30m"),
        ("90m", "bars must become a multiple of 1h, was 90m"),
        ("30d", "at least one whole group of 720 bars is needed"),
        ("daily", "a duration is a positive whole number"),
    ],
)
def test_resampling_refuses_what_is_no_multiple_or_too_long(interval, rule):
    with pytest.raises(ParameterError, match=rule):
        SAMPLE.resample(interval)


def test_resampling_refuses_bars_off_the_grid():
    shifted = four_bars().shift(30, freq="min")
    with pytest.raises(ParameterError, match="bars must open on multiples of 1h in UTC"):
        Market.from_frames(shifted).resample("2h")


# sessions, gaps filled by choice


def weekdays() -> pd.DataFrame:
    index = pd.bdate_range("2023-01-02", periods=10, tz="UTC")
    frame = four_bars().iloc[[0] * 10]
    return frame.set_axis(index)


def test_session_bars_may_be_further_apart_than_their_length():
    with pytest.raises(DataError, match="2 missing in 1 gap") as refused:
        Market.from_frames(weekdays())
    assert "sessions=True" in refused.value.cure
    market = Market.from_frames(weekdays(), sessions=True)
    assert market.sessions
    assert market.interval == DAY
    assert market.n_bars == 10
    assert market.end == pd.Timestamp("2023-01-14").value
    assert market.between("2023-01-06", "2023-01-10").n_bars == 2
    assert Market.from_frames(weekdays(), mark=weekdays(), sessions=True).has_mark


def test_the_length_of_a_session_bar_is_the_smallest_gap_and_may_be_given():
    frame = weekdays().iloc[[0, 2, 3, 7]]
    assert Market.from_frames(frame, sessions=True).interval == DAY
    assert Market.from_frames(frame, sessions=True, interval="8h").interval == 8 * HOUR
    with pytest.raises(
        DataError, match="bars must open at least 2d apart, 1 of 4 open at other times"
    ):
        Market.from_frames(frame, sessions=True, interval="2d")


def test_one_bar_is_a_market_when_its_length_is_given():
    market = Market.from_frames(four_bars().iloc[:1], interval="1h")
    assert market.n_bars == 1
    assert market.interval == HOUR


def test_missing_mark_bars_take_last_prices_when_asked_and_the_market_says_how_many():
    mark = four_bars() * 2
    market = Market.from_frames(four_bars(), mark=mark.iloc[[1, 3]], mark_gaps="last")
    assert market.mark_open.tolist() == [100.0, 202.0, 103.0, 204.0]
    assert market.mark_low.tolist() == [98.0, 198.0, 100.0, 198.0]
    assert market.has_mark
    assert market.filled["mark_gaps"] == ("last: 2 of 4 bars, 2023-01-01 to 2023-01-01 03:00 UTC")
    whole = Market.from_frames(four_bars(), mark=mark, mark_gaps="last")
    assert "mark_gaps" not in whole.filled


def test_a_mark_that_matches_no_bar_is_not_filled():
    with pytest.raises(DataError, match="4 of 4 bars lie outside them") as refused:
        Market.from_frames(four_bars(), mark=four_bars().shift(9, freq="D"), mark_gaps="last")
    assert "leave mark out" in refused.value.cure


def test_missing_settlements_are_accepted_when_asked_and_the_market_says_how_many():
    funding = SAMPLE.funding().drop(SAMPLE.funding().index[[0, 1, 2, 9, 20, 21]])
    bars = SAMPLE.bars()
    with pytest.raises(DataError, match="2 defects"):
        Market.from_frames(bars, funding=funding)
    market = Market.from_frames(bars, funding=funding, funding_gaps="zero")
    assert market.funding_time.size == 54
    assert market.filled["funding_gaps"] == (
        "zero: 5 settlements missing in 2023-01-01 to 2023-01-21 UTC"
    )  # those at 08:00 and 16:00 of the first day, and three inside; none is due before the open
    whole = Market.from_frames(bars, funding=SAMPLE.funding(), funding_gaps="zero")
    assert "funding_gaps" not in whole.filled


def cadence(*hours: int) -> pd.Series:
    index = SAMPLE.index[np.cumsum([0, *hours])]
    return pd.Series(1e-4, index=index)


@pytest.mark.parametrize(
    "hours",
    [
        [8] * 9,
        [8] * 5 + [4] * 9,
        [4] * 9 + [8] * 5,
        [8] * 3 + [4] * 3 + [1] * 12,
        [1] * 12 + [8] * 3,
        [8, 4, 4, 4],
        [24] * 4,
    ],
)
def test_a_change_of_cadence_is_no_gap(hours):
    funding = cadence(*hours)
    bars = SAMPLE.bars().loc[: funding.index[-1]]
    assert Market.from_frames(bars, funding=funding).funding_rate.size == len(hours) + 1


@pytest.mark.parametrize(
    ("hours", "missing"),
    [
        ([8, 8, 16, 8, 8], 1),
        ([8, 8, 24, 8, 8], 2),
        ([4, 4, 8, 4, 4], 1),
        ([1, 1, 1, 2, 1, 1], 1),
        ([8, 8, 9, 8, 8], 1),
        ([8, 8, 12, 4, 4, 4, 4], 2),
        ([8, 16, 16, 8, 8], 2),
        ([24, 24, 48, 24], 1),
    ],
)
def test_a_spacing_longer_than_its_neighbours_or_than_8_hours_is_a_gap(hours, missing):
    funding = cadence(*hours)
    bars = SAMPLE.bars().loc[: funding.index[-1]]
    with pytest.raises(DataError, match=f"{missing} missing in"):
        Market.from_frames(bars, funding=funding)


def test_jitter_is_neither_a_gap_nor_a_change_of_cadence():
    rng = np.random.default_rng(0)
    funding = SAMPLE.funding()
    jitter = pd.to_timedelta(rng.integers(-30, 30, len(funding)), unit="ms")
    market = Market.from_frames(SAMPLE.bars(), funding=funding.set_axis(funding.index + jitter))
    assert market.funding_rate.size == 60
    assert "funding" not in market.filled


# the sample


def test_the_embedded_year_equals_the_generator_bit_for_bit():
    assert module._SAMPLE.is_dir(), "data/sample-1h is missing: run data/make_sample.py"
    generated = Market(**generate(bars=8760, seed=0, interval=HOUR).fields(), source="generated")
    sample = Market.sample()
    assert repr(sample) == "Market.sample()"
    for name in ARRAYS:
        assert np.array_equal(getattr(sample, name), getattr(generated, name), equal_nan=True)
    assert sample.content_hash == generated.content_hash
    assert dict(sample.filled) == {}


def test_the_card_says_what_is_in_the_sample():
    path = module._SAMPLE.parent / "make_sample.py"
    script = importlib.util.module_from_spec(
        spec := importlib.util.spec_from_file_location("make_sample", path)
    )
    spec.loader.exec_module(script)
    card = (module._SAMPLE / "README.md").read_text(encoding="utf-8")
    assert card == script.card(Market.sample())
    assert sum(file.stat().st_size for file in module._SAMPLE.iterdir()) < 1_000_000


def test_without_the_embedded_file_the_sample_is_generated(monkeypatch, tmp_path):
    embedded = Market.sample()
    monkeypatch.setattr("backtest.market.market._SAMPLE", tmp_path / "absent")
    assert Market.sample() == embedded
    assert repr(Market.sample()) == "Market.sample()"


@pytest.mark.parametrize("interval", ["1m", "15m", "1h", "8h"])
def test_a_shorter_sample_is_the_beginning_of_a_longer_one(interval):
    assert Market.sample(bars=200, interval=interval) == Market.sample(
        bars=700, interval=interval
    ).prefix(200)


def test_samples_differ_by_seed_and_repeat_by_seed():
    assert Market.sample(bars=50, seed=1) == Market.sample(bars=50, seed=1)
    assert Market.sample(bars=50, seed=1) != Market.sample(bars=50, seed=2)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("interval", ["5m", "1h", "12h", "1d"])
def test_a_sample_passes_the_checks_of_real_data(seed, interval):
    market = Market.sample(bars=600, seed=seed, interval=interval)
    assert market.n_bars == 600
    again = Market.from_frames(market.bars(), funding=market.funding(), mark=market.mark())
    assert np.array_equal(again.close, market.close)
    assert again.start == pd.Timestamp("2023-01-01").value


def test_the_sample_looks_like_a_perpetual_future():
    market = Market.sample()
    returns = np.diff(np.log(market.close))
    assert market.synthetic
    assert market.instrument == "SYNTHETIC-PERP"
    assert market.open[0] == 30_000.0
    assert np.array_equal(np.round(market.close, 1), market.close)
    assert np.array_equal(market.open[1:], market.close[:-1])
    assert 0.5 < returns.std() * np.sqrt(8760) < 0.7
    assert ((returns - returns.mean()) ** 4).mean() / returns.var() ** 2 > 8
    fall = 1 - market.mark_low / market.mark_open
    assert (fall > 0.036).sum() >= 3  # liquidates 25 times leverage
    assert (fall > 0.096).sum() >= 1  # liquidates 10 times leverage


def test_the_marks_wicks_are_shorter_than_the_last_prices():
    market = Market.sample(bars=2000)
    last = market.high - market.low
    mark = market.mark_high - market.mark_low
    assert (mark < last).mean() > 0.9
    assert (market.mark_close != market.close).mean() > 0.9
    assert np.abs(market.mark_close / market.close - 1).max() < 0.02


def test_the_samples_funding_is_the_venues_formula():
    market = Market.sample()
    assert np.all(np.diff(market.funding_time) == 8 * HOUR)
    assert market.funding_time[0] == market.start
    assert np.abs(market.funding_rate).max() <= 0.0075
    assert 0.3 < (market.funding_rate == 1e-4).mean() < 0.9
    assert market.funding_rate.min() < 0 < market.funding_rate.max()


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"bars": 0}, "bars must be 1 to inf bars, was 0"),
        ({"bars": 1.5}, "bars must be a whole number"),
        ({"seed": -1}, "seed must be 0 to inf, was -1"),
        ({"interval": "7h"}, "interval must be a whole part of 8 hours or of a day"),
        ({"interval": "1w"}, "interval must be a whole part of 8 hours or of a day"),
    ],
)
def test_a_sample_that_cannot_be_made_is_refused(arguments, rule):
    with pytest.raises(ParameterError, match=rule):
        Market.sample(**arguments)


def test_further_columns_ride_along_with_every_cut():
    market = Market.sample(bars=8)
    values = np.linspace(0.4, 0.8, 8)
    more = market.with_columns(implied_volatility=values, spread=[1, 2, 3, 4, 5, 6, 7, None])
    assert list(more.columns) == ["implied_volatility", "spread"]
    assert more.source == "Market.sample(bars=8).with_columns(implied_volatility, spread)"
    assert np.isnan(more.columns["spread"][-1])
    values[0] = 9.0
    assert more.columns["implied_volatility"][0] == 0.4
    assert list(more.prefix(3).columns["spread"]) == [1.0, 2.0, 3.0]
    assert more.with_columns(spread=np.zeros(8)).columns["spread"].sum() == 0.0
    assert more.with_columns(spread=np.zeros(8)).columns["implied_volatility"][7] == 0.8
    assert not market.columns
    assert more != market
    again = Market.from_frames(more.bars(), funding=more.funding(), mark=more.mark())
    assert again.columns.keys() == more.columns.keys()


def test_a_series_of_a_column_must_have_the_times_of_the_bars():
    market = Market.sample(bars=8)
    days = pd.Series([0.5, 0.6], index=market.index[[0, 4]])
    filled = days.reindex(market.index, method="ffill")
    assert list(market.with_columns(iv=filled).columns["iv"]) == [0.5] * 4 + [0.6] * 4
    assert market.with_columns(iv=pd.Series(np.ones(8))).columns["iv"].sum() == 8.0
    moved = pd.Series(np.ones(8), index=market.index + pd.Timedelta(hours=1))
    for series, words in (
        (days, "lacks 6 of 8, first 2023-01-01 01:00"),
        (moved, "lacks 1 of 8, first 2023-01-01"),
        (filled.tz_localize(None), "in a zone, has none"),
        (pd.concat([filled, moved.iloc[-1:]]), "has 9 times for 8 bars"),
    ):
        with pytest.raises(DataError, match=words):
            market.with_columns(iv=series)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"close": np.ones(8)}, "'close' is the name of a price or the volume"),
        ({"volume": np.ones(8)}, "'volume' is the name of"),
        ({"iv": np.ones(7)}, r"must have 8 values, one per bar, was of shape \(7,\)"),
        ({"iv": 0.5}, r"was of shape \(\)"),
        ({"iv": np.ones((8, 2))}, r"was of shape \(8, 2\)"),
        ({"iv": ["a"] * 8}, "iv must be numbers, was 'a' in 8 of 8"),
        ({"iv": pd.date_range("2024", periods=8)}, "iv must be numbers, found datetime64"),
        ({"time": np.ones(8)}, "'time' is a name of the time column"),
        ({"date": np.ones(8)}, "'date' is a name of the time column"),
        (
            {"implied_volatility": [0.5, 0.5, np.inf, -np.inf] * 2},
            "must be finite, was inf in 4 of 8 bars, first at 2023-01-01 02:00",
        ),
    ],
)
def test_a_column_that_is_not_one_number_per_bar_is_refused(values, words):
    with pytest.raises(DataError, match=words):
        Market.sample(bars=8).with_columns(**values)


def test_a_series_of_a_column_may_be_in_another_time_zone():
    """The same moments, counted in Berlin or New York, and in other units."""
    market = Market.sample(bars=8)
    values = pd.Series(np.arange(8.0), index=market.index)
    for zone, unit in (("Europe/Berlin", "ns"), ("America/New_York", "s")):
        there = values.set_axis(market.index.tz_convert(zone).as_unit(unit))
        assert market.with_columns(iv=there).columns["iv"].tolist() == values.tolist()
        with pytest.raises(DataError, match="lacks 2 of 8, first 2023-01-01 06:00"):
            market.with_columns(iv=there.iloc[:6])


@pytest.mark.parametrize("name", ["index", "signal", "mark", "rate", "unit", "funding_time"])
def test_a_market_with_further_columns_is_saved_and_loaded(name: str, tmp_path: Path):
    market = Market.sample(bars=8).with_columns(**{name: np.arange(8.0)})
    assert Market.load(market.save(tmp_path / "saved")) == market


@pytest.mark.slow
def test_importing_market_stays_cheap():
    code = (
        "import sys, types; package = types.ModuleType('backtest'); "
        f"package.__path__ = [{str(Path(module.__file__).parents[1])!r}]; "
        "sys.modules['backtest'] = package; "  # the module alone, without the package's names
        "import backtest.market.market; "
        "heavy = {'numba', 'vectorbt', 'plotly', 'scipy', 'pydantic', 'typer'}; "
        "sys.exit(', '.join(heavy & {*sys.modules}) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
