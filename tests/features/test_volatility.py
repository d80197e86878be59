"""Estimators of volatility against other programs, and on prices of known volatility."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from arch import arch_model

from backtest import Market
from backtest._compile import compile_module
from backtest.indicators import (
    TAIL_MODELS,
    WEIGHTED_ESTIMATORS,
    averages,
    close_to_close_volatility,
    ewma_volatility,
    fitted_models,
    forecast_reach,
    funding_forecast,
    garch_volatility,
    har_volatility,
    implied_volatility,
    kernels,
    learned_regimes,
    log_returns,
    long_returns,
    rolling_sharpe,
    tail_losses,
    trend_sign,
    trend_strength,
    volatility,
)
from backtest.indicators.fitted_models import GarchFit, fit_garch
from backtest.indicators.ranges import garman_klass_variance, parkinson_variance
from tests import kit
from tests.features.test_features import flipping, market_of, sessions_market

HALF_LIVES = np.array([0.3, 0.5, 2.0, 24.0, 72.0, 300.0, 3000.0, 1e9])

MANY = {
    f"weighted {name}": (lambda market, h, name=name: volatility(market, name, h), HALF_LIVES)
    for name in WEIGHTED_ESTIMATORS
}
NAMES = np.array(["ewma", "garman-klass", "parkinson", "ewma", "garman-klass", "parkinson"])
MANY["by name"] = (lambda market, at: volatility(market, NAMES[at], HALF_LIVES[at]), np.arange(6))


WEIGHTED = {
    "ewma": lambda market: log_returns(market) ** 2,
    "parkinson": parkinson_variance,
    "garman-klass": garman_klass_variance,
}


@pytest.fixture(scope="module")
def market() -> Market:
    return Market.sample(bars=400)


@pytest.mark.parametrize("name", WEIGHTED)
def test_weighted_means_are_those_of_pandas(market: Market, name: str):
    per_bar = pd.Series(WEIGHTED[name](market))
    expected = []
    for half_life in HALF_LIVES:
        needed = min(max(2, math.ceil(half_life)), market.n_bars + 1)
        expected.append(per_bar.ewm(halflife=half_life, min_periods=needed).mean())

    found = volatility(market, name, HALF_LIVES)

    np.testing.assert_allclose(found, np.sqrt(np.transpose(expected) * kit.YEAR), rtol=1e-12)


def test_a_single_bar_by_hand():
    """ln(H/L) = 0.3, ln(C/O) = 0.1, H 0.2 over O and 0.1 over C, L 0.1 under O and 0.2 under C."""
    market = kit.make_market(np.exp([[0.0, 0.2, -0.1, 0.1]] * 2))
    parkinson = 0.09 / (4 * math.log(2))
    garman = 0.045 - (2 * math.log(2) - 1) * 0.01

    for name, variance in (("parkinson", parkinson), ("garman-klass", garman)):
        found = volatility(market, name, 2.0)
        np.testing.assert_allclose(found, [np.nan, math.sqrt(kit.YEAR * variance)], rtol=1e-12)


def test_yang_zhang_by_hand():
    """The bar before, twice, with a gap of 0.05: o = 0.05, c = 0.1, s = 0.2 * 0.1 + 0.1 * 0.2."""
    market = kit.make_market(np.exp([[0.0, 0.2, -0.1, 0.1], [0.15, 0.35, 0.05, 0.25]]))
    w = 0.5 ** (1 / 2.0)
    k = 0.34 / (1.34 + 1.0 / w)
    wanted = k * 0.01 + (1.0 - k) * 0.04 + 0.05**2 / (1.0 + w)

    found = volatility(market, "yang-zhang", 2.0)

    np.testing.assert_allclose(found, [np.nan, math.sqrt(kit.YEAR * wanted)], rtol=1e-12)


def test_ranges_see_the_night_of_session_days():
    """A third of the variance comes between close and open: ranges alone saw 0.82 of the whole."""
    rng = np.random.default_rng(5)
    n = 4000
    night = 0.006 * rng.standard_normal(n)
    steps = rng.standard_normal((n, 400))

    inside = np.cumsum(0.0085 / 20.0 * steps, axis=1)
    first = np.cumsum(night + np.concatenate([[0.0], inside[:-1, -1]]))
    high = np.exp(first + inside.max(axis=1).clip(0))
    low = np.exp(first + inside.min(axis=1).clip(None, 0))
    close = np.exp(first + inside[:, -1])
    terms = {"sessions": True}
    stocks = kit.bars_market(np.exp(first), close, "B", "2000-01-03", terms, high=high, low=low)

    closes = volatility(stocks, "ewma", math.inf)[-1]
    for name in ("parkinson", "garman-klass", "yang-zhang"):
        assert volatility(stocks, name, math.inf)[-1] == pytest.approx(closes, rel=0.04)


@pytest.fixture(scope="module")
def gbm() -> Market:
    """Return hourly bars of a Brownian motion whose log moves by N(0, 1) / 100 each hour. The path
    has 32 steps a bar, and the highest and lowest point of the Brownian bridge in each: max = (a +
    b + sqrt((a - b)^2 - 2 v ln U)) / 2, v the variance of a step. Only where both extremes of a bar
    fall into one step are they not drawn together as they should be: measured, no variance differs
    from that of 128 steps by 0.2 %."""
    rng = np.random.default_rng(0)
    shape = (40_000, 32)
    step = 0.01 / math.sqrt(32)
    moves = step * rng.standard_normal(shape)
    after = np.cumsum(moves, axis=1)

    ends = 2.0 * after - moves
    above = np.sqrt(moves**2 - 2 * step**2 * np.log(rng.random(shape)))
    below = np.sqrt(moves**2 - 2 * step**2 * np.log(rng.random(shape)))
    logs = {
        "high": 0.5 * (ends + above).max(axis=1),
        "low": 0.5 * (ends - below).min(axis=1),
        "close": after[:, -1],
    }

    start = np.concatenate([[0.0], np.cumsum(after[:-1, -1])])
    start -= start.mean()
    bars = {name: np.exp(start + log) for name, log in logs.items()}
    return kit.bars_market(np.exp(start), **bars)


@pytest.mark.parametrize(("name", "published"), [("parkinson", 4.91), ("garman-klass", 7.41)])
def test_efficiency_is_the_published_one(gbm, name: str, published: float):
    """Variance of squared returns over that of the estimate; Garman and Klass (1980). A sample
    variance has a relative standard error of sqrt((kurtosis - 1) / n): 1.9 % for squared normals,
    less for ranges, together at most 2.4 %."""
    of_returns = (np.log(gbm.close / gbm.open) ** 2).var()

    ratio = of_returns / WEIGHTED[name](gbm).var()

    assert ratio == pytest.approx(published, rel=3 * 0.024)


def test_an_implied_volatility_is_the_column_of_that_name(market: Market):
    values = np.linspace(0.4, 0.9, 400)
    market = market.with_columns(implied_volatility=values)
    assert (implied_volatility(market) == values).all()

    most = market.with_columns(implied_volatility=np.full(400, 10.0))
    assert implied_volatility(most).tolist() == [10.0] * 400


@pytest.fixture(scope="module")
def long_market() -> Market:
    return Market.sample(bars=1400)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of returns that models are fitted to, where none has been kept."""
    found: list[int] = []
    monkeypatch.setattr(fitted_models, "_fits", {})

    def fit(returns: np.ndarray) -> GarchFit | None:
        found.append(len(returns))
        return fit_garch(returns)

    monkeypatch.setattr(fitted_models, "fit_garch", fit)
    return found


def model_of(returns: np.ndarray) -> Any:
    """Return the model of ``arch``."""
    return arch_model(returns, mean="Zero", vol="GARCH", p=1, q=1, rescale=False)


def test_a_model_is_fitted_on_a_schedule_of_bars_and_once(long_market: Market, calls: list[int]):
    found = garch_volatility(long_market)
    assert calls == [1000, 1100, 1210, 1331]
    assert np.isnan(found[:1000]).all()
    assert np.isfinite(found[1000:]).all()
    assert volatility(long_market, "garch", 5.0).tobytes() == found.tobytes()

    garch_volatility(long_market.prefix(1300))
    volatility(long_market, ["garch", "ewma", "garch"], np.array([1.0, 2.0, 3.0]))
    assert calls == [1000, 1100, 1210, 1331]

    garch_volatility(market_of(long_market.close * 3.0))
    assert len(calls) == 8  # other rounding, other returns


def test_a_forecast_is_that_of_arch_with_the_same_parameters(long_market: Market):
    """Its conditional volatility of the next bar, and after the last bar its forecast."""
    found = garch_volatility(long_market) / math.sqrt(kit.YEAR)
    returns = log_returns(long_market)[1:]
    for start, stop in ((1000, 1100), (1210, 1331), (1331, 1400)):
        fit = fit_garch(returns[:start])
        assert fit is not None

        theirs = model_of(returns[: stop - 1]).fix(fit)
        expected = theirs.conditional_volatility[start:]  # of the bars after start
        np.testing.assert_allclose(found[start : stop - 1], expected, rtol=1e-12)

        last = theirs.forecast(horizon=1).variance.to_numpy()[-1, 0]
        assert found[stop - 1] == pytest.approx(math.sqrt(last), rel=1e-12)


def test_where_a_fit_fails_the_one_before_stays(
    long_market: Market, monkeypatch: pytest.MonkeyPatch
):
    """At 1000 none converges, so nothing is known; at 1210 the fit of 1100 stays."""
    monkeypatch.setattr(fitted_models, "_fits", {})
    whole = garch_volatility(long_market)
    fitted_models._fits.clear()

    def fit(returns):
        return None if len(returns) in (1000, 1210) else fit_garch(returns)

    monkeypatch.setattr(fitted_models, "fit_garch", fit)
    found = garch_volatility(long_market)

    assert np.isnan(found[:1100]).all()
    assert found[1100:1210].tobytes() == whole[1100:1210].tobytes()
    assert np.isfinite(found[1210:1331]).all()
    assert (found[1210:1331] != whole[1210:1331]).any()
    assert found[1331:].tobytes() == whole[1331:].tobytes()


def test_a_price_that_stands_still_has_no_volatility_and_no_model():
    market = market_of(np.full(300, 7.0))
    for name, (estimate, values) in MANY.items():
        assert (np.nan_to_num(estimate(market, values)) == 0.0).all(), name
    assert np.isnan(garch_volatility(market, first=100)).all()


@pytest.fixture(scope="module")
def days() -> Market:
    """A hundred and fifty days of four hours each."""
    return Market.sample(bars=150 * 6, interval="4h")


def slow_har(market: Market, t: int, first: int) -> float:
    """Return the forecast at bar t, by pandas and numpy's least squares."""
    seen = market.prefix(t + 1)
    squares = pd.Series(log_returns(seen) ** 2, index=seen.times)
    daily = squares.groupby(squares.index.floor("D")).sum()
    if market.sessions:
        n, week, month = 252.0, 5, 22
    else:
        n, week, month = 365.0, 7, 30

    over = seen.end >= daily.index.as_unit("ns").asi8 + 86_400 * 10**9
    daily = daily[over].iloc[1:].to_numpy()
    table = pd.DataFrame({"one": 1.0, "day": daily})
    table["week"] = table["day"].rolling(week).mean()
    table["month"] = table["day"].rolling(month).mean()
    x = table.to_numpy()
    pairs = len(x) - month
    if pairs < first:
        return math.nan
    rows = slice(month - 1, month - 1 + pairs)
    b = np.linalg.lstsq(x[rows], daily[month : month + pairs], rcond=None)[0]
    return math.sqrt(n * np.clip(x[-1] @ b, daily.min(), daily.max()))


@pytest.mark.parametrize("first", [100, 40])
def test_a_forecast_is_that_of_least_squares(days: Market, first: int):
    found = har_volatility(days, first=first)
    start = 6 * (1 + 30 + first) - 1
    assert np.isnan(found[:start]).all()

    assert np.isfinite(found[start:]).all()
    for t in (start - 1, start, start + 1, start + 5, start + 6, start + 40, 899):
        assert found[t] == pytest.approx(slow_har(days, t, first), rel=1e-9, nan_ok=True)


def test_a_session_is_over_with_the_first_bar_of_the_next():
    """Half-hours from 14:30 to 18:00: only the next day's first bar tells that it was the last."""
    sessions = sessions_market(60, 7)
    found = har_volatility(sessions, first=10)
    start = 7 * (1 + 22 + 10)

    assert np.isnan(found[:start]).all()
    assert np.isfinite(found[start:]).all()
    for t in (start, start + 6, start + 7, 419):
        assert found[t] == pytest.approx(slow_har(sessions, t, 10), rel=1e-9)


def test_compiled_kernels_have_the_bits_of_plain_python(long_market: Market):
    """Fused or reordered arithmetic would show."""
    n = 200
    decay = 0.5 ** (1.0 / np.array([0.5, 3.0, 64.0]))
    returns = np.where(np.arange(n) % 7 < 3, 0.0, log_returns(long_market)[:n])
    leave = np.array([[0.01, 0.5, 0.1], [0.05, 0.9, 0.1]])
    needed = np.array([2, 3, 64])

    found = []
    for code in (kernels, compile_module(kernels)):
        mean = np.zeros((n, 3))
        squares = returns[:, None] ** 2
        code.ewma_lanes(squares, decay, needed, np.linspace(1.0, 2.0, n), np.zeros((2, 3)), mean)

        filtered = np.zeros((n, 3))
        code.learn_lanes(returns**2, 1.0 - decay, leave, needed, np.zeros((10, 3)), filtered)

        tail = np.zeros((2, n))
        code.tail_lane(-returns, 2.05, 2.0, np.zeros(40), np.full(40, -np.inf), tail)

        found.append([array.tobytes() for array in (mean, filtered, tail)])
    assert found[0] == found[1]


def test_equal_funding_on_a_price_that_stands_still_has_no_sharpe_ratio():
    """Each bar earns -0.0003, which no binary number is: the deviation is 0 all the same."""
    index = pd.date_range("2024-01-01 00:30", periods=300, freq="1h", tz="UTC")
    market = market_of([7.0] * 300, funding=pd.Series(0.0003, index=index))
    assert len(set(long_returns(market)[10:])) == 1

    sharpe = rolling_sharpe(market, np.array([2, 7, 100]))
    assert np.isnan(sharpe.ratio).all()


class Family(NamedTuple):
    """Estimators of many values, and where their columns are cut, beside the last bar."""

    values: Any
    cuts: tuple[int, ...]
    estimates: dict[str, kit.Estimate]
    make: Callable[[], Market] = lambda: Market.sample(bars=500)


TAILS = np.array(["historical", "filtered-historical"])[[0, 1, 0, 1, 1]]
TAIL = {
    "level": np.array([0.9, 0.95, 0.975, 0.99, 0.995]),
    "horizon": np.array([1, 2, 24, 7, 1]),
    "window": np.array([25, 100, 101, 300, 640]),
    "half_life": np.array([2.0, 10.0, 72.0, 0.5, 300.0]),
}
REACH = {
    "probability": np.geomspace(1e-6, 0.5, 9),
    "horizon": np.geomspace(1.0, 2000.0, 9),
    "half_life": np.geomspace(2.0, 900.0, 9),
    "degrees_of_freedom": np.append(np.linspace(2.1, 9.0, 8), math.inf),
    "estimator": np.array(["ewma", "parkinson", "garman-klass"] * 3),
}
ONE = {"probability": 0.01, "horizon": 24.0}


def tail_of(model: str, part: int) -> kit.Estimate:
    """Return value at risk (0) or expected shortfall (1) of a model, or of several by name."""

    def estimate(market: Market, at: Any) -> np.ndarray:
        given = {name: values[at] for name, values in TAIL.items()}
        return tail_losses(market, TAILS[at] if model == "by name" else model, **given)[part]

    return estimate


def reach_of(*names: str) -> kit.Estimate:
    """Return the estimate at several values of the named settings, the others being usual."""

    def estimate(market: Market, at: Any) -> np.ndarray:
        settings = ONE | {name: REACH[name][at] for name in names}
        return forecast_reach(market, **settings)

    return estimate


def har_of(market: Market, first: Any) -> np.ndarray:
    columns = [har_volatility(market, first=int(n)) for n in np.atleast_1d(first)]
    return np.column_stack(columns) if np.ndim(first) else columns[0]


FAMILIES = {
    "half-lives": Family(
        np.geomspace(0.3, 3000.0, 67), (1, 2, 3, 63, 64, 65, 129, 1201), {"ewma": ewma_volatility},
        lambda: Market.sample(bars=1500),
    ),
    "windows": Family(
        np.unique(np.geomspace(2, 1200, 80).astype(int)), (1, 2, 3, 63, 64, 65, 127, 128, 1201),
        {"close to close": close_to_close_volatility,
         "sharpe": lambda m, n: rolling_sharpe(m, n).ratio,
         "sharpe error": lambda m, n: rolling_sharpe(m, n).error},
        lambda: Market.sample(bars=1500),
    ),
    **{name: Family(values, (1, 2, 3, 64, 65, 251), {"range": estimate},
                    lambda: Market.sample(bars=400))
       for name, (estimate, values) in MANY.items()},
    "tail": Family(
        np.arange(5), (1, 2, 24, 25, 26, 63, 64, 65, 128, 700),
        {f"{name}, {part}": tail_of(name, part)
         for name in (*TAIL_MODELS, "by name") for part in (0, 1)}, flipping,
    ),
    "reach": Family(
        np.arange(9), (1, 2, 3, 63, 64, 65),
        {"all": reach_of(*REACH)} | {name: reach_of(name) for name in REACH},
    ),
    "funding": Family(
        np.array([24.0, 1.0, 0.1, 3000.0, 168.0]), (1, 2, 8, 9, 10, 16, 17, 200),
        {"forecast": funding_forecast},
    ),
    "trend": Family(
        np.array([1, 24, 2, 300, 168, 5000]), (1, 2, 3, 24, 25, 168, 301),
        {"sign": trend_sign,
         "strength by lookback": lambda m, bars: trend_strength(m, bars, 36.0),
         "strength by half-life": lambda m, bars: trend_strength(m, 48, bars, 1.5),
         "strength by both": lambda m, bars: trend_strength(m, bars, bars, bars / 50.0)},
    ),
    "garch": Family(
        np.array([2.0, 24.0, 300.0]), (1, 999, 1000, 1001, 1101, 1250),
        {"garch": lambda m, h: volatility(m, "garch", h)}, lambda: Market.sample(bars=1400),
    ),
    "har": Family(
        np.array([10, 100]), (1, 5, 6, 7, 245, 246, 786, 787, 791, 792, 850),
        {"har": har_of}, lambda: Market.sample(bars=900, interval="4h"),
    ),
    "regimes": Family(
        np.array([200.0, 30.0, 1.5, 2000.0, 77.0]), (1, 2, 19, 20, 21, 22, 99, 100, 101, 102, 300),
        {"learned, filtered": lambda m, bars: learned_regimes(m, 200, bars, 30).filtered,
         "learned, predicted": lambda m, bars: learned_regimes(m, bars, 200, bars).predicted},
    ),
}  # fmt: skip
CASES = [
    pytest.param(family, estimate, marks=pytest.mark.slow if family == "garch" else ())
    for family, its in FAMILIES.items()
    for estimate in its.estimates
]


@pytest.mark.parametrize(
    "make", [None, *kit.slow([lambda: sessions_market(60, 9)])], ids=["24/7", "sessions"]
)
@pytest.mark.parametrize(("family", "name"), CASES)
def test_the_bits_do_not_depend_on_other_values_nor_on_the_future(family: str, name: str, make):
    values, cuts, estimates, own = FAMILIES[family]
    market = (make or own)()

    kit.check_lanes_are_each_alone(estimates[name], market, values)

    cuts = tuple(n for n in cuts if n < market.n_bars)
    kit.check_knows_the_past_only(estimates[name], market, values, (*cuts, market.n_bars - 1))


def jumping_market(width: float, days: int = 30) -> Market:
    """Return hours that move by 0.2 %, each with a range that reaches farther to both sides."""
    moves = 0.002 * np.where(np.random.default_rng(5).random(24 * days) < 0.5, -1.0, 1.0)
    close = 100.0 * np.exp(np.cumsum(moves))
    opened = np.concatenate([[100.0], close[:-1]])
    rows = {
        "open": opened,
        "high": np.maximum(opened, close) * math.exp(width),
        "low": np.minimum(opened, close) * math.exp(-width),
        "close": close,
    }
    index = pd.date_range("2023-01-01", periods=len(close), freq="1h", tz="UTC")
    return Market.from_frames(pd.DataFrame(rows, index))


@pytest.mark.parametrize("name", ["parkinson", "garman-klass", "yang-zhang"])
def test_calibrated_ranges_have_the_volatility_of_closes(name: str):
    """Every bar moves by 0.2 %, whatever its range: .002 sqrt(8760) a year, from a half-life on."""
    for width in (0.001, 0.004):
        found = volatility(jumping_market(width), name, 24.0, calibrate=True)
        assert np.isnan(found[:23]).all()
        np.testing.assert_allclose(found[25:], 0.002 * math.sqrt(8760.0), rtol=1e-9)

        bare = volatility(jumping_market(width), name, 24.0)
        assert bare[-1] != pytest.approx(found[-1], rel=0.05)


def test_the_calibration_by_hand():
    """Ranges of 3 %, 1 % and 2 %, returns of 1 %, -2 % and 1 % behind a first bar without one."""
    # the first bar has no return
    widths = np.array([0.02, 0.03, 0.01, 0.02])
    moves = np.array([0.0, 0.01, -0.02, 0.01])
    close = 100.0 * np.exp(np.cumsum(moves))
    opened = np.concatenate([[100.0], close[:-1]])
    low = np.minimum(opened, close)
    high = np.maximum(low * np.exp(widths), np.maximum(opened, close))
    rows = {"open": opened, "high": high, "low": low, "close": close}
    index = pd.date_range("2023-01-01", periods=4, freq="1h", tz="UTC")
    market = Market.from_frames(pd.DataFrame(rows, index))

    found = volatility(market, "parkinson", 1.0, calibrate=True)[-1]
    bare = volatility(market, "parkinson", 1.0, calibrate=False)[-1]

    ranges = np.log(market.high / market.low)[1:] ** 2 / (4.0 * math.log(2.0))
    ratio = np.sum(moves[1:] ** 2) / np.sum(ranges)
    assert found / bare == pytest.approx(math.sqrt(ratio), rel=1e-12)


def test_a_calibration_is_causal_and_forgets_after_a_year():
    whole = jumping_market(0.003, days=400)
    found = volatility(whole, "garman-klass", 24.0, calibrate=True)
    cut = volatility(whole.prefix(5000), "garman-klass", 24.0, calibrate=True)
    np.testing.assert_array_equal(found[:5000], cut)

    later = volatility(whole.slice(500, whole.n_bars), "garman-klass", 24.0, calibrate=True)
    np.testing.assert_allclose(found[-1], later[-1], rtol=1e-9)


def test_a_calibrated_range_of_an_endless_half_life_weighs_all_bars_alike():
    """sigma^2 = A mean(v) mean(r^2) / mean(v), the last over the bars that have a return."""
    market = Market.sample(bars=50)
    squares = log_returns(market)[1:] ** 2
    variance = parkinson_variance(market)
    expected = 8760.0 * variance.mean() * squares.mean() / variance[1:].mean()

    found = volatility(market, "parkinson", math.inf, calibrate=True)

    assert np.isnan(found[1])
    assert found[-1] ** 2 == pytest.approx(expected)


def test_only_ranges_are_calibrated():
    market = jumping_market(0.003)
    said = "calibrate is of ranges, parkinson, garman-klass, yang-zhang, and must be left out for"
    kit.check_refused(lambda: volatility(market, "ewma", 24.0, calibrate=True), said)

    mixed = volatility(market, ["parkinson", "yang-zhang"], 24.0, calibrate=True)
    alone = volatility(market, "yang-zhang", 24.0, calibrate=True)
    np.testing.assert_array_equal(mixed[:, 1], alone)


@pytest.mark.parametrize("half_life", [1.0, 20.0, 5_000.0])
def test_covariances_at_wanted_bars_are_those_of_pandas(half_life, monkeypatch):
    """Blocks of bars carry one state on; a bar with an unknown return only ages the others."""
    monkeypatch.setattr(averages, "MAX_PRODUCTS", 9 * 64)
    returns = np.random.default_rng(3).normal(0.0, 0.01, (1_000, 3))
    returns[:4, 2] = np.nan
    returns[500:520, 0] = np.nan
    wanted = np.array([0, 3, 4, 63, 64, 505, 700, 999])

    is_known = np.isfinite(returns).all(axis=1, keepdims=True)
    known = np.where(is_known, returns, np.nan)
    products = (known[:, :, None] * known[:, None, :]).reshape(1_000, 9)
    expected = pd.DataFrame(products).ewm(halflife=half_life).mean().to_numpy()[wanted]

    blocks = list(averages.walk_covariances(returns, half_life, wanted))

    sizes = [len(block.values) for block in blocks]
    assert [block.first for block in blocks] == np.cumsum([0, *sizes[:-1]]).tolist()
    found = np.concatenate([block.values for block in blocks])
    np.testing.assert_allclose(found.reshape(-1, 9), expected, rtol=1e-12, atol=1e-20)
