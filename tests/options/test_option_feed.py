"""What values options at each bar: by hand, and never by what comes later."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.account.records import OptionFeed
from backtest.engine.option_inputs import read_option_feed
from tests.options.listed_markets import PUT, make_chain, make_markets, make_surfaces, make_venue

YEAR = 365.0 * 24.0
STAMPS = ["2023-01-01 12:00", "2023-01-02 12:30", "2023-01-03 00:00", "2023-01-05 07:10"]


def read(markets: bt.Markets, venue: bt.Venue | None = None) -> OptionFeed:
    """Return the feed of one instrument's options."""
    return read_option_feed(markets, {"BTC": venue or make_venue()}, markets.panel())


def test_time_volatility_and_basis_are_those_of_the_last_surface():
    """The basis of the snapshot, 6 % a year, shrinks with the time left; 7 days are quoted."""
    markets = make_markets(surfaces={"BTC": make_surfaces(["2023-01-01 12:00"], 0.6, carry=0.06)})
    feed = read(markets)
    assert not feed.are_listed[:12].any()
    assert feed.are_listed[12:180, 0].all()
    assert not feed.are_listed[180:].any()
    assert feed.years_open[12, 0] == pytest.approx(168 / YEAR)
    assert feed.years_close[12, 0] == pytest.approx(167 / YEAR)
    assert np.isnan(feed.volatilities_close[10, 0])  # the close at 11:00 knows no surface
    assert np.isnan(feed.volatilities_close[11, 0])  # nor that at 12:00: stamped strictly before
    assert feed.volatilities_open[12:180, 0] == pytest.approx(0.6)
    hours = 168 - np.arange(168)
    assert feed.bases_open[12:180, 0] == pytest.approx(np.exp(0.06 * hours / YEAR), rel=1e-12)
    assert feed.ages[12, 0] == pytest.approx(1 / 24)
    assert (feed.expiry_bars[0], feed.are_inside[0]) == (180, 0)
    assert feed.expiry_spots[0] == markets["BTC"].mark_open[180]


def test_own_rows_replace_the_model_while_they_are_young():
    chain, expiry = make_chain(["2023-01-01 12:20"]), "2023-01-08 12:00"
    table = chain.table[(chain.table.expiry == expiry) & (chain.table.kind == "put")]
    row = table.iloc[10]
    put = PUT.override(strike=float(row["strike"]), expiry=expiry)
    markets = make_markets(options={"PUT": put}, chains={"BTC": chain}, quote_age="2h")
    feed = read(markets)
    assert np.flatnonzero(feed.has_quotes[:, 0]).tolist() == [13, 14]
    assert np.flatnonzero(np.isfinite(feed.marks_close[:, 0])).tolist() == [12, 13]
    assert feed.marks_open[13, 0] == row["mark"]
    assert (feed.bids[13, 0], feed.asks[13, 0]) == (row["bid"], row["ask"])
    assert feed.volatilities_open[13, 0] == row["iv"]
    assert feed.half_spreads[13:, 0] == pytest.approx(0.01, abs=2e-3)  # of the last two sides
    assert feed.half_spreads[12, 0] == 0.01  # as the venue says
    assert feed.half_prices[13:, 0] == pytest.approx(0.5 * (row["ask"] - row["bid"]))
    assert np.isnan(feed.half_prices[12, 0])


def test_settlement_is_the_price_given_the_mean_of_closes_or_the_mark_open():
    markets = make_markets()
    assert read(markets).expiry_spots[0] == markets["BTC"].mark_open[180]
    venue = make_venue(option_costs=make_venue().option_costs.override(delivery_window="3h"))
    closes = markets["BTC"].mark_close[177:180]
    assert read(markets, venue).expiry_spots[0] == np.mean(closes)
    given = make_markets(options={"PUT": PUT.override(settlement_price=31_000.0)})
    assert read(given, venue).expiry_spots[0] == 31_000.0
    inside = read(make_markets(options={"PUT": PUT.override(expiry="2023-01-08 12:20")}))
    assert (inside.expiry_bars[0], inside.are_inside[0]) == (180, 1)
    assert inside.expiry_spots[0] == markets["BTC"].mark_open[180]
    late = make_markets(bars=100)
    assert read(late).expiry_bars[0] == -1


def test_schedules_fill_at_the_next_open_and_end_with_the_contract():
    markets = make_markets()
    frame = pd.DataFrame({"PUT": 2.0}, index=markets.times[[20, 178, 179, 200]])
    found = bt.engine.option_inputs.schedule_options(markets, frame)
    targets = read(found).targets[:, 0]
    assert np.flatnonzero(np.isfinite(targets)).tolist() == [21, 179]
    assert markets.listing.quantities is None
    assert found.content_hash != markets.content_hash


@pytest.mark.parametrize("changed", range(len(STAMPS)))
def test_a_later_snapshot_changes_nothing_before_it(changed):
    """Truth 8: every array of the feed is equal bit for bit up to the snapshot that changed."""

    def build(shift: float) -> OptionFeed:
        chain = make_chain(STAMPS, shift, changed)
        rows = chain.table[(chain.table.expiry == "2023-01-08 12:00") & (chain.table.kind == "put")]
        put = PUT.override(strike=float(rows["strike"].iloc[10]))
        surfaces = make_surfaces(STAMPS, shift=shift, at=changed)
        given = {"chains": {"BTC": chain}, "surfaces": {"BTC": surfaces}}
        return read(make_markets(options={"PUT": put}, **given))

    before, after = build(0.0), build(0.05)
    opens = pd.date_range("2023-01-01", periods=240, freq="1h", tz="UTC")
    stamp, differs = pd.Timestamp(STAMPS[changed], tz="UTC"), False
    for name in OptionFeed._fields[OptionFeed._fields.index("years_open") :]:
        one, two = getattr(before, name), getattr(after, name)
        is_close = name.endswith("_close") or name == "ages"
        known = opens + pd.Timedelta(hours=1) <= stamp if is_close else opens < stamp
        assert np.array_equal(one[known], two[known], equal_nan=True), name
        differs |= not np.array_equal(one[~known], two[~known], equal_nan=True)
    assert differs
