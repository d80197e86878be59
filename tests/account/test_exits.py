"""Take-profit, trailing stop, equity stop, and stops in multiples of a column."""

import math

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import Constant
from tests.account.test_fill_modes import FREE, make_market, run
from tests.agreement import FLAT, near, play
from tests.draws import HOUR, START, utc

NAN = math.nan


def exits(out) -> list[tuple[int, str, float]]:
    """Return bar, kind and price of every stop."""
    kinds = ("stop", "trailing_stop", "equity_stop", "take_profit")
    return [(e.bar, e.kind, round(float(e.price), 9)) for e in out.events if e.kind in kinds]


def test_take_profit_fills_at_its_price_worsened_and_pays_the_taker_fee():
    """20 contracts at 100, sold at 110 less 1 %: 108.9; fee 0.1 % of 2178."""
    venue = {"fees": {"taker": 0.001}, "slippage": {"rate": 0.01}}
    out = play(
        FLAT, FLAT, (100, 115, 100, 112), targets=(2.0, NAN), venue=venue,
        take_profit=0.1 / 1.01,
    )  # fmt: skip
    # bought at 101: 101 * (1 + 0.1 / 1.01) = 111; sold at 111 * 0.99 = 109.89
    assert exits(out) == [(2, "take_profit", 109.89)]
    assert near(out.slippage[2], 20 * 1.11)
    assert near(out.fees[2], 0.001 * 20 * 109.89)


def test_take_profit_that_the_open_has_passed_fills_at_the_open():
    """It is sold at 120, better than 110; the decision of that open is dropped."""
    out = play(FLAT, FLAT, (120, 120, 90, 90), targets=(2.0,), take_profit=0.1)
    assert exits(out) == [(2, "take_profit", 120.0)]
    assert near(out.equity[2], 1400)
    assert out.quantity[2] == 0


def test_short_takes_its_profit_below():
    out = play(
        FLAT, FLAT, (100, 100, 85, 95), targets=(2.0, NAN), signals=[-1.0] * 3,
        take_profit=0.1,
    )  # fmt: skip
    assert exits(out) == [(2, "take_profit", 90.0)]
    assert near(out.equity[2], 1200)


def test_losses_come_first_where_a_bar_reaches_both_sides():
    """From 94 to 112: the stop at 95 counts, not the profit at 110."""
    account = {"take_profit": 0.1, "stop_loss": 0.05}
    out = play(FLAT, FLAT, (100, 112, 94, 100), targets=(2.0, NAN), **account)
    assert exits(out) == [(2, "stop", 95.0)]


def test_liquidation_comes_before_a_profit():
    """10x dies at 100 * 0.9 / 0.95 = 94.74 in a bar that also reaches 110."""
    account = {"take_profit": 0.1}
    out = play(FLAT, FLAT, (100, 112, 90, 100), targets=(10.0, NAN), **account)
    assert exits(out) == []
    assert out.count("liquidation") == 1


def test_trailing_stop_follows_completed_bars_only():
    """Bought at 100. Bar 1 reaches 130: the stop of bar 2 is 117, though bar 2 reaches 140.

    Its own high raises the stop to 126 for bar 3, which opens at 120, already through it.
    """
    bars = (FLAT, (100, 130, 95, 125), (125, 140, 118, 120), (120, 121, 119, 120))
    out = play(*bars, targets=(1.0, NAN), trailing_stop=0.1)
    assert exits(out) == [(3, "trailing_stop", 120.0)]
    inside = (*bars[:2], (125, 140, 116, 120), bars[3])
    out = play(*inside, targets=(1.0, NAN), trailing_stop=0.1)
    assert exits(out) == [(2, "trailing_stop", 117.0)]


def test_trailing_stop_of_a_flipped_position_starts_at_its_entry():
    """Long from 100 to 120, flipped to short at 120: its stop is 132, not one of the old high."""
    bars = (FLAT, (100, 120, 100, 120), (120, 131, 119, 125), (125, 133, 125, 130))
    out = play(
        *bars, targets=(1.0, 1.0, NAN), signals=[1.0, -1.0, -1.0, -1.0],
        trailing_stop=0.1,
    )  # fmt: skip
    # best low of completed bars: 119, so the stop of bar 3 is 130.9
    assert exits(out) == [(3, "trailing_stop", 130.9)]


def test_late_fill_does_not_count_the_bar_before_it():
    """Bought at the close of bar 1, at 100: its high of 130 came before."""
    bars = (FLAT, (100, 130, 100, 100), (100, 104, 92, 100), (100, 101, 90, 95))
    account = {"trailing_stop": 0.1, "fill": "next_close"}
    out = play(*bars, targets=(1.0, NAN), **account)
    # best of bar 2: 104, so the stop of bar 3 is 93.6
    assert exits(out) == [(3, "trailing_stop", 93.6)]


def test_equity_stop_closes_at_the_price_of_its_equity_and_starts_anew():
    """1000 at 2x: -1000 + 20 u = 800 at u = 90. Then 800 at 2x from 95: 640 at 85.5."""
    bars = (FLAT, FLAT, (100, 100, 85, 95), (95, 95, 95, 95), (95, 95, 80, 90))
    out = play(*bars, targets=(2.0,), equity_stop=0.2)
    assert exits(out) == [(2, "equity_stop", 90.0), (4, "equity_stop", 85.5)]
    assert near(out.equity[2], 800)
    assert near(out.equity[4], 640)


def test_a_withdrawal_takes_its_share_of_the_highest_equity():
    """10 contracts at 100, and 300 withdrawn: the highest is 700, the level 560, at u = 86."""
    flows = pd.Series([-300.0], index=utc([START + 2 * HOUR]))
    out = play(
        FLAT, FLAT, FLAT, (100, 100, 80, 90), targets=(1.0, NAN),
        equity_stop=0.2, flows=flows,
    )  # fmt: skip
    assert exits(out) == [(3, "equity_stop", 86.0)]
    assert near(out.equity[3], 560)


def test_nearest_stop_gives_the_event_its_kind():
    """Stop 95, trailing 97, equity (900 + 1000) / 20 = 95: the trailing stop is met first."""
    account = {"stop_loss": 0.05, "trailing_stop": 0.03, "equity_stop": 0.1}
    out = play(FLAT, FLAT, (100, 100, 90, 90), targets=(2.0, NAN), **account)
    assert exits(out) == [(2, "trailing_stop", 97.0)]


def test_liquidation_and_equity_stop_act_by_distance():
    """At 10x the liquidation is at 94.74; an equity stop of 40 % at 96 comes before it."""
    before = play(FLAT, FLAT, (100, 100, 90, 90), targets=(10.0, NAN), equity_stop=0.4)
    assert exits(before) == [(2, "equity_stop", 96.0)]
    after = play(FLAT, FLAT, (100, 100, 90, 90), targets=(10.0, NAN), equity_stop=0.6)
    assert exits(after) == []
    assert after.count("liquidation") == 1


@pytest.mark.parametrize(
    "stop", [bt.Multiple(2.0, "width"), bt.Multiple(2.0, "part", unit="fraction")]
)
def test_a_multiple_is_taken_from_the_previous_close(stop):
    """Every stop of a run of 1x lies at entry less twice the column of the bar before."""
    rng = np.random.default_rng(1)
    width, part = rng.uniform(0.5, 2.0, 300), rng.uniform(0.005, 0.02, 300)
    width[50:60], part[50:60] = NAN, NAN
    market = make_market(width=width, part=part)
    found = run(1.0, market, account=bt.Account(stop_loss=stop))
    bars, events = found.bars, found.events
    stopped = events[events["kind"] == "stop"]
    assert len(stopped) > 4
    is_price = stop.unit == "price"
    column = width if is_price else part
    entry = np.nan
    checked = 0
    for row in events[events["kind"].isin(["fill", "stop"])].to_dict("records"):
        t = bars.index.get_loc(row["time"])
        if row["kind"] == "stop":
            assert not 51 <= t <= 60
            distance = 2.0 * column[t - 1] * (1.0 if is_price else entry)
            expected = min(entry - distance, market.open[t])
            assert row["price"] == pytest.approx(expected, rel=1e-9)
            checked += 1
        entry = bars["entry"].iloc[t]
        if row["kind"] == "fill" and np.isnan(entry):
            entry = row["price"]
    assert checked == len(stopped)


def test_measures_count_losses_and_profits_apart():
    found = run(2.0, account=bt.Account(trailing_stop=0.03, take_profit=0.03, equity_stop=0.2))
    counts = found.events["kind"].value_counts()
    assert found.metrics["stops"] == counts["trailing_stop"] + counts["equity_stop"]
    assert found.metrics["take_profits"] == counts["take_profit"]
    assert counts["trailing_stop"] > 3
    assert counts["take_profit"] > 3
    split = found.attribution()
    assert split.forced_exits != 0.0
    assert sum(split.terms) == pytest.approx(split.growth)


def test_the_last_bar_has_the_multiple_of_the_close_before_it():
    flat = make_market(4).bars() * 0.0 + 100.0
    flat["atr"] = [1.0, 1.0, 4.0, 9.0]
    flat.iloc[-1, flat.columns.get_indexer(["low", "close"])] = 90.0
    account = bt.Account(stop_loss=bt.Multiple(2.0, "atr"))
    found = run(1.0, bt.Market.from_frames(flat), account=account)
    (price,) = found.events.loc[found.events["kind"] == "stop", "price"]
    assert price == pytest.approx(100.0 - 2.0 * 4.0)


def test_a_column_that_is_not_there_is_refused():
    market = make_market(atr=np.full(300, 2.0), below=np.linspace(1.0, -1.0, 300))
    with pytest.raises(bt.ParameterError, match="no column 'art'; did you mean 'atr'"):
        run(1.0, market, account=bt.Account(stop_loss=bt.Multiple(2.0, "art")))
    with pytest.raises(bt.DataError, match=r"account\.trailing_stop must be a distance"):
        run(1.0, market, account=bt.Account(trailing_stop=bt.Multiple(2.0, "below")))


def test_a_plain_stop_loss_needs_none_of_this():
    """The account with a plain stop is run by the code it was run by before."""
    assert not bt.Account(stop_loss=0.1).has_exits
    assert bt.Account(stop_loss=bt.Multiple(1.0, "atr")).has_exits
    assert bt.Account(equity_stop=0.1).has_exits
    market = make_market(unit=np.full(300, 1.0))
    one = run(2.0, market, account=bt.Account(stop_loss=0.02))
    other = run(2.0, market, account=bt.Account(stop_loss=bt.Multiple(0.02, "unit", "fraction")))
    np.testing.assert_array_equal(one.bars["equity"], other.bars["equity"])


def test_stops_sweep_as_numbers():
    """Take-profit and factor of a multiple vary by set; each row is its run."""
    market = make_market(120, atr=np.full(120, 2.0))
    account = bt.Account(stop_loss=bt.Multiple(2.0, "atr"))
    sets = {"account.take_profit": [None, 0.05], "account.stop_loss.multiple": [1.0, 3.0]}
    sweep = bt.sweep(
        market, Constant(leverage=2.0), sets, venue=FREE, account=account, compile=False
    )
    for row in sweep.table.to_dict("records"):
        profit = row["account.take_profit"]
        own = bt.Account(
            stop_loss=bt.Multiple(row["account.stop_loss.multiple"], "atr"),
            take_profit=None if np.isnan(profit) else profit,
        )
        alone = run(2.0, market, account=own)
        for name in ("total_return", "stops", "take_profits"):
            assert row[name] == alone.metrics[name]


def test_a_multiple_is_varied_by_its_factor():
    """Multiples as values of a set are refused, with the name to vary instead."""
    with pytest.raises(bt.ParameterError, match="must be a number to vary") as refused:
        bt.sweep(
            make_market(60),
            Constant(leverage=1.0),
            {"account.stop_loss": [bt.Multiple(2.0, "atr"), 0.1]},
            venue=FREE,
            account=bt.Account(),
            compile=False,
        )
    assert "vary account.stop_loss.multiple" in str(refused.value)
