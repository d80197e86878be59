"""The accounting rules, each on a few bars, with the arithmetic in the comment.

Unless said otherwise: 1,000 of capital, a price of 100, one bracket of 16x and 5 % maintenance, no
costs. The decision of bar 0 fills at the open of bar 1. NaN leaves the position alone.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import backtest as bt
from backtest.account.orders import floor
from backtest.base.compiled_twins import make_array_twins
from backtest.engine.compile.loop_compiler import compile_core
from backtest.venue import contract_value, liquidation_price, requirement
from tests.scenes import (
    INF,
    NAN,
    account_of,
    at,
    bracket,
    equities,
    happened,
    isolated,
    play,
    series,
    total,
    venue_of,
)

ONCE = (1.0, NAN)
TEN = (10.0, NAN)
FEE = {"taker": 0.001, "maker": 0.001}
COIN = bt.Contract(kind="inverse", size=100.0)
LP = 90 / 0.95
"""Where 10x long from 100 is liquidated: -9000 + 100 P = 0.05 x 100 P, P = 94.7368."""


def is_(value):
    """Equal but for the last bits."""
    return pytest.approx(value, rel=1e-12, abs=1e-9)


def slip(rate=0.01, **more):
    return venue_of(slippage={"rate": rate, **more})


def coin_venue(**changes):
    """One contract is one dollar, settled in the coin."""
    return venue_of(contract={"kind": "inverse"}, **changes)


def dies(**liquidation):
    """A venue with other rules of liquidation."""
    return venue_of(liquidation=liquidation)


# ------------------------------------------------------------------------ from decision to fill


def test_bar_0_never_trades_and_its_decision_fills_at_the_next_open():
    result = play(100, (110, 120, 110, 120), targets=ONCE)
    # 1,000 / 110 contracts bought at the open 110; closed at 120
    assert result.bars["position"].tolist() == [0.0, is_(1000 / 110)]
    assert equities(result) == [1000.0, is_(1000 + 10 * 1000 / 110)]


def test_a_taker_pays_the_fee_rate_on_the_notional_traded():
    result = play(100, 100, 100, targets=ONCE, venue=venue_of(fees=FEE))
    # 10 contracts x 100 x 0.001 = 1
    assert equities(result) == [1000.0, is_(999.0), is_(999.0)]
    assert total(result, "fee") == is_(1.0)


def test_the_maker_share_pays_the_maker_rate_which_may_be_a_rebate():
    venue = venue_of(fees={"taker": 0.001, "maker": -0.0002, "maker_share": 0.25})
    # 0.75 x 0.001 - 0.25 x 0.0002 = 0.0007 of 1,000
    assert equities(play(100, 100, targets=ONCE, venue=venue))[-1] == is_(999.3)


def test_a_stop_pays_the_taker_rate_whatever_the_maker_share():
    venue = venue_of(fees={"taker": 0.001, "maker": 0.0, "maker_share": 1.0})
    account = account_of(stop_loss=0.05)
    result = play(100, (100, 100, 90, 92), targets=ONCE, venue=venue, account=account)
    # bought free; sold 10 at 95: fee 0.95, loss 50
    assert equities(result)[-1] == is_(1000 - 50 - 0.95)


@pytest.mark.parametrize(("side", "price"), [(1.0, 101.0), (-1.0, 99.0)])
def test_slippage_worsens_the_price_against_the_trader(side, price):
    result = play(100, 100, targets=ONCE, signal=side, venue=slip())
    assert happened(result, "fill")["price"].item() == is_(price)
    assert result.bars["entry"].iloc[-1] == is_(price)
    assert total(result, "slippage") == is_(10.0)  # 10 contracts x 1
    assert equities(result)[-1] == is_(990.0)


@pytest.mark.parametrize(("side", "price"), [(1.0, 101.0), (-1.0, 99.0)])
def test_an_inverse_contract_worsens_in_price_and_costs_coins(side, price):
    venue = coin_venue(slippage={"rate": 0.01}, fees=FEE)
    result = play(
        100, 100, targets=ONCE, signal=side, venue=venue, account=account_of(capital=10.0)
    )
    # 10 coins at 100 dollars are 1,000 contracts; each loses |1/100 - 1/price| coins
    worse = 1000 * abs(1 / 100 - 1 / price)
    assert happened(result, "fill")["price"].item() == is_(price)
    assert total(result, "slippage") == is_(worse)
    assert total(result, "fee") == is_(0.001 * 1000 / price)
    assert equities(result)[-1] == is_(10 - worse - 1 / price)


def test_an_inverse_long_gains_coins_by_the_reciprocal_of_the_price():
    result = play(
        100, (100, 125, 100, 125), targets=ONCE, venue=coin_venue(), account=account_of(capital=10)
    )
    assert equities(result)[-1] == is_(10 + 1000 * (1 / 100 - 1 / 125))  # 12 coins


def test_the_entry_of_a_linear_contract_is_the_arithmetic_mean():
    # 10 at 100; at 120 the equity is 1,200, and 2x is 20 contracts: 10 more at 120
    result = play(100, 100, 120, targets=(1.0, 2.0))
    assert result.bars["position"].iloc[-1] == is_(20.0)
    assert result.bars["entry"].iloc[-1] == is_(110.0)


def test_the_entry_of_an_inverse_contract_is_the_harmonic_mean():
    # 1,000 at 100; at 125 the equity is 12 coins, and 4/3 of it is 16 coins or 2,000 contracts
    result = play(
        100, 100, 125, targets=(1.0, 4 / 3), venue=coin_venue(), account=account_of(capital=10.0)
    )
    assert result.bars["position"].iloc[-1] == is_(2000.0)
    assert result.bars["entry"].iloc[-1] == is_(2000 / (1000 / 100 + 1000 / 125))


def test_a_reduction_keeps_the_entry_and_a_flip_starts_it_anew():
    result = play(100, 100, 120, 90, targets=(2.0, 0.5, 1.0), signal=[1, 1, -1, -1])
    entry = result.bars["entry"].tolist()
    assert entry[1:] == [is_(100.0), is_(100.0), is_(90.0)]


def impact_scene(**slippage):
    """Closes that move by +1, -1, +1 % in logs, each bar worth 100; a fill of 24 at 100."""
    up = 100 * math.exp(0.01)
    closes = [100.0, up, 100.0, up]
    bars = [(c, c, c, c) for c in closes]
    return play(
        *bars,
        100,
        targets=(NAN, NAN, NAN, 0.024, NAN),
        venue=slip(impact=2.0, impact_window="3h", **slippage),
        volume=[100 / c for c in closes] + [1.0],
    )


def test_impact_grows_with_the_square_root_of_the_share_of_the_daily_volume():
    result = impact_scene(rate=0.0)
    # log returns +-0.01: sample std 0.02 / sqrt(3), per day x sqrt(24) = 0.02 sqrt(8);
    # ADV = 24 x 100 = 2,400; 2 x 0.02 sqrt(8) x sqrt(24 / 2,400) = 0.004 sqrt(8)
    impact = 0.004 * math.sqrt(8)
    assert happened(result, "fill")["price"].item() == is_(100 * (1 + impact))
    assert total(result, "impact") == is_(24 * impact)
    assert total(result, "slippage") == 0.0


def test_slippage_and_impact_add_up_and_share_the_cost():
    result = impact_scene(rate=0.001)
    impact = 0.004 * math.sqrt(8)
    assert happened(result, "fill")["price"].item() == is_(100 * (1.001 + impact))
    assert total(result, "impact") == is_(24 * impact)
    assert total(result, "slippage") == is_(0.024)
    assert equities(result)[-1] == is_(1000 - 24 * (0.001 + impact))


def test_there_is_no_impact_before_its_window_is_full():
    venue = slip(0.0, impact=2.0, impact_window="3h")
    result = play(100, (101, 101, 101, 101), 100, targets=ONCE, venue=venue, volume=1.0)
    assert total(result, "impact") == 0.0


def test_participation_fills_a_share_of_the_last_volume_and_leaves_the_rest():
    venue = slip(0.0, max_participation=0.1)
    result = play(100, 100, 100, 100, targets=1.0, venue=venue, volume=[30, 50, 70, 90])
    # 10 wanted: 10 % of 30 at the first open, of 50 at the next, then the 2 that are left
    assert result.bars["position"].tolist() == [0.0, is_(3.0), is_(8.0), is_(10.0)]


def test_participation_trades_whole_lots():
    venue = venue_of(contract={"lot": 2.0}, slippage={"rate": 0.0, "max_participation": 0.1})
    result = play(100, 100, targets=1.0, venue=venue, volume=50.0)
    assert result.bars["position"].iloc[-1] == is_(4.0)  # 5 allowed


def test_no_trade_happens_within_the_band_and_a_trade_beyond_it_goes_all_the_way():
    result = play(*[100] * 5, targets=(1.0, 1.4, 0.5, 1.6, NAN), account=account_of(band=0.5))
    # 1 -> 1.4 and 1 -> 0.5 are within half a turn, its end included; 1 -> 1.6 is not
    assert result.bars["position"].tolist() == [0.0, *map(is_, (10.0, 10.0, 10.0, 16.0))]


def test_closing_is_exempt_from_the_band():
    result = play(*[100] * 4, targets=(1.0, 0.4, 0.0), account=account_of(band=0.5))
    assert result.bars["position"].tolist() == [0.0, is_(10.0), is_(4.0), 0.0]


def test_the_band_compares_signed_notionals():
    result = play(*[100] * 3, targets=(1.0, 0.2), signal=[1, -1, -1], account=account_of(band=0.9))
    # from +1 to -0.2 are 1.2 turns
    assert result.bars["position"].iloc[-1] == is_(-2.0)


def test_an_order_shrinks_to_what_initial_margin_allows():
    assert play(100, 100, targets=30.0).bars["leverage"].iloc[-1] == is_(16.0)


@pytest.mark.parametrize(
    ("side", "kind", "kappa"),
    [
        (1.0, "linear", 0.002 + 0.001 * 1.002),
        (-1.0, "linear", 0.002 + 0.001 * 0.998),
        (1.0, "inverse", 0.003 / 1.002),
        (-1.0, "inverse", 0.003 / 0.998),
    ],
)
def test_the_cap_holds_after_the_cost_of_the_trade_itself(side, kind, kappa):
    venue = venue_of(contract={"kind": kind}, fees=FEE, slippage={"rate": 0.002})
    result = play(100, 100, targets=INF, signal=side, venue=venue)
    # N = 16 (1000 - kappa N): N = 16,000 / (1 + 16 kappa)
    notional = 16_000 / (1 + 16 * kappa)
    unit = 100 if kind == "linear" else 1 / 100
    assert abs(result.bars["position"].iloc[-1]) == is_(notional / unit)
    assert notional == is_(16 * equities(result)[-1])


def test_the_cap_of_a_flip_pays_for_what_it_closes_too():
    venue = venue_of(fees=FEE, slippage={"rate": 0.002}, brackets=[bracket(leverage=10.0)])
    result = play(100, 100, 100, targets=(5.0, INF), signal=[-1, 1, 1], venue=venue)
    # short 5,000 costs 0.002998 x 5,000 = 14.99; then with kappa 0.003002 from -5,000:
    # N = 10 (985.01 - kappa (N + 5,000)) = 10 x 970 / 1.03002
    assert result.bars["position"].iloc[-1] == is_(9700 / 1.03002 / 100)


def test_the_cap_of_an_addition_pays_only_for_what_it_adds():
    venue = venue_of(fees=FEE, slippage={"rate": 0.002}, brackets=[bracket(leverage=10.0)])
    two = play(100, 100, 100, targets=(5.0, INF), venue=venue)
    one = play(100, 100, 100, targets=(INF, NAN), venue=venue)
    # E = 1000 - 5,000 kappa; N = 10 (E + 5,000 kappa) / (1 + 10 kappa), as in one go
    assert two.bars["position"].iloc[-1] == is_(10_000 / 1.03002 / 100)
    assert equities(two)[-1] == is_(equities(one)[-1])


def test_a_position_over_the_limit_is_left_alone_and_not_reduced():
    # 160 x 96 = 15,360 on an equity of 360, 42.7x; with 1 % maintenance it lives
    venue = venue_of(brackets=[bracket(rate=0.01)])
    result = play(100, 100, 96, 96, targets=(16.0, NAN, 1000.0), venue=venue)
    assert result.bars["leverage"].iloc[2:].tolist() == [is_(15_360 / 360)] * 2
    assert len(happened(result, "fill")) == 1


def test_a_trade_that_only_reduces_passes_over_the_limit():
    venue = venue_of(brackets=[bracket(rate=0.01)])
    result = play(100, 100, 96, 96, targets=(16.0, NAN, 20.0), venue=venue)
    assert result.bars["leverage"].iloc[-1] == is_(20.0)  # from 42.7, still over 16


TABLE = [bracket(0.0, 5000.0, 20.0, 0.04), bracket(5000.0, 50_000.0, 5.0, 0.1)]


@pytest.mark.parametrize(
    ("capital", "setting", "notional"),
    [
        (1000.0, None, 5000.0),  # max(min(5,000, 20 x 1,000), min(50,000, 5 x 1,000))
        (2000.0, None, 10_000.0),  # the second bracket: 5 x 2,000
        (200.0, None, 4000.0),  # the first: 20 x 200
        (20_000.0, None, 50_000.0),  # the last cap
        (2000.0, 20.0, 5000.0),  # the largest cap that allows 20x
        (2000.0, 10.0, 5000.0),  # likewise
        (400.0, 10.0, 4000.0),  # 10 x 400
        (2000.0, 4.0, 8000.0),  # 4 x 2,000; the second bracket allows it
    ],
)
def test_the_leverage_setting_and_the_caps_limit_the_notional(capital, setting, notional):
    account = account_of(capital=capital, venue_leverage=setting)
    result = play(100, 100, targets=INF, venue=venue_of(brackets=TABLE), account=account)
    assert result.bars["position"].iloc[-1] * 100 == is_(notional)


@pytest.mark.parametrize(("side", "position"), [(1.0, 9.0), (-1.0, -9.0)])
def test_the_position_is_whole_lots_truncated_toward_zero(side, position):
    venue = venue_of(contract={"lot": 3.0})
    assert play(100, 100, signal=side, venue=venue).bars["position"].iloc[-1] == position


@pytest.mark.parametrize(("short_of", "lots"), [(0.5e-6, 3), (2e-6, 2)])
def test_a_lot_is_truncated_with_a_tolerance_of_a_millionth(short_of, lots):
    # 3 lots of 0.1 are 30 of notional, 0.03x; a position short of that by a part of a lot
    venue = venue_of(contract={"lot": 0.1})
    result = play(100, 100, targets=0.01 * (3 - short_of), venue=venue)
    assert result.bars["position"].iloc[-1] == pytest.approx(0.1 * lots, rel=1e-12)


def test_more_lots_than_integers_are_truncated_alike_in_plain_and_compiled_code():
    compiled = compile_core().names["floor"]
    for size in (2.5, -0.5, 9.3e18, 1e23, 1e300, INF, NAN):
        assert floor(size) == is_(compiled(size)) or math.isnan(size)
    assert floor(1e23) == 1e23
    assert floor(INF) == INF


@pytest.mark.parametrize("changes", [{}, {"maintenance_at": "entry"}, {"contract": COIN}])
def test_margin_on_arrays_has_the_bits_of_one_account(changes):
    rules = requirement.read_rules(bt.Venue.preset("binance-usdm", "BTCUSDT").override(**changes))
    arrays = make_array_twins(contract_value, requirement, liquidation_price)
    rng = np.random.default_rng(0)
    n = 500
    quantity, x = rng.normal(size=n) * 10.0 ** rng.integers(0, 5, n), rng.uniform(1.0, 3.0, n)
    entry = contract_value.compute_value(rules.size, rules.is_inverse, rng.uniform(1e3, 1e5, n))
    base = -quantity * entry * rng.uniform(-0.5, 1.5, n)
    given = (quantity, entry, base, x)
    notional = np.abs(quantity * entry)
    found = [arrays.compute_maintenance(rules, notional, x)]
    found += [arrays.compute_liquidation_value(rules, *given)]
    rows = [[float(each) for each in row] for row in zip(notional, *given, strict=True)]
    one = [requirement.compute_maintenance(rules, row[0], row[-1]) for row in rows]
    other = [liquidation_price.compute_liquidation_value(rules, *row[1:]) for row in rows]
    assert np.array_equal(found, [one, other], equal_nan=True)
    assert 0 < np.isnan(found[1]).sum() < n


def test_a_notional_at_a_floor_is_in_the_bracket_below_one_by_one_and_on_arrays():
    rules = requirement.read_rules(bt.Venue.preset("binance-usdm", "BTCUSDT"))
    arrays = make_array_twins(contract_value, requirement, liquidation_price)
    at = np.array([0.0, *rules.floors, *np.nextafter(rules.floors, INF), 1e300, INF, NAN])
    one = [requirement.compute_maintenance(rules, notional, 1.0) for notional in at.tolist()]
    assert np.array_equal(arrays.compute_maintenance(rules, at, 1.0), one, equal_nan=True)
    assert requirement.count_brackets(rules, rules.floors[3]) == 3
    assert requirement.count_brackets(rules, math.nextafter(rules.floors[3], INF)) == 4


def test_a_trade_under_the_minimum_notional_is_skipped_unless_it_closes():
    venue = venue_of(contract={"min_notional": 500.0})
    result = play(100, 100, 100, 100, 40, 40, targets=(0.4, 0.6, 0.5, NAN, 0.0), venue=venue)
    # 400 is skipped; 600 is bought; a reduction of 100 is skipped; 6 x 40 = 240 is closed
    assert result.bars["position"].tolist() == [0.0, 0.0, is_(6.0), is_(6.0), is_(6.0), 0.0]


def test_order_prices_are_not_rounded_to_the_tick():
    venue = venue_of(contract={"tick": 10.0}, slippage={"rate": 0.01})
    assert happened(play(100, 100, venue=venue), "fill")["price"].item() == is_(101.0)


def test_nan_leaves_the_position_even_when_the_signal_turned():
    result = play(*[100] * 3, targets=ONCE, signal=[1, -1, -1])
    assert result.bars["position"].tolist() == [0.0, 10.0, 10.0]


def test_signal_0_closes_even_where_the_target_is_nan():
    result = play(*[100] * 3, targets=ONCE, signal=[1, 0, 0])
    assert result.bars["position"].tolist() == [0.0, 10.0, 0.0]


def test_the_signal_scales_and_directs_the_target():
    result = play(*[100] * 3, targets=2.0, signal=[0.25, -0.5, 0.0])
    assert result.bars["position"].tolist() == [0.0, is_(5.0), is_(-10.0)]


def test_the_account_clips_what_the_policy_asks_for():
    account = account_of(min_leverage=0.5, max_leverage=3.0)
    result = play(*[100] * 4, targets=(0.1, 9.0, INF, NAN), account=account)
    assert result.bars["leverage"].tolist() == [0.0, is_(0.5), is_(3.0), is_(3.0)]


def test_the_minimum_leverage_holds_against_a_target_of_0_but_not_a_signal_of_0():
    account = account_of(min_leverage=0.5)
    result = play(*[100] * 4, targets=(1.0, 0.0, 0.0), signal=[1, 1, 0, 0], account=account)
    assert result.bars["leverage"].tolist() == [0.0, is_(1.0), is_(0.5), 0.0]


def test_an_infinite_target_is_what_the_limits_allow_scaled_by_the_signal():
    result = play(*[100] * 3, targets=INF, signal=[1.0, -0.5, 1.0])
    assert result.bars["leverage"].tolist() == [0.0, is_(16.0), is_(-8.0)]


# ------------------------------------------------------------------------------ isolated margin


def test_opening_posts_margin_and_reducing_returns_its_share_with_the_profit():
    # 5x at a setting of 10: 50 contracts, 500 posted. At 110 the profit is 500, the equity 1,500;
    # 25 contracts are 2,750 / 1,500 turns: half of 500 + 500 returns to the wallet
    result = play(100, 100, 110, targets=(5.0, 2750 / 1500), account=isolated())
    assert result.bars["margin"].tolist() == [0.0, is_(500.0), is_(250.0)]
    assert result.bars["cash"].tolist() == [1000.0, is_(500.0), is_(1000.0)]
    assert equities(result)[-1] == is_(1500.0)


def test_adding_posts_margin_for_what_is_added():
    # at 110 the equity is 1,500; 10,000 of it is 90.909: 40.909 more at 110, a tenth of 4,500
    result = play(100, 100, 110, targets=(5.0, 10_000 / 1500), account=isolated())
    assert result.bars["margin"].iloc[-1] == is_(500 + 450)
    assert result.bars["cash"].iloc[-1] == is_(50.0)


def test_a_flip_closes_and_then_opens():
    result = play(100, 100, 110, targets=(5.0, 2.0), signal=[1, -1, -1], account=isolated())
    # 500 + 500 return: 1,500 in the wallet; short 3,000 posts 300
    assert result.bars["cash"].iloc[-1] == is_(1200.0)
    assert result.bars["margin"].iloc[-1] == is_(300.0)
    assert result.bars["entry"].iloc[-1] == is_(110.0)


def test_new_margin_and_fee_must_fit_into_the_wallet():
    venue = venue_of(fees={"taker": 0.01, "maker": 0.01})
    result = play(100, 100, targets=INF, venue=venue, account=isolated())
    # initial margin: N <= 10 (1000 - 0.01 N): 9,090.909, margin 909.09 and fee 90.909
    assert result.bars["position"].iloc[-1] == is_(10_000 / 1.1 / 100)
    assert result.bars["cash"].iloc[-1] == is_(0.0)


def test_a_losing_position_lets_add_only_what_the_wallet_still_holds():
    # 50 at 100, 500 posted; at 98 the equity is 900, but the wallet is 500: 5,000 more at most,
    # while initial margin would let 9,000 - 4,900 = 4,100 more: the smaller counts
    result = play(100, 100, 98, targets=(5.0, INF), account=isolated())
    assert result.bars["position"].iloc[-1] * 98 == is_(9000.0)
    # after a profit it is the wallet: at 110 the equity of 1,500 would allow 15,000, and
    # 5,500 + 10 x 500 = 10,500 is what the wallet pays for
    result = play(100, 100, 110, targets=(5.0, INF), account=isolated())
    assert result.bars["position"].iloc[-1] * 110 == is_(10_500.0)


def test_interest_leaves_the_wallet_first_and_then_the_margin():
    venue = venue_of(borrow_rate=0.73, interest_on="loan")
    # 10x at 10: all 1,000 posted. The loan is 10,000 - 1,000 = 9,000: 9,000 x 0.73 / 365 = 18 a day
    result = play(100, 100, 100, targets=TEN, venue=venue, account=isolated(), interval="1d")
    assert result.bars["cash"].iloc[-1] == 0.0
    assert result.bars["margin"].iloc[-1] == is_(982.0)


# -------------------------------------------------------------------------------------- funding


def funded(*events, targets=ONCE, **more):
    """Ten contracts from the open of bar 1 on, and these events."""
    return play(*[100] * 4, targets=targets, funding=events, **more)


@pytest.mark.parametrize(
    ("hours", "seconds", "paid"),
    [
        (1, 0, 0.0),  # at the open of the purchase: nothing was carried in
        (1, 45, 0.0),  # snapped to it
        (1, 60, 0.0),  # the end of the jitter
        (1, 61, 1.0),  # inside: the position now held pays
        (2, -61, 1.0),  # inside bar 1
        (2, -60, 1.0),  # at the next open: carried in
        (2, 0, 1.0),
        (2, 60, 1.0),  # closed at this open, but carried in
        (2, 61, 0.0),  # closed by then
    ],
)
def test_who_held_the_position_at_the_stamp_pays(hours, seconds, paid):
    result = funded((hours + seconds / 3600, 0.001), targets=(1.0, 0.0))
    assert total(result, "funding") == is_(paid)  # 10 x 100 x 0.001
    assert equities(result)[-1] == is_(1000 - paid)


def test_the_jitter_is_at_most_a_quarter_of_a_bar():
    for seconds, paid in ((15, 0.0), (16, 1.0)):
        result = funded((1 / 60 + seconds / 3600, 0.001), interval="1m")
        assert total(result, "funding") == is_(paid)


def test_the_jitter_is_the_venues():
    result = funded((1 + 90 / 3600, 0.001), venue=venue_of(funding_jitter="2m"))
    assert total(result, "funding") == 0.0


def test_funding_is_valued_at_its_own_price_else_at_the_mark_open():
    marks = [100, 100, (102, 110, 102, 110), 110]
    events = [(2.0, 0.001), (2.5, 0.001), (3.0, 0.001, 77.0)]
    result = play(*[100] * 4, targets=ONCE, mark=marks, funding=events)
    # 10 x 102 x 0.001 twice, then 10 x 77 x 0.001
    assert happened(result, "funding")["amount"].tolist() == [is_(1.02), is_(1.02), is_(0.77)]
    assert happened(result, "funding")["price"].tolist() == [is_(102), is_(102), is_(77)]


def test_a_short_receives_a_positive_rate():
    result = funded((2.0, 0.001), signal=-1.0)
    assert equities(result)[-1] == is_(1001.0)


def test_an_inverse_position_pays_funding_in_coins():
    result = play(
        *[100] * 3,
        targets=ONCE,
        funding=[(2.0, 0.001, 80.0)],
        venue=coin_venue(),
        account=account_of(capital=10.0),
    )
    assert equities(result)[-1] == is_(10 - 1000 / 80 * 0.001)


def test_isolated_funding_moves_the_margin_and_the_liquidation_price():
    result = funded((2.0, 0.01), targets=(5.0, NAN), account=isolated())
    # 50 x 100 x 0.01 = 50 of the 500 posted; (5,000 - 450) / (50 x 0.95)
    assert result.bars["margin"].iloc[-1] == is_(450.0)
    assert result.bars["cash"].iloc[-1] == is_(500.0)
    assert result.bars["liquidation_price"].iloc[-1] == is_(4550 / 47.5)


def test_isolated_funding_may_come_from_the_wallet_until_it_is_empty():
    venue = venue_of(isolated_funding="wallet")
    result = play(
        *[100] * 4,
        targets=(9.0, NAN),
        funding=[(2.0, 0.009), (3.0, 0.009)],
        venue=venue,
        account=isolated(),
    )
    # 900 posted, 100 left; 81 twice: 19 left, then 0 and 62 from the margin
    assert result.bars["cash"].tolist() == [1000.0, is_(100.0), is_(19.0), 0.0]
    assert result.bars["margin"].iloc[-1] == is_(838.0)


@pytest.mark.parametrize("hours", [2.0, 2.5])
def test_a_payment_that_breaks_an_isolated_margin_liquidates_at_once_at_the_mark_open(hours):
    result = play(
        *[100] * 3,
        (100, 120, 100, 120),
        targets=TEN,
        funding=[(hours, 0.06)],
        account=isolated(),
    )
    # 1,000 posted for 10,000; 600 paid leaves 400 <= 500: closed at 100, 400 back in the wallet
    event = happened(result, "liquidation")
    assert event["price"].item() == is_(100.0)
    assert event["time"].item() == at(2)
    assert equities(result)[-1] == is_(400.0)


def test_a_decision_is_dropped_where_funding_at_the_open_liquidated():
    result = play(*[100] * 4, targets=(10.0, 5.0, NAN), funding=[(2.0, 0.06)], account=isolated())
    assert result.bars["position"].tolist() == [0.0, is_(100.0), 0.0, 0.0]


# ------------------------------------------------------------------------------------- interest


def test_a_positive_balance_earns_the_cash_rate():
    venue = venue_of(interest_on="balance", cash_rate=0.0365)
    # 1,000 x 0.0365 / 365 a day; the position costs nothing while its entry is its price
    result = play(*[100] * 3, targets=ONCE, venue=venue, interval="1d")
    assert equities(result) == [1000.0, is_(1000.1), is_(1000.1 + 0.10001)]


def test_a_negative_balance_pays_the_borrow_rate():
    # 40 at 100; at 200 two payments of 8,000 x 0.1 leave 1,000 - 1,600 = -600 of balance, while
    # the equity is 3,400: 600 x 0.073 / 365 = 0.12 at the next open
    result = play(
        100,
        100,
        (100, 200, 100, 200),
        200,
        200,
        targets=(4.0, NAN),
        funding=[(72.0, 0.1), (72.5, 0.1)],
        venue=venue_of(interest_on="balance", borrow_rate=0.073),
        interval="1d",
    )
    assert happened(result, "interest")["amount"].tolist() == [is_(0.12)]
    assert equities(result)[-1] == is_(3400 - 0.12)


def test_a_loan_pays_on_the_cash_that_is_missing():
    venue = venue_of(interest_on="loan", borrow_rate=0.365)
    result = play(*[100] * 3, targets=(2.0, NAN), venue=venue, interval="1d")
    # 1,000 borrowed from bar 1 on: 1 a day
    assert equities(result) == [1000.0, 1000.0, is_(999.0)]


def test_a_short_on_loan_earns_on_its_proceeds_and_pays_for_the_borrowed_asset():
    venue = venue_of(interest_on="loan", cash_rate=0.0365, short_rate=0.73)
    marks = [100, 100, (110, 110, 100, 100)]
    result = play(*[100] * 3, targets=ONCE, signal=-1.0, mark=marks, venue=venue, interval="1d")
    # the first night the cash of 1,000 earns 0.1; sold 1,000.1 / 100 = 10.001 contracts, so the
    # cash of 2,000.2 earns 0.20002 and 10.001 x 110 x 0.73 / 365 = 2.20022 is paid
    assert equities(result)[-1] == is_(1000.1 + 0.20002 - 2.20022)


def test_the_day_count_is_the_venues():
    venue = venue_of(interest_on="loan", borrow_rate=0.36, day_count=360)
    result = play(*[100] * 3, targets=(2.0, NAN), venue=venue, interval="1d")
    assert equities(result)[-1] == is_(999.0)


def test_interest_uses_the_rate_of_the_previous_open():
    venue = venue_of(interest_on="loan", borrow_rate=series({0: 0.365, 48: 0.73}))
    result = play(*[100] * 4, targets=(2.0, NAN), venue=venue, interval="1d")
    # owed from bar 1 on: 1 for the day from bar 1; the new rate counts from bar 2 on, on 1,001
    assert happened(result, "interest")["amount"].tolist() == [is_(1.0), is_(2.002)]


def test_interest_accrues_within_the_day():
    venue = venue_of(interest_on="loan", borrow_rate=0.365)
    result = play(*[100] * 3, targets=(2.0, NAN), venue=venue, interval="6h")
    assert total(result, "interest") == is_(0.25)


# ------------------------------------------------------------------------------- the multiplier


def test_the_multiplier_divides_the_allowed_leverage_of_new_orders():
    venue = venue_of(margin_multiplier=2.0)
    assert play(100, 100, targets=INF, venue=venue).bars["leverage"].iloc[-1] == is_(8.0)


def test_the_multiplier_scales_maintenance_from_the_bar_it_holds_for():
    venue = venue_of(margin_multiplier=series({0: 1.0, 3: 2.0}))
    result = play(*[100] * 4, targets=TEN, venue=venue)
    # at x = 2 the requirement is 0.1 x 10,000 = the equity: the gap check of bar 3 liquidates
    event = happened(result, "liquidation")
    assert event["time"].item() == at(3)
    assert event["price"].item() == is_(100.0)
    assert result.bars["margin_ratio"].tolist()[:3] == [0.0, is_(0.5), is_(0.5)]


def test_scaled_rates_are_capped_at_1_and_the_amounts_follow():
    venue = venue_of(brackets=[bracket(0.0, 1000.0, 10.0, 0.05), bracket(1000.0, INF, 5.0, 0.1)])
    # x = 15: rates 0.75 and min(1, 1.5) = 1; amount 1,000 x 0.25; MM(2,000) = 2,000 - 250
    assert bt.margin.maintenance(venue, 2000.0, 15.0) == is_(1750.0)
    assert bt.margin.maintenance(venue, 2000.0, 1.0) == is_(150.0)
    assert bt.margin.maintenance(venue, 2000.0, 100.0) == is_(2000.0)


def test_an_isolated_setting_yields_to_the_multiplier():
    venue = venue_of(margin_multiplier=4.0)
    result = play(100, 100, targets=2.0, venue=venue, account=isolated(10.0))
    # 16 / 4 = 4 is all that is allowed: 2,000 posts 500
    assert result.bars["margin"].iloc[-1] == is_(500.0)


# -------------------------------------------------------------------------- gaps, stops, extremes


def test_the_gap_check_comes_before_the_fill_and_drops_the_decision():
    result = play(100, 100, (93, 93, 93, 93), 93, targets=(10.0, 0.0, NAN))
    # the order to close would have filled at 93 too, but the open liquidates before it
    event = happened(result, "liquidation")
    assert event["price"].item() == is_(93.0)  # not 94.7
    assert len(happened(result, "fill")) == 1
    assert equities(result)[-1] == is_(300.0)


def test_a_decision_waits_for_the_close_after_a_gap():
    result = play(100, 100, 93, 93, targets=(10.0, 5.0, 1.0))
    # the 5x of bar 1 is dropped; the 1x of bar 2 fills at the open of bar 3: 300 / 93
    assert result.bars["position"].tolist() == [0.0, is_(100), 0.0, is_(300 / 93)]


def test_liquidation_is_tested_on_mark_prices():
    deep = (100, 100, 80, 100)
    calm = play(100, 100, deep, targets=TEN, mark=[100, 100, 100])
    assert len(happened(calm, "liquidation")) == 0
    hit = play(100, 100, 100, targets=TEN, mark=[100, 100, deep])
    assert happened(hit, "liquidation")["price"].item() == is_(LP)


def test_the_stop_is_tested_on_last_prices():
    account = account_of(stop_loss=0.05)
    deep = (100, 100, 80, 100)
    hit = play(100, 100, deep, targets=ONCE, mark=[100, 100, 100], account=account)
    assert happened(hit, "stop")["price"].item() == is_(95.0)
    calm = play(100, 100, 100, targets=ONCE, mark=[100, 100, deep], account=account)
    assert len(happened(calm, "stop")) == 0


def test_the_gap_check_liquidates_on_the_mark_open_and_stops_on_the_last_open():
    account = account_of(stop_loss=0.02)
    both = play(
        100, 100, (97, 97, 97, 97), targets=TEN, mark=[100, 100, (94, 94, 94, 94)], account=account
    )
    # both are gapped: the liquidation comes first, at the mark open
    assert happened(both, "liquidation")["price"].item() == is_(94.0)
    assert len(happened(both, "stop")) == 0
    stop = play(
        100, 100, (97, 97, 97, 97), targets=TEN, mark=[100, 100, (99, 99, 99, 99)], account=account
    )
    assert happened(stop, "stop")["price"].item() == is_(97.0)


@pytest.mark.parametrize(
    ("stop", "kind", "price"),
    [
        (0.05, "stop", 95.0),  # nearer than 94.74
        (0.06, "liquidation", LP),  # farther
        (1 - LP / 100, "liquidation", LP),  # a tie goes to the liquidation
    ],
)
def test_the_nearer_of_stop_and_liquidation_acts_first(stop, kind, price):
    result = play(100, 100, (100, 101, 90, 95), targets=TEN, account=account_of(stop_loss=stop))
    acted = result.events[result.events["kind"].isin(["stop", "liquidation"])]
    assert acted["kind"].tolist() == [kind]
    assert acted["price"].item() == is_(price)


def test_the_distances_are_from_the_own_open_of_each():
    # last open 104, stop 95: 8.65 % away. Mark open 100, liquidation 94.74: 5.26 % away
    result = play(
        100,
        100,
        (104, 104, 90, 95),
        targets=TEN,
        mark=[100, 100, (100, 100, 90, 95)],
        account=account_of(stop_loss=0.05),
    )
    assert len(happened(result, "liquidation")) == 1
    assert len(happened(result, "stop")) == 0


def test_a_short_stops_and_dies_on_the_way_up():
    result = play(
        100, (100, 110, 100, 100), targets=TEN, signal=-1.0, account=account_of(stop_loss=0.03)
    )
    assert happened(result, "stop")["price"].item() == is_(103.0)
    result = play(100, (100, 110, 100, 100), targets=TEN, signal=-1.0)
    # 11,000 - 100 P = 5 P
    assert happened(result, "liquidation")["price"].item() == is_(11_000 / 105)


def test_a_stop_is_worsened_by_slippage():
    account = account_of(stop_loss=0.05)
    result = play(100, (100, 100, 90, 95), targets=ONCE, venue=slip(0.01), account=account)
    # 10 bought at 101; the stop at 95.95 fills at 94.9905
    assert happened(result, "stop")["price"].item() == is_(0.95 * 101 * 0.99)
    assert equities(result)[-1] == is_(1000 - 10 * (101 - 94.9905))


def test_a_gapped_stop_fills_at_the_open():
    result = play(100, 100, (90, 92, 90, 92), targets=ONCE, account=account_of(stop_loss=0.05))
    assert happened(result, "stop")["price"].item() == is_(90.0)
    assert equities(result)[-1] == is_(900.0)


def test_a_position_is_exposed_to_the_whole_bar_it_is_opened_in():
    result = play(100, (100, 100, 90, 100), targets=TEN)
    assert happened(result, "liquidation")["time"].item() == at(1)


def test_a_touch_is_an_event():
    low = 100 * (1 - 0.05)
    result = play(100, (100, 100, low, 100), targets=ONCE, account=account_of(stop_loss=0.05))
    assert len(happened(result, "stop")) == 1
    # an equity that is the requirement to the last bit: 16x with a rate of 1/16 fails as it opens
    venue = venue_of(brackets=[bracket(rate=1 / 16)])
    result = play(100, 100, targets=16.0, venue=venue)
    assert happened(result, "liquidation")["price"].item() == is_(100.0)


# ---------------------------------------------------------------------------------- liquidation


def test_a_liquidated_position_is_closed_worsened_and_pays_the_fee():
    result = play(100, (100, 100, 94, 94), targets=TEN, venue=dies(fee=0.01, slippage=0.01))
    # P = 94.7368, filled 93.7895: 94.7368 lost; fee 0.01 x 9,378.95; 473.684 - 94.737 - 93.789
    filled = LP * 0.99
    loss = 100 * (LP - filled) + 0.01 * 100 * filled
    assert happened(result, "liquidation")["price"].item() == is_(LP)
    assert happened(result, "liquidation")["amount"].item() == is_(100 * LP)
    assert total(result, "liquidation_loss") == is_(loss)
    assert equities(result)[-1] == is_(1000 - 100 * (100 - LP) - loss)


def test_the_liquidation_fee_never_makes_a_shortfall():
    result = play(100, (100, 100, 94, 94), targets=TEN, venue=dies(fee=0.2))
    # 0.2 x 9,473.7 is more than the 473.684 that is left
    assert total(result, "liquidation_loss") == is_(0.05 * 100 * LP)
    assert total(result, "bad_debt") == 0.0
    assert equities(result)[-1] == 0.0


def test_a_shortfall_is_bad_debt_and_the_equity_is_0():
    result = play(100, (100, 100, 94, 94), targets=TEN, venue=dies(slippage=0.1))
    # filled at 85.263: 947.368 lost of 473.684
    assert total(result, "bad_debt") == is_(5 * LP)
    assert equities(result)[-1] == 0.0


def test_a_gap_past_bankruptcy_is_bad_debt():
    result = play(100, 100, 80, targets=TEN)
    assert total(result, "bad_debt") == is_(1000.0)  # 1,000 - 100 x 20
    assert equities(result) == [1000.0, 1000.0, 0.0]


def test_an_isolated_shortfall_leaves_the_wallet_as_it_was():
    result = play(100, 100, 80, targets=(5.0, NAN), account=isolated())
    # 500 posted for 50 contracts, 1,000 lost
    assert total(result, "bad_debt") == is_(500.0)
    assert equities(result)[-1] == is_(500.0)
    assert result.metrics["ruined"] == 0.0


def test_what_is_left_of_an_isolated_margin_returns_to_the_wallet():
    result = play(100, (100, 100, 90, 90), targets=(5.0, NAN), account=isolated())
    # 500 + 50 (P - 100) = 2.5 P: P = 94.7368, 236.84 left
    assert result.bars["cash"].iloc[-1] == is_(500 + 2.5 * LP)
    assert result.bars["margin"].iloc[-1] == 0.0


def test_a_takeover_takes_all_that_backs_the_position():
    cross = play(100, (100, 100, 94, 94), targets=TEN, venue=dies(mode="takeover"))
    assert equities(cross)[-1] == 0.0
    assert total(cross, "liquidation_loss") == is_(5 * LP)
    apart = play(
        100,
        (100, 100, 94, 94),
        targets=(5.0, NAN),
        venue=dies(mode="takeover"),
        account=isolated(),
    )
    assert equities(apart)[-1] == is_(500.0)
    assert total(apart, "liquidation_loss") == is_(2.5 * LP)


def test_a_takeover_after_bankruptcy_books_bad_debt():
    result = play(100, 100, 80, targets=TEN, venue=dies(mode="takeover"))
    assert total(result, "bad_debt") == is_(1000.0)
    assert total(result, "liquidation_loss") == 0.0


HALVES = {"mode": "partial", "step": 0.5}
SECOND = (9000 - 50 * LP) / 47.5
"""Where the half that is left of 10x is liquidated: -9000 + 50 LP + 50 P = 2.5 P."""


@pytest.mark.parametrize(("low", "left", "prices"), [(90, 50, [LP]), (89, 25, [LP, SECOND])])
def test_a_partial_liquidation_steps_down_while_the_extreme_is_beyond(low, left, prices):
    result = play(100, (100, 100, low, 95), targets=TEN, venue=dies(**HALVES))
    assert result.bars["position"].iloc[-1] == is_(left)
    assert happened(result, "liquidation")["price"].tolist() == [is_(p) for p in prices]


def test_a_partial_liquidation_repeats_until_the_requirement_holds():
    result = play(100, (100, 100, 94, 94), targets=TEN, venue=dies(**HALVES, slippage=0.04))
    # at P: equity 473.684 for 9,473.7. Half sold 4 % worse costs 189.47: 284.21 for 4,736.8 needs
    # 236.84, and holds. With 5 % it would have been exactly 236.84: again, and so on
    assert result.bars["position"].iloc[-1] == is_(50.0)
    result = play(100, (100, 100, LP, 95), targets=TEN, venue=dies(**HALVES, slippage=0.05))
    # 50: 236.842 <= 236.842. 25: loss 118.42, 118.42 <= 118.42. Each half fails as the one before,
    # until the rest is closed whole with nothing left
    assert result.bars["position"].iloc[-1] == 0.0
    assert equities(result)[-1] == pytest.approx(0.0, abs=1e-6)


def test_the_stop_acts_on_what_a_partial_liquidation_leaves():
    result = play(
        100,
        (100, 100, 91, 95),
        targets=TEN,
        venue=dies(**HALVES),
        account=account_of(stop_loss=0.08),
    )
    # 94.74 liquidates a half; of the rest the stop at 92 is nearer than 89.75
    kinds = result.events["kind"][result.events["kind"].isin(["stop", "liquidation"])]
    assert kinds.tolist() == ["liquidation", "stop"]
    assert equities(result)[-1] == is_(1000 - 50 * (100 - LP) - 50 * 8)


TWO = [bracket(0.0, 5000.0, 16.0, 0.05), bracket(5000.0, INF, 8.0, 0.1)]


def test_a_step_of_a_bracket_reduces_to_its_floor():
    venue = venue_of(brackets=TWO, liquidation={"mode": "partial", "step": "bracket"})
    result = play(100, (100, 100, 93, 95), targets=(8.0, NAN), venue=venue)
    # amount 5,000 x 0.05 = 250: -7,000 + 80 P = 8 P - 250, P = 93.75; 5,000 / 93.75 are left
    assert happened(result, "liquidation")["price"].item() == is_(93.75)
    assert result.bars["position"].iloc[-1] == is_(5000 / 93.75)


def test_the_lowest_bracket_is_closed_whole():
    venue = venue_of(brackets=TWO, liquidation={"mode": "partial", "step": "bracket"})
    account = account_of(capital=400.0)
    result = play(100, (100, 100, 90, 95), targets=(12.0, NAN), venue=venue, account=account)
    assert result.bars["position"].iloc[-1] == 0.0


@pytest.mark.parametrize(("full_below", "left"), [(9473.0, 50.0), (9474.0, 0.0)])
def test_a_small_position_is_closed_whole(full_below, left):
    venue = dies(**HALVES, full_below=full_below)
    result = play(100, (100, 100, 94, 94), targets=TEN, venue=venue)
    assert result.bars["position"].iloc[-1] == is_(left)


def test_what_an_isolated_step_frees_stays_in_the_margin():
    result = play(100, (100, 100, 92, 95), targets=TEN, venue=dies(**HALVES), account=isolated())
    # the margin has lost what the half lost: 1,000 - 50 x 5.263; the wallet stays empty
    assert result.bars["margin"].iloc[-1] == is_(1000 - 50 * (100 - LP))
    assert result.bars["cash"].iloc[-1] == is_(0.0)


def test_the_requirement_may_be_valued_at_the_entry():
    venue = venue_of(maintenance_at="entry")
    result = play(100, (100, 100, 94, 94), targets=TEN, venue=venue)
    # 1,000 + 100 (P - 100) = 500
    assert happened(result, "liquidation")["price"].item() == is_(95.0)


def test_the_fee_of_closing_may_be_part_of_the_requirement():
    venue = venue_of(includes_close_fee=True, fees={"taker": 0.01, "maker": 0.0, "maker_share": 1})
    result = play(100, (100, 100, 94, 94), targets=TEN, venue=venue)
    # -9,000 + 100 P = 0.06 x 100 P
    assert happened(result, "liquidation")["price"].item() == is_(90 / 0.94)


def test_the_bracket_is_the_one_at_the_tested_price():
    venue = venue_of(brackets=TWO)
    account = account_of(capital=700.0)
    result = play(100, (100, 100, 90, 95), targets=(5200 / 700, NAN), venue=venue, account=account)
    # 52 contracts: 5,200 at entry, in the second bracket; the root of the first:
    # 700 - 5,200 + 52 P = 2.6 P, P = 91.09, 4,737 in notional
    assert happened(result, "liquidation")["price"].item() == is_(4500 / 49.4)


def test_after_a_liquidation_the_policy_goes_on_with_what_is_left():
    result = play(100, (100, 100, 94, 94), 94, targets=(10.0, 1.0))
    assert result.bars["leverage"].iloc[-1] == is_(1.0)


def test_halt_ends_the_run_flat():
    account = account_of(after_liquidation="halt")
    result = play(100, (100, 100, 94, 94), 94, 94, targets=(10.0, 1.0), account=account)
    assert result.bars["position"].tolist() == [0.0] * 4
    assert equities(result)[1:] == [is_(5 * LP)] * 3


def test_halt_closes_what_a_partial_liquidation_left_at_the_next_open():
    account = account_of(after_liquidation="halt")
    result = play(
        100, (100, 100, 92, 95), 96, 96, targets=(10.0, 1.0), account=account, venue=dies(**HALVES)
    )
    assert result.bars["position"].tolist() == [0.0, is_(50.0), 0.0, 0.0]
    assert equities(result)[-1] == is_(1000 - 50 * (100 - LP) - 50 * 4)


def test_a_ruined_account_never_trades_again():
    result = play(100, 100, 80, 80, 160, targets=10.0)
    assert equities(result) == [1000.0, 1000.0, 0.0, 0.0, 0.0]
    assert len(happened(result, "fill")) == 1
    assert result.metrics["ruined"] == 1.0
    assert result.metrics["ruin_time"] == is_(3 / 24)
    assert result.metrics["cagr"] == -1.0


# ---------------------------------------------------------------- margin calls, reserve and flows

CALL = {"margin_call": 0.8, "top_up_to": 0.5, "reserve": 500.0}


def test_a_margin_call_is_one_event_until_the_ratio_has_been_below():
    # 10x from 100: the ratio 5 P / (100 P - 9,000) is 0.868 at 95.5, 0.739 at 96.5
    closes = [95.5, 95.5, 95.6, 96.5, 95.5]
    result = play(100, (100, 100, 95.5, 95.5), *closes[1:], targets=TEN, account=account_of(
        margin_call=0.8
    ))  # fmt: skip
    calls = happened(result, "margin_call")
    assert calls["time"].tolist() == [at(1), at(5)]
    assert calls["amount"].tolist() == [is_(477.5 / 550)] * 2
    assert result.metrics["margin_calls"] == 2.0


def test_a_top_up_restores_the_ratio_at_the_next_open():
    result = play(100, (100, 100, 95.5, 95.5), 95.5, targets=TEN, account=account_of(**CALL))
    # 477.5 / 0.5 - 550 = 405 from the reserve to the cash
    assert total(result, "top_up") == is_(405.0)
    assert result.bars["reserve"].tolist() == [500.0, 500.0, is_(95.0)]
    assert result.bars["margin_ratio"].iloc[-1] == is_(0.5)
    assert result.bars["flows"].iloc[-1] == is_(405.0)
    assert result.bars["unit"].iloc[-1] == is_(1050 / 1500)  # wealth: 955 + 95


def test_a_call_fails_when_the_reserve_is_gone():
    result = play(
        100,
        (100, 100, 95.5, 95.5),
        95.5,
        (95.5, 95.5, 91.5, 91.5),
        (91.5, 91.5, 91.5, 91.5),
        (91.5, 91.5, 90, 90),
        90,
        targets=TEN,
        account=account_of(**CALL),
    )
    # 405; then at 91.5 the equity is 555 for a requirement of 457.5: 360 are needed, 95 are left:
    # 650, ratio 0.704. At 90: 500 and 450, a call of 0.9 that nobody meets
    assert happened(result, "top_up")["amount"].tolist() == [is_(405.0), is_(95.0)]
    assert result.bars["reserve"].iloc[-1] == 0.0
    assert len(happened(result, "margin_call")) == 3
    assert equities(result)[-1] == is_(500.0)


def test_an_isolated_top_up_goes_to_the_margin():
    account = isolated(**CALL)
    result = play(100, (100, 100, 95.5, 95.5), 95.5, targets=TEN, account=account)
    assert result.bars["margin"].iloc[-1] == is_(1405.0)
    assert result.bars["cash"].iloc[-1] == is_(0.0)


@pytest.mark.parametrize(("grace", "bar"), [(0, 2), (2, 4)])
def test_a_broker_reduces_an_unmet_call_after_the_grace(grace, bar):
    venue = venue_of(call_grace=grace)
    account = account_of(margin_call=0.8)
    result = play(100, (100, 100, 95.5, 95.5), *[95.5] * 4, targets=TEN, venue=venue,
                  account=account)  # fmt: skip
    # 0.05 N = 0.8 x 550: N = 8,800 at the open after so many bars unmet
    forced = happened(result, "fill").iloc[1]
    assert forced["time"] == at(bar)
    assert result.bars["position"].iloc[-1] == is_(8800 / 95.5)
    assert result.bars["margin_ratio"].iloc[bar] == is_(0.8)


def test_a_forced_reduction_reaches_the_ratio_after_its_costs():
    venue = venue_of(call_grace=1, fees=FEE, slippage={"rate": 0.002})
    account = account_of(margin_call=0.8)
    result = play(100, (100, 100, 95.8, 95.8), *[95.8] * 4, targets=TEN, venue=venue,
                  account=account)  # fmt: skip
    assert result.bars["margin_ratio"].iloc[3] == is_(0.8)


def test_a_call_met_within_the_grace_is_forgotten():
    venue = venue_of(call_grace=2)
    account = account_of(margin_call=0.8)
    result = play(100, (100, 100, 95.5, 95.5), 95.5, 99, 99, 99, targets=TEN, venue=venue,
                  account=account)  # fmt: skip
    assert len(happened(result, "fill")) == 1


def test_a_withdrawal_leaves_the_initial_margin():
    account = account_of(flows=series({2: -800.0}))
    result = play(*[100] * 3, targets=(5.0, NAN), account=account)
    # 5,000 / 16 = 312.5 must stay: 687.5 are paid out, 112.5 refused
    assert equities(result)[-1] == is_(312.5)
    assert total(result, "flow") == is_(-687.5)
    assert abs(total(result, "withdrawal_refused")) == is_(112.5)


def test_a_withdrawal_respects_the_leverage_set_at_the_venue():
    account = account_of(flows=series({2: -800.0}), venue_leverage=10.0)
    assert equities(play(*[100] * 3, targets=(5.0, NAN), account=account))[-1] == is_(500.0)


def test_a_withdrawal_from_an_isolated_account_takes_the_wallet_at_most():
    # 500 posted; at 120 the profit is 1,000: equity 2,000, initial margin 600, wallet 500
    account = isolated(flows=series({3: -900.0}))
    result = play(100, 100, 120, 120, targets=(5.0, NAN), account=account)
    assert total(result, "flow") == is_(-500.0)
    # at 95 the loss is 250: equity 750, initial margin 475: 275, less than the wallet
    account = isolated(flows=series({3: -900.0}))
    result = play(100, 100, 96, 96, targets=(5.0, NAN), account=account)
    # at 96: equity 800, initial margin 480
    assert total(result, "flow") == is_(-320.0)


def test_a_flow_inside_a_bar_happens_at_the_next_open():
    account = account_of(flows=series({1.25: 500.0}))
    result = play(*[100] * 4, targets=NAN, account=account)
    assert equities(result) == [1000.0, 1000.0, 1500.0, 1500.0]


def test_a_deposit_is_no_return():
    account = account_of(flows=series({2: 1000.0}))
    result = play(100, 100, (100, 110, 100, 110), (110, 121, 110, 121), account=account)
    # 1x: the unit value grows by 0, then 10 % on 2,000, then 10 %, whatever was deposited
    assert result.bars["unit"].tolist() == [1.0, 1.0, is_(1.1), is_(1.21)]
    assert equities(result) == [1000.0, 1000.0, is_(2200.0), is_(2420.0)]
    assert result.metrics["total_return"] == is_(0.21)


def test_a_deposit_is_there_for_the_order_of_its_bar():
    account = account_of(flows=series({1: 1000.0}))
    assert play(100, 100, account=account).bars["position"].iloc[-1] == is_(20.0)


# ------------------------------------------------------------------------------------ the terms


def test_price_pnl_is_split_at_the_open_of_the_trade():
    result = play(100, 100, (110, 120, 110, 120), targets=(1.0, 0.5, NAN), venue=slip(0.01))
    # 10 carried from 100 to the open 110 unworsened: 100. Equity 1,090: 0.5x is 545 / 110 = 4.9545
    # contracts, which earn 10 each to the close 120
    assert result.bars["price_pnl"].iloc[-1] == is_(100 + 10 * 545 / 110)


def test_price_pnl_ends_at_the_liquidation_price_and_the_rest_is_loss():
    result = play(100, 100, (98, 98, 90, 90), targets=TEN, venue=dies(slippage=0.01))
    assert result.bars["price_pnl"].iloc[-1] == is_(-100 * (100 - LP))
    assert result.bars["liquidation_loss"].iloc[-1] == is_(LP)


def test_the_terms_add_up_to_the_change_of_equity():
    result = play(
        100,
        (100, 103, 99, 102),
        (101, 101, 80, 85),
        85,
        targets=(8.0, 12.0, 3.0),
        funding=[(2, 0.001), (2.5, -0.002)],
        venue=venue_of(fees=FEE, slippage={"rate": 0.002}, liquidation={"fee": 0.01}),
        account=account_of(flows=series({2: 50.0})),
    )
    bars = result.bars
    costs = bars[["fees", "slippage", "impact", "funding", "interest", "liquidation_loss"]]
    terms = bars["price_pnl"] - costs.sum(axis=1) + bars["flows"] + bars["bad_debt"]
    change = np.diff([1000.0, *bars["equity"]])
    assert terms.to_numpy() == pytest.approx(change, abs=1e-9)
