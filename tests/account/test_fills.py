"""From a decision to its fill, by hand: costs, limits, lots, bands, signals, ticks, fill modes."""

import math

import numpy as np
import pytest

import backtest as bt
from backtest.account.orders import round_quantity
from backtest.margin.brackets import compute_after_cost
from backtest.strategies import Constant
from tests import agreement
from tests.agreement import FLAT, flat
from tests.kit import bars_market, make_venue
from tests.scenes import (
    FEE,
    INF,
    NAN,
    ONCE,
    Hand,
    account_of,
    bracket,
    by_hand,
    check_numbers,
    coin_venue,
    happened,
    is_,
    later,
    play,
    quote_of,
    rules_of,
    slip,
    total,
    venue_of,
)

TABLE = [bracket(0.0, 5000.0, 20.0, 0.04), bracket(5000.0, 50_000.0, 5.0, 0.1)]
LOW = venue_of(brackets=[bracket(rate=0.01)])
COINS = account_of(capital=10.0)
UP = 100 * math.exp(0.01)
MOVING = [100.0, UP, 100.0, UP]
IMPACT = 0.004 * math.sqrt(8)
"""Log returns of +-0.01: 0.02 / sqrt(3) a bar, x sqrt(24) = 0.02 sqrt(8) a day; ADV = 24 x 100;
2 x 0.02 sqrt(8) x sqrt(24 / 2,400)."""
FREE = make_venue(maintenance_rate=0.001, max_leverage=100)


def rounded(tick=0.5, **changes):
    return venue_of(contract={"tick": tick, "round_to_tick": True}, **changes)


def list_sides() -> Hand:
    """Return what buyers and sellers pay, for 10 contracts of 100, or 1,000 of a dollar."""
    sides: Hand = {}
    for side, price, tick in ((1.0, 101.0, 100.5), (-1.0, 99.0, 99.5)):
        terms = {"targets": ONCE, "signal": side}
        coins = {"account": COINS, **terms}
        worse = 1000 * abs(1 / 100 - 1 / price)
        at_tick = 1000 * abs(1 / 100 - 1 / tick)
        coin_ticks = coin_venue(slippage={"rate": 0.001}).override(
            {"contract.tick": 0.5, "contract.round_to_tick": True}
        )
        sides |= {
            f"slippage worsens the price against the trader, {side}": (
                later(100, 100, venue=slip(), **terms),
                {"fill.price": [price], "entry": price, "slippage.total": 10, "equity": 990}),
            f"an inverse contract worsens in price and costs coins, {side}": (
                later(100, 100, venue=coin_venue(slippage={"rate": 0.01}, fees=FEE), **coins),
                {"fill.price": [price], "slippage.total": worse,
                 "fee.total": 0.001 * 1000 / price, "equity": 10 - worse - 1 / price}),
            f"a fill is rounded to a tick against the trader, {side}": (
                later(100, 100, venue=rounded(slippage={"rate": 0.001}), **terms),
                {"fill.price": [tick], "entry": tick, "slippage.total": 5, "equity": 995}),
            f"the tick of an inverse contract is in price, {side}": (
                later(100, 100, venue=coin_ticks, **coins),
                {"fill.price": [tick], "slippage.total": at_tick}),
        }  # fmt: skip

    for side, kind, kappa in (  # kappa is the cost of a unit of notional: slippage and fee
        (1.0, "linear", 0.002 + 0.001 * 1.002),
        (-1.0, "linear", 0.002 + 0.001 * 0.998),
        (1.0, "inverse", 0.003 / 1.002),
        (-1.0, "inverse", 0.003 / 0.998),
    ):
        # N = 16 (1000 - kappa N): N = 16,000 / (1 + 16 kappa)
        notional = 16_000 / (1 + 16 * kappa)
        contract_notional = 100 if kind == "linear" else 1 / 100
        venue = venue_of(contract={"kind": kind}, fees=FEE, slippage={"rate": 0.002})
        sides[f"the cap holds after the cost of the trade itself, {kind} {side}"] = (
            later(100, 100, targets=INF, signal=side, venue=venue),
            {"position": side * notional / contract_notional, "equity": notional / 16},
        )

    return sides


HAND: Hand = {
    **list_sides(),
    "bar 0 never trades, and its decision fills at the next open": (
        later(100, (110, 120, 110, 120), targets=ONCE),
        {"position": [0, 1000 / 110], "equity": [1000, 1000 + 10 * 1000 / 110]}),
    "a taker pays the fee rate on the notional traded, 10 x 100 x 0.001": (
        later(100, 100, 100, targets=ONCE, venue=venue_of(fees=FEE)),
        {"equity": [1000, 999, 999], "fee.total": 1}),
    # 0.75 x 0.001 - 0.25 x 0.0002 = 0.0007 of 1,000
    "the maker share pays the maker rate, which may be a rebate": (
        later(100, 100, targets=ONCE,
              venue=venue_of(fees={"taker": 0.001, "maker": -0.0002, "maker_share": 0.25})),
        {"equity": 999.3}),
    # bought free; sold 10 at 95: fee 0.95, loss 50
    "a stop pays the taker rate whatever the maker share": (
        later(100, (100, 100, 90, 92), targets=ONCE, account=account_of(stop_loss=0.05),
              venue=venue_of(fees={"taker": 0.001, "maker": 0.0, "maker_share": 1.0})),
        {"equity": 1000 - 50 - 0.95}),
    "an inverse long gains coins by the reciprocal of the price": (
        later(100, (100, 125, 100, 125), targets=ONCE, venue=coin_venue(), account=COINS),
        {"equity": 10 + 1000 * (1 / 100 - 1 / 125)}),
    # 10 at 100; at 120 the equity is 1,200, and 2x is 20 contracts: 10 more at 120
    "the entry of a linear contract is the arithmetic mean": (
        later(100, 100, 120, targets=(1.0, 2.0)), {"position": 20, "entry": 110}),
    # 1,000 at 100; at 125 the equity is 12 coins, and 4/3 of it is 16 coins or 2,000 contracts
    "the entry of an inverse contract is the harmonic mean": (
        later(100, 100, 125, targets=(1.0, 4 / 3), venue=coin_venue(), account=COINS),
        {"position": 2000, "entry": 2000 / (1000 / 100 + 1000 / 125)}),
    "a reduction keeps the entry, and a flip starts it anew": (
        later(100, 100, 120, 90, targets=(2.0, 0.5, 1.0), signal=[1, 1, -1, -1]),
        {"entry": [NAN, 100, 100, 90]}),
    "impact grows with the root of the share of the daily volume": (
        later(*MOVING, 100, targets=(NAN, NAN, NAN, 0.024, NAN),
              venue=slip(0.0, impact=2.0, impact_window="3h"),
              volume=[*(100 / close for close in MOVING), 1.0]),
        {"fill.price": [100 * (1 + IMPACT)], "impact.total": 24 * IMPACT, "slippage.total": 0}),
    "there is no impact before its window is full": (
        later(100, 101, 100, targets=ONCE, volume=1.0,
              venue=slip(0.0, impact=2.0, impact_window="3h")),
        {"impact.total": 0}),
    # 10 wanted: 10 % of 30 at the first open, of 50 at the next, then the 2 that are left
    "participation fills a share of the last volume and leaves the rest": (
        later(100, 100, 100, 100, targets=1.0, venue=slip(0.0, max_participation=0.1),
              volume=[30, 50, 70, 90]),
        {"position": [0, 3, 8, 10]}),
    # 1 -> 1.4 and 1 -> 0.5 are within half a turn, its end included; 1 -> 1.6 is not
    "an order shrinks to what initial margin allows": (
        later(100, 100, targets=30.0), {"leverage": 16}),
    "nothing trades within the band, and a trade beyond it goes all the way": (
        later(*[100] * 5, targets=(1.0, 1.4, 0.5, 1.6, NAN), account=account_of(band=0.5)),
        {"position": [0, 10, 10, 10, 16]}),
    "nothing trades at the band itself": (
        later(*[100] * 3, targets=(1.0, 1.5), account=account_of(band=0.5)),
        {"position": [0, 10, 10]}),
    "closing is exempt from the band": (
        later(*[100] * 4, targets=(1.0, 0.4, 0.0), account=account_of(band=0.5)),
        {"position": [0, 10, 4, 0]}),
    "the band compares signed notionals: from +1 to -0.2 are 1.2 turns": (
        later(*[100] * 3, targets=(1.0, 0.2), signal=[1, -1, -1], account=account_of(band=0.9)),
        {"position": -2}),
    # short 5,000 costs 0.002998 x 5,000 = 14.99; then with kappa 0.003002 from -5,000:
    # N = 10 (985.01 - kappa (N + 5,000)) = 10 x 970 / 1.03002
    "the cap of a flip pays for what it closes too": (
        later(100, 100, 100, targets=(5.0, INF), signal=[-1, 1, 1],
              venue=venue_of(fees=FEE, slippage={"rate": 0.002}, brackets=[bracket(leverage=10)])),
        {"position": 9700 / 1.03002 / 100}),
    # 160 x 96 = 15,360 on an equity of 360, 42.7x; with 1 % maintenance it lives
    "a position over the limit is left alone and not reduced": (
        later(100, 100, 96, 96, targets=(16.0, NAN, 1000.0), venue=LOW),
        {"leverage": [0, 16, 15_360 / 360, 15_360 / 360], "fill.n": 1}),
    "a trade that only reduces passes over the limit": (
        later(100, 100, 96, 96, targets=(16.0, NAN, 20.0), venue=LOW), {"leverage": 20}),
    **{
        f"the setting and the caps limit the notional: {capital:g} at {setting}": (
            later(100, 100, targets=INF, venue=venue_of(brackets=TABLE),
                  account=account_of(capital=capital, venue_leverage=setting)),
            {"position": notional / 100})
        for capital, setting, notional in (
            (1000.0, None, 5000.0),  # max(min(5,000, 20 x 1,000), min(50,000, 5 x 1,000))
            (2000.0, None, 10_000.0),  # the second bracket: 5 x 2,000
            (200.0, None, 4000.0),  # the first: 20 x 200
            (20_000.0, None, 50_000.0),  # the last cap
            (2000.0, 20.0, 5000.0),  # the largest cap that allows 20x
            (2000.0, 10.0, 5000.0),  # likewise
            (400.0, 10.0, 4000.0),  # 10 x 400
            (2000.0, 4.0, 8000.0),  # 4 x 2,000; the second bracket allows it
        )
    },
    **{  # 3 lots of 0.1 are 30 of notional, 0.03x; a position short of that by a part of a lot
        f"a lot is truncated with a tolerance of a millionth, {short}": (
            later(100, 100, targets=0.01 * (3 - short), venue=venue_of(contract={"lot": 0.1})),
            {"position": 0.1 * lots})
        for short, lots in ((0.5e-6, 3), (2e-6, 2))
    },
    # 400 is skipped; 600 is bought; a reduction of 100 is skipped; 6 x 40 = 240 is closed
    "a trade under the minimum notional is skipped unless it closes": (
        later(100, 100, 100, 100, 40, 40, targets=(0.4, 0.6, 0.5, NAN, 0.0),
              venue=venue_of(contract={"min_notional": 500.0})),
        {"position": [0, 0, 6, 6, 6, 0]}),
    # 1.9 lots are one; 0.9 are none, which closes: 100, less than the minimum
    "a minimum notional keeps no position that lots close": (
        later(*[100] * 5, targets=(0.5, 0.19, 0.09, NAN), account=account_of(margin="cross"),
              venue=venue_of(contract={"lot": 1.0, "min_notional": 150.0}, fees=FEE)),
        {"position": [0, 5, 1, 0, 0]}),
    "NaN leaves the position even when the signal turned": (
        later(*[100] * 3, targets=ONCE, signal=[1, -1, -1]), {"position": [0, 10, 10]}),
    "a signal of 0 closes even where the target is NaN": (
        later(*[100] * 3, targets=ONCE, signal=[1, 0, 0]), {"position": [0, 10, 0]}),
    "the signal scales and directs the target": (
        later(*[100] * 3, targets=2.0, signal=[0.25, -0.5, 0.0]), {"position": [0, 5, -10]}),
    "the account clips what the policy asks for": (
        later(*[100] * 4, targets=(0.1, 9.0, INF, NAN),
              account=account_of(min_leverage=0.5, max_leverage=3.0)),
        {"leverage": [0, 0.5, 3, 3]}),
    "the minimum leverage holds against a target of 0 but not a signal of 0": (
        later(*[100] * 4, targets=(1.0, 0.0, 0.0), signal=[1, 1, 0, 0],
              account=account_of(min_leverage=0.5)),
        {"leverage": [0, 1, 0.5, 0]}),
    "an infinite target is what the limits allow, scaled by the signal": (
        later(*[100] * 3, targets=INF, signal=[1.0, -0.5, 1.0]), {"leverage": [0, 16, -8]}),
    # triggered at 94.9, which is not a tick: sold at 94.5; 10 x 0.4 are slippage
    "a stop fills on a tick": (
        later(100, (100, 100, 90, 92), targets=ONCE, venue=rounded(),
              account=account_of(stop_loss=0.051)),
        {"stop.price": [94.5], "slippage.total": 4, "equity": 945}),
    "a liquidation is not rounded": (
        later(100, 100, (100, 100, 90, 92), targets=(10.0, NAN), venue=rounded()),
        {"liquidation.price": [90 / 0.95]}),
    # N <= 16 (E - cost): each contract costs 0.5 of 100 and the fee on 100.5
    "the initial margin holds after the rounding": (
        later(100, 100, targets=INF, venue=rounded(slippage={"rate": 0.001}, fees=FEE)),
        {"position": 16 * 1000 / (1 + 16 * (0.005 + 0.001 * 1.005)) / 100, "leverage": 16}),
}  # fmt: skip


@by_hand(HAND)
def test_fills_of_one_instrument(run, numbers):
    check_numbers(run(), numbers)


@pytest.mark.parametrize("side", [1.0, -1.0])
@pytest.mark.parametrize("most", [None, 1.0])  # without and with the rounding of orders
def test_a_change_of_the_size_of_rounding_is_no_trade(side, most):
    rules = rules_of(slip(0.0, max_participation=most), account_of())
    quote = quote_of(100.0, 100.0, 100.0, 100.0)
    quote.volume = 1e9
    held = side * 10.0

    by_rounding = held * (1.0 - 1e-13)
    by_a_millionth = held * (1.0 - 1e-6)
    assert round_quantity(rules, held, quote, by_rounding) == held
    assert round_quantity(rules, held, quote, by_a_millionth) == by_a_millionth


def test_without_a_limit_of_leverage_an_order_is_what_its_cost_allows():
    # N where the equity of 1,000 pays for it: 0.01 (N - held) = 1,000
    assert compute_after_cost(INF, 1000.0, 0.0, 0.01) == is_(100_000.0)
    assert compute_after_cost(INF, 1000.0, 500.0, 0.01) == is_(100_500.0)
    assert compute_after_cost(INF, 1000.0, 0.0, 0.0) == INF


def test_a_graced_call_reduces_at_the_rounded_price():
    terms = {"targets": (9.0, NAN), "account": account_of(margin_call=0.5)}
    bars = (100, 100, (100, 100, 96, 96), 96)
    result = play(*bars, venue=rounded(call_grace=0), **terms)
    plain = play(*bars, venue=venue_of(call_grace=0), **terms)

    assert result.bars["margin_ratio"].iloc[-1] == is_(plain.bars["margin_ratio"].iloc[-1])

    prices = happened(result, "fill")["price"]
    assert len(prices) == 2
    assert (prices % 0.5 == 0.0).all()


def price_of(result, kind="fill"):
    return happened(result, kind)["price"].tolist()


def test_impact_is_the_same_with_rounded_prices_and_rounding_counts_as_slippage():
    costs = {"rate": 0.001, "impact": 0.5, "impact_window": "3h"}
    bars = [100, 101, 100, 102, 101, 101]
    terms = {"targets": (0, 0, 0, 0, 1.0), "volume": 100.0}
    ticks = play(*bars, venue=rounded(slippage=costs), **terms)
    plain = play(*bars, venue=venue_of(slippage=costs), **terms)

    assert total(ticks, "impact") == is_(total(plain, "impact"))
    assert total(ticks, "impact") > 0.0

    (price,) = price_of(ticks)
    assert price % 0.5 == 0.0

    bought = float(happened(plain, "fill")["quantity"].iloc[0])
    lost = total(ticks, "impact") + total(ticks, "slippage")
    assert lost == is_(bought * (price - 101))


def make_market(n: int = 300, seed: int = 0, **columns: object) -> bt.Market:
    """Return daily bars with gaps, for which 3x is never liquidated."""
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.02, n)))
    start = np.r_[100.0, close[:-1]] * np.exp(rng.normal(0.0, 0.005, n))
    bars = {
        "high": 1.001 * np.maximum(start, close),
        "low": 0.999 * np.minimum(start, close),
        "volume": np.full(n, 1e6),
        **columns,
    }
    return bars_market(start, close, "D", terms={"instrument": "TEST"}, **bars)


MARKET = make_market()
RETURNS = MARKET.close[1:] / MARKET.close[:-1] - 1.0


def run(leverage: float, market: bt.Market = MARKET, **terms: object) -> bt.Result:
    settings = {"venue": FREE, "account": bt.Account(fill="same_close"), "compile": False, **terms}
    return bt.run(market, Constant(leverage=leverage), **settings)


@pytest.mark.parametrize("leverage", [0.5, 2.0, 3.0])
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_same_close_compounds_leverage_times_each_return(leverage, side):
    """Without costs a constant leverage L is the product of 1 + L r_t, the formula of funds."""
    result = run(leverage, signal=side)

    expected = np.cumprod(1.0 + side * leverage * RETURNS)
    np.testing.assert_allclose(result.bars["unit"].to_numpy()[1:], expected, rtol=1e-9)


def test_same_close_pays_interest_on_the_new_loan():
    """prod(1 + L r_t - (L - 1) f dt): what was borrowed at a close pays from that close on."""
    rate = 0.05
    leverage = 3.0
    result = run(leverage, venue=FREE.override(borrow_rate=rate, interest_on="loan"))

    expected = np.cumprod(1.0 + leverage * RETURNS - (leverage - 1.0) * rate / 365.0)
    np.testing.assert_allclose(result.bars["unit"].to_numpy()[1:], expected, rtol=1e-9)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_same_close_of_an_inverse_contract(side):
    """In the coin: q u = L E, so E' / E = 1 + s L (1 - P0 / P1)."""
    venue = FREE.override(contract=bt.Contract(kind="inverse", size=100.0, lot=0.0, tick=0.1))
    account = bt.Account(capital=1.0, fill="same_close")
    result = run(2.0, venue=venue, account=account, signal=side)

    factors = 1.0 + side * 2.0 * (1.0 - MARKET.close[:-1] / MARKET.close[1:])
    np.testing.assert_allclose(result.bars["unit"].to_numpy()[1:], np.cumprod(factors), rtol=1e-9)


def test_next_close_is_same_close_one_bar_later():
    """A buyer at the next close misses the return of one more bar."""
    result = run(1.0, account=bt.Account(fill="next_close"))

    expected = np.cumprod(1.0 + RETURNS[1:])
    np.testing.assert_allclose(result.bars["unit"].to_numpy()[2:], expected, rtol=1e-9)
    assert result.bars["position"].iloc[0] == 0.0
    assert result.bars["position"].iloc[1] > 0.0
    assert abs(result.attribution().fills) < 1e-12


PARTLY = -4000 + 15 * 4000 / 47.5 + 3500
"""Equity where 15 of 50 contracts from 100 were sold at 4,000 / 47.5, and 35 are worth 100."""
LOTS = {"contract": {"lot": 10.0}, "liquidation": {"mode": "partial", "step": 0.3}}
MODES: Hand = {
    # bars end at 100, 110, 99; a target of 2 decided at the first close: 2000 / 104 contracts at
    # the open of 104, 2000 / 110 at the close of 110, or 20 at 100
    **{
        f"the mode says where a decision fills, {mode}": (
            agreement.later(FLAT, (104.0, 112.0, 103.0, 110.0), (108.0, 109.0, 98.0, 99.0),
                            targets=(2.0, NAN), fill=mode),
            {"quantity 1": quantity, "equity 1": equity,
             "equity 2": equity + quantity * (99 - 110)})
        for mode, quantity, equity in (("next_open", 2000 / 104, 1000 + 2000 / 104 * 6),
                                       ("next_close", 2000 / 110, 1000.0),
                                       ("same_close", 20.0, 1200.0))
    },
    # bought at the close of 100: 20 contracts pay 20 * 90 * 1 % = 18, and lose 20 * 10 in the gap
    "same_close meets the gap and the funding of the next open": (
        agreement.later(FLAT, flat(90), targets=(2.0,), fill="same_close",
                        funding=[(1.0, 0.01, 90.0)]),
        {"funding 1": 18, "equity 1": 782}),
    "next_close meets neither": (
        agreement.later(FLAT, flat(90), targets=(2.0,), fill="next_close",
                        funding=[(1.0, 0.01, 90.0)]),
        {"funding 1": 0, "equity 1": 1000}),
    # 10x bought at the close of bar 1 dies in bar 2; bar 2 opens no new one, at 89.47 it would
    "a liquidation in the bar drops the decision of a late fill": (
        agreement.later(FLAT, FLAT, (100, 100, 80, 100), FLAT, targets=(10.0,), fill="next_close"),
        {"quantity 0": 0, "quantity 1": 100, "quantity 2": 0, "fill.bar": [1, 3]}),
    # bar 2: 15 of 50 contracts go at 4000 / 47.5, 35 of lot 10 are held to 100: 36 are no order
    **{
        f"lots never turn an increase into a reduction, {wanted}": (
            agreement.later(FLAT, FLAT, (100, 100, 83, 100), FLAT,
                            targets=(5.0, NAN, wanted * 100 / PARTLY), venue=LOTS),
            {"equity 2": PARTLY, "quantity 3": left})
        for wanted, left in ((36, 35), (34, 30), (41, 40), (4, 0))
    },
}  # fmt: skip


@by_hand(MODES)
def test_modes_of_filling_by_hand(run, numbers):
    agreement.check_outcome(run(), numbers)
