"""Value at risk and expected shortfall: closed forms, numpy's quantiles, and coverage."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from backtest import Market
from backtest.features import TAIL_MODELS, Tail, long_returns, tail_losses
from backtest.features.tails import held_returns
from backtest.measures import calibration
from tests.kit import YEAR, market_of

FILTERED = "filtered-historical"


@pytest.fixture(scope="module")
def market() -> Market:
    """Return a market whose signal changes sides."""
    flips = np.array([1.0, 0.5, -1.0, 0.0, -0.3])
    return Market.sample(bars=1200).with_signal(flips[np.arange(1200) // 89 % 5])


@pytest.mark.parametrize("level", [0.95, 0.99, 0.999])
@pytest.mark.parametrize("horizon", [1, 24])
def test_the_normal_model_is_its_closed_form(market: Market, level: float, horizon: int):
    squares = pd.Series(long_returns(market) ** 2)
    sigma = np.sqrt(squares.ewm(halflife=24.0, min_periods=2).mean().to_numpy() * horizon)
    z = stats.norm.ppf(level)
    found = tail_losses(market, "normal", half_life=24.0, level=level, horizon=horizon)
    np.testing.assert_allclose(found.value_at_risk, z * sigma, rtol=1e-12)
    shortfall = stats.norm.pdf(z) / (1.0 - level) * sigma
    np.testing.assert_allclose(found.expected_shortfall, shortfall, rtol=1e-12)


def sorted_tail(losses: np.ndarray, level: float) -> tuple[float, float]:
    """Return quantile and tail mean, the latter with a fraction of the last loss."""
    worst = np.sort(losses)[::-1]
    size = len(losses) * (1.0 - level)
    whole = int(size)
    total = worst[:whole].sum() + (size - whole) * worst[whole]
    return float(np.quantile(losses, level, method="weibull")), total / size


@pytest.mark.parametrize(("window", "level"), [(25, 0.95), (137, 0.975), (500, 0.99), (9, 0.9)])
@pytest.mark.parametrize("horizon", [1, 6])
def test_the_historical_model_is_the_quantile_of_its_window(
    market: Market, window: int, level: float, horizon: int
):
    found = tail_losses(market, "historical", window=window, level=level, horizon=horizon)
    earned = held_returns(market, horizon)
    for t in range(window + horizon - 1, market.n_bars):
        side = -1.0 if market.signal[t] < 0 else 1.0
        value, shortfall = sorted_tail(-side * earned[t - window + 1 : t + 1], level)
        assert found.value_at_risk[t] == pytest.approx(value, rel=1e-12, abs=1e-16)
        assert found.expected_shortfall[t] == pytest.approx(shortfall, rel=1e-11, abs=1e-16)
    assert np.isnan(found.value_at_risk[: window + horizon - 1]).all()


def test_what_is_held_over_a_horizon_pays_the_funding_settled_in_it(market: Market):
    """Over 3 bars: the price relative less the rates stamped before the close and not before."""
    closes = market.time + market.interval
    earned = held_returns(market, 3)
    for t in range(3, 200):
        inside = (market.funding_time < closes[t]) & (market.funding_time >= closes[t - 3])
        paid = market.funding_rate[inside].sum()
        expected = market.close[t] / market.close[t - 3] - 1.0 - paid
        assert earned[t] == pytest.approx(expected, abs=1e-14)
    np.testing.assert_allclose(held_returns(market, 1), long_returns(market), atol=1e-15)


@pytest.mark.parametrize("horizon", [1, 6])
def test_filtered_losses_are_scaled_from_the_forecast_they_met_to_that_of_now(
    market: Market, horizon: int
):
    squares = pd.Series(long_returns(market) ** 2)
    sigma = np.sqrt(squares.ewm(halflife=24.0, min_periods=2).mean().to_numpy() * horizon)
    earned = held_returns(market, horizon)
    found = tail_losses(market, FILTERED, window=100, half_life=24.0, level=0.95, horizon=horizon)
    known = 2 + horizon
    for t in range(known + 99, market.n_bars, 7):
        side = -1.0 if market.signal[t] < 0 else 1.0
        ends = np.arange(t - 99, t + 1)
        value, shortfall = sorted_tail(-side * earned[ends] / sigma[ends - horizon], 0.95)
        assert found.value_at_risk[t] == pytest.approx(value * sigma[t], rel=1e-11)
        assert found.expected_shortfall[t] == pytest.approx(shortfall * sigma[t], rel=1e-11)
    assert np.isnan(found.value_at_risk[: known + 99]).all()
    assert not np.isnan(found.value_at_risk[known + 99])


@pytest.mark.parametrize("model", TAIL_MODELS)
def test_a_short_position_is_a_long_one_on_the_opposite_returns(model: str):
    """Simple returns of the opposite sign, without funding."""
    moves = 0.01 * np.random.default_rng(6).standard_t(4, 800)
    up, down = (market_of(100.0 * np.cumprod(1.0 + sign * moves)) for sign in (1.0, -1.0))
    settings = {"level": 0.95, "horizon": 1, "window": 200, "half_life": 30.0}
    short = tail_losses(up.with_signal(-np.ones(1)), model, **settings)
    long = tail_losses(down, model, **settings)
    for part in (0, 1):
        np.testing.assert_allclose(short[part][1:], long[part][1:], rtol=1e-9)


def test_a_price_that_stands_still_has_no_tail():
    market = market_of(np.full(300, 7.0))
    for model in ("normal", "historical"):
        tail = tail_losses(market, model, window=100, half_life=10.0, level=0.99)
        assert (tail.value_at_risk[101:] == 0.0).all()
        assert (tail.expected_shortfall[101:] == 0.0).all()
    assert np.isnan(
        tail_losses(market, FILTERED, window=100, half_life=10.0, level=0.99).value_at_risk
    ).all()


def walk_of(noise: np.ndarray) -> Market:
    return market_of(100.0 * np.exp(np.cumsum(0.7 / math.sqrt(YEAR) * noise)))


def clustered(n: int, seed: int) -> np.ndarray:
    """Return noise of variance 1 from a GARCH(1,1) of 0.09 and 0.9, with a half-life of 69 bars."""
    shocks = np.random.default_rng(seed).standard_normal(n)
    noise, variance = np.empty(n), 1.0
    for t in range(n):
        noise[t] = math.sqrt(variance) * shocks[t]
        variance = 0.01 + 0.09 * noise[t] ** 2 + 0.9 * variance
    return noise


def fat(n: int, seed: int, degrees: int) -> np.ndarray:
    """Return noise of variance 1 from Student's t."""
    return np.random.default_rng(seed).standard_t(degrees, n) * math.sqrt((degrees - 2) / degrees)


def violations(market: Market, tail: Tail, horizon: int = 1) -> np.ndarray:
    """Return whether losses, which do not overlap, were over what was forecast for them."""
    losses = -held_returns(market, horizon)[horizon:]
    forecast = tail.value_at_risk[:-horizon]
    known = ~np.isnan(forecast)
    return (losses > forecast)[known][::horizon]


def judge(market: Market, tail: Tail, level: float, horizon: int = 1) -> tuple[float, float, float]:
    """Return the p-values of the number of violations, their independence, and both at once."""
    hits = violations(market, tail, horizon)
    found = calibration(np.full(len(hits), 1.0 - level), hits)
    both = stats.chi2.sf(found.kupiec + found.christoffersen, 2)
    return found.kupiec_p, found.christoffersen_p, float(both)


ALPHA = 0.01
"""Level of the tests below: a right model fails each in one of a hundred seeds."""


def test_the_normal_model_fails_where_tails_are_fat_and_the_historical_ones_do_not():
    """Student's t with 4 degrees of freedom: beyond 2.33 deviations lie 1.5 %, not 1 %."""
    market = walk_of(fat(20_000, seed=12, degrees=4))
    settings = {"level": 0.99, "horizon": 1, "window": 1000, "half_life": 200.0}
    assert judge(market, tail_losses(market, "normal", **settings), 0.99)[0] < 1e-6
    for model in ("historical", "filtered-historical"):
        for p_value in judge(market, tail_losses(market, model, **settings), 0.99):
            assert p_value > ALPHA


@pytest.mark.parametrize("seed", [1, 2])
def test_filtering_takes_out_the_clusters_that_plain_history_has(seed: int):
    """GARCH returns at 95 %: the count is right for both; the plain model's violations follow one
    another, the filtered one's do not."""
    market = walk_of(clustered(20_000, seed))
    plain = tail_losses(market, "historical", window=1000, level=0.95)
    count, apart, both = judge(market, plain, 0.95)
    assert count > ALPHA
    assert apart < 1e-10
    assert both < 1e-10
    filtered = tail_losses(market, FILTERED, window=1000, half_life=12.0, level=0.95)
    for p_value in judge(market, filtered, 0.95):
        assert p_value > ALPHA
