"""Searches of signals: their shifts in time against runs, the share that is p, and the verdict."""

from dataclasses import replace
from typing import Annotated

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.search import growth_test, shifts, signal_shifts, winner
from backtest.search.equal_risk import hold_at_equal_risk
from backtest.search.signal_shifts import Shift, ShiftedEvaluator, SignalTest
from backtest.search.study import describe_evidence, describe_test
from backtest.signals.rules import MaCross
from backtest.strategies import Constant
from backtest.sweep.set_runs import read_runs
from tests.kit import AT_BINANCE, free_venue

DAYS = bt.Market.sample(bars=24 * 90).resample("1d")
TEST = bt.Backtest(DAYS, **AT_BINANCE, signal=MaCross(2, 5))
SETS = {"signal.fast": np.array([2, 3]), "signal.slow": np.array([5, 9])}


class InAndOut(bt.Policy):
    """In the market while the mean of some returns is positive, by a column."""

    window: Annotated[int, bt.Range(2, 50)] = 5

    def observe(self, market):
        mean = pd.Series(market.close).pct_change().rolling(self.window).mean()
        return {"mean": mean.to_numpy()}

    def leverage(self, bar, account):
        return 1.0 if bar.mean > 0.0 else 0.0


class Given(bt.Policy):
    """In the market while a column of the bars is positive."""

    def observe(self, market):
        return {"given": market.columns["given"]}

    def leverage(self, bar, account):
        return 1.0 if bar.given > 0.0 else 0.0


def make_evaluator(test, policy, *, compiled=True):
    runs = read_runs(test, policy, compile=compiled)
    return runs.make(runs.market, runs.keep_times(), "all")


def test_a_shift_is_neither_none_nor_one_that_knows_prices_to_come():
    """Of 10 days with a memory of 3, shifts by 1 to 6 days are left; a seventh would be by 1."""
    circle = shifts.DayCircle(np.arange(11), 10)
    found = [Shift(day, 3, True).find_rows(circle)[0] for day in range(1, 8)]
    assert found == [9, 8, 7, 6, 5, 4, 9]

    short = shifts.DayCircle(np.arange(4), 3)
    assert Shift(1, 3, True).find_rows(short).tolist() == [0, 1, 2]


@pytest.mark.parametrize("compiled", [True, False])
def test_a_shifted_signal_is_the_run_of_a_signal_that_comes_later(compiled):
    evaluator = make_evaluator(TEST, Constant(1.0), compiled=compiled)
    shift = Shift(11, 4, True)
    (found,) = signal_shifts.run_shifted(evaluator, {k: v[:1] for k, v in SETS.items()}, [shift])

    rule = MaCross(2, 5).compute(DAYS)
    later = pd.Series(np.roll(rule, 11), DAYS.times)
    run = TEST.replace(signal=later).run(Constant(1.0), compile=compiled)

    assert found.metrics["total_return"][0] == pytest.approx(run.metrics["total_return"], rel=1e-9)
    assert found.metrics["fees"][0] == pytest.approx(run.metrics["fees"], rel=1e-9)

    again = ShiftedEvaluator(evaluator, shift).replay({k: v[0] for k, v in SETS.items()})
    assert again.metrics["total_return"] == pytest.approx(run.metrics["total_return"], rel=1e-12)


def test_shifted_columns_are_the_run_of_columns_that_come_later():
    """The mean of 5 returns is known from bar 5 on: 85 days are shifted, the first 5 stay."""
    test = TEST.replace(signal=None)
    evaluator = make_evaluator(test, InAndOut)
    rows = ShiftedEvaluator(evaluator, Shift(7, 2, False)).evaluate({"window": np.array([5, 9])})

    mean = InAndOut(window=5).observe(DAYS)["mean"]
    later = mean.copy()
    later[5:] = np.roll(mean[5:], 7)
    market = replace(DAYS, columns={**DAYS.columns, "given": later})
    run = test.replace(market=market).run(Given())

    assert rows.metrics["total_return"][0] == pytest.approx(run.metrics["total_return"], rel=1e-9)


def test_p_is_the_share_of_shifts_whose_best_set_reaches_the_best():
    """The best of each shift by hand, out of runs of both sets."""
    test = TEST.replace(account=bt.Account())
    study = test.tune(
        Constant(1.0), space={"signal.fast": [2, 3], "signal.slow": [5, 9]}, sampler="grid",
        trials=8, robust=False,
    )  # fmt: skip
    signal = study.verdict.signal

    assert signal.untested == ""
    assert signal.every == 1
    bars = study.task.split
    assert signal.shifts == bars - signal.memory

    part = DAYS.prefix(bars)
    best = []
    rules = [MaCross(fast, slow) for fast in (2, 3) for slow in (5, 9)]

    for day in [0, 1, 2]:
        sharpes = []
        for rule in rules:
            later = pd.Series(np.roll(rule.compute(part), day), part.times)
            run = test.replace(market=part, signal=later).run(Constant(1.0))
            sharpes.append(run.metrics["sharpe"])

        best.append(max(sharpes))

    assert best[0] == pytest.approx(study.table["score"].max(), rel=1e-9)

    # The same shifts as the search makes them, a set at a time.
    kept = {"signal.fast": np.array([2, 2, 3, 3]), "signal.slow": np.array([5, 9, 5, 9])}
    evaluator = make_evaluator(test.replace(market=part), Constant(1.0))

    highest = np.full(2, -np.inf)
    for k in range(4):
        one = {name: values[k : k + 1] for name, values in kept.items()}
        moved = [Shift(day, signal.memory, True) for day in (1, 2)]

        for place, rows in enumerate(signal_shifts.run_shifted(evaluator, one, moved)):
            found = signal_shifts.find_highest(study.task.problem.goal, rows)
            highest[place] = max(highest[place], found)

    assert highest == pytest.approx(best[1:], rel=1e-9)


def test_too_few_days_or_too_many_sets_are_not_tested():
    evaluator = make_evaluator(TEST, Constant(1.0))
    few = signal_shifts.choose_shifts(evaluator, 4, 75, is_of_signal=True)
    assert few == (
        "90 days less 75 that the signal remembers give fewer than 19 shifts; search more days"
    )

    days, every = signal_shifts.choose_shifts(evaluator, 4, 9, is_of_signal=True)
    assert len(days) == 80
    assert every == 1
    assert days[0] == 1
    assert days[-1] == 80

    many = signal_shifts.choose_shifts(evaluator, 100_000, 9, is_of_signal=True)
    assert many.startswith("19 shifts of 100,000 sets would take over 120 s; search at most ")


def test_the_benchmark_of_a_signal_is_the_market_without_it():
    """Short all the way: constant leverage of the signal is short, of the market long."""
    run = TEST.replace(signal=-1.0, venue=free_venue()).run(Constant(1.0))
    held = hold_at_equal_risk(run, is_unsignalled=True)
    assert (held.result.notionals[3:-1] > 0.0).all()
    assert held.result.metrics["volatility"] == pytest.approx(run.metrics["volatility"], rel=1e-3)
    assert (hold_at_equal_risk(run).result.notionals[3:-1] < 0.0).all()


def test_evidence_of_a_signal_is_a_small_share_and_a_gain():
    growth = growth_test.GrowthTest(difference=0.4, p_adjusted=0.9, trials=3.0, untested="")
    found = SignalTest(0.025, 40, every=2, memory=5, gain=0.4, benchmark=winner.UNSIGNALLED)
    verdict = winner.Verdict(9, 0, growth=growth, signal=found, is_unsignalled=True)

    assert verdict.is_evidence
    assert describe_evidence(verdict) == (
        "evidence that the best trial beats the unsignalled market at equal risk: +40.00 % of log "
        "growth a year, adjusted p 0.900; p 0.025 of shifts in time"
    )
    assert [*describe_test(verdict)] == [
        "The best of 9 parameter sets does as well in 1 of 40 shifts in time (one in 2 of the "
        "days), the unshifted one among them; 0.05 or less, and a gain, would be evidence."
    ]

    assert not verdict._replace(signal=found._replace(gain=-0.1)).is_evidence
    behind = verdict._replace(signal=found._replace(holdout_gain=-0.1))
    assert not behind.is_evidence
    assert describe_evidence(behind) == (
        "no evidence that the best trial beats the unsignalled market at equal risk: +40.00 % of "
        "log growth a year, adjusted p 0.900; -10.00 % a year on the holdout; p 0.025 of shifts in "
        "time"
    )

    large = verdict._replace(signal=found._replace(p_value=0.075))
    assert not large.is_evidence
    assert describe_evidence(large).startswith("no evidence that the best trial beats the unsig")

    # Buy and hold stands in where no account at equal risk can be had: its gain has no p-value.
    fallen = verdict._replace(growth=growth_test.GrowthTest(untested="ruined"))
    assert describe_evidence(fallen).endswith("a year; p 0.025 of shifts in time")

    lacking = verdict._replace(signal=SignalTest(untested="too few days"))
    assert not lacking.is_evidence
    assert next(describe_test(lacking)).endswith("in time were not tested: too few days.")


def test_a_market_that_fell_to_nothing_is_compared_with_cash():
    """Own log growth of ln 2 and ln 1.5 over 2 years, the market lost half in each: ln 3 / 2."""
    lines = {"buy and hold": {"total_return": -0.5}}
    parts = [
        growth_test.BenchmarkedPart(lines, np.array([[gain]]), 1.0, 20, "none")
        for gain in (1.0, 0.5)
    ]
    assert growth_test.measure_gain(parts) == pytest.approx(np.log(3.0) / 2.0)

    rose = [part._replace(lines={"buy and hold": {"total_return": 1.0}}) for part in parts]
    assert growth_test.measure_gain(rose) == pytest.approx((np.log(3.0) - 2.0 * np.log(2.0)) / 2.0)
