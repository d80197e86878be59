"""Prices, Greeks and implied volatilities: published figures, fifty digits, other libraries."""

import json
import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest

import backtest as bt
from backtest import options
from backtest.core import black_kernels
from backtest.core.elementary import normal_cdf
from backtest.options import implied_kernels
from tests.kit import check_refused

VECTORS = Path(__file__).parents[3] / "shared" / "vectors" / "options.json"
KINDS = {"c": "call", "p": "put"}
EPSILON = np.finfo(float).eps

# Haug (1998), The Complete Guide to Option Pricing Formulas.
PUBLISHED = [  # kind, S, K, T, r, q, sigma, price
    ("call", 90.0, 100.0, 0.1, 0.1, 0.1, 0.35, 0.9474),
    ("put", 110.0, 100.0, 0.1, 0.1, 0.1, 0.15, 0.0408),
    ("put", 100.0, 100.0, 0.5, 0.1, 0.1, 0.25, 6.6997),
    ("call", 42.0, 40.0, 0.75, 0.04, 0.08, 0.35, 5.0975),
]
HAUG_GREEKS = [  # name, kind, S, K, T, r, q, sigma, the Greek
    ("delta", "call", 105.0, 100.0, 0.5, 0.1, 0.1, 0.36, 0.5946),
    ("delta", "put", 105.0, 100.0, 0.5, 0.1, 0.1, 0.36, -0.3566),
    ("gamma", "call", 55.0, 60.0, 0.75, 0.1, 0.0, 0.3, 0.0278),
    ("theta", "put", 430.0, 405.0, 1.0 / 12.0, 0.07, 0.05, 0.2, -31.1924),
    ("rho", "call", 72.0, 75.0, 1.0, 0.09, 0.0, 0.19, 38.7325),
]


@pytest.mark.parametrize(("kind", "s", "k", "t", "r", "q", "v", "expected"), PUBLISHED)
def test_published_prices(kind, s, k, t, r, q, v, expected):
    assert options.bs(kind, s, k, t, v, r, q) == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize(("name", "kind", "s", "k", "t", "r", "q", "v", "expected"), HAUG_GREEKS)
def test_published_greeks(name, kind, s, k, t, r, q, v, expected):
    greeks = options.bs_greeks(kind, s, k, t, v, r, q)
    assert getattr(greeks, name) == pytest.approx(expected, abs=1e-4)


@pytest.mark.skipif(not VECTORS.is_file(), reason="needs ../shared/vectors")
def test_published_vectors_are_met_within_their_tolerances():
    """Truth 1: published prices, Greeks and implied volatilities; SVI's are in test_surface."""
    vectors = json.loads(VECTORS.read_text(encoding="utf-8"))
    cases = [case for case in vectors if case["system"] in CHECKS]
    assert len(cases) >= 47

    for case in cases:
        check = CHECKS[case["system"]]
        for name, (value, expected) in check(case).items():
            tolerance = case["tolerance"].get("abs", 1e-9 * abs(expected))
            assert abs(value - expected) <= tolerance, (case["id"], name, value)


def check_bs(case: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Return what a model computes and what is published, by name."""
    inputs = case["inputs"]
    kind = KINDS[inputs["type"]]
    names = ("spot", "strike", "years", "volatility", "rate", "dividend")
    place = [inputs[name] for name in names]

    computed = options.bs_greeks(kind, *place)._asdict()
    computed["price"] = options.bs(kind, *place)
    return {name: (computed[name], value) for name, value in case["expected"].items()}


def check_black(case: dict[str, Any]) -> dict[str, tuple[float, float]]:
    inputs = case["inputs"]
    place = (inputs["future"], inputs["strike"], inputs["years"], inputs["volatility"])
    call = options.greeks("call", *place, inputs["rate"])
    put = options.greeks("put", *place, inputs["rate"])

    computed = {
        "price": options.price("call", *place, inputs["rate"]),
        "undiscounted": options.price("call", *place),
        "delta": call.delta,
        "theta_put_per_day": put.theta / 365.0,
        "vega_per_point": call.vega / 100.0,
    }
    return {name: (computed[name], value) for name, value in case["expected"].items()}


def check_normalized(case: dict[str, Any]) -> dict[str, tuple[float, float]]:
    inputs = case["inputs"]
    expected = case["expected"]
    x = inputs["x"]
    if "beta" in inputs:
        deviation = implied_kernels.solve_deviation(-abs(x), inputs["beta"])
        return {"iv": (deviation, expected["normalised_iv"])}

    put = black_kernels.normalized_price(-abs(x), inputs["s"])
    parity = 2.0 * math.sinh(0.5 * x)
    return {"put": (put, expected["put"]), "call": (put + parity, expected["call"])}


def check_edges(case: dict[str, Any]) -> dict[str, tuple[float, float]]:
    inputs = case["inputs"]
    kind = KINDS[inputs["type"]]
    place = (inputs["price"], inputs["forward"], inputs["strike"], inputs["years"])
    volatility = options.implied_volatility(kind, *place)

    if "behaviour" in case["expected"]:
        assert math.isnan(volatility)
        assert "at or above" in options.volatility_reason(kind, *place)
        return {}
    return {"iv": (volatility, case["expected"]["implied_vol"])}


def draw_options(n: int, seed: int) -> tuple[np.ndarray, ...]:
    """Return kinds, forwards, strikes, years, volatilities and rates, deep wings among them."""
    rng = np.random.default_rng(seed)
    years = np.exp(rng.uniform(np.log(1e-4), np.log(5.0), n))
    volatility = np.exp(rng.uniform(np.log(0.01), np.log(3.0), n))
    reach = rng.choice([1.0, 5.0, 36.0], n) * volatility * np.sqrt(years)
    k = np.clip(rng.uniform(-1.0, 1.0, n) * reach, -4.0, 4.0)
    forward = np.exp(rng.uniform(0.0, 12.0, n))
    strike = forward * np.exp(k)
    kinds = np.where(rng.random(n) < 0.5, "call", "put")
    rate = rng.uniform(-0.05, 0.1, n)
    return kinds, forward, strike, years, volatility, rate


@pytest.mark.parametrize("n", [150, pytest.param(10_000, marks=pytest.mark.slow)])
def test_prices_and_greeks_in_fifty_digits(n: int):
    mpmath = pytest.importorskip("mpmath")
    kinds, *numbers = draw_options(n, seed=1)
    prices = options.price(kinds, *numbers)
    greeks = options.greeks(kinds, *numbers)

    with mpmath.workdps(50):
        for i, row in enumerate(zip(*numbers, strict=True)):
            f, k, t, v, r = map(mpmath.mpf, row)
            sign = 1 if kinds[i] == "call" else -1
            s = v * mpmath.sqrt(t)
            d1 = mpmath.log(f / k) / s + s / 2
            discount = mpmath.exp(-r * t)
            tail = mpmath.ncdf(sign * d1)
            price = discount * sign * (f * tail - k * mpmath.ncdf(sign * (d1 - s)))
            assert abs(prices[i] - price) <= 1e-12 * max(f, k)
            if price <= 1e-300:
                continue

            density = discount * mpmath.npdf(d1)
            delta = discount * sign * tail
            gamma = density / (f * s)
            vega = f * density * mpmath.sqrt(t)
            assert abs(prices[i] / price - 1) <= 1e-9
            assert abs(greeks.delta[i] / delta - 1) <= 1e-9
            assert abs(greeks.gamma[i] / gamma - 1) <= 1e-9
            assert abs(greeks.vega[i] / vega - 1) <= 1e-9


@pytest.mark.parametrize("n", [400, pytest.param(100_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("settlement", ["cash", "coin"])
def test_implied_volatility_of_a_price_is_its_volatility(n: int, settlement: str):
    kinds, forward, strike, years, volatility, rate = draw_options(n, seed=2)
    prices = options.price(kinds, forward, strike, years, volatility, rate, settlement)
    place = (forward, strike, years, rate, settlement)
    vega = options.greeks(kinds, forward, strike, years, volatility, rate, settlement).vega
    solved = options.implied_volatility(kinds, prices, *place)
    is_lost = np.isnan(solved)

    # A price has a relative error of EPSILON: so much of the volatility is lost.
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = 1e-12 + 4.0 * EPSILON * prices / vega
    is_seen = ~is_lost & (prices > 1e-300)
    assert is_seen.mean() > 0.8
    assert (np.abs(solved - volatility)[is_seen] <= bound[is_seen]).all()

    # It is missing only where the price, rounded, no longer tells the volatility, or underflows.
    may_be_lost = (bound > 1e-3 * volatility) | (prices < 1e-300)
    assert (is_lost <= may_be_lost).all()

    reasons = options.volatility_reason(kinds, prices, *place)
    assert ((reasons != "") == is_lost).all()
    assert any(reason.startswith("vega is too small") for reason in reasons)  # it was up to 1.4 off


def test_put_call_parity_and_homogeneity():
    """Truth 2, with the tests of implied volatilities and of central differences."""
    _, f, k, t, v, r = draw_options(300, seed=3)
    call = options.price("call", f, k, t, v, r)
    put = options.price("put", f, k, t, v, r)

    np.testing.assert_allclose(call - put, np.exp(-r * t) * (f - k), atol=4e-15 * (f + k).max())
    np.testing.assert_allclose(options.price("call", 7 * f, 7 * k, t, v, r), 7 * call, rtol=1e-9)
    np.testing.assert_array_equal(options.price("put", f, k, t, v, r, "coin"), put / f)


@pytest.mark.parametrize("settlement", ["cash", "coin"])
@pytest.mark.parametrize("kind", ["call", "put"])
def test_greeks_are_central_differences(kind: str, settlement: str):
    base = {"f": 105.0, "t": 0.4, "v": 0.6, "r": 0.05}
    k = 100.0

    def move(name: str, h: float) -> tuple[float, float, float, float, float]:
        place = {**base, name: base[name] + h}
        return place["f"], k, place["t"], place["v"], place["r"]

    def value(name: str, h: float) -> float:
        return options.price(kind, *move(name, h), settlement)

    def slope(name: str, h: float) -> float:
        return (value(name, h) - value(name, -h)) / (2.0 * h)

    h = 1e-3 * base["f"]
    bend = (value("f", h) - 2.0 * value("f", 0.0) + value("f", -h)) / h**2
    up = options.greeks(kind, *move("v", 1e-5), settlement)
    down = options.greeks(kind, *move("v", -1e-5), settlement)
    expected = options.Greeks(
        delta=slope("f", 1e-4 * base["f"]),
        gamma=bend,
        vega=slope("v", 1e-5),
        theta=-slope("t", 1e-5),
        rho=slope("r", 1e-5),
        vanna=(up.delta - down.delta) / 2e-5,
        volga=(up.vega - down.vega) / 2e-5,
    )

    greeks = options.greeks(kind, *move("f", 0.0), settlement)
    np.testing.assert_allclose(greeks, expected, rtol=2e-6, atol=1e-9)


def test_greeks_in_money_by_hand():
    """-2 contracts of 0.1 coin: delta x 0.5 x S x size x quantity, as the table of units says."""
    unit = options.greeks("call", 100.0, 110.0, 0.5, 0.4)
    position = {"in_money": True, "quantity": -2.0, "size": 0.1, "spot": 90.0}
    money = options.greeks("call", 100.0, 110.0, 0.5, 0.4, **position)

    assert money.delta == pytest.approx(unit.delta * 90.0 * -0.2, rel=1e-14)
    assert money.gamma == pytest.approx(unit.gamma * 90.0**2 / 100.0 * -0.2, rel=1e-14)
    assert money.vega == pytest.approx(unit.vega / 100.0 * -0.2, rel=1e-14)
    assert money.theta == pytest.approx(unit.theta / 365.0 * -0.2, rel=1e-14)


@pytest.mark.parametrize(
    ("kind", "forward", "delta"), [("call", 120.0, 1.0), ("call", 100.0, 0.5), ("put", 120.0, 0.0)]
)
def test_at_expiry_and_without_volatility(kind: str, forward: float, delta: float):
    payoff = max(0.0, (forward - 100.0) if kind == "call" else (100.0 - forward))

    for years, volatility in ((0.0, 0.5), (0.5, 0.0)):
        assert options.price(kind, forward, 100.0, years, volatility) == payoff
        assert options.greeks(kind, forward, 100.0, years, volatility) == (delta, *[0.0] * 6)


@pytest.mark.parametrize(("kind", "price", "years", "words"), [
    ("call", 9.0, 1.0, "below"),
    ("call", 10.0, 1.0, "at the intrinsic"),
    ("call", 100.0, 1.0, "at or above"),
    ("put", 90.0, 1.0, "at or above"),
    ("call", 12.0, 0.0, "no time"),
    ("call", math.nan, 1.0, "missing"),
])  # fmt: skip
def test_a_price_without_a_volatility_has_a_reason(kind, price, years, words):
    """A forward of 100 and a strike of 90; alone and among others."""
    reason = options.volatility_reason(kind, price, 100.0, 90.0, years)
    reasons = options.volatility_reason([kind, "call"], [price, 12.0], 100.0, 90.0, [years, 1.0])

    assert words in str(reason)
    assert words in reasons[0]
    assert reasons[1] == ""


def test_missing_numbers_stay_missing():
    prices = options.price(["call", "put"], [100.0, np.nan], 100.0, 1.0, 0.2)
    assert prices[0] == options.price("call", 100.0, 100.0, 1.0, 0.2)
    assert math.isnan(prices[1])
    assert math.isnan(options.greeks("call", math.nan, 1.0, 1.0, 1.0).vega)


class Insured(bt.Policy):
    """Hold one coin less the delta of a put, sized by its price and implied volatility."""

    sigma: Annotated[float, bt.Range(0.1, 2.0)] = 0.5

    def leverage(self, bar, account):
        price = options.price("put", bar.close, 0.9 * bar.close, 30.0 / 365.0, self.sigma)
        found = options.greeks("put", bar.close, 0.9 * bar.close, 0.08, 0.5, settlement="coin")
        implied = options.implied_volatility("put", price, bar.close, 0.9 * bar.close, 30.0 / 365.0)
        spot = options.bs("call", bar.close, bar.close, 0.1, self.sigma, 0.03, 0.01)
        hedged = 1.0 + found.delta * bar.close + normal_cdf(-implied) + 10.0 * price / bar.close
        return hedged + spot / bar.close


@pytest.mark.slow
def test_compiled_formulas_have_the_bits_of_plain_ones():
    market = bt.Market.sample(bars=2000)
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT")
    account = bt.Account(capital=10_000.0, max_leverage=5.0)
    terms = {"venue": venue, "account": account}
    plain = bt.run(market, Insured(), **terms, compile=False)
    compiled = bt.run(market, Insured(), **terms)

    for name in ("equity", "leverage", "target"):
        assert plain.bars[name].to_numpy().tobytes() == compiled.bars[name].to_numpy().tobytes()
    assert plain.bars["leverage"].abs().max() > 0.5


CHECKS = {
    "black_scholes": check_bs, "black_scholes.greeks": check_bs, "black_76": check_black,
    "black_76.greeks": check_black, "implied_vol.normalised": check_normalized,
    "implied_vol.edge": check_edges,
}  # fmt: skip
GOOD = ("call", 100.0, 100.0, 1.0, 0.2)
BAD = [  # arguments of a price, and words of the refusal
    (("cal", *GOOD[1:]), "did you mean 'call'"),
    (("call", 0.0, *GOOD[2:]), "forward must be over 0, got 0"),
    (("call", math.inf, *GOOD[2:]), "forward must be finite"),
    (("call", 100.0, [1.0, -2.0, -3.0], 1.0, 0.2), "got -2 in 2 of 3 places"),
    (("call", 100.0, 100.0, 1.0, -0.2), "volatility must be at least 0"),
    (("call", [1.0, 2.0], [1.0, 2.0, 3.0], 1.0, 0.2), "shapes that broadcast"),
]


@pytest.mark.parametrize(("given", "words"), BAD)
def test_bad_input_gets_one_clear_error(given, words):
    check_refused(lambda: options.price(*given), words, kind=bt.ParameterError)


@pytest.mark.parametrize(
    ("strike", "text"),
    [(28_000.0, "28000"), (0.5, "0.5"), (1e6, "1000000"), (12_345.67, "12345.67")],
)
def test_a_name_has_all_digits_of_the_strike(strike, text):
    option = bt.Option(kind="call", strike=strike, expiry="2026-06-26 08:00", underlying="BTC")
    assert option.name == f"BTC-2026-06-26-{text}-C"
