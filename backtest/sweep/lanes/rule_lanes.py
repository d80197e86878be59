"""Score sets in which parameters of the signal rule vary; lanes of a block share a signal."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

from backtest.base import IntArray, ParameterError, PolicyError, run_in_threads
from backtest.engine import SignalRule
from backtest.market import find_clock
from backtest.sweep.lanes.lane_block import BlockFault
from backtest.sweep.lanes.lane_rows import LANES
from backtest.sweep.lanes.lane_runner import BlockOutcome, LaneBlock, LaneRunner, score_or_fail
from backtest.sweep.lookahead_at_ends import RuleChecker, split_by_signal
from backtest.sweep.sets.sets import Sets, build_signal, count_sets, take_sets

KEPT = 16
"""Number of signals kept with their columns, because a search repeats its best sets."""


class RuleLanes:
    def __init__(self, evaluator: Any) -> None:
        self.base = evaluator.base
        self.market = evaluator.market
        self.lanes = LaneRunner(evaluator)
        self._runners: OrderedDict[SignalRule, LaneRunner] = OrderedDict()
        self._rules = RuleChecker(evaluator.base, evaluator.market)

    @property
    def causality(self) -> Any:
        return self.lanes.causality

    def score(
        self, sets: Sets, *, first: int, stop: int | None, returns: bool
    ) -> Iterator[BlockOutcome]:
        if count_sets(sets) == 0:
            return
        self.check_causal(sets, stop)
        parts = split_by_signal(sets)
        faulty: list[IntArray] = []
        blocks = self._list_blocks(sets, parts, faulty, first, stop, returns)
        most = sum(-(-len(places) // LANES) for places in parts)
        n_threads = max(1, min(self.lanes.threads, most))
        for block, found in run_in_threads(score_or_fail, blocks, n_threads):
            if isinstance(found, BaseException) and not isinstance(found, BlockFault):
                raise found
            yield BlockOutcome(block.places, found)
        for places in faulty:
            yield BlockOutcome(places, BlockFault())

    def check_causal(self, sets: Sets, stop: int | None = None) -> None:
        self.lanes.check_causal(sets, stop)
        self._rules.check(sets)

    def check_set(self, values: Mapping[str, Any]) -> None:
        if self._rules.check_set(values):
            self._find_runner(values).check_set(values)

    def _list_blocks(
        self,
        sets: Sets,
        parts: list[IntArray],
        faulty: list[IntArray],
        first: int,
        stop: int | None,
        returns: bool,
    ) -> Iterator[LaneBlock]:
        for places in parts:
            try:
                runner = self._find_runner(take_sets(sets, int(places[0])))
            except (ParameterError, PolicyError):
                faulty.append(places)
                continue
            columns = runner._columns_up_to(self.market.n_bars if stop is None else stop)
            for block in runner._split_blocks(take_sets(sets, places), columns, first, returns):
                yield block._replace(places=places[block.places])

    def _find_runner(self, values: Mapping[str, Any]) -> LaneRunner:
        rule = build_signal(self.base, values)
        if rule is None:
            return self.lanes
        if rule in self._runners:
            self._runners.move_to_end(rule)
            return self._runners[rule]
        runner = copy.copy(self.lanes)  # shares compiled loops and the record of checks
        clock = find_clock(self.market)
        runner.signal = clock.hold(rule.compute(clock.seen))
        runner.market = self.market.with_signal(runner.signal)
        runner._columns = {}
        self._runners[rule] = runner
        while len(self._runners) > KEPT:
            self._runners.popitem(last=False)
        return runner
