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

PUBLISHED = [
    # Haug (1998), The Complete Guide to Option Pricing Formulas: kind, S, K, T, r, q, sigma, price
    ("call", 90.0, 100.0, 0.1, 0.1, 0.1, 0.35, 0.9474),
    ("put", 110.0, 100.0, 0.1, 0.1, 0.1, 0.15, 0.0408),
    ("put", 100.0, 100.0, 0.5, 0.1, 0.1, 0.25, 6.6997),
    ("call", 42.0, 40.0, 0.75, 0.04, 0.08, 0.35, 5.0975),
]
HAUG_GREEKS = [
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
    found = options.bs_greeks(kind, s, k, t, v, r, q)
    assert getattr(found, name) == pytest.approx(expected, abs=1e-4)


@pytest.mark.skipif(not VECTORS.is_file(), reason="needs ../shared/vectors")
def test_vectors():
    """Truth 1: published prices, Greeks and implied volatilities; SVI's are in test_surface."""
    cases = json.loads(VECTORS.read_text(encoding="utf-8"))
    assert sum(case["system"] in CHECKS for case in cases) >= 47
    for case in cases:
        check = CHECKS.get(case["system"])
        for name, (found, expected) in (check(case) if check else {}).items():
            bound = case["tolerance"].get("abs", 1e-9 * abs(expected))
            assert abs(found - expected) <= bound, (case["id"], name, found)


def check_bs(case: dict[str, Any]) -> dict[str, tuple[float, float]]:
    given = case["inputs"]
    names = ("spot", "strike", "years", "volatility", "rate", "dividend")
    values = [given[name] for name in names]
    kind = KINDS[given["type"]]
    found = {"price": options.bs(kind, *values), **options.bs_greeks(kind, *values)._asdict()}
    return {name: (found[name], value) for name, value in case["expected"].items()}


def check_black(case: dict[str, Any]) -> dict[str, tuple[float, float]]:
    given, expected = case["inputs"], case["expected"]
    place = (given["future"], given["strike"], given["years"], given["volatility"])
    call, put = (options.greeks(kind, *place, given["rate"]) for kind in ("call", "put"))
    found = {
        "price": options.price("call", *place, given["rate"]),
        "undiscounted": options.price("call", *place),
        "delta": call.delta,
        "theta_put_per_day": put.theta / 365.0,
        "vega_per_point": call.vega / 100.0,
    }
    return {name: (found[name], value) for name, value in expected.items()}


def check_normalized(case: dict[str, Any]) -> dict[str, tuple[float, float]]:
    given, expected = case["inputs"], case["expected"]
    if "beta" in given:
        x = given["x"] if given["type"] == "c" else -given["x"]
        found = implied_kernels.solve_deviation(-abs(x), given["beta"])
        return {"iv": (found, expected["normalised_iv"])}
    x = given["x"]
    put = black_kernels.normalized_price(-abs(x), given["s"])
    parity = 2.0 * math.sinh(0.5 * x)
    return {"put": (put, expected["put"]), "call": (put + parity, expected["call"])}


def check_edges(case: dict[str, Any]) -> dict[str, tuple[float, float]]:
    given, kind = case["inputs"], KINDS[case["inputs"]["type"]]
    place = (given["price"], given["forward"], given["strike"], given["years"])
    found = options.implied_volatility(kind, *place)
    if "behaviour" in case["expected"]:
        assert math.isnan(found)
        assert "at or above" in options.volatility_reason(kind, *place)
        return {}
    return {"iv": (found, case["expected"]["implied_vol"])}


def draw_options(n: int, seed: int) -> tuple[np.ndarray, ...]:
    """Return kinds, forwards, strikes, years, volatilities and rates, deep wings among them."""
    rng = np.random.default_rng(seed)
    years = np.exp(rng.uniform(np.log(1e-4), np.log(5.0), n))
    volatility = np.exp(rng.uniform(np.log(0.01), np.log(3.0), n))
    reach = rng.choice([1.0, 5.0, 36.0], n) * volatility * np.sqrt(years)
    k = np.clip(rng.uniform(-1.0, 1.0, n) * reach, -4.0, 4.0)
    forward = np.exp(rng.uniform(0.0, 12.0, n))
    kinds = np.where(rng.random(n) < 0.5, "call", "put")
    return kinds, forward, forward * np.exp(k), years, volatility, rng.uniform(-0.05, 0.1, n)


@pytest.mark.parametrize("n", [150, pytest.param(10_000, marks=pytest.mark.slow)])
def test_prices_and_greeks_in_fifty_digits(n: int):
    mpmath = pytest.importorskip("mpmath")
    kinds, *numbers = draw_options(n, seed=1)
    found = options.price(kinds, *numbers)
    delta, gamma, vega = options.greeks(kinds, *numbers)[:3]
    with mpmath.workdps(50):
        for i, row in enumerate(zip(*numbers, strict=True)):
            f, k, t, v, r = map(mpmath.mpf, row)
            sign = 1 if kinds[i] == "call" else -1
            s = v * mpmath.sqrt(t)
            d1 = mpmath.log(f / k) / s + s / 2
            discount = mpmath.exp(-r * t)
            tail = mpmath.ncdf(sign * d1)
            price = discount * sign * (f * tail - k * mpmath.ncdf(sign * (d1 - s)))
            density = discount * mpmath.npdf(d1)
            assert abs(found[i] - price) <= 1e-12 * max(f, k)
            if price > 1e-300:
                assert abs(found[i] / price - 1) <= 1e-9
                assert abs(delta[i] / (discount * sign * tail) - 1) <= 1e-9
                assert abs(gamma[i] / (density / (f * s)) - 1) <= 1e-9
                assert abs(vega[i] / (f * density * mpmath.sqrt(t)) - 1) <= 1e-9


@pytest.mark.parametrize("n", [400, pytest.param(100_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("settlement", ["cash", "coin"])
def test_implied_volatility_of_a_price_is_its_volatility(n: int, settlement: str):
    kinds, forward, strike, years, volatility, rate = draw_options(n, seed=2)
    prices = options.price(kinds, forward, strike, years, volatility, rate, settlement)
    place = (forward, strike, years, rate, settlement)
    vega = options.greeks(kinds, forward, strike, years, volatility, rate, settlement).vega
    found = options.implied_volatility(kinds, prices, *place)
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = 1e-12 + 4.0 * EPSILON * prices / vega
    is_lost = np.isnan(found)
    reasons = options.volatility_reason(kinds, prices, *place)
    assert ((reasons != "") == is_lost).all()
    # only where the price, rounded, no longer tells the volatility, or underflows
    assert (is_lost <= ((bound > 1e-3 * volatility) | (prices < 1e-300))).all()
    assert any(reason.startswith("vega is too small") for reason in reasons)  # it was up to 1.4 off
    seen = ~is_lost & (prices > 1e-300)
    assert seen.mean() > 0.8
    assert (np.abs(found - volatility)[seen] <= bound[seen]).all()


def test_put_call_parity_and_homogeneity():
    """Truth 2, with the tests of implied volatilities and of central differences."""
    _, f, k, t, v, r = draw_options(300, seed=3)
    call, put = options.price("call", f, k, t, v, r), options.price("put", f, k, t, v, r)
    np.testing.assert_allclose(call - put, np.exp(-r * t) * (f - k), atol=4e-15 * (f + k).max())
    np.testing.assert_allclose(options.price("call", 7 * f, 7 * k, t, v, r), 7 * call, rtol=1e-9)
    np.testing.assert_array_equal(options.price("put", f, k, t, v, r, "coin"), put / f)


@pytest.mark.parametrize("settlement", ["cash", "coin"])
@pytest.mark.parametrize("kind", ["call", "put"])
def test_greeks_are_central_differences(kind: str, settlement: str):
    f, k, t, v, r = 105.0, 100.0, 0.4, 0.6, 0.05

    def value(f: float = f, t: float = t, v: float = v, r: float = r) -> float:
        return options.price(kind, f, k, t, v, r, settlement)

    def slope(name: str, at: float, h: float) -> float:
        return (value(**{name: at + h}) - value(**{name: at - h})) / (2.0 * h)

    found = options.greeks(kind, f, k, t, v, r, settlement)
    h = 1e-3
    bend = (value(f=f + h * f) - 2.0 * value() + value(f=f - h * f)) / (h * f) ** 2
    vega_up, vega_down = (
        options.greeks(kind, f, k, t, v + sign * 1e-5, r, settlement) for sign in (1, -1)
    )
    expected = options.Greeks(
        delta=slope("f", f, 1e-4 * f), gamma=bend, vega=slope("v", v, 1e-5),
        theta=-slope("t", t, 1e-5), rho=slope("r", r, 1e-5),
        vanna=(vega_up.delta - vega_down.delta) / 2e-5,
        volga=(vega_up.vega - vega_down.vega) / 2e-5,
    )  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-9)


def test_greeks_in_money_by_hand():
    """-2 contracts of 0.1 coin: delta x 0.5 x S x size x quantity, as the table of units says."""
    unit = options.greeks("call", 100.0, 110.0, 0.5, 0.4)
    held = {"in_money": True, "quantity": -2.0, "size": 0.1, "spot": 90.0}
    money = options.greeks("call", 100.0, 110.0, 0.5, 0.4, **held)
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


def test_reasons_without_a_volatility():
    kinds, prices = ["call", "call", "call", "put", "call", "call"], [9, 10, 100, 90, 12, np.nan]
    reasons = options.volatility_reason(kinds, prices, 100.0, 90.0, [1.0, 1.0, 1.0, 1.0, 0.0, 1.0])
    words = ["below", "at the intrinsic", "at or above", "at or above", "no time", "missing"]
    assert all(word in reason for word, reason in zip(words, reasons, strict=True))


def test_missing_numbers_stay_missing():
    found = options.price(["call", "put"], [100.0, np.nan], 100.0, 1.0, 0.2)
    assert found[0] == options.price("call", 100.0, 100.0, 1.0, 0.2)
    assert math.isnan(found[1])
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
    plain, compiled = (
        bt.run(market, Insured(), venue=venue, account=account, compile=each)
        for each in (False, True)
    )
    for name in ("equity", "leverage", "target"):
        assert plain.bars[name].to_numpy().tobytes() == compiled.bars[name].to_numpy().tobytes()
    assert plain.bars["leverage"].abs().max() > 0.5


CHECKS = {
    "black_scholes": check_bs, "black_scholes.greeks": check_bs, "black_76": check_black,
    "black_76.greeks": check_black, "implied_vol.normalised": check_normalized,
    "implied_vol.edge": check_edges,
}  # fmt: skip
GOOD = ("call", 100.0, 100.0, 1.0, 0.2)
BAD = [
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
