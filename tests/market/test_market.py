"""A market holds what its frames hold, is frozen, and hashes by its content."""

import copy
import dataclasses
import math
import pickle
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import backtest as bt
from backtest import DataError, Market, ParameterError
from backtest.core.units import DAY, HOUR
from backtest.strategies import Constant
from tests.kit import check_refused, make_venue
from tests.market.conftest import ARRAYS, SAMPLE, WITH_COLUMN, four_bars
from tests.peeks import MARKET

OTHER = {
    "instrument": "X", "interval": 2 * HOUR, "has_mark": False, "synthetic": False,
    "sessions": True, "columns": {"x": SAMPLE.close},
    **{name: np.append(getattr(SAMPLE, name)[:-1], 1) for name in ARRAYS},
}  # fmt: skip
OFF = Market.from_frames(four_bars().shift(30, freq="min"))
SPAN = "a span must lie inside the market, 2023-01-01 to 2023-01-21, and hold a bar, got "
VENUE = make_venue(maintenance_rate=0.005, max_leverage=10)
OHLC = {"open": "first", "high": "max", "low": "min", "close": "last"}
ALIKE = {"check_freq": False, "check_names": False, "check_index_type": False}
HOLIDAYS = ("2015-01-19", "2015-04-03", "2015-05-25", "2015-09-07", "2016-01-18")
DROPPED = "before the first whole group and"


def test_fields_hold_what_the_frames_hold():
    rows = {"rate": [1e-4, 2e-4], "mark": [100.5, np.nan]}
    stamps = pd.DatetimeIndex(["2023-01-01", "2023-01-01 08"], tz="UTC")
    funding = pd.DataFrame(rows, index=stamps)

    market = Market.from_frames(four_bars(iv=[0.5, np.nan, 0.6, 0.7]), funding=funding)

    assert market.interval == HOUR
    assert market.n_bars == 4
    assert len(market) == 4
    assert market.start == pd.Timestamp("2023-01-01").value
    assert market.end == market.start + 4 * HOUR
    assert market.times.equals(four_bars().index)

    assert market.open.tolist() == [100.0, 101.0, 103.0, 102.0]
    assert market.volume.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert market.columns["iv"].tolist()[2:] == [0.6, 0.7]

    assert market.funding_time.tolist() == [market.start]  # the second event is after the end
    assert market.funding_rate.tolist() == [1e-4]
    assert market.funding_mark.tolist() == [100.5]

    assert not market.has_mark
    assert not market.synthetic
    assert dict(market.filled) == {}
    assert repr(market) == "<Market.from_frames: bars 1h, 4 from 2023-01-01>"


def test_without_mark_and_funding_the_market_says_so():
    """The mark is the last price, and nothing is settled."""
    market = Market.from_frames(four_bars())

    assert not market.has_mark
    assert market.mark() is None
    assert market.mark_low is market.low

    assert market.funding() is None
    for name in ("funding_time", "funding_rate", "funding_mark"):
        assert getattr(market, name).size == 0
    assert market.filled["funding"] == "none given"


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_epochs_of_any_unit_and_times_of_any_resolution_are_the_same_market(unit):
    frame = four_bars()
    whole = Market.from_frames(frame).content_hash

    stamped = frame.set_axis(frame.index.as_unit(unit))
    assert Market.from_frames(stamped).content_hash == whole

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

    again = pickle.loads(pickle.dumps(Market.from_frames(four_bars())))
    assert again.mark_open is again.open


@pytest.mark.parametrize("name", OTHER)
def test_the_content_hash_depends_on_everything_but_the_source(name):
    changed = dataclasses.replace(SAMPLE, **{name: OTHER[name]})

    assert changed != SAMPLE
    assert changed.content_hash != SAMPLE.content_hash


def test_the_content_hash_does_not_depend_on_the_source_or_the_order_of_columns():
    assert dataclasses.replace(SAMPLE, source="elsewhere") == SAMPLE

    frame = four_bars()
    one = Market.from_frames(frame.assign(a=1.0, b=2.0))
    same = Market.from_frames(frame.assign(b=2.0, a=1.0))
    other = Market.from_frames(frame.assign(a=2.0, b=1.0))
    assert one.content_hash == same.content_hash
    assert same.content_hash != other.content_hash

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

    replaced = more.with_columns(spread=np.zeros(8))
    assert replaced.columns["spread"].sum() == 0.0
    assert replaced.columns["implied_volatility"][7] == 0.8

    assert not market.columns
    assert more != market

    again = Market.from_frames(more.bars(), funding=more.funding(), mark=more.mark())
    assert again.columns.keys() == more.columns.keys()


def test_a_series_of_a_column_must_have_the_times_of_the_bars():
    market = Market.sample(bars=8)
    days = pd.Series([0.5, 0.6], index=market.times[[0, 4]])
    filled = days.reindex(market.times, method="ffill")
    assert list(market.with_columns(iv=filled).columns["iv"]) == [0.5] * 4 + [0.6] * 4
    assert market.with_columns(iv=np.ones(8)).columns["iv"].sum() == 8.0

    moved = pd.Series(np.ones(8), index=market.times + pd.Timedelta(hours=1))
    for series, words in (
        (days, "lacks 6 of 8"),
        (moved, "lacks 1 of 8"),
        (filled.tz_localize(None), "must have a time zone"),
        (pd.Series(np.ones(8)), "must be an array, or be indexed by time, was by RangeIndex"),
        (filled.set_axis(filled.index.strftime("%F %T"))[::-1], "was by Index"),
        (pd.concat([filled, moved.iloc[-1:]]), "has 9 times"),
    ):
        check_refused(lambda series=series: market.with_columns(iv=series), words, DataError)


@pytest.mark.parametrize(("values", "words"), [
    ({"close": np.ones(8)}, "close: is the name of a price or the volume"),
    ({"iv": np.ones(7)}, "must have 8 values, one per bar, got shape (7,)"),
    ({"iv": ["a"] * 8}, "iv must be numbers, got 'a' in 8 of 8"),
    ({"implied_volatility": [0.5, 0.5, np.inf, -np.inf] * 2}, "implied_volatility: must be finite"),
])  # fmt: skip
def test_a_column_that_is_not_one_number_per_bar_is_refused(values, words):
    check_refused(lambda: Market.sample(bars=8).with_columns(**values), words, DataError)


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
    assert longer.end == market.end
    assert "resample" not in longer.filled

    bars = {"open": [100, 103], "high": [105, 105], "low": [98, 99], "close": [103, 101]}
    assert longer.bars()[[*bars]].to_dict("list") == bars
    assert longer.volume.tolist() == [3.0, 7.0]

    marks = {"open": [200, 206], "high": [210, 210], "low": [196, 198], "close": [206, 202]}
    assert longer.mark().to_dict("list") == marks

    assert longer.columns["x"][0] == 2.0
    assert np.isnan(longer.columns["x"][1])


def test_resampling_drops_partial_groups_at_the_ends_and_notes_it():
    days = SAMPLE.between("2023-01-01 21:00", "2023-01-04 02:00").resample("1d")
    assert [str(t.date()) for t in days.times] == ["2023-01-02", "2023-01-03"]
    assert days.filled["resample"] == f"3 bars {DROPPED} 2 after the last dropped"

    assert days == SAMPLE.resample("1d").between("2023-01-02", "2023-01-04")


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
        rows = getattr(MARKET, name)[first:stop]
        assert np.array_equal(getattr(part, name), rows)

    assert np.array_equal(part.columns["late"], MARKET.columns["late"][first:stop], equal_nan=True)

    low = part.start - part.interval // 4
    inside = (MARKET.funding_time >= (low if first else 0)) & (MARKET.funding_time < part.end)
    assert np.array_equal(part.funding_time, MARKET.funding_time[inside])

    if first == 0:
        assert part == MARKET.prefix(stop)


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


def frame_of(index: pd.DatetimeIndex, seed: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, len(index))))
    opens = np.append(100.0, close[:-1]) * np.exp(rng.normal(0.0, 0.002, len(index)))
    high = np.maximum(opens, close) * 1.003
    low = np.minimum(opens, close) * 0.996

    bars = {"open": opens, "high": high, "low": low, "close": close}
    volume = rng.integers(1, 99, len(index)).astype(float)
    return pd.DataFrame({**bars, "volume": volume, "own": close * 2.0}, index)


def days(n: int = 500, start: str = "2015-01-05") -> pd.DataFrame:
    """Return daily bars of weekdays without some holidays."""
    index = pd.bdate_range(start, periods=n, tz="UTC")
    return frame_of(index[~index.isin(pd.DatetimeIndex(HOLIDAYS, tz="UTC"))])


def hours(n: int = 30) -> pd.DataFrame:
    """Return seven hours a day of New York's sessions: from 14:30 UTC, in summer from 13:30."""
    opened = pd.bdate_range("2015-02-16 09:30", periods=n, tz="America/New_York")
    opens = [day + pd.Timedelta(hours=k) for day in opened for k in range(6)]
    return frame_of(pd.DatetimeIndex(opens).tz_convert("UTC"))


def run(market: Market, leverage: float = 1.0) -> bt.Result:
    terms = {"venue": VENUE, "account": bt.Account(), "calendar": "252", "compile": False}
    return bt.run(market, Constant(leverage), **terms)


def test_weeks_of_sessions_are_those_of_pandas():
    frame = days()
    market = Market.from_frames(frame, mark=frame * 1.001, sessions=True)

    rule = {**OHLC, "volume": "sum", "own": "last"}
    expected = frame.resample("W-MON", closed="left", label="left").agg(rule)

    weeks = market.resample("1w")
    kept = expected[expected.index.isin(weeks.times)]

    pd.testing.assert_frame_equal(weeks.bars(), kept, **ALIKE)
    pd.testing.assert_frame_equal(weeks.mark(), kept[list(OHLC)] * 1.001, **ALIKE)
    assert len(weeks) == len(expected)
    assert weeks.interval == 7 * DAY
    assert weeks.sessions
    assert weeks.has_mark
    assert set(np.diff(weeks.time)) == {7 * DAY}

    assert weeks == market.resample("7d")


def test_a_first_and_a_last_week_that_are_not_whole_are_left_out_and_noted():
    """From a Wednesday to a Thursday."""
    weeks = Market.from_frames(days().iloc[2:23], sessions=True).resample("1w")

    assert weeks.times[0] == pd.Timestamp("2015-01-12", tz="UTC")
    assert weeks.times[-1] == pd.Timestamp("2015-01-26", tz="UTC")
    assert weeks.filled["resample"] == f"3 bars {DROPPED} 4 after the last dropped"

    assert "resample" not in Market.from_frames(days(15), sessions=True).resample("1w").filled


def test_days_of_hours_are_stamped_at_midnight_also_where_summer_time_begins():
    frame = hours()
    daily = Market.from_frames(frame, sessions=True).resample("1d")

    expected = frame.groupby(frame.index.floor("D")).agg({**OHLC, "volume": "sum", "own": "last"})
    pd.testing.assert_frame_equal(daily.bars(), expected, **ALIKE)

    assert daily.interval == DAY
    assert run(daily).span.periods == 252.0


@pytest.mark.parametrize(("frame", "interval", "rule"), [
    (days(20), "12h", "bars must become longer than 1d, got 12h"),
    (days(4), "1w", "at least one whole group of bars is needed, found none in 4 bars"),
    (days(20).shift(9, freq="h"), "1d", "a bar must not reach from one 1d of UTC time into"),
])  # fmt: skip
def test_resampling_sessions_refuses_what_cannot_be_whole(frame, interval, rule):
    check_refused(lambda: Market.from_frames(frame, sessions=True).resample(interval), rule)


@pytest.mark.parametrize(("frequency", "periods"), [("7D", 365 / 7), ("MS", 12.0), ("QS", 4.0)])
def test_bars_longer_than_a_day_are_scaled_by_calendar_time(frequency, periods):
    """Not by sessions: 252 / 7 weeks and 252 / 28 months a year are wrong. One week in nine begins
    a day later, after a holiday."""
    index = pd.date_range("1990-01-01", periods=240, freq=frequency, tz="UTC")
    if frequency == "7D":
        index = index.where(np.arange(240) % 9 != 3, index + pd.Timedelta(days=1))
    market = Market.from_frames(frame_of(index), sessions=True, now="2050-01-01")

    result = run(market)
    assert result.span.periods == pytest.approx(periods, rel=2e-3)

    mean = result.returns.mean()
    deviation = result.returns.std()
    root = math.sqrt(result.span.periods)
    assert result.metrics["volatility"] == pytest.approx(deviation * root, rel=1e-12)
    assert result.metrics["sharpe"] == pytest.approx(mean / deviation * root, rel=1e-12)


def weekdays() -> pd.DataFrame:
    days = pd.bdate_range("2023-01-02", periods=10, tz="UTC")
    return four_bars().iloc[[0] * 10].set_axis(days)


def test_a_day_bounds_bars_whatever_hour_they_begin(tmp_path):
    """Bars of 8 h from 2023-01-02 08:00 to 2023-01-06 08:00: twelve; six open in two days.
    The days are clipped; the day before, or a whole day after, is refused."""
    bars = SAMPLE.resample("8h").bars().loc["2023-01-02 08:00":"2023-01-06 00:00"]
    bars.to_csv(tmp_path / "bars.csv", index_label="time")
    whole = Market.from_frames(bars)
    assert whole.n_bars == 12

    for since, until, n in (
        ("2023-01-02", "2023-01-04", 5),
        (None, "2023-01-07", 12),
        ("2023-01-02", None, 12),
        ("2023-01-03", "2023-01-05", 6),
    ):
        for part in (
            Market.load(tmp_path, since=since, until=until),
            Market.from_frames(bars, since=since, until=until),
            whole.slice(since, until),
        ):
            assert part.n_bars == n
            if until is not None:
                assert part.times[-1] < pd.Timestamp(until, tz="UTC")

    cut = Market.load(tmp_path, until="2023-01-04")
    assert eval(repr(cut), {"Market": Market}).n_bars == 5

    for since, until in (("2023-01-01", None), (None, "2023-01-08")):
        with pytest.raises(ParameterError, match="2023-01-02 08:00 to 2023-01-06 08:00"):
            whole.slice(since, until)
        with pytest.raises(ParameterError, match="2023-01-02 08:00 to 2023-01-06 08:00"):
            Market.load(tmp_path, since=since, until=until)


def test_a_slice_takes_numbers_of_bars_or_times():
    assert SAMPLE.slice("2023-01-02", "2023-01-03") == SAMPLE.slice(24, 48)
    assert SAMPLE.slice(stop=pd.Timestamp("2023-01-02", tz="UTC")) == SAMPLE.prefix(24)

    for mixed in ((0, "2023-01-03"), ("2023-01-02", 48), (0, None)):
        with pytest.raises(ParameterError):
            SAMPLE.slice(*mixed)


def test_session_bars_may_be_further_apart_than_their_length():
    with pytest.raises(DataError, match=r"2 missing in 1 gap.*sessions=True"):
        Market.from_frames(weekdays())

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

    given_length = Market.from_frames(frame, sessions=True, interval="8h")
    assert given_length.interval == 8 * HOUR

    with pytest.raises(DataError, match="bars must open at least 2d apart, 1 of 4 open at other"):
        Market.from_frames(frame, sessions=True, interval="2d")


def test_missing_mark_bars_take_last_prices_when_asked_and_the_market_says_how_many():
    mark = four_bars() * 2

    market = Market.from_frames(four_bars(), mark=mark.iloc[[1, 3]], mark_gaps="last")

    assert market.mark_open.tolist() == [100.0, 202.0, 103.0, 204.0]
    assert market.mark_low.tolist() == [98.0, 198.0, 100.0, 198.0]
    assert market.has_mark
    assert market.filled["mark_gaps"] == ("last: 2 of 4 bars, 2023-01-01 to 2023-01-01 03:00 UTC")

    whole = Market.from_frames(four_bars(), mark=mark, mark_gaps="last")
    assert "mark_gaps" not in whole.filled


def test_missing_settlements_are_accepted_when_asked_and_the_market_says_how_many():
    settlements = SAMPLE.funding()
    funding = settlements.drop(settlements.index[[0, 1, 2, 9, 20, 21]])
    bars = SAMPLE.bars()

    check_refused(lambda: Market.from_frames(bars, funding=funding), "2 defects", DataError)

    market = Market.from_frames(bars, funding=funding, funding_gaps="zero")
    assert market.funding_time.size == 54
    # those at 08:00 and 16:00 of the first day, and three inside; none is due before the open
    said = "zero: 5 settlements missing in 2023-01-01 to 2023-01-21 UTC"
    assert market.filled["funding_gaps"] == said

    whole = Market.from_frames(bars, funding=SAMPLE.funding(), funding_gaps="zero")
    assert "funding_gaps" not in whole.filled


def cadence(*hours: int) -> pd.Series:
    return pd.Series(1e-4, index=SAMPLE.times[np.cumsum([0, *hours])])


@pytest.mark.parametrize("hours", [
    [8] * 9,
    [8] * 5 + [4] * 9,
    [4] * 9 + [8] * 5,
    [8] * 3 + [4] * 3 + [1] * 12,
    [1] * 12 + [8] * 3,
    [8, 4, 4, 4],
    [24] * 4,
])  # fmt: skip
def test_a_change_of_cadence_is_no_gap(hours):
    funding = cadence(*hours)
    bars = SAMPLE.bars().loc[: funding.index[-1]]

    market = Market.from_frames(bars, funding=funding)

    assert market.funding_rate.size == len(hours) + 1


@pytest.mark.parametrize(("hours", "missing"), [
    ([8, 8, 16, 8, 8], 1),
    ([8, 8, 24, 8, 8], 2),
    ([4, 4, 8, 4, 4], 1),
    ([1, 1, 1, 2, 1, 1], 1),
    ([8, 8, 9, 8, 8], 1),
    ([8, 8, 12, 4, 4, 4, 4], 2),
    ([8, 16, 16, 8, 8], 2),
    ([24, 24, 48, 24], 1),
])  # fmt: skip
def test_a_spacing_longer_than_its_neighbours_or_than_8_hours_is_a_gap(hours, missing):
    funding = cadence(*hours)
    bars = SAMPLE.bars().loc[: funding.index[-1]]

    with pytest.raises(DataError, match=f"{missing} missing in"):
        Market.from_frames(bars, funding=funding)
