"""Funding and interest by hand, and the terms that a change of equity is split into."""

import numpy as np
import pytest

from tests.scenes import (
    FEE,
    LP,
    NAN,
    ONCE,
    TEN,
    account_of,
    at,
    coin_venue,
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

# -------------------------------------------------------------------------------------- funding


def funded(*events, targets=ONCE, **more):
    """Ten contracts from the open of bar 1 on, and these events."""
    return play(*[100] * 4, targets=targets, funding=events, **more)


@pytest.mark.parametrize(("hours", "seconds", "paid"), [
    (1, 0, 0.0),  # at the open of the purchase: nothing was carried in
    (1, 45, 0.0),  # snapped to it
    (1, 60, 0.0),  # the end of the jitter
    (1, 61, 1.0),  # inside: the position now held pays
    (2, -61, 1.0),  # inside bar 1
    (2, -60, 1.0),  # at the next open: carried in
    (2, 0, 1.0),
    (2, 60, 1.0),  # closed at this open, but carried in
    (2, 61, 0.0),  # closed by then
])  # fmt: skip
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
        *[100] * 3, (100, 120, 100, 120), targets=TEN, funding=[(hours, 0.06)], account=isolated()
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
