"""The calculator of one position, and the probability that a price is touched."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.special import log_ndtr, stdtr

import backtest as bt
from backtest import features
from backtest.features import touch_distance, touch_probability
from tests.venue import test_vectors as vectors

BINANCE = bt.Venue.preset("binance-usdm", "BTCUSDT", at="2024-10-24")


LONG = ("--side", "long", "--entry", "30000", "--leverage", "10")


@pytest.mark.parametrize(("name", "venue"), [
    ("bin_usdm_brk_cross_1", ("binance-usdm", "BTCUSDT@2024-10-24")),
    ("bin_usdm_brk_cross_2", ("binance-usdm", "BTCUSDT@2024-10-24")),
    ("bin_usdm_brk_cross_5", ("binance-usdm", "KSMUSDT@2024-10-31")),
])  # fmt: skip
def test_the_price_of_a_published_position(name, venue):
    case = vectors.CASES[name]
    given, rules = case["inputs"], bt.Venue.preset(*venue)
    capital = given["wallet"]
    found = bt.calculate_liquidation(
        rules, side="long" if given["side"] == 1 else "short", entry=given["entry"],
        leverage=given["leverage"], margin="cross", capital=capital, quantity=given["qty"],
    )  # fmt: skip
    assert found.liquidation_price == pytest.approx(case["expected"]["liq_price"], abs=1e-6)


@pytest.mark.parametrize("name", [c for c, case in vectors.CASES.items()
                                  if case["area"] == "bybit_linear.liquidation"])  # fmt: skip
def test_bybits_prices_at_a_leverage(name):
    case = vectors.CASES[name]
    given = case["inputs"]
    rules = bt.Venue.preset("bybit-linear", "BTCUSDT").override(
        brackets=[bt.Bracket(0.0, math.inf, 50.0, given["mmr"])]
    )
    found = bt.calculate_liquidation(
        rules, side="long" if given["side"] == 1 else "short", entry=given["entry"],
        leverage=given["leverage"], quantity=given["qty"],
    )  # fmt: skip
    assert found.liquidation_price == pytest.approx(case["expected"]["liq_price"], rel=1e-6)


def test_an_inverse_position_is_sized_in_contracts_and_margined_in_the_coin():
    """bybit_inv_initial_margin and the bankruptcy prices at 8,000 and 50x."""
    rules = bt.Venue.preset("bybit-inverse", "BTCUSD")
    found = bt.calculate_liquidation(rules, side="long", entry=8_000, leverage=50, quantity=12_000)
    assert found.initial_margin == pytest.approx(0.03, abs=1e-12)
    assert found.bankruptcy_price == pytest.approx(7_843.137254901961, rel=1e-10)
    short = bt.calculate_liquidation(rules, side="short", entry=8_000, leverage=50, quantity=12_000)
    assert short.bankruptcy_price == pytest.approx(8_163.265306122449, rel=1e-10)
    assert short.liquidation_price == pytest.approx(8_121.827411167513, rel=1e-10)


@pytest.mark.parametrize(("initial", "side", "price", "call_price"), [
    (0.5, "long", 100.0, 100.0 * 0.5 / 0.75), (0.5, "long", 40.0, 40.0 * 0.5 / 0.75),
])  # fmt: skip
def test_the_margin_call_price_of_a_broker(initial, side, price, call_price):
    """regt_long_e: P (1 - IM) / (1 - MM)."""
    found = bt.calculate_liquidation(
        bt.Venue.preset("reg-t", "STOCK"), side=side, entry=price, leverage=1 / initial
    )
    assert found.liquidation_price == pytest.approx(call_price, rel=1e-12)


def test_every_figure_of_a_long_by_hand():
    # 1 coin at 30,000 and 10x: margin 3,000; the requirement is 0.4 % of 30,000, no amount.
    # 3000 + P - 30000 = 0.004 P at the liquidation price, 0 at the bankruptcy price.
    found = bt.calculate_liquidation(
        BINANCE, side="long", entry=30_000, leverage=10, volatility=0.6
    )
    price = 27_000 / 0.996
    assert (found.quantity, found.notional, found.collateral) == (1.0, 30_000.0, 3_000.0)
    assert (found.initial_margin, found.maintenance_margin) == (3_000.0, 120.0)
    assert found.liquidation_price == pytest.approx(price, rel=1e-12)
    assert found.bankruptcy_price == pytest.approx(27_000.0, rel=1e-12)
    assert found.distance == pytest.approx(price / 30_000 - 1, rel=1e-12)
    away = math.log(30_000 / price)
    assert found.daily_sigmas == pytest.approx(away / (0.6 / math.sqrt(365)), rel=1e-12)
    for days, chance in found.probabilities.items():
        # twice the chance that the price ends below: the reflection principle
        ends = 0.5 * math.erfc(away / (0.6 * math.sqrt(days / 365)) / math.sqrt(2))
        assert chance == pytest.approx(2 * ends, rel=1e-9)
        closed = features.touch_probability(-away, 0.6, days / 365)
        assert chance == pytest.approx(closed, rel=1e-12)


def test_a_leverage_agrees_with_what_a_run_shows():
    index = ["2025-01-01", "2025-01-02", "2025-01-03"]
    bars = pd.DataFrame(
        dict.fromkeys(("open", "high", "low", "close"), 30_000.0),
        index=pd.DatetimeIndex(index, tz="UTC"),
    )

    class Five(bt.Policy):
        def leverage(self, bar, account):
            return 5.0

    free = BINANCE.override(
        {"contract.lot": 0.0}, fees={"taker": 0.0, "maker": 0.0}, slippage={"rate": 0.0}
    )
    account = bt.Account(capital=6_000.0, margin="isolated", venue_leverage=5.0)
    market = bt.Market.from_frames(bars)
    last = bt.run(market, Five(), venue=free, account=account, compile=False).bars.iloc[-1]
    found = bt.calculate_liquidation(free, side="long", entry=30_000, leverage=5, capital=6_000)
    assert last["position"] == pytest.approx(found.quantity)
    assert last["liquidation_price"] == pytest.approx(found.liquidation_price, rel=1e-12)


def test_a_position_that_no_price_liquidates():
    found = bt.calculate_liquidation(
        BINANCE, side="long", entry=30_000, leverage=1, quantity=1, margin="cross",
        capital=40_000, volatility=0.6,
    )  # fmt: skip
    assert math.isnan(found.liquidation_price)
    assert set(found.probabilities.values()) == {0.0}


DAY = 1 / 365


def test_one_touch_options_are_worth_what_haug_has():
    """15 paid in half a year if 100 is touched: 9.3604 from 105, 11.2223 from 95, else 4.9081.

    Rate and carry 10 %, volatility 20 %. Source: Haug, The Complete Guide to Option Pricing
    Formulas, binary barrier options, cash at expiry.
    """
    paid, drift = 15.0 * math.exp(-0.05), 0.1 - 0.02
    down = touch_probability(math.log(100 / 105), 0.2, 0.5, drift)
    up = touch_probability(math.log(100 / 95), 0.2, 0.5, drift)
    assert paid * down == pytest.approx(9.3604, abs=5e-5)
    assert paid * up == pytest.approx(11.2223, abs=5e-5)
    assert paid * (1.0 - down) == pytest.approx(4.9081, abs=1.5e-4)


def test_the_tails_lose_no_digits():
    """Against the logarithms of both terms, down to 1e-300."""
    a, s = np.array([0.1, 0.3, 0.5, 0.74, 1.0]), 0.8 * math.sqrt(DAY)
    for drift in (-20.0, -0.3, 0.3, 20.0):
        v = drift * DAY
        terms = log_ndtr((-a - v) / s), -2.0 * v * a / s**2 + log_ndtr((-a + v) / s)
        found = touch_probability(-a, 0.8, DAY, drift)
        np.testing.assert_allclose(np.log(found), np.logaddexp(*terms), rtol=1e-12, atol=1e-12)
    assert 0.0 < touch_probability(-1.55, 0.8, DAY) < 1e-290


def test_at_the_edges_it_is_what_it_must_be():
    assert touch_probability(0.0, 0.5, DAY) == touch_probability(-0.0, 0.0, 0.0) == 1.0
    assert touch_probability(0.0, 0.5, DAY, degrees_of_freedom=3.0) == 1.0
    assert touch_probability(-0.1, 0.5, 0.0) == touch_probability(-0.1, 0.0, DAY) == 0.0
    assert touch_probability(math.inf, 0.5, DAY) == touch_probability(-math.inf, 2.0, 1.0, 1.0) == 0
    without_noise = touch_probability(-0.01, 0.0, 1.0, np.array([-0.02, -0.01, -0.009, 0.02]))
    assert without_noise.tolist() == [1.0, 1.0, 0.0, 0.0]
    assert math.isnan(touch_probability(math.nan, 0.5, DAY))
    assert math.isnan(touch_probability(-0.1, math.nan, DAY, degrees_of_freedom=4.0))
    assert isinstance(touch_probability(-0.1, 0.5, DAY), float)


@pytest.mark.parametrize("freedom", [2.05, 3.0, 4.0, 10.0, 300.0])
def test_without_drift_the_average_over_variances_is_students_t(freedom: float):
    """2 T(-a / s) of unit variance."""
    distance = -np.geomspace(1e-3, 2.0, 12)
    terms = {"degrees_of_freedom": freedom}
    still = touch_probability(distance, 0.8, DAY, **terms)
    scale = 0.8 * math.sqrt(DAY * (freedom - 2.0) / freedom)
    np.testing.assert_allclose(still, 2.0 * stdtr(freedom, distance / scale), rtol=1e-12)


@pytest.mark.parametrize("freedom", [math.inf, 12.0, 4.0, 2.2])
def test_the_distance_is_the_inverse_of_the_probability(freedom: float):
    probability = np.array([1.0, 0.9, 0.1, 1e-3, 1e-6, 1e-12])
    terms = {"degrees_of_freedom": freedom}
    for sigma, horizon in ((0.1, 1e-4), (0.8, DAY), (2.0, 1.0)):
        distance = touch_distance(probability, sigma, horizon, **terms)
        assert distance[0] == 0.0
        assert (np.diff(distance) > 0.0).all()
        for side in (-1.0, 1.0):
            found = touch_probability(side * distance, sigma, horizon, **terms)
            np.testing.assert_allclose(found, probability, rtol=1e-9)
    assert touch_distance(0.0, 0.8, DAY, **terms) == math.inf
