"""Isolated margin, the wallet, profits that count, fixed fees and settings that policies decide."""

import math
from types import SimpleNamespace
from typing import Annotated, ClassVar

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.account import margin_moves
from backtest.policies import sets_margin
from backtest.strategies import Average, Capped, Constant
from tests.kit import check_refused, market_of
from tests.scenes import (
    INF,
    NAN,
    START,
    TEN,
    Hand,
    account_of,
    bracket,
    by_hand,
    check_numbers,
    equities,
    happened,
    is_,
    isolated,
    later,
    play,
    series,
    venue_of,
)

CLOSES = (97.0, 100.0, 101.0, 99.0, 100.0)
VENUE = venue_of(brackets=[bt.Bracket(0.0, 1e4, 20.0, 0.01), bt.Bracket(1e4, 1e9, 10.0, 0.02)])
SAFE = [100.0, 100.0, 101.0, 102.0, 101.0, 100.0]


def fixed(fee, **more):
    return venue_of(fees={"taker": 0.0, "maker": 0.0, "per_order": fee}, **more)


def guarded(*bars, **more):
    """Run bars with automatic margin, after a flat bar: 5x of 1,000 at 25x posts 200.

    200 + 50 (P - 100) = 2 % of 50 P: the wallet adds at P = 4,800 / 49 = 97.96.
    """
    settings = {
        "targets": (5.0, NAN),
        "venue": venue_of(brackets=[bracket(leverage=25.0, rate=0.02)]),
        "account": isolated(25.0, auto_margin=True),
        **more,
    }
    return later(100, *bars, **settings)


LOSSES = venue_of(profit_counts="losses")
HAND: Hand = {
    # 5x at a setting of 10: 50 contracts, 500 posted. At 110 the profit is 500, the equity 1,500;
    # 25 contracts are 2,750 / 1,500 turns: half of 500 + 500 returns to the wallet
    "opening posts margin, and reducing returns its share with the profit": (
        later(100, 100, 110, targets=(5.0, 2750 / 1500), account=isolated()),
        {"margin": [0, 500, 250], "cash": [1000, 500, 1000], "equity": 1500}),
    # at 110 the equity is 1,500; 10,000 of it is 90.909: 40.909 more at 110, a tenth of 4,500
    "adding posts margin for what is added": (
        later(100, 100, 110, targets=(5.0, 10_000 / 1500), account=isolated()),
        {"margin": 500 + 450, "cash": 50}),
    # 500 + 500 return: 1,500 in the wallet; short 3,000 posts 300
    "a flip closes and then opens": (
        later(100, 100, 110, targets=(5.0, 2.0), signal=[1, -1, -1], account=isolated()),
        {"cash": 1200, "margin": 300, "entry": 110}),
    # initial margin: N <= 10 (1000 - 0.01 N): 9,090.909, margin 909.09 and fee 90.909
    "new margin and fee must fit into the wallet": (
        later(100, 100, targets=INF, account=isolated(),
              venue=venue_of(fees={"taker": 0.01, "maker": 0.01})),
        {"position": 10_000 / 1.1 / 100, "cash": 0}),
    # 50 at 100, 500 posted; at 98 the equity is 900, but the wallet is 500: 5,000 more at most,
    # while initial margin would let 9,000 - 4,900 = 4,100 more: the smaller counts
    "a losing position adds what initial margin allows": (
        later(100, 100, 98, targets=(5.0, INF), account=isolated()), {"position": 9000 / 98}),
    # at 110 the equity of 1,500 would allow 15,000, and 5,500 + 10 x 500 is what the wallet pays
    "a winning position adds what the wallet pays for": (
        later(100, 100, 110, targets=(5.0, INF), account=isolated()), {"position": 10_500 / 110}),
    # 10x at 10: all 1,000 posted. The loan is 10,000 - 1,000 = 9,000: 9,000 x 0.73 / 365 = 18 a day
    "interest leaves the wallet first and then the margin": (
        later(100, 100, 100, targets=TEN, account=isolated(), interval="1d",
              venue=venue_of(borrow_rate=0.73, interest_on="loan")),
        {"cash": 0, "margin": 982}),
    # the next prices are 4,600 / 49 = 93.88 and 4,400 / 49 = 89.80
    "the wallet adds an initial margin at each liquidation price": (
        guarded(100, (100, 100, 93, 93)),
        {"margin_added.price": [4800 / 49, 4600 / 49], "margin_added.amount": [200, 200],
         "metrics.liquidations": 0, "cash": [1000, 800, 400], "margin": 600,
         "equity": 1000 - 50 * 7}),
    "a stop that is nearer acts before the wallet": (
        guarded(100, (100, 100, 93, 93), account=isolated(25.0, auto_margin=True, stop_loss=0.01)),
        {"margin_added.n": 0, "stop.price": [99]}),
    # 200 - 50 (P - 100) = P: 5,200 / 51 = 101.96, then 5,400 / 51 = 105.88
    "a short draws margin as well": (
        guarded(100, (100, 107, 100, 107), signal=-1.0),
        {"margin_added.price": [5200 / 51, 5400 / 51], "margin_added.amount": [200, 200]}),
    # four additions empty the wallet; with a margin of 1,000 it dies at 4,000 / 49 = 81.63
    "only an empty wallet lets the position be liquidated": (
        guarded(100, (100, 100, 81, 90)),
        {"margin_added.amount": [200] * 4, "liquidation.price": [4000 / 49],
         "equity": 0.02 * 50 * 4000 / 49}),
    # 50 contracts again: the wallet has 50, so the price moves to 4,750 / 49 = 96.94 only
    "the last addition is what is left": (
        guarded(100, (100, 100, 96.5, 96.5), targets=(20.0, NAN),
                account=isolated(25.0, auto_margin=True, capital=250.0)),
        {"margin_added.price": [4800 / 49], "margin_added.amount": [50],
         "liquidation.price": [4750 / 49]}),
    # 200 - 500 against 90: 390 are missing, two margins of 200; 6 x 500 / 90 = 33.3 contracts
    "a gap takes as many margins as it needs, and keeps the decision": (
        guarded(100, 90, targets=(5.0, 6.0, NAN)),
        {"margin_added.price": [90], "margin_added.amount": [400], "position": 3000 / 90}),
    # 200 - 1,000 against 80: five margins, but the wallet has 800: 0 is left of everything
    "a gap beyond the wallet takes it all and liquidates": (
        guarded(100, 80),
        {"margin_added.price": [80], "margin_added.amount": [800], "equity": 0,
         "metrics.bad_debt": 0}),
    # 4 % of 5,000 takes the margin of 200: 100 are needed, so one margin is added
    "a funding payment draws margin from the wallet": (
        guarded(100, 100, funding=[(2.5, 0.04)]),
        {"margin_added.price": [100], "margin_added.amount": [200], "margin": 200,
         "metrics.liquidations": 0}),
    **{  # 5x from 100: of 2,000 at 120, 1,000 are unrealized; a loss leaves 500 at 90; 16x may be
        f"new orders are backed by the share of profit that counts, {counts} {asked} {price}": (
            later(100, 100, price, price, targets=(5.0, asked, NAN),
                  venue=venue_of(profit_counts=counts)),
            {"position": [0, 50, 16 * free / price, 16 * free / price]})
        for counts, free, price in (("all", 2000, 120), ("losses", 1000, 120), (0.25, 1250, 120),
                                    ("losses", 500, 90), (0.25, 500, 90))
        for asked in (INF, 16.0)
    },
    "an order that turns the position around realizes its profit first": (
        later(100, 100, 120, 120, targets=(5.0, INF, NAN), signal=[1.0, -1.0, -1.0, -1.0],
              venue=LOSSES),
        {"position": [0, 50, -16 * 2000 / 120, -16 * 2000 / 120]}),
    **{  # 20 contracts rise from 100 to 200: funding of 1,280 leaves 1,720, with 2,000 profit
        f"an infinite leverage asks for nothing where less than nothing counts, {margin}": (
            later(100, 100, 200, 200, targets=(2.0, NAN, INF, INF), signal=[1.0, 1.0, 0.5, 0.5],
                  account=account_of(margin=margin, venue_leverage=2.0), venue=LOSSES,
                  funding=[(2 + k / 5, 0.08, 200.0) for k in range(1, 5)]),
            {"equity": [1000, 1000, 1720, 1720], "position": 0})
        for margin in ("cross", "isolated")
    },
    # 5x pays 5; at 120 N <= 16 (995 - 0.001 (N - 6,000)): N = 16 x 1,001 / 1.016
    "the limit leaves room for the costs of the order": (
        later(100, 100, 120, 120, targets=(5.0, 30.0, NAN), venue=venue_of(
            profit_counts="losses", fees={"taker": 0.001, "maker": 0.001})),
        {"position": [0, 50, *[16 * 1001 / 1.016 / 120] * 2]}),
    **{  # at 120 the equity is 2,000 and the initial margin 6,000 / 16 = 375; at 90 500 and 281.25
        f"withdrawals leave the profit that does not count, {counts} {price}": (
            later(100, 100, price, price, targets=(5.0, NAN), venue=venue_of(profit_counts=counts),
                  account=account_of(flows=series({3: -5000.0}))),
            {"flow.total": -paid})
        for counts, paid, price in (("all", 1625, 120), ("losses", 625, 120), (0.5, 1125, 120),
                                    ("losses", 218.75, 90))
    },
    # 10x from 100 to 110, then 96: equity 600 against 480, whatever counts
    "maintenance counts all profit": (
        later(100, 100, (110, 110, 96, 96), targets=(10.0, NAN), venue=LOSSES),
        {"metrics.liquidations": 0}),
    "every fill pays the fixed fee once: bought, enlarged, closed": (
        later(100, 100, 100, 100, 100, targets=(1.0, NAN, 2.0, 0.0), venue=fixed(2.0)),
        {"equity": [1000, 998, 998, 996, 994], "fee.amount": [2, 2, 2], "metrics.fees": 6}),
    "the fixed fee comes on top of the rate": (
        later(100, 100, targets=1.0,
              venue=venue_of(fees={"taker": 0.001, "maker": 0.001, "per_order": 2.0})),
        {"metrics.fees": 1 + 2}),
    "initial margin leaves room for the fixed fee": (
        later(100, 100, targets=(INF, NAN), venue=fixed(20.0)), {"position": 16 * 980 / 100}),
    "the wallet leaves room for the fixed fee": (
        later(100, 100, targets=(INF, NAN), venue=fixed(20.0), account=isolated(10.0)),
        {"position": 10 * 980 / 100, "cash": 0}),
    # 10 contracts lose 5 each
    "a stop pays the fixed fee": (
        later(100, 100, (100, 100, 94, 94), targets=(1.0, NAN), venue=fixed(2.0),
              account=account_of(stop_loss=0.05)),
        {"equity": 1000 - 2 - 50 - 2, "fee.amount": [2, 2]}),
    "a liquidation does not pay the fixed fee": (
        later(100, 100, (100, 100, 90, 90), targets=(10.0, NAN), venue=fixed(2.0)),
        {"liquidation.n": 1, "metrics.fees": 2}),
    # 0.05 N is 0.8 of what is left of the equity at 95.6 after the second fee
    "a forced reduction pays the fixed fee, and reaches the ratio after it": (
        later(100, (100, 100, 95.6, 95.6), 95.6, targets=(10.0, NAN),
              venue=fixed(5.0, call_grace=0), account=account_of(margin_call=0.8)),
        {"fee.amount": [5, 5], "margin_ratio": 0.8}),
    # 10 - 1.5 - 8 - 1.5 = -1
    "a stop that cannot pay its fee is bad debt": (
        later(100, 100, (100, 100, 20, 20), targets=(1.0, NAN), venue=fixed(1.5),
              account=account_of(capital=10.0, stop_loss=0.8)),
        {"metrics.bad_debt": 1, "equity": 0}),
    "a fixed fee may change with time": (
        later(*[100] * 4, targets=(1.0, 2.0, 1.0), venue=fixed(series({0: 1.0, 2: 4.0}))),
        {"fee.amount": [1, 4, 4], "fee.hours": [1, 2, 3]}),
}  # fmt: skip


@by_hand(HAND)
def test_margin_of_one_instrument(run, numbers):
    check_numbers(run(), numbers)


def test_no_decision_is_filled_with_equity_at_or_under_the_fixed_fee():
    with pytest.warns(bt.NoFillWarning):
        result = play(*[100] * 4, venue=fixed(2.0), account=account_of(capital=2.0))
    assert happened(result, "fill").empty

    result = play(*[100] * 4, venue=fixed(1.9), account=account_of(capital=2.0))
    assert len(happened(result, "fill")) == 1


def test_a_decision_to_close_needs_the_money_for_the_fixed_fee():
    """1x loses 8 of 10 less the fee: 0.1 contracts at 20 are left, and under the fee of 1.5."""
    bars = (100, 100, (100, 100, 20, 20), 20)
    account = account_of(capital=10.0)
    result = play(*bars, targets=(1.0, NAN, 0.0), venue=fixed(1.5), account=account)

    assert equities(result)[-1] == is_(10 - 1.5 - 0.1 * 80)
    assert result.bars["position"].iloc[-1] == is_(0.1)


def crashed(**liquidation):
    """Run a long 5x that is liquidated at 4,000 / 47.5 in the bar after it was bought."""
    venue = venue_of(
        slippage={"rate": 0.0, "impact_window": "4h"},
        liquidation={"fee": 0.0, "slippage": 0.0, **liquidation},
    )
    bars = (*CLOSES, 100.0, (100, 100, 80, 90))
    return play(*bars, targets=(*[NAN] * 4, 5.0, NAN), venue=venue, volume=10.0)


def test_a_liquidation_is_worsened_by_the_impact_of_its_size():
    result = crashed(impact=0.5, slippage=0.01)

    # the four returns and volumes that end with the bar before the liquidation
    closes = np.array([*CLOSES, 100.0])[-5:]
    sigma = np.diff(np.log(closes)).std(ddof=1) * math.sqrt(24)
    daily_volume = 10 * closes[1:].mean() * 24
    notional = 50 * 4000 / 47.5
    impact = 0.5 * sigma * math.sqrt(notional / daily_volume)
    assert impact > 0.01

    assert result.metrics["liquidation_loss"] == is_(notional * (0.01 + impact))
    assert happened(result, "liquidation")["price"].iloc[0] == is_(4000 / 47.5)
    assert result.metrics["impact"] == 0.0


def test_each_step_of_a_liquidation_has_its_own_impact():
    whole = crashed(impact=0.5, mode="partial", step=1.0).metrics["liquidation_loss"]
    halves = crashed(impact=0.5, mode="partial", step=0.5)

    # half of the size at the root of a half of its impact
    first = happened(halves, "liquidation_loss")["amount"].iloc[0]
    assert first == is_(whole * 0.5 * math.sqrt(0.5))


class Steps(bt.Policy):
    """Buy at the first close and keep it; the settings are those of a column."""

    size: Annotated[float, bt.Range(0.1, 20.0)] = 2.0

    def observe(self, market):
        return {"setting": market.columns["setting"]}

    def leverage(self, bar, account):
        return self.size if account.days < 0.05 else math.nan

    def venue_leverage(self, bar, account):
        return bar.setting


def make_market(closes=SAFE, settings=(math.nan, 5.0, math.nan, 10.0, math.nan, math.nan), **terms):
    """Hours at these closes, each opening at the close before; the decision of each close.

    A first setting that is NaN is the account's 10x: a policy is asked once its column is known.
    """
    close = np.array(closes, dtype=float)
    settings = [10.0 if math.isnan(settings[0]) else settings[0], *settings[1:]]
    return market_of(close, start="2024-01-01", setting=settings, terms=terms)


def live(market, policy=None, **terms):
    """Run decided settings on 1,000 of capital, isolated, at 10x unless said otherwise."""
    account = {"capital": 1000.0, "margin": "isolated", "venue_leverage": 10.0, **terms}
    settings = {"venue": VENUE, "account": bt.Account(**account), "compile": False}
    return bt.run(market, policy or Steps(), **settings)


def decided(closes=SAFE, settings=(NAN, 5.0, NAN, 10.0, NAN, NAN), size=2.0, paid=None, **account):
    """Run settings of each close, when it is called; 20 are bought at 100 and 10x."""
    terms = {}
    if paid is not None:
        terms = {"funding": paid, "funding_gaps": "zero"}
    return lambda: live(make_market(closes, settings, **terms), Steps(size=size), **account)


def moved(kind, hour, amount):
    return {f"{kind}.hours": [hour], f"{kind}.amount": [amount]}


POSTED = [200, 400, 400, 200, 200]
PAID = pd.DataFrame({"rate": [0.01], "mark": [100.0]}, index=[START + 2 * pd.Timedelta("1h")])
SETTINGS: Hand = {
    # 200 of margin, 400 from bar 2 on, 200 from bar 4 on; no cost, no profit
    "from 10x to 5x and back the liquidation price is that of the venue": (
        decided(),
        {**moved("margin_added", 2, 200), **moved("margin_returned", 4, 200),
         "margin": [0, *POSTED], "equity": [1000, 1000, 1020, 1040, 1020, 1000],
         "cash": [1000, 800, 600, 600, 800, 800],
         "liquidation_price": [
             NAN, *(bt.margin.liquidation_price(VENUE, 20.0, 100.0, each) for each in POSTED)]}),
    # 80 at 10x post 800; 5x asks 800 more of a wallet of 200
    "the wallet gives what it has and the rest is refused once": (
        decided(settings=(NAN, 5.0, 5.0, NAN, NAN, NAN), size=8.0),
        {**moved("margin_added", 2, 200), **moved("margin_refused", 2, 600),
         "margin": [0, 800, *[1000] * 4]}),
    # 400 are posted, at 95: 20x asks for 100, but 95 of initial margin and 100 are lost
    "margin returns down to the initial margin and the loss": (
        decided((100, 100, 95, 95, 100), (5.0, NAN, 20.0, 20.0, NAN)),
        {**moved("margin_returned", 3, 205), **moved("margin_refused", 3, 95), "margin": 195}),
    # 2,000 allow 20x: 100 of margin, where 40x asked for 50; infinite asks for the most
    "a setting is cut to what the bracket allows": (
        decided(settings=(NAN, 40.0, *[NAN] * 4)),
        {**moved("margin_refused", 2, 50), "margin": 100}),
    # the profit of 100 does not stand in for the 100 that 20x asks of the entry
    "what returns leaves the margin of the entry": (
        decided((100, 105, 105, 105), (NAN, 40.0, NAN, NAN)),
        {**moved("margin_returned", 2, 100), **moved("margin_refused", 2, 50), "margin": 100}),
    "a notional at the cap has the setting of its bracket": (
        decided(settings=(NAN, 20.0, *[NAN] * 4), size=10.0), moved("margin_returned", 2, 500)),
    "an infinite setting is what the bracket allows": (
        decided(settings=(NAN, INF, *[NAN] * 4)), {"margin_refused.n": 0, "margin": 100}),
    # at 20x 9,500 may grow past 10,000, where 10x is the most: asking for 20x again changes 0
    "a position beyond its bracket is not forced to the lower setting": (
        decided((100, 100, 110, 110), [20.0] * 4, size=9.5, venue_leverage=20.0),
        {"margin": [0, 475, 475, 475]}),
    # a payment of 1 % of 2,000 leaves 180 of 200; asking for 10x again brings 20 back
    "funding is made good where the setting is asked again": (
        decided(settings=[10.0] * 6, paid=PAID), moved("margin_added", 2, 20)),
}  # fmt: skip


@by_hand(SETTINGS)
def test_settings_that_policies_decide(run, numbers):
    check_numbers(run(), numbers)


def test_margin_that_rounding_leaves_is_not_refused():
    """1e-7 of a million is rounding, and of a hundred it is not."""
    bar = SimpleNamespace(
        scratch=SimpleNamespace(walk=[SimpleNamespace(is_new_setting=0.0)]),
    )
    for wanted, answer in ((1e6, 0.0), (100.0, 1.0)):
        refusal = margin_moves.log_refused(bar, 0, 0, wanted, refused=1e-7, was_refused=1.0)
        assert refusal == answer


def test_an_isolated_position_takes_nothing_that_a_cross_one_needs():
    """B in cross at 5x of 10x needs 500 of the 800 left; A may take 300 of the 400 it asks for."""
    deciding = make_market(settings=(NAN, 10 / 3, *[NAN] * 4))
    markets = bt.Markets({"A": deciding, "B": make_market([100.0] * 6, [NAN] * 6)})
    policies = {"A": Steps(), "B": Constant(leverage=5.0)}
    account = bt.Account(capital=1e3, margin={"A": "isolated", "B": "cross"}, venue_leverage=10.0)
    signal = {"A": 1.0, "B": 1.0}

    result = bt.run(markets, policies, venue=VENUE, account=account, signal=signal, compile=False)

    check_numbers(result, moved("margin_added", 2, 300) | moved("margin_refused", 2, 100))


@pytest.mark.parametrize(("policy", "margin"), [
    (Capped(Steps(), cap=3.0), 400.0),
    (Average(Steps(), Constant(leverage=2.0)), 400.0),
    (Capped(Capped(Steps(), cap=4.0), cap=3.0), 400.0),
])  # fmt: skip
def test_combinators_keep_the_setting_of_their_policies(policy, margin):
    """5x of 2,000 is 400, whatever combines the policy."""
    assert sets_margin(policy)

    assert live(make_market(), policy).positions["margin"].iloc[2] == pytest.approx(margin)


class Answers(bt.Policy):
    value: ClassVar[object] = 0.0

    def leverage(self, bar, account):
        return 1.0

    def venue_leverage(self, bar, account):
        return self.value


@pytest.mark.parametrize("value", [0.0, -math.inf, "10", None, (5.0, 1.0)])
def test_an_answer_that_is_no_setting_is_refused(value):
    """Zero, negative or no number: an error that names the method, the value and the bar."""
    policy = type("Bad", (Answers,), {"value": value, "__doc__": "Bad."})()

    with pytest.raises(bt.PolicyError, match="venue_leverage") as caught:
        live(make_market(), policy)

    assert "bar 0" in str(caught.value)


def assigns(self, bar, account):
    self.seen = bar.close
    return 5.0


def derive(method):
    return type("Odd", (Steps,), {"venue_leverage": method, "__doc__": "Odd."})


def scale():
    account = bt.Account(capital=1000.0, margin="isolated", venue_leverage=10.0)
    markets = bt.Markets({"A": make_market()})
    bt.run(markets, Constant(), venue=VENUE, account=account, overlay=Answers())


@pytest.mark.parametrize(("make", "words"), [  # what is called, and words of its refusal
    (lambda: derive(5.0), "must be a plain method"),
    (lambda: live(make_market(), derive(assigns)()), "Odd.venue_leverage raised"),
    (lambda: live(make_market(), margin="cross"), "got 'cross'"),
    (lambda: live(make_market(), margin={"market": "cross"}), "margin of market must be"),
    (scale, "overlay must not define venue_leverage"),
])  # fmt: skip
def test_bad_input_is_refused(make, words):
    check_refused(make, words)
