"""Sizes whose probability of a loss of the start is limited: closed forms and simulated paths."""

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import indicators
from backtest.signals import kelly_weights
from backtest.strategies import Kelly
from backtest.sweep import VariedTest, read_space
from tests.kit import ask, call, check_refused, free_venue, live, walk

FLOORED: dict[str, Any] = {"floor_loss": 0.3, "probability": 0.1}
FRACTIONS = {  # (loss, probability): fraction of Kelly
    (0.1, 0.05): 0.067950573,
    (0.1, 0.1): 0.087510711,
    (0.1, 0.5): 0.26389355,
    (0.3, 0.05): 0.21278736,
    (0.3, 0.1): 0.26825127,
    (0.3, 0.5): 0.67949596,
    (0.5, 0.05): 0.37580365,
    (0.5, 0.1): 0.46275643,
    (0.5, 0.5): 1,
}
"""2 / (1 + ln p / ln a) by hand, for losses 1 - a and probabilities p."""


def decide(policy: bt.Policy, **columns: float) -> float:
    bar = SimpleNamespace(**{name: np.float64(value) for name, value in columns.items()})
    return float(policy.leverage(bar, None))


@pytest.mark.parametrize(("pair", "fraction"), FRACTIONS.items())
def test_the_fraction_is_that_of_the_first_passage(pair, fraction: float):
    loss, probability = pair
    one = np.ones(1)
    share = indicators.floored_kelly(one, np.zeros(1), one, loss=loss, probability=probability)
    assert share[0] == pytest.approx(fraction, rel=1e-6)

    # Kelly is 0.9 / 0.3^2 = 10.
    policy = Kelly(floor_loss=loss, probability=probability, shrinkage=0.0, cap=100.0)
    leverage = decide(policy, drift=0.9, error=0.4, sigma=0.3)
    assert leverage == pytest.approx(10.0 * fraction, rel=1e-6)


def test_it_takes_the_shrunk_drift_is_capped_and_is_full_kelly_at_most():
    policy = Kelly(**FLOORED, shrinkage=1.0, cap=2.0)
    assert decide(policy, drift=0.6, error=0.6, sigma=0.5) == pytest.approx(0.2682513 * 1.2)
    assert decide(policy, drift=9.0, error=0.6, sigma=0.5) == 2.0
    assert decide(policy, drift=-1.0, error=0.6, sigma=0.5) == 0.0

    likely = Kelly(floor_loss=0.3, probability=0.9, shrinkage=0.0)
    assert decide(likely, drift=0.3, error=0.1, sigma=0.5) == pytest.approx(1.2)


def simulate_falls(policy: bt.Policy, sharpe: float, paths: int = 4000) -> float:
    """Return the share of daily paths of 20 / SR^2 years that reach the floor of the start.

    A barrier that is seen once a day is one that is further by e^(.5826 sigma_W sqrt(dt)), so the
    barrier of the continuous path is moved up by that (Broadie, Glasserman and Kou 1997)."""
    sigma = 0.5
    step = 1.0 / 365.0
    leverage = decide(policy, drift=sharpe * sigma, error=0.0, sigma=sigma)
    spread = leverage * sigma
    drift = (leverage * sharpe * sigma - 0.5 * spread**2) * step
    barrier = math.log(1.0 - FLOORED["floor_loss"]) + 0.5826 * spread * math.sqrt(step)

    rng = np.random.default_rng(5)
    wealth = np.zeros(paths)
    lowest = np.zeros(paths)

    for _ in range(math.ceil(20.0 / sharpe**2 / step)):
        wealth += drift + spread * math.sqrt(step) * rng.standard_normal(paths)
        np.minimum(lowest, wealth, out=lowest)

    return float(np.mean(lowest <= barrier))


def test_four_thousand_daily_paths_reach_the_floor_as_often_as_asked():
    share = simulate_falls(Kelly(**FLOORED, shrinkage=0.0, cap=100.0), sharpe=1.5)
    assert share == pytest.approx(0.1, abs=3.0 * math.sqrt(0.1 * 0.9 / 4000))


@pytest.mark.parametrize(("t", "loss", "probability"), [
    (1.5, 0.3, 0.1),
    (3.0, 0.5, 0.05),
    (20.0, 0.2, 0.3),
])  # fmt: skip
def test_with_errors_the_mean_probability_over_the_drift_is_the_one_asked(t, loss, probability):
    """By sums over the error of the drift, on a grid of 200,000 quantiles."""
    drift = 0.4
    error = drift / t
    sigma = 0.6
    limit = {"loss": loss, "probability": probability}
    mean = np.array([drift])
    deviation = np.array([sigma])
    (leverage,) = indicators.floored_kelly(mean, np.array([error]), deviation, **limit)

    # A path of drift m falls by the loss with (1 - loss)^(2 m / (l sigma^2) - 1), surely if m <= 0.
    quantiles = (np.arange(200_000) + 0.5) / 200_000
    normal = math.sqrt(2.0) * np.array(bt.core.sp.special.erfinv(2.0 * quantiles - 1.0))
    drifts = drift + error * normal
    exponents = np.where(drifts > 0.0, 2.0 * drifts / (leverage * sigma**2) - 1.0, -1.0)
    falls = np.minimum(1.0, (1.0 - loss) ** exponents)
    assert np.mean(falls) == pytest.approx(probability, rel=2e-4)

    (without_error,) = indicators.floored_kelly(mean, np.zeros(1), deviation, **limit)
    assert leverage < without_error


def test_nothing_is_held_where_the_drift_is_too_uncertain():
    """P(mu <= 0) = Phi(-1.28) = .1003, and Phi(-1.29) = .0985."""
    drift = np.array([1.28, 1.29, -1.0, 0.0, math.nan, 1e-3])
    error = np.array([1.0, 1.0, 1.0, 0.0, 1.0, 0.0])
    held = indicators.floored_kelly(drift, error, np.ones(6), loss=0.3, probability=0.1)

    assert held[[0, 2, 3]].tolist() == [0.0, 0.0, 0.0]
    assert 0.0 < held[1] < 0.01
    assert math.isnan(held[4])
    assert held[5] == pytest.approx(0.2682513e-3)


def test_errors_are_a_column_of_observe_which_is_held():
    market = walk(1000, mu=1.5, sigma=0.5, seed=4)
    policy = Kelly(**FLOORED, errors=True, shrinkage=0.0, window=500, cap=50.0)
    columns = policy.observe(market)
    limit = columns["limit"]
    drift = indicators.rolling_drift(market, 500)
    sigma = indicators.ewma_volatility(market, 168.0)
    expected = indicators.floored_kelly(drift.mean, drift.error, sigma, loss=0.3, probability=0.1)
    np.testing.assert_array_equal(limit, expected)

    target = live(market, policy, compile=False).bars["target"].to_numpy()
    is_known = ~np.isnan(limit)
    np.testing.assert_allclose(target[is_known], np.minimum(limit[is_known], 50.0), rtol=1e-12)
    assert (limit[is_known] > 0.0).any()

    assert {*Kelly().observe(market)} == {"drift", "error", "sigma"}


def test_a_search_leaves_the_limit_alone_unless_its_space_names_it():
    test = bt.Backtest(bt.Market.sample(bars=100), venue=free_venue(), account=bt.Account())
    varied = VariedTest(test, Kelly)

    by_default = read_space(varied, None)
    names = [dimension.name for dimension in by_default.dimensions]
    assert names == ["fraction", "window", "shrinkage", "half_life", "cap"]

    named = read_space(varied, {"floor_loss": (0.1, 0.5)})
    assert [dimension.name for dimension in named.dimensions] == ["floor_loss"]


def test_sweeps_hold_what_runs_hold():
    market = walk(400, mu=1.5, sigma=0.5, seed=4)
    test = bt.Backtest(market, venue=free_venue(), account=bt.Account())
    sets = {
        "floor_loss": [0.2, 0.4], "probability": [0.05, 0.2], "errors": [False, True],
        "shrinkage": [0.0], "window": [200],
    }  # fmt: skip
    table = test.sweep(Kelly, sets, compile=False).table
    assert table["final_equity"].nunique() == 8

    for row in table.to_dict("records"):
        policy = Kelly(
            floor_loss=row["floor_loss"],
            probability=row["probability"],
            errors=bool(row["errors"]),
            shrinkage=0.0,
            window=200,
        )
        run = test.run(policy, compile=False)
        assert row["final_equity"] == pytest.approx(run.metrics["final_equity"], rel=1e-12)


def test_the_policy_promises_the_floor_and_copies_keep_it():
    policy = Kelly(**FLOORED)
    (promise,) = policy.promises()

    assert (promise.measure, promise.bound, promise.rule) == ("lowest_unit", 0.7, "at least")
    assert Kelly().promises() == ()

    assert dataclasses.replace(policy, cap=2.0) == Kelly(**FLOORED, cap=2.0)
    assert eval(repr(policy)) == policy


BAD: list[tuple[dict[str, Any], str]] = [  # settings, and words of the refusal
    ({**FLOORED, "fraction": 0.5}, "Kelly.fraction must be left out where floor_loss is given"),
    ({**FLOORED, "fraction": 0.7}, "Kelly.fraction must be left out where floor_loss is given"),
    ({"probability": 0.2}, "Kelly.probability needs floor_loss"),
    ({"errors": True}, "Kelly.errors needs floor_loss"),
    ({**FLOORED, "errors": True}, "Kelly.shrinkage must be 0 with errors"),
    ({"floor_loss": 1.0}, "Kelly.floor_loss must be 0 to 0.99"),
    ({"floor_loss": -0.1}, "Kelly.floor_loss must be 0 to 0.99"),
    ({"floor_loss": 0.3, "probability": 0.0}, "Kelly.probability must be 1e-06 to 0.99"),
    ({"floor_loss": math.nan}, "Kelly.floor_loss"),
    ({**FLOORED, "errors": 1}, "Kelly.errors must be True or False"),
]


@pytest.mark.parametrize(("settings", "words"), BAD)
def test_what_does_not_fit_together_is_one_error(settings: dict[str, Any], words: str):
    check_refused(lambda: Kelly(**settings), words)

    texts = {name: str(value).lower() for name, value in settings.items()}
    check_refused(lambda: Kelly.from_settings(texts), words)


def test_positional_fractions_are_refused_too():
    check_refused(lambda: Kelly(0.5, floor_loss=0.3), "must be left out where floor_loss is given")
    assert Kelly(0.5, floor_loss=0.0).fraction == 0.5


def test_flags_and_files_take_the_limit(tmp_path, capsys):
    text = (
        '[data]\npath = "sample"\nto = 2023-02-01\n[policy]\nname = "kelly"\n'
        "[policy.settings]\nfloor_loss = 0.3\nprobability = 0.1\nwindow = 200\n"
    )
    file = tmp_path / "kelly.toml"
    file.write_text(text)
    by_file = ask(capsys, "run", file, "--no-save")
    assert "floor_loss=0.3, probability=0.1" in by_file["policy"]

    flags = ("--set", "floor_loss=0.3", "--set", "probability=0.1", "--set", "window=200")
    by_flags = ask(capsys, "run", "--to", "2023-02-01", "--policy", "kelly", *flags, "--no-save")
    assert by_flags["metrics"] == by_file["metrics"]

    file.write_text(f"{text}fraction = 0.5\n")
    code, _, error = call(capsys, "run", file, "--no-save")
    assert code == 2
    assert error.count("must be left out where floor_loss is given") == 1


@pytest.mark.parametrize("bad", [
    {"loss": 0.0}, {"loss": 1.0}, {"probability": 0.0}, {"probability": math.nan},
])  # fmt: skip
def test_limits_out_of_range_are_refused(bad: dict[str, float]):
    limit = {"loss": 0.3, "probability": 0.1, **bad}
    (name,) = bad
    one = np.ones(1)
    even = np.array([[1.0]] * 6 + [[-1.0]] * 4)

    check_refused(lambda: indicators.floored_kelly(one, one, one, **limit), name)
    check_refused(lambda: bt.rck_weights(even, **limit), name)


# Weights of several assets.


CUBIC = 2.0 * math.cos((2.0 * math.pi - math.acos(-0.2)) / 3.0)
"""The root of w^3 - 3 w + 0.4 between 0 and 1."""


@pytest.mark.parametrize(("probability", "weight"), [
    (0.5, 0.2),
    (0.25, CUBIC),
    (0.9, 0.2),
])  # fmt: skip
def test_two_outcomes_have_their_closed_form(probability, weight):
    """Even odds won with chance .6, m = .2: lambda 1 is Kelly, m; lambda 2 solves w^3 - 3 w + 2 m
    = 0; a bound that does not bind leaves Kelly."""
    even = np.array([[1.0], [-1.0]])
    chances = np.array([0.6, 0.4])
    weights = bt.rck_weights(even, loss=0.5, probability=probability, chances=chances)

    assert weights.iloc[0] == pytest.approx(weight, rel=1e-7)


@pytest.mark.parametrize(("loss", "probability"), [(0.3, 0.1), (0.5, 0.05), (0.1, 0.01)])
def test_weights_of_a_brownian_motion_are_those_of_the_policy(loss: float, probability: float):
    """Steps of a tenth of a day by 40 points of Gauss and Hermite; the rest is of order dt."""
    points, chances = np.polynomial.hermite_e.hermegauss(40)
    mu = 0.3
    sigma = 0.6
    step = 1.0 / 3650.0
    logs = (mu - 0.5 * sigma**2) * step + sigma * math.sqrt(step) * points
    returns = np.expm1(logs)[:, None]
    weights = bt.rck_weights(returns, loss, probability, chances=chances / chances.sum())

    policy = Kelly(floor_loss=loss, probability=probability, shrinkage=0.0)
    leverage = decide(policy, drift=mu, error=0.0, sigma=sigma)
    assert weights.iloc[0] == pytest.approx(leverage, rel=2e-5)


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(np.nan, id="no number"),
        pytest.param(1.5, id="over the bound"),
        pytest.param(0.5, id="less growth"),
    ],
)
def test_weights_that_a_solver_makes_worse_stay(monkeypatch, point):
    """Six of ten: with lambda 1 the bound ends at Kelly's weight of .2."""
    table = np.array([[1.0]] * 6 + [[-1.0]] * 4)
    shares = np.full(10, 0.1)
    weights = np.array([0.1999])

    def stop(*_, **__):
        return SimpleNamespace(x=np.array([point]), success=False)

    monkeypatch.setattr("scipy.optimize.minimize", stop)
    improved = kelly_weights.improve_weights(weights, table, shares, 1.0, short=False)
    assert improved.tolist() == [0.1999]


def test_several_assets_meet_the_conditions_of_the_optimum():
    rng = np.random.default_rng(0)
    draws = rng.multivariate_normal([0.001, 0.0005, -0.001], np.diag([4e-4, 1e-4, 9e-4]), 2000)
    returns = pd.DataFrame(draws, columns=["BTC", "ETH", "LTC"])

    weights = bt.rck_weights(returns, 0.3, 0.1)
    assert weights.index.tolist() == ["BTC", "ETH", "LTC"]
    assert weights["LTC"] == 0.0

    # The bound binds: E[wealth^-power] = 1.
    power = math.log(0.1) / math.log(0.7)
    wealth = 1.0 + draws @ weights.to_numpy()
    assert np.mean(wealth**-power) == pytest.approx(1.0, abs=1e-9)

    # The gradients of growth and of the bound are parallel where weights are held; where none is
    # held, growth gains less than the bound costs.
    growth = draws.T @ (1.0 / wealth)
    bound = power * (draws.T @ wealth ** (-power - 1.0))
    multiplier = growth[0] / bound[0]
    assert growth[1] / bound[1] == pytest.approx(multiplier, rel=1e-5)
    assert growth[2] < multiplier * bound[2]


def test_weights_may_be_short_or_capped_or_none():
    rng = np.random.default_rng(0)
    draws = rng.multivariate_normal([0.001, 0.0005, -0.001], np.diag([4e-4, 1e-4, 9e-4]), 2000)
    returns = pd.DataFrame(draws, columns=["BTC", "ETH", "LTC"])

    short = bt.rck_weights(returns, 0.3, 0.1, short=True)
    assert short["LTC"] < 0.0

    capped = bt.rck_weights(returns, 0.3, 0.1, max_gross=0.5)
    assert capped.abs().sum() == pytest.approx(0.5, rel=1e-4)

    losing = bt.rck_weights(-returns.abs(), 0.3, 0.1)
    assert losing.tolist() == [0.0, 0.0, 0.0]


GOOD = np.array([[0.1, 0.2], [-0.1, 0.3], [0.05, -0.2]])


@pytest.mark.parametrize(("make", "words"), [
    (lambda: bt.rck_weights(np.abs(GOOD), 0.3, 0.1), "never loses"),
    (lambda: bt.rck_weights(GOOD[0], 0.3, 0.1), "got shape (2,)"),
    (lambda: bt.rck_weights(np.nan * GOOD, 0.3, 0.1), "got nan in row 0 of asset 0"),
    (lambda: bt.rck_weights(GOOD - 2.0, 0.3, 0.1), "at least -1"),
    (lambda: bt.rck_weights(GOOD, 0.3, 0.1, chances=np.ones(3)), "add up to 1"),
    (lambda: bt.rck_weights(GOOD, 0.3, 0.1, max_gross=0.0), "max_gross must be over 0"),
    (lambda: bt.rck_weights("BTC", 0.3, 0.1), "an array of numbers or a DataFrame"),
])  # fmt: skip
def test_returns_that_have_no_best_weights_are_refused(make, words):
    check_refused(make, words)


@pytest.mark.parametrize(("policy", "names"), [
    (Kelly(window=50), {"fraction", "window", "shrinkage", "half_life", "cap"}),
    (Kelly(**FLOORED, window=50), {"window", "shrinkage", "half_life", "cap", "floor_loss"}),
])  # fmt: skip
def test_sensitivity_steps_what_is_in_use(policy, names):
    market = walk(150, mu=1.5, sigma=0.5, seed=4)
    test = bt.Backtest(market, venue=free_venue(), account=bt.Account())
    stepped = test.sensitivity(policy, parameters=True, compile=False)

    assert {*stepped.table.index.get_level_values(0)} == names
    assert (stepped.table["fault"] == "").all()
