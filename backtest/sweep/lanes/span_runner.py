"""Score sets on several spans of a market, computing the columns of each block once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.account import without_flows_before
from backtest.base import BacktestError, FloatArray, IntArray, run_in_threads
from backtest.market import find_clock
from backtest.sweep.lane_groups import sort_into_groups
from backtest.sweep.lanes.block_task import GroupTask, prepare_group
from backtest.sweep.lanes.lane_block import BlockFault, Scored, fill_lanes, score_block
from backtest.sweep.lanes.lane_rows import LANES
from backtest.sweep.policy_columns import BlockColumns
from backtest.sweep.sets.sets import Sets, count_sets, find_codes, take_sets

if TYPE_CHECKING:
    from backtest.market import Market
    from backtest.sweep.lanes.lane_runner import LaneRunner
    from backtest.sweep.policy_columns import Columns

Span = tuple[int, int]


class CutColumns:
    def __init__(self, whole: Columns, stop: int) -> None:
        is_all = stop == whole.whole.n_bars
        self.whole: Market = whole.whole if is_all else whole.whole.prefix(stop)
        self.n_seen = find_clock(self.whole).seen.n_bars
        self.build = whole.build
        self.block: BlockColumns | None = None

    def holding(self, block: BlockColumns) -> CutColumns:
        held = CutColumns.__new__(CutColumns)
        held.whole, held.build, held.block = self.whole, self.build, block
        held.n_seen = self.n_seen
        return held

    def of_block(self, values: Mapping[str, np.ndarray]) -> BlockColumns:  # noqa: ARG002 - as Columns
        if self.block is None:
            raise TypeError("the columns of a block must be held first")
        n = self.n_seen
        return self.block._replace(
            shared=np.ascontiguousarray(self.block.shared[:, :n]),
            distinct=self.block.distinct[:n],
        )


class SpanBlock(NamedTuple):
    columns: Columns
    tasks: Sequence[GroupTask]
    places: IntArray
    values: Mapping[str, np.ndarray]
    terms: Mapping[str, FloatArray]


def score_spans(
    runner: LaneRunner, sets: Sets, spans: Sequence[Span], *, returns: bool
) -> Iterator[tuple[IntArray, list[Scored] | BlockFault | None]]:
    if count_sets(sets) == 0:
        return
    stop = max(end for _, end in spans)
    runner.check_causal(sets, stop)
    columns = runner._columns_up_to(stop)
    blocks = split_blocks(runner, sets, columns, spans, returns)
    n_threads = runner._count_threads(columns, sets)
    for block, found in run_in_threads(score_or_fail, blocks, n_threads):
        if isinstance(found, BaseException) and not isinstance(found, BlockFault):
            raise found
        yield block.places, found


def split_blocks(
    runner: LaneRunner, sets: Sets, columns: Columns, spans: Sequence[Span], returns: bool
) -> Iterator[SpanBlock]:
    cuts = [CutColumns(columns, stop) for _, stop in spans]
    groups = [
        sort_into_groups(start_base(runner.base, columns, first), runner.settings, sets)
        for first, _ in spans
    ]
    for alike in zip(*groups, strict=True):
        tasks: list[GroupTask] = []
        for group, cut, (first, _) in zip(alike, cuts, spans, strict=True):
            given: Any = cut  # it stands in for Columns
            task = prepare_group(runner, group, given, sets, first, returns)
            tasks.append(task._replace(parts=tasks[0].parts) if tasks else task)
        rows = alike[0].rows
        read = [sets[name][rows] for name in reversed(columns.reads) if name in sets]
        order = np.lexsort([find_codes(values) for values in read]) if read else slice(None)
        places = rows[order]
        terms = {name: values[order] for name, values in alike[0].terms.items()}
        for k in range(-(-len(places) // LANES)):
            block = slice(k * LANES, (k + 1) * LANES)
            own = {name: each[places[block]] for name, each in sets.items() if "." not in name}
            yield SpanBlock(columns, tasks, places[block], own, take_sets(terms, block))


def start_base(base: Any, columns: Columns, first: int) -> Any:
    if first == 0:
        return base
    account = without_flows_before(base.account, int(columns.whole.time[first]))
    return base._replace(account=account)


def score_or_fail(block: SpanBlock, is_stopped: Callable[[], bool]) -> list[Scored] | None:
    try:
        full = {name: fill_lanes(column) for name, column in block.values.items()}
        held = block.columns.of_block(full)
        scored = []
        for task in block.tasks:
            cut: Any = task.columns
            own = task._replace(columns=cut.holding(held))
            found = score_block(own, len(block.places), block.values, block.terms, is_stopped)
            if found is None:
                return None
            scored.append(found)
    except BacktestError as error:
        raise BlockFault from error
    return scored
