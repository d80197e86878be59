"""The reference against hand arithmetic, and the engine against the reference.

The hand tests earn the reference its trust: each has its arithmetic in a comment. The random cases
(tests/cases.py) then hold the engine to it, column by column and ledger kind by ledger kind, to
1e-9 of the larger of equity and turnover. ``BACKTEST_REFERENCE_CASES=100000`` runs the nightly lot.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal, localcontext
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import backtest as bt
from tests.cases import DAY, HOUR, START, Case, make_case, make_exit_case, utc
from tests.reference import COSTS, KIND_OF_COLUMN, Brackets, Outcome, simulate

CASES = int(os.environ.get("BACKTEST_REFERENCE_CASES", "2000"))
BLOCKS = 8
TOLERANCE = 1e-9
LIVELY = 31  # a case with much in it that holds a position to the end
INF = math.inf
NAN = math.nan


# ---------------------------------------------------------------------------------------------
# Hand tests: a few bars of one hour, no cost unless said


def bracket(floor=0.0, cap=1e9, leverage=16.0, rate=0.05):
    return SimpleNamespace(
        floor=floor, cap=cap, max_leverage=leverage, maintenance_rate=rate, amount=None
    )


def venue_of(**changes: Any) -> SimpleNamespace:
    """A venue without costs, one bracket of 5 % maintenance; parts are given as dicts."""
    contract = {"kind": "linear", "size": 1.0, "lot": 0.0, "tick": 0.0, "min_notional": 0.0}
    fees = {"taker": 0.0, "maker": 0.0, "maker_share": 0.0}
    slippage = {"rate": 0.0, "impact": 0.0, "impact_window": "1d", "max_participation": None}
    liquidation = {"mode": "close", "fee": 0.0, "slippage": 0.0, "step": 0.2, "full_below": 0.0}
    rest = {
        "brackets": [bracket()],
        "interest_on": "balance",
        "borrow_rate": 0.0,
        "cash_rate": 0.0,
        "short_rate": 0.0,
        "day_count": 365,
        "funding_jitter": "60s",
        "isolated_funding": "margin",
        "maintenance_at": "mark",
        "includes_close_fee": False,
        "margin_multiplier": 1.0,
        "call_grace": None,
    }
    return SimpleNamespace(
        contract=SimpleNamespace(**contract | changes.pop("contract", {})),
        fees=SimpleNamespace(**fees | changes.pop("fees", {})),
        slippage=SimpleNamespace(**slippage | changes.pop("slippage", {})),
        liquidation=SimpleNamespace(**liquidation | changes.pop("liquidation", {})),
        **rest | changes,
    )


def account_of(**changes: Any) -> SimpleNamespace:
    """A cross account of 1,000 without any rule of its own."""
    plain = {
        "capital": 1000.0,
        "margin": "cross",
        "venue_leverage": None,
        "min_leverage": 0.0,
        "max_leverage": INF,
        "band": 0.0,
        "stop_loss": None,
        "ruin_at": None,
        "margin_call": None,
        "reserve": 0.0,
        "top_up_to": None,
        "after_liquidation": "continue",
        "flows": None,
    }
    return SimpleNamespace(**plain | changes)


def market_of(
    *bars: tuple[float, float, float, float],
    mark: tuple[tuple[float, float, float, float], ...] | None = None,
    funding: tuple[tuple[float, float, float], ...] = (),
    volume: float = 1e9,
    interval: int = HOUR,
) -> SimpleNamespace:
    """Bars of (open, high, low, close); funding of (hours since the start, rate, own price)."""
    last, marked = np.array(bars, dtype=float).T, np.array(mark or bars, dtype=float).T
    names = ("open", "high", "low", "close")
    stamps = [round(START + hours * HOUR) for hours, _, _ in funding]
    return SimpleNamespace(
        time=START + interval * np.arange(len(bars)),
        interval=interval,
        **dict(zip(names, last, strict=True)),
        **{f"mark_{name}": values for name, values in zip(names, marked, strict=True)},
        volume=np.full(len(bars), volume),
        funding_time=np.array(stamps, dtype=np.int64),
        funding_rate=np.array([rate for _, rate, _ in funding]),
        funding_mark=np.array([price for _, _, price in funding]),
    )


FLAT = (100.0, 100.0, 100.0, 100.0)


def play(
    *bars: tuple[float, float, float, float],
    targets: tuple[float, ...],
    signals: tuple[float, ...] | None = None,
    venue: SimpleNamespace | None = None,
    account: SimpleNamespace | None = None,
    **market: Any,
) -> Outcome:
    """Run bars; the last target is repeated."""
    repeat = [*targets, *[targets[-1]] * (len(bars) - len(targets))]
    return simulate(
        market_of(*bars, **market),
        repeat,
        signals or [1.0] * len(bars),
        venue or venue_of(),
        account or account_of(),
    )


def near(value: Decimal | None, expected: float | Fraction) -> bool:
    """Equal but for the last bits of the floats that went in."""
    assert value is not None
    return float(value) == pytest.approx(float(expected), rel=1e-12, abs=1e-12)


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


def test_nothing_trades_before_the_first_close():
    """Bar 0 is only looked at."""
    out = play((100, 200, 50, 100), FLAT, targets=(2.0,))
    assert (out.quantity[0], out.price_pnl[0], float(out.quantity[1])) == (0, 0, 20)


# ---------------------------------------------------------------------------------------------
# The margin table by other means


@st.composite
def tables(draw: st.DrawFn) -> Brackets:
    """Draw a convex table of 1 to 4 brackets."""
    count = draw(st.integers(1, 4))
    widths = draw(st.lists(st.integers(1, 10_000), min_size=count, max_size=count))
    rates = sorted(draw(st.sets(st.integers(1, 999), min_size=count, max_size=count)))
    edges = np.cumsum([0, *widths]).tolist()
    return Brackets(
        floors=tuple(map(Decimal, edges[:-1])),
        caps=tuple(map(Decimal, edges[1:])),
        rates=tuple(Decimal(rate) / 1000 for rate in rates),
        leverages=(Decimal(1),) * count,
    )


@given(tables(), st.integers(0, 40_000))
def test_requirement_is_the_maximum_of_the_lines(table, notional):
    """§3: max_k (r_k N - c_k), with the recursion of the amounts."""
    amounts = [Decimal(0)]
    for k in range(1, len(table.rates)):
        amounts.append(amounts[-1] + table.floors[k] * (table.rates[k] - table.rates[k - 1]))
    lines = [rate * notional - c for rate, c in zip(table.rates, amounts, strict=True)]
    assert table.requirement(Decimal(notional)) == max(lines)


@given(tables(), st.integers(-30_000, 30_000), st.sampled_from([1, -1]))
def test_boundary_is_where_bisection_finds_it(table, cash, side):
    """cash + side n - MM(n) changes sign there and nowhere else."""

    def surplus(notional: Decimal) -> Decimal:
        return cash + side * notional - table.requirement(notional)

    with localcontext(prec=40):
        low, high = Decimal(0), Decimal(10) ** 9
        if (surplus(low) > 0) == (surplus(high) > 0):
            root = table.boundary(Decimal(cash), side)
            assert root is None or root == 0
            return
        for _ in range(120):
            middle = (low + high) / 2
            same = (surplus(middle) > 0) == (surplus(low) > 0)
            low, high = (middle, high) if same else (low, middle)
        root = table.boundary(Decimal(cash), side)
        assert root is not None
        assert abs(root - low) <= Decimal("1e-20") * max(root, 1)


# ---------------------------------------------------------------------------------------------
# The random cases: do they reach everything?

LEAST = {  # of 600 cases, in how many it must happen
    "event": {
        "fill": 500, "fee": 300, "slippage": 300, "impact": 80, "funding": 300, "interest": 300,
        "stop": 60, "liquidation": 100, "liquidation_loss": 100, "margin_call": 60, "top_up": 40,
        "bad_debt": 40, "flow": 100, "withdrawal_refused": 40, "ruin": 60, "call_met": 40,
        "call_partly_met": 15, "call_failed": 40, "margin_added": 30,
    },
    "path": {
        "liquidated in a gap": 20, "liquidated after funding": 15, "liquidated in the bar": 80,
        "stopped in a gap": 20, "stopped in the bar": 50, "stop and liquidation in one bar": 15,
        "partial step": 20, "flipped": 100, "shrunk by initial margin": 150,
        "shrunk by the wallet": 30, "cut by volume": 20, "left alone: NaN": 50,
        "left alone: band": 50, "left alone: small": 30, "wallet empty: M pays": 20,
        "ruined": 30, "halted": 10, "ruined: gone": 15, "ruined: under the line": 30,
        "ruined: poor": 5, "ruined with a position": 15, "margin added": 20,
        "wallet emptied for margin": 15, "reduced by force": 15, "call partly met": 15,
        "left alone: no money for the order": 1,
    },
    "liquidated": {
        f"{margin} {kind} {mode}": 4
        for margin in ("cross", "isolated")
        for kind in ("linear", "inverse")
        for mode in ("close", "takeover", "partial", "partial by bracket")
    },
}  # fmt: skip


def seen_in(case: Case, out: Outcome) -> set[tuple[str, str]]:
    """Return what happened in a case, as the groups and names of ``LEAST``."""
    seen = {("event", event.kind) for event in out.events}
    seen |= {("path", path) for path in out.paths}
    seen |= {("path", "ruined")} if any(out.ruined) else set()
    seen |= {("path", "halted")} if any(out.halted) else set()
    if out.count("liquidation"):
        by = " by bracket" if case.liquidation["step"] == "bracket" else ""
        mode = case.liquidation["mode"]
        mode += by if mode == "partial" else ""
        seen.add(("liquidated", f"{case.account['margin']} {case.contract['kind']} {mode}"))
    return seen


@pytest.mark.slow
def test_random_cases_reach_every_rule():
    """Each kind of event, each rare path and each way of liquidation, often enough."""
    counts: Counter[tuple[str, str]] = Counter()
    for seed in range(600):
        case = make_case(seed)
        out = simulate(*case.for_reference())
        counts.update(seen_in(case, out))
        assert_ledger_agrees(out)
    missing = {
        f"{group}: {name}": counts[group, name]
        for group, least in LEAST.items()
        for name, number in least.items()
        if counts[group, name] < number
    }
    assert not missing


def assert_ledger_agrees(out: Outcome) -> None:
    """§6: each column is the sum of its kind of row in the ledger."""
    kinds = {name: (KIND_OF_COLUMN.get(name, name),) for name in (*COSTS, "bad_debt", "top_up")}
    for column, names in (kinds | {"flows": ("flow", "top_up")}).items():
        with localcontext(prec=40):
            off = sum(getattr(out, column)) - sum(out.total(kind) for kind in names)
            size = sum(abs(event.amount) for event in out.events if event.kind in names)
        assert abs(off) <= Decimal("1e-30") * size


# ---------------------------------------------------------------------------------------------
# The engine against the reference

MONEY = (
    "equity", "cash", "margin", "price_pnl", "fees", "slippage", "impact", "funding", "interest",
    "liquidation_loss", "flows", "bad_debt",
    "initial_margin", "available", "realized_pnl", "unrealized_pnl",
)  # fmt: skip
LEDGER = (
    "fill", "fee", "slippage", "impact", "funding", "interest", "stop", "liquidation",
    "liquidation_loss", "top_up", "bad_debt", "flow", "withdrawal_refused", "ruin", "margin_added",
    "trailing_stop", "equity_stop", "take_profit",
)  # fmt: skip
CALLS = ("margin_call", "call_met", "call_partly_met", "call_failed")


class Scripted(bt.Policy):
    """Replay targets that ride along as a column."""

    def observe(self, market):
        return {"target": market.columns["target"]}

    def leverage(self, bar, account):
        return bar.target


@pytest.mark.slow
@pytest.mark.parametrize(
    "block",
    range(BLOCKS),
)
def test_engine_equals_the_reference(block):
    """Every money column of every bar, and every ledger total, to 1e-9 of equity or turnover."""

    @settings(
        max_examples=-(-CASES // BLOCKS),
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],  # a seed does not shrink
        suppress_health_check=list(HealthCheck),
    )
    @given(draw=st.integers(0, 10**9 - 1))
    def agrees(draw: int) -> None:
        compare(seed=block * 10**9 + draw)

    agrees()


@pytest.mark.slow
def test_engine_equals_the_reference_with_fill_modes_and_stops():
    """The same, with fills at closes, take-profits, trailing and equity stops, and multiples."""
    for seed in range(10**6, 10**6 + 125):
        compare(seed, make_exit_case)


def compare(seed: int, make: Callable[[int], Case] = make_case) -> None:
    """Run the case of a seed through both."""
    compare_case(make(seed), f"{make.__name__}({seed})")


def compare_case(case: Case, name: str) -> None:
    """Run one case through both and collect every difference, first bar first."""
    expected = simulate(*case.for_reference())
    result = bt.run(policy=Scripted(), compile=False, **case.for_engine(bt))
    scale = scales(expected)
    last = horizon(case, expected, result.bars["equity"].to_numpy(), scale)
    wrong = differences(case, expected, result.bars, scale, last)
    if last == len(scale):
        wrong += ledger_differences(expected, result.events, scale)
        wrong += call_differences(expected, result.metrics)
    assert not wrong, f"{name}:\n" + "\n".join(wrong[:12])


@pytest.mark.parametrize("column", [*MONEY, "position", "margin_ratio", "liquidation_price"])
def test_comparison_sees_an_error_in_one_bar(column):
    """The table of the reference passes; an error of 1e-7 of the capital in one bar does not."""
    case = make_case(LIVELY)
    out = simulate(*case.for_reference())
    scale = scales(out)
    names = {"position": "quantity"}
    columns = (*MONEY, "position", "margin_ratio", "liquidation_price")
    bars = pd.DataFrame({name: floats(getattr(out, names.get(name, name))) for name in columns})
    assert differences(case, out, bars, scale, len(scale)) == []
    held = int(np.flatnonzero(bars["position"] * bars["liquidation_price"].notna())[-1])
    money = 1e-7 * float(scale[held])
    weight = {
        "position": abs(unit(case, marks(case)[held])),
        "margin_ratio": float(out.backing[held]),
        "liquidation_price": money / bars.loc[held, "liquidation_price"] / 1e-3,
    }
    bars.loc[held, column] += money / weight.get(column, 1.0)
    found = differences(case, out, bars, scale, len(scale))
    assert len(found) == 1
    assert found[0].startswith(f"bar {held} {column}:")


def scales(out: Outcome) -> np.ndarray:
    """The larger of equity and turnover, so far: what rounding is measured by."""
    largest = np.maximum(floats(out.equity), floats(out.traded))
    return np.maximum(np.maximum.accumulate(largest), float(out.capital))


def horizon(case: Case, out: Outcome, equity: np.ndarray, scale: np.ndarray) -> int:
    """How many bars to compare: up to an isolated equity that is rounding dust in one of the two.

    A wallet that an order spent to the last bit holds 0 or some 1e-17 of what it held. Whether the
    account is ruined when its margin is lost too is then decided by rounding.
    """
    if case.account["margin"] == "cross":
        return len(scale)
    dust = np.zeros(len(scale), dtype=bool)
    for values in (floats(out.equity), equity):
        dust |= (values != 0) & (np.abs(values) <= 1e-12 * scale)
    return int(np.argmax(dust)) + 1 if dust.any() else len(scale)


def differences(
    case: Case, out: Outcome, bars: pd.DataFrame, scale: np.ndarray, last: int
) -> list[str]:
    """Return the differences of the bar table, in bar order."""
    found: list[tuple[int, str]] = []
    value = np.abs([float(unit(case, price)) for price in marks(case)])
    columns = {name: (floats(getattr(out, name)), np.ones_like(scale)) for name in MONEY}
    columns["position"] = (floats(out.quantity), value)
    for name, (expected, weight) in columns.items():
        got = bars[name].to_numpy(dtype=float)
        off = ~(np.abs(got - expected) * weight <= TOLERANCE * scale)
        found += [
            (int(t), f"bar {t} {name}: {got[t]!r}, reference {expected[t]!r}")
            for t in np.flatnonzero(off[:last])[:3]
        ]
    found += margin_differences(case, out, bars, scale, last)
    return [text for _, text in sorted(found)]


def margin_differences(
    case: Case, out: Outcome, bars: pd.DataFrame, scale: np.ndarray, last: int
) -> list[tuple[int, str]]:
    """Compare the ratio and the price of liquidation by what they mean in money."""
    found = []
    ratios = bars["margin_ratio"].to_numpy(dtype=float)
    prices = bars["liquidation_price"].to_numpy(dtype=float)
    for t in range(last):
        allowed = TOLERANCE * float(scale[t])
        ratio = float(out.margin_ratio[t])
        money = abs(ratios[t] - ratio) * float(out.backing[t])  # E * MM/E
        if not money <= allowed * max(1.0, ratio):
            found.append((t, f"bar {t} margin_ratio: {ratios[t]!r}, reference {ratio!r}"))
        if not is_liquidation_price(case, out, t, prices[t], allowed):
            expected = out.liquidation_price[t]
            found.append((t, f"bar {t} liquidation_price: {prices[t]!r}, reference {expected}"))
    return found


def is_liquidation_price(case: Case, out: Outcome, t: int, price: float, allowed: float) -> bool:
    """Compare the notional there, or put the price back into "backing = requirement".

    A position of nothing may have any price; a price at a notional of nothing may be none.
    """
    held = abs(float(out.quantity[t]))
    if held * abs(unit(case, marks(case)[t])) <= allowed:
        return True
    expected = out.liquidation_price[t]
    at = [float(p) for p in (expected, price) if p is not None and not math.isnan(p)]
    notionals = [held * abs(unit(case, p)) for p in at]
    if len(at) < 2:
        return max(notionals, default=0.0) <= allowed
    if abs(notionals[0] - notionals[1]) <= allowed:
        return True
    moved = float(out.quantity[t]) * (unit(case, price) - unit(case, marks(case)[t]))
    required = out.tables[t].requirement(Decimal(notionals[1]))
    if case.venue["maintenance_at"] == "entry":
        required = out.requirement[t]
    return abs(float(out.backing[t]) + moved - float(required)) <= allowed


def ledger_differences(out: Outcome, events: pd.DataFrame, scale: np.ndarray) -> list[str]:
    """Return the kinds whose totals differ; calls carry no money and are counted."""
    turnover = max(float(sum(out.traded)), float(scale[-1]))
    totals = events.groupby("kind")["amount"].sum()
    wrong = [
        f"ledger {kind}: {totals.get(kind, 0.0)!r}, reference {float(out.total(kind))!r}"
        for kind in LEDGER
        if not abs(totals.get(kind, 0.0) - float(out.total(kind))) <= TOLERANCE * turnover
    ]
    for kind in CALLS:
        count = int((events["kind"] == kind).sum())
        if count != out.count(kind):
            wrong.append(f"ledger {kind}: {count}, reference {out.count(kind)}")
    return wrong


def call_differences(out: Outcome, metrics: Mapping[str, float]) -> list[str]:
    """Return the measures of margin calls that differ, and calls that did not end once."""
    waits = floats(out.waits)
    expected = {
        "margin_calls": out.count("margin_call"),
        "calls_met": out.count("call_met"),
        "calls_failed": out.count("call_failed"),
        "liquidated_after_call": len(waits),
        "time_to_liquidation_after_call": waits.mean() if len(waits) else math.nan,
    }
    wrong = [
        f"{name}: {metrics[name]!r}, reference {value!r}"
        for name, value in expected.items()
        if not np.isclose(metrics[name], value, rtol=1e-12, atol=0.0, equal_nan=True)
    ]
    ended = metrics["calls_met"] + metrics["calls_failed"]
    if metrics["margin_calls"] - ended not in (0.0, 1.0):
        wrong.append(f"of {metrics['margin_calls']} calls {ended} ended")
    return wrong


def floats(values: list[Any]) -> np.ndarray:
    """Return a column of the reference as an array."""
    return np.array([math.nan if value is None else float(value) for value in values])


def marks(case: Case) -> np.ndarray:
    """Return the mark closes."""
    frame = case.bars if case.mark is None else case.mark
    return frame["close"].to_numpy()


def unit(case: Case, price: float) -> float:
    """Return the value of one contract (§1)."""
    size = case.contract["size"]
    return size * price if case.contract["kind"] == "linear" else -size / price
