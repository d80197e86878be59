"""The sample: the stored year bit for bit, and its crashes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import Market, ParameterError
from tests.kit import Once, check_refused
from tests.market.conftest import ARRAYS, REAL

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")


def test_the_stored_year_equals_the_sample_bit_for_bit():
    stored = Market.load(Path("data/sample-1h"))
    sample = Market.sample()

    assert repr(sample) == "Market.sample()"
    for name in ARRAYS:
        assert np.array_equal(getattr(sample, name), getattr(stored, name), equal_nan=True)

    assert sample.content_hash == stored.content_hash
    assert dict(sample.filled) == {}


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


@pytest.mark.parametrize(("arguments", "rule"), [
    ({"bars": 0}, "bars must be 1 to inf bars, got 0"),
    ({"bars": 1.5}, "bars must be a whole number"),
    ({"seed": -1}, "seed must be 0 to inf, got -1"),
    ({"interval": "7h"}, "interval must be a whole part of 8 hours or of a day"),
    ({"interval": "1w"}, "interval must be a whole part of 8 hours or of a day"),
])  # fmt: skip
def test_a_sample_that_cannot_be_made_is_refused(arguments, rule):
    check_refused(lambda: Market.sample(**arguments), rule, ParameterError)


@pytest.fixture(scope="module")
def market() -> bt.Market:
    if not REAL.is_dir():
        pytest.skip(f"no real data at {REAL}")
    return bt.Market.load(REAL / "btc-usdm-1h", since="2020-01-01", until="2024-01-01")


@pytest.mark.parametrize(("start", "end", "turns", "hour"), [
    ("2020-03-12", "2020-03-14", 3.0, "2020-03-12 23:00"),
    ("2020-03-12", "2020-03-14", 10.0, "2020-03-12 10:00"),
    ("2020-03-12", "2020-03-14", 25.0, "2020-03-12 02:00"),
    ("2021-05-19", "2021-05-21", 10.0, "2021-05-19 11:00"),
    ("2021-05-19", "2021-05-21", 25.0, "2021-05-19 01:00"),
])  # fmt: skip
def test_a_long_dies_on_the_day_at_a_price_inside_its_mark_bar(market, start, end, turns, hour):
    """The first mark bar whose low is at or under the liquidation price of the calculator."""
    account = bt.Account(margin="isolated", venue_leverage=turns)
    days = market.between(start, end)
    result = bt.run(days, Once(turns), venue=VENUE, account=account, compile=False)

    dead = result.events[result.events["kind"] == "liquidation"]
    assert list(dead["time"].dt.strftime("%Y-%m-%d %H:%M")) == [hour]

    t = int(market.times.get_indexer(dead["time"])[0])
    assert market.mark_low[t] <= dead["price"].iloc[0] <= market.mark_high[t]

    fill = result.events[result.events["kind"] == "fill"].iloc[0]
    posted = fill.amount / turns
    stated = bt.margin.liquidation_price(VENUE, fill.quantity, fill.price, posted)
    assert dead["price"].iloc[0] == pytest.approx(stated, rel=2e-3)  # funding moves it a little

    lived = market.times.slice_indexer(result.bars.index[1], dead["time"].iloc[0])
    crossed = market.times[lived][market.mark_low[lived] <= dead["price"].iloc[0]]
    assert crossed[0] == dead["time"].iloc[0]
