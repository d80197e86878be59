"""One compiled formula serves all values of what it does not read."""

import sys
from typing import Annotated

import numpy as np
import pytest

import backtest as bt
from backtest.base.compile_choice import COMPILING, Stopwatch, count_as_compiling
from backtest.engine.compile import loop_compiler
from backtest.policy import formula_for
from backtest.policy.formula_reads import find_unread, may_read_of_account
from backtest.strategies.average import Average
from backtest.strategies.capped import Capped
from backtest.strategies.constant import Constant
from backtest.strategies.vol_target import VolTarget
from backtest.sweep.set_evaluator import Evaluator
from backtest.sweep.set_rows import Rows
from backtest.tune.trial_evaluator import Examiner

ROOT_NAMES = frozenset({"liquidation_price"})
WORDS = np.array(["ewma", "parkinson"], dtype=object)


class Switch(bt.Policy):
    """A policy whose formula reads a word."""

    how: Annotated[str, bt.Choice("a", "b")] = "a"

    def leverage(self, bar, account):
        return 1.0 if self.how == "a" else 2.0


class HandsOn(bt.Policy):
    """A policy whose formula hands itself on: what is read of it cannot be told here."""

    how: Annotated[str, bt.Choice("a", "b")] = "a"

    def leverage(self, bar, account):
        mine = self
        return 1.0 if mine is not None else 2.0


class ByName(bt.Policy):
    how: Annotated[str, bt.Choice("a", "b")] = "a"

    def leverage(self, bar, account):
        return 1.0 if getattr(self, "how") == "a" else 2.0  # noqa: B009


@pytest.mark.parametrize(("policy", "unread"), [
    (VolTarget(), {"half_life", "estimator"}),
    (Switch(), set()),
    (HandsOn(), set()),
    (ByName(), set()),
    (Constant(), set()),
    (Capped(VolTarget(), cap=3.0), {"vol_target_half_life", "vol_target_estimator"}),
    (Average(VolTarget(), Switch()), {"vol_target_half_life", "vol_target_estimator"}),
], ids=lambda each: type(each).__name__)  # fmt: skip
def test_what_a_formula_does_not_read_is_told_from_its_code(policy, unread):
    assert find_unread(policy) == unread


def read_it(account):
    return account.liquidation_price


def ask_it(policy, bar, account):
    return account.liquidation_price / bar.close


def ask_another(policy, bar, account):
    return read_it(account)


def ask_by_name(policy, bar, account):
    return getattr(account, "liquidation_" + "price")


def ask_by_place(policy, bar, account):
    return account[10]


def ask_equity(policy, bar, account):
    return account.equity / bar.close


@pytest.mark.parametrize("rule", [ask_it, ask_another, ask_by_name, ask_by_place])
def test_a_formula_that_may_ask_for_the_liquidation_price_is_told(rule):
    assert may_read_of_account(rule, ROOT_NAMES)


def test_the_liquidation_price_is_left_out_where_it_cannot_be_read():
    assert not may_read_of_account(ask_equity, ROOT_NAMES)
    assert not may_read_of_account(formula_for(VolTarget(), ("sigma",)), ROOT_NAMES)


@pytest.mark.slow
def test_a_sweep_compiles_a_formula_for_each_word(monkeypatch):
    compiled = []

    def count(signature, function, **options):
        compiled.append(function.__module__)
        return original(signature, function, **options)

    original = loop_compiler.cfunc
    monkeypatch.setattr(loop_compiler, "cfunc", count)
    monkeypatch.setattr(loop_compiler, "_addressed", {})
    evaluator = Evaluator(
        bt.Market.sample(bars=300),
        VolTarget,
        venue=bt.Venue.preset("binance-usdm", "BTCUSDT"),
        account=bt.Account(),
    )
    rows = evaluator.evaluate({"estimator": WORDS.repeat(4), "target": np.tile([0.2, 0.3], 4)})
    assert rows.errors == [""] * 8
    assert rows.metrics["fees"][0] != rows.metrics["fees"][4]
    assert len([name for name in compiled if name.startswith("lanes_")]) == 2


def test_a_stopwatch_counts_what_overlaps_once(monkeypatch):
    now = iter([0.0, 5.0, 6.0, 8.0])
    monkeypatch.setattr("backtest.base.compile_choice.time.perf_counter", lambda: next(now))
    watch = Stopwatch()
    watch.begin()
    watch.begin()
    assert watch.is_running
    watch.end()
    watch.end()
    assert (watch.seconds, watch.is_running) == (5.0, False)
    watch.begin()
    watch.end()
    assert watch.seconds == 7.0


def test_compiling_is_over_where_it_raised():
    with pytest.raises(ValueError, match="no"), count_as_compiling():
        raise ValueError("no")
    assert not COMPILING.is_running


class Slow:
    """An evaluator whose first answer of each word compiles for 100 seconds, and takes one more."""

    def __init__(self, watch, clock) -> None:
        self.watch, self.clock, self.known = watch, clock, set()

    def evaluate(self, sets, **_):
        for word in {*sets["estimator"]} - self.known:
            self.known.add(word)
            self.clock.now += 100.0
            self.watch.seconds += 100.0
        self.clock.now += 1.0
        n = len(sets["estimator"])
        metrics = {"sharpe": np.ones(n), "ruined": np.zeros(n)}
        return Rows(metrics, None, [""] * n, np.ones(n, dtype=np.bool_))


class Clock:
    now = 0.0
    seconds = 0.0

    def __call__(self) -> float:
        return self.now


class Journal:
    def read_next(self):
        return None

    def append(self, batch) -> None:
        pass


def test_what_compiles_in_a_search_is_not_of_its_seconds(monkeypatch):
    """A budget of five seconds was over after the second word."""
    clock, watch = Clock(), Clock()
    monkeypatch.setattr(sys.modules[Examiner.__module__], "COMPILING", watch)
    goal = type("Goal", (), {"objectives": ("sharpe",)})()
    goal.score = lambda metrics, failed: (metrics["sharpe"][:, None], np.zeros(len(failed)))
    examiner = Examiner(Slow(watch, clock), goal, Journal(), clock=clock)
    sets = {"estimator": np.array([f"word{k // 16}" for k in range(64)], dtype=object)}
    batch = examiner.evaluate(sets, "search", deadline=5.0)
    assert len(batch.sets["estimator"]) == 64
    assert examiner.elapsed <= 5.0
