"""Margin calls, the reserve, deposits and withdrawals, by hand."""

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
