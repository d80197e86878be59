"""Paired differences: what they are, how often their intervals hold, and what many together say."""

import math

import numpy as np
import pytest

from backtest.measures.differences import (
    STATISTICS,
    Sampled,
    choose_block,
    compare_pairs,
    draw_histories,
    holm,
    resampling_error,
)

ONE = np.array([[0, 1]])


def sample(returns, free=0.0):
    """Return accounts of a market that never closes, sampled by day."""
    n = returns.shape[1]
    return Sampled(returns, np.full(n, free), per_year=365.0, periods=365.0)


def compute_intervals(returns, measure="log_growth", pairs=ONE, seed=0, **settings):
    settings = {"confidence": 0.95, "draws": 199, **settings}
    rng = np.random.default_rng(seed)
    return compare_pairs(sample(returns), pairs, measure, rng=rng, **settings)


def noise(k, n, seed, *, persistence=0.0, common=0.0):
    """Return standard normal series of shape (k, n), with an AR(1) and a common part."""
    rng = np.random.default_rng(seed)
    steps = math.sqrt(common) * rng.standard_normal(n + 100) + math.sqrt(1.0 - common) * (
        rng.standard_normal((k, n + 100))
    )
    series = np.empty_like(steps)
    series[:, 0] = steps[:, 0]
    for t in range(1, n + 100):
        series[:, t] = persistence * series[:, t - 1] + steps[:, t]
    return series[:, 100:] * math.sqrt(1.0 - persistence**2)


def ladder(k):
    """Return the pairs (0, 1), (2, 3), ..."""
    return np.arange(k).reshape(-1, 2)


def test_estimates_are_those_of_numpy():
    x = 0.01 * noise(3, 200, seed=1) + 0.001
    found = {name: each.estimate(x)[0] for name, each in STATISTICS.items()}
    deviation = np.std(x, axis=1, ddof=1)
    np.testing.assert_allclose(found["log_growth"], np.mean(x, axis=1))
    np.testing.assert_allclose(found["sharpe"], np.mean(x, axis=1) / deviation)


@pytest.mark.parametrize("measure", ["log_growth", "sharpe"])
def test_an_influence_is_what_a_little_more_weight_on_a_return_does(measure):
    """Weight is added by repeating all returns 400 times, and one of them once more."""
    x = 0.01 * noise(1, 60, seed=2) + 0.002
    estimate = STATISTICS[measure].estimate
    base = np.repeat(x, 400, axis=1)
    value, influence = estimate(base)[0][0], estimate(x)[1][0]
    assert abs(influence.mean()) < 1e-12
    for t in range(0, 60, 7):
        more = estimate(np.append(base, x[:, t : t + 1], axis=1))[0][0]
        change = (more - value) * (base.shape[1] + 1)
        assert change == pytest.approx(influence[t], abs=2e-3 * np.abs(influence).max())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("measure", "persistence", "block"),
    [("log_growth", 0.0, 5), ("sharpe", 0.0, 5), ("log_growth", 0.4, 10)],
)
def test_an_interval_of_95_percent_holds_the_true_difference_that_often(
    measure, persistence, block
):
    """200 pairs of 250 returns correlated by a half; the first of each earns and moves more.

    3 standard errors: of 200 replications sqrt(0.05 x 0.95 / 200) = 0.0154, and of a quantile of
    499 draws that all share 0.0098, together 0.018.
    """
    z = noise(400, 250, seed=3, persistence=persistence, common=0.5)
    mean, deviation = np.array([[0.002], [0.0]]), np.array([[0.02], [0.015]])
    z = z.reshape(200, 2, 250)
    returns = mean + deviation * z
    if measure == "log_growth":
        returns = np.expm1(returns)  # so that its mean is known
    scale = {"log_growth": 365.0}.get(measure, math.sqrt(365.0))
    true = {"log_growth": 0.002, "sharpe": 0.1}[measure] * scale
    rows = returns.reshape(400, 250)
    found = compute_intervals(rows, measure, pairs=ladder(400), draws=499, block=block)
    covered = np.mean((found.low <= true) & (true <= found.high))
    assert abs(covered - 0.95) <= 3 * 0.018


@pytest.mark.parametrize("measure", ["log_growth", "sharpe"])
def test_the_interval_leaves_out_no_difference_exactly_where_p_is_small(measure):
    rows = 0.01 * noise(120, 80, seed=5)
    rows[::2] += 0.002 * np.linspace(0.0, 2.0, 60)[:, None]
    rows[::2] *= np.linspace(1.0, 3.0, 60)[:, None]
    found = compute_intervals(rows, measure, pairs=ladder(120), confidence=0.9, draws=99)
    outside = (found.low > 0.0) | (found.high < 0.0)
    assert 0 < outside.sum() < 60
    np.testing.assert_array_equal(outside, found.p_value <= 0.1 + 1e-12)


@pytest.mark.parametrize("measure", ["log_growth", "sharpe"])
def test_an_account_does_not_differ_from_itself(measure):
    rows = np.tile(0.01 * noise(1, 100, seed=7), (2, 1))
    found = compute_intervals(rows, measure)
    assert (found.difference[0], found.low[0], found.high[0]) == (0.0, 0.0, 0.0)
    assert found.p_value[0] == 1.0


def test_what_was_planted_is_found_though_each_account_alone_is_uncertain():
    """Both earn 0 ± 2 % a day; the second pays 0.05 % more, known to ± 0.02 %."""
    first = 0.02 * noise(1, 400, seed=8)[0]
    second = first - 5e-4 + 2e-4 * noise(1, 400, seed=9)[0]
    found = compute_intervals(np.array([first, second]))
    assert found.low[0] > 0.0
    assert found.p_value[0] == pytest.approx(1 / 200)
    error = 2e-4 * math.sqrt(1 / 400) * 365
    assert found.difference[0] == pytest.approx(5e-4 * 365, abs=5 * error)


def test_a_difference_that_lies_in_one_day_cannot_be_told():
    """A third of all histories lack that day: no bound can be given with 95 %."""
    first = 0.01 * noise(1, 100, seed=10)[0]
    second = first.copy()
    second[50] -= 0.3
    found = compute_intervals(np.array([first, second]))
    assert math.isinf(found.high[0])
    assert found.p_value[0] > 0.2


def test_the_error_is_the_spread_of_means_over_histories():
    """The standard error of a deviation of 2,000 draws is 1 / sqrt(4,000) = 1.6 % of it."""
    series = noise(1, 150, seed=14, persistence=0.5)
    histories = draw_histories(150, 8, 2_000, np.random.default_rng(0))
    means = [series[0, chosen].mean() for chosen, _ in histories]
    assert resampling_error(series, 8)[0] == pytest.approx(np.std(means), rel=3 * 0.016)


def test_blocks_are_long_where_returns_follow_each_other():
    calm, persistent = noise(1, 500, seed=15), noise(1, 500, seed=15, persistence=0.8)
    least = math.ceil(500 ** (1 / 3))
    assert choose_block(calm) == least
    assert choose_block(persistent) > 2 * least
    assert choose_block(np.vstack([calm, persistent, persistent])) == choose_block(persistent)
    assert choose_block(np.zeros((1, 500))) == least


def test_holm_multiplies_by_what_is_left():
    p_values = np.array([0.04, 0.01, math.nan, 0.02, 0.5])
    np.testing.assert_allclose(holm(p_values), [0.08, 0.04, math.nan, 0.06, 0.5])
    assert holm(np.array([math.nan])).tolist() == pytest.approx([math.nan], nan_ok=True)
