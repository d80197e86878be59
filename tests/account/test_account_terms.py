"""Automatic margin, uncounted profit, fixed fees, and the impact of liquidations. All by hand."""

import math

import numpy as np
import pytest

import backtest as bt
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

is_ = pytest.approx

# ----------------------------------------------------------------------------- automatic margin
#
# Long 5x from 100 with 1,000 at a setting of 25: 50 contracts, margin 200, wallet 800. At 2 % the
# liquidation price is where 200 + 50 (P - 100) = P: 4,800 / 49 = 97.96. Each addition is 200.

TWENTY_FIVE = venue_of(brackets=[bracket(leverage=25.0, rate=0.02)])


def guarded(*bars, **more):
    """Run bars with automatic margin, after a flat bar."""
    given = {
        "targets": (5.0, NAN),
        "venue": TWENTY_FIVE,
        "account": isolated(25.0, auto_margin=True),
    }
    return play(100, *bars, **given | more)


def additions(result) -> list[tuple[float, float]]:
    """Return price and amount of each addition."""
    events = happened(result, "margin_added")
    return list(zip(events["price"], events["amount"], strict=True))


def test_the_wallet_adds_an_initial_margin_at_each_liquidation_price():
    result = guarded(100, (100, 100, 93, 93))
    # the next prices are 4,600 / 49 = 93.88 and 4,400 / 49 = 89.80
    assert additions(result) == [(is_(4800 / 49), is_(200.0)), (is_(4600 / 49), is_(200.0))]
    assert result.metrics["liquidations"] == 0.0
    assert result.bars["cash"].tolist() == [1000.0, is_(800.0), is_(400.0)]
    assert result.bars["margin"].iloc[-1] == is_(600.0)
    assert equities(result)[-1] == is_(1000 - 50 * 7)


def test_only_an_empty_wallet_lets_the_position_be_liquidated():
    result = guarded(100, (100, 100, 81, 90))
    # four additions empty the wallet; with a margin of 1,000 it dies at 4,000 / 49 = 81.63
    assert [amount for _, amount in additions(result)] == [is_(200.0)] * 4
    assert happened(result, "liquidation")["price"].iloc[0] == is_(4000 / 49)
    assert equities(result)[-1] == is_(0.02 * 50 * 4000 / 49)


def test_the_last_addition_is_what_is_left():
    account = isolated(25.0, auto_margin=True, capital=250.0)
    result = guarded(100, (100, 100, 96.5, 96.5), targets=(20.0, NAN), account=account)
    # 50 contracts again: the wallet has 50, so the price moves to 4,750 / 49 = 96.94 only
    assert additions(result) == [(is_(4800 / 49), is_(50.0))]
    assert happened(result, "liquidation")["price"].iloc[0] == is_(4750 / 49)


def test_a_gap_takes_as_many_margins_as_the_requirement_needs_and_keeps_the_decision():
    result = guarded(100, (90, 90, 90, 90), targets=(5.0, 6.0, NAN))
    # 200 - 500 against 90: 390 are missing, two margins of 200
    assert additions(result) == [(90.0, is_(400.0))]
    # 6 x 500 / 90 = 33.3 contracts: the decision is filled at the open
    assert result.bars["position"].iloc[-1] == is_(3000 / 90)


def test_a_gap_beyond_the_wallet_takes_it_all_and_liquidates():
    result = guarded(100, (80, 80, 80, 80))
    # 200 - 1,000 against 80: five margins, but the wallet has 800: 0 is left of everything
    assert additions(result) == [(80.0, is_(800.0))]
    assert equities(result)[-1] == is_(0.0)
    assert result.metrics["bad_debt"] == is_(0.0)


def test_a_funding_payment_draws_margin_from_the_wallet():
    # 4 % of 5,000 takes the margin of 200: 100 are needed, so one margin is added
    result = guarded(100, 100, funding=[(2.5, 0.04)])
    assert additions(result) == [(100.0, is_(200.0))]
    assert result.bars["margin"].iloc[-1] == is_(200.0)
    assert result.metrics["liquidations"] == 0.0


def test_a_stop_that_is_nearer_acts_before_the_wallet():
    account = isolated(25.0, auto_margin=True, stop_loss=0.01)
    result = guarded(100, (100, 100, 93, 93), account=account)
    assert additions(result) == []
    assert happened(result, "stop")["price"].tolist() == [99.0]


def test_a_stop_between_two_additions_acts_after_the_first():
    account = isolated(25.0, auto_margin=True, stop_loss=0.04)
    result = guarded(100, (100, 100, 93, 93), account=account)
    assert additions(result) == [(is_(4800 / 49), is_(200.0))]
    assert happened(result, "stop")["price"].tolist() == [96.0]


def test_a_short_draws_margin_as_well():
    result = guarded(100, (100, 107, 100, 107), signal=-1.0)
    # 200 - 50 (P - 100) = P: 5,200 / 51 = 101.96, then 5,400 / 51 = 105.88
    assert additions(result) == [(is_(5200 / 51), is_(200.0)), (is_(5400 / 51), is_(200.0))]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_additions_end_whatever_the_rounding(seed):
    """Rates down to 1e-7, where rounding decides whether the requirement holds at its root."""
    rng = np.random.default_rng(seed)
    for _ in range(60):
        setting = float(np.exp(rng.uniform(0.0, np.log(500))))
        rate = float(np.exp(rng.uniform(np.log(1e-7), np.log(0.9 / setting))))
        kind = str(rng.choice(["linear", "inverse"]))
        venue = venue_of(brackets=[bracket(leverage=setting, rate=rate)], contract={"kind": kind})
        price = float(np.exp(rng.uniform(-3.0, 9.0)))
        reach = price * (1.0 + rng.choice([-1.0, 1.0]) * rng.uniform(0.0, 0.9))
        last = (price, max(price, reach), min(price, reach), reach)
        account = isolated(setting, auto_margin=True)
        share = float(setting * rng.uniform(0.01, 1.0))
        result = play(
            price, price, last, targets=(share, NAN), venue=venue, account=account,
            signal=float(rng.choice([-1.0, 1.0])),
        )  # fmt: skip
        if len(happened(result, "liquidation")):
            added = total(result, "margin_added")
            assert added == is_(result.bars["cash"].iloc[1], 1e-9)


# --------------------------------------------------------------------------- profits that count


@pytest.mark.parametrize(("counts", "free"), [("all", 2000), ("losses", 1000), (0.25, 1250)])
def test_new_orders_are_backed_by_the_share_of_profit_that_counts(counts, free):
    # 5x from 100 to 120: equity 2,000, of which 1,000 are unrealized; 16x may be held
    venue = venue_of(profit_counts=counts)
    result = play(100, 100, 120, 120, targets=(5.0, INF, NAN), venue=venue)
    assert result.bars["position"].iloc[2] == is_(16 * free / 120)
    finite = play(100, 100, 120, 120, targets=(5.0, 16.0, NAN), venue=venue)
    assert finite.bars["position"].iloc[2] == is_(16 * free / 120)


def test_losses_always_count():
    # at 95: equity 750
    bars, targets = (100, (100, 100, 95, 95), 95), (5.0, INF, NAN)
    for counts in ("all", "losses", 0.5):
        result = play(*bars, targets=targets, venue=venue_of(profit_counts=counts))
        assert result.bars["position"].iloc[-1] == is_(16 * 750 / 95)


def test_the_limit_leaves_room_for_the_costs_of_the_order():
    # N <= 16 (1,000 - 0.001 (N - 6,000)): 16 x 1,006 / 1.016
    venue = venue_of(profit_counts="losses", fees={"taker": 0.001, "maker": 0.001})
    result = play(100, 100, 120, 120, targets=(5.0, 30.0, NAN), venue=venue)
    equity = 1000 - 5  # the first fee
    held, profit = 50 * 120, 1000
    expected = 16 * (equity + 1000 - profit + 0.001 * held) / 1.016
    assert result.bars["position"].iloc[2] * 120 == is_(expected)


def test_an_order_that_turns_the_position_around_realizes_its_profit_first():
    venue = venue_of(profit_counts="losses")
    result = play(
        100, 100, 120, 120, targets=(5.0, INF, NAN), signal=[1.0, -1.0, -1.0, -1.0], venue=venue
    )
    assert result.bars["position"].iloc[2] == is_(-16 * 2000 / 120)


def test_a_position_over_the_limit_is_kept():
    # 15x from 100 to 120: 18,000 are held, 16 x 1,000 may be; nothing is sold, nothing bought
    venue = venue_of(profit_counts="losses")
    result = play(100, 100, 120, 120, targets=(15.0, INF, NAN), venue=venue)
    assert len(happened(result, "fill")) == 1


@pytest.mark.parametrize("margin", ["cross", "isolated"])
def test_an_infinite_leverage_asks_for_nothing_where_less_than_nothing_counts(margin):
    # 20 contracts rise from 100 to 200: funding of 1,280 leaves 1,720, of which 2,000 are profit
    funding = [(2 + k / 5, 0.08, 200.0) for k in range(1, 5)]
    account = account_of(margin=margin, venue_leverage=2.0)
    bars = (100, 100, 200, 200)
    result = play(
        *bars, targets=(2.0, NAN, INF, INF), signal=[1.0, 1.0, 0.5, 0.5], account=account,
        venue=venue_of(profit_counts="losses"), funding=funding,
    )  # fmt: skip
    assert equities(result)[2] == is_(1720.0)
    assert result.bars["position"].iloc[-1] == 0.0  # not short


@pytest.mark.parametrize(("counts", "paid"), [("all", 1625), ("losses", 625), (0.5, 1125)])
def test_withdrawals_leave_the_profit_that_does_not_count(counts, paid):
    # at 120 the equity is 2,000 and the initial margin 6,000 / 16 = 375
    account = account_of(flows=series({3: -5000.0}))
    venue = venue_of(profit_counts=counts)
    result = play(100, 100, 120, 120, targets=(5.0, NAN), venue=venue, account=account)
    assert total(result, "flow") == is_(-paid)


def test_maintenance_counts_all_profit():
    # 10x from 100 to 110, then 96: equity 600 against 480, whatever counts
    venue = venue_of(profit_counts="losses")
    result = play(100, 100, (110, 110, 96, 96), targets=(10.0, NAN), venue=venue)
    assert result.metrics["liquidations"] == 0.0


# ------------------------------------------------------------------------------------ fixed fees


def fixed(fee, **more):
    """Return a venue whose orders cost a fixed fee."""
    return venue_of(fees={"taker": 0.0, "maker": 0.0, "per_order": fee}, **more)


def test_every_fill_pays_the_fixed_fee_once():
    result = play(100, 100, 100, 100, 100, targets=(1.0, NAN, 2.0, 0.0), venue=fixed(2.0))
    # bought, enlarged, closed
    assert equities(result) == is_([1000.0, 998.0, 998.0, 996.0, 994.0])
    assert happened(result, "fee")["amount"].tolist() == [2.0] * 3
    assert result.metrics["fees"] == 6.0


def test_the_fixed_fee_comes_on_top_of_the_rate():
    venue = venue_of(fees={"taker": 0.001, "maker": 0.001, "per_order": 2.0})
    assert play(100, 100, targets=1.0, venue=venue).metrics["fees"] == is_(1.0 + 2.0)


def test_initial_margin_and_the_wallet_leave_room_for_the_fixed_fee():
    cross = play(100, 100, targets=(INF, NAN), venue=fixed(20.0))
    assert cross.bars["position"].iloc[-1] == is_(16 * 980 / 100)
    lone = play(100, 100, targets=(INF, NAN), venue=fixed(20.0), account=isolated(10.0))
    assert lone.bars["position"].iloc[-1] == is_(10 * 980 / 100)
    assert lone.bars["cash"].iloc[-1] == is_(0.0)


def test_a_stop_pays_the_fixed_fee_and_a_liquidation_does_not():
    account = account_of(stop_loss=0.05)
    stopped = play(
        100, 100, (100, 100, 94, 94), targets=(1.0, NAN), venue=fixed(2.0), account=account
    )
    # 10 contracts lose 5 each
    assert equities(stopped)[-1] == is_(1000 - 2 - 50 - 2)
    assert happened(stopped, "fee")["amount"].tolist() == [2.0, 2.0]
    dead = play(100, 100, (100, 100, 90, 90), targets=(10.0, NAN), venue=fixed(2.0))
    assert len(happened(dead, "liquidation")) == 1
    assert dead.metrics["fees"] == 2.0


def test_a_forced_reduction_pays_the_fixed_fee_and_reaches_the_ratio_after_it():
    venue = fixed(5.0, call_grace=0)
    account = account_of(margin_call=0.8)
    result = play(
        100, (100, 100, 95.6, 95.6), 95.6, targets=(10.0, NAN), venue=venue, account=account
    )
    # 0.05 N is 0.8 of what is left of the equity at 95.6 after the second fee
    assert happened(result, "fee")["amount"].tolist() == [5.0, 5.0]
    assert result.bars["margin_ratio"].iloc[-1] == is_(0.8)


def test_no_decision_is_filled_with_equity_at_or_under_the_fixed_fee():
    account = account_of(capital=2.0)
    with pytest.warns(bt.NoFillWarning):
        assert happened(play(*[100] * 4, venue=fixed(2.0), account=account), "fill").empty
    assert len(happened(play(*[100] * 4, venue=fixed(1.9), account=account), "fill")) == 1
    # 1x loses 9 of 10: the last decision to close has not the money
    account = account_of(capital=10.0)
    bars = (100, 100, (100, 100, 20, 20), 20)
    result = play(*bars, targets=(1.0, NAN, 0.0), venue=fixed(1.5), account=account)
    assert equities(result)[-1] == is_(10 - 1.5 - 0.1 * 80)
    assert result.bars["position"].iloc[-1] == is_(0.1)


def test_a_stop_that_cannot_pay_its_fee_is_bad_debt():
    account = account_of(capital=10.0, stop_loss=0.8)
    bars = (100, 100, (100, 100, 20, 20))
    result = play(*bars, targets=(1.0, NAN), venue=fixed(1.5), account=account)
    # 10 - 1.5 - 8 - 1.5 = -1
    assert result.metrics["bad_debt"] == is_(1.0)
    assert equities(result)[-1] == 0.0


def test_a_fixed_fee_may_change_with_time():
    venue = fixed(series({0: 1.0, 2: 4.0}))
    result = play(*[100] * 4, targets=(1.0, 2.0, 1.0), venue=venue)
    assert happened(result, "fee")["amount"].tolist() == [1.0, 4.0, 4.0]
    assert happened(result, "fee")["time"].tolist() == [at(1), at(2), at(3)]


# ------------------------------------------------------------------------ impact of liquidations

CLOSES = (97.0, 100.0, 101.0, 99.0, 100.0)


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
    notional = 50 * 4000 / 47.5
    impact = 0.5 * sigma * math.sqrt(notional / (10 * closes[1:].mean() * 24))
    assert impact > 0.01
    assert result.metrics["liquidation_loss"] == is_(notional * (0.01 + impact))
    assert happened(result, "liquidation")["price"].iloc[0] == is_(4000 / 47.5)
    assert result.metrics["impact"] == 0.0


def test_each_step_of_a_liquidation_has_its_own_impact():
    one = crashed(impact=0.5, mode="partial", step=1.0).metrics["liquidation_loss"]
    parts = crashed(impact=0.5, mode="partial", step=0.5)
    first = happened(parts, "liquidation_loss")["amount"].iloc[0]
    # half of the size at the root of a half of its impact
    assert first == is_(one * 0.5 * math.sqrt(0.5))
