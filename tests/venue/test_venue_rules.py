"""Rules of a venue in runs: tables by day, multipliers, lending, fee tiers, settlement."""

import math
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import Bracket, Earlier
from backtest.strategies import Constant, HealthTarget, LeverageLoop, MarginBuffer, VolTarget
from tests import scenes
from tests.kit import check_refused, free_venue, live, market_of
from tests.scenes import INF, NAN, account_of, happened, is_, isolated, play, series, venue_of
from tests.strategies.test_strategies_liquidation import PENALTY, THRESHOLD, debt, lending_market

CHANGE = 300
SAMPLE = bt.Market.sample(bars=600)
DAY = str(SAMPLE.times[CHANGE])
LOOSE = [Bracket(0.0, 50_000.0, 50.0, 0.01), Bracket(50_000.0, 1e9, 20.0, 0.02)]
STRICT = [Bracket(0.0, 50_000.0, 25.0, 0.02), Bracket(50_000.0, 1e9, 10.0, 0.04)]
BEFORE = replace(free_venue(), brackets=LOOSE)
AFTER = replace(free_venue(), brackets=STRICT)
BOTH = replace(AFTER, earlier=[Earlier(until=DAY, brackets=LOOSE)])
ACCOUNTS = {
    "cross": (Constant(4.0), bt.Account(capital=20_000.0)),
    "a policy that reads the table": (MarginBuffer(target=0.05), bt.Account(capital=20_000.0)),
    "isolated": (VolTarget(2.0),
        bt.Account(capital=50_000.0, margin="isolated", venue_leverage=8.0)),
}  # fmt: skip
AAVE = bt.RateCurve(base=0.0, slope1=0.04, slope2=0.6, optimal=0.9, reserve_factor=0.1)
"""Stablecoins at Aave v3 as first deployed."""
TIERS = [bt.FeeTier(1500.0, 0.0005, 0.0), bt.FeeTier(2500.0, 0.0002, -0.0001)]
VENUE = venue_of(fees={"taker": 0.001, "maker": 0.0004, "tiers": TIERS})
IN_COINS = venue_of(contract={"kind": "inverse", "min_notional": 0.0}).override(
    {"fees.taker": 0.001, "fees.maker": 0.001, "fees.tiers": [bt.FeeTier(15.0, 0.0005, 0.0)]}
)
MIXED = VENUE.override({"fees.maker_share": 0.25})
DAYS = (1.6, NAN, 1.0, NAN)
TWICE = {"initial_multiplier": 2.0}
HALF = {"maintenance_multiplier": 0.5}
WITHDRAWN = account_of(flows=series({2: -900.0}))
LOOP = LeverageLoop(ltv=0.6, band=0.9)
PENALIZED = PENALTY / (1.0 + PENALTY)
COIN = bt.Venue.preset("binance-coinm", "BTCUSD_PERP")
TETHER = bt.Venue.preset("binance-usdm", "BTCUSDT@latest")
BYBIT = bt.Venue.preset("bybit-inverse", "BTCUSD")
OWN_COIN = venue_of(contract={"kind": "inverse"})
OWN = venue_of()
TWO = "must settle in one currency"
ASKS = "must have a known settlement currency"


def live_at(policy: bt.Policy, account: bt.Account, venue: bt.Venue, **terms: Any) -> bt.Result:
    return bt.run(terms.pop("market", SAMPLE), policy, venue=venue, account=account, **terms)


@pytest.mark.parametrize("name", ACCOUNTS)
def test_twice_the_rates_from_a_bar_on_are_a_multiplier_of_two_from_there(name: str):
    """Rates and amounts of the second table are twice the first's, and leverages half: the same."""
    policy, account = ACCOUNTS[name]
    twice = pd.Series([1.0, 2.0], index=SAMPLE.times[[0, CHANGE]])
    moved = live_at(policy, account, replace(BEFORE, margin_multiplier=twice))
    both = live_at(policy, account, BOTH)

    assert np.array_equal(both.record.values, moved.record.values, equal_nan=True)
    pd.testing.assert_frame_equal(both.bars, moved.bars)
    assert both.bars["margin_ratio"].iloc[CHANGE] > 0.0


def test_a_change_liquidates_what_the_old_table_let_live():
    """8x with 12.5 % of equity per notional; 2 % asked, then 20 %: more than there is."""
    before = Earlier(until=DAY, brackets=[Bracket(0.0, 1e9, 50.0, 0.02)])
    harsh = replace(AFTER, brackets=[Bracket(0.0, 1e9, 5.0, 0.2)], earlier=[before])
    market = market_of(np.full(600, 100.0), start="2023-01-01")
    account = bt.Account(capital=10_000.0)

    result = live_at(Constant(8.0), account, harsh, market=market)
    dead = result.events[result.events["kind"] == "liquidation"]
    assert dead["time"].iloc[0] == SAMPLE.times[CHANGE]

    assert len(live_at(Constant(8.0), account, BEFORE, market=market).events) == 1


def test_the_leverage_set_at_the_venue_must_be_allowed_by_every_table():
    account = bt.Account(venue_leverage=40.0)
    with pytest.raises(bt.ParameterError, match="venue_leverage must be at most 25") as caught:
        live_at(Constant(1.0), account, BOTH)
    assert "a preset with @DATE" in str(caught.value)

    with pytest.raises(bt.ParameterError) as caught:
        live_at(Constant(1.0), account, AFTER)
    assert "a preset with @DATE" not in str(caught.value)


@pytest.mark.parametrize(("terms", "bars", "targets", "account", "expected"), [
    # terms of the venue, how many bars at 100, targets, account, figures of the last bar
    # 16 / 2 = 8 turns; the requirement of 8,000 stays 5 %: 400 of an equity of 1,000
    (TWICE, 2, INF, None, {"leverage": 8.0, "margin_ratio": 0.4}),
    # 16 turns as without it; 0.5 x 5 % of 16,000 = 400
    (HALF, 2, INF, None, {"leverage": 16.0, "margin_ratio": 0.4}),
    # 16 / 4 = 4 turns are allowed from bar 3 on; the 10 held stay, also where all is asked for
    ({"initial_multiplier": series({0: 1.0, 3: 4.0})}, 5, (10.0, NAN, NAN, INF), None,
     {"leverage": 10.0}),
    # 4,000 x 2 / 16 = 500 must stay of a withdrawal
    ({"initial_multiplier": series({0: 1.0, 2: 2.0})}, 3, (4.0, NAN), WITHDRAWN, {"equity": 500.0}),
    # 16 / 4 = 4 is the largest setting: 2,000 posts 500, and 5 % x 2,000 = 100 are required
    ({"initial_multiplier": 4.0}, 2, 2.0, isolated(10.0), {"margin": 500.0, "margin_ratio": 0.2}),
])  # fmt: skip
def test_multipliers_of_initial_margin_and_of_maintenance(terms, bars, targets, account, expected):
    result = play(*[100] * bars, targets=targets, venue=venue_of(**terms), account=account)

    last = result.bars.iloc[-1]
    for name, value in expected.items():
        assert last[name] == is_(value)


def test_a_policy_sees_both_multipliers():
    class Looks(bt.Policy):
        def leverage(self, bar, account):
            most = bt.margin.largest_notional(account.venue, account.equity)
            needed = bt.margin.maintenance(account.venue, 1000.0)
            x = account.venue.multiplier + 10.0 * account.venue.initial_multiplier
            return x + 1e-3 * needed + 1e-7 * most

    venue = venue_of(initial_multiplier=4.0, maintenance_multiplier=2.0)
    result = play(100, 100, venue=venue, policy=Looks())
    # 2 + 40; MM = 2 x 5 % of 1,000 = 100; 16 / 4 turns of 1,000
    assert result.bars["target"].iloc[0] == is_(42.0 + 0.1 + 4e-4)


def test_margin_multiplier_is_both_to_the_bit():
    x = series({0: 1.0, 2: 1.7, 5: 0.9})
    bars = [100, 99, 97.5, 96, 98, 94, 90, 91]
    one_series = venue_of(margin_multiplier=x)
    two_series = venue_of(initial_multiplier=x, maintenance_multiplier=x)

    one = play(*bars, targets=7.0, venue=one_series)
    two = play(*bars, targets=7.0, venue=two_series)

    assert one.record.values.tobytes() == two.record.values.tobytes()


def full_below(health: float = 0.95, **terms) -> bt.Venue:
    return lending_market(**terms).override({"liquidation.full_below_health": health})


def test_the_borrow_rate_has_a_kink_and_suppliers_earn_their_part():
    used = np.array([0.0, 0.45, 0.9, 0.95, 1.0])
    rates = np.array([0.0, 0.02, 0.04, 0.34, 0.64])
    np.testing.assert_allclose(AAVE.borrow(used), rates, atol=1e-12)
    np.testing.assert_allclose(AAVE.supply(used), rates * used * 0.9, atol=1e-12)

    series = pd.Series(used, index=pd.date_range("2024-01-01", periods=5, tz="UTC"))
    assert AAVE.borrow(series).index.equals(series.index)

    for bad in (-0.1, 1.1, math.nan):
        with pytest.raises(bt.ParameterError, match="utilization must be from 0 to 1"):
            AAVE.borrow(np.array([0.5, bad]))


def test_a_column_sets_the_rate_from_the_next_open_on():
    prices = scenes.market_of(100.0, 100.0, 100.0, 100.0)
    market = prices.with_columns(used=[0.45, 0.9, 0.95, 1.0])
    rates = AAVE.rates(market, "used")
    np.testing.assert_allclose(rates["borrow_rate"], [0.02, 0.02, 0.04, 0.34])

    venue = lending_market(**rates)

    result = live(market, LeverageLoop(ltv=0.6, band=0.9), venue=venue)
    # 15,000 owed from bar 1 on: an hour at 2 %, known at the open of bar 1, then one at 4 %
    first = 15_000 * 0.02 / 8760
    second = (15_000 + first) * 0.04 / 8760
    assert result.bars["interest"].tolist()[2:] == pytest.approx([first, second])

    check_refused(lambda: AAVE.rates(market, "use"), "did you mean 'used'", bt.DataError)


def lend(opened, policy, venue, signal=1.0):
    market = scenes.market_of(100.0, 100.0, opened)
    return lambda: live(market, policy, venue=venue, signal=signal)


@scenes.by_hand({
    # 250 coins hold 15,000 of debt: at 66 the health is 0.8 * 16,500 / 15,000 = 0.88, at 71.25 .95:
    # 15,000 are repaid with 15,750 of coins, at 66 238.64 of 250; 750 go to the liquidator
    **{f"opening at {opened}, the whole debt is repaid": (lend(opened, LOOP, full_below()), {
        "position": 250.0 - 15_750.0 / opened, "liquidation_loss": 750.0,
        "equity": (250.0 - 15_750.0 / opened) * opened,
    }) for opened in (66.0, 71.25)},
    # at 72 it is 0.96: 42 % of the collateral, 7,560, as without the rule
    **{f"opening at 72, a step repays its part, {name}": (lend(72.0, LOOP, venue), {
        "position": 145.0, "equity": 145.0 * 72.0 - (15_000.0 - 7_560.0 / 1.05),
    }) for name, venue in (("below .95", full_below()), ("always", lending_market()))},
    # 100 coins owed at 100, 20,000 held: at 180 the health is 20,000 / (1.2 * 18,000) = 0.926, and
    # all 100 are bought back for 18,000, and 857.14 of penalty
    "a short is closed whole": (lend(180.0, Constant(1.0), full_below(), -1.0), {
        "position": 0.0, "equity": 2_000.0 - 18_000.0 * PENALIZED,
    }),
})  # fmt: skip
def test_at_a_low_health_the_whole_debt_is_repaid_and_other_collateral_stays(run, numbers):
    scenes.check_numbers(run(), numbers)


def test_it_repays_by_hand():
    """2x at 100 with 10,000: 200 coins, 10,000 owed. At 80 the health is 0.8 * 16,000 / 10,000 =
    1.28: equity 6,000, and at 80 150 coins with 6,000 owed have a health of 1.6."""
    market = scenes.market_of(100.0, 100.0, 80.0, 80.0, 80.0)

    result = live(market, HealthTarget(), venue=lending_market())

    assert result.bars["position"].tolist() == pytest.approx([0.0, 200.0, 200.0, 150.0, 150.0])
    assert debt(result)[3] == pytest.approx(6_000.0)
    assert result.bars["health_factor"].iloc[3] == pytest.approx(1.6)
    assert result.bars["health_factor"].iloc[2] == pytest.approx(THRESHOLD * 16_000 / 10_000)


@pytest.mark.parametrize(("ether", "count"), [(520.0, 0), (510.0, 1)])
def test_each_collateral_counts_at_its_threshold(ether, count):
    """21,000 of bitcoin bought with 1,000 and a loan of 20,000, beside 10 ether of 2,000 each.
    Healthy while 0.75 * 21,000 + 0.825 * 10 P > 20,000: P over 515.15."""
    bitcoin = scenes.market_of(100.0, 100.0, 100.0, 100.0)
    flat = (ether, ether, ether, ether)
    coins = scenes.market_of(2000.0, 2000.0, (2000.0, 2000.0, ether, ether), flat)
    held = [bt.Collateral("ETH", amount=10.0, prices=coins, rate=0.825)]
    terms = {"collateral": held, "negative_limit": 1e6, "requirement": bt.Brackets()}
    loan = free_venue(interest_on="loan")
    venue = loan.override(brackets=[bt.Bracket(0.0, math.inf, 4.0, 0.25)])
    markets = bt.Markets({"BTC": bitcoin}, currency="USD")
    account = bt.Account(capital=1_000.0, **terms)

    result = bt.run(markets, Constant(1.0), venue=venue, account=account, signal={"BTC": 1.0})

    assert result.metrics["liquidations"] == count


def rates_of(result):
    """Return the fee of each fill as a share of it."""
    fills = happened(result, "fill")["amount"].to_numpy()
    fees = happened(result, "fee")["amount"].to_numpy()
    return (fees / fills).tolist()


@pytest.mark.parametrize(("venue", "targets", "interval", "rates"), [
    # two bars a day: 1x, then flat, then 1x, ... trades about 1,000 at each open. Day 1 trades in
    # bar 1 only: 1,000, no tier on day 2 (bars 2 and 3 trade 2 x 999); then 2,998 on day 3, more
    (VENUE, (1.0, 0.0) * 4, "12h", [1e-3] * 3 + [2e-4] * 4),
    # hours of one day: 19,000 are traded, and today does not count
    (VENUE, (1.0, 0.0) * 10, "1h", [1e-3] * 19),
    # 2,000 traded on day 2, then again after 30 days, and after 31, when they are forgotten

    (VENUE, [0.0, 2.0, *[NAN] * 30, 0.0, 0.0], "1d", [1e-3, 1e-3]),
    # 1,600 on the second day, then tier 1: 0.75 x 5 bp + 0.25 x 0
    (MIXED, DAYS, "1d", [0.75 * 1e-3 + 0.25 * 4e-4, 0.75 * 5e-4]),
    # the volume of an inverse contract is in coins, here 16
    (IN_COINS, DAYS, "1d", [1e-3, 5e-4]),
])  # fmt: skip
def test_the_volume_of_thirty_days_before_chooses_the_tier(venue, targets, interval, rates):
    account = account_of(capital=10.0 if venue is IN_COINS else 1_000.0)
    bars = [100] * len(targets)

    result = play(*bars, targets=targets, venue=venue, account=account, interval=interval)

    assert rates_of(result) == [is_(rate) for rate in rates]


def test_a_stop_pays_the_taker_rate_of_the_tier():
    venue = VENUE.override({"fees.maker_share": 1.0})
    account = account_of(stop_loss=0.05)
    bars = (100, 100, (100, 100, 90, 90))

    result = play(*bars, targets=(1.6, NAN), venue=venue, interval="1d", account=account)

    assert happened(result, "fee")["amount"].tolist()[-1] == is_(16 * 95 * 5e-4)


def test_a_policy_sees_the_taker_rate_of_the_day():
    class Looks(bt.Policy):
        def leverage(self, bar, account):
            return 2.0 + 100.0 * account.venue.taker

    result = play(*[100] * 4, venue=VENUE, policy=Looks(), interval="1d")
    assert result.bars["target"].tolist() == [is_(2.1), is_(2.1), is_(2.05), is_(2.05)]


def panel(*names: str, currency: str | None = None) -> bt.Markets:
    """Return markets whose own names say nothing."""
    markets = {name: bt.Market.sample(bars=30, seed=k) for k, name in enumerate(names)}
    return bt.Markets(markets, currency=currency)


def run(markets: bt.Markets, *venues: bt.Venue) -> None:
    by_name = dict(zip(markets, venues, strict=True))
    bt.run(markets, Constant(0.5), venue=by_name, account=bt.Account(capital=1e4))


@pytest.mark.parametrize(("venues", "words"), [
    ((COIN, TETHER), f"{TWO}, got BTC for 'A' and USDT for 'B'"),
    ((OWN_COIN, TETHER), f"{ASKS}, got none for 'A'"),
    ((OWN, COIN), f"{ASKS}, got none for 'A' beside 'B'"),
    ((OWN_COIN, OWN_COIN), f"{ASKS}, got none for 'A'"),
    ((OWN.override({"contract.settles": "USDC"}), TETHER), f"{TWO}, got USDC for 'A'"),
])  # fmt: skip
def test_names_that_say_nothing_do_not_hide_two_currencies(venues, words):
    check_refused(lambda: run(panel("A", "B"), *venues), words, bt.ParameterError)

    by_name = dict(zip("AB", venues, strict=True))
    packed = (by_name, {"A": 1, "B": 1}, {"A": 100.0, "B": 100.0})
    check_refused(lambda: bt.calculate_book(*packed, balance=1e3), words, bt.ParameterError)
    check_refused(lambda: bt.margin.requirement(*packed), words, bt.ParameterError)


class Early(bt.Policy):
    share: Annotated[float, bt.Range(0.1, 1.0)] = 0.5

    def observe(self, market):
        raise AssertionError

    def leverage(self, bar, account):
        raise AssertionError


@pytest.mark.parametrize("call", [
    lambda *given, **terms: bt.run(*given, Early(), **terms),
    lambda market, **terms: bt.Backtest(market, **terms).sweep(Early, {"share": [0.2, 0.4]}),
    lambda market, **terms: bt.Backtest(market, **terms).tune(Early, trials=4),
    lambda market, **terms: bt.Backtest(market, **terms).walk_forward(
        Early, train="10h", test="10h"
    ),
], ids=["run", "sweep", "tune", "walk_forward"])  # fmt: skip
def test_two_currencies_are_refused_before_a_policy_is_asked(call):
    venues = {"A": COIN, "B": TETHER}
    with pytest.raises(bt.ParameterError, match=TWO):
        call(panel("A", "B"), venue=venues, account=bt.Account())


def test_one_currency_is_run():
    for venues, names, currency in (
        ((OWN, OWN), "AB", None),  # linear, and nothing is known
        ((OWN, TETHER), "AB", None),
        ((COIN, COIN), "AB", None),
        ((OWN_COIN.override({"contract.settles": "BTC"}), COIN), "AB", None),
        ((OWN_COIN, COIN), ("BTCUSD_PERP", "B"), None),  # the name says it
        ((OWN_COIN, OWN_COIN), "AB", "BTC"),
        ((BYBIT, BYBIT), ("BTCUSD", "B"), None),  # the name says the quote of an inverse contract
    ):
        run(panel(*names, currency=currency), *venues)


@pytest.mark.parametrize(("names", "currency", "venue", "words"), [
    (("A", "B"), "USDT", COIN, "got 'USDT' and 'BTC' for 'A'"),
    (("BTCUSDT", "ETHUSDC"), "USD", TETHER, "got 'USD' and 'USDT' for 'BTCUSDT'"),
    (("BTCUSDT", "ETHUSDT"), None, bt.Venue.preset("hyperliquid", "BTC"),
     "got USDT by the"),
    (("BTCUSD_PERP", "B"), "USDT", OWN_COIN, "got BTC for 'BTCUSD_PERP' and USDT for 'B'"),
])  # fmt: skip
def test_the_currency_of_the_markets_never_overrides_a_preset(names, currency, venue, words):
    check_refused(lambda: run(panel(*names, currency=currency), venue, venue), words)


def test_every_preset_declares_its_currency_but_a_loan_in_any_stable_coin():
    for preset in bt.venue.preset_files.available():
        settles = bt.Venue.preset(preset.venue, preset.symbol).contract.settles
        said = preset.title.partition("settled in ")[2].split(",")[0]
        currency = {"a stable coin": None, "XBT": "BTC"}.get(said, said)
        assert settles == currency, preset.name
