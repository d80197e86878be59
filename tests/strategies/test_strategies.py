"""Each policy against its closed form, or the figures its paper published."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.features import ewma_volatility
from backtest.strategies import Constant, Cppi, SharpeScaling, VolTarget
from tests.kit import YEAR, bars_market, live, market_of, walk


@pytest.mark.slow
@pytest.mark.parametrize("turns", [0.5, 2.0, 3.0])
def test_constant_grows_as_a_leveraged_fund(turns: float):
    """Log growth is l mu - l^2 sigma^2 / 2 within three standard errors, l sigma / sqrt(years)."""
    mu, sigma, years = 0.3, 0.6, 10
    market = walk(years * YEAR, mu, sigma, seed=3)
    result = live(market, Constant(leverage=turns))
    growth = math.log(result.metrics["final_equity"] / 10_000.0) / years
    expected = turns * mu - 0.5 * turns**2 * sigma**2
    assert growth == pytest.approx(expected, abs=3 * turns * sigma / math.sqrt(years))


def test_decay_of_constant_in_a_market_that_goes_nowhere():
    """Up 10 %, back down, 50 times, at 3x: each time (1 + 0.3) (1 - 3 / 11) = 0.945454..."""
    market = market_of(np.tile([100.0, 110.0], 51)[:101])
    result = live(market, Constant(leverage=3.0), compile=False)
    assert result.metrics["final_equity"] == pytest.approx(10_000 * (1.3 * 8 / 11) ** 50, rel=1e-9)
    years = 101 / YEAR
    decay = -50 * math.log(1.3 * 8 / 11) / years
    assert result.metrics["leverage_decay"] == pytest.approx(decay, rel=1e-9)


def test_vol_target_is_its_formula():
    policy = VolTarget(target=0.5, half_life=24.0, power=2.0)
    market = bt.Market.sample(bars=200)
    sigma = ewma_volatility(market, 24.0)
    assert policy.observe(market)["sigma"].tobytes() == sigma.tobytes()
    target = live(market, policy, compile=False).bars["target"].to_numpy()
    np.testing.assert_allclose(target, (0.5 / sigma) ** 2, rtol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.3, 1.2])
def test_vol_target_meets_its_target_on_a_random_walk(sigma: float):
    """Dividing by an estimate of effective size n = 2 / (1 - w) adds about 1.5 / n of volatility.

    n is 2 half_life / ln 2 = 577 here; the standard error over 40,000 bars is 0.35 %.
    """
    market = walk(40_000, 0.0, sigma, seed=4)
    result = live(market, VolTarget(target=0.4, half_life=200.0), sampling="1h")
    assert result.metrics["volatility"] == pytest.approx(0.4, rel=0.015)
    assert result.metrics["mean_leverage"] == pytest.approx(0.4 / sigma, rel=0.02)


def decide(policy: SharpeScaling, sigma: float, sharpe: float, error: float) -> float:
    """Return the leverage at one bar."""
    return policy.leverage(SimpleNamespace(sigma=sigma, sharpe=sharpe, error=error), None)


def test_sharpe_scaling_sees_the_estimate_of_its_window():
    """SR = sqrt(8760) mean / std of the last 100 returns net of funding; Lo's error beside it."""
    market = bt.Market.sample(bars=400)
    columns = SharpeScaling(window=100).observe(market)
    closes = market.time + market.interval
    for t in (100, 237, 399):
        returns = []
        for s in range(t - 99, t + 1):
            paid = market.funding_rate[
                (market.funding_time < closes[s]) & (market.funding_time >= closes[s - 1])
            ].sum()
            returns.append(market.close[s] / market.close[s - 1] - 1.0 - paid)
        per_bar = np.mean(returns) / np.std(returns, ddof=1)
        assert columns["sharpe"][t] == pytest.approx(math.sqrt(YEAR) * per_bar, rel=1e-9)
        error = math.sqrt(YEAR) * math.sqrt((1 + per_bar**2 / 2) / 100)
        assert columns["error"][t] == pytest.approx(error, rel=1e-12)
    assert np.isnan(columns["sharpe"][:100]).all()


def test_sharpe_scaling_weighs_the_estimate_with_the_prior():
    """Error 2 and prior error 1: weights 1/5 and 4/5; 0.2 * 3 + 0.8 * 0.5 = 1 of 2 wanted."""
    policy = SharpeScaling(target=0.4, prior=0.5, prior_error=1.0, reference=2.0)
    assert decide(policy, sigma=0.8, sharpe=3.0, error=2.0) == pytest.approx(0.25, rel=1e-12)


def gentle_walk(n: int, largest: float, seed: int) -> bt.Market:
    """Return bars without gaps that move by up to ``largest``, often by all of it."""
    rng = np.random.default_rng(seed)
    moves = np.clip(rng.normal(0.0, largest, n), -largest, largest)
    return market_of(100.0 * np.cumprod(1.0 + moves))


@pytest.mark.slow
@pytest.mark.parametrize("multiplier", [1.5, 3.0, 10.0])
@pytest.mark.parametrize("ratchet", [0.0, 0.8])
def test_cppi_never_falls_under_its_floor_without_gaps(multiplier: float, ratchet: float):
    """Black and Perold (1992): no bar falls by more than 1 / m, so the cushion stays positive."""
    policy = Cppi(multiplier=multiplier, floor=0.7, ratchet=ratchet)
    for seed in range(5):
        market = gentle_walk(2000, 0.999 / multiplier, seed)
        equity = live(market, policy).bars["equity"].to_numpy()
        floor = np.maximum(7000.0, ratchet * np.maximum.accumulate(equity))
        assert (equity >= floor * (1.0 - 1e-12)).all()
        assert equity.min() < 7300.0 or ratchet


def test_cppi_is_its_formula_at_every_bar():
    market = bt.Market.sample(bars=300)
    result = live(market, Cppi(multiplier=4.0, floor=0.9, growth=0.2), compile=False)
    equity = result.bars["equity"].to_numpy()
    years = np.arange(1, 301) / YEAR
    floor = 9000.0 * 1.2**years
    expected = np.maximum(0.0, 4.0 * (equity - floor) / equity)
    np.testing.assert_allclose(result.bars["target"], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("multiplier", "floor", "gap"), [(3.0, 0.7, 0.5), (10.0, 0.8, 0.3)])
def test_a_gap_takes_cppi_under_its_floor_by_the_closed_form(multiplier, floor, gap):
    """From E to E - m (E - F) d: a shortfall of (m d - 1) (E - F), and no risk after it."""
    after = 100.0 * (1.0 - gap)
    close = np.array([100.0] * 5 + [after] * 5)
    opens = np.array([100.0] * 5 + [after] * 5)
    policy = Cppi(multiplier=multiplier, floor=floor)
    bars = live(bars_market(opens, close), policy, compile=False).bars
    cushion = 10_000.0 * (1.0 - floor)
    assert bars["leverage"].iloc[4] == pytest.approx(multiplier * (1.0 - floor), rel=1e-12)
    shortfall = 10_000.0 * floor - bars["equity"].iloc[5]
    assert shortfall == pytest.approx((multiplier * gap - 1.0) * cushion, rel=1e-9)
    assert (bars["target"].iloc[5:] == 0.0).all()
    assert (bars["position"].iloc[6:] == 0.0).all()


def test_the_floor_of_tipp_follows_the_peak_and_never_falls():
    """100 -> 200 -> 150 -> 180 at one turn a bar; phi 0.5, m 2: L = 2 (1 - 0.5 M / E)."""
    close = np.array([100.0, 100.0, 200.0, 150.0, 180.0, 180.0])
    bars = live(market_of(close), Cppi(multiplier=2.0, floor=0.0, ratchet=0.5), compile=False).bars
    equity = bars["equity"].to_numpy()
    np.testing.assert_allclose(equity[:4], [10_000, 10_000, 20_000, 15_000], rtol=1e-12)
    peak = np.maximum.accumulate(equity)
    np.testing.assert_allclose(bars["target"], 2.0 * (1.0 - 0.5 * peak / equity), rtol=1e-12)
    assert bars["target"].iloc[3] == pytest.approx(2.0 * (1.0 - 10_000 / 15_000), rel=1e-12)


def test_the_floor_of_cppi_refers_to_the_start_also_after_a_pause():
    """A resumed run remembers the equity of the first one: the whole equals its parts."""
    market = bt.Market.sample(bars=300)
    policy = Cppi(multiplier=4.0, floor=0.9, growth=0.2)
    whole = live(market, policy, compile=False)
    first = live(market.prefix(120), policy, compile=False)
    rest = market.between(pd.Timestamp(int(market.time[120]), tz="UTC"))
    second = live(rest, policy, resume=first, compile=False)
    assert first.memory.tolist() == second.memory.tolist() == [10_000.0, 0.0]
    np.testing.assert_array_equal(whole.bars["target"].to_numpy()[120:], second.bars["target"])
