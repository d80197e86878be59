"""Margin multipliers, gaps, stops, liquidations, bad debt and ruin, by hand."""

import math

import numpy as np

import backtest as bt
from backtest.results.ranking import order_sets
from tests.scenes import (
    FEE,
    INF,
    LP,
    NAN,
    ONCE,
    TEN,
    Hand,
    account_of,
    bracket,
    by_hand,
    check_numbers,
    dies,
    happened,
    is_,
    isolated,
    later,
    play,
    series,
    slip,
    venue_of,
)

HALVES = {"mode": "partial", "step": 0.5}
SECOND = (9000 - 50 * LP) / 47.5
"""Where the half that is left of 10x is liquidated: -9000 + 50 LP + 50 P = 2.5 P."""
TWO = [bracket(0.0, 5000.0, 16.0, 0.05), bracket(5000.0, INF, 8.0, 0.1)]
FIVE = (5.0, NAN)
"""Five times long from the second bar on."""
DEEP = (100, 100, 80, 100)
DEAD = (100, 100, 94, 94)
FILLED = LP * 0.99
LOSS = 100 * (LP - FILLED) + 0.01 * 100 * FILLED
GRADUAL = {"margin_call": 0.9, "top_up_to": 0.5, "reserve": 500.0}
HAND: Hand = {
    "the multiplier divides the allowed leverage of new orders": (
        later(100, 100, targets=INF, venue=venue_of(margin_multiplier=2.0)), {"leverage": 8}),
    # at x = 2 the requirement is 0.1 x 10,000 = the equity: the gap check of bar 3 liquidates
    "the multiplier scales maintenance from the bar it holds for": (
        later(*[100] * 4, targets=TEN, venue=venue_of(margin_multiplier=series({0: 1.0, 3: 2.0}))),
        {"liquidation.hours": [3], "liquidation.price": [100], "margin_ratio": [0, 0.5, 0.5, 0]}),
    # 16 / 4 = 4 is all that is allowed: 2,000 posts 500
    "an isolated setting yields to the multiplier": (
        later(100, 100, targets=2.0, venue=venue_of(margin_multiplier=4.0), account=isolated()),
        {"margin": 500}),
    # the 5x of bar 1 is dropped; the 1x of bar 2 fills at the open of bar 3: 300 / 93
    "a decision waits for the close after a gap": (
        later(100, 100, 93, 93, targets=(10.0, 5.0, 1.0)), {"position": [0, 100, 0, 300 / 93]}),
    "liquidation is not tested on last prices": (
        later(100, 100, DEEP, targets=TEN, mark=[100] * 3), {"liquidation.n": 0}),
    "liquidation is tested on mark prices": (
        later(100, 100, 100, targets=TEN, mark=[100, 100, DEEP]), {"liquidation.price": [LP]}),
    "the stop is tested on last prices": (
        later(100, 100, DEEP, targets=ONCE, mark=[100] * 3, account=account_of(stop_loss=0.05)),
        {"stop.price": [95]}),
    "the stop is not tested on mark prices": (
        later(100, 100, 100, targets=ONCE, mark=[100, 100, DEEP],
              account=account_of(stop_loss=0.05)),
        {"stop.n": 0}),
    "where both are gapped the liquidation comes first, at the mark open": (
        later(100, 100, 97, targets=TEN, mark=[100, 100, 94], account=account_of(stop_loss=0.02)),
        {"liquidation.price": [94], "stop.n": 0}),
    "the gap check stops on the last open": (
        later(100, 100, 97, targets=TEN, mark=[100, 100, 99], account=account_of(stop_loss=0.02)),
        {"stop.price": [97]}),
    # 10 bought at 101; the stop at 95.95 fills at 94.9905
    "a stop is worsened by slippage": (
        later(100, (100, 100, 90, 95), targets=ONCE, venue=slip(0.01),
              account=account_of(stop_loss=0.05)),
        {"stop.price": [0.95 * 101 * 0.99], "equity": 1000 - 10 * (101 - 94.9905)}),
    "a touch is a stop": (
        later(100, (100, 100, 95, 100), targets=ONCE, account=account_of(stop_loss=0.05)),
        {"stop.n": 1}),
    "an equity that is the requirement to the last bit fails": (
        later(100, 100, targets=16.0, venue=venue_of(brackets=[bracket(rate=1 / 16)])),
        {"liquidation.price": [100]}),
    # P = 94.7368, filled 93.7895: 94.7368 lost; fee 0.01 x 9,378.95; 473.684 - 94.737 - 93.789
    "a liquidated position is closed worsened and pays the fee": (
        later(100, DEAD, targets=TEN, venue=dies(fee=0.01, slippage=0.01)),
        {"liquidation.price": [LP], "liquidation.amount": [100 * LP],
         "liquidation_loss.total": LOSS, "equity": 1000 - 100 * (100 - LP) - LOSS}),
    # 0.2 x 9,473.7 is more than the 473.684 that is left
    "the liquidation fee never makes a shortfall": (
        later(100, DEAD, targets=TEN, venue=dies(fee=0.2)),
        {"liquidation_loss.total": 0.05 * 100 * LP, "bad_debt.total": 0, "equity": 0}),
    # 500 posted for 50 contracts, 1,000 lost
    "an isolated shortfall leaves the wallet as it was": (
        later(100, 100, 80, targets=FIVE, account=isolated()),
        {"bad_debt.total": 500, "equity": 500, "metrics.ruined": 0}),
    # 500 + 50 (P - 100) = 2.5 P: P = 94.7368, 236.84 left
    "what is left of an isolated margin returns to the wallet": (
        later(100, (100, 100, 90, 90), targets=FIVE, account=isolated()),
        {"cash": 500 + 2.5 * LP, "margin": 0}),
    "a takeover takes all that backs a cross position": (
        later(100, DEAD, targets=TEN, venue=dies(mode="takeover")),
        {"equity": 0, "liquidation_loss.total": 5 * LP}),
    "a takeover takes the margin of an isolated position": (
        later(100, DEAD, targets=FIVE, venue=dies(mode="takeover"), account=isolated()),
        {"equity": 500, "liquidation_loss.total": 2.5 * LP}),
    "a takeover after bankruptcy books bad debt": (
        later(100, 100, 80, targets=TEN, venue=dies(mode="takeover")),
        {"bad_debt.total": 1000, "liquidation_loss.total": 0}),
    **{
        f"a partial liquidation steps down while the extreme is beyond, {low}": (
            later(100, (100, 100, low, 95), targets=TEN, venue=dies(**HALVES)),
            {"position": left, "liquidation.price": prices})
        for low, left, prices in ((90, 50, [LP]), (89, 25, [LP, SECOND]))
    },
    **{  # liquidated at 94.74; a tie goes to the liquidation
        f"the nearer of stop and liquidation acts first, {stop:.4g}": (
            later(100, 100, (100, 101, 90, 95), targets=TEN, account=account_of(stop_loss=stop)),
            {"stop.price": stops, "liquidation.price": dead})
        for stop, stops, dead in ((0.05, [95], []), (0.06, [], [LP]), (1 - LP / 100, [], [LP]))
    },
    # last open 104, stop 95: 8.65 % away. Mark open 100, liquidation 94.74: 5.26 % away
    "distances are from the own open of each": (
        later(100, 100, (104, 104, 90, 95), targets=TEN, mark=[100, 100, (100, 100, 90, 95)],
              account=account_of(stop_loss=0.05)),
        {"liquidation.n": 1, "stop.n": 0}),
    "a short stops on the way up": (
        later(100, (100, 110, 100, 100), targets=TEN, signal=-1.0,
              account=account_of(stop_loss=0.03)),
        {"stop.price": [103]}),
    # 11,000 - 100 P = 5 P
    "a short dies on the way up": (
        later(100, (100, 110, 100, 100), targets=TEN, signal=-1.0),
        {"liquidation.price": [11_000 / 105]}),
    # 94.74 liquidates a half; of the rest the stop at 92 is nearer than 89.75
    "the stop acts on what a partial liquidation leaves": (
        later(100, (100, 100, 91, 95), targets=TEN, venue=dies(**HALVES),
              account=account_of(stop_loss=0.08)),
        {"liquidation.n": 1, "stop.n": 1, "equity": 1000 - 50 * (100 - LP) - 50 * 8}),
    # with 5 % each half fails as the one before: 236.842 <= 236.842, 118.42 <= 118.42, ...
    "a partial liquidation goes on until nothing is left": (
        later(100, (100, 100, LP, 95), targets=TEN, venue=dies(**HALVES, slippage=0.05)),
        {"position": 0, "metrics.bad_debt": 0}),
    # at P: equity 473.684 for 9,473.7. Half sold 4 % worse costs 189.47: 284.21 for 4,736.8 needs
    # 236.84, and holds
    "a partial liquidation stops where the requirement holds": (
        later(100, DEAD, targets=TEN, venue=dies(**HALVES, slippage=0.04)), {"position": 50}),
    # amount 5,000 x 0.05 = 250: -7,000 + 80 P = 8 P - 250, P = 93.75; 5,000 / 93.75 are left
    "a step of a bracket reduces to its floor": (
        later(100, (100, 100, 93, 95), targets=(8.0, NAN),
              venue=venue_of(brackets=TWO, liquidation={"mode": "partial", "step": "bracket"})),
        {"liquidation.price": [93.75], "position": 5000 / 93.75}),
    **{
        f"a small position is closed whole: {full_below} of 9,473.7": (
            later(100, DEAD, targets=TEN, venue=dies(**HALVES, full_below=full_below)),
            {"position": left})
        for full_below, left in ((9473.0, 50), (9474.0, 0))
    },
    # 100 contracts at 92 owe 9,000, health 8,740 / 9,000 = .971; a sale at 91.08 brings 99 % of it
    "a step at a low health repays the debt out of what the sale brings": (
        later(100, 100, 92, targets=TEN, venue=dies(
            **HALVES, fee=0.01, slippage=0.01, full_below_health=0.98)),
        {"liquidation.quantity": [-9000 / (0.99 * 91.08)]}),
    **{  # 11,000 of cash, at 106 a debt of 10,600 and 530 of maintenance: health .98832
        f"a short of low health is bought back whole, {health}": (
            later(100, 100, 106, targets=TEN, signal=-1.0,
                  venue=dies(**HALVES, full_below_health=health)),
            {"position": left})
        for health, left in ((0.988, -50), (0.989, 0))
    },
    # the margin has lost what the half lost: 1,000 - 50 x 5.263; the wallet stays empty
    "what an isolated step frees stays in the margin": (
        later(100, (100, 100, 92, 95), targets=TEN, venue=dies(**HALVES), account=isolated()),
        {"margin": 1000 - 50 * (100 - LP), "cash": 0}),
    # 1,000 + 100 (P - 100) = 500
    "the requirement may be valued at the entry": (
        later(100, DEAD, targets=TEN, venue=venue_of(maintenance_at="entry")),
        {"liquidation.price": [95]}),
    # -9,000 + 100 P = 0.06 x 100 P
    "the fee of closing may be part of the requirement": (
        later(100, DEAD, targets=TEN, venue=venue_of(
            includes_close_fee=True, fees={"taker": 0.01, "maker": 0.0, "maker_share": 1})),
        {"liquidation.price": [90 / 0.94]}),
    # 52 contracts: 5,200 at entry, in the second bracket; the root of the first:
    # 700 - 5,200 + 52 P = 2.6 P, P = 91.09, 4,737 in notional
    "the bracket is the one at the tested price": (
        later(100, (100, 100, 90, 95), targets=(5200 / 700, NAN), venue=venue_of(brackets=TWO),
              account=account_of(capital=700.0)),
        {"liquidation.price": [4500 / 49.4]}),
    "halt ends the run flat": (
        later(100, DEAD, 94, 94, targets=(10.0, 1.0), account=account_of(after_liquidation="halt")),
        {"position": [0] * 4, "equity": [1000, 5 * LP, 5 * LP, 5 * LP]}),
    "halt closes what a partial liquidation left at the next open": (
        later(100, (100, 100, 92, 95), 96, 96, targets=(10.0, 1.0), venue=dies(**HALVES),
              account=account_of(after_liquidation="halt")),
        {"position": [0, 50, 0, 0], "equity": 1000 - 50 * (100 - LP) - 50 * 4}),
    # ----- ruin: 100 P - 9,000 = 0.05 x 100 P, where the fee of 0.05 x 9,473.68 is all that is left
    "a fee of the maintenance rate leaves nothing": (
        later(100, 100, (100, 100, 90, 95), 95, 95, targets=10.0, venue=venue_of(
            brackets=[bracket(leverage=20.0, rate=0.05)], liquidation={"fee": 0.05})),
        {"equity": [1000, 1000, 0, 0, 0], "metrics.ruined": 1, "metrics.ruin_time": 3 / 24,
         "ruin.quantity": [0], "fill.n": 1}),
    # 50 contracts at 100; at 91 the equity is 1,000 - 450 = 550, 55 % of the capital
    "a loss to the line closes the account at the mark close": (
        later(100, 100, (100, 100, 91, 91), 91, 120, targets=FIVE,
              account=account_of(ruin_at=0.55)),
        {"equity": [1000, 1000, 550, 550, 550], "position": [0, 50, 0, 0, 0], "ruin.price": [91],
         "ruin.quantity": [-50], "ruin.amount": [50 * 91], "metrics.ruined": 1,
         "metrics.ruin_time": 3 / 24, "metrics.cagr": -1, "metrics.final_equity": 550,
         "metrics.total_return": -0.45, "metrics.leverage_decay": NAN}),
    "a loss short of the line is no ruin": (
        later(100, 100, (100, 100, 91, 91), 91, 120, targets=FIVE,
              account=account_of(ruin_at=0.5499)),
        {"equity": 1000 + 50 * 20, "metrics.ruined": 0}),
    # 2,000 post 500 at 4x; 20 contracts lose 14 each: 720 are left, wallet 500 and 500 - 280
    "an isolated account ends with wallet and margin": (
        later(100, 100, (100, 100, 86, 86), 86, targets=(2.0, NAN),
              account=isolated(4.0, ruin_at=0.72)),
        {"equity": [1000, 1000, 720, 720], "cash": 720, "margin": 0, "metrics.ruined": 1}),
    **{  # 1,000 and 1,000 paid in at bar 2; 50 contracts lose 500 each at 90 and at 80
        f"a deposit adds to the capital paid in, {line}": (
            later(100, 100, (100, 100, 90, 90), (90, 90, 80, 80), 80, targets=FIVE,
                  account=account_of(ruin_at=line, flows=series({2: 1000.0}))),
            {"metrics.ruined": ruined, "metrics.ruin_time": time,
             "equity": [1000, 1000, 1500, 1000, 1000]})
        for line, ruined, time in ((0.49, 0, NAN), (0.51, 1, 4 / 24))
    },
    **{  # 1,000 in the account and 500 in the reserve; at 90 the wealth is 500 + 500 of 1,500
        f"wealth and the capital paid in count the reserve, {line}": (
            later(100, 100, (100, 100, 90, 90), 90, targets=FIVE,
                  account=account_of(ruin_at=line, **GRADUAL)),
            {"metrics.ruined": ruined, "metrics.final_equity": 500})
        for line, ruined in ((0.66, 0), (0.67, 1))
    },
    **{  # 600 of 1,000 and a reserve of 500 leave: 900 are paid in; 20 contracts lose 7 each
        f"a withdrawal takes its share of what was paid in with the reserve, {line}": (
            later(100, 100, (100, 100, 93, 93), 93, targets=FIVE,
                  account=account_of(ruin_at=line, flows=series({1: -600.0}), **GRADUAL)),
            {"equity": [1000, 400, 260, 260], "metrics.ruined": ruined})
        for line, ruined in ((0.84, 0), (0.85, 1))
    },
    **{  # a lot of 6 bought at 100 and sold at 60: 760 are left, and a lot is worth 6 x close
        f"a flat account under one lot is ruined, {close}": (
            later(100, 100, (60, close, 60, close), close, targets=(1.0, 0.0),
                  venue=venue_of(contract={"lot": 6.0}), account=account_of(max_leverage=1.0)),
            {"equity": [1000, 1000, 760, 760], "metrics.ruined": ruined})
        for close, ruined in ((130, 1), (126, 0))
    },
    **{  # 760 bought at a fee of 1 % and sold at 60 of 100: 1,000 - 7.6 - 304 - 4.56 = 683.84
        f"a flat account under the least order is ruined, {most}x": (
            later(100, 100, (100, 100, 60, 60), 60, 60, targets=(0.76, NAN, 0.0),
                  venue=venue_of(contract={"min_notional": 700.0},
                                 fees={"taker": 0.01, "maker": 0.0}),
                  account=account_of(max_leverage=most)),
            {"metrics.final_equity": 683.84, "metrics.ruined": ruined, "metrics.ruin_time": time})
        for most, ruined, time in ((1.0, 1, 4 / 24), (2.0, 0, NAN))
    },
    "an account that never could trade is not ruined": (
        later(100, 90, 80, 70, venue=venue_of(contract={"min_notional": 5000.0}),
              account=account_of(max_leverage=1.0)),
        {"metrics.ruined": 0}),
}  # fmt: skip
CALL = {"margin_call": 0.8, "top_up_to": 0.5, "reserve": 500.0}
LITTLE = account_of(**{**CALL, "reserve": 20.0})


@by_hand(HAND)
def test_liquidation_and_ruin_of_one_instrument(run, numbers):
    check_numbers(run(), numbers)


def test_scaled_rates_are_capped_at_1_and_the_amounts_follow():
    venue = venue_of(brackets=[bracket(0.0, 1000.0, 10.0, 0.05), bracket(1000.0, INF, 5.0, 0.1)])

    # x = 15: rates 0.75 and min(1, 1.5) = 1; amount 1,000 x 0.25; MM(2,000) = 2,000 - 250
    assert bt.margin.maintenance(venue, 2000.0, 15.0) == is_(1750.0)
    assert bt.margin.maintenance(venue, 2000.0, 1.0) == is_(150.0)
    assert bt.margin.maintenance(venue, 2000.0, 100.0) == is_(2000.0)


def test_an_equity_of_a_billionth_of_the_capital_is_none():
    # 9 of 10 are lost at each close: after nine such bars 1e-9 of the capital is left
    bars = [(p, p, 0.9 * p, 0.9 * p) for p in 100.0 * 0.9 ** np.arange(12)]
    venue = venue_of(brackets=[bracket(leverage=20.0, rate=0.001)])
    result = play(100, *bars, targets=9.0, venue=venue)

    ruined_at = happened(result, "ruin")["time"].iloc[0]
    left = result.bars["equity"].loc[ruined_at]
    before = result.bars["equity"].shift(1).loc[ruined_at]
    assert (left, before) == (is_(1e-6), is_(1e-5))
    assert result.metrics["final_equity"] == left > 0.0


def test_a_withdrawal_brings_ruin_no_nearer():
    # 1,000 grow to 1,500, and 1,200 are withdrawn: 200 of the 1,000 count as still paid in
    account = account_of(ruin_at=0.9534, flows=series({4: -1200.0}))
    bars = (100, 100, (100, 110, 100, 110), 110, 110)
    targets = (5.0, NAN, 0.0, 1.0, NAN)

    # 300 / 110 contracts lose 300 x 40 / 110 = 109.09: 190.91 of 200 are 95.45 %
    alive = play(*bars, (110, 110, 70.0, 70.0), targets=targets, account=account)
    assert alive.state.wallet.paid_in == is_(200.0)
    assert alive.bars["equity"].iloc[-1] == is_(300 - 300 * 40 / 110)
    assert alive.metrics["ruined"] == 0.0

    # 300 x 41 / 110 = 111.82: 188.18 are 94.09 %
    ruined = play(*bars, (110, 110, 69.0, 69.0), targets=targets, account=account)
    assert ruined.metrics["ruined"] == 1.0


def test_interest_and_deposits_after_ruin_change_no_measure():
    venue = venue_of(interest_on="loan", cash_rate=0.365)
    account = account_of(ruin_at=0.6, flows=series({4 * 24: 1000.0}))
    bars = (100, 100, (100, 100, 90, 90), 90, 90, 90)
    result = play(*bars, targets=FIVE, venue=venue, account=account, interval="1d")

    assert result.metrics["ruined"] == 1.0
    units = result.bars["unit"].tolist()
    assert units[2:] == [units[2]] * 4
    assert result.bars["equity"].iloc[-1] > 1500.0


def test_a_constraint_that_is_met_lifts_no_ruined_set():
    places = order_sets(
        scores=np.array([9.0, 1.0, 5.0]),
        violations=np.array([0.0, 0.5, np.inf]),
        ruined=np.array([True, False, True]),
        ruin_time=np.array([2.0, math.nan, 4.0]),
        failed=np.zeros(3, dtype=bool),
    )
    assert places.tolist() == [1, 2, 0]


def called(*bars, **more):
    """Run bars after a fall to 95.5, with a call at the close of bar 1. 10x from 100 with 1,000:
    100 contracts and cash of -9,000."""
    settings = {"account": account_of(margin_call=0.8), **more}
    return later(100, (100, 100, 95.5, 95.5), *bars, targets=TEN, **settings)


def ends(made, met, failed, dead):
    """Return the measures of calls: how many were made, met, failed, and ended in liquidation."""
    return {
        "metrics.margin_calls": made,
        "metrics.calls_met": met,
        "metrics.calls_failed": failed,
        "metrics.liquidated_after_call": dead,
    }


CALLS: Hand = {
    # the ratio 5 P / (100 P - 9,000) is 0.868 at 95.5, 0.739 at 96.5
    "a margin call is one event until the ratio has been below": (
        called(95.5, 95.6, 96.5, 95.5),
        {"margin_call.hours": [1, 5], "margin_call.amount": [477.5 / 550] * 2,
         "metrics.margin_calls": 2}),
    # 477.5 / 0.5 - 550 = 405 from the reserve to the cash; the wealth is 955 + 95
    "a top-up restores the ratio at the next open, and meets the call": (
        called(95.5, account=account_of(**CALL)),
        {"top_up.total": 405, "reserve": [500, 500, 95], "margin_ratio": 0.5, "flows": 405,
         "unit": 1050 / 1500, "call_met.hours": [2], "call_met.amount": [0.5], **ends(1, 1, 0, 0)}),
    "an isolated top-up goes to the margin": (
        called(95.5, account=isolated(**CALL)), {"margin": 1405, "cash": 0}),
    **{  # 0.05 N = 0.8 x 550: N = 8,800 at the open after so many bars unmet
        f"a broker reduces an unmet call after the grace, {grace}": (
            called(*[95.5] * 4, venue=venue_of(call_grace=grace)),
            {"fill.hours": [1, bar], "position": 8800 / 95.5,
             "margin_ratio": [0, *[477.5 / 550] * (bar - 1), *[0.8] * (6 - bar)],
             "call_failed.hours": [bar], "call_failed.amount": [0.8], **ends(1, 0, 1, 0)})
        for grace, bar in ((0, 2), (2, 4))
    },
    # 550 + 20 = 570: ratio 477.5 / 570 = 0.838, still over 0.8
    "a top-up that does not suffice meets the call partly, and it fails": (
        called(95.5, account=LITTLE),
        {"call_partly_met.hours": [2], "call_failed.hours": [2],
         "call_failed.amount": [477.5 / 570], **ends(1, 0, 1, 0)}),
    "a call without a reserve is met at the close that recovers": (
        called(95.5, (95.5, 96.5, 95.5, 96.5), 96.5),
        {"call_met.hours": [3], "call_met.amount": [4.825 / 6.5], **ends(1, 1, 0, 0)}),
    # the call is made at the close of bar 1, bar 3 reaches 94.74: two hours
    "a liquidation fails an open call and is dated": (
        called(95.5, (95.5, 95.5, 94, 94), 94),
        {"call_failed.hours": [3], "metrics.time_to_liquidation_after_call": 2 / 24,
         **ends(1, 0, 1, 1)}),
    # failed at the open of bar 2; with 20 more the liquidation price is 8,980 / 95 = 94.53
    "a liquidation after a failed call counts": (
        called(95.5, 95.5, (95.5, 95.5, 94, 94), account=LITTLE),
        {"metrics.time_to_liquidation_after_call": 3 / 24, **ends(1, 0, 1, 1)}),
    "it does not count once the ratio has recovered": (
        called(95.5, (95.5, 98, 95.5, 98), (98, 98, 94, 94), account=LITTLE),
        {"metrics.time_to_liquidation_after_call": NAN, "metrics.liquidations": 1,
         **ends(1, 0, 1, 0)}),
    # at the open of 97 nothing needs to be reduced; the close is at 95.5 again
    # at 95.5 the margin is 640; .1 N - 250 = .8 x 640: N = 7,620
    "a forced reduction in a second bracket has its amount": (
        later(100, (100, 100, 95.5, 95.5), 95.5, targets=(8.0, NAN),
              account=isolated(8.0, margin_call=0.8), venue=venue_of(brackets=TWO, call_grace=0)),
        {"position": 7620 / 95.5}),
    "a grace that ends under the call meets it, and the close may call again": (
        called((97, 97, 95.5, 95.5), 97, venue=venue_of(call_grace=0)),
        {"margin_call.hours": [1, 2], "call_met.hours": [2, 3], **ends(2, 2, 0, 0)}),
    "a call met within the grace is forgotten": (
        called(95.5, 99, 99, 99, venue=venue_of(call_grace=2)), {"fill.n": 1}),
    # the reserve goes at 95.5 (405) and 91.5 (95); at 90 there is nothing left
    "a call fails at once when the reserve is empty": (
        called(95.5, (95.5, 95.5, 91.5, 91.5), 91.5, (91.5, 91.5, 90, 90), 90,
               account=account_of(**CALL)),
        {"margin_call.hours": [1, 3, 5], "call_met.hours": [2, 4], "call_failed.hours": [6],
         **ends(3, 2, 1, 0)}),
    "a call stays open where decisions fill at their close": (
        called(95.5, (95.5, 96.5, 95.5, 96.5), 96.5,
               account=account_of(margin_call=0.8, fill="same_close")),
        {"margin_call.hours": [1], "call_met.hours": [3]}),
    # the open at 99 has a ratio of 0.55, over the 0.56 to top up to; back at 95.5 at the close
    "a top-up that is not due leaves the call open to the close": (
        called((99, 99, 95.5, 95.5), (95.5, 99, 95.5, 99),
               account=account_of(**{**CALL, "top_up_to": 0.56})),
        {"margin_call.hours": [1], "call_met.hours": [3], "top_up.n": 0}),
    "a position that its owner closes meets the call": (
        later(100, (100, 100, 95.5, 95.5), 95.5, 95.5, targets=(10.0, NAN, 0.0),
              account=account_of(margin_call=0.8)),
        {"margin_call.hours": [1], "call_met.hours": [3], "call_met.amount": [0]}),
    # half goes at 94.74, and half of the rest at 9,000 - 50 x 94.74 = 4,263 / 47.5 = 89.75
    "a liquidation in steps counts once for its call": (
        called(95.5, (95.5, 95.5, 94, 94), (94, 94, 88, 88),
               venue=venue_of(liquidation={"mode": "partial", "step": 0.5})),
        {"metrics.liquidations": 2, "metrics.liquidated_after_call": 1,
         "metrics.time_to_liquidation_after_call": 2 / 24}),
    # 1e-12 contracts may be sold of 7.9: the ratio stays at 0.868, and is called again at the close
    "a broker that can hardly sell fails the call, and a new one begins": (
        called(95.5, volume=[1e12, 1e-3, 1e-3], venue=venue_of(
            call_grace=0, slippage={"rate": 0.0, "max_participation": 1e-9})),
        {"margin_call.hours": [1, 2], "call_failed.hours": [2], **ends(2, 0, 1, 0)}),
    "an isolated call ends in the same way": (
        called(95.5, (95.5, 95.5, 94, 94), account=isolated(**{**CALL, "reserve": 20.0})),
        {"margin_call.hours": [1], "call_partly_met.hours": [2], "call_failed.hours": [2],
         **ends(1, 0, 1, 1)}),
    # at 95.5 the equity is 550; 100 more make it 650: 477.5 / 650 = 0.735 at the close of bar 3
    "a deposit meets the call": (
        called(95.5, 95.5, account=account_of(margin_call=0.8, flows=series({3: 100.0}))),
        {"margin_call.hours": [1], "call_met.hours": [3]}),
    "a deposit is there for the order of its bar": (
        later(100, 100, account=account_of(flows=series({1: 1000.0}))), {"position": 20}),
    # 95.1 leaves 510 of 1,000
    "ruin fails an open call without a liquidation": (
        called((95.5, 95.5, 95.1, 95.1), account=account_of(margin_call=0.8, ruin_at=0.52)),
        {"call_failed.hours": [2], **ends(1, 0, 1, 0)}),
    # 500 posted; at 120 the profit is 1,000: equity 2,000, initial margin 600, wallet 500
    "a withdrawal from an isolated account takes the wallet at most": (
        later(100, 100, 120, 120, targets=FIVE, account=isolated(flows=series({3: -900.0}))),
        {"flow.total": -500}),
    "a withdrawal leaves the initial margin of 480 of 800": (
        later(100, 100, 96, 96, targets=FIVE, account=isolated(flows=series({3: -900.0}))),
        {"flow.total": -320}),
    # 5,000 / 16 = 312.5 must stay: 687.5 are paid out, 112.5 refused
    "a withdrawal is paid in part": (
        later(*[100] * 3, targets=FIVE, account=account_of(flows=series({2: -800.0}))),
        {"equity": 312.5, "flow.total": -687.5, "withdrawal_refused.total": 112.5}),
    "a forced reduction reaches the ratio after its costs": (
        later(100, (100, 100, 95.8, 95.8), 95.8, 95.8, targets=TEN,
              venue=venue_of(call_grace=1, fees=FEE, slippage={"rate": 0.002}),
              account=account_of(margin_call=0.8)),
        {"margin_ratio": 0.8}),
    "a flow inside a bar happens at the next open": (
        later(*[100] * 4, targets=NAN, account=account_of(flows=series({1.25: 500.0}))),
        {"equity": [1000, 1000, 1500, 1500]}),
    # 1x: the unit value grows by 0, then 10 % on 2,000, then 10 %, whatever was deposited
    "a deposit is no return": (
        later(100, 100, (100, 110, 100, 110), (110, 121, 110, 121),
              account=account_of(flows=series({2: 1000.0}))),
        {"unit": [1, 1, 1.1, 1.21], "equity": [1000, 1000, 2200, 2420],
         "metrics.total_return": 0.21}),
}  # fmt: skip


@by_hand(CALLS)
def test_calls_and_flows_of_one_instrument(run, numbers):
    check_numbers(run(), numbers)
