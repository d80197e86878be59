"""Evaluator that sends sets to the workers of a cluster."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from backtest.base import FloatArray, IntArray, warn_caller
from backtest.engine import Progress
from backtest.market import Market, Markets, as_markets
from backtest.measures.measure_table import STREAMED
from backtest.sweep.cluster.shipped_code import collect_sources, pickle_by_value
from backtest.sweep.cluster.worker import BlockResult, ClusterJob, EvaluatorSettings, WorkBlock
from backtest.sweep.cluster.worker_pool import ClusterLost, Workers
from backtest.sweep.lane_groups import sort_into_groups
from backtest.sweep.lanes.lane_rows import LANES
from backtest.sweep.policy_columns import find_reads
from backtest.sweep.set_evaluator import OF_PATH, Evaluator
from backtest.sweep.set_rows import Rows, put_rows, stack_returns, start_rows
from backtest.sweep.sets.sets import Sets, build_policy, count_sets, find_codes, take_sets

SHARE = 32
"""Blocks per worker, if there are sets enough: small blocks end at about the same time."""
PORTFOLIOS = 32
"""The least number of sets in a block of several positions, each of which takes its time."""
MOST_OBSERVED = 2_048
"""Bars used to find the parameters that a policy's columns depend on."""


class ClusterEvaluator(Evaluator):
    def __init__(self, local: Evaluator, workers: Workers) -> None:
        vars(self).update(vars(local))  # everything else is that of the local evaluator
        self.workers = workers
        self.job = describe_job(local)

    def evaluate(
        self,
        sets: Sets,
        *,
        first: int = 0,
        stop: int | None = None,
        returns: bool = False,
        progress: Progress | None = None,
    ) -> Rows:
        wanted = WorkBlock({}, first, stop, returns or bool(self.equivalents))
        order = sort_sets(self, sets) if self.compile else np.arange(count_sets(sets))
        unit = PORTFOLIOS if self.is_portfolio else LANES
        rows = self._send(sets, order, wanted, unit if self.compile else 1, progress)
        return self.finish_rows(rows, returns)

    def evaluate_path(self, sets: Sets, *, progress: Progress | None = None) -> Rows:
        order = np.arange(count_sets(sets))
        return self._send(sets, order, WorkBlock({}, is_path=True), 1, progress)

    def _send(
        self, sets: Sets, order: IntArray, wanted: WorkBlock, unit: int, progress: Progress | None
    ) -> Rows:
        rows = start_rows(sets, OF_PATH if wanted.is_path else self.measured)
        parts = split_blocks(order, self.workers.count_threads(), unit)
        blocks = [wanted._replace(sets=take_sets(sets, places)) for places in parts]
        sampled: dict[int, FloatArray] = {}
        warned: dict[tuple[str, type[Warning]], None] = {}
        try:
            for result in self.workers.evaluate(self.job, self.market, blocks):
                put_result(rows, parts[result.number], result, sampled)
                warned.update(dict.fromkeys(result.warnings))
                if progress is not None:
                    progress(int(rows.done.sum()), len(rows.done))
        except KeyboardInterrupt:
            pass
        except ClusterLost:
            warned[f"the scheduler at {self.workers.name} is gone", UserWarning] = None
        for text, kind in warned:
            warn_caller(text, kind)
        return rows._replace(returns=stack_returns(sampled, rows)) if wanted.has_returns else rows


def describe_job(evaluator: Evaluator) -> ClusterJob:
    settings = EvaluatorSettings(
        evaluator.base,
        evaluator.signal,
        evaluator.overlay,
        evaluator.sampling,
        evaluator.calendar,
        "all" if evaluator.metrics == STREAMED else "core",
        evaluator.memory,
        evaluator.compile,
    )
    content, sources = pickle_by_value(settings), collect_sources()
    market = hash_market(evaluator.market)
    digest = hashlib.sha256(market.encode() + content)
    digest.update(json.dumps(sources, sort_keys=True).encode())
    return ClusterJob(digest.hexdigest(), market, content, sources)


def hash_market(market: Market | Markets) -> str:
    ends = as_markets(market).last_opens
    content = json.dumps([type(market).__name__, market.content_hash, ends])
    return hashlib.sha256(content.encode()).hexdigest()


def sort_sets(evaluator: Evaluator, sets: Sets) -> IntArray:
    policy = build_policy(evaluator.base, evaluator.settings, take_sets(sets, 0))
    one = next(iter(as_markets(evaluator.market).values()))
    few = one.prefix(min(one.n_bars, MOST_OBSERVED))
    reads = [name for name in find_reads(policy, "observe", few) if name in sets]
    keys = [find_codes(sets[name]) for name in reversed(reads)]
    order = []
    for group in sort_into_groups(evaluator.base, evaluator.settings, sets):
        within = np.lexsort([key[group.rows] for key in keys]) if keys else slice(None)
        order.append(group.rows[within])
    return np.concatenate(order)


def split_blocks(order: IntArray, threads: Sequence[int], unit: int) -> list[IntArray]:
    unit *= max(threads, default=1)
    size = unit * -(-len(order) // (SHARE * max(len(threads), 1) * unit))
    return [order[k : k + size] for k in range(0, len(order), size)]


def put_result(
    rows: Rows, places: IntArray, result: BlockResult, sampled: dict[int, FloatArray]
) -> None:
    if result.rows is not None:
        put_rows(rows, places, result.rows, sampled)
        return
    for place in places.tolist():
        rows.errors[place] = result.error
    rows.done[places] = True
