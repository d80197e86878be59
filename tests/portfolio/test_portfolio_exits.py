"""Exits of one of several positions, and what liquidation slippage costs each of them. By hand.

Each account has 1,000 and takes half of it in A at 100 (5 contracts) and half in B at 50 (10).
"""

import pytest

import backtest as bt
from tests.kit import Hold, Once, flat, make_market, make_venue


def run(a, b, policy=None, venue=None, signal=1.0, **account):
    markets = bt.Markets({"A": make_market(a), "B": make_market(b)}, currency="USDT")
    weights = {"A": 0.5, "B": 0.5 * signal}
    account = bt.Account(capital=1_000.0, **account)
    terms = {"venue": venue or make_venue(), "account": account, "signal": weights}
    return bt.run(markets, policy or Once(1.0), **terms)


def test_a_take_profit_closes_its_own_position_only():
    rising = [flat(100), flat(100), (100, 110, 100, 108)]
    result = run(rising, [flat(50)] * 3, take_profit=0.05)
    # A goes at 105: 5 x 5
    assert result.quantities.iloc[-1].tolist() == [0.0, 10.0]
    assert result.bars["equity"].iloc[-1] == pytest.approx(1_025.0)
    (event,) = result.events[result.events["kind"] == "take_profit"].itertuples()
    assert (event.instrument, event.price) == ("A", pytest.approx(105.0))


def test_a_trailing_stop_follows_the_best_price_of_its_own_position():
    there_and_back = [flat(100), flat(100), (100, 120, 100, 120), (120, 120, 100, 100)]
    result = run(there_and_back, [flat(50)] * 4, trailing_stop=0.1)
    # 10 % under the 120 of the bar before: 5 x 8
    assert result.quantities.iloc[-1].tolist() == [0.0, 10.0]
    assert result.bars["equity"].iloc[-1] == pytest.approx(1_040.0)


def test_liquidation_slippage_is_against_longs_and_shorts():
    # 25 A long, 50 B short: the open loses 625 + 300, and 75 is under 5 % of 1,875 + 2,800.
    # Closed at 75 x 0.99 and 56 x 1.01: 18.75 + 28 more
    result = run(
        [flat(100), flat(100), flat(75)],
        [flat(50), flat(50), flat(56)],
        policy=Once(5.0),
        venue=make_venue(liquidation_slippage=0.01),
        signal=-1.0,
    )
    assert result.bars["liquidation_loss"].iloc[-1] == pytest.approx(46.75)
    assert result.bars["equity"].iloc[-1] == pytest.approx(28.25)


def test_a_forced_reduction_reaches_the_ratio_after_its_fees():
    # 50 A and 100 B, for fees of 10: at 95.5 and 47.75 the ratio is 477.5 / 540, over 0.8
    venue = make_venue(taker=0.001).override(call_grace=0)
    falling = [flat(100), flat(100), (100, 100, 95.5, 95.5), flat(95.5)]
    half = [flat(50), flat(50), (50, 50, 47.75, 47.75), flat(47.75)]
    result = run(falling, half, policy=Once(10.0), venue=venue, margin_call=0.8)
    assert result.bars["margin_ratio"].tolist()[2:] == [
        pytest.approx(477.5 / 540), pytest.approx(0.8, rel=1e-9),
    ]  # fmt: skip
    held = result.quantities.iloc[-1]
    assert held["A"] / 50 == pytest.approx(held["B"] / 100, rel=1e-9)


def test_margin_that_the_wallet_adds_drops_no_decision():
    # A posts 100 for 20 contracts; 100 + 20 (P - 100) = 0.2 P at 95.96, where the wallet adds 100.
    # At the close, at 95, the account is worth 900, and A goes to 2 x 900.
    result = run(
        [flat(100), flat(100), (100, 100, 95, 95)], [flat(50)] * 3,
        policy={"A": Hold(4.0), "B": Hold(0.0)}, venue=make_venue(maintenance_rate=0.01),
        fill="next_close", margin="isolated", venue_leverage=20.0, auto_margin=True,
    )  # fmt: skip
    assert (result.events["kind"] == "margin_added").sum() == 1
    assert result.quantities["A"].iloc[-1] == pytest.approx(1_800 / 95)
