"""Settlement in several currencies: a pool for each, added up at their rates."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from tests.agreement import run_engine
from tests.cases import PortfolioCase
from tests.portfolio.portfolio_helpers import Hold, Once, make_market, make_venue
from tests.portfolio_scenes import asset, bracket, flat, near, play_case, scene, tape
from tests.refusals import check_refused

NAN = math.nan
SAFE = [bracket(0.02)]  # 20x is not liquidated at once
IDLE = tape([flat(1)] * 4, (0.0,))


def pair(one: Any, other: Any, **terms: Any) -> PortfolioCase:
    """Return an account of 1,000 TEST and 250 AAA at 2: A settles in TEST, B in AAA."""
    given = terms.pop("venues", {})
    venues = {
        name: {"contract": {"settles": currency}, **given.get(name, {}), **given.get("*", {})}
        for name, currency in (("A", "TEST"), ("B", "AAA"))
    }
    money = {"currency": "TEST", "rates": {"AAA": 2.0}, "balances": {"AAA": 250.0}}
    money |= {"transfers": None, "transfer_cost": None}
    signal = terms.pop("signal", {"A": 1.0, "B": 1.0})
    return scene({"A": one, "B": other}, signal, venues=venues, **{**money, **terms})


def rates_of(*bars: tuple[float, float, float, float]) -> Any:
    """Return the price of a currency."""
    return tape(bars)


def test_targets_come_from_the_equity_of_all_pools_and_orders_are_cut_by_their_own():
    """E = 1000 + 250 x 2. A: 1500 of 100; B: 1500 are 750 AAA, and 15000 more than 20 x 250."""
    bars = tape([flat(100)] * 3, (1.0, 1.0))
    out = play_case(pair(bars, tape([flat(1)] * 3, (1.0, 10.0)), venues={"*": {"brackets": SAFE}}))
    assert near(out.quantity[1][0], 15)
    assert near(out.quantity[1][1], 750)
    assert near(out.quantity[2][1], 5000)


def test_what_a_rate_gains_is_fx_pnl_and_other_money_counts_at_the_open():
    """100 of B gain 20 AAA at 2.4; 250 AAA from 2.2 to 2.4, then 270 from 2.4 to 2.3."""
    rate = rates_of(flat(2), (2, 2.2, 2, 2.2), (2.4, 2.4, 2.3, 2.3))
    other = tape([flat(1), flat(1), (1, 1.2, 1, 1.2)], (Fraction(200, 1500).__float__(), NAN))
    out = play_case(pair(tape([flat(100)] * 3, (0.0,)), other, rates={"AAA": rate}))
    assert near(out.quantity[1][1], 100)
    assert near(out.fx_pnl[1], 50)
    assert near(out.price_pnl[2], 48)
    assert near(out.fx_pnl[2], 23)
    assert near(out.equity[2], 1000 + 270 * Fraction(23, 10))


def test_a_pool_fails_alone():
    """B, 10x of its pool: 250 - 2500 d = 5 % of 2500 (1 - d), d = 1/19; A falls too, and stays."""
    one = tape([flat(100), flat(100), (100, 100, 90, 90)], (0.5, NAN))
    other = tape([flat(1), flat(1), (1, 1, 0.9, 0.9)], (5.0, NAN))
    out = play_case(pair(one, other, capital=500.0))
    assert [e.instrument for e in out.of_kind("liquidation")] == ["B"]
    assert near(out.own[2][1], 250 - Fraction(2500, 19))
    assert near(out.quantity[2][0], 5)
    assert near(out.own[2][0], 450)


def test_bad_debt_is_that_of_a_pool_which_then_trades_no_more():
    """B opens at 0.85: 250 - 375 = -125 AAA, 250 TEST; an empty pool cannot buy again, A can."""
    one = tape([flat(100)] * 4, (0.5, 0.5, 1.0))
    other = tape([flat(1), flat(1), flat(0.85), flat(0.85)], (5.0, 5.0, 5.0))
    out = play_case(pair(one, other, capital=500.0))
    assert near(out.bad_debt[2], 250)
    assert near(out.own[2][1], 0)
    assert near(out.equity[2], 500)
    assert near(out.quantity[3][1], 0)
    assert near(out.quantity[3][0], 5)


def test_wealth_of_nothing_is_ruin():
    """Both pools at 20x, both open 10 % lower."""
    one = tape([flat(100), flat(100), flat(90), flat(90)], (math.inf,))
    other = tape([flat(1), flat(1), flat(0.9), flat(0.9)], (math.inf,))
    case = pair(one, other, venues={"*": {"brackets": SAFE}})
    out = play_case(case)
    assert near(out.equity[2], 0)
    assert run_engine(case).metrics["ruined"] == 1.0


def test_transfers_bring_a_pool_to_its_initial_margin():
    """1000 of B lose 60 AAA at an open of 0.94: 190 - ... needs 47 of M 40; 7 AAA are 14 TEST."""
    one = tape([flat(100)] * 3, (0.0,))
    other = tape([flat(1), flat(1), flat(0.94)], (2000 / 1200, NAN))
    terms: dict[str, Any] = {"venues": {"*": {"brackets": SAFE}}, "balances": {"AAA": 100.0}}
    out = play_case(pair(one, other, transfers="to-cover", transfer_cost=0.01, **terms))
    moved = 14 / Fraction(99, 100)
    assert near(out.own[2][0], 1000 - moved)
    assert near(out.own[2][1], 47)
    assert near(out.conversion[2], moved / 100)
    assert near(out.equity[2], 1200 - 120 - moved / 100)
    events = run_engine(pair(one, other, transfers="to-cover", transfer_cost=0.01, **terms)).events
    sent = events[events["kind"].isin(["transfer_out", "transfer_in"])]
    assert sent["instrument"].tolist() == ["", "AAA"]
    np.testing.assert_allclose(sent["amount"], [float(moved), 7.0])
    alone = play_case(pair(one, other, **terms))
    assert near(alone.own[2][1], 40)


def test_interest_is_by_pool():
    """0.01 % an hour on 250 AAA at 2, nothing on TEST."""
    earns = {"venue": {"cash_rate": 0.0001 * 365 * 24}}
    out = play_case(pair(IDLE, IDLE, venues={"B": earns}))
    assert near(out.interest[1], Fraction(-5, 100))


def test_collateral_serves_the_pool_in_which_it_is_listed():
    """100 coins at 1 AAA, half of which count: 20 x (250 + 50) of B, and 20 x 1000 of A."""
    coin = (asset("COIN", 100.0, rate=0.5, currency="AAA"), tape([flat(1)] * 2))
    one, other = tape([flat(100)] * 2, (math.inf,)), tape([flat(1)] * 2, (math.inf,))
    out = play_case(
        pair(one, other, collateral=[coin], negative_limit=0.0, venues={"*": {"brackets": SAFE}})
    )
    assert near(out.quantity[1][0], 200)
    assert near(out.quantity[1][1], 6000)
    assert near(out.equity[1], 1000 + 2 * 350)


def test_the_cap_of_gross_leverage_is_of_the_whole_account():
    """0.8 and 0.8 at a cap of 1: half of 1500 each; A without a target leaves B what is left."""
    one, other = tape([flat(100)] * 3, (0.8, NAN)), tape([flat(1)] * 3, (0.8, 2.0))
    out = play_case(pair(one, other, max_gross_leverage=1.0))
    assert near(out.quantity[1][0], Fraction(75, 10))
    assert near(out.quantity[1][1], 375)
    assert near(out.quantity[2][1], 375)


# ------------------------------------------------------------------------------- as a user has it


def move(seed: int, scale: float = 0.02, n: int = 80) -> list[tuple[float, ...]]:
    """Return bars of a random walk around 50,000."""
    rng = np.random.default_rng(seed)
    closes = 50_000.0 * np.exp(np.cumsum(rng.normal(0.0, scale, n)))
    opens = np.r_[50_000.0, closes[:-1]]
    highs, lows = np.maximum(opens, closes) * 1.004, np.minimum(opens, closes) * 0.996
    return [*zip(opens, highs, lows, closes, strict=True)]


def make_pair(rows: Any = None) -> tuple[bt.Markets, dict[str, bt.Venue]]:
    """Return a linear perpetual in USDT beside an inverse one in BTC."""
    bars = move(3) if rows is None else rows
    markets = {name: make_market(bars, instrument=name) for name in ("BTCUSDT", "BTCUSD_PERP")}
    inverse = {"contract.kind": "inverse", "contract.size": 100.0}
    venue = make_venue(taker=0.0005)
    return bt.Markets(markets), {"BTCUSDT": venue, "BTCUSD_PERP": venue.override(inverse)}


def run_pair(markets: bt.Markets, venues: Any, **more: Any) -> bt.Result:
    """Run both at once."""
    account = bt.Account(
        currency="USDT", rates={"BTC": "BTCUSDT"}, balances={"BTC": 0.5}, **more.pop("account", {})
    )
    given = {"signal": {"BTCUSDT": 1.0, "BTCUSD_PERP": -1.0}, "policy": Hold(level=1.2)}
    return bt.run(markets, venue=venues, account=account, compile=False, **{**given, **more})


@pytest.fixture(scope="module")
def result() -> bt.Result:
    """Return the run of both."""
    return run_pair(*make_pair())


def test_a_hedged_coin_balance_by_hand():
    """By hand: 10,000 USDT and 0.5 BTC at 50,000; 35,000 at 0.5 in both; BTC to 45,000.

    Linear: 0.35 BTC lose 1,750 USDT. Inverse: 175 contracts of 100 gain 17,500 (1/45,000 -
    1/50,000) = 0.038889 BTC; fees of 8.75 USDT and 0.000175 BTC.
    """
    rows = [(5e4,) * 4, (5e4,) * 4, (5e4, 5e4, 4.5e4, 4.5e4)]
    markets, venues = make_pair(rows)
    run = run_pair(markets, venues, policy=Once(level=0.5))
    np.testing.assert_allclose(run.quantities.iloc[-1], [0.35, -175.0])
    own = run.pools[run.pools["time"] == run.pools["time"].iloc[-1]].set_index("currency")
    np.testing.assert_allclose(own["equity"], [8241.25, 0.5 - 0.000175 + 17500 / 45e3 - 0.35])
    np.testing.assert_allclose(
        run.bars["equity"].iloc[-1], 8241.25 + 45e3 * own.loc["BTC", "equity"]
    )
    gained = own.loc["BTC", "equity"] * (45e3 - 50e3)
    np.testing.assert_allclose(run.bars["fx_pnl"].iloc[-1], gained)


def test_the_parts_add_up(result):
    """Pools to the equity, terms to its change, trades and what is of none to the same."""
    pools, bars = result.pools, result.bars
    worth = (pools["equity"] * pools["rate"]).groupby(pools["time"]).sum()
    np.testing.assert_allclose(worth, bars["equity"])
    costs = bars[["fees", "slippage", "impact", "funding", "interest", "liquidation_loss"]]
    change = bars["price_pnl"] + bars["fx_pnl"] + bars["bad_debt"] - costs.sum(axis=1)
    np.testing.assert_allclose(bars["equity"].diff()[1:], change[1:], atol=1e-7)
    total = result.trades["profit"].sum() + result.trades.unallocated.sum()
    np.testing.assert_allclose(total, bars["equity"].iloc[-1] - 35_000.0)
    shown = result.positions.groupby("time")[["price_pnl", "fees"]].sum()
    np.testing.assert_allclose(shown["price_pnl"], bars["price_pnl"], atol=1e-7)
    metrics = result.metrics
    np.testing.assert_allclose(metrics["fx_pnl"], bars["fx_pnl"].sum())
    np.testing.assert_allclose(metrics["price_pnl"], bars["price_pnl"].sum())


def test_the_summary_tells_the_currencies(result):
    text = result.summary()
    assert "a pool for each currency: USDT, BTC at the price of BTCUSDT" in text
    assert "capital 10,000 USDT and 0.5 BTC" in text
    assert "profit of currencies" in text
    assert "not measured: of several currencies" in text


def test_it_is_saved_and_run_again(result, tmp_path):
    loaded = bt.Result.load(result.save(tmp_path))
    for name in ("bars", "positions", "events", "pools"):
        pd.testing.assert_frame_equal(getattr(loaded, name), getattr(result, name))
    assert loaded.account == result.account
    assert bt.Account.from_dict(result.account.to_dict()) == result.account


def test_a_resumed_run_goes_on_as_the_whole_does(result):
    markets, venues = make_pair()
    half = markets.times[40]
    first = run_pair(markets.between(end=half), venues)
    later = run_pair(markets, venues, resume=first)
    np.testing.assert_array_equal(later.bars["equity"], result.bars["equity"][40:])
    pd.testing.assert_frame_equal(
        later.pools, result.pools[80:].reset_index(drop=True), check_exact=True
    )


def test_a_single_inverse_market_in_another_currency():
    """What a long of its coins' value loses in coins it gains by their price, but for fees."""
    markets, venues = make_pair()
    market = markets["BTCUSD_PERP"]
    account = bt.Account(capital=1.0, currency="USDT", rates={"BTC": market}, balances={"BTC": 1.0})
    run = bt.run(
        market, Once(level=1.0), venue=venues["BTCUSD_PERP"].override({"fees.taker": 0.0}),
        account=account, signal=-1.0, compile=False,
    )  # fmt: skip
    held = run.bars["equity"].iloc[1:]
    np.testing.assert_allclose(held, held.iloc[0], rtol=1e-4)
    assert held.std() < 1.0 < market.close.std()
    stored = bt.Account.from_dict(run.account.to_dict())
    assert stored.to_dict() == run.account.to_dict()


def test_an_account_of_one_currency_that_says_it_is_as_before():
    markets, venues = make_pair()
    market, venue = markets["BTCUSDT"], venues["BTCUSDT"]
    plain, said = (
        bt.run(
            market,
            Hold(level=3.0),
            venue=venue,
            account=bt.Account(currency=currency),
            compile=False,
        )
        for currency in (None, "USDT")
    )
    np.testing.assert_array_equal(plain.bars["equity"], said.bars["equity"])
    assert said.pools.empty


def test_a_sweep_equals_its_runs():
    markets, venues = make_pair()
    account = bt.Account(currency="USDT", rates={"BTC": "BTCUSDT"}, balances={"BTC": 0.5})
    swept = bt.sweep(
        markets, Hold(), sets={"level": [0.5, 1.2]}, venue=venues, account=account, compile=False,
        signal={"BTCUSDT": 1.0, "BTCUSD_PERP": -1.0},
    )  # fmt: skip
    run = run_pair(markets, venues)
    assert swept.table["final_equity"].iloc[-1] == run.metrics["final_equity"]


# ------------------------------------------------------------------------------------- bad inputs

TERMS: dict[str, Any] = {"currency": "USDT", "rates": {"BTC": "BTCUSDT"}}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"rates": {"ETH": 3000.0}}, "settle in a currency of the account, USDT, ETH, got BTC"),
        ({"rates": {"BTC": "ETHUSDT"}}, "a rate must be a Market, an instrument of the run"),
        ({"currency": None, "rates": None}, "must settle in one currency, got USDT"),
        (
            {"margin": "isolated", "venue_leverage": 5.0, "transfers": "to-cover",
             "transfer_cost": 0.01},
            "transfers cover the initial margin of cross positions, got only isolated ones",
        ),
        (
            {"collateral": [bt.Collateral("SOL", 1.0, 100.0, rate=0.9, currency="SOL")],
             "negative_limit": 0.0},
            "collateral must serve a pool of the account, USDT, BTC, got 'SOL'",
        ),
    ],
)  # fmt: skip
def test_bad_runs(changes, problem):
    markets, venues = make_pair()
    account = bt.Account(**{**TERMS, **changes})
    check_refused(
        lambda: bt.run(markets, Hold(), venue=venues, account=account, compile=False), problem
    )


@pytest.mark.parametrize(
    ("kind", "problem"), [("linear", "got USD by the name"), ("inverse", "got ETH by the name")]
)
def test_a_venue_of_another_currency_than_the_name_says_is_refused(kind, problem):
    """A preset says in what its contracts settle: under it, all instruments would share a pool."""
    market, usdt = bt.Market.sample(bars=50), bt.Venue.preset("binance-usdm", "BTCUSDT")
    venues = {"BTCUSDT": usdt, "ETHUSD": usdt.override(contract={"kind": kind})}
    markets = bt.Markets(dict.fromkeys(venues, market))
    check_refused(
        lambda: bt.run(markets, Hold(), venue=venues, account=bt.Account(), compile=False), problem
    )


def test_a_rate_needs_every_bar_and_one_currency_its_own():
    markets, venues = make_pair()
    short = make_market(move(3)[:50], instrument="BTCUSDT")
    account = bt.Account(currency="USDT", rates={"BTC": short})
    check_refused(
        lambda: bt.run(markets, Hold(), venue=venues, account=account, compile=False),
        "a rate must have a price in every bar of the clock, got none in 30 of 80",
        bt.DataError,
    )
    check_refused(
        lambda: bt.run(
            markets["BTCUSDT"], Hold(), venue=venues["BTCUSDT"], compile=False,
            account=bt.Account(currency="BTC"),
        ),
        "counts in the currency in which its instruments settle, USDT, got 'BTC'",
    )  # fmt: skip


def test_what_knows_one_pool_refuses_several(result):
    markets, venues = make_pair()
    check_refused(lambda: bt.stress(result), "can be run, searched, validated and compared")
    check_refused(
        lambda: bt.decide(
            Hold(), markets, venue=venues, account=result.account, state=result,
            signal={"BTCUSDT": 1.0, "BTCUSD_PERP": -1.0},
        ),
        "can be run, searched, validated and compared",
    )  # fmt: skip
