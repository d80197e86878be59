"""Funding, interest, the terms of a change of equity, and costs over time, by hand."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import Constant
from tests import agreement, draws
from tests.agreement import FLAT, scene, tape
from tests.cases import PortfolioCase
from tests.draws import HOUR, utc
from tests.kit import bars_market, check_refused
from tests.scenes import (
    LP,
    NAN,
    ONCE,
    TEN,
    Hand,
    account_of,
    by_hand,
    check_numbers,
    coin_venue,
    dies,
    isolated,
    later,
    market_of,
    series,
    slip,
    venue_of,
)

HAND: Hand = {
    **{
        f"who held the position at the stamp pays: {hours}:00 and {seconds} s": (
            later(*[100] * 4, targets=(1.0, 0.0), funding=[(hours + seconds / 3600, 0.001)]),
            {"funding.total": paid, "equity": 1000 - paid})  # 10 x 100 x 0.001
        for hours, seconds, paid in (
            (1, 0, 0),  # at the open of the purchase: nothing was carried in
            (1, 45, 0),  # snapped to it
            (1, 60, 0),  # the end of the jitter
            (1, 61, 1),  # inside: the position now held pays
            (2, -61, 1),  # inside bar 1
            (2, -60, 1),  # at the next open: carried in
            (2, 0, 1),
            (2, 60, 1),  # closed at this open, but carried in
            (2, 61, 0),  # closed by then
        )
    },
    **{
        f"the jitter is at most a quarter of a bar: {seconds} s of a minute": (
            later(*[100] * 4, targets=ONCE, funding=[(1 / 60 + seconds / 3600, 0.001)],
                  interval="1m"),
            {"funding.total": paid})
        for seconds, paid in ((15, 0), (16, 1))
    },
    # 10 x 102 x 0.001 twice, then 10 x 77 x 0.001
    "funding is valued at its own price, else at the mark open": (
        later(*[100] * 4, targets=ONCE, mark=[100, 100, (102, 110, 102, 110), 110],
              funding=[(2.0, 0.001), (2.5, 0.001), (3.0, 0.001, 77.0)]),
        {"funding.amount": [1.02, 1.02, 0.77], "funding.price": [102, 102, 77]}),
    "an inverse position pays funding in coins": (
        later(*[100] * 3, targets=ONCE, funding=[(2.0, 0.001, 80.0)], venue=coin_venue(),
              account=account_of(capital=10.0)),
        {"equity": 10 - 1000 / 80 * 0.001}),
    # 900 posted, 100 left; 81 twice: 19 left, then 0 and 62 from the margin
    "isolated funding may come from the wallet until it is empty": (
        later(*[100] * 4, targets=(9.0, NAN), funding=[(2.0, 0.009), (3.0, 0.009)],
              venue=venue_of(isolated_funding="wallet"), account=isolated()),
        {"cash": [1000, 100, 19, 0], "margin": 838}),
    **{  # 1,000 posted for 10,000; 600 paid leaves 400 <= 500: closed at 100, 400 in the wallet
        f"a payment that breaks an isolated margin liquidates at the mark open, {hours}": (
            later(*[100] * 3, (100, 120, 100, 120), targets=TEN, funding=[(hours, 0.06)],
                  account=isolated()),
            {"liquidation.price": [100], "liquidation.hours": [2], "equity": 400})
        for hours in (2.0, 2.5)
    },
    "a decision is dropped where funding at the open liquidated": (
        later(*[100] * 4, targets=(10.0, 5.0, NAN), funding=[(2.0, 0.06)], account=isolated()),
        {"position": [0, 100, 0, 0]}),
    # 1,000 x 0.0365 / 365 a day; the position costs nothing while its entry is its price
    "a positive balance earns the cash rate": (
        later(*[100] * 3, targets=ONCE, interval="1d",
              venue=venue_of(interest_on="balance", cash_rate=0.0365)),
        {"equity": [1000, 1000.1, 1000.1 + 0.10001]}),
    # 1,000 earns 0.1 a day; the million of the second open earns from then on
    "a deposit earns nothing for the time before it": (
        later(*[100] * 4, targets=0.0, interval="1d",
              venue=venue_of(interest_on="balance", cash_rate=0.0365),
              account=account_of(flows=series({48: 1e6}))),
        {"equity": [1000, 1000.1, 1_001_000.20001, 1_001_000.20001 * 1.0001]}),
    # 1,000 are borrowed for a day before a deposit of 1,500 pays them back: 1 is due all the same.
    # The next day the 499 that are left earn nothing
    "a loan pays for the time before a deposit": (
        later(*[100] * 4, targets=(2.0, NAN), interval="1d",
              venue=venue_of(interest_on="loan", borrow_rate=0.365),
              account=account_of(flows=series({48: 1500.0}))),
        {"interest.amount": [1], "equity": [1000, 1000, 2499, 2499]}),
    # 40 at 100; at 200 two payments of 8,000 x 0.1 leave 1,000 - 1,600 = -600 of balance, while
    # the equity is 3,400: 600 x 0.073 / 365 = 0.12 at the next open
    "a negative balance pays the borrow rate": (
        later(100, 100, (100, 200, 100, 200), 200, 200, targets=(4.0, NAN), interval="1d",
              funding=[(72.0, 0.1), (72.5, 0.1)],
              venue=venue_of(interest_on="balance", borrow_rate=0.073)),
        {"interest.amount": [0.12], "equity": 3400 - 0.12}),
    # the first night the cash of 1,000 earns 0.1; sold 1,000.1 / 100 = 10.001 contracts, so the
    # cash of 2,000.2 earns 0.20002 and 10.001 x 110 x 0.73 / 365 = 2.20022 is paid
    "a short on loan earns on its proceeds and pays for the borrowed asset": (
        later(*[100] * 3, targets=ONCE, signal=-1.0, mark=[100, 100, (110, 110, 100, 100)],
              venue=venue_of(interest_on="loan", cash_rate=0.0365, short_rate=0.73),
              interval="1d"),
        {"equity": 1000.1 + 0.20002 - 2.20022}),
    # 1,000 borrowed from bar 1 on: 1 a day
    "a loan pays on the cash that is missing": (
        later(*[100] * 3, targets=(2.0, NAN), interval="1d",
              venue=venue_of(interest_on="loan", borrow_rate=0.365)),
        {"equity": [1000, 1000, 999]}),
    "the day count is the venue's": (
        later(*[100] * 3, targets=(2.0, NAN), interval="1d",
              venue=venue_of(interest_on="loan", borrow_rate=0.36, day_count=360)),
        {"equity": 999}),
    # owed from bar 1 on: 1 for the day from bar 1; the new rate counts from bar 2 on, on 1,001
    "interest uses the rate of the previous open": (
        later(*[100] * 4, targets=(2.0, NAN), interval="1d",
              venue=venue_of(interest_on="loan", borrow_rate=series({0: 0.365, 48: 0.73}))),
        {"interest.amount": [1, 2.002]}),
    # 10 bought at 100, 1,100 at the mark open of each next day: 0.0365 / 365 of it
    **{
        f"an expense is paid by who is {side}": (
            later(*[100] * 4, targets=ONCE, signal=sign, mark=[100, 100, 110, 110], interval="1d",
                  venue=venue_of(contract={"expense": 0.0365})),
            {"expense": [0, 0, 0.11, 0.11], "expense.total": 0.22, "interest": 0})
        for side, sign in (("long", 1.0), ("short", -1.0))
    },
    # 900 contracts are 9 coins at 100, and 7.2 at the mark open of 125: 0.036 / 360 of it
    "an expense is paid in coins by the day count of the venue": (
        later(*[100] * 3, targets=(9.0, NAN), mark=[100, 100, 125], interval="1d",
              venue=venue_of(contract={"kind": "inverse", "expense": 0.036}, day_count=360),
              account=account_of(capital=1.0)),
        {"expense.amount": [0.00072], "expense.price": [125]}),
    # 10 carried from 100 to the open 110 unworsened: 100. Equity 1,090: 0.5x is 545 / 110 = 4.9545
    # contracts, which earn 10 each to the close 120
    "price pnl is split at the open of the trade": (
        later(100, 100, (110, 120, 110, 120), targets=(1.0, 0.5, NAN), venue=slip(0.01)),
        {"price_pnl": 100 + 10 * 545 / 110}),
    "price pnl ends at the liquidation price, and the rest is loss": (
        later(100, 100, (98, 98, 90, 90), targets=TEN, venue=dies(slippage=0.01)),
        {"price_pnl": -100 * (100 - LP), "liquidation_loss": LP}),
}  # fmt: skip
RISING = utc([draws.START, draws.START + 2 * HOUR])
LATE = pd.Series([5e-4], index=pd.DatetimeIndex(["2024-01-01"], tz="UTC"))
VENUE = bt.Venue.simple(
    taker=5e-4, slippage=1e-4, maintenance_rate=0.005, max_leverage=100, liquidation_fee=0.01
)


@by_hand(HAND)
def test_payments_of_one_instrument(run, numbers):
    check_numbers(run(), numbers)


def dated(*values: float) -> pd.Series:
    return pd.Series(values, index=RISING[: len(values)])


def with_column(*values: float) -> PortfolioCase:
    """Return an account of one instrument that trades 1 and 2 turns; the taker fee is a column."""
    own = tape([FLAT] * len(values), (1.0, 2.0, 1.0))
    own.bars["cost"] = values
    return scene({"TEST": own}, {"TEST": 1.0}, venues={"*": {"fees": {"taker": "cost"}}})


DATED: Hand = {
    # 1000 bought at 0.1 % in bar 1, then 1x more at 0.2 % in bar 2: the fee of that open
    "a series holds from its stamp on": (
        agreement.later(*[FLAT] * 4, targets=(1.0, 2.0, NAN),
                        venue={"fees": {"taker": dated(1e-3, 2e-3)}}),
        {"fees 1": 1, "fees 2": 0.002 * (2 * 999 - 1000)}),
    # bar 1 pays the 10 bp of bar 0, bar 2 the 20 bp of bar 1, bar 3 them again
    "a column is known at the close before and goes on where it is missing": (
        lambda: agreement.play_case(with_column(1e-3, 2e-3, NAN, 9e-3)),
        {"fees 1": 1, "fees 2": 0.002 * (2 * 999 - 1000),
         "fees 3": 0.002 * (1998 - (999 - 0.002 * 998))}),
    # 10 bought at 100 (1 + 0.1 % + 0.4 % / 2)
    "a fill pays half the spread and the slippage": (
        agreement.later(FLAT, FLAT, targets=(1.0,),
                        venue={"slippage": {"rate": 1e-3, "spread": 4e-3}}),
        {"slippage 1": 3}),
    # 10x at 100; 5 % maintenance: closed at 94.74 in bar 2, which pays 1 %, not 0.1 %
    "a liquidation pays the fee of its day": (
        agreement.later(FLAT, FLAT, (100, 100, 90, 90), targets=(10.0,),
                        venue={"liquidation": {"fee": dated(1e-3, 1e-2)}}),
        {"liquidation_loss 2": 0.01 * 100 * 90 / 0.95}),
}  # fmt: skip


@by_hand(DATED)
def test_costs_over_time_by_hand(run, numbers):
    agreement.check_outcome(run(), numbers)


def make_market() -> bt.Market:
    """Return bars with costs as columns: ``late`` begins after 3 bars, ``dear`` is 1.5 in one."""
    market = bt.Market.sample(bars=300)
    bar = np.arange(300)
    wide = 1e-4 * (1.0 + bar % 7)
    late = np.where(bar < 3, np.nan, wide)
    dear = np.where(bar == 50, 1.5, wide)
    return market.with_columns(wide=wide, late=late, dear=dear)


def make_venue(**changes: object) -> bt.Venue:
    """Return the venue with changes; ``fees__taker`` names ``fees.taker``."""
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT@2023-01-01")
    return venue.override({name.replace("__", "."): value for name, value in changes.items()})


def run_with(**changes: object) -> bt.Result:
    venue = make_venue(**changes)
    return bt.run(make_market(), Constant(), venue=venue, account=bt.Account(), compile=False)


def sweep_over(cost: object) -> bt.Sweep:
    test = bt.Backtest(make_market(), venue=make_venue(), account=bt.Account())
    return test.sweep(Constant(), {"venue.fees.taker": [5e-4, cost]})


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


def run_twice(prices: np.ndarray, signal: np.ndarray) -> tuple[bt.Result, bt.Result]:
    """Run a market alone, and twice at half the size."""
    market = bars_market(prices, prices)
    markets = bt.Markets({"A": market, "B": market}, currency="USDT")
    halves = pd.DataFrame({"A": signal / 2.0, "B": signal / 2.0}, index=markets.times)

    terms = {"venue": VENUE, "account": bt.Account()}
    one = bt.run(market, Constant(2.0), signal=pd.Series(signal, index=markets.times), **terms)
    both = bt.run(markets, Constant(2.0), signal=halves, **terms)
    return one, both


def test_on_constant_prices_costs_alone_decay():
    signal = np.r_[np.zeros(10), np.ones(20), np.zeros(10), np.ones(20)]
    _, both = run_twice(np.full(60, 100.0), signal)
    assert len(both.events.query("kind == 'fill'")) >= 6

    fees = both.metrics["fees"]
    decayed = both.metrics["leverage_decay"] * len(both.bars) / 8760
    assert 0.0 < decayed < 2.0 * fees / 10_000


def test_the_same_market_twice_at_half_the_size_decays_as_one_does():
    """Also where a position is opened again at a price far from where it was closed."""
    prices = 100.0 * np.exp(np.cumsum(np.sin(np.arange(90.0)) / 20.0 + 0.01))
    signal = np.r_[np.zeros(10), np.ones(20), np.zeros(30), np.ones(30)]
    one, both = run_twice(prices, signal)

    decay = one.metrics["leverage_decay"]
    assert both.metrics["leverage_decay"] == pytest.approx(decay, rel=1e-9, abs=1e-12)


def test_a_deposit_leaves_the_unit_where_it_was_beside_a_reserve():
    """1,000 and a reserve of 500 have 1 each; with 300 more, 1,800 have the same."""
    account = account_of(flows=series({2: 300.0}), reserve=500.0, margin_call=0.8, top_up_to=0.5)
    market = market_of(100.0, 100.0, 100.0, 100.0)
    result = bt.run(market, Constant(0.0), venue=venue_of(), account=account, compile=False)

    assert result.bars["equity"].tolist() == [1000.0, 1000.0, 1300.0, 1300.0]
    assert result.bars["unit"].tolist() == pytest.approx([1.0] * 4, rel=1e-12)
