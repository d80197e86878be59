"""Margin calls and how they end, the reserve, deposits and withdrawals, by hand."""

import math

import pytest

from tests.scenes import (
    FEE,
    NAN,
    TEN,
    account_of,
    at,
    equities,
    happened,
    is_,
    isolated,
    play,
    series,
    total,
    venue_of,
)

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


# ------------------------------ how calls end: 10x from 100 with 1,000, 100 contracts, cash -9,000
FALL = (100, (100, 100, 95.5, 95.5))
ENDS = ("margin_call", "call_met", "call_partly_met", "call_failed")


def called(*bars, account=None, venue=None, **more):
    """Run bars after a fall to 95.5, with a call at the close of bar 1."""
    account = account or account_of(margin_call=0.8)
    return play(*FALL, *bars, targets=TEN, account=account, venue=venue, **more)


def ends(result) -> list[tuple[str, int]]:
    """Return calls and their ends, each with its bar."""
    events = result.events[result.events["kind"].isin(ENDS)]
    hours = (events["time"] - at(0)).dt.total_seconds() / 3600
    return list(zip(events["kind"].astype(str), hours.astype(int), strict=True))


def counts(result) -> tuple[float, ...]:
    """Return calls, met, failed, and followed by a liquidation."""
    names = ("margin_calls", "calls_met", "calls_failed", "liquidated_after_call")
    return tuple(result.metrics[name] for name in names)


def test_a_top_up_that_suffices_meets_the_call_at_the_open():
    # 477.5 / 0.5 - 550 = 405 of the reserve: ratio 477.5 / 955
    result = called(95.5, account=account_of(**CALL))
    assert ends(result) == [("margin_call", 1), ("call_met", 2)]
    met = happened(result, "call_met").iloc[0]
    assert met["amount"] == pytest.approx(0.5)
    assert counts(result) == (1.0, 1.0, 0.0, 0.0)


def test_a_top_up_that_does_not_suffice_meets_the_call_partly_and_it_fails():
    # 550 + 20 = 570: ratio 477.5 / 570 = 0.838, still over 0.8
    result = called(95.5, account=account_of(**{**CALL, "reserve": 20.0}))
    assert ends(result) == [("margin_call", 1), ("call_partly_met", 2), ("call_failed", 2)]
    assert happened(result, "call_failed")["amount"].iloc[0] == pytest.approx(477.5 / 570)
    assert counts(result) == (1.0, 0.0, 1.0, 0.0)


def test_a_call_fails_at_once_when_the_reserve_is_empty():
    # the reserve goes at 95.5 (405) and 91.5 (95); at 90 there is nothing left
    result = called(
        95.5, (95.5, 95.5, 91.5, 91.5), 91.5, (91.5, 91.5, 90, 90), 90, account=account_of(**CALL)
    )
    assert ends(result)[2:] == [
        ("margin_call", 3), ("call_met", 4), ("margin_call", 5), ("call_failed", 6),
    ]  # fmt: skip
    assert counts(result) == (3.0, 2.0, 1.0, 0.0)


def test_a_call_without_a_reserve_is_met_at_the_close_that_recovers():
    result = called(95.5, (95.5, 96.5, 95.5, 96.5), 96.5)
    assert ends(result) == [("margin_call", 1), ("call_met", 3)]
    assert happened(result, "call_met")["amount"].iloc[0] == pytest.approx(4.825 / 6.5)


def test_a_call_stays_open_where_decisions_fill_at_their_close():
    account = account_of(margin_call=0.8, fill="same_close")
    result = called(95.5, (95.5, 96.5, 95.5, 96.5), 96.5, account=account)
    assert ends(result) == [("margin_call", 1), ("call_met", 3)]


def test_a_top_up_that_is_not_due_leaves_the_call_open_to_the_close():
    # the open at 99 has a ratio of 0.55, over the 0.56 to top up to; back at 95.5 at the close
    account = account_of(**{**CALL, "top_up_to": 0.56})
    result = called((99, 99, 95.5, 95.5), (95.5, 99, 95.5, 99), account=account)
    assert ends(result) == [("margin_call", 1), ("call_met", 3)]
    assert happened(result, "top_up").empty


def test_a_position_that_its_owner_closes_meets_the_call():
    result = play(*FALL, 95.5, 95.5, targets=(10.0, NAN, 0.0), account=account_of(margin_call=0.8))
    assert ends(result) == [("margin_call", 1), ("call_met", 3)]
    assert happened(result, "call_met")["amount"].iloc[0] == 0.0


def test_a_liquidation_fails_an_open_call_and_is_dated():
    # the call is made at the close of bar 1, bar 3 reaches 94.74: two hours
    result = called(95.5, (95.5, 95.5, 94, 94), 94)
    assert ends(result) == [("margin_call", 1), ("call_failed", 3)]
    assert counts(result) == (1.0, 0.0, 1.0, 1.0)
    assert result.metrics["time_to_liquidation_after_call"] == pytest.approx(2 / 24)


def test_a_liquidation_after_a_failed_call_counts_until_the_ratio_has_recovered():
    small = account_of(**{**CALL, "reserve": 20.0})
    # failed at the open of bar 2; with 20 more the liquidation price is 8,980 / 95 = 94.53
    caught = called(95.5, 95.5, (95.5, 95.5, 94, 94), account=small)
    assert counts(caught) == (1.0, 0.0, 1.0, 1.0)
    assert caught.metrics["time_to_liquidation_after_call"] == pytest.approx(3 / 24)
    spared = called(95.5, (95.5, 98, 95.5, 98), (98, 98, 94, 94), account=small)
    assert counts(spared) == (1.0, 0.0, 1.0, 0.0)
    assert spared.metrics["liquidations"] == 1.0
    assert math.isnan(spared.metrics["time_to_liquidation_after_call"])


def test_a_liquidation_in_steps_counts_once_for_its_call():
    # half goes at 94.74, and half of the rest at 9,000 - 50 x 94.74 = 4,263 / 47.5 = 89.75
    venue = venue_of(liquidation={"mode": "partial", "step": 0.5})
    result = called(95.5, (95.5, 95.5, 94, 94), (94, 94, 88, 88), venue=venue)
    assert result.metrics["liquidations"] == 2.0
    assert counts(result)[3] == 1.0
    assert result.metrics["time_to_liquidation_after_call"] == pytest.approx(2 / 24)


def test_a_reduction_by_the_broker_fails_the_call():
    result = called(95.5, 95.5, venue=venue_of(call_grace=0))
    assert ends(result) == [("margin_call", 1), ("call_failed", 2)]
    assert happened(result, "call_failed")["amount"].iloc[0] == pytest.approx(0.8)
    assert counts(result) == (1.0, 0.0, 1.0, 0.0)


def test_a_grace_that_ends_at_an_open_under_the_call_meets_it_and_the_close_may_call_again():
    # at the open of 97 nothing needs to be reduced; the close is at 95.5 again
    result = called((97, 97, 95.5, 95.5), 97, venue=venue_of(call_grace=0))
    assert ends(result) == [
        ("margin_call", 1), ("call_met", 2), ("margin_call", 2), ("call_met", 3),
    ]  # fmt: skip
    assert counts(result) == (2.0, 2.0, 0.0, 0.0)


def test_a_broker_that_can_hardly_sell_fails_the_call_and_a_new_one_begins():
    venue = venue_of(call_grace=0, slippage={"rate": 0.0, "max_participation": 1e-9})
    result = play(
        *FALL, 95.5, targets=TEN, account=account_of(margin_call=0.8), venue=venue,
        volume=[1e12, 1e-3, 1e-3],
    )  # fmt: skip
    # 1e-12 contracts may be sold of 7.9: the ratio stays at 0.868, and is called again at the close
    assert ends(result) == [("margin_call", 1), ("call_failed", 2), ("margin_call", 2)]
    assert counts(result) == (2.0, 0.0, 1.0, 0.0)


def test_ruin_fails_an_open_call_without_a_liquidation():
    # 95.1 leaves 510 of 1,000
    account = account_of(margin_call=0.8, ruin_at=0.52)
    result = called((95.5, 95.5, 95.1, 95.1), account=account)
    assert ends(result) == [("margin_call", 1), ("call_failed", 2)]
    assert counts(result) == (1.0, 0.0, 1.0, 0.0)


def test_an_isolated_call_ends_in_the_same_way():
    account = isolated(**{**CALL, "reserve": 20.0})
    result = called(95.5, (95.5, 95.5, 94, 94), account=account)
    assert ends(result) == [("margin_call", 1), ("call_partly_met", 2), ("call_failed", 2)]
    assert counts(result) == (1.0, 0.0, 1.0, 1.0)


def test_a_withdrawal_may_call_and_a_deposit_meets_the_call():
    # at 95.5 the equity is 550; 100 more make it 650: 477.5 / 650 = 0.735 at the close of bar 3
    account = account_of(margin_call=0.8, flows=series({3: 100.0}))
    result = called(95.5, 95.5, account=account)
    assert ends(result) == [("margin_call", 1), ("call_met", 3)]
