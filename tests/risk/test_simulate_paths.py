"""simulate_paths(): rows and stamps stay together, and a path depends on its number alone."""

import math

import numpy as np
import pandas as pd
import pytest
from arch.bootstrap import optimal_block_length

import backtest as bt
from backtest import paths as models
from backtest.risk.path_models import find_long_run, find_row_scale
from tests.kit import every_nth

NAMES = ["filtered", "stationary", "gbm", "merton", "garch"]


@pytest.fixture(scope="module")
def market() -> bt.Market:
    return bt.Market.sample(bars=2000)


def noise(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n)


@pytest.mark.parametrize("name", every_nth(NAMES, 3))
def test_paths_are_markets_and_do_not_depend_on_blocks(market, name):
    drawn = bt.simulate_paths(market, name, paths=300, horizon="3d", seed=7)
    path = drawn[280]
    again = bt.Market.from_frames(path.bars(), funding=path.funding(), mark=path.mark())
    assert again.n_bars == 73  # the last bar of history, and 72 hours
    whole = drawn.draw(0, 300)
    part = drawn.draw(280, 281)
    lone = bt.simulate_paths(market, name, paths=281, horizon="3d", seed=7).draw(280, 281)
    for mine, theirs in zip(part, lone, strict=True):
        assert np.array_equal(mine, theirs)
    assert np.array_equal(whole.prices[:, 280:281], part.prices)
    assert np.array_equal(path.close, part.prices[3, 0])
    other = bt.simulate_paths(market, name, paths=300, horizon="3d", seed=8)
    assert not np.array_equal(other.closes(), drawn.closes())
    # a longer horizon begins with the same bars
    longer = bt.simulate_paths(market, name, paths=300, horizon="5d", seed=7)
    assert np.array_equal(longer.closes()[:, :73], drawn.closes())


def test_rows_are_never_torn_and_funding_stays_at_its_stamps(market):
    given = {"paths": 60, "horizon": "20d", "seed": 1, "funding": "history"}
    drawn = bt.simulate_paths(market, models.Stationary(block=50), **given)
    bars = drawn.draw(0, 60)
    rows = bars.rows.reshape(60, -1)[:, 1:]
    prices = bars.prices.reshape(4, 60, -1)
    before = prices[3, :, :-1]
    source = np.array([market.open, market.high, market.low, market.close])
    drift = prices[3, 0, 1:] / before[0] / (market.close[rows[0]] / market.close[rows[0] - 1])
    assert np.all(np.abs(drift - 1.0) < 1e-3)  # of a bar: the same for all its prices and paths
    for j in range(4):
        wanted = source[j][rows] / market.close[rows - 1] * drift
        assert np.allclose(prices[j, :, 1:] / before, wanted, rtol=1e-13)
    marks = bars.marks.reshape(4, 60, -1)[3, :, 1:] / prices[3, :, 1:]
    assert np.allclose(marks, (market.mark_close / market.close)[rows], rtol=1e-13)
    # stamps at 00, 08 and 16 hours only, with the rate of the row that is there
    assert set(pd.DatetimeIndex(drawn[0].funding().index).hour) == {0, 8, 16}
    assert np.array_equal(
        (market.time[rows] // 3_600_000_000_000) % 8,
        np.broadcast_to((drawn.calendar.time[1:] // 3_600_000_000_000) % 8, rows.shape),
    )
    settled = dict(zip(market.funding_time // 60_000_000_000, market.funding_rate, strict=True))
    at = drawn.calendar.stamp_bar[3]
    row = bars.rows.reshape(60, -1)[11, at]
    assert bars.rates[11, 3] == settled[market.time[row] // 60_000_000_000]


def test_blocks_have_their_length_and_rows_are_equally_likely(market):
    drawn = bt.simulate_paths(market, models.Stationary(block=20), paths=400, horizon="40d", seed=2)
    rows = drawn.draw(0, 400).rows.reshape(400, -1)[:, 1:]
    joined = rows[:, 1:] == rows[:, :-1] + 1
    # a new block follows with probability 1/20, and by chance at the next row again: negligible
    assert 1.0 / (1.0 - joined.mean()) == pytest.approx(20.0, rel=0.03)
    counts = np.bincount(rows.ravel(), minlength=market.n_bars)[1:]
    expected = rows.size / (market.n_bars - 1)  # 192
    # blocks put neighbors together: the variance of a count is below 2 * 20 times its mean
    assert counts.min() > 0
    assert (
        abs(counts.reshape(-1)[:1992].reshape(8, -1).sum(axis=1) / 249 / expected - 1).max() < 0.1
    )


@pytest.mark.slow
def test_block_length_of_an_autoregression_is_that_of_politis_and_white():
    # AR(1) with rho = 0.6: (2 rho / (1 - rho^2))^(2/3) n^(1/3) for the stationary bootstrap;
    # the function squares its argument, so it is given roots of a positive autoregression
    n, rho = 20_000, 0.6
    known = (2 * rho / (1 - rho**2)) ** (2 / 3) * n ** (1 / 3)
    found = []
    for seed in range(8):
        x = np.zeros(n)
        shocks = noise(n, seed)
        for t in range(1, n):
            x[t] = rho * x[t - 1] + shocks[t]
        found.append(float(optimal_block_length(x)["stationary"].iloc[0]))
        root = np.sqrt(x - x.min() + 1.0)
        assert models.block_length(root) == pytest.approx(found[-1], rel=1e-6)
    assert np.mean(found) == pytest.approx(known, rel=0.1)
    assert models.block_length(noise(8000, 1)) == pytest.approx(20.0, rel=0.2)  # at least n^(1/3)


def with_returns(returns):
    """Return a market of hourly closes with these log returns."""
    close = 100 * np.exp(np.cumsum(returns))
    opens = np.concatenate([[100.0], close[:-1]])
    index = pd.date_range("2023", periods=len(close), freq="1h", tz="UTC")
    frame = pd.DataFrame(
        {"open": opens, "high": np.maximum(opens, close), "low": np.minimum(opens, close),
         "close": close},
        index=index,
    )  # fmt: skip
    return bt.Market.from_frames(frame)


def test_the_long_run_variance_of_resampled_rows_by_hand():
    model = models.Filtered(block=2.0, omega=1.0, alpha=0.1, beta=0.5, variance_now=1.0)
    rows = np.array([1.0, 3.0])
    # a = 0.6 and 0.8; u1 = (1 + 0.8 u2 + W) / 2, u2 = (1 + 0.6 u1 + W) / 2,
    # W = 1 + (0.6 u1 + 0.8 u2) / 2: u1 = 140 / 41, u2 = 130 / 41
    assert find_long_run(model, rows, 0.1 * rows) == pytest.approx((140 + 3 * 130) / 82, rel=1e-9)
    alone = model.override(block=1.0)  # each row by itself: (1 + 3) / 2 / (1 - 0.7)
    assert find_long_run(alone, rows, 0.1 * rows) == pytest.approx(2.0 / 0.3, rel=1e-9)
    assert find_long_run(alone, 3.0 * rows, 0.3 * rows) == math.inf
    half = find_row_scale(alone, rows, 0.1 * rows, 2.5)  # 2 c / (0.5 - 0.2 c) = 2.5
    assert half == pytest.approx(0.5, rel=1e-8)


def test_filtered_paths_have_the_long_run_variance_of_history():
    returns = 0.002 * noise(4000, 1)
    returns[np.random.default_rng(2).choice(4000, 80, replace=False)] *= 6.0
    jumpy = with_returns(returns)
    model = models.Filtered(block=20.0, omega=2e-7, alpha=0.04, beta=0.94, variance_now=2e-5)
    drawn = bt.simulate_paths(jumpy, model, paths=400, horizon="90d", seed=1)
    moves = np.diff(np.log(drawn.closes()), axis=1)[:, -1000:]
    assert np.mean(moves**2) == pytest.approx(np.mean(returns[1:] ** 2), rel=0.15)


def test_filtered_paths_start_at_todays_volatility():
    returns = np.concatenate([0.002 * noise(3000, 1), 0.02 * noise(48, 2)])
    loud = with_returns(returns)
    drawn = bt.simulate_paths(loud, "filtered", paths=500, horizon="1d", seed=1)
    mean = np.mean(np.diff(np.log(loud.close)) ** 2)
    today = drawn.model.filter(loud)[-1]
    assert today > 0.01**2
    assert drawn.model.variance_now == pytest.approx(mean * (today / mean) ** 0.8, rel=1e-9)
    moves = np.diff(np.log(drawn.closes()), axis=1)[:, 0]
    assert moves.std() == pytest.approx(math.sqrt(drawn.model.variance_now), rel=0.35)
    calm = bt.simulate_paths(loud, models.Stationary(block=20), paths=500, horizon="1d", seed=1)
    assert np.diff(np.log(calm.closes()), axis=1)[:, 0].std() < 0.5 * moves.std()


def test_a_start_in_the_past_uses_no_later_bar(market):
    start = market.times[1200]
    early = bt.simulate_paths(market, "gbm", paths=2, start=start, horizon="2d")
    assert early.history.n_bars == 1200
    alone = bt.simulate_paths(market.prefix(1200), "gbm", paths=2, horizon="2d")
    assert np.array_equal(early.closes(), alone.closes())


def test_sessions_go_on_at_their_times_of_the_week():
    days = pd.bdate_range("2020-01-01", periods=700, tz="UTC")
    close = 100 * np.exp(np.cumsum(0.01 * noise(700, 1)))
    frame = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), close), index=days)
    stocks = bt.Market.from_frames(frame, sessions=True, interval="1d")
    drawn = bt.simulate_paths(stocks, models.Stationary(block=10), paths=5, horizon="28d", seed=1)
    assert drawn.n_bars == 20
    assert set(drawn.time.day_of_week) == {0, 1, 2, 3, 4}
    rows = drawn.draw(0, 5).rows.reshape(5, -1)[:, 1:]
    weekdays = stocks.times.day_of_week.to_numpy()[rows]
    assert np.array_equal(weekdays, np.broadcast_to(drawn.time.day_of_week[1:], weekdays.shape))


@pytest.mark.parametrize(("settings", "words"), [
    ({"model": "gbmm"}, "did you mean 'gbm'"),
    ({"paths": math.nan}, "paths must be a whole number"),
    ({"horizon": "30m"}, "horizon must be at least one bar"),
    ({"start": "2019-01-01"}, "start must lie after two bars"),
    ({"model": "gbm", "funding": 0.2}, "funding must be"),
])  # fmt: skip
def test_bad_arguments_are_refused(market, settings, words):
    given = {"market": market, **settings}
    with pytest.raises(bt.ParameterError, match=words):
        bt.simulate_paths(given.pop("market"), **given)


def test_a_fit_needs_returns_that_vary(market):
    with pytest.raises(bt.DataError, match="at least 100 returns"):
        models.GBM.fit(market.prefix(50))
