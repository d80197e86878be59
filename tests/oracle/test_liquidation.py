"""The reference against hand arithmetic: liquidations, stops, margin calls and withdrawals.

The hand tests earn the reference its trust: each has its arithmetic in a comment.
"""

from __future__ import annotations

from fractions import Fraction

import pandas as pd
import pytest

from tests.draws import DAY, HOUR, START, utc
from tests.oracle.by_hand import FLAT, INF, NAN, account_of, bracket, near, play, venue_of


def test_cross_linear_long_is_liquidated_at_the_closed_form():
    """w + q P = r q P, closed there with a fee of 1 % out of what is left."""
    venue = venue_of(liquidation={"fee": 0.01})
    out = play(FLAT, (100, 100, 100, 100), (100, 100, 80, 90), targets=(5.0, NAN), venue=venue)
    # q = 50, w = -4000: P = 4000 / (50 * 0.95); N = 4000 / 0.95; left 0.05 N, fee 0.01 N
    notional = Fraction(4000) / Fraction(95, 100)
    assert near(out.liquidation_price[1], notional / 50)
    assert near(out.of_kind("liquidation")[0].price, notional / 50)
    assert near(out.liquidation_loss[2], notional / 100)
    assert near(out.equity[2], notional * Fraction(4, 100))
    assert out.quantity[2] == 0
    assert out.liquidation_price[2] is None


def test_liquidation_slippage_is_a_liquidation_loss():
    """Closed at P (1 - 2 %): the loss is 2 % of N at P, the rest stays."""
    venue = venue_of(liquidation={"slippage": 0.02})
    out = play(FLAT, FLAT, (100, 100, 80, 90), targets=(5.0, NAN), venue=venue)
    notional = Fraction(4000) / Fraction(95, 100)
    assert near(out.liquidation_loss[2], notional / 50)
    assert near(out.equity[2], notional * Fraction(3, 100))


def test_cross_linear_short_dies_on_the_mark_high_even_at_leverage_one():
    """w - q P = r q P with w = 2000, q = 10: P = 200 / 1.05."""
    out = play(FLAT, FLAT, (100, 195, 100, 100), targets=(1.0, NAN), signals=[-1.0] * 3)
    assert near(out.liquidation_price[1], Fraction(200) / Fraction(105, 100))
    # at P the equity is the requirement: 0.05 * 10 P
    assert near(out.equity[2], Fraction(100) / Fraction(105, 100))


def test_cross_long_at_leverage_one_has_no_liquidation_price():
    """All paid: no price liquidates."""
    out = play(FLAT, FLAT, (100, 100, 1, 100), targets=(0.9, NAN))
    assert out.liquidation_price[1] is None
    assert near(out.equity[2], 1000)


def test_isolated_linear_long_is_liquidated_on_its_margin_alone():
    """M + P - entry = r P: 10 + P - 100 = 0.05 P; the wallet is not touched."""
    account = account_of(margin="isolated", venue_leverage=10.0)
    out = play(FLAT, FLAT, (100, 100, 90, 100), targets=(5.0, NAN), account=account)
    # q = 50, M = 5000 / 10 = 500, wallet 500; P = 90 / 0.95
    assert near(out.margin[1], 500)
    assert near(out.liquidation_price[1], Fraction(90) / Fraction(95, 100))
    # left: 0.05 * 50 * P goes to the wallet
    assert near(out.cash[2], 500 + Fraction(225) / Fraction(95, 100))
    assert out.margin[2] == 0


def test_cross_inverse_long_is_liquidated_at_the_closed_form():
    """1 coin, 200 contracts of 100 USD at 10,000: w = 3; 3 - 20000/P = 0.05 * 20000/P."""
    venue = venue_of(contract={"kind": "inverse", "size": 100.0})
    start, account = (10_000.0,) * 4, account_of(capital=1.0)
    out = play(
        start, start, (1e4, 1e4, 6000, 8000), targets=(2.0, NAN), venue=venue, account=account
    )
    assert near(out.quantity[1], 200)
    assert near(out.cash[1], 3)
    assert near(out.liquidation_price[1], 7000)
    assert near(out.equity[2], 3 - Fraction(20_000, 7000))


def test_isolated_inverse_short_is_liquidated_at_the_closed_form():
    """M = 2/5; 0.4 - 200 (0.01 - 100/P) = 0.05 * 20000/P: P = 19000 / 1.6."""
    venue = venue_of(contract={"kind": "inverse", "size": 100.0})
    account = account_of(capital=1.0, margin="isolated", venue_leverage=5.0)
    start = (10_000.0,) * 4
    out = play(
        start,
        start,
        (1e4, 1.3e4, 1e4, 1e4),
        targets=(2.0, NAN),
        signals=[-1.0] * 3,
        venue=venue,
        account=account,
    )
    assert near(out.margin[1], 0.4)
    assert near(out.liquidation_price[1], 11_875)
    assert near(out.equity[2], 0.6 + 0.05 * 20_000 / 11_875)


def test_second_bracket_sets_the_liquidation_price_of_a_large_position():
    """Up to 2000 at 2 %, above at 10 %: MM = 0.1 N - 160; -4000 + N = 0.1 N - 160."""
    brackets = [bracket(0, 2000, 20, 0.02), bracket(2000, 1e9, 8, 0.10)]
    out = play(FLAT, FLAT, targets=(5.0,), venue=venue_of(brackets=brackets))
    assert near(out.requirement[1], 0.1 * 5000 - 160)
    assert near(out.liquidation_price[1], Fraction(3840, 45))


def test_partial_liquidation_by_a_fraction_sets_a_new_price():
    """Half is closed at P1 = 84.21; what is left (25) dies at 79.78, and does so when reached."""
    venue = venue_of(liquidation={"mode": "partial", "step": 0.5})
    first = Fraction(4000) / Fraction(475, 10)
    left = Fraction(-4000) + 25 * first  # cash after the step
    second = -left / Fraction(2375, 100)
    once = play(FLAT, FLAT, (100, 100, 80, 90), targets=(5.0, NAN), venue=venue)
    assert near(once.quantity[2], 25)
    assert near(once.equity[2], left + 25 * 90)
    assert near(once.liquidation_price[2], second)
    twice = play(FLAT, FLAT, (100, 100, 79, 90), targets=(5.0, NAN), venue=venue)
    assert [near(e.price, p) for e, p in zip(twice.events[1:], (first, second), strict=True)]
    assert near(twice.quantity[2], 12.5)
    assert near(twice.equity[2], left + Fraction(25, 2) * second + Fraction(25, 2) * 90)


def test_partial_liquidation_by_bracket_goes_to_the_floor_then_closes():
    """At P1 = 85.33 down to a notional of 2000; in the lowest bracket the rest is closed."""
    brackets = [bracket(0, 2000, 20, 0.02), bracket(2000, 1e9, 8, 0.10)]
    venue = venue_of(brackets=brackets, liquidation={"mode": "partial", "step": "bracket"})
    out = play(FLAT, FLAT, (100, 100, 85, 90), targets=(5.0, NAN), venue=venue)
    first = Fraction(3840, 45)
    assert near(out.quantity[2], 2000 / first)
    # equity at P1 is MM(3840 / 0.9) = 0.1 * 4266.67 - 160 = 266.67, then 23.4375 contracts to 90
    assert near(out.equity[2], Fraction(800, 3) + Fraction(234375, 10_000) * (90 - first))
    gone = play(FLAT, FLAT, (100, 100, 50, 90), targets=(5.0, NAN), venue=venue)
    # 2000 - 266.67 = 1733.33 owed: P2 = 1733.33 / (23.4375 * 0.98), left 0.02 of the notional
    assert gone.quantity[2] == 0
    assert near(gone.equity[2], Fraction(2, 98) * (2000 - Fraction(800, 3)))


def test_partial_liquidation_closes_a_small_position_whole():
    """4210 at the liquidation price is not over ``full_below``."""
    venue = venue_of(liquidation={"mode": "partial", "step": 0.5, "full_below": 4300.0})
    out = play(FLAT, FLAT, (100, 100, 80, 90), targets=(5.0, NAN), venue=venue)
    assert out.quantity[2] == 0
    assert near(out.equity[2], Fraction(200) / Fraction(95, 100))


def test_takeover_takes_everything_in_cross_and_the_account_is_ruined():
    """The 0.05 N left at P are lost; no trade ever again, not even after a deposit."""
    venue = venue_of(liquidation={"mode": "takeover"})
    deposit = pd.Series([500.0], index=utc([START + 3 * HOUR]))
    out = play(
        FLAT,
        FLAT,
        (100, 100, 80, 90),
        (90, 200, 90, 200),
        (200, 200, 200, 200),
        targets=(5.0,),
        venue=venue,
        account=account_of(flows=deposit),
    )
    assert near(out.liquidation_loss[2], Fraction(200) / Fraction(95, 100))
    assert out.equity[2] == 0
    assert out.ruined[2:] == [True] * 3
    assert out.quantity[2:] == [0] * 3
    assert out.equity[3:] == [500] * 2


def test_takeover_takes_only_the_margin_in_isolated():
    """M = 500 is gone, the wallet of 500 goes on."""
    account = account_of(margin="isolated", venue_leverage=10.0)
    venue = venue_of(liquidation={"mode": "takeover"})
    out = play(FLAT, FLAT, (100, 100, 90, 100), targets=(5.0, NAN), venue=venue, account=account)
    assert near(out.cash[2], 500)
    assert near(out.equity[2], 500)
    assert near(out.liquidation_loss[2], 0.05 * 50 * 90 / 0.95)


def test_gap_past_bankruptcy_is_bad_debt():
    """Open at 70: -4000 + 50 * 70 = -500 is the insurance fund's; equity 0, ruined."""
    out = play(FLAT, FLAT, (70, 100, 70, 100), targets=(5.0,))
    assert near(out.price_pnl[2], -1500)
    assert near(out.bad_debt[2], 500)
    assert near(out.of_kind("liquidation")[0].price, 70)
    assert out.equity[2] == 0
    assert out.ruined[2]


def test_isolated_bad_debt_leaves_the_wallet():
    """M = 500 against a loss of 50 * 30: 1000 is bad debt, 500 in the wallet stays."""
    account = account_of(margin="isolated", venue_leverage=10.0)
    out = play(FLAT, FLAT, (70, 100, 70, 100), targets=(5.0, 0.0), account=account)
    assert near(out.bad_debt[2], 1000)
    assert near(out.equity[2], 500)
    assert not out.ruined[2]


def test_liquidation_fee_never_makes_a_shortfall():
    """5 % of N is all that is left; a fee of 8 % takes that and no more."""
    out = play(
        FLAT,
        FLAT,
        (100, 100, 80, 90),
        targets=(5.0,),
        venue=venue_of(liquidation={"fee": 0.08}),
    )
    assert near(out.liquidation_loss[2], Fraction(200) / Fraction(95, 100))
    assert out.equity[2] == 0
    assert out.total("bad_debt") == 0


def test_stop_inside_the_bar_fills_at_its_price_worsened():
    """Stop at 95, sold at 95 * 0.99, taker fee; the entry was 100 / no slip because rate is 1 %."""
    venue = venue_of(slippage={"rate": 0.01}, fees={"taker": 0.001, "maker_share": 1.0})
    out = play(
        FLAT,
        FLAT,
        (100, 100, 90, 92),
        targets=(2.0, NAN),
        venue=venue,
        account=account_of(stop_loss=0.05),
    )
    # entry 101 (bought 1 % worse, maker fee 0), stop 95.95, sold at 94.9905, fee 0.1 % of that
    stop, sold = 101 * 0.95, 101 * 0.95 * 0.99
    assert near(out.of_kind("stop")[0].price, sold)
    assert near(out.slippage[2], 20 * (stop - sold))
    assert near(out.fees[2], 20 * sold * 0.001)
    assert near(out.equity[2], 1000 - 20 * 101 + 20 * sold * 0.999)


def test_gapped_stop_fills_at_the_open_and_drops_the_decision():
    """Open at 90 under a stop of 95: 20 contracts lose 10 each; bar 2 does not trade again."""
    account = account_of(stop_loss=0.05)
    out = play(FLAT, FLAT, (90, 100, 90, 100), (100,) * 4, targets=(2.0,), account=account)
    assert near(out.of_kind("stop")[0].price, 90)
    assert near(out.equity[2], 800)
    assert out.quantity[2] == 0
    assert near(out.quantity[3], 16)


@pytest.mark.parametrize(("stop_loss", "kind"), [(0.10, "stop"), (0.20, "liquidation")])
def test_nearer_of_stop_and_liquidation_acts_first(stop_loss, kind):
    """Liquidation at 84.2 lies between a stop at 90 and one at 80."""
    account = account_of(stop_loss=stop_loss)
    out = play(FLAT, FLAT, (100, 100, 70, 100), targets=(5.0, NAN), account=account)
    assert [e.kind for e in out.events if e.bar == 2 and e.kind in ("stop", "liquidation")] == [
        kind
    ]


def test_open_past_stop_and_liquidation_is_a_liquidation():
    """Both crossed by the gap: §2.4 (a) comes before (b)."""
    out = play(FLAT, FLAT, (83, 100, 80, 90), targets=(5.0,), account=account_of(stop_loss=0.1))
    assert (out.count("liquidation"), out.count("stop")) == (1, 0)
    assert near(out.equity[2], 50 * 83 - 4000)


def test_liquidation_is_tested_on_mark_prices_and_the_stop_on_last_prices():
    """A last-price low of 80 touches a stop at 90, not the liquidation; and the mirror."""
    bars = (FLAT, FLAT, (100, 100, 80, 100))
    calm = (FLAT, FLAT, FLAT)
    assert play(*bars, targets=(5.0, NAN), mark=calm).count("liquidation") == 0
    assert play(*calm, targets=(5.0, NAN), mark=bars).count("liquidation") == 1
    account = account_of(stop_loss=0.1)
    assert play(*bars, targets=(5.0, NAN), mark=calm, account=account).count("stop") == 1
    assert play(*calm, targets=(1.5, NAN), mark=bars, account=account).count("stop") == 0


def test_margin_call_draws_on_the_reserve_to_the_ratio():
    """At 90: MM/E = 225 / 500 = 0.45 >= 0.4; to 0.3 it takes 225 / 0.3 - 500 = 250."""
    account = account_of(margin_call=0.4, top_up_to=0.3, reserve=400.0)
    bars = (FLAT, (100, 100, 90, 90), (90,) * 4, (90,) * 4)
    out = play(*bars, targets=(5.0, NAN), account=account)
    assert near(out.margin_ratio[1], 0.45)
    assert [e.bar for e in out.of_kind("margin_call")] == [1]
    assert near(out.top_up[2], 250)
    assert near(out.flows[2], 250)
    assert near(out.reserve[2], 150)
    assert near(out.margin_ratio[2], 0.3)
    short = play(*bars, targets=(5.0, NAN), account=account_of(**vars(account) | {"reserve": 50.0}))
    assert near(short.top_up[2], 50)
    assert [e.bar for e in short.of_kind("margin_call")] == [1]  # 0.409: over, not crossed again


def test_isolated_top_up_goes_to_the_margin():
    """M = 500 at X = 10, upnl -50 * 2: 240 is needed for MM 245 at ratio 0.4: 612.5 - 400."""
    account = account_of(
        margin="isolated", venue_leverage=10.0, margin_call=0.5, top_up_to=0.4, reserve=400.0
    )
    out = play(FLAT, (100, 100, 98, 98), (98,) * 4, targets=(5.0, NAN), account=account)
    assert near(out.margin_ratio[1], 245 / 400)
    assert near(out.top_up[2], 212.5)
    assert near(out.margin[2], 712.5)
    assert near(out.cash[2], 500)


def test_withdrawal_takes_what_leaves_the_initial_margin():
    """5500 at 16x needs 343.75 of the 1100: of 1000 asked 756.25 are paid, the rest refused."""
    flows = pd.Series([100.0, -1000.0], index=utc([START + HOUR // 2, START + 3 * HOUR // 2]))
    out = play(FLAT, FLAT, FLAT, targets=(5.0, NAN), account=account_of(flows=flows))
    # the deposit of bar 1 comes before its fill: E = 1100, N = 5500
    assert near(out.quantity[1], 55)
    assert near(out.flows[2], -756.25)
    assert near(out.total("withdrawal_refused"), 243.75)
    assert near(out.equity[2], 343.75)


def test_isolated_withdrawal_takes_from_the_wallet_only():
    """Wallet 500 of E 1000, initial margin 500: all of the wallet, not a cent of M."""
    flows = pd.Series([-900.0], index=utc([START + 2 * HOUR]))
    account = account_of(margin="isolated", venue_leverage=10.0, flows=flows)
    out = play(FLAT, FLAT, (104,) * 4, targets=(5.0, NAN), account=account)
    # at 104: E = 1200, initial margin 520, so 680 are free, but the wallet holds 500
    assert near(out.flows[2], -500)
    assert near(out.margin[2], 500)
    assert near(out.cash[2], 0)


def test_multiplier_scales_rates_and_divides_leverages():
    """x = 4: maintenance 20 %, at most 16 / 4: what was held is closed at the next open."""
    multiplier = pd.Series([1.0, 4.0], index=utc([START - DAY, START + 2 * HOUR]))
    venue = venue_of(margin_multiplier=multiplier)
    out = play(*(FLAT,) * 4, targets=(5.5, 2.0, INF), venue=venue)
    # bar 2: MM = 0.2 * 5500 = 1100 >= 1000: liquidated at 100, nothing lost; bar 3: 4x at most
    assert [float(q) for q in out.quantity] == [0, 55, 0, 40]
    assert out.of_kind("liquidation")[0].bar == 2


def test_close_fee_and_entry_maintenance_move_the_liquidation_price():
    """5 % + 1 % fee on the price tested: 4000/(50 * 0.94); 5 % at entry: 250 = -w + 50 P."""
    included = venue_of(includes_close_fee=True, fees={"taker": 0.01, "maker_share": 1.0})
    out = play(FLAT, FLAT, targets=(5.0,), venue=included)
    assert near(out.liquidation_price[1], Fraction(4000, 47))
    at_entry = play(FLAT, FLAT, targets=(5.0,), venue=venue_of(maintenance_at="entry"))
    assert near(at_entry.liquidation_price[1], Fraction(4250, 50))


def test_halt_ends_the_run_flat():
    """After the liquidation of bar 2 the target of 1 is never taken up."""
    account = account_of(after_liquidation="halt")
    bars = (FLAT, FLAT, (100, 100, 80, 90), (90,) * 4, (90,) * 4)
    out = play(*bars, targets=(5.0, NAN, 1.0), account=account)
    assert out.quantity[2:] == [0, 0, 0]
    venue = venue_of(liquidation={"mode": "partial", "step": 0.5})
    out = play(*bars, targets=(5.0, NAN), account=account, venue=venue)
    assert [float(q) for q in out.quantity] == [0, 50, 25, 0, 0]


def test_short_that_went_under_never_comes_back():
    """1x short, price x 3, back to 1: final equity 0, ruined."""
    out = play(FLAT, FLAT, (300, 300, 100, 100), (100,) * 4, targets=(1.0,), signals=[-1.0] * 4)
    assert out.equity[2:] == [0, 0]
    assert near(out.bad_debt[2], 1000)
    assert out.ruined[3]
