"""First passage: against textbooks, other distributions, simulated paths, and itself."""

import math

import numpy as np
import pytest
from scipy.special import log_ndtr, stdtr

from backtest.features import (
    touch_distance,
    touch_probability,
)

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
