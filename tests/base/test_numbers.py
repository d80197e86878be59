"""Elementary functions against fifty digits, and how numbers are written."""

import functools
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import backtest as bt
from backtest.core import number_text as text
from backtest.core.elementary import SHORT, raise_to
from backtest.engine import compile_scalar_rules
from backtest.live.book import format_leverage

INF = math.inf
NAN = math.nan
INF, NAN = math.inf, math.nan
EDGES = (
    0.0, -0.0, 5e-324, 1e-310, 2.2250738585072014e-308, 1e-17, 0.5, 1.0 - 2.0**-53, 1.0,
    1.0 + 2.0**-52, 1.5, 2.0, 3.0, 4.0, 709.78, 709.79, 745.13, 745.14, 2.0**52, 2.0**52 + 1.0,
    2.0**53 - 1.0, 2.0**53, 1e75, 1e300, 1.7976931348623157e308, INF, NAN,
)  # fmt: skip
BOTH_SIGNS = np.array([*EDGES, *(-edge for edge in EDGES)])


def make_draws(n: int) -> dict[str, tuple[np.ndarray, ...]]:
    rng = np.random.default_rng(35)
    x, y = (grid.ravel() for grid in np.meshgrid(BOTH_SIGNS, BOTH_SIGNS))

    ordinary = np.exp(rng.uniform(-3, 3, n))
    extreme = np.exp(rng.uniform(-744, 709, n))
    near_one = 1.0 + rng.normal(0.0, 1e-9, n)
    bases = [ordinary, extreme, near_one, np.exp(rng.uniform(-5, 5, n))]

    powers = [rng.uniform(-4, 4, n), rng.uniform(-2, 2, n)]
    powers += [rng.uniform(-1e10, 1e10, n), rng.integers(-8, 9, n) / 2.0]

    return {
        "exp": (np.concatenate([BOTH_SIGNS, rng.uniform(-745, 710, n), rng.normal(0, 1, n)]),),
        "log": (np.concatenate([BOTH_SIGNS, ordinary, extreme, near_one]),),
        "power": (np.concatenate([x, *bases]), np.concatenate([y, *powers])),
    }


def count_ulps(found: float, true: Any) -> float:
    """Return the error of a float in units of its last place; infinite floats must be due."""
    if math.isinf(found):
        return 0.0 if true > sys.float_info.max else INF
    return float(abs(true - found)) / math.ulp(min(float(true), sys.float_info.max))


def largest_error(name: str, n: int) -> float:
    """Return the worst error in units of the last place; powers may have more, by their size."""
    mpmath = pytest.importorskip("mpmath")
    arguments = make_draws(n)[name]
    function = getattr(bt.math, name)

    worst = 0.0
    with mpmath.workdps(50):
        for given in zip(*(array.tolist() for array in arguments), strict=True):
            x, y = given[0], given[-1]
            positive = x > 0.0 or name == "exp"
            if not positive or not all(map(math.isfinite, given)):
                continue

            exponent = mpmath.mpf(x) if name == "exp" else mpmath.log(mpmath.mpf(x))
            scale = 1.0
            if name == "power":
                exponent *= mpmath.mpf(y)
                scale += min(float(abs(exponent)), 1e6)

            true = exponent if name == "log" else mpmath.exp(min(exponent, mpmath.mpf(800)))
            worst = max(worst, count_ulps(function(*given), true) / scale)
    return worst


@pytest.mark.parametrize("name", ["exp", "log", "power"])
def test_errors_stay_within_their_bounds(name):
    assert largest_error(name, 300) <= 1.0


def test_powers_of_edges_are_those_of_the_standard():
    """As C's pow, except NaN where ``math.pow`` raises: there it is an infinity or no number."""
    x, y = make_draws(0)["power"]
    for base, factor in zip(x.tolist(), y.tolist(), strict=True):
        if base <= 0.0 and factor == 0.5:
            continue  # numpy takes the root there
        with np.errstate(all="ignore"):
            expected = float(np.power(np.float64(base), np.float64(factor)))
        found = bt.math.power(base, factor)

        if math.isnan(expected):
            assert math.isnan(found), (base, factor)
            continue

        is_edge = expected == 0.0 or math.isinf(expected)
        if is_edge:
            assert found == expected, (base, factor)
        else:
            assert found == pytest.approx(expected, rel=1e-12), (base, factor)
        assert math.copysign(1.0, found) == math.copysign(1.0, expected), (base, factor)


def test_other_edges():
    assert [bt.math.exp(x) for x in (INF, -INF, 0.0, 710.0, -746.0)] == [INF, 0.0, 1.0, INF, 0.0]
    assert math.isnan(bt.math.exp(NAN))

    assert [bt.math.log(x) for x in (INF, 0.0, -0.0, 1.0)] == [INF, -INF, -INF, 0.0]
    assert all(math.isnan(bt.math.log(x)) for x in (NAN, -1.0, -INF))

    assert [bt.math.normal_cdf(z) for z in (-INF, 0.0, INF, 50.0, -50.0)] == [0.0, 0.5, 1.0, 1.0, 0]
    assert math.isnan(bt.math.normal_cdf(NAN))
    assert bt.math.normal_density(INF) == 0.0


def test_whole_and_half_powers_are_exact():
    """Those of a machine's root and products, and every other whose result is a float."""
    rng = np.random.default_rng(4)
    for x in np.exp(rng.uniform(-50, 50, 500)).tolist():
        root = math.sqrt(x)
        powers = [bt.math.power(x, y) for y in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)]
        assert powers == [1.0, root, x, x * root, x * x, x * x * x]

        for y in SHORT:  # formulas in plain Python take these alone
            assert raise_to(x, y) == bt.math.power(x, y)

    for n in range(1, 98):
        powers = [bt.math.power(float(n * n), half / 2.0) for half in range(9)]
        assert powers == [float(n**half) for half in range(9)]
        assert bt.math.power(-float(n), 3.0) == -float(n**3)


@functools.cache
def compile_plainly(name: str) -> Callable[..., Any]:
    numba = pytest.importorskip("numba")
    compile_scalar_rules()  # lets compiled code call them

    function = getattr(bt.math, name)

    @numba.njit(error_model="numpy")
    def fill(first: Any, second: Any, out: Any) -> None:
        for i in range(len(out)):
            out[i] = function(first[i], second[i])

    @numba.njit(error_model="numpy")
    def fill_one(first: Any, out: Any) -> None:
        for i in range(len(out)):
            out[i] = function(first[i])

    return fill if name == "power" else fill_one


@pytest.mark.slow
@pytest.mark.compiled
@pytest.mark.parametrize(
    "name", ["exp", "log", "power", "normal_cdf", "normal_density", "mills_ratio"]
)
def test_compiled_code_gives_the_bits_of_plain_python(name):
    arguments = make_draws(25_000).get(name, (np.random.default_rng(1).normal(0, 9, 50_000),))
    if name == "mills_ratio":
        arguments = (np.abs(arguments[0]),)

    found = np.empty_like(arguments[0])
    compile_plainly(name)(*arguments, found)

    function = getattr(bt.math, name)
    rows = zip(*map(np.ndarray.tolist, arguments), strict=True)
    plain = np.array([function(*row) for row in rows])

    is_number = ~(np.isnan(found) & np.isnan(plain))
    assert np.array_equal(found[is_number].view(np.int64), plain[is_number].view(np.int64))


@pytest.mark.parametrize(("written", "expected"), [
    (text.format_number(1234.567), "1,234.57"),
    (text.format_signed(0.5), "+0.50"),
    (text.format_percent(-0.1234), "-12.34 %"),
    (text.format_percent(-0.0), "0.00 %"),
    (text.format_percent(0.0001, 4, is_signed=True), "+0.0100 %"),
    (text.format_probability(0.9499), "0.94"),
    (text.format_probability(0.95), "0.95"),
    (text.format_p_value(0.0501), "0.051"),
    (text.format_p_value(0.02649), "0.027"),
    (text.format_p_value(0.05), "0.050"),
    (text.format_p_value(1e-6), "0.001"),
    (text.format_chance(0.036217), "3.62 %"),
    (text.format_bps(0.0005), "5 bp"),
    (format_leverage(0.0034), "0.0034x"),
    (text.format_price(0.00123456), "0.00123456"),
    (text.format_money(0.0123456), "0.012"),
    (text.format_money(-0.806175), "-0.81"),
    (text.format_money(0.00996), "0.010"),
    (text.format_money(0.996), "1.00"),
    (text.format_money(2.26542), "2.27"),
    (text.format_money(3e-12), "3.0e-12"),
    (text.STYLES["growth"](-INF), "ruin"),
    (text.format_value(0.123456), "0.1235"),
    (text.format_setting(1_800_000_000), "1,800,000,000"),
    (text.format_setting({"time": ["2021-05-19"], "value": [0.1]}), "a series of 1 values"),
    (text.format_days(3.25), "3.2"),
    (text.format_days(INF), "never"),
])  # fmt: skip
def test_a_number_is_written_in_one_way(written, expected):
    assert written == expected


@pytest.mark.parametrize("value", [-0.0, -1e-7, -4.9e-6])
@pytest.mark.parametrize("style", [*sorted({*text.STYLES} - {"round money"}), "signed"])
def test_what_rounds_to_zero_has_no_minus(style, value):
    """A Sharpe ratio was written -0.00; what has significant digits alone keeps its sign."""
    write = text.STYLES.get(style, text.format_signed)
    written = write(value)
    assert "-" not in written or any(digit in written for digit in "123456789")


@pytest.mark.parametrize(("written", "expected"), [
    (text.format_number(-0.004), "0.00"),
    (text.format_number(-0.005001), "-0.01"),
    (text.format_signed(-0.004), "+0.00"),
    (text.format_percent(-0.00004), "0.00 %"),
    (text.format_percent(-0.00004, is_signed=True), "+0.00 %"),
    (text.format_percent(-0.0004, 1), "0.0 %"),
    (text.STYLES["points"](-0.0004), "0.0"),
    (text.format_money(-0.004), "-0.0040"),
    (text.format_price(-0.0), "0"),
])  # fmt: skip
def test_a_number_near_zero_is_written_without_a_minus_of_nothing(written, expected):
    assert written == expected


@pytest.mark.parametrize("write", [
    text.format_number,
    text.format_signed,
    text.format_percent,
    text.format_probability,
    text.format_p_value,
    text.format_money,
    text.format_days,
])  # fmt: skip
def test_what_is_not_known_is_not_available(write):
    assert write(NAN) == "n/a"
