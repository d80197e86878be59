"""Score sets of parameters in blocks of lanes, on all cores."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.account import without_flows_before
from backtest.base import (
    BacktestError,
    FloatArray,
    IntArray,
    count_cores,
    parse_size,
    run_in_threads,
)
from backtest.engine import Causality, read_signal
from backtest.market import find_clock
from backtest.measures.measure_table import CORE
from backtest.sweep.lane_groups import sort_into_groups
from backtest.sweep.lanes.lane_rows import LANES
from backtest.sweep.lookahead_at_ends import EndsChecker
from backtest.sweep.policy_columns import Columns
from backtest.sweep.sets.sets import Sets, build_policy, count_sets, find_codes, take_sets

if TYPE_CHECKING:  # numba loads with them: where nothing is compiled, columns are only checked
    from backtest.sweep.lanes.block_task import GroupTask, Loops
    from backtest.sweep.lanes.lane_block import BlockFault, Scored

MARKETS = 6
"""Ends of markets whose columns are kept: the parts of a search come again and again."""

FEW_BLOCKS = 32
"""Up to so many blocks it matters which come last: a thread may wait for one of them."""

SAFETY = 2.0
"""A block's columns take this many times their size while they are made."""


class LaneBlock(NamedTuple):
    group: GroupTask
    places: IntArray
    values: Mapping[str, np.ndarray]
    terms: Mapping[str, FloatArray]


class BlockOutcome(NamedTuple):
    places: IntArray
    found: Scored | BlockFault | None


class LaneRunner:
    def __init__(self, evaluator: Any) -> None:
        rule = evaluator.base.signal
        clock = find_clock(evaluator.market)
        given = evaluator.signal if rule is None else rule.compute(clock.seen)
        self.signal = clock.hold(read_signal(given, clock.seen, 0))
        self.market = evaluator.market.with_signal(self.signal)
        self.base = evaluator.base
        self.settings = evaluator.settings
        self.sampling = evaluator.sampling
        self.calendar = evaluator.calendar
        self.is_full = evaluator.metrics != CORE
        self.threads = evaluator.threads or count_cores()
        self.memory = parse_size(evaluator.memory, "memory")
        self._columns: dict[int, Columns] = {}
        self.loops: Loops = {}
        self._lock = threading.Lock()
        self.checker = EndsChecker()

    @property
    def causality(self) -> Causality | None:
        return self.checker.causality

    def score(
        self, sets: Sets, *, first: int, stop: int | None, returns: bool
    ) -> Iterator[BlockOutcome]:
        from backtest.sweep.lanes.lane_block import BlockFault  # noqa: PLC0415 - loads numba

        if count_sets(sets) == 0:
            return
        self.check_causal(sets, stop)
        columns = self._columns_up_to(self.market.n_bars if stop is None else stop)
        blocks = self._split_blocks(sets, columns, first, returns)
        for block, found in run_in_threads(
            score_or_fail, blocks, self._count_threads(columns, sets)
        ):
            if isinstance(found, BaseException) and not isinstance(found, BlockFault):
                raise found
            yield BlockOutcome(block.places, found)

    def _columns_up_to(self, stop: int) -> Columns:
        with self._lock:
            if stop not in self._columns:
                whole = stop == self.market.n_bars
                market = self.market if whole else self.market.prefix(stop)
                build = partial(build_policy, self.base, self.settings)
                self._columns[stop] = Columns(market, build, self.memory / 2 / MARKETS)
                while len(self._columns) > MARKETS:
                    self._columns.pop(next(iter(self._columns)))
            return self._columns[stop]

    def check_causal(self, sets: Sets, stop: int | None = None) -> None:
        end = self.market.n_bars if stop is None else stop
        self.checker.check(self._columns_up_to(end), sets)

    def check_set(self, values: Mapping[str, Any]) -> None:
        self.checker.check_set(self._columns_up_to(self.market.n_bars), values)

    def _split_blocks(
        self, sets: Sets, columns: Columns, first: int, has_returns: bool
    ) -> Iterator[LaneBlock]:
        from backtest.sweep.lanes.block_task import prepare_group  # noqa: PLC0415 - loads numba

        base = self.base
        if first > 0:
            account = without_flows_before(base.account, int(columns.whole.time[first]))
            base = base._replace(account=account)
        for group in sort_into_groups(base, self.settings, sets):
            task = prepare_group(self, group, columns, sets, first, has_returns)
            read = [sets[name][group.rows] for name in reversed(columns.reads) if name in sets]
            order = np.lexsort([find_codes(values) for values in read]) if read else slice(None)
            places = group.rows[order]
            terms = {name: values[order] for name, values in group.terms.items()}
            n_blocks = -(-len(places) // LANES)
            for k in range(n_blocks) if read else order_blocks(n_blocks):
                block = slice(k * LANES, (k + 1) * LANES)
                own = {name: each[places[block]] for name, each in sets.items() if "." not in name}
                yield LaneBlock(task, places[block], own, take_sets(terms, block))

    def _count_threads(self, columns: Columns, sets: Sets) -> int:
        is_own = any(name in sets for name in columns.reads)
        n_columns = columns.count(take_sets(sets, 0))
        each = n_columns * columns.market.n_bars * 8 * LANES * SAFETY if is_own else 0.0
        most = int(self.memory / 2 // each) if each > 0.0 else self.threads
        blocks = -(-count_sets(sets) // LANES)
        return max(1, min(self.threads, most, blocks))


def order_blocks(n: int) -> Iterator[int]:
    if n > FEW_BLOCKS:
        yield from range(n)
        return
    for k in range(n):
        yield k // 2 if k % 2 else n - 1 - k // 2


def score_or_fail(block: LaneBlock, is_stopped: Callable[[], bool]) -> Scored | None:
    from backtest.sweep.lanes.lane_block import BlockFault, score_block  # noqa: PLC0415 - loads numba

    try:
        return score_block(block.group, len(block.places), block.values, block.terms, is_stopped)
    except BacktestError as error:
        raise BlockFault from error
