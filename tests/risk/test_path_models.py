"""Paths against closed forms: bars of Brownian motion, moments of models."""

import math

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import paths as models
from backtest.features import touch_probability
from backtest.risk.path_models import PathModel, fit_student_garch

HOURS = 8760.0


def flat_market(n: int = 2, freq: str = "1h") -> bt.Market:
    """Return a market whose price stands at 100."""
    index = pd.date_range("2023-01-01", periods=n, freq=freq.replace("d", "D"), tz="UTC")
    return bt.Market.from_frames(
        pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), 100.0), index=index)
    )


def log_moves(model: PathModel, count: int, horizon: str, freq: str = "1h") -> np.ndarray:
    """Return ln(S_T / S_0) of paths."""
    drawn = bt.simulate_paths(flat_market(freq=freq), model, paths=count, horizon=horizon, seed=5)
    closes = drawn.closes()
    return np.log(closes[:, -1] / closes[:, 0])


def brownian_bars(bridge: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return high, low and close over the open of Brownian bars of unit variance."""
    model = models.GBM(volatility=0.8, drift=0.32)  # no drift of the log price
    drawn = bt.simulate_paths(flat_market(), model, paths=1500, seed=3, bridge=bridge)
    prices = drawn.draw(0, 1500).prices.reshape(4, 1500, -1)[:, :, 1:]
    start, high, low, close = prices.reshape(4, -1)
    unit = 0.8 / math.sqrt(HOURS)
    return np.log(high / start) / unit, np.log(low / start) / unit, np.log(close / start) / unit


def test_bars_of_brownian_motion_have_the_known_joint_moments():
    # E[H - L] = sqrt(8 / pi), E[HL] = 1 - 2 ln 2, E[H^2 L^2] = 3 - 4 ln 2,
    # E[H L C^2] = 2 - 2 ln 2 - 7/8 zeta(3), zeta(3) = 1.2020569
    high, low, close = brownian_bars(4)
    assert (high - low).mean() == pytest.approx(math.sqrt(8 / math.pi), rel=2e-3)
    assert (high * low).mean() == pytest.approx(1 - 2 * math.log(2), rel=5e-3)
    assert (high**2 * low**2).mean() == pytest.approx(3 - 4 * math.log(2), rel=0.02)
    known = 2 - 2 * math.log(2) - 7 / 8 * 1.2020569
    assert (high * low * close**2).mean() == pytest.approx(known, rel=0.01)


def test_one_step_draws_each_extreme_right_and_the_two_together_wrong():
    # independent extremes: E[HL] = E[E[H|C] E[L|C]] = -0.423
    high, low, _ = brownian_bars(1)
    assert high.mean() == pytest.approx(math.sqrt(2 / math.pi), rel=3e-3)
    assert (high * low).mean() == pytest.approx(-0.423, abs=2e-3)


def test_merton_has_its_variance_and_kurtosis():
    # a month, s = 0.5, 60 jumps a year of N(-0.02, 0.05): variance (0.25 + 60 (0.0004 + 0.0025))/12
    # = 0.035333; fourth cumulant 60 (m^4 + 6 m^2 d^2 + 3 d^4) / 12
    model = models.Merton(volatility=0.5, jumps=60, jump_mean=-0.02, jump_deviation=0.05)
    moves = log_moves(model, 40_000, "30d", "1d")
    years = 30 / 365
    variance = (0.25 + 60 * (0.02**2 + 0.05**2)) * years
    fourth = 60 * (0.02**4 + 6 * 0.02**2 * 0.05**2 + 3 * 0.05**4) * years
    check_moments(moves, variance, fourth / variance**2, drift=0.0)


def check_moments(moves: np.ndarray, variance: float, kurtosis: float, drift: float) -> None:
    error = math.sqrt(variance / len(moves))
    growth = np.exp(moves)
    assert growth.mean() == pytest.approx(
        math.exp(drift), abs=5 * growth.std() / math.sqrt(len(moves))
    )
    assert moves.var() == pytest.approx(variance, rel=5 * math.sqrt((2 + kurtosis) / len(moves)))
    excess = np.mean((moves - moves.mean()) ** 4) / moves.var() ** 2 - 3.0
    assert excess == pytest.approx(kurtosis, abs=0.25)
    assert error > 0.0


def test_garch_keeps_its_mean_variance_and_student_tails():
    # v = omega / (1 - alpha - beta) = 1e-4 per bar; one bar of t with 6 degrees: kurtosis 3 + 6 / 2
    model = models.Garch(omega=5e-6, alpha=0.05, beta=0.9, degrees_of_freedom=6.0)
    assert model.variance_now == pytest.approx(1e-4)
    drawn = bt.simulate_paths(flat_market(), model, paths=4000, horizon="5d", seed=2)
    moves = np.diff(np.log(drawn.closes()), axis=1)
    assert moves.var() == pytest.approx(1e-4, rel=0.03)
    first = moves[:, 0] / 1e-2
    assert np.mean(np.abs(first) > 2.0) == pytest.approx(0.0501, abs=0.011)  # P(|t6| > 2 sqrt(1.5))
    with pytest.raises(bt.ParameterError, match="under 1"):
        models.Garch(omega=1e-6, alpha=0.2, beta=0.85)


def test_a_fit_recovers_what_was_simulated():
    truth = models.Merton(volatility=0.5, jumps=150, jump_mean=-0.01, jump_deviation=0.03)
    path = bt.simulate_paths(flat_market(), truth, paths=1, horizon="730d", seed=8)[0]
    found = models.Merton.fit(path)
    assert found.volatility == pytest.approx(0.5, rel=0.03)
    assert found.jumps == pytest.approx(150, rel=0.35)
    assert found.jump_deviation == pytest.approx(0.03, rel=0.2)


def test_watched_at_closes_only_the_barrier_is_shifted():
    # Broadie, Glasserman, Kou (1997): a barrier watched every dt is as one that is 0.5826 sigma
    # sqrt(dt) further away and watched always
    sigma, days = 0.8, 3
    drawn = bt.simulate_paths(
        flat_market(), models.GBM(volatility=sigma), paths=40_000, horizon=f"{days}d", seed=9
    )
    lowest = np.log(drawn.closes()[:, 1:] / 100.0).min(axis=1)
    for distance in (-0.03, -0.06, -0.1):
        shifted = distance - 0.5826 * sigma * math.sqrt(1 / HOURS)
        known = touch_probability(shifted, sigma, days / 365, drift=-0.5 * sigma**2)
        assert np.mean(lowest <= distance) == pytest.approx(known, abs=0.005)


@pytest.mark.slow
def test_an_asymmetric_fit_finds_how_much_more_falls_raise_the_variance():
    rng, alpha, gamma, beta = np.random.default_rng(1), 0.03, 0.15, 0.85
    shocks = rng.standard_t(8, 6000) * math.sqrt(6 / 8)
    returns, variance = np.zeros(6000), 1e-4
    for t, shock in enumerate(shocks):
        returns[t] = math.sqrt(variance) * shock
        variance = 4.5e-6 + (alpha + gamma * (shock < 0.0)) * returns[t] ** 2 + beta * variance
    fit = fit_student_garch(returns, is_asymmetric=True)
    assert fit["gamma"] == pytest.approx(gamma, abs=0.04)
    assert fit["beta"] == pytest.approx(beta, abs=0.04)
    assert fit["variance_now"] == pytest.approx(variance, rel=0.1)
    assert fit_student_garch(returns, is_asymmetric=False)["gamma"] == 0.0
