"""Funding, interest, the terms of a change of equity, and costs over time, by hand."""

import math

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import Constant
from tests import agreement, draws
from tests.agreement import FLAT, assert_agrees, near, scene, tape
from tests.draws import HOUR, utc
from tests.kit import bars_market, check_refused
from tests.scenes import (
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


def test_funding_is_valued_at_its_own_price_else_at_the_mark_open():
    marks = [100, 100, (102, 110, 102, 110), 110]
    events = [(2.0, 0.001), (2.5, 0.001), (3.0, 0.001, 77.0)]
    result = play(*[100] * 4, targets=ONCE, mark=marks, funding=events)
    # 10 x 102 x 0.001 twice, then 10 x 77 x 0.001
    assert happened(result, "funding")["amount"].tolist() == [is_(1.02), is_(1.02), is_(0.77)]
    assert happened(result, "funding")["price"].tolist() == [is_(102), is_(102), is_(77)]


def test_an_inverse_position_pays_funding_in_coins():
    result = play(
        *[100] * 3,
        targets=ONCE,
        funding=[(2.0, 0.001, 80.0)],
        venue=coin_venue(),
        account=account_of(capital=10.0),
    )
    assert equities(result)[-1] == is_(10 - 1000 / 80 * 0.001)


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


def test_price_pnl_is_split_at_the_open_of_the_trade():
    result = play(100, 100, (110, 120, 110, 120), targets=(1.0, 0.5, NAN), venue=slip(0.01))
    # 10 carried from 100 to the open 110 unworsened: 100. Equity 1,090: 0.5x is 545 / 110 = 4.9545
    # contracts, which earn 10 each to the close 120
    assert result.bars["price_pnl"].iloc[-1] == is_(100 + 10 * 545 / 110)


def test_price_pnl_ends_at_the_liquidation_price_and_the_rest_is_loss():
    result = play(100, 100, (98, 98, 90, 90), targets=TEN, venue=dies(slippage=0.01))
    assert result.bars["price_pnl"].iloc[-1] == is_(-100 * (100 - LP))
    assert result.bars["liquidation_loss"].iloc[-1] == is_(LP)


# --------------------------------------------------------------------------------- costs over time
RISING = utc([draws.START, draws.START + 2 * HOUR])


def dated(*values: float) -> pd.Series:
    """Return costs of the first two hours, and of the rest."""
    return pd.Series(values, index=RISING[: len(values)])


def with_column(values: list[float]) -> dict[str, object]:
    """Return the tapes of one instrument that has a column, and trades 1 and 2 turns."""
    own = tape([FLAT] * len(values), (1.0, 2.0, 1.0))
    own.bars["cost"] = values
    return {"TEST": own}


def test_a_series_holds_from_its_stamp_on():
    """1000 bought at 0.1 % in bar 1, then 1x more at 0.2 % in bar 2: the fee of that open."""
    fees = {"fees": {"taker": dated(1e-3, 2e-3)}}
    out = agreement.play(*[FLAT] * 4, targets=(1.0, 2.0, math.nan), venue=fees)
    assert near(out.fees[1], 1.0)
    assert near(out.fees[2], 0.002 * (2 * 999 - 1000))


def test_a_column_is_known_at_the_close_before_and_goes_on_where_it_is_missing():
    """Bar 1 pays the 10 bp of bar 0, bar 2 the 20 bp of bar 1, bar 3 them again."""
    out = assert_agrees(
        scene(
            with_column([1e-3, 2e-3, math.nan, 9e-3]),
            {"TEST": 1.0},
            venues={"*": {"fees": {"taker": "cost"}}},
        ),
        "by hand",
    )
    assert near(out.fees[1], 1.0)
    assert near(out.fees[2], 0.002 * (2 * 999 - 1000))
    equity = 999 - 0.002 * 998
    assert near(out.fees[3], 0.002 * (1998 - equity))


def test_a_fill_pays_half_the_spread_and_the_slippage():
    """10 bought at 100 (1 + 0.1 % + 0.4 % / 2): 3 of slippage."""
    out = agreement.play(
        FLAT, FLAT, targets=(1.0,), venue={"slippage": {"rate": 1e-3, "spread": 4e-3}}
    )
    assert near(out.slippage[1], 3.0)


def test_a_liquidation_pays_the_fee_of_its_day():
    """10x at 100; 5 % maintenance: closed at 94.74 in bar 2, which pays 1 %, not 0.1 %."""
    venue = {"liquidation": {"fee": dated(1e-3, 1e-2)}}
    out = agreement.play(FLAT, FLAT, (100, 100, 90, 90), targets=(10.0,), venue=venue)
    price = 90 / 0.95
    assert near(out.liquidation_loss[2], 0.01 * 100 * price)


def make_market() -> bt.Market:
    """Return a market of 300 hours with columns of costs."""
    market = bt.Market.sample(bars=300)
    wide = 1e-4 * (1.0 + np.arange(300) % 7)
    return market.with_columns(wide=wide, late=np.where(np.arange(300) < 3, np.nan, wide),
                               dear=np.where(np.arange(300) == 50, 1.5, wide))  # fmt: skip


def make_venue(**changes: object) -> bt.Venue:
    """Return a venue with some costs changed, by dotted names with two underscores."""
    own = bt.Venue.preset("binance-usdm", "BTCUSDT@2023-01-01")
    return own.override({name.replace("__", "."): value for name, value in changes.items()})


def run_with(**changes: object) -> bt.Result:
    """Run a position of 1x with some costs."""
    venue = make_venue(**changes)
    return bt.run(make_market(), Constant(), venue=venue, account=bt.Account(), compile=False)


def sweep_over(cost: object) -> bt.Sweep:
    """Vary the taker fee over a number and something else."""
    terms = {"venue": make_venue(), "account": bt.Account()}
    return bt.sweep(make_market(), Constant(), {"venue.fees.taker": [5e-4, cost]}, **terms)


LATE = pd.Series([5e-4], index=pd.DatetimeIndex(["2024-01-01"], tz="UTC"))


@pytest.mark.parametrize(("make", "words"), [
    (lambda: run_with(fees__taker="wid"), "did you mean 'wide'"),
    (lambda: run_with(slippage__spread="late"), "got late nan"),
    (lambda: run_with(fees__taker=LATE), "must begin by the first bar"),
    (lambda: sweep_over("wide"), "got 'wide'"),
    (lambda: bt.stress(run_with(slippage__rate="wide"), [bt.Scenario("dry", spread=3.0)]),
     "got the column 'wide'"),
])  # fmt: skip
def test_costs_that_cannot_be_are_refused(make, words):
    check_refused(make, words)


# ------------------------------------------------------------- leverage decay of several positions
VENUE = bt.Venue.simple(
    taker=5e-4, slippage=1e-4, maintenance_rate=0.005, max_leverage=100, liquidation_fee=0.01
)


def run_twice(prices: np.ndarray, signal: np.ndarray) -> tuple[bt.Result, bt.Result]:
    """Run a market alone, and twice at half the size."""
    market = bars_market(prices, prices)
    terms = {"venue": VENUE, "account": bt.Account()}
    both = bt.Markets({"A": market, "B": market}, currency="USDT")
    halves = pd.DataFrame({"A": signal / 2.0, "B": signal / 2.0}, index=both.times)
    alone = pd.Series(signal, index=both.times)
    one = bt.run(market, Constant(2.0), signal=alone, **terms)
    return one, bt.run(both, Constant(2.0), signal=halves, **terms)


def test_on_constant_prices_costs_alone_decay():
    signal = np.r_[np.zeros(10), np.ones(20), np.zeros(10), np.ones(20)]
    _, both = run_twice(np.full(60, 100.0), signal)
    assert len(both.events.query("kind == 'fill'")) >= 6
    fees = both.metrics["fees"]
    assert 0.0 < both.metrics["leverage_decay"] * len(both.bars) / 8760 < 2.0 * fees / 10_000


def test_the_same_market_twice_at_half_the_size_decays_as_one_does():
    """Also where a position is opened again at a price far from where it was closed."""
    prices = 100.0 * np.exp(np.cumsum(np.sin(np.arange(90.0)) / 20.0 + 0.01))
    signal = np.r_[np.zeros(10), np.ones(20), np.zeros(30), np.ones(30)]
    one, both = run_twice(prices, signal)
    decays = [each.metrics["leverage_decay"] for each in (both, one)]
    assert decays[0] == pytest.approx(decays[1], rel=1e-9, abs=1e-12)
