"""From a decision to its fill, by hand: costs, limits, lots, bands, signals, ticks, fill modes."""

import math

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.account.orders import round_quantity
from backtest.strategies import Constant
from backtest.venue.requirement import compute_after_cost
from tests import agreement
from tests.agreement import FLAT, near
from tests.scenes import (
    FEE,
    INF,
    NAN,
    ONCE,
    account_of,
    bracket,
    coin_venue,
    equities,
    happened,
    is_,
    play,
    quote_of,
    rules_of,
    slip,
    total,
    venue_of,
)


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


def impact_scene(*, impact=2.0, **slippage):
    """Closes that move by +1, -1, +1 % in logs, each bar worth 100; a fill of 24 at 100."""
    up = 100 * math.exp(0.01)
    closes = [100.0, up, 100.0, up]
    bars = [(c, c, c, c) for c in closes]
    return play(
        *bars,
        100,
        targets=(NAN, NAN, NAN, 0.024, NAN),
        venue=slip(impact=impact, impact_window="3h", **slippage),
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


def test_there_is_no_impact_before_its_window_is_full():
    venue = slip(0.0, impact=2.0, impact_window="3h")
    result = play(100, (101, 101, 101, 101), 100, targets=ONCE, venue=venue, volume=1.0)
    assert total(result, "impact") == 0.0


def test_participation_fills_a_share_of_the_last_volume_and_leaves_the_rest():
    venue = slip(0.0, max_participation=0.1)
    result = play(100, 100, 100, 100, targets=1.0, venue=venue, volume=[30, 50, 70, 90])
    # 10 wanted: 10 % of 30 at the first open, of 50 at the next, then the 2 that are left
    assert result.bars["position"].tolist() == [0.0, is_(3.0), is_(8.0), is_(10.0)]


@pytest.mark.parametrize("side", [1.0, -1.0])
@pytest.mark.parametrize("most", [None, 1.0])  # without and with the rounding of orders
def test_a_change_of_the_size_of_rounding_is_no_trade(side, most):
    rules = rules_of(slip(0.0, max_participation=most), account_of()).instrument
    quote, held = quote_of(100.0, 100.0, 100.0, 100.0)._replace(volume=1e9), side * 10.0
    assert round_quantity(rules, held, quote, held * (1.0 - 1e-13)) == held
    assert round_quantity(rules, held, quote, held * (1.0 - 1e-6)) == held * (1.0 - 1e-6)


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


@pytest.mark.parametrize(("side", "kind", "kappa"), [
    (1.0, "linear", 0.002 + 0.001 * 1.002),
    (-1.0, "linear", 0.002 + 0.001 * 0.998),
    (1.0, "inverse", 0.003 / 1.002),
    (-1.0, "inverse", 0.003 / 0.998),
])  # fmt: skip
def test_the_cap_holds_after_the_cost_of_the_trade_itself(side, kind, kappa):
    venue = venue_of(contract={"kind": kind}, fees=FEE, slippage={"rate": 0.002})
    result = play(100, 100, targets=INF, signal=side, venue=venue)
    # N = 16 (1000 - kappa N): N = 16,000 / (1 + 16 kappa)
    notional = 16_000 / (1 + 16 * kappa)
    unit = 100 if kind == "linear" else 1 / 100
    assert abs(result.bars["position"].iloc[-1]) == is_(notional / unit)
    assert notional == is_(16 * equities(result)[-1])


def test_without_a_limit_of_leverage_an_order_is_what_its_cost_allows():
    # N where the equity of 1,000 pays for it: 0.01 (N - held) = 1,000
    assert compute_after_cost(INF, 1000.0, 0.0, 0.01) == is_(100_000.0)
    assert compute_after_cost(INF, 1000.0, 500.0, 0.01) == is_(100_500.0)
    assert compute_after_cost(INF, 1000.0, 0.0, 0.0) == INF


def test_the_cap_of_a_flip_pays_for_what_it_closes_too():
    venue = venue_of(fees=FEE, slippage={"rate": 0.002}, brackets=[bracket(leverage=10.0)])
    result = play(100, 100, 100, targets=(5.0, INF), signal=[-1, 1, 1], venue=venue)
    # short 5,000 costs 0.002998 x 5,000 = 14.99; then with kappa 0.003002 from -5,000:
    # N = 10 (985.01 - kappa (N + 5,000)) = 10 x 970 / 1.03002
    assert result.bars["position"].iloc[-1] == is_(9700 / 1.03002 / 100)


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


@pytest.mark.parametrize(("capital", "setting", "notional"), [
    (1000.0, None, 5000.0),  # max(min(5,000, 20 x 1,000), min(50,000, 5 x 1,000))
    (2000.0, None, 10_000.0),  # the second bracket: 5 x 2,000
    (200.0, None, 4000.0),  # the first: 20 x 200
    (20_000.0, None, 50_000.0),  # the last cap
    (2000.0, 20.0, 5000.0),  # the largest cap that allows 20x
    (2000.0, 10.0, 5000.0),  # likewise
    (400.0, 10.0, 4000.0),  # 10 x 400
    (2000.0, 4.0, 8000.0),  # 4 x 2,000; the second bracket allows it
])  # fmt: skip
def test_the_leverage_setting_and_the_caps_limit_the_notional(capital, setting, notional):
    account = account_of(capital=capital, venue_leverage=setting)
    result = play(100, 100, targets=INF, venue=venue_of(brackets=TABLE), account=account)
    assert result.bars["position"].iloc[-1] * 100 == is_(notional)


@pytest.mark.parametrize(("wanted", "expected"), [(36, 35), (34, 30), (41, 40), (4, 0)])
def test_lots_never_turn_an_increase_into_a_reduction(wanted, expected):
    # bar 2: 15 of 50 contracts go at 4000 / 47.5, 35 of lot 10 are held to 100: 36 are no order
    venue = {"contract": {"lot": 10.0}, "liquidation": {"mode": "partial", "step": 0.3}}
    bars = (FLAT, FLAT, (100, 100, 83, 100), FLAT)
    equity = -4000 + 15 * 4000 / 47.5 + 3500
    targets = (5.0, NAN, wanted * 100 / equity)
    out = agreement.play(*bars, targets=targets, venue=venue)
    assert near(out.equity[2], equity)
    assert near(out.quantity[3], expected)


@pytest.mark.parametrize(("short_of", "lots"), [(0.5e-6, 3), (2e-6, 2)])
def test_a_lot_is_truncated_with_a_tolerance_of_a_millionth(short_of, lots):
    # 3 lots of 0.1 are 30 of notional, 0.03x; a position short of that by a part of a lot
    venue = venue_of(contract={"lot": 0.1})
    result = play(100, 100, targets=0.01 * (3 - short_of), venue=venue)
    assert result.bars["position"].iloc[-1] == pytest.approx(0.1 * lots, rel=1e-12)


def test_a_trade_under_the_minimum_notional_is_skipped_unless_it_closes():
    venue = venue_of(contract={"min_notional": 500.0})
    result = play(100, 100, 100, 100, 40, 40, targets=(0.4, 0.6, 0.5, NAN, 0.0), venue=venue)
    # 400 is skipped; 600 is bought; a reduction of 100 is skipped; 6 x 40 = 240 is closed
    assert result.bars["position"].tolist() == [0.0, 0.0, is_(6.0), is_(6.0), is_(6.0), 0.0]


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


def price_of(result, kind="fill"):
    return happened(result, kind)["price"].tolist()


def rounded(tick=0.5, **changes):
    return venue_of(contract={"tick": tick, "round_to_tick": True}, **changes)


@pytest.mark.parametrize(("side", "price"), [(1.0, 100.5), (-1.0, 99.5)])
def test_a_fill_is_rounded_against_the_trader_and_costs_slippage(side, price):
    venue = rounded(slippage={"rate": 0.001})
    result = play(100, 100, targets=1.0, signal=side, venue=venue)
    # worsened to 100.1 or 99.9, then to the next half: 10 contracts cost 10 x 0.5
    assert price_of(result) == [is_(price)]
    assert result.bars["entry"].iloc[-1] == is_(price)
    assert total(result, "slippage") == is_(5.0)
    assert result.bars["equity"].iloc[-1] == is_(995.0)


@pytest.mark.parametrize(("side", "price"), [(1.0, 100.5), (-1.0, 99.5)])
def test_the_tick_of_an_inverse_contract_is_in_price(side, price):
    venue = venue_of(
        contract={"kind": "inverse", "tick": 0.5, "round_to_tick": True, "min_notional": 0.0},
        slippage={"rate": 0.001},
    )
    account = account_of(capital=10.0)
    result = play(100, 100, targets=1.0, signal=side, venue=venue, account=account)
    # 10 coins are 1,000 contracts of a dollar; each loses |1/100 - 1/price| coins
    assert price_of(result) == [is_(price)]
    assert total(result, "slippage") == is_(1000 * abs(1 / 100 - 1 / price))


def test_a_stop_fills_on_a_tick():
    account = account_of(stop_loss=0.051)
    result = play(100, (100, 100, 90, 92), targets=(1.0, NAN), venue=rounded(), account=account)
    # triggered at 94.9, which is not a tick: sold at 94.5; 10 x 0.4 are slippage
    assert price_of(result, "stop") == [is_(94.5)]
    assert total(result, "slippage") == is_(4.0)
    assert result.bars["equity"].iloc[-1] == is_(945.0)


def test_a_liquidation_is_not_rounded():
    result = play(100, 100, (100, 100, 90, 92), targets=(10.0, NAN), venue=rounded())
    assert price_of(result, "liquidation") == [is_(90 / 0.95)]


def test_impact_stays_impact():
    venue = rounded(slippage={"rate": 0.001, "impact": 0.5, "impact_window": "3h"})
    plain = venue_of(slippage={"rate": 0.001, "impact": 0.5, "impact_window": "3h"})
    bars = [100, 101, 100, 102, 101, 101]
    both = [
        play(*bars, targets=(0, 0, 0, 0, 1.0), venue=each, volume=100.0) for each in (venue, plain)
    ]
    change = float(happened(both[1], "fill")["quantity"].iloc[0])
    assert total(both[0], "impact") == is_(total(both[1], "impact"))
    assert total(both[0], "impact") > 0.0
    lost = total(both[0], "impact") + total(both[0], "slippage")
    assert lost == is_(change * (price_of(both[0])[0] - 101))
    assert price_of(both[0])[0] % 0.5 == 0.0


def test_the_initial_margin_holds_after_the_rounding():
    # N <= 16 (E - cost): each contract costs 0.5 of 100 and the fee on 100.5
    venue = rounded(slippage={"rate": 0.001}, fees={"taker": 0.001, "maker": 0.001})
    result = play(100, 100, targets=INF, venue=venue)
    cost = 0.005 + 0.001 * 1.005
    assert result.bars["position"].iloc[-1] == is_(16 * 1000 / (1 + 16 * cost) / 100)
    assert result.bars["leverage"].iloc[-1] == is_(16.0)


def test_a_graced_call_reduces_at_the_rounded_price():
    venue = rounded(call_grace=0)
    account = account_of(margin_call=0.5)
    result = play(
        100, 100, (100, 100, 96, 96), 96, targets=(9.0, NAN), venue=venue, account=account
    )
    plain = play(
        100, 100, (100, 100, 96, 96), 96, targets=(9.0, NAN), venue=venue_of(call_grace=0),
        account=account,
    )  # fmt: skip
    assert result.bars["margin_ratio"].iloc[-1] == is_(plain.bars["margin_ratio"].iloc[-1])
    assert all(price % 0.5 == 0.0 for price in price_of(result))


# -------------------------------------------------------------------------------- modes of filling
FREE = bt.Venue.simple(
    taker=0.0, slippage=0.0, maintenance_rate=0.001, max_leverage=100, liquidation_fee=0.0
)


def make_market(n: int = 300, seed: int = 0, **columns: object) -> bt.Market:
    """Return daily bars with gaps, for which 3x is never liquidated."""
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.02, n)))
    start = np.r_[100.0, close[:-1]] * np.exp(rng.normal(0.0, 0.005, n))
    frame = pd.DataFrame(
        {
            "open": start,
            "high": 1.001 * np.maximum(start, close),
            "low": 0.999 * np.minimum(start, close),
            "close": close,
            "volume": 1e6,
            **columns,
        },
        index=pd.date_range("2020-01-01", periods=n, freq="D", tz="UTC"),
    )
    return bt.Market.from_frames(frame, instrument="TEST")


MARKET = make_market()
RETURNS = MARKET.close[1:] / MARKET.close[:-1] - 1.0


def run(leverage: float, market: bt.Market = MARKET, **terms: object) -> bt.Result:
    given = {"venue": FREE, "account": bt.Account(fill="same_close"), "compile": False, **terms}
    return bt.run(market, Constant(leverage=leverage), **given)


@pytest.mark.parametrize("leverage", [0.5, 2.0, 3.0])
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_same_close_compounds_leverage_times_each_return(leverage, side):
    """Without costs a constant leverage L is the product of 1 + L r_t, the formula of funds."""
    found = run(leverage, signal=side)
    expected = np.cumprod(1.0 + side * leverage * RETURNS)
    np.testing.assert_allclose(found.bars["unit"].to_numpy()[1:], expected, rtol=1e-9)


def test_same_close_pays_interest_on_the_new_loan():
    """prod(1 + L r_t - (L - 1) f dt): what was borrowed at a close pays from that close on."""
    rate, leverage = 0.05, 3.0
    venue = FREE.override(borrow_rate=rate, interest_on="loan")
    found = run(leverage, venue=venue)
    expected = np.cumprod(1.0 + leverage * RETURNS - (leverage - 1.0) * rate / 365.0)
    np.testing.assert_allclose(found.bars["unit"].to_numpy()[1:], expected, rtol=1e-9)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_same_close_of_an_inverse_contract(side):
    """In the coin: q u = L E, so E' / E = 1 + s L (1 - P0 / P1)."""
    contract = bt.Contract(kind="inverse", size=100.0, lot=0.0, tick=0.1)
    venue = FREE.override(contract=contract)
    account = bt.Account(capital=1.0, fill="same_close")
    found = run(2.0, venue=venue, account=account, signal=side)
    factors = 1.0 + side * 2.0 * (1.0 - MARKET.close[:-1] / MARKET.close[1:])
    np.testing.assert_allclose(found.bars["unit"].to_numpy()[1:], np.cumprod(factors), rtol=1e-9)


def test_next_close_is_same_close_one_bar_later():
    """A buyer at the next close misses the return of one more bar."""
    account = bt.Account(fill="next_close")
    found = run(1.0, account=account)
    expected = np.cumprod(1.0 + RETURNS[1:])
    np.testing.assert_allclose(found.bars["unit"].to_numpy()[2:], expected, rtol=1e-9)
    assert found.bars["position"].iloc[0] == 0.0
    assert found.bars["position"].iloc[1] > 0.0
    assert abs(found.attribution().fills) < 1e-12


def test_fills_by_hand():
    """Bars end at 100, 110, 99; a target of 2 decided at the first close.

    next_open: 20 at the open of 104: 1000 + 20 (110 - 104) = 1120... with 2000 / 104 contracts.
    next_close: 2000 / 110 contracts at 110. same_close: 20 contracts at 100.
    """
    bars = (FLAT, (104.0, 112.0, 103.0, 110.0), (108.0, 109.0, 98.0, 99.0))
    known = {
        "next_open": (2000 / 104, 1000 + 2000 / 104 * 6),
        "next_close": (2000 / 110, 1000.0),
        "same_close": (20.0, 1200.0),
    }
    for mode, (quantity, equity) in known.items():
        out = agreement.play(*bars, targets=(2.0, np.nan), fill=mode)
        assert near(out.quantity[1], quantity)
        assert near(out.equity[1], equity)
        assert near(out.equity[2], equity + quantity * (99 - 110))


def test_same_close_meets_the_gap_and_the_funding_of_the_next_open():
    """The position bought at the close of 100 pays funding at the open, and falls with the gap."""
    bars, funding = (FLAT, (90.0, 90.0, 90.0, 90.0)), ((1.0, 0.01, 90.0),)
    early = agreement.play(*bars, targets=(2.0,), fill="same_close", funding=funding)
    # 20 contracts: 20 * 90 * 1 % = 18 paid, 20 * 10 = 200 lost
    assert near(early.funding[1], 18)
    assert near(early.equity[1], 782)
    late = agreement.play(*bars, targets=(2.0,), fill="next_close", funding=funding)
    assert late.funding[1] == 0
    assert near(late.equity[1], 1000)


def test_a_liquidation_in_the_bar_drops_the_decision_of_a_late_fill():
    """Position of 10x bought at the close of bar 1 dies in bar 2; bar 2 opens no new one."""
    bars = (FLAT, FLAT, (100.0, 100.0, 80.0, 100.0), FLAT)
    out = agreement.play(*bars, targets=(10.0,), fill="next_close")
    assert [float(x) for x in out.quantity[:3]] == [0.0, pytest.approx(100.0), 0.0]
    assert out.quantity[3] > 0
