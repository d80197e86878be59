"""The mistakes that comparable systems made, by their numbers: one case or test each.

Not here: 7 and 34 (dated brackets, several contracts), the hedge mode of 33, and 35 (search);
14 (two modes) is in test_compiled.py, 25 in test_closed_forms.py, and of tests/market 19 in
test_funding_cadence.py, 22 and 28 in test_market.py.
Unless said otherwise: 1,000 of capital, a price of 100, 16x and 5 % maintenance, no costs.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import backtest as bt
from tests.before import WAS
from tests.scenes import (
    LP,
    NAN,
    ONCE,
    TEN,
    Follow,
    Hand,
    account_of,
    at,
    bracket,
    by_hand,
    check_numbers,
    equities,
    happened,
    is_,
    isolated,
    later,
    market_of,
    play,
    total,
    venue_of,
)

NEAR = account_of(stop_loss=0.03)
DAILY = [(float(h), 0.001) for h in range(0, 96, 8)]
RATES = [0.001, -0.0005, 0.0, 0.0025]
MARKED = [100, 100, (104, 110, 100, 108)]
HAND: Hand = {
    # 1x short; at 300 the loss is 2,000 of 1,000; at 100 again it would be 1,000 again
    "01 equity below zero never recovers": (
        later(100, 100, 300, 300, 100, 100, targets=1.0, signal=-1.0),
        {"equity": [1000, 1000, 0, 0, 0, 0], "metrics.ruined": 1, "metrics.final_equity": 0}),
    # 2,000 - 10 P = 0.5 P
    "02 leverage of one is not exempt from liquidation": (
        later(100, (100, 250, 100, 100), targets=ONCE, signal=-1.0),
        {"liquidation.price": [2000 / 10.5]}),
    "03 a low that recovers by the close still liquidates": (
        later(100, (100, 101, 94, 101), targets=TEN), {"liquidation.price": [LP], "position": 0}),
    **{
        f"04 the threshold is the maintenance margin and nothing else, {low}": (
            later(100, (100, 100, low, 100), targets=TEN), {"liquidation.n": count})
        for low, count in ((94.74, 0), (94.73, 1))
    },
    **{
        f"08 a gap is filled at the open and never at the extreme, {start}": (
            later(100, 100, (start, start, 92, 92), targets=TEN), {"liquidation.price": [price]})
        for start, price in ((93, 93), (100, LP))
    },
    "10 equity is never reset upward": (
        later(100, 100, 80, targets=TEN), {"equity": 0, "bad_debt.total": 1000}),
    "10 what is left is 2 %, not 5": (later(100, 100, 90.2, targets=TEN), {"equity": 20}),
    "11 a liquidation pays a fee": (
        later(100, (100, 100, 94, 94), targets=TEN, venue=venue_of(liquidation={"fee": 0.0125})),
        {"liquidation_loss.total": 0.0125 * 100 * LP}),
    "12 cross margin is liquidated too": (
        later(100, 100, (100, 100, 94, 94), targets=TEN, account=account_of(margin="cross")),
        {"liquidation_price": [NAN, LP, NAN], "liquidation.n": 1}),
    # the low of bar 1 belongs to nobody: the order fills at the open of bar 2
    "13 a low before the purchase does not liquidate it": (
        later(100, (100, 100, 60, 100), (100, 101, 99, 100), targets=(NAN, 10.0, NAN)),
        {"liquidation.n": 0, "fill.hours": [2]}),
    "15 a gap is a gap": (  # not 95
        later(100, 100, (90, 91, 89, 90), targets=ONCE, account=account_of(stop_loss=0.05)),
        {"stop.price": [90]}),
    "16 the nearer stop wins": (
        later(100, 100, (100, 100, 90, 90), targets=TEN, account=NEAR),
        {"stop.price": [97], "liquidation.n": 0}),
    "16 unless the bar opened past both": (
        later(100, 100, (93, 93, 90, 90), targets=TEN, account=NEAR),
        {"stop.n": 0, "liquidation.price": [93]}),
    # held from the open of bar 1 to that of bar 3: (entry, exit] holds 0.002 and 0.004
    "18 entering at the stamp does not pay and leaving at it does": (
        later(*[100] * 5, targets=(1.0, NAN, 0.0),
              funding=[(1.0, 0.001), (2.0, 0.002), (3.0, 0.004)]),
        {"funding.amount": [2, 4]}),
    **{  # all but the one of the purchase itself, at hour 1
        f"20 settlements of any cadence and extra ones are paid, {every}": (
            later(*[100] * 24, targets=ONCE, funding=sorted(
                [(17.25, 0.001), *((float(h), 0.001) for h in range(every, 24, every))])),
            {"funding.n": carried, "funding.total": carried})
        for every, carried in ((1, 23), (2, 12), (4, 6), (8, 3))
    },
    # bought at 24:00, so that the first one is not paid; the last is inside the same day
    "21 each settlement has its own rate": (
        later(*[100] * 4, targets=ONCE, interval="1d",
              funding=[(24.0 + 6 * k, rate) for k, rate in enumerate(RATES)]),
        {"funding.amount": [rate * 1000 for rate in RATES[1:]]}),
    "22 a settlement without a mark is paid at the mark open": (
        later(*[100] * 3, targets=ONCE, funding=[(2.0, 0.001, NAN)], mark=[100, 100, 103]),
        {"funding.total": 1.03}),
    # bought at day 1 0:00: 8:00 and 16:00 of it, then three a day
    "23 a daily bar pays all three settlements": (
        later(*[100] * 4, targets=ONCE, funding=DAILY, interval="1d"), {"funding": [0, 2, 3, 3]}),
    # not 0.9, the last open, nor 1.08, the close
    "24 funding is valued at the mark of the stamp": (
        later(100, 100, (90, 120, 80, 120), targets=ONCE, mark=MARKED, funding=[(2.0, 0.001)]),
        {"funding.total": 1.04}),
    # 500 posted; 100 paid: 400 + 50 (P - 100) = 2.5 P
    "26 funding lowers the isolated margin and moves the liquidation price": (
        later(*[100] * 3, targets=(5.0, NAN), funding=[(2.0, 0.02)], account=isolated()),
        {"liquidation_price": [NAN, 4500 / 47.5, 4600 / 47.5]}),
    **{
        f"27 funding is paid from the margin when the wallet is empty, {source}": (
            later(*[100] * 3, targets=TEN, funding=[(2.0, 0.02)], account=isolated(),
                  venue=venue_of(isolated_funding=source)),
            {"cash": 0, "margin": 800})
        for source in ("margin", "wallet")
    },
    "29 funding is in the equity": (
        later(*[100] * 3, targets=ONCE, funding=[(2.0, 0.001)]),
        {"equity": 999, "metrics.total_return": -0.001}),
    **{
        f"32 exposure and the leverage setting are two things, {setting}": (
            later(100, 100, targets=2.0, account=isolated(setting)),
            {"leverage": 2, "margin": 2000 / setting})
        for setting in (4.0, 10.0)
    },
    "33 an order beyond the allowed leverage is shrunk to it": (
        later(100, 100, targets=40.0), {"leverage": 16, "position": 160}),
}  # fmt: skip
seen: list[tuple[float, float]] = []
"""What ``Watch`` saw: its position, and how many bars ago it was liquidated."""


@by_hand(HAND)
def test_a_mistake_that_one_run_shows(run, numbers):
    check_numbers(run(), numbers)


def test_05_maintenance_is_neither_initial_nor_nothing_nor_flat():
    # 10x posts all of its equity, and lives; it dies before its equity is gone
    assert happened(play(100, 100, targets=TEN), "liquidation").empty
    assert play(100, (100, 100, 94, 94), targets=TEN).bars["equity"].iloc[-1] == is_(5 * LP)

    # and a larger position needs a larger share
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT", at="2024-10-24")
    notionals = [1e4, 1e6, 1e8]
    shares = bt.margin.maintenance(venue, notionals) / notionals
    assert shares == pytest.approx([0.004, 0.00555, 0.02018550], rel=1e-7)


def test_06_maintenance_is_continuous_across_bracket_edges():
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT")
    for row in venue.brackets[1:]:
        beside = row.floor * np.array([1 - 1e-12, 1 + 1e-12])
        below, above = bt.margin.maintenance(venue, beside)
        assert above - below <= 1e-11 * row.floor


def test_08_the_same_path_loses_the_same_at_a_minute_and_at_an_hour():
    # an hour from 100 to 92 in sixty straight steps: the price is passed in one of them
    minutes = [(a, a, b, b) for a, b in pairwise(np.linspace(100, 92, 61))]
    # bought in the first minute: one bar before, one that stands still, then the fall
    fine = play(100.0, 100.0, *minutes, targets=TEN, interval="1m")
    coarse = play(100.0, 100.0, (100, 100, 92, 92), targets=TEN, interval="1h")

    assert equities(fine)[-1] == is_(equities(coarse)[-1])


@pytest.mark.slow
@settings(max_examples=60)
@given(
    leverage=st.floats(1.0, 50.0),
    share=st.floats(0.02, 0.9),
    fee=st.floats(0.0, 0.05),
    worse=st.floats(0.0, 0.05),
    side=st.sampled_from([1.0, -1.0]),
    move=st.floats(0.01, 0.6),
    gap=st.floats(0.0, 0.3),
)
def test_09_a_liquidation_fills_inside_the_bar_and_loses_at_most_the_margin(
    leverage, share, fee, worse, side, move, gap
):
    """Where the fee exceeds the maintenance rate too, as the wrong clamp did not."""
    taker = 0.001
    venue = venue_of(
        brackets=[bracket(leverage=leverage, rate=share / leverage)],
        fees={"taker": taker, "maker": taker},
        liquidation={"fee": fee, "slippage": worse},
    )

    start = 100 * (1 - side * gap * move)
    end = 100 * (1 - side * move)
    bar = (start, max(start, end), min(start, end), end)
    result = play(
        100, 100, bar, targets=(leverage, NAN), venue=venue, account=isolated(leverage),
        signal=side,
    )  # fmt: skip

    for event in happened(result, "liquidation").itertuples():
        _, high, low, _ = bar
        if event.time == at(1):  # the fee of opening may leave too little at once
            low = high = 100
        assert low * (1 - 1e-12) <= event.price <= high * (1 + 1e-12)

    bought = happened(result, "fill").iloc[0]
    margin = bought["amount"] / leverage
    entry_fee = bought["amount"] * taker
    assert result.bars["equity"].iloc[-1] >= 1000 - (margin + entry_fee) * (1 + 1e-12)
    assert result.bars["equity"].min() >= 0.0


class Watch(Follow):
    def leverage(self, bar, account):
        seen.append((account.position, account.bars_since_liquidation))
        return bar.target


def test_17_the_policy_sees_the_account_after_the_liquidation_of_its_bar():
    seen.clear()
    play(100, (100, 100, 94, 94), 94, targets=TEN, policy=Watch())

    assert seen == [(0.0, math.inf), (0.0, 0.0), (0.0, 1.0)]


def test_30_interest_accrues_by_the_hour():
    venue = venue_of(interest_on="loan", borrow_rate=0.365)
    result = play(*[100] * 26, targets=(2.0, NAN), venue=venue)

    # 1,000 owed for 24 hours: 1 in all, but for interest on interest
    assert total(result, "interest") == pytest.approx(1.0, rel=1e-3)
    assert len(happened(result, "interest")) == 24


def test_31_ruin_does_not_flip_the_sign_of_a_ratio():
    result = play(*[100] * 3, 20, *[100] * 4, targets=TEN, interval="1d")
    metrics = result.metrics

    assert metrics["total_return"] == -1.0
    assert metrics["cagr"] == -1.0
    assert metrics["sharpe"] < 0.0
    assert metrics["sortino"] < 0.0
    assert result.returns.tolist() == [0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0]


def test_36_the_runs_that_are_stored_cover_all_kinds_of_events():
    """``tests/test_before.py`` holds every one to what it was."""
    stored = {row[1] for run in WAS.values() for row in run["events"]}
    market = market_of(*[100] * 2)
    result = bt.run(market, Follow(), venue=venue_of(), account=account_of(), compile=False)

    elsewhere = {"daily_loss", "weekly_loss", "pause"}  # test_exits and the oracle have them
    missing = set(result.events["kind"].cat.categories) - stored - elsewhere
    assert not missing, "draw it in tests/cases.py; python -m tests.before stores the runs anew"
