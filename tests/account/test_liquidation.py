"""Margin multipliers, gaps, stops, liquidations, bad debt and ruin, by hand."""

import math

import numpy as np
import pytest

import backtest as bt
from backtest.account.records import PAID_IN
from backtest.measures.ranking import order_sets
from tests.kit import Once, flat, make_market, make_venue
from tests.scenes import (
    INF,
    LP,
    NAN,
    ONCE,
    TEN,
    account_of,
    at,
    bracket,
    dies,
    equities,
    happened,
    is_,
    isolated,
    play,
    series,
    slip,
    total,
    venue_of,
)


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


@pytest.mark.parametrize(("stop", "kind", "price"), [
    (0.05, "stop", 95.0),  # nearer than 94.74
    (0.06, "liquidation", LP),  # farther
    (1 - LP / 100, "liquidation", LP),  # a tie goes to the liquidation
])  # fmt: skip
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


def test_a_touch_is_an_event():
    low = 100 * (1 - 0.05)
    result = play(100, (100, 100, low, 100), targets=ONCE, account=account_of(stop_loss=0.05))
    assert len(happened(result, "stop")) == 1
    # an equity that is the requirement to the last bit: 16x with a rate of 1/16 fails as it opens
    venue = venue_of(brackets=[bracket(rate=1 / 16)])
    result = play(100, 100, targets=16.0, venue=venue)
    assert happened(result, "liquidation")["price"].item() == is_(100.0)


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
        100, (100, 100, 94, 94), targets=(5.0, NAN), venue=dies(mode="takeover"), account=isolated()
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


def test_a_gap_past_bankruptcy_leaves_nothing_and_books_what_is_missing():
    # 2.5x in each: 25 A at 100 and 50 B at 50. The open loses 25 x 40 + 50 x 10 = 1,500 of 1,000
    prices = {"A": [flat(100), flat(100), flat(60)], "B": [flat(50), flat(50), flat(40)]}
    markets = bt.Markets({k: make_market(rows) for k, rows in prices.items()}, currency="USDT")
    account = bt.Account(capital=1_000.0)
    result = bt.run(markets, Once(5.0), venue=make_venue(), account=account)
    assert result.bars["bad_debt"].tolist() == [0.0, 0.0, pytest.approx(500.0)]
    assert result.bars["equity"].tolist() == [1_000.0, 1_000.0, 0.0]


@pytest.mark.filterwarnings("ignore:the history of A ends:UserWarning")
def test_a_fee_of_delisting_that_cannot_be_paid_is_bad_debt():
    # 50 A for a fee of 500. At 95 the equity is 250, over 5 % of 4,750; to close costs 475
    prices = {"A": [flat(100), flat(100), (100, 100, 95, 95)], "B": [flat(50)] * 4}
    markets = bt.Markets({k: make_market(rows) for k, rows in prices.items()}, currency="USDT")
    terms = {"venue": make_venue(taker=0.1), "account": bt.Account(capital=1_000.0)}
    result = bt.run(markets, Once(5.0), signal={"A": 1.0, "B": 0.0}, **terms)
    assert result.bars["bad_debt"].tolist() == [0.0, 0.0, pytest.approx(225.0), 0.0]
    assert result.bars["equity"].tolist() == [1_000.0, 500.0, 0.0, 0.0]


@pytest.mark.filterwarnings("ignore:the history of A ends:UserWarning")
def test_the_margin_of_an_isolated_position_pays_no_debt_of_the_account():
    # 45 A for a fee of 450, 10 B for one of 50 and a margin of 100: 400 left. A loses 135 and
    # costs 436.5 to close
    prices = {"A": [flat(100), flat(100), (100, 100, 97, 97)], "B": [flat(50)] * 4}
    markets = bt.Markets({k: make_market(rows) for k, rows in prices.items()}, currency="USDT")
    margin = {"A": "cross", "B": "isolated"}
    account = bt.Account(capital=1_000.0, margin=margin, venue_leverage={"A": 20.0, "B": 5.0})
    terms = {"venue": make_venue(taker=0.1), "account": account}
    result = bt.run(markets, Once(5.0), signal={"A": 0.9, "B": 0.1}, **terms)
    assert result.bars["bad_debt"].tolist() == [0.0, 0.0, pytest.approx(171.5), 0.0]
    assert result.bars["equity"].tolist() == [1_000.0, 500.0, 100.0, 100.0]
    assert result.quantities.iloc[-1].tolist() == [0.0, 10.0]


# -------------------------------------------------------------------------------------------- ruin
FIVE = (5.0, NAN)
"""Five times long from the second bar on."""


def test_a_fee_of_the_maintenance_rate_leaves_nothing():
    # 100 contracts at 100 against -9,000 of cash; 100 P - 9,000 = 0.05 x 100 P at P = 94.7368,
    # where the fee of 0.05 x 9,473.68 is all of the 473.68 that are left
    venue = venue_of(brackets=[bracket(leverage=20.0, rate=0.05)], liquidation={"fee": 0.05})
    result = play(100, 100, (100, 100, 90, 95), 95, 95, targets=10.0, venue=venue)
    assert equities(result)[2:] == [0.0, 0.0, 0.0]
    assert result.metrics["ruined"] == 1.0
    assert result.metrics["ruin_time"] == is_(3 / 24)
    assert happened(result, "ruin")["quantity"].tolist() == [0.0]
    assert len(happened(result, "fill")) == 1


def test_an_equity_of_a_billionth_of_the_capital_is_none():
    # 9 of 10 are lost at each close: after nine such bars 1e-9 of the capital is left
    bars = [(p, p, 0.9 * p, 0.9 * p) for p in 100.0 * 0.9 ** np.arange(12)]
    venue = venue_of(brackets=[bracket(leverage=20.0, rate=0.001)])
    result = play(100, *bars, targets=9.0, venue=venue)
    ruin = happened(result, "ruin")
    left = result.bars["equity"].loc[ruin["time"].iloc[0]]
    before = result.bars["equity"].shift(1).loc[ruin["time"].iloc[0]]
    assert (left, before) == (is_(1e-6), is_(1e-5))
    assert result.metrics["final_equity"] == left > 0.0


def test_a_loss_to_the_line_closes_the_account_at_the_mark_close():
    # 50 contracts at 100; at 91 the equity is 1,000 - 450 = 550, 55 % of the capital
    bars = (100, 100, (100, 100, 91, 91), 91, 120)
    result = play(*bars, targets=FIVE, account=account_of(ruin_at=0.55))
    assert equities(result) == [1000.0, 1000.0, 550.0, 550.0, 550.0]
    row = happened(result, "ruin").iloc[0]
    assert (row["price"], row["quantity"], row["amount"]) == (91.0, -50.0, 50.0 * 91.0)
    assert result.bars["position"].tolist() == [0.0, 50.0, 0.0, 0.0, 0.0]
    metrics = result.metrics
    assert (metrics["ruined"], metrics["ruin_time"]) == (1.0, is_(3 / 24))
    assert (metrics["cagr"], metrics["final_equity"]) == (-1.0, 550.0)
    assert metrics["total_return"] == is_(-0.45)
    assert math.isnan(metrics["leverage_decay"])
    spared = play(*bars, targets=FIVE, account=account_of(ruin_at=0.5499))
    assert equities(spared)[-1] == 1000.0 + 50 * 20
    assert spared.metrics["ruined"] == 0.0


def test_an_isolated_account_ends_with_wallet_and_margin():
    # 2,000 of notional posts 500 at 4x; at 70 the loss is 600: the margin goes, the wallet stays
    account = isolated(4.0, ruin_at=0.72)
    result = play(100, 100, (100, 100, 86, 86), 86, targets=(2.0, NAN), account=account)
    # 20 contracts lose 14 each: 720 are left, wallet 500 and margin 500 - 280
    assert equities(result)[2:] == [720.0, 720.0]
    assert result.bars[["cash", "margin"]].iloc[-1].tolist() == [720.0, 0.0]
    assert result.metrics["ruined"] == 1.0


def test_a_deposit_adds_to_the_capital_paid_in():
    # 1,000 and 1,000 paid in at bar 2; 50 contracts lose 500 each at 90 and at 80
    flows = series({2: 1000.0})
    bars = (100, 100, (100, 100, 90, 90), (90, 90, 80, 80), 80)
    kept = play(*bars, targets=FIVE, account=account_of(ruin_at=0.49, flows=flows))
    lost = play(*bars, targets=FIVE, account=account_of(ruin_at=0.51, flows=flows))
    assert equities(kept)[2:] == [1500.0, 1000.0, 1000.0]
    assert (kept.metrics["ruined"], lost.metrics["ruined"]) == (0.0, 1.0)
    assert lost.metrics["ruin_time"] == is_(4 / 24)


def test_a_withdrawal_brings_ruin_no_nearer():
    # 1,000 grow to 1,500, of which 1,200 are withdrawn: 200 of the 1,000 count as still paid in
    flows = series({4: -1200.0})
    bars = (100, 100, (100, 110, 100, 110), 110, 110)
    targets = (5.0, NAN, 0.0, 1.0, NAN)
    last = [(110, 110, low, low) for low in (70.0, 69.0)]
    account = account_of(ruin_at=0.9534, flows=flows)
    kept = play(*bars, last[0], targets=targets, account=account)
    # 300 / 110 contracts lose 300 x 40 / 110 = 109.09: 190.91 of 200 are 95.45 %
    assert kept.state.wallet[PAID_IN] == is_(200.0)
    assert kept.bars["equity"].iloc[-1] == is_(300 - 300 * 40 / 110)
    assert kept.metrics["ruined"] == 0.0
    # 300 x 41 / 110 = 111.82: 188.18 are 94.09 %
    assert play(*bars, last[1], targets=targets, account=account).metrics["ruined"] == 1.0


def test_what_was_withdrawn_is_no_loss():
    flows = series({2: -900.0})
    result = play(*[100] * 5, targets=0.0, account=account_of(ruin_at=0.9, flows=flows))
    assert equities(result)[-1] == 100.0
    assert result.state.wallet[PAID_IN] == is_(100.0)
    assert result.metrics["ruined"] == 0.0


def test_wealth_counts_the_reserve_and_so_does_the_capital_paid_in():
    # 1,000 in the account and 500 in the reserve; at 90 the wealth is 500 + 500 of 1,500
    terms = {"reserve": 500.0, "margin_call": 0.9, "top_up_to": 0.5}
    bars = (100, 100, (100, 100, 90, 90), 90)
    for line, ruined in ((0.66, 0.0), (0.67, 1.0)):
        result = play(*bars, targets=FIVE, account=account_of(ruin_at=line, **terms))
        assert result.metrics["ruined"] == ruined
        assert result.metrics["final_equity"] == 500.0


def test_interest_and_deposits_after_ruin_change_no_measure():
    venue = venue_of(interest_on="loan", cash_rate=0.365)
    account = account_of(ruin_at=0.6, flows=series({4 * 24: 1000.0}))
    bars = (100, 100, (100, 100, 90, 90), 90, 90, 90)
    result = play(*bars, targets=FIVE, venue=venue, account=account, interval="1d")
    assert result.metrics["ruined"] == 1.0
    units = result.bars["unit"].tolist()
    assert units[2:] == [units[2]] * 4
    assert result.bars["equity"].iloc[-1] > 1500.0


def test_a_flat_account_under_one_lot_is_ruined():
    # a lot of 6 bought at 100 and sold at 60, the next open: 1,000 - 240 = 760 are left, and at
    # the close a lot is worth 6 x 130 = 780, or 6 x 126 = 756
    venue = venue_of(contract={"lot": 6.0})
    for close, ruined in ((130, 1.0), (126, 0.0)):
        bars = (100, 100, (60, close, 60, close), close)
        account = account_of(max_leverage=1.0)
        result = play(*bars, targets=(1.0, 0.0), venue=venue, account=account)
        assert equities(result)[2:] == [760.0, 760.0]
        assert result.metrics["ruined"] == ruined


def test_a_flat_account_under_the_least_order_is_ruined():
    # 760 bought at a fee of 1 % and sold at 60 of 100: 1,000 - 7.6 - 304 - 4.56 = 683.84
    venue = venue_of(contract={"min_notional": 700.0}, fees={"taker": 0.01, "maker": 0.0})
    bars = (100, 100, (100, 100, 60, 60), 60, 60)
    targets = (0.76, NAN, 0.0)
    poor = play(*bars, targets=targets, venue=venue, account=account_of(max_leverage=1.0))
    assert poor.metrics["final_equity"] == is_(683.84)
    assert poor.metrics["ruin_time"] == is_(4 / 24)
    # at twice the leverage the order of 700 can be made
    rich = play(*bars, targets=targets, venue=venue, account=account_of(max_leverage=2.0))
    assert rich.metrics["ruined"] == 0.0


def test_an_account_that_never_could_trade_is_not_ruined():
    venue = venue_of(contract={"min_notional": 5000.0})
    result = play(*[100, 90, 80, 70], venue=venue, account=account_of(max_leverage=1.0))
    assert result.metrics["ruined"] == 0.0


def test_a_constraint_that_is_met_lifts_no_ruined_set():
    places = order_sets(
        scores=np.array([9.0, 1.0, 5.0]),
        violations=np.array([0.0, 0.5, np.inf]),
        ruined=np.array([True, False, True]),
        ruin_time=np.array([2.0, math.nan, 4.0]),
        failed=np.zeros(3, dtype=bool),
    )
    assert places.tolist() == [1, 2, 0]
