"""passing_probability(): its judgement by hand, and against closed forms of diffusions."""

import math

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.risk.funded import Challenge, Wealth, find_outcomes, number_days, read_wealth
from backtest.risk.path_runner import PathsRunner
from backtest.strategies import Constant
from tests.kit import check_refused, free_venue, market_of

PLAIN = Challenge(0.1, 0.1, None, None, None, is_of_capital=False)
CORRECTED = 0.5826
"""Steps by which a barrier seen at closes lies further: Broadie, Glasserman and Kou (1997)."""


def outcome(rules, *wealth, days=None):
    """Return the outcome and the bar of one path; each bar is a day unless told."""
    day = np.arange(len(wealth)) if days is None else np.array(days)
    found, at, _ = find_outcomes(rules, read_wealth(np.array([wealth]), day), day)
    return ("passed", "daily_loss", "max_loss", "undecided")[found[0]], int(at[0])


@pytest.mark.parametrize(("rules", "wealth", "days", "expected"), [
    (PLAIN, (1.05, 1.1, 0.8), None, ("passed", 1)),
    (PLAIN, (1.05, 0.9, 1.2), None, ("max_loss", 1)),
    (PLAIN, (1.05, 0.95), None, ("undecided", 2)),
    # the second day begins at 1.04: 5 % of it are lost at .988
    (PLAIN._replace(daily_loss=0.05), (0.96, 1.04, 1.0, 0.987), (0, 0, 1, 1), ("daily_loss", 3)),
    (PLAIN._replace(daily_loss=0.05, is_of_capital=True), (1.04, 0.991), (0, 1), ("undecided", 2)),
    # from a high of 1.08: at .98 intrabar; at ends of days from 1.02 only; locked never over 1
    (PLAIN._replace(trailing="intrabar"), (1.08, 1.02, 0.97), (0, 0, 1), ("max_loss", 2)),
    (PLAIN._replace(trailing="close"), (1.08, 1.02, 0.97), (0, 0, 1), ("undecided", 3)),
    (PLAIN._replace(target=0.5, trailing="close", locked=0.0), (1.3, 1.01, 1.0), None,
     ("max_loss", 2)),
])  # fmt: skip
def test_the_judgement_by_hand(rules, wealth, days, expected):
    assert outcome(rules, *wealth, days=days) == expected


def judge_closes(rules, wealth, day):
    return find_outcomes(rules, read_wealth(wealth, day), day)[0]


def judge_bars(rules, *bars, days=None):
    """Return outcome, bar and whether it reached both, of bars of (least, most, close)."""
    day = np.arange(len(bars)) if days is None else np.array(days)
    least, most, close = (np.array([each]) for each in zip(*bars, strict=True))

    found, at, both = find_outcomes(rules, read_wealth(close, day, least, most), day)
    return ("passed", "daily_loss", "max_loss", "undecided")[found[0]], int(at[0]), bool(both[0])


TRAILING = PLAIN._replace(target=0.5, trailing="intrabar")


@pytest.mark.parametrize(("rules", "bars", "days", "expected"), [
    (PLAIN, [(1.0, 1.1, 1.02)], None, ("passed", 0, False)),
    (PLAIN, [(0.9, 1.0, 0.98)], None, ("max_loss", 0, False)),
    (PLAIN, [(0.9, 1.1, 1.0)], None, ("max_loss", 0, True)),  # the order is not known
    # 1.2 inside the first bar: the floor is 1.1 from there on, for its own least and close too
    (TRAILING, [(1.11, 1.2, 1.15), (1.12, 1.16, 1.14)], None, ("undecided", 2, False)),
    (TRAILING, [(1.11, 1.2, 1.15), (1.1, 1.16, 1.14)], None, ("max_loss", 1, False)),
    (TRAILING, [(1.09, 1.2, 1.15)], None, ("max_loss", 0, False)),
    # at ends of days alone the same bars leave .9, then 1.05
    (TRAILING._replace(trailing="close"), [(1.09, 1.2, 1.15), (1.06, 1.16, 1.14)], (0, 1),
     ("undecided", 2, False)),
    (TRAILING._replace(trailing="close"), [(1.09, 1.2, 1.15), (1.05, 1.16, 1.14)], (0, 1),
     ("max_loss", 1, False)),
    # the target of the first day counts from the third
    (PLAIN._replace(min_days=3), [(1.0, 1.2, 1.12), (1.1, 1.12, 1.11), (1.0, 1.11, 1.0)], None,
     ("passed", 2, False)),
    (PLAIN._replace(min_days=3), [(1.0, 1.2, 1.12), (1.0, 1.12, 1.11)], (0, 0),
     ("undecided", 2, False)),
    # .08 and .03: .08 is 73 % of .11; after a third day to 1.16 its half
    (PLAIN._replace(consistency=0.5), [(1.0, 1.08, 1.08), (1.08, 1.11, 1.11)], None,
     ("undecided", 2, False)),
    (PLAIN._replace(consistency=0.5),
     [(1.0, 1.08, 1.08), (1.08, 1.11, 1.11), (1.1, 1.16, 1.15)], None, ("passed", 2, False)),
    (PLAIN._replace(consistency=0.5), [(1.0, 1.12, 1.12), (1.1, 1.13, 1.12)], (0, 0),
     ("undecided", 2, False)),  # one day is all of it
])  # fmt: skip
def test_bars_are_judged_by_what_they_reach(rules, bars, days, expected):
    assert judge_bars(rules, *bars, days=days) == expected


def test_hours_of_a_price_without_drift_pass_with_b_over_a_plus_b():
    """5 % of loss over 15 % + 5 %: a quarter. At closes of hours alone it was .266."""
    market = bt.Market.sample(bars=240)
    model = bt.paths.GBM(volatility=1.5)
    drawn = bt.simulate_paths(market, model, paths=20_000, horizon="20d", funding=None)

    rules = PLAIN._replace(target=0.15, max_loss=0.05)

    hits = 0
    decided = 0
    at_closes = 0
    day = np.zeros(drawn.n_bars, np.int64)

    for first in range(0, 20_000, drawn.block):
        bars = drawn.draw(first, min(first + drawn.block, 20_000))
        begun = bars.prices[3, :, :1]
        _, high, low, close = (each[:, 1:] / begun for each in bars.prices)
        found = find_outcomes(rules, Wealth(close, low, high, close), day)[0]
        hits, decided = hits + np.sum(found == 0), decided + np.sum(found != 3)
        at_closes += np.sum(judge_closes(rules, close, day) == 0)

    error = math.sqrt(0.25 * 0.75 / 20_000)
    assert decided / 20_000 > 0.9999
    assert abs(hits / 20_000 - 0.25) < 3.0 * error
    assert at_closes / 20_000 > 0.25 + 3.0 * error


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_wealth_inside_bars_is_that_at_the_extreme_marks():
    """Bought once at 2x, at the open of the first bar: the wealth at a mark is cash + q mark."""
    market = bt.Market.sample(bars=240)
    drawn = bt.simulate_paths(market, bt.paths.GBM(volatility=2.0), paths=6, horizon="2d")
    test = bt.Backtest(market, venue=free_venue(), account=bt.Account())
    runner = PathsRunner(drawn, Once(), test, compile=False, has_extremes=True)
    (lives,) = runner.run_chunks()
    for i in range(6):
        bars = runner.run_path(i).bars
        path = drawn[i]
        held = bars["position"].to_numpy()[1:]
        cash = bars["equity"].to_numpy()[1:] - held * path.mark_close[1:]
        np.testing.assert_allclose(lives.least[i], cash + held * path.mark_low[1:], rtol=1e-9)
        np.testing.assert_allclose(lives.most[i], cash + held * path.mark_high[1:], rtol=1e-9)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_least_wealth_of_a_bar_that_a_stop_ends_is_what_the_stop_leaves():
    """2x is bought at the first open: a stop of 1 % leaves 98 % of the capital."""
    market = market_of(100.0 * np.exp(0.01 * np.sin(np.arange(240.0))))  # without marks of its own
    drawn = bt.simulate_paths(market, bt.paths.GBM(volatility=2.0), paths=6, horizon="2d")
    test = bt.Backtest(market, venue=free_venue(), account=bt.Account(stop_loss=0.01))
    runner = PathsRunner(drawn, Once(), test, compile=False, has_extremes=True)
    (lives,) = runner.run_chunks()
    for i in range(6):
        run = runner.run_path(i)
        first = run.events[run.events["kind"] == "stop"].iloc[0]
        bar = run.bars.index.get_loc(first["time"]) - 1
        assert lives.least[i, bar] == pytest.approx(9_800.0, rel=1e-9)
        assert (lives.least[i] <= lives.wealth[i]).all()
        assert (lives.most[i] >= lives.wealth[i]).all()


def draw(n, bars, sigma, drift, seed=0):
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.normal(drift, sigma, (n, bars)), axis=1)


def test_a_driftless_constant_quantity_passes_with_b_over_a_plus_b():
    """Gambler's ruin: of wealth that moves as a martingale, b / (a + b) reach a before -b."""
    rules = PLAIN._replace(target=0.2)
    step = 0.02
    found = judge_closes(rules, 1.0 + draw(3_000, 700, step, 0.0), np.zeros(700, np.int64))

    a, b = (each + CORRECTED * step for each in (0.2, 0.1))

    assert np.mean(found == 3) < 0.002
    assert np.mean(found == 0) == pytest.approx(b / (a + b), abs=0.025)


@pytest.mark.parametrize("nu", [-1.0, 1.0])
def test_constant_leverage_passes_with_the_closed_form_of_a_drifting_logarithm(nu):
    """(1 - e^(2 nu b' / s^2)) / (e^(-2 nu a' / s^2) - e^(2 nu b' / s^2)), b' < 0 as a log is."""
    step, bars = 0.02, 700
    drift = nu * step**2
    walks = np.exp(draw(3_000, bars, step, drift))

    found = judge_closes(PLAIN, walks, np.zeros(bars, np.int64))

    up = math.log(1.1) + CORRECTED * step
    down = -math.log(0.9) + CORRECTED * step
    k = 2.0 * nu
    expected = (1.0 - math.exp(k * down)) / (math.exp(-k * up) - math.exp(k * down))

    assert np.mean(found == 0) == pytest.approx(expected, abs=0.025)


def test_the_daily_limit_is_the_recursion_of_the_killed_density():
    """Day by day on a grid: the density of log wealth, killed at both barriers and at the day's."""
    per_day, n_days, step, loss = 4, 20, 0.02, 0.05
    low = math.log(0.9)
    high = math.log(1.1)

    grid = np.linspace(low, high, 242)[1:-1]
    move = np.exp(-0.5 * ((grid[None, :] - grid[:, None]) / step) ** 2) * (grid[1] - grid[0])
    move /= step * math.sqrt(2.0 * math.pi)

    above = np.array([0.5 * math.erfc((high - x) / step / math.sqrt(2.0)) for x in grid])

    day = np.empty((len(grid),) * 2)
    passes = np.zeros(len(grid))
    for k, start in enumerate(grid):
        alive = grid > start + math.log(1.0 - loss)
        density = np.zeros(len(grid))
        density[k] = 1.0
        for _ in range(per_day):
            passes[k] += density @ above
            density = np.where(alive, density @ move, 0.0)
        day[k] = density
    density = np.zeros(len(grid))
    density[np.argmin(np.abs(grid))] = 1.0

    passed = 0.0
    for _ in range(n_days):
        passed += density @ passes
        density = density @ day

    bars = per_day * n_days
    rules = PLAIN._replace(daily_loss=loss)
    found = judge_closes(rules, np.exp(draw(20_000, bars, step, 0.0)), np.arange(bars) // per_day)

    assert np.mean(found == 0) == pytest.approx(passed, abs=0.01)
    survived = density.sum()
    assert np.mean(found == 3) == pytest.approx(survived, abs=0.003)
    assert survived > 0.003
    assert np.mean(found == 1) > 0.3


def test_days_begin_at_midnight_of_the_zone():
    opens = np.array([0, 22, 23, 24, 47]) * 3_600_000_000_000  # Prague is an hour ahead in January
    assert number_days(opens, "Europe/Prague").tolist() == [0, 0, 1, 1, 2]


class Once(bt.Policy):
    """Hold the quantity that was bought first."""

    def leverage(self, bar, account):
        return math.nan if account.position != 0.0 else 2.0


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_paths_and_history_add_up_to_one():
    market = bt.Market.sample(bars=24 * 10)
    test = bt.Backtest(market, venue=free_venue(), account=bt.Account())
    drawn = bt.simulate_paths(market, bt.paths.GBM(volatility=1.5), paths=12, horizon="2d")
    found = test.passing_probability(Once(), paths=drawn, days=2, daily_loss=0.04)

    sums = found.table[["passed", "daily_loss", "max_loss", "undecided"]].sum(axis=1)
    assert sums.tolist() == pytest.approx([1.0, 1.0])
    assert found.table["n"].tolist() == [12.0, 4.0]  # of two days each, from the second day on

    last = found.by_day.iloc[-1]
    assert last.to_dict() == found.table.loc["paths", [*last.index]].to_dict()

    with pytest.raises(bt.ParameterError, match="target"):
        test.passing_probability(Constant(), target=0.0)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
def test_an_account_fails_by_the_daily_loss_where_its_limit_acts(zone):
    """Opens lie up to 3 % from the closes before them, also at the first open of a day."""
    rng = np.random.default_rng(1)
    drawn = bt.Market.sample(bars=24 * 6)

    names = ("open", "high", "low", "close")
    frame = pd.DataFrame({name: getattr(drawn, name) for name in names}, index=drawn.times)
    frame["open"] *= np.exp(rng.normal(0.0, 0.03, len(frame)))
    frame["high"], frame["low"] = frame.max(axis=1), frame.min(axis=1)
    market = bt.Market.from_frames(frame)

    test = bt.Backtest(market, venue=free_venue(), account=bt.Account(daily_loss=0.02, day=zone))
    how = {"paths": 8, "horizon": "2d", "funding": None}
    paths = bt.simulate_paths(market, bt.paths.Stationary(block=12.0), **how)

    rules = {"target": 9.0, "max_loss": 0.99, "daily_loss": 0.02, "days": 2}
    found = test.passing_probability(Constant(leverage=0.4), paths=paths, **rules)

    runner = PathsRunner(paths, Constant(leverage=0.4), test, None, False)
    acted = ["daily_loss" in runner.run_path(i).events["kind"].to_numpy() for i in range(8)]

    assert 0 < sum(acted) < 8
    assert found.table.loc["paths", "daily_loss"] == np.mean(acted)

    opens = number_days(market.time, zone)
    starts = np.flatnonzero(np.diff(opens))[::2][: int(found.table.loc["history", "n"])]
    spans = [market.slice(market.times[k], market.times[k + 48]) for k in starts]

    past = [test.replace(market=x).run(Constant(leverage=0.4)) for x in spans]
    failed = np.mean([("daily_loss" in each.events["kind"].to_numpy()) for each in past])

    assert found.table.loc["history", "daily_loss"] == failed


def test_what_contradicts_a_challenge_is_refused():
    market = bt.Market.sample(bars=24 * 4)
    paths = bt.simulate_paths(market, bt.paths.GBM(volatility=1.0), paths=2, horizon="2d")

    def passing(account=None, **rules):
        test = bt.Backtest(market, venue=free_venue(), account=account or bt.Account())
        return test.passing_probability(Constant(), paths=paths, **rules)

    check_refused(passing, "days must be at most the 2d of the paths, got 30")
    check_refused(lambda: passing(days=1, locked=0.0), "locked is used only with trailing")
    check_refused(lambda: passing(days=1, min_days=2), "min_days must be at most the 1 days")
    check_refused(lambda: passing(days=1, min_days=-1), "min_days must be")
    check_refused(
        lambda: passing(days=1, consistency=1.5), "consistency must be at least 0 and at most 1"
    )

    own = bt.Account(daily_loss=0.04, day="Europe/Prague")
    check_refused(lambda: passing(own, days=1), "daily_loss must be that of the account, 0.04")

    topped = bt.Account(reserve=5.0, margin_call=0.8, top_up_to=0.5)
    check_refused(lambda: passing(topped, days=1), "account.reserve must be left")

    assert len(passing(days=1).by_day) == 1


@pytest.mark.slow
@pytest.mark.compiled
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_accounts_on_paths_meet_the_closed_form():
    """A driftless constant quantity at 2x, seen inside bars: .1 / (.2 + .1)."""
    market = bt.Market.sample(bars=240)
    model = bt.paths.GBM(volatility=0.8, drift=0.0)
    drawn = bt.simulate_paths(market, model, paths=2_000, horizon="60d", funding=None)
    test = bt.Backtest(market, venue=free_venue(), account=bt.Account())
    rules = {"target": 0.2, "max_loss": 0.1, "daily_loss": None}
    found = test.passing_probability(Once(), paths=drawn, days=60, **rules).table.loc["paths"]
    assert found["undecided"] < 0.01
    assert found["passed"] == pytest.approx(1.0 / 3.0, abs=3.0 * math.sqrt(2.0 / 9.0 / 2_000))
