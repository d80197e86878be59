"""A market holds what its frames hold, is frozen, and hashes by its content."""

import copy
import dataclasses
import pickle

import numpy as np
import pandas as pd
import pytest

from backtest.base.errors import DataError
from backtest.base.units import HOUR
from backtest.market.market import Market
from tests.market.small_markets import ARRAYS, SAMPLE, WITH_COLUMN, four_bars


def stamps(*texts: str) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(texts).tz_localize("UTC")


def test_fields_hold_what_the_frames_hold():
    funding = pd.DataFrame(
        {"rate": [1e-4, 2e-4], "mark": [100.5, np.nan]}, index=stamps("2023-01-01", "2023-01-01 08")
    )
    market = Market.from_frames(four_bars(iv=[0.5, np.nan, 0.6, 0.7]), funding=funding)
    assert market.interval == HOUR
    assert market.n_bars == len(market) == 4
    assert market.start == pd.Timestamp("2023-01-01").value
    assert market.end == market.start + 4 * HOUR
    assert market.times.equals(four_bars().index)
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


@pytest.mark.parametrize("change", [
    {"instrument": "X"},
    {"interval": 2 * HOUR},
    {"has_mark": False},
    {"synthetic": False},
    {"sessions": True},
    {"columns": {"x": SAMPLE.close}},
], ids=lambda change: next(iter(change)))  # fmt: skip
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
    days = pd.Series([0.5, 0.6], index=market.times[[0, 4]])
    filled = days.reindex(market.times, method="ffill")
    assert list(market.with_columns(iv=filled).columns["iv"]) == [0.5] * 4 + [0.6] * 4
    assert market.with_columns(iv=pd.Series(np.ones(8))).columns["iv"].sum() == 8.0
    moved = pd.Series(np.ones(8), index=market.times + pd.Timedelta(hours=1))
    for series, words in (
        (days, "lacks 6 of 8"),
        (moved, "lacks 1 of 8"),
        (filled.tz_localize(None), "in a zone, has none"),
        (pd.concat([filled, moved.iloc[-1:]]), "has 9 times"),
    ):
        with pytest.raises(DataError, match=words):
            market.with_columns(iv=series)


@pytest.mark.parametrize(("values", "words"), [
    ({"close": np.ones(8)}, "close: is the name of a price or the volume"),
    ({"iv": np.ones(7)}, r"must have 8 values, one per bar, got shape \(7,\)"),
    ({"iv": ["a"] * 8}, "iv must be numbers, got 'a' in 8 of 8"),
    ({"implied_volatility": [0.5, 0.5, np.inf, -np.inf] * 2}, "implied_volatility: must be finite"),
])  # fmt: skip
def test_a_column_that_is_not_one_number_per_bar_is_refused(values, words):
    with pytest.raises(DataError, match=words):
        Market.sample(bars=8).with_columns(**values)
