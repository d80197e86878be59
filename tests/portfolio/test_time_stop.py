"""Time stops, by hand."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import Constant, LiquidationDistance
from tests.scenes import START, Follow, happened, market_of, venue_of


def live(market, *, fee=0.0, signal=None, **terms):
    venue = venue_of(contract={"min_notional": 5.0}, fees={"taker": fee, "maker": fee})
    account = bt.Account(**{"capital": 1000.0, **terms})
    return bt.run(market, Follow(), venue=venue, account=account, signal=signal)


def hours_of(result, kind):
    return [int(each) for each in (happened(result, kind)["time"] - START) // pd.Timedelta("1h")]


def test_a_position_is_closed_at_the_first_open_after_its_time():
    """Opened at the open of bar 1, closed at that of bar 4 after 3 hours, opened again in 5."""
    result = live(market_of(*[100.0] * 10), max_holding="3h", fee=0.001)
    assert hours_of(result, "time_stop") == [4, 8]
    assert hours_of(result, "fill") == [1, 5, 9]
    assert list(result.trades["ended"]) == ["time_stop", "time_stop", "open"]
    assert result.metrics["stops"] == 2.0
    event = result.events[result.events["kind"] == "time_stop"].iloc[0]
    assert (event["price"], event["quantity"]) == (100.0, -10.0)


@pytest.mark.parametrize(("asked", "signal", "stops"), [
    ([1, 1, 2, 2, 2, 2], None, [4]),  # an increase in bar 3 does not restart the time
    ([2, 2, 1, 1, 1, 1], None, [4]),  # nor does a reduction
    ([1, 1, 1, 1, 1, 1, 1], [1, 1, -1, -1, -1, -1, -1], [6]),  # a flip in bar 3 does
    ([1, 0, 1, 1, 1, 1, 1], None, [6]),  # and closing does
])  # fmt: skip
def test_the_time_runs_from_flat_to_flat(asked, signal, stops):
    market = market_of(*[100.0] * len(asked), targets=asked)
    given = None if signal is None else np.array(signal, dtype=float)
    result = live(market, signal=given, max_holding="3h")
    assert hours_of(result, "time_stop") == stops


@pytest.mark.parametrize(("fill", "stops"), [("next_close", [5, 10]), ("same_close", [4, 8])])
def test_the_time_begins_with_the_fill(fill, stops):
    """At the close of bar 1, which is the open of bar 2; or at that of bar 0, the open of bar 1."""
    result = live(market_of(*[100.0] * 11), max_holding="3h", fill=fill)
    assert hours_of(result, "time_stop") == stops


def test_each_instrument_has_its_own_time():
    markets = bt.Markets({"A": market_of(*[100.0] * 6), "B": market_of(*[50.0] * 6)})
    result = live(markets, max_holding={"A": "2h", "B": None})
    events = result.events[result.events["kind"] == "time_stop"]
    assert set(events["instrument"]) == {"A"}


def test_a_resumed_run_keeps_the_time_of_a_position(tmp_path):
    market = market_of(*(100.0 * 1.001 ** np.arange(80)).tolist())
    whole, half = (live(each, max_holding="30h") for each in (market, market.prefix(35)))
    again = bt.run(
        market, Follow(), venue=half.venue, resume=bt.Result.load(half.save(tmp_path)),
        account=half.account,
    )  # fmt: skip
    assert list(again.bars["equity"]) == list(whole.bars["equity"].iloc[35:])
    assert (again.events["kind"] == "time_stop").any()


@pytest.mark.slow
def test_compiled_is_plain_and_rows_of_a_sweep_are_runs():
    market = bt.Market.sample(bars=900)
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT")
    account = bt.Account(margin="isolated", venue_leverage=10.0, max_holding="2d")
    terms = {"venue": venue, "account": account}
    runs = [bt.run(market, LiquidationDistance(), **terms, compile=each) for each in (True, False)]
    assert np.array_equal(runs[0].record.values, runs[1].record.values, equal_nan=True)
    assert {"time_stop", "margin_added"} <= set(runs[0].events["kind"])
    table = bt.sweep(market, Constant, {"leverage": [0.5, 1.0, 2.0, 3.0]}, **terms).table
    for _, row in table.iterrows():
        run = bt.run(market, Constant(leverage=row["leverage"]), **terms)
        assert row["total_return"] == run.metrics["total_return"]
