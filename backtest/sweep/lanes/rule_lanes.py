"""Score sets in which parameters of the signal's rule vary."""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from backtest.base import IntArray, ParameterError, PolicyError, count_cores, run_in_threads
from backtest.engine import SignalRule
from backtest.market import find_clock
from backtest.sweep.columns import RuleChecker, split_by_signal
from backtest.sweep.lanes.outcomes import BlockFault, BlockOutcome
from backtest.sweep.lanes.runner import LaneRunner
from backtest.sweep.sets import Sets, count_sets, take_sets

KEPT = 4
"""Number of signals kept with their columns, because a search repeats its best sets."""


class RuleLanes:
    def __init__(self, evaluator: Any) -> None:
        self.evaluator = evaluator
        self.base = evaluator.base
        self.rule: SignalRule = evaluator.base.signal
        self._threads: int = evaluator.threads or count_cores()
        self._lock = threading.Lock()
        self._rules = RuleChecker(evaluator.base, evaluator.market)
        self._runners: OrderedDict[SignalRule, LaneRunner] = OrderedDict()
        self._first = self._make_runner(self.rule)

    @property
    def causality(self) -> Any:
        return self._first.causality

    def score(
        self, sets: Sets, *, first: int, stop: int | None, returns: bool
    ) -> Iterator[BlockOutcome]:
        if count_sets(sets) == 0:
            return
        self.check_causal(sets, first, stop)
        parts = split_by_signal(sets)
        wanted = {"first": first, "stop": stop, "returns": returns}

        yield from self._score_part(parts[0], sets, self._threads, wanted)  # may compile
        if len(parts) == 1:
            return
        n_threads = min(self._threads, len(parts) - 1)
        inner = self._threads // n_threads

        def score_part(places: IntArray, _: Callable[[], bool]) -> list[BlockOutcome]:
            return self._score_part(places, sets, inner, wanted)

        for _, found in run_in_threads(score_part, iter(parts[1:]), n_threads):
            if isinstance(found, BaseException):
                raise found
            yield from found

    def _score_part(
        self, places: IntArray, sets: Sets, threads: int, wanted: Mapping[str, Any]
    ) -> list[BlockOutcome]:
        some = take_sets(sets, places)
        try:
            runner = self._find_runner(take_sets(some, 0))
        except (ParameterError, PolicyError):  # the runs of these sets give the reason
            return [BlockOutcome(places, BlockFault())]
        runner.threads = threads
        found = runner.score(some, **wanted)
        return [each._replace(places=places[each.places]) for each in found]

    def check_causal(self, sets: Sets, first: int = 0, stop: int | None = None) -> None:
        self._first.check_causal(sets, first, stop)
        self._rules.check(sets)

    def check_set(self, values: Mapping[str, Any]) -> None:
        if self._rules.check_set(values):
            self._find_runner(values).check_set(values)

    def _find_runner(self, values: Mapping[str, Any]) -> LaneRunner:
        rule = self.base.build_signal(values) or self.rule
        with self._lock:
            if rule not in self._runners:
                runner = self._make_runner(rule)
                runner._checkers = self._first._checkers
                self._runners[rule] = runner
            self._runners.move_to_end(rule)
            while len(self._runners) > max(KEPT, self._threads):
                self._runners.popitem(last=False)
            return self._runners[rule]

    def _make_runner(self, rule: SignalRule) -> LaneRunner:
        own = copy.copy(self.evaluator)
        own.signal = rule.weigh(find_clock(self.evaluator.markets).seen, is_checked=False)
        own.is_alone = False
        own.base = dataclasses.replace(self.base, signal=None)
        return LaneRunner(own)
