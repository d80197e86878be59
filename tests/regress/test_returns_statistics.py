"""Whether returns differ by more than noise, and what could have been detected."""

from dataclasses import replace

import numpy as np
import pytest

from backtest.regress import compare_baselines
from backtest.regress.text import list_tables
from backtest.regress.tolerances import compare_returns


def grow(changes, was):
    """Return the baseline with daily log returns of N(0, 2 %), and changes to them, planted."""
    steps = np.random.default_rng(7).normal(0.0, 0.02, len(changes)) + changes
    ends = np.tile(np.arange(24) == 23, len(changes)).astype(float)
    unit = 10_000.0 * np.repeat(np.exp(np.cumsum(steps)), 24)
    n = len(ends)
    hours = was.trace.time[0] + np.arange(n) * was.trace.interval
    columns = {name: np.zeros(n) for name in was.trace.columns}
    columns |= {"unit": unit, "equity": unit, "ends_sample": ends}
    return replace(was.trace, time=hours, columns=columns, inputs=None, first_unit=10_000.0)


def draw_noise():
    """Four hundred daily differences of deviation 0.2 %, of mean 0 by construction."""
    noise = np.random.default_rng(1).normal(0.0, 0.002, 400)
    return noise - noise.mean()


def planted(was, changes):
    return compare_returns(grow(np.zeros(len(changes)), was), grow(changes, was))


@pytest.mark.slow
def test_a_policy_that_got_worse_or_better_beyond_noise_is_told(was):
    # the differences have mean -/+ 0.2 % and deviation 0.2 %: 20 standard errors at 400 days
    noise = draw_noise()
    assert planted(was, noise - 0.002).verdict == "worse"
    found = planted(was, noise + 0.002)
    assert found.verdict == "better"
    assert found.low < 0.002 * 365 < found.high
    assert found.p_value == pytest.approx(1 / 2000)


def test_noise_is_indistinguishable(was):
    noise = draw_noise()
    found = planted(was, noise)
    assert found.verdict == "indistinguishable"
    assert found.low < 0.0 < found.high
    assert not found.is_same


def test_what_could_have_been_detected_is_said_per_year(was):
    """Means of 400 days scatter by 0.2 % / 20: 2.8 times that is found in four of five cases."""
    found = planted(was, np.random.default_rng(3).normal(0.0, 0.002, 400))
    assert found.detectable == pytest.approx(2.8 * 0.002 / 20.0 * 365.0, rel=0.2)
    assert found.detectable > found.high - found.difference


def test_the_same_returns_rounding_few_returns_and_ruin_need_no_test(was):
    for changes in (np.zeros(400), np.full(400, 1e-14)):
        found = planted(was, changes)
        assert (found.verdict, found.is_same) == ("indistinguishable", True)
        assert (found.low, found.difference, found.high) == (0.0, 0.0, 0.0)
    found = planted(was, np.full(20, 1e-3))
    assert (found.verdict, found.reason) == ("unknown", "20 returns are too few, 30 are needed")
    whole = grow(np.zeros(400), was)
    unit = whole.columns["unit"].copy()
    unit[5000:] = 0.0
    ruined = replace(whole, columns={**whole.columns, "unit": unit})
    lost = replace(whole, columns={**whole.columns, "unit": np.where(unit > 0.0, unit, np.nan)})
    assert compare_returns(whole, lost).verdict == "unknown"
    assert compare_returns(whole, ruined).verdict == "worse"
    assert compare_returns(ruined, whole).verdict == "better"
    grown = grow(np.full(400, 0.002), was)  # and yet it was closed at its line of ruin
    assert compare_returns(whole, grown, is_ruined=True).verdict == "worse"
    assert compare_returns(grown, whole, was_ruined=True).verdict == "better"


@pytest.mark.slow
def test_in_statistical_mode_returns_decide(was):
    noise = draw_noise()
    base = replace(was, trace=grow(np.zeros(400), was), mode="statistical")
    same = replace(was, trace=grow(noise, was))
    better = replace(was, trace=grow(noise + 0.002, was))
    assert compare_baselines(base, same).exit_code == 0
    assert compare_baselines(base, same, mode="exact").exit_code == 1
    verdict = compare_baselines(base, better)
    assert (verdict.exit_code, verdict.word) == (1, "better")
    assert verdict.reason.startswith("log growth +0.7")
    allowed = compare_baselines(base, better, allow_better=["log_growth"])
    assert (allowed.exit_code, allowed.word) == (0, "better")
    assert "which is allowed" in allowed.reason
    few = replace(base, trace=grow(np.zeros(20), was))
    assert compare_baselines(few, replace(few, trace=grow(np.full(20, 1e-3), was))).exit_code == 2


def test_what_is_not_listed_lies_within_its_noise_and_is_counted(was):
    noise = draw_noise()
    base = replace(was, trace=grow(np.zeros(400), was))
    moved = {name: was.metrics[name] * 1.01 for name in ("cagr", "sharpe", "volatility", "fees")}
    now = replace(was, trace=grow(noise, was), metrics={**was.metrics, **moved})
    verdict = compare_baselines(base, now)
    hidden = {each.name for each in verdict.within_noise}
    assert hidden == {*moved} & {*verdict.noise.within} != set()
    table = next(list_tables(verdict))
    assert {row[0] for row in table.rows} == {*moved} - hidden
    assert table.note.startswith(f"{len(hidden)} moved within noise: ")
    beyond = compare_baselines(base, replace(now, trace=grow(noise - 0.002, was)))
    assert "cagr" not in {each.name for each in beyond.within_noise}
