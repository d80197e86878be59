"""Drift of paths: none by default in any model, and what is asked for otherwise."""

import itertools
import math

import numpy as np
import pytest

import backtest as bt
from backtest import paths as models
from tests.kit import every_nth
from tests.risk.test_simulate_paths import NAMES, noise, with_returns

WEEK = 7 / 365


@pytest.fixture(scope="module")
def market() -> bt.Market:
    return bt.Market.sample(bars=2000)


@pytest.mark.parametrize("name", every_nth(NAMES, 3))
def test_the_mean_price_is_todays(market, name):
    drawn = bt.simulate_paths(market, name, paths=4000, horizon="7d", seed=11)
    assert drawn.model.drift == 0.0
    ratio = drawn.closes()[:, -1] / market.close[-1]
    # four standard errors, fixed seed; history itself rises by 0.2 % a week
    assert ratio.mean() == pytest.approx(1.0, abs=4.0 * ratio.std() / math.sqrt(4000))


def test_blocks_of_a_trending_history_have_no_drift_either():
    """Rows that follow each other rise together: the mean of a product is not that of means."""
    wave = 0.002 * np.sin(np.arange(3000) / 80.0) + 0.002 * noise(3000, 1)
    trending = with_returns(wave + 0.0005)
    model = models.Stationary(block=100.0)
    ratio = bt.simulate_paths(trending, model, paths=4000, horizon="14d", seed=3).closes()
    ends = ratio[:, -1] / ratio[:, 0]
    assert ends.mean() == pytest.approx(1.0, abs=4.0 * ends.std() / math.sqrt(4000))


def test_the_growth_of_blocks_by_enumeration():
    history = with_returns(np.array([0.0, 0.01, -0.02, 0.03, 0.005]))
    drawn = bt.simulate_paths(history, models.Stationary(block=2.0), paths=1, horizon="3h")
    moves = np.log(history.close[1:] / history.close[:-1])
    total = 0.0
    for rows in itertools.product(range(4), repeat=3):
        chance = 0.25
        for t in (1, 2):  # the second and the third bar begin a block with a probability of a half
            follows = rows[t] == (rows[t - 1] + 1) % 4
            chance *= 0.5 * 0.25 + 0.5 * follows
        total += chance * math.exp(moves[list(rows)].sum())
    table = drawn.leader.table
    taken = table.growth[1:].sum() + 3 * table.terms[8]
    assert math.log(total) == pytest.approx(taken, abs=1e-13)


@pytest.mark.parametrize("name", every_nth(NAMES, 3))
def test_a_drift_moves_all_paths_alike(market, name):
    terms = {"paths": 3, "horizon": "7d", "seed": 1}
    plain = bt.simulate_paths(market, name, **terms).closes()[:, -1]
    moved = bt.simulate_paths(market, name, drift=0.5, **terms)
    assert moved.closes()[:, -1] / plain == pytest.approx(math.exp(0.5 * WEEK), rel=1e-12)
    assert [*moved.describe()["drift"].values()] == [0.5]
    of_history = bt.simulate_paths(market, name, drift="history", **terms)
    simple = market.close[1:] / market.close[:-1] - 1.0
    assert of_history.model.drift == pytest.approx(8760 * math.log1p(simple.mean()), rel=1e-9)
    assert of_history.describe()["drift_of_history"]


def test_a_model_with_parameters_keeps_its_drift(market):
    model = models.GBM(volatility=0.5, drift=0.3)
    assert bt.simulate_paths(market, model, paths=1).model.drift == 0.3
    assert bt.simulate_paths(market, model, paths=1, drift=0.0).model.drift == 0.0
    for wrong in ("histori", math.nan, [1.0]):
        with pytest.raises(bt.ParameterError, match="drift must be"):
            bt.simulate_paths(market, model, paths=1, drift=wrong)


def test_paths_of_a_fitted_garch_have_the_variance_of_history_for_long():
    """Without a bound, 180 days of BTCUSDT had a deviation of 171 % where history has 60 %."""
    shocks = np.random.default_rng(4).standard_t(3, 3000) / math.sqrt(3.0)
    returns, variance = np.zeros(3000), 1e-5
    for t, shock in enumerate(shocks):
        returns[t] = math.sqrt(variance) * shock
        variance = 1e-8 + 0.08 * returns[t] ** 2 + 0.92 * variance
    jumpy = with_returns(returns)
    drawn = bt.simulate_paths(jumpy, "garch", paths=300, horizon="90d", seed=2)
    mean_square = np.mean(np.diff(np.log(jumpy.close)) ** 2)
    moves = np.diff(np.log(drawn.closes()), axis=1)
    assert np.mean(moves**2) == pytest.approx(mean_square, rel=0.15)
    assert np.std(np.sum(moves, axis=1)) == pytest.approx(math.sqrt(2160 * mean_square), rel=0.15)


def test_the_first_bar_of_filtered_paths_has_todays_variance():
    returns = np.concatenate([0.002 * noise(3000, 1), 0.006 * noise(48, 2)])
    drawn = bt.simulate_paths(with_returns(returns), "filtered", paths=1, horizon="1h")
    table = drawn.leader.table
    scaled = table.moves[3, 1:] * math.sqrt(table.terms[3]) / table.moves[4, 1:]
    assert np.mean(scaled**2) == pytest.approx(drawn.model.variance_now, rel=1e-9)
    # half-lives of 72 and 480 bars
    alpha, back = 1.0 - 0.5 ** (1 / 72), 1.0 - 0.5 ** (1 / 480)
    assert drawn.model.alpha == pytest.approx(alpha, rel=1e-12)
    assert drawn.model.beta == pytest.approx(1.0 - alpha - back, rel=1e-12)
    assert drawn.model.omega == pytest.approx(back * np.mean(returns[1:] ** 2), rel=1e-9)
