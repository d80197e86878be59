"""LiquidationDistance and LiquidationProbability against the calculator and what happens."""

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import backtest as bt
from backtest.indicators import ewma_volatility, touch_distance, touch_probability
from backtest.margin import read_rules
from backtest.strategies import LeverageLoop, LiquidationDistance, LiquidationProbability
from tests import scenes
from tests.kit import YEAR, free_venue, live, walk

BINANCE = bt.Venue.preset("binance-usdm", "BTCUSDT", at="latest")
TERMS: dict[str, Any] = {
    "fees": bt.Fees(taker=5e-4, maker=1e-4),
    "slippage": bt.Slippage(rate=1e-4),
    "liquidation": bt.Liquidation(mode="close", fee=0.005, slippage=0.002),
}
COIN = bt.Venue(
    contract=bt.Contract(kind="inverse", size=100.0, lot=1.0, tick=0.1, min_notional=0.0),
    brackets=[bt.Bracket(0.0, 5.0, 100.0, 0.005), bt.Bracket(5.0, 1e6, 50.0, 0.01)],
    **TERMS,
)
VENUES = {
    "linear": BINANCE,
    "inverse": COIN,
    "with the fee of closing": dataclasses.replace(BINANCE, includes_close_fee=True),
    "one bracket": free_venue(),
}
THRESHOLD = 0.8
CLOSE_FACTOR = 0.5
PENALTY = 0.05


def find_contract_notional(venue: bt.Venue, price: Any) -> Any:
    """Return the notional of a contract in the account's currency at a price."""
    size = venue.contract.size
    return size / price if venue.contract.kind == "inverse" else size * price


@pytest.mark.parametrize("name", VENUES)
@pytest.mark.parametrize("ratio", [0.3, 0.7, 0.93, 0.999, 1.001, 1.07, 1.4, 3.0])
def test_what_just_survives_is_liquidated_at_the_price_after_the_move(name: str, ratio: float):
    """From the first bracket to the last: for 1e2 to 1e9 of equity."""
    venue = VENUES[name]
    price = 40_000.0
    for equity in np.geomspace(1e2, 1e9, 15):
        notional = bt.margin.survivable_notional(venue, equity, ratio)
        contracts = notional / find_contract_notional(venue, price)
        quantity = math.copysign(contracts, 1.0 - ratio)  # a fall kills longs, a rise shorts

        liquidated_at = bt.margin.liquidation_price(venue, quantity, price, equity)
        assert liquidated_at == pytest.approx(price * ratio, rel=1e-9)


@pytest.mark.parametrize(("setting", "ratio"), [(5.0, 0.85), (20.0, 0.98), (3.0, 1.3)])
def test_in_isolated_margin_it_is_as_much_as_the_setting_keeps_away(setting: float, ratio: float):
    """The margin is N / X: the price after the move liquidates a fresh position of that size. Small
    accounts are limited by their wallet, large ones by brackets whose rate asks for more."""
    rules = read_rules(BINANCE, setting, is_isolated=True)
    price = 100.0 * ratio
    by_wallet = []
    for equity in np.geomspace(1e3, 1e9, 13):
        notional = bt.margin.survivable_notional(rules, equity, ratio)
        quantity = math.copysign(notional / 100.0, 1.0 - ratio)
        liquidated_at = bt.margin.liquidation_price(BINANCE, quantity, 100.0, notional / setting)

        is_whole = notional == pytest.approx(equity * setting, rel=1e-12)
        by_wallet.append(is_whole)
        if not is_whole:
            assert liquidated_at == pytest.approx(price, rel=1e-9)
        assert (liquidated_at - price) * (ratio - 1.0) >= -1e-9

    assert by_wallet == sorted(by_wallet, reverse=True)
    assert by_wallet[0]
    assert not by_wallet[-1]


@pytest.mark.parametrize("side", [1.0, -1.0])
@pytest.mark.parametrize("name", VENUES)
@pytest.mark.parametrize("tail_index", [0.0, 0.25])
def test_the_position_dies_within_the_horizon_with_the_probability(name, side, tail_index):
    """At every close, by the venue's calculator, for an account in the brackets' midst. A signal
    next to nothing keeps the account as it is."""
    venue = VENUES[name]
    market = bt.Market.sample(bars=300)
    policy = LiquidationProbability(probability=0.02, horizon=36.0, tail_index=tail_index)
    capital = 40.0 if name == "inverse" else 3e6
    terms = {"venue": venue, "account": bt.Account(capital=capital), "signal": side * 1e-12}
    target = live(market, policy, compile=False, **terms).bars["target"].to_numpy()
    assert np.isnan(target[:72]).all()

    close = market.close[72:]
    contracts = side * target[72:] * capital / find_contract_notional(venue, close)
    price = bt.margin.liquidation_price(venue, contracts, close, capital)

    sigma = ewma_volatility(market, 72.0)[72:]
    freedom = math.inf if tail_index == 0.0 else 4.0
    chances = touch_probability(
        np.log(price / close), sigma, 36.0 / YEAR, degrees_of_freedom=freedom
    )
    np.testing.assert_allclose(chances, 0.02, rtol=1e-9)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_the_leverage_is_the_closed_form_in_one_bracket(side):
    """L = 1 / (1 - x + r x) for a long, 1 / (x - 1 + r x) for a short; x = exp(-+a)."""
    market = walk(200, 0.0, 0.7, seed=1)
    policy = LiquidationProbability(probability=1e-4, horizon=24.0, tail_index=0.0)
    bars = live(market, policy, venue=free_venue(), signal=side, compile=False).bars

    a = touch_distance(1e-4, ewma_volatility(market, 72.0), 24.0 / YEAR)[72:]
    x = np.exp(-side * a)
    expected = 1.0 / (abs(1.0 - x) + 1e-6 * x)
    np.testing.assert_allclose(bars["target"][72:], expected, rtol=1e-12)


def test_in_isolated_margin_it_is_all_or_nothing():
    """At 10x a fall of 9.64 % liquidates in the first bracket: all of it, or out."""
    market = bt.Market.sample(bars=600)
    policy = LiquidationProbability(probability=0.02, horizon=24.0, tail_index=0.0, half_life=12.0)
    account = bt.Account(capital=1000.0, margin="isolated", venue_leverage=10.0)
    terms = {"venue": BINANCE, "account": account, "signal": 1e-12}
    target = live(market, policy, compile=False, **terms).bars["target"].to_numpy()[12:]

    sigma = ewma_volatility(market, 12.0)[12:]
    likely = touch_probability(math.log(0.9 / 0.996), sigma, 24.0 / YEAR)
    np.testing.assert_allclose(target, np.where(likely <= 0.02, 10.0, 0.0))
    assert len(set(target.round(6))) == 2


@pytest.mark.parametrize("name", ["linear", "inverse"])
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_the_liquidation_price_is_at_its_distance_from_the_last_close(name, side):
    """At each close, 12 % from the mark of the close before, whatever the position lost."""
    venue = VENUES[name]
    capital = 50_000.0 if name == "linear" else 2.0
    account = bt.Account(capital=capital, margin="isolated", venue_leverage=10.0, band=0.1)
    market = bt.Market.sample(bars=300)
    policy = LiquidationDistance(target=1.5, distance=0.12)
    result = bt.run(market, policy, venue=venue, account=account, signal=side, compile=False)

    positions = result.positions.set_index("time")
    expected = positions["mark"].shift(1) * (1.0 - side * 0.12)
    deviation = np.abs(positions["liquidation_price"] / expected - 1.0).iloc[2:-1]
    assert deviation.median() < 1e-12  # a fill moves it, and so does a gap
    assert deviation.max() < 0.02

    events = result.events["kind"].value_counts()
    assert min(events["margin_added"], events["margin_returned"]) > 50


def lending_market(**terms: Any) -> bt.Venue:
    """Return a venue that lends up to 75 %, liquidates at 80 % of loan to value, and takes 5 %."""
    step = CLOSE_FACTOR * THRESHOLD * (1.0 + PENALTY)
    fee = PENALTY / (1.0 + PENALTY)
    liquidation = {"mode": "partial", "step": step, "fee": fee, "slippage": 0.0}
    bracket = bt.Bracket(0.0, math.inf, 4.0, 1.0 - THRESHOLD)
    venue = free_venue(interest_on="loan", **terms)
    return venue.override(liquidation=liquidation, brackets=[bracket])


def borrow(*bars: Any, policy: bt.Policy | None = None, **terms: Any) -> bt.Result:
    """Return what happens to 10,000 deposited at the lending market, in plain Python."""
    policy = policy or LeverageLoop(ltv=0.6, band=0.9)
    return live(scenes.market_of(*bars), policy, venue=lending_market(**terms), compile=False)


def debt(result: bt.Result) -> np.ndarray:
    return -result.bars["cash"].to_numpy()


@pytest.mark.parametrize("v", [0.01, 0.5, 0.75, 0.95])
def test_the_leverage_is_the_sum_of_the_geometric_series(v: float):
    """Each deposit lends v of itself, which is deposited again; the rest is v^(n+1) / (1 - v)."""
    bar = SimpleNamespace(direction=1.0)
    leverage = LeverageLoop(ltv=v).leverage(bar, SimpleNamespace(leverage=0.0))
    assert (leverage - 1.0) / leverage == pytest.approx(v, rel=1e-12)

    deposited = 0.0
    deposit = 1.0
    for n in range(400):
        deposited += deposit
        deposit *= v
        assert leverage - deposited == pytest.approx(v ** (n + 1) / (1.0 - v), abs=1e-12)


@pytest.mark.parametrize(("held", "direction", "is_traded"), [
    (2.0, 1.0, False),  # v = 1/2: health as aimed at
    (1.8, 1.0, False),  # v_t = 4/9, health 9/8 of it
    (1.6, 1.0, True),  # v_t = 3/8, health 4/3 of it
    (2.4, 1.0, False),  # v_t = 7/12, health 6/7 of it
    (2.6, 1.0, True),  # v_t = 8/13, health 13/16 of it
    (1.0, 1.0, True),  # no loan
    (0.7, 1.0, True),
    (-2.0, 1.0, True),  # the other side
    (-2.0, -1.0, False),
    (1.0, 0.5, False),  # half the size, the same loop
    (1.3, 0.5, True),
    (2.0, 0.0, True),
])  # fmt: skip
def test_the_loop_is_left_alone_while_its_health_is_in_the_band(held, direction, is_traded):
    policy = LeverageLoop(ltv=0.5, band=0.18)
    answer = policy.leverage(SimpleNamespace(direction=direction), SimpleNamespace(leverage=held))

    if is_traded:
        assert answer == 2.0
    else:
        assert math.isnan(answer)


def test_the_collateral_the_debt_and_the_health_factor_by_hand():
    """10,000 at 60 %: 25,000 of collateral, 15,000 of debt, health 0.8 * 25,000 / 15,000 = 4/3."""
    result = borrow(100.0, 100.0, 100.0)
    bars = result.bars

    assert bars["position"].iloc[1] == pytest.approx(250.0, rel=1e-12)
    assert debt(result)[1] == pytest.approx(15_000.0, rel=1e-12)
    assert THRESHOLD * 25_000.0 / debt(result)[1] == pytest.approx(4.0 / 3.0, rel=1e-12)
    assert bars["liquidation_price"].iloc[1] == pytest.approx(75.0, rel=1e-12)  # 100 / health


def test_a_breach_repays_half_of_the_debt_and_seizes_its_worth_and_the_penalty():
    """At 75, 18,750 hold 15,000: 7,500 are repaid with 7,875 of collateral, 105 of 250 coins. 145
    coins at 75 and a debt of 7,500 are left: equity 3,375, which is 3,750 less 375, 5 % of what was
    repaid. Health is 0.8 * 10,875 / 7,500 = 1.16, and the next price 7,500 / (0.8 * 145)."""
    result = borrow(100.0, 100.0, (100.0, 100.0, 74.0, 75.0), 75.0)
    bar = result.bars.iloc[2]
    assert bar["position"] == pytest.approx(145.0, rel=1e-12)
    assert debt(result)[2] == pytest.approx(7500.0, rel=1e-12)
    assert bar["equity"] == pytest.approx(3375.0, rel=1e-12)
    assert bar["liquidation_loss"] == pytest.approx(375.0, rel=1e-12)
    assert bar["liquidation_price"] == pytest.approx(7500.0 / 116.0, rel=1e-12)

    liquidated = result.events[result.events["kind"] == "liquidation"]
    assert liquidated["price"].tolist() == pytest.approx([75.0], rel=1e-12)
    assert result.metrics["liquidations"] == 1


def test_a_gap_repays_a_fixed_part_of_the_collateral_until_the_loan_is_healthy():
    """Opening at 66, 16,500 hold 15,000. 42 % of the collateral each time, 1 / 1.05 of it repaid:

    15,000 - 6,600 = 8,400 on 9,570, health 0.911; - 3,828 = 4,572 on 5,550.60, 0.971;
    - 2,220.24 = 2,351.76 on 3,219.348, 1.095. Penalties of 330, 191.40 and 111.012.
    """
    result = borrow(100.0, 100.0, 66.0, 66.0)
    bar = result.bars.iloc[2]

    assert bar["position"] == pytest.approx(250.0 * 0.58**3, rel=1e-12)
    assert debt(result)[2] == pytest.approx(2351.76, rel=1e-12)
    assert bar["liquidation_loss"] == pytest.approx(632.412, rel=1e-12)
    assert bar["equity"] == pytest.approx(1500.0 - 632.412, rel=1e-12)


def test_a_gap_under_the_debt_is_the_lenders_loss():
    """At 50 the collateral of 12,500 does not cover 15,000: 2,500 of bad debt, and no equity."""
    result = borrow(100.0, 100.0, 50.0, 50.0)
    assert result.bars["equity"].iloc[2] == 0.0
    assert result.metrics["bad_debt"] == pytest.approx(2500.0, rel=1e-12)


def test_interest_alone_breaches_a_loan_that_is_left_alone():
    """At 75 % the health is 0.8 / 0.75; a debt that grows by 40 % / 8760 an hour passes 80 %.
    Interest is added to the debt at each open from the second after the loan on: the first n with
    (1 + r)^n >= 0.8 / 0.75."""
    hourly = 0.4 / 8760.0
    n = math.ceil(math.log(0.8 / 0.75) / math.log1p(hourly))
    result = borrow(*[100.0] * (n + 5), policy=LeverageLoop(ltv=0.75, band=0.9), borrow_rate=0.4)
    bars = result.bars

    # 400 coins at 100 with 30,000 of debt, which grows until it is breached at the open of n + 1
    owed = 30_000.0 * (1.0 + hourly) ** np.arange(n + 1)
    np.testing.assert_allclose(debt(result)[1 : n + 1], owed[:n], rtol=1e-9)
    assert bars["interest"].iloc[2] == pytest.approx(30_000.0 * hourly, rel=1e-9)
    assert (bars["position"].iloc[1 : n + 1] == 400.0).all()

    # 42 % of the collateral is seized, and 40 % of 40,000 repaid
    assert bars["position"].iloc[n + 1] == pytest.approx(400.0 * 0.58, rel=1e-9)
    assert debt(result)[n + 1] == pytest.approx(owed[n] - 0.4 * 40_000.0, rel=1e-9)


def test_the_policy_restores_the_loan_before_it_is_liquidated():
    """Down 1 % an hour for 40 hours: a band of 10 % sells in time, one of 90 % does not. From 60 %
    on the loan to value grows by 1 / 0.99 an hour: after 11 hours it is over 0.6 / 0.9, and the
    next open restores it."""
    prices = 100.0 * 0.99 ** np.arange(40.0)
    wide = borrow(*prices, policy=LeverageLoop(ltv=0.6, band=0.9))
    assert wide.metrics["liquidations"] == 1

    narrow = borrow(*prices, policy=LeverageLoop(ltv=0.6, band=0.1))
    assert narrow.metrics["liquidations"] == 0

    ltv = debt(narrow) / (narrow.bars["position"] * prices)
    assert 0.6 / 0.99**10 < 0.6 / 0.9 < 0.6 / 0.99**11
    assert ltv[1:].max() == pytest.approx(0.6 / 0.99**11, rel=1e-9)
