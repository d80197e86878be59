"""The reference against hand arithmetic: fills, funding, interest, margin and limits of orders.

The hand tests earn the reference its trust: each has its arithmetic in a comment.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

from tests.draws import DAY, HOUR, START, utc
from tests.oracle.by_hand import FLAT, INF, NAN, account_of, bracket, near, play, venue_of


def test_fill_pays_slippage_and_fee_and_the_rest_is_price():
    """The buyer pays 1 % more than the open, and 0.1 % of what was paid."""
    venue = venue_of(fees={"taker": 0.001}, slippage={"rate": 0.01})
    out = play(FLAT, (100, 110, 100, 110), targets=(2.0,), venue=venue)
    # q = 2 * 1000 / 100 = 20 at 101: paid 2020, fee 2.02, slippage 20 * 1
    # E = 1000 - 2020 - 2.02 + 20 * 110 = 1177.98 = 1000 + 200 - 20 - 2.02
    assert out.equity[0] == 1000
    assert near(out.quantity[1], 20)
    assert near(out.slippage[1], 20)
    assert near(out.fees[1], 2.02)
    assert near(out.price_pnl[1], 200)
    assert near(out.cash[1], -1022.02)
    assert near(out.equity[1], 1177.98)
    assert near(out.leverage[1], 2200 / 1177.98)
    fill = out.of_kind("fill")[0]
    assert (fill.bar, float(fill.price), float(fill.amount)) == (1, 101.0, pytest.approx(2020.0))


def test_maker_share_blends_the_fee_and_may_be_a_rebate():
    """A quarter taker at 0.1 %, three quarters maker at -0.05 %: 0.025 % - 0.0375 %."""
    venue = venue_of(fees={"taker": 0.001, "maker": -0.0005, "maker_share": 0.75})
    out = play(FLAT, FLAT, targets=(2.0,), venue=venue)
    assert near(out.fees[1], -0.000125 * 2000)


def test_funding_at_the_open_is_paid_by_the_position_carried_in():
    """5 ms around an open is the open: before the trade of bar 1 free, at bar 2 paid."""
    ms = 1e-3 / 3600
    funding = ((1 + 5 * ms, 0.01, NAN), (2 - 5 * ms, 0.02, NAN))
    out = play(FLAT, FLAT, FLAT, targets=(2.0, NAN), funding=funding)
    # held 20 * 100 into bar 2: 2000 * 0.02 = 40
    assert [float(x) for x in out.funding] == [0, 0, 40]
    assert near(out.equity[2], 960)


def test_funding_inside_the_bar_is_paid_by_the_position_now_held():
    """Events inside: own price or mark open; the short receives; each settles once."""
    mark = (FLAT, (101, 101, 100, 100), FLAT)
    funding = ((1.3, 0.01, NAN), (1.6, 0.01, 90.0), (9.0, 1.0, NAN))
    out = play(FLAT, FLAT, FLAT, targets=(2.0, 0.0), signals=[-1.0] * 3, mark=mark, funding=funding)
    # q = -20: -20 * (101 + 90) * 0.01 = -38.2; the third event lies behind the data
    assert [float(x) for x in out.funding] == [0, pytest.approx(-38.2), 0]
    assert near(out.equity[1], 1038.2)


def test_funding_jitter_is_at_most_a_quarter_of_the_bar():
    """With one-minute bars 20 s after the open is inside the bar, 14 s is at the open."""
    second = 1 / 3600
    bars, minute = [FLAT] * 3, HOUR // 60
    at = 60 * second
    inside = play(*bars, targets=(2.0,), interval=minute, funding=((at + 20 * second, 0.01, NAN),))
    opening = play(*bars, targets=(2.0,), interval=minute, funding=((at + 14 * second, 0.01, NAN),))
    assert (float(inside.total("funding")), float(opening.total("funding"))) == (20, 0)


def test_interest_on_the_balance():
    """A perpetual's balance is 1000 however large the position: 1000 * 0.365 / 8760 h earned."""
    out = play(
        FLAT, FLAT, FLAT, targets=(5.0, NAN), venue=venue_of(interest_on="balance", cash_rate=0.365)
    )
    assert near(out.interest[1], -1000 * 0.365 / 8760)
    balance = 1000 + 1000 * 0.365 / 8760
    assert near(out.interest[2], -balance * 0.365 / 8760)


def test_interest_on_a_loan_and_on_a_short():
    """Long 3x borrows 2000; short 2x holds 3000 of cash and pays for the 2000 borrowed."""
    venue = venue_of(interest_on="loan", borrow_rate=0.876, cash_rate=0.0876, short_rate=0.438)
    bars = (FLAT,) * 3
    earned = 1000 * 0.0876 / 8760  # bar 1, flat until its open
    long = play(*bars, targets=(3.0, NAN), venue=venue)
    assert near(long.interest[1], -earned)
    assert near(long.interest[2], 2 * (1000 + earned) * 0.876 / 8760)
    short = play(*bars, targets=(2.0, NAN), signals=[-1.0] * 3, venue=venue)
    due = -3 * (1000 + earned) * 0.0876 + 2 * (1000 + earned) * 0.438
    assert near(short.interest[2], due / 8760)


def test_interest_rates_are_read_as_of_the_previous_open():
    """A rate that changes inside bar 0 is charged from the open of bar 2 on."""
    rate = pd.Series([0.0, 0.876], index=utc([START - DAY, START + HOUR // 2]))
    venue = venue_of(interest_on="balance", cash_rate=rate, day_count=360)
    out = play(FLAT, FLAT, FLAT, targets=(0.0,), venue=venue)
    assert [float(x) for x in out.interest] == [0, 0, pytest.approx(-876 / 8640)]


def test_initial_margin_shrinks_an_order_for_its_own_cost():
    """N = X (E - κ N): 16 * 1000 / (1 + 16 * 0.001) = 15748.03; after the fee E X = N."""
    out = play(FLAT, FLAT, targets=(INF,), venue=venue_of(fees={"taker": 0.001}))
    notional = Fraction(16_000) / Fraction(1016, 1000)
    assert near(out.quantity[1], notional / 100)
    assert near(out.equity[1] * 16, notional)


def test_initial_margin_picks_the_best_bracket():
    """max(min(4000, 20 E), min(9000, 8 E), min(50000, 2 E)) at E = 1000 is 8000."""
    brackets = [
        bracket(0, 4000, 20, 0.02),
        bracket(4000, 9000, 8, 0.05),
        bracket(9000, 50_000, 2, 0.2),
    ]
    venue = venue_of(brackets=brackets)
    assert near(play(FLAT, FLAT, targets=(INF,), venue=venue).quantity[1], 80)
    assert near(play(FLAT, FLAT, targets=(50.0,), venue=venue).quantity[1], 80)
    # a setting of 5 allows the second bracket: min(9000, 5 E); one of 10 the first: 4000
    for setting, expected in ((5.0, 50), (10.0, 40)):
        account = account_of(venue_leverage=setting)
        out = play(FLAT, FLAT, targets=(INF,), venue=venue, account=account)
        assert near(out.quantity[1], expected)


def test_position_over_the_limit_is_left_but_not_enlarged():
    """At 90 the limit is 6 * 500 = 3000 under the 4500 held: kept, not enlarged."""
    brackets = [bracket(0, 1e9, 6, 0.05)]
    venue = venue_of(brackets=brackets)
    out = play(FLAT, (100, 100, 90, 90), (90,) * 4, targets=(5.0, 50.0), venue=venue)
    assert near(out.quantity[2], 50)
    assert out.count("fill") == 1


def test_isolated_order_must_fit_the_wallet():
    """q p (1/X + f) <= wallet: 1000 / (0.1 + 0.001) = 9900.99 of notional, wallet then empty."""
    account = account_of(margin="isolated", venue_leverage=10.0)
    venue = venue_of(fees={"taker": 0.001})
    out = play(FLAT, FLAT, targets=(INF,), venue=venue, account=account)
    assert near(out.quantity[1], Fraction(10_000) / Fraction(101) / 1)
    assert near(out.cash[1], 0)


def test_isolated_flip_closes_then_opens():
    """50 long from 100 closed at 104 returns 500 + 200; then 0.5 E short sets N/X aside."""
    account = account_of(margin="isolated", venue_leverage=10.0)
    out = play(
        FLAT,
        FLAT,
        (104,) * 4,
        targets=(5.0, 0.5),
        signals=[1.0, -1.0, -1.0],
        account=account,
    )
    assert near(out.quantity[2], -600 / 104)
    assert near(out.entry[2], 104)
    assert near(out.margin[2], 60)
    assert near(out.cash[2], 1140)


def test_isolated_reduction_returns_its_share_of_margin_and_profit():
    """E = 1200 at 104; 2400 is 23.08 of 50: share 1 - 23.08/50 of (500 + 200) comes back."""
    account = account_of(margin="isolated", venue_leverage=10.0)
    out = play(FLAT, FLAT, (104,) * 4, targets=(5.0, 2.0), account=account)
    share = 1 - Fraction(2400, 104) / 50
    assert near(out.margin[2], 500 * (1 - share))
    assert near(out.cash[2], 500 + 700 * share)
    assert near(out.entry[2], 100)


def test_isolated_funding_can_liquidate_at_once():
    """M = 500, MM = 250: a payment of 6 % of 5000 leaves 200: closed at the mark open."""
    account = account_of(margin="isolated", venue_leverage=10.0)
    bars, funding = (FLAT,) * 3, ((2.5, 0.06, NAN),)
    out = play(*bars, targets=(5.0, NAN), account=account, funding=funding)
    assert out.count("liquidation") == 1
    assert near(out.equity[2], 700)
    wallet = venue_of(isolated_funding="wallet")
    out = play(*bars, targets=(5.0, NAN), account=account, funding=funding, venue=wallet)
    assert out.count("liquidation") == 0
    assert near(out.cash[2], 200)


def test_lots_minimum_and_band():
    """20.5 contracts are 20 of lot 1; 0.5 turns of band leave 0.4; 30 of notional are skipped."""
    lots = play(FLAT, FLAT, targets=(2.05,), venue=venue_of(contract={"lot": 1.0}))
    assert near(lots.quantity[1], 20)
    account = account_of(band=0.5)
    bars = (FLAT,) * 4
    band = play(*bars, targets=(2.0, 2.4, 0.0), account=account)
    assert [float(q) for q in band.quantity] == [0, 20, 20, 0]
    near_zero = play(*bars, targets=(2.0, 0.4, 0.0), account=account_of(band=3.0))
    assert near_zero.count("fill") == 0
    small = venue_of(contract={"min_notional": 50.0})
    out = play(*bars, targets=(0.06, 0.03, 0.0), venue=small)
    assert [float(q) for q in out.quantity] == [0, pytest.approx(0.6), pytest.approx(0.6), 0]


@pytest.mark.parametrize(("wanted", "expected"), [(36, 35), (34, 30), (41, 40), (4, 0)])
def test_lots_never_turn_an_increase_into_a_reduction(wanted, expected):
    """35 contracts of lot 10 are left by a partial liquidation: 36 wanted is no order, 34 is 30."""
    venue = venue_of(contract={"lot": 10.0}, liquidation={"mode": "partial", "step": 0.3})
    bars = (FLAT, FLAT, (100, 100, 83, 100), FLAT)
    # bar 2: 15 of 50 go at P = 4000 / 47.5, 35 are held to 100
    equity = -4000 + 15 * Fraction(4000) / Fraction(475, 10) + 3500
    out = play(*bars, targets=(5.0, NAN, float(wanted * 100 / equity)), venue=venue)
    assert near(out.equity[2], equity)
    assert near(out.quantity[3], expected)


def test_nan_leaves_the_position_and_signal_zero_closes_it():
    """NaN with a flipped signal leaves; NaN with signal 0 closes."""
    out = play(*(FLAT,) * 4, targets=(2.0, NAN, NAN, NAN), signals=[1.0, -1.0, 0.0, 1.0])
    assert [float(q) for q in out.quantity] == [0, 20, 20, 0]


def test_signal_scales_and_leverage_is_clipped():
    """|s| L E: 0.25 * 3 after the clip of 8 to 3; a target of 0 is lifted to the least, 1."""
    account = account_of(max_leverage=3.0, min_leverage=1.0)
    out = play(*(FLAT,) * 3, targets=(8.0, 0.0), signals=[-0.25, 1.0, 1.0], account=account)
    assert [float(q) for q in out.quantity] == [0, -7.5, 10]


def test_volume_cuts_an_order_in_whole_lots_and_the_rest_waits():
    """10 % of 77 contracts is 7.7, in lots 7; the next bar gets 7 more."""
    venue = venue_of(slippage={"max_participation": 0.1}, contract={"lot": 1.0})
    out = play(*(FLAT,) * 5, targets=(2.0, 2.0, 2.0, 0.0), venue=venue, volume=77.0)
    assert [float(q) for q in out.quantity] == [0, 7, 14, 20, 13]


def test_impact_is_y_sigma_root_of_size_over_volume():
    """Four hourly returns, of five closes, and the four volumes beside; both as daily figures."""
    closes = (97.0, 100.0, 101.0, 99.0, 100.0)
    bars = [(c, c, c, c) for c in closes] + [(100.0,) * 4]
    venue = venue_of(slippage={"rate": 0.001, "impact": 0.5, "impact_window": "4h"})
    out = play(*bars, targets=(0.0, 0.0, 0.0, 0.0, 2.0), venue=venue, volume=10.0)
    sigma = np.diff(np.log(closes)).std(ddof=1) * math.sqrt(24)
    impact = 0.5 * sigma * math.sqrt(2000 / (10 * np.mean(closes[1:]) * 24))
    assert near(out.impact[5], 2000 * impact)
    assert near(out.slippage[5], 2)
    early = play(*bars[1:], targets=(0.0, 0.0, 0.0, 2.0), venue=venue, volume=10.0)
    assert out.impact[4] == early.impact[4] == 0  # one close too few


def test_nothing_trades_before_the_first_close():
    """Bar 0 is only looked at."""
    out = play((100, 200, 50, 100), FLAT, targets=(2.0,))
    assert (out.quantity[0], out.price_pnl[0], float(out.quantity[1])) == (0, 0, 20)
