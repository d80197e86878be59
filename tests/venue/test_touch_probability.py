"""First passage: against textbooks, other distributions, simulated paths, and itself."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import log_ndtr, stdtr

from backtest.features import (
    touch_distance,
    touch_probability,
)

DAY = 1 / 365
GRID = {
    "distance": np.array([-3.0, -0.5, -0.1, -0.01, 0.01, 0.1, 0.5, 3.0])[:, None, None, None],
    "sigma": np.array([0.0, 0.01, 0.5, 2.0])[:, None, None],
    "horizon": np.array([0.0, 1e-4, DAY, 1.0])[:, None],
    "drift": np.array([-30.0, -0.5, 0.0, 1e-9, 0.5, 30.0]),
}


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


@pytest.mark.parametrize(("distance", "sigma", "horizon"), [(-0.1, 0.8, DAY), (0.3, 0.5, 0.1)])
def test_the_time_of_a_touch_is_inverse_gaussian_and_without_drift_levy(distance, sigma, horizon):
    """Toward the level at speed v: mean a / v, shape a^2 / sigma^2.

    Away from it: times exp(-2 v a / sigma^2).
    """
    a, away = abs(distance), -math.copysign(1.0, distance)
    for v in (0.5, 5.0, 80.0):
        shape = (a / sigma) ** 2
        toward = stats.invgauss.cdf(horizon, a / v / shape, scale=shape)
        found = touch_probability(distance, sigma, horizon, -away * v)
        assert found == pytest.approx(toward, rel=1e-11)
        behind = touch_probability(distance, sigma, horizon, away * v)
        assert behind == pytest.approx(toward * math.exp(-2 * v * a / sigma**2), rel=1e-10)
    still = stats.levy.cdf(horizon, scale=(a / sigma) ** 2)
    assert touch_probability(distance, sigma, horizon) == pytest.approx(still, rel=1e-13)


def test_the_tails_lose_no_digits():
    """Against the logarithms of both terms, down to 1e-300."""
    a, s = np.array([0.1, 0.3, 0.5, 0.74, 1.0]), 0.8 * math.sqrt(DAY)
    for drift in (-20.0, -0.3, 0.3, 20.0):
        v = drift * DAY
        terms = log_ndtr((-a - v) / s), -2.0 * v * a / s**2 + log_ndtr((-a + v) / s)
        found = touch_probability(-a, 0.8, DAY, drift)
        np.testing.assert_allclose(np.log(found), np.logaddexp(*terms), rtol=1e-12, atol=1e-12)
    assert 0.0 < touch_probability(-1.55, 0.8, DAY) < 1e-290


def test_it_is_a_probability_everywhere_and_rises_with_what_brings_the_level_nearer():
    for freedom in (math.inf, 4.0, 2.5):
        grid = GRID if freedom == math.inf else GRID | {"drift": np.zeros(6)}
        found = touch_probability(*grid.values(), degrees_of_freedom=freedom)
        assert found.shape == (8, 4, 4, 6)
        assert ((found >= 0.0) & (found <= 1.0)).all()
        below, above = found[:4], found[4:]
        slack = 1e-12
        assert (np.diff(below, axis=0) >= -slack).all()
        assert (np.diff(above, axis=0) <= slack).all()
        assert (np.diff(found, axis=2) >= -slack).all()
        assert (np.diff(below, axis=3) <= slack).all()
        assert (np.diff(above, axis=3) >= -slack).all()
        still = touch_probability(0.1, GRID["sigma"].ravel(), DAY, degrees_of_freedom=freedom)
        assert (np.diff(still) >= 0.0).all()


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


@pytest.mark.parametrize(
    ("distance", "drift", "freedom"),
    [(-0.06, 0.0, math.inf), (-0.06, -12.0, math.inf), (0.06, 0.0, 4.0)],
)
def test_simulated_paths_touch_as_often(distance: float, drift: float, freedom: float):
    """20,000 paths of 300 steps over a day, within three standard errors.

    Looked at 300 times, a level is as good as 0.5826 sigma sqrt(horizon / 300) farther away
    (Broadie, Glasserman and Kou 1997); the sigma is the path's own where tails are fat.
    """
    rng = np.random.default_rng(5)
    paths, steps, sigma = 20_000, 300, 0.8
    draws = (
        np.ones(paths) if math.isinf(freedom) else (freedom - 2.0) / rng.chisquare(freedom, paths)
    )
    own = (sigma * np.sqrt(draws)).astype(np.float32)
    walk = np.cumsum(rng.standard_normal((paths, steps), dtype=np.float32), axis=1)
    walk *= own[:, None] * np.float32(math.sqrt(DAY / steps))
    walk += np.float32(drift * DAY / steps) * np.arange(1, steps + 1, dtype=np.float32)
    nearer = abs(distance) - 0.5826 * own * math.sqrt(DAY / steps)
    reached = walk.max(axis=1) if distance > 0.0 else -walk.min(axis=1)
    found = np.mean(reached >= nearer)
    expected = touch_probability(distance, sigma, DAY, drift, degrees_of_freedom=freedom)
    assert found == pytest.approx(expected, abs=3 * math.sqrt(expected * (1 - expected) / paths))


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


def test_three_sigma_a_day_is_the_usual_figure():
    """2 Phi(-3) = 0.0027."""
    assert touch_distance(0.0026997960632601866, 0.8, DAY) == pytest.approx(
        3 * 0.8 * math.sqrt(DAY), rel=1e-12
    )
